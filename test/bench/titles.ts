/** The names of the groups that somebody asks for. */
export const echoTitle = (connections: number, size: string): string =>
  `echo, ${connections.toLocaleString("en")} connection${connections === 1 ? "" : "s"} of ${size}`

export const titles = {
  echo: echoTitle(64, "64 bytes"),
  bulk: "writes of 64 KiB, 1 connection",
  bulkMany: "writes of 64 KiB, 16 connections",
  gather: "writes of 64 x 32 bytes, 1 connection",
  gatherMany: "writes of 64 x 32 bytes, 16 connections",
  tlsEcho: echoTitle(64, "64 bytes over TLS"),
  tlsEchoLarge: echoTitle(64, "4 KiB over TLS"),
  tlsSend: "sending over TLS, 1 connection",
  tlsReceive: "receiving over TLS, 1 connection",
  tlsHandshake: "TLS handshake, 1 byte there and back, close",
  tlsResume: "the same, resuming a session",
  accept: "connect, 1 byte there and back, close",
  idle: "memory of an idle connection",
  interrupt: "interrupting an operation that waits",
  writeAll: "a write that one attempt completes",
  relay: "relay of one connection to another",
  together: "messages of 100 bytes, 64 together",
  oneByOne: "messages of 100 bytes, one by one"
}

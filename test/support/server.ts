/** Servers over a network in memory, and handlers that several test files use. */
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import * as Read from "../../src/Read.ts"
import * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { Transport } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort } from "./addresses.ts"
import { ending } from "./exits.ts"
import { FakeListener } from "./fakes.ts"
import { logs } from "./logs.ts"

/** A server that ends at once with its scope, unless the test says otherwise. */
export const serving = <E, R, L extends Server.Addresses = NetAddress.InetAddress, R2 = never>(
  handler: Server.Handler<E, R>,
  options: Partial<Server.Options<E, L, R2>> = {}
) =>
  Effect.gen(function*() {
    const { capture, lines } = logs()
    const server = yield* capture(
      Server.make<E, R, L | NetAddress.InetAddress, R2>(handler, {
        listen: anyPort,
        shutdown: { deadline: 0 },
        ...options
      })
    )
    const connect = StreamSocket.connect(server.addresses[0])
    return { server, lines, connect }
  })

/** A server with such a listener. */
export const listening = (
  handler: Server.Handler<unknown, never>,
  options: Partial<Server.Options> = {}
) =>
  Effect.gen(function*() {
    const listener = new FakeListener()
    const { lines, server } = yield* Effect.provideService(
      serving(handler, { ...options, listen: anyPort }),
      Transport,
      {
        name: "fake",
        connect: () => Effect.die("not here"),
        listen: () => Effect.succeed(listener)
      }
    )
    return { lines, listener, server }
  })

export const echo: Server.Handler<unknown, never> = (socket) => {
  const buffer = new Uint8Array(64)
  return Effect.forever(Effect.flatMap(
    socket.readSome(buffer),
    (count) => Write.writeAll(socket, buffer.subarray(0, count))
  ))
}

/** The next bytes of a connection, as text. */
export const received = (client: StreamSocket.StreamSocket, count: number) => {
  const target = new Uint8Array(count)
  return Effect.map(Read.readExactly(client, target), () => Buffer.from(target).toString("latin1"))
}

/** How the other end meets the end of its connection: what was sent before it, and one word for the end itself. */
export const farewellOf = (client: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    const buffer = new Uint8Array(1024)
    let text = ""
    while (true) {
      const exit = yield* Effect.exit(client.readSome(buffer))
      if (exit._tag === "Failure") return `${text}${text === "" ? "" : ", "}${ending(exit)}`
      text += Buffer.from(buffer.subarray(0, exit.value)).toString("latin1")
    }
  })

/** Version 1: one line of text. */
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import type { Header } from "../../ProxyProtocol.ts"
import { inetEndpoints } from "./endpoints.ts"

/** The length of the line that the bytes begin with; a text that says what is wrong; `undefined` if more bytes are needed. */
export const sizeOfLine = (bytes: Uint8Array): number | string | undefined => {
  const end = bytes.subarray(0, maxLine).indexOf(LF)
  if (end !== -1) return bytes[end - 1] === CR ? end + 1 : "a PROXY line that ends in LF without CR"
  return bytes.byteLength < maxLine ? undefined : `a PROXY line without an end in its first ${maxLine} bytes`
}

/** The header in a line, or a text that says what is wrong. */
export const decodeLine = (bytes: Uint8Array): Header | string => {
  const line = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1")
  if (unknownLine.test(line)) return { version: 1, command: "proxy" }
  const match = tcpLine.exec(line)
  if (match === null) return `${JSON.stringify(line)} is not a PROXY line`
  // All groups have matched, because none of them is optional.
  const [, family, source, destination, sourcePort, destinationPort] = match as unknown as ReadonlyArray<string>
  const from = addressOf(family!, source!, sourcePort!)
  if (typeof from === "string") return `the source in a PROXY line: ${from}`
  const to = addressOf(family!, destination!, destinationPort!)
  if (typeof to === "string") return `the destination in a PROXY line: ${to}`
  return { version: 1, command: "proxy", endpoints: { transport: "stream", source: from, destination: to } }
}

export const encodeLine = ({ command, endpoints }: Header): string => {
  const inet = command === "local" || endpoints?.transport !== "stream" ? undefined : inetEndpoints(endpoints)
  if (inet === undefined) return "PROXY UNKNOWN\r\n"
  const { destination, source } = inet
  const family = NetAddress.isInetAddressV4(source) ? "TCP4" : "TCP6"
  const addresses = `${NetAddress.formatIp(source.address)} ${NetAddress.formatIp(destination.address)}`
  return `PROXY ${family} ${addresses} ${source.port} ${destination.port}\r\n`
}

// ---- internal

// Bytes, by the specification, with CR and LF.
const maxLine = 107
const LF = 10
const CR = 13

const tcpLine = /^PROXY TCP([46]) ([^ ]+) ([^ ]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n$/
const unknownLine = /^PROXY UNKNOWN(?: .*)?\r\n$/s

const addressOf = (family: string, text: string, port: string): NetAddress.InetAddress | string => {
  const address: Result.Result<NetAddress.IpAddress, NetAddress.NetAddressError> = family === "4"
    ? NetAddress.ipv4FromString(text)
    : NetAddress.ipv6FromString(text)
  if (Result.isFailure(address)) return `${JSON.stringify(text)} is not an IPv${family} address`
  return Number(port) > 65_535 ? `${port} is not a port` : NetAddress.inetAddressUnsafe(address.success, Number(port))
}

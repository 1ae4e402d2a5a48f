/** Version 2: a binary block of a fixed part, two addresses and vectors. */
import * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import * as Buffers from "../../Buffers.ts"
import type { Endpoints, Header } from "../../ProxyProtocol.ts"
import { Reason } from "../../SocketError.ts"
import { formatBytes } from "../base/format.ts"
import { crc32c } from "./crc32c.ts"
import { decodeUtf8, encodeUtf8, inexpressible } from "./encoding.ts"
import { inetEndpoints } from "./endpoints.ts"
import { decodeVectors, encodeVectors, maxLength, vectorHeadLength } from "./tlv.ts"

/** The bytes that every block begins with. */
export const signature = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a)

/** Bytes of the signature, the command, the family and the length. */
export const fixedLength = 16

/** The most bytes that a block can have. */
export const maxBlockLength = fixedLength + maxLength

/**
 * The length of the block that the bytes begin with; what is wrong with it, as early as it can be known; `undefined` if more
 * bytes are needed.
 */
export const sizeOfBlock = (bytes: Uint8Array, max: number): number | string | Reason | undefined => {
  const [versionAndCommand, familyAndTransport] = bytes.subarray(signature.byteLength)
  if (versionAndCommand === undefined) return undefined
  if (versionAndCommand >> 4 !== 2) return `version ${versionAndCommand >> 4} in a binary PROXY header`
  if ((versionAndCommand & 15) > 1) return `command ${versionAndCommand & 15} in a PROXY header`
  if (familyAndTransport === undefined) return undefined
  // The specification says to ignore the family and the transport of LOCAL.
  if ((versionAndCommand & 15) === 1) {
    if (familyAndTransport >> 4 > 3) return `address family ${familyAndTransport >> 4} in a PROXY header`
    if ((familyAndTransport & 15) > 2) return `transport ${familyAndTransport & 15} in a PROXY header`
  }
  if (bytes.byteLength < fixedLength) return undefined
  const size = fixedLength + bytes[14]! * 256 + bytes[15]!
  return size > max
    ? Reason.LimitExceeded({ limit: max, subject: `a PROXY header of ${formatBytes(size)}` })
    : size
}

/** The header in a block, or a text that says what is wrong. The block of LOCAL is never wrong. */
export const decodeBlock = (bytes: Uint8Array): Header | string => {
  const isLocal = (bytes[12]! & 15) === 0
  const family = bytes[13]! >> 4
  // The addresses of LOCAL are to be ignored, whatever their family, so it is not known where the vectors begin.
  if (isLocal && family !== 0) return { version: 2, command: "local" }
  const body = bytes.subarray(fixedLength)
  const length = addressLengths[family]!
  if (body.byteLength < length) {
    return `${formatBytes(body.byteLength)} of addresses in a PROXY header, where ${length} belong`
  }
  const header = { version: 2, command: isLocal ? "local" : "proxy" } as const
  const endpoints = isLocal ? undefined : decodeEndpoints(body.subarray(0, length), family, bytes[13]! & 15)
  if (typeof endpoints === "string") return endpoints
  const fields = decodeVectors(bytes, body.subarray(length))
  // The specification says to accept LOCAL and to discard its block: what a health check puts there need not be vectors.
  if (typeof fields === "string") return isLocal ? { version: 2, command: "local" } : fields
  return endpoints === undefined ? { ...header, ...fields } : { ...header, endpoints, ...fields }
}

export const encodeBlock = (header: Header, checksum: boolean): Uint8Array => {
  const endpoints = header.command === "local" ? undefined : header.endpoints
  const [family, addresses] = endpoints === undefined ? [0, new Uint8Array(0)] : encodeAddresses(endpoints)
  const transport = endpoints === undefined ? 0 : endpoints.transport === "stream" ? 1 : 2
  const body = Buffers.concat([addresses, ...encodeVectors(header, checksum)])
  if (body.byteLength > maxLength) inexpressible(`${formatBytes(body.byteLength)} behind the fixed part`)
  const block = Buffers.concat([
    signature,
    Uint8Array.of(
      0x20 | (header.command === "local" ? 0 : 1),
      (family << 4) | transport,
      body.byteLength >> 8,
      body.byteLength & 255
    ),
    body
  ])
  if (checksum) {
    const at = fixedLength + addresses.byteLength + vectorHeadLength
    new DataView(block.buffer, block.byteOffset).setUint32(at, crc32c(block))
  }
  return block
}

// ---- internal

/** Bytes of both addresses and ports, by family: none, IPv4, IPv6, Unix domain. */
const addressLengths = [0, 12, 36, 216]

/** Bytes of one Unix-domain path. */
const pathLength = 108

const decodeEndpoints = (bytes: Uint8Array, family: number, transport: number): Endpoints | string | undefined => {
  if (family === 0 || transport === 0) return undefined
  const kind = transport === 1 ? "stream" : "datagram"
  if (family === 3) {
    const source = decodePath(bytes.subarray(0, pathLength))
    const destination = decodePath(bytes.subarray(pathLength))
    return source === undefined || destination === undefined
      ? "a path in a PROXY header is not UTF-8"
      : { transport: kind, source, destination }
  }
  const width = family === 1 ? 4 : 16
  const ports = Buffer.from(bytes.buffer, bytes.byteOffset + 2 * width, 4)
  const ip = (from: number): NetAddress.IpAddress =>
    family === 1
      ? NetAddress.ipv4FromBytesUnsafe(bytes.subarray(from, from + width))
      : NetAddress.ipv6FromBytesUnsafe(bytes.subarray(from, from + width))
  return {
    transport: kind,
    source: NetAddress.inetAddressUnsafe(ip(0), ports.readUInt16BE(0)),
    destination: NetAddress.inetAddressUnsafe(ip(width), ports.readUInt16BE(2))
  }
}

/** A path ends at the first zero byte; a name of Linux's abstract namespace begins with one. */
const decodePath = (bytes: Uint8Array): NetAddress.UnixPathAddress | undefined => {
  const end = bytes.indexOf(0, 1)
  const path = decodeUtf8(bytes.subarray(0, end === -1 ? pathLength : end))
  return path === undefined ? undefined : NetAddress.unixPathAddress(path === "\0" ? "" : path)
}

const encodeAddresses = (endpoints: Endpoints): readonly [family: number, bytes: Uint8Array] => {
  const inet = inetEndpoints(endpoints)
  if (inet === undefined) {
    const { destination, source } = endpoints
    return NetAddress.isUnixPathAddress(source) && NetAddress.isUnixPathAddress(destination)
      ? [3, Buffers.concat([encodePath(source), encodePath(destination)])]
      : inexpressible("a Unix-domain address and an IP address are of no one family")
  }
  const { destination, source } = inet
  return [
    NetAddress.isInetAddressV4(source) ? 1 : 2,
    Uint8Array.of(
      ...octetsOf(source.address),
      ...octetsOf(destination.address),
      source.port >> 8,
      source.port & 255,
      destination.port >> 8,
      destination.port & 255
    )
  ]
}

const octetsOf = (address: NetAddress.IpAddress): ReadonlyArray<number> =>
  NetAddress.isIpv4Address(address) ? NetAddress.ipv4ToOctets(address) : NetAddress.ipv6ToOctets(address)

const encodePath = ({ path }: NetAddress.UnixPathAddress): Uint8Array => {
  const bytes = encodeUtf8(path)
  if (bytes.byteLength > pathLength) inexpressible(`a path of ${formatBytes(bytes.byteLength)}`)
  const padded = new Uint8Array(pathLength)
  padded.set(bytes)
  return padded
}

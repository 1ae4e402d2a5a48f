/** The type-length-value vectors of version 2. */
import { Buffer } from "node:buffer"
import * as Buffers from "../../Buffers.ts"
import type { Header, Ssl, Tlv } from "../../ProxyProtocol.ts"
import { formatBytes, formatCount } from "../base/format.ts"
import { crc32c } from "./crc32c.ts"
import { decodeUtf8, encodeLatin1, encodeUtf8, hex, inexpressible } from "./encoding.ts"

/** The most bytes that fit into a length field. */
export const maxLength = 65_535

/** Bytes of the type and the length in front of a value. */
export const vectorHeadLength = 3

/**
 * The fields in the vectors of a block, or a text that says what is wrong. `vectors` are a view of `block`, and the bytes of
 * the checksum are set to zero.
 */
export const decodeVectors = (block: Uint8Array, vectors: Uint8Array): Fields | string => {
  const tlvs = split(vectors, types)
  if (typeof tlvs === "string") return `${tlvs} of a PROXY header`
  const fields: Mutable<Fields> = {}
  const others: Array<Tlv> = []
  for (const tlv of tlvs) {
    const { type, value } = tlv
    switch (type) {
      case Type.noop:
        break
      case Type.crc32c: {
        const wrong = verifyChecksum(block, value)
        if (wrong !== undefined) return wrong
        break
      }
      case Type.alpn:
        fields.alpn = Buffer.from(value).toString("latin1")
        break
      case Type.uniqueId:
        if (value.byteLength > maxUniqueId) return `a unique id of ${formatBytes(value.byteLength)} in a PROXY header`
        fields.uniqueId = value
        break
      case Type.authority:
      case Type.netns: {
        const text = decodeUtf8(value)
        const name = type === Type.netns ? "netns" : "authority"
        if (text === undefined) return `the ${name} in a PROXY header is not UTF-8`
        fields[name] = text
        break
      }
      case Type.ssl: {
        const ssl = decodeSsl(value)
        if (typeof ssl === "string") return ssl
        fields.ssl = ssl
        break
      }
      default:
        others.push(tlv)
    }
  }
  if (others.length > 0) fields.others = others
  return fields
}

/** The vectors of a header. If there is a checksum, it comes first and is zero, to be filled in when the block is complete. */
export const encodeVectors = (header: Header, checksum: boolean): ReadonlyArray<Uint8Array> => {
  const { alpn, authority, netns, others = [], ssl, uniqueId } = header
  if (uniqueId !== undefined && uniqueId.byteLength > maxUniqueId) {
    inexpressible(`a unique id of ${formatBytes(uniqueId.byteLength)}`)
  }
  return [
    ...(checksum ? [vector(Type.crc32c, new Uint8Array(4))] : []),
    ...(alpn === undefined ? [] : [vector(Type.alpn, encodeLatin1(alpn))]),
    ...(authority === undefined ? [] : [vector(Type.authority, encodeUtf8(authority))]),
    ...(uniqueId === undefined ? [] : [vector(Type.uniqueId, uniqueId)]),
    ...(ssl === undefined ? [] : [vector(Type.ssl, encodeSsl(ssl))]),
    ...(netns === undefined ? [] : [vector(Type.netns, encodeUtf8(netns))]),
    ...others.map((tlv) => otherVector(tlv, types))
  ]
}

// ---- internal

type Fields = Omit<Header, "version" | "command">

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

const Type = { alpn: 0x01, authority: 0x02, crc32c: 0x03, noop: 0x04, uniqueId: 0x05, ssl: 0x20, netns: 0x30 } as const

const types: ReadonlySet<number> = new Set(Object.values(Type))

const maxUniqueId = 128

/** The text fields of SSL, by their sub-type. */
const sslTexts = {
  version: 0x21,
  commonName: 0x22,
  cipher: 0x23,
  signatureAlgorithm: 0x24,
  keyAlgorithm: 0x25,
  group: 0x26,
  signatureScheme: 0x27
} as const

// `Object.entries` loses the type of the keys.
const sslTextEntries = Object.entries(sslTexts) as ReadonlyArray<readonly [keyof typeof sslTexts, number]>

const clientCertificate = 0x28

const sslTypes: ReadonlySet<number> = new Set([...Object.values(sslTexts), clientCertificate])

/** Bytes of flags and of the verdict in front of the sub-vectors. */
const sslHeadLength = 5

/** Splits bytes into vectors that fill them. A type in `single`, except padding, may come only once. */
const split = (bytes: Uint8Array, single: ReadonlySet<number>): ReadonlyArray<Tlv> | string => {
  const tlvs: Array<Tlv> = []
  const seen = new Set<number>()
  for (let at = 0; at < bytes.byteLength;) {
    const type = bytes[at]!
    const start = at + vectorHeadLength
    const end = start + (bytes[at + 1] ?? 0) * 256 + (bytes[at + 2] ?? 0)
    if (start > bytes.byteLength || end > bytes.byteLength) {
      return `the vector of type ${hex(type)}, at byte ${formatCount(at)}, goes over the end`
    }
    if (single.has(type) && type !== Type.noop && seen.has(type)) return `a second vector of type ${hex(type)}`
    seen.add(type)
    tlvs.push({ type, value: bytes.subarray(start, end) })
    at = end
  }
  return tlvs
}

const verifyChecksum = (block: Uint8Array, value: Uint8Array): string | undefined => {
  if (value.byteLength !== 4) return `a checksum of ${formatBytes(value.byteLength)} in a PROXY header`
  const found = new DataView(value.buffer, value.byteOffset).getUint32(0)
  // The checksum is computed with zeros in its own place, which is a view of the block.
  value.fill(0)
  const computed = crc32c(block)
  return found === computed
    ? undefined
    : `the checksum of a PROXY header is ${hex(found)} and should be ${hex(computed)}`
}

const decodeSsl = (bytes: Uint8Array): Ssl | string => {
  if (bytes.byteLength < sslHeadLength) return `${formatBytes(bytes.byteLength)} of TLS details in a PROXY header`
  const tlvs = split(bytes.subarray(sslHeadLength), sslTypes)
  if (typeof tlvs === "string") return `${tlvs} of the TLS details in a PROXY header`
  const client = bytes[0]!
  const ssl: Mutable<Ssl> = {
    secure: (client & 1) !== 0,
    certificateOnConnection: (client & 2) !== 0,
    certificateInSession: (client & 4) !== 0,
    verify: new DataView(bytes.buffer, bytes.byteOffset).getUint32(1)
  }
  const others: Array<Tlv> = []
  for (const tlv of tlvs) {
    const entry = sslTextEntries.find(([, type]) => type === tlv.type)
    if (entry !== undefined) {
      const text = decodeUtf8(tlv.value)
      if (text === undefined) return `the TLS ${entry[0]} in a PROXY header is not UTF-8`
      ssl[entry[0]] = text
    } else if (tlv.type === clientCertificate) ssl.clientCertificate = tlv.value
    else others.push(tlv)
  }
  if (others.length > 0) ssl.others = others
  return ssl
}

const encodeSsl = (ssl: Ssl): Uint8Array => {
  const { certificateInSession, certificateOnConnection, others = [], secure, verify } = ssl
  const head = new Uint8Array(sslHeadLength)
  head[0] = (secure ? 1 : 0) | (certificateOnConnection ? 2 : 0) | (certificateInSession ? 4 : 0)
  new DataView(head.buffer).setUint32(1, verify)
  return Buffers.concat([
    head,
    ...sslTextEntries.flatMap(([name, type]) => {
      const text = ssl[name]
      return text === undefined ? [] : [vector(type, encodeUtf8(text))]
    }),
    ...(ssl.clientCertificate === undefined ? [] : [vector(clientCertificate, ssl.clientCertificate)]),
    ...others.map((tlv) => otherVector(tlv, sslTypes))
  ])
}

const vector = (type: number, value: Uint8Array): Uint8Array => {
  if (value.byteLength > maxLength) inexpressible(`a vector of ${formatBytes(value.byteLength)}`)
  return Buffers.concat([Uint8Array.of(type, value.byteLength >> 8, value.byteLength & 255), value])
}

/** A vector that the caller has named by its type, which must not be one that has a field. */
const otherVector = ({ type, value }: Tlv, fields: ReadonlySet<number>): Uint8Array => {
  if (!Number.isInteger(type) || type < 0 || type > 255) inexpressible(`${type} is not a type`)
  if (fields.has(type)) inexpressible(`the type ${hex(type)} has a field of its own`)
  return vector(type, value)
}

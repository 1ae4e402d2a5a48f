/**
 * The PROXY protocol of HAProxy, versions 1 and 2: behind a load balancer, who
 * the client really is; in front of a server, telling it.
 *
 * A header stands in front of everything else on a connection, TLS included. It
 * is believed, so it must only be taken from peers that are trusted to send it:
 * anybody else could pretend to be anybody. That is why `receive` asks for
 * `trusted` and has no default for it.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import * as Buffers from "./Buffers.ts"
import { transferAll } from "./CompletionCondition.ts"
import { formatBytes, formatCount } from "./internal/base/format.ts"
import { chunkSize, type Matcher } from "./internal/core/Matcher.ts"
import type { ReadBuffer } from "./internal/core/ReadBuffer.ts"
import { isWriteStream } from "./internal/operations/isStream.ts"
import * as ComposedRead from "./internal/operations/read.ts"
import * as ComposedWrite from "./internal/operations/write.ts"
import { crc32c } from "./internal/proxy/crc32c.ts"
import { Reason, SocketError } from "./SocketError.ts"
import type { ReadStream, WriteStream } from "./StreamSocket.ts"

/**
 * Version 1 is one line of text and knows the addresses of TCP; version 2 is
 * binary and knows more.
 *
 * @category models
 * @since 0.1.0
 */
export type Version = 1 | 2

/**
 * The two ends of the client's connection to the proxy.
 *
 * **Details**
 *
 * `transport` is what that connection was: `"datagram"` stands for UDP or a
 * Unix-domain datagram socket. Both addresses are of one family.
 *
 * @category models
 * @since 0.1.0
 */
export interface Endpoints {
  readonly transport: "stream" | "datagram"
  /** The client. */
  readonly source: NetAddress.SocketAddress
  /** What the client connected to. */
  readonly destination: NetAddress.SocketAddress
}

/**
 * A type-length-value vector that has no field of its own. `type` is a byte;
 * 0xE0 to 0xEF are free for applications.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tlv {
  readonly type: number
  readonly value: Uint8Array
}

/**
 * What the proxy tells about TLS between the client and itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ssl {
  /** The client connected over TLS. */
  readonly secure: boolean
  /** The client showed a certificate on this connection. */
  readonly certificateOnConnection: boolean
  /** The client showed a certificate at least once in the TLS session that this connection belongs to. */
  readonly certificateInSession: boolean
  /**
   * The proxy's verdict on the certificate, 0 for verified. HAProxy says 0 also
   * where there was no certificate: look at the two fields above first.
   */
  readonly verify: number
  /** Such as `"TLSv1.3"`. */
  readonly version?: string | undefined
  /** The common name in the client's certificate. */
  readonly commonName?: string | undefined
  /** Such as `"ECDHE-RSA-AES128-GCM-SHA256"`. */
  readonly cipher?: string | undefined
  /** How the proxy's certificate is signed, such as `"RSA-SHA256"`. */
  readonly signatureAlgorithm?: string | undefined
  /** The key of the proxy's certificate, such as `"RSA2048"`. */
  readonly keyAlgorithm?: string | undefined
  /** The group of the key exchange, such as `"secp256r1"`. */
  readonly group?: string | undefined
  /** How the proxy signed the handshake, such as `"rsa_pss_rsae_sha256"`. */
  readonly signatureScheme?: string | undefined
  /** The client's certificate, in DER. */
  readonly clientCertificate?: Uint8Array | undefined
  readonly others?: ReadonlyArray<Tlv> | undefined
}

/**
 * A PROXY header.
 *
 * **Details**
 *
 * The command `"local"` means that the proxy speaks for itself, as health checks
 * do. There are no `endpoints` then, nor where the proxy cannot or will not name
 * them: the connection's own addresses count. The other fields exist only in
 * version 2. What was received is memory of the caller's own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Header {
  readonly version: Version
  readonly command: "proxy" | "local"
  readonly endpoints?: Endpoints | undefined
  /** The protocol inside, as TLS negotiated it (`"h2"`); one character a byte. */
  readonly alpn?: string | undefined
  /** The host name that the client asked for, such as the server name of TLS. */
  readonly authority?: string | undefined
  /** Up to 128 bytes by which the proxy tells connections apart. */
  readonly uniqueId?: Uint8Array | undefined
  readonly ssl?: Ssl | undefined
  /** The network namespace. */
  readonly netns?: string | undefined
  readonly others?: ReadonlyArray<Tlv> | undefined
}

/**
 * Whether a peer may speak for others.
 *
 * @category models
 * @since 0.1.0
 */
export type Trust = (peer: NetAddress.SocketAddress) => boolean

/**
 * Trusts whoever can connect. Only where nobody but the proxy can.
 *
 * @category trust
 * @since 0.1.0
 */
export const trustAnyone: Trust = () => true

/**
 * Trusts these peers: an address (`"10.1.2.3"`), a network (`"10.0.0.0/8"`), or
 * `"unix"` for every peer on a Unix-domain socket, where the permissions of the
 * path say who can connect.
 *
 * **Details**
 *
 * An IPv4 peer of a listener for both families is known by its IPv4 address. What
 * is not an address, a network or `"unix"` is a defect (`RangeError`).
 *
 * @category trust
 * @since 0.1.0
 */
export const trustPeers = (
  trusted: ReadonlyArray<string | NetAddress.IpAddress | IpNetwork.IpNetwork>
): Trust => {
  const networks = trusted.filter((entry) => entry !== "unix").map(networkOf)
  const unix = trusted.includes("unix")
  return (peer) => {
    if (NetAddress.isUnixPathAddress(peer)) return unix
    const canonical = NetAddress.toCanonical(peer.address)
    return networks.some((network) =>
      IpNetwork.contains(network, canonical) || IpNetwork.contains(network, peer.address)
    )
  }
}

/**
 * How headers are received.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Which peers may send a header: {@link trustPeers}, or {@link trustAnyone}. */
  readonly trusted: Trust
  /** The versions that are understood. Default both. */
  readonly versions?: ReadonlyArray<Version> | undefined
  /**
   * The longest header of version 2, in bytes (16 to 65,551). Default 4,096. A
   * longer one fails as soon as its length is known; nothing is kept for it.
   */
  readonly max?: number | undefined
}

/**
 * How headers are received that need not be there.
 *
 * @category options
 * @since 0.1.0
 */
export interface OptionalOptions extends Options {
  /**
   * Whether a trusted peer has to send one (default `true`). If not, a connection
   * that begins otherwise is left as it is, and a peer that waits for the server
   * to speak first is waited for in turn.
   */
  readonly required?: boolean | undefined
  /**
   * What becomes of other peers: they are refused (default), or served as plain
   * connections, of which nothing is read. A header that such a peer sends is data
   * then.
   */
  readonly untrusted?: "refuse" | "plain" | undefined
}

/**
 * A stream that knows its peer, as every `StreamSocket` does.
 *
 * @category models
 * @since 0.1.0
 */
export interface Incoming extends ReadStream {
  readonly remoteAddress: NetAddress.SocketAddress
}

/**
 * Receives the header that every connection has to begin with.
 *
 * **Details**
 *
 * Exactly the header is consumed; what follows is the next read's. Waits until it
 * is there, with no time-out of its own: `Effect.timeout` or the deadline of a
 * server bounds that.
 *
 * Fails with
 *
 * - `Untrusted`: the peer is not trusted; nothing was read.
 * - `Framing`: there is no header, or it is malformed, has a wrong checksum, or is
 *   of a version that is not understood; `detail` says what is wrong.
 * - `LimitExceeded`: a header of version 2 is longer than `max`.
 * - `UnexpectedEof`: the stream ended inside it. An end before the first byte is
 *   `Cause.Done`.
 *
 * Nothing is consumed by these, and the connection is good for nothing but to be
 * closed. A path or a text that is not UTF-8, and a field that comes twice, are malformed.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * **Example** (Who is it?)
 *
 * ```ts
 * const trusted = ProxyProtocol.trustPeers(["10.0.0.0/8", "unix"])
 *
 * const handler = (socket: StreamSocket.StreamSocket) =>
 *   Effect.gen(function*() {
 *     const header = yield* ProxyProtocol.receive(socket, { trusted }).pipe(Effect.timeout("3 seconds"))
 *     yield* Console.log(header.endpoints?.source ?? socket.remoteAddress)
 *   })
 * ```
 *
 * @category receiving
 * @since 0.1.0
 */
export const receive: {
  (options: Options): (stream: Incoming) => Pull.Pull<Header, SocketError>
  (stream: Incoming, options: Options): Pull.Pull<Header, SocketError>
} = dual(
  2,
  (stream: Incoming, options: Options): Pull.Pull<Header, SocketError> =>
    // Required, and refused where it is not trusted: there is always one.
    Effect.map(receiving(stream, options, true, "refuse"), Option.getOrThrow)
)

/**
 * Receives the header that a connection may begin with. `None` stands for a
 * connection without one, of which nothing was consumed.
 *
 * **When to use**
 *
 * Use it where proxies and others connect to one address: a header is required of
 * trusted peers, and with `untrusted: "plain"` the others are served without.
 *
 * **Details**
 *
 * Fails as {@link receive} does, which it is by default. With `required: false`,
 * a stream that ends before its first byte is `None` too.
 *
 * **Gotchas**
 *
 * With `required: false`, a trusted proxy decides by its configuration alone
 * whether clients can send a header of their own through it: one that relays bytes
 * and adds no header lets every client pretend.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category receiving
 * @since 0.1.0
 */
export const receiveOption: {
  (options: OptionalOptions): (stream: Incoming) => Pull.Pull<Option.Option<Header>, SocketError>
  (stream: Incoming, options: OptionalOptions): Pull.Pull<Option.Option<Header>, SocketError>
} = dual(
  2,
  (stream: Incoming, options: OptionalOptions): Pull.Pull<Option.Option<Header>, SocketError> =>
    receiving(stream, options, options.required ?? true, options.untrusted ?? "refuse")
)

/**
 * The real ends of a connection: what its header says, or else its own addresses.
 *
 * **Example** (Passing the client on)
 *
 * ```ts
 * const trusted = ProxyProtocol.trustPeers(["10.0.0.0/8"])
 * const header = yield* ProxyProtocol.receiveOption(accepted, { trusted, untrusted: "plain" })
 * const endpoints = ProxyProtocol.endpointsOf(accepted, header)
 * yield* ProxyProtocol.send(upstream, { version: 2, command: "proxy", endpoints })
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export const endpointsOf = (
  socket: {
    readonly remoteAddress: NetAddress.SocketAddress
    readonly localAddress: NetAddress.SocketAddress
  },
  header?: Option.Option<Header>
): Endpoints =>
  (header === undefined ? undefined : Option.getOrUndefined(header)?.endpoints) ??
    { transport: "stream", source: socket.remoteAddress, destination: socket.localAddress }

/**
 * The bytes of a header.
 *
 * **Details**
 *
 * - Version 1 has words only for TCP. Anything else, `"local"` included, is sent
 *   as `UNKNOWN`, and the other fields are left out.
 * - An IPv4 and an IPv6 address together are sent as IPv6, the first one mapped.
 *   The scope of an IPv6 address is left out.
 * - `checksum` adds a CRC-32C to version 2. Default `false`.
 *
 * A header that version 2 cannot express is a defect (`RangeError`): a Unix-domain
 * address together with an IP address, a path over 108 bytes, a unique id over 128
 * bytes, text without UTF-8, more than 65,535 bytes behind the fixed part, and
 * `others` of a type that has a field of its own.
 *
 * @category sending
 * @since 0.1.0
 */
export const encode = (header: Header, options?: { readonly checksum?: boolean | undefined }): Uint8Array =>
  header.version === 1 ? Buffers.utf8(lineOf(header)) : blockOf(header, options?.checksum === true)

/**
 * Sends a header, in one write, and succeeds with its bytes. It has to be the
 * first thing that is sent.
 *
 * **Details**
 *
 * See {@link encode} for what it says in which version, and for defects.
 *
 * **Interruption**: as `Framing.send`. *Total* before the first byte; afterwards
 * `terminal` tears the stream, and `partial` and `total` finish the header.
 *
 * @category sending
 * @since 0.1.0
 */
export const send: {
  (
    header: Header,
    options?: { readonly checksum?: boolean | undefined }
  ): (stream: WriteStream) => Effect.Effect<number, SocketError>
  (
    stream: WriteStream,
    header: Header,
    options?: { readonly checksum?: boolean | undefined }
  ): Effect.Effect<number, SocketError>
} = dual(
  (args) => isWriteStream(args[0]),
  (
    stream: WriteStream,
    header: Header,
    options?: { readonly checksum?: boolean | undefined }
  ): Effect.Effect<number, SocketError> =>
    Effect.suspend(() => ComposedWrite.run(stream, encode(header, options), transferAll, sending))
)

// ---- internal

const sending = { operation: "send", atomic: true }

const networkOf = (entry: string | NetAddress.IpAddress | IpNetwork.IpNetwork): IpNetwork.IpNetwork => {
  if (IpNetwork.isIpNetwork(entry)) return entry
  const network = typeof entry === "string" && entry.includes("/")
    ? IpNetwork.fromString(entry)
    : Result.flatMap(
      NetAddress.ipFromInput(entry),
      (address) => IpNetwork.fromAddress(address, NetAddress.width(address))
    )
  if (Result.isSuccess(network)) return network.success
  throw new RangeError(`ProxyProtocol.trustPeers: ${JSON.stringify(String(entry))}: ${network.failure.message}`)
}

const receiving = (
  stream: Incoming,
  options: Options,
  required: boolean,
  untrusted: "refuse" | "plain"
): Pull.Pull<Option.Option<Header>, SocketError> =>
  Effect.suspend(() => {
    const { max = 4096, trusted, versions = [1, 2] } = options
    if (!Number.isInteger(max) || max < fixedLength || max > fixedLength + maxLength) {
      throw new RangeError(`ProxyProtocol.receive: max ${max} is not from 16 to 65,551`)
    }
    if (!trusted(stream.remoteAddress)) {
      return untrusted === "plain" ? Effect.succeedNone : Effect.fail(
        new SocketError({
          reason: Reason.Untrusted(),
          operation: "receive",
          address: stream.remoteAddress,
          transferred: 0
        })
      )
    }
    return ComposedRead.run(stream, () => new HeaderMatcher(versions, max, required))
  })

class HeaderMatcher implements Matcher<Option.Option<Header>> {
  readonly operation = "receive"
  readonly total = undefined
  readonly runsCallerCode = false
  private readonly versions: ReadonlyArray<Version>
  private readonly max: number
  private readonly required: boolean
  private header: Option.Option<Header> = Option.none()
  private begun = false

  constructor(versions: ReadonlyArray<Version>, max: number, required: boolean) {
    this.versions = versions
    this.max = max
    this.required = required
  }

  /** What ends before it is a header is none, where there need not be one. */
  get endsWithStream(): boolean {
    return !this.required && !this.begun
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    const bytes = buffer.bytes()
    const found = this.look(bytes)
    if (found === undefined || typeof found === "number") return found
    return typeof found === "string" ? malformed(found) : found
  }

  take(buffer: ReadBuffer, length: number): Option.Option<Header> {
    if (Option.isSome(this.header)) buffer.consume(length)
    return this.header
  }

  want(): number {
    return chunkSize
  }

  /** How many bytes the header has; 0 if there is none and need not be; what is wrong; or `undefined` for "not yet". */
  private look(bytes: Uint8Array): number | string | Reason | undefined {
    const version = beginsLike(bytes, signatures[2]) ? 2 : beginsLike(bytes, signatures[1]) ? 1 : undefined
    if (version === undefined) {
      if (!this.required) return 0
      const beginning = Buffer.from(bytes.subarray(0, 12)).toString("latin1")
      return `the connection begins with ${JSON.stringify(beginning)} and not with a PROXY header`
    }
    this.begun = bytes.byteLength >= signatures[version].byteLength
    if (!this.begun) return undefined
    if (!this.versions.includes(version)) return `a PROXY header of version ${version}, which is not accepted here`
    const size = version === 1 ? sizeOfLine(bytes) : sizeOfBlock(bytes, this.max)
    if (typeof size !== "number") return size
    if (bytes.byteLength < size) return undefined
    // A copy: fields are views of it, and the caller may keep them.
    const own = bytes.slice(0, size)
    const header = version === 1 ? readLine(own) : readBlock(own)
    if (typeof header === "string") return header
    this.header = Option.some(header)
    return size
  }
}

const malformed = (detail: string): Reason => Reason.Framing({ detail })

/** As far as both go. */
const beginsLike = (bytes: Uint8Array, signature: Uint8Array): boolean => {
  const length = Math.min(bytes.byteLength, signature.byteLength)
  for (let i = 0; i < length; i++) if (bytes[i] !== signature[i]) return false
  return true
}

const signatures: { readonly [V in Version]: Uint8Array } = {
  1: Buffers.utf8("PROXY "),
  2: Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a)
}

// ---- version 1

const maxLine = 107
const LF = 10
const CR = 13

const sizeOfLine = (bytes: Uint8Array): number | string | undefined => {
  const end = bytes.subarray(0, maxLine).indexOf(LF)
  if (end !== -1) return bytes[end - 1] === CR ? end + 1 : "a PROXY line that ends in LF without CR"
  return bytes.byteLength < maxLine ? undefined : `a PROXY line without an end in its first ${maxLine} bytes`
}

const tcpLine = /^PROXY TCP([46]) ([^ ]+) ([^ ]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n$/
const unknownLine = /^PROXY UNKNOWN(?: .*)?\r\n$/s

const readLine = (bytes: Uint8Array): Header | string => {
  const line = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1")
  if (unknownLine.test(line)) return { version: 1, command: "proxy" }
  const match = tcpLine.exec(line)
  if (match === null) return `${JSON.stringify(line)} is not a PROXY line`
  // All of them are there, because none of the groups is optional.
  const [, family, source, destination, sourcePort, destinationPort] = match as unknown as ReadonlyArray<string>
  const from = addressOf(family!, source!, sourcePort!)
  if (typeof from === "string") return `the source in a PROXY line: ${from}`
  const to = addressOf(family!, destination!, destinationPort!)
  if (typeof to === "string") return `the destination in a PROXY line: ${to}`
  return { version: 1, command: "proxy", endpoints: { transport: "stream", source: from, destination: to } }
}

const addressOf = (family: string, text: string, port: string): NetAddress.InetAddress | string => {
  const address: Result.Result<NetAddress.IpAddress, NetAddress.NetAddressError> = family === "4"
    ? NetAddress.ipv4FromString(text)
    : NetAddress.ipv6FromString(text)
  if (Result.isFailure(address)) return `${JSON.stringify(text)} is not an IPv${family} address`
  return Number(port) > 65_535 ? `${port} is not a port` : NetAddress.inetAddressUnsafe(address.success, Number(port))
}

const lineOf = ({ command, endpoints }: Header): string => {
  const inet = command === "local" || endpoints?.transport !== "stream" ? undefined : inetOf(endpoints)
  if (inet === undefined) return "PROXY UNKNOWN\r\n"
  const { destination, source } = inet
  const family = NetAddress.isInetAddressV4(source) ? "TCP4" : "TCP6"
  const addresses = `${NetAddress.formatIp(source.address)} ${NetAddress.formatIp(destination.address)}`
  return `PROXY ${family} ${addresses} ${source.port} ${destination.port}\r\n`
}

/** Two IP addresses of one family, if they are IP addresses. */
const inetOf = (
  { destination, source }: Endpoints
): { readonly source: NetAddress.InetAddress; readonly destination: NetAddress.InetAddress } | undefined => {
  if (!NetAddress.isInetAddress(source) || !NetAddress.isInetAddress(destination)) return undefined
  return NetAddress.familyOf(source) === NetAddress.familyOf(destination)
    ? { source, destination }
    : { source: mapped(source), destination: mapped(destination) }
}

const mapped = (address: NetAddress.InetAddress): NetAddress.InetAddress =>
  NetAddress.isInetAddressV4(address)
    ? NetAddress.inetAddressUnsafe(NetAddress.toIpv4Mapped(address.address), address.port)
    : address

// ---- version 2

const fixedLength = 16
const maxLength = 65_535
const maxUniqueId = 128
const pathLength = 108

const Type = { alpn: 0x01, authority: 0x02, crc32c: 0x03, noop: 0x04, uniqueId: 0x05, ssl: 0x20, netns: 0x30 } as const

const known: ReadonlySet<number> = new Set(Object.values(Type))

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

// Object.entries forgets the key type.
const sslTextEntries = Object.entries(sslTexts) as ReadonlyArray<readonly [keyof typeof sslTexts, number]>

const clientCertificate = 0x28

const sslKnown: ReadonlySet<number> = new Set([...Object.values(sslTexts), clientCertificate])

const sslFixed = 5

/** As early as it can be told, and before anything is kept for it. */
const sizeOfBlock = (bytes: Uint8Array, max: number): number | string | Reason | undefined => {
  const [versionAndCommand, familyAndTransport] = bytes.subarray(12)
  if (versionAndCommand === undefined) return undefined
  if (versionAndCommand >> 4 !== 2) return `version ${versionAndCommand >> 4} in a binary PROXY header`
  if ((versionAndCommand & 15) > 1) return `command ${versionAndCommand & 15} in a PROXY header`
  if (familyAndTransport === undefined) return undefined
  // The spec wants the family of LOCAL ignored.
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

/** Bytes of both addresses and ports, by family. */
const addressLengths = [0, 12, 36, 216]

const readBlock = (bytes: Uint8Array): Header | string => {
  const isLocal = (bytes[12]! & 15) === 0
  const family = bytes[13]! >> 4
  // Addresses that must be ignored end nobody knows where.
  if (isLocal && family !== 0) return { version: 2, command: "local" }
  const rest = bytes.subarray(fixedLength)
  const length = addressLengths[family]!
  if (rest.byteLength < length) {
    return `${formatBytes(rest.byteLength)} of addresses in a PROXY header, where ${length} belong`
  }
  const header = { version: 2, command: isLocal ? "local" : "proxy" } as const
  const endpoints = isLocal ? undefined : endpointsIn(rest.subarray(0, length), family, bytes[13]! & 15)
  if (typeof endpoints === "string") return endpoints
  const fields = readTlvs(bytes, rest.subarray(length))
  if (typeof fields === "string") return fields
  return endpoints === undefined ? { ...header, ...fields } : { ...header, endpoints, ...fields }
}

const endpointsIn = (bytes: Uint8Array, family: number, transport: number): Endpoints | string | undefined => {
  if (family === 0 || transport === 0) return undefined
  const kind = transport === 1 ? "stream" : "datagram"
  if (family === 3) {
    const source = pathIn(bytes.subarray(0, pathLength))
    const destination = pathIn(bytes.subarray(pathLength))
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
const pathIn = (bytes: Uint8Array): NetAddress.UnixPathAddress | undefined => {
  const end = bytes.indexOf(0, 1)
  const path = textOf(bytes.subarray(0, end === -1 ? pathLength : end))
  return path === undefined ? undefined : NetAddress.unixPathAddress(path === "\0" ? "" : path)
}

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

const readTlvs = (whole: Uint8Array, bytes: Uint8Array): Omit<Header, "version" | "command"> | string => {
  const tlvs = split(bytes, known)
  if (typeof tlvs === "string") return `${tlvs} of a PROXY header`
  const fields: Mutable<Omit<Header, "version" | "command">> = {}
  const others: Array<Tlv> = []
  for (const tlv of tlvs) {
    const { type, value } = tlv
    switch (type) {
      case Type.noop:
        break
      case Type.crc32c: {
        const wrong = checkSum(whole, value)
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
        const text = textOf(value)
        const name = type === Type.netns ? "netns" : "authority"
        if (text === undefined) return `the ${name} in a PROXY header is not UTF-8`
        fields[name] = text
        break
      }
      case Type.ssl: {
        const ssl = readSsl(value)
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

const checkSum = (whole: Uint8Array, value: Uint8Array): string | undefined => {
  if (value.byteLength !== 4) return `a checksum of ${formatBytes(value.byteLength)} in a PROXY header`
  const said = new DataView(value.buffer, value.byteOffset).getUint32(0)
  // `value` is a view of `whole`: the sum is taken with zeros in its place.
  value.fill(0)
  const is = crc32c(whole)
  return said === is ? undefined : `the checksum of a PROXY header is ${hex(said)} and should be ${hex(is)}`
}

const hex = (value: number): string => `0x${value.toString(16)}`

const readSsl = (bytes: Uint8Array): Ssl | string => {
  if (bytes.byteLength < sslFixed) return `${formatBytes(bytes.byteLength)} of TLS details in a PROXY header`
  const tlvs = split(bytes.subarray(sslFixed), sslKnown)
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
      const text = textOf(tlv.value)
      if (text === undefined) return `the TLS ${entry[0]} in a PROXY header is not UTF-8`
      ssl[entry[0]] = text
    } else if (tlv.type === clientCertificate) ssl.clientCertificate = tlv.value
    else others.push(tlv)
  }
  if (others.length > 0) ssl.others = others
  return ssl
}

/** Vectors to the very end; of a type in `single`, padding excepted, there may be only one. */
const split = (bytes: Uint8Array, single: ReadonlySet<number>): ReadonlyArray<Tlv> | string => {
  const tlvs: Array<Tlv> = []
  const seen = new Set<number>()
  for (let at = 0; at < bytes.byteLength;) {
    const type = bytes[at]!
    const start = at + 3
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

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const textOf = (bytes: Uint8Array): string | undefined => {
  try {
    return strictUtf8.decode(bytes)
  } catch {
    return undefined
  }
}

const refuse = (detail: string): never => {
  throw new RangeError(`ProxyProtocol.encode: ${detail}`)
}

const blockOf = (header: Header, checksum: boolean): Uint8Array => {
  const endpoints = header.command === "local" ? undefined : header.endpoints
  const [family, addresses] = endpoints === undefined ? [0, nothing] : addressesOf(endpoints)
  const transport = endpoints === undefined ? 0 : endpoints.transport === "stream" ? 1 : 2
  const { alpn, authority, netns, others = [], ssl, uniqueId } = header
  if (uniqueId !== undefined && uniqueId.byteLength > maxUniqueId) {
    refuse(`a unique id of ${formatBytes(uniqueId.byteLength)}`)
  }
  const body = Buffers.concat([
    addresses,
    ...(checksum ? [vector(Type.crc32c, new Uint8Array(4))] : []),
    ...(alpn === undefined ? [] : [vector(Type.alpn, latin1(alpn))]),
    ...(authority === undefined ? [] : [vector(Type.authority, utf8(authority))]),
    ...(uniqueId === undefined ? [] : [vector(Type.uniqueId, uniqueId)]),
    ...(ssl === undefined ? [] : [vector(Type.ssl, sslBytes(ssl))]),
    ...(netns === undefined ? [] : [vector(Type.netns, utf8(netns))]),
    ...others.map((tlv) => otherVector(tlv, known))
  ])
  if (body.byteLength > maxLength) refuse(`${formatBytes(body.byteLength)} behind the fixed part`)
  const block = Buffers.concat([
    signatures[2],
    Uint8Array.of(
      0x20 | (header.command === "local" ? 0 : 1),
      (family << 4) | transport,
      body.byteLength >> 8,
      body.byteLength & 255
    ),
    body
  ])
  if (checksum) {
    new DataView(block.buffer, block.byteOffset).setUint32(fixedLength + addresses.byteLength + 3, crc32c(block))
  }
  return block
}

const nothing = new Uint8Array(0)

const addressesOf = (endpoints: Endpoints): readonly [family: number, bytes: Uint8Array] => {
  const inet = inetOf(endpoints)
  if (inet === undefined) {
    const { destination, source } = endpoints
    return NetAddress.isUnixPathAddress(source) && NetAddress.isUnixPathAddress(destination)
      ? [3, Buffers.concat([pathBytes(source), pathBytes(destination)])]
      : refuse("a Unix-domain address and an IP address are of no one family")
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

const pathBytes = ({ path }: NetAddress.UnixPathAddress): Uint8Array => {
  const bytes = utf8(path)
  if (bytes.byteLength > pathLength) refuse(`a path of ${formatBytes(bytes.byteLength)}`)
  const padded = new Uint8Array(pathLength)
  padded.set(bytes)
  return padded
}

const sslBytes = (ssl: Ssl): Uint8Array => {
  const { certificateInSession, certificateOnConnection, others = [], secure, verify } = ssl
  const fixed = new Uint8Array(sslFixed)
  fixed[0] = (secure ? 1 : 0) | (certificateOnConnection ? 2 : 0) | (certificateInSession ? 4 : 0)
  new DataView(fixed.buffer).setUint32(1, verify)
  return Buffers.concat([
    fixed,
    ...sslTextEntries.flatMap(([name, type]) => {
      const text = ssl[name]
      return text === undefined ? [] : [vector(type, utf8(text))]
    }),
    ...(ssl.clientCertificate === undefined ? [] : [vector(clientCertificate, ssl.clientCertificate)]),
    ...others.map((tlv) => otherVector(tlv, sslKnown))
  ])
}

const vector = (type: number, value: Uint8Array): Uint8Array => {
  if (value.byteLength > maxLength) refuse(`a vector of ${formatBytes(value.byteLength)}`)
  return Buffers.concat([Uint8Array.of(type, value.byteLength >> 8, value.byteLength & 255), value])
}

const otherVector = ({ type, value }: Tlv, fields: ReadonlySet<number>): Uint8Array => {
  if (!Number.isInteger(type) || type < 0 || type > 255) refuse(`${type} is not a type`)
  if (fields.has(type)) refuse(`the type ${hex(type)} has a field of its own`)
  return vector(type, value)
}

const utf8 = (text: string): Uint8Array => text.isWellFormed() ? Buffers.utf8(text) : refuse("text without UTF-8")

const latin1 = (text: string): Uint8Array => {
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) > 255) refuse("an ALPN with characters that are no bytes")
  }
  return Buffer.from(text, "latin1")
}

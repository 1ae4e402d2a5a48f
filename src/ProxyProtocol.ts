/**
 * The PROXY protocol of HAProxy, versions 1 and 2. A proxy sends a header that
 * names the real client of a connection, and a server behind it receives the
 * header.
 *
 * A header comes before everything else on a connection, TLS included. The server
 * believes it, so it must accept headers only from peers that it trusts: any other
 * peer could claim to be any client. That is why `receive` asks for `trusted` and
 * has no default for it.
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
import * as Buffers from "./Buffers.ts"
import { transferAll } from "./CompletionCondition.ts"
import { isWriteStream } from "./internal/operations/isStream.ts"
import * as ComposedRead from "./internal/operations/read.ts"
import * as ComposedWrite from "./internal/operations/write.ts"
import { encodeBlock, fixedLength, maxBlockLength } from "./internal/proxy/block.ts"
import { HeaderMatcher } from "./internal/proxy/HeaderMatcher.ts"
import { encodeLine } from "./internal/proxy/line.ts"
import { Reason, SocketError } from "./SocketError.ts"
import type { ReadStream, WriteStream } from "./StreamSocket.ts"

/**
 * Version 1 is one line of text with the addresses of a TCP connection. Version 2 is
 * binary, and has other addresses and more fields.
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
 * `transport` says how the client is connected: `"datagram"` stands for UDP or a
 * Unix-domain datagram socket. Both addresses are of one family.
 *
 * @category models
 * @since 0.1.0
 */
export interface Endpoints {
  readonly transport: "stream" | "datagram"
  /** The client. */
  readonly source: NetAddress.SocketAddress
  /** The address that the client has connected to. */
  readonly destination: NetAddress.SocketAddress
}

/**
 * A type-length-value vector for which {@link Header} or {@link Ssl} has no field.
 * `type` is a byte; 0xE0 to 0xEF are free for applications.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tlv {
  readonly type: number
  readonly value: Uint8Array
}

/**
 * The statement of the proxy about TLS between the client and itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ssl {
  /** Whether the client is connected over TLS. */
  readonly secure: boolean
  /** Whether the client has sent a certificate on this connection. */
  readonly certificateOnConnection: boolean
  /** Whether the client has sent a certificate at least once in the TLS session that this connection belongs to. */
  readonly certificateInSession: boolean
  /**
   * The result of the proxy's verification of the certificate, 0 for verified. HAProxy
   * also sends 0 if there was no certificate, so look at the two fields above first.
   */
  readonly verify: number
  /** The version of TLS, such as `"TLSv1.3"`. */
  readonly version?: string | undefined
  /** The common name in the client's certificate. */
  readonly commonName?: string | undefined
  /** The cipher suite, such as `"ECDHE-RSA-AES128-GCM-SHA256"`. */
  readonly cipher?: string | undefined
  /** The algorithm that has signed the proxy's certificate, such as `"RSA-SHA256"`. */
  readonly signatureAlgorithm?: string | undefined
  /** The key of the proxy's certificate, such as `"RSA2048"`. */
  readonly keyAlgorithm?: string | undefined
  /** The group of the key exchange, such as `"secp256r1"`. */
  readonly group?: string | undefined
  /** The algorithm with which the proxy has signed the handshake, such as `"rsa_pss_rsae_sha256"`. */
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
 * The command `"local"` means that the proxy has opened the connection for itself,
 * for example for a health check. There are no `endpoints` then, nor if the proxy
 * does not know or does not name them; the addresses of the connection count
 * instead. What the block of a `"local"` header holds is never an error: fields that
 * cannot be read are skipped, all of them. The other fields exist only in version 2.
 * The memory of a received header belongs to the caller.
 *
 * @category models
 * @since 0.1.0
 */
export interface Header {
  readonly version: Version
  readonly command: "proxy" | "local"
  readonly endpoints?: Endpoints | undefined
  /** The application protocol (ALPN), such as `"h2"`; one character for each byte. */
  readonly alpn?: string | undefined
  /** The host name that the client has asked for, such as the server name of TLS (SNI). */
  readonly authority?: string | undefined
  /** Up to 128 bytes by which the proxy identifies the connection. */
  readonly uniqueId?: Uint8Array | undefined
  readonly ssl?: Ssl | undefined
  /** The name of the network namespace. */
  readonly netns?: string | undefined
  readonly others?: ReadonlyArray<Tlv> | undefined
}

/**
 * Decides whether a peer may name a client other than itself.
 *
 * @category models
 * @since 0.1.0
 */
export type Trust = (peer: NetAddress.SocketAddress) => boolean

/**
 * Trusts every peer. For an address that only the proxy can connect to.
 *
 * @category trust
 * @since 0.1.0
 */
export const trustAnyone: Trust = () => true

/**
 * Trusts the peers with these addresses (`"10.1.2.3"`) or in these networks
 * (`"10.0.0.0/8"`). `"unix"` trusts every peer on a Unix-domain socket, where the
 * permissions of the path decide which programs can connect.
 *
 * **Details**
 *
 * A peer that a listener for both families shows as an IPv4-mapped IPv6 address
 * matches by its IPv4 address too. An entry that is not an address, a network or
 * `"unix"` is a defect (`RangeError`).
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
 * Options of {@link receive}.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Which peers may send a header: {@link trustPeers}, or {@link trustAnyone}. */
  readonly trusted: Trust
  /** The versions that are accepted. Default both. */
  readonly versions?: ReadonlyArray<Version> | undefined
  /**
   * The longest header of version 2, in bytes (16 to 65,551). Default 4,096. A
   * longer one fails as soon as its length has arrived, and takes no memory.
   */
  readonly max?: number | undefined
}

/**
 * Options of {@link receiveOption}.
 *
 * @category options
 * @since 0.1.0
 */
export interface OptionalOptions extends Options {
  /**
   * Whether a trusted peer has to send a header (default `true`). If not, a connection
   * that begins with other bytes stays unread. Both sides wait for each other if the
   * peer sends no header and expects the server to send first.
   */
  readonly required?: boolean | undefined
  /**
   * What to do with a peer that is not trusted: `"refuse"` it (default), or serve it as a
   * `"plain"` connection, which stays unread. A header that such a peer sends is data
   * for the next read.
   */
  readonly untrusted?: "refuse" | "plain" | undefined
}

/**
 * A stream that has the address of its peer, as every `StreamSocket` does.
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
 * Succeeds with the header. Only its bytes are consumed; the bytes behind it are for
 * the next read. It waits for the header without a time-out of its own, so bound it
 * with `Effect.timeout`, or let a server do it (`Server.Limits.handshake`).
 *
 * Fails with
 *
 * - `Untrusted`: the peer is not trusted. Nothing was read.
 * - `Framing`: there is no header, or it is malformed, has a wrong checksum, or is
 *   of a version that is not accepted. `detail` says what is wrong. A text that is
 *   not UTF-8 and a field that comes twice are malformed.
 * - `LimitExceeded`: a header of version 2 is longer than `max`.
 * - `UnexpectedEof`: the stream has ended inside the header. If it has ended before
 *   the first byte, the failure is `Cause.Done`.
 *
 * These failures consume nothing. The connection is then of no use but to be closed.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * **Example** (Printing the address of the real client)
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
    // A header is required and peers without trust are refused, so success always has one.
    Effect.map(receiving(stream, options, true, "refuse"), Option.getOrThrow)
)

/**
 * Receives the header that a connection may begin with. Succeeds with `None` for a
 * connection without a header, and consumes nothing then.
 *
 * **When to use**
 *
 * Use it if proxies and other peers connect to one address. Trusted peers must send a
 * header, and with `untrusted: "plain"` the other peers are served without one.
 *
 * **Details**
 *
 * With the default options it does the same as {@link receive}, and it fails as
 * `receive` does. With `required: false`, a stream that ends before its first byte is
 * `None` too.
 *
 * **Gotchas**
 *
 * With `required: false`, a trusted proxy must be configured to send a header on every
 * connection. A proxy that only relays bytes passes on headers that clients send
 * themselves, and then every client can claim any address.
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
 * The real ends of a connection: those in its header, or its own addresses if there
 * is no header, or none with endpoints.
 *
 * **Example** (Passing the address of the client on)
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
 * - Version 1 can express TCP only. Any other header, `"local"` included, is encoded
 *   as `UNKNOWN`. Fields other than `endpoints` are left out.
 * - An IPv4 and an IPv6 address together are encoded as IPv6, with the IPv4 address
 *   mapped. The scope of an IPv6 address is left out.
 * - `checksum` adds a CRC-32C to version 2. Default `false`.
 *
 * A header that version 2 cannot express is a defect (`RangeError`): a Unix-domain
 * address together with an IP address, a path over 108 bytes, a unique id over 128
 * bytes, text that UTF-8 cannot encode, more than 65,535 bytes behind the fixed part,
 * and a vector in `others` whose type has a field of its own.
 *
 * @category sending
 * @since 0.1.0
 */
export const encode = (header: Header, options?: { readonly checksum?: boolean | undefined }): Uint8Array =>
  header.version === 1 ? Buffers.utf8(encodeLine(header)) : encodeBlock(header, options?.checksum === true)

/**
 * Sends a header in one write and succeeds with the number of its bytes. A header must
 * be the first thing that is sent on a connection.
 *
 * **Details**
 *
 * Fails as `Write.writeAll` does. {@link encode} lists what each version can express,
 * and what is a defect.
 *
 * **Interruption**: as for `Framing.send`. *Total* before the first byte is taken. After
 * that, `terminal` tears the stream, and `partial` and `total` finish the header.
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
    if (!Number.isInteger(max) || max < fixedLength || max > maxBlockLength) {
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

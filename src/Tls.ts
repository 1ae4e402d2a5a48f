/**
 * TLS over any stream.
 *
 * `client` and `server` take over a connected stream and succeed with a stream in
 * its place. Composed operations work on it unchanged, and their counts are as
 * exact as before. The stream below is consumed. It may be a TCP or Unix-domain
 * socket of any transport, a connection of the in-memory network, another stream
 * over TLS, or a stream of your own.
 *
 * **Details**
 *
 * - The engine is OpenSSL, by way of `node:tls`. On a TCP socket of
 *   `NodeTransport`, `node:tls` works directly on the socket of `node:net`. On every
 *   other stream, this library passes the ciphertext between the stream and
 *   `node:tls`.
 * - `writeSome` takes at most one slice of plaintext (64 KiB) at a time, as on a
 *   plain `NodeTransport` socket. Plaintext that was taken always becomes complete
 *   records. A write that waits has taken nothing.
 * - `shutdownWrite` sends `close_notify` and FIN, and so does `close`. If both sides
 *   have sent data, `close` then waits for the peer's `close_notify`: a reset at that
 *   moment would cost a peer that still sends what it has not received yet. The wait
 *   ends after 500 milliseconds in which the peer sends nothing, and with the linger
 *   time at the latest. The descriptor is then released without a reset.
 * - A peer that ends the connection without `close_notify` has not ended the TLS
 *   stream: reads fail with reason `Tls` of kind `truncated`. There is one exception.
 *   Directly on a TCP socket of `NodeTransport`, `node:tls` reports both as the end of
 *   the stream, and before Node 24 also a reset that comes right behind bytes.
 *   {@link CommonOptions.strictEnd} tells them apart there too.
 *
 * **Gotchas**
 *
 * A server of TLS 1.3 sends session tickets right after the handshake. If a client
 * writes, reads nothing and closes before the tickets arrive, the kernel answers
 * them with a reset, and the server may lose what it has not received yet. To rule
 * that out, run `shutdownWrite` and read to the end before `close`, as on any
 * connection.
 *
 * If the certificate of a server is rejected, or that of a client because of its
 * contents, `node:tls` closes the connection without an alert: the peer sees only
 * the end of the connection. Over the in-memory network, an alert that is sent in
 * the same turn of the event loop as other bytes may be lost in the same way.
 *
 * If the peer disconnects during the last flight of the handshake, `node:tls`
 * reports nothing, and completes no write from then on. This library finds that out:
 * such writes fail with the reason of the connection, such as `ConnectionReset` or
 * `BrokenPipe`.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { X509Certificate } from "node:crypto"
import { secureClient } from "./internal/tls/client.ts"
import { type ContextTypeId, makeContext, secureServer } from "./internal/tls/server.ts"
import { TypeId } from "./internal/tls/upgrade.ts"
import type { SocketError } from "./SocketError.ts"
import type * as StreamSocket from "./StreamSocket.ts"
import type { SocketOptions } from "./Transport.ts"

/**
 * A stream that TLS can run over: a `StreamSocket`, or any object that has these
 * members of one and keeps their promises.
 *
 * @category models
 * @since 0.1.0
 */
export type Underlying =
  & StreamSocket.ReadStream
  & StreamSocket.WriteStream
  & Pick<StreamSocket.StreamSocket, "localAddress" | "remoteAddress" | "shutdownWrite" | "close" | "abort">

/**
 * A stream over TLS.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsSocket extends StreamSocket.StreamSocket {
  readonly [TypeId]: typeof TypeId
  readonly tls: ConnectionInfo
}

/**
 * The outcome of a handshake: what the two peers have agreed on, and how they have
 * proved their identities.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectionInfo {
  /** `"TLSv1.3"`, `"TLSv1.2"`, ... */
  readonly protocol: string
  /** The standard name of the cipher suite, such as `"TLS_AES_256_GCM_SHA384"`. */
  readonly cipher: string
  /** The application protocol (ALPN); `undefined` if none was negotiated. */
  readonly alpn: string | undefined
  /**
   * The server name that the client has sent (SNI); `undefined` if it has sent none, and on a server of TLS 1.2 that has
   * resumed a session.
   */
  readonly servername: string | undefined
  /** Whether an earlier session was resumed. Certificates are not sent again then. */
  readonly resumed: boolean
  /**
   * Whether the certificate of the peer was verified. On a client it is always `true`, unless verification was skipped. On a
   * server it is `true` if the client has sent a valid certificate.
   */
  readonly authorized: boolean
  /**
   * Why the certificate of the peer is not valid, as a code of OpenSSL or Node such as `"CERT_HAS_EXPIRED"`; `undefined` if
   * it is valid, and if the peer has sent none.
   */
  readonly authorizationError: string | undefined
  /**
   * The certificate that the peer has sent; `undefined` if it has sent none, on a client that has resumed a session, and if it
   * is first asked for after the connection has ended.
   */
  readonly peerCertificate: X509Certificate | undefined
  /**
   * On a client, the newest session that the server has sent, for a later connection to resume
   * ({@link ClientOptions.session}). If the server has sent none, it is the session that was resumed. With TLS 1.3 a session
   * arrives right behind the first bytes that are read.
   */
  readonly session: Session | undefined
}

/**
 * A session that a client can resume. It holds the secrets of the session, and the
 * trust in the server from the handshake that began it: a client that resumes it
 * does not see certificates again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Session {
  /** The name of the server. The session is ignored for any other name. */
  readonly servername: string
  /** Whether the server was verified when the session began. If not, only a client that skips verification can resume it. */
  readonly verified: boolean
  readonly data: Redacted.Redacted<Uint8Array>
}

/**
 * PEM, as text or bytes: a key, or a certificate, followed by the certificates of
 * the authorities between it and a root.
 *
 * @category models
 * @since 0.1.0
 */
export type Pem = string | Uint8Array

/**
 * The certificate and the key with which one side proves its identity.
 *
 * @category options
 * @since 0.1.0
 */
export interface Identity {
  /** The certificate, followed by its chain; or several, for keys of different types. */
  readonly certificate: Pem | ReadonlyArray<Pem>
  /** The private key of the certificate; one for each certificate if there are several. */
  readonly key: Redacted.Redacted<Pem> | ReadonlyArray<Redacted.Redacted<Pem>>
  /** The passphrase of an encrypted key. */
  readonly passphrase?: Redacted.Redacted | undefined
}

/**
 * A version of the protocol.
 *
 * @category options
 * @since 0.1.0
 */
export type Version = "TLSv1" | "TLSv1.1" | "TLSv1.2" | "TLSv1.3"

/**
 * Options of both sides.
 *
 * @category options
 * @since 0.1.0
 */
export interface CommonOptions {
  /** The authorities to trust, instead of those that Node comes with. With an empty list no certificate is trusted. */
  readonly ca?: Pem | ReadonlyArray<Pem> | undefined
  /** The oldest version to accept. Default `"TLSv1.2"`. Older ones are not secure any more, and also need weaker `ciphers`. */
  readonly minVersion?: Version | undefined
  /** The newest version to accept. Default `"TLSv1.3"`. */
  readonly maxVersion?: Version | undefined
  /** Cipher suites in OpenSSL's notation, in order of preference. Default: Node's. */
  readonly ciphers?: string | undefined
  /** Application protocols (ALPN) in order of preference. A server refuses a client that offers none of them. */
  readonly alpn?: ReadonlyArray<string> | undefined
  /** How long the handshake may take. Default 10 seconds. */
  readonly deadline?: Duration.Input | undefined
  /**
   * Called with each line of a key log (`SSLKEYLOGFILE`), with which the traffic
   * can be decrypted: for debugging only. An exception of it is logged, and the
   * connection goes on.
   */
  readonly keyLog?: ((line: Uint8Array) => void) | undefined
  /**
   * How an end of the connection without `close_notify` reads.
   *
   * With `true`, a failure: reason `Tls` of kind `truncated`, on every stream. With
   * `false`, the end of the stream (`Done`), on every stream; then an attacker on the
   * way can cut the stream short unseen, so the protocol above has to know where its
   * messages end.
   *
   * By default it is a failure on every stream but the TCP sockets of
   * `NodeTransport`, where telling is dear: there `node:tls` has to read the
   * ciphertext through JavaScript. Measured with echoes of 64 bytes, the server then
   * needs 50 % to 60 % more processor time for each message and answers 30 % fewer of
   * them. Bare `node:tls` over a `Duplex` pays the same price.
   */
  readonly strictEnd?: boolean | undefined
  /**
   * The treatment of bytes that were received before the handshake and that no read
   * has taken.
   *
   * `"refuse"`, the default, fails and leaves the stream as it was: in a protocol that
   * upgrades (STARTTLS), such bytes are an attempt to smuggle plaintext in. Only a
   * server accepts them if they begin as the handshake of a client does. If plaintext
   * was exchanged before, bytes that the transport has at hand count as well.
   *
   * `"handshake"` passes the bytes to the handshake, whatever they are. With either
   * value, reads never return them as if they had come through TLS.
   */
  readonly unread?: "refuse" | "handshake" | undefined
  /** The most bytes of plaintext that one attempt takes. Default 65,536. */
  readonly sliceSize?: SocketOptions["sliceSize"]
}

/**
 * Options of {@link client}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientOptions extends CommonOptions, Partial<Identity> {
  /**
   * The name that the certificate of the server must have: a DNS name, which is also sent to the server (SNI), or an IP
   * address. Internationalized names (IDN) and a dot at the end are allowed; the zone of an IPv6 address is not compared. A
   * missing name, or one that cannot be a name, is a defect.
   */
  readonly servername: string
  /** A session of an earlier connection, to be resumed. One for another `servername` is ignored. */
  readonly session?: Session | undefined
  /**
   * Accept any certificate from any peer. The connection is encrypted, but it may lead
   * to an attacker. For tests and experiments. Any other value than this sentence is
   * ignored.
   */
  readonly dangerouslySkipVerification?: "anybody can pretend to be the server" | undefined
}

/**
 * Options of {@link server}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ServerOptions extends CommonOptions, Identity {
  /**
   * Chooses the identity for the server name that a client has sent (SNI), in lower case; `undefined` chooses the identity of
   * these options. Return the same object for the same identity, because each object is prepared once. An effect runs in the
   * environment of the handshake, and its failure fails the handshake.
   */
  readonly identityFor?:
    | ((servername: string) => Identity | undefined | Effect.Effect<Identity | undefined, unknown>)
    | undefined
  /**
   * Ask clients for a certificate. With `"request"`, `ConnectionInfo.authorized` says whether the client has sent a valid one.
   * With `"require"`, the handshake fails unless the client sends one that an authority in `ca` has signed.
   */
  readonly clientCertificate?: "request" | "require" | undefined
  /**
   * 48 random bytes that encrypt session tickets. Processes with the same `ticketKeys` can resume each other's sessions, if
   * they also have the same `clientCertificate` and, if that is set, the same `ca`. Default: new ones for each context.
   */
  readonly ticketKeys?: Redacted.Redacted<Uint8Array> | undefined
}

/**
 * The prepared options of a server. Connections of one context can resume each
 * other's sessions.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerContext {
  readonly [ContextTypeId]: typeof ContextTypeId
  /**
   * Replaces all options for handshakes that begin from now on, for example because a
   * certificate is about to expire. Earlier connections and handshakes are not
   * changed. Earlier sessions are not resumed, unless the old and the new options have
   * the same `ticketKeys`. Fails with reason `Tls` and changes nothing if the options
   * cannot be used.
   *
   * **Interruption**: none needed; it does not wait.
   */
  readonly reload: (options: ServerOptions) => Effect.Effect<void, SocketError>
}

/**
 * Returns `true` when a value is a `TlsSocket`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTlsSocket = (u: unknown): u is TlsSocket => typeof u === "object" && u !== null && TypeId in u

/**
 * Speaks TLS as a client over a connected stream. Succeeds with the stream over TLS
 * when the handshake is done, and closes it with the scope.
 *
 * **Details**
 *
 * The stream is consumed: from here on its operations fail with reason `Consumed`,
 * and closing it closes the new one. A stream that was not made by this library is
 * consumed too, but nothing stops a program from using it. It must not be used any
 * more.
 *
 * The certificate of the server is verified against `ca`, or the authorities that
 * Node comes with, and against `servername`. No environment variable and no flag of
 * Node turns that off.
 *
 * Fails with
 *
 * - `Tls` of kind `certificate`: the certificate has expired, is for another name, is
 *   signed by an unknown authority, ...;
 * - `Tls` of kind `handshake`: there is no common version, cipher or application
 *   protocol, the deadline has passed, or the peer has ended the connection;
 * - `Tls` of kind `protocol`: the peer does not speak TLS, or there are unread bytes
 *   ({@link CommonOptions.unread});
 * - the reason of the connection, such as `ConnectionReset`;
 * - `Tls`: the options of this side cannot be used, for example because the key does
 *   not belong to the certificate;
 * - `Busy`, `Closed`, `Torn` and their like: the stream cannot be taken over, because
 *   operations wait on it, or because it is closed, torn or failed. If it has ended,
 *   the reason is `Tls` of kind `handshake`.
 *
 * The stream stays as it was if it cannot be taken over, if it has unread bytes, and
 * if the options cannot be used. After any other failure it is closed.
 *
 * **Interruption**: *terminal*. The connection is aborted and its descriptor
 * released before the interruption proceeds. Of graded requests only `terminal` is
 * honoured.
 *
 * **Example** (Asking a web server)
 *
 * ```ts
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const plain = yield* StreamSocket.connect("example.com:443")
 *   const socket = yield* Tls.client(plain, { servername: "example.com", alpn: ["http/1.1"] })
 *   yield* Write.writeAll(socket, Buffers.utf8("HEAD / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"))
 *   return yield* Read.readAll(socket)
 * })).pipe(Effect.provide(NodeTransport.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const client = (
  stream: Underlying,
  options: ClientOptions
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> => secureClient(stream, options, options)

/**
 * Speaks TLS as a server over a connected stream. Succeeds with the stream over TLS
 * when the handshake is done, and closes it with the scope.
 *
 * **Details**
 *
 * It takes the stream over and fails as {@link client} does.
 *
 * Preparing options costs more than a handshake. They are prepared once for each
 * object, so keep the object; or make a context ({@link makeServerContext}), which can
 * be reloaded.
 *
 * **Interruption**: *terminal*, as for {@link client}.
 *
 * **Example** (Echoing)
 *
 * ```ts
 * const options = { certificate, key: Redacted.make(key) }
 *
 * yield* Acceptor.serve(acceptor, (plain) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const socket = yield* Tls.server(plain, options)
 *     const buffer = new Uint8Array(65_536)
 *     while (true) {
 *       const count = yield* socket.readSome(buffer)
 *       yield* Write.writeAll(socket, buffer.subarray(0, count))
 *     }
 *   })))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const server = (
  stream: Underlying,
  options: ServerOptions | ServerContext
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> => secureServer(stream, options, {})

/**
 * Prepares the options of a server. Fails with reason `Tls` if they cannot be used,
 * for example because the key does not belong to the certificate, the passphrase is
 * wrong, a cipher is unknown, or `ca` has no certificate in it. A value that its type
 * rules out, such as a key that is not `Redacted`, is a defect whose message shows no
 * secret.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * **Example** (Renewing a certificate)
 *
 * ```ts
 * const context = yield* Tls.makeServerContext(yield* readCertificate)
 * yield* Effect.forkScoped(
 *   readCertificate.pipe(
 *     Effect.flatMap(context.reload),
 *     Effect.catch((error) => Effect.logError("the certificate was not renewed", error)),
 *     Effect.repeat(Schedule.spaced("1 hour"))
 *   )
 * )
 * yield* Acceptor.serve(acceptor, (plain) => Effect.scoped(Effect.flatMap(Tls.server(plain, context), handle)))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeServerContext: (options: ServerOptions) => Effect.Effect<ServerContext, SocketError> = makeContext

/**
 * TLS over any stream.
 *
 * `client` and `server` take a connected stream and give a stream in its place:
 * everything composed works on it unchanged, with the same accounts. The stream
 * below is consumed. It may be anything: TCP and Unix-domain sockets on any
 * transport, the in-memory network, TLS itself, or a stream of your own.
 *
 * **Details**
 *
 * - The engine is OpenSSL by way of `node:tls`. On `NodeTransport` it works on
 *   the very socket; over everything else, bytes pass through this library.
 * - `writeSome` takes plaintext, at most one slice (64 KiB) at a time, as on a plain
 *   `NodeTransport` socket, and what was taken becomes records that are always
 *   finished. A write that waits has taken nothing.
 * - `shutdownWrite` sends `close_notify` and FIN. `close` does too. Where both sides
 *   have spoken, it then waits for the peer's, so that no reset costs a peer that
 *   still sends what it has not received yet: for half a second of silence, and
 *   never longer than the linger time. Then it lets go without a reset.
 * - A peer that ends the connection without `close_notify` has not ended the TLS
 *   stream: reads fail with reason `Tls` of kind `truncated`. On the very socket of
 *   `NodeTransport`, `node:tls` does not tell the two apart, and both are the end of
 *   the stream; before Node 24, so is a reset that comes right behind bytes.
 *   {@link CommonOptions.strictEnd} tells them apart there too.
 *
 * **Gotchas**
 *
 * A server of TLS 1.3 sends session tickets right behind the handshake. To a client
 * that has written, has read nothing and closes before they arrive, they come
 * too late: the kernel answers with a reset, and the server may lose what it had
 * not received yet. `shutdownWrite` and reading to the end before `close` rule that
 * out, as on any connection.
 *
 * Where the certificate of a server is rejected, or that of a client in its
 * contents, `node:tls` hangs up without an alert: the peer sees the end of the
 * connection only. In memory, an alert that is due in the turn of other bytes may
 * be lost in the same way.
 *
 * Of a peer that is gone while the last words of the handshake leave, `node:tls`
 * tells nobody, and answers no write from then on. Over TCP we ask the kernel, and
 * such writes fail with `ConnectionReset`. Over `NodeTransport` and a Unix-domain
 * path nobody can be asked: `shutdownWrite` waits then until it is interrupted, and
 * `close` for its linger time.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { Buffer, isAscii } from "node:buffer"
import { createHash, X509Certificate } from "node:crypto"
import * as NodeTls from "node:tls"
import { domainToASCII } from "node:url"
import { nativeOf } from "./internal/base/nativeStream.ts"
import * as Deadlines from "./internal/base/timerQueue.ts"
import { cancellable } from "./internal/cancellation/cancellable.ts"
import { withoutSignals } from "./internal/cancellation/signal.ts"
import { chunkSize } from "./internal/core/Matcher.ts"
import { coreOf, Socket } from "./internal/core/Socket.ts"
import { ForeignStreamBacking, leftOver } from "./internal/operations/ForeignStreamBacking.ts"
import { BackingCarrier, type Carrier, NativeCarrier } from "./internal/tls/Carrier.ts"
import { badOptions, tlsError } from "./internal/tls/errors.ts"
import { currentHandshake, type Fork, Handshake, serverSide, startClient } from "./internal/tls/Handshake.ts"
import { TlsBacking } from "./internal/tls/TlsBacking.ts"
import { SocketError } from "./SocketError.ts"
import type * as StreamSocket from "./StreamSocket.ts"
import { resolveOptions, type SocketOptions } from "./Transport.ts"

const skipsVerification: ClientOptions["dangerouslySkipVerification"] = "anybody can pretend to be the server"

const TypeId: unique symbol = Symbol.for("~effect-asio/TlsSocket")
const ContextTypeId: unique symbol = Symbol.for("~effect-asio/TlsServerContext")

/**
 * What TLS can run over: a `StreamSocket`, or anything that has these of its
 * members and keeps their promises.
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
 * What two peers have agreed on.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectionInfo {
  /** `"TLSv1.3"`, `"TLSv1.2"`, ... */
  readonly protocol: string
  /** The name of the cipher suite in the standard, such as `"TLS_AES_256_GCM_SHA384"`. */
  readonly cipher: string
  /** The application protocol (ALPN); `undefined` when there was none to agree on. */
  readonly alpn: string | undefined
  /**
   * The name that the client has asked for (SNI); `undefined` without one, and on a server of TLS 1.2 that goes on with
   * an earlier session.
   */
  readonly servername: string | undefined
  /** An earlier session went on, without certificates being sent again. */
  readonly resumed: boolean
  /**
   * Whether the peer's certificate was verified: always `true` for a client, unless verification was skipped; for a
   * server, `true` when a client sent one that is good.
   */
  readonly authorized: boolean
  /**
   * Why the certificate that the peer has sent is not good, as a code of OpenSSL or Node such as `"CERT_HAS_EXPIRED"`;
   * `undefined` where it is, and where the peer has sent none.
   */
  readonly authorizationError: string | undefined
  /**
   * The certificate that the peer has sent; `undefined` without one, on a client that goes on with an earlier session,
   * and when first asked for after the connection.
   */
  readonly peerCertificate: X509Certificate | undefined
  /**
   * On a client, the newest session that the server has given, to be resumed by a later connection
   * ({@link ClientOptions.session}); the one that goes on, where the server has given no other. With TLS 1.3 it comes
   * right behind the first bytes that are read.
   */
  readonly session: Session | undefined
}

/**
 * A session that a client can resume. It holds the secrets of that session, and
 * the trust in the server that was established when it began: whoever resumes
 * it does not see certificates again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Session {
  /** The name that it began with; the session is good for no other. */
  readonly servername: string
  /** Whether the server was verified when it began. If not, only who skips verification can resume it. */
  readonly verified: boolean
  readonly data: Redacted.Redacted<Uint8Array>
}

/**
 * A certificate, with those of the authorities between it and a root behind it,
 * or a key: PEM, as text or bytes.
 *
 * @category models
 * @since 0.1.0
 */
export type Pem = string | Uint8Array

/**
 * What one side proves who it is with.
 *
 * @category options
 * @since 0.1.0
 */
export interface Identity {
  /** The certificate, with its chain behind it; or several, for keys of different types. */
  readonly certificate: Pem | ReadonlyArray<Pem>
  /** The private key of it; as many as there are certificates. */
  readonly key: Redacted.Redacted<Pem> | ReadonlyArray<Redacted.Redacted<Pem>>
  /** What the key is encrypted with. */
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
  /** The authorities to trust, instead of those that Node comes with. An empty list trusts nobody. */
  readonly ca?: Pem | ReadonlyArray<Pem> | undefined
  /** Default `"TLSv1.2"`. Versions before that are not safe any more, and need weaker `ciphers` besides. */
  readonly minVersion?: Version | undefined
  /** Default `"TLSv1.3"`. */
  readonly maxVersion?: Version | undefined
  /** Cipher suites in OpenSSL's notation, in the order of preference. Default: Node's. */
  readonly ciphers?: string | undefined
  /** Application protocols (ALPN) in the order of preference. A server that has none of a client's refuses it. */
  readonly alpn?: ReadonlyArray<string> | undefined
  /** How long the handshake may take. Default 10 seconds. */
  readonly deadline?: Duration.Input | undefined
  /**
   * Called with each line of a key log (`SSLKEYLOGFILE`), with which the traffic
   * can be decrypted: for debugging only. What it throws is logged, and nothing else.
   */
  readonly keyLog?: ((line: Uint8Array) => void) | undefined
  /**
   * Tell a truncated stream from one that has ended also on `NodeTransport`. There
   * it costs up to half of the speed of small messages; everywhere else it is so
   * anyway. Default `false`.
   */
  readonly strictEnd?: boolean | undefined
  /**
   * What to do when bytes were received before the handshake and nobody has
   * read them. `"refuse"`, the default, fails and leaves the stream as it was, unless
   * they begin as the handshake of a client does: in a protocol that upgrades
   * (STARTTLS) they are an attempt to smuggle plaintext in. Where plaintext has been
   * spoken, what the transport has at hand counts as well. `"handshake"` gives them
   * to the handshake, whatever they are. In neither case are they ever read as if
   * they had come through TLS.
   */
  readonly unread?: "refuse" | "handshake" | undefined
  /** Bytes of plaintext that one attempt takes. Default 65,536. */
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
   * Whom the certificate of the server has to name: a DNS name, which is sent too (SNI), or an IP address. Names in other
   * scripts than ASCII (IDN) and a dot at the end are good; a zone of an IPv6 address means nothing. To have none, or one
   * that is no name, is a defect.
   */
  readonly servername: string
  /** A session of an earlier connection to the same name; one for another name is ignored. */
  readonly session?: Session | undefined
  /**
   * Accept any certificate of anybody. The connection is encrypted, and may be
   * to an attacker. For tests and experiments. Any other value than this sentence
   * changes nothing.
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
   * The identity for the name that a client asks for (SNI), in lower case; `undefined` stands for
   * the one of these options. Return the same object for the same identity:
   * it is prepared once. An effect runs in the environment of the handshake. When it fails, so does the handshake.
   */
  readonly identityFor?:
    | ((servername: string) => Identity | undefined | Effect.Effect<Identity | undefined, unknown>)
    | undefined
  /**
   * Ask clients for a certificate of their own. With `"request"`, `Info.authorized` tells what came
   * of it; with `"require"`, the handshake fails without one that `ca` vouches for.
   */
  readonly clientCertificate?: "request" | "require" | undefined
  /**
   * 48 random bytes that session tickets are encrypted with, for servers of several processes
   * whose sessions any of them can resume, if they have the same `clientCertificate` and, where clients are asked, the
   * same `ca`. Default: new ones for each context.
   */
  readonly ticketKeys?: Redacted.Redacted<Uint8Array> | undefined
}

/**
 * The options of a server, prepared. Connections of one context can resume each
 * other's sessions.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerContext {
  readonly [ContextTypeId]: typeof ContextTypeId
  /**
   * Replaces all options, such as a certificate that is about to expire, for the
   * handshakes that begin from now on. Everything before goes on as it was;
   * sessions from before are not resumed, unless both options have the same
   * `ticketKeys`. Fails with reason `Tls` and changes nothing when the options cannot
   * be used.
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
 * Speaks TLS as a client over a connected stream, and closes it with the scope.
 *
 * **Details**
 *
 * The stream is consumed: from here on its operations fail with reason
 * `Consumed`, and closing it closes this one. A stream that is not of this
 * library cannot be kept from being used, and must not be.
 *
 * The certificate of the server is verified against `ca` or the authorities that Node
 * comes with, and against `servername`. Neither environment nor flags of Node
 * can turn that off.
 *
 * Fails with reason `Tls`: `certificate` (expired, for another name, of an unknown
 * authority, ...), `handshake` (no common version, cipher or application
 * protocol, the deadline, an end in the middle) or `protocol` (the peer does not
 * speak TLS); with that of the connection, such as `ConnectionReset`; and,
 * leaving the stream as it was, when it cannot be taken over because
 * operations wait on it (`Busy`), it is closed, torn or ended, or there are unread
 * bytes ({@link CommonOptions.unread}). After any other failure the stream is closed.
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
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> => clientOf(stream, options, options)

/**
 * `client` with options that others share: they are prepared once for each object.
 *
 * @internal
 */
export const clientOf = (
  stream: Underlying,
  options: Omit<ClientOptions, "servername" | "deadline">,
  { deadline, servername }: Pick<ClientOptions, "servername" | "deadline">
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> =>
  upgrade("Tls.client", stream, { ...options, deadline }, () => {
    const { alpn, session } = options
    const name = wireName(servername)
    const verifies = options.dangerouslySkipVerification !== skipsVerification
    const earlier = session === undefined || session.servername !== servername || (verifies && !session.verified)
      ? undefined
      : session
    const sessions: Sessions = { latest: undefined }
    const tlsOptions = {
      secureContext: clientContext(options),
      // Only names are sent; but either is what the certificate has to be for.
      ...(isAddress(name) ? { host: name, checkServerIdentity: checkAddress } : { servername: name, host: name }),
      rejectUnauthorized: verifies,
      ...(alpn === undefined ? {} : { ALPNProtocols: protocols(alpn) }),
      ...(earlier === undefined ? {} : { session: asBuffer(secret("session", earlier.data)) })
    }
    return {
      start: (handshake) =>
        startClient(handshake, tlsOptions, {
          keyLog: options.keyLog,
          session: (data) => {
            sessions.latest = { servername, verified: verifies, data: Redacted.make(new Uint8Array(data)) }
          }
        }),
      info: (socket) => {
        // A server that goes on with a session need not give another one.
        if (socket.isSessionReused()) sessions.latest ??= earlier
        return new SocketInfo(socket, sessions)
      }
    }
  })

/**
 * Speaks TLS as a server over a connected stream, and closes it with the scope.
 *
 * **Details**
 *
 * What is said of the stream and of failures at {@link client} holds here.
 * Preparing options costs more than a handshake. They are prepared once for each
 * object, so keep it; or make a context ({@link makeServerContext}), which can be
 * reloaded.
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
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> => serverOf(stream, options, {})

/**
 * `server` with the options of somebody who wraps it: what to do with unread bytes, and the deadline where the options
 * have none.
 *
 * @internal
 */
export const serverOf = (
  stream: Underlying,
  options: ServerOptions | ServerContext,
  outer: Pick<ServerOptions, "deadline" | "unread">
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> =>
  Effect.suspend(() => {
    const context = options instanceof ReloadableContext ? options : undefined
    const own = context?.current.options ?? serverOptions(options)
    const common = {
      ...own,
      deadline: own.deadline ?? outer.deadline,
      unread: outer.unread ?? own.unread
    }
    return upgrade("Tls.server", stream, common, () => {
      const { start } = context?.current ?? prepared(serverOptions(options))
      return {
        start,
        info: (socket) => new SocketInfo(socket, { latest: undefined })
      }
    })
  })

/**
 * Prepares the options of a server. Fails with reason `Tls` when they cannot be
 * used: a key that is not the certificate's, a wrong passphrase, unknown ciphers,
 * a `ca` without a certificate in it. What their types rule out, such as a key that
 * is not `Redacted`, is a defect, and shows no secret.
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
export const makeServerContext = (options: ServerOptions): Effect.Effect<ServerContext, SocketError> =>
  Effect.map(preparing("Tls.makeServerContext", () => prepare(options)), (made) => new ReloadableContext(made))

// ---- internal: sockets

class Secured extends Socket implements TlsSocket {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly tls: ConnectionInfo

  constructor(backing: TlsBacking, linger: Duration.Duration, info: ConnectionInfo) {
    super(backing, linger)
    this.tls = info
  }
}

interface Sessions {
  latest: Session | undefined
}

class SocketInfo implements ConnectionInfo {
  readonly protocol: string
  readonly cipher: string
  readonly alpn: string | undefined
  readonly servername: string | undefined
  readonly resumed: boolean
  readonly authorized: boolean
  readonly authorizationError: string | undefined
  // Out of reach of whatever prints objects.
  readonly #socket: NodeTls.TLSSocket
  readonly #sessions: Sessions
  #certificate: X509Certificate | undefined = undefined

  constructor(socket: NodeTls.TLSSocket, sessions: Sessions) {
    this.#sessions = sessions
    this.#socket = socket
    this.protocol = socket.getProtocol() ?? "unknown"
    this.cipher = socket.getCipher().standardName
    this.alpn = typeof socket.alpnProtocol === "string" ? socket.alpnProtocol : undefined
    const servername: unknown = Reflect.get(socket, "servername")
    this.servername = typeof servername === "string" ? servername : undefined
    this.resumed = socket.isSessionReused()
    this.authorized = socket.authorized
    // An `Error` in the types, a code in truth; and one even where the peer has sent no certificate.
    const code: unknown = socket.authorizationError
    this.authorizationError = typeof code === "string" && this.peerCertificate !== undefined ? code : undefined
  }

  get session(): Session | undefined {
    return this.#sessions.latest
  }

  get peerCertificate(): X509Certificate | undefined {
    // Asked a second time, Node before 26 answers with the next certificate of the chain.
    return this.#certificate ??= this.#socket.getPeerX509Certificate()
  }

  toJSON(): unknown {
    const { alpn, authorizationError, authorized, cipher, protocol, resumed, servername } = this
    return { protocol, cipher, alpn, servername, resumed, authorized, authorizationError }
  }
}

// ---- internal: the upgrade

interface Role {
  readonly start: (handshake: Handshake) => void
  readonly info: (socket: NodeTls.TLSSocket) => ConnectionInfo
}

const upgrade = (
  operation: "Tls.client" | "Tls.server",
  stream: Underlying,
  options: CommonOptions,
  prepareRole: () => Role
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.flatMap(preparing(operation, prepareRole), (role) =>
      Effect.withFiber((fiber) => {
        const refused = refusal(operation, stream, options)
        if (refused !== undefined) return Effect.fail(refused)
        const attempt = new Attempt(operation, stream, options, role, fiber.context)
        return cancellable(attempt.run, { operation, address: () => stream.remoteAddress }, "terminal").pipe(
          // A stream that was made as it was cut is nobody's.
          Effect.onExit((exit) => Exit.isFailure(exit) ? attempt.abort : Effect.void)
        )
      })),
    (socket) => withoutSignals(socket.close),
    { interruptible: true }
  )

/** Why a stream cannot be taken over; then nothing has happened to it. */
const refusal = (
  operation: "Tls.client" | "Tls.server",
  stream: Underlying,
  options: CommonOptions
): SocketError | undefined => {
  const core = coreOf(stream)
  if (core !== undefined) {
    const occupied = core.takeOverRefusal()
    if (typeof occupied === "string") {
      return tlsError({ operation, address: stream.remoteAddress }, { kind: "handshake", detail: occupied })
    }
    if (occupied !== undefined) {
      return new SocketError({ reason: occupied, operation, address: stream.remoteAddress, transferred: 0 })
    }
  }
  if (options.unread === "handshake") return undefined
  const unread = unreadBytes(stream)
  const count = unread.byteLength
  // A server does not speak first, so to a client nothing that waits is the beginning of a handshake.
  if (count === 0 || (operation === "Tls.server" && beginsHandshake(unread))) return undefined
  return tlsError({ operation, address: stream.remoteAddress }, {
    kind: "protocol",
    detail: `${count} ${count === 1 ? "byte was" : "bytes were"} received before TLS began and not read`
  })
}

/** What has arrived and nobody has read; it stays what the next read gets. */
const unreadBytes = (stream: Underlying): Uint8Array => {
  const core = coreOf(stream)
  if (core === undefined) return leftOver(stream, "keep")
  const { bytesRead, bytesWritten, readHalf } = core
  const native = nativeOf(readHalf.backing)
  // What waits in the kernel matters where plaintext has been spoken; else the handshake finds out what it is. Node is
  // asked only for what it has: more would set it reading.
  if (native === undefined ? bytesRead + bytesWritten > 0 : native.unread() > 0) readHalf.receiveIntoBuffer(chunkSize)
  return readHalf.unreadBytes()
}

// Type 22 and major version 3, of the record that a ClientHello comes in.
const beginsHandshake = ([type, version]: Uint8Array): boolean =>
  type === 22 && (version === undefined || version === 3)

/** One upgrade: the handshake, and who ends the connection before, during and after it. */
class Attempt {
  private readonly handshake: Handshake
  private readonly role: Role
  private readonly deadline: Duration.Duration
  private readonly context: Context.Context<never>
  private readonly linger: Duration.Duration
  private socket: Secured | undefined = undefined

  constructor(
    operation: string,
    stream: Underlying,
    options: CommonOptions,
    role: Role,
    context: Context.Context<never>
  ) {
    const fork = Effect.runForkWith(context)
    const resolved = resolveOptions({ sliceSize: options.sliceSize })
    this.role = role
    this.deadline = Duration.fromInputUnsafe(options.deadline ?? defaultDeadline)
    this.context = context
    this.linger = coreOf(stream)?.linger ?? resolved.linger
    const carrier = groundOf(operation, stream, options, this, fork)
    this.handshake = new Handshake(carrier, operation, fork, (socket) => {
      this.socket = new Secured(new TlsBacking(socket, carrier, resolved.sliceSize), this.linger, role.info(socket))
    })
  }

  get run(): Effect.Effect<TlsSocket, SocketError> {
    const { context, deadline, handshake } = this
    const running = handshake.run(() => {
      this.role.start(handshake)
      if (!Duration.isFinite(deadline)) return
      handshake.endsBy(Deadlines.after(deadline, context, () => {
        handshake.giveUp(`not finished within ${Duration.format(deadline)}`)
      }))
    })
    // An alert for the peer is flushed; one that is not there any more holds nothing up for long.
    return Effect.andThen(
      Effect.tapError(running, () => handshake.isLate ? handshake.release("abort") : this.releaseInTime),
      Effect.suspend(() => this.socket === undefined ? Effect.die(new Error("no socket")) : Effect.succeed(this.socket))
    )
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => this.socket === undefined ? this.abort : this.socket.close)
  }

  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => this.socket === undefined ? this.handshake.release("abort") : this.socket.abort)
  }

  private get releaseInTime(): Effect.Effect<void> {
    return Effect.timeoutOrElse(this.handshake.release("close"), { duration: this.linger, orElse: () => this.abort })
  }
}

const groundOf = (
  by: string,
  stream: Underlying,
  options: CommonOptions,
  heir: Pick<Underlying, "close" | "abort">,
  fork: Fork
): Carrier => {
  const core = coreOf(stream)
  if (core === undefined) {
    return new BackingCarrier(new ForeignStreamBacking(stream, fork), leftOver(stream, "take"))
  }
  const [backing, unread] = core.takeOver(by, heir)
  const native = options.strictEnd === true ? undefined : nativeOf(backing)
  return native === undefined ? new BackingCarrier(backing, unread) : new NativeCarrier(backing, native, unread)
}

/** @internal */
export const defaultDeadline: Duration.Duration = Duration.seconds(10)

// ---- internal: options

/** What OpenSSL thinks of the options of this side. What is wrong with them for their type is a defect. */
const preparing = <A>(operation: string, make: () => A): Effect.Effect<A, SocketError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(make())
    } catch (cause) {
      const refused = badOptions(operation, cause)
      return refused === undefined ? Effect.die(cause) : Effect.fail(refused)
    }
  })

const contextOptions = (options: CommonOptions & Partial<Identity>): NodeTls.SecureContextOptions => ({
  ...(options.ca === undefined ? {} : { ca: authorities(options.ca) }),
  ...(options.certificate === undefined ? {} : { cert: pems("certificate", options.certificate) }),
  ...(options.key === undefined ? {} : { key: keys(options.key) }),
  ...(options.passphrase === undefined ? {} : { passphrase: passphrase(options.passphrase) }),
  minVersion: options.minVersion ?? "TLSv1.2",
  maxVersion: options.maxVersion ?? "TLSv1.3",
  ...(options.ciphers === undefined ? {} : { ciphers: options.ciphers })
})

/**
 * Sessions are resumed only where this is what it was when they began. The trust in a client goes on with its session, so
 * it must not outlive the rules that it was established by. Node's default is the command line of the process.
 */
const sessionIdContext = ({ ca, clientCertificate }: ServerOptions): string => {
  const hash = createHash("sha256").update(clientCertificate ?? "none")
  if (clientCertificate !== undefined && ca !== undefined) { for (const text of pems("ca", ca)) hash.update(text) }
  return hash.digest("hex").slice(0, 32)
}

const clientContexts = new WeakMap<Omit<ClientOptions, "servername">, NodeTls.SecureContext>()

const clientContext = (options: Omit<ClientOptions, "servername">): NodeTls.SecureContext => {
  let context = clientContexts.get(options)
  if (context === undefined) {
    // OpenSSL would send none, and only the server would know.
    if ((options.certificate === undefined) !== (options.key === undefined)) {
      throw Object.assign(new Error("certificate and key need each other"), { code: "ERR_MISSING_ARGS" })
    }
    context = NodeTls.createSecureContext(contextOptions(options))
    clientContexts.set(options, context)
  }
  return context
}

interface Prepared {
  readonly options: ServerOptions
  readonly start: (handshake: Handshake) => void
}

class ReloadableContext implements ServerContext {
  readonly [ContextTypeId]: typeof ContextTypeId = ContextTypeId
  // Out of reach of whatever prints objects: `node:tls` keeps keys in the clear.
  #current: Prepared

  constructor(current: Prepared) {
    this.#current = current
  }

  get current(): Prepared {
    return this.#current
  }

  get reload(): (options: ServerOptions) => Effect.Effect<void, SocketError> {
    return (options) =>
      Effect.map(preparing("Tls.reload", () => prepare(serverOptions(options))), (made) => {
        this.#current = made
      })
  }
}

const serverOptions = (options: ServerOptions | ServerContext): ServerOptions => {
  if ("reload" in options) throw new TypeError("Tls: this is no options, and no context of Tls.makeServerContext")
  return options
}

const preparedOptions = new WeakMap<ServerOptions, Prepared>()

const prepared = (options: ServerOptions): Prepared => {
  let made = preparedOptions.get(options)
  if (made === undefined) preparedOptions.set(options, made = prepare(options))
  return made
}

const prepare = (options: ServerOptions): Prepared => {
  const { alpn, clientCertificate, identityFor, keyLog, ticketKeys } = options
  if (clientCertificate !== undefined && clientCertificate !== "request" && clientCertificate !== "require") {
    throw new TypeError(`Tls: clientCertificate is neither "request" nor "require"`)
  }
  const server = NodeTls.createServer({
    ...contextOptions(options),
    ...(alpn === undefined ? {} : { ALPNProtocols: protocols(alpn) }),
    ...(ticketKeys === undefined ? {} : { ticketKeys: asBuffer(secret("ticketKeys", ticketKeys)) }),
    sessionIdContext: sessionIdContext(options),
    requestCert: clientCertificate !== undefined,
    rejectUnauthorized: clientCertificate === "require",
    // Its clock is not ours.
    handshakeTimeout: 2 ** 31 - 1,
    ...(identityFor === undefined ? {} : { SNICallback: sniCallback(options, identityFor) })
  })
  // It has given them to OpenSSL, and would show them to whoever prints it.
  Object.assign(server, { key: undefined, passphrase: undefined, ticketKeys: undefined })
  // That somebody listens makes it log; each handshake hears of its own lines.
  if (keyLog !== undefined) server.on("keylog", () => {})
  return { options, start: serverSide(server, options) }
}

class LookupFailed extends Data.TaggedError("LookupFailed")<{ readonly servername: string; readonly cause: unknown }> {}

const sniCallback = (options: ServerOptions, identityFor: NonNullable<ServerOptions["identityFor"]>) => {
  const contexts = new WeakMap<Identity, NodeTls.SecureContext>()
  const contextOf = (identity: Identity | undefined): NodeTls.SecureContext | undefined => {
    if (identity === undefined) return undefined
    let context = contexts.get(identity)
    if (context === undefined) {
      context = NodeTls.createSecureContext(contextOptions({ ...options, passphrase: undefined, ...identity }))
      contexts.set(identity, context)
    }
    return context
  }
  return (servername: string, done: (error: Error | null, context?: NodeTls.SecureContext) => void): void => {
    const handshake = currentHandshake()
    const lookingUp = Effect.map(
      Effect.suspend(() => {
        const found = identityFor(servername.toLowerCase())
        return Effect.isEffect(found) ? found : Effect.succeed(found)
      }),
      contextOf
    )
    const fiber = handshake === undefined ? Effect.runFork(lookingUp) : handshake.fork(lookingUp)
    handshake?.helpedBy(fiber)
    fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit)) {
        done(null, exit.value)
        return
      }
      const detail = `the look-up of an identity for ${servername} failed`
      handshake?.fail(tlsError(handshake.context, { kind: "handshake", detail }, undefined, exit.cause))
      done(new LookupFailed({ servername, cause: exit.cause }))
    })
  }
}

/** A name as certificates and SNI have it: in ASCII, without the dot of the root, and without the brackets of URLs. */
const wireName = (servername: string): string => {
  if (typeof servername !== "string" || servername === "") throw new TypeError("Tls.client: there is no servername")
  const ascii = isAscii(Buffer.from(servername)) ? servername : domainToASCII(servername)
  const name = ascii.replace(/\.$/, "").replace(/^\[(.*)\]$/, "$1")
  // Node would take none for "localhost".
  if (name === "") throw new TypeError(`Tls.client: servername ${JSON.stringify(servername)} is no name`)
  return name
}

// Node 22 finds no IPv6 address in any certificate; OpenSSL does.
const checkAddress = (address: string, certificate: NodeTls.PeerCertificate): Error | undefined => {
  const mismatch = NodeTls.checkServerIdentity(address, certificate)
  return mismatch !== undefined && new X509Certificate(certificate.raw).checkIP(address.replace(/%.*$/, ""))
    ? undefined
    : mismatch
}

/** Whether it is an IP address; a zone of this machine's is nothing that a certificate could have. */
const isAddress = (name: string): boolean => {
  const host = Host.hostFromString(name.replace(/%.*$/, ""))
  return Result.isSuccess(host) && NetAddress.isIpAddress(host.success)
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const pem = (what: string, input: Pem): string | Buffer => {
  if (typeof input === "string") return input
  if (input instanceof Uint8Array) return asBuffer(input)
  throw new TypeError(`Tls: ${what} is neither text nor bytes`)
}

const pems = (what: string, input: Pem | ReadonlyArray<Pem>): Array<string | Buffer> =>
  (Array.isArray(input) ? input : [input]).map((input) => pem(what, input))

const beginnings = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"].map((label) => `-----BEGIN ${label}-----`)

// OpenSSL takes text without any certificate for an empty list, and then trusts nobody.
const authorities = (input: Pem | ReadonlyArray<Pem>): Array<string | Buffer> =>
  pems("ca", input).map((text) => {
    if (beginnings.some((beginning) => text.includes(beginning))) return text
    throw Object.assign(new Error("ca has no certificate"), { code: "ERR_OSSL_PEM_NO_START_LINE" })
  })

const secret = <A>(what: string, input: Redacted.Redacted<A>): A => {
  if (Redacted.isRedacted(input)) return Redacted.value(input)
  throw new TypeError(`Tls: ${what} is not Redacted`)
}

const keys = (input: Identity["key"]): Array<string | Buffer> =>
  (Array.isArray(input) ? input : [input]).map((key) => pem("key", secret("key", key)))

// Node's own complaint would show the value.
const passphrase = (input: Redacted.Redacted): string => {
  const text = secret("passphrase", input)
  if (typeof text === "string") return text
  throw new TypeError("Tls: passphrase is not text")
}

const protocols = (names: ReadonlyArray<string>): Array<string> =>
  names.map((name) => {
    const length = Buffer.byteLength(name)
    if (length > 0 && length < 256) return name
    throw new RangeError(`Tls: the name of an application protocol has 1 to 255 bytes, and not ${length}`)
  })

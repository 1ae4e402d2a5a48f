import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { AsyncLocalStorage } from "node:async_hooks"
import { createHash } from "node:crypto"
import * as NodeTls from "node:tls"
import type { SocketError } from "../../SocketError.ts"
import type { Identity, ServerContext, ServerOptions, TlsSocket, Underlying } from "../../Tls.ts"
import { isOfThisVersion, version } from "../base/copies.ts"
import { SocketInfo } from "./ConnectionInfo.ts"
import { type Context, rejected, tlsError } from "./errors.ts"
import type { Handshake } from "./Handshake.ts"
import { asBuffer, checkingOptions, contextOptions, pems, protocols, secret } from "./options.ts"
import { upgrade } from "./upgrade.ts"

export const ContextTypeId: unique symbol = Symbol.for("~effect-asio/TlsServerContext")

/**
 * `Tls.server` with options of a caller that wraps it: `outer.unread` comes before that of the options, and
 * `outer.deadline` counts where the options have none.
 */
export const secureServer = (
  stream: Underlying,
  options: ServerOptions | ServerContext,
  outer: Pick<ServerOptions, "deadline" | "unread">
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> =>
  Effect.suspend(() => {
    const context = isContext(options) ? options : undefined
    const own = context?.current.options ?? plainOptions(options)
    const common = {
      ...own,
      deadline: own.deadline ?? outer.deadline,
      unread: outer.unread ?? own.unread
    }
    return upgrade("Tls.server", stream, common, () => {
      const { start } = context?.current ?? preparedOf(plainOptions(options))
      return {
        start,
        info: (socket) => new SocketInfo(socket, { latest: undefined })
      }
    })
  })

export const makeContext = (options: ServerOptions): Effect.Effect<ServerContext, SocketError> =>
  Effect.map(checkingOptions("Tls.makeServerContext", () => prepare(options)), (made) => new ReloadableContext(made))

// ---- internal

/** The options of a server, given to Node and OpenSSL. */
interface Prepared {
  readonly options: ServerOptions
  readonly start: (handshake: Handshake) => void
}

const VersionId: unique symbol = Symbol.for("~effect-asio/ReloadableContext")

class ReloadableContext implements ServerContext {
  readonly [ContextTypeId]: typeof ContextTypeId = ContextTypeId
  // A private name, so that printing this object does not print it: `node:tls` keeps keys in the clear.
  #current: Prepared

  constructor(current: Prepared) {
    this.#current = current
  }

  get [VersionId](): string {
    return version
  }

  get current(): Prepared {
    return this.#current
  }

  get reload(): (options: ServerOptions) => Effect.Effect<void, SocketError> {
    return (options) =>
      Effect.map(checkingOptions("Tls.reload", () => prepare(plainOptions(options))), (made) => {
        this.#current = made
      })
  }
}

const isContext = (options: ServerOptions | ServerContext): options is ReloadableContext =>
  options instanceof ReloadableContext || isOfThisVersion(options, VersionId, "TLS context")

const plainOptions = (options: ServerOptions | ServerContext): ServerOptions => {
  if ("reload" in options) throw new TypeError("Tls: this is no options, and no context of Tls.makeServerContext")
  return options
}

const prepared = new WeakMap<ServerOptions, Prepared>()

const preparedOf = (options: ServerOptions): Prepared => {
  let made = prepared.get(options)
  if (made === undefined) prepared.set(options, made = prepare(options))
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
    // Never: the deadline of the handshake goes by the clock of its fiber.
    handshakeTimeout: 2 ** 31 - 1,
    ...(identityFor === undefined ? {} : { SNICallback: sniCallback(options, identityFor) })
  })
  // Node has given the secrets to OpenSSL. Kept here, printing the server would show them.
  Object.assign(server, { key: undefined, passphrase: undefined, ticketKeys: undefined })
  // Node logs keys only if the server has a listener; each handshake gets its own lines.
  if (keyLog !== undefined) server.on("keylog", () => {})
  return { options, start: startOver(server, options) }
}

/**
 * A session is resumed only if this was the same when it began. A resumed session carries the trust in its client, which
 * must not outlive the rules by which the client was trusted. Node's default is the command line of the process.
 */
const sessionIdContext = ({ ca, clientCertificate }: ServerOptions): string => {
  const hash = createHash("sha256").update(clientCertificate ?? "none")
  if (clientCertificate !== undefined && ca !== undefined) { for (const text of pems("ca", ca)) hash.update(text) }
  return hash.digest("hex").slice(0, 32)
}

// Callbacks of the options do not say for which connection they are called; the async context in which the handshake was
// started does.
const current = new AsyncLocalStorage<Handshake>()

/** Starts handshakes with the options of a `tls.Server` that listens nowhere. */
const startOver = (
  server: NodeTls.Server,
  { identityFor, keyLog }: Pick<ServerOptions, "identityFor" | "keyLog">
): (handshake: Handshake) => void => {
  // The events of a server do not say which stream became which socket. So each connection gets an object that inherits
  // everything from the server but `emit`, which passes the events of its connection to its handshake.
  class ConnectionView {
    readonly #handshake: Handshake

    constructor(handshake: Handshake) {
      this.#handshake = handshake
    }

    emit(event: string, ...rest: ReadonlyArray<unknown>): boolean {
      const handshake = this.#handshake
      const [first, second] = rest
      if (event === "secureConnection" && first instanceof NodeTls.TLSSocket) {
        first.allowHalfOpen = handshake.carrier.stream.allowHalfOpen = true
        handshake.succeed(first)
      } else if (event === "tlsClientError") handshake.fail(rejection(second, handshake.context) ?? first)
      else if (event === "keylog" && keyLog !== undefined && first instanceof Uint8Array) {
        handshake.logKey(keyLog, first)
      } else return server.emit(event, ...rest)
      return true
    }
  }
  Object.setPrototypeOf(ConnectionView.prototype, server)
  const start = (handshake: Handshake) => {
    const view = new ConnectionView(handshake)
    const { stream } = handshake.carrier
    // During the handshake an end of stream ends the connection. `node:tls` copies this to the socket that it makes.
    stream.allowHalfOpen = false
    for (const listener of server.listeners("connection")) Reflect.apply(listener, view, [stream])
  }
  return identityFor === undefined ? start : (handshake) => current.run(handshake, start, handshake)
}

// If a certificate was rejected, the event of Node says only that the connection has ended. The socket has the code.
const rejection = (socket: unknown, context: Context): SocketError | undefined => {
  if (!(socket instanceof NodeTls.TLSSocket)) return undefined
  // The types of Node declare an `Error`, but it is a code.
  const code: unknown = socket.authorizationError
  return typeof code === "string" ? rejected(code, context) : undefined
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
    const handshake = current.getStore()
    const lookingUp = Effect.map(
      Effect.suspend(() => {
        const found = identityFor(servername.toLowerCase())
        return Effect.isEffect(found) ? found : Effect.succeed(found)
      }),
      contextOf
    )
    const fiber = handshake === undefined ? Effect.runFork(lookingUp) : handshake.fork(lookingUp)
    handshake?.addHelper(fiber)
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

import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { AsyncLocalStorage } from "node:async_hooks"
import * as Tls from "node:tls"
import { Reason, SocketError } from "../../SocketError.ts"
import type { Timer } from "../base/timerQueue.ts"
import type { Carrier, Listener } from "./Carrier.ts"
import { type Context, fromTls, rejected, tlsError, truncated } from "./errors.ts"

/** Runs an effect in the environment of whoever asked for the handshake. */
export type Fork = <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>

type Resume = (outcome: Effect.Effect<void, SocketError>) => void

type KeyLog = (line: Uint8Array) => void

/** One handshake, from its first byte until it has succeeded or its connection is released. */
export class Handshake implements Listener {
  readonly carrier: Carrier
  readonly fork: Fork
  private readonly operation: string
  private readonly onSuccess: (socket: Tls.TLSSocket) => void
  private phase: "running" | "succeeded" | "failed" = "running"
  private outcome: Effect.Effect<void, SocketError> | undefined = undefined
  private resume: Resume | undefined = undefined
  private released: (() => void) | undefined = undefined
  // What has happened to the connection below, while the reason may be on its way.
  private loss: SocketError | undefined = undefined
  isLate = false
  private deadline: Timer | undefined = undefined
  private readonly helpers = new Set<Fiber.Fiber<unknown, unknown>>()
  private readonly onNativeClose = () => {
    // The reason, if there is one, comes in an event of its own.
    setImmediate(() => this.ended())
  }

  /** @param onSuccess takes the socket over at once, before anything else can happen to it */
  constructor(carrier: Carrier, operation: string, fork: Fork, onSuccess: (socket: Tls.TLSSocket) => void) {
    this.carrier = carrier
    this.operation = operation
    this.fork = fork
    this.onSuccess = onSuccess
  }

  /** Starts it; what starting throws about wrong arguments is a defect. */
  run(start: () => void): Effect.Effect<void, SocketError> {
    return Effect.callback((resume) => {
      this.carrier.listen(this)
      this.carrier.stream.once("close", this.onNativeClose)
      try {
        start()
      } catch (defect) {
        this.conclude(Effect.die(defect))
      }
      if (this.outcome === undefined) this.resume = resume
      else resume(this.outcome)
      return Effect.sync(() => this.conclude(Effect.interrupt))
    })
  }

  get context() {
    return { operation: this.operation, address: this.carrier.underlying.remoteAddress, stage: "handshake" } as const
  }

  get isRunning(): boolean {
    return this.phase === "running"
  }

  succeed(socket: Tls.TLSSocket): void {
    if (this.phase !== "running") return
    // Whoever takes over would not hear of it again.
    if (this.loss !== undefined) {
      this.fail(this.loss)
      return
    }
    this.phase = "succeeded"
    this.carrier.stream.off("close", this.onNativeClose)
    this.onSuccess(socket)
    // At once, as Node tells its own listeners: an answer then leaves in one packet with the rest of the handshake.
    this.settle(Effect.void)?.(Effect.void)
  }

  fail(cause: unknown): void {
    this.conclude(Effect.fail(fromTls(cause, this.context)))
  }

  giveUp(detail: string): void {
    if (this.phase !== "running") return
    this.isLate = true
    this.conclude(Effect.fail(tlsError(this.context, { kind: "handshake", detail }, "ETIMEDOUT")))
  }

  /** Needed no longer than the handshake runs. */
  endsBy(deadline: Timer): void {
    if (this.phase === "running") this.deadline = deadline
    else deadline.cancel()
  }

  /** A fiber that the handshake needs, and that ends with it. */
  helpedBy(fiber: Fiber.Fiber<unknown, unknown>): void {
    // It may have run far enough to end the handshake already.
    if (this.phase !== "running") {
      fiber.interruptUnsafe()
      return
    }
    this.helpers.add(fiber)
    fiber.addObserver(() => this.helpers.delete(fiber))
  }

  /** Passes a line to a key log. OpenSSL calls this, and nothing may be thrown into it. */
  logKey(keyLog: KeyLog, line: Uint8Array): void {
    try {
      keyLog(line)
    } catch (cause) {
      this.fork(Effect.logError("keyLog has thrown", cause))
    }
  }

  /** Ends the connection of a handshake that has failed, or fails now, and waits for the descriptor. */
  release(how: "close" | "abort"): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const { address, operation } = this.context
      this.conclude(Effect.fail(new SocketError({ reason: Reason.Closed(), operation, address, transferred: 0 })))
      if (this.carrier.isClosed) {
        resume(Effect.void)
        return
      }
      // Several may wait: whoever closes the stream below, and the handshake itself.
      const { released } = this
      this.released = () => {
        released?.()
        resume(Effect.void)
      }
      if (how === "close") this.carrier.close()
      else this.carrier.abort(false)
    })
  }

  // ---- what happens below

  ended(): void {
    this.lose(truncated(this.context))
  }

  readFailed(error: SocketError): void {
    this.lose(error)
  }

  writeFailed(error: SocketError): void {
    this.lose(error)
  }

  closed(): void {
    this.released?.()
  }

  // An alert that has come before it says more: OpenSSL has it in a turn, and Node tells when it has closed its socket.
  private lose(error: SocketError): void {
    if (this.loss !== undefined) return
    this.loss = error
    setImmediate(() => setImmediate(() => setImmediate(() => this.fail(error))))
  }

  private conclude(outcome: Effect.Effect<void, SocketError>): void {
    if (this.phase !== "running") return
    this.phase = "failed"
    const resume = this.settle(outcome)
    // Not from inside OpenSSL, which may have called this and does not expect its connection to be gone afterwards.
    if (resume !== undefined) setImmediate(() => resume(outcome))
  }

  private settle(outcome: Effect.Effect<void, SocketError>): Resume | undefined {
    this.outcome = outcome
    this.deadline?.cancel()
    for (const fiber of this.helpers) fiber.interruptUnsafe()
    const { resume } = this
    this.resume = undefined
    return resume
  }
}

/** `options` are those of `tls.connect`, without the stream. */
export const startClient = (
  handshake: Handshake,
  options: Tls.ConnectionOptions,
  on: { readonly keyLog: KeyLog | undefined; readonly session: (session: Buffer) => void }
): void => {
  const socket = Tls.connect({ ...options, socket: handshake.carrier.stream })
  if (options.session !== undefined) forgetSession(socket)
  // Stays for good: an error that comes late must find somebody.
  socket.on("error", (cause) => handshake.fail(cause))
  socket.once("secureConnect", () => handshake.succeed(socket))
  socket.on("session", on.session)
  const { keyLog } = on
  if (keyLog !== undefined) socket.on("keylog", (line) => handshake.logKey(keyLog, line))
}

/** How connections are given to a `tls.Server` that listens nowhere. */
export const serverSide = (
  server: Tls.Server,
  { identityFor, keyLog }: { readonly identityFor?: unknown; readonly keyLog?: KeyLog | undefined }
): (handshake: Handshake) => void => {
  // A server tells everybody of every connection, but not which stream became which socket. So each connection gets a
  // view of the server that is the server in everything but whom it tells.
  class View {
    readonly #handshake: Handshake

    constructor(handshake: Handshake) {
      this.#handshake = handshake
    }

    emit(event: string, ...rest: ReadonlyArray<unknown>): boolean {
      const handshake = this.#handshake
      const [first, second] = rest
      if (event === "secureConnection" && first instanceof Tls.TLSSocket) {
        first.allowHalfOpen = handshake.carrier.stream.allowHalfOpen = true
        handshake.succeed(first)
      } else if (event === "tlsClientError") handshake.fail(rejection(second, handshake.context) ?? first)
      else if (event === "keylog" && keyLog !== undefined && first instanceof Uint8Array) {
        handshake.logKey(keyLog, first)
      } else return server.emit(event, ...rest)
      return true
    }
  }
  Object.setPrototypeOf(View.prototype, server)
  const begin = (handshake: Handshake) => {
    const view = new View(handshake)
    const { stream } = handshake.carrier
    // While it lasts, an end of stream ends the connection; `node:tls` copies this to the socket that it makes.
    stream.allowHalfOpen = false
    for (const listener of server.listeners("connection")) Reflect.apply(listener, view, [stream])
  }
  // Look-ups of an identity ask for the handshake.
  return identityFor === undefined ? begin : (handshake) => current.run(handshake, begin, handshake)
}

/** The handshake that a callback of a server's options is called for. */
export const currentHandshake = (): Handshake | undefined => current.getStore()

// ---- internal

// Callbacks of the options do not say for which connection they are called; the context in which it was begun does.
const current = new AsyncLocalStorage<Handshake>()

// Node has given it to OpenSSL, and keeps it in the clear among its options, for whoever prints the socket.
const forgetSession = (socket: object): void => {
  for (const key of Reflect.ownKeys(socket)) {
    const value: unknown = Reflect.get(socket, key)
    if (typeof value === "object" && value !== null && Object.hasOwn(value, "session")) {
      Object.assign(value, { session: undefined })
    }
  }
}

// Of a certificate that was rejected Node says only that the connection is gone; the socket knows why.
const rejection = (socket: unknown, context: Context): SocketError | undefined => {
  if (!(socket instanceof Tls.TLSSocket)) return undefined
  // An `Error` in the types, a code in truth.
  const code: unknown = socket.authorizationError
  return typeof code === "string" ? rejected(code, context) : undefined
}

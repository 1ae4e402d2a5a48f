import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { TLSSocket } from "node:tls"
import { Reason, SocketError } from "../../SocketError.ts"
import type { Timer } from "../base/timerQueue.ts"
import type { Carrier, CarrierEvents } from "./Carrier.ts"
import { fromTls, tlsError, truncated } from "./errors.ts"

/** Runs an effect in the environment of the fiber that has started the handshake. */
export type Fork = <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>

export type KeyLog = (line: Uint8Array) => void

type Resume = (outcome: Effect.Effect<void, SocketError>) => void

/** One handshake, from its first byte until it has succeeded or its connection is released. */
export class Handshake implements CarrierEvents {
  readonly carrier: Carrier
  readonly fork: Fork
  hasTimedOut = false
  private readonly operation: string
  private readonly onSuccess: (socket: TLSSocket) => void
  private phase: "running" | "succeeded" | "failed" = "running"
  private outcome: Effect.Effect<void, SocketError> | undefined = undefined
  private resume: Resume | undefined = undefined
  private onReleased: (() => void) | undefined = undefined
  // How the connection below has failed or ended. `node:tls` may have a better reason, and not have reported it yet.
  private connectionError: SocketError | undefined = undefined
  private deadline: Timer | undefined = undefined
  private readonly helpers = new Set<Fiber.Fiber<unknown, unknown>>()
  private readonly onNativeClose = () => {
    // If there is a reason, Node reports it in a later event.
    setImmediate(() => this.ended())
  }

  /** @param onSuccess takes the socket over at once, before anything else can happen to it */
  constructor(carrier: Carrier, operation: string, fork: Fork, onSuccess: (socket: TLSSocket) => void) {
    this.carrier = carrier
    this.operation = operation
    this.fork = fork
    this.onSuccess = onSuccess
  }

  /** Starts the handshake and waits for its end. What `start` throws about wrong arguments is a defect. */
  run(start: () => void): Effect.Effect<void, SocketError> {
    return Effect.callback((resume) => {
      this.carrier.attach(this)
      this.carrier.stream.once("close", this.onNativeClose)
      try {
        start()
      } catch (defect) {
        this.stop(Effect.die(defect))
      }
      if (this.outcome === undefined) this.resume = resume
      else resume(this.outcome)
      return Effect.sync(() => this.stop(Effect.interrupt))
    })
  }

  get context() {
    return { operation: this.operation, address: this.carrier.underlying.remoteAddress, stage: "handshake" } as const
  }

  succeed(socket: TLSSocket): void {
    if (this.phase !== "running") return
    // Reported already, so the backing that takes over would never learn of it.
    if (this.connectionError !== undefined) {
      this.fail(this.connectionError)
      return
    }
    this.phase = "succeeded"
    this.carrier.stream.off("close", this.onNativeClose)
    this.onSuccess(socket)
    // At once, as Node calls its own listeners: then an answer of the caller and the last flight of the handshake leave in
    // one packet.
    this.end(Effect.void)?.(Effect.void)
  }

  fail(cause: unknown): void {
    this.stop(Effect.fail(fromTls(cause, this.context)))
  }

  timeOut(detail: string): void {
    if (this.phase !== "running") return
    this.hasTimedOut = true
    this.stop(Effect.fail(tlsError(this.context, { kind: "handshake", detail }, "ETIMEDOUT")))
  }

  /** Takes a timer that is cancelled when the handshake ends. */
  setDeadline(deadline: Timer): void {
    if (this.phase === "running") this.deadline = deadline
    else deadline.cancel()
  }

  /** Takes a fiber that the handshake waits for; it is interrupted when the handshake ends. */
  addHelper(fiber: Fiber.Fiber<unknown, unknown>): void {
    // The fiber runs since it was forked, and may have ended the handshake already.
    if (this.phase !== "running") {
      fiber.interruptUnsafe()
      return
    }
    this.helpers.add(fiber)
    fiber.addObserver(() => this.helpers.delete(fiber))
  }

  /** Passes a line to a key log. OpenSSL is the caller, so an exception must not leave this method. */
  logKey(keyLog: KeyLog, line: Uint8Array): void {
    try {
      keyLog(line)
    } catch (cause) {
      this.fork(Effect.logError("keyLog has thrown", cause))
    }
  }

  /** Fails the handshake if it still runs, ends its connection, and waits until the descriptor is released. */
  release(how: "close" | "abort"): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const { address, operation } = this.context
      this.stop(Effect.fail(new SocketError({ reason: Reason.Closed(), operation, address, transferred: 0 })))
      if (this.carrier.isClosed) {
        resume(Effect.void)
        return
      }
      // There may be two callers: the fiber of the handshake, and one that closes the stream below.
      const { onReleased } = this
      this.onReleased = () => {
        onReleased?.()
        resume(Effect.void)
      }
      if (how === "close") this.carrier.close()
      else this.carrier.abort(false)
    })
  }

  // ---- events of the connection below

  ended(): void {
    this.connectionLost(truncated(this.context))
  }

  readFailed(error: SocketError): void {
    this.connectionLost(error)
  }

  writeFailed(error: SocketError): void {
    this.connectionLost(error)
  }

  closed(): void {
    this.onReleased?.()
  }

  // An alert that arrived before the end says more. OpenSSL reads it within a turn of the event loop, and Node reports it
  // when it has closed its socket; three turns are enough for both.
  private connectionLost(error: SocketError): void {
    if (this.connectionError !== undefined) return
    this.connectionError = error
    setImmediate(() => setImmediate(() => setImmediate(() => this.fail(error))))
  }

  private stop(outcome: Effect.Effect<void, SocketError>): void {
    if (this.phase !== "running") return
    this.phase = "failed"
    const resume = this.end(outcome)
    // In a later turn: OpenSSL may be the caller, and it does not expect its connection to be gone when this returns.
    if (resume !== undefined) setImmediate(() => resume(outcome))
  }

  private end(outcome: Effect.Effect<void, SocketError>): Resume | undefined {
    this.outcome = outcome
    this.deadline?.cancel()
    for (const fiber of this.helpers) fiber.interruptUnsafe()
    const { resume } = this
    this.resume = undefined
    return resume
  }
}

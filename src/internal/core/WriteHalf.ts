import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import { type CompletionCondition, transferAll } from "../../CompletionCondition.ts"
import { type Address, during, Reason, type SocketError } from "../../SocketError.ts"
import type { Backing } from "../../Transport.ts"
import { WouldBlock } from "../../Transport.ts"
import { counters } from "../base/counters.ts"
import { abortedBy } from "../cancellation/aborted.ts"
import { guaranteeOf } from "../cancellation/guarantee.ts"
import { finish, proceed, type WriteMode } from "../cancellation/interruption.ts"
import { endsTurn, Operation, OperationQueue, settled } from "./OperationQueue.ts"

/**
 * The outgoing direction of a connection: its line of writers and whether bytes
 * may still leave.
 */
export class WriteHalf {
  readonly queue: OperationQueue = new OperationQueue(this)
  bytesWritten = 0
  state: "open" | "shutdown" | "torn" | "failed" | "closed" = "open"
  /** Why every later write fails; set whenever `state` is not "open". */
  failure: Failure | undefined = undefined
  readonly backing: Backing

  constructor(backing: Backing) {
    this.backing = backing
  }

  /** Bytes of the writes in line that were not taken yet; 0 when no write waits. */
  get bytesWaiting(): number {
    let bytes = 0
    for (let operation = this.queue.front; operation !== undefined; operation = operation.next) {
      bytes += Math.max(operation.total - operation.transferred, 0)
    }
    return bytes
  }

  /**
   * A message was stopped inside, or the write in front is inside one: what the
   * peer has is not a whole number of messages, and a FIN behind it would make it
   * look complete.
   */
  get isCutInside(): boolean {
    const { front } = this.queue
    return this.state === "torn" || (front !== undefined && front.transferred > 0)
  }

  /** Why a write cannot even be tried, as the error of that write. */
  refusal(write: WriteOperation<unknown>): SocketError | undefined {
    if (this.failure === undefined) return undefined
    // Writing nothing is fine as long as the stream is whole.
    if (write.immediate && this.state !== "closed" && this.state !== "torn") return undefined
    return this.refused(this.failure, write)
  }

  /** The error of an operation that comes too late. */
  refused(failure: Failure, context: Parameters<typeof during>[1]): SocketError {
    const { cause, code, reason } = failure
    return during({ reason, address: this.backing.remoteAddress, code, cause }, context)
  }

  /** One attempt: takes bytes and advances the cursor, or says why not. */
  take(source: Buffers.Cursor, limit: number): number | SocketError {
    return this.account(source, this.backing.write(source, limit))
  }

  private account(source: Buffers.Cursor, answer: number | SocketError): number | SocketError {
    if (typeof answer !== "number") {
      this.end("failed", answer)
    } else if (answer > 0) {
      source.advance(answer)
      this.count(answer)
    } else if (answer !== WouldBlock) {
      throw new Error(`the transport took ${answer} bytes of ${source.remaining}`)
    }
    return answer
  }

  private count(taken: number): void {
    this.bytesWritten += taken
    counters.bytesWritten += taken
  }

  shutdown(): number | SocketError {
    const answer = this.backing.shutdownWrite()
    if (typeof answer !== "number") this.end("failed", answer)
    else if (answer !== WouldBlock) this.end("shutdown", { reason: Reason.BrokenPipe() })
    return answer
  }

  /** A message was cut inside: nothing may follow it. */
  tear(transferred: number, total: number): void {
    if (this.state === "open") counters.torn++
    this.end("torn", { reason: Reason.Torn({ transferred, total }) })
  }

  fail(error: SocketError): void {
    this.end("failed", error)
    this.queue.pump("reported")
  }

  /** Why no write is possible, if none is. */
  get reason(): Reason | undefined {
    return this.failure?.reason
  }

  close(reason: Reason = Reason.Closed()): void {
    this.state = "closed"
    this.failure = { reason }
    this.queue.pump("reported")
  }

  interestDropped(): void {
    if (this.state !== "closed") this.backing.interestDropped?.("write")
  }

  run<A>(fiber: Fiber.Fiber<unknown, unknown>, operation: WriteOperation<A>): Effect.Effect<A, SocketError> {
    return this.queue.run(fiber, operation)
  }

  writeAll(
    fiber: Fiber.Fiber<unknown, unknown>,
    source: Buffers.Cursor,
    condition: CompletionCondition,
    mode: WriteMode
  ): Effect.Effect<number, SocketError> {
    return this.queue.run(fiber, new WriteAll(this, source, condition, mode, 0))
  }

  /** `writeAll` of one piece, as most messages are. When it fits at once, neither operation nor cursor need be made. */
  writePiece(
    fiber: Fiber.Fiber<unknown, unknown>,
    piece: Uint8Array,
    mode: WriteMode
  ): Effect.Effect<number, SocketError> {
    const total = piece.byteLength
    if (total === 0 || this.state !== "open" || this.queue.front !== undefined || endsTurn(fiber)) {
      return this.writeAll(fiber, Buffers.cursor(piece), transferAll, mode)
    }
    const answer = this.backing.write(reusableCursor.reset(piece), total)
    reusableCursor.reset(none)
    if (answer === total) {
      this.count(total)
      counters.completed++
      return Exit.succeed(total)
    }
    const source = Buffers.cursor(piece)
    if (answer === WouldBlock) return this.queue.enqueue(fiber, new WriteAll(this, source, transferAll, mode, 0))
    const taken = this.account(source, answer)
    return this.queue.run(fiber, new WriteAll(this, source, transferAll, mode, typeof taken === "number" ? taken : 0))
  }

  // The first reason stays: a torn stream that is then reset is still torn.
  private end(state: WriteHalf["state"], failure: Failure): void {
    if (this.state !== "open") return
    this.state = state
    this.failure = failure
  }
}

/** What the error of each refused write says. An error itself would cost more than the rest of closing, for its stack. */
type Failure = Pick<SocketError, "reason"> & Partial<Pick<SocketError, "code" | "cause">>

/** An operation of the write side. `transferred` and `total` are its own bytes, for errors and annotations. */
export abstract class WriteOperation<A> extends Operation<A, SocketError> {
  readonly half: WriteHalf

  constructor(half: WriteHalf) {
    super()
    this.half = half
  }

  /** See `WriteMode`. */
  get atomic(): boolean {
    return false
  }

  override get address(): Address {
    return this.half.backing.remoteAddress
  }

  /** Waits until it settles; an interruption ends it by the policy of the region. Only who waits pays for the mask. */
  override wait(): Effect.Effect<A, SocketError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.catchCause(
        restore(settled(this)),
        (cause) => this.exit === undefined ? this.interrupted(cause) : this.overtaken(cause, this.exit)
      )
    )
  }

  override guaranteeFor(requested: Cancellation.Type): Cancellation.Type | undefined {
    return guaranteeOf(requested, this, this.atomic)
  }

  override cancel(guarantee: Cancellation.Type): void {
    if (guarantee === "terminal") this.half.tear(this.transferred, this.total)
    super.cancel(guarantee)
  }

  private interrupted(cause: Cause.Cause<SocketError>): Effect.Effect<never, SocketError> {
    // Nothing was taken, and every policy is content with that.
    if (this.transferred === 0) return this.cut("total", cause)
    return Effect.withFiber((fiber) => {
      const guarantee = this.guaranteeFor(fiber.getRef(Cancellation.Policy))
      if (guarantee !== undefined) return this.cut(guarantee, cause)
      return Effect.flatMap(finish(settled(this), fiber.getRef(Cancellation.TotalTimeout)), (finished) => {
        // Finishing beats the clock.
        const exit = finished ?? this.exit
        return exit === undefined ? this.cut("terminal", cause) : this.overtaken(cause, exit)
      })
    })
  }

  /** Ends with an interruption, in whatever state its bytes leave the stream. */
  private cut(guarantee: Cancellation.Type, cause: Cause.Cause<SocketError>): Effect.Effect<never, SocketError> {
    counters.cancelled[guarantee]++
    this.cancel(guarantee)
    this.half.queue.pump("unreported")
    return this.proceed(guarantee, cause)
  }

  /** Has settled; if its fiber was interrupted as well, that proceeds with the account. */
  private overtaken(
    cause: Cause.Cause<SocketError>,
    exit: Exit.Exit<A, SocketError>
  ): Effect.Effect<never, SocketError> {
    if (!Cause.hasInterrupts(cause)) return Effect.failCause(cause)
    if (Exit.isSuccess(exit)) return this.proceed("total", cause)
    // A request ended it: that is only another way in which the interruption was served.
    const guarantee = abortedBy(exit.cause)?.type
    return guarantee === undefined
      ? this.proceed("terminal", Cause.combine(cause, exit.cause))
      : this.proceed(guarantee, cause)
  }

  private proceed(guarantee: Cancellation.Type, cause: Cause.Cause<SocketError>): Effect.Effect<never, SocketError> {
    return proceed(cause, { transferred: this.transferred, total: this.total, guarantee })
  }
}

export class WriteSome extends WriteOperation<number> {
  readonly operation = "writeSome"
  readonly total: number
  private readonly source: Buffers.Cursor

  constructor(half: WriteHalf, source: Buffers.Cursor) {
    super(half)
    this.source = source
    this.total = source.remaining
    this.immediate = this.total === 0
  }

  attempt(): Exit.Exit<number, SocketError> | undefined {
    const refusal = this.half.refusal(this)
    if (refusal !== undefined) return Exit.fail(refusal)
    if (this.total === 0) return nothing
    try {
      const answer = this.half.take(this.source, Infinity)
      if (answer === WouldBlock) return undefined
      return typeof answer === "number" ? Exit.succeed(answer) : Exit.fail(during(answer, this))
    } catch (defect) {
      return Exit.die(defect)
    }
  }
}

export class WriteAll extends WriteOperation<number> {
  readonly total: number
  private readonly mode: WriteMode
  private readonly source: Buffers.Cursor
  private readonly condition: CompletionCondition
  // The condition's last answer while the transport has not acted on it.
  private limit: number | undefined = undefined

  constructor(
    half: WriteHalf,
    source: Buffers.Cursor,
    condition: CompletionCondition,
    mode: WriteMode,
    transferred: number
  ) {
    super(half)
    this.mode = mode
    this.source = source
    this.condition = condition
    this.transferred = transferred
    this.total = condition.expectedTotal(transferred + source.remaining)
    this.immediate = this.total === 0
    this.runsCallerCode = condition.runsCallerCode
  }

  override get operation(): string {
    return this.mode.operation
  }

  override get atomic(): boolean {
    return this.mode.atomic
  }

  attempt(): Exit.Exit<number, SocketError> | undefined {
    try {
      for (;;) {
        const limit = this.limit ??= this.source.remaining === 0 ? 0 : this.condition.next(this.transferred)
        // Asked after the condition, which may have closed the stream or interrupted this operation.
        const refusal = this.half.refusal(this)
        if (refusal !== undefined) return Exit.fail(refusal)
        if (this.runsCallerCode && !this.queued) return undefined
        if (limit === 0) return Exit.succeed(this.transferred)
        const answer = this.half.take(this.source, limit)
        if (answer === WouldBlock) return undefined
        if (typeof answer !== "number") return Exit.fail(during(answer, this))
        this.transferred += answer
        this.limit = undefined
      }
    } catch (defect) {
      // A condition that ended this operation and then threw has ended it.
      if (this.runsCallerCode && !this.queued) return undefined
      // The caller's buffers or condition cannot go on, so the message cannot be finished.
      if (this.transferred > 0) this.half.tear(this.transferred, this.total)
      return Exit.die(defect)
    }
  }
}

export class ShutdownWrite extends WriteOperation<void> {
  readonly operation = "shutdownWrite"
  readonly total = 0

  attempt(): Exit.Exit<void, SocketError> | undefined {
    if (this.half.state === "shutdown") return Exit.void
    const refusal = this.half.refusal(this)
    if (refusal !== undefined) return Exit.fail(refusal)
    const answer = this.half.shutdown()
    if (answer === WouldBlock) return undefined
    return typeof answer === "number" ? Exit.void : Exit.fail(during(answer, this))
  }
}

// ---- internal

const nothing = Exit.succeed(0)

const none = new Uint8Array(0)

// Backings neither keep a cursor nor call back, so one at a time is in use.
const reusableCursor = Buffers.cursor(none)

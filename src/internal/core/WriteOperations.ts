import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import type { CompletionCondition } from "../../CompletionCondition.ts"
import { type Address, during, type SocketError } from "../../SocketError.ts"
import { WouldBlock } from "../../Transport.ts"
import { counters } from "../base/counters.ts"
import { LibraryCondition } from "../base/LibraryCondition.ts"
import { abortedBy } from "../cancellation/aborted.ts"
import { guaranteeOf } from "../cancellation/guarantee.ts"
import { boundsOf, finish, proceed, type WriteMode } from "../cancellation/interruption.ts"
import { awaitSettled, Operation } from "./OperationQueue.ts"
import type { WriteHalf } from "./WriteHalf.ts"

/** An operation of the write half. `transferred` and `total` count its own bytes, for errors and annotations. */
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

  /** Waits until it settles; an interruption ends it by the policy in force. Only a write that waits pays for the mask. */
  override wait(): Effect.Effect<A, SocketError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.catchCause(
        restore(awaitSettled(this)),
        (cause) => this.exit === undefined ? this.interrupted(cause) : this.settledBefore(cause, this.exit)
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
    // Nothing was taken, which satisfies every policy.
    if (this.transferred === 0) return this.stop("total", cause)
    return Effect.withFiber((fiber) => {
      const guarantee = this.guaranteeFor(fiber.getRef(Cancellation.Policy))
      if (guarantee !== undefined) return this.stop(guarantee, cause)
      return Effect.flatMap(finish(awaitSettled(this), boundsOf(fiber), () => this.transferred), (finished) => {
        // If the write settled in the same turn as the time-out, its result counts.
        const exit = finished ?? this.exit
        return exit === undefined ? this.stop("terminal", cause) : this.settledBefore(cause, exit)
      })
    })
  }

  /** Stops the operation, and fails with the interruption. */
  private stop(guarantee: Cancellation.Type, cause: Cause.Cause<SocketError>): Effect.Effect<never, SocketError> {
    counters.cancelled[guarantee]++
    this.cancel(guarantee)
    this.half.queue.pump("dropInterestIfEmpty")
    return this.failInterrupted(guarantee, cause)
  }

  /**
   * The operation had already ended when the interruption arrived. Fails with the
   * interruption, annotated with the bytes that were taken.
   */
  private settledBefore(
    cause: Cause.Cause<SocketError>,
    exit: Exit.Exit<A, SocketError>
  ): Effect.Effect<never, SocketError> {
    if (!Cause.hasInterrupts(cause)) return Effect.failCause(cause)
    if (Exit.isSuccess(exit)) return this.failInterrupted("total", cause)
    // If a request ended it, report that request's guarantee.
    const guarantee = abortedBy(exit.cause)?.type
    return guarantee === undefined
      ? this.failInterrupted("terminal", Cause.combine(cause, exit.cause))
      : this.failInterrupted(guarantee, cause)
  }

  private failInterrupted(
    guarantee: Cancellation.Type,
    cause: Cause.Cause<SocketError>
  ): Effect.Effect<never, SocketError> {
    return proceed(cause, { transferred: this.transferred, total: this.total, guarantee })
  }
}

/** Offers bytes to the transport until it takes some. */
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
    const refusal = this.half.errorIfRefused(this)
    if (refusal !== undefined) return Exit.fail(refusal)
    if (this.total === 0) return zeroBytes
    try {
      const answer = this.half.offer(this.source, Infinity)
      if (answer === WouldBlock) return undefined
      return typeof answer === "number" ? Exit.succeed(answer) : Exit.fail(during(answer, this))
    } catch (defect) {
      return Exit.die(defect)
    }
  }
}

/** Offers bytes until a condition is met, at the front of the queue from its first byte to its end. */
export class WriteAll extends WriteOperation<number> {
  readonly total: number
  private readonly mode: WriteMode
  private readonly source: Buffers.Cursor
  private readonly condition: CompletionCondition
  // The limit from `condition.next`. It is kept over `WouldBlock`, so that the condition is asked once a step.
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
    this.runsCallerCode = !(condition instanceof LibraryCondition)
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
        // Checked after the condition ran: it may have closed the stream or interrupted this operation.
        const refusal = this.half.errorIfRefused(this)
        if (refusal !== undefined) return Exit.fail(refusal)
        if (this.runsCallerCode && !this.queued) return undefined
        if (limit === 0) return Exit.succeed(this.transferred)
        const answer = this.half.offer(this.source, limit)
        if (answer === WouldBlock) return undefined
        if (typeof answer !== "number") return Exit.fail(during(answer, this))
        this.transferred += answer
        this.limit = undefined
      }
    } catch (defect) {
      // If the condition ended this operation and then threw, the throw is ignored.
      if (this.runsCallerCode && !this.queued) return undefined
      // The buffers or the condition of the caller have failed, so the message cannot be finished.
      if (this.transferred > 0) this.half.tear(this.transferred, this.total)
      return Exit.die(defect)
    }
  }
}

/** Sends FIN after all taken bytes. */
export class ShutdownWrite extends WriteOperation<void> {
  readonly operation = "shutdownWrite"
  readonly total = 0

  attempt(): Exit.Exit<void, SocketError> | undefined {
    if (this.half.state === "shutdown") return Exit.void
    const refusal = this.half.errorIfRefused(this)
    if (refusal !== undefined) return Exit.fail(refusal)
    const answer = this.half.shutdown()
    if (answer === WouldBlock) return undefined
    return typeof answer === "number" ? Exit.void : Exit.fail(during(answer, this))
  }
}

// ---- internal

const zeroBytes = Exit.succeed(0)

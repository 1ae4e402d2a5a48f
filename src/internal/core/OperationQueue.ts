import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Type } from "../../Cancellation.ts"
import type { Address, SocketError } from "../../SocketError.ts"
import { counters } from "../base/counters.ts"
import { aborted } from "../cancellation/aborted.ts"
import { type CancellationScope, scopeOf } from "../cancellation/scope.ts"
import type { Cancellable, Request } from "../cancellation/signal.ts"

/**
 * One operation that a fiber has started: the part of it that can be attempted
 * again and again until it ends.
 *
 * Only the operation at the front of its queue is attempted. An operation may
 * make progress and still have to wait. It then stays at the front; that is how a
 * composed operation holds its direction.
 */
export abstract class Operation<A, E> implements Cancellable {
  next: Operation<unknown, unknown> | undefined = undefined
  previous: Operation<unknown, unknown> | undefined = undefined
  queue: OperationQueue | undefined = undefined
  cancellationScope: CancellationScope | undefined = undefined
  /** Whether it is in the queue. If this becomes false during an attempt, the caller's code has ended the operation. */
  queued = false
  /** Attempted at once, even while other operations wait: a write of no bytes. */
  immediate = false
  /** Its attempt calls code of the caller, which may interrupt this fiber, close the stream, or start operations. */
  runsCallerCode = false
  exit: Exit.Exit<A, E | SocketError> | undefined = undefined
  waiter: Resume<A, E | SocketError> | undefined = undefined
  /** Bytes of this operation that were taken or consumed. */
  transferred = 0
  /** The fiber that has queued it last. The id and not the fiber, which it would keep in memory. */
  fiberId = -1

  abstract readonly operation: string
  /** Bytes that complete it; 0 where that is unknown. */
  abstract readonly total: number
  abstract get address(): Address | undefined

  /** Goes as far as it can without waiting. `undefined`: it has to wait. Never throws. */
  abstract attempt(): Exit.Exit<A, E> | undefined

  /** Suspends the fiber until the operation ends. */
  wait(): Effect.Effect<A, E | SocketError> {
    return Effect.callback((resume) => {
      this.waiter = resume
      return this.interrupt()
    })
  }

  /** Handles an interruption of the fiber: removes the operation, which has moved no bytes. */
  interrupt(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.waiter = undefined
      if (!this.queued) return
      counters.cancelled.total++
      this.cancel("total")
      this.queue?.pump("dropInterestIfEmpty")
    })
  }

  /** The guarantee that stopping now keeps, if it satisfies a request; see `guaranteeOf`. */
  guaranteeFor(_requested: Type): Type | undefined {
    return "total"
  }

  /** Stops the operation, so that it is not attempted any more. Does not resume its fiber. */
  cancel(_guarantee: Type): void {
    this.rollback()
    this.queue?.remove(this)
  }

  /** It keeps bytes of its own that have arrived, outside the read buffer. */
  get holdsBytes(): boolean {
    return false
  }

  /** Undoes partial effects of a cancelled operation. Only `ReadInto` has some: its bytes go to the read buffer. */
  rollback(): void {
    // Most operations have nothing to take back.
  }

  requestCancel(request: Request): Type | undefined {
    // It may have ended since the request was emitted.
    const guarantee = this.queued ? this.guaranteeFor(request.type) : undefined
    if (guarantee === undefined) return undefined
    this.cancel(guarantee)
    this.exit = Exit.fail(aborted(this, request, guarantee))
    counters.cancelled[guarantee]++
    return guarantee
  }

  /** The second step of a request: fails the fiber. */
  resume(): void {
    if (this.exit !== undefined) this.queue?.settle(this, this.exit)
    this.queue?.pump("dropInterestIfEmpty")
  }
}

// The method syntax makes the parameter bivariant, so that a queue can hold operations of every type.
type Resume<A, E> = { resume(exit: Exit.Exit<A, E>): void }["resume"]

/**
 * The operations of one direction of a connection, first come, first served.
 *
 * How an operation starts. `run` does this for every operation; the measured fast
 * paths of `WriteHalf.writePiece` and `ReadHalf.startReadSome` do the same steps
 * themselves, so that an operation which completes at once need not be made:
 *
 * 1. Yield if the time slice of the fiber is nearly used up (`isNearEndOfSlice`),
 *    so that the result of an attempt is not lost between two slices.
 * 2. Attempt the operation, only if the queue is empty.
 * 3. If it has ended, count it and return its exit.
 * 4. Otherwise push it to the queue; `pump` attempts it again when it is at the
 *    front.
 *
 * `settle` is the only code that resumes a waiting fiber. A resumed fiber runs at
 * once and may start, cancel or close anything. So an operation leaves the queue
 * before it is settled, and `pump` looks at the front anew after each one.
 */
export class OperationQueue {
  front: Operation<unknown, unknown> | undefined = undefined
  private back: Operation<unknown, unknown> | undefined = undefined
  private pumping = false
  private retry = false
  private dropsInterest = false
  private readonly owner: { readonly interestDropped: () => void }

  /** `interestDropped` is called when the queue became empty without the transport knowing. */
  constructor(owner: { readonly interestDropped: () => void }) {
    this.owner = owner
  }

  /** Starts an operation, by the protocol of this class. */
  run<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): Effect.Effect<A, E | SocketError> {
    return isNearEndOfSlice(fiber)
      ? Effect.flatMap(Effect.yieldNow, () => this.start(fiber, operation))
      : this.start(fiber, operation)
  }

  /** Adds an operation without an attempt, and waits. */
  enqueue<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): Effect.Effect<A, E | SocketError> {
    this.push(fiber, operation)
    return operation.wait()
  }

  push<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): void {
    const scope = scopeOf(fiber)
    operation.queue = this
    operation.queued = true
    operation.fiberId = fiber.id
    operation.previous = this.back
    if (this.back === undefined) this.front = operation
    else this.back.next = operation
    this.back = operation
    if (scope !== undefined) {
      operation.cancellationScope = scope
      scope.register(operation)
    }
  }

  /**
   * Attempts the operation at the front, and the next one when that has ended.
   *
   * `dropInterestIfEmpty`: an operation was cancelled, or was served from the read
   * buffer. If the queue is empty then, the transport still watches for an event
   * that no operation waits for, and `interestDropped` tells it to stop.
   * `keepInterest`: the transport has reported an event, or has ended.
   */
  pump(interest: "keepInterest" | "dropInterestIfEmpty"): void {
    if (interest === "dropInterestIfEmpty") this.dropsInterest = true
    this.retry = true
    // A re-entrant call: the outer loop sees `retry` and goes on.
    if (this.pumping) return
    this.pumping = true
    while (this.front !== undefined && this.retry) {
      this.retry = false
      const operation = this.front
      const exit = operation.attempt()
      if (exit !== undefined || !operation.queued) this.retry = true
      if (exit !== undefined && operation.queued) {
        if (Exit.isSuccess(exit)) counters.completed++
        this.settle(operation, exit)
      }
    }
    this.pumping = false
    if (this.dropsInterest && this.front === undefined) this.owner.interestDropped()
    this.dropsInterest = false
  }

  private start<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    operation: Operation<A, E>
  ): Effect.Effect<A, E | SocketError> {
    if (operation.runsCallerCode) {
      // Its fiber parks first. Only then does an interruption by the caller's code take effect inside the attempt.
      queueMicrotask(() => this.pump("keepInterest"))
    } else if (this.front === undefined || operation.immediate) {
      const exit = operation.attempt()
      if (exit !== undefined) {
        if (Exit.isSuccess(exit)) counters.completed++
        return exit
      }
    }
    return this.enqueue(fiber, operation)
  }

  /** Takes an operation out of the queue and of its cancellation scope. */
  remove<A, E>(operation: Operation<A, E>): void {
    if (!operation.queued) return
    operation.queued = false
    if (operation.previous === undefined) this.front = operation.next
    else operation.previous.next = operation.next
    if (operation.next === undefined) this.back = operation.previous
    else operation.next.previous = operation.previous
    operation.next = operation.previous = undefined
    if (operation.cancellationScope !== undefined) {
      operation.cancellationScope.unregister(operation)
      operation.cancellationScope = undefined
    }
  }

  /** Takes an operation out of the queue and resumes its fiber. */
  settle<A, E>(operation: Operation<A, E>, exit: Exit.Exit<A, E | SocketError>): void {
    this.remove(operation)
    operation.exit = exit
    const resume = operation.waiter
    operation.waiter = undefined
    if (resume === undefined) return
    try {
      resume(exit)
    } catch (cause) {
      // An observer of the fiber has thrown. That must not end the pump: the process handles it as an uncaught exception.
      queueMicrotask(() => {
        throw cause
      })
    }
  }
}

/** Waits until an operation settles. The caller decides what an interruption does to the operation. */
export const awaitSettled = <A, E>(operation: Operation<A, E>): Effect.Effect<A, E | SocketError> =>
  Effect.callback((resume) => {
    if (operation.exit !== undefined) resume(operation.exit)
    else operation.waiter = resume
  })

/**
 * Whether a fiber has nearly used up its time slice.
 *
 * The result of an attempt that moved bytes must reach its caller. When a slice is
 * used up, the run loop lets other fibers run, and a fiber that is interrupted
 * there loses the result. So a fiber yields before the attempt when few steps are
 * left.
 */
export const isNearEndOfSlice = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.currentOpCount + margin >= fiber.cache.maxOpsBeforeYield

// ---- internal

// An upper bound of the run-loop steps between an attempt and the next step of its caller.
const margin = 32

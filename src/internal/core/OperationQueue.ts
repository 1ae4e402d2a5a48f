import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Address, SocketError } from "../../SocketError.ts"
import { counters } from "../base/counters.ts"
import {
  aborted,
  type Cancellable,
  type CancellationScope,
  type Request,
  scopeOf,
  type Type
} from "../cancellation/signal.ts"

/**
 * One operation that a fiber has started: the part of it that can be tried
 * again and again until it ends.
 *
 * Only the operation at the front of its line is tried. An operation may make
 * progress and still not be ready; it then stays at the front, which is how a
 * composed operation holds its direction.
 */
export abstract class Operation<A, E> implements Cancellable {
  next: Operation<unknown, unknown> | undefined = undefined
  previous: Operation<unknown, unknown> | undefined = undefined
  queue: OperationQueue | undefined = undefined
  cancellationScope: CancellationScope | undefined = undefined
  /** In line. An operation that is not any more has settled or was cancelled, perhaps by code that it called. */
  queued = false
  /** It never has to wait, and so need not stand in line. */
  immediate = false
  /** It runs code of the caller's, which may do anything: interrupt this fiber, close the stream, start operations. */
  runsCallerCode = false
  exit: Exit.Exit<A, E | SocketError> | undefined = undefined
  waiter: Resume<A, E | SocketError> | undefined = undefined
  /** Bytes of this operation that were moved for good. */
  transferred = 0

  abstract readonly operation: string
  /** Bytes that complete it; 0 where that is not known. */
  abstract readonly total: number
  abstract get address(): Address | undefined

  /** Goes as far as it can without waiting. `undefined`: would block. Never throws. */
  abstract attempt(): Exit.Exit<A, E> | undefined

  /** What its fiber does until it settles. */
  wait(): Effect.Effect<A, E | SocketError> {
    return Effect.callback((resume) => {
      this.waiter = resume
      return this.interrupt()
    })
  }

  /** What an interruption of its fiber does: takes it out of the line and leaves nothing behind. */
  interrupt(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.waiter = undefined
      if (!this.queued) return
      counters.cancelled.total++
      this.cancel("total")
      this.queue?.pumpUnreported()
    })
  }

  /** The guarantee that stopping now keeps, if that is enough for a request. */
  guaranteeFor(_requested: Type): Type | undefined {
    return "total"
  }

  /** Stops: from here on it is not tried any more. */
  cancel(_guarantee: Type): void {
    this.rollback()
    this.queue?.remove(this)
  }

  /** Takes back what it has done so far, where that is what stopping means. */
  rollback(): void {
    // Most have done nothing.
  }

  requestCancel(request: Request): Type | undefined {
    // It may have ended while the request was on its way.
    const guarantee = this.queued ? this.guaranteeFor(request.type) : undefined
    if (guarantee === undefined) return undefined
    this.cancel(guarantee)
    this.exit = Exit.fail(aborted(this, request, guarantee))
    counters.cancelled[guarantee]++
    return guarantee
  }

  resume(): void {
    if (this.exit !== undefined) this.queue?.settle(this, this.exit)
    this.queue?.pumpUnreported()
  }
}

// Typed as a method, because lines hold operations of every type.
type Resume<A, E> = { resume(exit: Exit.Exit<A, E>): void }["resume"]

/**
 * A fair line of operations over one direction of a connection.
 *
 * `settle` is the only place that resumes a waiting fiber. A resumed fiber runs
 * at once and may start, cancel or close anything, so an operation has left the
 * line before it is settled, and `drive` looks at the front anew.
 */
export class OperationQueue {
  front: Operation<unknown, unknown> | undefined = undefined
  private back: Operation<unknown, unknown> | undefined = undefined
  private pumping = false
  private retry = false
  private isUnreported = false
  private readonly owner: { readonly interestDropped: () => void }

  /** The owner hears when the line has emptied in another way than by what its transport reports. */
  constructor(owner: { readonly interestDropped: () => void }) {
    this.owner = owner
  }

  /** Starts an operation: tries at once when nobody is in line, else joins it and waits. */
  run<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): Effect.Effect<A, E | SocketError> {
    return endsTurn(fiber)
      ? Effect.flatMap(Effect.yieldNow, () => this.start(fiber, operation))
      : this.start(fiber, operation)
  }

  /** Joins the line, without a try, and waits. */
  enqueue<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): Effect.Effect<A, E | SocketError> {
    this.push(fiber, operation)
    return operation.wait()
  }

  push<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): void {
    const region = scopeOf(fiber)
    operation.queue = this
    operation.queued = true
    operation.previous = this.back
    if (this.back === undefined) this.front = operation
    else this.back.next = operation
    this.back = operation
    if (region !== undefined) {
      operation.cancellationScope = region
      region.register(operation)
    }
  }

  /** Lets the operation in front try, and the next one when it has ended. */
  pump(): void {
    // Called from code that an operation has called: the loop further out goes on.
    this.retry = true
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
    if (this.isUnreported && this.front === undefined) this.owner.interestDropped()
    this.isUnreported = false
  }

  /** As `drive`, for what no transport has reported: the owner hears of it, if nobody waits then. */
  pumpUnreported(): void {
    this.isUnreported = true
    this.pump()
  }

  private start<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    operation: Operation<A, E>
  ): Effect.Effect<A, E | SocketError> {
    if (operation.runsCallerCode) {
      // Only while its fiber is parked does an interruption take effect at once, in the middle of a step.
      queueMicrotask(() => this.pump())
    } else if (this.front === undefined || operation.immediate) {
      const exit = operation.attempt()
      if (exit !== undefined) {
        if (Exit.isSuccess(exit)) counters.completed++
        return exit
      }
    }
    return this.enqueue(fiber, operation)
  }

  /** Takes an operation out of the line, and lets no request reach it any more. */
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

  settle<A, E>(operation: Operation<A, E>, exit: Exit.Exit<A, E | SocketError>): void {
    this.remove(operation)
    operation.exit = exit
    const resume = operation.waiter
    operation.waiter = undefined
    if (resume === undefined) return
    try {
      resume(exit)
    } catch (cause) {
      // An observer of the fiber has failed, which is for the process to judge: it is neither the others' failure nor
      // that of whoever drives the line.
      queueMicrotask(() => {
        throw cause
      })
    }
  }
}

/** Waits until an operation settles. It is up to the caller what an interruption does to the operation. */
export const settled = <A, E>(operation: Operation<A, E>): Effect.Effect<A, E | SocketError> =>
  Effect.callback((resume) => {
    if (operation.exit !== undefined) resume(operation.exit)
    else operation.waiter = resume
  })

/**
 * Whether a fiber has nearly used up its turn.
 *
 * An attempt that moved bytes must reach its caller. The run loop lets other
 * fibers in when a turn is used up, and a fiber interrupted there would lose the
 * result; so a fiber that is about to attempt something ends its turn before.
 */
export const endsTurn = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.currentOpCount + margin >= fiber.cache.maxOpsBeforeYield

// ---- internal

// More operations of the run loop than lie between an attempt and its caller's next step.
const margin = 32

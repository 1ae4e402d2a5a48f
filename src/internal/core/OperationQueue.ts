import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Address, SocketError } from "../../SocketError.ts"
import { counters } from "../base/counters.ts"
import {
  aborted,
  type Cancellable,
  CurrentRegion,
  type Region,
  type Request,
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
  line: Line | undefined = undefined
  region: Region | undefined = undefined
  /** In line. An operation that is not any more has settled or was cancelled, perhaps by code that it called. */
  inLine = false
  /** It never has to wait, and so need not stand in line. */
  immediate = false
  /** It runs code of the caller's, which may do anything: interrupt this fiber, close the stream, start operations. */
  callsBack = false
  exit: Exit.Exit<A, E | SocketError> | undefined = undefined
  resume: Resume<A, E | SocketError> | undefined = undefined
  /** Bytes of this operation that were moved for good. */
  transferred = 0

  abstract readonly operation: string
  /** Bytes that complete it; 0 where that is not known. */
  abstract readonly total: number
  abstract get address(): Address | undefined

  /** Goes as far as it can without waiting. `undefined`: would block. Never throws. */
  abstract perform(): Exit.Exit<A, E> | undefined

  /** What its fiber does until it settles. */
  wait(): Effect.Effect<A, E | SocketError> {
    return Effect.callback((resume) => {
      this.resume = resume
      return this.leave()
    })
  }

  /** What an interruption of its fiber does: takes it out of the line and leaves nothing behind. */
  leave(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.resume = undefined
      if (!this.inLine) return
      counters.cancelled.total++
      this.stop("total")
      this.line?.rest()
    })
  }

  /** The guarantee that stopping now keeps, if that is enough for a request. */
  keeps(_requested: Type): Type | undefined {
    return "total"
  }

  /** Stops: from here on it is not tried any more. */
  stop(_guarantee: Type): void {
    this.undo()
    this.line?.leave(this)
  }

  /** Takes back what it has done so far, where that is what stopping means. */
  undo(): void {
    // Most have done nothing.
  }

  withdraw(request: Request): Type | undefined {
    // It may have ended while the request was on its way.
    const guarantee = this.inLine ? this.keeps(request.type) : undefined
    if (guarantee === undefined) return undefined
    this.stop(guarantee)
    this.exit = Exit.fail(aborted(this, request, guarantee))
    counters.cancelled[guarantee]++
    return guarantee
  }

  conclude(): void {
    if (this.exit !== undefined) this.line?.settle(this, this.exit)
    this.line?.rest()
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
export class Line {
  front: Operation<unknown, unknown> | undefined = undefined
  private back: Operation<unknown, unknown> | undefined = undefined
  private driving = false
  private again = false
  private isUnreported = false
  private readonly owner: { readonly idle: () => void }

  /** The owner hears when the line has emptied in another way than by what its transport reports. */
  constructor(owner: { readonly idle: () => void }) {
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
    this.join(fiber, operation)
    return operation.wait()
  }

  join<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): void {
    operation.line = this
    operation.inLine = true
    operation.previous = this.back
    if (this.back === undefined) this.front = operation
    else this.back.next = operation
    this.back = operation
    const region = fiber.getRef(CurrentRegion)
    if (region !== undefined) {
      operation.region = region
      region.enter(operation)
    }
  }

  /** Lets the operation in front try, and the next one when it has ended. */
  drive(): void {
    // Called from code that an operation has called: the loop further out goes on.
    this.again = true
    if (this.driving) return
    this.driving = true
    while (this.front !== undefined && this.again) {
      this.again = false
      const operation = this.front
      const exit = operation.perform()
      if (exit !== undefined || !operation.inLine) this.again = true
      if (exit !== undefined && operation.inLine) {
        if (Exit.isSuccess(exit)) counters.completed++
        this.settle(operation, exit)
      }
    }
    this.driving = false
    if (this.isUnreported && this.front === undefined) this.owner.idle()
    this.isUnreported = false
  }

  /** As `drive`, for what no transport has reported: the owner hears of it, if nobody waits then. */
  rest(): void {
    this.isUnreported = true
    this.drive()
  }

  private start<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    operation: Operation<A, E>
  ): Effect.Effect<A, E | SocketError> {
    if (operation.callsBack) {
      // Only while its fiber is parked does an interruption take effect at once, in the middle of a step.
      queueMicrotask(() => this.drive())
    } else if (this.front === undefined || operation.immediate) {
      const exit = operation.perform()
      if (exit !== undefined) {
        if (Exit.isSuccess(exit)) counters.completed++
        return exit
      }
    }
    return this.enqueue(fiber, operation)
  }

  /** Takes an operation out of the line, and lets no request reach it any more. */
  leave<A, E>(operation: Operation<A, E>): void {
    if (!operation.inLine) return
    operation.inLine = false
    if (operation.previous === undefined) this.front = operation.next
    else operation.previous.next = operation.next
    if (operation.next === undefined) this.back = operation.previous
    else operation.next.previous = operation.previous
    operation.next = operation.previous = undefined
    if (operation.region !== undefined) {
      operation.region.leave(operation)
      operation.region = undefined
    }
  }

  settle<A, E>(operation: Operation<A, E>, exit: Exit.Exit<A, E | SocketError>): void {
    this.leave(operation)
    operation.exit = exit
    const resume = operation.resume
    operation.resume = undefined
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
    else operation.resume = resume
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

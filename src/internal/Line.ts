import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"

/**
 * One operation that a fiber has started: the part of it that can be tried
 * again and again until it ends.
 *
 * Only the operation at the front of its line is tried. An operation may make
 * progress and still not be ready; it then stays at the front, which is how a
 * composed operation holds its direction.
 */
export abstract class Operation<A, E> {
  next: Operation<unknown, unknown> | undefined = undefined
  previous: Operation<unknown, unknown> | undefined = undefined
  /** In line. An operation that is not any more has settled or was cancelled, perhaps by code that it called. */
  inLine = false
  /** It never has to wait, and so need not stand in line. */
  immediate = false
  /** It runs code of the caller's, which may do anything: interrupt this fiber, close the stream, start operations. */
  callsBack = false
  exit: Exit.Exit<A, E> | undefined = undefined
  resume: Resume<A, E> | undefined = undefined

  /** Goes as far as it can without waiting. `undefined`: would block. Never throws. */
  abstract perform(): Exit.Exit<A, E> | undefined

  /** What its fiber does until it settles. An interruption takes it out of the line and leaves nothing behind. */
  wait(line: Line): Effect.Effect<A, E> {
    const leave = Effect.sync(() => line.abandon(this))
    return Effect.callback((resume) => {
      this.resume = resume
      return leave
    })
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

  /** Starts an operation: tries at once when nobody is in line, else joins it and waits. */
  run<A, E>(fiber: Fiber.Fiber<unknown, unknown>, operation: Operation<A, E>): Effect.Effect<A, E> {
    return endsTurn(fiber)
      ? Effect.flatMap(Effect.yieldNow, () => this.start(operation))
      : this.start(operation)
  }

  /** Joins the line, without a try. */
  enqueue<A, E>(operation: Operation<A, E>): Effect.Effect<A, E> {
    operation.inLine = true
    operation.previous = this.back
    if (this.back === undefined) this.front = operation
    else this.back.next = operation
    this.back = operation
    return operation.wait(this)
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
      if (exit !== undefined && operation.inLine) this.settle(operation, exit)
    }
    this.driving = false
  }

  /** Takes a cancelled operation out of the line; what it held is free for the next. */
  abandon<A, E>(operation: Operation<A, E>): void {
    operation.resume = undefined
    this.leave(operation)
    this.drive()
  }

  private start<A, E>(operation: Operation<A, E>): Effect.Effect<A, E> {
    if (operation.callsBack) {
      // Only while its fiber is parked does an interruption take effect at once, in the middle of a step.
      queueMicrotask(() => this.drive())
    } else if (this.front === undefined || operation.immediate) {
      const exit = operation.perform()
      if (exit !== undefined) return exit
    }
    return this.enqueue(operation)
  }

  private leave<A, E>(operation: Operation<A, E>): void {
    if (!operation.inLine) return
    operation.inLine = false
    if (operation.previous === undefined) this.front = operation.next
    else operation.previous.next = operation.next
    if (operation.next === undefined) this.back = operation.previous
    else operation.next.previous = operation.previous
    operation.next = operation.previous = undefined
  }

  private settle<A, E>(operation: Operation<A, E>, exit: Exit.Exit<A, E>): void {
    this.leave(operation)
    operation.exit = exit
    const resume = operation.resume
    operation.resume = undefined
    if (resume !== undefined) resume(exit)
  }
}

/** Waits until an operation settles. It is up to the caller what an interruption does to the operation. */
export const settled = <A, E>(operation: Operation<A, E>): Effect.Effect<A, E> =>
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
const margin = 16

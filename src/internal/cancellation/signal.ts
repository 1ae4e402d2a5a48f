import * as Effect from "effect/Effect"
import type { Ended, Filter, Pending, Report, Type } from "../../Cancellation.ts"
import { isOfThisVersion, version } from "../base/copies.ts"

/**
 * Graded requests on their way from the caller of `emit` to the operations that
 * wait in a region.
 *
 * A signal knows an operation only while the operation waits. An operation that
 * completes in its first attempt is never registered and pays nothing.
 * `Signal.request` is the only code that ends operations from outside. It cancels
 * all of them before it resumes the first fiber, so that no fiber's next step
 * runs between two cancellations.
 */

export type Origin = "signal" | "deadline"

/** A request as it reaches an operation, after the filters. */
export interface Request {
  readonly type: Type
  readonly origin: Origin
  readonly cause: unknown
}

/** An operation that waits, and that a request can end. */
export interface Cancellable extends Pending {
  /**
   * Cancels the operation and returns the guarantee that was kept. Returns
   * `undefined` when the operation cannot keep the requested guarantee; it runs
   * on then. Resumes no fiber.
   */
  requestCancel(request: Request): Type | undefined
  /** Resumes the fiber of an operation that `requestCancel` has cancelled. */
  resume(): void
}

const SignalId: unique symbol = Symbol.for("~effect-asio/CancellationSignal")

/** The implementation of `CancellationSignal`. */
export class Signal {
  private readonly operations = new Map<Cancellable, Filter | undefined>()
  private readonly idleWaiters = new Set<() => void>()
  private readonly origin: Origin

  constructor(origin: Origin) {
    this.origin = origin
  }

  get [SignalId](): string {
    return version
  }

  get pending(): ReadonlyArray<Pending> {
    return Array.from(this.operations.keys(), describe)
  }

  readonly idle: Effect.Effect<void> = Effect.suspend(() => {
    if (this.operations.size > 0) return Effect.andThen(this.emptied, this.idle)
    // A fiber between two operations has none that waits.
    return Effect.flatMap(Effect.yieldNow, () => this.operations.size > 0 ? this.idle : Effect.void)
  })

  readonly emit = (type: Type): Effect.Effect<Report> => Effect.sync(() => this.request(type))

  readonly emitUnsafe = (type: Type): Report => this.request(type)

  /** @param cause the `cause` of the errors that the cancelled operations fail with */
  request(type: Type, cause?: unknown, operations: Iterable<Cancellable> = this.operations.keys()): Report {
    assertType("emit", type)
    // Filters are code of the caller. All of them run before any operation is cancelled.
    const asked = Array.from(operations, (operation) => ({
      operation,
      type: passed(this.operations.get(operation), type)
    }))
    const cancelled: Array<Cancellable> = []
    const ended: Array<Ended> = []
    const continued: Array<Pending> = []
    for (const { operation, type } of asked) {
      // A filter may have emitted a request that has ended the operation.
      if (!this.operations.has(operation)) continue
      const guarantee = type === undefined
        ? undefined
        : operation.requestCancel({ type, origin: this.origin, cause })
      if (guarantee === undefined) {
        continued.push(describe(operation))
      } else {
        ended.push({ ...describe(operation), guarantee })
        cancelled.push(operation)
      }
    }
    for (const operation of cancelled) operation.resume()
    return { ended, continued }
  }

  add(operation: Cancellable, filter: Filter | undefined): void {
    this.operations.set(operation, filter)
  }

  remove(operation: Cancellable): void {
    this.operations.delete(operation)
    // Later, because the request that ended this operation may be about to end others.
    if (this.operations.size === 0 && this.idleWaiters.size > 0) {
      const idlers = [...this.idleWaiters]
      this.idleWaiters.clear()
      queueMicrotask(() => {
        for (const wake of idlers) wake()
      })
    }
  }

  protected get isIdle(): boolean {
    return this.operations.size === 0
  }

  private get emptied(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const wake = () => resume(Effect.void)
      this.idleWaiters.add(wake)
      return Effect.sync(() => this.idleWaiters.delete(wake))
    })
  }
}

/**
 * A signal whose request stands. A call of `emit` is an event; a deadline that
 * has passed and an `AbortSignal` that has been aborted are states, so they also
 * reach operations that start to wait afterwards.
 */
abstract class StandingSignal extends Signal {
  private readonly type: Type
  private arrivals: Array<Cancellable> = []

  constructor(origin: Origin, type: Type) {
    super(origin)
    this.type = type
  }

  protected abstract get stands(): boolean

  override add(operation: Cancellable, filter: Filter | undefined): void {
    super.add(operation, filter)
    if (!this.stands) return
    this.arrivals.push(operation)
    // The fiber of this operation is still running: it parks before the microtask.
    if (this.arrivals.length === 1) queueMicrotask(this.requestOfArrivals)
  }

  /** Requests all waiting operations to end. */
  protected readonly requestOfAll = (): void => this.requestOf(undefined)

  private readonly requestOfArrivals = (): void => {
    const { arrivals } = this
    this.arrivals = []
    if (this.stands) this.requestOf(arrivals)
  }

  // In a fiber, so that a filter that throws does not end the process.
  private requestOf(operations: ReadonlyArray<Cancellable> | undefined): void {
    Effect.runFork(Effect.catchCause(
      Effect.sync(() => this.request(this.type, this.cause, operations)),
      (cause) => Effect.logError("a filter failed, and the request was lost", cause)
    ))
  }

  protected get cause(): unknown {
    return undefined
  }
}

export class Deadline extends StandingSignal {
  protected stands = false

  constructor(type: Type) {
    super("deadline", type)
  }

  readonly pass: Effect.Effect<void> = Effect.sync(() => {
    this.stands = true
    this.requestOfAll()
  })

  /** From here on it reaches no operation, not even those of fibers that were forked inside its region. */
  lift(): void {
    this.stands = false
  }
}

export class AbortSource extends StandingSignal {
  private readonly source: AbortSignal

  constructor(source: AbortSignal, type: Type) {
    super("signal", type)
    this.source = source
  }

  protected get stands(): boolean {
    return this.source.aborted
  }

  protected override get cause(): unknown {
    return this.source.reason
  }

  // Listens only while an operation waits, so that there is nothing to dispose of.
  override add(operation: Cancellable, filter: Filter | undefined): void {
    super.add(operation, filter)
    this.source.addEventListener("abort", this.requestOfAll)
  }

  override remove(operation: Cancellable): void {
    super.remove(operation)
    if (this.isIdle) this.source.removeEventListener("abort", this.requestOfAll)
  }
}

/** A signal of another copy of this package is a `Signal` too; one of another version is a `TypeError`. */
export const isSignal = (signal: object): signal is Signal =>
  signal instanceof Signal || isOfThisVersion(signal, SignalId, "signal")

export const assertType = (operation: string, type: Type): void => {
  if (type === "total" || type === "partial" || type === "terminal") return
  throw new TypeError(`${operation}: ${String(type)} is not a type of cancellation`)
}

const passed = (filter: Filter | undefined, type: Type): Type | undefined => {
  if (filter === undefined) return type
  const answer = filter(type)
  if (answer !== undefined) assertType("a filter's answer", answer)
  return answer
}

// ---- internal

const describe = ({ address, operation, total, transferred }: Pending): Pending => ({
  operation,
  address,
  transferred,
  total
})

import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { type Address, isSocketError, Reason, SocketError } from "../../SocketError.ts"
import { isOfThisVersion, version } from "../base/copies.ts"

/**
 * Graded requests on their way from whoever emits them to the operations that
 * wait in a region.
 *
 * An operation is known to the signals of its region only while it waits; one
 * that its first attempt completes pays nothing. `Signal.request` is the one
 * place that ends operations from outside: it withdraws all of them before it
 * wakes the first fiber, so that no fiber's next step comes between them.
 */

export type Type = "terminal" | "partial" | "total"

export type Origin = "signal" | "deadline"

export type Filter = (type: Type) => Type | undefined

/** A request as an operation meets it, past the filters. */
export interface Request {
  readonly type: Type
  readonly origin: Origin
  readonly cause: unknown
}

export interface Pending {
  readonly operation: string
  readonly address: Address | undefined
  readonly transferred: number
  readonly total: number
}

export interface Ended extends Pending {
  readonly guarantee: Type
}

export interface Report {
  readonly ended: ReadonlyArray<Ended>
  readonly continued: ReadonlyArray<Pending>
}

/** What a request can reach: an operation that waits. */
export interface Cancellable extends Pending {
  /**
   * Ends the operation and answers the guarantee that this kept; `undefined`
   * when it cannot keep what is asked, and runs on. Wakes nobody.
   */
  requestCancel(request: Request): Type | undefined
  /** Wakes the fiber of an operation that was withdrawn. */
  resume(): void
}

const SignalId: unique symbol = Symbol.for("~effect-asio/CancellationSignal")

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
    // Between two operations a fiber has none that waits.
    return Effect.flatMap(Effect.yieldNow, () => this.operations.size > 0 ? this.idle : Effect.void)
  })

  readonly emit = (type: Type): Effect.Effect<Report> => Effect.sync(() => this.request(type))

  readonly emitUnsafe = (type: Type): Report => this.request(type)

  /** @param cause what the errors of ended operations name as theirs */
  request(type: Type, cause?: unknown, operations: Iterable<Cancellable> = this.operations.keys()): Report {
    assertType("emit", type)
    // The filters are code of the caller's: all of them have their say before anything happens.
    const asked = Array.from(operations, (operation) => ({
      operation,
      type: passed(this.operations.get(operation), type)
    }))
    const withdrawn: Array<Cancellable> = []
    const ended: Array<Ended> = []
    const continued: Array<Pending> = []
    for (const { operation, type } of asked) {
      // A filter may have ended it by a request of its own.
      if (!this.operations.has(operation)) continue
      const guarantee = type === undefined
        ? undefined
        : operation.requestCancel({ type, origin: this.origin, cause })
      if (guarantee === undefined) {
        continued.push(describe(operation))
      } else {
        ended.push({ ...describe(operation), guarantee })
        withdrawn.push(operation)
      }
    }
    for (const operation of withdrawn) operation.resume()
    return { ended, continued }
  }

  add(operation: Cancellable, filter: Filter | undefined): void {
    this.operations.set(operation, filter)
  }

  remove(operation: Cancellable): void {
    this.operations.delete(operation)
    // Later, because others may be about to be withdrawn by the same request.
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
 * A signal whose request stands: unlike a call of `emit`, a deadline that has
 * passed and an `AbortSignal` that has been aborted are states, and operations
 * that start to wait afterwards meet them too.
 */
abstract class StandingSignal extends Signal {
  private readonly type: Type
  private newcomers: Array<Cancellable> = []

  constructor(origin: Origin, type: Type) {
    super(origin)
    this.type = type
  }

  protected abstract get stands(): boolean

  override add(operation: Cancellable, filter: Filter | undefined): void {
    super.add(operation, filter)
    if (!this.stands) return
    this.newcomers.push(operation)
    // Their fibers are about to park.
    if (this.newcomers.length === 1) queueMicrotask(this.askNewcomers)
  }

  /** Asks everybody who waits. */
  protected readonly ask = (): void => this.askAll(undefined)

  private readonly askNewcomers = (): void => {
    const { newcomers } = this
    this.newcomers = []
    if (this.stands) this.askAll(newcomers)
  }

  // In a fiber, because a filter that throws must not bring down the process.
  private askAll(operations: ReadonlyArray<Cancellable> | undefined): void {
    Effect.runFork(Effect.catchCause(
      Effect.sync(() => this.request(this.type, this.why, operations)),
      (cause) => Effect.logError("a filter failed, and the request was lost", cause)
    ))
  }

  protected get why(): unknown {
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
    this.ask()
  })

  /** Nobody is held to it any more, not even fibers that were forked under it. */
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

  protected override get why(): unknown {
    return this.source.reason
  }

  // Listens only while something waits, so that there is nothing to dispose of.
  override add(operation: Cancellable, filter: Filter | undefined): void {
    super.add(operation, filter)
    this.source.addEventListener("abort", this.ask)
  }

  override remove(operation: Cancellable): void {
    super.remove(operation)
    if (this.isIdle) this.source.removeEventListener("abort", this.ask)
  }
}

/** A signal of another copy of this package is a `Signal` too; one of another version is a `TypeError`. */
export const isSignal = (signal: object): signal is Signal =>
  signal instanceof Signal || isOfThisVersion(signal, SignalId, "signal")

interface Link {
  readonly signal: Signal
  /** What every filter between the signal and here lets through. */
  readonly filter: Filter | undefined
}

const ScopeId: unique symbol = Symbol.for("~effect-asio/CancellationScope")

/** The signals that reach the operations of a region, each through its own filters. */
export class CancellationScope {
  private readonly links: ReadonlyArray<Link>

  constructor(links: ReadonlyArray<Link>) {
    this.links = links
  }

  get [ScopeId](): string {
    return version
  }

  /** A signal that is in force already is in force anew, without the filters of before. */
  within(signal: Signal): CancellationScope {
    return new CancellationScope([...this.links.filter((link) => link.signal !== signal), {
      signal,
      filter: undefined
    }])
  }

  through(filter: Filter): CancellationScope {
    return new CancellationScope(this.links.map((link) => ({
      signal: link.signal,
      filter: link.filter === undefined ? filter : compose(link.filter, filter)
    })))
  }

  register(operation: Cancellable): void {
    for (const { filter, signal } of this.links) signal.add(operation, filter)
  }

  unregister(operation: Cancellable): void {
    for (const { signal } of this.links) signal.remove(operation)
  }
}

export const CurrentCancellationScope: Context.Reference<CancellationScope | undefined> = Context.Reference<
  CancellationScope | undefined
>(
  "effect-asio/Cancellation/Region",
  { defaultValue: () => undefined }
)

/**
 * The scope that a fiber runs in. Throws a `TypeError` when another version of
 * this package made it: its requests would not be understood.
 */
export const scopeOf = (fiber: Fiber.Fiber<unknown, unknown>): CancellationScope | undefined =>
  checked(fiber.getRef(CurrentCancellationScope))

export const checked = (scope: CancellationScope | undefined): CancellationScope | undefined => {
  if (scope !== undefined && !(scope instanceof CancellationScope)) isOfThisVersion(scope, ScopeId, "signal")
  return scope
}

/** Opening a stream may be cut by a signal that has no say in the stream, nor in its end. */
export const withoutSignals = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  // There mostly is none, and services cost something.
  Effect.withFiber((fiber) =>
    fiber.getRef(CurrentCancellationScope) === undefined
      ? effect
      : Effect.provideService(effect, CurrentCancellationScope, undefined)
  )

export const compose = (outer: Filter, inner: Filter): Filter => (type) => {
  const passed = outer(type)
  return passed === undefined ? undefined : inner(passed)
}

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

/** What ended an operation that honoured a request; `undefined` for every other cause. */
export const abortedBy = (cause: Cause.Cause<unknown>): Aborted | undefined => {
  for (const reason of cause.reasons) {
    if (!Cause.isFailReason(reason) || !isSocketError(reason.error)) continue
    const why = reason.error.reason
    if (why._tag === "OperationAborted") return why
  }
  return undefined
}

type Aborted = Extract<Reason, { readonly _tag: "OperationAborted" }>

/** The error of an operation that honoured a request. */
export const aborted = (
  { address, operation, total, transferred }: Pending,
  { cause, origin }: Request,
  guarantee: Type
): SocketError =>
  new SocketError({
    reason: Reason.OperationAborted({
      type: guarantee,
      transferred,
      total,
      ...(origin === "deadline" ? { deadline: true } : undefined)
    }),
    operation,
    address,
    transferred,
    total: total === 0 ? undefined : total,
    cause
  })

// ---- internal

const describe = ({ address, operation, total, transferred }: Pending): Pending => ({
  operation,
  address,
  transferred,
  total
})

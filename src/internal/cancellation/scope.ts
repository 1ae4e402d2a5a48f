import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Filter } from "../../Cancellation.ts"
import { isOfThisVersion, version } from "../base/copies.ts"
import type { Cancellable, Signal } from "./signal.ts"

interface Link {
  readonly signal: Signal
  /** All filters between the signal and this scope, composed. */
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

  /** Adds a signal. One that this scope has already is added anew, without the filters that stood before it. */
  within(signal: Signal): CancellationScope {
    return new CancellationScope([...this.links.filter((link) => link.signal !== signal), {
      signal,
      filter: undefined
    }])
  }

  /** Puts a filter behind those of every signal. */
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
  "effect-asio/Cancellation/Scope",
  { defaultValue: () => undefined }
)

/**
 * The scope that a fiber runs in. Throws a `TypeError` when another version of
 * this package made it: nothing says that its requests mean the same.
 */
export const scopeOf = (fiber: Fiber.Fiber<unknown, unknown>): CancellationScope | undefined =>
  ofThisVersion(fiber.getRef(CurrentCancellationScope))

export const ofThisVersion = (scope: CancellationScope | undefined): CancellationScope | undefined => {
  if (scope !== undefined && !(scope instanceof CancellationScope)) isOfThisVersion(scope, ScopeId, "signal")
  return scope
}

/**
 * Runs an effect where no signal reaches. A signal around the opening of a stream
 * ends the opening, and not the stream or its close.
 */
export const withoutSignals = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  // Most fibers run in no scope, and providing a service costs something.
  Effect.withFiber((fiber) =>
    fiber.getRef(CurrentCancellationScope) === undefined
      ? effect
      : Effect.provideService(effect, CurrentCancellationScope, undefined)
  )

// ---- internal

const compose = (outer: Filter, inner: Filter): Filter => (type) => {
  const passed = outer(type)
  return passed === undefined ? undefined : inner(passed)
}

import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Address, SocketError } from "../../SocketError.ts"
import { counters } from "../base/counters.ts"
import {
  aborted,
  type Cancellable,
  type CancellationScope,
  type Request,
  scopeOf,
  type Type,
  withoutSignals
} from "./signal.ts"

/**
 * Lets requests reach an effect that an interruption cuts whole: it is
 * interrupted, and a typed failure takes its place. `keeps` is what cutting it
 * guarantees: requests for more than that are not honoured.
 */
export const cancellable = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  what: { readonly operation: string; readonly address: () => Address | undefined },
  keeps: "total" | "terminal" = "total"
): Effect.Effect<A, E | SocketError, R> =>
  Effect.withFiber((fiber) => {
    const scope = scopeOf(fiber)
    return scope === undefined
      ? effect
      // What it consists of is cut with it, and not by itself.
      : Effect.raceFirst(
        withoutSignals(effect),
        new CancellableEffect(what.operation, what.address(), scope, keeps).wait
      )
  })

class CancellableEffect implements Cancellable {
  readonly operation: string
  readonly address: Address | undefined
  readonly transferred = 0
  readonly total = 0
  private readonly scope: CancellationScope
  private readonly guarantee: "total" | "terminal"
  private exit: Exit.Exit<never, SocketError> | undefined = undefined
  private waiter: ((exit: Exit.Exit<never, SocketError>) => void) | undefined = undefined

  constructor(operation: string, address: Address | undefined, scope: CancellationScope, keeps: "total" | "terminal") {
    this.operation = operation
    this.address = address
    this.scope = scope
    this.guarantee = keeps
  }

  get wait(): Effect.Effect<never, SocketError> {
    return Effect.callback((resume) => {
      this.waiter = resume
      this.scope.register(this)
      return Effect.sync(() => this.scope.unregister(this))
    })
  }

  requestCancel(request: Request): Type | undefined {
    if (this.exit !== undefined || (this.guarantee === "terminal" && request.type !== "terminal")) return undefined
    this.scope.unregister(this)
    this.exit = Exit.fail(aborted(this, request, this.guarantee))
    counters.cancelled[this.guarantee]++
    return this.guarantee
  }

  resume(): void {
    if (this.exit !== undefined) this.waiter?.(this.exit)
  }
}

import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Type } from "../../Cancellation.ts"
import type { Address, SocketError } from "../../SocketError.ts"
import { counters } from "../base/counters.ts"
import { aborted } from "./aborted.ts"
import { satisfies } from "./guarantee.ts"
import { type CancellationScope, scopeOf, withoutSignals } from "./scope.ts"
import type { Cancellable, Request } from "./signal.ts"

/**
 * Lets requests end an effect as a whole, such as a connect or a TLS handshake.
 * The effect is interrupted, and the result fails with `OperationAborted`.
 * `guarantee` is what interrupting it keeps; a request for a stronger guarantee
 * is not honoured.
 */
export const cancellable = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  what: { readonly operation: string; readonly address: () => Address | undefined },
  guarantee: "total" | "terminal" = "total"
): Effect.Effect<A, E | SocketError, R> =>
  Effect.withFiber((fiber) => {
    const scope = scopeOf(fiber)
    return scope === undefined
      ? effect
      // Its own operations end with it. A request must not end one of them alone.
      : Effect.raceFirst(
        withoutSignals(effect),
        new CancellableEffect(what.operation, what.address(), scope, guarantee).wait
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

  constructor(
    operation: string,
    address: Address | undefined,
    scope: CancellationScope,
    guarantee: "total" | "terminal"
  ) {
    this.operation = operation
    this.address = address
    this.scope = scope
    this.guarantee = guarantee
  }

  get wait(): Effect.Effect<never, SocketError> {
    return Effect.callback((resume) => {
      this.waiter = resume
      this.scope.register(this)
      return Effect.sync(() => this.scope.unregister(this))
    })
  }

  requestCancel(request: Request): Type | undefined {
    if (this.exit !== undefined || !satisfies(this.guarantee, request.type)) return undefined
    this.scope.unregister(this)
    this.exit = Exit.fail(aborted(this, request, this.guarantee))
    counters.cancelled[this.guarantee]++
    return this.guarantee
  }

  resume(): void {
    if (this.exit !== undefined) this.waiter?.(this.exit)
  }
}

import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"

/** Provides a scope that closes only when the effect fails. On success, the caller owns what the effect has opened. */
export const detachScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const scope = Scope.makeUnsafe()
    return Effect.onError(
      Effect.provideService(effect, Scope.Scope, scope),
      (cause) => Scope.close(scope, Exit.failCause(cause))
    )
  })

import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Cancellation from "../Cancellation.ts"

/** Lets an interrupted operation finish, for the time it was given; `undefined` when that was too short. */
export const finish = <A, E>(
  operation: Effect.Effect<A, E>,
  within: Duration.Duration
): Effect.Effect<Exit.Exit<A, E> | undefined> =>
  Duration.isFinite(within)
    // Interruptible children, because this runs in an uninterruptible region.
    ? Effect.raceFirst(
      Effect.interruptible(Effect.exit(operation)),
      Effect.as(Effect.interruptible(Effect.sleep(within)), undefined)
    )
    : Effect.exit(operation)

/** Writes on a cause how far the interrupted operation came, and lets it proceed. */
export const proceed = <E>(
  cause: Cause.Cause<E>,
  transfer: Cancellation.Transfer["Service"]
): Effect.Effect<never, E> => Effect.failCause(Cause.annotate(cause, Context.make(Cancellation.Transfer, transfer)))

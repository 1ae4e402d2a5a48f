import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Cancellation from "../Cancellation.ts"
import { formatProgress } from "./format.ts"

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
): Effect.Effect<never, E> => {
  const { guarantee, total, transferred } = transfer
  const found = Cause.annotations(cause)
  const outer = Context.getOrUndefined(found, Cause.StackTrace)
  // Causes print their frames: the account stands on top of them, wherever the cause is logged.
  const frame: Cause.StackTrace["Service"] = {
    name: `interrupted ${formatProgress(guarantee, transferred, total)}`,
    stack: () => undefined,
    // An account that is there already is of a step of this operation.
    parent: Option.isSome(Context.getOption(found, Cancellation.Transfer)) ? outer?.parent : outer
  }
  const annotations = Context.make(Cancellation.Transfer, transfer).pipe(Context.add(Cause.StackTrace, frame))
  return Effect.failCause(Cause.annotate(cause, annotations, { overwrite: true }))
}

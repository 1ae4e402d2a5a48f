import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Cancellation from "../../Cancellation.ts"
import { formatProgress } from "../base/format.ts"

/** What a composed write is to its caller. */
export interface WriteMode {
  readonly operation: string
  /** Cut in the middle it is worth nothing: it completes or tears, and never stops so that others could follow. */
  readonly atomic: boolean
}

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
  const account = Context.make(Cancellation.Transfer, transfer)
  // Where nothing was moved there is nothing to print.
  const annotations = transfer.transferred === 0
    ? account
    : Context.add(account, Cause.StackTrace, new ProgressFrame(transfer, Cause.annotations(cause)))
  return Effect.failCause(Cause.annotate(cause, annotations, { overwrite: true }))
}

/** Causes print their frames: the account stands on top of them, wherever the cause is logged. */
class ProgressFrame {
  readonly parent: Cause.StackTrace["Service"] | undefined
  private readonly transfer: Cancellation.Transfer["Service"]

  constructor(transfer: Cancellation.Transfer["Service"], found: Context.Context<never>) {
    this.transfer = transfer
    const outer = Context.getOrUndefined(found, Cause.StackTrace)
    // An account that is there already is of a step of this operation.
    this.parent = outer instanceof ProgressFrame ? outer.parent : outer
  }

  get name(): string {
    const { guarantee, total, transferred } = this.transfer
    return `interrupted ${formatProgress(guarantee, transferred, total)}`
  }

  stack(): undefined {
    return undefined
  }
}

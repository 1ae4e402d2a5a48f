import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Cancellation from "../../Cancellation.ts"
import { formatProgress } from "../base/format.ts"

/** How a composed write stands to its caller. */
export interface WriteMode {
  /** The public operation, for errors. */
  readonly operation: string
  /** The caller cannot resume it, as with a frame: stopping inside it tears the stream. */
  readonly atomic: boolean
}

/** Lets an interrupted operation finish within a time; `undefined` when the time was too short. */
export const finish = <A, E>(
  operation: Effect.Effect<A, E>,
  within: Duration.Duration
): Effect.Effect<Exit.Exit<A, E> | undefined> =>
  Duration.isFinite(within)
    // Interruptible, because this runs in an uninterruptible region.
    ? Effect.raceFirst(
      Effect.interruptible(Effect.exit(operation)),
      Effect.as(Effect.interruptible(Effect.sleep(within)), undefined)
    )
    : Effect.exit(operation)

/** Fails with the interruption, annotated with how far the operation came. */
export const proceed = <E>(
  cause: Cause.Cause<E>,
  transfer: Cancellation.Transfer["Service"]
): Effect.Effect<never, E> => {
  const annotation = Context.make(Cancellation.Transfer, transfer)
  // An operation that has taken nothing adds no line to the printed cause.
  const annotations = transfer.transferred === 0
    ? annotation
    : Context.add(annotation, Cause.StackTrace, new ProgressFrame(transfer, Cause.annotations(cause)))
  return Effect.failCause(Cause.annotate(cause, annotations, { overwrite: true }))
}

/** A frame of the printed stack trace that says how far the operation came: it shows wherever the cause is logged. */
class ProgressFrame {
  readonly parent: Cause.StackTrace["Service"] | undefined
  private readonly transfer: Cancellation.Transfer["Service"]

  constructor(transfer: Cancellation.Transfer["Service"], found: Context.Context<never>) {
    this.transfer = transfer
    const outer = Context.getOrUndefined(found, Cause.StackTrace)
    // The frame of a step of this operation is replaced.
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

import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Cancellation from "../../Cancellation.ts"
import { formatProgress } from "../base/format.ts"
import { monotonicMillis } from "../base/monotonic.ts"

/** How a composed write stands to its caller. */
export interface WriteMode {
  /** The public operation, for errors. */
  readonly operation: string
  /** The caller cannot resume it, as with a frame: stopping inside it tears the stream. */
  readonly atomic: boolean
}

/** The bounds of an interrupted operation that goes on under the `total` policy. */
export interface Bounds {
  /** How long it may go on without taking a byte. */
  readonly within: Duration.Duration
  /** How long it may go on in all. */
  readonly atMost: Duration.Duration
}

/** The bounds in force in a fiber. */
export const boundsOf = (fiber: Fiber.Fiber<unknown, unknown>): Bounds => ({
  within: fiber.getRef(Cancellation.TotalTimeout),
  atMost: fiber.getRef(Cancellation.TotalDeadline)
})

export const isBounded = ({ atMost, within }: Bounds): boolean => Duration.isFinite(within) || Duration.isFinite(atMost)

/** Lets an interrupted operation finish; `undefined` when it reached a bound. `progress` counts the bytes it has taken. */
export const finish = <A, E>(
  operation: Effect.Effect<A, E>,
  bounds: Bounds,
  progress: () => number
): Effect.Effect<Exit.Exit<A, E> | undefined> =>
  isBounded(bounds)
    // Interruptible, because this runs in an uninterruptible region.
    ? Effect.raceFirst(
      Effect.interruptible(Effect.exit(operation)),
      Effect.as(Effect.interruptible(exceeded(bounds, progress)), undefined)
    )
    : Effect.exit(operation)

/**
 * Ends when `progress` has not changed for the time `within`, or when the time `atMost` is over. It looks at `progress`
 * eight times per `within`, so it ends at most 1/8 of that time late, and never early.
 */
export const exceeded = ({ atMost, within }: Bounds, progress: () => number): Effect.Effect<void> => {
  if (!Duration.isFinite(within)) return Effect.sleep(atMost)
  const silence = Clock.clockWith((clock) => {
    const limit = Duration.toMillis(within)
    let seen = progress()
    let changedAt = monotonicMillis(clock)
    const wait: Effect.Effect<void> = Effect.suspend(() => {
      const now = monotonicMillis(clock)
      const taken = progress()
      if (taken !== seen) {
        seen = taken
        changedAt = now
      }
      const left = changedAt + limit - now
      return left <= 0 ? Effect.void : Effect.andThen(Effect.sleep(Math.min(left, limit / looks)), wait)
    })
    return wait
  })
  return Duration.isFinite(atMost) ? Effect.raceFirst(silence, Effect.sleep(atMost)) : silence
}

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

const looks = 8

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

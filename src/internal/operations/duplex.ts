import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Cancellation from "../../Cancellation.ts"

/**
 * The two directions of a connection as one channel: what comes from `upstream`
 * is written in a fiber of its own, and what this answers is read. The first
 * failure of either direction is the failure of both.
 */
export const duplex = <In, InErr, Out, OutErr>(options: {
  readonly upstream: Pull.Pull<In, InErr, unknown>
  readonly scope: Scope.Scope
  readonly write: (input: In) => Effect.Effect<unknown, OutErr>
  /** Run when `upstream` has ended. */
  readonly end: Effect.Effect<void, OutErr>
  readonly read: Pull.Pull<Out, OutErr>
}): Effect.Effect<Pull.Pull<Out, InErr | OutErr>> =>
  Effect.suspend(() => {
    const stopReading = Cancellation.makeSignal()
    let failure: Cause.Cause<InErr | OutErr> | undefined
    const writing = options.upstream.pipe(
      Effect.flatMap(options.write),
      Effect.forever({ disableYield: true }),
      Pull.catchDone(() => options.end),
      Effect.catchCause((cause) =>
        Effect.sync(() => {
          failure = cause
          // Ends the read that waits, if one does; it has consumed nothing.
          stopReading.emitUnsafe("total")
        })
      )
    )
    type Reading = Pull.Pull<Out, InErr | OutErr>
    const read: Reading = Cancellation.withSignal(options.read, stopReading)
    const reading = Effect.suspend((): Reading =>
      failure === undefined
        ? Effect.catchCause(read, (cause): Reading => Effect.failCause(failure ?? cause))
        : Effect.failCause(failure)
    )
    return Effect.as(Effect.forkIn(writing, options.scope, { startImmediately: true }), reading)
  })

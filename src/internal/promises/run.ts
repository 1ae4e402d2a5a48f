import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Cancellation from "../../Cancellation.ts"
import type { Abortable } from "../../promises.ts"
import { type Address, isSocketError, type SocketError } from "../../SocketError.ts"
import { aborted } from "../cancellation/aborted.ts"
import { assertType } from "../cancellation/signal.ts"

/** An operation that has not started, for the error of one whose signal is aborted already. */
export interface Requested {
  readonly operation: string
  readonly address: Address | undefined
  readonly total: number
}

/** Runs an operation, under the signal of its options if there is one. Every promise of this library is made here. */
export const run = <A>(
  effect: Effect.Effect<A, SocketError>,
  options?: Abortable,
  requested?: () => Requested
): Promise<A> =>
  new Promise((resolve, reject) => {
    const fiber = Effect.runFork(
      requested === undefined ? effect : Effect.suspend(() => abortable(effect, options, requested))
    )
    const settled = fiber.pollUnsafe()
    if (settled !== undefined && Exit.isSuccess(settled)) {
      resolve(settled.value)
      return
    }
    // A later error has the event loop on its stack. Here the stack still shows the caller.
    const caller: { readonly stack?: string } = {}
    Error.captureStackTrace(caller, run)
    fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit)) {
        resolve(exit.value)
        return
      }
      const error = Cause.squash(exit.cause)
      if (isSocketError(error)) {
        error.stack = `${error.name}: ${error.message}${caller.stack?.replace(/^.*/, "") ?? ""}`
      }
      reject(error)
    })
  })

/** The end of the stream as `null`. */
export const orNull = <A>(pull: Pull.Pull<A, SocketError>): Effect.Effect<A | null, SocketError> =>
  Pull.catchDone(pull, () => Effect.succeed(null))

// ---- internal

const abortable = <A>(
  effect: Effect.Effect<A, SocketError>,
  options: Abortable | undefined,
  requested: () => Requested
): Effect.Effect<A, SocketError> => {
  const type = options?.type ?? "terminal"
  assertType("type", type)
  const signal = options?.signal
  // As in `fetch`, `null` means no signal.
  if (signal === undefined || signal === null) return effect
  return signal.aborted
    ? Effect.fail(
      aborted({ ...requested(), transferred: 0 }, { type, origin: "signal", cause: signal.reason }, "total")
    )
    : Cancellation.withSignal(effect, sourceOf(signal, type))
}

// One source for each signal and type, so that all operations that wait on a signal share one listener.
const sources = new WeakMap<AbortSignal, Map<Cancellation.Type, Cancellation.CancellationSignal>>()

const sourceOf = (signal: AbortSignal, type: Cancellation.Type): Cancellation.CancellationSignal => {
  let ofSignal = sources.get(signal)
  if (ofSignal === undefined) sources.set(signal, ofSignal = new Map())
  let source = ofSignal.get(type)
  if (source === undefined) ofSignal.set(type, source = Cancellation.fromAbortSignal(signal, type))
  return source
}

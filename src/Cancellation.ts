/**
 * What interruption asks of a composed operation, and what it left behind.
 *
 * The three types are Asio's, from the weakest promise to the strongest:
 *
 * - `terminal`: some bytes were taken, the count is exact, the stream is torn.
 * - `partial`: some bytes were taken, the count is exact, the stream is usable.
 * - `total`: nothing happened, as if the operation had never been started.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"

/**
 * The three guarantees. A stronger one satisfies a request for a weaker one:
 * `total` > `partial` > `terminal`.
 *
 * @category models
 * @since 0.1.0
 */
export type Type = "terminal" | "partial" | "total"

/**
 * What plain fiber interruption asks of a composed write that is in the middle
 * of its bytes. The default is `terminal`, as for Asio's coroutines.
 *
 * **Details**
 *
 * - `terminal`: stop at once and tear the stream.
 * - `partial`: stop at once; the stream stays usable and the caller's cursor
 *   says where to go on.
 * - `total`: go on to the last byte, and let the interruption proceed then;
 *   {@link Within} bounds that.
 *
 * @category references
 * @since 0.1.0
 */
export const Policy: Context.Reference<Type> = Context.Reference<Type>("effect-asio/Cancellation/Policy", {
  defaultValue: () => "terminal"
})

/**
 * How long an interrupted write may go on under the `total` policy before it
 * becomes `terminal`. The default is no bound.
 *
 * @category references
 * @since 0.1.0
 */
export const Within: Context.Reference<Duration.Duration> = Context.Reference<Duration.Duration>(
  "effect-asio/Cancellation/Within",
  { defaultValue: () => Duration.infinity }
)

/**
 * Runs an effect with the `terminal` policy: an interrupted composed write
 * stops at once and tears the stream.
 *
 * @category policies
 * @since 0.1.0
 */
export const terminal: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = Effect.provideService(
  Policy,
  "terminal"
)

/**
 * Runs an effect with the `partial` policy: an interrupted composed write stops
 * at once, and the stream stays usable. Pass a `Buffers.Cursor` to go on from
 * where it stopped.
 *
 * @category policies
 * @since 0.1.0
 */
export const partial: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = Effect.provideService(
  Policy,
  "partial"
)

/**
 * Runs an effect with the `total` policy: an interrupted composed write that
 * has taken bytes finishes first, and the interruption proceeds then.
 *
 * **Details**
 *
 * In a pipe it is called: `Cancellation.total()`. `within` bounds the wait: after that time the write stops and tears the
 * stream, as under `terminal`. Without it a peer that never reads can hold the
 * interruption for ever.
 *
 * **Example** (Finishing a message, but not at any price)
 *
 * ```ts
 * const send = Write.writeAll(socket, [header, body]).pipe(
 *   Cancellation.total({ within: "2 seconds" })
 * )
 * ```
 *
 * @category policies
 * @since 0.1.0
 */
export const total: {
  (options?: { readonly within?: Duration.Input | undefined }): <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, R>
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: { readonly within?: Duration.Input | undefined }
  ): Effect.Effect<A, E, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: { readonly within?: Duration.Input | undefined }
  ): Effect.Effect<A, E, R> =>
    Effect.provideService(
      Effect.provideService(effect, Policy, "total"),
      Within,
      options?.within === undefined ? Duration.infinity : Duration.fromInputUnsafe(options.within)
    )
)

/**
 * How far an interrupted write came, as an annotation on the `Cause` of its
 * exit.
 *
 * **Details**
 *
 * `transferred` and `total` count the bytes of that one operation. `guarantee`
 * is the promise that was kept, which may be stronger than the policy asked
 * for: an operation that had taken nothing, or everything, kept `total`.
 *
 * @category models
 * @since 0.1.0
 */
export class Transfer extends Context.Service<Transfer, {
  readonly transferred: number
  readonly total: number
  readonly guarantee: Type
}>()("effect-asio/Cancellation/Transfer") {}

/**
 * Reads from a `Cause` how far the interrupted write came; `None` when no write
 * of ours was interrupted.
 *
 * **Example** (Asking after an interruption)
 *
 * ```ts
 * const exit = yield* Fiber.await(fiber)
 * if (Exit.isFailure(exit)) {
 *   const transfer = Cancellation.transfer(exit.cause)
 *   // => Option.some({ transferred: 65536, total: 33554432, guarantee: "terminal" })
 * }
 * ```
 *
 * **Gotchas**
 *
 * `Effect.timeout` and its relatives replace the cause of what they cut; pass a
 * `Buffers.Cursor` to the write to keep the count in any case.
 *
 * @category getters
 * @since 0.1.0
 */
export const transfer = <E>(cause: Cause.Cause<E>): Option.Option<Transfer["Service"]> =>
  Context.getOption(Cause.annotations(cause), Transfer)

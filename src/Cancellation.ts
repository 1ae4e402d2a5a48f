/**
 * Ways to end an operation early, and the guarantees that each leaves behind.
 *
 * There are three types of cancellation. They are Asio's, from the weakest
 * promise to the strongest:
 *
 * - `terminal`: some bytes were taken, the count is exact, the stream is torn.
 * - `partial`: some bytes were taken, the count is exact, the stream is usable.
 * - `total`: nothing happened, as if the operation had never been started.
 *
 * A *policy* says which of them plain fiber interruption asks for. A *signal*
 * asks from outside, without interrupting a fiber: an operation that can keep
 * the guarantee at that moment ends with a typed failure, and any other operation
 * runs on.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import { abortedBy } from "./internal/cancellation/aborted.ts"
import { CancellationScope, CurrentCancellationScope, ofThisVersion } from "./internal/cancellation/scope.ts"
import * as Signal from "./internal/cancellation/signal.ts"
import type { Address } from "./SocketError.ts"

/**
 * The three guarantees. A stronger one satisfies a request for a weaker one:
 * `total` > `partial` > `terminal`.
 *
 * @category models
 * @since 0.1.0
 */
export type Type = "terminal" | "partial" | "total"

/**
 * The guarantee that plain fiber interruption asks of a composed write in the
 * middle of its bytes. The default is `terminal`, as for Asio's coroutines.
 *
 * **Details**
 *
 * - `terminal`: stop at once and tear the stream.
 * - `partial`: stop at once; the stream stays usable and the caller's cursor
 *   says where to go on.
 * - `total`: go on to the last byte, and let the interruption proceed then;
 *   {@link TotalTimeout} bounds that.
 *
 * @category references
 * @since 0.1.0
 */
export const Policy: Context.Reference<Type> = Context.Reference<Type>("effect-asio/Cancellation/Policy", {
  defaultValue: () => "terminal"
})

/**
 * How long an interrupted write may go on under the `total` policy without taking
 * a byte before it becomes `terminal`. As long as bytes flow, it goes on. The
 * default is no bound.
 *
 * @category references
 * @since 0.1.0
 */
export const TotalTimeout: Context.Reference<Duration.Duration> = Context.Reference<Duration.Duration>(
  "effect-asio/Cancellation/TotalTimeout",
  { defaultValue: () => Duration.infinity }
)

/**
 * How long an interrupted write may go on under the `total` policy in all, even if
 * bytes flow, before it becomes `terminal`. The default is no bound.
 *
 * @category references
 * @since 0.1.0
 */
export const TotalDeadline: Context.Reference<Duration.Duration> = Context.Reference<Duration.Duration>(
  "effect-asio/Cancellation/TotalDeadline",
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
 * **Gotchas**
 *
 * On a connection that several fibers write to, the next one in line starts
 * where this one stopped, inside its message. There, use {@link total}.
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
 * In a pipe it is called: `Cancellation.total()`. `within` bounds the time without
 * progress: when no byte was taken for that time (and at most 1/8 longer), the
 * write stops and tears the stream, as under `terminal`. `atMost` bounds the whole
 * wait, even if bytes flow. Without both, a peer that never reads holds the
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
  (options?: {
    readonly within?: Duration.Input | undefined
    readonly atMost?: Duration.Input | undefined
  }): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(effect: Effect.Effect<A, E, R>, options?: {
    readonly within?: Duration.Input | undefined
    readonly atMost?: Duration.Input | undefined
  }): Effect.Effect<A, E, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: {
      readonly within?: Duration.Input | undefined
      readonly atMost?: Duration.Input | undefined
    }
  ): Effect.Effect<A, E, R> =>
    effect.pipe(
      Effect.provideService(Policy, "total"),
      Effect.provideService(TotalTimeout, durationOf(options?.within)),
      Effect.provideService(TotalDeadline, durationOf(options?.atMost))
    )
)

/**
 * How far an interrupted write came, as an annotation on the `Cause` of its
 * exit.
 *
 * **Details**
 *
 * `transferred` and `total` count the bytes of that one operation. `guarantee`
 * is the guarantee that was kept. It may be stronger than the policy asked for:
 * an operation that had taken nothing, or everything, kept `total`.
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
 * `Buffers.Cursor` to the write to keep the count in any case. When several writes
 * ran at once and were cut together, this reads one of them; ask the exit of each
 * fiber. A fiber that ends by interruption while children of its own are still
 * ending exits with a bare interruption (Effect 4.1): there, ask inside the fiber,
 * with `Effect.onExit` or `Effect.exit` at the write.
 *
 * @category getters
 * @since 0.1.0
 */
export const transfer = <E>(cause: Cause.Cause<E>): Option.Option<Transfer["Service"]> =>
  Context.getOption(Cause.annotations(cause), Transfer)

/**
 * How something ended, in the terms of this module.
 *
 * **Details**
 *
 * - `Completed`: with its value.
 * - `Cancelled`: by an interruption, by a request of a signal, or by a deadline.
 *   `transferred` and `total` count the bytes of the operation that was cut, and
 *   `guarantee` is the guarantee that was kept. An interruption that cut no write
 *   in the middle reads `total`, 0 of 0: every byte that an operation moved was
 *   reported by its result.
 * - `Failed`: for any other reason.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome<A, E> = Data.TaggedEnum<{
  Completed: { readonly value: A }
  Cancelled: {
    readonly by: "interruption" | "request" | "deadline"
    readonly guarantee: Type
    readonly transferred: number
    readonly total: number
  }
  Failed: { readonly cause: Cause.Cause<E> }
}>

interface OutcomeDefinition extends Data.TaggedEnum.WithGenerics<2> {
  readonly taggedEnum: Outcome<this["A"], this["B"]>
}

/**
 * Constructors, guards and the `$match` of outcomes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const Outcome = Data.taggedEnum<OutcomeDefinition>()

/**
 * Reads an exit, such as that of `Fiber.await`, `Effect.exit` or
 * `Effect.onExit`.
 *
 * **Details**
 *
 * A cause that holds both an interruption and a failure (a `total` write that
 * failed while it was finishing) is `Cancelled`; one that holds a defect is
 * `Failed`.
 *
 * **Example** (Deciding what to do with a connection)
 *
 * ```ts
 * const outcome = Cancellation.outcome(yield* Fiber.await(fiber))
 * if (outcome._tag === "Cancelled" && outcome.guarantee === "terminal") {
 *   yield* socket.abort
 * }
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const outcome = <A, E>(exit: Exit.Exit<A, E>): Outcome<A, E> => {
  if (Exit.isSuccess(exit)) return Outcome.Completed({ value: exit.value })
  const { cause } = exit
  if (Cause.hasDies(cause)) return Outcome.Failed({ cause })
  if (Cause.hasInterrupts(cause)) {
    const { guarantee, total, transferred } = Option.getOrElse(transfer(cause), () => untouched)
    return Outcome.Cancelled({ by: "interruption", guarantee, transferred, total })
  }
  const aborted = abortedBy(cause)
  return aborted === undefined ? Outcome.Failed({ cause }) : Outcome.Cancelled({
    by: aborted.deadline === true ? "deadline" : "request",
    guarantee: aborted.type,
    transferred: aborted.transferred,
    total: aborted.total
  })
}

// ---- signals

/**
 * An operation that waits in the region of a signal. `transferred` and `total`
 * are its bytes so far; `total` is 0 where it is unknown.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pending {
  readonly operation: string
  readonly address: Address | undefined
  readonly transferred: number
  readonly total: number
}

/**
 * An operation that a request ended: where it stood, and the guarantee that
 * ending there kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ended extends Pending {
  readonly guarantee: Type
}

/**
 * The result of a request: the operations that it ended, and those that ran on
 * because they could not keep the guarantee or because a filter stopped the
 * request.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly ended: ReadonlyArray<Ended>
  readonly continued: ReadonlyArray<Pending>
}

/**
 * What a request becomes on its way to the operations of a region: the same type,
 * another type, or no request (`undefined`).
 *
 * @category models
 * @since 0.1.0
 */
export type Filter = (type: Type) => Type | undefined

/**
 * A source of cancellation requests for the operations of a region.
 *
 * **Details**
 *
 * A signal can be emitted again and again and can serve any number of regions.
 * It holds no resource, so there is nothing to close.
 *
 * @category models
 * @since 0.1.0
 */
export interface CancellationSignal {
  /**
   * Asks every operation that waits in a region of this signal to end with at
   * least this guarantee, and succeeds with what became of each. All operations
   * that honour the request have ended before the first of their fibers resumes.
   *
   * The request is not latched: it does not reach an operation that starts later,
   * that has ended, or that completes in its first attempt.
   *
   * **Interruption**: none needed; it does not wait.
   */
  readonly emit: (type: Type) => Effect.Effect<Report>
  /** {@link emit} for callbacks outside Effect. */
  readonly emitUnsafe: (type: Type) => Report
  /** The operations that wait in a region of this signal at this moment. */
  readonly pending: ReadonlyArray<Pending>
  /**
   * Succeeds when no operation waits in a region of this signal, and none has
   * followed within a turn of the scheduler.
   *
   * **Interruption**: stops waiting; nothing else happens.
   */
  readonly idle: Effect.Effect<void>
}

/**
 * Makes a signal.
 *
 * **Example** (Asking a write to stop where it can go on later)
 *
 * ```ts
 * const signal = Cancellation.makeSignal()
 * const fiber = yield* Write.writeAll(socket, cursor).pipe(
 *   Cancellation.withSignal(signal),
 *   Effect.forkChild
 * )
 * const { ended, continued } = yield* signal.emit("partial")
 * ```
 *
 * @category signals
 * @since 0.1.0
 */
export const makeSignal = (): CancellationSignal => new Signal.Signal("signal")

/**
 * Puts an effect into the region of a signal: its requests reach every socket
 * operation inside, also in nested regions and in fibers that are forked there.
 *
 * **Details**
 *
 * An operation honours a request only if it can keep that guarantee at that
 * moment; otherwise it runs on. A stronger guarantee satisfies a weaker request.
 *
 * | operation | honours |
 * |---|---|
 * | `readSome`, `writeSome`, `accept`, composed reads, `shutdownWrite`, `connect`, anything in line | every type, as `total` |
 * | `writeAll` after `k` of `n` bytes | `k = 0`: every type, as `total`; later: `partial`, and `terminal`, which tears the stream |
 * | `close` | `terminal`: it becomes `abort` |
 *
 * An operation that honours a request fails with the reason `OperationAborted`,
 * a typed failure and not an interruption. So a request also reaches operations in
 * uninterruptible regions. Policies apply to interruption only, and filters to
 * requests only. Several signals can be in force; each of them reaches the
 * operations inside.
 *
 * **Gotchas**
 *
 * A `terminal` request turns a `close` inside the region into an abort, which
 * succeeds: bytes that were taken and have not left are discarded. It does not
 * reach the close that the scope of a socket runs; `linger` bounds that one. A
 * value that is made once and shared (`Effect.cached`, a layer, a pool) belongs to
 * the region that made it first.
 *
 * **Interruption**: as without it.
 *
 * @category signals
 * @since 0.1.0
 */
export const withSignal: {
  (signal: CancellationSignal): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(effect: Effect.Effect<A, E, R>, signal: CancellationSignal): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(effect: Effect.Effect<A, E, R>, signal: CancellationSignal): Effect.Effect<A, E, R> => {
    if (!Signal.isSignal(signal)) throw new TypeError("withSignal: not a signal of Cancellation.makeSignal")
    return Effect.updateService(
      effect,
      CurrentCancellationScope,
      (region) => (ofThisVersion(region) ?? outside).within(signal)
    )
  }
)

/**
 * The requests of an `AbortSignal`, as a signal for {@link withSignal}: when it
 * aborts, its region is asked for `type`. The errors of operations that it ends
 * have the abort reason as their `cause`.
 *
 * **Details**
 *
 * Having been aborted is a state, so here a request *is* latched: it also reaches
 * an operation that has to wait after the abort. An operation that completes in
 * its first attempt completes. The signal listens only while operations wait, so
 * there is nothing to dispose of.
 *
 * **Example** (Stopping with the request that started it)
 *
 * ```ts
 * yield* Write.writeAll(socket, bytes).pipe(
 *   Cancellation.withSignal(Cancellation.fromAbortSignal(request.signal, "partial"))
 * )
 * ```
 *
 * @category signals
 * @since 0.1.0
 */
export const fromAbortSignal = (signal: AbortSignal, type: Type): CancellationSignal => {
  // By its members, so that a signal of another realm or of a polyfill passes.
  const isAbortSignal = Predicate.hasProperty(signal, "aborted") &&
    typeof signal.addEventListener === "function" && typeof signal.removeEventListener === "function"
  if (!isAbortSignal) throw new TypeError("fromAbortSignal: not an AbortSignal")
  Signal.assertType("fromAbortSignal", type)
  return new Signal.AbortSource(signal, type)
}

// ---- filters

/**
 * Lets no request through (Asio's `disable_cancellation`).
 *
 * @category filters
 * @since 0.1.0
 */
export const allowNone: Filter = () => undefined

/**
 * Lets `terminal` requests through (Asio's `enable_terminal_cancellation`).
 *
 * @category filters
 * @since 0.1.0
 */
export const allowTerminal: Filter = (type) => type === "terminal" ? type : undefined

/**
 * Lets `partial` and `terminal` requests through (Asio's
 * `enable_partial_cancellation`).
 *
 * @category filters
 * @since 0.1.0
 */
export const allowPartial: Filter = (type) => type === "total" ? undefined : type

/**
 * Puts a filter between an effect and the signals around it. It does not apply to
 * signals inside the effect.
 *
 * **Details**
 *
 * Filters of nested regions add up: a request passes the outermost filter first,
 * and the result goes on to the next one. A filter that throws makes the `emit` a
 * defect, and then no operation is cancelled.
 *
 * **Example** (Only the end of everything may cut this)
 *
 * ```ts
 * const farewell = Write.writeAll(socket, goodbye).pipe(Cancellation.withFilter(Cancellation.allowTerminal))
 * ```
 *
 * **Interruption**: as without it; filters are for requests.
 *
 * @category filters
 * @since 0.1.0
 */
export const withFilter: {
  (filter: Filter): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(effect: Effect.Effect<A, E, R>, filter: Filter): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(effect: Effect.Effect<A, E, R>, filter: Filter): Effect.Effect<A, E, R> =>
    Effect.updateService(effect, CurrentCancellationScope, (region) => ofThisVersion(region)?.through(filter))
)

// ---- deadlines

/**
 * Asks the operations of an effect to end with at least this guarantee
 * (`terminal` by default) when the time is over.
 *
 * **Details**
 *
 * An operation that the deadline ends fails with `OperationAborted`, whose
 * `deadline` is `true`. The deadline is a request like any other: an operation
 * that cannot keep the guarantee runs on, and it reaches socket operations only.
 * For a bound on everything that an effect does use `Effect.timeout`, which
 * interrupts. A deadline that has passed is a state: inside the effect, it also
 * reaches an operation that has to wait afterwards, so that a fiber between two
 * operations does not escape it.
 *
 * An operation that finishes in the turn in which the time is over has finished.
 * With nested deadlines, the earlier one wins. The timer ends with the effect. An
 * infinite duration is no deadline.
 *
 * **Interruption**: as without it.
 *
 * **Example** (At most two seconds, and the stream stays usable)
 *
 * ```ts
 * yield* Write.writeAll(socket, cursor).pipe(
 *   Cancellation.cancelAfter("2 seconds", "partial"),
 *   Effect.catchReason("SocketError", "OperationAborted", ({ transferred }) => resumeLater(transferred))
 * )
 * ```
 *
 * @category deadlines
 * @since 0.1.0
 */
export const cancelAfter: {
  (duration: Duration.Input, type?: Type): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(effect: Effect.Effect<A, E, R>, duration: Duration.Input, type?: Type): Effect.Effect<A, E, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    duration: Duration.Input,
    type: Type = "terminal"
  ): Effect.Effect<A, E, R> => {
    Signal.assertType("cancelAfter", type)
    const time = Duration.fromInputUnsafe(duration)
    return Duration.toMillis(time) === Infinity ? effect : withDeadline(effect, Duration.max(time, Duration.zero), type)
  }
)

// ---- escalation

/**
 * The result of an escalation.
 *
 * **Details**
 *
 * `endedBy` is the request after which the work was over; `undefined` when not
 * even the last one was enough. `steps` has each request that was made, with
 * its report.
 *
 * @category models
 * @since 0.1.0
 */
export interface Escalation {
  readonly endedBy: Type | undefined
  readonly steps: ReadonlyArray<Report & { readonly type: Type }>
}

/**
 * The phases of a graceful shutdown: asks the region of a signal for `total` at
 * once, for `partial` after a pause, and for `terminal` after another one. Stops as
 * soon as the work is over, and succeeds with the request that was enough. Fails
 * only with the errors of `schedule`.
 *
 * **Details**
 *
 * - `schedule`: when to make the next request; by default 1 second after the
 *   last. Its input is the request just made. When it ends, no further request is
 *   made.
 * - `until`: when the work is over, by default when no operation waits in the
 *   region any more (`signal.idle`). To wait for the fibers that run the
 *   operations, give `Fiber.await(fiber)` or `FiberSet.awaitEmpty(set)`. The work
 *   is over however this effect ends.
 * - `types`: other requests than the three.
 *
 * After the last request it waits as long as the schedule says once more.
 *
 * **Gotchas**
 *
 * `partial` stops a message in the middle and leaves its stream usable. Where
 * connections carry messages, use `types: ["total", "terminal"]`, which tears such
 * a stream instead.
 *
 * **Interruption**: makes no further request; requests that were made stay made.
 *
 * **Example** (Ending a server's connections)
 *
 * ```ts
 * const { endedBy } = yield* Cancellation.escalate(signal, {
 *   types: ["total", "terminal"],
 *   schedule: Schedule.exponential("100 millis", 10),
 *   until: FiberSet.awaitEmpty(connections)
 * })
 * ```
 *
 * @category signals
 * @since 0.1.0
 */
export const escalate = <O = unknown, E = never, R = never, A2 = unknown, E2 = never, R2 = never>(
  signal: CancellationSignal,
  options?: {
    readonly schedule?: Schedule.Schedule<O, Type, E, R> | undefined
    readonly until?: Effect.Effect<A2, E2, R2> | undefined
    readonly types?: ReadonlyArray<Type> | undefined
  }
): Effect.Effect<Escalation, E, R | R2> =>
  Effect.scoped(Effect.gen(function*() {
    const work: Effect.Effect<unknown, unknown, R2> = options?.until ?? signal.idle
    const over = yield* Effect.forkScoped(Effect.exit(work), { startImmediately: true })
    const pause: Pause<E, R> = options?.schedule === undefined
      ? () => Effect.sleep("1 second")
      : yield* Schedule.toStepWithSleep(options.schedule)
    const steps: Array<Escalation["steps"][number]> = []
    for (const type of options?.types ?? allTypes) {
      steps.push({ type, ...(yield* signal.emit(type)) })
      const next = yield* Effect.raceFirst(
        Effect.as(Fiber.await(over), "over"),
        Pull.catchDone(Effect.as(pause(type), "next"), () => Effect.as(twoTurns, "ended"))
      )
      if (over.pollUnsafe() !== undefined) return { endedBy: type, steps }
      if (next === "ended") break
    }
    return { endedBy: undefined, steps }
  }))

// ---- internal

type Pause<E, R> = (type: Type) => Effect.Effect<unknown, E | Cause.Done<unknown>, R>

const allTypes: ReadonlyArray<Type> = ["total", "partial", "terminal"]

// As long as `idle` takes to notice.
const twoTurns = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

const durationOf = (input: Duration.Input | undefined): Duration.Duration =>
  input === undefined ? Duration.infinity : Duration.fromInputUnsafe(input)

const outside = new CancellationScope([])

const untouched: Transfer["Service"] = { transferred: 0, total: 0, guarantee: "total" }

const withDeadline = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  time: Duration.Duration,
  type: Type
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const deadline = new Signal.Deadline(type)
    return Effect.acquireUseRelease(
      // One turn later than the clock says: an operation that becomes ready in the turn of the deadline is in time.
      // Detached: a fiber that ends while a child is still ending loses the annotation on its cause.
      Effect.forkDetach(Effect.andThen(Effect.sleep(time), Effect.andThen(Effect.yieldNow, deadline.pass)), {
        startImmediately: true
      }),
      () => withSignal(effect, deadline),
      (timer) =>
        Effect.sync(() => {
          timer.interruptUnsafe()
          deadline.lift()
        })
    )
  })

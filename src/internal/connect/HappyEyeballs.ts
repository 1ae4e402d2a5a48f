import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import type { Options } from "../../Connector.ts"
import { type ConnectAttempt, Reason, SocketError } from "../../SocketError.ts"
import { positiveInteger } from "../base/checks.ts"
import { monotonicMillis } from "../base/monotonic.ts"

export type RaceOptions = Pick<
  Options,
  "attemptDelay" | "attemptTimeout" | "timeout" | "lookupTimeout" | "firstFamilyCount" | "maxAddresses"
>

/** The times of a race, in milliseconds; each may be infinite. */
export interface Rules {
  readonly attemptDelay: number
  readonly attemptTimeout: number
  /** Of the race as a whole. */
  readonly timeout: number
}

export interface ResolvedRaceOptions extends Rules {
  readonly lookupTimeout: number
  readonly firstFamilyCount: number
  readonly maxAddresses: number
}

/** Fills in the defaults. Throws a `RangeError` for a number that is not a positive whole one. */
export const resolveRaceOptions = (options: RaceOptions | undefined): ResolvedRaceOptions => ({
  // RFC 8305, section 8: never less than 10 milliseconds.
  attemptDelay: Math.max(10, millis(options?.attemptDelay, 250)),
  attemptTimeout: millis(options?.attemptTimeout, Infinity),
  timeout: millis(options?.timeout, Infinity),
  lookupTimeout: millis(options?.lookupTimeout, 30_000),
  firstFamilyCount: positiveInteger("Connector.Options.firstFamilyCount", options?.firstFamilyCount ?? 1),
  maxAddresses: positiveInteger("Connector.Options.maxAddresses", options?.maxAddresses ?? 16)
})

export interface Runner<A, E, R> {
  readonly connect: (address: NetAddress.SocketAddress) => Effect.Effect<A, E, R>
  /** Takes the connection that has won; called once, in the moment of its success. */
  readonly onConnected: (connection: A) => void
  /** Ends a connection that was made too late. */
  readonly discard: (connection: A) => Effect.Effect<void>
}

/**
 * Connects to the first address that answers, as Happy Eyeballs version 2 does
 * (RFC 8305). Attempts start one after the other, each `attemptDelay` after the one
 * before, or at once when an attempt has failed. All of them go on until one has
 * connected. The others are released before the race ends, however it ends.
 *
 * A connection belongs to the fiber of its attempt, which either gives it to
 * `onConnected` or discards it. It is never the result of that fiber: a result is
 * lost if the fiber is interrupted in the moment in which it connects.
 */
export const race = <A, R>(
  addresses: ReadonlyArray<NetAddress.SocketAddress>,
  rules: Rules,
  runner: Runner<A, SocketError, R>
): Effect.Effect<void, Failed | SocketError, R> =>
  Effect.uninterruptibleMask((restore) =>
    Clock.clockWith((clock) => {
      const state = new Race(addresses, rules, runner, clock)
      return Effect.ensuring(state.run(restore), state.end)
    })
  )

/** No attempt has connected. `errors` are those of `attempts`, in the same order. */
export class Failed {
  readonly attempts: ReadonlyArray<ConnectAttempt>
  readonly errors: ReadonlyArray<SocketError>

  constructor(attempts: ReadonlyArray<ConnectAttempt>, errors: ReadonlyArray<SocketError>) {
    this.attempts = attempts
    this.errors = errors
  }
}

/**
 * The order in which addresses are tried (RFC 8305, section 4): first
 * `firstFamilyCount` addresses of the family of the first one, then the families
 * take turns. Within a family the order stays. Duplicates are left out.
 */
export const interleave = (
  addresses: ReadonlyArray<NetAddress.SocketAddress>,
  firstFamilyCount: number
): ReadonlyArray<NetAddress.SocketAddress> => {
  const distinct = [...new Map(addresses.map((address) => [NetAddress.formatSocketAddress(address), address])).values()]
  const [first] = distinct
  if (first === undefined) return distinct
  const sameFamily = distinct.filter(({ _tag }) => _tag === first._tag)
  const otherFamily = distinct.filter(({ _tag }) => _tag !== first._tag)
  const ordered = sameFamily.splice(0, firstFamilyCount)
  while (sameFamily.length > 0 || otherFamily.length > 0) {
    ordered.push(...otherFamily.splice(0, 1), ...sameFamily.splice(0, 1))
  }
  return ordered
}

// ---- internal

const millis = (input: Duration.Input | undefined, otherwise: number): number =>
  input === undefined ? otherwise : Duration.toMillis(Duration.fromInputUnsafe(input))

class Attempt {
  readonly address: NetAddress.SocketAddress
  readonly startedAt: number
  fiber: Fiber.Fiber<void> | undefined = undefined
  /** Its fiber was interrupted. The race only waits for its end. */
  isCancelled = false
  error: SocketError | undefined = undefined
  endedAt = 0

  constructor(address: NetAddress.SocketAddress, startedAt: number) {
    this.address = address
    this.startedAt = startedAt
  }
}

class Race<A, R> {
  private readonly addresses: ReadonlyArray<NetAddress.SocketAddress>
  private readonly rules: Rules
  private readonly runner: Runner<A, SocketError, R>
  private readonly clock: Clock.Clock
  private readonly startedAt: number
  private readonly attempts: Array<Attempt> = []
  private readonly running = new Set<Attempt>()
  private phase: "open" | "won" | "ended" = "open"
  /** The cause of an attempt that has ended with a defect, or with an interruption that the race has not asked for. */
  private defect: Cause.Cause<SocketError> | undefined = undefined
  private nextStart: number
  /** Failed attempts that were not followed by the start of another one yet. */
  private failedSinceStart = 0
  private hasChanged = false
  private wake: (() => void) | undefined = undefined

  constructor(
    addresses: ReadonlyArray<NetAddress.SocketAddress>,
    rules: Rules,
    runner: Runner<A, SocketError, R>,
    clock: Clock.Clock
  ) {
    this.addresses = addresses
    this.rules = rules
    this.runner = runner
    this.clock = clock
    this.startedAt = this.nextStart = this.now()
  }

  run(
    restore: <B, E2, R2>(effect: Effect.Effect<B, E2, R2>) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<void, Failed | SocketError, R> {
    const deadline = this.startedAt + this.rules.timeout
    return Effect.gen({ self: this }, function*() {
      while (true) {
        this.hasChanged = false
        if (this.phase === "won") return
        if (this.defect !== undefined) return yield* Effect.failCause(this.defect)
        const time = this.now()
        for (const attempt of this.active) {
          if (time >= deadline || this.timeLeft(attempt, time) <= 0) this.cancel(attempt)
        }
        // Cancelling has changed what is active, and may have ended attempts.
        if (this.hasChanged) continue
        const isLast = this.attempts.length === this.addresses.length
        const isIdle = this.active.length === 0
        if (time >= deadline || (isLast && isIdle)) return yield* Effect.fail(this.failed())
        if (!isLast && (isIdle || time >= this.nextStart || this.failedSinceStart > 0)) {
          yield* this.start
          continue
        }
        const pauses = [deadline - time, ...this.active.map((attempt) => this.timeLeft(attempt, time))]
        if (!isLast) pauses.push(this.nextStart - time)
        yield* restore(this.awaitChange(Math.ceil(Math.min(...pauses))))
      }
    })
  }

  /** Lets no further attempt win, and waits until all attempts have released what they had. */
  get end(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.phase === "open") this.phase = "ended"
      if (this.running.size === 0) return Effect.void
      const fibers: Array<Fiber.Fiber<void>> = []
      for (const attempt of this.running) {
        attempt.isCancelled = true
        if (attempt.fiber !== undefined) fibers.push(attempt.fiber)
      }
      return Fiber.interruptAll(fibers)
    })
  }

  private get active(): ReadonlyArray<Attempt> {
    return [...this.running].filter((attempt) => !attempt.isCancelled)
  }

  private now(): number {
    return monotonicMillis(this.clock)
  }

  private timeLeft(attempt: Attempt, time: number): number {
    return attempt.startedAt + this.rules.attemptTimeout - time
  }

  private get start(): Effect.Effect<void, never, R> {
    const address = this.addresses[this.attempts.length]
    if (address === undefined) return Effect.void
    const attempt = new Attempt(address, this.now())
    this.attempts.push(attempt)
    this.running.add(attempt)
    this.nextStart = attempt.startedAt + this.rules.attemptDelay
    this.failedSinceStart = Math.max(0, this.failedSinceStart - 1)
    return Effect.map(Effect.forkChild(this.try(attempt), { startImmediately: true }), (fiber) => {
      attempt.fiber = fiber
    })
  }

  private try(attempt: Attempt): Effect.Effect<void, never, R> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.exit(restore(Effect.suspend(() => this.runner.connect(attempt.address)))),
        (exit) => this.attemptEnded(attempt, exit)
      )
    )
  }

  private attemptEnded(attempt: Attempt, exit: Exit.Exit<A, SocketError>): Effect.Effect<void> {
    if (Exit.isSuccess(exit)) {
      if (this.phase !== "open") {
        return Effect.ensuring(this.runner.discard(exit.value), Effect.sync(() => this.running.delete(attempt)))
      }
      this.phase = "won"
      this.runner.onConnected(exit.value)
    } else {
      const error = Cause.findError(exit.cause)
      if (Result.isSuccess(error)) this.fail(attempt, error.success)
      else if (!attempt.isCancelled || Cause.hasDies(exit.cause)) this.defect ??= exit.cause
    }
    this.running.delete(attempt)
    this.notify()
    return Effect.void
  }

  private fail(attempt: Attempt, error: SocketError): void {
    if (attempt.error !== undefined) return
    attempt.error = error
    attempt.endedAt = this.now()
    this.failedSinceStart++
  }

  /** Ends an attempt whose time is over. Its release is awaited only by the end of the race. */
  private cancel(attempt: Attempt): void {
    const { address } = attempt
    this.fail(attempt, new SocketError({ reason: Reason.TimedOut(), operation: "connect", address, transferred: 0 }))
    attempt.isCancelled = true
    this.notify()
    attempt.fiber?.interruptUnsafe()
  }

  private failed(): Failed {
    const attempts: Array<ConnectAttempt> = []
    const errors: Array<SocketError> = []
    for (const { address, endedAt, error, startedAt } of this.attempts) {
      if (error === undefined) continue
      errors.push(error)
      attempts.push({
        address,
        reason: error.reason,
        code: error.code,
        startedAfter: Duration.millis(startedAt - this.startedAt),
        took: Duration.millis(endedAt - startedAt)
      })
    }
    return new Failed(attempts, errors)
  }

  /** Waits until an attempt has ended, for at most this time. */
  private awaitChange(millis: number): Effect.Effect<void> {
    const change = Effect.callback<void>((resume) => {
      if (this.hasChanged) {
        resume(Effect.void)
        return
      }
      this.wake = () => resume(Effect.void)
      return Effect.sync(() => {
        this.wake = undefined
      })
    })
    return Number.isFinite(millis) ? Effect.asVoid(Effect.timeoutOption(change, millis)) : change
  }

  private notify(): void {
    this.hasChanged = true
    const { wake } = this
    this.wake = undefined
    wake?.()
  }
}

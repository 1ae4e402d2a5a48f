import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import * as Cancellation from "../../Cancellation.ts"
import { formatCount } from "../base/format.ts"
import { assertType, type Cancellable, type Filter, Signal } from "../cancellation/signal.ts"
import type { Accepting } from "./AcceptLoop.ts"
import { type Account, type Rung, rungs } from "./ConnectionRegistry.ts"
import { say } from "./ConnectionRunner.ts"
import { resistance, type Sweep } from "./LimitMonitor.ts"
import type { Drained, Ladder } from "./model.ts"

/** How a deadline is divided: a share for each rung but the last, at which it is over. */
export type Shares = Readonly<Record<Exclude<Rung, "aborted">, number>>

/** The drain of those who ask for none of their own. */
export interface Shutdown {
  readonly deadline: Duration.Duration
  readonly ladder: Shares
}

export const resolveLadder = ({ finish = 6, partial = 1, terminal = 1, total = 2 }: Ladder = {}): Shares => {
  for (const [part, share] of Object.entries({ finish, total, partial, terminal })) {
    if (!Number.isFinite(share) || share < 0) throw new RangeError(`Server.Ladder.${part}: ${share} is no share`)
  }
  return { finished: finish, total, partial, terminal }
}

/** The requests of a drain, to every operation of the server that waits. */
export class Requests extends Signal {
  /** Of the first filter that has thrown. */
  failure: Cause.Cause<never> | undefined = undefined

  constructor() {
    super("signal")
  }

  // Filters are code of handlers, and a request that one of them breaks would reach nobody: here it counts as refused.
  override add(operation: Cancellable, filter: Filter | undefined): void {
    super.add(
      operation,
      filter && ((type) => {
        try {
          const answer = filter(type)
          if (answer !== undefined) assertType("a filter's answer", answer)
          return answer
        } catch (error) {
          this.failure ??= Cause.die(error)
          return undefined
        }
      })
    )
  }
}

/**
 * The end of a server: it accepts no more, tells the handlers, asks their operations in rising urgency, and aborts what is
 * left at the deadline. It begins once, goes on whatever becomes of those who wait for it, and can only be hurried.
 */
export class Drain {
  private readonly account: Account
  private readonly accepting: Accepting
  private readonly sweep: Sweep
  private readonly requests: Requests
  private readonly shutdown: Shutdown
  /** That of the server, whoever it is that ends it. */
  private readonly context: Context.Context<never>
  /** When there is no more time, in the account's. */
  private dueAt = Infinity
  /** Opens then. */
  private readonly overdue = Latch.makeUnsafe(false)
  private readonly result = Deferred.makeUnsafe<Drained>()
  /** Handlers that wait for its beginning. A set, because they may come and go with each message. */
  private readonly listeners = new Set<() => void>()

  constructor(
    account: Account,
    accepting: Accepting,
    sweep: Sweep,
    requests: Requests,
    shutdown: Shutdown,
    context: Context.Context<never>
  ) {
    this.account = account
    this.accepting = accepting
    this.sweep = sweep
    this.requests = requests
    this.shutdown = shutdown
    this.context = context
  }

  readonly begin = (deadline?: Duration.Input, ladder?: Ladder): Effect.Effect<Drained> =>
    Effect.suspend(() => {
      const time = deadline === undefined
        ? this.shutdown.deadline
        : Duration.max(Duration.fromInputUnsafe(deadline), Duration.zero)
      const shares = ladder === undefined ? this.shutdown.ladder : resolveLadder(ladder)
      const dueAt = this.account.now + Duration.toMillis(time)
      const isFirst = dueAt < this.dueAt
      if (isFirst) this.dueAt = dueAt
      const fork = Effect.runForkWith(this.context)
      if (this.account.isAccepting) {
        // All in this one step: no interruption and no connection comes between its beginning and what has to follow.
        this.accepting.stop(!Duration.isZero(time))
        this.tell()
        fork(this.run(time, shares))
      } else if (isFirst && this.account.state === "draining") {
        fork(Effect.raceFirst(Effect.andThen(Effect.sleep(time), this.hurry), this.stopped))
      }
      return this.stopped
    })

  readonly stopped: Effect.Effect<Drained> = Deferred.await(this.result)

  /** One that is under way goes on to its end at once. */
  readonly hurry: Effect.Effect<void> = Effect.sync(() => void this.overdue.openUnsafe())

  /** Waits until it begins. */
  readonly told: Effect.Effect<void> = Effect.callback((resume) => {
    if (!this.account.isAccepting) return resume(Effect.void)
    const listener = () => resume(Effect.void)
    this.listeners.add(listener)
    return Effect.sync(() => this.listeners.delete(listener))
  })

  private tell(): void {
    const listeners = [...this.listeners]
    this.listeners.clear()
    for (const listener of listeners) listener()
  }

  private run(time: Duration.Duration, shares: Shares): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { account, requests } = this
      yield* this.accepting.rest
      const there = account.size
      if (there > 0) {
        yield* say(Effect.logInfo(`draining ${formatCount(there)} connections within ${Duration.format(time)}`))
      }
      const millis = Duration.toMillis(time)
      // By a timer of its own, because those of the ladder add up their delays on a busy process.
      const over = Effect.raceFirst(this.overdue.await, waiting(millis))
      yield* Effect.raceFirst(this.climb(millis, shares), over)
      if (requests.failure !== undefined) {
        yield* say(Effect.logError("a filter failed, and its operation was not asked to end", requests.failure))
      }
      account.rung = "aborted"
      for (const live of account.lives) {
        Effect.runFork(live.socket.abort)
        live.fiber?.interruptUnsafe()
      }
      yield* Effect.raceFirst(account.empty.await, Effect.sleep(resistance))
      yield* this.sweep.stop
      const left = account.settle()
      if (left > 0) yield* say(Effect.logWarning(`${left} of the handlers do not end; the server ends without them`))
      const { drained } = account
      if (there > 0) {
        const ends = rungs.map((rung) => `${formatCount(drained[rung])} ${rung}`).join(", ")
        yield* say(Effect.logInfo(`drained: ${ends}`))
      }
      Deferred.doneUnsafe(this.result, Exit.succeed({ ...drained }))
    })
  }

  private climb(time: number, shares: Shares): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { empty, lives } = this.account
      const sum = steps.reduce((sum, rung) => sum + shares[rung], 0)
      const share = (rung: keyof Shares) => shares[rung] === 0 ? 0 : time * shares[rung] / sum
      yield* Effect.raceFirst(empty.await, waiting(share("finished")))
      for (const type of types) {
        const wait = share(type)
        if (lives.size === 0) return
        if (wait === 0) continue
        this.account.rung = type
        // Requests are not latched, so one that comes between two operations is missed: it is made again and again.
        yield* Cancellation.escalate(this.requests, {
          types: Array.from({ length: repeats }, () => type),
          schedule: Schedule.spaced(wait / repeats),
          until: empty.await
        })
      }
    })
  }
}

// ---- internal

const types = ["total", "partial", "terminal"] as const
const steps = ["finished", ...types] as const

/** How often each request is made. */
const repeats = 8

const waiting = (time: number): Effect.Effect<void> =>
  time === 0 ? Effect.void : Number.isFinite(time) ? Effect.sleep(time) : Effect.never

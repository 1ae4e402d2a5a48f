import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import * as Cancellation from "../../Cancellation.ts"
import type { DrainPhases, DrainReport } from "../../Server.ts"
import { formatCount } from "../base/format.ts"
import { afterTurns, arrivalTurns } from "../base/turns.ts"
import type { AcceptLoop } from "./AcceptLoop.ts"
import { type ConnectionRegistry, type DrainPhase, drainPhases } from "./ConnectionRegistry.ts"
import { logSafely } from "./ConnectionRunner.ts"
import type { DrainSignal } from "./DrainSignal.ts"
import { interruptGrace, type LimitMonitor } from "./LimitMonitor.ts"

/** The share of the deadline that each phase has. The last phase, `aborted`, begins at the deadline. */
export type Shares = Readonly<Record<Exclude<DrainPhase, "aborted">, number>>

/** The drain that an interruption, the end of the scope, or `drain()` without arguments starts. */
export interface ShutdownOptions {
  readonly deadline: Duration.Duration
  readonly phases: Shares
}

export const resolvePhases = ({ finish = 6, partial = 1, terminal = 1, total = 2 }: DrainPhases = {}): Shares => {
  for (const [part, share] of Object.entries({ finish, total, partial, terminal })) {
    if (!Number.isFinite(share) || share < 0) throw new RangeError(`Server.DrainPhases.${part}: ${share} is no share`)
  }
  return { finished: finish, total, partial, terminal }
}

/**
 * The end of a server: it stops accepting, notifies the handlers, requests that their operations end (`total`, `partial`,
 * `terminal`), and aborts the remaining connections at the deadline. It starts once, goes on when a caller that waits for
 * it is interrupted, and can be brought forward but not stopped.
 */
export class Drain {
  private readonly registry: ConnectionRegistry
  private readonly acceptLoop: AcceptLoop
  private readonly monitor: LimitMonitor
  private readonly requests: DrainSignal
  private readonly shutdown: ShutdownOptions
  /** The context of the server, not that of the caller of `drain`. */
  private readonly context: Context.Context<never>
  /** The deadline, in milliseconds since the start of the server. */
  private deadlineAt = Infinity
  /** Opens at the deadline. */
  private readonly deadlinePassed = Latch.makeUnsafe(false)
  private readonly result = Deferred.makeUnsafe<DrainReport>()
  /** Handlers that wait for the start of the drain. A set, because a handler may wait anew for each message. */
  private readonly listeners = new Set<() => void>()
  private willLook = false

  constructor(
    registry: ConnectionRegistry,
    acceptLoop: AcceptLoop,
    monitor: LimitMonitor,
    requests: DrainSignal,
    shutdown: ShutdownOptions,
    context: Context.Context<never>
  ) {
    this.registry = registry
    this.acceptLoop = acceptLoop
    this.monitor = monitor
    this.requests = requests
    this.shutdown = shutdown
    this.context = context
  }

  readonly begin = (deadline?: Duration.Input, phases?: DrainPhases): Effect.Effect<DrainReport> =>
    Effect.suspend(() => {
      const time = deadline === undefined
        ? this.shutdown.deadline
        : Duration.max(Duration.fromInputUnsafe(deadline), Duration.zero)
      const shares = phases === undefined ? this.shutdown.phases : resolvePhases(phases)
      const dueAt = this.registry.now + Duration.toMillis(time)
      const isFirst = dueAt < this.deadlineAt
      if (isFirst) this.deadlineAt = dueAt
      const fork = Effect.runForkWith(this.context)
      if (this.registry.isAccepting) {
        // All in one step, so that no interruption and no connection comes between the start and what has to follow.
        this.acceptLoop.stop(!Duration.isZero(time))
        this.notifyListeners()
        if (!Duration.isZero(time)) {
          // Those that wait for their next request, now and as soon as they do.
          this.requests.onWait = this.lookSoon
          this.lookSoon()
        }
        fork(this.run(time, shares))
      } else if (isFirst && this.registry.state === "draining") {
        fork(Effect.raceFirst(Effect.andThen(Effect.sleep(time), this.forceNow), this.stopped))
      }
      return this.stopped
    })

  readonly stopped: Effect.Effect<DrainReport> = Deferred.await(this.result)

  /** Brings the deadline of a running drain forward to now. */
  readonly forceNow: Effect.Effect<void> = Effect.sync(() => void this.deadlinePassed.openUnsafe())

  /** Waits until the drain starts. */
  readonly drainStarted: Effect.Effect<void> = Effect.callback((resume) => {
    if (!this.registry.isAccepting) return resume(Effect.void)
    const listener = () => resume(Effect.void)
    this.listeners.add(listener)
    return Effect.sync(() => this.listeners.delete(listener))
  })

  /** A handler begins to wait for its next request. */
  readonly waitsForNext = (): void => this.requests.onWait?.()

  private readonly lookSoon = (): void => {
    if (this.willLook) return
    this.willLook = true
    afterTurns(arrivalTurns, () => {
      this.willLook = false
      // From then on the requests of the phases reach them.
      if (this.registry.phase !== "finished") return
      for (const connection of this.registry.connections) connection.endBetweenRequests(this.requests, this.fork)
    })
  }

  private readonly fork = (effect: Effect.Effect<void>): void => void Effect.runForkWith(this.context)(effect)

  private notifyListeners(): void {
    const listeners = [...this.listeners]
    this.listeners.clear()
    for (const listener of listeners) listener()
  }

  private run(time: Duration.Duration, shares: Shares): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { registry, requests } = this
      yield* this.acceptLoop.admitPending
      const there = registry.size
      if (there > 0) {
        yield* logSafely(Effect.logInfo(`draining ${formatCount(there)} connections within ${Duration.format(time)}`))
      }
      const millis = Duration.toMillis(time)
      // A timer of its own, because the delays of the timers of the phases add up on a busy process.
      const over = Effect.raceFirst(this.deadlinePassed.await, sleepFor(millis))
      yield* Effect.raceFirst(this.escalate(millis, shares), over)
      if (requests.failure !== undefined) {
        yield* logSafely(Effect.logError("a filter failed, and its operation was not asked to end", requests.failure))
      }
      registry.phase = "aborted"
      requests.onWait = undefined
      for (const connection of registry.connections) {
        Effect.runFork(connection.socket.abort)
        connection.fiber?.interruptUnsafe()
      }
      yield* Effect.raceFirst(registry.empty.await, Effect.sleep(interruptGrace))
      yield* this.monitor.stop
      const left = registry.finishDrain()
      if (left > 0) {
        yield* logSafely(Effect.logWarning(`${left} of the handlers do not end; the server ends without them`))
      }
      const { drained } = registry
      if (there > 0) {
        const ends = drainPhases.map((phase) => `${formatCount(drained[phase])} ${phase}`).join(", ")
        yield* logSafely(Effect.logInfo(`drained: ${ends}`))
      }
      Deferred.doneUnsafe(this.result, Exit.succeed({ ...drained }))
    })
  }

  private escalate(time: number, shares: Shares): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { empty, connections } = this.registry
      const sum = steps.reduce((sum, phase) => sum + shares[phase], 0)
      const share = (phase: keyof Shares) => shares[phase] === 0 ? 0 : time * shares[phase] / sum
      yield* Effect.raceFirst(empty.await, sleepFor(share("finished")))
      for (const type of types) {
        const wait = share(type)
        if (connections.size === 0) return
        if (wait === 0) continue
        this.registry.phase = type
        // Requests are not latched. One that comes between two operations of a fiber is missed, so each is repeated.
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

/** How many times each request is made. */
const repeats = 8

const sleepFor = (time: number): Effect.Effect<void> =>
  time === 0 ? Effect.void : Number.isFinite(time) ? Effect.sleep(time) : Effect.never

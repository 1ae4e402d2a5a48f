import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Account } from "./ConnectionRegistry.ts"
import { Limit, type ResolvedLimits, sweepInterval } from "./limits.ts"
import type { Live } from "./ServerConnection.ts"

/** Milliseconds that a handler has when it was interrupted, before it is left to itself. */
export const resistance = 1000

/**
 * The limits of connections that are there, kept by looking at all of them in intervals: a timer for each would cost
 * every byte that moves.
 */
export class Sweep {
  private readonly account: Account
  private readonly limits: ResolvedLimits
  private readonly interval: number | undefined
  private fiber: Fiber.Fiber<never> | undefined = undefined

  constructor(account: Account, limits: ResolvedLimits, prepares: boolean) {
    this.account = account
    this.limits = limits
    this.interval = sweepInterval(limits, prepares)
  }

  start(context: Context.Context<never>): void {
    if (this.interval === undefined) return
    this.fiber = Effect.runForkWith(context)(
      Effect.forever(Effect.andThen(Effect.sleep(this.interval), Effect.sync(() => this.look())))
    )
  }

  readonly stop: Effect.Effect<void> = Effect.suspend(() =>
    this.fiber === undefined ? Effect.void : Fiber.interrupt(this.fiber)
  )

  private look(): void {
    const { bytesInFlight, progress } = this.limits
    const { now } = this.account
    const weighs = bytesInFlight !== undefined || progress !== undefined
    let inFlight = 0
    // Ending one may end others.
    for (const live of this.account.lives) {
      if (!live.admitted || live.phase === "ending") continue
      if (live.limit !== undefined) {
        // Its handler was interrupted, and goes on with something.
        if (now - live.since >= resistance) Effect.runFork(live.socket.abort)
        continue
      }
      const waiting = weighs ? live.bytesWaiting : 0
      inFlight += waiting
      const limit = this.reached(live, now, waiting)
      if (limit !== undefined) this.end(live, limit, now)
    }
    if (bytesInFlight !== undefined) this.account.weigh(inFlight)
  }

  private reached(live: Live, now: number, waiting: number): Limit | undefined {
    const { firstByte, handshake, idle, progress } = this.limits
    const { bytesRead, bytesWritten } = live
    if (bytesRead !== live.read || bytesWritten !== live.written) {
      live.read = bytesRead
      live.written = bytesWritten
      live.since = now
    }
    // What it prepares began when it came.
    if (live.phase === "preparing" && now - live.begunAt >= handshake.within) {
      return Limit.Handshake({ within: Duration.millis(handshake.within) })
    }
    if (firstByte !== undefined && bytesRead === live.begunWith && now - live.begunAt >= firstByte.within) {
      return Limit.FirstByte({ within: Duration.millis(firstByte.within) })
    }
    if (progress !== undefined) {
      const taken = bytesWritten - live.marked
      if (waiting === 0) live.markedAt = -1
      else if (live.markedAt === -1 || taken >= progress.bytes) {
        live.markedAt = now
        live.marked = bytesWritten
      } else if (now - live.markedAt >= progress.per) {
        return Limit.Progress({ bytes: progress.bytes, per: Duration.millis(progress.per), taken })
      }
    }
    if (idle !== undefined && now - live.since >= idle.within) {
      return Limit.Idle({ within: Duration.millis(idle.within) })
    }
    return undefined
  }

  private end(live: Live, limit: Limit, now: number): void {
    this.account.refuse(live, limit)
    live.since = now
    // First, so that no policy makes the interruption wait for a peer that does not read.
    if (live.answer === "reset") Effect.runFork(live.socket.abort)
    live.fiber?.interruptUnsafe()
  }
}

import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { ConnectionRegistry } from "./ConnectionRegistry.ts"
import { checkInterval, Limit, type ResolvedLimits } from "./limits.ts"
import type { ServerConnection } from "./ServerConnection.ts"

/** Milliseconds in which an interrupted handler has to end before the server goes on without it. */
export const interruptGrace = 1000

/**
 * Enforces the limits of open connections. One timer checks all of them at intervals, because a timer for each connection
 * would have to be reset for every byte that moves.
 */
export class LimitMonitor {
  private readonly registry: ConnectionRegistry
  private readonly limits: ResolvedLimits
  private readonly interval: number | undefined
  private fiber: Fiber.Fiber<never> | undefined = undefined

  constructor(registry: ConnectionRegistry, limits: ResolvedLimits, hasHandshake: boolean) {
    this.registry = registry
    this.limits = limits
    this.interval = checkInterval(limits, hasHandshake)
  }

  start(context: Context.Context<never>): void {
    if (this.interval === undefined) return
    this.fiber = Effect.runForkWith(context)(
      Effect.forever(Effect.andThen(Effect.sleep(this.interval), Effect.sync(() => this.check())))
    )
  }

  readonly stop: Effect.Effect<void> = Effect.suspend(() =>
    this.fiber === undefined ? Effect.void : Fiber.interrupt(this.fiber)
  )

  private check(): void {
    const { bytesInFlight, progress } = this.limits
    const { now } = this.registry
    const countsWaiting = bytesInFlight !== undefined || progress !== undefined
    let inFlight = 0
    // A set may change while it is iterated: ending one connection may end others.
    for (const connection of this.registry.connections) {
      if (!connection.admitted || connection.phase === "ending") continue
      if (connection.limit !== undefined) {
        // A limit has interrupted the handler, and the handler has not ended.
        if (now - connection.lastMovedAt >= interruptGrace) Effect.runFork(connection.socket.abort)
        continue
      }
      const waiting = countsWaiting ? connection.bytesWaiting : 0
      inFlight += waiting
      const limit = this.limitReachedBy(connection, now, waiting)
      if (limit !== undefined) this.end(connection, limit, now)
    }
    if (bytesInFlight !== undefined) this.registry.setBytesInFlight(inFlight)
  }

  private limitReachedBy(connection: ServerConnection, now: number, waiting: number): Limit | undefined {
    const { firstByte, handshake, idle, progress } = this.limits
    const { bytesRead, bytesWritten } = connection
    if (bytesRead !== connection.seenBytesRead || bytesWritten !== connection.seenBytesWritten) {
      connection.seenBytesRead = bytesRead
      connection.seenBytesWritten = bytesWritten
      connection.lastMovedAt = now
    }
    if (idle !== undefined) {
      const isAtWork = !connection.waitsForPeer
      // The time of a wait begins when it is seen, so that the limit never acts early.
      if (isAtWork || connection.wasAtWork) connection.lastMovedAt = now
      connection.wasAtWork = isAtWork
    }
    // Until the handler starts, `startedAtMillis` is the time of acceptance.
    if (connection.phase === "handshake" && now - connection.startedAtMillis >= handshake.within) {
      return Limit.Handshake({ within: Duration.millis(handshake.within) })
    }
    if (
      firstByte !== undefined && bytesRead === connection.bytesReadBefore &&
      now - connection.startedAtMillis >= firstByte.within
    ) {
      return Limit.FirstByte({ within: Duration.millis(firstByte.within) })
    }
    if (progress !== undefined) {
      const taken = bytesWritten - connection.progressFrom
      if (waiting === 0) connection.progressSince = -1
      else if (connection.progressSince === -1 || taken >= progress.bytes) {
        connection.progressSince = now
        connection.progressFrom = bytesWritten
      } else if (now - connection.progressSince >= progress.per) {
        return Limit.Progress({ bytes: progress.bytes, per: Duration.millis(progress.per), taken })
      }
    }
    if (idle !== undefined && now - connection.lastMovedAt >= idle.within) {
      return Limit.Idle({ within: Duration.millis(idle.within) })
    }
    return undefined
  }

  private end(connection: ServerConnection, limit: Limit, now: number): void {
    this.registry.refuse(connection, limit)
    connection.lastMovedAt = now
    // Aborted before the interruption, because a `total` policy would make it wait for a peer that does not read.
    if (connection.action === "reset") Effect.runFork(connection.socket.abort)
    connection.fiber?.interruptUnsafe()
  }
}

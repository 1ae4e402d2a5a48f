import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Acceptor from "../../Acceptor.ts"
import type { SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import type { ServerCounts } from "../base/counters.ts"
import { formatAddress } from "../base/format.ts"
import { accepting } from "../core/accepting.ts"
import { takeNow } from "../core/Listener.ts"
import type { ConnectionRegistry } from "./ConnectionRegistry.ts"
import { type ConnectionRunner, logSafely } from "./ConnectionRunner.ts"
import { Limit, type ResolvedLimits } from "./limits.ts"
import type { TokenBucket } from "./TokenBucket.ts"

/** The options that concern accepting. */
export interface AcceptOptions {
  readonly limits: ResolvedLimits
  readonly backlog: number
  /** The token bucket of the limit `acceptRate`. */
  readonly tokens: TokenBucket | undefined
}

/** A connection that was accepted when a drain started. */
interface PendingConnection {
  readonly listener: number
  readonly socket: StreamSocket
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * One loop for each address: waits for room, accepts the next connection, waits for a token of `acceptRate`, and passes
 * the connection to `ConnectionRunner`.
 */
export class AcceptLoop {
  private readonly acceptors: ReadonlyArray<Acceptor.Acceptor>
  private readonly options: AcceptOptions
  private readonly registry: ConnectionRegistry
  private readonly runner: Pick<ConnectionRunner<never>, "start">
  private readonly loops: Array<Fiber.Fiber<unknown, unknown>> = []
  private readonly pendingAtDrain: Array<PendingConnection> = []

  constructor(
    acceptors: ReadonlyArray<Acceptor.Acceptor>,
    options: AcceptOptions,
    registry: ConnectionRegistry,
    runner: Pick<ConnectionRunner<never>, "start">
  ) {
    this.acceptors = acceptors
    this.options = options
    this.registry = registry
    this.runner = runner
  }

  /** @param onStopRequest runs when a request from outside ends a loop's wait for the next connection */
  start(context: Context.Context<never>, onStopRequest: Effect.Effect<unknown>): void {
    for (const [listener, acceptor] of this.acceptors.entries()) {
      Effect.runForkWith(context)(Effect.withFiber((fiber) => {
        // Known before the first connection is accepted, whose handler may end the server at once.
        this.loops.push(fiber)
        return Effect.catch(
          this.loop(acceptor, listener),
          (error) => error.reason._tag === "OperationAborted" ? onStopRequest : Effect.void
        )
      }))
    }
  }

  /**
   * Releases the addresses. Connections that have arrived are accepted first: their peers see them as established, so
   * `admitPending` serves them as far as the limits admit them. Those that would have to wait for room are left in the
   * backlog, and reset with the address.
   */
  stop(takes: boolean): void {
    let freePlaces = takes ? this.registry.freePlaces : 0
    this.registry.beginDrain()
    for (const [listener, acceptor] of this.acceptors.entries()) {
      // At most one backlog, however fast new connections arrive.
      for (let left = this.options.backlog; left > 0 && freePlaces > 0; left--, freePlaces--) {
        const socket = takeNow(acceptor)
        if (socket === undefined) break
        this.pendingAtDrain.push({ listener, socket })
      }
      Effect.runSync(acceptor.close)
    }
    // Only now: a loop that waits for room would accept another connection.
    this.registry.updateRoom()
  }

  /** Admits the pending connections, and ends the loops. */
  readonly admitPending: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(
      Effect.uninterruptibleMask((restore) =>
        Effect.forEach(this.pendingAtDrain, ({ listener, socket }) => this.awaitTurn(listener, socket, restore), {
          discard: true
        })
      ),
      Fiber.interruptAll(this.loops)
    )
  )

  private loop(acceptor: Acceptor.Acceptor, listener: number): Effect.Effect<never, SocketError> {
    let failures = 0
    // After a failure the loop pauses, and counts as failing until its next attempt succeeds.
    let failing = false
    const fail = (value: boolean) => {
      if (failing === value) return
      failing = value
      if (value) this.registry.pause()
      else this.registry.resume()
    }
    const ready: Effect.Effect<void> = Effect.suspend(() => {
      fail(false)
      const full = this.registry.fullBy
      return full === undefined ? Effect.void : Effect.andThen(this.pause(full, this.registry.hasRoom.await), ready)
    })
    const where = formatAddress(acceptor.address)
    return accepting(acceptor, {
      ready,
      accepted: (socket, restore) => {
        const failed = failures
        failures = 0
        return failed === 0
          ? this.awaitTurn(listener, socket, restore)
          : Effect.andThen(
            logSafely(Effect.logInfo(`accepting on ${where} again, after ${failed} failures`)),
            Effect.suspend(() => this.awaitTurn(listener, socket, restore))
          )
      },
      failed: (error) => {
        this.registry.count((counts) => counts.acceptFailures++)
        // Only the first failure of a row is logged.
        const said = failures++ > 0 ? Effect.void : logSafely(Effect.logWarning(error.message))
        fail(true)
        return said
      }
    })
  }

  /** Waits for a token of `acceptRate`, then for room. */
  private awaitTurn(listener: number, socket: StreamSocket, restore: Restore): Effect.Effect<void> {
    const { limits: { acceptRate }, tokens } = this.options
    if (tokens === undefined || acceptRate === undefined) return this.admit(listener, socket, restore, undefined)
    const { action, limit, window } = acceptRate
    const exceeded = Limit.AcceptRate({ limit, window })
    return Effect.suspend(() => {
      const { now } = this.registry
      if (action !== "wait" || !this.registry.isAccepting) {
        return this.admit(listener, socket, restore, tokens.tryTake(now) ? undefined : exceeded)
      }
      const wait = tokens.take(now)
      return wait === 0
        ? this.admit(listener, socket, restore, undefined)
        : Effect.flatMap(
          Effect.exit(restore(this.pause("AcceptRate", Effect.sleep(wait)))),
          // Only a drain ends the wait early, and then no token will come.
          (exit) => this.admit(listener, socket, restore, Exit.isSuccess(exit) ? undefined : exceeded)
        )
    })
  }

  /** Waits for room, then admits the connection. */
  private admit(
    listener: number,
    socket: StreamSocket,
    restore: Restore,
    refused: Limit | undefined
  ): Effect.Effect<void> {
    const full = this.registry.fullBy
    if (full !== undefined && refused === undefined) {
      // Another listener took the room in the meantime.
      return Effect.andThen(
        Effect.exit(restore(this.pause(full, this.registry.hasRoom.await))),
        // In a drain the connection is served if there is room, and refused otherwise.
        Effect.suspend(() => this.admit(listener, socket, restore, undefined))
      )
    }
    this.runner.start(this.registry.admit(listener, socket, refused))
    return Effect.void
  }

  private pause(why: keyof ServerCounts["pauses"], wait: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.registry.pause()
      this.registry.count((counts) => counts.pauses[why]++)
      return Effect.ensuring(wait, Effect.sync(() => this.registry.resume()))
    })
  }
}

import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Acceptor from "../../Acceptor.ts"
import type { DrainPhases, DrainReport, Health, Server, State } from "../../Server.ts"
import { CancellationScope, CurrentCancellationScope } from "../cancellation/scope.ts"
import { AcceptLoop, type AcceptOptions } from "./AcceptLoop.ts"
import { ConnectionRegistry } from "./ConnectionRegistry.ts"
import { ConnectionRunner, type HandlerOptions } from "./ConnectionRunner.ts"
import { Drain, type ShutdownOptions } from "./Drain.ts"
import { DrainSignal } from "./DrainSignal.ts"
import { LimitMonitor } from "./LimitMonitor.ts"
import type { OwningServer, ServerConnection } from "./ServerConnection.ts"

/** The options of a server with everything resolved. */
export interface ResolvedServerOptions<R> extends HandlerOptions<R>, AcceptOptions {
  readonly shutdown: ShutdownOptions
}

/**
 * A running server, which puts its parts together. Each part knows only those before it: `ConnectionRegistry`,
 * `ConnectionRunner`, `AcceptLoop`, `LimitMonitor`, `Drain`.
 */
export class ServerCore<R> implements OwningServer {
  readonly addresses: Server["addresses"]
  /** The context of every fiber of the server: that of its maker, with the signal of the drain in its scope. */
  private readonly context: Context.Context<R>
  private readonly registry: ConnectionRegistry
  private readonly acceptLoop: AcceptLoop
  private readonly monitor: LimitMonitor
  private readonly end: Drain

  constructor(
    acceptors: readonly [Acceptor.Acceptor, ...Array<Acceptor.Acceptor>],
    options: ResolvedServerOptions<R>,
    outer: CancellationScope | undefined,
    context: Context.Context<R>
  ) {
    this.addresses = [acceptors[0].address, ...acceptors.slice(1).map((acceptor) => acceptor.address)]
    const { limits, handshakeSteps, shutdown } = options
    const hasHandshake = handshakeSteps.length > 0
    const requests = new DrainSignal()
    const scope = (outer ?? new CancellationScope([])).within(requests)
    // Flat, because the context of each connection is made from this one.
    this.context = Context.makeUnsafe(Context.add(context, CurrentCancellationScope, scope).mapUnsafe)
    this.registry = new ConnectionRegistry(this, limits, hasHandshake, Context.get(context, Clock.Clock))
    this.acceptLoop = new AcceptLoop(
      acceptors,
      options,
      this.registry,
      new ConnectionRunner(this.registry, options, this.context)
    )
    this.monitor = new LimitMonitor(this.registry, limits, hasHandshake)
    this.end = new Drain(this.registry, this.acceptLoop, this.monitor, requests, shutdown, this.context)
  }

  readonly start: Effect.Effect<void> = Effect.sync(() => {
    this.monitor.start(this.context)
    this.acceptLoop.start(this.context, this.drain())
  })

  readonly state: Effect.Effect<State> = Effect.sync(() => this.registry.state)

  readonly connections: Effect.Effect<ReadonlyArray<ServerConnection>> = Effect.sync(() => this.registry.current)

  readonly health: Effect.Effect<Health> = Effect.sync(() => this.registry.health)

  readonly drain = (deadline?: Duration.Input, phases?: DrainPhases): Effect.Effect<DrainReport> =>
    this.end.begin(deadline, phases)

  get stopped(): Effect.Effect<DrainReport> {
    return this.end.stopped
  }

  get forceNow(): Effect.Effect<void> {
    return this.end.forceNow
  }

  get drainStarted(): Effect.Effect<void> {
    return this.end.drainStarted
  }

  get waitsForNext(): () => void {
    return this.end.waitsForNext
  }

  get isDraining(): boolean {
    return !this.registry.isAccepting
  }

  get startedAt(): number {
    return this.registry.startedAt
  }
}

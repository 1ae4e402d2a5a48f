import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Acceptor from "../../Acceptor.ts"
import { CurrentRegion, Region } from "../cancellation/signal.ts"
import { Accepting, type Intake } from "./AcceptLoop.ts"
import { Account } from "./ConnectionRegistry.ts"
import { type Service, Serving } from "./ConnectionRunner.ts"
import { Drain, Requests, type Shutdown } from "./Drain.ts"
import { Sweep } from "./LimitMonitor.ts"
import type { Drained, Health, Ladder, Server, State } from "./model.ts"
import type { Live, Owner } from "./ServerConnection.ts"

/** The options of a server with everything resolved. */
export interface Behaviour<R> extends Service<R>, Intake {
  readonly shutdown: Shutdown
}

/**
 * A running server. Its parts, of which each knows those before it: the account of its connections, the way of each of
 * them, the loops that accept them, the sweep of those that are there, and the drain that ends them all.
 */
export class ServerCore<R> implements Owner {
  readonly addresses: Server["addresses"]
  /** What every fiber of the server has: that of who made it, and the requests of the drain. */
  private readonly context: Context.Context<R>
  private readonly account: Account
  private readonly accepting: Accepting
  private readonly sweep: Sweep
  private readonly end: Drain

  constructor(
    acceptors: readonly [Acceptor.Acceptor, ...Array<Acceptor.Acceptor>],
    behaviour: Behaviour<R>,
    outer: Region | undefined,
    context: Context.Context<R>
  ) {
    this.addresses = [acceptors[0].address, ...acceptors.slice(1).map((acceptor) => acceptor.address)]
    const { limits, preparations, shutdown } = behaviour
    const prepares = preparations.length > 0
    const requests = new Requests()
    const region = (outer ?? new Region([])).within(requests)
    // Those of the connections grow from this one: flat, it costs each of them nothing.
    this.context = Context.makeUnsafe(Context.add(context, CurrentRegion, region).mapUnsafe)
    this.account = new Account(this, limits, prepares, Context.get(context, Clock.Clock))
    this.accepting = new Accepting(
      acceptors,
      behaviour,
      this.account,
      new Serving(this.account, behaviour, this.context)
    )
    this.sweep = new Sweep(this.account, limits, prepares)
    this.end = new Drain(this.account, this.accepting, this.sweep, requests, shutdown, this.context)
  }

  readonly start: Effect.Effect<void> = Effect.sync(() => {
    this.sweep.start(this.context)
    this.accepting.start(this.context, this.drain())
  })

  readonly state: Effect.Effect<State> = Effect.sync(() => this.account.state)

  readonly connections: Effect.Effect<ReadonlyArray<Live>> = Effect.sync(() => this.account.current)

  readonly health: Effect.Effect<Health> = Effect.sync(() => this.account.health)

  readonly drain = (deadline?: Duration.Input, ladder?: Ladder): Effect.Effect<Drained> =>
    this.end.begin(deadline, ladder)

  get stopped(): Effect.Effect<Drained> {
    return this.end.stopped
  }

  get hurry(): Effect.Effect<void> {
    return this.end.hurry
  }

  get told(): Effect.Effect<void> {
    return this.end.told
  }

  get isDraining(): boolean {
    return !this.account.isAccepting
  }

  get startedAt(): number {
    return this.account.startedAt
  }
}

import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as NetAddress from "effect/net/NetAddress"
import type * as RateLimiter from "effect/persistence/RateLimiter"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Acceptor from "../Acceptor.ts"
import * as Cancellation from "../Cancellation.ts"
import { isSocketError, type SocketError } from "../SocketError.ts"
import * as StreamSocket from "../StreamSocket.ts"
import * as Write from "../Write.ts"
import { counters, makeServerCounts, type ServerCounts } from "./counters.ts"
import { formatAddress, formatCount } from "./format.ts"
import {
  Limit,
  peerKey,
  type ResolvedFarewell,
  type ResolvedLimits,
  sweepInterval,
  type Within
} from "./serverLimits.ts"
import { CurrentRegion, Region, Signal } from "./Signal.ts"

// The public models; `Server` says what they mean.

export interface Server {
  /** The bound addresses, in the order of `listen`, with the real ports where port 0 was asked for. */
  readonly addresses: Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>
  /** What it does at this moment. */
  readonly state: Effect.Effect<State>
  /** The connections at this moment, oldest first. */
  readonly connections: Effect.Effect<ReadonlyArray<Connection>>
  /** What it does and did, for a health check. */
  readonly health: Effect.Effect<Health>
  /**
   * Ends the server within a deadline (by default that of `shutdown`), and
   * answers how its connections ended.
   *
   * **Details**
   *
   * 1. It accepts no more. What has arrived by then is served, as far as the
   *    limits let it in (and not where the deadline is 0): a whole backlog of each
   *    address at most. The addresses are released. With `NodeTransport`, what Node
   *    has not yet taken from the system is reset.
   * 2. Handlers are told: `Connection.draining`. For six tenths of the time they
   *    may finish.
   * 3. Then the operations that wait are asked to end: by `total` requests for
   *    two tenths, by `partial` ones for one, by `terminal` ones for one, each made
   *    eight times. A handler that lets `OperationAborted` pass ends by it, and its
   *    connection is closed; where a write was stopped inside, it is reset, so that
   *    the peer cannot take a part for the whole.
   * 4. At the deadline the connections that are left are reset and their handlers
   *    interrupted. A handler that does not end within another second, in an
   *    uninterruptible region or a finalizer, is left to itself, with a warning.
   *
   * The second argument divides the time otherwise. It ends as soon as the last
   * connection has ended. Called again, it shares the drain that runs, and
   * brings its end forward if its deadline is earlier.
   *
   * **Gotchas**
   *
   * A handler that waits for the drain of its own server waits for itself: fork it.
   *
   * **Interruption**: stops waiting. The drain goes on.
   */
  readonly drain: (deadline?: Duration.Input, ladder?: Ladder) => Effect.Effect<Drained>
  /** Waits until the server has ended. **Interruption**: stops waiting. */
  readonly stopped: Effect.Effect<Drained>
}

export interface Connection {
  /** 1, 2, 3, ... in each server. */
  readonly id: number
  /** Who it is: the client behind the proxy where there is a PROXY header, else the peer of the socket. */
  readonly remoteAddress: NetAddress.SocketAddress
  /** What it connected to: as the proxy says where there is a PROXY header, else the socket's own address. */
  readonly localAddress: NetAddress.SocketAddress
  /** Which of the server's `addresses` it came by: their index. */
  readonly listener: number
  /** When it was accepted. */
  readonly startedAt: DateTime.Utc
  /** Bytes received so far. */
  readonly bytesRead: number
  /** Bytes taken so far. */
  readonly bytesWritten: number
  /** Bytes of writes that wait to be taken: what is kept in memory for a peer that does not read. */
  readonly bytesWaiting: number
  /** Waits until the server is to end: please finish. **Interruption**: stops waiting. */
  readonly draining: Effect.Effect<void>
  /** Whether the server is to end. */
  readonly isDraining: boolean
  readonly server: Server
}

export const Connection: Context.Service<Connection, Connection> = Context.Service("effect-asio/Server/Connection")

export type State = "listening" | "paused" | "draining" | "stopped"

export interface Drained {
  readonly finished: number
  readonly total: number
  readonly partial: number
  readonly terminal: number
  readonly aborted: number
}

export interface Health {
  readonly state: State
  /** Connections at this moment. */
  readonly connections: number
  /** Connections taken from the addresses, those included that a limit then refused. */
  readonly accepted: number
  /** Connections that could not be taken, such as for want of descriptors. */
  readonly acceptFailures: number
  /** Handlers that failed with something that is no end of a connection. */
  readonly failures: number
  /**
   * Connections that failed before they came to a handler: the peer may send no
   * PROXY header (`Untrusted`), its header is `Malformed`, `Tls` could not be agreed
   * on, or the peer is `Gone` (its connection ended or failed). Those that a limit
   * has ended are counted there.
   */
  readonly handshakeFailures: Readonly<Record<"Untrusted" | "Malformed" | "Tls" | "Gone", number>>
  /** Connections that each limit has refused or ended. */
  readonly limited: Readonly<Record<Limit["_tag"], number>>
  /** How often accepting stopped because of each limit. */
  readonly pauses: Readonly<Record<"Connections" | "AcceptRate" | "BytesInFlight", number>>
  /** Bytes of writes that wait to be taken, of all connections. */
  readonly bytesInFlight: number
}

export interface Ladder {
  /** For handlers to finish by themselves. */
  readonly finish?: number | undefined
  readonly total?: number | undefined
  /**
   * **Gotchas**
   *
   * A `writeAll` that is stopped by a `partial` request and followed by other writes
   * leaves the peer with a message that has a hole. A handler that goes on after
   * `OperationAborted` should have 0 here.
   */
  readonly partial?: number | undefined
  readonly terminal?: number | undefined
}

/** A connection on its way to the handler, as the last step has left it. */
export interface Prepared {
  readonly socket: StreamSocket.StreamSocket
  readonly remoteAddress: NetAddress.SocketAddress
  readonly localAddress: NetAddress.SocketAddress
}

/** What happens to a connection between its acceptance and its handler, in its own fiber. */
export type Preparation = (accepted: Prepared) => Effect.Effect<Prepared, PreparationError>

export type PreparationError = SocketError | Cause.Done

export interface Behaviour<R> {
  readonly handler: (
    socket: StreamSocket.StreamSocket,
    connection: Live
  ) => Effect.Effect<unknown, unknown, R | Connection>
  readonly onError: (cause: Cause.Cause<unknown>, connection: Live) => Effect.Effect<unknown, never, R>
  readonly onHandshakeFailure: (
    cause: Cause.Cause<PreparationError>,
    connection: Live
  ) => Effect.Effect<unknown, never, R>
  readonly onLimit: (limit: Limit, connection: Live) => Effect.Effect<unknown, never, R>
  readonly onFailure: "abort" | "close"
  readonly preparations: ReadonlyArray<Preparation>
  readonly limits: ResolvedLimits
  readonly backlog: number
  readonly limiter: RateLimiter.RateLimiter | undefined
  readonly shutdown: { readonly deadline: Duration.Duration; readonly ladder: Shares }
}

export type Shares = Readonly<Record<Exclude<Rung, "aborted">, number>>

type Rung = keyof Drained

/** A connection that was taken as a drain began. */
interface Held {
  readonly listener: number
  readonly socket: StreamSocket.StreamSocket
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

interface Owner extends Server {
  readonly startedAt: number
  readonly told: Effect.Effect<void>
  readonly isDraining: boolean
}

/** One connection of a server: its facts, and what the sweeps remember of it. Times are milliseconds since the server's start. */
export class Live {
  readonly id: number
  readonly listener: number
  readonly acceptedAt: number
  prepared: Prepared | undefined = undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  phase: "preparing" | "running" | "ending" = "preparing"
  /** When the handler began, or will, and what its socket had received by then: a PROXY header. */
  begunAt: number
  begunWith = 0
  /** It counts: no limit refused it when it came, and it has not ended. */
  admitted = false
  peer: string | undefined = undefined
  limit: Limit | undefined = undefined
  answer: Within["answer"] = "reset"
  read = 0
  written = 0
  /** When a byte was last seen to have moved; after a limit was reached, when that was. */
  since: number
  /** From where the progress of a waiting write is measured; -1 while none waits. */
  markedAt = -1
  marked = 0
  private readonly accepted: StreamSocket.StreamSocket
  private readonly core: Owner

  constructor(
    core: Owner,
    id: number,
    socket: StreamSocket.StreamSocket,
    listener: number,
    acceptedAt: number
  ) {
    this.core = core
    this.id = id
    this.accepted = socket
    this.listener = listener
    this.acceptedAt = this.begunAt = this.since = acceptedAt
  }

  /** What its handler has, and before that what was accepted. */
  get socket(): StreamSocket.StreamSocket {
    return this.prepared?.socket ?? this.accepted
  }

  get server(): Server {
    return this.core
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.prepared?.remoteAddress ?? this.socket.remoteAddress
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.prepared?.localAddress ?? this.socket.localAddress
  }

  get startedAt(): DateTime.Utc {
    return DateTime.makeUnsafe(this.core.startedAt + this.acceptedAt)
  }

  get bytesRead(): number {
    return this.socket.bytesRead
  }

  get bytesWritten(): number {
    return this.socket.bytesWritten
  }

  get bytesWaiting(): number {
    return this.socket instanceof StreamSocket.Core ? this.socket.output.bytesWaiting : 0
  }

  get draining(): Effect.Effect<void> {
    return this.core.told
  }

  get isDraining(): boolean {
    return this.core.isDraining
  }

  get annotations(): { readonly connection: number; readonly peer: string } {
    return { connection: this.id, peer: formatAddress(this.remoteAddress) }
  }
}

/**
 * A running server: who is connected, who may come, and how it ends.
 *
 * Every connection is in `lives` from the moment in which it was taken until it
 * has ended and its end was reported; it counts until its descriptor is released.
 * Its fiber belongs to nobody else and always runs `end`.
 */
export class ServerCore<R> implements Owner {
  readonly addresses: Server["addresses"]
  readonly startedAt: number
  private readonly acceptors: ReadonlyArray<Acceptor.Acceptor>
  private readonly behaviour: Behaviour<R>
  private readonly lives = new Set<Live>()
  private readonly perPeer = new Map<string, number>()
  private readonly counts = makeServerCounts()
  private readonly signal = new Signal("signal")
  private readonly clock: Clock.Clock
  /** What every fiber of the server has: that of who made it, and the requests of the ladder. */
  private readonly context: Context.Context<R>
  private loops: ReadonlyArray<Fiber.Fiber<unknown, unknown>> = []
  private sweeper: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private phase: "accepting" | "draining" | "stopped" = "accepting"
  private shown: State = "listening"
  private nextId = 1
  private farewells = 0
  /** Bytes in flight at the last sweep. */
  private inFlight = 0
  /** Listeners that do not take a connection now: because of a limit, or because they failed a moment ago. */
  private pausing = 0
  /** Open while another connection may be taken. */
  private readonly room = Latch.makeUnsafe(true)
  /** Open while there is no connection. */
  private readonly empty = Latch.makeUnsafe(true)
  /** Opens when a drain begins. */
  private readonly tell = Latch.makeUnsafe(false)
  /** Opens when a drain has no more time. */
  private readonly overdue = Latch.makeUnsafe(false)
  private readonly result = Deferred.makeUnsafe<Drained>()
  /** When the drain has no more time, by the clock. */
  private dueAt = Infinity
  private rung: Rung = "finished"
  private readonly drained: Record<Rung, number> = { finished: 0, total: 0, partial: 0, terminal: 0, aborted: 0 }

  constructor(
    acceptors: readonly [Acceptor.Acceptor, ...Array<Acceptor.Acceptor>],
    behaviour: Behaviour<R>,
    outer: Region | undefined,
    context: Context.Context<R>
  ) {
    this.acceptors = acceptors
    this.addresses = [acceptors[0].address, ...acceptors.slice(1).map((acceptor) => acceptor.address)]
    this.behaviour = behaviour
    this.clock = Context.get(context, Clock.Clock)
    const region = (outer ?? new Region([])).within(this.signal)
    // Those of the connections grow from this one: flat, it costs each of them nothing.
    this.context = Context.makeUnsafe(Context.add(context, CurrentRegion, region).mapUnsafe)
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    counters.servers.listening++
  }

  // ---- what others see

  readonly state: Effect.Effect<State> = Effect.sync(() => this.shown)

  readonly connections: Effect.Effect<ReadonlyArray<Live>> = Effect.sync(() => this.current)

  readonly health: Effect.Effect<Health> = Effect.sync(() => {
    const { acceptFailures, accepted, failures, handshakeFailures, limited, live, pauses } = this.counts
    return {
      state: this.shown,
      connections: live,
      accepted,
      acceptFailures,
      failures,
      handshakeFailures: { ...handshakeFailures },
      limited: { ...limited },
      pauses: { ...pauses },
      bytesInFlight: this.current.reduce((bytes, live) => bytes + live.bytesWaiting, 0)
    }
  })

  readonly stopped: Effect.Effect<Drained> = Deferred.await(this.result)

  get told(): Effect.Effect<void> {
    return this.tell.await
  }

  get isDraining(): boolean {
    return this.phase !== "accepting"
  }

  readonly drain = (deadline?: Duration.Input, ladder?: Ladder): Effect.Effect<Drained> =>
    Effect.suspend(() => {
      const time = deadline === undefined
        ? this.behaviour.shutdown.deadline
        : Duration.max(Duration.fromInputUnsafe(deadline), Duration.zero)
      const steps = ladder === undefined ? this.behaviour.shutdown.ladder : resolveLadder(ladder)
      const dueAt = this.clock.currentTimeMillisUnsafe() + Duration.toMillis(time)
      const isFirst = dueAt < this.dueAt
      if (isFirst) this.dueAt = dueAt
      // In the server's own environment, whoever it is that ends it, and in this one step: no interruption and no
      // connection comes between its beginning and what has to follow.
      const fork = Effect.runForkWith(this.context)
      if (this.phase === "accepting") fork(this.ending(time, steps, this.stopAccepting(!Duration.isZero(time))))
      else if (isFirst && this.phase === "draining") {
        fork(Effect.raceFirst(Effect.andThen(Effect.sleep(time), this.hurry), this.stopped))
      }
      return this.stopped
    })

  /** A drain that is under way goes on to its end at once. */
  readonly hurry: Effect.Effect<void> = Effect.sync(() => void this.overdue.openUnsafe())

  // ---- accepting

  readonly start: Effect.Effect<void> = Effect.suspend(() => {
    const interval = sweepInterval(this.behaviour.limits, this.behaviour.preparations.length > 0)
    const sweeping = interval === undefined
      ? Effect.void
      : Effect.map(
        Effect.forkDetach(
          Effect.forever(Effect.andThen(Effect.sleep(interval), Effect.sync(() => this.sweep()))),
          detached
        ),
        (fiber) => void (this.sweeper = fiber)
      )
    const accepting = Effect.forEach(
      this.acceptors,
      (acceptor, listener) => Effect.forkDetach(this.acceptFrom(acceptor, listener), detached)
    )
    const started: Effect.Effect<void, never, R> = Effect.andThen(
      sweeping,
      Effect.map(accepting, (fibers) => void (this.loops = fibers))
    )
    return Effect.updateContext(started, (_: Context.Context<never>) => this.context)
  })

  private acceptFrom(acceptor: Acceptor.Acceptor, listener: number): Effect.Effect<void, never, R> {
    let failures = 0
    // After a failure it pauses, and then nobody knows whether it works until it is tried.
    let failing = false
    const fail = (value: boolean) => {
      if (failing === value) return
      failing = value
      this.pausing += value ? 1 : -1
      this.show()
    }
    const ready: Effect.Effect<void> = Effect.suspend(() => {
      fail(false)
      const full = this.fullBy()
      return full === undefined ? Effect.void : Effect.andThen(this.pause(full, this.room.await), ready)
    })
    const where = formatAddress(acceptor.address)
    const run = Acceptor.accepting(acceptor, {
      ready,
      taken: (socket, restore) => {
        const failed = failures
        failures = 0
        const taken = this.taken(listener, socket, restore)
        return failed === 0
          ? taken
          : Effect.andThen(say(Effect.logInfo(`accepting on ${where} again, after ${failed} failures`)), taken)
      },
      failed: (error) => {
        this.count((counts) => counts.acceptFailures++)
        // Once for each time that it goes wrong, however long that lasts.
        const said = failures++ > 0 ? Effect.void : say(Effect.logWarning(error.message))
        fail(true)
        return said
      }
    })
    return Effect.catch(run, (error) =>
      // A request from outside to stop accepting is one to stop serving.
      error.reason._tag === "OperationAborted" ? Effect.asVoid(Effect.forkDetach(this.drain(), detached)) : Effect.void)
  }

  private taken(listener: number, socket: StreamSocket.StreamSocket, restore: Restore): Effect.Effect<void, never, R> {
    const { limiter } = this.behaviour
    const { acceptRate } = this.behaviour.limits
    if (limiter === undefined || acceptRate === undefined) return this.admit(listener, socket, restore, undefined)
    const { answer, limit, window } = acceptRate
    const exceeded = Limit.AcceptRate({ limit, window })
    const turn = limiter.consume({
      key: "accept",
      algorithm: "token-bucket",
      limit,
      window,
      onExceeded: answer === "wait" && this.phase === "accepting" ? "delay" : "fail"
    })
    return Effect.matchEffect(turn, {
      onSuccess: ({ delay }) =>
        Duration.isZero(delay)
          ? this.admit(listener, socket, restore, undefined)
          : Effect.flatMap(
            Effect.exit(restore(this.pause("AcceptRate", Effect.sleep(delay)))),
            // Only a drain cuts the wait, and then its turn will not come.
            (exit) => this.admit(listener, socket, restore, Exit.isSuccess(exit) ? undefined : exceeded)
          ),
      onFailure: (error) =>
        error.reason._tag === "RateLimitExceeded"
          ? this.admit(listener, socket, restore, exceeded)
          : Effect.die(error)
    })
  }

  private admit(
    listener: number,
    socket: StreamSocket.StreamSocket,
    restore: Restore,
    refused: Limit | undefined
  ): Effect.Effect<void, never, R> {
    const full = this.fullBy()
    if (full !== undefined && refused === undefined) {
      // Another listener was faster.
      return Effect.andThen(
        Effect.exit(restore(this.pause(full, this.room.await))),
        // In a drain it is served if there is room, and else refused.
        Effect.suspend(() => this.admit(listener, socket, restore, undefined))
      )
    }
    const live = new Live(
      this,
      this.nextId++,
      socket,
      listener,
      this.clock.currentTimeMillisUnsafe() - this.startedAt
    )
    const limit = refused ?? this.refusal(live)
    this.count((counts) => counts.accepted++)
    if (limit !== undefined) this.refuse(live, limit)
    else {
      live.admitted = true
      this.count((counts) => counts.live++)
    }
    this.lives.add(live)
    this.empty.closeUnsafe()
    this.updateRoom()
    return Effect.sync(() => {
      // With all of its context from the start: a region for each part would stay on the stack of every idle connection.
      const context = Context.add(annotated(this.context, live), Connection, live)
      // Uninterruptible from its first moment, so that whatever happens the fiber ends its connection.
      Effect.runForkWith(context)(this.run(live), { uninterruptible: true })
    })
  }

  /** Why a connection that was just taken is not served. */
  private refusal(live: Live): Limit | undefined {
    const { bytesInFlight, connections } = this.behaviour.limits
    if (connections !== undefined && this.counts.live >= connections.max) {
      return Limit.Connections({ max: connections.max })
    }
    if (bytesInFlight !== undefined && this.inFlight > bytesInFlight.max) {
      return Limit.BytesInFlight({ max: bytesInFlight.max, bytes: this.inFlight })
    }
    // Of a connection that comes by way of a proxy the peer is not known yet.
    return this.behaviour.preparations.length === 0 ? this.peerRefusal(live) : undefined
  }

  private peerRefusal(live: Live): Limit | undefined {
    const { perPeer } = this.behaviour.limits
    const peer = perPeer === undefined ? undefined : peerKey(live.remoteAddress, perPeer.ipv6Prefix)
    if (perPeer === undefined || peer === undefined) return undefined
    const there = this.perPeer.get(peer) ?? 0
    if (there >= perPeer.max) return Limit.PerPeer({ max: perPeer.max, peer })
    this.perPeer.set(peer, there + 1)
    live.peer = peer
    return undefined
  }

  private refuse(live: Live, limit: Limit): void {
    live.limit = limit
    live.answer = this.answerTo(limit)
    this.count((counts) => counts.limited[limit._tag]++)
  }

  private answerTo(limit: Limit): Within["answer"] {
    const { acceptRate, bytesInFlight, connections, firstByte, handshake, idle, perPeer } = this.behaviour.limits
    const answers = {
      Connections: connections?.answer,
      PerPeer: perPeer?.answer,
      AcceptRate: acceptRate?.answer,
      BytesInFlight: bytesInFlight?.answer,
      Handshake: handshake.answer,
      FirstByte: firstByte?.answer,
      Idle: idle?.answer,
      Progress: undefined
    }
    const answer = answers[limit._tag]
    return answer === undefined || answer === "wait" ? "reset" : answer
  }

  /** The limit because of which no connection is taken. */
  private fullBy(): "Connections" | "BytesInFlight" | undefined {
    const { bytesInFlight, connections } = this.behaviour.limits
    if (this.phase !== "accepting") return undefined
    if (connections?.answer === "wait" && this.counts.live >= connections.max) return "Connections"
    if (bytesInFlight?.answer === "wait" && this.inFlight > bytesInFlight.max) return "BytesInFlight"
    return undefined
  }

  private updateRoom(): void {
    if (this.fullBy() === undefined) this.room.openUnsafe()
    else this.room.closeUnsafe()
    this.show()
  }

  private pause(why: keyof ServerCounts["pauses"], wait: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.pausing++
      this.show()
      this.count((counts) => counts.pauses[why]++)
      return Effect.ensuring(
        wait,
        Effect.sync(() => {
          this.pausing--
          this.show()
        })
      )
    })
  }

  // ---- one connection

  private run(live: Live): Effect.Effect<void, never, R | Connection> {
    return Effect.withFiber((fiber) => {
      live.fiber = fiber
      return Effect.matchCauseEffect(live.limit === undefined ? Effect.interruptible(this.serve(live)) : Effect.void, {
        onFailure: (cause) => this.end(live, Exit.failCause(cause)),
        onSuccess: () => this.end(live, Exit.void)
      })
    })
  }

  private serve(live: Live): Effect.Effect<unknown, unknown, R | Connection> {
    const { handler, preparations } = this.behaviour
    if (preparations.length === 0) {
      live.phase = "running"
      return Effect.suspend(() => handler(live.socket, live))
    }
    let prepared: Effect.Effect<Prepared, PreparationError> = Effect.succeed(live)
    for (const prepare of preparations) prepared = Effect.flatMap(prepared, prepare)
    return Effect.flatMap(prepared, (prepared) => {
      live.prepared = prepared
      const limit = this.peerRefusal(live)
      if (limit !== undefined) {
        this.refuse(live, limit)
        return Effect.void
      }
      live.phase = "running"
      live.begunAt = this.clock.currentTimeMillisUnsafe() - this.startedAt
      live.begunWith = prepared.socket.bytesRead
      return Effect.updateContext(
        Effect.suspend(() => handler(prepared.socket, live)),
        (context: Context.Context<R | Connection>) => annotated(context, live)
      )
    })
  }

  private end(live: Live, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void, never, R | Connection> {
    const strange = live.phase === "preparing" && live.limit === undefined && this.rung !== "aborted"
      ? strangenessOf(exit)
      : undefined
    live.phase = "ending"
    const failed = strange === undefined && Exit.isFailure(exit) && !isQuiet(exit.cause, live) ? exit.cause : undefined
    const close = live.limit !== undefined
      ? this.close(live, live.answer)
      : isCut(exit, live) || (failed !== undefined && this.behaviour.onFailure === "abort") ||
          (strange !== undefined && strange.why !== "Gone")
      ? live.socket.abort
      : live.socket.close
    let reported: Effect.Effect<unknown, never, R> = Effect.void
    if (strange !== undefined) {
      this.count((counts) => counts.handshakeFailures[strange.why]++)
      reported = Effect.suspend(() => this.behaviour.onHandshakeFailure(strange.cause, live))
    }
    if (failed !== undefined) {
      this.count((counts) => counts.failures++)
      reported = Effect.suspend(() => this.behaviour.onError(failed, live))
    }
    if (live.limit !== undefined) {
      const { limit } = live
      reported = Effect.andThen(reported, Effect.suspend(() => this.behaviour.onLimit(limit, live)))
    }
    return Effect.andThen(
      close,
      Effect.suspend(() => {
        this.leave(live)
        return Effect.ensuring(
          Effect.catchCause(reported, (cause) => Effect.logError("a report of the server failed", cause)),
          Effect.sync(() => this.forget(live))
        )
      })
    )
  }

  private close(live: Live, answer: Within["answer"]): Effect.Effect<void> {
    if (answer === "reset") return live.socket.abort
    if (answer === "close") return live.socket.close
    // Many of these at once are an attack, and would hold as many descriptors.
    if (this.farewells >= maxFarewells) return live.socket.abort
    this.farewells++
    return Effect.ensuring(farewell(live, answer), Effect.sync(() => this.farewells--))
  }

  /** Its descriptor is released, and others may have its place. */
  private leave(live: Live): void {
    if (live.peer !== undefined) {
      const there = (this.perPeer.get(live.peer) ?? 1) - 1
      if (there === 0) this.perPeer.delete(live.peer)
      else this.perPeer.set(live.peer, there)
    }
    if (live.admitted) {
      live.admitted = false
      this.count((counts) => counts.live--)
      if (this.phase === "draining") this.drained[this.rung]++
    }
    this.updateRoom()
  }

  /** It has been reported, too. */
  private forget(live: Live): void {
    this.lives.delete(live)
    if (this.lives.size === 0) this.empty.openUnsafe()
  }

  // ---- limits of connections that are there

  private sweep(): void {
    const { bytesInFlight, progress } = this.behaviour.limits
    const now = this.clock.currentTimeMillisUnsafe() - this.startedAt
    const weighs = bytesInFlight !== undefined || progress !== undefined
    let inFlight = 0
    // Ending one may end others.
    for (const live of this.lives) {
      if (!live.admitted || live.phase === "ending") continue
      if (live.limit !== undefined) {
        // Its handler was interrupted, and goes on with something.
        if (now - live.since >= resistance) Effect.runFork(live.socket.abort)
        continue
      }
      const waiting = weighs ? live.bytesWaiting : 0
      inFlight += waiting
      const limit = this.reached(live, now, waiting)
      if (limit !== undefined) this.stop(live, limit, now)
    }
    if (bytesInFlight !== undefined) {
      this.inFlight = inFlight
      this.updateRoom()
    }
  }

  private reached(live: Live, now: number, waiting: number): Limit | undefined {
    const { firstByte, handshake, idle, progress } = this.behaviour.limits
    const { bytesRead, bytesWritten } = live.socket
    if (bytesRead !== live.read || bytesWritten !== live.written) {
      live.read = bytesRead
      live.written = bytesWritten
      live.since = now
    }
    if (live.phase === "preparing" && now - live.acceptedAt >= handshake.within) {
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

  private stop(live: Live, limit: Limit, now: number): void {
    this.refuse(live, limit)
    live.since = now
    // First, so that no policy makes the interruption wait for a peer that does not read.
    if (live.answer === "reset") Effect.runFork(live.socket.abort)
    live.fiber?.interruptUnsafe()
  }

  // ---- the end

  /**
   * Answers with the connections that have arrived: to their peers they are there, so they are served as far as the limits
   * let them in. Those that have to wait for room are left, and reset with the address.
   */
  private stopAccepting(takes: boolean): ReadonlyArray<Held> {
    const held: Array<Held> = []
    const { connections } = this.behaviour.limits
    let room = !takes || this.fullBy() !== undefined
      ? 0
      : connections?.answer === "wait"
      ? connections.max - this.counts.live
      : Infinity
    this.phase = "draining"
    for (const [listener, acceptor] of this.acceptors.entries()) {
      // No more than a backlog, however fast new ones come.
      for (let left = this.behaviour.backlog; left > 0 && room > 0; left--, room--) {
        const socket = Acceptor.takeNow(acceptor)
        if (socket === undefined) break
        held.push({ listener, socket })
      }
      Effect.runSync(acceptor.close)
    }
    this.updateRoom()
    this.tell.openUnsafe()
    return held
  }

  private ending(time: Duration.Duration, ladder: Shares, held: ReadonlyArray<Held>): Effect.Effect<void, never, R> {
    return Effect.gen({ self: this }, function*() {
      yield* Effect.uninterruptibleMask((restore) =>
        Effect.forEach(held, ({ listener, socket }) => this.taken(listener, socket, restore), { discard: true })
      )
      yield* Fiber.interruptAll(this.loops)
      const there = this.counts.live
      if (there > 0) {
        yield* say(Effect.logInfo(`draining ${formatCount(there)} connections within ${Duration.format(time)}`))
      }
      yield* Effect.raceFirst(this.climb(Duration.toMillis(time), ladder), this.overdue.await)
      this.rung = "aborted"
      for (const live of this.lives) {
        Effect.runFork(live.socket.abort)
        live.fiber?.interruptUnsafe()
      }
      yield* Effect.raceFirst(this.empty.await, Effect.sleep(resistance))
      if (this.sweeper !== undefined) yield* Fiber.interrupt(this.sweeper)
      const left = this.current.length
      if (left > 0) yield* say(Effect.logWarning(`${left} of the handlers do not end; the server ends without them`))
      this.drained.aborted += left
      if (there > 0) {
        const ends = rungs.map((rung) => `${formatCount(this.drained[rung])} ${rung}`).join(", ")
        yield* say(Effect.logInfo(`drained: ${ends}`))
      }
      const { drained } = this
      this.phase = "stopped"
      this.count((counts) => {
        for (const rung of rungs) counts.drained[rung] += drained[rung]
      })
      this.show()
      Deferred.doneUnsafe(this.result, Exit.succeed({ ...drained }))
    })
  }

  private climb(time: number, ladder: Shares): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const sum = rungs.reduce((sum, rung) => sum + (rung === "aborted" ? 0 : ladder[rung]), 0)
      const share = (rung: Exclude<Rung, "aborted">) => ladder[rung] === 0 ? 0 : time * ladder[rung] / sum
      yield* Effect.raceFirst(this.empty.await, waiting(share("finished")))
      for (const type of types) {
        const wait = share(type)
        if (this.lives.size === 0) return
        if (wait === 0) continue
        this.rung = type
        // Requests are not latched, so one that comes between two operations is missed: it is made again and again.
        yield* Cancellation.escalate(this.signal, {
          types: Array.from({ length: repeats }, () => type),
          schedule: Schedule.spaced(wait / repeats),
          until: this.empty.await
        })
      }
    })
  }

  // ---- small things

  private get current(): ReadonlyArray<Live> {
    return [...this.lives].filter((live) => live.admitted)
  }

  private count(add: (counts: ServerCounts) => void): void {
    add(this.counts)
    add(counters.served)
  }

  private show(): void {
    const isPaused = this.pausing > 0 || this.fullBy() !== undefined
    const state = this.phase !== "accepting" ? this.phase : isPaused ? "paused" : "listening"
    if (state === this.shown) return
    counters.servers[this.shown]--
    counters.servers[state]++
    this.shown = state
  }
}

export const resolveLadder = ({ finish = 6, partial = 1, terminal = 1, total = 2 }: Ladder = {}): Shares => {
  for (const [part, share] of Object.entries({ finish, total, partial, terminal })) {
    if (!Number.isFinite(share) || share < 0) throw new RangeError(`Server.Ladder.${part}: ${share} is no share`)
  }
  return { finished: finish, total, partial, terminal }
}

// ---- internal

const detached = { startImmediately: true } as const

const types = ["total", "partial", "terminal"] as const
const rungs = ["finished", ...types, "aborted"] as const

/** How often each request of the ladder is made. */
const repeats = 8

/** Milliseconds that a handler has when it was interrupted, before it is left to itself. */
const resistance = 1000

const maxFarewells = 128

/** A logger that throws must not end what goes on after the log. */
const say: (log: Effect.Effect<void>) => Effect.Effect<void> = Effect.ignoreCause

const waiting = (time: number): Effect.Effect<void> =>
  time === 0 ? Effect.void : Number.isFinite(time) ? Effect.sleep(time) : Effect.never

const farewell = (live: Live, { send, within }: ResolvedFarewell): Effect.Effect<void> =>
  Effect.andThen(
    // Interruptible children, because this runs in an uninterruptible region.
    Effect.raceFirst(
      Effect.interruptible(Effect.ignore(Effect.andThen(Write.writeAll(live.socket, send), live.socket.close))),
      Effect.interruptible(Effect.sleep(within))
    ),
    live.socket.abort
  )

const annotated = <R>(context: Context.Context<R>, live: Live): Context.Context<R> =>
  Context.add(context, References.CurrentLogAnnotations, {
    ...Context.get(context, References.CurrentLogAnnotations),
    ...live.annotations
  })

/** The peer went, or we have ended it: nothing went wrong. */
const isQuiet = (cause: Cause.Cause<unknown>, live: Live): boolean =>
  cause.reasons.every((reason) => {
    if (Cause.isInterruptReason(reason)) return true
    if (!Cause.isFailReason(reason)) return false
    const { error } = reason
    if (Cause.isDone(error)) return true
    if (!isSocketError(error)) return false
    if (error.reason._tag === "OperationAborted") return true
    // A handler may have other sockets, and their failures are news.
    const isOurs = error.address === undefined || error.address === live.socket.remoteAddress ||
      formatAddress(error.address) === formatAddress(live.socket.remoteAddress)
    return isOurs && quiet.has(error.reason._tag)
  })

type Why = keyof Health["handshakeFailures"]

/**
 * What became of a connection that failed on its way to the handler because of its peer: whoever can connect can cause
 * that. A defect is our own, and what we have ended is no failure.
 */
const strangenessOf = (
  exit: Exit.Exit<unknown, unknown>
): { readonly why: Why; readonly cause: Cause.Cause<PreparationError> } | undefined => {
  if (Exit.isSuccess(exit) || Cause.hasDies(exit.cause)) return undefined
  for (const reason of exit.cause.reasons) {
    const why = Cause.isFailReason(reason) ? whyOf(reason.error) : undefined
    // The failures before the handler are those of preparations.
    if (why !== undefined) return { why, cause: exit.cause as Cause.Cause<PreparationError> }
  }
  return undefined
}

const whyOf = (error: unknown): Why | undefined => {
  if (Cause.isDone(error)) return "Gone"
  if (!isSocketError(error) || ours.has(error.reason._tag)) return undefined
  return whys.get(error.reason._tag) ?? "Gone"
}

const whys: ReadonlyMap<string, Why> = new Map([
  ["Untrusted", "Untrusted"],
  ["Framing", "Malformed"],
  ["LimitExceeded", "Malformed"],
  ["Tls", "Tls"]
])

const ours: ReadonlySet<string> = new Set(["Closed", "OperationAborted"])

const quiet: ReadonlySet<string> = new Set([
  "BrokenPipe",
  "Closed",
  "ConnectionAborted",
  "ConnectionReset",
  "UnexpectedEof"
])

/** A message was cut inside, and the peer must not take what it has for all of it. */
const isCut = (exit: Exit.Exit<unknown, unknown>, live: Live): boolean => {
  if (live.socket.state.write === "torn") return true
  const outcome = Cancellation.outcome(exit)
  return outcome._tag === "Cancelled" && outcome.guarantee !== "total"
}

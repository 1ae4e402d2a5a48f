import type * as Clock from "effect/Clock"
import * as Latch from "effect/Latch"
import type { StreamSocket } from "../../StreamSocket.ts"
import { counters, makeServerCounts, type ServerCounts } from "../base/counters.ts"
import { Limit, peerKey, type ResolvedLimits, type Within } from "./limits.ts"
import type { Drained, Health, State } from "./model.ts"
import { Live, type Owner } from "./ServerConnection.ts"

/** Where in a drain a connection ends. */
export type Rung = keyof Drained

export const rungs = ["finished", "total", "partial", "terminal", "aborted"] as const satisfies ReadonlyArray<Rung>

/** The limits because of which no connection is taken. */
type Full = "Connections" | "BytesInFlight"

/**
 * Who is there, who may come, and what has happened: every number of a server changes in here and nowhere else, so that
 * all of them agree, and those of the process with them.
 *
 * Every connection is in `lives` from the moment in which it was let in or refused until it has ended and its end was
 * reported; it counts until its descriptor is released.
 */
export class Account {
  readonly startedAt: number
  readonly lives: ReadonlySet<Live>
  /** Open while another connection may be taken. */
  readonly room = Latch.makeUnsafe(true)
  /** Open while there is no connection. */
  readonly empty = Latch.makeUnsafe(true)
  /** On which rung of a drain connections end now. */
  rung: Rung = "finished"
  readonly drained: Record<Rung, number> = { finished: 0, total: 0, partial: 0, terminal: 0, aborted: 0 }
  private phase: "accepting" | "draining" | "stopped" = "accepting"
  private shown: State = "listening"
  private readonly owner: Owner
  private readonly limits: ResolvedLimits
  private readonly isPrepared: boolean
  private readonly clock: Clock.Clock
  private readonly startedNanos: bigint
  private readonly members = new Set<Live>()
  private readonly perPeer = new Map<string, number>()
  private readonly counts = makeServerCounts()
  private nextId = 1
  /** Bytes in flight at the last sweep. */
  private inFlight = 0
  /** Listeners that do not take a connection now: because of a limit, or because they failed a moment ago. */
  private pausing = 0

  /** @param isPrepared connections have a way to go to their handler, and only at its end it is known who they are */
  constructor(owner: Owner, limits: ResolvedLimits, isPrepared: boolean, clock: Clock.Clock) {
    this.owner = owner
    this.limits = limits
    this.isPrepared = isPrepared
    this.clock = clock
    this.lives = this.members
    this.startedAt = clock.currentTimeMillisUnsafe()
    this.startedNanos = clock.monotonicTimeNanosUnsafe()
    counters.servers.listening++
  }

  /** Whole milliseconds since the start, by the clock that nobody sets: limits must not be met when somebody does. */
  get now(): number {
    return Number((this.clock.monotonicTimeNanosUnsafe() - this.startedNanos) / nanosPerMilli)
  }

  get state(): State {
    return this.shown
  }

  get isAccepting(): boolean {
    return this.phase === "accepting"
  }

  /** The connections that count. */
  get current(): ReadonlyArray<Live> {
    return [...this.lives].filter((live) => live.admitted)
  }

  /** How many these are. */
  get size(): number {
    return this.counts.live
  }

  get health(): Health {
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
  }

  count(add: (counts: ServerCounts) => void): void {
    add(this.counts)
    add(counters.served)
  }

  // ---- who comes and goes

  /** Lets a connection in that was taken, unless it is to be refused, or one of the limits refuses it. */
  admit(listener: number, socket: StreamSocket, refused: Limit | undefined): Live {
    const acceptedAt = this.clock.currentTimeMillisUnsafe() - this.startedAt
    const live = new Live(this.owner, this.nextId++, socket, listener, acceptedAt, this.now)
    const limit = refused ?? this.refusal(live)
    this.count((counts) => counts.accepted++)
    if (limit !== undefined) this.refuse(live, limit)
    else {
      live.admitted = true
      this.count((counts) => counts.live++)
    }
    this.members.add(live)
    this.empty.closeUnsafe()
    this.updateRoom()
    return live
  }

  /** Counts a connection for its peer, whom one knows by now; answers the limit if there are too many. */
  admitPeer(live: Live): Limit | undefined {
    const { perPeer } = this.limits
    const peer = perPeer === undefined ? undefined : peerKey(live.remoteAddress, perPeer.ipv6Prefix)
    if (perPeer === undefined || peer === undefined) return undefined
    const there = this.perPeer.get(peer) ?? 0
    if (there >= perPeer.max) return Limit.PerPeer({ max: perPeer.max, peer })
    this.perPeer.set(peer, there + 1)
    live.peer = peer
    return undefined
  }

  /** A limit is the end of a connection, at its beginning or later. */
  refuse(live: Live, limit: Limit): void {
    live.limit = limit
    live.answer = this.answerTo(limit)
    this.count((counts) => counts.limited[limit._tag]++)
  }

  /** Its descriptor is released, and others may have its place. */
  leave(live: Live): void {
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
  forget(live: Live): void {
    this.members.delete(live)
    if (this.members.size === 0) this.empty.openUnsafe()
  }

  // ---- whether there is room

  /** The limit because of which no connection is taken. In a drain nobody waits: who has come is served or refused. */
  get fullBy(): Full | undefined {
    const { bytesInFlight, connections } = this.limits
    if (this.phase !== "accepting") return undefined
    if (connections?.answer === "wait" && this.counts.live >= connections.max) return "Connections"
    if (bytesInFlight?.answer === "wait" && this.inFlight > bytesInFlight.max) return "BytesInFlight"
    return undefined
  }

  /** How many may be taken before others would have to wait. */
  get places(): number {
    const { connections } = this.limits
    if (this.fullBy !== undefined) return 0
    return connections?.answer === "wait" ? connections.max - this.counts.live : Infinity
  }

  weigh(bytesInFlight: number): void {
    this.inFlight = bytesInFlight
    this.updateRoom()
  }

  /** A listener takes no connection until it resumes. */
  pause(): void {
    this.pausing++
    this.show()
  }

  resume(): void {
    this.pausing--
    this.show()
  }

  updateRoom(): void {
    if (this.fullBy === undefined) this.room.openUnsafe()
    else this.room.closeUnsafe()
    this.show()
  }

  // ---- the end

  /** From here on every end counts for its rung. Those who wait for room go on waiting until it is updated. */
  beginDrain(): void {
    this.phase = "draining"
    this.show()
  }

  /** The end of the drain. Answers how many connections are left: they count as aborted, whenever they end. */
  settle(): number {
    const left = this.current.length
    this.drained.aborted += left
    this.phase = "stopped"
    const { drained } = this
    this.count((counts) => {
      for (const rung of rungs) counts.drained[rung] += drained[rung]
    })
    this.show()
    return left
  }

  // ---- internal

  /** Why a connection that was just taken is not served. */
  private refusal(live: Live): Limit | undefined {
    const { bytesInFlight, connections } = this.limits
    if (connections !== undefined && this.counts.live >= connections.max) {
      return Limit.Connections({ max: connections.max })
    }
    if (bytesInFlight !== undefined && this.inFlight > bytesInFlight.max) {
      return Limit.BytesInFlight({ max: bytesInFlight.max, bytes: this.inFlight })
    }
    // Of a connection that comes by way of a proxy the peer is not known yet.
    return this.isPrepared ? undefined : this.admitPeer(live)
  }

  private answerTo(limit: Limit): Within["answer"] {
    const { acceptRate, bytesInFlight, connections, firstByte, handshake, idle, perPeer } = this.limits
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

  private show(): void {
    const isPaused = this.pausing > 0 || this.fullBy !== undefined
    const state = this.phase !== "accepting" ? this.phase : isPaused ? "paused" : "listening"
    if (state === this.shown) return
    counters.servers[this.shown]--
    counters.servers[state]++
    this.shown = state
  }
}

const nanosPerMilli = 1_000_000n

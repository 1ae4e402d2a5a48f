import type * as Clock from "effect/Clock"
import * as Latch from "effect/Latch"
import type { DrainReport, Health, State } from "../../Server.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { counters, makeServerCounts, type ServerCounts } from "../base/counters.ts"
import { Limit, peerKey, type ResolvedLimits, type TimeLimit } from "./limits.ts"
import { type OwningServer, ServerConnection } from "./ServerConnection.ts"

/** Where in a drain a connection ends. */
export type DrainPhase = keyof DrainReport

export const drainPhases = ["finished", "total", "partial", "terminal", "aborted"] as const satisfies ReadonlyArray<
  DrainPhase
>

/** The limits because of which no connection is taken. */
type Full = "Connections" | "BytesInFlight"

/**
 * Who is there, who may come, and what has happened: every number of a server changes in here and nowhere else, so that
 * all of them agree, and those of the process with them.
 *
 * Every connection is in `lives` from the moment in which it was let in or refused until it has ended and its end was
 * reported; it counts until its descriptor is released.
 */
export class ConnectionRegistry {
  readonly startedAt: number
  readonly connections: ReadonlySet<ServerConnection>
  /** Open while another connection may be taken. */
  readonly hasRoom = Latch.makeUnsafe(true)
  /** Open while there is no connection. */
  readonly empty = Latch.makeUnsafe(true)
  /** On which rung of a drain connections end now. */
  phase: DrainPhase = "finished"
  readonly drained: Record<DrainPhase, number> = { finished: 0, total: 0, partial: 0, terminal: 0, aborted: 0 }
  private lifecycle: "accepting" | "draining" | "stopped" = "accepting"
  private reportedState: State = "listening"
  private readonly owner: OwningServer
  private readonly limits: ResolvedLimits
  private readonly hasHandshake: boolean
  private readonly clock: Clock.Clock
  private readonly startedNanos: bigint
  private readonly members = new Set<ServerConnection>()
  private readonly perPeer = new Map<string, number>()
  private readonly counts = makeServerCounts()
  private nextId = 1
  /** Bytes in flight at the last sweep. */
  private inFlight = 0
  /** Listeners that do not take a connection now: because of a limit, or because they failed a moment ago. */
  private pausedListeners = 0

  /** @param hasHandshake connections have a way to go to their handler, and only at its end it is known who they are */
  constructor(owner: OwningServer, limits: ResolvedLimits, hasHandshake: boolean, clock: Clock.Clock) {
    this.owner = owner
    this.limits = limits
    this.hasHandshake = hasHandshake
    this.clock = clock
    this.connections = this.members
    this.startedAt = clock.currentTimeMillisUnsafe()
    this.startedNanos = clock.monotonicTimeNanosUnsafe()
    counters.servers.listening++
  }

  /** Whole milliseconds since the start, by the clock that nobody sets: limits must not be met when somebody does. */
  get now(): number {
    return Number((this.clock.monotonicTimeNanosUnsafe() - this.startedNanos) / nanosPerMilli)
  }

  get state(): State {
    return this.reportedState
  }

  get isAccepting(): boolean {
    return this.lifecycle === "accepting"
  }

  /** The connections that count. */
  get current(): ReadonlyArray<ServerConnection> {
    return [...this.connections].filter((connection) => connection.admitted)
  }

  /** How many these are. */
  get size(): number {
    return this.counts.connection
  }

  get health(): Health {
    const { acceptFailures, accepted, failures, handshakeFailures, limited, connection, pauses } = this.counts
    return {
      state: this.reportedState,
      connections: connection,
      accepted,
      acceptFailures,
      failures,
      handshakeFailures: { ...handshakeFailures },
      limited: { ...limited },
      pauses: { ...pauses },
      bytesInFlight: this.current.reduce((bytes, connection) => bytes + connection.bytesWaiting, 0)
    }
  }

  count(add: (counts: ServerCounts) => void): void {
    add(this.counts)
    add(counters.served)
  }

  // ---- who comes and goes

  /** Lets a connection in that was taken, unless it is to be refused, or one of the limits refuses it. */
  admit(listener: number, socket: StreamSocket, refused: Limit | undefined): ServerConnection {
    const acceptedAt = this.clock.currentTimeMillisUnsafe() - this.startedAt
    const connection = new ServerConnection(this.owner, this.nextId++, socket, listener, acceptedAt, this.now)
    const limit = refused ?? this.refusal(connection)
    this.count((counts) => counts.accepted++)
    if (limit !== undefined) this.refuse(connection, limit)
    else {
      connection.admitted = true
      this.count((counts) => counts.connection++)
    }
    this.members.add(connection)
    this.empty.closeUnsafe()
    this.updateRoom()
    return connection
  }

  /** Counts a connection for its peer, whom one knows by now; answers the limit if there are too many. */
  admitPeer(connection: ServerConnection): Limit | undefined {
    const { perPeer } = this.limits
    const peer = perPeer === undefined ? undefined : peerKey(connection.remoteAddress, perPeer.ipv6Prefix)
    if (perPeer === undefined || peer === undefined) return undefined
    const there = this.perPeer.get(peer) ?? 0
    if (there >= perPeer.max) return Limit.PerPeer({ max: perPeer.max, peer })
    this.perPeer.set(peer, there + 1)
    connection.peer = peer
    return undefined
  }

  /** A limit is the end of a connection, at its beginning or later. */
  refuse(connection: ServerConnection, limit: Limit): void {
    connection.limit = limit
    connection.action = this.actionOf(limit)
    this.count((counts) => counts.limited[limit._tag]++)
  }

  /** Its descriptor is released, and others may have its place. */
  released(connection: ServerConnection): void {
    if (connection.peer !== undefined) {
      const there = (this.perPeer.get(connection.peer) ?? 1) - 1
      if (there === 0) this.perPeer.delete(connection.peer)
      else this.perPeer.set(connection.peer, there)
    }
    if (connection.admitted) {
      connection.admitted = false
      this.count((counts) => counts.connection--)
      if (this.lifecycle === "draining") this.drained[this.phase]++
    }
    this.updateRoom()
  }

  /** It has been reported, too. */
  remove(connection: ServerConnection): void {
    this.members.delete(connection)
    if (this.members.size === 0) this.empty.openUnsafe()
  }

  // ---- whether there is room

  /** The limit because of which no connection is taken. In a drain nobody waits: who has come is served or refused. */
  get fullBy(): Full | undefined {
    const { bytesInFlight, connections } = this.limits
    if (this.lifecycle !== "accepting") return undefined
    if (connections?.action === "wait" && this.counts.connection >= connections.max) return "Connections"
    if (bytesInFlight?.action === "wait" && this.inFlight > bytesInFlight.max) return "BytesInFlight"
    return undefined
  }

  /** How many may be taken before others would have to wait. */
  get freePlaces(): number {
    const { connections } = this.limits
    if (this.fullBy !== undefined) return 0
    return connections?.action === "wait" ? connections.max - this.counts.connection : Infinity
  }

  setBytesInFlight(bytesInFlight: number): void {
    this.inFlight = bytesInFlight
    this.updateRoom()
  }

  /** A listener takes no connection until it resumes. */
  pause(): void {
    this.pausedListeners++
    this.updateState()
  }

  resume(): void {
    this.pausedListeners--
    this.updateState()
  }

  updateRoom(): void {
    if (this.fullBy === undefined) this.hasRoom.openUnsafe()
    else this.hasRoom.closeUnsafe()
    this.updateState()
  }

  // ---- the end

  /** From here on every end counts for its rung. Those who wait for room go on waiting until it is updated. */
  beginDrain(): void {
    this.lifecycle = "draining"
    this.updateState()
  }

  /** The end of the drain. Answers how many connections are left: they count as aborted, whenever they end. */
  finishDrain(): number {
    const left = this.current.length
    this.drained.aborted += left
    this.lifecycle = "stopped"
    const { drained } = this
    this.count((counts) => {
      for (const phase of drainPhases) counts.drained[phase] += drained[phase]
    })
    this.updateState()
    return left
  }

  // ---- internal

  /** Why a connection that was just taken is not served. */
  private refusal(connection: ServerConnection): Limit | undefined {
    const { bytesInFlight, connections } = this.limits
    if (connections !== undefined && this.counts.connection >= connections.max) {
      return Limit.Connections({ max: connections.max })
    }
    if (bytesInFlight !== undefined && this.inFlight > bytesInFlight.max) {
      return Limit.BytesInFlight({ max: bytesInFlight.max, bytes: this.inFlight })
    }
    // Of a connection that comes by way of a proxy the peer is not known yet.
    return this.hasHandshake ? undefined : this.admitPeer(connection)
  }

  private actionOf(limit: Limit): TimeLimit["action"] {
    const { acceptRate, bytesInFlight, connections, firstByte, handshake, idle, perPeer } = this.limits
    const answers = {
      Connections: connections?.action,
      PerPeer: perPeer?.action,
      AcceptRate: acceptRate?.action,
      BytesInFlight: bytesInFlight?.action,
      Handshake: handshake.action,
      FirstByte: firstByte?.action,
      Idle: idle?.action,
      Progress: undefined
    }
    const answer = answers[limit._tag]
    return answer === undefined || answer === "wait" ? "reset" : answer
  }

  private updateState(): void {
    const isPaused = this.pausedListeners > 0 || this.fullBy !== undefined
    const state = this.lifecycle !== "accepting" ? this.lifecycle : isPaused ? "paused" : "listening"
    if (state === this.reportedState) return
    counters.servers[this.reportedState]--
    counters.servers[state]++
    this.reportedState = state
  }
}

const nanosPerMilli = 1_000_000n

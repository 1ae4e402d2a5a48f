import type * as Clock from "effect/Clock"
import * as Latch from "effect/Latch"
import type { DrainReport, Health, State } from "../../Server.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { counters, makeServerCounts, type ServerCounts } from "../base/counters.ts"
import { peerKey } from "../base/peerKey.ts"
import { Limit, type ResolvedLimits, type TimeLimit } from "./limits.ts"
import { type OwningServer, ServerConnection } from "./ServerConnection.ts"

/** The phase of a drain in which a connection ends. */
export type DrainPhase = keyof DrainReport

export const drainPhases = ["finished", "total", "partial", "terminal", "aborted"] as const satisfies ReadonlyArray<
  DrainPhase
>

/** The limits that can stop accepting. */
type Full = "Connections" | "BytesInFlight"

/**
 * The connections of a server, whether it may accept more, and all of its counts. Every number changes in this class and
 * nowhere else, so the counts of the server and those of the process agree.
 *
 * A connection is in `connections` from the moment it is admitted or refused until it has ended and its end was reported.
 * It counts against the limits until its descriptor is released.
 */
export class ConnectionRegistry {
  readonly startedAt: number
  readonly connections: ReadonlySet<ServerConnection>
  /** Open while another connection may be accepted. */
  readonly hasRoom = Latch.makeUnsafe(true)
  /** Open while the server has no connection. */
  readonly empty = Latch.makeUnsafe(true)
  /** The phase of the drain; connections that end now count for it. */
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
  /** Bytes in flight when `LimitMonitor` last measured them. */
  private inFlight = 0
  /** How many listeners do not accept now: a limit is reached, or accepting failed less than 50 ms ago. */
  private pausedListeners = 0

  /** @param hasHandshake there are handshake steps, and the peer of a connection is known only after them */
  constructor(owner: OwningServer, limits: ResolvedLimits, hasHandshake: boolean, clock: Clock.Clock) {
    this.owner = owner
    this.limits = limits
    this.hasHandshake = hasHandshake
    this.clock = clock
    this.connections = this.members
    // The wall clock: a date that users see.
    this.startedAt = clock.currentTimeMillisUnsafe()
    this.startedNanos = clock.monotonicTimeNanosUnsafe()
    counters.servers.listening++
  }

  /** Whole milliseconds since the start, by the monotonic clock: setting the wall clock must not trip a limit. */
  get now(): number {
    return Number((this.clock.monotonicTimeNanosUnsafe() - this.startedNanos) / nanosPerMilli)
  }

  get state(): State {
    return this.reportedState
  }

  get isAccepting(): boolean {
    return this.lifecycle === "accepting"
  }

  /** The connections that count against the limits. */
  get current(): ReadonlyArray<ServerConnection> {
    return [...this.connections].filter((connection) => connection.admitted)
  }

  /** How many connections count against the limits. */
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

  // ---- connections

  /** Admits an accepted connection, unless `refused` or one of the limits refuses it. */
  admit(listener: number, socket: StreamSocket, refused: Limit | undefined): ServerConnection {
    // By the wall clock: a date that users see.
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

  /** Counts a connection for its peer, which is known by now; returns the limit if the peer has too many. */
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

  /** Marks a connection as ended by a limit, when it is accepted or later. */
  refuse(connection: ServerConnection, limit: Limit): void {
    connection.limit = limit
    connection.action = this.actionOf(limit)
    this.count((counts) => counts.limited[limit._tag]++)
  }

  /** The descriptor of a connection is released, so another one may take its place. */
  released(connection: ServerConnection): void {
    if (connection.peer !== undefined) {
      const there = (this.perPeer.get(connection.peer) ?? 1) - 1
      if (there === 0) this.perPeer.delete(connection.peer)
      else this.perPeer.set(connection.peer, there)
    }
    if (connection.admitted) {
      connection.admitted = false
      this.count((counts) => counts.connection--)
      if (this.lifecycle === "draining") {
        this.drained[this.phase === "finished" && connection.hasLeftBetweenRequests ? "total" : this.phase]++
      }
    }
    this.updateRoom()
  }

  /** The end of a connection was reported. */
  remove(connection: ServerConnection): void {
    this.members.delete(connection)
    if (this.members.size === 0) this.empty.openUnsafe()
  }

  // ---- room for more

  /** The limit that stops accepting now. None does in a drain: connections that have arrived are served or refused. */
  get fullBy(): Full | undefined {
    const { bytesInFlight, connections } = this.limits
    if (this.lifecycle !== "accepting") return undefined
    if (connections?.action === "wait" && this.counts.connection >= connections.max) return "Connections"
    if (bytesInFlight?.action === "wait" && this.inFlight > bytesInFlight.max) return "BytesInFlight"
    return undefined
  }

  /** How many connections may be accepted before the next one would have to wait. */
  get freePlaces(): number {
    const { connections } = this.limits
    if (this.fullBy !== undefined) return 0
    return connections?.action === "wait" ? connections.max - this.counts.connection : Infinity
  }

  setBytesInFlight(bytesInFlight: number): void {
    this.inFlight = bytesInFlight
    this.updateRoom()
  }

  /** A listener stops accepting until it resumes. */
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

  // ---- drain

  /** From here on every end counts for a phase. Accept loops that wait for room go on waiting until `updateRoom`. */
  beginDrain(): void {
    this.lifecycle = "draining"
    this.updateState()
  }

  /** Ends the drain. Returns how many connections are left: they count as aborted, whenever they end. */
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

  /** The limit that refuses a connection that was just accepted. */
  private refusal(connection: ServerConnection): Limit | undefined {
    const { bytesInFlight, connections } = this.limits
    if (connections !== undefined && this.counts.connection >= connections.max) {
      return Limit.Connections({ max: connections.max })
    }
    if (bytesInFlight !== undefined && this.inFlight > bytesInFlight.max) {
      return Limit.BytesInFlight({ max: bytesInFlight.max, bytes: this.inFlight })
    }
    // With handshake steps the peer is not known yet: the socket may be that of a proxy.
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

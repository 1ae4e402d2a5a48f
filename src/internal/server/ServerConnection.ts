import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import * as Predicate from "effect/Predicate"
import type * as Server from "../../Server.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import { formatAddress } from "../base/format.ts"
import { CancellationScope, CurrentCancellationScope, scopeOf } from "../cancellation/scope.ts"
import { coreOf, type Socket } from "../core/Socket.ts"
import { DrainSignal } from "./DrainSignal.ts"
import type { TimeLimit } from "./limits.ts"

export type Connection = Server.Connection

/** The service `Server.Connection`. */
export const Connection: Context.Service<Connection, Connection> = Context.Service(
  "effect-asio/Server/Connection"
)

/** A connection before its handler, as the last handshake step has left it. */
export interface Established {
  readonly socket: StreamSocket.StreamSocket
  readonly remoteAddress: NetAddress.SocketAddress
  readonly localAddress: NetAddress.SocketAddress
}

/** The server as its connections see it. */
export interface OwningServer extends Server.Server {
  /** Milliseconds since the epoch. */
  readonly startedAt: number
  readonly drainStarted: Effect.Effect<void>
  readonly isDraining: boolean
  /** A handler begins to wait for its next request, by `Connection.next`. */
  readonly waitsForNext: () => void
}

/** One connection of a server: its public facts, its phase, and what `LimitMonitor` remembers of it. */
export class ServerConnection implements Connection {
  readonly id: number
  readonly listener: number
  established: Established | undefined = undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  phase: "handshake" | "running" | "ending" = "handshake"
  /** Counts against the limits: no limit refused it when it was accepted, and it has not ended. */
  admitted = false
  /** The key under which `perPeer` counts it. */
  peer: string | undefined = undefined
  /** The limit that ended it, and the action of that limit. */
  limit: Server.Limit | undefined = undefined
  action: TimeLimit["action"] = "reset"
  // Times are whole milliseconds since the start of the server: small integers, which V8 stores without an allocation.
  // `acceptedAt` is by the wall clock, all others by the monotonic clock.
  private readonly acceptedAt: number
  /** When the handshake or the handler started, and how many bytes the socket had received before (a PROXY header). */
  startedAtMillis: number
  bytesReadBefore = 0
  seenBytesRead = 0
  seenBytesWritten = 0
  /** When `LimitMonitor` last saw that a byte had moved; after a limit was reached, when it was. */
  lastMovedAt: number
  /** Since when, and from how many bytes, the progress of a waiting write is measured; -1 while no write waits. */
  progressSince = -1
  progressFrom = 0
  /** When `LimitMonitor` last looked, the handler was at work and did not wait for its peer. */
  wasAtWork = false
  /** A drain has ended its wait for the next request. */
  hasLeftBetweenRequests = false
  /** How many bytes had moved when a drain last asked it to end; -1 before. */
  private askedAt = -1
  /** The handler has waited for `draining`, and ends by itself. */
  private listensForDrain = false
  /** The operations inside `next`; `undefined` until the handler uses `next`. */
  private nextSignal: DrainSignal | undefined = undefined
  /** How many calls of `next` wait. */
  private nextCalls = 0
  private readonly accepted: StreamSocket.StreamSocket
  private readonly owner: OwningServer

  constructor(
    owner: OwningServer,
    id: number,
    socket: StreamSocket.StreamSocket,
    listener: number,
    acceptedAt: number,
    now: number
  ) {
    this.owner = owner
    this.id = id
    this.accepted = socket
    this.listener = listener
    this.acceptedAt = acceptedAt
    this.startedAtMillis = this.lastMovedAt = now
  }

  /** The handler starts. Bytes that the client sent right behind its PROXY header wait in the read buffer. */
  handlerStarts(now: number): void {
    this.phase = "running"
    this.startedAtMillis = now
    const readHalf = this.core?.readHalf
    this.bytesReadBefore = this.bytesRead - (readHalf?.unreadBytes().byteLength ?? 0)
    readHalf?.forgetReads()
  }

  get next(): Connection["next"] {
    return (receive) =>
      Effect.withFiber((fiber) => {
        const signal = this.nextSignal ??= new DrainSignal()
        const scope = (scopeOf(fiber) ?? new CancellationScope([])).within(signal)
        // Counted inside of what takes it back, wherever an interruption comes.
        let isCounted = false
        const waiting = Effect.suspend(() => {
          isCounted = true
          this.nextCalls++
          this.owner.waitsForNext()
          return Effect.provideService(receive, CurrentCancellationScope, scope)
        })
        return Effect.ensuring(waiting, Effect.sync(() => void (isCounted && this.nextCalls--)))
      })
  }

  /**
   * Whether it waits for its peer, which is what `limits.idle` bounds. While the handler works on what it has received,
   * it does not.
   */
  get waitsForPeer(): boolean {
    const { core } = this
    if (core === undefined || this.phase !== "running") return true
    if (core.writeHalf.queue.front !== undefined || this.bytesRead === this.bytesReadBefore) return true
    return this.nextSignal === undefined ? core.readHalf.queue.front !== undefined : this.nextCalls > 0
  }

  /**
   * Ends its wait for the next request, or for the first byte of its handshake, if that is all that it does. Asks once
   * for each wait: a handler that goes on after it is left to the phases of the drain.
   */
  endBetweenRequests(requests: DrainSignal, fork: (effect: Effect.Effect<void>) => void): void {
    const leave = this.waysToLeave(requests)
    const moved = this.bytesRead + this.bytesWritten
    if (leave === undefined || moved === this.askedAt) return
    this.askedAt = moved
    // Before the request, which may run the handler to its end.
    this.hasLeftBetweenRequests = true
    if (Effect.isEffect(leave)) fork(leave)
    else this.hasLeftBetweenRequests = leave()
  }

  private waysToLeave(requests: DrainSignal): Effect.Effect<void> | (() => boolean) | undefined {
    const { core } = this
    if (core === undefined || this.phase === "ending" || core.readHalf.hasUnread) return undefined
    const { queue: { front } } = core.readHalf
    const endFront = front && (() => requests.request("total", undefined, [front]).ended.length > 0)
    if (this.phase === "handshake") {
      const { successor } = core
      if (successor === undefined) return core.bytesRead === 0 ? endFront : undefined
      return successor.hasReceived === false ? successor.leave : undefined
    }
    if (core.writeHalf.queue.front !== undefined) return undefined
    const { nextSignal } = this
    if (nextSignal !== undefined) {
      return this.nextCalls > 0 ? () => nextSignal.request("total").ended.length > 0 : undefined
    }
    if (this.listensForDrain || !core.readHalf.isPeersTurn) return undefined
    return front?.fiberId === this.fiber?.id && !hasChildren(this.fiber)
      ? endFront
      : undefined
  }

  /** The socket of the handler; before the handler, the accepted one. */
  get socket(): StreamSocket.StreamSocket {
    return this.established?.socket ?? this.accepted
  }

  get server(): Server.Server {
    return this.owner
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.established?.remoteAddress ?? this.socket.remoteAddress
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.established?.localAddress ?? this.socket.localAddress
  }

  get startedAt(): DateTime.Utc {
    return DateTime.makeUnsafe(this.owner.startedAt + this.acceptedAt)
  }

  get bytesRead(): number {
    let bytes = this.socket.bytesRead
    for (let core = this.firstCore?.successor?.socket; core !== undefined; core = core.successor?.socket) {
      bytes += core.bytesRead
    }
    return bytes
  }

  get bytesWritten(): number {
    let bytes = this.socket.bytesWritten
    for (let core = this.firstCore?.successor?.socket; core !== undefined; core = core.successor?.socket) {
      bytes += core.bytesWritten
    }
    return bytes
  }

  get bytesWaiting(): number {
    return this.core?.writeHalf.bytesWaiting ?? 0
  }

  private get firstCore(): Socket | undefined {
    return coreOf(this.socket)
  }

  /** The core of its stream; of the stream that was made of it, where the handler began TLS. */
  private get core(): Socket | undefined {
    let core = this.firstCore
    for (let next = core?.successor?.socket; next !== undefined; next = next.successor?.socket) core = next
    return core
  }

  get draining(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.listensForDrain = true
      return this.owner.drainStarted
    })
  }

  get isDraining(): boolean {
    return this.owner.isDraining
  }

  get annotations(): { readonly connection: number; readonly peer: string } {
    return { connection: this.id, peer: formatAddress(this.remoteAddress) }
  }
}

// ---- internal

/** Whether a fiber has forked children that still run: then it does more than to wait. */
const hasChildren = (fiber: Fiber.Fiber<unknown, unknown> | undefined): boolean =>
  // Effect tells it nowhere else. Without the field the answer is no.
  Predicate.hasProperty(fiber, "_children") && fiber._children instanceof Set && fiber._children.size > 0

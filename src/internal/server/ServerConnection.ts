import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Server from "../../Server.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import { formatAddress } from "../base/format.ts"
import { coreOf } from "../core/Socket.ts"
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
    this.bytesReadBefore = this.bytesRead -
      (coreOf(this.socket)?.readHalf.unreadBytes().byteLength ?? 0)
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
    return this.socket.bytesRead
  }

  get bytesWritten(): number {
    return this.socket.bytesWritten
  }

  get bytesWaiting(): number {
    return coreOf(this.socket)?.writeHalf.bytesWaiting ?? 0
  }

  get draining(): Effect.Effect<void> {
    return this.owner.drainStarted
  }

  get isDraining(): boolean {
    return this.owner.isDraining
  }

  get annotations(): { readonly connection: number; readonly peer: string } {
    return { connection: this.id, peer: formatAddress(this.remoteAddress) }
  }
}

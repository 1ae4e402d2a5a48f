import * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import type * as StreamSocket from "../../StreamSocket.ts"
import { formatAddress } from "../base/format.ts"
import { coreOf } from "../core/Socket.ts"
import type { Limit, Within } from "./limits.ts"
import type { Connection, Server } from "./model.ts"

/** A connection on its way to the handler, as the last step has left it. */
export interface Prepared {
  readonly socket: StreamSocket.StreamSocket
  readonly remoteAddress: NetAddress.SocketAddress
  readonly localAddress: NetAddress.SocketAddress
}

/** The server as its connections see it. */
export interface Owner extends Server {
  /** By the clock on the wall, in milliseconds. */
  readonly startedAt: number
  readonly drainStarted: Effect.Effect<void>
  readonly isDraining: boolean
}

/** One connection of a server: its facts, how far it has come, and what the sweeps remember of it. */
export class ServerConnection implements Connection {
  readonly id: number
  readonly listener: number
  prepared: Prepared | undefined = undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  phase: "preparing" | "running" | "ending" = "preparing"
  /** It counts: no limit refused it when it came, and it has not ended. */
  admitted = false
  /** Whom it counts for, where peers are limited. */
  peer: string | undefined = undefined
  /** Because of what it is to end, and how. */
  limit: Limit | undefined = undefined
  answer: Within["action"] = "reset"
  // Times are whole milliseconds since the server's start, which cost no memory of their own. All but this one are by
  // the clock that nobody sets.
  private readonly acceptedAt: number
  /** When the handler began, or will, and what its socket had received before that was its client's: a PROXY header. */
  begunAt: number
  begunWith = 0
  read = 0
  written = 0
  /** When a byte was last seen to have moved; after a limit was reached, when that was. */
  since: number
  /** From where the progress of a waiting write is measured; -1 while none waits. */
  markedAt = -1
  marked = 0
  private readonly accepted: StreamSocket.StreamSocket
  private readonly owner: Owner

  constructor(
    owner: Owner,
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
    this.begunAt = this.since = now
  }

  /** It has come to its handler. What its client has sent may have come with the header, and waits to be read. */
  begin(now: number): void {
    this.phase = "running"
    this.begunAt = now
    this.begunWith = this.bytesRead -
      (coreOf(this.socket)?.readHalf.unreadBytes().byteLength ?? 0)
  }

  /** What its handler has, and before that what was accepted. */
  get socket(): StreamSocket.StreamSocket {
    return this.prepared?.socket ?? this.accepted
  }

  get server(): Server {
    return this.owner
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.prepared?.remoteAddress ?? this.socket.remoteAddress
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.prepared?.localAddress ?? this.socket.localAddress
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

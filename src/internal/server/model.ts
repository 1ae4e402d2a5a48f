import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type { Limit } from "./limits.ts"

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
  readonly drain: (deadline?: Duration.Input, ladder?: DrainPhases) => Effect.Effect<DrainReport>
  /** Waits until the server has ended. **Interruption**: stops waiting. */
  readonly stopped: Effect.Effect<DrainReport>
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

export interface DrainReport {
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

export interface DrainPhases {
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

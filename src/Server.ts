/**
 * A server: one handler for every connection of one or several addresses, limits
 * on what peers may do, and a drain that reports how each connection ended.
 *
 * `Acceptor.serve` is the accept loop alone. `Server` adds what a process in
 * production needs.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Data from "effect/Data"
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import process from "node:process"
import * as Acceptor from "./Acceptor.ts"
import { maybe, positiveInt, size, socketOptions, time } from "./internal/base/config.ts"
import { formatAddress } from "./internal/base/format.ts"
import { CurrentCancellationScope } from "./internal/cancellation/scope.ts"
import { isFailureOfLookup, isWrongHandshake } from "./internal/core/handlerEnd.ts"
import { PeerMistakes } from "./internal/core/PeerMistakes.ts"
import type { HandshakeStep } from "./internal/server/ConnectionRunner.ts"
import { resolvePhases } from "./internal/server/Drain.ts"
import * as limits from "./internal/server/limits.ts"
import { Connection as ConnectionTag } from "./internal/server/ServerConnection.ts"
import { type ResolvedServerOptions, ServerCore } from "./internal/server/ServerCore.ts"
import { TokenBucket } from "./internal/server/TokenBucket.ts"
import { secureServer } from "./internal/tls/server.ts"
import * as ProxyProtocol from "./ProxyProtocol.ts"
import { isSocketError, type SocketError } from "./SocketError.ts"
import type { StreamSocket } from "./StreamSocket.ts"
import * as Tls from "./Tls.ts"
import { type ListenOptions, resolveOptions, type ResolverFor, type Target, type Transport } from "./Transport.ts"

// ---- models

/**
 * A running server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  /** The bound addresses, in the order of `listen`, with the real ports where port 0 was asked for. */
  readonly addresses: Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>
  /** What the server does now. */
  readonly state: Effect.Effect<State>
  /** The connections that are served now, oldest first. */
  readonly connections: Effect.Effect<ReadonlyArray<Connection>>
  /** What the server does now and has done since it started, for a health check. */
  readonly health: Effect.Effect<Health>
  /**
   * Ends the server within a deadline (by default that of `shutdown`), and
   * completes with how its connections ended.
   *
   * **Details**
   *
   * 1. The server stops accepting. Connections that have arrived by then are
   *    served, as far as the limits admit them, at most one backlog of each
   *    address; with a deadline of 0 none is. The addresses are released.
   *    With `NodeTransport`, connections that Node has not yet accepted from the
   *    system are reset.
   * 2. Connections that wait for their next request end at once: the server
   *    requests `total` of the read that waits, and a handler that lets
   *    `OperationAborted` pass ends with a FIN. So does a client that has not sent
   *    the first byte of its PROXY header or TLS handshake. A connection that
   *    finishes its request later ends then. See `Connection.next` for what such a
   *    wait is. With a deadline of 0 this is left out.
   *    Handlers hear of the drain by `Connection.draining`. For 6/10 of the time
   *    they may finish by themselves.
   * 3. Then the server requests that waiting operations end: `total` for 2/10 of
   *    the time, `partial` for 1/10 and `terminal` for 1/10. Each request is made
   *    eight times. A handler that lets `OperationAborted` pass ends, and its
   *    connection is closed; if a write was stopped inside its message, the
   *    connection is reset, so that the peer cannot take a part for the whole.
   * 4. At the deadline the remaining connections are reset and their handlers
   *    interrupted. A handler that does not end within 1 more second (it is in an
   *    uninterruptible region or a finalizer) is left behind, with a warning.
   *
   * `phases` divides the time otherwise. The drain ends as soon as the last
   * connection has ended. A second call joins the drain that runs, and brings
   * its end forward if its deadline is earlier.
   *
   * **Gotchas**
   *
   * A handler that waits for the drain of its own server waits for itself: fork
   * the drain.
   *
   * **Interruption**: stops waiting. The drain goes on.
   */
  readonly drain: (deadline?: Duration.Input, phases?: DrainPhases) => Effect.Effect<DrainReport>
  /** Waits until the server has ended. **Interruption**: stops waiting. */
  readonly stopped: Effect.Effect<DrainReport>
}

/**
 * The service of {@link layer}.
 *
 * @category services
 * @since 0.1.0
 */
export const Server: Context.Service<Server, Server> = Context.Service("effect-asio/Server")

/**
 * The connection that a handler serves.
 *
 * **Example** (A loop over requests, which a drain ends between two of them)
 *
 * ```ts
 * const handler = (socket: StreamSocket.StreamSocket, connection: Server.Connection) =>
 *   Effect.gen(function*() {
 *     while (true) {
 *       const request = yield* connection.next(Framing.receive(socket, framing))
 *       yield* Framing.send(socket, framing, yield* answer(request))
 *     }
 *   })
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export interface Connection {
  /** 1, 2, 3, ... in each server. */
  readonly id: number
  /** The client named by the PROXY header if there is one, else the peer of the socket. */
  readonly remoteAddress: NetAddress.SocketAddress
  /** The destination named by the PROXY header if there is one, else the socket's own address. */
  readonly localAddress: NetAddress.SocketAddress
  /** The index, in the server's `addresses`, of the address that accepted the connection. */
  readonly listener: number
  /** When the connection was accepted. */
  readonly startedAt: DateTime.Utc
  /** Bytes received so far. */
  readonly bytesRead: number
  /** Bytes taken so far. */
  readonly bytesWritten: number
  /** Bytes of writes that wait to be taken: what the handler keeps in memory for a peer that does not read. */
  readonly bytesWaiting: number
  /**
   * Waits until a drain starts, after which the handler should finish. The start of
   * the drain does not end the reads of a handler that has waited for this, outside
   * of `next`. **Interruption**: stops waiting.
   */
  readonly draining: Effect.Effect<void>
  /** Whether a drain has started. */
  readonly isDraining: boolean
  readonly server: Server
  /**
   * Waits for the next request by `receive`, and tells the server so.
   *
   * **Details**
   *
   * Until the first byte of the request has arrived, the connection is between two
   * requests: the start of a drain ends it at once, by a request of type `total`,
   * with which `receive` fails (`OperationAborted`). `limits.idle` runs until
   * `receive` completes. From then until the next `next` the handler works: the
   * connection is not idle, and a drain leaves it the time of its phases.
   *
   * A handler that never calls this is between two requests while it waits in a
   * read, has taken no byte since it last wrote (or none at all), and does nothing
   * else: it runs no other fiber, and has not waited for `draining`. That is the
   * loop that reads a request, answers it, and reads the next one. Call `next` where
   * the server cannot see it:
   *
   * - The handler reads in another fiber than its own, as `Effect.timeout`, a race
   *   and `Effect.all` do, or runs other fibers.
   * - Requests have no answer.
   * - The handler writes before it has the whole request, such as `100 Continue`:
   *   what it then reads without `next` belongs to the request.
   *
   * A handler that works on several requests at once calls it while it works on
   * none.
   *
   * Fails as `receive` does.
   *
   * **Interruption**: that of `receive`.
   *
   * @since 0.1.0
   */
  readonly next: <A, E, R>(receive: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/**
 * The service that tells a handler, and all code that it calls, which connection
 * it serves.
 *
 * @category services
 * @since 0.1.0
 */
export const Connection: Context.Service<Connection, Connection> = ConnectionTag

/**
 * Serves one connection. The connection ends when its handler ends, see
 * {@link serve}.
 *
 * @category models
 * @since 0.1.0
 */
export type Handler<E, R> = (
  socket: StreamSocket,
  connection: Connection
) => Effect.Effect<unknown, E, R>

/**
 * What a server does.
 *
 * **Details**
 *
 * - `listening`: every address accepts.
 * - `paused`: at least one address does not accept, because of a limit or because
 *   accepting failed less than 50 milliseconds ago.
 * - `draining`, `stopped`: see `drain`.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "listening" | "paused" | "draining" | "stopped"

/**
 * How the connections ended that were open when a drain started: `finished` by
 * themselves, by a request of one of the three types, or `aborted` at the
 * deadline. Connections that ended between two requests count as `total`. A
 * connection has ended when its descriptor is released.
 *
 * @category models
 * @since 0.1.0
 */
export interface DrainReport {
  readonly finished: number
  readonly total: number
  readonly partial: number
  readonly terminal: number
  readonly aborted: number
}

/**
 * The state of a server, and its counts since it started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Health {
  readonly state: State
  /** Connections that are served now. */
  readonly connections: number
  /** Connections accepted from the addresses, including those that a limit then refused. */
  readonly accepted: number
  /** Attempts to accept that failed, for example because no descriptor was left. */
  readonly acceptFailures: number
  /** Handlers that failed with something other than the end of their connection. */
  readonly failures: number
  /**
   * Connections that failed before their handler started: the peer may send no
   * PROXY header (`Untrusted`), its header is `Malformed`, the TLS handshake failed
   * (`Tls`), or the connection ended or failed meanwhile (`Gone`). Connections that
   * a limit ended are counted in `limited` instead.
   */
  readonly handshakeFailures: Readonly<Record<"Untrusted" | "Malformed" | "Tls" | "Gone", number>>
  /** Connections that each limit has refused or ended. */
  readonly limited: Readonly<Record<Limit["_tag"], number>>
  /** How often each limit has paused accepting. */
  readonly pauses: Readonly<Record<"Connections" | "AcceptRate" | "BytesInFlight", number>>
  /** Bytes of writes that wait to be taken, over all connections. */
  readonly bytesInFlight: number
}

/**
 * The limit that a connection has reached, with its setting.
 *
 * @category models
 * @since 0.1.0
 */
export type Limit = Data.TaggedEnum<{
  Connections: { readonly max: number }
  PerPeer: { readonly max: number; readonly peer: string }
  AcceptRate: { readonly limit: number; readonly window: Duration.Duration }
  BytesInFlight: { readonly max: number; readonly bytes: number }
  Handshake: { readonly within: Duration.Duration }
  FirstByte: { readonly within: Duration.Duration }
  Idle: { readonly within: Duration.Duration }
  Progress: { readonly bytes: number; readonly per: Duration.Duration; readonly taken: number }
}>

/**
 * Constructors and guards of every limit: `Limit.$is("Idle")`, `Limit.$match`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const Limit: Data.TaggedEnum.Constructor<Limit> = limits.Limit

/**
 * Describes in a few words which limit was reached.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describeLimit: (limit: Limit) => string = limits.describe

// ---- options

/**
 * Bytes that the server sends before it closes a connection because of a limit.
 * If no byte is taken, or the close takes, for longer than `within` (default 1
 * second), or if all of it takes longer than `atMost` (default 30 seconds), the
 * server resets the connection. At most 128 connections are closed like this at
 * once; further ones are reset.
 *
 * @category options
 * @since 0.1.0
 */
export interface RejectMessage {
  readonly send: Uint8Array | string
  /** The time without progress. */
  readonly within?: Duration.Input | undefined
  /** The time in all. */
  readonly atMost?: Duration.Input | undefined
}

/**
 * What the server does to a connection that reaches a limit: it resets it, closes
 * it, or sends a few bytes and closes it.
 *
 * @category options
 * @since 0.1.0
 */
export type LimitAction = "reset" | "close" | RejectMessage

/**
 * Limits on what peers may do. By default only `handshake` is set.
 *
 * **Details**
 *
 * `connections`, `perPeer`, `acceptRate` and `bytesInFlight` concern new
 * connections. Their `action` resets the connection, refuses it with bytes, or
 * is `"wait"`: the server does not accept, so the connection waits in the backlog
 * of the listener, and beyond that in the kernel. A transport may hold a
 * descriptor for each connection of the backlog (`NodeTransport` does).
 *
 * The others concern connections that are open. When one is reached, the server
 * interrupts the handler and ends the connection by the `action`, or resets it if
 * that interruption cut a message inside. A handler that does not end within 1
 * second loses its connection.
 *
 * One timer checks all connections, every 1/8 of the shortest limit (at least 10
 * milliseconds, at most 1 second). A limit never acts early, and at most two
 * intervals late.
 *
 * @category options
 * @since 0.1.0
 */
export interface Limits {
  /** Open connections in all. Default action: `"wait"`. */
  readonly connections?: number | {
    readonly max: number
    readonly action?: "wait" | "reset" | RejectMessage | undefined
  } | undefined
  /**
   * Open connections of one peer: of one IPv4 address, or of one IPv6 network of
   * `ipv6Prefix` bits (default 64, the usual size of a customer's network; 128
   * for single addresses). Peers of Unix-domain sockets are not counted. With
   * `proxyProtocol`, the client that the header names is counted. Default action:
   * `"reset"`.
   *
   * The peer is counted when its handler starts. With `proxyProtocol` or `tls`
   * that is after the handshake, so this limit does not bound connections in the
   * handshake; `connections` and `handshake` do.
   */
  readonly perPeer?: number | {
    readonly max: number
    readonly ipv6Prefix?: number | undefined
    readonly action?: "reset" | RejectMessage | undefined
  } | undefined
  /**
   * Connections per time: `limit` at once, and then one for each `limit`th part of
   * the window (a token bucket). Default action: `"wait"`.
   */
  readonly acceptRate?: {
    readonly limit: number
    readonly window: Duration.Input
    readonly action?: "wait" | "reset" | RejectMessage | undefined
  } | undefined
  /**
   * Bytes in flight: the bytes not taken yet of every write that waits on an
   * accepted socket, over all connections. That is what handlers keep in memory
   * because peers do not read. Bytes that the transport has taken do not count.
   * While the sum is over the limit, no connection is admitted. The sum is
   * measured at least every 100 milliseconds. Default action: `"wait"`.
   */
  readonly bytesInFlight?: number | {
    readonly max: number
    readonly action?: "wait" | "reset" | RejectMessage | undefined
  } | undefined
  /**
   * The time from acceptance to the start of the handler, in which the peer sends
   * its PROXY header (`proxyProtocol`) and completes the TLS handshake (`tls`); of
   * no effect without both. Default 10 seconds. Default action: `"reset"`.
   */
  readonly handshake?: Duration.Input | {
    readonly within: Duration.Input
    readonly action?: LimitAction | undefined
  } | undefined
  /**
   * The time from acceptance, or from the end of the handshake, to the first
   * received byte. A byte counts as received when the handler reads it, so a
   * handler that does not read reaches this limit. Bytes of a TLS handshake do not
   * count. Default action: `"reset"`.
   */
  readonly firstByte?: Duration.Input | {
    readonly within: Duration.Input
    readonly action?: LimitAction | undefined
  } | undefined
  /**
   * The time in which the connection waits for its client, and no byte is received
   * and none is taken. It waits while it has received nothing, while a write waits,
   * and while a read waits; of a handler that uses `Connection.next`, while `next`
   * waits. While the handler works on a request, the connection is not idle.
   *
   * Bytes of a TLS handshake do not count, so with `tls` this has to be at least as
   * long as `handshake`. Default action: `"close"`.
   */
  readonly idle?: Duration.Input | {
    readonly within: Duration.Input
    readonly action?: LimitAction | undefined
  } | undefined
  /**
   * Slow consumers: while a write waits, the transport has to take at least
   * `bytes` in each time `per`. Otherwise the connection is reset, because bytes
   * would not reach such a peer.
   *
   * **Gotchas**
   *
   * Systems take bytes in lumps: a full send buffer takes none until about a third
   * of it is free, and it may have grown to some megabytes. A peer that reads all
   * the time, but less than a lump in each `per`, is reset. So `per` has to be as
   * long as the slowest peer needs for some megabytes, or the buffer has to be
   * small (`sendBuffer`, where the transport supports it).
   */
  readonly progress?: { readonly bytes: number; readonly per: Duration.Input } | undefined
}

/**
 * How `drain` divides its time: parts in relation to each other, by default 6, 2,
 * 1 and 1. A part of 0 is left out.
 *
 * @category options
 * @since 0.1.0
 */
export interface DrainPhases {
  /** For handlers to finish by themselves. Connections between two requests end at its start. */
  readonly finish?: number | undefined
  /** For requests of type `total`. */
  readonly total?: number | undefined
  /**
   * For requests of type `partial`.
   *
   * **Gotchas**
   *
   * If a `partial` request stops a `writeAll` and the handler goes on with other
   * writes, the peer receives a message with a hole. Set this to 0 for a handler
   * that goes on after `OperationAborted`.
   */
  readonly partial?: number | undefined
  /** For requests of type `terminal`. */
  readonly terminal?: number | undefined
}

/**
 * One address to listen on, or several. Of a host and port, the first address is
 * used.
 *
 * @category options
 * @since 0.1.0
 */
export type Addresses = Target | Arr.NonEmptyReadonlyArray<Target>

/**
 * Options of a server. Those of `ListenOptions` apply to every address.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<E = unknown, L extends Addresses = Addresses, R = never> extends ListenOptions {
  /** One address or several. */
  readonly listen: L
  readonly limits?: Limits | undefined
  /**
   * Every connection starts with a PROXY header; see `ProxyProtocol.receiveOption`.
   * The server resets a connection without one and reports it to
   * `onHandshakeFailure`.
   */
  readonly proxyProtocol?: ProxyProtocol.OptionalOptions | undefined
  /**
   * Every connection speaks TLS, behind its PROXY header if there is one; the
   * handler's socket is a `Tls.TlsSocket`. A context (`Tls.makeServerContext`) can
   * be reloaded. Unless it has a `deadline` of its own, the handshake is bounded by
   * `limits.handshake`. A failed handshake is reported to `onHandshakeFailure`;
   * options that cannot be used fail the start of the server.
   */
  readonly tls?: Tls.ServerOptions | Tls.ServerContext | undefined
  /**
   * Receives each failure of a handler that is not the end of its connection, after
   * the connection is closed. It cannot fail; its defects are logged.
   *
   * By default it is logged as an error. But what a peer did wrong on its own
   * connection, such as a message that its protocol does not allow, is one line a
   * minute and peer, see {@link serve}.
   *
   * From the steps before the handler it receives only defects, such as a defect of
   * the program's own `trusted` function.
   */
  readonly onError?:
    | ((
      cause: Cause.Cause<E>,
      connection: Connection
    ) => Effect.Effect<unknown, never, R>)
    | undefined
  /**
   * Receives each connection that failed before its handler started, after it is
   * closed: the peer is untrusted, its PROXY header is malformed, the TLS handshake
   * failed, or the peer went away meanwhile. On the internet this happens every day,
   * and any stranger can cause it, so by default it is logged for debugging; as an
   * error if the program's own `identityFor` (`Tls.ServerOptions`) failed; and as one
   * line a minute and peer if the peer's TLS cannot succeed, see {@link serve}. See
   * `Health.handshakeFailures`.
   */
  readonly onHandshakeFailure?:
    | ((
      cause: Cause.Cause<SocketError | Cause.Done>,
      connection: Connection
    ) => Effect.Effect<unknown, never, R>)
    | undefined
  /** Receives each connection that a limit refused or ended, after it is closed. By default it is logged (debug). */
  readonly onLimit?:
    | ((limit: Limit, connection: Connection) => Effect.Effect<unknown, never, R>)
    | undefined
  /** How the server ends the connection of a handler that failed. Default `"abort"`, which resets it. */
  readonly onFailure?: "abort" | "close" | undefined
  /** The drain that an interruption or the end of the scope starts: its deadline (default 10 seconds) and its phases. */
  readonly shutdown?: {
    readonly deadline?: Duration.Input | undefined
    readonly phases?: DrainPhases | undefined
  } | undefined
}

/** What a server needs from its environment: a resolver only if one of the addresses is a host and port. */
type Environment<L extends Addresses, R, R2> =
  | Transport
  | ResolverFor<L extends ReadonlyArray<infer T extends Target> ? T : L extends Target ? L : never>
  | HandlerEnvironment<R>
  | R2

/** What a handler needs from the environment: its scope and its connection come from the server. */
type HandlerEnvironment<R> = Exclude<Exclude<R, Connection>, Scope.Scope>

// ---- constructors

/**
 * Starts a server and completes with it. When the scope closes, the server drains
 * within the deadline of `shutdown`. Everything else is as for {@link serve}.
 *
 * **Interruption**: *total* while it starts: the addresses are released.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <E, R, L extends Addresses, R2 = never>(
  handler: Handler<E, R>,
  options: Options<E, L, R2>
): Effect.Effect<Server, SocketError, Scope.Scope | Environment<L, R, R2>> =>
  Effect.gen(function*() {
    const tls = options.tls === undefined ? undefined : yield* tlsStep(options.tls)
    const behaviour = yield* resolveServerOptions(handler, options, tls)
    const places: Addresses = options.listen
    const [first, ...others] = isList(places) ? places : [places]
    // Its environment is that of the addresses: without a host and port among them there is no resolver.
    const listen = Acceptor.listen as (
      address: Target,
      options: ListenOptions
    ) => Effect.Effect<Acceptor.Acceptor, SocketError, Environment<L, never, never> | Scope.Scope>
    const acceptors = [
      yield* listen(first, options),
      ...yield* Effect.forEach(others, (address) => listen(address, options))
    ] as const
    const region = yield* CurrentCancellationScope
    return yield* Effect.acquireRelease(
      // Created inside the acquisition, so that every server that has started is drained.
      Effect.contextWith((context: Context.Context<HandlerEnvironment<R> | R2>) => {
        const core = new ServerCore(acceptors, behaviour, region, context)
        return Effect.as(core.start, core)
      }),
      (core) => withForce(core.forceNow, core.drain())
    )
  })

/**
 * Runs a handler for every connection of one or several addresses, each in a
 * fiber and a scope of its own, until the server is drained; completes with how
 * the connections ended.
 *
 * **Details**
 *
 * When the handler ends, the server ends its connection:
 *
 * - The handler succeeds, or fails because its connection ended (end of stream,
 *   reset, a failure of TLS, cancelled operations): the connection is closed, flushed
 *   and with FIN.
 * - A write was torn or cut inside its message: the connection is reset, so that
 *   the peer cannot take a part for the whole.
 * - Any other failure, and every defect: reported to `onError`, and the connection
 *   is reset (`onFailure`).
 *
 * Nothing that a handler does ends the server. Failures before the handler, in
 * `proxyProtocol` and `tls`, are reported to `onHandshakeFailure`.
 *
 * Strangers do not fill the log. What a peer did wrong on its own connection (a
 * message that it did not finish, plain HTTP where TLS is spoken) is one line a minute
 * and peer, at the level `Info`, which counts those that it stands for; the others are
 * logged for debugging. A peer is an IPv4 address or an IPv6 network of 64 bits, and
 * beyond 1,000 peers in a minute the rest is one peer.
 *
 * The service {@link Connection} and the second argument of the handler tell which
 * connection it serves. Logs of the handler carry `connection` and `peer` as
 * annotations.
 *
 * If the system refuses to accept (`TooManyOpenFiles`), the failure is counted, the
 * first of a row is logged, and the address pauses for 50 milliseconds. With
 * `NodeTransport`, Node itself resets such a connection and reports nothing; a
 * limit of `connections` below the limit of descriptors rules it out.
 *
 * Fails as `Acceptor.listen` and `Tls.makeServerContext` do while it starts, and
 * never afterwards. A request of a signal around it (`Cancellation.withSignal`)
 * reaches the handlers, and starts a drain unless accepting is paused.
 *
 * **Interruption**: starts a drain with the deadline of `shutdown`, and proceeds
 * when the drain is over. Meanwhile a second `SIGINT` or `SIGTERM` ends the drain
 * at once, in programs that handle these signals (`NodeRuntime.runMain` does).
 *
 * **Example** (A server of a process)
 *
 * ```ts
 * const main = Server.serve(handler, {
 *   listen: ["0.0.0.0:7000", "[::]:7000"],
 *   ipv6Only: true,
 *   limits: { connections: 10_000, perPeer: 100, firstByte: "10 seconds", idle: "5 minutes" },
 *   shutdown: { deadline: "20 seconds" }
 * })
 *
 * main.pipe(Effect.provide(NodeTransport.layer), NodeRuntime.runMain({ teardown: Server.teardown }))
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const serve = <E, R, L extends Addresses, R2 = never>(
  handler: Handler<E, R>,
  options: Options<E, L, R2>
): Effect.Effect<DrainReport, SocketError, Environment<L, R, R2>> =>
  Effect.scoped(Effect.flatMap(make(handler, options), (server) => server.stopped))

/**
 * A server as a layer. When the layer is released, the server drains within the
 * deadline of `shutdown`. Fails as {@link serve} does.
 *
 * **Example** (A server beside others)
 *
 * ```ts
 * const Chat = Server.layer(handler, { listen: "0.0.0.0:7000" })
 *
 * Layer.launch(Layer.mergeAll(Chat, Admin)).pipe(
 *   Effect.provide(NodeTransport.layer),
 *   NodeRuntime.runMain({ teardown: Server.teardown })
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, R, L extends Addresses, R2 = never>(
  handler: Handler<E, R>,
  options: Options<E, L, R2>
): Layer.Layer<Server, SocketError, Environment<L, R, R2>> => Layer.effect(Server, make(handler, options))

/**
 * {@link layer} with options from the configuration. Fails with `ConfigError` if
 * they are missing or malformed, and otherwise as {@link serve} does.
 *
 * **Example** (Some of the options)
 *
 * ```ts
 * const Chat = Server.layerConfig(
 *   handler,
 *   Config.map(Server.config, (options) => ({ ...options, onError: report }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = <E, R, L extends Addresses, R2 = never>(
  handler: Handler<E, R>,
  options: Config.Config<Options<E, L, R2>>
): Layer.Layer<Server, SocketError | Config.ConfigError, Environment<L, R, R2>> =>
  Layer.effect(Server, Effect.flatMap(options, (options) => make(handler, options)))

/**
 * Options from the configuration, each under its own name, as in
 * `Connector.config`. Only `listen` is required.
 *
 * **Details**
 *
 * | name | value |
 * |---|---|
 * | `listen` | one or several `host:port` or `unix:/path`, with commas |
 * | `backlog` | a number |
 * | `ipv6Only`, `reusePort`, `noDelay` | `true` or `false` |
 * | `keepAlive` | `true`, `false` or a duration; or `keepAlive.idle`, `.interval` and `.count` |
 * | `userTimeout`, `linger` | durations, such as `5 minutes` |
 * | `sendBuffer`, `receiveBuffer`, `sliceSize` | bytes, as a number or with a unit: `256KiB` |
 * | `limits.connections`, `limits.perPeer` | numbers |
 * | `limits.acceptRate` | connections a second |
 * | `limits.bytesInFlight` | bytes |
 * | `limits.handshake`, `limits.firstByte`, `limits.idle` | durations |
 * | `limits.progress` | bytes a second |
 * | `proxyProtocol.trusted` | what `ProxyProtocol.trustPeers` takes, with commas, or `anyone`; without it there is no PROXY protocol |
 * | `proxyProtocol.required`, `proxyProtocol.untrusted` | as in `ProxyProtocol.OptionalOptions`; need `trusted` |
 * | `shutdown.deadline` | a duration |
 *
 * In the environment the names are those of `ConfigProvider.constantCase`
 * (`LIMITS_PER_PEER`), behind those of `Config.nested`. A malformed value, or one out
 * of range, is a `ConfigError`.
 *
 * **Example** (From the environment: `CHAT_LISTEN`, `CHAT_LIMITS_IDLE`, ...)
 *
 * ```ts
 * const Chat = Server.layerConfig(handler, Config.nested(Server.config, "chat")).pipe(
 *   Layer.provide(ConfigProvider.layer(ConfigProvider.constantCase(ConfigProvider.fromEnv())))
 * )
 * ```
 *
 * @category configuration
 * @since 0.1.0
 */
export const config: Config.Config<Options> = Config.all({
  listen: Config.map(
    Config.schema(Schema.String.check(Schema.isPattern(/[^\s,]/)), "listen"),
    (text): Arr.NonEmptyReadonlyArray<Target> => {
      const [first = text, ...others] = listOf(text)
      return [addressOf(first), ...others.map(addressOf)]
    }
  ),
  backlog: maybe(positiveInt("backlog")),
  ipv6Only: maybe(Config.Boolean("ipv6Only")),
  reusePort: maybe(Config.Boolean("reusePort")),
  ...socketOptions,
  limits: Config.nested(
    Config.all({
      connections: maybe(positiveInt("connections")),
      perPeer: maybe(positiveInt("perPeer")),
      acceptRate: maybe(Config.map(positiveInt("acceptRate"), (limit) => ({ limit, window: Duration.seconds(1) }))),
      bytesInFlight: maybe(size("bytesInFlight")),
      handshake: maybe(time("handshake")),
      firstByte: maybe(time("firstByte")),
      idle: maybe(time("idle")),
      progress: maybe(Config.map(size("progress"), (bytes) => ({ bytes, per: Duration.seconds(1) })))
    }),
    "limits"
  ),
  proxyProtocol: proxyProtocolConfig(),
  shutdown: Config.nested(Config.all({ deadline: maybe(Config.Duration("deadline")) }), "shutdown")
})

/**
 * The teardown of a process that a signal is meant to end, for
 * `NodeRuntime.runMain`: the process exits with 0 instead of 130 if its only failure
 * is the interruption. Other failures exit as usual.
 *
 * @category running
 * @since 0.1.0
 */
export const teardown: Runtime.Teardown = (exit, onExit) => {
  if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) onExit(0)
  else Runtime.defaultTeardown(exit, onExit)
}

// ---- internal

const isList = (listen: Addresses): listen is Arr.NonEmptyReadonlyArray<Target> => Array.isArray(listen)

const resolveServerOptions = <E, R, L extends Addresses, R2>(
  handler: Handler<E, R>,
  options: Options<E, L, R2>,
  tls: HandshakeStep | undefined
): Effect.Effect<ResolvedServerOptions<HandlerEnvironment<R> | R2>> =>
  Effect.sync(() => {
    const resolved = limits.resolve(options.limits)
    const mistakes = new PeerMistakes()
    return {
      // `HandlerEnvironment<R>` with the services of the server is R; the compiler cannot see that of an open R.
      handler: handler as ResolvedServerOptions<HandlerEnvironment<R>>["handler"],
      // Its causes come from this handler. Of the handshake steps it receives only defects.
      onError: options.onError as ResolvedServerOptions<R2>["onError"],
      onHandshakeFailure: options.onHandshakeFailure ?? logHandshakeFailure(mistakes),
      mistakes,
      onLimit: options.onLimit ?? logLimit,
      onFailure: options.onFailure ?? "abort",
      handshakeSteps: [
        ...options.proxyProtocol === undefined ? [] : [proxyStep(options.proxyProtocol)],
        ...tls === undefined ? [] : [tls]
      ],
      limits: resolved,
      backlog: resolveOptions(options).backlog,
      tokens: resolved.acceptRate === undefined
        ? undefined
        : new TokenBucket(resolved.acceptRate.limit, Duration.toMillis(resolved.acceptRate.window)),
      shutdown: {
        deadline: Duration.max(Duration.fromInputUnsafe(options.shutdown?.deadline ?? "10 seconds"), Duration.zero),
        phases: resolvePhases(options.shutdown?.phases)
      }
    }
  })

// Any stranger can cause these, and must not be able to fill the log.
const logHandshakeFailure = (mistakes: PeerMistakes) =>
(
  cause: Cause.Cause<SocketError | Cause.Done>,
  connection: Connection
): Effect.Effect<void> => {
  const [why] = cause.reasons.filter(Cause.isFailReason).map(({ error }) => error)
  const { remoteAddress } = connection
  const message = `failed before its handler: ${isSocketError(why) ? why.message : "it ended"}`
  if (isSocketError(why)) {
    if (isWrongHandshake(why) && !isFailureOfLookup(why)) return mistakes.tell(remoteAddress, message)
    // No fault of the peer.
    if (isFailureOfLookup(why)) {
      return Effect.logError(`the connection from ${formatAddress(remoteAddress)} ${message}`, why.cause)
    }
  }
  return Effect.logDebug(`the connection from ${formatAddress(remoteAddress)} ${message}`)
}

const logLimit = (limit: Limit, connection: Connection): Effect.Effect<void> =>
  Effect.logDebug(`the connection from ${formatAddress(connection.remoteAddress)} ended: ${describeLimit(limit)}`)

const proxyStep = (options: ProxyProtocol.OptionalOptions): HandshakeStep => (accepted) =>
  Effect.map(ProxyProtocol.receiveOption(accepted.socket, options), (header) => {
    const { destination, source } = ProxyProtocol.endpointsOf(accepted, header)
    return { socket: accepted.socket, remoteAddress: source, localAddress: destination }
  })

const tlsStep = (options: Tls.ServerOptions | Tls.ServerContext): Effect.Effect<HandshakeStep, SocketError> => {
  // Ciphertext may have arrived together with the PROXY header; plaintext was never read.
  const own = { unread: "handshake", deadline: Duration.infinity } as const
  // Prepared when the server starts, because a key that cannot be used is no fault of a client.
  const prepared = "reload" in options ? Effect.succeed(options) : Tls.makeServerContext(options)
  return Effect.map(prepared, (context) => (accepted) =>
    Effect.map(
      // The runner ends every connection itself, and closing the TLS socket closes the one below it.
      Effect.provideService(secureServer(accepted.socket, context, own), Scope.Scope, Scope.makeUnsafe()),
      (socket) => ({ socket, remoteAddress: accepted.remoteAddress, localAddress: accepted.localAddress })
    ))
}

const signals = ["SIGINT", "SIGTERM"] as const

/** While `effect` runs, SIGINT and SIGTERM run `force`; only where the process handles these signals already. */
const withForce = <A>(force: Effect.Effect<void>, effect: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.suspend(() => {
    const onSignal = () => Effect.runFork(force)
    const handled = signals.filter((signal) => process.listenerCount(signal) > 0)
    for (const signal of handled) process.on(signal, onSignal)
    return Effect.ensuring(
      effect,
      Effect.sync(() => {
        for (const signal of handled) process.off(signal, onSignal)
      })
    )
  })

// Function declarations, because `config` calls them while this module is loaded.
function listOf(text: string): ReadonlyArray<string> {
  return text.split(",").map((part) => part.trim()).filter((part) => part !== "")
}

function addressOf(text: string): Target {
  return text.startsWith("unix:") ? NetAddress.unixPathAddress(text.replace(/^unix:(\/\/)?/, "")) : text
}

function proxyProtocolConfig(): Config.Config<ProxyProtocol.OptionalOptions | undefined> {
  const trusted = Config.map(
    Config.schema(Schema.String.check(Schema.makeFilter((text) => complaintAbout(text))), "trusted"),
    trustOf
  )
  const others = Config.all({
    required: maybe(Config.Boolean("required")),
    untrusted: maybe(Config.schema(Schema.Literals(["refuse", "plain"]), "untrusted"))
  })
  return Config.nested(
    Config.flatMap(others, (others): Config.Config<ProxyProtocol.OptionalOptions | undefined> => {
      const all = Config.map(trusted, (trusted) => ({ trusted, ...others }))
      // With `required` or `untrusted` set, a missing `trusted` is an error: the server would trust no header at all.
      return others.required === undefined && others.untrusted === undefined ? maybe(all) : all
    }),
    "proxyProtocol"
  )
}

function trustOf(text: string): ProxyProtocol.Trust {
  return text.trim() === "anyone" ? ProxyProtocol.trustAnyone : ProxyProtocol.trustPeers(listOf(text))
}

function complaintAbout(trusted: string): string | undefined {
  try {
    trustOf(trusted)
    return undefined
  } catch (cause) {
    return String(cause)
  }
}

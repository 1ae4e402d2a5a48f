/**
 * A server: one handler for every connection of one or several addresses, with
 * limits on what peers can do to it, and an end in which no message is lost
 * without a word.
 *
 * `Acceptor.serve` is the loop alone. This is what a process in production needs
 * around it.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import process from "node:process"
import * as Acceptor from "./Acceptor.ts"
import { maybe, positiveInt, size, socketOptions, time } from "./internal/base/config.ts"
import { formatAddress } from "./internal/base/format.ts"
import { CurrentCancellationScope } from "./internal/cancellation/scope.ts"
import type { Preparation } from "./internal/server/ConnectionRunner.ts"
import { resolvePhases } from "./internal/server/Drain.ts"
import * as limits from "./internal/server/limits.ts"
import * as model from "./internal/server/model.ts"
import { type Behaviour, ServerCore } from "./internal/server/ServerCore.ts"
import { secureServer } from "./internal/tls/server.ts"
import * as ProxyProtocol from "./ProxyProtocol.ts"
import { isSocketError, type SocketError } from "./SocketError.ts"
import type { StreamSocket } from "./StreamSocket.ts"
import * as Tls from "./Tls.ts"
import { type ListenOptions, resolveOptions, type Transport } from "./Transport.ts"

// ---- models

/**
 * A running server.
 *
 * @category models
 * @since 0.1.0
 */
export type Server = model.Server

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
 * **Example** (Ending between two requests)
 *
 * ```ts
 * const handler = (socket: StreamSocket.StreamSocket, connection: Server.Connection) =>
 *   Effect.gen(function*() {
 *     while (!connection.isDraining) {
 *       const request = yield* Effect.raceFirst(
 *         Effect.asSome(Framing.receive(socket, framing)),
 *         Effect.as(connection.draining, Option.none())
 *       )
 *       if (Option.isNone(request)) return
 *       yield* Framing.send(socket, framing, yield* answer(request.value))
 *     }
 *   })
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export type Connection = model.Connection

/**
 * The service that a handler has, and everything that it calls: who is served.
 *
 * @category services
 * @since 0.1.0
 */
export const Connection: Context.Service<Connection, Connection> = model.Connection

/**
 * Serves one connection. It ends with its handler, see {@link serve}.
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
 * - `paused`: at least one of them does not, because of a limit or because
 *   accepting failed a moment ago.
 * - `draining`, `stopped`: see `drain`.
 *
 * @category models
 * @since 0.1.0
 */
export type State = model.State

/**
 * How the connections ended that were there when a drain began: `finished` by
 * themselves, by a request, or `aborted` at the deadline. A connection has ended
 * when its descriptor is released.
 *
 * @category models
 * @since 0.1.0
 */
export type DrainReport = model.DrainReport

/**
 * How a server is, and what it did since it started.
 *
 * @category models
 * @since 0.1.0
 */
export type Health = model.Health

/**
 * Which limit a connection has met, with what was set.
 *
 * @category models
 * @since 0.1.0
 */
export type Limit = limits.Limit

/**
 * Constructors and guards of every limit: `Limit.$is("Idle")`, `Limit.$match`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const Limit: typeof limits.Limit = limits.Limit

/**
 * Says in a few words which limit was met.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describeLimit: (limit: Limit) => string = limits.describe

// ---- options

/**
 * Where to listen: an address, or a host and port, of which the first address
 * is taken.
 *
 * @category options
 * @since 0.1.0
 */
export type Listen = NetAddress.SocketAddress | Host.HostPortInput

/**
 * Bytes to send before a connection is closed because of a limit; after
 * `within` (default one second) for the bytes and the close together, it is
 * reset. Where this happens to 128 connections at once, further ones are reset.
 *
 * @category options
 * @since 0.1.0
 */
export type RejectMessage = limits.RejectMessage

/**
 * What a limit does to a connection that meets it: resets it, closes it, or
 * closes it with a few bytes.
 *
 * @category options
 * @since 0.1.0
 */
export type LimitAction = limits.LimitAction

/**
 * What peers may do. No limit is set by default, but for `handshake`.
 *
 * **Details**
 *
 * The first four concern connections that come. Their `answer` is to reset the
 * connection, to refuse it with bytes, or to `"wait"`: not to take it, which leaves
 * it to the backlog of the listener, and to the kernel when that is full. A
 * transport may hold a descriptor for each connection of the backlog
 * (`NodeTransport` does).
 *
 * The others concern connections that are there. When one is met, the handler is
 * interrupted and the connection ended by the `answer`, or reset where that has
 * cut a message inside; a handler that does not end within a second is left without
 * its connection. They are looked after for
 * all connections together, in intervals of an eighth of the shortest time (10
 * milliseconds to 1 second). So a limit is never met early, and late by two such
 * intervals at most.
 *
 * @category options
 * @since 0.1.0
 */
export type Limits = limits.Limits

/**
 * How `drain` divides its time: the parts in relation to each other, by default
 * 6, 2, 1 and 1. A part of 0 is left out.
 *
 * @category options
 * @since 0.1.0
 */
export type DrainPhases = model.DrainPhases

/**
 * One place to listen, or several.
 *
 * @category options
 * @since 0.1.0
 */
export type Addresses = Listen | Arr.NonEmptyReadonlyArray<Listen>

/**
 * Options of a server. Those of `ListenOptions` hold for every address.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<E = unknown, L extends Addresses = Addresses, R = never> extends ListenOptions {
  /** One address or several. */
  readonly listen: L
  readonly limits?: Limits | undefined
  /**
   * Every connection begins with a PROXY header; see `ProxyProtocol.receiveOption`.
   * One without is not served: it is reset, and goes to `onHandshakeFailure`.
   */
  readonly proxyProtocol?: ProxyProtocol.OptionalOptions | undefined
  /**
   * Every connection speaks TLS, behind its PROXY header if there is one; the
   * handler's socket is a `Tls.TlsSocket`. A context (`Tls.makeServerContext`) can
   * be reloaded. Without a `deadline` of its own, the handshake has the time of
   * `limits.handshake`. One that fails goes to `onHandshakeFailure`; options that
   * cannot be used fail the start of the server.
   */
  readonly tls?: Tls.ServerOptions | Tls.ServerContext | undefined
  /**
   * What becomes of a handler's failure that is not the end of a connection, once
   * the connection is closed. By default it is logged as an error. May not fail; a
   * defect of it is logged.
   *
   * Of what comes before the handler it hears only defects, such as that of a
   * `trusted` of the program's own.
   */
  readonly onError?:
    | ((
      cause: Cause.Cause<E>,
      connection: Connection
    ) => Effect.Effect<unknown, never, R>)
    | undefined
  /**
   * Hears of every connection that failed before it came to a handler, once it is
   * closed: an untrusted peer, a malformed PROXY header, a failed TLS handshake, or
   * a peer that went away in the middle of these. On the internet this is daily
   * noise, which anybody can cause. By default it is logged for debugging; as an
   * error, where the program's own `identityFor` (`Tls.ServerOptions`) has failed.
   * See `Health.handshakeFailures`.
   */
  readonly onHandshakeFailure?:
    | ((
      cause: Cause.Cause<SocketError | Cause.Done>,
      connection: Connection
    ) => Effect.Effect<unknown, never, R>)
    | undefined
  /** Hears of every connection that a limit refused or ended, once it is closed. By default it is logged (debug). */
  readonly onLimit?:
    | ((limit: Limit, connection: Connection) => Effect.Effect<unknown, never, R>)
    | undefined
  /** How the connection of a handler that failed is ended. Default `"abort"`, which resets it. */
  readonly onFailure?: "abort" | "close" | undefined
  /** The drain that an interruption or the end of the scope begins: its deadline (default 10 seconds) and its ladder. */
  readonly shutdown?: {
    readonly deadline?: Duration.Input | undefined
    readonly phases?: DrainPhases | undefined
  } | undefined
}

/**
 * What a server asks of its environment: an address alone needs no resolver.
 *
 * @category models
 * @since 0.1.0
 */
export type Environment<L extends Addresses, R, R2> =
  | Transport
  | ([L] extends [NetAddress.SocketAddress | ReadonlyArray<NetAddress.SocketAddress>] ? never
    : AddressResolver.AddressResolver)
  | Served<R>
  | R2

/**
 * What a handler of a server asks of the environment: a scope and the connection
 * it has from the server.
 *
 * @category models
 * @since 0.1.0
 */
export type Served<R> = Exclude<Exclude<R, Connection>, Scope.Scope>

// ---- constructors

/**
 * Starts a server that ends with the scope: the end of the scope drains it
 * within the deadline of `shutdown`. Everything else is as for {@link serve}.
 *
 * **Interruption**: while it starts, the addresses are released.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <E, R, L extends Addresses, R2 = never>(
  handler: Handler<E, R>,
  options: Options<E, L, R2>
): Effect.Effect<Server, SocketError, Scope.Scope | Environment<L, R, R2>> =>
  Effect.gen(function*() {
    const tls = options.tls === undefined ? undefined : yield* secured(options.tls)
    const behaviour = yield* behaviourOf(handler, options, tls)
    const places: Addresses = options.listen
    const [first, ...others] = isList(places) ? places : [places]
    // Addresses alone ask for no resolver.
    const listen = Acceptor.listen as (
      address: Listen,
      options: ListenOptions
    ) => Effect.Effect<Acceptor.Acceptor, SocketError, Environment<L, never, never> | Scope.Scope>
    const acceptors = [
      yield* listen(first, options),
      ...yield* Effect.forEach(others, (address) => listen(address, options))
    ] as const
    const region = yield* CurrentCancellationScope
    return yield* Effect.acquireRelease(
      // Made in here, so that every server that has begun ends.
      Effect.contextWith((context: Context.Context<Served<R> | R2>) => {
        const core = new ServerCore(acceptors, behaviour, region, context)
        return Effect.as(core.start, core)
      }),
      (core) => withForce(core.forceNow, core.drain())
    )
  })

/**
 * Runs a handler for every connection of one or several addresses, each in a
 * fiber and a scope of its own, until somebody drains the server; succeeds then
 * with how the connections ended.
 *
 * **Details**
 *
 * The end of the handler is the end of its connection. When it succeeds, the
 * connection is closed, flushed and with FIN. At end of stream, at a reset, and
 * when its operations were cancelled, it ends quietly, and so does its
 * connection; one that was torn or cut inside a message is reset. Any other
 * failure, and every defect, goes to `onError`, and the connection is reset
 * (`onFailure`). Nothing that a handler does ends the server. What fails before
 * the handler, in `proxyProtocol` and `tls`, goes to `onHandshakeFailure`.
 *
 * The service {@link Connection} and the second argument say who is served.
 * Logs of the handler carry `connection` and `peer` as annotations.
 *
 * A connection that could not be taken (`TooManyOpenFiles`) is counted, the first
 * of a row is logged, and its address pauses for 50 milliseconds. With
 * `NodeTransport`, Node itself resets such a connection, without telling anybody;
 * a limit of `connections` below that of descriptors rules it out.
 *
 * Fails as `Acceptor.listen` and `Tls.makeServerContext` do, and not after that. A request of a signal around it
 * (`Cancellation.withSignal`) reaches the handlers, and begins a drain unless
 * accepting is paused.
 *
 * **Interruption**: begins a drain, with the deadline of `shutdown`, and proceeds
 * when it is over. While it waits, another `SIGINT` or `SIGTERM` ends the drain at
 * once, in programs that handle these (`NodeRuntime.runMain` does).
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
 * A server as a layer, which ends it within the deadline of `shutdown`.
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
 * {@link layer} with options that come from the configuration.
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
 * Options from the configuration, each by its own name, as `Connector.config` reads
 * its own. Only `listen` has to be there.
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
 * (`LIMITS_PER_PEER`), behind those of `Config.nested`. What is no such value, or
 * out of range, is a `ConfigError`.
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
    (text): Arr.NonEmptyReadonlyArray<Listen> => {
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
 * The teardown of a process that is meant to be ended by a signal, for
 * `NodeRuntime.runMain`: an interruption that left nothing but itself exits with 0
 * instead of 130. Failures exit as they always do.
 *
 * @category running
 * @since 0.1.0
 */
export const teardown: Runtime.Teardown = (exit, onExit) => {
  if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) onExit(0)
  else Runtime.defaultTeardown(exit, onExit)
}

// ---- internal

const isList = (listen: Addresses): listen is Arr.NonEmptyReadonlyArray<Listen> => Array.isArray(listen)

const behaviourOf = <E, R, L extends Addresses, R2>(
  handler: Handler<E, R>,
  options: Options<E, L, R2>,
  tls: Preparation | undefined
): Effect.Effect<Behaviour<Served<R> | R2>> =>
  Effect.gen(function*() {
    const resolved = limits.resolve(options.limits)
    return {
      // For every R these are the same services, which the compiler cannot see of one that is open.
      handler: handler as Behaviour<Served<R>>["handler"],
      // Its causes come from this handler. Of the preparations it hears only defects.
      onError: (options.onError ?? logError) as Behaviour<R2>["onError"],
      onHandshakeFailure: options.onHandshakeFailure ?? logHandshakeFailure,
      onLimit: options.onLimit ?? logLimit,
      onFailure: options.onFailure ?? "abort",
      preparations: [
        ...options.proxyProtocol === undefined ? [] : [proxied(options.proxyProtocol)],
        ...tls === undefined ? [] : [tls]
      ],
      limits: resolved,
      backlog: resolveOptions(options).backlog,
      limiter: resolved.acceptRate === undefined
        ? undefined
        : yield* Effect.provide(RateLimiter.make, RateLimiter.layerStoreMemory),
      shutdown: {
        deadline: Duration.max(Duration.fromInputUnsafe(options.shutdown?.deadline ?? "10 seconds"), Duration.zero),
        phases: resolvePhases(options.shutdown?.phases)
      }
    }
  })

const logError = (cause: Cause.Cause<unknown>, connection: Connection): Effect.Effect<void> =>
  Effect.logError(`the connection from ${formatAddress(connection.remoteAddress)} failed`, cause)

// Strangers must not be able to fill the log.
const logHandshakeFailure = (
  cause: Cause.Cause<SocketError | Cause.Done>,
  connection: Connection
): Effect.Effect<void> => {
  const [why] = cause.reasons.filter(Cause.isFailReason).map(({ error }) => error)
  const message = `the connection from ${formatAddress(connection.remoteAddress)} came to no handler: ${
    why === undefined || Cause.isDone(why) ? "it ended before" : why.message
  }`
  // The program's own look-up of an identity has failed, which is nothing that the peer did.
  return isSocketError(why) && Cause.isCause(why.cause)
    ? Effect.logError(message, why.cause)
    : Effect.logDebug(message)
}

const logLimit = (limit: Limit, connection: Connection): Effect.Effect<void> =>
  Effect.logDebug(`the connection from ${formatAddress(connection.remoteAddress)} ended: ${describeLimit(limit)}`)

const proxied = (options: ProxyProtocol.OptionalOptions): Preparation => (accepted) =>
  Effect.map(ProxyProtocol.receiveOption(accepted.socket, options), (header) => {
    const { destination, source } = ProxyProtocol.endpointsOf(accepted, header)
    return { socket: accepted.socket, remoteAddress: source, localAddress: destination }
  })

const secured = (options: Tls.ServerOptions | Tls.ServerContext): Effect.Effect<Preparation, SocketError> => {
  // Ciphertext may have come with a PROXY header, and plaintext was never read.
  const own = { unread: "handshake", deadline: Duration.infinity } as const
  // At once: a key that cannot be used is not the fault of those who connect.
  const prepared = "reload" in options ? Effect.succeed(options) : Tls.makeServerContext(options)
  return Effect.map(prepared, (context) => (accepted) =>
    Effect.map(
      // The server ends every connection itself, and ending the one below ends this one.
      Effect.provideService(secureServer(accepted.socket, context, own), Scope.Scope, Scope.makeUnsafe()),
      (socket) => ({ socket, remoteAddress: accepted.remoteAddress, localAddress: accepted.localAddress })
    ))
}

const signals = ["SIGINT", "SIGTERM"] as const

/** While an effect runs, a signal of the process forces it. A process that does not handle signals ends by them. */
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

// Functions and not constants: `config` uses them as this file is loaded.
function listOf(text: string): ReadonlyArray<string> {
  return text.split(",").map((part) => part.trim()).filter((part) => part !== "")
}

function addressOf(text: string): Listen {
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
      // Who sets one of these and forgets whom to trust must not be left without any protection.
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

/**
 * Connections by name: looks it up, lets its addresses race, and hands over the
 * first one that answers.
 *
 * `StreamSocket.connect` does the same with default options. This module has the
 * options, reads them from `Config`, and makes a service of it, so that a program
 * can be given another way to connect.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { maybe, positiveInt, socketOptions } from "./internal/base/config.ts"
import { open } from "./internal/connect/open.ts"
import { nameOf } from "./internal/connect/resolveHost.ts"
import { secureClient } from "./internal/tls/client.ts"
import { defaultDeadline } from "./internal/tls/options.ts"
import { isSocketError, type Reason, type SocketError } from "./SocketError.ts"
import type { StreamSocket } from "./StreamSocket.ts"
import type * as Tls from "./Tls.ts"
import { type ConnectOptions, type ResolverFor, type Target, Transport } from "./Transport.ts"

/**
 * Options of a connection, and of the way to it.
 *
 * **Details**
 *
 * The times are independent of each other, and whichever is over first counts.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends ConnectOptions {
  /**
   * How long an attempt has for itself before the next one joins in. Default 250
   * milliseconds, at least 10. `"Infinity"` tries one address after the other.
   */
  readonly attemptDelay?: Duration.Input | undefined
  /** How long one attempt may take. Default: as long as the system tries, some two minutes. */
  readonly attemptTimeout?: Duration.Input | undefined
  /** How long all of it may take, with the look-up. Default: no limit. */
  readonly timeout?: Duration.Input | undefined
  /** How long the look-up of a name may take. Default 30 seconds. */
  readonly lookupTimeout?: Duration.Input | undefined
  /** How many addresses of the first family are tried before the other one has its turn. Default 1. */
  readonly firstFamilyCount?: number | undefined
  /** The most addresses of a name that are tried; the others are left out. Default 16. */
  readonly maxAddresses?: number | undefined
  /**
   * Speak TLS with the peer. Default: do not. `servername` is the name that the certificate of the server has to have; by
   * default it is the host of the target, and a Unix-domain path has none. What is prepared for these options is kept
   * with the object, so use one object for many connections.
   */
  readonly tls?:
    | Omit<Tls.ClientOptions, "servername"> & { readonly servername?: string | undefined }
    | undefined
}

/**
 * Connects to a target and closes the stream with the scope. With `tls`, the
 * stream is a `TlsSocket`.
 *
 * **Details**
 *
 * Names are looked up with `AddressResolver`; fibers that look up the same host
 * and port of the same resolver at the same time share one look-up, which is
 * interrupted when none of them waits any more. Its addresses race as in Happy
 * Eyeballs version 2 (RFC 8305):
 *
 * - The order is the resolver's (the system's, RFC 6724, over `NodeTransport`),
 *   with the families taking turns: the family of the first address begins. No
 *   family is preferred beyond that.
 * - A new attempt starts `attemptDelay` after the one before, and at once when an
 *   attempt has failed. Earlier ones go on.
 * - The first to connect wins. All others are released before `connect` ends.
 *
 * With a `localAddress`, only addresses of its family are tried.
 *
 * Fails with
 *
 * - `NameResolution`: the target is malformed, or its name has no addresses, or
 *   no answer came within `lookupTimeout`;
 * - `ConnectFailed`: the name has several addresses, and all attempts have failed,
 *   or were cut by `timeout`; each is listed with its address, reason and times;
 * - the reason of the attempt (`ConnectionRefused`, `TimedOut`, ...), where there
 *   was only one address;
 * - `Unsupported`: an option that the transport cannot honour.
 *
 * The handshake of `tls` comes behind all of that, over the connection that has
 * won, and counts for `timeout`. It fails as `Tls.client` does.
 *
 * It tries once. {@link isTransient} says which failures are worth another try.
 *
 * **Gotchas**
 *
 * `node:dns` cannot cancel a look-up: over `NodeTransport` an interrupted one
 * keeps a thread of Node's pool busy until the system gives up. Nobody waits
 * for it.
 *
 * **Interruption**: *total*, at any moment; during the handshake of `tls`
 * *terminal*. The attempts release their descriptors.
 *
 * **Example** (A web server)
 *
 * ```ts
 * const socket = yield* Connector.connect("example.com:443", { timeout: "5 seconds", tls: { alpn: ["http/1.1"] } })
 * yield* Console.log(socket.tls.protocol, socket.tls.alpn)
 * ```
 *
 * **Example** (With time-outs and liveness)
 *
 * ```ts
 * const socket = yield* Connector.connect("db.internal:5432", {
 *   timeout: "10 seconds",
 *   attemptTimeout: "3 seconds",
 *   keepAlive: { idle: "30 seconds", interval: "10 seconds", count: 3 }
 * })
 * ```
 *
 * **Example** (Trying again, ever more rarely)
 *
 * ```ts
 * const schedule = Schedule.jittered(Schedule.exponential("100 millis"))
 *
 * const socket = yield* Effect.retry(Connector.connect("db.internal:5432", { timeout: "5 seconds" }), {
 *   while: Connector.isTransient,
 *   schedule,
 *   times: 5
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect: {
  <T extends Target>(
    target: T,
    options: Options & { readonly tls: NonNullable<Options["tls"]> }
  ): Effect.Effect<Tls.TlsSocket, SocketError, Transport | ResolverFor<T> | Scope.Scope>
  <T extends Target>(
    target: T,
    options?: Options
  ): Effect.Effect<StreamSocket, SocketError, Transport | ResolverFor<T> | Scope.Scope>
} = <T extends Target>(
  target: T,
  options?: Options
): Effect.Effect<Tls.TlsSocket, SocketError, Transport | ResolverFor<T> | Scope.Scope> =>
  // Without `tls` it is a plain stream, and the second signature says so.
  (options?.tls === undefined
    ? open(target, options, options)
    : openSecure(target, options, options.tls)) as ReturnType<typeof openSecure<T>>

/**
 * Connecting as a service: a program that asks for it leaves transport, resolver
 * and default options to whoever provides it.
 *
 * **Example** (A client of nothing in particular)
 *
 * ```ts
 * const client = Effect.gen(function*() {
 *   const connector = yield* Connector.Connector
 *   const socket = yield* connector.connect("db.internal:5432")
 *   // ...
 * })
 *
 * const main = client.pipe(
 *   Effect.provide(Connector.layer({ timeout: "10 seconds" })),
 *   Effect.provide(NodeTransport.layer)
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Connector extends Context.Service<Connector, {
  /**
   * As the function `Connector.connect`. Options of the call take the place of
   * the service's, one by one. `Tls.isTlsSocket` tells a stream over TLS.
   *
   * **Interruption**: *total*, at any moment; during the handshake of `tls`
   * *terminal*. The attempts release their descriptors.
   */
  readonly connect: (target: Target, options?: Options) => Effect.Effect<StreamSocket, SocketError, Scope.Scope>
}>()("effect-asio/Connector") {}

/**
 * The service over a transport and a resolver, with options for every
 * connection.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<Connector, never, Transport | AddressResolver.AddressResolver> => Layer.effect(Connector, make(options))

/**
 * {@link layer} with options that are read when it is built; by default all of
 * {@link config}.
 *
 * **Example** (From the environment: `DB_TIMEOUT`, `DB_KEEP_ALIVE_IDLE`, ...)
 *
 * ```ts
 * const connector = Connector.layerConfig(Config.nested(Connector.config, "db")).pipe(
 *   Layer.provide(ConfigProvider.layer(ConfigProvider.constantCase(ConfigProvider.fromEnv())))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options> = config
): Layer.Layer<Connector, Config.ConfigError, Transport | AddressResolver.AddressResolver> =>
  Layer.effect(Connector, Effect.flatMap(Config.unwrap(options), make))

/**
 * Every option but `tls`, by its own name, all of them optional.
 *
 * **Details**
 *
 * | name | value |
 * |---|---|
 * | `attemptDelay`, `attemptTimeout`, `timeout`, `lookupTimeout` | durations, such as `10 seconds` |
 * | `firstFamilyCount`, `maxAddresses` | numbers |
 * | `localAddress` | `address:port` |
 * | `noDelay` | `true` or `false` |
 * | `keepAlive` | `true`, `false` or a duration; or `keepAlive.idle`, `.interval` and `.count` |
 * | `userTimeout`, `linger` | durations |
 * | `sendBuffer`, `receiveBuffer`, `sliceSize` | bytes, as a number or with a unit: `256KiB` |
 *
 * In the environment the names are those of `ConfigProvider.constantCase`
 * (`KEEP_ALIVE_IDLE`), behind those of `Config.nested`; see {@link layerConfig}.
 * What is no such value, or out of range, is a `ConfigError`.
 *
 * @category configuration
 * @since 0.1.0
 */
export const config: Config.Config<Options> = Config.all({
  attemptDelay: maybe(Config.Duration("attemptDelay")),
  attemptTimeout: maybe(Config.Duration("attemptTimeout")),
  timeout: maybe(Config.Duration("timeout")),
  lookupTimeout: maybe(Config.Duration("lookupTimeout")),
  firstFamilyCount: maybe(positiveInt("firstFamilyCount")),
  maxAddresses: maybe(positiveInt("maxAddresses")),
  localAddress: maybe(Config.schema(Schema.InetAddressFromString, "localAddress")),
  ...socketOptions
})

/**
 * Whether another try may well succeed: for `Effect.retry` and its like.
 *
 * **Details**
 *
 * - Yes for what passes: nobody listens (yet), no answer, no route, a reset, too
 *   few descriptors, buffers or ports, and a resolver that did not answer.
 * - No for what stays: a malformed target, a name that does not exist, no
 *   permission, an option that is Unsupported, a request that cancelled it, a
 *   stream that is `Busy` with an operation of this program.
 * - `ConnectFailed` is transient when one of its attempts is, or when addresses
 *   were left untried.
 * - For anything that is no `SocketError`: no.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTransient = (error: unknown): boolean =>
  isSocketError(error) &&
  (error.reason._tag === "NameResolution" ? isPassingLookup(error.cause) : isPassing(error.reason))

// ---- internal

const make = (
  options: Options | undefined
): Effect.Effect<Connector["Service"], never, Transport | AddressResolver.AddressResolver> =>
  Effect.contextWith((context: Context.Context<Transport | AddressResolver.AddressResolver>) => {
    const services = Context.pick(Transport, AddressResolver.AddressResolver)(context)
    return Effect.succeed({
      connect: (target: Target, own?: Options) =>
        Effect.provideContext(connect(target, { ...options, ...definedOf(own) }), services)
    })
  })

const openSecure = <T extends Target>(
  target: T,
  options: Options,
  tls: NonNullable<Options["tls"]>
): Effect.Effect<Tls.TlsSocket, SocketError, Transport | ResolverFor<T> | Scope.Scope> =>
  Clock.clockWith((clock) => {
    const { timeout = Duration.infinity } = options
    const name = nameOf(target)
    const servername = tls.servername ?? (name === undefined ? "" : hostOf(name))
    if (servername === undefined) {
      throw new TypeError("Connector.connect: tls.servername is missing; a Unix-domain path has no name of its own")
    }
    const startedAt = clock.monotonicTimeNanosUnsafe()
    return Effect.flatMap(open(target, options, options), (socket) => {
      const left = Duration.subtract(
        Duration.fromInputUnsafe(timeout),
        Duration.nanos(clock.monotonicTimeNanosUnsafe() - startedAt)
      )
      return secureClient(socket, tls, {
        servername,
        deadline: Duration.min(left, Duration.fromInputUnsafe(tls.deadline ?? defaultDeadline))
      })
    })
  })

/** What a certificate calls it. */
const hostOf = (name: NetAddress.SocketAddress | Host.HostPort): string | undefined =>
  Host.isHostPort(name)
    ? NetAddress.isIpAddress(name.host) ? NetAddress.formatIp(name.host) : Host.formatHost(name.host)
    : NetAddress.isUnixPathAddress(name)
    ? undefined
    : NetAddress.formatIp(name.address)

/** Without what is only said to be undefined. */
const definedOf = (options: Options | undefined): Options =>
  Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== undefined))

const passing: ReadonlySet<Reason["_tag"]> = new Set<Reason["_tag"]>([
  "ConnectionRefused",
  "ConnectionReset",
  "ConnectionAborted",
  "TimedOut",
  "HostUnreachable",
  "NetworkUnreachable",
  "NetworkDown",
  "AddressInUse",
  "AddressNotAvailable",
  "TooManyOpenFiles",
  "NoBufferSpace"
])

const isPassing = (reason: Reason): boolean =>
  reason._tag === "ConnectFailed"
    ? reason.untried > 0 || reason.attempts.some((attempt) => isPassing(attempt.reason))
    : passing.has(reason._tag)

const isPassingLookup = (cause: unknown): boolean =>
  Cause.isTimeoutError(cause) || (cause instanceof Dns.DnsError && cause.isTemporary)

/**
 * Connects to a host by name: looks the name up, lets its addresses race, and
 * succeeds with the first connection.
 *
 * `StreamSocket.connect` does the same with default options. This module has the
 * options, reads them from `Config`, and has connecting as a service, so that a
 * program can be run with another way to connect.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { maybe, positiveInt, socketOptions } from "./internal/base/config.ts"
import { open } from "./internal/connect/open.ts"
import { openSecure } from "./internal/tls/connect.ts"
import { isSocketError, type Reason, type SocketError } from "./SocketError.ts"
import type { StreamSocket } from "./StreamSocket.ts"
import type * as Tls from "./Tls.ts"
import { type ConnectOptions, type ResolverFor, type Target, Transport } from "./Transport.ts"

/**
 * Options of a connection and of how it is made.
 *
 * **Details**
 *
 * The times are independent of each other. The one that is over first counts.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends ConnectOptions {
  /**
   * How long an attempt runs alone before the next one starts beside it. Default 250
   * milliseconds, at least 10. `"Infinity"` tries one address after the other.
   */
  readonly attemptDelay?: Duration.Input | undefined
  /** How long one attempt may take. Default: as long as the system tries, about two minutes. */
  readonly attemptTimeout?: Duration.Input | undefined
  /** How long `connect` may take as a whole, with the look-up and the handshake of `tls`. Default: no limit. */
  readonly timeout?: Duration.Input | undefined
  /** How long the look-up of a name may take. Default 30 seconds. */
  readonly lookupTimeout?: Duration.Input | undefined
  /** How many addresses of the first family are tried before the first address of the other family. Default 1. */
  readonly firstFamilyCount?: number | undefined
  /** How many addresses of a name are tried at most. Default 16. */
  readonly maxAddresses?: number | undefined
  /**
   * Speak TLS with the peer. Default: do not. These options are prepared once for each
   * object, so use one object for many connections.
   */
  readonly tls?:
    | Omit<Tls.ClientOptions, "servername"> & {
      /**
       * The name that the certificate of the server must have. Default: the host of the target. A Unix-domain path has no
       * host, and a missing name is a defect.
       */
      readonly servername?: string | undefined
    }
    | undefined
}

/**
 * Connects to a target and closes the stream with the scope. With `tls`, the
 * stream is a `TlsSocket`. An address alone needs no `AddressResolver`.
 *
 * **Details**
 *
 * A name is looked up with `AddressResolver`. Fibers that ask the same resolver for
 * the same host and port at the same time share one look-up, which is interrupted
 * when the last of them is interrupted. The addresses then race as in Happy Eyeballs
 * version 2 (RFC 8305):
 *
 * - Within a family the order is the resolver's (over `NodeTransport` the system's,
 *   RFC 6724). The families take turns, and the family of the first address begins.
 * - An attempt starts `attemptDelay` after the one before, or at once when an attempt
 *   has failed. Earlier attempts go on.
 * - The first attempt to connect wins. All others are released before `connect` ends.
 *
 * With a `localAddress`, only addresses of its family are tried.
 *
 * Fails with
 *
 * - `NameResolution`: the target is malformed, its name has no addresses, or no
 *   answer has come within `lookupTimeout`;
 * - `ConnectFailed`: the name has several addresses, and each attempt has failed or
 *   was ended by `timeout`. The reason lists the address, the reason and the times of
 *   each attempt;
 * - the reason of the attempt (`ConnectionRefused`, `TimedOut`, ...), if there was
 *   only one address;
 * - `Unsupported`: an option that the transport cannot honour.
 *
 * The handshake of `tls` follows, over the connection that has won. It counts for
 * `timeout`, and fails as `Tls.client` does.
 *
 * `connect` tries each address once. {@link isTransient} says which failures are worth
 * another try.
 *
 * **Gotchas**
 *
 * `node:dns` cannot cancel a look-up. Over `NodeTransport` an interrupted look-up
 * keeps a thread of Node's pool busy until the system gives up, but `connect` does
 * not wait for it.
 *
 * **Interruption**: *total*, at any moment; *terminal* during the handshake of `tls`.
 * The attempts release their descriptors before the interruption proceeds.
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
 * **Example** (Trying again with exponential backoff)
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
 * Connecting as a service. A program that uses it leaves the transport, the resolver
 * and the default options to the layer that provides it.
 *
 * **Example** (A client without a transport of its own)
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
   * As the function `Connector.connect`. Each option of the call replaces the same
   * option of the service. `Tls.isTlsSocket` recognizes a stream over TLS.
   *
   * **Interruption**: *total*, at any moment; *terminal* during the handshake of `tls`.
   * The attempts release their descriptors before the interruption proceeds.
   */
  readonly connect: (target: Target, options?: Options) => Effect.Effect<StreamSocket, SocketError, Scope.Scope>
}>()("effect-asio/Connector") {}

/**
 * The service over a transport and a resolver, with default options for its
 * connections.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<Connector, never, Transport | AddressResolver.AddressResolver> => Layer.effect(Connector, make(options))

/**
 * {@link layer} with options that are read when the layer is built; by default those
 * of {@link config}. An option that cannot be read is a `ConfigError`.
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
 * All options except `tls`, each by its own name and each optional.
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
 * (`KEEP_ALIVE_IDLE`), after the prefix of `Config.nested`; see {@link layerConfig}. A
 * value that is malformed or out of range is a `ConfigError`.
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
 * Returns `true` if another try may succeed: for `Effect.retry` and its like.
 *
 * **Details**
 *
 * - `true` for reasons that pass by themselves: a refused connection, no answer, no
 *   route, a reset, an interrupted call, too few descriptors, buffers or ports, and a
 *   resolver that has not answered.
 * - `false` for reasons that stay: a malformed target, a name that does not exist, no
 *   permission, an option that is `Unsupported`, a cancellation request, and a stream
 *   that is `Busy` with an operation of this program.
 * - `true` for `ConnectFailed` if one of its attempts is transient, or if addresses
 *   were left untried.
 * - `false` for a value that is no `SocketError`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTransient = (error: unknown): boolean =>
  isSocketError(error) &&
  (error.reason._tag === "NameResolution" ? isTransientLookup(error.cause) : isTransientReason(error.reason))

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

/** The options that are set. One that is `undefined` must not replace that of the service. */
const definedOf = (options: Options | undefined): Options =>
  Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== undefined))

const transient: ReadonlySet<Reason["_tag"]> = new Set<Reason["_tag"]>([
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

const isTransientReason = (reason: Reason): boolean =>
  reason._tag === "ConnectFailed"
    ? reason.untried > 0 || reason.attempts.some((attempt) => isTransientReason(attempt.reason))
    : transient.has(reason._tag)

const isTransientLookup = (cause: unknown): boolean =>
  Cause.isTimeoutError(cause) || (cause instanceof Dns.DnsError && cause.isTemporary)

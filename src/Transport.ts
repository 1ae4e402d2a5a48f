/**
 * The service that makes connections, and the contract that a transport fills.
 *
 * A transport only translates: it attempts an operation, returns "would block", and
 * reports when another attempt makes sense. The core (`StreamSocket`, `Acceptor`)
 * does the rest, once for all transports: queues of waiting fibers, torn streams,
 * closing and cancellation.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as Host from "effect/net/Host"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Buffers from "./Buffers.ts"
import { positiveInteger } from "./internal/base/checks.ts"
import { resolveKeepAlive } from "./internal/base/liveOptions.ts"
import type { SocketError } from "./SocketError.ts"

/**
 * The source of connections: `NodeTransport.layer`, or an in-memory network in
 * tests. Programs use it through `StreamSocket.connect` and `Acceptor.listen`.
 *
 * @category services
 * @since 0.1.0
 */
export class Transport extends Context.Service<Transport, {
  /** Short name for logs and errors, such as `"node"`. */
  readonly name: string
  /**
   * Connects to one address.
   *
   * Fails with `Unsupported` for an option that the transport cannot honour; see
   * `SocketOptions`.
   *
   * **Interruption**: *total*. A cut attempt releases its descriptor before the
   * interruption proceeds.
   */
  readonly connect: (
    address: NetAddress.SocketAddress,
    options: ResolvedConnectOptions
  ) => Effect.Effect<Backing, SocketError>
  /**
   * Binds an address and listens; the result already accepts connections. Fails as
   * `connect` does.
   *
   * **Interruption**: *total*. The address is released.
   */
  readonly listen: (
    address: NetAddress.SocketAddress,
    options: ResolvedListenOptions
  ) => Effect.Effect<ListenerBacking, SocketError>
}>()("effect-asio/Transport (provide NodeTransport.layer)") {}

/**
 * A place to connect to or to listen on: an address; a host and port, also as a
 * string `host:port`; and `tcp://host:port` or `unix:///path`, as errors print
 * addresses. IPv6 literals are in brackets and may have a zone:
 * `[fe80::1%eth0]:80`.
 *
 * @category models
 * @since 0.1.0
 */
export type Target = NetAddress.SocketAddress | Host.HostPortInput

/**
 * The resolver that a target of type `T` needs: none where `T` is an address,
 * and an `AddressResolver` for everything else.
 *
 * **Example** (A function of your own that connects)
 *
 * ```ts
 * const ping = <T extends Transport.Target>(
 *   target: T
 * ): Effect.Effect<void, SocketError.SocketError, Transport.Transport | Transport.ResolverFor<T>> =>
 *   Effect.scoped(Effect.asVoid(StreamSocket.connect(target)))
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export type ResolverFor<T extends Target> = [T] extends [NetAddress.SocketAddress] ? never
  : AddressResolver.AddressResolver

/**
 * Options of a connection, on either side.
 *
 * **Details**
 *
 * The table says what each transport does with these options, and with those of
 * {@link ConnectOptions} and {@link ListenOptions}. "Unsupported" means that
 * `connect`, `listen` or `configure` fails with that reason before anything has
 * happened:
 *
 * | option | `NodeTransport` | `EpollTransport` | in memory |
 * |---|---|---|---|
 * | `noDelay`, `keepAlive` | yes | yes | nothing to do: there is no wire |
 * | `keepAlive`: `interval`, `count` | Node 26, 24 in its later versions; before, Unsupported | yes | nothing to do |
 * | `userTimeout` | Unsupported | yes | nothing to do |
 * | `sendBuffer`, `receiveBuffer` | Unsupported | yes | nothing to do: `capacity` of the network |
 * | `linger` | yes | yes | yes |
 * | `sliceSize` | yes | nothing to do: it has no buffer | nothing to do |
 * | `localAddress` | internet addresses | internet addresses | internet addresses |
 * | `backlog` | yes | yes | yes |
 * | `ipv6Only` | yes | yes | nothing to do: families never mix |
 * | `reusePort` | where the system can (Linux and some BSDs); else Unsupported | yes | Unsupported |
 *
 * `noDelay`, `keepAlive`, `userTimeout`, `ipv6Only` and `reusePort` belong to
 * TCP. Every transport ignores them on a Unix-domain path. Values beyond what the
 * system takes are brought into its range.
 *
 * @category options
 * @since 0.1.0
 */
export interface SocketOptions {
  /** Send small segments at once (`TCP_NODELAY`). Default `true`. TCP only. */
  readonly noDelay?: boolean | undefined
  /**
   * Probe an idle peer (`SO_KEEPALIVE`): the idle time before the first probe,
   * or a {@link KeepAlive} with the interval and the count too. `true` leaves all
   * of it to the system, which may wait 2 hours. Default `false`. TCP only.
   */
  readonly keepAlive?: boolean | Duration.Input | KeepAlive | undefined
  /**
   * How long bytes may stay unacknowledged before the connection fails with
   * `TimedOut` (`TCP_USER_TIMEOUT`, whole milliseconds). It also applies to the
   * probes of `keepAlive`, in place of their `count`. Default: as the system has
   * it, about 15 minutes. TCP only.
   */
  readonly userTimeout?: Duration.Input | undefined
  /**
   * Bytes of the kernel's send buffer (`SO_SNDBUF`). Linux reserves twice as many
   * and stops tuning the size by itself. Default: as the system has it.
   */
  readonly sendBuffer?: number | undefined
  /** Bytes of the kernel's receive buffer (`SO_RCVBUF`), as for `sendBuffer`. */
  readonly receiveBuffer?: number | undefined
  /**
   * How long `close` may wait for taken bytes to leave before it aborts. Over
   * `EpollTransport` it waits until the peer has acknowledged them (over a
   * Unix-domain path: read them), so that what the peer still sends does not cost
   * it the rest. `node:net` does not tell: behind more than 16 KiB since the peer was
   * last heard, `NodeTransport` waits for the end of the peer, or for 1 second
   * without input. Default 2 seconds. `0` aborts at once and discards the bytes that were not flushed. The
   * `close` of a torn stream aborts at once in any case.
   */
  readonly linger?: Duration.Input | undefined
  /**
   * The most bytes that one attempt may take into a buffer of the transport,
   * where the transport needs one. Default 65,536. A larger slice costs memory on a
   * clogged connection, a smaller one costs speed.
   */
  readonly sliceSize?: number | undefined
}

/**
 * How an idle peer is probed. A peer that is gone is found after
 * `idle + interval * count`: the connection then fails with `TimedOut`.
 *
 * **Details**
 *
 * Times are rounded up to whole seconds, from 1 to 32,767; counts go up to 127.
 *
 * @category options
 * @since 0.1.0
 */
export interface KeepAlive {
  /** Without traffic for this long, the first probe (`TCP_KEEPIDLE`). Default 2 hours. */
  readonly idle?: Duration.Input | undefined
  /** Between two probes (`TCP_KEEPINTVL`). Default 1 second. */
  readonly interval?: Duration.Input | undefined
  /** How many probes may stay unanswered (`TCP_KEEPCNT`). Default 10. */
  readonly count?: number | undefined
}

/**
 * `SocketOptions` with every default filled in.
 *
 * @category options
 * @since 0.1.0
 */
export interface ResolvedOptions {
  readonly noDelay: boolean
  readonly keepAlive: boolean | ResolvedKeepAlive
  readonly userTimeout: Duration.Duration | undefined
  readonly sendBuffer: number | undefined
  readonly receiveBuffer: number | undefined
  readonly linger: Duration.Duration
  readonly sliceSize: number
}

/**
 * `KeepAlive` with every default filled in: whole seconds, in the range of the
 * systems.
 *
 * @category options
 * @since 0.1.0
 */
export interface ResolvedKeepAlive {
  readonly idle: Duration.Duration
  readonly interval: Duration.Duration
  readonly count: number
}

/**
 * The options that a live connection can change.
 *
 * @category options
 * @since 0.1.0
 */
export type LiveOptions = Pick<SocketOptions, "noDelay" | "keepAlive" | "userTimeout">

/**
 * Options of a connection that this side opens.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConnectOptions extends SocketOptions {
  /**
   * The address to connect from; port 0 is any free port. It has to be of the
   * target's family; another family is Unsupported, and so is a Unix-domain path.
   * Default: as the system chooses.
   */
  readonly localAddress?: NetAddress.SocketAddress | undefined
}

/**
 * `ConnectOptions` with every default filled in.
 *
 * @category options
 * @since 0.1.0
 */
export interface ResolvedConnectOptions extends ResolvedOptions {
  readonly localAddress: NetAddress.SocketAddress | undefined
}

/**
 * Options of a listener. The options of connections apply to every connection
 * that it accepts.
 *
 * @category options
 * @since 0.1.0
 */
export interface ListenOptions extends SocketOptions {
  /**
   * How many connections may wait to be accepted. `NodeTransport` resets further
   * ones. Over `EpollTransport`, Linux leaves them unanswered, and the connecting
   * side retries until it gives up. On a Unix-domain path whose backlog is full,
   * `connect` of both transports waits until there is room. Default 511.
   */
  readonly backlog?: number | undefined
  /** Refuse IPv4 peers on an IPv6 address (`IPV6_V6ONLY`). Default `false`. */
  readonly ipv6Only?: boolean | undefined
  /**
   * Let listeners of several processes share the address (`SO_REUSEPORT`); all of
   * them have to set it. The kernel distributes the connections. Default `false`.
   * TCP only.
   */
  readonly reusePort?: boolean | undefined
}

/**
 * `ListenOptions` with every default filled in.
 *
 * @category options
 * @since 0.1.0
 */
export interface ResolvedListenOptions extends ResolvedOptions {
  readonly backlog: number
  readonly ipv6Only: boolean
  readonly reusePort: boolean
}

/**
 * Fills in the defaults. Throws a `RangeError` for a size, a backlog or a count
 * that is not a positive whole number.
 *
 * @category options
 * @since 0.1.0
 */
export const resolveOptions = (
  options: (ListenOptions & ConnectOptions) | undefined
): ResolvedListenOptions & ResolvedConnectOptions => {
  if (options === undefined) return defaultOptions
  return {
    noDelay: options.noDelay ?? defaultOptions.noDelay,
    keepAlive: resolveKeepAlive(options.keepAlive),
    userTimeout: options.userTimeout === undefined ? undefined : Duration.fromInputUnsafe(options.userTimeout),
    sendBuffer: optional("SocketOptions.sendBuffer", options.sendBuffer),
    receiveBuffer: optional("SocketOptions.receiveBuffer", options.receiveBuffer),
    linger: options.linger === undefined ? defaultOptions.linger : Duration.fromInputUnsafe(options.linger),
    sliceSize: positiveInteger("SocketOptions.sliceSize", options.sliceSize ?? defaultOptions.sliceSize),
    localAddress: options.localAddress,
    backlog: positiveInteger("ListenOptions.backlog", options.backlog ?? defaultOptions.backlog),
    ipv6Only: options.ipv6Only ?? defaultOptions.ipv6Only,
    reusePort: options.reusePort ?? defaultOptions.reusePort
  }
}

/**
 * The result of an attempt that can do nothing now. The transport has to report an
 * event of that direction afterwards.
 *
 * @category contract
 * @since 0.1.0
 */
export const WouldBlock = -1

/**
 * One connection, as a transport provides it.
 *
 * **Details**
 *
 * - Attempts never block, never call back synchronously, and never throw for
 *   anything that a peer or the system can cause: they return such failures.
 * - A failed attempt has moved no byte.
 * - Memory handed to `read` or `write` belongs to the caller again when the call
 *   returns.
 * - The core calls `attach` before everything else, and nothing after `closed`.
 *   When the connection is handed over, as to TLS, the new owner attaches again
 *   and gets all events from then on.
 *
 * **Example** (A connection that reads zeros and forgets what is written)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import * as NetAddress from "effect/net/NetAddress"
 * import { Read, StreamSocket, type Transport, Write } from "effect-asio"
 *
 * const address = NetAddress.unixPathAddress("/dev/zero")
 *
 * const makeZero = (): Transport.Backing => {
 *   let events: Transport.Events | undefined
 *   // Events come later, never from inside of an attempt.
 *   const release = () => queueMicrotask(() => events?.closed())
 *   return {
 *     localAddress: address,
 *     remoteAddress: address,
 *     attach: (attached) => void (events = attached),
 *     read: (target) => target.fill(0).byteLength,
 *     write: (source, limit) => Math.min(source.remaining, limit),
 *     shutdownWrite: () => 0,
 *     close: release,
 *     abort: release,
 *     configure: () => undefined
 *   }
 * }
 *
 * const program = Effect.gen(function*() {
 *   const socket = StreamSocket.make(makeZero())
 *   yield* Console.log(yield* Write.writeAll(socket, new Uint8Array(100_000)))
 *   yield* Console.log(yield* Read.readExactly(socket, new Uint8Array(4)))
 *   yield* socket.close
 * })
 *
 * await Effect.runPromise(program)
 * // => 100000
 * // => 4
 * ```
 *
 * @category contract
 * @since 0.1.0
 */
export interface Backing {
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  readonly attach: (events: Events) => void
  /**
   * Moves 1 to `target.length` bytes into a non-empty `target` and returns how
   * many; 0 is end of stream, on every later call too. Returns bytes that arrived
   * before a failure first, and then the failure.
   */
  readonly read: (target: Uint8Array) => number | SocketError
  /**
   * Takes 1 to `source.remaining` bytes (at most `limit`) from the cursor's
   * position and returns how many, without advancing the cursor. Bytes taken are
   * delivered in order unless the connection is aborted or reset.
   */
  readonly write: (source: Buffers.Cursor, limit: number) => number | SocketError
  /**
   * Sends FIN behind everything taken and returns 0. Would block while bytes
   * taken are still in buffers of the transport. Until it returns 0, nothing has
   * happened.
   */
  readonly shutdownWrite: () => number | SocketError
  /** Starts a graceful release: flush, FIN, release; then `closed`. May be followed by `abort`. */
  readonly close: () => void
  /** Starts an immediate release: discard, RST where the platform has one; then `closed`. */
  readonly abort: () => void
  /**
   * Whether a failed write destroys the connection together with input that has
   * arrived and not been read. If so, `Relay.relay` lets the event loop poll before
   * each write. Optional; default `false`.
   */
  readonly failedWriteLosesInput?: boolean | undefined
  /**
   * Called when no operation waits for a direction any more although its last
   * attempt returned `WouldBlock`. A transport may stop watching for readiness.
   * Optional.
   */
  readonly interestDropped?: ((direction: "read" | "write") => void) | undefined
  /**
   * The linger time of `close` is over: releases at once. Bytes that the platform
   * delivers by itself may go on their way; a transport that has none leaves this
   * out, and the core aborts.
   */
  readonly overdue?: (() => void) | undefined
  /**
   * Calls `done` when the platform has had the time to report the bytes that had
   * arrived by now, which is soon. The core asks when the stream is closed or
   * aborted while a read waits: the read gets the bytes that are there, as if it had
   * been attempted a moment later, and else fails with `Closed`. A transport whose `read` looks for itself leaves this out.
   */
  readonly lookAgain?: ((done: () => void) => void) | undefined
  /**
   * Gives the descriptor away, open, and returns its number; or returns why it
   * cannot, and nothing has happened then. Called only while no operation waits.
   * Afterwards the core calls nothing, and the transport reports no event. A
   * transport that has no descriptor, or has buffers of its own, leaves this out.
   */
  readonly detach?: (() => number | SocketError) | undefined
  /**
   * Changes options of the live connection; those that are absent stay. Returns an
   * error, such as `Unsupported`, when one of them cannot be set.
   */
  readonly configure: (options: Partial<Pick<ResolvedOptions, keyof LiveOptions>>) => SocketError | void
}

/**
 * The events that a backing reports. Events may be spurious and must not come from inside
 * a call to the backing, `close` and `abort` excepted; they never throw.
 *
 * @category contract
 * @since 0.1.0
 */
export interface Events {
  /** A read may succeed, reach the end or fail now. */
  readonly readable: () => void
  /** A write or `shutdownWrite` may succeed or fail now. */
  readonly writable: () => void
  /** Writing has failed for good. Reads go on, to whatever `read` answers. */
  readonly failed: (error: SocketError) => void
  /** The descriptor is released, by request or by failure. */
  readonly closed: () => void
}

/**
 * One listening address, as a transport provides it.
 *
 * @category contract
 * @since 0.1.0
 */
export interface ListenerBacking {
  /** The bound address: with the real port where port 0 was asked for. */
  readonly address: NetAddress.SocketAddress
  readonly attach: (events: { readonly acceptable: () => void }) => void
  /** Takes one waiting connection, or would block. After a failure, the next attempt may succeed. */
  readonly accept: () => Backing | typeof WouldBlock | SocketError
  /** Releases the address and resets every connection that was not accepted. */
  readonly close: () => void
  /** Called when no `accept` waits for `acceptable` any more; see {@link Backing}. */
  readonly interestDropped?: (() => void) | undefined
  /** Gives the descriptor away, open, and returns its number; see {@link Backing}. */
  readonly detach?: (() => number | SocketError) | undefined
}

// ---- internal

const optional = (name: string, value: number | undefined): number | undefined =>
  value === undefined ? undefined : positiveInteger(name, value)

const defaultOptions: ResolvedListenOptions & ResolvedConnectOptions = {
  noDelay: true,
  keepAlive: false,
  userTimeout: undefined,
  sendBuffer: undefined,
  receiveBuffer: undefined,
  linger: Duration.seconds(2),
  sliceSize: 65_536,
  localAddress: undefined,
  backlog: 511,
  ipv6Only: false,
  reusePort: false
}

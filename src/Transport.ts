/**
 * Where connections come from, and the contract that a transport fills.
 *
 * A transport only translates: it tries, answers "would block", and tells when
 * trying again makes sense. Lines of waiting fibers, torn streams, closing and
 * cancellation are the core's (`StreamSocket`, `Acceptor`), once for all
 * transports.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Buffers from "./Buffers.ts"
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
   * **Interruption**: *total*. A cut attempt releases its descriptor before the
   * interruption proceeds.
   */
  readonly connect: (
    address: NetAddress.SocketAddress,
    options: ResolvedOptions
  ) => Effect.Effect<Backing, SocketError>
  /** Binds and listens; the result already accepts. Interrupting it releases the address. */
  readonly listen: (
    address: NetAddress.SocketAddress,
    options: ResolvedListenOptions
  ) => Effect.Effect<ListenerBacking, SocketError>
}>()("effect-asio/Transport") {}

/**
 * Options of a connection, whichever side opened it. A transport ignores what
 * it has no use for.
 *
 * @category options
 * @since 0.1.0
 */
export interface SocketOptions {
  /** Send small segments at once (`TCP_NODELAY`). Default `true`. TCP only. */
  readonly noDelay?: boolean | undefined
  /**
   * Probe an idle peer (`SO_KEEPALIVE`): `true`, or the idle time before the
   * first probe (whole seconds on most systems). Default `false`. TCP only.
   */
  readonly keepAlive?: boolean | Duration.Input | undefined
  /**
   * How long `close` may wait for taken bytes to leave before it aborts.
   * Default 2 seconds. `0` closes at once: what was not flushed is discarded.
   */
  readonly linger?: Duration.Input | undefined
  /**
   * The most bytes that one attempt may take into a buffer of the transport's
   * own, where it needs one. Default 65,536. A larger slice costs memory on a
   * clogged connection, a smaller one costs speed.
   */
  readonly sliceSize?: number | undefined
}

/**
 * `SocketOptions` with every default filled in.
 *
 * @category options
 * @since 0.1.0
 */
export interface ResolvedOptions {
  readonly noDelay: boolean
  /** `false`, or the idle time before the first probe; 0 leaves it to the system. */
  readonly keepAlive: false | Duration.Duration
  readonly linger: Duration.Duration
  readonly sliceSize: number
}

/**
 * Options of a listener.
 *
 * @category options
 * @since 0.1.0
 */
export interface ListenOptions extends SocketOptions {
  /** How many connections may wait to be accepted; further ones are reset. Default 511. */
  readonly backlog?: number | undefined
  /** Refuse IPv4 peers on an IPv6 address (`IPV6_V6ONLY`). Default `false`. */
  readonly ipv6Only?: boolean | undefined
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
}

/**
 * Fills in the defaults. Throws a `RangeError` for a slice size or a backlog
 * that is not a positive whole number.
 *
 * @category options
 * @since 0.1.0
 */
export const resolveOptions = (options: ListenOptions | undefined): ResolvedListenOptions => {
  if (options === undefined) return defaultOptions
  return {
    noDelay: options.noDelay ?? defaultOptions.noDelay,
    keepAlive: resolveKeepAlive(options.keepAlive),
    linger: options.linger === undefined ? defaultOptions.linger : Duration.fromInputUnsafe(options.linger),
    sliceSize: positive("SocketOptions.sliceSize", options.sliceSize ?? defaultOptions.sliceSize),
    backlog: positive("ListenOptions.backlog", options.backlog ?? defaultOptions.backlog),
    ipv6Only: options.ipv6Only ?? defaultOptions.ipv6Only
  }
}

/**
 * The answer of an attempt that can do nothing now. After it, the transport
 * owes an event of that direction.
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
 *   anything that a peer or the system can cause: such failures are answers.
 * - A failed attempt moved nothing.
 * - Memory handed to `read` or `write` belongs to the caller again when the call
 *   returns.
 * - The core calls `attach` before everything else, and nothing after `closed`.
 *   When the connection is handed over, as to TLS, the new owner attaches again
 *   and gets all events from then on.
 *
 * @category contract
 * @since 0.1.0
 */
export interface Backing {
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  readonly attach: (events: Events) => void
  /**
   * Moves 1 to `target.length` bytes into a non-empty `target` and answers how
   * many; 0 is end of stream, every time from then on. What arrived before a
   * failure is answered before the failure.
   */
  readonly read: (target: Uint8Array) => number | SocketError
  /**
   * Takes 1 to `source.remaining` bytes (at most `limit`) from the cursor's
   * position and answers how many, without advancing it. Bytes taken are
   * delivered in order unless the connection is aborted or reset.
   */
  readonly write: (source: Buffers.Cursor, limit: number) => number | SocketError
  /**
   * Sends FIN behind everything taken and answers 0. Would block while bytes
   * taken still sit in buffers of the transport; until it answers 0, nothing
   * has happened.
   */
  readonly shutdownWrite: () => number | SocketError
  /** Starts a graceful release: flush, FIN, release; then `closed`. May be followed by `abort`. */
  readonly close: () => void
  /** Starts an immediate release: discard, RST where the platform can; then `closed`. */
  readonly abort: () => void
  /** Changes options of the live connection; those that are absent stay. */
  readonly configure: (options: Pick<Partial<ResolvedOptions>, "noDelay" | "keepAlive">) => void
}

/**
 * What a backing reports. Events may be spurious and must not come from inside
 * a call to the backing, `close` and `abort` excepted; they never throw.
 *
 * @category contract
 * @since 0.1.0
 */
export interface Events {
  /** A read may succeed, end or fail now. */
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
  /** Takes one waiting connection, or would block. A failure passes; the next attempt may succeed. */
  readonly accept: () => Backing | typeof WouldBlock | SocketError
  /** Releases the address and resets every connection that was not accepted. */
  readonly close: () => void
}

// ---- internal

const positive = (name: string, value: number): number => {
  if (Number.isInteger(value) && value > 0) return value
  throw new RangeError(`${name}: ${value} is not a positive whole number`)
}

const defaultOptions: ResolvedListenOptions = {
  noDelay: true,
  keepAlive: false,
  linger: Duration.seconds(2),
  sliceSize: 65_536,
  backlog: 511,
  ipv6Only: false
}

/** @internal */
export const resolveKeepAlive = (input: SocketOptions["keepAlive"]): ResolvedOptions["keepAlive"] =>
  input === undefined || input === false ? false : input === true ? Duration.zero : Duration.fromInputUnsafe(input)

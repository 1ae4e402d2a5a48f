/**
 * A connected byte stream whose writes are exact and interruptible.
 *
 * This is the contract that everything else is built on. `make` turns the backing
 * of any transport into a stream with fair queues of reads and writes, torn state,
 * and the three ways to end (`shutdownWrite`, `close`, `abort`).
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import type * as Buffers from "./Buffers.ts"
import { open } from "./internal/connect/open.ts"
import { coreOf, Socket, TypeId } from "./internal/core/Socket.ts"
import { Reason, SocketError } from "./SocketError.ts"
import {
  type Backing,
  type ConnectOptions,
  type LiveOptions,
  resolveOptions,
  type ResolverFor,
  type SocketOptions,
  type Target,
  type Transport
} from "./Transport.ts"

/**
 * A stream that can be read. Composed reads (`Read`) work on any of these.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReadStream {
  /**
   * Reads 1 to `target.length` bytes into the front of `target` and succeeds
   * with how many; 0 only for an empty target. Fails with `Cause.Done` at the end
   * of the stream, on every later read too, and with a `SocketError` when the
   * connection has failed or is closed.
   *
   * Several reads may be outstanding; they are served in the order in which they
   * were started. `target` belongs to the caller again when the effect ends,
   * however it ends.
   *
   * **Interruption**: *total*. No byte is lost: the next read gets it.
   */
  readonly readSome: (target: Uint8Array) => Pull.Pull<number, SocketError>
}

/**
 * A stream that can be written. Composed writes (`Write`) work on any of these.
 *
 * @category models
 * @since 0.1.0
 */
export interface WriteStream {
  /**
   * Takes 1 to all bytes from the front of the buffers and succeeds with how
   * many; 0 only when there are none. It either takes bytes or fails, never
   * both: with `Closed`, `Torn`, `BrokenPipe`, `ConnectionReset` and so on. Taken
   * bytes are delivered in order unless the connection is aborted or reset; "taken"
   * never means "delivered".
   *
   * Several writes may be outstanding; they leave in the order in which they
   * were started. The buffers belong to the caller again when the effect ends,
   * however it ends.
   *
   * **Interruption**: *total*. A write that waits for room or for its turn has
   * taken nothing. The cause of its exit has a `Cancellation.Transfer` that says so.
   */
  readonly writeSome: (source: Buffers.Input) => Effect.Effect<number, SocketError>
}

/**
 * The state of a stream, and of each of its directions.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  readonly socket: "open" | "closing" | "closed"
  readonly read: "open" | "ended" | "failed" | "closed"
  readonly write: "open" | "shutdown" | "torn" | "failed" | "closed"
}

/**
 * A connected byte stream: over TCP, a Unix-domain path, memory, or any other
 * transport.
 *
 * **Details**
 *
 * The two directions are independent: one reader and one writer run at once, and
 * reads go on to the peer's last byte when the write side has failed or is torn.
 * The scope that opened a stream closes it.
 *
 * Every member can be used on its own (`const { readSome } = socket`). To wrap a
 * stream, name the members of the wrapper one by one; a spread copies none.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamSocket extends ReadStream, WriteStream {
  readonly [TypeId]: typeof TypeId
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  /** Bytes received from the transport so far. */
  readonly bytesRead: number
  /** Bytes taken by the transport so far. */
  readonly bytesWritten: number
  readonly state: State
  /**
   * Sends FIN behind everything that was taken; reads go on. Waits for the writes
   * that were started earlier. Repeating it succeeds. Fails with `Closed` after
   * `close`, and with the reason of the write side when that is torn or has failed:
   * a FIN inside a message would look like its end.
   *
   * **Interruption**: *total*. Either FIN was sent or nothing happened.
   */
  readonly shutdownWrite: Effect.Effect<void, SocketError>
  /**
   * Ends the stream gracefully: waiting operations fail with `Closed`, taken
   * bytes are flushed, FIN follows, and the effect ends when the descriptor is
   * released. After the linger time it aborts instead: taken bytes that have
   * not left by then are lost to the peer, and it is logged (debug). Idempotent.
   *
   * A stream that is torn, or whose `writeAll` or framed `send` still waits after
   * some of its bytes were taken, is aborted at once, without the linger time:
   * the peer has the beginning of a message, and must not take a FIN for its end.
   * Over TCP the peer reads a reset. Over TLS it gets no `close_notify`. A
   * Unix-domain path has no reset: there the peer reads a plain end of stream,
   * unless it has sent bytes that were not read.
   *
   * Bytes that the peer has sent and that were not read are discarded. When there
   * are some, `close` waits for the peer's end of stream, because a release would
   * reset the peer before it has received what was taken. The kernel resets a peer
   * that sends *after* the release, and the peer loses what it had not received
   * yet. To rule that out, run `shutdownWrite` and read to the end before `close`.
   *
   * **Interruption**: turns it into `abort`. A `terminal` request of a signal does
   * the same; other requests do nothing.
   */
  readonly close: Effect.Effect<void>
  /**
   * Ends the stream now: waiting operations fail with `Closed`, bytes that have not
   * left are discarded, and the peer reads a reset where the platform can send one
   * (TCP). Succeeds when the descriptor is released. Idempotent.
   *
   * **Interruption**: the release goes on; only the wait for it stops.
   */
  readonly abort: Effect.Effect<void>
  /**
   * Changes options of the live connection; those that are absent stay. Fails
   * with `Closed` after `close`, and with `Unsupported` where the transport cannot
   * set one of them; see `SocketOptions`.
   *
   * **Interruption**: none needed; it does not wait.
   */
  readonly configure: (options: LiveOptions) => Effect.Effect<void, SocketError>
}

/**
 * Returns `true` when a value is a `StreamSocket`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isStreamSocket = (u: unknown): u is StreamSocket => typeof u === "object" && u !== null && TypeId in u

/**
 * Makes a stream over a backing. The caller owns the stream and has to end it with
 * `close` or `abort`.
 *
 * **When to use**
 *
 * Use it to put a transport of your own under this library. Programs use
 * {@link connect} and `Acceptor.accept`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backing: Backing, options?: Pick<SocketOptions, "linger">): StreamSocket =>
  new Socket(backing, resolveOptions(options).linger)

/**
 * Looks whether a stream that was idle is as good as new, before it is used again:
 * both directions are open, no operation waits, and the peer has neither sent
 * anything nor gone. Succeeds with `false` otherwise; then close or abort it.
 *
 * **Details**
 *
 * A server that ends a connection because it was idle may say so before ("421
 * timeout"). Without this look, the next request would take that for its answer.
 * The look gives the transport a few turns of the event loop to say what has
 * arrived, and does not wait for the peer. It reads nothing away: bytes that have
 * arrived are what the next read gets. A peer may still say or end something right
 * behind the look.
 *
 * For a foreign stream it completes with `false`: nothing is known of
 * what has arrived. Never fails.
 *
 * **Interruption**: *total*. Nothing has happened to the stream.
 *
 * **Example** (A connection that was kept)
 *
 * ```ts
 * if (!(yield* StreamSocket.isReusable(socket))) yield* socket.abort
 * ```
 *
 * @category guards
 * @since 0.1.0
 */
export const isReusable = (socket: StreamSocket): Effect.Effect<boolean> =>
  Effect.suspend(() => coreOf(socket)?.isReusable ?? Effect.succeed(false))

/**
 * Gives the descriptor of a stream away, open, and succeeds with its number: to
 * `new net.Socket({ fd })`, to a child process (`stdio`), to native code.
 *
 * **Details**
 *
 * The stream is closed from then on, and the caller has to close the descriptor.
 * The descriptor stays non-blocking and close-on-exec, with the options it has.
 * The kernel has every byte that was taken, and the stream holds no byte that has
 * arrived.
 *
 * Fails, and changes nothing, with `Closed` after `close`; with the reason of the
 * write side when that is torn or has failed; with `Busy` while an operation waits,
 * and while unread bytes are in the read buffer (read them first); and with
 * `Unsupported` where the transport has no descriptor to give away. Only
 * `EpollTransport` has one.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * **Example** (Handing a connection to `node:net`)
 *
 * ```ts
 * const fd = yield* StreamSocket.detachFd(socket)
 * const native = new Net.Socket({ fd, readable: true, writable: true })
 * ```
 *
 * @category destructors
 * @since 0.1.0
 */
export const detachFd = (socket: StreamSocket): Effect.Effect<number, SocketError> =>
  Effect.suspend(() => {
    const answer = coreOf(socket)?.detachFd() ?? new SocketError({
      reason: Reason.Unsupported({ feature: "giving away a stream that is no socket of a transport" }),
      operation: "detachFd",
      address: socket.remoteAddress,
      transferred: 0
    })
    return typeof answer === "number" ? Effect.succeed(answer) : Effect.fail(answer)
  })

/**
 * Connects to an address or to a host and port, and closes the stream with the
 * scope.
 *
 * **Details**
 *
 * A host name is resolved with `AddressResolver`, and its addresses race as
 * `Connector.connect` says, with its default options: a new attempt every 250
 * milliseconds, or as soon as one has failed, and the first one to connect wins.
 * Strings are `host:port`, with IPv6 literals in brackets, or as errors print
 * addresses: `tcp://host:port` and `unix:///path`.
 *
 * Fails with the reason of the attempt (`ConnectionRefused`, `TimedOut`,
 * `HostUnreachable`, ...) and its address; with `ConnectFailed`, listing every
 * attempt, when a name has several addresses and all fail; with
 * `NameResolution` when it has none, or is no name; with `Unsupported` for an
 * option that the transport cannot honour.
 *
 * A Unix-domain listener whose backlog is full is waited for; `Connector.connect`
 * has a time-out for that. A TCP connect to a free port of this machine, for which
 * the system has chosen the same local port, would be a connection to itself, and
 * fails with `ConnectionRefused`; a caller that asks for that `localAddress` gets it.
 *
 * **Interruption**: *total*. Cut attempts release their descriptors.
 *
 * **Example** (Saying hello)
 *
 * ```ts
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const socket = yield* StreamSocket.connect("localhost:7000")
 *   yield* Write.writeAll(socket, Buffers.utf8("hello\n"))
 *   return yield* Read.readUntil(socket, "\n")
 * })).pipe(Effect.provide(NodeTransport.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = <T extends Target>(
  target: T,
  options?: ConnectOptions
): Effect.Effect<StreamSocket, SocketError, Transport | ResolverFor<T> | Scope.Scope> =>
  open(target, options, undefined)

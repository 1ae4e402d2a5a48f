/**
 * Connections for async/await code outside Effect: the same sockets, the same
 * accounts, the same errors, with promises instead of effects.
 *
 * **Details**
 *
 * Promises reject with the library's own `SocketError` and all its fields:
 * `reason`, `operation`, `address`, `transferred`, `total`, `code`, `cause`.
 * Wrong arguments reject with a `TypeError` or a `RangeError`. End of stream is
 * no error: reads resolve to `null`, loops end.
 *
 * A promise cannot be interrupted, so cancellation comes as an `AbortSignal`;
 * see {@link Abortable}.
 *
 * TLS is an option of `connect` and `listen`, and what a socket in plain text can
 * be upgraded to.
 *
 * **Example** (Saying hello)
 *
 * ```ts
 * import { Buffers } from "effect-asio"
 * import { connect } from "effect-asio/promises"
 *
 * await using socket = await connect("localhost:7000")
 * await socket.writeAll(Buffers.utf8("hello\n"))
 * const answer = await socket.readUntil("\n", { signal: AbortSignal.timeout(1000) })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import * as Acceptor from "./Acceptor.ts"
import type * as Buffers from "./Buffers.ts"
import type * as Cancellation from "./Cancellation.ts"
import type * as CompletionCondition from "./CompletionCondition.ts"
import * as Connector from "./Connector.ts"
import { detachScope } from "./internal/base/detachScope.ts"
import { nameOf } from "./internal/connect/resolveHost.ts"
import { TlsAcceptQueue } from "./internal/promises/TlsAcceptQueue.ts"
import type * as Read from "./Read.ts"
import type { SocketError } from "./SocketError.ts"
import type * as StreamSocket from "./StreamSocket.ts"
import * as Tls from "./Tls.ts"
import type { ListenOptions, LiveOptions, Target, Transport } from "./Transport.ts"
import * as NodeTransport from "./transport/NodeTransport.ts"

import { PromiseListener } from "./internal/promises/PromiseListener.ts"
import { socketOver, TlsPromiseSocket } from "./internal/promises/PromiseSocket.ts"
import { run } from "./internal/promises/run.ts"

/**
 * The signal and the guarantee that may end an operation early.
 *
 * **Details**
 *
 * When `signal` aborts, the operation is asked to end with at least the
 * guarantee `type` (default `"terminal"`); see `Cancellation.Type`. One that
 * cannot keep it runs on to its end. One that ends rejects with the reason
 * `OperationAborted`: `transferred` and `total` on the error are exact,
 * `reason.type` is the guarantee that was kept, and `cause` is the abort reason.
 *
 * A signal that is aborted already rejects before anything is attempted. What
 * its first attempt completes has completed, whatever happens next. A signal
 * may serve any number of operations and connections; it is listened to only
 * while one of them waits.
 *
 * **Example** (At most a second, and the stream stays usable)
 *
 * ```ts
 * const message = Buffers.cursor(bytes)
 * try {
 *   await socket.writeAll(message, { signal: AbortSignal.timeout(1000), type: "partial" })
 * } catch (error) {
 *   if (!SocketError.isSocketError(error) || error.reason._tag !== "OperationAborted") throw error
 *   console.log(`${error.transferred} of ${error.total} bytes taken so far`)
 *   await socket.writeAll(message)
 * }
 * ```
 *
 * @category options
 * @since 0.1.0
 */
export interface Abortable {
  readonly signal?: AbortSignal | null | undefined
  readonly type?: Cancellation.Type | undefined
}

/**
 * Options of {@link listen}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ListenerOptions extends ListenOptions, Abortable {
  /**
   * Every connection speaks TLS, and `accept` resolves to it when its handshake is
   * done. While an `accept` waits, handshakes run side by side, so that a peer that is
   * slow delays no other; each has the time of `deadline`, and there is no limit on
   * how many (`Server` has limits). Options that cannot be used reject the `listen`. A
   * context (`await Effect.runPromise(Tls.makeServerContext(options))`) can be reloaded.
   */
  readonly tls?: Tls.ServerOptions | Tls.ServerContext | undefined
  /**
   * Hears of every connection whose handshake has failed, once it is gone; `address`
   * on the error is the peer's. On the internet this is daily noise, so no `accept`
   * and no loop does. What it throws or rejects with is logged. By default the
   * failure is logged: for debugging, and as an error where `identityFor` has failed.
   */
  readonly onHandshakeFailure?: ((error: SocketError) => unknown) | undefined
}

/**
 * A connected byte stream: `StreamSocket`, `Read` and `Write` as methods that
 * answer with promises.
 *
 * **Details**
 *
 * The two directions are independent, and each is a fair line: operations may be
 * started without waiting for the ones before, and take their turns in the order
 * in which they were started. Memory that an operation was given belongs to the
 * caller again when its promise settles, however it settles.
 *
 * Nothing closes a socket but `close`, `abort` and the end of an `await using`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Socket extends AsyncIterable<Uint8Array, undefined>, AsyncDisposable {
  /** The same connection for Effect code. */
  readonly stream: StreamSocket.StreamSocket
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  /** Bytes received from the transport so far. */
  readonly bytesRead: number
  /** Bytes taken by the transport so far. */
  readonly bytesWritten: number
  readonly state: StreamSocket.State
  /** What the two peers have agreed on: protocol, ALPN, certificates; `undefined` without TLS. */
  readonly tls: Tls.ConnectionInfo | undefined
  /**
   * Reads 1 to `target.length` bytes into the front of `target` and resolves to
   * how many; 0 only for an empty target. End of stream is `null`, as often as
   * it is asked for.
   *
   * **Abort**: *total*, whatever was asked for. No byte is lost: the next read
   * gets it.
   *
   * **Example** (Reading what is there)
   *
   * ```ts
   * const buffer = new Uint8Array(65_536)
   * const count = await socket.readSome(buffer)
   * if (count !== null) console.log(Buffers.toUtf8(buffer.subarray(0, count)))
   * ```
   */
  readSome(target: Uint8Array, options?: Abortable): Promise<number | null>
  /**
   * Reads exactly as many bytes as `target` holds and resolves to their number;
   * `null` when the stream ends before the first. Ending midway rejects with
   * `UnexpectedEof` and `transferred`: those bytes are at the front of `target`,
   * and they also stay unread.
   *
   * **Abort**: *total*, whatever was asked for. No byte is lost: the next read
   * gets them.
   *
   * **Example** (Reading a header of four bytes)
   *
   * ```ts
   * const header = new Uint8Array(4)
   * await socket.readExactly(header)
   * const length = new DataView(header.buffer).getUint32(0)
   * ```
   */
  readExactly(target: Uint8Array, options?: Abortable): Promise<number | null>
  /**
   * Reads at least `minimum` bytes, and more if they are there and `target`
   * holds them; resolves to how many. Ends as `readExactly` does.
   *
   * **Abort**: *total*, whatever was asked for. No byte is lost: the next read
   * gets them.
   */
  readAtLeast(target: Uint8Array, minimum: number, options?: Abortable): Promise<number | null>
  /**
   * Reads up to and including the first match of a delimiter and resolves to
   * those bytes, in memory of the caller's own; later bytes stay unread. `null`
   * when the stream ends before the first byte. A message longer than `max`
   * bytes (default 65,536) rejects with `LimitExceeded`, an end before the match
   * with `UnexpectedEof`; nothing is consumed then.
   *
   * **Abort**: *total*, whatever was asked for. No byte is lost: the next read
   * gets them.
   *
   * **Example** (Reading lines until the end of the stream)
   *
   * ```ts
   * for (;;) {
   *   const line = await socket.readUntil("\n", { max: 1024 })
   *   if (line === null) break
   *   console.log(Buffers.toUtf8(line))
   * }
   * ```
   */
  readUntil(
    delimiter: Read.Delimiter,
    options?: Abortable & { readonly max?: number | undefined }
  ): Promise<Uint8Array | null>
  /**
   * Reads everything to the end of the stream, possibly nothing, into memory of
   * the caller's own. A stream longer than `max` bytes (default 16 MiB) rejects
   * with `LimitExceeded`; nothing is consumed then.
   *
   * **Abort**: *total*, whatever was asked for. No byte is lost: the next read
   * gets them.
   */
  readAll(options?: Abortable & { readonly max?: number | undefined }): Promise<Uint8Array>
  /**
   * Takes 1 to all bytes from the front of the buffers and resolves to how many;
   * 0 only when there are none. It either takes bytes or rejects, never both.
   * Taken bytes are delivered in order unless the connection is aborted or reset.
   *
   * **Abort**: *total*, whatever was asked for. A write that waits has taken
   * nothing; start it again, or leave it.
   *
   * **Example** (Counting every step)
   *
   * ```ts
   * for (let sent = 0; sent < bytes.length;) {
   *   sent += await socket.writeSome(bytes.subarray(sent), { signal })
   *   console.log(`${sent} of ${bytes.length}`)
   * }
   * ```
   */
  writeSome(source: Buffers.Input, options?: Abortable): Promise<number>
  /**
   * Writes from the buffers until `condition` is met (by default: all bytes) and
   * resolves to how many were taken. Nothing comes in between, and a rejection
   * says in `transferred` and `total` how far it came. Pass a `Buffers.Cursor`
   * to go on from there: the operation advances it in place.
   *
   * **Abort**, when `k` of `n` bytes were taken:
   *
   * - `k = 0`, whatever was asked for: *total*, nothing happened.
   * - `"terminal"` (the default): stops; the stream is torn, and later writes
   *   reject with `Torn`. Close or abort it.
   * - `"partial"`: stops; the stream is usable. Go on with the cursor.
   * - `"total"`: runs on to `n`.
   *
   * **Example** (A header and a body in one write)
   *
   * ```ts
   * await socket.writeAll([header, body], { signal: request.signal })
   * ```
   */
  writeAll(
    source: Buffers.Input | Buffers.Cursor,
    options?: Abortable & { readonly condition?: CompletionCondition.Input | undefined }
  ): Promise<number>
  /**
   * Sends FIN behind everything that was taken; reads go on. Waits in line
   * behind writes that were started earlier. Repeating it resolves; on a torn or
   * failed write side it rejects with that reason.
   *
   * **Abort**: *total*, whatever was asked for. Either FIN was sent or nothing
   * happened.
   */
  shutdownWrite(options?: Abortable): Promise<void>
  /**
   * Ends the stream gracefully: waiting operations reject with `Closed`, taken
   * bytes are flushed, FIN follows, and the promise resolves when the descriptor
   * is released; after the linger time it aborts instead. Never rejects.
   * Idempotent.
   *
   * **Abort**: calling `abort` ends the wait.
   */
  close(): Promise<void>
  /**
   * Ends the stream now: waiting operations reject with `Closed`, bytes not yet
   * on their way are discarded, and the peer sees a reset where the platform can
   * send one. Resolves when the descriptor is released. Never rejects.
   * Idempotent.
   */
  abort(): Promise<void>
  /**
   * Looks whether a socket that was idle is as good as new, before it is used again:
   * nothing waits, and the peer has neither sent anything nor gone. Resolves within
   * a few turns of the event loop; bytes that have arrived stay for the next read.
   * See `StreamSocket.isReusable`. Never rejects.
   */
  isReusable(): Promise<boolean>
  /**
   * Changes options of the live connection; those that are absent stay. Rejects
   * with `Closed` after `close`, and with `Unsupported` for `userTimeout`, which
   * `NodeTransport` cannot set.
   */
  configure(options: LiveOptions): Promise<void>
  /**
   * Speaks TLS as a client from here on, where a protocol begins in plain text
   * (STARTTLS), and resolves to the socket over TLS. This one is consumed: its
   * operations reject with `Consumed`, and closing it closes the new one.
   *
   * Rejects as `Tls.client` fails. The socket stays as it was when it cannot be taken
   * over: operations wait on it (`Busy`), it is closed, torn or ended, or bytes came
   * before TLS and that no read has taken. After any other failure it is closed.
   *
   * **Abort**: *terminal*, the connection is gone when the promise rejects; asked for
   * less, it runs on.
   *
   * **Example** (STARTTLS)
   *
   * ```ts
   * await using plain = await connect("mail.example.com:587")
   * // ... until the server has agreed
   * const socket = await plain.tlsClient({ servername: "mail.example.com" })
   * console.log(socket.tls.protocol)
   * ```
   */
  tlsClient(tls: Tls.ClientOptions, options?: Abortable): Promise<TlsSocket>
  /**
   * Speaks TLS as a server from here on; everything else is as for
   * {@link tlsClient} and as `Tls.server` says.
   *
   * **Abort**: *terminal*, the connection is gone when the promise rejects; asked for
   * less, it runs on.
   */
  tlsServer(tls: Tls.ServerOptions | Tls.ServerContext, options?: Abortable): Promise<TlsSocket>
  /**
   * The bytes as they arrive, to the end of the stream, in chunks that are
   * memory of the consumer's own; chunk boundaries mean nothing. A failed read
   * is thrown into the loop.
   *
   * Nothing is read before it is asked for. Leaving the loop (`break`, `return`,
   * `throw`) loses no byte and closes nothing: later reads and other loops go
   * on. A pending `next()` is ended by `return()` and has read nothing then.
   *
   * **Example** (Echoing)
   *
   * ```ts
   * for await (const chunk of socket) await socket.writeAll(chunk)
   * ```
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array, undefined>
  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * A connected byte stream over TLS.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsSocket extends Socket {
  readonly stream: Tls.TlsSocket
  readonly tls: Tls.ConnectionInfo
}

/**
 * The socket over a stream of type `S`: a `TlsSocket` over a `Tls.TlsSocket`.
 *
 * @category models
 * @since 0.1.0
 */
export type SocketOver<S extends StreamSocket.StreamSocket> = S extends Tls.TlsSocket ? TlsSocket : Socket

/**
 * A listening address.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener<S extends Socket = Socket> extends AsyncIterable<S, undefined>, AsyncDisposable {
  /** The same listener for Effect code; with `tls`, what gives it connections that have not begun to speak it. */
  readonly acceptor: Acceptor.Acceptor
  /** The bound address, with the real port where port 0 was asked for. */
  readonly address: NetAddress.SocketAddress
  /**
   * Takes the next connection; the caller has to close it. It is unread until
   * its first read, whatever happens before.
   *
   * Rejects with `Closed` when the listener is closed, and with a passing reason
   * such as `TooManyOpenFiles` when one connection could not be taken; the next
   * `accept` may resolve then. Over TLS, it waits for a connection whose handshake
   * is done.
   *
   * **Abort**: *total*, whatever was asked for. No connection is lost: the next
   * `accept` gets it.
   */
  accept(options?: Abortable): Promise<S>
  /**
   * Releases the address: waiting `accept`s reject with `Closed`, loops end,
   * connections that were not accepted are reset, also in the middle of a
   * handshake. Accepted ones go on. Never rejects. Idempotent.
   */
  close(): Promise<void>
  /**
   * The connections as they come, until the listener is closed. A connection
   * that could not be taken is thrown into the loop, as `accept` rejects; the
   * listener goes on, and so may another loop.
   *
   * Leaving the loop (`break`, `return`, `throw`) loses no connection and does
   * not close the listener.
   *
   * **Example** (A server)
   *
   * ```ts
   * for await (const socket of listener) {
   *   serve(socket).catch(console.error)
   * }
   * ```
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<S, undefined>
  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Connects to an address or to a host and port, over `NodeTransport`, and with
 * `tls` speaks TLS. The caller has to close the socket.
 *
 * **Details**
 *
 * Strings are `host:port`, with IPv6 literals in brackets;
 * `NetAddress.unixPathAddress(path)` names a Unix-domain socket. Rejects as
 * `Connector.connect` fails: with the reason of the attempt and its address,
 * with `ConnectFailed` when a name has several addresses and all fail, with
 * `NameResolution` when it has none, with `Tls` when the handshake fails. Then
 * everything is closed.
 *
 * **Abort**: *total*, whatever was asked for; during the handshake of `tls`
 * *terminal*, and asked for less it runs on. The descriptor is released before the
 * promise rejects. After it has resolved the signal has no say in the socket.
 *
 * **Example** (At most a second)
 *
 * ```ts
 * await using socket = await connect("localhost:7000", { signal: AbortSignal.timeout(1000) })
 * ```
 *
 * **Example** (Over TLS)
 *
 * ```ts
 * await using socket = await connect("example.com:443", { tls: { alpn: ["http/1.1"] } })
 * console.log(socket.tls.protocol, socket.tls.alpn, socket.tls.peerCertificate?.subject)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect: {
  (
    target: Target,
    options: Connector.Options & Abortable & { readonly tls: NonNullable<Connector.Options["tls"]> }
  ): Promise<TlsSocket>
  (target: Target, options?: Connector.Options & Abortable): Promise<Socket>
} = (target: Target, options?: Connector.Options & Abortable): Promise<TlsSocket> =>
  // Without `tls` it is a plain socket, and the second signature says so.
  run(
    Effect.map(onNode(Connector.connect(target, options)), socketOver),
    options,
    () => ({ operation: "connect", address: nameOf(target), total: 0 })
  ) as Promise<TlsSocket>

/**
 * Listens on an address, or on the first address of a host and port, over
 * `NodeTransport`, and with `tls` speaks TLS. The caller has to close the listener.
 *
 * **Details**
 *
 * Port 0 binds a free port; read it from `address`. The socket options hold for
 * every accepted connection. Rejects as `Acceptor.listen` fails, with the
 * address: `AddressInUse`, `PermissionDenied`, ...
 *
 * **Abort**: *total*, while a name is looked up; binding itself takes a moment
 * only and completes. After it has resolved the signal has no say in the
 * listener.
 *
 * **Example** (An echo server)
 *
 * ```ts
 * await using listener = await listen("127.0.0.1:7000")
 * const echo = async (accepted: Socket) => {
 *   await using socket = accepted
 *   for await (const chunk of socket) await socket.writeAll(chunk)
 * }
 * for await (const socket of listener) echo(socket).catch(console.error)
 * ```
 *
 * **Example** (Over TLS)
 *
 * ```ts
 * await using listener = await listen("0.0.0.0:7443", {
 *   tls: { certificate, key: Redacted.make(key), alpn: ["echo"] },
 *   onHandshakeFailure: (error) => console.debug(error.message)
 * })
 * for await (const socket of listener) console.log(socket.remoteAddress, socket.tls.alpn)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const listen: {
  (
    target: Target,
    options: ListenerOptions & { readonly tls: NonNullable<ListenerOptions["tls"]> }
  ): Promise<Listener<TlsSocket>>
  (target: Target, options?: ListenerOptions): Promise<Listener>
} = (target: Target, options?: ListenerOptions): Promise<Listener<TlsSocket>> => {
  const listening = onNode(Acceptor.listen(target, options))
  const tls = options?.tls
  // Without `tls` it gives plain sockets, and the second signature says so.
  return run(
    tls === undefined ? Effect.map(listening, fromAcceptor) : Effect.suspend(() =>
      // At once: a key that cannot be used is not the fault of those who connect.
      Effect.flatMap("reload" in tls ? Effect.succeed(tls) : Tls.makeServerContext(tls), (context) =>
        Effect.map(listening, (acceptor) => {
          const secured = new TlsAcceptQueue(acceptor, context, options?.onHandshakeFailure)
          const accept = Effect.map(secured.take, (socket) =>
            new TlsPromiseSocket(socket))
          return new PromiseListener(acceptor, accept, secured.close)
        }))
    ),
    options,
    () => ({ operation: "listen", address: nameOf(target), total: 0 })
  ) as Promise<Listener<TlsSocket>>
}

/**
 * Hands a connection of Effect code, over whatever transport, to async code. It
 * stays one connection: either side may use it, and the code that opened it closes it.
 *
 * **Example** (Calling async code with a connection)
 *
 * ```ts
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const socket = yield* StreamSocket.connect("localhost:7000")
 *   return yield* Effect.promise(() => converse(fromStreamSocket(socket)))
 * }))
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromStreamSocket = <S extends StreamSocket.StreamSocket>(stream: S): SocketOver<S> =>
  // `SocketOver` states the same choice as a type.
  socketOver(stream) as SocketOver<S>

/**
 * Hands an acceptor of Effect code, over whatever transport, to async code.
 *
 * **Example** (Accepting in async code)
 *
 * ```ts
 * const acceptor = yield* Acceptor.listen("127.0.0.1:7000")
 * yield* Effect.promise(() => serve(fromAcceptor(acceptor)))
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromAcceptor = (acceptor: Acceptor.Acceptor): Listener =>
  new PromiseListener(acceptor, Effect.map(acceptor.take, (socket) => fromStreamSocket(socket)), acceptor.close)

// ---- internal

// Built with the first connection and never disposed of, because it holds nothing open.
const node = ManagedRuntime.make(NodeTransport.layer)

const onNode = <A>(
  effect: Effect.Effect<A, SocketError, Transport | AddressResolver.AddressResolver | Scope.Scope>
): Effect.Effect<A, SocketError> =>
  Effect.flatMap(node.contextEffect, (context) => detachScope(Effect.provideContext(effect, context)))

/**
 * A socket as Node's `Duplex`, and any `Duplex` as a socket.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import type { X509Certificate } from "node:crypto"
import type { Duplex } from "node:stream"
import * as StreamSocket from "../StreamSocket.ts"
import { resolveOptions, type SocketOptions } from "../Transport.ts"
import { DuplexBacking } from "./internal/DuplexBacking.ts"
import { DuplexOverSocket } from "./internal/DuplexOverSocket.ts"

/**
 * The stream that `toDuplex` makes: a `Duplex` with those members of `net.Socket` that
 * libraries ask of a socket they are given.
 *
 * **Details**
 *
 * - `connecting` and `pending` are always `false`: it is connected from birth.
 * - `bytesRead` and `bytesWritten` are those of the socket: `bytesWritten`
 *   counts bytes taken, not bytes that wait in the `Duplex`.
 * - `ref` and `unref` do nothing: a socket keeps its process alive for as long
 *   as its scope is open.
 * - `setTimeout` emits `"timeout"` after that many milliseconds without a byte
 *   in either direction, by the `Clock` of the effect that made it.
 * - `resetAndDestroy` aborts the socket without an error of its own.
 * - A Unix-domain socket has no `remoteAddress`, as in Node.
 *
 * @category models
 * @since 0.1.0
 */
export interface SocketDuplex extends Duplex {
  readonly connecting: false
  readonly pending: false
  readonly readyState: "open" | "readOnly" | "writeOnly" | "closed"
  readonly bytesRead: number
  readonly bytesWritten: number
  readonly remoteAddress: string | undefined
  readonly remotePort: number | undefined
  readonly remoteFamily: "IPv4" | "IPv6" | undefined
  readonly localAddress: string | undefined
  readonly localPort: number | undefined
  readonly localFamily: "IPv4" | "IPv6" | undefined
  /** Milliseconds, as set by `setTimeout`. */
  readonly timeout: number | undefined
  readonly address: () => { readonly address?: string; readonly port?: number; readonly family?: "IPv4" | "IPv6" }
  /** Whether the socket is a `Tls.TlsSocket`. */
  readonly encrypted: boolean
  /** Of a TLS stream: `Tls.ConnectionInfo.authorized`. */
  readonly authorized: boolean | undefined
  /** Of a TLS stream: the protocol, or `false` if none was negotiated. */
  readonly alpnProtocol: string | false | undefined
  /** The certificate of the peer in the form of `tls.TLSSocket`; empty if there is none. */
  readonly getPeerCertificate: () => Partial<ReturnType<X509Certificate["toLegacyObject"]>>
  /** Emits `"connect"` and `"ready"` and connects nothing, for those who connect each socket that they are given. */
  readonly connect: (...args: ReadonlyArray<unknown>) => this
  readonly setNoDelay: (noDelay?: boolean) => this
  /** `initialDelay` is in milliseconds; 0 leaves it to the system. */
  readonly setKeepAlive: (enable?: boolean, initialDelay?: number) => this
  readonly setTimeout: (milliseconds: number, callback?: () => void) => this
  readonly ref: () => this
  readonly unref: () => this
  /** Ends the write side, and destroys the stream when everything written was taken. */
  readonly destroySoon: () => void
  readonly resetAndDestroy: () => this
}

/**
 * Options of {@link toDuplex}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ToDuplexOptions {
  /**
   * Whether the write side stays open when the peer ends its own. Default `false`, as for `net.Socket`. A server of
   * `node:http` asks for `true`: its clients may end their side before they have the answer.
   */
  readonly allowHalfOpen?: boolean | undefined
  /**
   * The most bytes that are read ahead of the consumer, and how many may wait
   * to be written before `write` answers `false`. Default 65,536.
   */
  readonly highWaterMark?: number | undefined
  /**
   * The addresses to show instead of those of the socket, such as the `endpoints` of a PROXY header
   * (`ProxyProtocol.receive`): `source` is the remote one and `destination` the local one.
   */
  readonly endpoints?: {
    readonly source: NetAddress.SocketAddress
    readonly destination: NetAddress.SocketAddress
  } | undefined
}

/**
 * A socket as a `Duplex` that passes for a `net.Socket`: for `http`, `http2`,
 * `tls`, `undici`, database drivers, and whatever else takes one. It is
 * destroyed with the scope, which waits for its `"close"`.
 *
 * **Details**
 *
 * - Reading is on demand: nothing is read before the first consumer, and then
 *   up to `highWaterMark` ahead of it. While it waits for bytes it holds one
 *   chunk of that size.
 * - Each write is one `Write.writeAll`; corked and queued chunks leave in one
 *   gather write. Its callback comes when all of it was taken.
 * - `end` is `shutdownWrite`, behind everything written. The peer's end of
 *   stream is `"end"`.
 * - When both sides have ended, or on `destroy()`, the socket is closed
 *   gracefully; on `destroy(error)` it is aborted. `"close"` follows, once, when
 *   the descriptor is released.
 * - A failure destroys the stream with an errno-like `Error`: `code`
 *   (`"ECONNRESET"`, `"EPIPE"`, ...), `errno`, `syscall`, and the `SocketError`
 *   as its `cause`. A socket that was closed by other means is
 *   `"ECONNABORTED"`. Without a listener, the `"error"` event does nothing.
 *
 * - Events of the connection run in the async context of the effect that made the
 *   stream.
 *
 * No other code should read or write the socket while the Duplex exists.
 *
 * **Beside `net.Socket`**
 *
 * The events and their order are those of a connected `net.Socket`, whatever the
 * peer does, with these differences. Each comes from reading on demand: a `net.Socket`
 * reads from birth.
 *
 * | without a consumer | `net.Socket` | here |
 * |---|---|---|
 * | the peer ends | `end`, `finish`, `close` | nothing before `end()`; then `finish`, `end`, `close` |
 * | the peer resets | `error`, `close` | nothing before `end()`; then `finish`, `error`, `close` |
 * | the peer resets, and `destroy()` | `error`, `close` | `close` |
 *
 * **What is lost**
 *
 * - Exact accounting: bytes in the queue of the `Duplex` are not taken yet, and
 *   go nowhere when it is destroyed.
 * - After a failed write Node destroys both directions. While there is a consumer, the
 *   failure waits until the consumer has what the peer said before it went, for at most the
 *   linger time of the socket. What is not read by then is lost. `Write` on the
 *   socket itself has no such limit.
 * - Bytes that were read ahead and not consumed go with the `Duplex`. To hand the
 *   socket back, consume them first.
 *
 * **Interruption**: `destroy()` and the end of the scope interrupt the write at
 * hand, by the `Cancellation.Policy` of the effect that made the stream, before
 * they close the socket. Requests of signals around that effect reach its operations,
 * and destroy the stream with the code `"ECANCELED"`.
 *
 * **Example** (Serving HTTP)
 *
 * ```ts
 * const server = Http.createServer((request, response) => request.pipe(response))
 * const acceptor = yield* Acceptor.listen("127.0.0.1:8080")
 * yield* Acceptor.serve(acceptor, (socket) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const duplex = yield* NodeDuplex.toDuplex(socket, { allowHalfOpen: true })
 *     server.emit("connection", duplex)
 *     yield* Effect.callback<void>((resume) => void duplex.once("close", () => resume(Effect.void)))
 *   })))
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toDuplex = (
  socket: StreamSocket.StreamSocket,
  options?: ToDuplexOptions
): Effect.Effect<SocketDuplex, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(
      Effect.context(),
      (context) => new DuplexOverSocket(socket, context, options)
    ),
    (duplex) => duplex.released
  )

/**
 * Any `Duplex` as a socket: a `net.Socket` or `tls.TLSSocket` that a library
 * hands out, the standard streams of a child process joined by
 * `Duplex.from`, or one end of `stream.duplexPair`. Closed with the scope.
 *
 * **Details**
 *
 * - Reads are on demand and *total*: bytes wait in the `Duplex` until a read
 *   takes them.
 * - A write copies at most `sliceSize` bytes into memory of its own and hands
 *   that over, as long as `Duplex.write` has not answered `false`; so at most
 *   its `writableHighWaterMark` is taken ahead.
 * - `shutdownWrite` is `end`. `close` flushes and destroys; `abort` destroys
 *   with an error, or with a reset where the stream has `resetAndDestroy`.
 * - An `"error"` becomes a `SocketError` by its `code`, with the original as
 *   `cause`. A stream that is destroyed without one fails with
 *   `ConnectionReset`.
 * - Addresses, `noDelay` and the idle time of `keepAlive` are those of the
 *   stream, where it has them. `configure` ignores everything else.
 *
 * The `Duplex` must emit `"close"`, must not be in object mode or decode text,
 * and must not be used by other code meanwhile: otherwise it is a defect
 * (`TypeError`), or bytes go astray.
 *
 * **What is lost**
 *
 * - "Taken" means that the `Duplex` took it. What it then does with the bytes is
 *   its own affair.
 * - A `Duplex` made with `allowHalfOpen: false` ends its write side with the
 *   peer's; later writes fail with `BrokenPipe`.
 * - A failure of one direction destroys both. What had been received before is
 *   still read.
 * - Before Node 24, a `net.Socket` reports a reset behind unread bytes as the end
 *   of the stream.
 *
 * **Interruption**: as for every `StreamSocket`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromDuplex = (
  duplex: Duplex,
  options?: Pick<SocketOptions, "linger" | "sliceSize">
): Effect.Effect<StreamSocket.StreamSocket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { linger, sliceSize } = resolveOptions(options)
      if (duplex.readableObjectMode || duplex.writableObjectMode || duplex.readableEncoding !== null) {
        throw new TypeError("fromDuplex: a stream of objects or text is not a stream of bytes")
      }
      return StreamSocket.make(new DuplexBacking(duplex, sliceSize), { linger })
    }),
    (socket) => socket.close
  )

/**
 * A socket as Web streams, and Web streams as a socket.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type {
  ReadableStream as WebReadableStream,
  ReadableWritablePair,
  WritableStream as WebWritableStream
} from "node:stream/web"
import { noop } from "../internal/base/noEvents.ts"
import * as StreamSocket from "../StreamSocket.ts"
import { resolveOptions, type SocketOptions } from "../Transport.ts"
import { acquireSource } from "./internal/readableOver.ts"
import { type WebHalves, WebStreamsBacking } from "./internal/WebStreamsBacking.ts"
import { acquireSink } from "./internal/writableOver.ts"

/**
 * A chunk that a `WritableStream` of ours accepts: any view of memory, or an
 * `ArrayBuffer`. Text has to be encoded first (`TextEncoderStream`).
 *
 * @category models
 * @since 0.1.0
 */
export type Chunk = ArrayBufferView | ArrayBuffer

/**
 * The bytes of a stream to its end, as a `ReadableStream` of the `"bytes"` type.
 *
 * **Details**
 *
 * - Nothing is read before it is asked for, and nothing ahead.
 * - A BYOB reader (`getReader({ mode: "byob" })`) has its bytes put straight
 *   into its own memory. Any other reader gets chunks of its own, as they
 *   arrive, of at most `chunkSize` bytes (default 65,536).
 * - It closes at end of stream, and errors with the `SocketError` of the read.
 *   When the scope ends before that, it errors with the reason `Closed`.
 * - `cancel` stops reading. It leaves the socket open, and every byte that was
 *   not delivered unread: a read that waits loses nothing.
 *
 * **What is lost**: `tee` reads ahead for the slower branch without bounds, and
 * `releaseLock` on a reader whose read waits lets one chunk be read ahead; both
 * are of Web streams.
 *
 * **Interruption**: the end of the scope interrupts a read that waits, *totally*.
 *
 * **Example** (Piping a socket through a decompressor)
 *
 * ```ts
 * const bytes = yield* WebStreams.toReadableStream(socket)
 * const text = yield* Effect.promise(() =>
 *   new Response(bytes.pipeThrough(new DecompressionStream("gzip"))).text()
 * )
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toReadableStream = (
  socket: StreamSocket.ReadStream,
  options?: { readonly chunkSize?: number | undefined }
): Effect.Effect<WebReadableStream<Uint8Array>, never, Scope.Scope> =>
  Effect.map(acquireSource(socket, options?.chunkSize, noop), (source) => source.stream)

/**
 * A `WritableStream` that writes every chunk whole, in order.
 *
 * **Details**
 *
 * - Each chunk is one `Write.writeAll`, and its `write` resolves when all of it
 *   was taken. The next chunk waits until then, so `writer.ready` is the
 *   backpressure of the socket.
 * - `close` is `shutdownWrite`, behind everything written.
 * - `abort` interrupts the write at hand. Under the `terminal` policy (the
 *   default) it then aborts the socket, so that the peer cannot take what it
 *   has for all there was. Under `partial` and `total` it leaves the socket as
 *   the write left it: usable.
 * - A failed write errors the stream with its `SocketError`; a chunk that is not
 *   bytes, with a `TypeError`.
 *
 * **What is lost**: how far a chunk that was cut had come. Write through
 * `Write.writeAll` where that matters.
 *
 * **Interruption**: the end of the scope does what `abort` does, but leaves the
 * socket open; a stream that was not closed errors with the reason `Closed`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toWritableStream = (
  socket: StreamSocket.WriteStream & Pick<StreamSocket.StreamSocket, "shutdownWrite" | "abort">
): Effect.Effect<WebWritableStream<Chunk>, never, Scope.Scope> =>
  Effect.map(acquireSink(socket, noop), (sink) => sink.stream)

/**
 * Both directions of a socket, as the sockets of Deno and of Cloudflare's
 * workers have them. When both are over (closed, cancelled, aborted or failed)
 * the socket is closed.
 *
 * Each direction is as {@link toReadableStream} and {@link toWritableStream}
 * make it.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toWebStreams = (
  socket: StreamSocket.StreamSocket,
  options?: { readonly chunkSize?: number | undefined }
): Effect.Effect<
  { readonly readable: WebReadableStream<Uint8Array>; readonly writable: WebWritableStream<Chunk> },
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const run = Effect.runForkWith(yield* Effect.context())
    let open = 2
    const closing = yield* Effect.acquireRelease(
      Effect.succeed<{ fiber?: Fiber.Fiber<void> }>({}),
      ({ fiber }) => fiber === undefined ? Effect.void : Effect.asVoid(Fiber.await(fiber))
    )
    const onOver = () => {
      if (--open === 0) closing.fiber = run(socket.close)
    }
    const source = yield* acquireSource(socket, options?.chunkSize, onOver)
    const sink = yield* acquireSink(socket, onOver)
    return { readable: source.stream, writable: sink.stream }
  })

/**
 * A `ReadableStream` of bytes as a stream of ours. It is locked, and cancelled
 * with the scope.
 *
 * **Details**
 *
 * A chunk is asked for when a read finds none, one at a time; what a read does
 * not take of it waits for the next. End of stream is `Cause.Done`. A stream
 * that errors with a `SocketError` fails with that; with any other error, by its
 * `code` if it has one, else with `Unknown`, and the error as `cause`. So does a
 * chunk that is not bytes.
 *
 * **What is lost**: a stream that errors discards what it had queued. A
 * BYOB reader would take the memory of the caller away, so bytes are copied.
 *
 * **Interruption**: reads are *total*.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromReadableStream = (
  stream: WebReadableStream<Uint8Array>
): Effect.Effect<StreamSocket.ReadStream, never, Scope.Scope> => fromWeb({ readable: stream }, undefined)

/**
 * A `WritableStream` of bytes as a stream of ours. It is locked; the end of the
 * scope closes it, or aborts it if the scope ends in failure or a write was cut
 * in the middle.
 *
 * **Details**
 *
 * A write copies at most `sliceSize` bytes (default 65,536) into memory of its
 * own and hands that over, as long as the stream asks for more. `shutdownWrite`
 * is `close`, behind everything taken.
 *
 * **What is lost**: "taken" means that the stream took it. A sink that fails
 * later fails the next write, and one that fails while it closes fails nothing.
 *
 * **Interruption**: as for every `WriteStream`; a `writeAll` that is cut tears
 * the stream by policy.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromWritableStream = (
  stream: WebWritableStream<Uint8Array>,
  options?: Pick<SocketOptions, "linger" | "sliceSize">
): Effect.Effect<
  StreamSocket.WriteStream & Pick<StreamSocket.StreamSocket, "shutdownWrite">,
  never,
  Scope.Scope
> => fromWeb({ writable: stream }, options)

/**
 * A pair of Web streams as a socket: of Deno, of Cloudflare's workers, of a
 * `WebSocketStream` or a `TransformStream`.
 *
 * Its directions are as {@link fromReadableStream} and {@link fromWritableStream}
 * make them. `close` closes the one and cancels the other; `abort` aborts and
 * cancels. It has no addresses and no options.
 *
 * **Interruption**: as for every `StreamSocket`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromWebStreams = (
  pair: ReadableWritablePair<Uint8Array, Uint8Array>,
  options?: Pick<SocketOptions, "linger" | "sliceSize">
): Effect.Effect<StreamSocket.StreamSocket, never, Scope.Scope> => fromWeb(pair, options)

// ---- internal

const fromWeb = (
  streams: WebHalves,
  options: Pick<SocketOptions, "linger" | "sliceSize"> | undefined
): Effect.Effect<StreamSocket.StreamSocket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { linger, sliceSize } = resolveOptions(options)
      return StreamSocket.make(new WebStreamsBacking(streams, sliceSize), { linger })
    }),
    // A sink that is closed takes what it has for all there was.
    (socket, exit) => Exit.isSuccess(exit) && socket.state.write !== "torn" ? socket.close : socket.abort
  )

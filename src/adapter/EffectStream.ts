/**
 * A socket's bytes as an Effect `Stream`, an Effect `Sink` into a socket, and
 * both at once as a `Channel`.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type * as Buffers from "../Buffers.ts"
import { positiveInteger } from "../internal/base/checks.ts"
import { duplex } from "../internal/operations/duplex.ts"
import type { SocketError } from "../SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../StreamSocket.ts"
import * as Write from "../Write.ts"

/**
 * The bytes of a stream to its end, in chunks as they arrive.
 *
 * **Details**
 *
 * Nothing is read before it is pulled, and each chunk (at most `chunkSize`
 * bytes, default 65,536) is memory of the consumer's own. Chunk boundaries mean
 * nothing. Ends at end of stream and fails with the `SocketError` of the read.
 * The socket is neither closed nor half-closed.
 *
 * **Interruption**: *total* for the bytes not yet pulled: they stay unread.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toStream = (
  socket: ReadStream,
  options?: { readonly chunkSize?: number | undefined }
): Stream.Stream<Uint8Array, SocketError> =>
  Stream.fromPull(Effect.sync(() => pullFrom(socket, "toStream", options?.chunkSize)))

/**
 * A sink that writes every element whole, in order, and ends with the number of
 * bytes taken.
 *
 * **Details**
 *
 * The elements of one chunk leave in one gather write. The sink waits for room
 * before it takes more, so backpressure reaches the producer. It neither closes
 * nor half-closes the socket; follow it with `socket.shutdownWrite` to tell the
 * peer.
 *
 * **Interruption**: as `Write.writeAll` of the chunk at hand, by
 * `Cancellation.Policy`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toSink = (socket: WriteStream): Sink.Sink<number, Buffers.View, never, SocketError> =>
  Sink.suspend(() => {
    let written = 0
    return Sink.map(
      Sink.forEachArray((chunk: Arr.NonEmptyReadonlyArray<Buffers.View>) =>
        Effect.map(Write.writeAll(socket, chunk), (count) => {
          written += count
        })
      ),
      () => written
    )
  })

/**
 * A socket as a channel: what it is fed is written, and what arrives is its
 * output. Protocols that are channels (`Ndjson.duplex`, `Stream.pipeThroughChannel`)
 * talk over a socket that way.
 *
 * **Details**
 *
 * - Reading is as in {@link toStream} and writing as in {@link toSink}: nothing
 *   is read before it is pulled, and the next input is pulled when the last was
 *   taken whole. The two go on independently.
 * - The input's end is `shutdownWrite`; reads go on. The peer's end of stream is
 *   the channel's.
 * - A failed write, or a failure of the input, ends the channel with that
 *   failure, and a read that waits. What the peer said last stays unread then,
 *   for a later read of the socket.
 *
 * **What is lost**: a channel is over when its output is. Input that has not
 * been written by then is dropped, and a write that is under way is interrupted.
 * Where the peer may end its side first, use {@link toStream} and {@link toSink}.
 *
 * **Interruption**: *total* for bytes not yet pulled. The write at hand is
 * interrupted, by `Cancellation.Policy`. The socket stays open.
 *
 * **Example** (Exchanging messages of newline-delimited JSON)
 *
 * ```ts
 * const answers = requests.pipe(
 *   Stream.pipeThroughChannel(Ndjson.duplex(EffectStream.toChannel<Ndjson.NdjsonError>(socket)))
 * )
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toChannel = <IE = never>(
  socket: StreamSocket,
  options?: { readonly chunkSize?: number | undefined }
): Channel.Channel<
  Arr.NonEmptyReadonlyArray<Uint8Array>,
  SocketError | IE,
  void,
  Arr.NonEmptyReadonlyArray<Buffers.View>,
  IE
> =>
  Channel.fromTransform((upstream: Pull.Pull<Arr.NonEmptyReadonlyArray<Buffers.View>, IE, unknown>, scope) =>
    duplex({
      upstream,
      scope,
      write: (chunk) => Write.writeAll(socket, chunk),
      end: socket.shutdownWrite,
      read: pullFrom(socket, "toChannel", options?.chunkSize)
    })
  )

// ---- internal

const defaultChunkSize = 65_536

/** Reads one chunk each time it is run, into memory of the consumer's own. */
const pullFrom = (
  socket: ReadStream,
  operation: string,
  chunkSize = defaultChunkSize
): Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>, SocketError> => {
  positiveInteger(`${operation}: chunkSize`, chunkSize, "bytes")
  // One landing place per stream: what leaves it is copied to the size of what arrived.
  const receiveBuffer = new Uint8Array(chunkSize)
  return Effect.map(socket.readSome(receiveBuffer), (count) => [receiveBuffer.slice(0, count)])
}

/**
 * A socket's bytes as an Effect `Stream`, and an Effect `Sink` into a socket.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type * as Buffers from "../Buffers.ts"
import type { SocketError } from "../SocketError.ts"
import type { ReadStream, WriteStream } from "../StreamSocket.ts"
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
  Stream.fromPull(
    Effect.sync(() => {
      const chunkSize = options?.chunkSize ?? defaultChunkSize
      if (!Number.isInteger(chunkSize) || chunkSize <= 0) {
        throw new RangeError(`toStream: chunkSize ${chunkSize} is not a positive whole number of bytes`)
      }
      // One landing place per stream: what leaves it is copied to the size of what arrived.
      const landing = new Uint8Array(chunkSize)
      return Effect.map(socket.readSome(landing), (count): Arr.NonEmptyReadonlyArray<Uint8Array> => [
        landing.slice(0, count)
      ])
    })
  )

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

// ---- internal

const defaultChunkSize = 65_536

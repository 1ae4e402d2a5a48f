/**
 * Composed writes: loops over the attempts of any stream.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Buffers from "./Buffers.ts"
import * as CompletionCondition from "./CompletionCondition.ts"
import { isWriteStream } from "./internal/operations/isStream.ts"
import { plain, run } from "./internal/operations/write.ts"
import type { SocketError } from "./SocketError.ts"
import type * as StreamSocket from "./StreamSocket.ts"

/**
 * Writes from the buffers until the condition is met (by default: all bytes)
 * and succeeds with how many were taken.
 *
 * **Details**
 *
 * Holds the write direction from its first byte to its end: no other write
 * comes in between, and two `writeAll` never interleave. A gather list leaves
 * in order, in as few steps as the transport can take it.
 *
 * Fails with the reason of the stream: `Closed`, `Torn`, `BrokenPipe`,
 * `ConnectionReset`, ...; `transferred` and `total` on the error count the bytes
 * of this operation. The buffers belong to the caller again when the effect
 * ends, however it ends.
 *
 * Pass a `Buffers.Cursor` to keep the count in every case: the operation
 * advances it in place, and passing it again sends the rest.
 *
 * **Interruption**: by `Cancellation.Policy`, when `k` of `n` bytes were taken:
 *
 * - `k = 0`, under every policy: *total*, nothing happened.
 * - `terminal` (the default): stops at once; the stream is torn, and later
 *   writes fail with `Torn`. Close or abort it.
 * - `partial`: stops at once; the stream is usable. Go on with the cursor.
 * - `total`: goes on to `n`, and the interruption proceeds then; with
 *   `{ within }` it becomes `terminal` after that time.
 *
 * `Cancellation.transfer(cause)` tells `k`, `n` and the guarantee that was kept.
 * A request (`Cancellation.withSignal`, `cancelAfter`) is honoured as `total`
 * while `k = 0`, and afterwards if it asks for `partial` or `terminal`.
 * On streams that are not ours (anything with a `writeSome`) there is no torn
 * state and no queue: the caller keeps writers apart.
 *
 * **Example** (Stopping and going on)
 *
 * ```ts
 * const message = Buffers.cursor([header, body])
 * yield* Write.writeAll(socket, message).pipe(Cancellation.partial, Effect.timeoutOption("1 second"))
 * yield* Console.log(`${message.transferred} of ${message.total} bytes taken so far`)
 * yield* Write.writeAll(socket, message)
 * ```
 *
 * @category writing
 * @since 0.1.0
 */
export const writeAll: {
  (
    source: Buffers.Input | Buffers.Cursor,
    condition?: CompletionCondition.Input
  ): (stream: StreamSocket.WriteStream) => Effect.Effect<number, SocketError>
  (
    stream: StreamSocket.WriteStream,
    source: Buffers.Input | Buffers.Cursor,
    condition?: CompletionCondition.Input
  ): Effect.Effect<number, SocketError>
} = dual(
  (args) => isWriteStream(args[0]),
  (
    stream: StreamSocket.WriteStream,
    source: Buffers.Input | Buffers.Cursor,
    condition: CompletionCondition.Input = CompletionCondition.transferAll
  ): Effect.Effect<number, SocketError> => run(stream, source, condition, plain)
)

/**
 * Bytes from one stream to another, one way or both.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Pull from "effect/Pull"
import * as Buffers from "./Buffers.ts"
import * as Read from "./Read.ts"
import { Reason, SocketError } from "./SocketError.ts"
import type { ReadStream, WriteStream } from "./StreamSocket.ts"
import * as Write from "./Write.ts"

/**
 * A stream of both directions whose outgoing one can be ended by itself, as
 * every `StreamSocket` is.
 *
 * @category models
 * @since 0.1.0
 */
export interface DuplexStream extends ReadStream, WriteStream {
  readonly shutdownWrite: Effect.Effect<void, SocketError>
}

/**
 * How many bytes went which way: `sent` from the first stream to the second,
 * `received` from the second to the first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Counts {
  readonly sent: number
  readonly received: number
}

/**
 * Writes everything that `from` reads to `to`, up to the end of stream, and
 * succeeds with the number of bytes.
 *
 * **Details**
 *
 * One buffer of `bufferSize` bytes (default 65,536) serves the whole copy, and
 * nothing is read before the last bytes were taken: a slow receiver slows the
 * sender. Neither stream is closed or half-closed. Fails with the `SocketError`
 * of either side.
 *
 * When it fails or is cut, bytes that were read and not taken go back to the
 * front of `from` (see `Read.unread`), so that another copy goes on exactly
 * there.
 *
 * **Interruption**: *total* while it waits for bytes. In the middle of writing
 * them, by `Cancellation.Policy`: `terminal` tears `to`; `partial` stops, with
 * both streams usable and not one byte lost; `total` writes what was read first.
 *
 * @category copying
 * @since 0.1.0
 */
export const copy: {
  (
    to: WriteStream,
    options?: { readonly bufferSize?: number | undefined }
  ): (from: ReadStream) => Effect.Effect<number, SocketError>
  (
    from: ReadStream,
    to: WriteStream,
    options?: { readonly bufferSize?: number | undefined }
  ): Effect.Effect<number, SocketError>
} = dual(
  (args) => isReadStream(args[0]) && isWriteStream(args[1]),
  (
    from: ReadStream,
    to: WriteStream,
    options?: { readonly bufferSize?: number | undefined }
  ): Effect.Effect<number, SocketError> => pump(from, to, options?.bufferSize ?? defaultBufferSize, ignore)
)

/**
 * Joins two streams: everything that one reads is written to the other, both
 * ways at once, until both have ended; succeeds with the counts.
 *
 * **Details**
 *
 * The end of one direction is passed on (`shutdownWrite`), and the other goes
 * on. A failure in one direction ends both. With `idle`, a time in which no byte
 * moves in either direction is a failure with the reason `TimedOut`. Neither
 * stream is closed.
 *
 * **Interruption**: as {@link copy}, in both directions.
 *
 * **Example** (A port forwarder)
 *
 * ```ts
 * yield* Acceptor.serve(acceptor, (client) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const server = yield* StreamSocket.connect("db.internal:5432")
 *     const { received, sent } = yield* Relay.relay(client, server, { idle: "5 minutes" })
 *     yield* Effect.logInfo(`${sent} bytes up, ${received} bytes down`)
 *   })))
 * ```
 *
 * @category copying
 * @since 0.1.0
 */
export const relay: {
  (
    that: DuplexStream,
    options?: { readonly bufferSize?: number | undefined; readonly idle?: Duration.Input | undefined }
  ): (self: DuplexStream) => Effect.Effect<Counts, SocketError>
  (
    self: DuplexStream,
    that: DuplexStream,
    options?: { readonly bufferSize?: number | undefined; readonly idle?: Duration.Input | undefined }
  ): Effect.Effect<Counts, SocketError>
} = dual(
  (args) => isReadStream(args[0]) && isReadStream(args[1]),
  (
    self: DuplexStream,
    that: DuplexStream,
    options?: { readonly bufferSize?: number | undefined; readonly idle?: Duration.Input | undefined }
  ): Effect.Effect<Counts, SocketError> =>
    Clock.clockWith((clock) => {
      const bufferSize = options?.bufferSize ?? defaultBufferSize
      const idle = options?.idle === undefined ? Duration.infinity : Duration.fromInputUnsafe(options.idle)
      let lastMove = clock.currentTimeMillisUnsafe()
      const moved = Duration.isFinite(idle)
        ? () => {
          lastMove = clock.currentTimeMillisUnsafe()
        }
        : ignore
      const oneWay = (from: DuplexStream, to: DuplexStream) =>
        Effect.tap(pump(from, to, bufferSize, moved), () => to.shutdownWrite)
      const both = Effect.all({ sent: oneWay(self, that), received: oneWay(that, self) }, { concurrency: 2 })
      return Duration.isFinite(idle) ? Effect.raceFirst(both, silence(clock, idle, () => lastMove)) : both
    })
)

// ---- internal

const defaultBufferSize = 65_536

const ignore = (): void => {}

const isReadStream = (u: unknown): u is ReadStream => typeof u === "object" && u !== null && "readSome" in u

const isWriteStream = (u: unknown): u is WriteStream => typeof u === "object" && u !== null && "writeSome" in u

const pump = (
  from: ReadStream,
  to: WriteStream,
  bufferSize: number,
  moved: () => void
): Effect.Effect<number, SocketError> =>
  Effect.suspend(() => {
    if (!Number.isInteger(bufferSize) || bufferSize <= 0) {
      throw new RangeError(`relay: bufferSize ${bufferSize} is not a positive whole number of bytes`)
    }
    const buffer = new Uint8Array(bufferSize)
    let total = 0
    const write = (count: number): Effect.Effect<void, SocketError> => {
      const cursor = Buffers.cursor(buffer.subarray(0, count))
      return Effect.onExit(Write.writeAll(to, cursor), (exit) => {
        total += cursor.transferred
        moved()
        return Exit.isSuccess(exit) || cursor.remaining === 0
          ? Effect.void
          // A stream that is closed has no use for them.
          : Effect.ignore(Read.unread(from, buffer.subarray(cursor.transferred, count)))
      })
    }
    return Effect.forever(Effect.flatMap(from.readSome(buffer), write), { disableYield: true }).pipe(
      Pull.catchDone(() => Effect.sync(() => total))
    )
  })

/** Fails once nothing has moved for so long. */
const silence = (
  clock: Clock.Clock,
  idle: Duration.Duration,
  lastMove: () => number
): Effect.Effect<never, SocketError> =>
  Effect.suspend(() => {
    const rest = lastMove() + Duration.toMillis(idle) - clock.currentTimeMillisUnsafe()
    return rest > 0
      ? Effect.flatMap(Effect.sleep(rest), () => silence(clock, idle, lastMove))
      : Effect.fail(new SocketError({ reason: Reason.TimedOut(), operation: "relay", transferred: 0 }))
  })

/**
 * Bytes from one stream to another, one way or both.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Buffers from "./Buffers.ts"
import * as Cancellation from "./Cancellation.ts"
import { positiveInteger } from "./internal/base/checks.ts"
import { monotonicMillis } from "./internal/base/monotonic.ts"
import { noop } from "./internal/base/noEvents.ts"
import { abortedBy } from "./internal/cancellation/aborted.ts"
import { guaranteeOfTransfer } from "./internal/cancellation/guarantee.ts"
import { proceed } from "./internal/cancellation/interruption.ts"
import { coreOf } from "./internal/core/Socket.ts"
import * as ForeignStream from "./internal/operations/foreignStream.ts"
import { isReadStream, isWriteStream } from "./internal/operations/isStream.ts"
import { isTraced, traced } from "./internal/operations/tracing.ts"
import * as Read from "./Read.ts"
import { during, Reason, SocketError } from "./SocketError.ts"
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
 * How bytes are relayed.
 *
 * **Details**
 *
 * - `bufferSize`: the most bytes that are moved in one step, and the memory of
 *   each direction. Default 65,536.
 * - `idle`: how long no byte may move in either direction. Default: for ever.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly bufferSize?: number | undefined
  readonly idle?: Duration.Input | undefined
}

/**
 * Writes everything that `from` reads to `to`, up to the end of stream, and
 * succeeds with the number of bytes.
 *
 * **Details**
 *
 * One buffer of `bufferSize` bytes (default 65,536) serves the whole copy, and
 * nothing is read before the last bytes were taken: a slow receiver slows the
 * sender. Neither stream is closed or half-closed. What composed reads have left
 * over in `from` comes first.
 *
 * Fails with the reason of either side; `transferred` is what `to` has taken in
 * all. When it fails or is cut, bytes that were read and not taken go back to
 * the front of `from` (see `Read.unread`), so that another copy goes on exactly
 * there.
 *
 * **Interruption**: no byte is lost. While it waits for bytes it stops there. In
 * the middle of writing them, by `Cancellation.Policy`: `terminal` tears `to`;
 * `partial` stops, with both streams usable; `total` finishes a buffer of which
 * some has left.
 * `Cancellation.transfer(cause)` has the bytes taken (`transferred`) and the
 * bytes read (`total`) so far; the difference went back. A request
 * (`Cancellation.withSignal`) is honoured alike: `total` only while it waits for
 * bytes or before the first of a buffer has left, `partial` and `terminal`
 * always.
 *
 * **Example** (Echoing)
 *
 * ```ts
 * yield* Acceptor.serve(acceptor, (socket) => Effect.andThen(Relay.copy(socket, socket), socket.shutdownWrite))
 * ```
 *
 * @category copying
 * @since 0.1.0
 */
export const copy: {
  (
    to: WriteStream,
    options?: Pick<Options, "bufferSize">
  ): (from: ReadStream) => Effect.Effect<number, SocketError>
  (
    from: ReadStream,
    to: WriteStream,
    options?: Pick<Options, "bufferSize">
  ): Effect.Effect<number, SocketError>
} = dual(
  (args) => isReadStream(args[0]) && isWriteStream(args[1]),
  (
    from: ReadStream,
    to: WriteStream,
    options?: Pick<Options, "bufferSize">
  ): Effect.Effect<number, SocketError> => pump("copy", from, to, options?.bufferSize, noop)
)

/**
 * Joins two streams: everything that one reads is written to the other, both
 * ways at once, until both have ended; succeeds with the counts.
 *
 * **Details**
 *
 * Each direction is a {@link copy} with a buffer of its own. The end of one is
 * passed on (`shutdownWrite`), and the other goes on. Neither stream is closed.
 *
 * When one direction fails to read, the other ends at once. When it fails to
 * write, because its peer has gone, the other first passes on what that peer said
 * before: until the end of its stream, or until no byte has moved for the linger
 * time of the stream (at least once and at most twice that time), or for `idle`
 * if that is shorter. Then the relay fails with the first failure. The end of the
 * other direction follows no policy and tears nothing: what was read and not
 * taken goes back to its stream. With `idle`, a time in which no byte moves in
 * either direction is a failure too, with the reason `TimedOut`. `transferred` on the error counts the failed
 * direction, and both in the case of `TimedOut`; `bytesRead` and `bytesWritten`
 * of the streams tell the whole story however it ends.
 *
 * **Interruption**: as {@link copy}, in both directions; of the two accounts the
 * cause has one.
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
    options?: Options
  ): (self: DuplexStream) => Effect.Effect<Counts, SocketError>
  (
    self: DuplexStream,
    that: DuplexStream,
    options?: Options
  ): Effect.Effect<Counts, SocketError>
} = dual(
  (args) => isReadStream(args[0]) && isReadStream(args[1]),
  (
    self: DuplexStream,
    that: DuplexStream,
    options?: Options
  ): Effect.Effect<Counts, SocketError> =>
    Clock.clockWith((clock) => {
      const idle = options?.idle === undefined ? Duration.infinity : Duration.fromInputUnsafe(options.idle)
      const stop = Cancellation.makeSignal()
      let isOver = false
      let first: Cause.Cause<SocketError> | undefined
      let total = 0
      let moves = 0
      let lastMove = monotonicMillis(clock)

      const moved = (taken: number): void => {
        total += taken
        moves++
        if (Duration.isFinite(idle)) lastMove = monotonicMillis(clock)
      }
      const fail = (cause: Cause.Cause<SocketError>): Effect.Effect<never, SocketError> =>
        Effect.suspend(() => {
          if (isOver) return Effect.interruptible(Effect.never)
          isOver = true
          // A request and not only an interruption: no policy may hold up what has failed already.
          stop.emitUnsafe("partial")
          return Effect.failCause(first ?? cause)
        })
      /** Waits until no byte has moved for a time: for between one and two times as long. */
      const quiet = (time: Duration.Duration): Effect.Effect<void> =>
        Effect.suspend(() => {
          const before = moves
          return Effect.andThen(
            Effect.sleep(time),
            Effect.suspend(() => moves === before ? Effect.void : quiet(time))
          )
        })
      const oneWay = (from: DuplexStream, to: DuplexStream, own: Latch.Latch, other: Latch.Latch) => {
        let undelivered = 0
        const ended = (remaining: number): void => {
          undelivered = remaining
          own.openUnsafe()
        }
        return pump("relay", from, to, options?.bufferSize, moved, ended).pipe(
          Effect.tap(() => to.shutdownWrite),
          Effect.catchCause((cause) => {
            if (first !== undefined || undelivered === 0 || wasCancelled(cause)) return fail(cause)
            // `to` takes no more bytes. What it said before it went is still passed on, until its end, or until it has been
            // silent for as long as a close may take.
            first = cause
            const silence = Duration.min(idle, coreOf(to)?.linger ?? defaultLinger)
            return Effect.andThen(Effect.raceFirst(other.await, quiet(silence)), fail(cause))
          })
        )
      }
      const sent = Latch.makeUnsafe(false)
      const received = Latch.makeUnsafe(false)
      const both = Cancellation.withSignal(
        Effect.all(
          { sent: oneWay(self, that, sent, received), received: oneWay(that, self, received, sent) },
          { concurrency: 2 }
        ),
        stop
      )
      if (!Duration.isFinite(idle)) return both

      const silence: Effect.Effect<never, SocketError> = Effect.suspend(() => {
        const rest = lastMove + Duration.toMillis(idle) - monotonicMillis(clock)
        if (rest > 0) return Effect.andThen(Effect.sleep(rest), silence)
        const error = new SocketError({ reason: Reason.TimedOut(), operation: "relay", transferred: total })
        return fail(Cause.fail(error))
      })
      return Effect.raceFirst(both, silence)
    })
)

// ---- internal

const defaultBufferSize = 65_536

/** For streams that have no linger time. */
const defaultLinger = Duration.seconds(2)

const wasCancelled = (cause: Cause.Cause<SocketError>): boolean =>
  Cause.hasInterrupts(cause) || abortedBy(cause) !== undefined

/** `moved` is told of every byte that was taken, and of every read by a 0. */
type Moved = (taken: number) => void

/** The direction is over. `remaining` bytes were read and not taken; they go back to the stream that they came from. */
type Ended = (remaining: number) => void

const pump = (
  operation: string,
  from: ReadStream,
  to: WriteStream,
  bufferSize: number | undefined,
  moved: Moved,
  ended: Ended = noop
): Effect.Effect<number, SocketError> =>
  Effect.withFiber((fiber) => {
    const pumping = Effect.suspend(() => pumpAll(operation, from, to, bufferSize ?? defaultBufferSize, moved, ended))
    // One span for each direction, and not one for each buffer.
    return isTraced(fiber) ? traced("copy", from, Effect.withTracerEnabled(pumping, false)) : pumping
  })

const pumpAll = (
  operation: string,
  from: ReadStream,
  to: WriteStream,
  bufferSize: number,
  moved: Moved,
  ended: Ended
): Effect.Effect<number, SocketError> => {
  positiveInteger(`${operation}: bufferSize`, bufferSize, "bytes")
  const buffer = new Uint8Array(bufferSize)
  let total = 0
  let piece = new Piece(buffer.subarray(0, 0), moved)
  // Bytes that composed reads have left in the buffer: our streams give them to every read, foreign ones to composed reads.
  const read = coreOf(from)?.readSome(buffer) ?? ForeignStream.readSome(operation, from, buffer)
  // If `to` was reset behind its last words, a write would lose them. A turn of the event loop reads them first.
  const pollsBeforeWrites = operation === "relay" && coreOf(to)?.failedWriteLosesInput === true
  const loop = Effect.forever(
    Effect.flatMap(read, (count) => {
      total += count
      moved(0)
      piece = new Piece(buffer.subarray(0, count), moved)
      return pollsBeforeWrites ? Effect.andThen(Effect.yieldNow, Write.writeAll(to, piece)) : Write.writeAll(to, piece)
    }),
    { disableYield: true }
  )
  const end = (cause: Cause.Cause<SocketError>): Effect.Effect<never, SocketError> => {
    const { remaining } = piece
    ended(remaining)
    const transferred = total - remaining
    const located = (error: SocketError): SocketError => {
      const { address, reason } = error
      return reason._tag === "OperationAborted"
        ? new SocketError({
          reason: { ...reason, type: guaranteeOfTransfer(reason.type, transferred), transferred, total },
          operation,
          address,
          transferred,
          cause: error.cause
        })
        : during(error, { operation, transferred })
    }
    // A stream that is closed has no use for them.
    const putBack = remaining === 0 ? Effect.void : Effect.ignore(Read.unread(from, piece.chunk()))
    const ending = Cause.map(cause, located)
    const guarantee = Option.getOrUndefined(Cancellation.transfer(cause))?.guarantee
    return Effect.andThen(
      putBack,
      Cause.hasInterrupts(cause)
        ? proceed(ending, { transferred, total, guarantee: guaranteeOfTransfer(guarantee, transferred) })
        : Effect.failCause(ending)
    )
  }
  return Effect.uninterruptibleMask((restore) =>
    Effect.catchCause(
      Pull.catchDone(restore(loop), () =>
        Effect.sync(() => {
          ended(0)
          return total
        })),
      end
    )
  )
}

/** What one read brought, on its way. */
class Piece extends Buffers.Cursor {
  private readonly moved: Moved

  constructor(bytes: Uint8Array, moved: Moved) {
    super(bytes)
    this.moved = moved
  }

  override advance(count: number): void {
    super.advance(count)
    this.moved(count)
  }
}

/**
 * Composed reads: exact amounts, up to a delimiter, or everything.
 *
 * All of them are *totally* cancellable. What has arrived waits in the
 * connection's read buffer until the operation can complete, and is consumed in
 * that one step; an operation that is interrupted, or that fails, leaves every
 * byte for the next read.
 *
 * They also work on streams that are not ours, anything with a `readSome`. Such
 * a stream has no read buffer: what a composed read leaves over is there for the
 * next composed read of the same stream, and not for its `readSome`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import type * as Pull from "effect/Pull"
import * as Buffers from "./Buffers.ts"
import * as AnyStream from "./internal/AnyStream.ts"
import { All, AtLeast, type Find, findBytes, findRegExp, type Matcher, Until } from "./internal/Matcher.ts"
import { ReadMatch } from "./internal/ReadSide.ts"
import { isTraced, traced } from "./internal/tracing.ts"
import type { SocketError } from "./SocketError.ts"
import * as StreamSocket from "./StreamSocket.ts"

/**
 * Reads exactly as many bytes as `target` holds and succeeds with their number.
 *
 * **Details**
 *
 * End of stream before the first byte is `Cause.Done`. End of stream midway is
 * `UnexpectedEof` with `transferred`: those bytes are at the front of `target`,
 * and they also stay unread. `target` belongs to the caller again when the
 * effect ends.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * **Example** (Reading a header of four bytes)
 *
 * ```ts
 * const header = new Uint8Array(4)
 * yield* Read.readExactly(socket, header)
 * const length = new DataView(header.buffer).getUint32(0)
 * ```
 *
 * @category reading
 * @since 0.1.0
 */
export const readExactly: {
  (target: Uint8Array): (stream: StreamSocket.ReadStream) => Pull.Pull<number, SocketError>
  (stream: StreamSocket.ReadStream, target: Uint8Array): Pull.Pull<number, SocketError>
} = dual(
  2,
  (stream: StreamSocket.ReadStream, target: Uint8Array): Pull.Pull<number, SocketError> =>
    run(stream, () => new AtLeast("readExactly", target))
)

/**
 * Reads at least `minimum` bytes, and more if they are there and `target` holds
 * them; succeeds with how many.
 *
 * **Details**
 *
 * Ends as {@link readExactly} does. A minimum that is negative, fractional or
 * larger than `target` is a defect (`RangeError`).
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category reading
 * @since 0.1.0
 */
export const readAtLeast: {
  (target: Uint8Array, minimum: number): (stream: StreamSocket.ReadStream) => Pull.Pull<number, SocketError>
  (stream: StreamSocket.ReadStream, target: Uint8Array, minimum: number): Pull.Pull<number, SocketError>
} = dual(
  3,
  (stream: StreamSocket.ReadStream, target: Uint8Array, minimum: number): Pull.Pull<number, SocketError> =>
    run(stream, () => new AtLeast("readAtLeast", target, minimum))
)

/**
 * What ends a message: one byte (0 to 255), a string (as UTF-8), bytes, a
 * regular expression, or a function.
 *
 * **Details**
 *
 * - A regular expression sees each byte as the character of that number
 *   (Latin-1), so offsets are bytes; write non-ASCII text as a string instead.
 *   It matches what has arrived so far: `$` and greedy quantifiers may be
 *   content with less than the peer is about to send. Matches of no characters
 *   do not count.
 * - A function gets the bytes collected so far and how many of them were there
 *   when it was asked last. It answers the number of bytes up to and including
 *   the end of the message, or `undefined` for "not yet". The bytes are only
 *   lent to it. It may be asked again from the front after an interruption.
 *
 * @category models
 * @since 0.1.0
 */
export type Delimiter = number | string | Uint8Array | RegExp | Find

/**
 * Reads up to and including the first match of a delimiter and succeeds with
 * those bytes, in memory of the caller's own. Later bytes stay unread.
 *
 * **Details**
 *
 * A message longer than `max` bytes (default 65,536), its delimiter included,
 * fails with `LimitExceeded`; nothing is consumed then. End of stream before
 * the first byte is `Cause.Done`; before a match it is `UnexpectedEof`, and the
 * bytes stay unread. An empty delimiter is a defect (`RangeError`).
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * **Example** (Reading lines until the end of the stream)
 *
 * ```ts
 * yield* Read.readUntil(socket, "\n", { max: 1024 }).pipe(
 *   Effect.tap((line) => Console.log(Buffers.toUtf8(line))),
 *   Effect.forever,
 *   Pull.catchDone(() => Effect.void)
 * )
 * ```
 *
 * @category reading
 * @since 0.1.0
 */
export const readUntil: {
  (
    delimiter: Delimiter,
    options?: { readonly max?: number | undefined }
  ): (stream: StreamSocket.ReadStream) => Pull.Pull<Uint8Array, SocketError>
  (
    stream: StreamSocket.ReadStream,
    delimiter: Delimiter,
    options?: { readonly max?: number | undefined }
  ): Pull.Pull<Uint8Array, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (
    stream: StreamSocket.ReadStream,
    delimiter: Delimiter,
    options?: { readonly max?: number | undefined }
  ): Pull.Pull<Uint8Array, SocketError> =>
    run(stream, () => new Until(findOf(delimiter), options?.max ?? defaultMaxUntil, typeof delimiter === "function"))
)

/**
 * Reads everything to the end of the stream, possibly nothing, into memory of
 * the caller's own.
 *
 * **Details**
 *
 * A stream longer than `max` bytes (default 16 MiB) fails with `LimitExceeded`;
 * nothing is consumed then. `max` allocates nothing by itself.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category reading
 * @since 0.1.0
 */
export const readAll: {
  (
    options?: { readonly max?: number | undefined }
  ): (stream: StreamSocket.ReadStream) => Effect.Effect<Uint8Array, SocketError>
  (
    stream: StreamSocket.ReadStream,
    options?: { readonly max?: number | undefined }
  ): Effect.Effect<Uint8Array, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (
    stream: StreamSocket.ReadStream,
    options?: { readonly max?: number | undefined }
  ): Effect.Effect<Uint8Array, SocketError> =>
    // The matcher of readAll is content with the end of the stream, so it is never `Done`.
    run(stream, () => new All(options?.max ?? defaultMaxAll)) as Effect.Effect<Uint8Array, SocketError>
)

// ---- internal

const defaultMaxUntil = 65_536
const defaultMaxAll = 16 * 1024 * 1024

const run = <A extends number | Uint8Array>(
  stream: StreamSocket.ReadStream,
  matcher: () => Matcher<A>
): Pull.Pull<A, SocketError> =>
  Effect.withFiber((fiber) => {
    const wanted = matcher()
    return isTraced(fiber)
      ? traced(wanted.operation, stream, Effect.withFiber((fiber) => start(fiber, stream, wanted)))
      : start(fiber, stream, wanted)
  })

const start = <A>(
  fiber: Fiber.Fiber<unknown, unknown>,
  stream: StreamSocket.ReadStream,
  matcher: Matcher<A>
): Pull.Pull<A, SocketError> =>
  stream instanceof StreamSocket.Core
    ? stream.input.run(fiber, new ReadMatch(stream.input, matcher))
    : AnyStream.read(stream, matcher)

const findOf = (delimiter: Delimiter): Find => {
  if (typeof delimiter === "function") return delimiter
  if (typeof delimiter === "string") return findBytes(Buffers.utf8(delimiter))
  if (delimiter instanceof RegExp) return findRegExp(delimiter)
  if (delimiter instanceof Uint8Array) return findBytes(delimiter)
  if (typeof delimiter !== "number") throw new TypeError("readUntil: the delimiter is of no known kind")
  if (!Number.isInteger(delimiter) || delimiter < 0 || delimiter > 255) {
    throw new RangeError(`readUntil: ${delimiter} is not a byte`)
  }
  return findBytes(Uint8Array.of(delimiter))
}

const isReadStream = (u: unknown): u is StreamSocket.ReadStream =>
  typeof u === "object" && u !== null && "readSome" in u

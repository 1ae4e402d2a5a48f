/**
 * Composed reads: exact amounts, up to a delimiter, or everything.
 *
 * All of them are *totally* cancellable. What has arrived waits in the
 * connection's read buffer until the operation can complete, and is consumed in
 * that one step; an operation that is interrupted, or that fails, leaves every
 * byte for the next read.
 *
 * They also work on streams that are not ours, anything with a `readSome`. Such
 * a stream has no read buffer and no line: what a composed read leaves over is
 * there for the next composed read of the same stream, and not for its
 * `readSome`, and the caller keeps readers apart.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Pull from "effect/Pull"
import * as Buffers from "./Buffers.ts"
import { All, AtLeast, type Find, findBytes, findRegExp, Fixed, Until, Varint } from "./internal/core/Matcher.ts"
import { readInto } from "./internal/core/ReadOperations.ts"
import { coreOf } from "./internal/core/Socket.ts"
import * as ForeignStream from "./internal/operations/foreignStream.ts"
import { isReadStream } from "./internal/operations/isStream.ts"
import { run } from "./internal/operations/read.ts"
import { Reason, SocketError } from "./SocketError.ts"
import type * as StreamSocket from "./StreamSocket.ts"

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
    run(stream, () => new AtLeast("readExactly", target), readInto)
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
    run(stream, () => new AtLeast("readAtLeast", target, minimum), readInto)
)

/**
 * The end of a message: one byte (0 to 255), a string (as UTF-8), bytes, a
 * regular expression, or a function.
 *
 * **Details**
 *
 * - A regular expression sees each byte as the character of that number
 *   (Latin-1), so offsets are bytes; write non-ASCII text as a string instead.
 *   It matches what has arrived so far: `$` and greedy quantifiers may be
 *   content with less than the peer is about to send. Matches of no characters
 *   do not count. What cannot be the beginning of a match is not looked at
 *   again when more arrives, unless the expression has an assertion (`^`, `$`,
 *   `\b`, lookaround), a back-reference or the flag `v`, or can match nothing.
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
    run(stream, () =>
      new Until("readUntil", findOf(delimiter), {
        max: options?.max ?? defaultMaxUntil,
        runsCallerCode: typeof delimiter === "function",
        use: copy
      }))
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

/**
 * Reads a line up to LF or CRLF and succeeds with its text (UTF-8) without what
 * ends it.
 *
 * **Details**
 *
 * A line longer than `max` bytes (default 65,536), its end included, fails with
 * `LimitExceeded`; nothing is consumed then. End of stream before the first byte
 * is `Cause.Done`. A last line without an end is `UnexpectedEof`: it may have
 * been cut; {@link readAll} gets it all the same.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category reading
 * @since 0.1.0
 */
export const readLine: {
  (
    options?: { readonly max?: number | undefined }
  ): (stream: StreamSocket.ReadStream) => Pull.Pull<string, SocketError>
  (stream: StreamSocket.ReadStream, options?: { readonly max?: number | undefined }): Pull.Pull<string, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (
    stream: StreamSocket.ReadStream,
    options?: { readonly max?: number | undefined }
  ): Pull.Pull<string, SocketError> =>
    run(stream, () =>
      new Until("readLine", findBytes(Uint8Array.of(10)), {
        max: options?.max ?? defaultMaxUntil,
        runsCallerCode: false,
        use: lineOf
      }))
)

/**
 * The next `count` bytes, which stay unread, in memory of the caller's own.
 *
 * **Details**
 *
 * Waits until that many are there. Ends as {@link readExactly} does; more than
 * `max` bytes (default 65,536) fails with `LimitExceeded`.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category reading
 * @since 0.1.0
 */
export const peek: {
  (
    count: number,
    options?: { readonly max?: number | undefined }
  ): (stream: StreamSocket.ReadStream) => Pull.Pull<Uint8Array, SocketError>
  (
    stream: StreamSocket.ReadStream,
    count: number,
    options?: { readonly max?: number | undefined }
  ): Pull.Pull<Uint8Array, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (
    stream: StreamSocket.ReadStream,
    count: number,
    options?: { readonly max?: number | undefined }
  ): Pull.Pull<Uint8Array, SocketError> =>
    run(stream, () => new Fixed("peek", count, copy, { consumes: false, max: options?.max ?? defaultMaxUntil }))
)

/**
 * Consumes the next `count` bytes and succeeds with their number.
 *
 * **Details**
 *
 * Ends as {@link readExactly} does. So that nothing is lost when it is
 * cancelled, the bytes are kept until all of them are there; more than `max`
 * bytes (default 16 MiB) fails with `LimitExceeded`. Discard more in several
 * steps.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category reading
 * @since 0.1.0
 */
export const discard: {
  (
    count: number,
    options?: { readonly max?: number | undefined }
  ): (stream: StreamSocket.ReadStream) => Pull.Pull<number, SocketError>
  (
    stream: StreamSocket.ReadStream,
    count: number,
    options?: { readonly max?: number | undefined }
  ): Pull.Pull<number, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (
    stream: StreamSocket.ReadStream,
    count: number,
    options?: { readonly max?: number | undefined }
  ): Pull.Pull<number, SocketError> =>
    run(stream, () => new Fixed("discard", count, () => count, { consumes: true, max: options?.max ?? defaultMaxAll }))
)

/**
 * Makes the end of the stream a typed failure: a `SocketError` with the reason
 * `UnexpectedEof` and the address of the peer, instead of `Cause.Done`.
 *
 * **When to use**
 *
 * Use it where the peer must not end the stream yet, such as behind a request.
 * Without it, a program that fails at the end of the stream prints `Cause.Done`,
 * which names neither the operation nor the peer.
 *
 * **Interruption**: that of the effect.
 *
 * **Example** (The answer to a request)
 *
 * ```ts
 * const answer = yield* Read.readLine(socket).pipe(Read.failOnEnd(socket))
 * ```
 *
 * @category reading
 * @since 0.1.0
 */
export const failOnEnd: {
  (stream: StreamSocket.ReadStream): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, Pull.ExcludeDone<E> | SocketError, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    stream: StreamSocket.ReadStream
  ): Effect.Effect<A, Pull.ExcludeDone<E> | SocketError, R>
} = dual(
  2,
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    stream: StreamSocket.ReadStream
  ): Effect.Effect<A, Pull.ExcludeDone<E> | SocketError, R> =>
    Pull.catchDone(self, () =>
      Effect.fail(
        new SocketError({
          reason: Reason.UnexpectedEof(),
          operation: "failOnEnd",
          address: coreOf(stream)?.remoteAddress,
          transferred: 0
        })
      ))
)

/**
 * Puts bytes back in front of everything unread; the next read gets them first.
 *
 * **Details**
 *
 * They are copied, so the memory stays the caller's. Works after the end of the
 * stream too: they come before `Cause.Done`. Fails with `Closed` on a closed
 * socket. On streams that are not ours, they are there for the next composed
 * read.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * @category reading
 * @since 0.1.0
 */
export const unread: {
  (bytes: Uint8Array): (stream: StreamSocket.ReadStream) => Effect.Effect<void, SocketError>
  (stream: StreamSocket.ReadStream, bytes: Uint8Array): Effect.Effect<void, SocketError>
} = dual(
  2,
  (stream: StreamSocket.ReadStream, bytes: Uint8Array): Effect.Effect<void, SocketError> =>
    Effect.suspend(() => {
      if (!(bytes instanceof Uint8Array)) throw new TypeError("unread: the bytes are not a Uint8Array")
      Buffers.byteLength(bytes)
      const core = coreOf(stream)
      const refusal = core === undefined ? ForeignStream.unread(stream, bytes) : core.readHalf.unread(bytes)
      return refusal === undefined ? Effect.void : Effect.fail(refusal)
    })
)

/**
 * Which byte of a number comes first: the most significant one (`big`, network
 * order) or the least significant one.
 *
 * @category models
 * @since 0.1.0
 */
export type Endian = "big" | "little"

/**
 * Reads an unsigned integer of 1 to 6 bytes, big-endian unless told otherwise.
 *
 * **Details**
 *
 * Ends as {@link readExactly} does. Another width is a defect (`RangeError`);
 * see {@link readBigUint64} for 8 bytes.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category numbers
 * @since 0.1.0
 */
export const readUint: {
  (bytes: number, endian?: Endian): (stream: StreamSocket.ReadStream) => Pull.Pull<number, SocketError>
  (stream: StreamSocket.ReadStream, bytes: number, endian?: Endian): Pull.Pull<number, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (stream: StreamSocket.ReadStream, bytes: number, endian: Endian = "big"): Pull.Pull<number, SocketError> =>
    Effect.suspend(() => {
      checkWidth("readUint", bytes)
      return number("readUint", stream, bytes, (found) => decodeUint(found, endian))
    })
)

/**
 * Reads a signed integer (two's complement) of 1 to 6 bytes, big-endian unless
 * told otherwise; otherwise as {@link readUint}.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category numbers
 * @since 0.1.0
 */
export const readInt: {
  (bytes: number, endian?: Endian): (stream: StreamSocket.ReadStream) => Pull.Pull<number, SocketError>
  (stream: StreamSocket.ReadStream, bytes: number, endian?: Endian): Pull.Pull<number, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (stream: StreamSocket.ReadStream, bytes: number, endian: Endian = "big"): Pull.Pull<number, SocketError> =>
    Effect.suspend(() => {
      checkWidth("readInt", bytes)
      const limit = 2 ** (8 * bytes - 1)
      return number("readInt", stream, bytes, (found) => {
        const value = decodeUint(found, endian)
        return value < limit ? value : value - 2 * limit
      })
    })
)

/**
 * Reads an unsigned integer of 8 bytes, big-endian unless told otherwise. Ends
 * as {@link readExactly} does.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category numbers
 * @since 0.1.0
 */
export const readBigUint64: {
  (endian?: Endian): (stream: StreamSocket.ReadStream) => Pull.Pull<bigint, SocketError>
  (stream: StreamSocket.ReadStream, endian?: Endian): Pull.Pull<bigint, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (stream: StreamSocket.ReadStream, endian: Endian = "big"): Pull.Pull<bigint, SocketError> =>
    number("readBigUint64", stream, 8, (found) => viewOf(found).getBigUint64(0, endian === "little"))
)

/**
 * Reads a signed integer (two's complement) of 8 bytes, big-endian unless told
 * otherwise. Ends as {@link readExactly} does.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category numbers
 * @since 0.1.0
 */
export const readBigInt64: {
  (endian?: Endian): (stream: StreamSocket.ReadStream) => Pull.Pull<bigint, SocketError>
  (stream: StreamSocket.ReadStream, endian?: Endian): Pull.Pull<bigint, SocketError>
} = dual(
  (args) => isReadStream(args[0]),
  (stream: StreamSocket.ReadStream, endian: Endian = "big"): Pull.Pull<bigint, SocketError> =>
    number("readBigInt64", stream, 8, (found) => viewOf(found).getBigInt64(0, endian === "little"))
)

/**
 * Reads an unsigned varint (LEB128, as in Protocol Buffers) up to 2^53 - 1.
 *
 * **Details**
 *
 * End of stream before the first byte is `Cause.Done`, inside the number
 * `UnexpectedEof`. A larger number fails with `Framing`; nothing is consumed
 * then, and {@link readBigVarint} may still read it.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category numbers
 * @since 0.1.0
 */
export const readVarint = (stream: StreamSocket.ReadStream): Pull.Pull<number, SocketError> =>
  run(stream, () => new Varint("readVarint", 53, Number))

/**
 * Reads an unsigned varint (LEB128) of up to 64 bits; otherwise as
 * {@link readVarint}.
 *
 * **Interruption**: *total*. No byte is lost: the next read gets them.
 *
 * @category numbers
 * @since 0.1.0
 */
export const readBigVarint = (stream: StreamSocket.ReadStream): Pull.Pull<bigint, SocketError> =>
  run(stream, () => new Varint("readBigVarint", 64, (value) => value))

// ---- internal

const defaultMaxUntil = 65_536
const defaultMaxAll = 16 * 1024 * 1024

const copy = (bytes: Uint8Array): Uint8Array => bytes.slice()

/** The text of a line without what ends it. */
const lineOf = (bytes: Uint8Array): string => Buffers.toUtf8(bytes.subarray(0, bytes.at(-2) === 13 ? -2 : -1))

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const number = <A>(
  operation: string,
  stream: StreamSocket.ReadStream,
  length: number,
  decode: (bytes: Uint8Array) => A
): Pull.Pull<A, SocketError> => run(stream, () => new Fixed(operation, length, decode, { consumes: true, max: 8 }))

const decodeUint = (bytes: Uint8Array, endian: Endian): number => {
  let value = 0
  if (endian === "little") { for (let i = bytes.byteLength - 1; i >= 0; i--) value = value * 256 + bytes[i]! }
  else for (const byte of bytes) value = value * 256 + byte
  return value
}

const checkWidth = (operation: string, bytes: number): void => {
  if (Number.isInteger(bytes) && bytes >= 1 && bytes <= 6) return
  throw new RangeError(`${operation}: a number has 1 to 6 bytes here, not ${bytes}`)
}

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

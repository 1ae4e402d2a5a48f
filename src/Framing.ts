/**
 * Whole messages over any stream: how they are told apart on the wire, and what
 * their bytes stand for.
 *
 * A `Framing` is a value. The byte framings (`lengthPrefixed`, `delimited`,
 * `lines`, `fixed`, `netstring`, or `make` for one of your own) carry bytes;
 * `text`, `json`, `schema`, `schemaBinary` and `map` make messages of them.
 *
 * Bad *content* fails that message with `ContentError`, and the connection goes
 * on. Bad *framing* is a `SocketError` with the reason `Framing`, or
 * `LimitExceeded`: nothing is consumed, so every later `receive` fails alike.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Channel from "effect/Channel"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as SchemaBinary from "effect/encoding/SchemaBinary"
import { dual } from "effect/Function"
import type * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as Buffers from "./Buffers.ts"
import { transferAll } from "./CompletionCondition.ts"
import { formatBytes } from "./internal/base/format.ts"
import { findBytes, varintLength } from "./internal/core/Matcher.ts"
import { duplex } from "./internal/operations/duplex.ts"
import { FrameMatcher, FramesMatcher, runsOwnCode } from "./internal/operations/FrameMatcher.ts"
import * as ComposedRead from "./internal/operations/read.ts"
import * as ComposedWrite from "./internal/operations/write.ts"
import { Reason, SocketError } from "./SocketError.ts"
import type { ReadStream, WriteStream } from "./StreamSocket.ts"

const TypeId: unique symbol = Symbol.for("~effect-asio/Framing")

/**
 * The position of a message in the bytes that have arrived: its payload is
 * `[start, end)`, and `size` bytes are consumed with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Frame {
  readonly start: number
  readonly end: number
  readonly size: number
}

/**
 * How messages of type `In` are sent and messages of type `Out` are received.
 * `E` is what a message with bad content fails with.
 *
 * **Example** (Sending and receiving values)
 *
 * ```ts
 * import { Console, Effect, Schema } from "effect"
 * import { Framing } from "effect-asio"
 * import { MemoryTransport } from "effect-asio/testing"
 *
 * // Four bytes of length, then JSON; a message of more than 64 KiB is refused on both sides.
 * const Point = Schema.Struct({ x: Schema.Number, y: Schema.Number })
 * const points = Framing.schema(Framing.lengthPrefixed({ max: 65_536 }), Point)
 *
 * const program = Effect.gen(function*() {
 *   const [client, server] = yield* MemoryTransport.pair()
 *   yield* Framing.send(client, points, { x: 1, y: 2 })
 *   const { x, y } = yield* Framing.receive(server, points)
 *   yield* Console.log(x, y, client.bytesWritten)
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * // => 1 2 17
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Framing<in In, out Out = In, out E = never> {
  readonly [TypeId]: typeof TypeId
  /** The largest payload, in bytes, in either direction. */
  readonly max: number
  /**
   * Finds the first message; `undefined` when more bytes are needed, a reason
   * when there can be none. The first `scanned` bytes were there at the last
   * look.
   */
  readonly find: (bytes: Uint8Array, scanned: number) => Frame | Reason | undefined
  /** The whole frame around a payload of `length` bytes, or why it has none. */
  readonly enclose: (payload: Buffers.Input, length: number) => Result.Result<Buffers.Input, ContentError>
  readonly encode: (message: In) => Result.Result<Buffers.Input, E>
  /** The payload is only lent to it. */
  readonly decode: (payload: Uint8Array) => Result.Result<Out, E>
}

/**
 * The content of one message is not what it should be: it cannot be encoded, or
 * what was received cannot be decoded. `cause` has the encoder's own error.
 *
 * @category errors
 * @since 0.1.0
 */
export class ContentError extends Data.TaggedError("ContentError")<{
  readonly direction: "send" | "receive"
  readonly detail: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return `${this.direction}: ${this.detail}`
  }
}

/**
 * A framing that carries bytes. What is received is memory of the caller's own.
 *
 * @category models
 * @since 0.1.0
 */
export interface ByteFraming extends Framing<Buffers.Input, Uint8Array, ContentError> {}

/**
 * The largest payload unless a framing is told otherwise: 1 MiB.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultMax = 1_048_576

// ---- framings of bytes

/**
 * A framing of the caller's own.
 *
 * **Details**
 *
 * `find` sees everything that has arrived and answers where the first message
 * lies, `undefined` for "not yet", or a text that says what is wrong. `enclose`
 * answers the pieces of the whole frame; they leave in one gather write. `max`
 * bounds the payload (default 1 MiB) and `overhead` what is around it (default 64
 * bytes); more is `LimitExceeded`, in either direction.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: {
  readonly max?: number | undefined
  readonly overhead?: number | undefined
  readonly find: (bytes: Uint8Array, scanned: number) => Frame | string | undefined
  readonly enclose: (payload: Buffers.Input, length: number) => Buffers.Input
}): ByteFraming => {
  const max = checkMax("make", options.max ?? defaultMax)
  const most = max + checkMax("make", options.overhead ?? 64)
  return bytes({
    max,
    find: (found, scanned) => {
      const frame = options.find(found, scanned)
      if (frame === undefined) return found.byteLength > most ? tooLarge(found.byteLength, most) : undefined
      if (typeof frame === "string") return Reason.Framing({ detail: frame })
      const { end, size, start } = frame
      const isFrame = [start, end, size].every(Number.isInteger) && start >= 0 && start <= end && end <= size &&
        size > 0 && size <= found.byteLength
      if (!isFrame) {
        throw new RangeError(`Framing.make: find answered ${start} to ${end} of ${size} for ${found.byteLength} bytes`)
      }
      if (end - start > max) return tooLarge(end - start, max)
      return size > most ? tooLarge(size, most) : frame
    },
    enclose: (payload, length) => {
      const frame = options.enclose(payload, length)
      const size = Buffers.byteLength(frame)
      return size > most
        ? refuse(`a frame of ${formatBytes(size)} around a message of ${formatBytes(length)}: see "overhead"`)
        : Result.succeed(frame)
    }
  })
}

/**
 * Each message behind its length.
 *
 * **Details**
 *
 * `width` is the size of the header: 1, 2, 4 (default) or 8 bytes, big-endian
 * unless told otherwise, or `"varint"` (LEB128, as in Protocol Buffers). With
 * `includesHeader` the number counts the header too (not for varints). A length
 * over `max` fails before anything is allocated for it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const lengthPrefixed = (options?: {
  readonly width?: 1 | 2 | 4 | 8 | "varint" | undefined
  readonly endian?: "big" | "little" | undefined
  readonly includesHeader?: boolean | undefined
  readonly max?: number | undefined
}): ByteFraming => {
  const width = options?.width ?? 4
  if (width === "varint") return varintPrefixed(checkMax("lengthPrefixed", options?.max ?? defaultMax))
  if (![1, 2, 4, 8].includes(width)) throw new RangeError(`lengthPrefixed: a header of ${width} bytes`)
  const own = options?.includesHeader === true ? width : 0
  const most = width === 8 ? Number.MAX_SAFE_INTEGER : 2 ** (8 * width) - 1 - own
  const max = Math.min(checkMax("lengthPrefixed", options?.max ?? defaultMax), most)
  const littleEndian = options?.endian === "little"
  return bytes({
    max,
    [runsOwnCode]: true,
    find: (found) => {
      if (found.byteLength < width) return undefined
      const length = readLength(found, width, littleEndian) - own
      if (length < 0) return Reason.Framing({ detail: `a length of ${length + own} bytes for a header of ${width}` })
      if (length > max) return tooLarge(length, max)
      const size = width + length
      return found.byteLength < size ? undefined : { start: width, end: size, size }
    },
    enclose: (payload, length) => {
      const header = new Uint8Array(width)
      writeLength(header, length + own, littleEndian)
      return Result.succeed(before(header, payload))
    }
  })
}

/**
 * Each message up to a delimiter, which it must not contain. An empty delimiter
 * is a defect (`RangeError`).
 *
 * @category constructors
 * @since 0.1.0
 */
export const delimited = (
  delimiter: string | Uint8Array,
  options?: { readonly max?: number | undefined }
): ByteFraming => {
  const max = checkMax("delimited", options?.max ?? defaultMax)
  const end = typeof delimiter === "string" ? Buffers.utf8(delimiter) : delimiter.slice()
  const search = findBytes(end)
  return bytes({
    max,
    [runsOwnCode]: true,
    find: (found, scanned) => {
      const size = search(found, scanned)
      const length = size === undefined ? found.byteLength : size - end.byteLength
      // The delimiter itself may be there in part.
      if (length > max + (size === undefined ? end.byteLength - 1 : 0)) return tooLarge(length, max)
      return size === undefined ? undefined : { start: 0, end: length, size }
    },
    enclose: (payload) => {
      const all = Buffers.concat(payload)
      // Also across its end: "a|" in front of "|b" would be read in the wrong place.
      const at = search(Buffers.concat([all, end]), 0)
      return at === all.byteLength + end.byteLength
        ? Result.succeed([all, end])
        : refuse("the message contains the delimiter")
    }
  })
}

/**
 * Each message on a line of its own, up to LF or CRLF on the way in; `ending` is
 * what is sent (default LF).
 *
 * **Details**
 *
 * A message must not contain LF, nor, with the ending LF, end in CR: that would
 * be read as part of the ending. `max` counts the bytes of a line without its
 * end (default 1 MiB).
 *
 * @category constructors
 * @since 0.1.0
 */
export const lines = (options?: {
  readonly ending?: "\n" | "\r\n" | undefined
  readonly max?: number | undefined
}): ByteFraming => {
  const max = checkMax("lines", options?.max ?? defaultMax)
  const ending = Buffers.utf8(options?.ending ?? "\n")
  const search = findBytes(Uint8Array.of(LF))
  return bytes({
    max,
    [runsOwnCode]: true,
    find: (found, scanned) => {
      const size = search(found, scanned)
      if (size === undefined) return found.byteLength > max + 1 ? tooLarge(found.byteLength, max) : undefined
      const end = found[size - 2] === CR ? size - 2 : size - 1
      return end > max ? tooLarge(end, max) : { start: 0, end, size }
    },
    enclose: (payload) => {
      const line = Buffers.concat(payload)
      if (line.includes(LF)) return refuse("the line contains a line feed")
      if (ending.byteLength === 1 && line.at(-1) === CR) return refuse("the line ends in a carriage return")
      return Result.succeed([line, ending])
    }
  })
}

/**
 * Messages of `size` bytes each, with nothing between them. A connection holds up
 * to that many bytes of a message that has not arrived whole.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fixed = (size: number): ByteFraming => {
  if (!Number.isSafeInteger(size) || size <= 0) throw new RangeError(`Framing.fixed: messages of ${size} bytes`)
  return bytes({
    max: size,
    [runsOwnCode]: true,
    find: (found) => found.byteLength < size ? undefined : { start: 0, end: size, size },
    enclose: (payload, length) =>
      length === size
        ? Result.succeed(payload)
        : refuse(`a message of ${formatBytes(length)}, where each has ${formatBytes(size)}`)
  })
}

/**
 * Netstrings: the length in decimal digits, a colon, the message, a comma.
 *
 * @category constructors
 * @since 0.1.0
 */
export const netstring = (options?: { readonly max?: number | undefined }): ByteFraming => {
  const max = checkMax("netstring", options?.max ?? defaultMax)
  const digits = String(max).length
  return bytes({
    max,
    [runsOwnCode]: true,
    find: (found) => {
      let length = 0
      let at = 0
      for (; at < found.byteLength && found[at] !== COLON; at++) {
        const digit = found[at]! - ZERO
        if (digit < 0 || digit > 9) return Reason.Framing({ detail: "a netstring whose length is not a number" })
        if (at > 0 && length === 0) return Reason.Framing({ detail: "a netstring whose length begins with 0" })
        length = length * 10 + digit
        if (at >= digits || length > max) return tooLarge(length, max)
      }
      if (at === found.byteLength) return undefined
      if (at === 0) return Reason.Framing({ detail: "a netstring without a length" })
      const end = at + 1 + length
      if (found.byteLength <= end) return undefined
      return found[end] === COMMA
        ? { start: at + 1, end, size: end + 1 }
        : Reason.Framing({ detail: "a netstring without a comma at its end" })
    },
    enclose: (payload, length) =>
      Result.succeed([Buffers.utf8(`${length}:`), ...piecesOf(payload), Uint8Array.of(COMMA)])
  })
}

// ---- what the bytes stand for

/**
 * A framing with other messages, by a pair of functions. What they throw makes
 * a `ContentError`.
 *
 * **Details**
 *
 * `decode` runs before its message is consumed, and may run twice for one with
 * bad content or one whose `receive` was cut. Both run where they are, so they
 * should be quick.
 *
 * @category combinators
 * @since 0.1.0
 */
export const map: {
  <Out, In2, Out2, In>(
    options: { readonly encode: (message: In2) => In; readonly decode: (message: Out) => Out2 }
  ): <E>(framing: Framing<In, Out, E>) => Framing<In2, Out2, E | ContentError>
  <In, Out, E, In2, Out2>(
    framing: Framing<In, Out, E>,
    options: { readonly encode: (message: In2) => In; readonly decode: (message: Out) => Out2 }
  ): Framing<In2, Out2, E | ContentError>
} = dual(
  2,
  <In, Out, E, In2, Out2>(
    framing: Framing<In, Out, E>,
    options: { readonly encode: (message: In2) => In; readonly decode: (message: Out) => Out2 }
  ): Engine & Framing<In2, Out2, E | ContentError> => ({
    ...framing,
    [runsOwnCode]: false,
    encode: (message) => Result.flatMap(attempt("send", () => options.encode(message)), framing.encode),
    decode: (payload) =>
      Result.flatMap(framing.decode(payload), (found) => attempt("receive", () => options.decode(found)))
  })
)

/**
 * Messages that are text, as UTF-8. Bytes that are no UTF-8, and text that has
 * none (half of a surrogate pair), are a `ContentError`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const text = (framing: ByteFraming): Framing<string, string, ContentError> =>
  lending(
    framing,
    (message: string) => {
      if (!message.isWellFormed()) throw new TypeError("half of a surrogate pair has no UTF-8")
      return Buffers.utf8(message)
    },
    (payload) => strictUtf8.decode(payload)
  )

/**
 * Messages that are JSON values. With {@link lines} this is ndjson. As for
 * `JSON.stringify`, a number that JSON has not (`NaN`) is `null`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const json = (framing: ByteFraming): Framing<Schema.Json, Schema.Json, ContentError> =>
  lending(
    framing,
    (value: Schema.Json) => {
      const line: string | undefined = JSON.stringify(value)
      if (line === undefined) throw new TypeError("the value has no JSON")
      return Buffers.utf8(line)
    },
    (payload): Schema.Json => JSON.parse(strictUtf8.decode(payload))
  )

/**
 * Values of a `Schema`, encoded as JSON. With {@link lines} this is ndjson.
 *
 * **Details**
 *
 * The schema must need no services and be synchronous. What it does not accept,
 * in either direction, is a `ContentError` with the `SchemaError` as its cause.
 *
 * **Example** (A protocol of lines)
 *
 * ```ts
 * class Chat extends Schema.Class<Chat>("Chat")({ from: Schema.String, text: Schema.String }) {}
 *
 * const chat = Framing.schema(Framing.lines(), Chat)
 * yield* Framing.send(socket, chat, new Chat({ from: "ada", text: "hello" }))
 * const answer = yield* Framing.receive(socket, chat)
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const schema = <A, I>(
  framing: ByteFraming,
  schema: Schema.Codec<A, I>
): Framing<A, A, ContentError> => {
  const codec = Schema.fromJsonString(Schema.toCodecJson(schema))
  const encode = Schema.encodeSync(codec)
  const decode = Schema.decodeSync(codec)
  return withCallerCode(
    lending(framing, (value: A) => Buffers.utf8(encode(value)), (payload) => decode(strictUtf8.decode(payload)))
  )
}

/**
 * Values of a `Schema` in Effect's own compact binary encoding, as
 * {@link schema} otherwise. Both sides need the same schema.
 *
 * @category combinators
 * @since 0.1.0
 */
export const schemaBinary = <A, I>(
  framing: ByteFraming,
  schema: Schema.Codec<A, I>
): Framing<A, A, ContentError> => {
  const codec = SchemaBinary.toCodec(schema)
  const encode = Schema.encodeSync(codec)
  const decode = Schema.decodeSync(codec)
  return withCallerCode(lending(framing, (value: A) => encode(value), (payload) => decode(payload.slice())))
}

// ---- operations

/**
 * Sends one message whole and succeeds with the bytes of its frame.
 *
 * **Details**
 *
 * Header and body leave in one gather write, and many fibers may send at once:
 * each holds the direction for its own message. Content that cannot be encoded
 * is a `ContentError` and a message over `max` is `LimitExceeded`, both before
 * the first byte.
 *
 * **Interruption**: *total* before the first byte. Afterwards by
 * `Cancellation.Policy`: `terminal` stops at once and tears the stream; `total`
 * and `partial` finish the message (a message that is cut is worth nothing, and
 * another one must not follow it), within the bound of
 * `Cancellation.total({ within })` if there is one. A request is honoured alike:
 * in the middle of a message only `terminal`.
 *
 * @category operations
 * @since 0.1.0
 */
export const send: {
  <In, Out, E>(
    framing: Framing<In, Out, E>,
    message: In
  ): (stream: WriteStream) => Effect.Effect<number, SocketError | ContentError | E>
  <In, Out, E>(
    stream: WriteStream,
    framing: Framing<In, Out, E>,
    message: In
  ): Effect.Effect<number, SocketError | ContentError | E>
} = dual(
  3,
  <In, Out, E>(
    stream: WriteStream,
    framing: Framing<In, Out, E>,
    message: In
  ): Effect.Effect<number, SocketError | ContentError | E> =>
    Effect.suspend((): Effect.Effect<number, SocketError | ContentError | E> => {
      const frame = frameOf(framing, message)
      return Result.isFailure(frame)
        ? Effect.fail(frame.failure)
        : ComposedWrite.run(stream, frame.success, transferAll, sending)
    })
)

/**
 * Receives the next message.
 *
 * **Details**
 *
 * End of stream between two messages is `Cause.Done`, inside one it is
 * `UnexpectedEof`. A message with bad content is consumed and fails with its
 * error; the next `receive` gets the next one. Bad framing is `Framing` with the
 * position in the stream, and a message over `max` is `LimitExceeded`; nothing
 * is consumed by these. Many fibers may receive at once from a socket, each gets
 * whole messages in turn; a stream that is not ours has no line, there the caller
 * keeps them apart.
 *
 * **Interruption**: *total*. No byte is lost: the next `receive` gets the
 * message.
 *
 * @category operations
 * @since 0.1.0
 */
export const receive: {
  <In, Out, E>(framing: Framing<In, Out, E>): (stream: ReadStream) => Pull.Pull<Out, SocketError | E>
  <In, Out, E>(stream: ReadStream, framing: Framing<In, Out, E>): Pull.Pull<Out, SocketError | E>
} = dual(
  2,
  <In, Out, E>(stream: ReadStream, framing: Framing<In, Out, E>): Pull.Pull<Out, SocketError | E> =>
    Effect.flatMap(ComposedRead.run(stream, () => new FrameMatcher(framing)), Effect.fromResult)
)

/**
 * The messages of a stream to its end, several at a time where several have
 * arrived.
 *
 * **Details**
 *
 * Fails as {@link receive} does. After a message with bad content, the messages
 * behind it are still unread: run it again to go on.
 *
 * **Interruption**: *total* for the messages not yet pulled: they stay unread.
 *
 * @category conversions
 * @since 0.1.0
 */
export const stream: {
  <In, Out, E>(framing: Framing<In, Out, E>): (stream: ReadStream) => Stream.Stream<Out, SocketError | E>
  <In, Out, E>(stream: ReadStream, framing: Framing<In, Out, E>): Stream.Stream<Out, SocketError | E>
} = dual(
  2,
  <In, Out, E>(stream: ReadStream, framing: Framing<In, Out, E>): Stream.Stream<Out, SocketError | E> =>
    Stream.fromPull(Effect.succeed(receiveMany(stream, framing)))
)

/**
 * A sink that sends every message, and ends with the bytes of their frames.
 *
 * **Details**
 *
 * Messages that come together leave in gather writes of about 64 KiB. The sink
 * waits for room before it takes more.
 *
 * **Interruption**: as {@link send}, for all the messages of the gather write at
 * hand.
 *
 * @category conversions
 * @since 0.1.0
 */
export const sink: {
  <In, Out, E>(
    framing: Framing<In, Out, E>
  ): (stream: WriteStream) => Sink.Sink<number, In, never, SocketError | ContentError | E>
  <In, Out, E>(
    stream: WriteStream,
    framing: Framing<In, Out, E>
  ): Sink.Sink<number, In, never, SocketError | ContentError | E>
} = dual(2, <In, Out, E>(
  stream: WriteStream,
  framing: Framing<In, Out, E>
): Sink.Sink<number, In, never, SocketError | ContentError | E> =>
  Sink.suspend(() => {
    let sent = 0
    return Sink.map(
      Sink.forEachArray((messages: Arr.NonEmptyReadonlyArray<In>) =>
        Effect.map(sendMany(stream, framing, messages), (count) => {
          sent += count
        })
      ),
      () => sent
    )
  }))

/**
 * Both directions as one channel: it sends what it is given and emits what is
 * received.
 *
 * **Details**
 *
 * When its input ends, it half-closes a stream that can (`shutdownWrite`), and
 * goes on receiving. It ends at end of stream, and with the first failure of
 * either direction. What is lost: input that was not sent by then is dropped, and
 * a send that is under way is interrupted. Where the peer may end first, use
 * {@link stream} and {@link sink}.
 *
 * **Interruption**: both directions are interrupted, as {@link send} and
 * {@link receive}.
 *
 * @category conversions
 * @since 0.1.0
 */
export const channel = <In, Out, E>(
  stream: ReadStream & WriteStream & { readonly shutdownWrite?: Effect.Effect<void, SocketError> | undefined },
  framing: Framing<In, Out, E>
) =>
<InErr = never>(): Channel.Channel<
  Arr.NonEmptyReadonlyArray<Out>,
  SocketError | ContentError | E | InErr,
  void,
  Arr.NonEmptyReadonlyArray<In>,
  InErr
> =>
  Channel.fromTransform((upstream: Pull.Pull<Arr.NonEmptyReadonlyArray<In>, InErr, unknown>, scope) =>
    duplex({
      upstream,
      scope,
      write: (messages) => sendMany(stream, framing, messages),
      end: stream.shutdownWrite ?? Effect.void,
      read: receiveMany(stream, framing)
    })
  )

// ---- internal

const sending = { operation: "send", atomic: true }

const LF = 10
const CR = 13
const COLON = 58
const COMMA = 44
const ZERO = 48

const gatherSize = 65_536

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

interface Engine {
  readonly [runsOwnCode]?: boolean
}

/** For a schema: its transformations are code of the caller's. */
const withCallerCode = <In, Out, E>(framing: Framing<In, Out, E>): Engine & Framing<In, Out, E> => ({
  ...framing,
  [runsOwnCode]: false
})

const bytes = (framing: Engine & Pick<ByteFraming, "max" | "find" | "enclose">): Engine & ByteFraming => ({
  [TypeId]: TypeId,
  ...framing,
  encode: Result.succeed,
  decode: (payload) => Result.succeed(payload.slice())
})

/** As `map`, for a `decode` that keeps nothing of what it is lent. */
const lending = <A, B>(
  framing: ByteFraming,
  encode: (message: A) => Uint8Array,
  decode: (payload: Uint8Array) => B
): Framing<A, B, ContentError> => ({
  ...framing,
  encode: (message) => attempt("send", () => encode(message)),
  decode: (payload) => attempt("receive", () => decode(payload))
})

const attempt = <A>(direction: "send" | "receive", run: () => A): Result.Result<A, ContentError> => {
  try {
    return Result.succeed(run())
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    return Result.fail(new ContentError({ direction, detail, cause }))
  }
}

const refuse = (detail: string): Result.Result<never, ContentError> =>
  Result.fail(new ContentError({ direction: "send", detail }))

const tooLarge = (length: number, max: number): Reason =>
  Reason.LimitExceeded({ limit: max, subject: `a message of ${formatBytes(length)}` })

const checkMax = (name: string, max: number): number => {
  if (Number.isSafeInteger(max) && max >= 0) return max
  throw new RangeError(`Framing.${name}: max ${max} is not a number of bytes`)
}

const frameOf = <In, Out, E>(
  framing: Framing<In, Out, E>,
  message: In
): Result.Result<Buffers.Input, SocketError | ContentError | E> => {
  const content = framing.encode(message)
  if (Result.isFailure(content)) return Result.fail(content.failure)
  const length = Buffers.byteLength(content.success)
  return length > framing.max
    ? Result.fail(
      new SocketError({ reason: tooLarge(length, framing.max), operation: "send", transferred: 0, total: length })
    )
    : framing.enclose(content.success, length)
}

const receiveMany = <In, Out, E>(
  stream: ReadStream,
  framing: Framing<In, Out, E>
): Pull.Pull<Arr.NonEmptyReadonlyArray<Out>, SocketError | E> =>
  Effect.flatMap(ComposedRead.run(stream, () => new FramesMatcher(framing)), Effect.fromResult)

/** In gather writes of a bounded size; what comes before a message with bad content is sent. */
const sendMany = <In, Out, E>(
  stream: WriteStream,
  framing: Framing<In, Out, E>,
  messages: Arr.NonEmptyReadonlyArray<In>
): Effect.Effect<number, SocketError | ContentError | E> => {
  const loop = (from: number, sent: number): Effect.Effect<number, SocketError | ContentError | E> =>
    Effect.suspend(() => {
      const pieces: Array<Buffers.View> = []
      let size = 0
      let next = from
      while (next < messages.length && size < gatherSize) {
        const frame = frameOf(framing, messages[next]!)
        if (Result.isFailure(frame)) {
          const failed = Effect.fail(frame.failure)
          return size === 0 ? failed : Effect.andThen(flush(pieces), failed)
        }
        pieces.push(...piecesOf(frame.success))
        size += Buffers.byteLength(frame.success)
        next++
      }
      return next === from
        ? Effect.succeed(sent)
        : Effect.flatMap(flush(pieces), (count) => loop(next, sent + count))
    })
  const flush = (pieces: ReadonlyArray<Buffers.View>) => ComposedWrite.run(stream, pieces, transferAll, sending)
  return loop(0, 0)
}

const piecesOf = (input: Buffers.Input): ReadonlyArray<Buffers.View> => ArrayBuffer.isView(input) ? [input] : input

const before = (header: Uint8Array, payload: Buffers.Input): Buffers.Input => [header, ...piecesOf(payload)]

const readLength = (bytes: Uint8Array, width: number, littleEndian: boolean): number => {
  let length = 0
  if (littleEndian) { for (let i = width - 1; i >= 0; i--) length = length * 256 + bytes[i]! }
  else for (let i = 0; i < width; i++) length = length * 256 + bytes[i]!
  return length
}

const writeLength = (header: Uint8Array, length: number, littleEndian: boolean): void => {
  let rest = length
  for (let i = 0; i < header.byteLength; i++) {
    header[littleEndian ? i : header.byteLength - 1 - i] = rest % 256
    rest = Math.floor(rest / 256)
  }
}

const varintPrefixed = (max: number): ByteFraming =>
  bytes({
    max,
    [runsOwnCode]: true,
    find: (found) => {
      const width = varintLength(found, 53)
      if (typeof width !== "number") return width
      let length = 0
      for (let i = width - 1; i >= 0; i--) length = length * 128 + (found[i]! & 127)
      if (length > max) return tooLarge(length, max)
      const size = width + length
      return found.byteLength < size ? undefined : { start: width, end: size, size }
    },
    enclose: (payload, length) => {
      const header: Array<number> = []
      for (let rest = length; header.length === 0 || rest > 0; rest = Math.floor(rest / 128)) {
        header.push(rest % 128 + (rest >= 128 ? 128 : 0))
      }
      return Result.succeed(before(Uint8Array.from(header), payload))
    }
  })

/** Composed operations, in both argument orders and over any stream. Nothing here runs. */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import * as EffectStream from "../../src/adapter/EffectStream.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Read from "../../src/Read.ts"
import type { SocketError } from "../../src/SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../../src/StreamSocket.ts"
import * as Write from "../../src/Write.ts"
import { expectType } from "./expect.ts"

type Written = Effect.Effect<number, SocketError>

export const writes = (
  socket: StreamSocket,
  stream: WriteStream,
  reader: ReadStream,
  found: Effect.Effect<StreamSocket, "not found">,
  bytes: Uint8Array
) => {
  expectType<Written>()(Write.writeAll(socket, bytes))
  expectType<Written>()(Write.writeAll(stream, [bytes, new DataView(bytes.buffer), Buffer.from("x")]))
  expectType<Written>()(Write.writeAll(socket, Buffers.cursor(bytes), CompletionCondition.transferAtLeast(1)))
  expectType<Written>()(Write.writeAll(socket, bytes, (transferred) => 10 - transferred))
  expectType<Written>()(Write.writeAll(bytes)(socket))
  expectType<Written>()(Write.writeAll([bytes] as const, CompletionCondition.transferAll)(stream))
  // A plain object with a `writeSome` is a stream, and so is what an effect finds.
  expectType<Written>()(Write.writeAll({ writeSome: (source) => Effect.succeed(Buffers.byteLength(source)) }, bytes))
  expectType<Effect.Effect<number, SocketError | "not found">>()(
    Effect.flatMap(found, Write.writeAll(bytes))
  )
  // @ts-expect-error text is not bytes
  Write.writeAll(socket, "text")
  // @ts-expect-error a list of numbers is not bytes
  Write.writeAll(socket, [1, 2, 3])
  // @ts-expect-error wider elements are not bytes
  Write.writeAll(socket, new Uint16Array(2))
  // @ts-expect-error a stream for reading cannot be written
  Write.writeAll(reader, bytes)
  // @ts-expect-error a condition is made by its constructors, or is a function
  Write.writeAll(socket, bytes, { next: () => 1, expectedTotal: (offered: number) => offered })
  // @ts-expect-error a condition answers a number
  Write.writeAll(socket, bytes, () => true)
  // @ts-expect-error a stream whose writes can fail otherwise is not one of these
  Write.writeAll({ writeSome: () => Effect.fail("other") }, bytes)
}

export const policies = (write: Written) => {
  expectType<Written>()(Cancellation.terminal(write))
  expectType<Written>()(write.pipe(Cancellation.partial))
  expectType<Written>()(write.pipe(Cancellation.total()))
  expectType<Written>()(write.pipe(Cancellation.total({ within: "2 seconds" })))
  expectType<Written>()(Cancellation.total(write))
  expectType<Written>()(Cancellation.total(write, { within: 500 }))
  expectType<Effect.Effect<Cancellation.Type>>()(Effect.map(Cancellation.Policy, (policy) => policy))
  // @ts-expect-error not a duration
  write.pipe(Cancellation.total({ within: "soon" }))
  // @ts-expect-error only total has a bound
  Cancellation.partial(write, { within: "2 seconds" })
}

export const reads = (socket: StreamSocket, stream: ReadStream, target: Uint8Array, writer: WriteStream) => {
  expectType<Pull.Pull<number, SocketError>>()(Read.readExactly(socket, target))
  expectType<Pull.Pull<number, SocketError>>()(Read.readExactly(target)(stream))
  expectType<Pull.Pull<number, SocketError>>()(Read.readAtLeast(socket, target, 3))
  expectType<Pull.Pull<number, SocketError>>()(Read.readAtLeast(target, 3)(stream))
  expectType<Pull.Pull<Uint8Array, SocketError>>()(Read.readUntil(socket, "\n"))
  expectType<Pull.Pull<Uint8Array, SocketError>>()(Read.readUntil(/\r?\n/, { max: 5 })(stream))
  expectType<Pull.Pull<Uint8Array, SocketError>>()(Read.readUntil(socket, 10, { max: undefined }))
  expectType<Pull.Pull<Uint8Array, SocketError>>()(Read.readUntil(socket, target))
  expectType<Pull.Pull<Uint8Array, SocketError>>()(
    Read.readUntil(socket, (bytes, scanned) => bytes.byteLength > scanned ? 1 : undefined)
  )
  expectType<Effect.Effect<Uint8Array, SocketError>>()(Read.readAll(socket))
  expectType<Effect.Effect<Uint8Array, SocketError>>()(Read.readAll(stream, { max: 5 }))
  expectType<Effect.Effect<Uint8Array, SocketError>>()(Read.readAll()(stream))
  expectType<Effect.Effect<Uint8Array, SocketError>>()(Effect.flatMap(Effect.succeed(socket), Read.readAll({ max: 1 })))
  // End of stream is a signal beside the errors, and catchDone takes it away.
  expectType<Effect.Effect<number, SocketError | Cause.Done>>()(Read.readExactly(socket, target))
  expectType<Effect.Effect<number | undefined, SocketError>>()(
    Pull.catchDone(Read.readExactly(socket, target), () => Effect.succeed(undefined))
  )
  expectType<Effect.Effect<Uint8Array, SocketError>>()(
    Read.readAll({ readSome: (into) => Effect.succeed(into.byteLength) })
  )
  // @ts-expect-error a stream for writing cannot be read
  Read.readAll(writer)
  // @ts-expect-error a target is one piece of memory
  Read.readExactly(socket, [target])
  // @ts-expect-error a minimum is missing
  Read.readAtLeast(socket, target)
  // @ts-expect-error a delimiter is not a list
  Read.readUntil(socket, [10])
  // @ts-expect-error max is a number
  Read.readUntil(socket, "\n", { max: "5" })
  // @ts-expect-error a match function answers an end or undefined
  Read.readUntil(socket, () => true)
}

export const errors = (write: Written) => {
  expectType<Effect.Effect<number | "torn", SocketError>>()(
    write.pipe(Effect.catchReason("SocketError", "Torn", ({ total, transferred }) => {
      expectType<readonly [number, number]>()([transferred, total] as const)
      return Effect.succeed("torn" as const)
    }))
  )
  expectType<Effect.Effect<number>>()(
    Effect.catchTag(write, "SocketError", (error) => Effect.succeed(error.transferred))
  )
  // @ts-expect-error no such reason
  write.pipe(Effect.catchReason("SocketError", "Weather", () => Effect.void))
}

export const streams = (socket: StreamSocket, reader: ReadStream, writer: WriteStream) => {
  expectType<Stream.Stream<Uint8Array, SocketError>>()(EffectStream.toStream(reader))
  expectType<Stream.Stream<Uint8Array, SocketError>>()(EffectStream.toStream(socket, { chunkSize: 1 }))
  expectType<Sink.Sink<number, Buffers.View, never, SocketError>>()(EffectStream.toSink(writer))
  // @ts-expect-error a stream for reading has no sink
  EffectStream.toSink(reader)
}

export const buffers = (view: Buffers.View, list: ReadonlyArray<Buffers.View>, value: unknown) => {
  expectType<number>()(Buffers.byteLength(list))
  expectType<Array<Uint8Array>>()(Buffers.slice(view, 0, 1))
  expectType<Uint8Array>()(Buffers.concat(view))
  expectType<Buffers.Cursor>()(Buffers.cursor(list))
  if (Buffers.isCursor(value)) expectType<Buffers.Cursor>()(value)
  // @ts-expect-error a cursor cannot be set back
  Buffers.cursor(view).transferred = 0
  // @ts-expect-error an ArrayBuffer is not a view of one
  Buffers.byteLength(new ArrayBuffer(1))
}

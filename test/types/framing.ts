/** Framings, their messages in and out, and what their operations fail with. Nothing here runs. */
import type * as Arr from "effect/Array"
import type * as Cause from "effect/Cause"
import type * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type * as Buffers from "../../src/Buffers.ts"
import * as Framing from "../../src/Framing.ts"
import type { SocketError } from "../../src/SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../../src/StreamSocket.ts"
import { expectType } from "./expect.ts"

type ContentError = Framing.ContentError

export const framings = (bytes: Framing.ByteFraming) => {
  expectType<Framing.ByteFraming>()(Framing.lengthPrefixed())
  expectType<Framing.ByteFraming>()(Framing.lengthPrefixed({ width: "varint", max: undefined }))
  expectType<Framing.ByteFraming>()(Framing.lengthPrefixed({ width: 8, endian: "little", includesHeader: true }))
  expectType<Framing.ByteFraming>()(Framing.delimited("|"))
  expectType<Framing.ByteFraming>()(Framing.delimited(new Uint8Array(1), { max: 5 }))
  expectType<Framing.ByteFraming>()(Framing.lines({ ending: "\r\n" }))
  expectType<Framing.ByteFraming>()(Framing.fixed(3))
  expectType<Framing.ByteFraming>()(Framing.netstring())
  expectType<Framing.ByteFraming>()(
    Framing.make({ find: () => ({ start: 0, end: 1, size: 1 }), enclose: (payload) => payload })
  )
  expectType<Framing.Framing<string, string, ContentError>>()(Framing.text(bytes))
  expectType<Framing.Framing<Schema.Json, Schema.Json, ContentError>>()(Framing.json(bytes))
  expectType<Framing.Framing<Date, Date, ContentError>>()(Framing.schema(bytes, Schema.Date))
  expectType<Framing.Framing<number, number, ContentError>>()(Framing.schemaBinary(bytes, Schema.Int))
  expectType<Framing.Framing<number, string, ContentError>>()(
    Framing.map(Framing.text(bytes), { encode: (value: number) => String(value), decode: (value) => value.trim() })
  )
  // What goes in and what comes out need not be the same.
  expectType<Framing.Framing<boolean, number, ContentError>>()(
    Framing.map({ encode: (value: boolean) => String(value), decode: (value: string) => value.length })(
      Framing.text(bytes)
    )
  )
  // @ts-expect-error no such width
  Framing.lengthPrefixed({ width: 3 })
  // @ts-expect-error no such order
  Framing.lengthPrefixed({ endian: "middle" })
  // @ts-expect-error no such ending
  Framing.lines({ ending: "\r" })
  // @ts-expect-error a regular expression has no bytes to send
  Framing.delimited(/\n/)
  // @ts-expect-error text of text
  Framing.text(Framing.text(bytes))
  // @ts-expect-error a match function answers where the message lies
  Framing.make({ find: () => 3, enclose: (payload) => payload })
  // @ts-expect-error what is encoded has to be what the framing sends
  Framing.map(Framing.text(bytes), { encode: (value: number) => value, decode: (value) => value })
}

export const operations = (
  socket: StreamSocket,
  reader: ReadStream,
  writer: WriteStream,
  bytes: Framing.ByteFraming,
  texts: Framing.Framing<string, number, ContentError>,
  sure: Framing.Framing<string>
) => {
  expectType<Effect.Effect<number, SocketError | ContentError>>()(Framing.send(socket, bytes, new Uint8Array(1)))
  expectType<Effect.Effect<number, SocketError | ContentError>>()(Framing.send(writer, texts, "a"))
  expectType<Effect.Effect<number, SocketError | ContentError>>()(Framing.send(texts, "a")(writer))
  expectType<Pull.Pull<Uint8Array, SocketError | ContentError>>()(Framing.receive(socket, bytes))
  expectType<Pull.Pull<number, SocketError | ContentError>>()(Framing.receive(texts)(reader))
  // A framing whose content cannot be bad fails with nothing of its own when it receives.
  expectType<Pull.Pull<string, SocketError>>()(Framing.receive(reader, sure))
  expectType<Effect.Effect<number, SocketError | ContentError | Cause.Done>>()(Framing.receive(reader, texts))
  expectType<Effect.Effect<number | "end", SocketError | ContentError>>()(
    Pull.catchDone(Framing.receive(reader, texts), () => Effect.succeed("end" as const))
  )
  expectType<Stream.Stream<number, SocketError | ContentError>>()(Framing.stream(reader, texts))
  expectType<Stream.Stream<string, SocketError>>()(Framing.stream(reader, sure))
  expectType<Sink.Sink<number, string, never, SocketError | ContentError>>()(Framing.sink(writer, texts))
  expectType<
    Channel.Channel<
      Arr.NonEmptyReadonlyArray<number>,
      SocketError | ContentError | "mine",
      void,
      Arr.NonEmptyReadonlyArray<string>,
      "mine"
    >
  >()(Framing.channel(socket, texts)<"mine">())
  // Plain objects are streams.
  const plain = {
    readSome: (target: Uint8Array) => Effect.succeed(target.byteLength),
    writeSome: (source: Buffers.Input) => Effect.succeed(Array.isArray(source) ? 1 : 2)
  }
  expectType<Stream.Stream<number, SocketError | ContentError>>()(Framing.stream(plain, texts))
  Framing.channel(plain, texts)()
  // @ts-expect-error text is not bytes
  Framing.send(socket, bytes, "text")
  // @ts-expect-error the message is missing
  Framing.send(socket, texts)
  // @ts-expect-error a stream for reading cannot be written
  Framing.send(reader, texts, "a")
  // @ts-expect-error a stream for writing cannot be read
  Framing.receive(writer, texts)
  // @ts-expect-error a channel needs both directions
  Framing.channel(reader, texts)
}

export const errors = (socket: StreamSocket, texts: Framing.Framing<string, string, ContentError>) => {
  const received = Pull.catchDone(Framing.receive(socket, texts), () => Effect.succeed("end"))
  expectType<Effect.Effect<string, SocketError>>()(
    Effect.catchTag(received, "ContentError", ({ cause, detail, direction }) => {
      expectType<"send" | "receive">()(direction)
      expectType<unknown>()(cause)
      return Effect.succeed(detail)
    })
  )
  expectType<Effect.Effect<string | number | undefined, SocketError | ContentError>>()(
    received.pipe(Effect.catchReason("SocketError", "Framing", ({ position }) => Effect.succeed(position)))
  )
}

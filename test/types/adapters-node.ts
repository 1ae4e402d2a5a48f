/** Adapters to Node's streams, Web streams and Effect's channels. Nothing here runs. */
import type * as Arr from "effect/Array"
import type * as Channel from "effect/Channel"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Http from "node:http"
import type * as Net from "node:net"
import type { Duplex } from "node:stream"
import type * as Tls from "node:tls"
import * as EffectStream from "../../src/adapter/EffectStream.ts"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import * as WebStreams from "../../src/adapter/WebStreams.ts"
import type * as Buffers from "../../src/Buffers.ts"
import type { SocketError } from "../../src/SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../../src/StreamSocket.ts"
import { expectType } from "./expect.ts"

type Scoped<A> = Effect.Effect<A, never, Scope.Scope>

export const duplex = (
  socket: StreamSocket,
  reader: ReadStream,
  ours: NodeDuplex.SocketDuplex,
  native: Net.Socket,
  secure: Tls.TLSSocket
) => {
  expectType<Scoped<NodeDuplex.SocketDuplex>>()(NodeDuplex.toDuplex(socket))
  expectType<Scoped<NodeDuplex.SocketDuplex>>()(
    NodeDuplex.toDuplex(socket, { allowHalfOpen: false, highWaterMark: 1 })
  )
  expectType<Scoped<StreamSocket>>()(NodeDuplex.fromDuplex(ours, { linger: "1 second", sliceSize: 1 }))
  expectType<Scoped<StreamSocket>>()(NodeDuplex.fromDuplex(native))
  expectType<Scoped<StreamSocket>>()(NodeDuplex.fromDuplex(secure))
  // It is a Duplex wherever one is taken, and chains as a socket does.
  ours satisfies Duplex
  expectType<NodeDuplex.SocketDuplex>()(ours.setNoDelay().setKeepAlive(true, 1).setTimeout(1, () => {}).ref())
  Http.createServer().emit("connection", ours)
  new Http.Agent().createConnection = (_options, callback) => {
    callback?.(null, ours)
    return ours
  }
  // @ts-expect-error what cannot be written is no Duplex
  NodeDuplex.toDuplex(reader)
  // @ts-expect-error no such option
  NodeDuplex.toDuplex(socket, { objectMode: true })
  // @ts-expect-error options of a connection that is made already
  NodeDuplex.fromDuplex(ours, { noDelay: true })
}

export const web = (
  socket: StreamSocket,
  reader: ReadStream,
  writer: WriteStream,
  readable: ReadableStream<Uint8Array>,
  writable: WritableStream<Uint8Array>,
  texts: ReadableStream<string>
) => {
  const source = WebStreams.toReadableStream(reader, { chunkSize: 5 })
  const sink = WebStreams.toWritableStream(socket)
  const pair = WebStreams.toWebStreams(socket)
  expectType<never>()(null as never satisfies Effect.Error<typeof source | typeof sink | typeof pair>)
  // What is made goes where the global types go, and the other way round.
  const use = (
    bytes: Effect.Success<typeof source>,
    into: Effect.Success<typeof sink>,
    both: Effect.Success<typeof pair>
  ) => {
    bytes satisfies ReadableStream<Uint8Array>
    void new Response(bytes).text()
    void bytes.pipeTo(into)
    void both.readable.pipeThrough(new CompressionStream("gzip")).pipeTo(both.writable)
    void into.getWriter().write(new DataView(new ArrayBuffer(1)))
    void into.getWriter().write(new ArrayBuffer(1))
    // @ts-expect-error text is not bytes
    void into.getWriter().write("text")
  }
  expectType<Scoped<ReadStream>>()(WebStreams.fromReadableStream(readable))
  expectType<Scoped<WriteStream & Pick<StreamSocket, "shutdownWrite">>>()(
    WebStreams.fromWritableStream(writable, { sliceSize: 1 })
  )
  expectType<Scoped<StreamSocket>>()(WebStreams.fromWebStreams({ readable, writable }, { linger: 0 }))
  expectType<Scoped<StreamSocket>>()(WebStreams.fromWebStreams(new TransformStream<Uint8Array, Uint8Array>()))
  // @ts-expect-error a stream that cannot be half-closed or aborted
  WebStreams.toWritableStream(writer)
  // @ts-expect-error a stream of text is not a stream of bytes
  WebStreams.fromReadableStream(texts)
  // @ts-expect-error half a pair
  WebStreams.fromWebStreams({ readable })
  return use
}

export const channel = (
  socket: StreamSocket,
  reader: ReadStream,
  input: Stream.Stream<Buffers.View>,
  failing: Stream.Stream<Uint8Array, "mine">
) => {
  expectType<
    Channel.Channel<
      Arr.NonEmptyReadonlyArray<Uint8Array>,
      SocketError,
      void,
      Arr.NonEmptyReadonlyArray<Buffers.View>,
      never
    >
  >()(EffectStream.toChannel(socket))
  expectType<Stream.Stream<Uint8Array, SocketError>>()(
    input.pipe(Stream.pipeThroughChannel(EffectStream.toChannel(socket, { chunkSize: 5 })))
  )
  expectType<Stream.Stream<Uint8Array, SocketError | "mine">>()(
    failing.pipe(Stream.pipeThroughChannel(EffectStream.toChannel<"mine">(socket)))
  )
  // @ts-expect-error a channel goes both ways
  EffectStream.toChannel(reader)
}

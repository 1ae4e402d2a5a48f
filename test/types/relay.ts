/** Relaying, in both argument orders and over any stream. Nothing here runs. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Relay from "../../src/Relay.ts"
import type { SocketError } from "../../src/SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../../src/StreamSocket.ts"
import { expectType } from "./expect.ts"

type Copied = Effect.Effect<number, SocketError>
type Relayed = Effect.Effect<Relay.Counts, SocketError>

export const copying = (socket: StreamSocket, from: ReadStream, to: WriteStream) => {
  expectType<Copied>()(Relay.copy(from, to))
  expectType<Copied>()(Relay.copy(socket, socket, { bufferSize: 1024 }))
  expectType<Copied>()(Relay.copy(to)(from))
  expectType<Copied>()(Relay.copy(socket, { bufferSize: undefined })(socket))
  // @ts-expect-error what is copied from must be readable
  Relay.copy(to, socket)
  // @ts-expect-error what is copied to must be writable
  Relay.copy(socket, from)
  // @ts-expect-error one direction has no idle time of its own
  Relay.copy(from, to, { idle: "1 second" })
}

export const relaying = (
  socket: StreamSocket,
  other: Relay.DuplexStream,
  half: ReadStream & WriteStream,
  idle: Duration.Duration
) => {
  expectType<Relayed>()(Relay.relay(socket, other))
  expectType<Relayed>()(Relay.relay(other, socket, { bufferSize: 1024, idle: "5 minutes" }))
  expectType<Relayed>()(Relay.relay(other)(socket))
  expectType<Relayed>()(Relay.relay(other, { idle })(socket))
  // Every socket is one of these, and so is an object with its three members.
  expectType<Relay.DuplexStream>()(socket as Relay.DuplexStream)
  expectType<Relayed>()(
    Relay.relay(socket, {
      readSome: socket.readSome,
      writeSome: socket.writeSome,
      shutdownWrite: socket.shutdownWrite
    })
  )
  // @ts-expect-error a stream that cannot end one direction cannot pass an end on
  Relay.relay(socket, half)
  // @ts-expect-error a count is not a duration
  Relay.relay(socket, other, { idle: true })
}

import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Buffers from "../../Buffers.ts"
import { isSocketError, Reason, SocketError } from "../../SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../../StreamSocket.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"
import * as Write from "../../Write.ts"
import { isEndOfStream } from "../base/isEndOfStream.ts"
import { noEvents } from "../base/noEvents.ts"
import * as ForeignStream from "./foreignStream.ts"

type Stream =
  & ReadStream
  & WriteStream
  & Pick<StreamSocket, "localAddress" | "remoteAddress" | "shutdownWrite" | "close" | "abort">

type Fork = (effect: Effect.Effect<void>) => Fiber.Fiber<void>

/** A stream that is not ours, as a backing. At most one read and one write of it run at a time, each in a fiber. */
export class ForeignStreamBacking implements Backing {
  private readonly stream: Stream
  private readonly fork: Fork
  private events: Events = noEvents
  private readonly receiveBuffer = new Uint8Array(65_536)
  // Bytes that were received and no read has taken: `start` to `end` of the receive buffer.
  private start = 0
  private end = 0
  private over: 0 | SocketError | undefined = undefined
  private reader: Fiber.Fiber<void> | undefined = undefined
  private writer: Fiber.Fiber<void> | undefined = undefined
  private writeFailure: SocketError | undefined = undefined
  private isShut = false
  private isCalled = false
  private phase: "open" | "closing" | "closed" = "open"

  constructor(stream: Stream, fork: Fork) {
    this.stream = stream
    this.fork = fork
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.stream.localAddress
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.stream.remoteAddress
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    if (this.start === this.end && this.over === undefined && this.reader === undefined) this.receive()
    const count = Math.min(target.byteLength, this.end - this.start)
    if (count === 0) return this.over ?? WouldBlock
    target.set(this.receiveBuffer.subarray(this.start, this.start + count))
    this.start += count
    return count
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.writer !== undefined) return WouldBlock
    const bytes = new Uint8Array(Math.min(source.remaining, limit, 65_536))
    source.copyTo(bytes)
    this.send(Write.writeAll(this.stream, bytes))
    return this.failure() ?? bytes.byteLength
  }

  shutdownWrite(): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.writer !== undefined) return WouldBlock
    if (this.isShut) return 0
    this.isShut = true
    this.send(this.stream.shutdownWrite)
    return this.failure() ?? (this.isBusy() ? WouldBlock : 0)
  }

  close(): void {
    // The bytes that were taken are written first.
    if (this.phase === "open" && this.writer !== undefined) this.phase = "closing"
    else this.release(this.stream.close)
  }

  abort(): void {
    this.release(this.stream.abort)
  }

  configure(): ReturnType<Backing["configure"]> {
    // Options of the stream are set by its owner.
    return undefined
  }

  private receive(): void {
    this.called(() => {
      this.reader = this.fork(
        Effect.matchCause(Effect.suspend(() => this.stream.readSome(this.receiveBuffer)), {
          onSuccess: (count) => {
            this.start = 0
            this.end = count
          },
          onFailure: (cause) => {
            this.over = isEndOfStream(cause) ? 0 : this.errorOf(cause)
          }
        })
      )
      this.reader.addObserver(() => {
        this.reader = undefined
        if (!this.isCalled && this.phase === "open") this.events.readable()
      })
    })
  }

  private send(effect: Effect.Effect<unknown, SocketError>): void {
    this.called(() => {
      this.writer = this.fork(
        Effect.matchCause(effect, {
          onSuccess: () => {},
          onFailure: (cause) => {
            this.writeFailure ??= this.errorOf(cause)
          }
        })
      )
      this.writer.addObserver(() => {
        this.writer = undefined
        if (this.phase === "closing") this.release(this.stream.close)
        else if (this.isCalled || this.phase === "closed") return
        else if (this.writeFailure === undefined) this.events.writable()
        else this.events.failed(this.writeFailure)
      })
    })
  }

  private release(ending: Effect.Effect<void>): void {
    this.phase = "closed"
    const { reader, writer } = this
    this.fork(ending).addObserver(() => {
      reader?.interruptUnsafe()
      writer?.interruptUnsafe()
      this.events.closed()
    })
  }

  // An effect that ends during the call is answered by its result, and emits no event.
  private called(call: () => void): void {
    this.isCalled = true
    call()
    this.isCalled = false
  }

  // Methods, because the compiler does not know that a fiber may have changed the fields meanwhile.
  private failure(): SocketError | undefined {
    return this.writeFailure
  }

  private isBusy(): boolean {
    return this.writer !== undefined
  }

  private errorOf(cause: Cause.Cause<unknown>): SocketError {
    const error = cause.reasons.find(Cause.isFailReason)?.error
    return isSocketError(error)
      ? error
      : new SocketError({
        reason: Reason.Unknown(),
        operation: "socket",
        address: this.remoteAddress,
        transferred: 0,
        cause: Cause.squash(cause)
      })
  }
}

/** The bytes in the read buffer of a foreign stream: composed reads have received them, and no read has taken them. */
export const bufferedBytes = (stream: ReadStream, what: "peek" | "take"): Uint8Array =>
  Effect.runSync(ForeignStream.read(stream, {
    operation: "bufferedBytes",
    total: undefined,
    runsCallerCode: false,
    endsWithStream: false,
    // All bytes of the buffer, so the stream is not read.
    find: (buffer) => buffer.length,
    consume: (buffer, length) => {
      const bytes = buffer.bytes().slice()
      if (what === "take") buffer.consume(length)
      return bytes
    },
    want: () => 1
  }))

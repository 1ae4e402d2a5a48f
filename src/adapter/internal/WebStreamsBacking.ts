import type {
  ReadableStream as WebReadableStream,
  ReadableStreamDefaultReader,
  WritableStream as WebWritableStream,
  WritableStreamDefaultWriter
} from "node:stream/web"
import type * as Buffers from "../../Buffers.ts"
import { noEvents, noop } from "../../internal/base/noEvents.ts"
import { unnamed } from "../../internal/base/unnamed.ts"
import { during, fromErrno, isSocketError, Reason, SocketError } from "../../SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"
import { closedError } from "./endings.ts"

/** One Web stream or a pair. */
export interface WebHalves {
  readonly readable?: WebReadableStream<Uint8Array>
  readonly writable?: WebWritableStream<Uint8Array>
}

export class WebStreamsBacking implements Backing {
  readonly localAddress = unnamed
  readonly remoteAddress = unnamed
  private readonly reader: ReadableStreamDefaultReader<Uint8Array> | undefined
  private readonly writer: WritableStreamDefaultWriter<Uint8Array> | undefined
  private readonly sliceSize: number
  private events: Events = noEvents
  private phase: "open" | "closing" | "closed" = "open"
  // Bytes that the reader has delivered and no read has taken.
  private chunk: Uint8Array | undefined = undefined
  private asking = false
  private ended: boolean
  private readFailure: SocketError | undefined = undefined
  private writeFailure: SocketError | undefined = undefined
  private inFlight = 0
  private wantsRoom = false
  private closingWriter: Promise<void> | undefined = undefined

  constructor({ readable, writable }: WebHalves, sliceSize: number) {
    this.sliceSize = sliceSize
    this.reader = readable?.getReader()
    this.writer = writable?.getWriter()
    this.ended = readable === undefined
    if (writable === undefined) this.writeFailure = this.error(Reason.Unsupported({ feature: "writing" }))
    this.writer?.closed.catch((cause: unknown) => this.failWriting(cause))
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    const { chunk } = this
    if (chunk !== undefined) {
      const count = Math.min(chunk.byteLength, target.byteLength)
      target.set(count === chunk.byteLength ? chunk : chunk.subarray(0, count))
      this.chunk = count === chunk.byteLength ? undefined : chunk.subarray(count)
      return count
    }
    if (this.ended) return 0
    if (this.readFailure !== undefined) return this.readFailure
    this.ask()
    return WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    const { writer } = this
    if (this.writeFailure !== undefined || writer === undefined) return this.refusal
    if (!this.hasRoom(writer)) return WouldBlock
    // Memory of its own each time: the stream keeps what it is given.
    const slice = new Uint8Array(Math.min(source.remaining, limit, this.sliceSize))
    source.copyTo(slice)
    this.inFlight++
    writer.write(slice).then(() => this.onFlushed(), (cause: unknown) => {
      this.failWriting(cause)
      this.onFlushed()
    })
    return slice.byteLength
  }

  shutdownWrite(): number | SocketError {
    if (this.writeFailure !== undefined || this.writer === undefined) return this.refusal
    if (this.inFlight > 0) {
      this.wantsRoom = true
      return WouldBlock
    }
    void this.closeWriter(this.writer)
    return 0
  }

  close(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    if (this.phase === "closing") return
    this.phase = "closing"
    void Promise.allSettled([
      this.writer === undefined ? undefined : this.closeWriter(this.writer),
      this.reader?.cancel()
    ]).then(() => this.onClosed())
  }

  abort(): void {
    if (this.phase !== "closed") {
      this.phase = "closing"
      const reason = closedError("abort")
      // There is no bound on how long they take.
      this.writer?.abort(reason).catch(noop)
      this.reader?.cancel(reason).catch(noop)
    }
    this.onClosed()
  }

  configure(): void {
    // Web streams have no options.
  }

  private ask(): void {
    if (this.asking || this.reader === undefined) return
    this.asking = true
    this.reader.read().then(({ done, value }) => {
      this.asking = false
      if (done) this.ended = true
      else if (!(value instanceof Uint8Array)) {
        this.readFailure = this.errorOf(new TypeError("the stream delivered a chunk that is not a Uint8Array"))
      } else if (value.byteLength > 0) this.chunk = value
      this.readable()
    }, (cause: unknown) => {
      this.asking = false
      this.readFailure = this.errorOf(cause)
      this.readable()
    })
  }

  private readable(): void {
    if (this.phase === "open") this.events.readable()
  }

  private hasRoom(writer: WritableStreamDefaultWriter<Uint8Array>): boolean {
    // `null` is a stream that is about to say how it failed.
    if (writer.desiredSize !== null && writer.desiredSize > 0) return true
    if (!this.wantsRoom) {
      this.wantsRoom = true
      writer.ready.then(() => this.onRoom(), noop)
    }
    return false
  }

  private onRoom(): void {
    if (!this.wantsRoom) return
    this.wantsRoom = false
    if (this.phase === "open") this.events.writable()
  }

  private onFlushed(): void {
    this.inFlight--
    this.onRoom()
  }

  private failWriting(cause: unknown): void {
    if (this.writeFailure !== undefined) return
    this.writeFailure = this.errorOf(cause)
    if (this.phase === "open") this.events.failed(this.writeFailure)
  }

  private closeWriter(writer: WritableStreamDefaultWriter<Uint8Array>): Promise<void> {
    return this.closingWriter ??= writer.close().catch((cause: unknown) => this.failWriting(cause))
  }

  private onClosed(): void {
    this.phase = "closed"
    this.chunk = undefined
    this.events.closed()
  }

  private get refusal(): SocketError {
    return this.writeFailure ?? this.error(Reason.BrokenPipe())
  }

  private errorOf(cause: unknown): SocketError {
    return isSocketError(cause)
      ? during(cause, { operation: "socket", transferred: 0 })
      : fromErrno(cause, { operation: "socket" })
  }

  private error(reason: Reason): SocketError {
    return new SocketError({ reason, operation: "socket", transferred: 0 })
  }
}

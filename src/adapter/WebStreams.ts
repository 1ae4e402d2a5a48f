/**
 * A socket as Web streams, and Web streams as a socket.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import type {
  ReadableByteStreamController,
  ReadableStream as WebReadableStream,
  ReadableStreamDefaultReader,
  ReadableWritablePair,
  WritableStream as WebWritableStream,
  WritableStreamDefaultController,
  WritableStreamDefaultWriter
} from "node:stream/web"
import type * as Buffers from "../Buffers.ts"
import * as Cancellation from "../Cancellation.ts"
import { positiveInteger } from "../internal/base/checks.ts"
import { isEndOfStream } from "../internal/base/isEndOfStream.ts"
import { noEvents, noop } from "../internal/base/noEvents.ts"
import { during, fromErrno, isSocketError, Reason, SocketError } from "../SocketError.ts"
import * as StreamSocket from "../StreamSocket.ts"
import { type Backing, type Events, resolveOptions, type SocketOptions, WouldBlock } from "../Transport.ts"
import * as Write from "../Write.ts"

/**
 * What a `WritableStream` of ours takes: any view of memory, or an
 * `ArrayBuffer`. Text has to be encoded first (`TextEncoderStream`).
 *
 * @category models
 * @since 0.1.0
 */
export type Chunk = ArrayBufferView | ArrayBuffer

/**
 * The bytes of a stream to its end, as a `ReadableStream` of the `"bytes"` type.
 *
 * **Details**
 *
 * - Nothing is read before it is asked for, and nothing ahead.
 * - A BYOB reader (`getReader({ mode: "byob" })`) has its bytes put straight
 *   into its own memory. Any other reader gets chunks of its own, as they
 *   arrive, of at most `chunkSize` bytes (default 65,536).
 * - It closes at end of stream, and errors with the `SocketError` of the read.
 *   When the scope ends before that, it errors with the reason `Closed`.
 * - `cancel` stops reading. It leaves the socket open, and every byte that was
 *   not delivered unread: a read that waits loses nothing.
 *
 * **What is lost**: `tee` reads ahead for the slower branch without bounds, and
 * `releaseLock` on a reader whose read waits lets one chunk be read ahead; both
 * are of Web streams.
 *
 * **Interruption**: the end of the scope interrupts a read that waits, *totally*.
 *
 * **Example** (Piping a socket through a decompressor)
 *
 * ```ts
 * const bytes = yield* WebStreams.toReadableStream(socket)
 * const text = yield* Effect.promise(() =>
 *   new Response(bytes.pipeThrough(new DecompressionStream("gzip"))).text()
 * )
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toReadableStream = (
  socket: StreamSocket.ReadStream,
  options?: { readonly chunkSize?: number | undefined }
): Effect.Effect<WebReadableStream<Uint8Array>, never, Scope.Scope> =>
  Effect.map(acquireSource(socket, options?.chunkSize, noop), (source) => source.stream)

/**
 * A `WritableStream` that writes every chunk whole, in order.
 *
 * **Details**
 *
 * - Each chunk is one `Write.writeAll`, and its `write` resolves when all of it
 *   was taken. The next chunk waits until then, so `writer.ready` is the
 *   backpressure of the socket.
 * - `close` is `shutdownWrite`, behind everything written.
 * - `abort` interrupts the write at hand. Under the `terminal` policy (the
 *   default) it then aborts the socket, so that the peer cannot take what it
 *   has for all there was. Under `partial` and `total` it leaves the socket as
 *   the write left it: usable.
 * - A failed write errors the stream with its `SocketError`; a chunk that is not
 *   bytes, with a `TypeError`.
 *
 * **What is lost**: how far a chunk that was cut had come. Write through
 * `Write.writeAll` where that matters.
 *
 * **Interruption**: the end of the scope does what `abort` does, but leaves the
 * socket open; a stream that was not closed errors with the reason `Closed`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toWritableStream = (
  socket: StreamSocket.WriteStream & Pick<StreamSocket.StreamSocket, "shutdownWrite" | "abort">
): Effect.Effect<WebWritableStream<Chunk>, never, Scope.Scope> =>
  Effect.map(acquireSink(socket, noop), (sink) => sink.stream)

/**
 * Both directions of a socket, as the sockets of Deno and of Cloudflare's
 * workers have them. When both are over (closed, cancelled, aborted or failed)
 * the socket is closed.
 *
 * Each direction is as {@link toReadableStream} and {@link toWritableStream}
 * make it.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toWebStreams = (
  socket: StreamSocket.StreamSocket,
  options?: { readonly chunkSize?: number | undefined }
): Effect.Effect<
  { readonly readable: WebReadableStream<Uint8Array>; readonly writable: WebWritableStream<Chunk> },
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const run = Effect.runForkWith(yield* Effect.context())
    let open = 2
    const closing = yield* Effect.acquireRelease(
      Effect.succeed<{ fiber?: Fiber.Fiber<void> }>({}),
      ({ fiber }) => fiber === undefined ? Effect.void : Effect.asVoid(Fiber.await(fiber))
    )
    const onOver = () => {
      if (--open === 0) closing.fiber = run(socket.close)
    }
    const source = yield* acquireSource(socket, options?.chunkSize, onOver)
    const sink = yield* acquireSink(socket, onOver)
    return { readable: source.stream, writable: sink.stream }
  })

/**
 * A `ReadableStream` of bytes as a stream of ours. It is locked, and cancelled
 * with the scope.
 *
 * **Details**
 *
 * A chunk is asked for when a read finds none, one at a time; what a read does
 * not take of it waits for the next. End of stream is `Cause.Done`. A stream
 * that errors with a `SocketError` fails with that; with any other error, by its
 * `code` if it has one, else with `Unknown`, and the error as `cause`. So does a
 * chunk that is not bytes.
 *
 * **What is lost**: a stream that errors discards what it had queued. A
 * BYOB reader would take the memory of the caller away, so bytes are copied.
 *
 * **Interruption**: reads are *total*.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromReadableStream = (
  stream: WebReadableStream<Uint8Array>
): Effect.Effect<StreamSocket.ReadStream, never, Scope.Scope> => fromWeb({ readable: stream }, undefined)

/**
 * A `WritableStream` of bytes as a stream of ours. It is locked; the end of the
 * scope closes it, or aborts it if the scope ends in failure or a write was cut
 * in the middle.
 *
 * **Details**
 *
 * A write copies at most `sliceSize` bytes (default 65,536) into memory of its
 * own and hands that over, as long as the stream asks for more. `shutdownWrite`
 * is `close`, behind everything taken.
 *
 * **What is lost**: "taken" means that the stream took it. A sink that fails
 * later fails the next write, and one that fails while it closes fails nothing.
 *
 * **Interruption**: as for every `WriteStream`; a `writeAll` that is cut tears
 * the stream by policy.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromWritableStream = (
  stream: WebWritableStream<Uint8Array>,
  options?: Pick<SocketOptions, "linger" | "sliceSize">
): Effect.Effect<
  StreamSocket.WriteStream & Pick<StreamSocket.StreamSocket, "shutdownWrite">,
  never,
  Scope.Scope
> => fromWeb({ writable: stream }, options)

/**
 * A pair of Web streams as a socket: of Deno, of Cloudflare's workers, of a
 * `WebSocketStream` or a `TransformStream`.
 *
 * Its directions are as {@link fromReadableStream} and {@link fromWritableStream}
 * make them. `close` closes the one and cancels the other; `abort` aborts and
 * cancels. It has no addresses and no options.
 *
 * **Interruption**: as for every `StreamSocket`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromWebStreams = (
  pair: ReadableWritablePair<Uint8Array, Uint8Array>,
  options?: Pick<SocketOptions, "linger" | "sliceSize">
): Effect.Effect<StreamSocket.StreamSocket, never, Scope.Scope> => fromWeb(pair, options)

// ---- internal: ours as Web streams

const acquireSource = (
  socket: StreamSocket.ReadStream,
  chunkSize: number | undefined,
  onOver: () => void
): Effect.Effect<Source, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.context(), (context) => new Source(socket, context, chunkSize ?? defaultChunkSize, onOver)),
    (source) => source.release
  )

const acquireSink = (
  socket: Sinkable,
  onOver: () => void
): Effect.Effect<Sink, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.context(), (context) => new Sink(socket, context, onOver)),
    (sink) => sink.release
  )

class Source {
  readonly stream: WebReadableStream<Uint8Array>
  private readonly socket: StreamSocket.ReadStream
  private readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  private readonly chunkSize: number
  private readonly onOver: () => void
  private controller: ReadableByteStreamController | undefined = undefined
  private receiveBuffer: Uint8Array | undefined = undefined
  private reading: Fiber.Fiber<void> | undefined = undefined
  private isOver = false

  constructor(
    socket: StreamSocket.ReadStream,
    context: Context.Context<never>,
    chunkSize: number,
    onOver: () => void
  ) {
    positiveInteger(`toReadableStream: chunkSize`, chunkSize, "bytes")
    this.socket = socket
    this.fork = Effect.runForkWith(context)
    this.chunkSize = chunkSize
    this.onOver = onOver
    this.stream = new ReadableStream({
      type: "bytes",
      start: (controller) => {
        this.controller = controller
      },
      pull: (controller) => this.pull(controller),
      cancel: () => {
        this.over()
        return ended(this.stop())
      }
    }, { highWaterMark: 0 })
  }

  get release(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const stopped = this.stop()
      if (!this.isOver) {
        this.over()
        this.controller?.error(closedError("readSome"))
      }
      return stopped === undefined ? Effect.void : Effect.asVoid(Fiber.await(stopped))
    })
  }

  private pull(controller: ReadableByteStreamController): Promise<void> | undefined {
    const reading = this.fork(this.read(controller))
    if (reading.pollUnsafe() !== undefined) return undefined
    this.reading = reading
    return ended(reading)
  }

  // What was read is delivered in the same step, so that no interruption comes between.
  private read(controller: ReadableByteStreamController): Effect.Effect<void> {
    const request = controller.byobRequest
    // A request answers `null` only after it was responded to.
    const view = request?.view ?? undefined
    const reading = request !== null && view !== undefined
      ? Effect.map(
        this.socket.readSome(new Uint8Array(view.buffer, view.byteOffset, view.byteLength)),
        (count) => request.respond(count)
      )
      : Effect.map(this.socket.readSome(this.receiveBuffer ??= new Uint8Array(this.chunkSize)), (count) => {
        controller.enqueue(this.cut(count))
      })
    return Effect.catchCause(reading, (cause) =>
      Effect.sync(() => {
        if (Cause.hasInterrupts(cause)) return
        this.over()
        if (isEndOfStream(cause)) {
          controller.close()
          // A request that waits has to be answered too.
          controller.byobRequest?.respond(0)
        } else controller.error(Cause.squash(cause))
      }))
  }

  // The stream keeps the memory of its chunks: what is mostly full is handed over, what is not is copied.
  private cut(count: number): Uint8Array {
    const receiveBuffer = this.receiveBuffer ?? new Uint8Array(0)
    if (count < this.chunkSize / 2) return receiveBuffer.slice(0, count)
    this.receiveBuffer = undefined
    return receiveBuffer.subarray(0, count)
  }

  private stop(): Fiber.Fiber<void> | undefined {
    const { reading } = this
    reading?.interruptUnsafe()
    return reading
  }

  private over(): void {
    if (this.isOver) return
    this.isOver = true
    this.receiveBuffer = undefined
    this.onOver()
  }
}

type Sinkable = StreamSocket.WriteStream & Pick<StreamSocket.StreamSocket, "shutdownWrite" | "abort">

// The types of Node 22 do not know the signal; Node 18 has it.
type SinkController = WritableStreamDefaultController & { readonly signal: AbortSignal }

class Sink {
  readonly stream: WebWritableStream<Chunk>
  private readonly socket: Sinkable
  private readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  private readonly aborts: boolean
  private readonly onOver: () => void
  private controller: SinkController | undefined = undefined
  private writing: Fiber.Fiber<unknown, SocketError> | undefined = undefined
  private isOver = false

  constructor(socket: Sinkable, context: Context.Context<never>, onOver: () => void) {
    this.socket = socket
    this.fork = Effect.runForkWith(context)
    this.aborts = Context.get(context, Cancellation.Policy) === "terminal"
    this.onOver = onOver
    this.stream = new WritableStream<Chunk>({
      start: (controller) => {
        this.controller = controller as SinkController
        this.controller.signal.addEventListener("abort", () => this.writing?.interruptUnsafe())
      },
      write: (chunk) => this.run(Write.writeAll(this.socket, viewOf(chunk))),
      close: async () => {
        try {
          await this.run(this.socket.shutdownWrite)
          this.over()
        } catch (failure) {
          // Where closing is cut by `abort`, that does not come here by itself.
          if (this.controller?.signal.aborted === true) await this.abort()
          throw failure
        }
      },
      abort: () => this.abort()
    })
  }

  get release(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { writing } = this
      if (!this.isOver) {
        this.over()
        this.controller?.error(closedError("writeAll"))
      }
      return writing === undefined ? Effect.void : Fiber.interrupt(writing)
    })
  }

  private async run(effect: Effect.Effect<unknown, SocketError>): Promise<void> {
    const writing = this.writing = this.fork(effect)
    const exit = writing.pollUnsafe() ?? await exitOf(writing)
    this.writing = undefined
    if (Exit.isSuccess(exit)) return
    if (Cause.hasInterrupts(exit.cause)) {
      throw this.controller?.signal.aborted === true ? this.controller.signal.reason : closedError("writeAll")
    }
    this.over()
    throw Cause.squash(exit.cause)
  }

  private async abort(): Promise<void> {
    if (this.aborts) await this.run(this.socket.abort)
    this.over()
  }

  private over(): void {
    if (this.isOver) return
    this.isOver = true
    this.onOver()
  }
}

const exitOf = <A, E>(fiber: Fiber.Fiber<A, E>): Promise<Exit.Exit<A, E>> =>
  new Promise((resolve) => {
    fiber.addObserver(resolve)
  })

const ended = (fiber: Fiber.Fiber<void> | undefined): Promise<void> | undefined =>
  fiber === undefined ? undefined : exitOf(fiber).then(noop)

const closedError = (operation: string): SocketError =>
  new SocketError({ reason: Reason.Closed(), operation, transferred: 0 })

// Callers of JavaScript are not held to the type.
const viewOf = (chunk: unknown): Uint8Array => {
  if (chunk instanceof Uint8Array) return chunk
  if (ArrayBuffer.isView(chunk)) return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk)
  throw new TypeError(`toWritableStream: a chunk of bytes is expected, got ${chunk === null ? "null" : typeof chunk}`)
}

const defaultChunkSize = 65_536

// ---- internal: Web streams as ours

const fromWeb = (
  streams: WebHalves,
  options: Pick<SocketOptions, "linger" | "sliceSize"> | undefined
): Effect.Effect<StreamSocket.StreamSocket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { linger, sliceSize } = resolveOptions(options)
      return StreamSocket.make(new WebBacking(streams, sliceSize), { linger })
    }),
    // A sink that is closed takes what it has for all there was.
    (socket, exit) => Exit.isSuccess(exit) && socket.state.write !== "torn" ? socket.close : socket.abort
  )

interface WebHalves {
  readonly readable?: WebReadableStream<Uint8Array>
  readonly writable?: WebWritableStream<Uint8Array>
}

class WebBacking implements Backing {
  readonly localAddress = unnamed
  readonly remoteAddress = unnamed
  private readonly reader: ReadableStreamDefaultReader<Uint8Array> | undefined
  private readonly writer: WritableStreamDefaultWriter<Uint8Array> | undefined
  private readonly sliceSize: number
  private events: Events = noEvents
  private phase: "open" | "closing" | "closed" = "open"
  // What the reader has delivered and no read has taken.
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
      // Nobody can say how long they take.
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

const unnamed = NetAddress.unixPathAddress("")

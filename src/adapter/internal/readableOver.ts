import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { ReadableByteStreamController, ReadableStream as WebReadableStream } from "node:stream/web"
import { positiveInteger } from "../../internal/base/checks.ts"
import { isEndOfStream } from "../../internal/base/isEndOfStream.ts"
import { noop } from "../../internal/base/noEvents.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import { closedError, exitOf } from "./endings.ts"

export const acquireSource = (
  socket: StreamSocket.ReadStream,
  chunkSize: number | undefined,
  onOver: () => void
): Effect.Effect<Source, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.context(), (context) => new Source(socket, context, chunkSize ?? defaultChunkSize, onOver)),
    (source) => source.release
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

  // Read bytes are delivered in the same step, so that no interruption comes in between.
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

const ended = (fiber: Fiber.Fiber<void> | undefined): Promise<void> | undefined =>
  fiber === undefined ? undefined : exitOf(fiber).then(noop)

const defaultChunkSize = 65_536

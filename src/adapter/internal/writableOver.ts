import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { WritableStream as WebWritableStream, WritableStreamDefaultController } from "node:stream/web"
import * as Cancellation from "../../Cancellation.ts"
import type { SocketError } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import * as Write from "../../Write.ts"
import type { Chunk } from "../WebStreams.ts"
import { closedError, exitOf } from "./endings.ts"

export const acquireSink = (
  socket: Sinkable,
  onOver: () => void
): Effect.Effect<Sink, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.context(), (context) => new Sink(socket, context, onOver)),
    (sink) => sink.release
  )

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

// Callers of JavaScript are not held to the type.
const viewOf = (chunk: unknown): Uint8Array => {
  if (chunk instanceof Uint8Array) return chunk
  if (ArrayBuffer.isView(chunk)) return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk)
  throw new TypeError(`toWritableStream: a chunk of bytes is expected, got ${chunk === null ? "null" : typeof chunk}`)
}

import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Buffers from "../../Buffers.ts"
import { type CompletionCondition, transferAll } from "../../CompletionCondition.ts"
import { during, Reason, type SocketError } from "../../SocketError.ts"
import { type Backing, WouldBlock } from "../../Transport.ts"
import { counters } from "../base/counters.ts"
import type { WriteMode } from "../cancellation/interruption.ts"
import { isNearEndOfSlice, OperationQueue } from "./OperationQueue.ts"
import { WriteAll, type WriteOperation } from "./WriteOperations.ts"

/**
 * The outgoing direction of a connection: the queue of its writes, and whether
 * the stream takes more bytes.
 */
export class WriteHalf {
  readonly queue: OperationQueue = new OperationQueue(this)
  bytesWritten = 0
  state: "open" | "shutdown" | "torn" | "failed" | "closed" = "open"
  /** Why every later write fails; set when `state` is not "open". */
  failure: Failure | undefined = undefined
  readonly backing: Backing
  /**
   * The queue of the other half. Bytes that arrived before a failure reach their readers before the writers fail: a handler
   * that ends by the failure of a write would otherwise lose what the peer said last.
   */
  readers: OperationQueue | undefined = undefined

  constructor(backing: Backing) {
    this.backing = backing
  }

  /** Bytes of the queued writes that were not taken yet; 0 when no write waits. */
  get bytesWaiting(): number {
    let bytes = 0
    for (let operation = this.queue.front; operation !== undefined; operation = operation.next) {
      bytes += Math.max(operation.total - operation.transferred, 0)
    }
    return bytes
  }

  /**
   * The stream is torn, or the write at the front is inside its message: the peer
   * may have only the beginning of a message, and a FIN would look like its end.
   */
  get isInsideMessage(): boolean {
    const { front } = this.queue
    return this.state === "torn" || (front !== undefined && front.transferred > 0)
  }

  /** The error of a write that cannot be attempted; `undefined` when it can. */
  errorIfRefused(write: WriteOperation<unknown>): SocketError | undefined {
    if (this.failure === undefined) return undefined
    // A write of no bytes succeeds on every stream that is neither torn nor closed.
    if (write.immediate && this.state !== "closed" && this.state !== "torn") return undefined
    return this.refusedError(this.failure, write)
  }

  /** The error of an operation that is refused. */
  refusedError(failure: Failure, context: Parameters<typeof during>[1]): SocketError {
    const { cause, code, reason } = failure
    return during({ reason, address: this.backing.remoteAddress, code, cause }, context)
  }

  /** One attempt: the transport takes bytes and the cursor advances, or it fails or would block. */
  offer(source: Buffers.Cursor, limit: number): number | SocketError {
    return this.applyResult(source, this.backing.write(source, limit))
  }

  private applyResult(source: Buffers.Cursor, answer: number | SocketError): number | SocketError {
    if (typeof answer !== "number") {
      this.end("failed", answer)
      this.readers?.pump("keepInterest")
    } else if (answer > 0) {
      source.advance(answer)
      this.countTaken(answer)
    } else if (answer !== WouldBlock) {
      throw new Error(`the transport took ${answer} bytes of ${source.remaining}`)
    }
    return answer
  }

  private countTaken(taken: number): void {
    this.bytesWritten += taken
    counters.bytesWritten += taken
  }

  shutdown(): number | SocketError {
    const answer = this.backing.shutdownWrite()
    if (typeof answer !== "number") {
      this.end("failed", answer)
      this.readers?.pump("keepInterest")
    } else if (answer !== WouldBlock) this.end("shutdown", { reason: Reason.BrokenPipe() })
    return answer
  }

  /** A message was stopped inside: no byte may follow it. */
  tear(transferred: number, total: number): void {
    if (this.state === "open") counters.torn++
    this.end("torn", { reason: Reason.Torn({ transferred, total }) })
  }

  fail(error: SocketError): void {
    this.end("failed", error)
    this.readers?.pump("keepInterest")
    this.queue.pump("keepInterest")
  }

  /** Why every write fails; `undefined` while the half is open. */
  get reason(): Reason | undefined {
    return this.failure?.reason
  }

  close(reason: Reason = Reason.Closed()): void {
    this.state = "closed"
    this.failure = { reason }
    this.queue.pump("keepInterest")
  }

  interestDropped(): void {
    if (this.state !== "closed") this.backing.interestDropped?.("write")
  }

  run<A>(fiber: Fiber.Fiber<unknown, unknown>, operation: WriteOperation<A>): Effect.Effect<A, SocketError> {
    return this.queue.run(fiber, operation)
  }

  writeAll(
    fiber: Fiber.Fiber<unknown, unknown>,
    source: Buffers.Cursor,
    condition: CompletionCondition,
    mode: WriteMode
  ): Effect.Effect<number, SocketError> {
    return this.queue.run(fiber, new WriteAll(this, source, condition, mode, 0))
  }

  /**
   * `writeAll` of one piece, as most messages are. Does the steps of
   * `OperationQueue.run` itself: when the message is taken at once, neither an
   * operation nor a cursor is made.
   */
  writePiece(
    fiber: Fiber.Fiber<unknown, unknown>,
    piece: Uint8Array,
    mode: WriteMode
  ): Effect.Effect<number, SocketError> {
    const total = piece.byteLength
    if (total === 0 || this.state !== "open" || this.queue.front !== undefined || isNearEndOfSlice(fiber)) {
      return this.writeAll(fiber, Buffers.cursor(piece), transferAll, mode)
    }
    const answer = this.backing.write(reusableCursor.reset(piece), total)
    reusableCursor.reset(none)
    if (answer === total) {
      this.countTaken(total)
      counters.completed++
      return Exit.succeed(total)
    }
    const source = Buffers.cursor(piece)
    if (answer === WouldBlock) return this.queue.enqueue(fiber, new WriteAll(this, source, transferAll, mode, 0))
    const taken = this.applyResult(source, answer)
    return this.queue.run(fiber, new WriteAll(this, source, transferAll, mode, typeof taken === "number" ? taken : 0))
  }

  // The first reason stays: a torn stream that is reset afterwards is still torn.
  private end(state: WriteHalf["state"], failure: Failure): void {
    if (this.state !== "open") return
    this.state = state
    this.failure = failure
  }
}

/** The parts of the errors of refused writes. An error with its stack would cost more than the rest of a close. */
type Failure = Pick<SocketError, "reason"> & Partial<Pick<SocketError, "code" | "cause">>

// ---- internal

/** A cursor over one view that is used again, instead of a cursor for each message. */
class ReusableCursor extends Buffers.Cursor {
  reset(view: Uint8Array): this {
    return this.restart(view)
  }
}

const none = new Uint8Array(0)

// A backing neither keeps a cursor nor calls back from `write`, so at most one write uses it at a time.
const reusableCursor = new ReusableCursor(none)

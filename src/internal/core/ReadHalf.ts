import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { during, Reason, SocketError } from "../../SocketError.ts"
import type { Backing } from "../../Transport.ts"
import { WouldBlock } from "../../Transport.ts"
import { assertAlive } from "../base/checks.ts"
import { counters } from "../base/counters.ts"
import { chunkSize } from "./Matcher.ts"
import { isNearEndOfSlice, type Operation, OperationQueue } from "./OperationQueue.ts"
import { ReadBuffer } from "./ReadBuffer.ts"
import { endOfStream, ReadSome } from "./ReadOperations.ts"
import type { WriteHalf } from "./WriteHalf.ts"

/**
 * The incoming direction of a connection: the queue of its reads, and the bytes
 * that have arrived and that no read has consumed.
 */
export class ReadHalf {
  readonly queue: OperationQueue = new OperationQueue(this)
  bytesRead = 0
  state: "open" | "ended" | "failed" | "closed" = "open"
  readonly backing: Backing
  private readonly writeHalf: Pick<WriteHalf, "bytesWritten">
  /** `bytesWritten` when the last read completed; -1 before the first one. */
  private writtenAtRead = -1
  private buffer: ReadBuffer | undefined = undefined
  private lost: SocketError | undefined = undefined
  // The state behind a close that still serves the reads that wait.
  private stateBefore: ReadHalf["state"] | undefined = undefined
  /** Why every operation fails when `state` is "closed". */
  closedReason: Reason = closed
  /** The last `ReadSome` that has settled: the next read that waits uses it again. */
  cachedRead: ReadSome | undefined = undefined

  constructor(backing: Backing, writeHalf: Pick<WriteHalf, "bytesWritten">) {
    this.backing = backing
    this.writeHalf = writeHalf
  }

  /** Bytes were written since the last read, or nothing was read yet: it is the peer's turn. */
  get isPeersTurn(): boolean {
    return this.writtenAtRead !== this.writeHalf.bytesWritten
  }

  /** Whether bytes have arrived that no read has completed with. */
  get hasUnread(): boolean {
    return (this.buffer !== undefined && this.buffer.length > 0) || this.queue.front?.holdsBytes === true
  }

  /** A read completes. */
  hasRead(): void {
    this.writtenAtRead = this.writeHalf.bytesWritten
  }

  /** As if nothing was read yet. */
  forgetReads(): void {
    this.writtenAtRead = -1
  }

  /** The read buffer, made at its first use. */
  readBuffer(): ReadBuffer {
    return this.buffer ??= new ReadBuffer()
  }

  /** One attempt of the transport, bypassing the read buffer. */
  receive(target: Uint8Array): number | SocketError {
    // End of stream stays end of stream, also when the connection is reset afterwards.
    if (this.state === "ended") return 0
    if (this.lost !== undefined) return this.lost
    const answer = this.backing.read(target)
    if (typeof answer !== "number") this.state = "failed"
    else if (answer > 0) {
      this.bytesRead += answer
      counters.bytesRead += answer
    } else if (answer === 0) this.state = "ended"
    return answer
  }

  /** One attempt into the read buffer, for at most `chunkSize` bytes. */
  receiveIntoBuffer(want: number): number | SocketError {
    // Into one buffer that all sockets share first: an empty read buffer holds no memory while its reader waits.
    const answer = this.receive(scratch.subarray(0, want))
    if (typeof answer === "number" && answer > 0) this.readBuffer().append(scratch.subarray(0, answer))
    return answer
  }

  /** Puts bytes back in front of the unread ones: the next read gets them first. */
  unread(bytes: Uint8Array): SocketError | undefined {
    if (this.state === "closed") return this.error(this.closedReason, "unread", 0)
    this.readBuffer().unread(bytes)
    this.queue.pump("dropInterestIfEmpty")
    return undefined
  }

  interestDropped(): void {
    if (this.state !== "closed") this.backing.interestDropped?.("read")
  }

  /** The caller has detached the target that held unread bytes. Later reads would skip them, so they fail. */
  failWithLostBytes(cause: unknown): void {
    this.state = "failed"
    this.lost = new SocketError({
      reason: Reason.Unknown(),
      operation: "read",
      address: this.backing.remoteAddress,
      transferred: 0,
      cause
    })
  }

  error(reason: Reason, operation: string, transferred: number, total?: number): SocketError {
    return new SocketError({ reason, operation, address: this.backing.remoteAddress, transferred, total })
  }

  // A method, because the compiler would keep a narrowed `state` across the caller's code.
  isClosed(): boolean {
    return this.state === "closed"
  }

  /** A copy of what is in the read buffer. */
  unreadBytes(): Uint8Array {
    return this.buffer === undefined ? none : this.buffer.bytes().slice()
  }

  close(reason?: Reason): void {
    if (reason !== undefined) this.closedReason = reason
    this.state = "closed"
    this.buffer = undefined
    this.queue.pump("keepInterest")
  }

  /** Closes, but serves the reads that wait whatever arrives until `close`. */
  closeSoon(): void {
    this.stateBefore = this.state
    this.state = "closed"
  }

  /** Something has arrived behind `closeSoon`. */
  serveLast(): void {
    if (this.stateBefore === undefined) return
    this.state = this.stateBefore
    this.queue.pump("keepInterest")
    this.stateBefore = this.state
    this.state = "closed"
  }

  run<A>(
    fiber: Fiber.Fiber<unknown, unknown>,
    operation: Operation<A, SocketError | Cause.Done>
  ): Effect.Effect<A, SocketError | Cause.Done> {
    return this.queue.run(fiber, operation)
  }

  // One effect both attempts and waits, which saves a step of the run loop.
  readSome(target: Uint8Array): Effect.Effect<number, SocketError | Cause.Done> {
    return Effect.callback((resume) => {
      const fiber: Fiber.Fiber<unknown, unknown> | undefined = Fiber.getCurrent()
      if (fiber === undefined) throw new Error("no fiber")
      if (!isNearEndOfSlice(fiber)) return this.startReadSome(fiber, target, resume)
      const start = Effect.callback<number, SocketError | Cause.Done>((resume) =>
        this.startReadSome(fiber, target, resume)
      )
      resume(Effect.andThen(Effect.yieldNow, start))
      return undefined
    })
  }

  /** Does the steps of `OperationQueue.run` itself: a read that completes at once makes no operation. */
  private startReadSome(
    fiber: Fiber.Fiber<unknown, unknown>,
    target: Uint8Array,
    resume: (exit: Exit.Exit<number, SocketError | Cause.Done>) => void
  ): Effect.Effect<void> | undefined {
    if (!(target instanceof Uint8Array)) throw new TypeError("readSome: the target is not a Uint8Array")
    const length = target.byteLength
    if (this.queue.front === undefined || length === 0) {
      const exit = this.attemptReadSome(target, length)
      if (exit !== undefined) {
        if (Exit.isSuccess(exit)) counters.completed++
        resume(exit)
        return undefined
      }
    }
    // Only a read that waits needs an operation, and one that has settled can be used again.
    const operation = this.cachedRead ?? new ReadSome(this)
    this.cachedRead = undefined
    this.queue.push(fiber, operation.reset(target, length, resume))
    return operation.interrupt()
  }

  attemptReadSome(target: Uint8Array, length: number): Exit.Exit<number, SocketError | Cause.Done> | undefined {
    try {
      if (this.state === "closed") return Exit.fail(this.error(this.closedReason, "readSome", 0))
      assertUnchanged(target, length)
      if (length === 0) return zeroBytes
      const buffer = this.buffer
      if (buffer !== undefined && buffer.length > 0) {
        const count = buffer.peek(target)
        buffer.consume(count)
        this.writtenAtRead = this.writeHalf.bytesWritten
        return Exit.succeed(count)
      }
      const answer = this.receive(target)
      if (answer === WouldBlock) return undefined
      if (answer === 0) return endOfStream
      if (typeof answer !== "number") return Exit.fail(during(answer, { operation: "readSome", transferred: 0 }))
      this.writtenAtRead = this.writeHalf.bytesWritten
      return Exit.succeed(answer)
    } catch (defect) {
      return Exit.die(defect)
    }
  }
}

// ---- internal

const scratch = new Uint8Array(chunkSize)

const closed = Reason.Closed()

const none = new Uint8Array(0)

const zeroBytes = Exit.succeed(0)

const assertUnchanged = (target: Uint8Array, length: number): void => {
  if (target.byteLength === length) {
    if (length === 0) assertAlive(target)
    return
  }
  throw new TypeError(`readSome: the target of ${length} bytes was detached or resized during the operation`)
}

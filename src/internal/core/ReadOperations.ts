import * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type Address, during, Reason, type SocketError } from "../../SocketError.ts"
import { WouldBlock } from "../../Transport.ts"
import { type AtLeast, chunkSize, type Matcher, withPosition } from "./Matcher.ts"
import { Operation } from "./OperationQueue.ts"
import type { ReadHalf } from "./ReadHalf.ts"

export const endOfStream = Exit.fail(Cause.Done())

/** `readSome` that has to wait. `ReadHalf.startReadSome` does the rest, and makes one only then. */
export class ReadSome extends Operation<number, SocketError | Cause.Done> {
  private readonly half: ReadHalf
  total = 0
  private target: Uint8Array = none
  // The same for every use of this operation.
  private interruptEffect: Effect.Effect<void> | undefined = undefined

  constructor(half: ReadHalf) {
    super()
    this.half = half
  }

  reset(target: Uint8Array, length: number, resume: ReadSome["waiter"]): this {
    this.target = target
    this.total = length
    this.waiter = resume
    return this
  }

  override get operation(): string {
    return "readSome"
  }

  override get address(): Address {
    return this.half.backing.remoteAddress
  }

  attempt(): Exit.Exit<number, SocketError | Cause.Done> | undefined {
    const exit = this.half.attemptReadSome(this.target, this.total)
    if (exit !== undefined) {
      this.target = none
      this.half.cachedRead = this
    }
    return exit
  }

  override interrupt(): Effect.Effect<void> {
    return this.interruptEffect ??= super.interrupt()
  }
}

/**
 * A composed read: collects bytes in the connection's read buffer until its
 * matcher finds its result, and then consumes them in one step. Until that step
 * nothing has happened, so every composed read is *total*.
 */
export class ReadMatch<A> extends Operation<A, SocketError | Cause.Done> {
  private readonly half: ReadHalf
  private readonly matcher: Matcher<A>

  constructor(half: ReadHalf, matcher: Matcher<A>) {
    super()
    this.half = half
    this.matcher = matcher
    this.runsCallerCode = matcher.runsCallerCode
  }

  override get operation(): string {
    return this.matcher.operation
  }

  override get total(): number {
    return this.matcher.total ?? 0
  }

  override get address(): Address {
    return this.half.backing.remoteAddress
  }

  attempt(): Exit.Exit<A, SocketError | Cause.Done> | undefined {
    const { matcher, half } = this
    try {
      if (half.isClosed()) return this.closed()
      const buffer = half.readBuffer()
      for (;;) {
        const found = matcher.find(buffer)
        // Checked again: `find` may have closed the stream or interrupted this operation.
        if (half.isClosed()) return this.closed()
        if (matcher.runsCallerCode && !this.queued) return undefined
        if (typeof found === "number") {
          half.hasRead()
          return Exit.succeed(matcher.consume(buffer, found))
        }
        if (found !== undefined) {
          return Exit.fail(
            half.error(withPosition(found, half.bytesRead - buffer.length), matcher.operation, buffer.length)
          )
        }
        const answer = half.receiveIntoBuffer(matcher.want(buffer.length))
        if (answer === WouldBlock) return undefined
        if (answer === 0) {
          if (matcher.endsWithStream) return Exit.succeed(matcher.consume(buffer, buffer.length))
          matcher.copyToTarget?.(buffer)
          return buffer.length === 0
            ? endOfStream
            : Exit.fail(half.error(Reason.UnexpectedEof(), matcher.operation, buffer.length, matcher.total))
        }
        if (typeof answer !== "number") {
          return Exit.fail(
            during(answer, { operation: matcher.operation, transferred: buffer.length, total: matcher.total })
          )
        }
      }
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  private closed(): Exit.Exit<never, SocketError> {
    return Exit.fail(this.half.error(this.half.closedReason, this.matcher.operation, 0, this.matcher.total))
  }
}

/**
 * A composed read into a large target: the bytes go straight into it, past the
 * read buffer. They are copied into the buffer only when the operation ends
 * without completing.
 */
export class ReadInto extends Operation<number, SocketError | Cause.Done> {
  private readonly half: ReadHalf
  private readonly target: AtLeast
  // The target holds `placed` bytes from `offset` on. They follow those in the read buffer.
  private placed = 0
  private offset = 0
  private version = 0

  constructor(half: ReadHalf, target: AtLeast) {
    super()
    this.half = half
    this.target = target
  }

  override get operation(): string {
    return this.target.operation
  }

  override get total(): number {
    return this.target.total
  }

  override get address(): Address {
    return this.half.backing.remoteAddress
  }

  attempt(): Exit.Exit<number, SocketError | Cause.Done> | undefined {
    const { half, target } = this
    const { operation, total } = target
    try {
      if (half.isClosed()) return Exit.fail(half.error(half.closedReason, operation, 0, total))
      const buffer = half.readBuffer()
      // `unread` has put bytes in front since, so those in the target stand in the wrong place.
      if (this.version !== buffer.frontChanges) this.rollback()
      this.version = buffer.frontChanges
      for (;;) {
        const length = buffer.length + this.placed
        if (length >= total) {
          half.hasRead()
          target.consume(buffer, Math.min(buffer.length, target.capacity))
          return Exit.succeed(Math.min(length, target.capacity))
        }
        const answer = half.receive(target.view().subarray(length))
        if (answer === WouldBlock) return undefined
        if (typeof answer === "number" && answer > 0) {
          if (this.placed === 0) this.offset = length
          this.placed += answer
          continue
        }
        this.rollback()
        target.copyToTarget(buffer)
        if (typeof answer !== "number") return Exit.fail(during(answer, { operation, transferred: length, total }))
        return length === 0 ? endOfStream : Exit.fail(half.error(Reason.UnexpectedEof(), operation, length, total))
      }
    } catch (defect) {
      this.rollback()
      return Exit.die(defect)
    }
  }

  override get holdsBytes(): boolean {
    return this.placed > 0
  }

  override rollback(): void {
    const { offset, placed } = this
    if (placed === 0) return
    this.placed = 0
    try {
      this.half.readBuffer().append(this.target.view().subarray(offset, offset + placed))
    } catch (cause) {
      // The caller has detached or resized the target during the read, and the bytes in it are gone.
      this.half.failWithLostBytes(cause)
    }
  }
}

/** The operation that reads into a target. A large target bypasses the read buffer, which saves a copy. */
export const readInto = (half: ReadHalf, target: AtLeast): Operation<number, SocketError | Cause.Done> =>
  target.capacity > chunkSize ? new ReadInto(half, target) : new ReadMatch(half, target)

// ---- internal

const none = new Uint8Array(0)

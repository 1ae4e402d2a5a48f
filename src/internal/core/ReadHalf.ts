import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { assertAlive } from "../../Buffers.ts"
import { type Address, during, Reason, SocketError } from "../../SocketError.ts"
import type { Backing } from "../../Transport.ts"
import { WouldBlock } from "../../Transport.ts"
import { counters } from "../base/counters.ts"
import { at, type AtLeast, chunkSize, type Matcher } from "./Matcher.ts"
import { endsTurn, Operation, OperationQueue } from "./OperationQueue.ts"
import { ReadBuffer } from "./ReadBuffer.ts"

/**
 * The incoming direction of a connection: its line of readers, and the bytes
 * that have arrived but not been consumed.
 */
export class ReadHalf {
  readonly queue: OperationQueue = new OperationQueue(this)
  bytesRead = 0
  state: "open" | "ended" | "failed" | "closed" = "open"
  readonly backing: Backing
  private buffer: ReadBuffer | undefined = undefined
  private lost: SocketError | undefined = undefined
  /** Why every operation fails when `state` is "closed". */
  refusal: Reason = closed
  /** An operation that has settled. */
  cachedRead: ReadSome | undefined = undefined

  constructor(backing: Backing) {
    this.backing = backing
  }

  /** The read buffer, made when it is first needed. */
  readBuffer(): ReadBuffer {
    return this.buffer ??= new ReadBuffer()
  }

  /** One attempt, past the read buffer. */
  receive(target: Uint8Array): number | SocketError {
    // The end is the end, whatever becomes of the connection later.
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
    // By way of one scratch that all share: a buffer that is empty while its reader waits holds no memory.
    const answer = this.receive(scratch.subarray(0, want))
    if (typeof answer === "number" && answer > 0) this.readBuffer().append(scratch.subarray(0, answer))
    return answer
  }

  /** Puts bytes back to where they came from: whoever reads next gets them first. */
  unread(bytes: Uint8Array): SocketError | undefined {
    if (this.state === "closed") return this.error(this.refusal, "unread", 0)
    this.readBuffer().unread(bytes)
    this.queue.pump("unreported")
    return undefined
  }

  interestDropped(): void {
    if (this.state !== "closed") this.backing.interestDropped?.("read")
  }

  /** Bytes are gone that somebody still had to read, so nobody can read what follows them. */
  lose(cause: unknown): void {
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

  // A call, because the compiler cannot know what code that is called in between does to `state`.
  isClosed(): boolean {
    return this.state === "closed"
  }

  /** A copy of what is in the read buffer. */
  unreadBytes(): Uint8Array {
    return this.buffer === undefined ? none : this.buffer.bytes().slice()
  }

  close(reason?: Reason): void {
    if (reason !== undefined) this.refusal = reason
    this.state = "closed"
    this.buffer = undefined
    this.queue.pump("reported")
  }

  run<A>(
    fiber: Fiber.Fiber<unknown, unknown>,
    operation: Operation<A, SocketError | Cause.Done>
  ): Effect.Effect<A, SocketError | Cause.Done> {
    return this.queue.run(fiber, operation)
  }

  // One step of the run loop, where an effect that tries and one that waits would be two.
  readSome(target: Uint8Array): Effect.Effect<number, SocketError | Cause.Done> {
    return Effect.callback((resume) => {
      const fiber: Fiber.Fiber<unknown, unknown> | undefined = Fiber.getCurrent()
      if (fiber === undefined) throw new Error("no fiber")
      if (!endsTurn(fiber)) return this.startReadSome(fiber, target, resume)
      const start = Effect.callback<number, SocketError | Cause.Done>((resume) =>
        this.startReadSome(fiber, target, resume)
      )
      resume(Effect.andThen(Effect.yieldNow, start))
      return undefined
    })
  }

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
    // An operation is needed only to wait with, and the last one that waited will do again.
    const operation = this.cachedRead ?? new ReadSome(this)
    this.cachedRead = undefined
    this.queue.push(fiber, operation.reset(target, length, resume))
    return operation.interrupt()
  }

  attemptReadSome(target: Uint8Array, length: number): Exit.Exit<number, SocketError | Cause.Done> | undefined {
    try {
      if (this.state === "closed") return Exit.fail(this.error(this.refusal, "readSome", 0))
      assertUnchanged(target, length)
      if (length === 0) return nothing
      const buffer = this.buffer
      if (buffer !== undefined && buffer.length > 0) {
        const count = buffer.peek(target)
        buffer.consume(count)
        return Exit.succeed(count)
      }
      const answer = this.receive(target)
      if (answer === WouldBlock) return undefined
      if (answer === 0) return endOfStream
      return typeof answer === "number"
        ? Exit.succeed(answer)
        : Exit.fail(during(answer, { operation: "readSome", transferred: 0 }))
    } catch (defect) {
      return Exit.die(defect)
    }
  }
}

class ReadSome extends Operation<number, SocketError | Cause.Done> {
  private readonly half: ReadHalf
  total = 0
  private target: Uint8Array = none
  // The same each time.
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
 * A composed read: collects in the connection's read buffer until its matcher
 * is content, and consumes then, in one step. Until that step nothing has
 * happened, which makes every composed read totally cancellable.
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
        // Asked again, because finding may have closed the stream or interrupted this operation.
        if (half.isClosed()) return this.closed()
        if (matcher.runsCallerCode && !this.queued) return undefined
        if (typeof found === "number") return Exit.succeed(matcher.take(buffer, found))
        if (found !== undefined) {
          return Exit.fail(half.error(at(found, half.bytesRead - buffer.length), matcher.operation, buffer.length))
        }
        const answer = half.receiveIntoBuffer(matcher.want(buffer.length))
        if (answer === WouldBlock) return undefined
        if (answer === 0) {
          if (matcher.endsWithStream) return Exit.succeed(matcher.take(buffer, buffer.length))
          matcher.show?.(buffer)
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
    return Exit.fail(this.half.error(this.half.refusal, this.matcher.operation, 0, this.matcher.total))
  }
}

/**
 * A read into a large target: the bytes go straight into it, past the read
 * buffer, and come back into the buffer only when the operation does not
 * complete.
 */
export class ReadInto extends Operation<number, SocketError | Cause.Done> {
  private readonly half: ReadHalf
  private readonly target: AtLeast
  // `placed` bytes of the target, from `offset` on, belong behind those in the read buffer.
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
      if (half.isClosed()) return Exit.fail(half.error(half.refusal, operation, 0, total))
      const buffer = half.readBuffer()
      // Somebody has put bytes in front, so these are in the wrong place.
      if (this.version !== buffer.version) this.rollback()
      this.version = buffer.version
      for (;;) {
        const length = buffer.length + this.placed
        if (length >= total) {
          target.take(buffer, Math.min(buffer.length, target.capacity))
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
        target.show(buffer)
        if (typeof answer !== "number") return Exit.fail(during(answer, { operation, transferred: length, total }))
        return length === 0 ? endOfStream : Exit.fail(half.error(Reason.UnexpectedEof(), operation, length, total))
      }
    } catch (defect) {
      this.rollback()
      return Exit.die(defect)
    }
  }

  override rollback(): void {
    const { offset, placed } = this
    if (placed === 0) return
    this.placed = 0
    try {
      this.half.readBuffer().append(this.target.view().subarray(offset, offset + placed))
    } catch (cause) {
      // The caller has given away memory that it had lent, and the bytes in it.
      this.half.lose(cause)
    }
  }
}

/** The operation that reads into a target: past the read buffer, where that saves a copy. */
export const readInto = (half: ReadHalf, target: AtLeast): Operation<number, SocketError | Cause.Done> =>
  target.capacity > chunkSize ? new ReadInto(half, target) : new ReadMatch(half, target)

// ---- internal

const scratch = new Uint8Array(chunkSize)

const closed = Reason.Closed()

const none = new Uint8Array(0)

const nothing = Exit.succeed(0)

const endOfStream = Exit.fail(Cause.Done())

const assertUnchanged = (target: Uint8Array, length: number): void => {
  if (target.byteLength === length) {
    if (length === 0) assertAlive(target)
    return
  }
  throw new TypeError(`readSome: the target of ${length} bytes was detached or resized during the operation`)
}

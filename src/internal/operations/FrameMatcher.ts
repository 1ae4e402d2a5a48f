import * as Result from "effect/Result"
import type { Frame, Framing } from "../../Framing.ts"
import type { Reason } from "../../SocketError.ts"
import { chunkSize, type Matcher } from "../core/Matcher.ts"
import type { ReadBuffer } from "../core/ReadBuffer.ts"

/**
 * The member of a framing whose `find` and `decode` run no code of the caller's. Operations use it and callers do not
 * see it; a framing without it is taken to run such code.
 */
export const runsOwnCode: unique symbol = Symbol.for("~effect-asio/Framing/runsOwnCode")

/**
 * `find` also decodes, because decoding may run code of the caller's. That code
 * may interrupt this fiber, close the stream or put bytes back, and at that
 * moment nothing has been consumed. `take` only consumes.
 */
abstract class Frames<A, Out, E> implements Matcher<A> {
  readonly operation = "receive"
  readonly total = undefined
  readonly endsWithStream = false
  readonly runsCallerCode: boolean
  protected readonly framing: Framing<never, Out, E>
  private result: A | undefined = undefined
  private scanned = 0
  private version = 0

  constructor(framing: Framing<never, Out, E>) {
    this.framing = framing
    this.runsCallerCode = !(runsOwnCode in framing && framing[runsOwnCode] === true)
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    for (;;) {
      if (this.version !== buffer.frontChanges) {
        this.version = buffer.frontChanges
        this.scanned = 0
      }
      const bytes = buffer.bytes()
      const found = this.framing.find(bytes, this.scanned)
      this.scanned = bytes.byteLength
      if (found === undefined || isReason(found)) return found
      const [result, size] = this.decode(bytes, found)
      // If the caller's code has put bytes in front of these, the search starts again.
      if (this.version === buffer.frontChanges) {
        this.result = result
        return size
      }
    }
  }

  consume(buffer: ReadBuffer, length: number): A {
    buffer.consume(length)
    return this.result!
  }

  want(): number {
    return chunkSize
  }

  /** The result, and how many bytes it consumes. */
  protected abstract decode(bytes: Uint8Array, first: Frame): readonly [A, number]
}

/** One message. It is consumed even when its content is bad. */
export class FrameMatcher<Out, E> extends Frames<Result.Result<Out, E>, Out, E> {
  protected decode(bytes: Uint8Array, { end, size, start }: Frame): readonly [Result.Result<Out, E>, number] {
    return [this.framing.decode(bytes.subarray(start, end)), size]
  }
}

/** All complete messages, up to the first with bad content; that one stays unread for the next operation. */
export class FramesMatcher<Out, E> extends Frames<Result.Result<[Out, ...Array<Out>], E>, Out, E> {
  protected decode(
    bytes: Uint8Array,
    { end, size, start }: Frame
  ): readonly [Result.Result<[Out, ...Array<Out>], E>, number] {
    const first = this.framing.decode(bytes.subarray(start, end))
    if (Result.isFailure(first)) return [Result.fail(first.failure), size]
    const messages: [Out, ...Array<Out>] = [first.success]
    let consumed = size
    while (messages.length < maxMessages && consumed < bytes.byteLength) {
      const rest = bytes.subarray(consumed)
      const frame = this.framing.find(rest, 0)
      if (frame === undefined || isReason(frame)) break
      const message = this.framing.decode(rest.subarray(frame.start, frame.end))
      if (Result.isFailure(message)) break
      messages.push(message.success)
      consumed += frame.size
    }
    return [Result.succeed(messages), consumed]
  }
}

/** Messages that one operation decodes at most, so that other fibers get their turn. */
const maxMessages = 128

const isReason = (found: Frame | Reason): found is Reason => "_tag" in found

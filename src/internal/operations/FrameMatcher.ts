import * as Result from "effect/Result"
import type { Reason } from "../../SocketError.ts"
import { chunkSize, type Matcher } from "../core/Matcher.ts"
import type { ReadBuffer } from "../core/ReadBuffer.ts"

interface Frame {
  readonly start: number
  readonly end: number
  readonly size: number
}

interface Framing<Out, E> {
  readonly runsCallerCode: boolean
  readonly find: (bytes: Uint8Array, scanned: number) => Frame | Reason | undefined
  readonly decode: (payload: Uint8Array) => Result.Result<Out, E>
}

/**
 * Finding decodes, because decoding may run code of the caller's: whatever that
 * does (interrupt this fiber, close the stream, put bytes back), nothing has
 * been consumed. Taking only consumes.
 */
abstract class Frames<A, Out, E> implements Matcher<A> {
  readonly operation = "receive"
  readonly total = undefined
  readonly endsWithStream = false
  readonly runsCallerCode: boolean
  protected readonly framing: Framing<Out, E>
  private result: A | undefined = undefined
  private scanned = 0
  private version = 0

  constructor(framing: Framing<Out, E>) {
    this.framing = framing
    this.runsCallerCode = framing.runsCallerCode
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    for (;;) {
      if (this.version !== buffer.version) {
        this.version = buffer.version
        this.scanned = 0
      }
      const bytes = buffer.bytes()
      const found = this.framing.find(bytes, this.scanned)
      this.scanned = bytes.byteLength
      if (found === undefined || isReason(found)) return found
      const [result, size] = this.decode(bytes, found)
      // Unless the caller's code has put bytes in front of these.
      if (this.version === buffer.version) {
        this.result = result
        return size
      }
    }
  }

  take(buffer: ReadBuffer, length: number): A {
    buffer.consume(length)
    return this.result!
  }

  want(): number {
    return chunkSize
  }

  /** The result, and how many bytes it consumes. */
  protected abstract decode(bytes: Uint8Array, first: Frame): readonly [A, number]
}

/** One message. Its content may be bad; it is consumed all the same. */
export class FrameMatcher<Out, E> extends Frames<Result.Result<Out, E>, Out, E> {
  protected decode(bytes: Uint8Array, { end, size, start }: Frame): readonly [Result.Result<Out, E>, number] {
    return [this.framing.decode(bytes.subarray(start, end)), size]
  }
}

/** Every message that is there whole, up to one with bad content: that one stays for the next time. */
export class FramesMatcher<Out, E> extends Frames<Result.Result<[Out, ...Array<Out>], E>, Out, E> {
  protected decode(
    bytes: Uint8Array,
    { end, size, start }: Frame
  ): readonly [Result.Result<[Out, ...Array<Out>], E>, number] {
    const first = this.framing.decode(bytes.subarray(start, end))
    if (Result.isFailure(first)) return [Result.fail(first.failure), size]
    const messages: [Out, ...Array<Out>] = [first.success]
    let consumed = size
    while (messages.length < most && consumed < bytes.byteLength) {
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

// Others want their turn, too.
const most = 128

const isReason = (found: Frame | Reason): found is Reason => "_tag" in found

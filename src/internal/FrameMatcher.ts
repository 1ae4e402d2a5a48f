import * as Result from "effect/Result"
import type { Reason } from "../SocketError.ts"
import { chunkSize, type Matcher } from "./Matcher.ts"
import type { ReadBuffer } from "./ReadBuffer.ts"

interface Frame {
  readonly start: number
  readonly end: number
  readonly size: number
}

interface Framing<Out, E> {
  readonly callsBack: boolean
  readonly find: (bytes: Uint8Array, scanned: number) => Frame | Reason | undefined
  readonly decode: (payload: Uint8Array) => Result.Result<Out, E>
}

abstract class Frames<A, Out, E> implements Matcher<A> {
  readonly operation = "receive"
  readonly total = undefined
  readonly endsWithStream = false
  readonly callsBack: boolean
  protected readonly framing: Framing<Out, E>
  protected frame: Frame | undefined = undefined
  private scanned = 0
  private version = 0

  constructor(framing: Framing<Out, E>) {
    this.framing = framing
    this.callsBack = framing.callsBack
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    if (this.version !== buffer.version) {
      this.version = buffer.version
      this.scanned = 0
    }
    const found = this.framing.find(buffer.bytes(), this.scanned)
    this.scanned = buffer.length
    if (found === undefined || isReason(found)) return found
    this.frame = found
    return found.size
  }

  abstract take(buffer: ReadBuffer, length: number): A

  want(): number {
    return chunkSize
  }

  /** Consumes the frame that was found. Its content may be bad; it is consumed all the same. */
  protected next(buffer: ReadBuffer, { end, size, start }: Frame): Result.Result<Out, E> {
    const payload = buffer.bytes().subarray(start, end)
    buffer.consume(size)
    return this.framing.decode(payload)
  }
}

/** One message. */
export class FrameMatcher<Out, E> extends Frames<Result.Result<Out, E>, Out, E> {
  take(buffer: ReadBuffer): Result.Result<Out, E> {
    return this.next(buffer, this.frame!)
  }
}

/** Every message that is there whole, up to one with bad content: that one stays for the next time. */
export class FramesMatcher<Out, E> extends Frames<Result.Result<[Out, ...Array<Out>], E>, Out, E> {
  take(buffer: ReadBuffer): Result.Result<[Out, ...Array<Out>], E> {
    const first = this.next(buffer, this.frame!)
    if (Result.isFailure(first)) return Result.fail(first.failure)
    const messages: [Out, ...Array<Out>] = [first.success]
    while (messages.length < most && buffer.length > 0) {
      const bytes = buffer.bytes()
      const frame = this.framing.find(bytes, 0)
      if (frame === undefined || isReason(frame)) break
      const message = this.framing.decode(bytes.subarray(frame.start, frame.end))
      if (Result.isFailure(message)) break
      messages.push(message.success)
      buffer.consume(frame.size)
    }
    return Result.succeed(messages)
  }
}

const most = 1024

const isReason = (found: Frame | Reason): found is Reason => "_tag" in found

import { isOfThisVersion, version } from "../base/copies.ts"

const BufferId: unique symbol = Symbol.for("~effect-asio/ReadBuffer")

/**
 * Bytes that have arrived and that no operation has consumed, in one contiguous
 * piece.
 *
 * Composed reads collect bytes here and never in the fiber: an operation that is
 * cancelled half-way leaves its bytes to the next one. The memory is released
 * when the last byte is consumed.
 */
export class ReadBuffer {
  /** For several copies of this package that read one foreign stream. */
  get [BufferId](): string {
    return version
  }

  private memory: Uint8Array = none
  private start = 0
  private end = 0
  /** Changes when the front changes: bytes were put in front, or consumed there. */
  frontChanges = 0
  /** Bytes consumed so far, minus those put back by `unread`. */
  consumed = 0

  get length(): number {
    return this.end - this.start
  }

  /** The unconsumed bytes; the view is valid until the next call. */
  bytes(): Uint8Array {
    return this.memory.subarray(this.start, this.end)
  }

  /** Puts bytes in front of the others. A search has to start anew afterwards. */
  unread(bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return
    this.consumed -= bytes.byteLength
    if (bytes.byteLength <= this.start) {
      this.start -= bytes.byteLength
      this.memory.set(bytes, this.start)
    } else {
      const behind = this.bytes()
      const memory = new Uint8Array(Math.max(bytes.byteLength + behind.byteLength, minimum))
      memory.set(bytes)
      memory.set(behind, bytes.byteLength)
      this.memory = memory
      this.start = 0
      this.end = bytes.byteLength + behind.byteLength
    }
    this.frontChanges++
  }

  append(bytes: Uint8Array): void {
    if (this.memory.byteLength - this.end < bytes.byteLength) this.makeRoom(bytes.byteLength)
    this.memory.set(bytes, this.end)
    this.end += bytes.byteLength
  }

  /** Copies up to `target.byteLength` bytes out without consuming them. */
  peek(target: Uint8Array): number {
    const count = Math.min(target.byteLength, this.length)
    target.set(this.memory.subarray(this.start, this.start + count))
    return count
  }

  consume(count: number): void {
    if (count > 0) this.frontChanges++
    this.consumed += count
    this.start += count
    if (this.start === this.end) {
      this.start = this.end = 0
      this.memory = none
    }
  }

  private makeRoom(count: number): void {
    const length = this.length
    const needed = length + count
    // If at least half is free, moving to the front is cheaper than growing, and each byte moves at most once a doubling.
    if (needed <= this.memory.byteLength && length <= this.memory.byteLength / 2) {
      this.memory.copyWithin(0, this.start, this.end)
    } else {
      const grown = new Uint8Array(Math.max(needed, Math.min(this.memory.byteLength * 2, needed + maxSpare), minimum))
      grown.set(this.bytes())
      this.memory = grown
    }
    this.start = 0
    this.end = length
  }
}

/** Throws a `TypeError` for the buffer of another version of this package. */
export const assertOfThisVersion = (buffer: ReadBuffer): void => {
  if (!(buffer instanceof ReadBuffer)) isOfThisVersion(buffer, BufferId, "stream")
}

const none = new Uint8Array(0)
const minimum = 1024
const maxSpare = 64 * 1024 * 1024

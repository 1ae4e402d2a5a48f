import { Buffer } from "node:buffer"
import { Reason } from "../SocketError.ts"
import type { ReadBuffer } from "./ReadBuffer.ts"

/**
 * What a composed read looks for in the bytes collected so far.
 *
 * Finding changes nothing and taking cannot fail half-way, so that between the
 * two there is one moment at which the operation happens.
 */
export interface Matcher<A> {
  /** The public operation, for errors. */
  readonly operation: string
  /** Bytes that complete it, where that is known. */
  readonly total: number | undefined
  /** Why it gives up when `exceeds`. */
  readonly overflow: Reason
  /** `find` runs code of the caller's. */
  readonly callsBack: boolean
  /** The end of the stream completes it with whatever is there. */
  readonly endsWithStream: boolean
  /** How many bytes the result consumes; `undefined` when more are needed. */
  find(buffer: ReadBuffer): number | undefined
  /** Consumes `length` bytes as the result. */
  take(buffer: ReadBuffer, length: number): A
  /** Whether `length` bytes without a match are too many. */
  exceeds(length: number): boolean
  /** How many more bytes may be asked for at once when there are `length`; at least 1. */
  want(length: number): number
  /** Shows what is there to the caller, without consuming it, when the end of the stream comes too early. */
  show?(buffer: ReadBuffer): void
}

/** At least so many bytes, by default as many as the target holds; at most as many as it holds. */
export class AtLeast implements Matcher<number> {
  readonly operation: string
  readonly total: number
  readonly overflow = Reason.Unknown()
  readonly callsBack = false
  readonly endsWithStream = false
  private readonly target: Uint8Array
  private readonly length: number

  constructor(operation: string, target: Uint8Array, atLeast?: number) {
    if (!(target instanceof Uint8Array)) throw new TypeError(`${operation}: the target is not a Uint8Array`)
    const minimum = atLeast ?? target.byteLength
    checkBytes(operation, "the minimum", minimum)
    if (minimum > target.byteLength) {
      throw new RangeError(`${operation}: ${minimum} bytes do not fit into a target of ${target.byteLength}`)
    }
    this.operation = operation
    this.target = target
    this.length = target.byteLength
    this.total = minimum
  }

  find(buffer: ReadBuffer): number | undefined {
    if (this.target.byteLength !== this.length) {
      throw new TypeError(
        `${this.operation}: the target of ${this.length} bytes was detached or resized during the operation`
      )
    }
    return buffer.length < this.total ? undefined : Math.min(buffer.length, this.length)
  }

  take(buffer: ReadBuffer, length: number): number {
    buffer.peek(this.target)
    buffer.consume(length)
    return length
  }

  exceeds(): boolean {
    return false
  }

  want(length: number): number {
    return this.length - length
  }

  show(buffer: ReadBuffer): void {
    buffer.peek(this.target)
  }
}

/** Everything up to and including a delimiter. */
export class Until implements Matcher<Uint8Array> {
  readonly operation = "readUntil"
  readonly total = undefined
  readonly overflow: Reason
  private readonly max: number
  readonly callsBack: boolean
  readonly endsWithStream = false
  private readonly search: Find
  private scanned = 0

  constructor(search: Find, max: number, callsBack: boolean) {
    checkBytes("readUntil", "max", max)
    this.search = search
    this.callsBack = callsBack
    this.max = max
    this.overflow = Reason.LimitExceeded({ limit: max, subject: "the data before the delimiter" })
  }

  find(buffer: ReadBuffer): number | undefined {
    const all = buffer.bytes()
    const bytes = all.byteLength > this.max ? all.subarray(0, this.max) : all
    // Nothing new since the last look: the wait was for more.
    if (bytes.byteLength === this.scanned) return undefined
    const end = this.search(bytes, this.scanned)
    this.scanned = bytes.byteLength
    if (end === undefined) return undefined
    if (!Number.isInteger(end) || end <= 0 || end > bytes.byteLength) {
      throw new RangeError(`readUntil: the match function answered ${end} for ${bytes.byteLength} bytes`)
    }
    return end
  }

  take(buffer: ReadBuffer, length: number): Uint8Array {
    return takeCopy(buffer, length)
  }

  exceeds(length: number): boolean {
    return length >= this.max
  }

  want(length: number): number {
    return Math.min(this.max - length, chunkSize)
  }
}

/** Everything to the end of the stream. */
export class All implements Matcher<Uint8Array> {
  readonly operation = "readAll"
  readonly total = undefined
  readonly overflow: Reason
  readonly callsBack = false
  readonly endsWithStream = true
  private readonly max: number

  constructor(max: number) {
    checkBytes("readAll", "max", max)
    this.max = max
    this.overflow = Reason.LimitExceeded({ limit: max, subject: "the stream" })
  }

  find(): undefined {
    return undefined
  }

  take(buffer: ReadBuffer, length: number): Uint8Array {
    return takeCopy(buffer, length)
  }

  exceeds(length: number): boolean {
    return length > this.max
  }

  // One byte past the limit tells a stream that is too long from one that just fits.
  want(length: number): number {
    return Math.min(this.max - length + 1, chunkSize)
  }
}

/**
 * Looks for the end of a message: the number of bytes up to and including it.
 * The first `scanned` bytes were there at the last look.
 */
export type Find = (bytes: Uint8Array, scanned: number) => number | undefined

export const findBytes = (delimiter: Uint8Array): Find => {
  if (delimiter.byteLength === 0) throw new RangeError("readUntil: the delimiter is empty")
  // A copy: the search goes on while the caller may write over its own.
  const pattern = Buffer.from(delimiter)
  return (bytes, scanned) => {
    const from = Math.max(0, scanned - pattern.byteLength + 1)
    const index = asBuffer(bytes).indexOf(pattern, from)
    return index === -1 ? undefined : index + pattern.byteLength
  }
}

export const findRegExp = (regexp: RegExp): Find => {
  const global = new RegExp(regexp.source, regexp.flags.replace(/[gy]/g, "") + "g")
  return (bytes) => {
    const text = asBuffer(bytes).toString("latin1")
    for (const match of text.matchAll(global)) {
      // An empty match would consume nothing, for ever; the first that consumes something counts.
      if (match[0].length > 0) return match.index + match[0].length
    }
    return undefined
  }
}

// ---- internal

const chunkSize = 16_384

const takeCopy = (buffer: ReadBuffer, length: number): Uint8Array => {
  const out = buffer.bytes().slice(0, length)
  buffer.consume(length)
  return out
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const checkBytes = (operation: string, name: string, value: number): void => {
  if (!Number.isInteger(value) || value < 0) {
    throw new RangeError(`${operation}: ${name} ${value} is not a number of bytes`)
  }
}

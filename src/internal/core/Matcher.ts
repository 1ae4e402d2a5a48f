import { Buffer } from "node:buffer"
import { Reason } from "../../SocketError.ts"
import { partialRegExp } from "./partialRegExp.ts"
import type { ReadBuffer } from "./ReadBuffer.ts"

/**
 * The condition of a composed read on the bytes collected so far.
 *
 * `find` changes nothing and `take` cannot fail half-way, so that the operation
 * happens in one step, between the two.
 */
export interface Matcher<A> {
  /** The public operation, for errors. */
  readonly operation: string
  /** Bytes that complete the read; `undefined` where that is unknown. */
  readonly total: number | undefined
  /** Whether `find` runs the caller's code. */
  readonly runsCallerCode: boolean
  /** The end of the stream completes the read with the bytes that are there. */
  readonly endsWithStream: boolean
  /** How many bytes the result consumes; `undefined` when more are needed; a reason when the read has to fail. */
  find(buffer: ReadBuffer): number | Reason | undefined
  /** Consumes `length` bytes as the result. */
  consume(buffer: ReadBuffer, length: number): A
  /** The most bytes to request in the next attempt, when the buffer holds `length`. At least 1. */
  want(length: number): number
  /** Copies the bytes that are there to the caller, unconsumed, when the stream ends too early. */
  copyToTarget?(buffer: ReadBuffer): void
}

/** At least `atLeast` bytes, by default as many as the target holds, and at most as many as it holds. */
export class AtLeast implements Matcher<number> {
  readonly operation: string
  readonly total: number
  readonly runsCallerCode = false
  readonly endsWithStream = false
  /** The bytes that the target holds. */
  readonly capacity: number
  private readonly target: Uint8Array

  constructor(operation: string, target: Uint8Array, atLeast?: number) {
    if (!(target instanceof Uint8Array)) throw new TypeError(`${operation}: the target is not a Uint8Array`)
    const minimum = atLeast ?? target.byteLength
    checkBytes(operation, "the minimum", minimum)
    if (minimum > target.byteLength) {
      throw new RangeError(`${operation}: ${minimum} bytes do not fit into a target of ${target.byteLength}`)
    }
    this.operation = operation
    this.target = target
    this.capacity = target.byteLength
    this.total = minimum
  }

  /** The target. Throws when it was detached or resized since the read started. */
  view(): Uint8Array {
    if (this.target.byteLength !== this.capacity) {
      throw new TypeError(
        `${this.operation}: the target of ${this.capacity} bytes was detached or resized during the operation`
      )
    }
    return this.target
  }

  find(buffer: ReadBuffer): number | undefined {
    this.view()
    return buffer.length < this.total ? undefined : Math.min(buffer.length, this.capacity)
  }

  consume(buffer: ReadBuffer, length: number): number {
    buffer.peek(this.target)
    buffer.consume(length)
    return length
  }

  want(length: number): number {
    return this.capacity - length
  }

  copyToTarget(buffer: ReadBuffer): void {
    buffer.peek(this.target)
  }
}

/** A known number of bytes. `use` makes the result of them; the view that it gets is valid during the call. */
export class Fixed<A> implements Matcher<A> {
  readonly operation: string
  readonly total: number
  readonly runsCallerCode = false
  readonly endsWithStream = false
  private readonly consumes: boolean
  private readonly max: number
  private readonly use: (bytes: Uint8Array) => A

  constructor(
    operation: string,
    length: number,
    use: (bytes: Uint8Array) => A,
    options: { readonly consumes: boolean; readonly max: number }
  ) {
    checkBytes(operation, "the count", length)
    checkBytes(operation, "max", options.max)
    this.operation = operation
    this.total = length
    this.use = use
    this.consumes = options.consumes
    this.max = options.max
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    // The bytes wait in the read buffer until they are complete, and `max` bounds its memory.
    if (this.total > this.max) return Reason.LimitExceeded({ limit: this.max, subject: `${this.total} bytes at once` })
    return buffer.length >= this.total ? this.total : undefined
  }

  consume(buffer: ReadBuffer, length: number): A {
    const result = this.use(buffer.bytes().subarray(0, length))
    if (this.consumes) buffer.consume(length)
    return result
  }

  // Asks for more than it needs: what follows stays in the buffer for the next read.
  want(): number {
    return chunkSize
  }
}

/** An unsigned LEB128 number of at most `bits` bits. */
export class Varint<A> implements Matcher<A> {
  readonly operation: string
  readonly total = undefined
  readonly runsCallerCode = false
  readonly endsWithStream = false
  private readonly bits: number
  private readonly use: (value: bigint) => A

  constructor(operation: string, bits: number, use: (value: bigint) => A) {
    this.operation = operation
    this.bits = bits
    this.use = use
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    return varintLength(buffer.bytes(), this.bits)
  }

  consume(buffer: ReadBuffer, length: number): A {
    let value = 0n
    const bytes = buffer.bytes()
    for (let i = length - 1; i >= 0; i--) value = (value << 7n) | BigInt(bytes[i]! & 127)
    buffer.consume(length)
    return this.use(value)
  }

  want(): number {
    return chunkSize
  }
}

/** The bytes up to and including a delimiter. `use` makes the result of them. */
export class Until<A = Uint8Array> implements Matcher<A> {
  readonly operation: string
  readonly total = undefined
  private readonly max: number
  readonly runsCallerCode: boolean
  readonly endsWithStream = false
  private readonly search: Find
  private readonly use: (bytes: Uint8Array) => A
  private scanned = 0
  private version = 0

  constructor(
    operation: string,
    search: Find,
    options: { readonly max: number; readonly runsCallerCode: boolean; readonly use: (bytes: Uint8Array) => A }
  ) {
    checkBytes(operation, "max", options.max)
    this.operation = operation
    this.search = search
    this.runsCallerCode = options.runsCallerCode
    this.max = options.max
    this.use = options.use
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    if (this.version !== buffer.frontChanges) {
      this.version = buffer.frontChanges
      this.scanned = 0
    }
    const all = buffer.bytes()
    const bytes = all.byteLength > this.max ? all.subarray(0, this.max) : all
    // The first `scanned` bytes were searched and hold no match, so the search runs only when there are new ones.
    const end = bytes.byteLength === this.scanned ? undefined : this.search(bytes, this.scanned)
    this.scanned = bytes.byteLength
    if (end === undefined) {
      return bytes.byteLength < this.max
        ? undefined
        : Reason.LimitExceeded({ limit: this.max, subject: "the data before the delimiter" })
    }
    if (!Number.isInteger(end) || end <= 0 || end > bytes.byteLength) {
      throw new RangeError(`${this.operation}: the match function answered ${end} for ${bytes.byteLength} bytes`)
    }
    return end
  }

  consume(buffer: ReadBuffer, length: number): A {
    const result = this.use(buffer.bytes().subarray(0, length))
    buffer.consume(length)
    return result
  }

  want(length: number): number {
    return Math.min(this.max - length, chunkSize)
  }
}

/** Everything to the end of the stream. */
export class All implements Matcher<Uint8Array> {
  readonly operation = "readAll"
  readonly total = undefined
  readonly runsCallerCode = false
  readonly endsWithStream = true
  private readonly max: number

  constructor(max: number) {
    checkBytes("readAll", "max", max)
    this.max = max
  }

  find(buffer: ReadBuffer): Reason | undefined {
    return buffer.length > this.max
      ? Reason.LimitExceeded({ limit: this.max, subject: "the stream" })
      : undefined
  }

  consume(buffer: ReadBuffer, length: number): Uint8Array {
    return takeCopy(buffer, length)
  }

  // One byte more than the limit, to tell a stream that is too long from one that just fits.
  want(length: number): number {
    return Math.min(this.max - length + 1, chunkSize)
  }
}

/** Adds to a framing error where in the stream it is. The framing itself does not know. */
export const withPosition = (reason: Reason, position: number): Reason =>
  reason._tag === "Framing" ? Reason.Framing({ ...reason, position: Math.max(0, position) }) : reason

/** The length of the varint at the front, which has at most `bits` bits; `undefined` when more bytes are needed. */
export const varintLength = (bytes: Uint8Array, bits: number): number | Reason | undefined => {
  const maxBytes = Math.ceil(bits / 7)
  for (let i = 0; i < Math.min(bytes.byteLength, maxBytes); i++) {
    const byte = bytes[i]!
    if (i === maxBytes - 1 && byte >= 2 ** (bits - 7 * i)) {
      return Reason.Framing({ detail: `a varint has more than ${bits} bits` })
    }
    if (byte < 128) return i + 1
  }
  return undefined
}

/** The most bytes of one attempt into the read buffer. A read into a larger target bypasses the buffer. */
export const chunkSize = 16_384

/**
 * Looks for the end of a message: the number of bytes up to and including it.
 * The first `scanned` bytes were already searched.
 */
export type Find = (bytes: Uint8Array, scanned: number) => number | undefined

export const findBytes = (delimiter: Uint8Array): Find => {
  if (delimiter.byteLength === 0) throw new RangeError("readUntil: the delimiter is empty")
  // A copy, because the caller may overwrite its delimiter while the search goes on.
  const pattern = Buffer.from(delimiter)
  return (bytes, scanned) => {
    const from = Math.max(0, scanned - pattern.byteLength + 1)
    const index = asBuffer(bytes).indexOf(pattern, from)
    return index === -1 ? undefined : index + pattern.byteLength
  }
}

export const findRegExp = (regexp: RegExp): Find => {
  const global = new RegExp(regexp.source, regexp.flags.replace(/[gy]/g, "") + "g")
  let possibleStart: RegExp | undefined
  // No match begins before this index, whatever bytes follow.
  let from = 0
  return (bytes, scanned) => {
    if (scanned === 0) from = 0
    const text = asBuffer(bytes.subarray(from)).toString("latin1")
    for (const match of text.matchAll(global)) {
      // The first match that is not empty: an empty one would consume nothing, again and again.
      if (match[0].length > 0) return from + match.index + match[0].length
    }
    possibleStart ??= partialRegExp(global)
    from += text.search(possibleStart)
    return undefined
  }
}

// ---- internal

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

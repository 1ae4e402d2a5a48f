/**
 * Bytes that a caller lends to an operation: one view of memory or a gather
 * list of views, and a cursor that walks over them.
 *
 * A function here copies only where its name says so, and none performs input or
 * output.
 *
 * @since 0.1.0
 */

import { assertAlive } from "./internal/base/checks.ts"
import { isOfThisVersion, version } from "./internal/base/copies.ts"

/** Tells a `Cursor` of another copy of this package from other objects. */
const CursorId: unique symbol = Symbol.for("~effect-asio/Cursor")

/**
 * One contiguous piece of memory. `Buffer` is a `Uint8Array`.
 *
 * @category models
 * @since 0.1.0
 */
export type View = Uint8Array | DataView

/**
 * The source of a write: one view, or a gather list whose views leave
 * strictly in order.
 *
 * @category models
 * @since 0.1.0
 */
export type Input = View | ReadonlyArray<View>

/**
 * Counts the bytes of an input.
 *
 * **Details**
 *
 * Throws a `TypeError` for anything that is not a view of live memory: a
 * detached buffer, a view that its resized buffer no longer covers, a string.
 *
 * @category getters
 * @since 0.1.0
 */
export const byteLength = (input: Input): number => {
  if (!isList(input)) return lengthOf(input)
  let total = 0
  for (let i = 0; i < input.length; i++) total += lengthOf(input[i])
  return total
}

/**
 * Takes the bytes `start` (inclusive) to `end` (exclusive) of an input as a
 * gather list over the same memory.
 *
 * **Details**
 *
 * Offsets are bytes from the front; those past the end are cut. Negative and
 * fractional offsets throw a `RangeError`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const slice = (input: Input, start: number, end: number = Number.MAX_SAFE_INTEGER): Array<Uint8Array> => {
  checkSize("start", start)
  checkSize("end", end)
  const out: Array<Uint8Array> = []
  const views = isList(input) ? input : [input]
  let offset = 0
  for (let i = 0; i < views.length && offset < end; i++) {
    const view = bytesOf(views[i])
    const from = Math.max(0, start - offset)
    const to = Math.min(view.byteLength, end - offset)
    if (from < to) out.push(from === 0 && to === view.byteLength ? view : view.subarray(from, to))
    offset += view.byteLength
  }
  return out
}

/**
 * Copies as many bytes of `source` as fit to the front of `target` and returns
 * how many.
 *
 * @category combinators
 * @since 0.1.0
 */
export const copy = (source: Input, target: Uint8Array): number => cursor(source).copyTo(target)

/**
 * Copies an input into one new contiguous `Uint8Array`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const concat = (input: Input): Uint8Array => {
  const out = new Uint8Array(byteLength(input))
  copy(input, out)
  return out
}

/**
 * Encodes text as UTF-8 bytes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const utf8 = (text: string): Uint8Array => encoder.encode(text)

/**
 * Decodes UTF-8 bytes as text; malformed sequences become U+FFFD.
 *
 * @category combinators
 * @since 0.1.0
 */
export const toUtf8 = (bytes: Uint8Array): string => decoder.decode(bytes)

/**
 * A position in an input, advanced in place by the operation that takes bytes
 * from it.
 *
 * **When to use**
 *
 * Pass a cursor to `Write.writeAll` where the write may be cut: whatever ended
 * it, `transferred` and `remaining` say how far it came, and passing the same
 * cursor again sends the rest.
 *
 * **Details**
 *
 * The cursor remembers the length that every view had when the cursor was made.
 * A view that has been detached, transferred or resized since is a defect
 * (`TypeError`) at the next attempt to read it, so that no other bytes are sent
 * than were offered.
 *
 * @category models
 * @since 0.1.0
 */
export class Cursor {
  private all: number
  // The view at the position, and its length. The views behind it stand apart, because most inputs are one view.
  private view: Uint8Array = empty
  private length = 0
  private readonly behind: ReadonlyArray<Piece>
  private next = 0
  private offset = 0
  private taken = 0

  constructor(input: Input) {
    if (isList(input)) {
      const pieces: Array<Piece> = []
      let total = 0
      for (let i = 0; i < input.length; i++) {
        const view = bytesOf(input[i])
        if (view.byteLength === 0) continue
        pieces.push({ view, length: view.byteLength })
        total += view.byteLength
      }
      this.behind = pieces
      this.all = total
      this.step()
    } else {
      this.behind = nothingBehind
      this.view = bytesOf(input)
      this.all = this.length = this.view.byteLength
    }
  }

  /** The version of the package that made it. @internal */
  get [CursorId](): string {
    return version
  }

  /** All bytes from the first to the last view. */
  get total(): number {
    return this.all
  }

  /** Bytes taken so far. */
  get transferred(): number {
    return this.taken
  }

  /** Bytes still to go. */
  get remaining(): number {
    return this.all - this.taken
  }

  /**
   * The contiguous bytes at the position, at most `limit` of them, over the
   * caller's own memory; empty at the end.
   */
  chunk(limit: number = Number.MAX_SAFE_INTEGER): Uint8Array {
    if (this.taken === this.all) return empty
    checkAlive(this.view, this.length)
    const end = Math.min(this.length, this.offset + limit)
    return this.offset === 0 && end === this.length ? this.view : this.view.subarray(this.offset, end)
  }

  /**
   * All bytes from the position on, at most `limit` of them, as at most `maxPieces`
   * pieces over the caller's own memory.
   */
  pieces(limit: number = Number.MAX_SAFE_INTEGER, maxPieces: number = Infinity): ReadonlyArray<Uint8Array> {
    const first = this.chunk(limit)
    const pieces = [first]
    let left = limit - first.byteLength
    for (let i = this.next; i < this.behind.length && left > 0 && pieces.length < maxPieces; i++) {
      const { length, view } = this.behind[i]!
      checkAlive(view, length)
      if (length === 0) continue
      pieces.push(length <= left ? view : view.subarray(0, left))
      left -= length
    }
    return pieces
  }

  /** Copies bytes from the position to the front of `target`, without advancing, and returns how many. */
  copyTo(target: Uint8Array): number {
    let copied = copyPiece(this.view, this.length, this.offset, target, 0)
    for (let i = this.next; i < this.behind.length && copied < target.byteLength; i++) {
      const { length, view } = this.behind[i]!
      copied += copyPiece(view, length, 0, target, copied)
    }
    return copied
  }

  /** Moves the position forward. More than `remaining`, a negative or a fractional count is a `RangeError`. */
  advance(count: number): void {
    if (!Number.isInteger(count) || count < 0 || count > this.all - this.taken) {
      throw new RangeError(`Cursor.advance: ${count} is not a whole number from 0 to ${this.remaining}`)
    }
    this.taken += count
    this.offset += count
    while (this.offset >= this.length && this.next < this.behind.length) {
      this.offset -= this.length
      this.step()
    }
  }

  /** Starts over at one view, for subclasses that are used again. */
  protected restart(view: Uint8Array): this {
    this.view = view
    this.all = this.length = view.byteLength
    this.offset = this.taken = 0
    return this
  }

  private step(): void {
    const piece = this.behind[this.next++]
    if (piece === undefined) return
    this.view = piece.view
    this.length = piece.length
  }
}

/**
 * Makes a cursor at the front of an input.
 *
 * **Example** (Sending the rest after an interruption)
 *
 * ```ts
 * const message = Buffers.cursor(bytes)
 * const first = yield* Effect.exit(Cancellation.partial(Effect.timeout(Write.writeAll(socket, message), "1 second")))
 * console.log(`${message.transferred} of ${message.total} bytes left`)
 * yield* Write.writeAll(socket, message)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const cursor = (input: Input): Cursor => new Cursor(input)

/**
 * Returns `true` when a value is a `Cursor`. Throws a `TypeError` for a cursor of
 * another version of this package.
 *
 * @category guards
 * @since 0.1.0
 */
export const isCursor = (u: unknown): u is Cursor =>
  u instanceof Cursor ||
  // A view or a list is the usual input of a write, and needs no look for the member.
  (typeof u === "object" && u !== null && !Array.isArray(u) && !ArrayBuffer.isView(u) &&
    isOfThisVersion(u, CursorId, "cursor"))

// ---- internal

const encoder = new TextEncoder()
// A byte order mark inside a stream is text like any other.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
const empty = new Uint8Array(0)

interface Piece {
  readonly view: Uint8Array
  readonly length: number
}

const nothingBehind: ReadonlyArray<Piece> = []

const checkAlive = (view: Uint8Array, length: number): void => {
  if (view.byteLength !== length) {
    throw new TypeError(`Buffers: a buffer of ${length} bytes was detached or resized during the operation`)
  }
}

const copyPiece = (view: Uint8Array, length: number, from: number, target: Uint8Array, at: number): number => {
  checkAlive(view, length)
  const count = Math.min(length - from, target.byteLength - at)
  target.set(count === length ? view : view.subarray(from, from + count), at)
  return count
}

const isList = (input: Input): input is ReadonlyArray<View> => Array.isArray(input)

const checkSize = (name: string, value: number): void => {
  if (!Number.isInteger(value) || value < 0) {
    throw new RangeError(`Buffers.slice: ${name} ${value} is not a byte offset`)
  }
}

const lengthOf = (view: View | undefined): number => bytesOf(view).byteLength

// Only a view of length 0 can be detached or out of bounds, so the usual case pays one comparison.
const bytesOf = (view: View | undefined): Uint8Array => {
  if (view instanceof Uint8Array) {
    if (view.byteLength === 0) assertAlive(view)
    return view
  }
  if (view instanceof DataView) {
    // Reading the length of a detached or out-of-bounds DataView throws a TypeError by itself.
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  }
  throw new TypeError(`Buffers: expected a Uint8Array or a DataView, got ${view === null ? "null" : typeof view}`)
}

import { Buffer } from "node:buffer"
import { pattern } from "../../support/bytes.ts"

/** Bytes in a row, made of pieces that are never changed. */
export class ByteQueue {
  private pieces: Array<Uint8Array> = []
  length = 0

  append(bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return
    this.pieces.push(bytes)
    this.length += bytes.byteLength
  }

  /** Takes `count` bytes off the front. */
  shift(count: number): Uint8Array {
    const out: Array<Uint8Array> = []
    for (let missing = count; missing > 0;) {
      const piece = this.pieces[0]
      if (piece === undefined) throw new RangeError(`${missing} bytes too few`)
      if (piece.byteLength <= missing) this.pieces.shift()
      else this.pieces[0] = piece.subarray(missing)
      out.push(piece.subarray(0, missing))
      missing -= Math.min(missing, piece.byteLength)
    }
    this.length -= count
    return out.length === 1 ? out[0]! : Buffer.concat(out)
  }

  /** Up to `count` bytes from the front, which stay. */
  peek(count: number): Uint8Array {
    if (this.pieces.length > 1) this.pieces = [Buffer.concat(this.pieces)]
    return (this.pieces[0] ?? none).subarray(0, count)
  }
}

const none = new Uint8Array(0)

/** What readUntil looks for. */
export const delimiters = { byte: 0x41, string: "AB", function: 0x42 } as const

// Few enough letters that delimiters turn up, enough that a shift shows.
const tableOf = (count: number): Uint8Array => {
  const bytes = pattern(count)
  for (let i = 0; i < count; i++) bytes[i] = 0x41 + (bytes[i]! & 31)
  return bytes
}

let table = tableOf(2_000_003)

/** `count` bytes; `which` chooses them. */
export const letters = (count: number, which: number): Uint8Array => {
  if (count >= table.byteLength) table = tableOf(2 * count)
  const from = (which * 7919) % (table.byteLength - count)
  return table.subarray(from, from + count)
}

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.byteLength === b.byteLength && Buffer.compare(a, b) === 0

/** Where two rows of bytes part. */
export const showDifference = (actual: Uint8Array, expected: Uint8Array): string => {
  let at = 0
  while (at < actual.byteLength && actual[at] === expected[at]) at++
  const near = (bytes: Uint8Array) => JSON.stringify(Buffer.from(bytes.subarray(at, at + 16)).toString("latin1"))
  return `${actual.byteLength} bytes, expected ${expected.byteLength}; at ${at} ${near(actual)}, expected ${
    near(expected)
  }`
}

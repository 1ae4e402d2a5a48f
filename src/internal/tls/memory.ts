import type { Buffer } from "node:buffer"
import { freeMemory } from "../base/freeMemory.ts"

/**
 * Gives up a piece of memory that `node:tls` has allocated for us. Its only user calls this once, when it has used the piece
 * up. The memory behind it is freed when the pieces that were given up in a row cover all of it: pieces do not overlap, so
 * no other piece of it is in use then.
 */
export const release = (piece: Buffer): void => {
  const { buffer } = piece
  if (piece.byteLength < buffer.byteLength) {
    if (buffer !== shared) {
      shared = buffer
      released = 0
    }
    released += piece.byteLength
    if (released < buffer.byteLength) return
    shared = undefined
  }
  freeMemory(buffer)
}

// ---- internal

// The memory behind the last piece, if the piece was only a part of it, and how many bytes of it were given up in a row.
let shared: ArrayBufferLike | undefined = undefined
let released = 0

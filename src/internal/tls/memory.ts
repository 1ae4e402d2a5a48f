import type { Buffer } from "node:buffer"

/**
 * Gives up a piece of memory that `node:tls` has made for us; called once for each piece, by whoever has used it up. The
 * memory itself is freed when pieces that were given up make up the whole of it: pieces do not overlap, so nobody else
 * can have one.
 *
 * Left to the collector it would cost more than the encryption: V8 counts such memory, and marks its whole heap after
 * every 35 MB to see what of it is still needed.
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
  free(buffer)
}

/** What is known here of memory is true of Node; other runtimes may keep theirs, or use it again. */
export const isNode = process.versions["bun"] === undefined && process.versions["deno"] === undefined

// ---- internal

// What the last piece was part of, and how much of it was given up in a row.
let shared: ArrayBufferLike | undefined = undefined
let released = 0

const free = (buffer: ArrayBufferLike): void => {
  if (isNode && buffer instanceof ArrayBuffer) buffer.transfer(0)
}

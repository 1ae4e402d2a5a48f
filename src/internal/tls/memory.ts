import type { Buffer } from "node:buffer"

/**
 * Gives up a piece of memory that `node:tls` has allocated for us. Its only user calls this once, when it has used the piece
 * up. The memory behind it is freed when the pieces that were given up in a row cover all of it: pieces do not overlap, so
 * no other piece of it is in use then.
 *
 * Without this, collecting garbage would cost more than the encryption: V8 counts such memory, and after every 35 MB of it
 * marks the whole heap to find what is unused.
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

/** Whether memory may be freed. Only Node is known to keep no reference to it; other runtimes may keep or reuse theirs. */
export const isNode = process.versions["bun"] === undefined && process.versions["deno"] === undefined

// ---- internal

// The memory behind the last piece, if the piece was only a part of it, and how many bytes of it were given up in a row.
let shared: ArrayBufferLike | undefined = undefined
let released = 0

const free = (buffer: ArrayBufferLike): void => {
  if (isNode && buffer instanceof ArrayBuffer) buffer.transfer(0)
}

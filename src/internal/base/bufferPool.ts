import { Buffer } from "node:buffer"

/**
 * Memory for bytes on their way to a system that keeps it until they are
 * flushed. Slabs of the usual size are used again; others are left to the
 * garbage collector.
 */
export const acquire = (length: number): Buffer =>
  length > slabSize ? Buffer.allocUnsafeSlow(length) : free.pop() ?? Buffer.allocUnsafeSlow(slabSize)

export const release = (slab: Buffer): void => {
  if (slab.byteLength === slabSize && free.length < maxFree) free.push(slab)
}

const slabSize = 65_536
const maxFree = 64
const free: Array<Buffer> = []

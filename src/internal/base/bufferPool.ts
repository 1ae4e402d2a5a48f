import { Buffer } from "node:buffer"

/**
 * Memory for bytes on their way to a system that keeps it until they are
 * flushed. Slabs of the usual size are used again; others are left to the
 * garbage collector.
 */
export const acquire = (length: number): Buffer =>
  length > bufferSize ? Buffer.allocUnsafeSlow(length) : free.pop() ?? Buffer.allocUnsafeSlow(bufferSize)

export const release = (buffer: Buffer): void => {
  if (buffer.byteLength === bufferSize && free.length < maxFree) free.push(buffer)
}

const bufferSize = 65_536
const maxFree = 64
const free: Array<Buffer> = []

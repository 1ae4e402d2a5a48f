import { Buffer } from "node:buffer"

/**
 * Buffers for bytes that Node keeps until they are flushed. Buffers of up to
 * 65,536 bytes are used again, and at most 64 of them are kept. Larger ones are
 * left to the garbage collector.
 */
export const acquire = (length: number): Buffer =>
  length > bufferSize ? Buffer.allocUnsafeSlow(length) : free.pop() ?? Buffer.allocUnsafeSlow(bufferSize)

export const release = (buffer: Buffer): void => {
  if (buffer.byteLength === bufferSize && free.length < maxFree) free.push(buffer)
}

const bufferSize = 65_536
const maxFree = 64
const free: Array<Buffer> = []

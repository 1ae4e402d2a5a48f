/**
 * Frees the memory of a received chunk at once, where the runtime is Node. Node makes new memory for each chunk. Freed at
 * once, it is there for the next chunk, and still in the cache of the processor. Left to the garbage collector, it costs a
 * bulk receiver a collection for every 35 to 50 MB.
 *
 * Other runtimes may keep the memory or use it again. Pooled memory cannot be freed: `buffer` must belong to the chunk alone.
 */
export const freeMemory = (buffer: ArrayBufferLike): void => {
  if (isNode && buffer instanceof ArrayBuffer) buffer.transfer(0)
}

export const isNode = process.versions["bun"] === undefined && process.versions["deno"] === undefined

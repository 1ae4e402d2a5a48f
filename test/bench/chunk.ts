/** 64 KiB without a pattern, so that bytes that are lost, or out of place, show. load.c has the same. */
export const chunk = Uint8Array.from({ length: 65_536 }, (_, index) => {
  const mixed = Math.imul(index, 2_654_435_761)
  return Math.imul(mixed ^ (mixed >>> 15), 2_246_822_519) >>> 24
})

/** The same as gather lists of 64 pieces of 32 bytes. */
export const gatherLists = Array.from(
  { length: 32 },
  (_, list) => Array.from({ length: 64 }, (_, piece) => chunk.subarray((list * 64 + piece) * 32).subarray(0, 32))
)

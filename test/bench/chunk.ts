/** 64 KiB without a period, so that bytes that are lost or out of place show. */
export const chunk = Uint8Array.from({ length: 65_536 }, (_, index) => Math.imul(index, 2_654_435_761) >>> 24)

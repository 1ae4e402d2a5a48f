/** Bytes to send, and to compare with what came. */
import { assert } from "@effect/vitest"

export { pattern } from "../../src/testing/checks/support.ts"

/** Compares bytes without printing a megabyte when they differ. */
export const assertBytes = (actual: Uint8Array, expected: Uint8Array | string): void => {
  const wanted = Buffer.from(expected)
  if (wanted.equals(actual)) return
  let at = 0
  while (actual[at] === wanted[at]) at++
  const near = (bytes: Uint8Array) => JSON.stringify(Buffer.from(bytes.subarray(at, at + 40)).toString("latin1"))
  assert.fail(
    `${actual.byteLength} bytes, expected ${wanted.byteLength}; different at ${at}: ${near(actual)}, expected ${
      near(wanted)
    }`
  )
}

/** Returns `value` when it is a positive whole number, and throws a `RangeError` that names the option otherwise. */
export const positiveInteger = (name: string, value: number, unit = ""): number => {
  if (Number.isInteger(value) && value > 0) return value
  throw new RangeError(`${name}: ${value} is not a positive whole number${unit === "" ? "" : ` of ${unit}`}`)
}

/** Throws a `TypeError` for a view that has no memory any more: detached, or out of the bounds of a resized buffer. */
export const assertAlive = (view: Uint8Array): void => {
  try {
    // Iterating such a view throws.
    view.keys()
  } catch (cause) {
    throw new TypeError("Buffers: the buffer is detached, or resized to less than the view covers", { cause })
  }
}

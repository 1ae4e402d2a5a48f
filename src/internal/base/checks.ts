/** Answers `value` where it is a positive whole number, and throws a `RangeError` that names the option otherwise. */
export const positiveInteger = (name: string, value: number, unit = ""): number => {
  if (Number.isInteger(value) && value > 0) return value
  throw new RangeError(`${name}: ${value} is not a positive whole number${unit === "" ? "" : ` of ${unit}`}`)
}

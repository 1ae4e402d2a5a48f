/**
 * Several copies of this package in one process.
 *
 * A package manager may install the package more than once: for two dependents
 * with different optional peers, or in two versions. `instanceof` knows the
 * classes of its own copy only. So each class that a stream, a signal or a
 * buffer of another copy is recognized by has a member whose key is a registered
 * symbol and whose value is the version.
 *
 * Copies of the same version have the same classes and work together by duck
 * typing. A value of another version is a defect at its first use, because
 * nothing says that its members mean the same.
 */

/** The version of this package, as `package.json` has it. */
export const version = "0.1.0"

/**
 * Returns `true` when `value` was made by a copy of this package with this
 * version, and throws a `TypeError` when a copy with another version made it.
 */
export const isOfThisVersion = (value: object, member: symbol, what: string): boolean => {
  const found: unknown = Reflect.get(value, member)
  if (found === undefined) return false
  if (found !== version) throw new TypeError(otherVersion(what, found))
  return true
}

/** The value that all copies of this version share under a name; the first copy to ask makes it. */
export const sharedByVersion = <A extends object>(name: string, make: () => A): A =>
  sharedByAll(`${name}@${version}`, make)

/** The value that all copies of every version share under a name. Its type must never change. */
export const sharedByAll = <A extends object>(name: string, make: () => A): A => {
  const key = Symbol.for(`~effect-asio/${name}`)
  const found: unknown = Reflect.get(globalThis, key)
  // Only this function writes to the slot, and the name determines the type.
  if (found !== undefined) return found as A
  const made = make()
  Object.defineProperty(globalThis, key, { value: made })
  return made
}

// ---- internal

const otherVersion = (what: string, found: unknown): string =>
  `effect-asio ${version} was given a ${what} of effect-asio ${String(found)}. Two versions of the package are ` +
  `installed ("npm ls effect-asio" lists them): install one, or use each ${what} with the version that made it.`

/**
 * When a composed transfer is complete: after every byte, after enough bytes,
 * or by a function of the caller.
 *
 * @since 0.1.0
 */
import { LibraryCondition, TypeId } from "./internal/base/LibraryCondition.ts"

/**
 * Decides, from the bytes transferred so far, whether a composed transfer goes
 * on and how much it may move next.
 *
 * **Details**
 *
 * `next(transferred)` is called before the first attempt and after each one. It
 * returns the most bytes that the next attempt may move; 0 completes the
 * transfer. `expectedTotal(offered)` is the number of bytes at which the transfer
 * is complete when `offered` bytes are at hand, for progress reports. Running out
 * of bytes always completes a transfer, as in Asio.
 *
 * **Example** (Four ends of a write)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { CompletionCondition, Write } from "effect-asio"
 * import { MemoryTransport } from "effect-asio/testing"
 *
 * const program = Effect.gen(function*() {
 *   // One attempt takes at most 1,000 bytes here.
 *   const [socket] = yield* MemoryTransport.pair({ chunk: 1000 })
 *   const bytes = new Uint8Array(5000)
 *   yield* Console.log(yield* Write.writeAll(socket, bytes))
 *   yield* Console.log(yield* Write.writeAll(socket, bytes, CompletionCondition.transferAtLeast(1500)))
 *   yield* Console.log(yield* Write.writeAll(socket, bytes, CompletionCondition.transferExactly(1500)))
 *   // Pieces of 700 bytes, until at least 1,500 bytes are taken.
 *   yield* Console.log(yield* Write.writeAll(socket, bytes, (transferred) => transferred < 1500 ? 700 : 0))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * // => 5000
 * // => 2000
 * // => 1500
 * // => 2100
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface CompletionCondition {
  readonly [TypeId]: typeof TypeId
  readonly next: (transferred: number) => number
  readonly expectedTotal: (offered: number) => number
}

/**
 * Complete when every byte offered was transferred.
 *
 * @category constructors
 * @since 0.1.0
 */
export const transferAll: CompletionCondition = /* @__PURE__ */ new LibraryCondition(
  () => Infinity,
  (offered) => offered
)

/**
 * Complete when at least `count` bytes were transferred; the last attempt may
 * move more. Throws a `RangeError` when `count` is negative or fractional.
 *
 * @category constructors
 * @since 0.1.0
 */
export const transferAtLeast = (count: number): CompletionCondition => {
  checkCount("transferAtLeast", count)
  return new LibraryCondition(
    (transferred) => transferred >= count ? 0 : Infinity,
    (offered) => Math.min(offered, count)
  )
}

/**
 * Complete when exactly `count` bytes were transferred, never more. Throws a
 * `RangeError` when `count` is negative or fractional.
 *
 * @category constructors
 * @since 0.1.0
 */
export const transferExactly = (count: number): CompletionCondition => {
  checkCount("transferExactly", count)
  return new LibraryCondition(
    (transferred) => Math.max(0, count - transferred),
    (offered) => Math.min(offered, count)
  )
}

/**
 * A condition by a function of the caller. It returns the most bytes that the next
 * attempt may move, and 0 when the transfer is complete.
 *
 * **Details**
 *
 * A negative, fractional or missing answer is a defect of the transfer
 * (`RangeError`). `Infinity` means as many as the transport takes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (next: (transferred: number) => number): CompletionCondition => ({
  [TypeId]: TypeId,
  next: (transferred) => {
    const limit = next(transferred)
    if (limit !== Infinity) checkCount("next", limit)
    return limit
  },
  expectedTotal: (offered) => offered
})

/**
 * A condition, or the function of one.
 *
 * @category models
 * @since 0.1.0
 */
export type Input = CompletionCondition | ((transferred: number) => number)

/**
 * Turns a function into the condition it stands for. Throws a `TypeError` for a
 * value that is neither a function nor a condition.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromInput = (input: Input): CompletionCondition => {
  if (typeof input === "function") return make(input)
  if (typeof input !== "object" || input === null || !(TypeId in input)) {
    throw new TypeError("a completion condition is a function or one of CompletionCondition's")
  }
  return input
}

// ---- internal

function checkCount(name: string, count: number): void {
  if (!Number.isInteger(count) || count < 0) {
    throw new RangeError(`CompletionCondition.${name}: ${count} is not a number of bytes`)
  }
}

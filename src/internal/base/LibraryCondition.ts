import type { CompletionCondition } from "../../CompletionCondition.ts"

export const TypeId: unique symbol = Symbol.for("~effect-asio/CompletionCondition")

/**
 * A condition of this library: its functions run no code of the caller. An
 * operation takes every other condition for one that does, also that of another
 * copy of this package.
 */
export class LibraryCondition implements CompletionCondition {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly next: (transferred: number) => number
  readonly expectedTotal: (offered: number) => number

  constructor(next: (transferred: number) => number, expectedTotal: (offered: number) => number) {
    this.next = next
    this.expectedTotal = expectedTotal
  }
}

import { assert, describe, it } from "@effect/vitest"
import * as CompletionCondition from "../../src/CompletionCondition.ts"

const notCounts = [-1, 0.5, NaN, Infinity, -Infinity, 1e-9]

describe("CompletionCondition", () => {
  it("transferAll goes on for ever and has everything as its goal", () => {
    const { expectedTotal, next } = CompletionCondition.transferAll
    assert.deepStrictEqual([next(0), next(1), next(Number.MAX_SAFE_INTEGER)], [Infinity, Infinity, Infinity])
    assert.deepStrictEqual([expectedTotal(0), expectedTotal(10)], [0, 10])
  })

  it("transferAtLeast stops at or past its count and never limits an attempt", () => {
    const { expectedTotal, next } = CompletionCondition.transferAtLeast(3)
    assert.deepStrictEqual([next(0), next(2), next(3), next(100)], [Infinity, Infinity, 0, 0])
    assert.deepStrictEqual([expectedTotal(2), expectedTotal(3), expectedTotal(10)], [2, 3, 3])
  })

  it("transferExactly limits each attempt to what is missing", () => {
    const { expectedTotal, next } = CompletionCondition.transferExactly(3)
    assert.deepStrictEqual([next(0), next(2), next(3), next(100)], [3, 1, 0, 0])
    assert.deepStrictEqual([expectedTotal(2), expectedTotal(3), expectedTotal(10)], [2, 3, 3])
  })

  it("a count of nothing is complete at once", () => {
    assert.strictEqual(CompletionCondition.transferAtLeast(0).next(0), 0)
    assert.strictEqual(CompletionCondition.transferExactly(0).next(0), 0)
  })

  it("a count may be huge", () => {
    assert.strictEqual(
      CompletionCondition.transferExactly(Number.MAX_SAFE_INTEGER).next(1),
      Number.MAX_SAFE_INTEGER - 1
    )
    assert.strictEqual(CompletionCondition.transferAtLeast(Number.MAX_SAFE_INTEGER).next(1), Infinity)
  })

  for (const count of notCounts) {
    it(`throws a RangeError for a count of ${count}`, () => {
      assert.throws(() => CompletionCondition.transferAtLeast(count), RangeError, String(count))
      assert.throws(() => CompletionCondition.transferExactly(count), RangeError, String(count))
    })
  }

  it("make passes whole numbers and Infinity through and refuses everything else", () => {
    const answers = (answer: number) => CompletionCondition.make(() => answer).next(7)
    assert.deepStrictEqual([answers(0), answers(5), answers(Infinity)], [0, 5, Infinity])
    for (const answer of notCounts) {
      if (answer !== Infinity) assert.throws(() => answers(answer), RangeError, String(answer))
    }
    // What a function without a return statement answers in JavaScript.
    const missing = (() => undefined) as unknown as () => number
    assert.throws(() => CompletionCondition.make(missing).next(0), RangeError, "undefined")
  })

  it("make asks with the bytes transferred and lets the function's own error through", () => {
    const asked: Array<number> = []
    const condition = CompletionCondition.make((transferred) => asked.push(transferred))
    condition.next(0)
    condition.next(12)
    assert.deepStrictEqual(asked, [0, 12])
    assert.throws(
      () =>
        CompletionCondition.make(() => {
          throw new Error("no opinion")
        }).next(0),
      "no opinion"
    )
  })

  it("fromInput takes a condition as it is and a function as a rule", () => {
    const condition = CompletionCondition.transferAtLeast(1)
    assert.strictEqual(CompletionCondition.fromInput(condition), condition)
    assert.strictEqual(CompletionCondition.fromInput((transferred) => 10 - transferred).next(4), 6)
    assert.throws(() => CompletionCondition.fromInput(() => -1).next(0), RangeError)
  })
})

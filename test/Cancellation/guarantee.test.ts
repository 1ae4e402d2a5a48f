/** The table of what stopping leaves behind, cell by cell. */
import { assert, describe, it } from "@effect/vitest"
import type { Type } from "../../src/Cancellation.ts"
import { guaranteeOf, guaranteeOfTransfer, satisfies } from "../../src/internal/cancellation/guarantee.ts"

const types: ReadonlyArray<Type> = ["total", "partial", "terminal"]

describe("guaranteeOf", () => {
  // What is asked for: total, partial, terminal.
  const table: ReadonlyArray<
    readonly [
      transferred: number,
      total: number,
      atomic: boolean,
      answers: Array<Type | undefined>
    ]
  > = [
    [0, 0, false, ["total", "total", "total"]],
    [0, 0, true, ["total", "total", "total"]],
    [0, 5, false, ["total", "total", "total"]],
    [0, 5, true, ["total", "total", "total"]],
    [1, 5, false, [undefined, "partial", "terminal"]],
    [1, 5, true, [undefined, undefined, "terminal"]],
    [4, 5, false, [undefined, "partial", "terminal"]],
    [4, 5, true, [undefined, undefined, "terminal"]],
    [5, 5, false, ["total", "total", "total"]],
    [5, 5, true, ["total", "total", "total"]],
    // More than enough: the last attempt of transferAtLeast may move more.
    [6, 5, false, ["total", "total", "total"]],
    [6, 5, true, ["total", "total", "total"]]
  ]
  for (const [transferred, total, atomic, answers] of table) {
    it(`${transferred} of ${total} bytes of ${atomic ? "an atomic message" : "what may be resumed"}`, () => {
      assert.deepStrictEqual(types.map((asked) => guaranteeOf(asked, { transferred, total }, atomic)), answers)
    })
  }

  it("what is kept satisfies what was asked for, and nothing that was taken in part is total", () => {
    for (const asked of types) {
      for (const atomic of [false, true]) {
        for (let total = 0; total < 4; total++) {
          for (let transferred = 0; transferred <= total; transferred++) {
            const kept = guaranteeOf(asked, { transferred, total }, atomic)
            if (kept === undefined) continue
            assert.isTrue(satisfies(kept, asked))
            assert.strictEqual(kept === "total", transferred === 0 || transferred === total)
            assert.isFalse(kept === "partial" && atomic)
          }
        }
      }
    }
  })
})

describe("guaranteeOfTransfer", () => {
  for (
    const [step, nothing, some] of [
      ["total", "total", "partial"],
      ["partial", "total", "partial"],
      ["terminal", "terminal", "terminal"],
      [undefined, "total", "partial"]
    ] as const
  ) {
    it(`a step that keeps ${step ?? "no guarantee of its own"}`, () => {
      assert.deepStrictEqual([guaranteeOfTransfer(step, 0), guaranteeOfTransfer(step, 1)], [nothing, some])
    })
  }
})

describe("satisfies", () => {
  it("total > partial > terminal", () => {
    assert.deepStrictEqual(
      types.map((guarantee) => types.filter((asked) => satisfies(guarantee, asked))),
      [["total", "partial", "terminal"], ["partial", "terminal"], ["terminal"]]
    )
  })
})

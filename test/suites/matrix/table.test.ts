import { assert, describe, it } from "@effect/vitest"
import { readFileSync, writeFileSync } from "node:fs"
import { absence, cells, expectation, moments, operations, requestName, requests } from "./matrix.ts"
import { command, render } from "./table.ts"

const page = new URL("../../../examples/cancellation-matrix.md", import.meta.url)

describe("the cancellation matrix", () => {
  it("is in the documentation as the rules have it", () => {
    if (process.env["UPDATE"] === "1") writeFileSync(page, render())
    assert.strictEqual(readFileSync(page, "utf8"), render(), `out of date: run ${command}`)
  })

  it("has every combination, played out or left out for a reason", () => {
    const onNode = new Set(
      cells("node").map(({ moment, operation, request }) => [operation.name, requestName(request), moment].join())
    )
    for (const operation of operations) {
      for (const request of requests) {
        for (const moment of moments) {
          const isPlayed = onNode.has([operation.name, requestName(request), moment].join())
          const name = `${operation.name}, ${requestName(request)}, ${moment}`
          assert.strictEqual(isPlayed, absence({ operation, request, moment }) === undefined, name)
        }
      }
    }
  })

  it("differs between transports only where one has nothing to wait for", () => {
    const inMemory = cells("memory").filter((cell) => expectation(cell, "memory") !== expectation(cell, "node"))
    for (const { moment, operation } of inMemory) {
      assert.strictEqual(moment, "before start")
      assert.include(["shutdownWrite", "close"], operation.name)
    }
    const words = (name: string) => inMemory.filter((cell) => cell.operation.name === name).length
    assert.deepStrictEqual([words("shutdownWrite"), words("close")], [6, 6])
  })
})

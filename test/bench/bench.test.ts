import { assert, describe, it } from "@effect/vitest"
import { alternate, type Group, isSaturated, ratio, summarize } from "./figures.ts"
import { plot } from "./plot.ts"
import { formatGroup } from "./table.ts"
import { judge } from "./targets.ts"
import { titles } from "./titles.ts"

describe("bench", () => {
  it("the summary of values is their median and quartiles", () => {
    assert.deepStrictEqual(summarize([5, 1, 3]), { median: 3, low: 2, high: 4 })
    assert.deepStrictEqual(summarize([4, 1, 2, 3]), { median: 2.5, low: 1.75, high: 3.25 })
    assert.deepStrictEqual(summarize([7]), { median: 7, low: 7, high: 7 })
    assert.isNaN(summarize([]).median)
  })

  it("rounds rotate, and those that warm up do not count", async () => {
    const order: Array<string> = []
    const rounds = await alternate(["a", "b", "c"], 2, async (name) => [order.push(name)])
    assert.strictEqual(order.join(""), "abcbcacab")
    assert.deepStrictEqual(rounds, { a: [[6], [8]], b: [[4], [9]], c: [[5], [7]] })
  })

  it("a server is saturated when it had no time to spare and its client had", () => {
    assert.isTrue(isSaturated(0.99, 0.1))
    assert.isFalse(isSaturated(0.99, 0))
    assert.isFalse(isSaturated(0.5, 0.5))
    assert.isTrue(isSaturated(0.99, NaN))
    assert.isFalse(isSaturated(0.5, NaN))
  })

  const group: Group = {
    title: titles.echo,
    figures: [{ name: "messages/s", digits: 0, compared: true }, { name: "CPU us", digits: 1 }],
    ours: ["EpollTransport"],
    rounds: {
      EpollTransport: [[100, 8], [300, 9], [200, NaN]],
      "node:net": [[50, 20], [100, 18], [200, 10]]
    },
    unsaturated: ["node:net"]
  }

  it("ratios are taken within a round", () => {
    assert.deepStrictEqual(ratio(group, "messages/s", "EpollTransport", "node:net"), { median: 2, low: 1.5, high: 2.5 })
  })

  it("a table has medians, marks and ratios", () => {
    assert.strictEqual(
      formatGroup({ ...group, figures: group.figures.slice(0, 1) }),
      [
        "echo, 64 connections of 64 bytes",
        "                  messages/s  EpollTransport / it",
        "  EpollTransport         200",
        "  node:net              100*  2.00 (1.50-2.50)"
      ].join("\n")
    )
  })

  it("targets are judged where something was measured", () => {
    const verdicts = judge([group])
    assert.deepStrictEqual(
      verdicts.map(({ bound, figure, isReached, what }) => [what, figure, bound, isReached]),
      [["EpollTransport / node:net", "messages/s", "at least 1.25", true]]
    )
  })

  it("a plot has a bar for each contestant, and names are escaped", () => {
    const summary = { median: 10, low: 9, high: 11 }
    const bar = { name: "a<b", summary, isOurs: true, isUnsaturated: true }
    const svg = plot([{ title: "t & u", unit: "x/s", digits: 1, bars: [bar, { ...bar, name: "c" }] }], "here")
    assert.strictEqual(svg.match(/<rect/g)?.length, 2)
    assert.include(svg, ">a&lt;b<")
    assert.include(svg, ">t &amp; u<")
    assert.include(svg, ">10.0*<")
  })
})

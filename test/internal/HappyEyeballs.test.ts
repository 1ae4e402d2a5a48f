import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as TestClock from "effect/testing/TestClock"
import fc from "fast-check"
import { interleave, race, resolveRaceOptions } from "../../src/internal/connect/HappyEyeballs.ts"
import { addressOf, connects, type Fate, hangs, type Plan, play, refuses } from "../Connector/stage.ts"
import { seeded } from "../support/properties.ts"
import { start } from "../support/waiting.ts"

const rules = resolveRaceOptions(undefined)

describe("race", () => {
  it.effect("another attempt connects while the winner is reported: its connection is discarded, and that is awaited", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const connected = new Map<string, (exit: Exit.Exit<string>) => void>()
      const releasing: Array<() => void> = []
      const fiber = yield* start(
        race<string, never>(["a4", "b4", "c4"].map(addressOf), { ...rules, attemptDelay: 10 }, {
          connect: (address) =>
            Effect.callback((resume) => {
              connected.set(NetAddress.formatSocketAddress(address), resume)
              return Effect.sync(() => log.push(`cancel ${NetAddress.formatSocketAddress(address)}`))
            }),
          onConnected: (name) => {
            log.push(`connected ${name}`)
            // As a transport does that reports several connections in one turn.
            connected.get("192.0.2.11:7000")?.(Exit.succeed("b"))
          },
          discard: (name) =>
            Effect.callback((resume) => {
              log.push(`discard ${name}`)
              releasing.push(() => resume(Effect.void))
            })
        })
      )
      yield* TestClock.adjust(10)
      assert.strictEqual(connected.size, 2)
      connected.get("192.0.2.10:7000")?.(Exit.succeed("a"))
      yield* Effect.yieldNow
      assert.isUndefined(fiber.pollUnsafe())
      assert.strictEqual(releasing.length, 1)
      releasing.forEach((release) => release())
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(log, ["connected a", "discard b"])
    }))
})

describe("interleave", () => {
  const order = (labels: ReadonlyArray<string>, count: number) => interleave(labels.map(addressOf), count)

  it("keeps every address once, the order within a family, and the turns", () => {
    const label = fc.tuple(fc.integer({ min: 1, max: 30 }), fc.constantFrom("4", "6")).map(([n, f]) => `n${n}.${f}`)
    fc.assert(
      fc.property(fc.array(label, { maxLength: 40 }), fc.integer({ min: 1, max: 5 }), (labels, count) => {
        const addresses = labels.map(addressOf)
        const ordered = order(labels, count)
        const texts = ordered.map(NetAddress.formatSocketAddress)
        const given = [...new Set(addresses.map(NetAddress.formatSocketAddress))]
        assert.deepStrictEqual([...texts].sort(), [...given].sort())
        for (const family of ["InetAddressV4", "InetAddressV6"]) {
          assert.deepStrictEqual(
            ordered.filter(({ _tag }) => _tag === family).map(NetAddress.formatSocketAddress),
            given.filter((text) => NetAddress.inetAddressFromStringUnsafe(text)._tag === family)
          )
        }
        // While both families have some left, none has two turns in a row after the first ones.
        const first = ordered[0]?._tag
        const mine = ordered.filter(({ _tag }) => _tag === first).length
        const others = ordered.length - mine
        const alternating = Math.min(others, Math.max(0, mine - count))
        for (let i = Math.min(count, mine); i < Math.min(count, mine) + 2 * alternating - 1; i++) {
          assert.notStrictEqual(ordered[i]?._tag, ordered[i + 1]?._tag, texts.join())
        }
      }),
      seeded({ numRuns: 300 })
    )
  })
})

/** The rules once more, as a walk from event to event. */
const predict = ({ fates, options = {} }: Plan): { readonly starts: ReadonlyArray<string>; readonly end: string } => {
  const { attemptDelay, attemptTimeout, timeout } = resolveRaceOptions(options)
  const starts: Array<string> = []
  let waiting: ReadonlyArray<readonly [string, Fate]> = fates
  let running: Array<{ readonly label: string; readonly end: number; readonly connects: boolean }> = []
  const startNext = (time: number): number => {
    const [next, ...rest] = waiting
    if (next === undefined) return Infinity
    const [label, { after, kind }] = next
    waiting = rest
    starts.push(`${time} ${label}`)
    const own = kind === "hangs" ? Infinity : after
    running.push({
      label,
      end: time + Math.min(own, attemptTimeout),
      connects: kind === "connects" && own <= attemptTimeout
    })
    return time + attemptDelay
  }
  let due = startNext(0)
  while (running.length > 0) {
    const first = running.reduce((a, b) => b.end < a.end ? b : a)
    const time = Math.min(first.end, waiting.length > 0 ? due : Infinity, timeout)
    if (time === Infinity) return { starts, end: "never" }
    if (time === timeout) return { starts, end: `${time} failed` }
    if (time < first.end) due = startNext(time)
    else if (first.connects) return { starts, end: `${time} ${first.label}` }
    else {
      running = running.filter((attempt) => attempt !== first)
      due = startNext(time)
      if (running.length === 0) return { starts, end: `${time} failed` }
    }
  }
  return { starts, end: "0 failed" }
}

describe("any race", () => {
  // In this range two events are hardly ever in the same millisecond, in which either order would be right.
  const time = fc.integer({ min: 1, max: 1_000_000 })
  const fate: fc.Arbitrary<Fate> = fc.oneof(
    time.map((after) => connects(after * 3)),
    time.map((after) => refuses(after)),
    fc.constant(hangs)
  )
  const plan = fc.record({
    fates: fc.array(fate, { minLength: 2, maxLength: 12 }).map((fates) =>
      fates.map((fate, index) => [`n${index + 1}.4`, fate] as const)
    ),
    options: fc.record({
      attemptDelay: fc.integer({ min: 10, max: 300_000 }),
      attemptTimeout: fc.option(time, { nil: undefined }),
      timeout: fc.integer({ min: 1, max: 5_000_000 })
    })
  })

  it.effect("starts, ends and leaves nothing, as the rules say", () =>
    Effect.gen(function*() {
      const context = yield* Effect.context()
      yield* Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(plan, async (plan) => {
            const { end, log } = await Effect.runPromiseWith(context)(play(plan))
            const expected = predict(plan)
            assert.deepStrictEqual(log.filter((line) => /^\d+ n\d+\.4$/.test(line)), expected.starts)
            assert.strictEqual(
              end.includes("ConnectionRefused") || end.includes("TimedOut")
                ? `${end.split(" ")[0]} failed`
                : end,
              expected.end
            )
          }),
          seeded({ numRuns: 150 })
        )
      )
    }))
})

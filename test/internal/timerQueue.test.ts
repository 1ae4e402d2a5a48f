import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import * as Deadlines from "../../src/internal/base/timerQueue.ts"
import { turn } from "../support/waiting.ts"

/** Deadlines that write down their names as they pass. */
const diary = Effect.withFiber((fiber) => {
  const passed: Array<string> = []
  const after = (millis: number, name: string, then: () => void = () => {}) =>
    Deadlines.after(Duration.millis(millis), fiber.context, () => {
      passed.push(name)
      then()
    })
  return Effect.succeed({ passed, after })
})

/** The sleeper begins two turns of the event loop after the first deadline. */
const armed = Effect.repeat(turn, { times: 3 })

describe("deadlines", () => {
  it.effect("pass in the order in which they are due, whatever the order in which they were set", () =>
    Effect.gen(function*() {
      const { after, passed } = yield* diary
      after(30, "c")
      after(10, "a")
      yield* armed
      after(20, "b")
      after(5, "first")
      after(30, "d")
      yield* TestClock.adjust("9 millis")
      assert.deepStrictEqual(passed, ["first"])
      yield* TestClock.adjust("11 millis")
      assert.deepStrictEqual(passed, ["first", "a", "b"])
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(passed, ["first", "a", "b", "c", "d"])
    }))

  it.effect("count from the call, also where the clock moves before anybody sleeps", () =>
    Effect.gen(function*() {
      const { after, passed } = yield* diary
      after(10, "a")
      after(20, "b")
      yield* TestClock.adjust("15 millis")
      yield* armed
      assert.deepStrictEqual(passed, ["a"])
      yield* TestClock.adjust("4 millis")
      assert.deepStrictEqual(passed, ["a"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(passed, ["a", "b"])
    }))

  it.effect("do not pass once they are cancelled: the first, the last, one between, and by each other", () =>
    Effect.gen(function*() {
      const { after, passed } = yield* diary
      const [first, second, , fourth] = [
        after(10, "a"),
        after(20, "b"),
        after(30, "c", () => fourth?.cancel()),
        after(30, "d")
      ]
      const last = after(40, "e")
      yield* armed
      first?.cancel()
      second?.cancel()
      second?.cancel()
      last.cancel()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(passed, ["c"])
    }))

  it.effect("may set others as they pass", () =>
    Effect.gen(function*() {
      const { after, passed } = yield* diary
      after(10, "a", () => after(10, "b", () => after(0, "c")))
      yield* armed
      yield* TestClock.adjust("10 millis")
      yield* armed
      yield* TestClock.adjust("10 millis")
      yield* armed
      assert.deepStrictEqual(passed, ["a", "b", "c"])
    }))

  it.effect("keep nothing alive once all are cancelled or have passed", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let asleep = 0
      const sleep = (duration: Duration.Duration) =>
        Effect.suspend(() => {
          asleep++
          return Effect.ensuring(clock.sleep(duration), Effect.sync(() => asleep--))
        })
      const counting: Clock.Clock = Object.create(clock, { sleep: { value: sleep } })
      yield* Effect.gen(function*() {
        const { after, passed } = yield* diary
        const deadlines = [after(10_000, "a"), after(5000, "b")]
        yield* armed
        assert.strictEqual(asleep, 1)
        for (const deadline of deadlines) deadline.cancel()
        assert.strictEqual(asleep, 0)
        after(1, "short")
        yield* armed
        assert.strictEqual(asleep, 1)
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(passed, ["short"])
        assert.strictEqual(asleep, 0)
      }).pipe(Effect.provideService(Clock.Clock, counting))
    }))
})

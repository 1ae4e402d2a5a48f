import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as Write from "../../src/Write.ts"
import { transferOf } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

/** What an operation at this place would read: the policy, and how long `total` may go on. */
const settings = Effect.gen(function*() {
  const within = yield* Cancellation.TotalTimeout
  return [yield* Cancellation.Policy, Duration.isFinite(within) ? Duration.toMillis(within) : "for ever"] as const
})

describe("Cancellation", () => {
  describe("policies", () => {
    it.effect("terminal is the default", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* settings, ["terminal", "for ever"])
      }))

    it.effect("each sets itself for its region only", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* Cancellation.partial(settings), ["partial", "for ever"])
        assert.deepStrictEqual(yield* settings.pipe(Cancellation.terminal), ["terminal", "for ever"])
        assert.deepStrictEqual(yield* settings.pipe(Cancellation.total()), ["total", "for ever"])
        assert.deepStrictEqual(yield* settings, ["terminal", "for ever"])
      }))

    it.effect("total is data-first, data-last and takes every form of duration", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* Cancellation.total(settings), ["total", "for ever"])
        assert.deepStrictEqual(yield* Cancellation.total(settings, { within: "2 seconds" }), ["total", 2000])
        assert.deepStrictEqual(yield* settings.pipe(Cancellation.total({ within: 250 })), ["total", 250])
        assert.deepStrictEqual(yield* settings.pipe(Cancellation.total({ within: Duration.zero })), ["total", 0])
        assert.deepStrictEqual(yield* Cancellation.total(settings, { within: undefined }), ["total", "for ever"])
        assert.deepStrictEqual(yield* Cancellation.total(settings, { within: Duration.infinity }), [
          "total",
          "for ever"
        ])
      }))

    it.effect("the innermost region wins", () =>
      Effect.gen(function*() {
        const inner = settings.pipe(Cancellation.partial, Cancellation.total({ within: "1 second" }))
        const [policy] = yield* inner.pipe(Cancellation.terminal)
        assert.strictEqual(policy, "partial")
        assert.deepStrictEqual(yield* settings.pipe(Cancellation.total(), Cancellation.partial), ["total", "for ever"])
        assert.strictEqual((yield* settings.pipe(Cancellation.terminal, Cancellation.total()))[0], "terminal")
      }))

    it.effect("a nested total without a bound is not bounded by the outer one", () =>
      Effect.gen(function*() {
        const nested = settings.pipe(Cancellation.total(), Cancellation.total({ within: "1 second" }))
        assert.deepStrictEqual(yield* nested, ["total", "for ever"])
        const tighter = settings.pipe(Cancellation.total({ within: 10 }), Cancellation.total({ within: 1000 }))
        assert.deepStrictEqual(yield* tighter, ["total", 10])
      }))

    it.effect("forked fibers inherit the region they were forked in", () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(settings).pipe(Cancellation.total({ within: 5 }))
        assert.deepStrictEqual(yield* Fiber.join(fiber), ["total", 5])
      }))

    it.effect("a nested total really goes on past the outer bound", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* ScriptedStream.make({
          writes: [ScriptedStream.take(3), ScriptedStream.block, ScriptedStream.take(2)]
        })
        const fiber = yield* start(
          Write.writeAll(socket, Buffers.utf8("hello")).pipe(
            Cancellation.total(),
            Cancellation.total({ within: "1 second" })
          )
        )
        yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust("1 hour")
        assert.isUndefined(fiber.pollUnsafe())
        yield* writable
        assert.strictEqual(transferOf(yield* Fiber.await(fiber)).guarantee, "total")
      }))

    it.effect("a policy inside a region reaches only the writes inside it", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({
          writes: [ScriptedStream.take(1), ScriptedStream.take(1), ScriptedStream.take(3), ScriptedStream.block]
        })
        const fiber = yield* start(
          Effect.andThen(
            Cancellation.total(Write.writeAll(socket, Buffers.utf8("ab"))),
            Write.writeAll(socket, Buffers.utf8("hello"))
          )
        )
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 3, total: 5, guarantee: "terminal" })
      }))
  })

  describe("transfer", () => {
    const transfer = { transferred: 5, total: 10, guarantee: "partial" } as const
    const annotated = Cause.annotate(Cause.interrupt(1), Context.make(Cancellation.Transfer, transfer))

    it("reads the annotation of a cause", () => {
      assert.deepStrictEqual(Cancellation.transfer(annotated), Option.some(transfer))
    })

    it("finds it next to other reasons", () => {
      const combined = Cause.combine(Cause.fail("other"), Cause.combine(annotated, Cause.die(new Error("more"))))
      assert.deepStrictEqual(Cancellation.transfer(combined), Option.some(transfer))
    })

    it("is None where no write was interrupted", () => {
      for (const cause of [Cause.interrupt(1), Cause.fail("no"), Cause.die("no"), Cause.empty]) {
        assert.isTrue(Option.isNone(Cancellation.transfer(cause)))
      }
    })

    it.effect("is lost to Effect.timeout, for which the cursor is there", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({
          writes: [ScriptedStream.take(3), ScriptedStream.block]
        })
        const cursor = Buffers.cursor(Buffers.utf8("hello"))
        const fiber = yield* start(
          Effect.exit(Write.writeAll(socket, cursor).pipe(Cancellation.partial, Effect.timeout("1 second")))
        )
        yield* TestClock.adjust("1 second")
        const exit = yield* Fiber.join(fiber)
        assert.isTrue(exit._tag === "Failure" && Option.isNone(Cancellation.transfer(exit.cause)))
        assert.deepStrictEqual([cursor.transferred, cursor.remaining], [3, 2])
        assert.strictEqual(Buffers.toUtf8(yield* written), "hel")
        assert.strictEqual(socket.state.write, "open")
      }))
  })
})

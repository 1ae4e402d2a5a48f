/** The composed operations over streams that are not ours: plain objects with only a `readSome` or a `writeSome`. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Read from "../../src/Read.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import type { ReadStream, WriteStream } from "../../src/StreamSocket.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

const text = Buffers.utf8
const hello = text("hello")

const reset = new SocketError({ reason: Reason.ConnectionReset(), operation: "foreign", transferred: 0 })

type Gate = Deferred.Deferred<void>

/** Takes these counts, one for each call; waits at gates; fails with errors. */
const writer = (...steps: Array<number | Gate | SocketError>) => {
  const written: Array<number> = []
  const calls: Array<number> = []
  const next = (source: Buffers.Input): Effect.Effect<number, SocketError> =>
    Effect.suspend(() => {
      const step = steps[0]
      // A gate that an interruption turned away from stays closed for the next one.
      if (typeof step === "object" && !(step instanceof SocketError)) {
        return Effect.andThen(Deferred.await(step), Effect.suspend(() => (steps.shift(), next(source))))
      }
      steps.shift()
      if (step === undefined) throw new Error("not in the script")
      if (step instanceof SocketError) return Effect.fail(step)
      const bytes = Buffers.concat(Buffers.slice(source, 0, Math.max(0, Math.floor(step) || 0)))
      written.push(...bytes)
      // Whole numbers within what was offered are answered as they came out, wrong ones as they are.
      return Effect.succeed(step > 0 && Number.isInteger(step) && step < 100 ? bytes.byteLength : step)
    })
  const stream: WriteStream = {
    writeSome: (source) => {
      calls.push(Buffers.byteLength(source))
      return next(source)
    }
  }
  return { stream, written: () => Uint8Array.from(written), calls }
}

/** Answers these chunks, whole if they fit; waits at gates; fails with errors; then it has ended. */
const reader = (...steps: Array<string | number | Gate | SocketError>) => {
  const readSome = (target: Uint8Array): Pull.Pull<number, SocketError> =>
    Effect.suspend((): Pull.Pull<number, SocketError> => {
      const step = steps[0]
      if (typeof step === "object" && !(step instanceof SocketError)) {
        return Effect.andThen(Deferred.await(step), Effect.suspend(() => (steps.shift(), readSome(target))))
      }
      steps.shift()
      if (step === undefined) return Cause.done()
      if (step instanceof SocketError) return Effect.fail(step)
      if (typeof step === "number") return Effect.succeed(step)
      const bytes = text(step)
      target.set(bytes.subarray(0, target.byteLength))
      if (bytes.byteLength > target.byteLength) steps.unshift(step.slice(target.byteLength))
      return Effect.succeed(Math.min(bytes.byteLength, target.byteLength))
    })
  const stream: ReadStream = { readSome }
  return stream
}

describe("foreign streams", () => {
  describe("writeAll", () => {
    it.effect("loops over writeSome, views in order", () =>
      Effect.gen(function*() {
        const { stream, written } = writer(1, 1, 1, 2, 1)
        assert.strictEqual(yield* Write.writeAll(stream, [text("he"), new Uint8Array(0), text("llo!")]), 6)
        assertBytes(written(), "hello!")
      }))

    it.effect("keeps conditions, cursors and empty writes", () =>
      Effect.gen(function*() {
        const { calls, stream, written } = writer(2, 99, 99)
        const cursor = Buffers.cursor(hello)
        assert.strictEqual(yield* Write.writeAll(stream, cursor, CompletionCondition.transferAtLeast(1)), 2)
        assert.strictEqual(yield* Write.writeAll(stream, cursor, CompletionCondition.transferExactly(1)), 1)
        assert.strictEqual(yield* Write.writeAll(cursor)(stream), 2)
        assert.strictEqual(yield* Write.writeAll(stream, cursor), 0)
        assert.strictEqual(yield* Write.writeAll(stream, [], () => Infinity), 0)
        assertBytes(written(), hello)
        assert.deepStrictEqual(calls, [5, 1, 2])
      }))

    it.effect("a failure midway says how far it came", () =>
      Effect.gen(function*() {
        const { stream } = writer(2, 1, reset)
        const cursor = Buffers.cursor(hello)
        const error = failure(yield* Effect.exit(Write.writeAll(stream, cursor)))
        assert.deepStrictEqual(
          [error.reason._tag, error.operation, error.transferred, error.total],
          ["ConnectionReset", "writeAll", 3, 5]
        )
        assert.strictEqual(cursor.transferred, 3)
      }))

    for (const count of [0, -1, 0.5, NaN, 100, Infinity]) {
      it.effect(`a stream that claims ${count} of 5 bytes is a defect, not an endless loop`, () =>
        Effect.gen(function*() {
          const { calls, stream } = writer(count)
          defect(yield* Effect.exit(Write.writeAll(stream, hello)))
          assert.strictEqual(calls.length, 1)
        }))
    }

    it.effect("a stream that claims more than this chunk of a gather list is a defect", () =>
      Effect.gen(function*() {
        const stream: WriteStream = { writeSome: (source) => Effect.succeed(Buffers.byteLength(source) + 1) }
        defect(yield* Effect.exit(Write.writeAll(stream, [text("he"), text("llo")])))
      }))

    it.effect("a condition that throws midway is a defect", () =>
      Effect.gen(function*() {
        const { stream } = writer(1)
        const exit = yield* Effect.exit(Write.writeAll(stream, hello, (transferred) => transferred === 0 ? 1 : NaN))
        assert.instanceOf(defect(exit), RangeError)
      }))

    const policies: ReadonlyArray<
      readonly [string, <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>]
    > = [
      ["terminal", Cancellation.terminal],
      ["partial", Cancellation.partial],
      ["total", Cancellation.total()],
      ["total within 1 s", Cancellation.total({ within: "1 second" })]
    ]
    for (const [name, policy] of policies) {
      it.effect(`${name}: interrupted before the first byte, nothing happened`, () =>
        Effect.gen(function*() {
          const gate = yield* Deferred.make<void>()
          const { stream, written } = writer(gate)
          const fiber = yield* start(policy(Write.writeAll(stream, hello)))
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
            transferred: 0,
            total: 5,
            guarantee: "total"
          })
          assertBytes(written(), "")
        }))
    }

    for (
      const [guarantee, policy] of [["terminal", Cancellation.terminal], ["partial", Cancellation.partial]] as const
    ) {
      it.effect(`${guarantee}: interrupted in the middle it stops at once and says how far`, () =>
        Effect.gen(function*() {
          const gate = yield* Deferred.make<void>()
          const { stream, written } = writer(3, gate, 2)
          const cursor = Buffers.cursor(hello)
          const fiber = yield* start(policy(Write.writeAll(stream, cursor)))
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 3, total: 5, guarantee })
          yield* Deferred.succeed(gate, undefined)
          yield* Write.writeAll(stream, cursor)
          assertBytes(written(), hello)
        }))
    }

    it.effect("an interruption that arrives with the last answer of the condition finds a completed write", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { stream } = writer(3)
        const fiber: Fiber.Fiber<number, SocketError> = yield* start(
          Effect.andThen(
            Deferred.await(gate),
            Write.writeAll(stream, hello, (transferred) => {
              if (transferred === 3) fiber.interruptUnsafe()
              return 3 - transferred
            })
          )
        )
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 3, total: 5, guarantee: "total" })
      }))

    it.effect("total: goes on to the last byte, and the interruption proceeds then", () =>
      Effect.gen(function*() {
        const first = yield* Deferred.make<void>()
        const second = yield* Deferred.make<void>()
        const { stream, written } = writer(1, first, 1, second, 3)
        const fiber = yield* start(Cancellation.total(Write.writeAll(stream, hello)))
        yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust("1 day")
        yield* Deferred.succeed(first, undefined)
        yield* TestClock.adjust("1 day")
        assert.isUndefined(fiber.pollUnsafe())
        yield* Deferred.succeed(second, undefined)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 5, total: 5, guarantee: "total" })
        assertBytes(written(), hello)
      }))

    it.effect("total within: becomes terminal at that moment and not before", () =>
      Effect.gen(function*() {
        const { stream, written } = writer(1, yield* Deferred.make<void>(), 4)
        const fiber = yield* start(Cancellation.total(Write.writeAll(stream, hello), { within: "2 seconds" }))
        const interruption = yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1999)
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.isDefined(interruption.pollUnsafe())
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
          transferred: 1,
          total: 5,
          guarantee: "terminal"
        })
        assertBytes(written(), "h")
      }))

    it.effect("total within: finishing earlier does not wait for the clock", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { stream } = writer(1, gate, 2, 2)
        const fiber = yield* start(Cancellation.total(Write.writeAll(stream, hello), { within: "2 seconds" }))
        const interruption = yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1999)
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.yieldNow
        assert.isDefined(interruption.pollUnsafe())
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 5, total: 5, guarantee: "total" })
      }))

    for (const within of ["for ever", "2 seconds"] as const) {
      it.effect(`total within ${within}: a failure while finishing is told beside the interruption`, () =>
        Effect.gen(function*() {
          const gate = yield* Deferred.make<void>()
          const { stream } = writer(1, gate, 1, reset)
          const fiber = yield* start(
            Cancellation.total(Write.writeAll(stream, hello), within === "for ever" ? {} : { within })
          )
          yield* start(Fiber.interrupt(fiber))
          yield* Deferred.succeed(gate, undefined)
          const exit = yield* Fiber.await(fiber)
          assert.deepStrictEqual(transferOf(exit), { transferred: 2, total: 5, guarantee: "terminal" })
          assert.strictEqual(failure(exit).reason._tag, "ConnectionReset")
          assert.strictEqual(failure(exit).transferred, 2)
        }))
    }
  })

  describe("reads", () => {
    it.effect("readExactly collects, and what is left over waits for the next composed read", () =>
      Effect.gen(function*() {
        const stream = reader("he", "llo\nwor", "ld")
        const line = yield* Read.readUntil(stream, "\n")
        assertBytes(line, "hello\n")
        const target = new Uint8Array(4)
        assert.strictEqual(yield* Read.readExactly(stream, target), 4)
        assertBytes(target, "worl")
        assertBytes(yield* Read.readAll(stream), "d")
        assertBytes(yield* Read.readAll(stream), "")
      }))

    it.effect("streams do not share what is left over", () =>
      Effect.gen(function*() {
        const left = reader("a\nleft")
        const right = reader("b\nright")
        yield* Read.readUntil(left, "\n")
        yield* Read.readUntil(right, "\n")
        assertBytes(yield* Read.readAll(left), "left")
        assertBytes(yield* Read.readAll(right), "right")
      }))

    it.effect("an interruption puts everything back", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const stream = reader("he", gate, "llo")
        const fiber = yield* start(Read.readExactly(stream, new Uint8Array(5)))
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
        yield* Deferred.succeed(gate, undefined)
        assertBytes(yield* Read.readAll(stream), "hello")
      }))

    it.effect("end of stream is Done at the start and UnexpectedEof midway, with nothing lost", () =>
      Effect.gen(function*() {
        const stream = reader("hel")
        const error = failure(yield* Effect.exit(Read.readExactly(stream, new Uint8Array(5))))
        assert.deepStrictEqual(
          [error.reason._tag, error.operation, error.transferred, error.total],
          ["UnexpectedEof", "readExactly", 3, 5]
        )
        assert.strictEqual(ending(yield* Effect.exit(Read.readUntil(stream, "\n"))), "UnexpectedEof")
        assertBytes(yield* Read.readAll(stream), "hel")
        assert.strictEqual(ending(yield* Effect.exit(Read.readUntil(stream, "\n"))), "Done")
      }))

    it.effect("a failure midway says how far it came, and that stays unread", () =>
      Effect.gen(function*() {
        const stream = reader("he", reset, "llo")
        const error = failure(yield* Effect.exit(Read.readExactly(stream, new Uint8Array(5))))
        assert.deepStrictEqual(
          [error.reason._tag, error.operation, error.transferred, error.total],
          ["ConnectionReset", "readExactly", 2, 5]
        )
        assertBytes(yield* Read.readAll(stream), "hello")
      }))

    it.effect("max holds", () =>
      Effect.gen(function*() {
        const stream = reader("abc\n")
        assert.strictEqual(ending(yield* Effect.exit(Read.readUntil(stream, "\n", { max: 3 }))), "LimitExceeded")
        assert.strictEqual(ending(yield* Effect.exit(Read.readAll(stream, { max: 3 }))), "LimitExceeded")
        assertBytes(yield* Read.readUntil(stream, "\n", { max: 4 }), "abc\n")
      }))

    for (const count of [0, -1, 0.5, NaN, 6, Infinity]) {
      it.effect(`a stream that claims ${count} of 5 bytes is a defect, not an endless loop`, () =>
        Effect.gen(function*() {
          const stream = reader(count, "hello")
          const exit = yield* Effect.exit(Read.readExactly(stream, new Uint8Array(5)))
          assert.notStrictEqual(defect(exit).message, "")
        }))
    }

    it.effect("works over objects whose methods sit on a prototype", () =>
      Effect.gen(function*() {
        class Upper {
          private readonly inner = reader("one", "two")
          readSome(target: Uint8Array): Pull.Pull<number, SocketError> {
            return Effect.map(this.inner.readSome(target), (count) => {
              target.set(text(Buffers.toUtf8(target.subarray(0, count)).toUpperCase()))
              return count
            })
          }
        }
        assertBytes(yield* Read.readAll(new Upper()), "ONETWO")
      }))
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import { Reason } from "../../src/SocketError.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

const { block, fail, take } = ScriptedStream
const text = Buffers.utf8
const hello = text("hello")

const policies: ReadonlyArray<readonly [string, <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>]> =
  [
    ["terminal", Cancellation.terminal],
    ["partial", Cancellation.partial],
    ["total", Cancellation.total()],
    ["total within 1 s", Cancellation.total({ within: "1 second" })]
  ]

/** An operation that runs the caller's own function makes its first attempt a moment after its start. */
const begun = Effect.yieldNow

const script = (...writes: ReadonlyArray<ScriptedStream.WriteStep>) => ScriptedStream.make({ writes })

describe("Write", () => {
  describe("writeAll", () => {
    it.effect("loops until every byte was taken", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(1), take(1), take(1), take(2))
        assert.strictEqual(yield* Write.writeAll(socket, hello), 5)
        assertBytes(yield* written, hello)
        assert.strictEqual(socket.bytesWritten, 5)
      }))

    it.effect("takes a gather list in order, over its boundaries", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(4), take(100))
        const list = [text("ab"), new Uint8Array(0), new DataView(text("cde").buffer), Buffer.from("f")]
        assert.strictEqual(yield* Write.writeAll(socket, list), 6)
        assertBytes(yield* written, "abcdef")
      }))

    it.effect("waits for room and goes on where it stopped", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(block, take(2), block, block, take(3))
        const fiber = yield* start(Write.writeAll(socket, hello))
        assertBytes(yield* written, "")
        yield* writable
        assertBytes(yield* written, "he")
        yield* writable
        yield* writable
        assert.strictEqual(yield* Fiber.join(fiber), 5)
        assertBytes(yield* written, hello)
      }))

    it.effect("writes nothing at all without an attempt, however nothing is said", () =>
      Effect.gen(function*() {
        const { socket } = yield* script()
        const empty = new Uint8Array(0)
        const spent = Buffers.cursor(hello)
        spent.advance(5)
        for (const source of [empty, [], [empty, empty], spent]) {
          assert.strictEqual(yield* Write.writeAll(socket, source), 0)
        }
      }))

    it.effect("is data-first and data-last, with and without a condition", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(9), take(9), take(9), take(9))
        assert.strictEqual(yield* Write.writeAll(socket, text("ab")), 2)
        assert.strictEqual(yield* Write.writeAll(text("cd"))(socket), 2)
        assert.strictEqual(yield* Write.writeAll(socket, text("ef"), CompletionCondition.transferExactly(1)), 1)
        assert.strictEqual(yield* Write.writeAll([text("g")], CompletionCondition.transferAll)(socket), 1)
        assertBytes(yield* written, "abcdeg")
      }))

    it.effect("an effect that is run again writes again, a cursor goes on", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(9), take(9), take(2), take(9))
        const again = Write.writeAll(socket, text("ab"))
        yield* again
        yield* again
        const cursor = Buffers.cursor(hello)
        assert.strictEqual(yield* Write.writeAll(socket, cursor, CompletionCondition.transferAtLeast(1)), 2)
        assert.strictEqual(yield* Write.writeAll(socket, cursor), 3)
        assertBytes(yield* written, "ababhello")
      }))
  })

  describe("conditions", () => {
    it.effect("transferAtLeast takes what comes and stops when it is enough", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(1), take(3))
        assert.strictEqual(yield* Write.writeAll(socket, hello, CompletionCondition.transferAtLeast(2)), 4)
        assertBytes(yield* written, "hell")
      }))

    it.effect("transferExactly offers no byte more", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(1), take(100))
        assert.strictEqual(yield* Write.writeAll(socket, hello, CompletionCondition.transferExactly(3)), 3)
        assertBytes(yield* written, "hel")
      }))

    it.effect("running out of bytes completes any condition", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(take(100), take(100))
        assert.strictEqual(yield* Write.writeAll(socket, hello, CompletionCondition.transferExactly(1000)), 5)
        assert.strictEqual(yield* Write.writeAll(socket, hello, () => Infinity), 5)
      }))

    it.effect("a condition that is met at the start makes no attempt", () =>
      Effect.gen(function*() {
        const { socket } = yield* script()
        for (
          const condition of [CompletionCondition.transferAtLeast(0), CompletionCondition.transferExactly(0), () => 0]
        ) {
          assert.strictEqual(yield* Write.writeAll(socket, hello, condition), 0)
        }
      }))

    it.effect("is asked once before each attempt, not again while the attempt waits", () =>
      Effect.gen(function*() {
        const asked: Array<number> = []
        const { socket, writable, written } = yield* script(block, block, take(9), take(1), block, take(9))
        const limits = [2, 4, 1]
        const fiber = yield* start(Write.writeAll(socket, text("abcdefgh"), (transferred) => {
          asked.push(transferred)
          return limits.shift() ?? 0
        }))
        yield* begun
        assert.deepStrictEqual(asked, [0])
        yield* writable
        yield* writable
        assert.deepStrictEqual(asked, [0, 2, 3])
        yield* writable
        assert.strictEqual(yield* Fiber.join(fiber), 4)
        assert.deepStrictEqual(asked, [0, 2, 3, 4])
        assertBytes(yield* written, "abcd")
      }))

    it.effect("a function keeps its place in line while it has not been asked yet", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(9), take(9), take(9))
        const first = yield* start(Write.writeAll(socket, hello, () => Infinity))
        const second = yield* start(socket.writeSome(text(" ")))
        const third = yield* start(Write.writeAll(socket, text("world")))
        assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second), yield* Fiber.join(third)], [
          5,
          1,
          5
        ])
        assertBytes(yield* written, "hello world")
      }))

    it.effect("a function that is interrupted before it was asked is never asked", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(9))
        let asked = 0
        const fiber = yield* start(Write.writeAll(socket, hello, () => ++asked))
        const second = yield* start(Write.writeAll(socket, text("!")))
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 0, total: 5, guarantee: "total" })
        yield* Fiber.join(second)
        assert.strictEqual(asked, 0)
        assertBytes(yield* written, "!")
      }))

    it.effect("an interruption counts against the condition's goal", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(take(1), block)
        const fiber = yield* start(Write.writeAll(socket, hello, CompletionCondition.transferExactly(3)))
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 1, total: 3, guarantee: "terminal" })
      }))

    const broken: ReadonlyArray<readonly [string, () => number]> = [
      ["throws", () => {
        throw new RangeError("no opinion")
      }],
      ["answers NaN", () => NaN],
      ["answers a negative number", () => -1],
      ["answers a fraction", () => 1.5],
      // What a function without a return statement answers in JavaScript.
      ["answers nothing", (() => undefined) as unknown as () => number]
    ]
    for (const [name, next] of broken) {
      it.effect(`a condition that ${name} before the first byte is a defect and leaves the stream usable`, () =>
        Effect.gen(function*() {
          const { socket, written } = yield* script(take(9))
          assert.instanceOf(defect(yield* Effect.exit(Write.writeAll(socket, hello, next))), RangeError)
          assert.strictEqual(socket.state.write, "open")
          yield* Write.writeAll(socket, text("ok"))
          assertBytes(yield* written, "ok")
        }))

      it.effect(`a condition that ${name} midway is a defect and tears the stream`, () =>
        Effect.gen(function*() {
          const { socket, writable, written } = yield* script(take(1), block, take(1))
          const fiber = yield* start(
            Write.writeAll(socket, hello, (transferred) => transferred < 2 ? Infinity : next())
          )
          const second = yield* start(Write.writeAll(socket, text("behind")))
          yield* begun
          yield* writable
          assert.instanceOf(defect(yield* Fiber.await(fiber)), RangeError)
          assert.deepStrictEqual(failure(yield* Fiber.await(second)).reason, Reason.Torn({ transferred: 2, total: 5 }))
          assertBytes(yield* written, "he")
        }))
    }
  })

  describe("failure", () => {
    it.effect("midway says how far it came and closes the write side", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* script(take(2), take(1), fail(Reason.ConnectionReset()))
        const cursor = Buffers.cursor(hello)
        const error = failure(yield* Effect.exit(Write.writeAll(socket, cursor)))
        assert.strictEqual(error.reason._tag, "ConnectionReset")
        assert.deepStrictEqual([error.operation, error.transferred, error.total], ["writeAll", 3, 5])
        assert.strictEqual(cursor.transferred, 3)
        assertBytes(yield* written, "hel")
        assert.strictEqual(socket.state.write, "failed")
        const later = failure(yield* Effect.exit(Write.writeAll(socket, hello)))
        assert.strictEqual(later.reason._tag, "ConnectionReset")
        assert.deepStrictEqual([later.transferred, later.total], [0, 5])
        assert.strictEqual(failure(yield* Effect.exit(socket.writeSome(hello))).reason._tag, "ConnectionReset")
        assert.strictEqual(failure(yield* Effect.exit(socket.shutdownWrite)).reason._tag, "ConnectionReset")
      }))

    it.effect("while waiting fails everyone in line, in order", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* script(take(2), block, fail(Reason.BrokenPipe()))
        const order: Array<string> = []
        const note = (name: string) => Effect.onExit(() => Effect.sync(() => void order.push(name)))
        const first = yield* start(Write.writeAll(socket, hello).pipe(note("first")))
        const second = yield* start(socket.writeSome(hello).pipe(note("second")))
        const third = yield* start(socket.shutdownWrite.pipe(note("third")))
        yield* writable
        const errors = [failure(yield* Fiber.await(first)), failure(yield* Fiber.await(second))]
        assert.deepStrictEqual(errors.map((error) => [error.reason._tag, error.operation, error.transferred]), [
          ["BrokenPipe", "writeAll", 2],
          ["BrokenPipe", "writeSome", 0]
        ])
        assert.strictEqual(failure(yield* Fiber.await(third)).operation, "shutdownWrite")
        assert.deepStrictEqual(order, ["first", "second", "third"])
      }))

    it.effect("a transport that claims zero bytes is a defect, not an endless loop", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(take(1), take(0))
        assert.include(defect(yield* Effect.exit(Write.writeAll(socket, hello))).message, "0 bytes")
        assert.strictEqual(socket.state.write, "torn")
      }))
  })

  describe("interruption", () => {
    for (const [name, policy] of policies) {
      it.effect(`${name}: before the first byte nothing happened`, () =>
        Effect.gen(function*() {
          const { socket, writable, written } = yield* script(block, take(9))
          const cursor = Buffers.cursor(hello)
          const fiber = yield* start(Write.writeAll(socket, cursor).pipe(policy))
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
            transferred: 0,
            total: 5,
            guarantee: "total"
          })
          assert.strictEqual(cursor.transferred, 0)
          assert.strictEqual(socket.state.write, "open")
          yield* writable
          yield* Write.writeAll(socket, text("next"))
          assertBytes(yield* written, "next")
        }))

      it.effect(`${name}: in line behind another write nothing happened`, () =>
        Effect.gen(function*() {
          const { socket, writable, written } = yield* script(take(1), block, take(9), take(9))
          const first = yield* start(Write.writeAll(socket, hello))
          const second = yield* start(Write.writeAll(socket, text("second")).pipe(policy))
          const third = yield* start(Write.writeAll(socket, text("third")))
          yield* Fiber.interrupt(second)
          const exit = yield* Fiber.await(second)
          assert.deepStrictEqual(transferOf(exit), { transferred: 0, total: 6, guarantee: "total" })
          yield* writable
          assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(third)], [5, 5])
          assertBytes(yield* written, "hellothird")
        }))

      it.effect(`${name}: at the last byte it has completed`, () =>
        Effect.gen(function*() {
          const { socket, writable } = yield* script(take(4), block, take(1))
          const fiber = yield* start(Write.writeAll(socket, hello).pipe(policy))
          yield* writable
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(ending(yield* Fiber.await(fiber)), "Success")
          assert.strictEqual(socket.state.write, "open")
        }))
    }

    it.effect("terminal: stops at once, tears the stream, and later writes carry both counts", () =>
      Effect.gen(function*() {
        const { readable, socket, written } = yield* ScriptedStream.make({
          reads: [block, ScriptedStream.data("still here")],
          writes: [take(2), take(1), block]
        })
        const cursor = Buffers.cursor([text("he"), text("llo")])
        const fiber = yield* start(Write.writeAll(socket, cursor))
        const waiting = yield* start(Write.writeAll(socket, text("behind")))
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 3, total: 5, guarantee: "terminal" })
        assert.strictEqual(cursor.transferred, 3)
        assert.strictEqual(socket.state.write, "torn")
        const torn = Reason.Torn({ transferred: 3, total: 5 })
        const errors = [
          failure(yield* Fiber.await(waiting)),
          failure(yield* Effect.exit(Write.writeAll(socket, hello))),
          failure(yield* Effect.exit(socket.writeSome(hello))),
          failure(yield* Effect.exit(socket.writeSome(new Uint8Array(0)))),
          failure(yield* Effect.exit(socket.shutdownWrite))
        ]
        for (const error of errors) {
          assert.deepStrictEqual(error.reason, torn)
          assert.strictEqual(error.transferred, 0)
        }
        assertBytes(yield* written, "hel")
        yield* readable
        assert.strictEqual(yield* socket.readSome(new Uint8Array(20)), 10)
      }))

    it.effect("partial: stops at once, the stream is usable, and the cursor sends the rest", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(take(3), block, take(1), block, take(9))
        const cursor = Buffers.cursor([text("he"), text("llo")])
        const first = yield* start(Cancellation.partial(Write.writeAll(socket, cursor)))
        yield* Fiber.interrupt(first)
        const exit = yield* Fiber.await(first)
        assert.deepStrictEqual(transferOf(exit), { transferred: 3, total: 5, guarantee: "partial" })
        yield* writable
        const second = yield* start(Cancellation.partial(Write.writeAll(socket, cursor)))
        yield* Fiber.interrupt(second)
        const again = yield* Fiber.await(second)
        assert.deepStrictEqual(transferOf(again), { transferred: 1, total: 2, guarantee: "partial" })
        yield* writable
        assert.strictEqual(yield* Write.writeAll(socket, cursor), 1)
        assertBytes(yield* written, hello)
      }))

    it.effect("partial: the next in line gets the direction at once", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(take(3), block, take(9))
        const first = yield* start(Cancellation.partial(Write.writeAll(socket, hello)))
        const second = yield* start(Write.writeAll(socket, text("!")))
        yield* Fiber.interrupt(first)
        assert.isUndefined(second.pollUnsafe())
        yield* writable
        assert.strictEqual(yield* Fiber.join(second), 1)
        assertBytes(yield* written, "hel!")
      }))

    it.effect("total: goes on to the last byte, and the interruption proceeds then", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(take(1), block, take(1), block, take(3), take(9))
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
        const interruption = yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust("1 day")
        yield* writable
        assert.isUndefined(fiber.pollUnsafe())
        assert.isUndefined(interruption.pollUnsafe())
        yield* writable
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 5, total: 5, guarantee: "total" })
        assert.strictEqual(ending(exit), "Interrupt")
        assert.strictEqual(socket.state.write, "open")
        yield* Write.writeAll(socket, text("!"))
        assertBytes(yield* written, "hello!")
      }))

    it.effect("total: the line waits for the interrupted write to finish", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(take(1), block, take(9), take(9))
        const first = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
        const second = yield* start(Write.writeAll(socket, text("!")))
        yield* start(Fiber.interrupt(first))
        assert.isUndefined(second.pollUnsafe())
        yield* writable
        yield* Fiber.join(second)
        assertBytes(yield* written, "hello!")
      }))

    it.effect("total: interrupting it a second time changes nothing", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* script(take(1), block, take(9))
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
        yield* start(Fiber.interrupt(fiber))
        yield* start(Fiber.interrupt(fiber))
        assert.isUndefined(fiber.pollUnsafe())
        yield* writable
        assert.strictEqual(transferOf(yield* Fiber.await(fiber)).transferred, 5)
      }))

    it.effect("total: a failure while finishing is told beside the interruption", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* script(take(2), block, take(1), fail(Reason.ConnectionReset()))
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
        yield* start(Fiber.interrupt(fiber))
        yield* writable
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 3, total: 5, guarantee: "terminal" })
        assert.strictEqual(failure(exit).reason._tag, "ConnectionReset")
        assert.strictEqual(failure(exit).transferred, 3)
      }))

    it.effect("total: closing the socket ends it at once", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(take(2), block)
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
        yield* start(Fiber.interrupt(fiber))
        yield* socket.close
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 2, total: 5, guarantee: "terminal" })
      }))

    it.effect("total within: becomes terminal that long after the last byte, at most an eighth late", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(take(1), block, take(1), block)
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello), { within: "2 seconds" }))
        const interruption = yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1000)
        yield* writable
        yield* TestClock.adjust(1999)
        assert.isUndefined(fiber.pollUnsafe())
        assert.strictEqual(socket.state.write, "open")
        yield* TestClock.adjust(251)
        assert.isDefined(interruption.pollUnsafe())
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 2, total: 5, guarantee: "terminal" })
        assert.strictEqual(socket.state.write, "torn")
        assertBytes(yield* written, "he")
      }))

    it.effect("total within: the time runs from the interruption, not from the start", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(take(1), block)
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello), { within: "2 seconds" }))
        yield* TestClock.adjust("1 hour")
        yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1999)
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual(transferOf(yield* Fiber.await(fiber)).guarantee, "terminal")
      }))

    it.effect("total within: finishing earlier does not wait for the clock", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* script(take(1), block, take(9))
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello), { within: "2 seconds" }))
        yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1999)
        yield* writable
        assert.isDefined(fiber.pollUnsafe())
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 5, total: 5, guarantee: "total" })
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("total within: at the very moment, whoever comes first decides", () =>
      Effect.gen(function*() {
        for (const finishing of ["first", "last"]) {
          const { socket, writable, written } = yield* script(
            take(1),
            block,
            ...(finishing === "first" ? [take(9)] : [])
          )
          const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello), { within: "2 seconds" }))
          const finish = Effect.andThen(Effect.sleep("2 seconds"), writable)
          if (finishing === "first") yield* start(finish)
          yield* start(Fiber.interrupt(fiber))
          if (finishing === "last") yield* start(finish)
          yield* TestClock.adjust("2 seconds")
          const { guarantee, transferred } = transferOf(yield* Fiber.await(fiber))
          assert.deepStrictEqual([guarantee, transferred], finishing === "first" ? ["total", 5] : ["terminal", 1])
          assert.strictEqual((yield* written).byteLength, transferred)
          assert.strictEqual(socket.state.write, finishing === "first" ? "open" : "torn")
        }
      }))

    it.effect("total within zero: stops at once and tears", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(take(1), block)
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello), { within: 0 }))
        yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust(0)
        assert.strictEqual(transferOf(yield* Fiber.await(fiber)).guarantee, "terminal")
        assert.strictEqual(socket.state.write, "torn")
      }))

    it.effect("a race that a write loses waits for its policy", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(take(1), block, take(9))
        const race = yield* start(
          Effect.timeoutOption(Cancellation.total(Write.writeAll(socket, hello)), "1 second")
        )
        yield* TestClock.adjust("1 minute")
        assert.isUndefined(race.pollUnsafe())
        yield* writable
        assert.strictEqual((yield* Fiber.join(race))._tag, "None")
        assertBytes(yield* written, hello)
      }))
  })

  describe("the line", () => {
    it.effect("keeps two messages apart however they are cut", () =>
      Effect.gen(function*() {
        const steps = [take(1), block, take(2), block, take(2), take(1), block, take(9), take(9)]
        const { socket, writable, written } = yield* script(...steps)
        const first = yield* start(Write.writeAll(socket, hello))
        const second = yield* start(Write.writeAll(socket, text("world")))
        const third = yield* start(socket.writeSome(text("!")))
        for (let i = 0; i < 3; i++) yield* writable
        assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second), yield* Fiber.join(third)], [
          5,
          5,
          1
        ])
        assertBytes(yield* written, "helloworld!")
      }))

    it.effect("serves a fiber that writes again behind those who wait", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* script(block, take(9), take(9), take(9))
        const both = yield* start(
          Effect.andThen(Write.writeAll(socket, text("a1")), Write.writeAll(socket, text("a2")))
        )
        const other = yield* start(Write.writeAll(socket, text("b")))
        yield* writable
        yield* Fiber.join(both)
        yield* Fiber.join(other)
        assertBytes(yield* written, "a1ba2")
      }))

    it.effect("an empty write waits for its turn like any other", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* script(block, take(9))
        const first = yield* start(Write.writeAll(socket, hello))
        const empty = yield* start(socket.writeSome(new Uint8Array(0)))
        yield* writable
        assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(empty)], [5, 0])
      }))

    it.effect("closing in the middle fails the writer with its count and the line with none", () =>
      Effect.gen(function*() {
        const { calls, socket } = yield* script(take(2), block)
        const first = yield* start(Write.writeAll(socket, hello))
        const second = yield* start(Write.writeAll(socket, text("behind")))
        yield* socket.close
        const errors = [failure(yield* Fiber.await(first)), failure(yield* Fiber.await(second))]
        assert.deepStrictEqual(
          errors.map((error) => [error.reason._tag, error.operation, error.transferred, error.total]),
          [["Closed", "writeAll", 2, 5], ["Closed", "writeAll", 0, 6]]
        )
        // The peer has two bytes of five, which an end of stream would make look complete.
        assert.deepStrictEqual([calls.close, calls.abort], [0, 1])
        for (const source of [hello, new Uint8Array(0)]) {
          assert.strictEqual(failure(yield* Effect.exit(Write.writeAll(socket, source))).reason._tag, "Closed")
          assert.strictEqual(failure(yield* Effect.exit(socket.writeSome(source))).reason._tag, "Closed")
        }
      }))
  })
})

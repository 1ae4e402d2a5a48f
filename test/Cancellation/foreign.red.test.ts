/** Requests, deadlines and accounts of composed operations over streams that are not ours. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Framing from "../../src/Framing.ts"
import * as Read from "../../src/Read.ts"
import * as Relay from "../../src/Relay.ts"
import type { ReadStream, WriteStream } from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { pattern } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { eventually, start } from "../support/waiting.ts"

const silent: ReadStream & WriteStream = { readSome: () => Effect.never, writeSome: () => Effect.never }

const bytes = pattern(53)

/** Composed operations over a stream that never answers. */
const waiting: Readonly<Record<string, Effect.Effect<unknown, unknown>>> = {
  readExactly: Read.readExactly(silent, new Uint8Array(4)),
  readAtLeast: Read.readAtLeast(silent, new Uint8Array(4), 2),
  readUntil: Read.readUntil(silent, "\n"),
  readLine: Read.readLine(silent, { max: 100 }),
  readAll: Read.readAll(silent),
  "Framing.receive": Framing.receive(silent, Framing.lengthPrefixed()),
  writeAll: Write.writeAll(silent, bytes),
  "writeAll, by a condition": Write.writeAll(silent, bytes, CompletionCondition.transferAtLeast(10)),
  "Framing.send": Framing.send(silent, Framing.lengthPrefixed(), bytes),
  "Relay.copy": Relay.copy(silent, silent)
}

describe("requests to operations over streams that are not ours", () => {
  for (const [name, operation] of Object.entries(waiting)) {
    it.effect(`cancelAfter ends ${name}`, () =>
      Effect.gen(function*() {
        const fiber = yield* start(Effect.exit(Cancellation.cancelAfter(operation, 100)))
        yield* TestClock.adjust(1000)
        const exit = yield* Effect.yieldNow.pipe(Effect.andThen(Effect.sync(() => fiber.pollUnsafe())))
        if (exit === undefined) {
          yield* Fiber.interrupt(fiber)
          return assert.fail("it still waits")
        }
        assert.strictEqual(Exit.isSuccess(exit) ? ending(exit.value) : "Interrupt", "OperationAborted")
      }))

    it.effect(`emit lists ${name}, and ends it`, () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const fiber = yield* start(Effect.exit(Cancellation.withSignal(operation, signal)))
        yield* Effect.yieldNow
        const report = yield* signal.emit("total")
        assert.deepStrictEqual(
          report.ended.map(({ guarantee, transferred }) => [guarantee, transferred]),
          [["total", 0]]
        )
        assert.strictEqual(ending(yield* Fiber.join(fiber)), "OperationAborted")
      }).pipe(Effect.timeout("1 second"), Effect.ensuring(Effect.void)))
  }

  it.live(
    "a request in the middle of a step that cannot be interrupted is served behind it",
    () =>
      Effect.gen(function*() {
        let taken = 0
        const slow: WriteStream = {
          writeSome: () =>
            Effect.uninterruptible(Effect.andThen(
              Effect.sleep(20),
              Effect.sync(() => {
                taken++
                return 1
              })
            ))
        }
        const signal = Cancellation.makeSignal()
        const fiber = yield* start(Effect.exit(Cancellation.withSignal(Write.writeAll(slow, bytes), signal)))
        yield* eventually("two steps", () => taken >= 2)
        assert.deepStrictEqual(signal.pending.map(({ operation }) => operation), ["writeAll"])
        yield* signal.emit("terminal")
        const exit = yield* Fiber.join(fiber)
        assert.strictEqual(ending(exit), "OperationAborted")
        assert.strictEqual(failure(exit).transferred, taken)
        assert.isBelow(taken, 10)
      }),
    20_000
  )

  it.live("a request between two steps is served before the next one", () =>
    Effect.gen(function*() {
      let steps = 0
      const deaf: ReadStream = {
        readSome: (target) =>
          Effect.uninterruptible(Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => {
              steps++
              target[0] = 0
              return 1
            })
          ))
      }
      const exit = yield* Effect.exit(Cancellation.cancelAfter(Read.readExactly(deaf, new Uint8Array(100_000)), 20))
      assert.strictEqual(ending(exit), "OperationAborted")
      assert.isBelow(steps, 100_000)
    }), 60_000)
})

/** A step that takes everything and cannot be interrupted while it does. */
const deliberate = (count: number) => {
  const taken: Array<number> = []
  const stream: WriteStream = {
    writeSome: (source) =>
      Effect.uninterruptible(Effect.andThen(
        Effect.sleep(100),
        Effect.sync(() => {
          const piece = Buffers.concat(Buffers.slice(source, 0, count))
          taken.push(...piece)
          return piece.byteLength
        })
      ))
  }
  return { stream, taken }
}

const policies = {
  terminal: Cancellation.terminal,
  partial: Cancellation.partial,
  total: Cancellation.total()
} as const

describe("the account of an interrupted writeAll over a stream that is not ours", () => {
  for (const [policy, withPolicy] of Object.entries(policies)) {
    it.effect(`counts what a step took that ended uninterruptibly: all of it (${policy})`, () =>
      Effect.gen(function*() {
        const { stream, taken } = deliberate(53)
        const source = Buffers.cursor(bytes)
        const fiber = yield* start(withPolicy(Write.writeAll(stream, source)))
        yield* TestClock.adjust(10)
        fiber.interruptUnsafe()
        yield* TestClock.adjust(1000)
        const exit = yield* Fiber.await(fiber)
        assert.strictEqual(taken.length, 53)
        assert.deepStrictEqual(transferOf(exit), { transferred: 53, total: 53, guarantee: "total" })
        // Who resumes from the cursor sends nothing twice.
        assert.strictEqual(source.remaining, 0)
      }))

    it.effect(`counts what a step took that ended uninterruptibly: a part of it (${policy})`, () =>
      Effect.gen(function*() {
        const { stream, taken } = deliberate(20)
        const source = Buffers.cursor(bytes)
        const fiber = yield* start(withPolicy(Write.writeAll(stream, source)))
        yield* TestClock.adjust(10)
        fiber.interruptUnsafe()
        yield* TestClock.adjust(1000)
        const { transferred } = transferOf(yield* Fiber.await(fiber))
        assert.strictEqual(transferred, taken.length)
        assert.strictEqual(source.transferred, taken.length)
        assert.strictEqual(transferred, policy === "total" ? 53 : 20)
      }))

    it.effect(`the same for a framed send (${policy})`, () =>
      Effect.gen(function*() {
        const { stream, taken } = deliberate(1000)
        const fiber = yield* start(withPolicy(Framing.send(stream, Framing.lengthPrefixed(), bytes)))
        yield* TestClock.adjust(10)
        fiber.interruptUnsafe()
        yield* TestClock.adjust(1000)
        assert.strictEqual(transferOf(yield* Fiber.await(fiber)).transferred, taken.length)
      }))
  }
})

const interruptions = (exit: Exit.Exit<unknown, unknown>): number =>
  Exit.isSuccess(exit) ? 0 : exit.cause.reasons.filter(Cause.isInterruptReason).length

describe("the cause of an interrupted writeAll", () => {
  for (const [policy, withPolicy] of Object.entries(policies)) {
    it.effect(`holds the interruption once, over a stream of ours (${policy})`, () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
        const fiber = yield* start(withPolicy(Write.writeAll(left, bytes)))
        fiber.interruptUnsafe()
        yield* start(Effect.ignore(Read.readAll(right)))
        assert.strictEqual(interruptions(yield* Fiber.await(fiber)), 1)
      }))

    it.effect(`holds the interruption once, over a stream that is not ours (${policy})`, () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
        const fiber = yield* start(withPolicy(Write.writeAll({ writeSome: (source) => left.writeSome(source) }, bytes)))
        fiber.interruptUnsafe()
        yield* start(Effect.ignore(Read.readAll(right)))
        assert.strictEqual(interruptions(yield* Fiber.await(fiber)), 1)
      }))

    it.effect(`holds it once when a step ended uninterruptibly (${policy})`, () =>
      Effect.gen(function*() {
        const { stream } = deliberate(53)
        const fiber = yield* start(withPolicy(Write.writeAll(stream, bytes)))
        yield* TestClock.adjust(10)
        fiber.interruptUnsafe()
        yield* TestClock.adjust(1000)
        assert.strictEqual(interruptions(yield* Fiber.await(fiber)), 1)
      }))

    it.effect(`holds it once when nothing was taken (${policy})`, () =>
      Effect.gen(function*() {
        const fiber = yield* start(withPolicy(Write.writeAll(silent, bytes)))
        fiber.interruptUnsafe()
        assert.strictEqual(interruptions(yield* Fiber.await(fiber)), 1)
      }))
  }
})

describe("an interruption in the moment in which a condition is met", () => {
  const size = 49_875
  const enough = 7974
  for (const ours of [true, false]) {
    it.effect(`is told as completed, and not as if nothing had happened, over a stream ${ours ? "of ours" : "that is not ours"}`, () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 5000, linger: 0 })
        const stream: WriteStream = ours ? left : { writeSome: (source) => left.writeSome(source) }
        let interrupt = (): void => {}
        const fiber = yield* start(Write.writeAll(stream, pattern(size), (transferred) => {
          if (transferred < enough) return enough - transferred
          interrupt()
          return 0
        }))
        interrupt = () => fiber.interruptUnsafe()
        yield* start(Effect.ignore(Read.readExactly(right, new Uint8Array(enough))))
        const exit = yield* Fiber.await(fiber)
        if (Exit.isSuccess(exit)) assert.strictEqual(exit.value, enough)
        else {
          const { guarantee, total, transferred } = transferOf(exit)
          assert.strictEqual(transferred, enough)
          // "total" is: nothing was taken, or everything was.
          if (guarantee === "total") assert.strictEqual(total, enough)
        }
      }))
  }
})

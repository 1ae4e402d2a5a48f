import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Result, Scheduler, Tracer } from "effect"
import { Buffers, Cancellation, Read, Write } from "../../src/index.ts"
import { Operation, OperationQueue } from "../../src/internal/core/OperationQueue.ts"
import { MemoryTransport } from "../../src/testing/index.ts"

// A fiber that has used up its turn lets others in between two steps. These tests make every possible step the last of
// a turn, and interrupt in exactly that gap.
describe("the end of a fiber's turn", () => {
  const turn = 64
  const paddings = Array.from({ length: turn }, (_, index) => index)
  // Each suspension is one operation of the run loop.
  const pad = (count: number): Effect.Effect<void> => count === 0 ? Effect.void : Effect.suspend(() => pad(count - 1))
  const inShortTurns = Effect.provideService(Scheduler.MaxOpsBeforeYield, turn)

  type Region = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  const regions: Readonly<Record<string, Region>> = {
    "in no region": (effect) => effect,
    "in a traced region": (effect) =>
      effect.pipe(
        Effect.withSpan("outer"),
        Effect.provideService(Tracer.Tracer, Tracer.make({ span: (options) => new Tracer.NativeSpan(options) }))
      ),
    "under a deadline": Cancellation.cancelAfter("1 hour"),
    "in the region of a signal": (effect) => Cancellation.withSignal(effect, Cancellation.makeSignal())
  }

  for (const [name, region] of Object.entries(regions)) {
    describe(name, () => {
      it.effect("an interruption there loses no byte that was read", () =>
        Effect.gen(function*() {
          for (const padding of paddings) {
            const [here, there] = yield* MemoryTransport.pair()
            const message = Uint8Array.from({ length: 200 }, (_, index) => index)
            yield* Write.writeAll(there, message)
            yield* there.shutdownWrite
            const seen: Array<number> = []
            const one = new Uint8Array(1)
            const reader = Effect.andThen(
              pad(padding),
              Effect.forever(
                Effect.map(here.readSome(one), () => seen.push(one[0]!)),
                { disableYield: true }
              )
            )
            const fiber = yield* Effect.forkChild(inShortTurns(region(reader)), { startImmediately: true })
            // The reader stands somewhere in the middle, at the end of its turn.
            const before = seen.length
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(seen.length, before)
            yield* Effect.exit(reader)
            assert.deepStrictEqual(seen, [...message], `padding ${padding}`)
          }
        }))

      it.effect("an interruption there leaves no write without its account", () =>
        Effect.gen(function*() {
          for (const padding of paddings) {
            const [here] = yield* MemoryTransport.pair({ capacity: 10_000 })
            let counted = 0
            const writer = Effect.andThen(
              pad(padding),
              Effect.forever(
                Effect.map(here.writeSome(Buffers.utf8("abc")), (count) => {
                  counted += count
                }),
                { disableYield: true }
              )
            )
            const fiber = yield* Effect.forkChild(inShortTurns(region(writer)), { startImmediately: true })
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(counted, here.bytesWritten, `padding ${padding}`)
          }
        }))

      it.effect("an interruption there cuts no composed write in silence", () =>
        Effect.gen(function*() {
          for (const padding of paddings) {
            const [here] = yield* MemoryTransport.pair({ capacity: 10 })
            const fiber = yield* Effect.forkChild(
              inShortTurns(region(Effect.andThen(pad(padding), Write.writeAll(here, new Uint8Array(20))))),
              { startImmediately: true }
            )
            yield* Fiber.interrupt(fiber)
            const exit = yield* Fiber.await(fiber)
            assert.isTrue(Exit.isFailure(exit))
            if (Exit.isSuccess(exit)) continue
            const transfer = Cancellation.transfer(exit.cause)
            const transferred = transfer._tag === "Some" ? transfer.value.transferred : 0
            assert.strictEqual(transferred, here.bytesWritten, `padding ${padding}`)
            assert.strictEqual(here.state.write, transferred > 0 ? "torn" : "open", `padding ${padding}`)
          }
        }))

      it.effect("an interruption there loses no byte that a composed read has consumed", () =>
        Effect.gen(function*() {
          for (const padding of paddings) {
            const [here, there] = yield* MemoryTransport.pair()
            const lines = Array.from({ length: 40 }, (_, index) => `line ${index}\n`)
            yield* Write.writeAll(there, Buffers.utf8(lines.join("")))
            yield* there.shutdownWrite
            const seen: Array<string> = []
            const reader = Effect.andThen(
              pad(padding),
              Effect.forever(
                Effect.map(Read.readUntil(here, "\n"), (line) => seen.push(Buffers.toUtf8(line))),
                { disableYield: true }
              )
            )
            const fiber = yield* Effect.forkChild(inShortTurns(region(reader)), { startImmediately: true })
            const before = seen.length
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(seen.length, before)
            yield* Effect.exit(reader)
            assert.deepStrictEqual(seen, lines, `padding ${padding}`)
          }
        }))

      it.effect("an interruption there leaves no composed write that completed without its account", () =>
        Effect.gen(function*() {
          for (const padding of paddings) {
            const [here] = yield* MemoryTransport.pair({ capacity: 10_000 })
            let counted = 0
            const writer = Effect.andThen(
              pad(padding),
              Effect.forever(
                Effect.map(Write.writeAll(here, Buffers.utf8("abc")), (count) => {
                  counted += count
                }),
                { disableYield: true }
              )
            )
            const fiber = yield* Effect.forkChild(inShortTurns(region(writer)), { startImmediately: true })
            yield* Fiber.interrupt(fiber)
            const exit = yield* Fiber.await(fiber)
            const transfer = Exit.isFailure(exit) ? Cancellation.transfer(exit.cause) : undefined
            const cut = transfer?._tag === "Some" ? transfer.value.transferred : 0
            assert.strictEqual(counted + cut, here.bytesWritten, `padding ${padding}`)
          }
        }))
    })
  }

  it.effect("a deadline that comes there costs no byte and no account", () =>
    Effect.gen(function*() {
      for (const padding of paddings) {
        const [here, there] = yield* MemoryTransport.pair({ capacity: 7 })
        const message = Uint8Array.from({ length: 100 }, (_, index) => index)
        const cursor = Buffers.cursor(message)
        const writer = Effect.andThen(pad(padding), Write.writeAll(here, cursor)).pipe(
          Cancellation.cancelAfter(0, "partial")
        )
        const fiber = yield* Effect.forkChild(inShortTurns(writer), { startImmediately: true })
        const exit = yield* Fiber.await(fiber)
        const error = Exit.isFailure(exit) ? Result.getOrUndefined(Cause.findError(exit.cause)) : undefined
        assert.strictEqual(error?.reason._tag, "OperationAborted", `padding ${padding}`)
        assert.deepStrictEqual([error?.transferred, cursor.transferred], [here.bytesWritten, here.bytesWritten])
        const reading = yield* Effect.forkChild(Read.readExactly(there, new Uint8Array(100)))
        yield* Write.writeAll(here, cursor)
        assert.strictEqual(yield* Fiber.join(reading), 100)
      }
    }))

  it.effect("a turn shorter than the margin still makes progress", () =>
    Effect.gen(function*() {
      const [here, there] = yield* MemoryTransport.pair()
      const target = new Uint8Array(10)
      const count = yield* Effect.andThen(Write.writeAll(here, Buffers.utf8("hello")), there.readSome(target)).pipe(
        Effect.provideService(Scheduler.MaxOpsBeforeYield, 8)
      )
      assert.strictEqual(Buffers.toUtf8(target.subarray(0, count)), "hello")
    }))
})

describe("an observer that throws", () => {
  class Always extends Operation<number, never> {
    readonly operation = "test"
    readonly total = 0
    readonly address = undefined

    attempt(): Exit.Exit<number> {
      return Exit.succeed(1)
    }
  }

  it.effect("costs the others in line nothing", () =>
    Effect.gen(function*() {
      const line = new OperationQueue({ interestDropped: () => {} })
      const wait = Effect.withFiber((fiber) => line.enqueue(fiber, new Always()))
      const first = yield* Effect.forkChild(wait, { startImmediately: true })
      const second = yield* Effect.forkChild(wait, { startImmediately: true })
      first.addObserver(() => {
        throw new Error("an observer failed")
      })
      // Nobody but this test is to hear of it.
      const handlers = process.listeners("uncaughtException")
      process.removeAllListeners("uncaughtException")
      const uncaught = yield* Effect.callback<unknown>((resume) => {
        process.once("uncaughtException", (cause) => resume(Effect.succeed(cause)))
        line.pump("keepInterest")
      })
      for (const handler of handlers) process.on("uncaughtException", handler)
      assert.strictEqual(String(uncaught), "Error: an observer failed")
      assert.strictEqual(yield* Fiber.join(second), 1)
    }))
})

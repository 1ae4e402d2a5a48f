import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scheduler } from "effect"
import { Buffers, Cancellation, Write } from "../../src/index.ts"
import { MemoryTransport } from "../../src/testing/index.ts"

// A fiber that has used up its turn lets others in between two steps. These tests make every possible step the last of
// a turn, and interrupt in exactly that gap.
describe("the end of a fiber's turn", () => {
  const turn = 64
  const paddings = Array.from({ length: turn }, (_, index) => index)
  // Each suspension is one operation of the run loop.
  const pad = (count: number): Effect.Effect<void> => count === 0 ? Effect.void : Effect.suspend(() => pad(count - 1))
  const inShortTurns = Effect.provideService(Scheduler.MaxOpsBeforeYield, turn)

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
        const fiber = yield* Effect.forkChild(inShortTurns(reader), { startImmediately: true })
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
        const fiber = yield* Effect.forkChild(inShortTurns(writer), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(counted, here.bytesWritten, `padding ${padding}`)
      }
    }))

  it.effect("an interruption there cuts no composed write in silence", () =>
    Effect.gen(function*() {
      for (const padding of paddings) {
        const [here] = yield* MemoryTransport.pair({ capacity: 10 })
        const fiber = yield* Effect.forkChild(
          inShortTurns(Effect.andThen(pad(padding), Write.writeAll(here, new Uint8Array(20)))),
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

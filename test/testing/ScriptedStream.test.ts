import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Buffers from "../../src/Buffers.ts"
import { Reason } from "../../src/SocketError.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { assertBytes } from "../support/bytes.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

const { block, data, end, fail, take } = ScriptedStream
const text = Buffers.utf8

describe("ScriptedStream", () => {
  it.effect("answers writes step by step", () =>
    Effect.gen(function*() {
      const { socket, written } = yield* ScriptedStream.make({ writes: [take(2), take(100), fail(Reason.TimedOut())] })
      assert.strictEqual(yield* socket.writeSome(text("hello")), 2)
      assert.strictEqual(yield* socket.writeSome([text("l"), text("lo")]), 3)
      const exit = yield* Effect.exit(socket.writeSome(text("!")))
      assert.strictEqual(failure(exit).reason._tag, "TimedOut")
      assertBytes(yield* written, "hello")
    }))

  it.effect("answers reads step by step, a step in as many pieces as the targets need", () =>
    Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({ reads: [data("hello"), data(Uint8Array.of(1, 2)), end] })
      const target = new Uint8Array(3)
      const counts: Array<number> = []
      for (let i = 0; i < 3; i++) counts.push(yield* socket.readSome(target))
      assert.deepStrictEqual(counts, [3, 2, 2])
      assertBytes(target.subarray(0, 2), Uint8Array.of(1, 2))
      for (let i = 0; i < 3; i++) assert.strictEqual(ending(yield* Effect.exit(socket.readSome(target))), "Done")
    }))

  it.effect("blocks until its levers are pulled, each direction by its own", () =>
    Effect.gen(function*() {
      const { readable, socket, writable } = yield* ScriptedStream.make({
        reads: [block, data("x")],
        writes: [block, take(1)]
      })
      const reader = yield* start(socket.readSome(new Uint8Array(1)))
      const writer = yield* start(socket.writeSome(text("y")))
      yield* readable
      assert.isDefined(reader.pollUnsafe())
      assert.isUndefined(writer.pollUnsafe())
      yield* writable
      assert.isDefined(writer.pollUnsafe())
    }))

  it.effect("a lever that finds no block is a spurious event", () =>
    Effect.gen(function*() {
      const { readable, socket, writable } = yield* ScriptedStream.make({
        reads: [data("x"), block, data("y")],
        writes: [take(1), block, block, take(1)]
      })
      yield* readable
      yield* writable
      assert.strictEqual(yield* socket.readSome(new Uint8Array(9)), 1)
      assert.strictEqual(yield* socket.writeSome(text("x")), 1)
      const writer = yield* start(socket.writeSome(text("y")))
      yield* writable
      assert.isUndefined(writer.pollUnsafe())
      yield* writable
      assert.strictEqual(yield* Fiber.join(writer), 1)
      const reader = yield* start(socket.readSome(new Uint8Array(9)))
      yield* readable
      assert.strictEqual(yield* Fiber.join(reader), 1)
    }))

  it.effect("counts shutdowns, closes and aborts", () =>
    Effect.gen(function*() {
      const first = yield* ScriptedStream.make({})
      yield* first.socket.shutdownWrite
      yield* first.socket.close
      yield* first.socket.close
      assert.deepStrictEqual({ ...first.calls }, { shutdownWrite: 1, close: 1, abort: 0 })
      const second = yield* Effect.scoped(ScriptedStream.make({}))
      assert.deepStrictEqual({ ...second.calls }, { shutdownWrite: 0, close: 0, abort: 1 })
    }))

  it.effect("dies when an attempt is not in the script", () =>
    Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({})
      assert.include(defect(yield* Effect.exit(socket.writeSome(text("abc")))).message, "write of 3 bytes")
      assert.include(defect(yield* Effect.exit(socket.readSome(new Uint8Array(4)))).message, "read of 4 bytes")
    }))

  it.effect("dies when the script is not used up, and says what is left", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(
        Effect.scoped(ScriptedStream.make({ reads: [data("x"), end], writes: [block, take(1)] }))
      )
      const { message } = defect(exit)
      for (const word of ["not used up", "data", "block", "take"]) assert.include(message, word)
      assert.notInclude(message, "end")
    }))

  it.effect("end is no debt of the script", () =>
    Effect.gen(function*() {
      assert.strictEqual(ending(yield* Effect.exit(Effect.scoped(ScriptedStream.make({ reads: [end] })))), "Success")
    }))
})

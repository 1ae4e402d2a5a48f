/** Input that no type checker saw, memory that changes under way, sizes at the edge, callbacks that call back. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import { Reason } from "../../src/SocketError.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

const { block, data, end, take } = ScriptedStream
const text = Buffers.utf8

/** Ways to take memory away, or to change it, while an operation waits. */
const changes: ReadonlyArray<readonly [string, (buffer: ArrayBuffer) => void]> = [
  ["detached", (buffer) => structuredClone(buffer, { transfer: [buffer] })],
  ["transferred", (buffer) => buffer.transfer()],
  ["shrunk", (buffer) => buffer.resize(2)],
  ["emptied", (buffer) => buffer.resize(0)],
  ["grown", (buffer) => buffer.resize(16)]
]

/** Eight bytes that can be resized. */
const resizable = (): { readonly buffer: ArrayBuffer; readonly bytes: Uint8Array } => {
  const buffer = new ArrayBuffer(8, { maxByteLength: 16 })
  const bytes = new Uint8Array(buffer)
  bytes.set(text("original"))
  return { buffer, bytes }
}

const detached = (): Uint8Array => {
  const { buffer, bytes } = resizable()
  buffer.transfer()
  return bytes
}

// What callers without types pass.
const wrongViews: ReadonlyArray<readonly [string, Uint8Array]> = ([
  ["a string", "hello"],
  ["null", null],
  ["undefined", undefined],
  ["a number", 7],
  ["an array of numbers", [1, 2]],
  ["an ArrayBuffer", new ArrayBuffer(3)],
  ["a view of wider elements", new Uint16Array(3)],
  ["an object that looks like a view", { byteLength: 3, buffer: new ArrayBuffer(3), byteOffset: 0 }],
  ["a promise", Promise.resolve(new Uint8Array(1))]
] as const).map(([name, value]) => [name, value as unknown as Uint8Array])

/** Whatever happened before, the next message goes through and the next bytes arrive. */
const stillWorks = (socket: StreamSocket, peer: StreamSocket) =>
  Effect.gen(function*() {
    yield* Write.writeAll(socket, text("there\n"))
    assertBytes(yield* Read.readUntil(peer, "there\n"), "there\n")
    yield* Write.writeAll(peer, text("back\n"))
    assertBytes(yield* Read.readUntil(socket, "back\n"), "back\n")
  })

describe("hostile input", () => {
  describe("arguments that are not memory", () => {
    for (const [name, value] of wrongViews) {
      it.effect(`${name} is a TypeError that says what was expected, and the stream goes on`, () =>
        Effect.gen(function*() {
          const [left, right] = yield* MemoryTransport.pair()
          const operations: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
            left.writeSome(value),
            left.writeSome([text("x"), value]),
            Write.writeAll(left, value),
            Write.writeAll(left, [text("x"), value]),
            left.readSome(value),
            Read.readExactly(left, value),
            Read.readAtLeast(left, value, 1)
          ]
          for (const operation of operations) {
            const error = defect(yield* Effect.exit(operation))
            assert.instanceOf(error, TypeError)
            assert.match(error.message, /Uint8Array/)
          }
          assert.strictEqual(left.bytesWritten, 0)
          yield* stillWorks(left, right)
        }))
    }

    it.effect("a list is no target", () =>
      Effect.gen(function*() {
        const [left] = yield* MemoryTransport.pair()
        for (const target of [[], [new Uint8Array(1)], new DataView(new ArrayBuffer(4))]) {
          // What callers without types pass.
          const exit = yield* Effect.exit(left.readSome(target as unknown as Uint8Array))
          assert.instanceOf(defect(exit), TypeError)
        }
      }))

    it.effect("a delimiter of no known kind is a TypeError, and nothing is consumed", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("abc\n"), end] })
        const wrong: ReadonlyArray<unknown> = [null, undefined, {}, [10], true, Symbol("x"), new Uint16Array([10])]
        for (const delimiter of wrong) {
          // What callers without types pass.
          const exit = yield* Effect.exit(Read.readUntil(socket, delimiter as string))
          assert.instanceOf(defect(exit), TypeError)
          assert.match(defect(exit).message, /readUntil/)
        }
        assertBytes(yield* Read.readAll(socket), "abc\n")
      }))
  })

  describe("memory that is gone before the start", () => {
    it.effect("is a TypeError in every operation, and the stream goes on", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const shrunk = new ArrayBuffer(8, { maxByteLength: 8 })
        const outside = new Uint8Array(shrunk, 4, 2)
        shrunk.resize(5)
        for (const gone of [detached(), outside]) {
          const operations: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
            left.writeSome(gone),
            left.writeSome([text("x"), gone]),
            Write.writeAll(left, gone),
            left.readSome(gone),
            Read.readExactly(left, gone)
          ]
          for (const [index, operation] of operations.entries()) {
            assert.instanceOf(defect(yield* Effect.exit(operation)), TypeError, `operation ${index}`)
          }
        }
        yield* stillWorks(left, right)
      }))
  })

  describe("memory that changes while an operation waits", () => {
    for (const [name, change] of changes) {
      it.effect(`${name} source, nothing taken yet: a defect, and the stream is usable`, () =>
        Effect.gen(function*() {
          for (const composed of [false, true]) {
            const { socket, writable, written } = yield* ScriptedStream.make({ writes: [block, take(9), take(9)] })
            const { buffer, bytes } = resizable()
            const fiber = yield* start(composed ? Write.writeAll(socket, bytes) : socket.writeSome(bytes))
            change(buffer)
            yield* writable
            const error = defect(yield* Fiber.await(fiber))
            assert.instanceOf(error, TypeError)
            assert.match(error.message, /8 bytes was detached or resized/)
            assert.strictEqual(socket.state.write, "open")
            yield* Write.writeAll(socket, text("next"))
            assertBytes(yield* written, "next")
          }
        }))

      it.effect(`${name} source midway: a defect, and the stream is torn`, () =>
        Effect.gen(function*() {
          const { socket, writable, written } = yield* ScriptedStream.make({ writes: [take(3), block, take(9)] })
          const { buffer, bytes } = resizable()
          const cursor = Buffers.cursor([bytes, text("behind")])
          const fiber = yield* start(Write.writeAll(socket, cursor))
          change(buffer)
          yield* writable
          assert.instanceOf(defect(yield* Fiber.await(fiber)), TypeError)
          assert.strictEqual(cursor.transferred, 3)
          assert.deepStrictEqual(
            failure(yield* Effect.exit(socket.writeSome(text("x")))).reason,
            Reason.Torn({ transferred: 3, total: 14 })
          )
          assertBytes(yield* written, "ori")
        }))

      it.effect(`${name} source in line: a defect when its turn comes, and the line moves on`, () =>
        Effect.gen(function*() {
          const { socket, writable, written } = yield* ScriptedStream.make({
            writes: [block, take(9), take(9), take(9)]
          })
          const { buffer, bytes } = resizable()
          const first = yield* start(Write.writeAll(socket, text("a")))
          const second = yield* start(Write.writeAll(socket, bytes))
          const third = yield* start(Write.writeAll(socket, text("c")))
          change(buffer)
          yield* writable
          assert.instanceOf(defect(yield* Fiber.await(second)), TypeError)
          assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(third)], [1, 1])
          assertBytes(yield* written, "ac")
        }))

      it.effect(`${name} target: a defect, and the next read gets the bytes`, () =>
        Effect.gen(function*() {
          for (
            const read of [
              (socket: StreamSocket, bytes: Uint8Array) => socket.readSome(bytes),
              (socket: StreamSocket, bytes: Uint8Array) => Read.readExactly(socket, bytes),
              (socket: StreamSocket, bytes: Uint8Array) => Read.readAtLeast(socket, bytes, 1)
            ]
          ) {
            const { readable, socket } = yield* ScriptedStream.make({ reads: [block, data("abcdefgh"), end] })
            const { buffer, bytes } = resizable()
            const fiber = yield* start(read(socket, bytes))
            const behind = yield* start(Read.readAll(socket))
            change(buffer)
            yield* readable
            const error = defect(yield* Fiber.await(fiber))
            assert.instanceOf(error, TypeError)
            assert.match(error.message, /8 bytes was detached or resized/)
            assertBytes(yield* Fiber.join(behind), "abcdefgh")
          }
        }))

      it.effect(`${name} target midway: a defect, and nothing is lost`, () =>
        Effect.gen(function*() {
          const { readable, socket } = yield* ScriptedStream.make({ reads: [data("abc"), block, data("defgh"), end] })
          const { buffer, bytes } = resizable()
          const fiber = yield* start(Read.readExactly(socket, bytes))
          change(buffer)
          yield* readable
          assert.instanceOf(defect(yield* Fiber.await(fiber)), TypeError)
          assertBytes(yield* Read.readAll(socket), "abcdefgh")
        }))
    }

    it.effect("an interrupted write that goes on under total ends when its memory is gone", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* ScriptedStream.make({ writes: [take(3), block, take(9)] })
        const { buffer, bytes } = resizable()
        const fiber = yield* start(Cancellation.total(Write.writeAll(socket, bytes)))
        yield* start(Fiber.interrupt(fiber))
        buffer.transfer()
        yield* writable
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 3, total: 8, guarantee: "terminal" })
        assert.instanceOf(defect(exit), TypeError)
        assert.strictEqual(socket.state.write, "torn")
      }))

    it.effect("the same memory may be written and read into at the same time", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const shared = pattern(1000)
        yield* Write.writeAll(left, [shared, shared])
        yield* Write.writeAll(right, new Uint8Array(1000).fill(7))
        yield* Read.readExactly(left, shared)
        const got = new Uint8Array(2000)
        yield* Read.readExactly(right, got)
        assertBytes(got, Buffer.concat([pattern(1000), pattern(1000)]))
        assertBytes(shared, new Uint8Array(1000).fill(7))
      }))
  })

  describe("sizes", () => {
    it.effect("lists of nothing, however long, write nothing", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        const empties = Array.from({ length: 10_000 }, () => new Uint8Array(0))
        for (const source of [[], empties]) {
          assert.strictEqual(yield* socket.writeSome(source), 0)
          assert.strictEqual(yield* Write.writeAll(socket, source), 0)
        }
      }))

    it.effect("10,000 empty buffers around three bytes do not get in the way", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({ writes: [take(2), take(2)] })
        const list: Array<Buffers.View> = Array.from({ length: 10_000 }, () => new DataView(new ArrayBuffer(0)))
        list[0] = text("a")
        list[5000] = text("b")
        list[9999] = text("c")
        assert.strictEqual(yield* Write.writeAll(socket, list), 3)
        assertBytes(yield* written, "abc")
      }))

    it.effect("100,000 views of one byte each arrive in order", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 4096 })
        const all = pattern(100_000)
        const writer = yield* start(Write.writeAll(left, Array.from(all, (_, i) => all.subarray(i, i + 1))))
        const got = new Uint8Array(all.byteLength)
        yield* Read.readExactly(right, got)
        assert.strictEqual(yield* Fiber.join(writer), 100_000)
        assertBytes(got, all)
      }))

    it.effect("2 GiB in one gather list go through, counted to the byte", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 4 * 1024 * 1024 })
        const view = pattern(65_536)
        const list = Array.from({ length: 32_768 }, () => view)
        const writer = yield* start(Write.writeAll(left, list))
        const target = new Uint8Array(4 * 1024 * 1024)
        let got = 0
        while (got < 2_147_483_648) {
          const count = yield* right.readSome(target)
          // One look into every piece: a shift by one byte would show.
          assert.strictEqual(target[0], view[got % 65_536])
          got += count
        }
        assert.strictEqual(yield* Fiber.join(writer), 2_147_483_648)
        assert.strictEqual(right.bytesRead, 2_147_483_648)
      }))

    it.effect("more than 4 GiB start, stop and say how far", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 100_000 })
        const view = pattern(65_536)
        const cursor = Buffers.cursor(Array.from({ length: 65_537 }, () => view))
        const fiber = yield* start(Cancellation.partial(Write.writeAll(left, cursor)))
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 100_000, total: 4_295_032_832, guarantee: "partial" })
        assert.strictEqual(cursor.remaining, 4_295_032_832 - 100_000)
        const got = new Uint8Array(100_000)
        yield* Read.readExactly(right, got)
        assertBytes(got.subarray(65_536), view.subarray(0, 34_464))
      }))

    it.effect("huge limits cost nothing by themselves", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("a\nbc"), end] })
        const max = Number.MAX_SAFE_INTEGER
        assertBytes(yield* Read.readUntil(socket, "\n", { max }), "a\n")
        assert.strictEqual(
          failure(yield* Effect.exit(Read.readUntil(socket, /x/, { max }))).reason._tag,
          "UnexpectedEof"
        )
        assertBytes(yield* Read.readAll(socket, { max }), "bc")
      }))

    it.effect("10,000 operations in line end in order when the stream closes, and when they are interrupted", () =>
      Effect.gen(function*() {
        const [left] = yield* MemoryTransport.clogged()
        const ended: Array<number> = []
        const numbers = Array.from({ length: 10_000 }, (_, i) => i)
        const writers = yield* Effect.forEach(
          numbers,
          (i) => start(Effect.onExit(left.writeSome(text("x")), () => Effect.sync(() => void ended.push(i))))
        )
        const readers = yield* Effect.forEach(numbers, () => start(left.readSome(new Uint8Array(1))))
        yield* Fiber.interruptAll(writers.slice(0, 5000).toReversed())
        yield* Fiber.interruptAll(readers.filter((_, i) => i % 2 === 0))
        assert.strictEqual(left.bytesWritten, 0)
        yield* left.abort
        const endings = new Set((yield* Fiber.awaitAll(writers.slice(5000))).map(ending))
        assert.deepStrictEqual([...endings], ["Closed"])
        assert.deepStrictEqual(ended.slice(5000), numbers.slice(5000))
      }))
  })

  describe("callbacks that call back", () => {
    it.effect("a condition that starts another write does not get it in between", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({ writes: [take(2), take(9), take(9)] })
        let other: Fiber.Fiber<number, unknown> | undefined
        yield* Write.writeAll(socket, text("hello"), (transferred) => {
          if (transferred > 0) other ??= Effect.runFork(socket.writeSome(text("!")))
          return Infinity
        })
        assert.isDefined(other)
        if (other !== undefined) yield* Fiber.join(other)
        assertBytes(yield* written, "hello!")
      }))

    it.effect("a condition that causes an event is not asked again because of it", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* ScriptedStream.make({ writes: [take(2), take(2), take(9)] })
        const asked: Array<number> = []
        yield* Write.writeAll(socket, text("hello"), (transferred) => {
          asked.push(transferred)
          Effect.runFork(writable)
          return Infinity
        })
        assert.deepStrictEqual(asked, [0, 2, 4])
        assertBytes(yield* written, "hello")
      }))

    it.effect("a condition that closes the stream ends its own write with Closed and takes nothing more", () =>
      Effect.gen(function*() {
        for (const waits of [false, true]) {
          const { socket, writable, written } = yield* ScriptedStream.make({
            writes: waits ? [block, take(2)] : [take(2)]
          })
          const fiber = yield* start(Write.writeAll(socket, text("hello"), (transferred) => {
            if (transferred > 0) Effect.runFork(socket.abort)
            return Infinity
          }))
          yield* writable
          const exit = yield* Fiber.await(fiber)
          assert.deepStrictEqual([ending(exit), failure(exit).transferred], ["Closed", 2])
          assertBytes(yield* written, "he")
        }
      }))

    it.effect("a match function that starts another read does not get its bytes", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one\ntwo\n"), end] })
        let other: Fiber.Fiber<Uint8Array, unknown> | undefined
        const line = yield* Read.readUntil(socket, (bytes) => {
          other ??= Effect.runFork(Read.readUntil(socket, "\n"))
          const index = bytes.indexOf(10)
          return index === -1 ? undefined : index + 1
        })
        assertBytes(line, "one\n")
        assert.isDefined(other)
        if (other !== undefined) assertBytes(yield* Fiber.join(other), "two\n")
      }))

    it.effect("a match function that closes the stream ends its own read with Closed", () =>
      Effect.gen(function*() {
        for (const waits of [false, true]) {
          const { readable, socket } = yield* ScriptedStream.make({
            reads: waits ? [block, data("one\n")] : [data("one\n")]
          })
          const fiber = yield* start(Read.readUntil(socket, () => {
            Effect.runFork(socket.abort)
            return undefined
          }))
          yield* readable
          assert.strictEqual(ending(yield* Fiber.await(fiber)), "Closed")
        }
      }))
  })
})

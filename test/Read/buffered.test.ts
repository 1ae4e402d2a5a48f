/** The read buffer as its users see it: what waits, what is put back, what goes around it, and numbers. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import { Socket } from "../../src/internal/core/Socket.ts"
import * as Read from "../../src/Read.ts"
import { Reason, type SocketError } from "../../src/SocketError.ts"
import { make, type ReadStream, type StreamSocket } from "../../src/StreamSocket.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { WouldBlock } from "../../src/Transport.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, data, end, fail } = ScriptedStream

const script = (...reads: ReadonlyArray<ScriptedStream.ReadStep>) => ScriptedStream.make({ reads })

const of = (...bytes: ReadonlyArray<number>): Uint8Array => Uint8Array.from(bytes)

/** A target that is filled past the read buffer. */
const large = 20_000

/** A socket, and the same without anything but its `readSome`. */
const kinds: ReadonlyArray<readonly [string, (socket: StreamSocket) => ReadStream]> = [
  ["a socket", (socket) => socket],
  ["a plain stream", ({ readSome }) => ({ readSome })]
]

/** The memory that the read buffer of a socket holds. */
const held = (socket: StreamSocket): number =>
  socket instanceof Socket ? socket.readHalf.readBuffer().bytes().buffer.byteLength : assert.fail("not our own socket")

const detach = (bytes: Uint8Array): void => {
  structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] })
}

describe("buffered reading", () => {
  for (const [kind, streamOf] of kinds) {
    describe(kind, () => {
      const waiting: ReadonlyArray<readonly [string, (stream: ReadStream) => Effect.Effect<unknown, unknown>]> = [
        ["readUntil a string", Read.readUntil("\r\n")],
        ["readUntil a byte", Read.readUntil(10)],
        ["readUntil a regular expression", Read.readUntil(/\r\n|a{300}/)],
        ["readUntil an expression with assertions", Read.readUntil(/\n$/)],
        ["readUntil a function", Read.readUntil(() => undefined)],
        ["readLine", Read.readLine()],
        ["readExactly", (stream) => Read.readExactly(stream, new Uint8Array(300))],
        ["readExactly into much memory", (stream) => Read.readExactly(stream, new Uint8Array(large))],
        ["readAtLeast into much memory", (stream) => Read.readAtLeast(stream, new Uint8Array(large), 300)],
        ["readAll", Read.readAll()],
        ["peek", Read.peek(300)],
        ["discard", Read.discard(300)]
      ]
      for (const [name, read] of waiting) {
        it.effect(`${name}: a hundred in a row that are interrupted lose nothing`, () =>
          Effect.gen(function*() {
            const wire = Uint8Array.from({ length: 100 }, (_, i) => 100 + i)
            const { readable, socket } = yield* script(...[...wire].flatMap((byte) => [data(of(byte)), block]), end)
            const stream = streamOf(socket)
            for (let i = 0; i < 100; i++) {
              const fiber = yield* start(read(stream))
              yield* Effect.yieldNow
              yield* Fiber.interrupt(fiber)
              assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt", `round ${i}`)
              yield* readable
            }
            assertBytes(yield* Read.readAll(stream), wire)
          }))
      }

      it.effect("a hundred interruptions of every kind of read in turn lose nothing", () =>
        Effect.gen(function*() {
          const wire = Uint8Array.from({ length: 100 }, (_, i) => 100 + i)
          const { readable, socket } = yield* script(...[...wire].flatMap((byte) => [data(of(byte)), block]), end)
          const stream = streamOf(socket)
          for (let i = 0; i < 100; i++) {
            const fiber = yield* start(waiting[i % waiting.length]![1](stream))
            yield* Effect.yieldNow
            yield* Fiber.interrupt(fiber)
            yield* readable
          }
          assertBytes(yield* Read.readAll(stream), wire)
        }))

      describe("readLine", () => {
        it.effect("gives the text in front of LF and CRLF", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(
              data("one\ntwo\r"),
              data("\n\n\r\nth\rree\r\r\n\u00e9"),
              data("\u{1f600}\n"),
              end
            )
            const stream = streamOf(socket)
            const lines: Array<string> = []
            for (let i = 0; i < 6; i++) lines.push(yield* Read.readLine(stream))
            assert.deepStrictEqual(lines, ["one", "two", "", "", "th\rree\r", "\u00e9\u{1f600}"])
            assert.strictEqual(ending(yield* Effect.exit(Read.readLine()(stream))), "Done")
          }))

        it.effect("max counts what ends the line, and a line without an end stays unread", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data("abc\r\nde"), end)
            const stream = streamOf(socket)
            const over = failure(yield* Effect.exit(Read.readLine(stream, { max: 4 })))
            assert.deepStrictEqual([over.reason._tag, over.operation], ["LimitExceeded", "readLine"])
            assert.strictEqual(yield* Read.readLine(stream, { max: 5 }), "abc")
            assert.strictEqual(ending(yield* Effect.exit(Read.readLine(stream))), "UnexpectedEof")
            assertBytes(yield* Read.readAll(stream), "de")
          }))
      })

      describe("peek and discard", () => {
        it.effect("peek waits, consumes nothing and gives memory of the caller's own", () =>
          Effect.gen(function*() {
            const { readable, socket } = yield* script(data("ab"), block, data("cd"), end)
            const stream = streamOf(socket)
            const fiber = yield* start(Read.peek(stream, 3))
            yield* readable
            const seen = yield* Fiber.join(fiber)
            assertBytes(seen, "abc")
            seen.fill(0)
            assertBytes(yield* Read.peek(4)(stream), "abcd")
            assert.strictEqual((yield* Read.peek(stream, 0)).byteLength, 0)
            assertBytes(yield* Read.readAll(stream), "abcd")
          }))

        it.effect("discard consumes exactly its count, in as many arrivals as it takes", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data("abc"), data("d"), data("efgh"), end)
            const stream = streamOf(socket)
            assert.strictEqual(yield* Read.discard(stream, 5), 5)
            assert.strictEqual(yield* Read.discard(0)(stream), 0)
            assertBytes(yield* Read.readAll(stream), "fgh")
          }))

        it.effect("end of stream midway tells how many and consumes none of them", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data("ab"), end)
            const stream = streamOf(socket)
            for (const [name, read] of [["peek", Read.peek(5)], ["discard", Read.discard(5)]] as const) {
              const error = failure(yield* Effect.exit<unknown, unknown, never>(read(stream)))
              assert.deepStrictEqual(
                [error.reason._tag, error.operation, error.transferred, error.total],
                ["UnexpectedEof", name, 2, 5]
              )
            }
            assert.strictEqual(yield* Read.discard(stream, 2), 2)
            assert.strictEqual(ending(yield* Effect.exit(Read.discard(stream, 1))), "Done")
            assert.strictEqual(ending(yield* Effect.exit(Read.peek(stream, 1))), "Done")
            assert.strictEqual((yield* Read.peek(stream, 0)).byteLength, 0)
          }))

        it.effect("more than max is LimitExceeded at once, without reading", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data("abcd"), end)
            const stream = streamOf(socket)
            const reads: ReadonlyArray<readonly [number, Effect.Effect<unknown, unknown>]> = [
              [65_536, Read.peek(stream, 65_537)],
              [3, Read.peek(stream, 4, { max: 3 })],
              [16 * 1024 * 1024, Read.discard(stream, 16 * 1024 * 1024 + 1)],
              [0, Read.discard(stream, 1, { max: 0 })],
              [65_536, Read.peek(stream, Number.MAX_SAFE_INTEGER)]
            ]
            for (const [limit, read] of reads) {
              const { reason } = failure(yield* Effect.exit(read))
              assert.strictEqual(reason._tag === "LimitExceeded" ? reason.limit : reason._tag, limit)
            }
            assert.strictEqual(socket.bytesRead, 0)
            assertBytes(yield* Read.peek(stream, 4, { max: 4 }), "abcd")
            assert.strictEqual(yield* Read.discard(stream, 4, { max: 4 }), 4)
          }))

        it.effect("counts that are none are defects", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(end)
            for (const count of [-1, 0.5, NaN, Infinity]) {
              for (const read of [Read.peek(streamOf(socket), count), Read.discard(streamOf(socket), count)]) {
                assert.instanceOf(defect(yield* Effect.exit<unknown, unknown, never>(read)), RangeError)
              }
            }
          }))
      })

      describe("numbers", () => {
        type Numeric = (stream: ReadStream) => Pull.Pull<number | bigint, SocketError>
        const values: ReadonlyArray<readonly [string, Numeric, Uint8Array, number | bigint]> = [
          ["readUint(1)", Read.readUint(1), of(0xff), 255],
          ["readUint(2)", Read.readUint(2), of(0x01, 0x02), 0x0102],
          ["readUint(2), little", Read.readUint(2, "little"), of(0x01, 0x02), 0x0201],
          ["readUint(2), at most", Read.readUint(2), of(0xff, 0xff), 65_535],
          ["readUint(3)", Read.readUint(3), of(1, 2, 3), 0x010203],
          ["readUint(3), little", Read.readUint(3, "little"), of(1, 2, 3), 0x030201],
          ["readUint(4), beyond 31 bits", Read.readUint(4), of(0x80, 0, 0, 1), 0x8000_0001],
          ["readUint(4), little, at most", Read.readUint(4, "little"), of(255, 255, 255, 255), 4_294_967_295],
          ["readUint(5)", Read.readUint(5), of(1, 2, 3, 4, 5), 0x01_0203_0405],
          ["readUint(6), at most", Read.readUint(6), of(255, 255, 255, 255, 255, 255), 2 ** 48 - 1],
          ["readUint(6), little", Read.readUint(6, "little"), of(6, 5, 4, 3, 2, 1), 0x0102_0304_0506],
          ["readUint(6), 0", Read.readUint(6), of(0, 0, 0, 0, 0, 0), 0],
          ["readInt(1), -1", Read.readInt(1), of(0xff), -1],
          ["readInt(1), at least", Read.readInt(1), of(0x80), -128],
          ["readInt(1), at most", Read.readInt(1), of(0x7f), 127],
          ["readInt(2), at least", Read.readInt(2), of(0x80, 0), -32_768],
          ["readInt(2), little", Read.readInt(2, "little"), of(0xfe, 0xff), -2],
          ["readInt(3), at most", Read.readInt(3), of(0x7f, 0xff, 0xff), 8_388_607],
          ["readInt(4), at least", Read.readInt(4), of(0x80, 0, 0, 0), -(2 ** 31)],
          ["readInt(4), little, at most", Read.readInt(4, "little"), of(255, 255, 255, 0x7f), 2 ** 31 - 1],
          ["readInt(5), -1", Read.readInt(5), of(255, 255, 255, 255, 255), -1],
          ["readInt(6), at least", Read.readInt(6), of(0x80, 0, 0, 0, 0, 0), -(2 ** 47)],
          ["readInt(6), little, at most", Read.readInt(6, "little"), of(255, 255, 255, 255, 255, 0x7f), 2 ** 47 - 1],
          ["readBigUint64()", Read.readBigUint64(), of(1, 2, 3, 4, 5, 6, 7, 8), 0x0102_0304_0506_0708n],
          ["readBigUint64, little", Read.readBigUint64("little"), of(8, 7, 6, 5, 4, 3, 2, 1), 0x0102_0304_0506_0708n],
          ["readBigUint64, at most", Read.readBigUint64(), new Uint8Array(8).fill(255), 2n ** 64n - 1n],
          ["readBigInt64, -1", Read.readBigInt64(), new Uint8Array(8).fill(255), -1n],
          ["readBigInt64, at least", Read.readBigInt64(), of(0x80, 0, 0, 0, 0, 0, 0, 0), -(2n ** 63n)],
          [
            "readBigInt64, little, at most",
            Read.readBigInt64("little"),
            of(255, 255, 255, 255, 255, 255, 255, 127),
            2n ** 63n - 1n
          ],
          ["readVarint, 0", Read.readVarint, of(0), 0],
          ["readVarint, one byte", Read.readVarint, of(0x7f), 127],
          ["readVarint, two bytes", Read.readVarint, of(0x80, 0x01), 128],
          ["readVarint, as in the documents of Protocol Buffers", Read.readVarint, of(0x96, 0x01), 150],
          ["readVarint, longer than need be", Read.readVarint, of(0x80, 0x80, 0x00), 0],
          [
            "readVarint, at most",
            Read.readVarint,
            of(255, 255, 255, 255, 255, 255, 255, 0x0f),
            Number.MAX_SAFE_INTEGER
          ],
          ["readBigVarint, 2^53", Read.readBigVarint, of(128, 128, 128, 128, 128, 128, 128, 0x10), 2n ** 53n],
          [
            "readBigVarint, at most",
            Read.readBigVarint,
            of(255, 255, 255, 255, 255, 255, 255, 255, 255, 1),
            2n ** 64n - 1n
          ]
        ]
        for (const [name, read, wire, expected] of values) {
          it.effect(`${name}: whole, byte by byte, and cut by the end of the stream`, () =>
            Effect.gen(function*() {
              const whole = yield* script(data(Buffers.concat([wire, of(77)])), end)
              const stream = streamOf(whole.socket)
              assert.strictEqual(yield* read(stream), expected)
              assertBytes(yield* Read.readAll(stream), of(77))

              const slow = yield* script(...[...wire].flatMap((byte) => [block, data(of(byte))]), data("x"), end)
              const slowly = streamOf(slow.socket)
              // The first fiber is interrupted at every byte but the last.
              for (let i = 0; i < wire.byteLength; i++) {
                const fiber = yield* start(read(slowly))
                yield* slow.readable
                if (i < wire.byteLength - 1) yield* Fiber.interrupt(fiber)
                else assert.strictEqual(yield* Fiber.join(fiber), expected)
              }
              assertBytes(yield* Read.readAll(slowly), "x")

              for (let length = 0; length < wire.byteLength; length++) {
                const cut = yield* script(...(length === 0 ? [] : [data(wire.subarray(0, length))]), end)
                const shortened = streamOf(cut.socket)
                const exit = yield* Effect.exit(read(shortened))
                if (length === 0) assert.strictEqual(ending(exit), "Done")
                else {
                  const error = failure(exit)
                  assert.deepStrictEqual([error.reason._tag, error.transferred], ["UnexpectedEof", length])
                }
                assertBytes(yield* Read.readAll(shortened), wire.subarray(0, length))
              }
            }))
        }

        it.effect("data-first as well", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data(of(1, 0, 1, 0, 255, 255, ...new Uint8Array(15), 1)), end)
            const stream = streamOf(socket)
            assert.strictEqual(yield* Read.readUint(stream, 2), 256)
            assert.strictEqual(yield* Read.readUint(stream, 2, "little"), 1)
            assert.strictEqual(yield* Read.readInt(stream, 2, "little"), -1)
            assert.strictEqual(yield* Read.readBigUint64(stream, "little"), 0n)
            assert.strictEqual(yield* Read.readBigInt64(stream), 1n)
          }))

        it.effect("other widths are defects and consume nothing", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data("abcdefgh"), end)
            const stream = streamOf(socket)
            for (const width of [0, 7, 8, -1, 1.5, NaN, Infinity]) {
              for (const read of [Read.readUint(width), Read.readInt(width)]) {
                assert.instanceOf(defect(yield* Effect.exit(read(stream))), RangeError, String(width))
              }
            }
            assertBytes(yield* Read.readAll(stream), "abcdefgh")
          }))

        const hostile: ReadonlyArray<readonly [string, Numeric, Uint8Array]> = [
          ["2^53", Read.readVarint, of(128, 128, 128, 128, 128, 128, 128, 0x10)],
          ["2^64 - 1 where 53 bits are allowed", Read.readVarint, of(255, 255, 255, 255, 255, 255, 255, 255, 255, 1)],
          ["a varint that goes on and on", Read.readVarint, new Uint8Array(100).fill(0x80)],
          ["zeros that go on past 53 bits", Read.readVarint, of(...new Uint8Array(8).fill(0x80), 0)],
          ["2^64", Read.readBigVarint, of(...new Uint8Array(9).fill(0x80), 2)],
          ["a big varint that goes on and on", Read.readBigVarint, new Uint8Array(100).fill(0xff)]
        ]
        for (const [name, read, wire] of hostile) {
          it.effect(`${name} is Framing with its position, as often as asked, and nothing is consumed`, () =>
            Effect.gen(function*() {
              const { socket } = yield* script(data(of(5, 0xac, 0x02)), data(wire), end)
              const stream = streamOf(socket)
              assert.strictEqual(Number(yield* read(stream)), 5)
              assert.strictEqual(Number(yield* read(stream)), 300)
              for (let i = 0; i < 2; i++) {
                const { reason } = failure(yield* Effect.exit(read(stream)))
                assert.strictEqual(reason._tag === "Framing" ? reason.position : reason._tag, 3)
              }
              assertBytes(yield* Read.readAll(stream), wire)
            }))
        }

        it.effect("a varint that is too large fails as soon as that is certain, without another read", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data(new Uint8Array(8).fill(0xff)))
            assert.strictEqual(ending(yield* Effect.exit(Read.readVarint(streamOf(socket)))), "Framing")
          }))

        it.effect("readBigVarint reads what readVarint refused", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data(of(...new Uint8Array(9).fill(0xff), 1)), end)
            const stream = streamOf(socket)
            assert.strictEqual(ending(yield* Effect.exit(Read.readVarint(stream))), "Framing")
            assert.strictEqual(yield* Read.readBigVarint(stream), 2n ** 64n - 1n)
          }))
      })

      describe("unread", () => {
        it.effect("the last bytes that were put back come first, and they are copied", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data("end"), end)
            const stream = streamOf(socket)
            const bytes = Uint8Array.from(Buffers.utf8("two "))
            yield* Read.unread(stream, bytes)
            bytes.fill(0)
            yield* Read.unread(Buffers.utf8("one "))(stream)
            yield* Read.unread(stream, new Uint8Array(0))
            assertBytes(yield* Read.readAll(stream), "one two end")
          }))

        it.effect("what was read can be put back as often as one likes", () =>
          Effect.gen(function*() {
            const wire = pattern(5000)
            const { socket } = yield* script(data(wire), end)
            const stream = streamOf(socket)
            for (let size = 1; size < 5000; size += 700) {
              const target = new Uint8Array(size)
              yield* Read.readExactly(stream, target)
              yield* Read.unread(stream, target)
            }
            assertBytes(yield* Read.readAll(stream), wire)
          }))

        it.effect("comes before the end of the stream", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(end)
            const stream = streamOf(socket)
            assert.strictEqual(ending(yield* Effect.exit(Read.readLine(stream))), "Done")
            yield* Read.unread(stream, Buffers.utf8("a\nb"))
            assert.strictEqual(yield* Read.readLine(stream), "a")
            assert.strictEqual(ending(yield* Effect.exit(Read.readLine(stream))), "UnexpectedEof")
            assertBytes(yield* Read.readAll(stream), "b")
            assert.strictEqual(ending(yield* Effect.exit(Read.readLine(stream))), "Done")
          }))

        it.effect("what is no memory is a defect", () =>
          Effect.gen(function*() {
            const { socket } = yield* script(end)
            const gone = new Uint8Array(3)
            detach(gone)
            for (const bytes of [gone, "text" as unknown as Uint8Array, undefined as unknown as Uint8Array]) {
              assert.instanceOf(defect(yield* Effect.exit(Read.unread(streamOf(socket), bytes))), TypeError)
            }
          }))
      })
    })
  }

  describe("unread while somebody waits", () => {
    const delimiters: ReadonlyArray<readonly [string, Read.Delimiter]> = [
      ["a string", "\r\n"],
      ["a regular expression", /\r\n/],
      ["an expression that is looked for from the front", /(?<!x)\r\n/],
      ["a function", (bytes, scanned) => {
        const at = Buffer.from(bytes).indexOf("\r\n", Math.max(0, scanned - 1))
        return at === -1 ? undefined : at + 2
      }]
    ]
    for (const [name, delimiter] of delimiters) {
      it.effect(`readUntil ${name} looks at everything again`, () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("\nlong ago\r"), block)
          const fiber = yield* start(Read.readUntil(socket, delimiter))
          yield* Effect.yieldNow
          // The match lies across what was put back and what was there.
          yield* Read.unread(socket, Buffers.utf8("front\r"))
          assertBytes(yield* Fiber.join(fiber), "front\r\n")
          assertBytes(yield* Read.peek(socket, 9), "long ago\r")
        }))
    }

    it.effect("wakes a readSome", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(block)
        const target = new Uint8Array(9)
        const fiber = yield* start(socket.readSome(target))
        yield* Read.unread(socket, Buffers.utf8("abc"))
        assert.strictEqual(yield* Fiber.join(fiber), 3)
        assertBytes(target.subarray(0, 3), "abc")
      }))

    it.effect("a large readExactly that has placed bytes gets them in order", () =>
      Effect.gen(function*() {
        const wire = pattern(large)
        const { readable, socket } = yield* script(
          data(wire.subarray(5, 7000)),
          block,
          data(wire.subarray(7000)),
          data("x"),
          end
        )
        const target = new Uint8Array(large)
        const fiber = yield* start(Read.readExactly(socket, target))
        yield* Read.unread(socket, wire.subarray(2, 5))
        yield* Read.unread(socket, wire.subarray(0, 2))
        assert.isUndefined(fiber.pollUnsafe())
        yield* readable
        assert.strictEqual(yield* Fiber.join(fiber), large)
        assertBytes(target, wire)
        assertBytes(yield* Read.readAll(socket), "x")
      }))

    it.effect("more than a large target holds completes it, and the rest stays unread", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(data("placed"), block, end)
        const target = new Uint8Array(large)
        const fiber = yield* start(Read.readExactly(socket, target))
        const front = pattern(large + 3)
        yield* Read.unread(socket, front)
        assert.strictEqual(yield* Fiber.join(fiber), large)
        assertBytes(target, front.subarray(0, large))
        yield* readable
        assertBytes(yield* Read.readAll(socket), Buffers.concat([front.subarray(large), Buffers.utf8("placed")]))
      }))

    it.effect("exactly what a large target still lacks completes it", () =>
      Effect.gen(function*() {
        const wire = pattern(large)
        const { socket } = yield* script(data(wire.subarray(100)), block)
        const target = new Uint8Array(large)
        const fiber = yield* start(Read.readExactly(socket, target))
        yield* Read.unread(socket, wire.subarray(0, 100))
        assert.strictEqual(yield* Fiber.join(fiber), large)
        assertBytes(target, wire)
        assert.strictEqual(held(socket), 0)
      }))

    it.effect("a large readAtLeast counts what was put back", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("def"), block)
        const target = new Uint8Array(large)
        const fiber = yield* start(Read.readAtLeast(socket, target, 6))
        yield* Read.unread(socket, Buffers.utf8("abc"))
        assert.strictEqual(yield* Fiber.join(fiber), 6)
        assertBytes(target.subarray(0, 6), "abcdef")
      }))

    it.effect("the one in front gets it, not those behind", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(block)
        const first = yield* start(Read.readLine(socket))
        const second = yield* start(Read.readLine(socket))
        yield* Read.unread(socket, Buffers.utf8("a\n"))
        assert.strictEqual(yield* Fiber.join(first), "a")
        assert.isUndefined(second.pollUnsafe())
        yield* Read.unread(socket, Buffers.utf8("b\n"))
        assert.strictEqual(yield* Fiber.join(second), "b")
      }))

    it.effect("on a closed socket it is Closed", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("abc"))
        yield* Read.peek(socket, 3)
        yield* socket.close
        const error = failure(yield* Effect.exit(Read.unread(socket, of(1))))
        assert.deepStrictEqual([error.reason._tag, error.operation], ["Closed", "unread"])
      }))
  })

  describe("much memory at once", () => {
    /** A socket whose backing fills each target it is given with the next of `wire`, at most `sizes` at a time. */
    const direct = (wire: Uint8Array, sizes: Array<number>) => {
      const backing = new FakeBacking()
      const targets: Array<Uint8Array> = []
      let at = 0
      backing.readAnswer = (target) => {
        const size = sizes.shift()
        if (size === undefined) return WouldBlock
        targets.push(target)
        const bytes = wire.subarray(at, at + Math.min(size, target.byteLength))
        target.set(bytes)
        at += bytes.byteLength
        return bytes.byteLength
      }
      return { backing, targets, socket: make(backing) }
    }

    it.effect("bytes go straight into the target", () =>
      Effect.gen(function*() {
        const wire = pattern(large)
        const { socket, targets } = direct(wire, [1000, 7000, large])
        const memory = new ArrayBuffer(large + 20)
        const target = new Uint8Array(memory, 10, large)
        assert.strictEqual(yield* Read.readExactly(socket, target), large)
        assertBytes(target, wire)
        assert.deepStrictEqual(
          targets.map((one) => [one.buffer === memory, one.byteOffset, one.byteLength]),
          [[true, 10, large], [true, 1010, large - 1000], [true, 8010, large - 8000]]
        )
        assert.deepStrictEqual(
          [...new Uint8Array(memory, 0, 10), ...new Uint8Array(memory, large + 10)],
          Array(20).fill(0)
        )
        assert.strictEqual(held(socket), 0)
      }))

    it.effect("behind those that were unread, which come first", () =>
      Effect.gen(function*() {
        const wire = pattern(large + 5)
        wire.set(Buffer.from("line\n"))
        const { socket, targets } = direct(wire, [100, 9000, large])
        assertBytes(yield* Read.readUntil(socket, "\n"), wire.subarray(0, 5))
        const target = new Uint8Array(large)
        assert.strictEqual(yield* Read.readExactly(socket, target), large)
        assertBytes(target, wire.subarray(5))
        assert.deepStrictEqual(targets.slice(1).map((one) => [one.buffer === target.buffer, one.byteOffset]), [
          [true, 95],
          [true, 9095]
        ])
      }))

    it.effect("smaller targets are not touched before the read completes", () =>
      Effect.gen(function*() {
        const { socket, targets } = direct(pattern(16_384), [100])
        const target = new Uint8Array(16_384)
        const fiber = yield* start(Read.readExactly(socket, target))
        assert.isFalse(targets.some((one) => one.buffer === target.buffer))
        assertBytes(target, new Uint8Array(16_384))
        yield* Fiber.interrupt(fiber)
      }))

    it.effect("readAtLeast is content with its minimum and takes what comes with it", () =>
      Effect.gen(function*() {
        const wire = pattern(large)
        const { socket } = direct(wire, [100, 500, large])
        const target = new Uint8Array(large)
        assert.strictEqual(yield* Read.readAtLeast(socket, target, 101), 600)
        assertBytes(target.subarray(0, 600), wire.subarray(0, 600))
        assert.strictEqual(yield* Read.readAtLeast(socket, target, 0), 0)
      }))

    type Cut = (read: Pull.Pull<number, SocketError>) => Effect.Effect<Exit.Exit<number, unknown>>
    const cuts: ReadonlyArray<readonly [string, string, Cut]> = [
      ["an interruption", "Interrupt", (read) =>
        Effect.gen(function*() {
          const fiber = yield* start(read)
          yield* Fiber.interrupt(fiber)
          return yield* Fiber.await(fiber)
        })],
      ["a request", "OperationAborted", (read) =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const fiber = yield* start(Cancellation.withSignal(read, signal))
          const { ended } = yield* signal.emit("total")
          assert.deepStrictEqual(ended.map(({ guarantee, operation }) => [operation, guarantee]), [[
            "readExactly",
            "total"
          ]])
          return yield* Fiber.await(fiber)
        })],
      ["a deadline", "OperationAborted", (read) =>
        Effect.gen(function*() {
          const fiber = yield* start(Cancellation.cancelAfter(read, "1 second", "total"))
          yield* TestClock.adjust("1 second")
          return yield* Fiber.await(fiber)
        })],
      ["a time-out", "TimeoutError", (read) =>
        Effect.gen(function*() {
          const fiber = yield* start(Effect.timeout(read, "1 second"))
          yield* TestClock.adjust("1 second")
          return yield* Fiber.await(fiber)
        })]
    ]
    for (const [name, expected, cut] of cuts) {
      it.effect(`${name} midway puts everything back, in order`, () =>
        Effect.gen(function*() {
          const wire = pattern(large)
          const { readable, socket } = yield* script(
            data(wire.subarray(0, 50)),
            data(wire.subarray(50, 9000)),
            block,
            data(wire.subarray(9000)),
            end
          )
          // Some of it waits in the read buffer, so that the rest is placed behind it.
          yield* Read.peek(socket, 50)
          const exit = yield* cut(Read.readExactly(socket, new Uint8Array(large)))
          assert.include(ending(exit), expected)
          assertBytes(yield* Read.peek(socket, 9000), wire.subarray(0, 9000))
          yield* readable
          assertBytes(yield* Read.readAll(socket), wire)
        }))
    }

    it.effect("the target is the caller's own again after an interruption", () =>
      Effect.gen(function*() {
        const wire = pattern(large)
        const { readable, socket } = yield* script(data(wire.subarray(0, 9000)), block, data(wire.subarray(9000)), end)
        const target = new Uint8Array(large)
        const fiber = yield* start(Read.readExactly(socket, target))
        yield* Fiber.interrupt(fiber)
        target.fill(0xee)
        yield* readable
        assertBytes(yield* Read.readAll(socket), wire)
        assertBytes(target, new Uint8Array(large).fill(0xee))
      }))

    for (const [name, step] of [["UnexpectedEof", end], ["ConnectionReset", fail(Reason.ConnectionReset())]] as const) {
      it.effect(`${name} midway shows what came and keeps it unread`, () =>
        Effect.gen(function*() {
          const wire = pattern(9000)
          const { socket } = yield* script(data(wire.subarray(0, 50)), data(wire.subarray(50)), step)
          yield* Read.peek(socket, 50)
          const target = new Uint8Array(large).fill(0xee)
          const error = failure(yield* Effect.exit(Read.readExactly(socket, target)))
          assert.deepStrictEqual(
            [error.reason._tag, error.operation, error.transferred, error.total],
            [name, "readExactly", 9000, large]
          )
          assertBytes(target.subarray(0, 9000), wire)
          assertBytes(target.subarray(9000), new Uint8Array(large - 9000).fill(0xee))
          const again = new Uint8Array(9000)
          assert.strictEqual(yield* Read.readExactly(socket, again), 9000)
          assertBytes(again, wire)
        }))
    }

    it.effect("end of stream before the first byte is Done and touches nothing", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(end)
        const target = new Uint8Array(large).fill(0xee)
        assert.strictEqual(ending(yield* Effect.exit(Read.readExactly(socket, target))), "Done")
        assertBytes(target, new Uint8Array(large).fill(0xee))
      }))

    it.effect("closing midway is Closed", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("abc"), block)
        const fiber = yield* start(Read.readExactly(socket, new Uint8Array(large)))
        yield* socket.close
        assert.strictEqual(ending(yield* Fiber.await(fiber)), "Closed")
      }))

    it.effect("readers behind it get what is behind it, also when it is interrupted", () =>
      Effect.gen(function*() {
        const wire = pattern(large)
        const { readable, socket } = yield* script(
          data(wire.subarray(0, 9000)),
          block,
          data(Buffers.concat([wire.subarray(9000), Buffers.utf8("a\nb")])),
          end
        )
        const cut = yield* start(Read.readExactly(socket, new Uint8Array(large)))
        const target = new Uint8Array(large)
        const exact = yield* start(Read.readExactly(socket, target))
        const line = yield* start(Read.readLine(socket))
        const all = yield* start(Read.readAll(socket))
        yield* Fiber.interrupt(cut)
        assert.isUndefined(exact.pollUnsafe())
        yield* readable
        assert.strictEqual(yield* Fiber.join(exact), large)
        assertBytes(target, wire)
        assert.strictEqual(yield* Fiber.join(line), "a")
        assertBytes(yield* Fiber.join(all), "b")
      }))

    const losses: ReadonlyArray<readonly [string, (target: Uint8Array) => void]> = [
      ["detached", detach],
      ["resized to less", (target) => (target.buffer as ArrayBuffer).resize(10)],
      ["resized to more", (target) => (target.buffer as ArrayBuffer).resize(large + 10)]
    ]
    const tracking = (): Uint8Array => new Uint8Array(new ArrayBuffer(large, { maxByteLength: 2 * large }))
    for (const [name, lose] of losses) {
      it.effect(`a target that is ${name} with bytes in it is a defect, and later reads fail rather than shift`, () =>
        Effect.gen(function*() {
          const { readable, socket } = yield* script(data("placed"), block)
          const target = tracking()
          const fiber = yield* start(Read.readExactly(socket, target))
          const behind = yield* start(Read.readLine(socket))
          lose(target)
          yield* readable
          assert.instanceOf(defect(yield* Fiber.await(fiber)), TypeError)
          assert.strictEqual(ending(yield* Fiber.await(behind)), "Unknown")
          for (const read of [socket.readSome(new Uint8Array(9)), Read.readAll(socket), Read.readUint(socket, 1)]) {
            assert.strictEqual(ending(yield* Effect.exit<unknown, unknown, never>(read)), "Unknown")
          }
          assert.strictEqual(socket.state.read, "failed")
        }))

      it.effect(`an interruption after the target was ${name} does not hang, and later reads fail`, () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("placed"), block)
          const target = tracking()
          const fiber = yield* start(Read.readExactly(socket, target))
          const behind = yield* start(Read.readLine(socket))
          lose(target)
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
          assert.strictEqual(ending(yield* Fiber.await(behind)), "Unknown")
          assert.strictEqual(ending(yield* Effect.exit(Read.readAll(socket))), "Unknown")
        }))

      it.effect(`a target that is ${name} while nothing was placed costs only its own read`, () =>
        Effect.gen(function*() {
          const { readable, socket } = yield* script(block, data("later"), end)
          const target = tracking()
          const fiber = yield* start(Read.readExactly(socket, target))
          lose(target)
          yield* readable
          assert.instanceOf(defect(yield* Fiber.await(fiber)), TypeError)
          assertBytes(yield* Read.readAll(socket), "later")
        }))
    }

    it.effect("a plain stream puts back what its large read has collected", () =>
      Effect.gen(function*() {
        const wire = pattern(large)
        const { readable, socket } = yield* script(data(wire.subarray(0, 9000)), block, data(wire.subarray(9000)), end)
        const stream: ReadStream = { readSome: socket.readSome }
        const fiber = yield* start(Read.readExactly(stream, new Uint8Array(large)))
        yield* Fiber.interrupt(fiber)
        yield* readable
        const target = new Uint8Array(large)
        assert.strictEqual(yield* Read.readExactly(stream, target), large)
        assertBytes(target, wire)
      }))
  })

  describe("memory", () => {
    it.effect("is let go with the last byte, by every kind of read", () =>
      Effect.gen(function*() {
        const wire = Buffer.alloc(60_000, "x")
        wire[59_999] = 10
        const reads: ReadonlyArray<(socket: StreamSocket) => Effect.Effect<unknown, unknown>> = [
          Read.readUntil("\n"),
          Read.readUntil(/\n/),
          Read.readLine(),
          Read.discard(60_000),
          (socket) => Read.readExactly(socket, new Uint8Array(60_000)),
          (socket) => socket.readSome(new Uint8Array(60_000))
        ]
        const { socket } = yield* script(...reads.map(() => data(wire)), end)
        for (const read of reads) {
          yield* Read.peek(socket, 60_000)
          assert.isAtLeast(held(socket), 60_000)
          yield* read(socket)
          assert.strictEqual(held(socket), 0)
        }
      }))

    it.effect("is not taken by a reader that waits for its first byte", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(block, data("a\n"))
        const fiber = yield* start(Read.readLine(socket))
        assert.strictEqual(held(socket), 0)
        yield* readable
        assert.strictEqual(yield* Fiber.join(fiber), "a")
        assert.strictEqual(held(socket), 0)
      }))

    it.effect("is not taken by limits and counts that nothing has come for", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("ab"), block)
        const counts = { max: Number.MAX_SAFE_INTEGER }
        for (
          const read of [
            Read.discard(socket, 2 ** 40, counts),
            Read.peek(socket, 2 ** 40, counts),
            Read.readUntil(socket, "\n", counts),
            Read.readAll(socket, counts)
          ]
        ) {
          const fiber = yield* start<unknown, unknown, never>(read)
          yield* Fiber.interrupt(fiber)
          assert.isAtMost(held(socket), 65_536)
        }
      }))
  })
})

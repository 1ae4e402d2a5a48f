import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import * as Buffers from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import { Reason } from "../../src/SocketError.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

const { block, data, end, fail } = ScriptedStream

/** An operation that runs the caller's own function makes its first attempt a moment after its start. */
const begun = Effect.yieldNow

const script = (...reads: ReadonlyArray<ScriptedStream.ReadStep>) => ScriptedStream.make({ reads })

/** Everything that is left, as text. The script has to end with `end`. */
const rest = (socket: StreamSocket) => Effect.map(Read.readAll(socket), Buffers.toUtf8)

const indexOf = (bytes: Uint8Array, delimiter: string): number | undefined => {
  const index = Buffer.from(bytes).indexOf(delimiter)
  return index === -1 ? undefined : index + delimiter.length
}

describe("Read", () => {
  describe("readExactly", () => {
    it.effect("collects as many attempts as it takes and leaves later bytes", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("he"), data("l"), data("lo, world"), end)
        const target = new Uint8Array(5)
        assert.strictEqual(yield* Read.readExactly(socket, target), 5)
        assertBytes(target, "hello")
        assert.strictEqual(yield* rest(socket), ", world")
      }))

    it.effect("is data-first and data-last", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("ab"), end)
        const target = new Uint8Array(1)
        yield* Read.readExactly(target)(socket)
        assertBytes(target, "a")
        assert.strictEqual(yield* Read.readAtLeast(target, 1)(socket), 1)
        assertBytes(target, "b")
      }))

    it.effect("does not touch the target before it completes", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(data("he"), block, data("llo"))
        const target = new Uint8Array(5)
        const fiber = yield* start(Read.readExactly(socket, target))
        assertBytes(target, new Uint8Array(5))
        yield* readable
        assert.strictEqual(yield* Fiber.join(fiber), 5)
        assertBytes(target, "hello")
      }))

    it.effect("end of stream before the first byte is Done, as often as asked", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(end)
        for (let i = 0; i < 3; i++) {
          assert.strictEqual(ending(yield* Effect.exit(Read.readExactly(socket, new Uint8Array(2)))), "Done")
        }
        assert.strictEqual(yield* Read.readExactly(socket, new Uint8Array(0)), 0)
      }))

    it.effect("end of stream midway tells how many, shows them, and keeps them unread", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("he"), data("l"), end)
        for (let i = 0; i < 2; i++) {
          const target = new Uint8Array(5)
          const error = failure(yield* Effect.exit(Read.readExactly(socket, target)))
          assert.strictEqual(error.reason._tag, "UnexpectedEof")
          assert.deepStrictEqual([error.operation, error.transferred, error.total], ["readExactly", 3, 5])
          assertBytes(target, Uint8Array.of(...Buffers.utf8("hel"), 0, 0))
        }
        assert.strictEqual(yield* rest(socket), "hel")
        assert.strictEqual(ending(yield* Effect.exit(Read.readExactly(socket, new Uint8Array(1)))), "Done")
      }))

    it.effect("a failure midway tells how many, and they stay unread", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("he"), fail(Reason.ConnectionReset()))
        const error = failure(yield* Effect.exit(Read.readExactly(socket, new Uint8Array(5))))
        assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["ConnectionReset", 2, 5])
        const target = new Uint8Array(2)
        assert.strictEqual(yield* socket.readSome(target), 2)
        assertBytes(target, "he")
      }))

    it.effect("an interruption puts everything back, in order", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(data("he"), data("l"), block, data("lo"), end)
        const target = new Uint8Array(5)
        const fiber = yield* start(Read.readExactly(socket, target))
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
        const two = new Uint8Array(2)
        assert.strictEqual(yield* socket.readSome(two), 2)
        assertBytes(two, "he")
        yield* readable
        assert.strictEqual(yield* rest(socket), "llo")
      }))

    it.effect("readAtLeast takes more if it is there, and waits only for the minimum", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("he"), data("llo, world"), data("!"), end)
        const target = new Uint8Array(8)
        assert.strictEqual(yield* Read.readAtLeast(socket, target, 3), 8)
        assertBytes(target, "hello, w")
        assert.strictEqual(yield* Read.readAtLeast(socket, target, 1), 4)
        assert.strictEqual(yield* Read.readAtLeast(socket, target, 1), 1)
        assert.strictEqual(yield* Read.readAtLeast(socket, target, 0), 0)
      }))

    it.effect("a minimum that cannot be met is a defect", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("x"))
        for (const minimum of [5, -1, 0.5, NaN, Infinity]) {
          const exit = yield* Effect.exit(Read.readAtLeast(socket, new Uint8Array(4), minimum))
          assert.instanceOf(defect(exit), RangeError, String(minimum))
        }
        assert.strictEqual(yield* Read.readAtLeast(socket, new Uint8Array(4), 1), 1)
      }))
  })

  describe("readUntil", () => {
    const delimiters: ReadonlyArray<readonly [string, string, Read.Delimiter]> = [
      ["a string", "\r\n\r\n", "\r\n\r\n"],
      ["bytes", "\r\n\r\n", Buffers.utf8("\r\n\r\n")],
      ["a byte", "\n", 10],
      ["the byte 0", "\0", 0],
      ["a string beyond ASCII", "\u00e9\u{1f600}", "\u00e9\u{1f600}"],
      ["a regular expression", "\r\n\r\n", /\r\n\r\n/],
      ["a sticky global regular expression", "\r\n\r\n", /\r\n\r\n/gy],
      ["a function", "\r\n\r\n", (bytes) => indexOf(bytes, "\r\n\r\n")],
      ["a delimiter that overlaps itself", "abab", "abab"],
      ["a delimiter that begins like the text", "eab", "eab"]
    ]
    for (const [name, delimiter, input] of delimiters) {
      it.effect(`finds ${name} split at every position`, () =>
        Effect.gen(function*() {
          const wire = Buffers.utf8(`head abaeea${delimiter}`)
          const behind = Buffers.utf8("body")
          for (let i = 0; i <= wire.byteLength; i++) {
            const { socket } = yield* script(
              ...[wire.subarray(0, i), wire.subarray(i)].filter((part) => part.byteLength > 0).map(data),
              data(behind),
              end
            )
            assertBytes(yield* Read.readUntil(socket, input), wire)
            assert.strictEqual(yield* rest(socket), "body")
          }
        }))

      it.effect(`finds ${name} byte by byte, with waits and an interruption in between`, () =>
        Effect.gen(function*() {
          const wire = Buffers.utf8(`head abaeea${delimiter}`)
          const { readable, socket } = yield* script(
            ...[...wire].flatMap((byte) => [data(Uint8Array.of(byte)), block]),
            data("body"),
            end
          )
          for (let i = 0; i < wire.byteLength - 1; i++) {
            const fiber = yield* start(Read.readUntil(socket, input))
            yield* begun
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt", `byte ${i}`)
            yield* readable
          }
          assertBytes(yield* Read.readUntil(socket, input), wire)
          yield* readable
          assert.strictEqual(yield* rest(socket), "body")
        }))
    }

    it.effect("leaves later bytes for every other read", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("one\ntwo\nthree+four"), end)
        assertBytes(yield* Read.readUntil(socket, "\n"), "one\n")
        assertBytes(yield* Read.readUntil("\n")(socket), "two\n")
        const two = new Uint8Array(2)
        yield* socket.readSome(two)
        assertBytes(two, "th")
        yield* Read.readExactly(socket, two)
        assertBytes(two, "re")
        assertBytes(yield* Read.readUntil(socket, 0x2b), "e+")
        assert.strictEqual(yield* rest(socket), "four")
      }))

    it.effect("gives memory of the caller's own", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("one\ntwo\n"), end)
        const first = yield* Read.readUntil(socket, "\n")
        const second = yield* Read.readUntil(socket, "\n")
        first.fill(0)
        assertBytes(second, "two\n")
      }))

    it.effect("does not care what becomes of the delimiter's memory", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(data("one"), block, data("\n"))
        const delimiter = Uint8Array.of(10)
        const fiber = yield* start(Read.readUntil(socket, delimiter))
        delimiter.fill(0x78)
        yield* readable
        assertBytes(yield* Fiber.join(fiber), "one\n")
      }))

    it.effect("reads lines to the end of the stream in a forever loop", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("a\nb"), data("\nc\n"), end)
        const lines: Array<string> = []
        yield* Read.readUntil(socket, "\n").pipe(
          Effect.tap((line) => Effect.sync(() => lines.push(Buffers.toUtf8(line)))),
          Effect.forever,
          Pull.catchDone(() => Effect.void)
        )
        assert.deepStrictEqual(lines, ["a\n", "b\n", "c\n"])
      }))

    it.effect("end of stream before a match is UnexpectedEof, and the bytes stay unread", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("no end"), end)
        for (let i = 0; i < 2; i++) {
          const error = failure(yield* Effect.exit(Read.readUntil(socket, "\n")))
          assert.deepStrictEqual([error.reason._tag, error.operation, error.transferred], [
            "UnexpectedEof",
            "readUntil",
            6
          ])
        }
        assert.strictEqual(yield* rest(socket), "no end")
      }))

    describe("max", () => {
      for (const [split, parts] of [["in one piece", [4, 1]], ["byte by byte", [1, 1, 1, 1, 1]]] as const) {
        const steps = (wire: string): Array<ScriptedStream.ReadStep> => {
          let at = 0
          return parts.map((length) => data(wire.slice(at, at += length)))
        }

        it.effect(`${split}: a message of exactly max bytes fits, its delimiter included`, () =>
          Effect.gen(function*() {
            const { socket } = yield* script(...steps("abc\r\n"), end)
            assertBytes(yield* Read.readUntil(socket, "\r\n", { max: 5 }), "abc\r\n")
          }))

        it.effect(`${split}: one byte more than max is LimitExceeded, and nothing is consumed`, () =>
          Effect.gen(function*() {
            const { socket } = yield* script(...steps("abc\r\n"), end)
            for (const max of [4, 1, 0]) {
              const error = failure(yield* Effect.exit(Read.readUntil(socket, "\r\n", { max })))
              assert.strictEqual(error.reason._tag === "LimitExceeded" ? error.reason.limit : error.reason, max)
            }
            assertBytes(yield* Read.readUntil(socket, "\r\n", { max: 6 }), "abc\r\n")
          }))

        it.effect(`${split}: holds for functions and regular expressions too`, () =>
          Effect.gen(function*() {
            const { socket } = yield* script(...steps("abc\r\n"), end)
            for (const delimiter of [/\r\n/, (bytes: Uint8Array) => indexOf(bytes, "\r\n")]) {
              const error = failure(yield* Effect.exit(Read.readUntil(socket, delimiter, { max: 4 })))
              assert.strictEqual(error.reason._tag, "LimitExceeded")
            }
            assertBytes(yield* Read.readUntil(socket, /\r\n/, { max: 5 }), "abc\r\n")
          }))
      }

      it.effect("a match beyond max in bytes that are already there does not count", () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("abcdef\n"), end)
          yield* Effect.exit(Read.readUntil(socket, "#"))
          const seen: Array<number> = []
          const exit = yield* Effect.exit(Read.readUntil(socket, (bytes) => {
            seen.push(bytes.byteLength)
            return indexOf(bytes, "\n")
          }, { max: 6 }))
          assert.strictEqual(failure(exit).reason._tag, "LimitExceeded")
          assert.deepStrictEqual(seen, [6])
          assertBytes(yield* Read.readUntil(socket, "\n", { max: 7 }), "abcdef\n")
        }))

      it.effect("asks the transport for no more than max bytes", () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("abcdefgh"), end)
          yield* Effect.exit(Read.readUntil(socket, "\n", { max: 3 }))
          assert.strictEqual(socket.bytesRead, 3)
          assert.strictEqual(yield* rest(socket), "abcdefgh")
        }))

      it.effect("defaults to 65,536", () =>
        Effect.gen(function*() {
          const fits = Buffer.alloc(65_536, "x")
          fits[65_535] = 10
          const { socket } = yield* script(data(fits), data(Buffer.alloc(65_536, "x")), data("\n"), end)
          assert.strictEqual((yield* Read.readUntil(socket, "\n")).byteLength, 65_536)
          assert.strictEqual(failure(yield* Effect.exit(Read.readUntil(socket, "\n"))).reason._tag, "LimitExceeded")
          assert.strictEqual((yield* Read.readUntil(socket, "\n", { max: 65_537 })).byteLength, 65_537)
        }))

      it.effect("may be huge and costs nothing by itself", () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("a\nb"), end)
          assertBytes(yield* Read.readUntil(socket, "\n", { max: Number.MAX_SAFE_INTEGER }), "a\n")
          assertBytes(yield* Read.readAll(socket, { max: Number.MAX_SAFE_INTEGER }), "b")
        }))
    })

    describe("regular expressions", () => {
      it.effect("an empty match does not count; the first that consumes something does", () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("abc"), data("xx"), data("d"), end)
          assertBytes(yield* Read.readUntil(socket, /x*/), "abcxx")
          assert.strictEqual(yield* rest(socket), "d")
        }))

      it.effect("one that only ever matches nothing runs to the end or to the limit", () =>
        Effect.gen(function*() {
          for (const empty of [/(?:)/, /^/m, /$/, /\b/, /(?=b)/, /q*/u]) {
            const { socket } = yield* script(data("a b"), data("c"), end)
            const limited = yield* Effect.exit(Read.readUntil(socket, empty, { max: 4 }))
            assert.strictEqual(failure(limited).reason._tag, "LimitExceeded", String(empty))
            const ended = yield* Effect.exit(Read.readUntil(socket, empty))
            assert.strictEqual(failure(ended).reason._tag, "UnexpectedEof", String(empty))
          }
        }))

      it.effect("sees each byte as one Latin-1 character", () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data(Uint8Array.of(0xc3, 0xa9, 0xff, 0x00, 0x0a, 0x41)), end)
          assertBytes(yield* Read.readUntil(socket, /\xff[\s\S]\n/), Uint8Array.of(0xc3, 0xa9, 0xff, 0x00, 0x0a))
          assert.strictEqual(yield* rest(socket), "A")
        }))

      it.effect("keeps its flags and its lastIndex", () =>
        Effect.gen(function*() {
          const regexp = /END/gi
          regexp.lastIndex = 40
          const { socket } = yield* script(data("one end"), data("two End"), end)
          assertBytes(yield* Read.readUntil(socket, regexp), "one end")
          assertBytes(yield* Read.readUntil(socket, regexp), "two End")
          assert.strictEqual(regexp.lastIndex, 40)
        }))
    })

    describe("functions", () => {
      it.effect("are asked once for each arrival, with what they have seen already", () =>
        Effect.gen(function*() {
          const asked: Array<readonly [number, number]> = []
          const { readable, socket } = yield* script(data("ab"), block, block, data("c"), data("d"), end)
          const fiber = yield* start(Read.readUntil(socket, (bytes, scanned) => {
            asked.push([bytes.byteLength, scanned])
            return bytes.byteLength === 4 ? 3 : undefined
          }))
          yield* begun
          yield* readable
          yield* readable
          assertBytes(yield* Fiber.join(fiber), "abc")
          assert.deepStrictEqual(asked, [[2, 0], [3, 2], [4, 3]])
          assert.strictEqual(yield* rest(socket), "d")
        }))

      const wrong: ReadonlyArray<readonly [string, Read.Delimiter]> = [
        ["throws", () => {
          throw new RangeError("no opinion")
        }],
        ["answers 0", () => 0],
        ["answers a negative number", () => -1],
        ["answers a fraction", () => 1.5],
        ["answers NaN", () => NaN],
        ["answers more than there is", (bytes) => bytes.byteLength + 1]
      ]
      for (const [name, find] of wrong) {
        it.effect(`one that ${name} is a defect, and the bytes stay unread`, () =>
          Effect.gen(function*() {
            const { socket } = yield* script(data("abc"), end)
            assert.instanceOf(defect(yield* Effect.exit(Read.readUntil(socket, find))), RangeError)
            assert.strictEqual(yield* rest(socket), "abc")
          }))
      }
    })

    it.effect("wrong arguments are defects and consume nothing", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("abc"), end)
        for (const delimiter of ["", new Uint8Array(0), -1, 256, 0.5, NaN]) {
          const exit = yield* Effect.exit(Read.readUntil(socket, delimiter))
          assert.instanceOf(defect(exit), RangeError, String(delimiter))
        }
        for (const max of [-1, 0.5, NaN, Infinity]) {
          assert.instanceOf(defect(yield* Effect.exit(Read.readUntil(socket, "\n", { max }))), RangeError, String(max))
          assert.instanceOf(defect(yield* Effect.exit(Read.readAll(socket, { max }))), RangeError, String(max))
        }
        assert.strictEqual(yield* rest(socket), "abc")
      }))
  })

  describe("readAll", () => {
    it.effect("reads to the end, and nothing after it again and again", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("abc"), data("def"), end)
        assertBytes(yield* Read.readAll(socket), "abcdef")
        assertBytes(yield* Read.readAll()(socket), "")
        assertBytes(yield* Read.readAll({ max: 0 })(socket), "")
      }))

    it.effect("grows over many chunks without losing order", () =>
      Effect.gen(function*() {
        const bytes = pattern(300_000)
        const steps: Array<ScriptedStream.ReadStep> = []
        for (let at = 0, size = 1; at < bytes.byteLength; at += size, size = size * 2 % 65_537) {
          steps.push(data(bytes.subarray(at, at + size)))
        }
        const { socket } = yield* script(...steps, end)
        const all = yield* Read.readAll(socket)
        assertBytes(all, bytes)
        assert.strictEqual(all.byteLength, all.buffer.byteLength)
      }))

    it.effect("max: exactly max bytes fit, one more is LimitExceeded with nothing consumed", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("ab"), data("c"), end)
        for (const max of [2, 1, 0]) {
          const error = failure(yield* Effect.exit(Read.readAll(socket, { max })))
          assert.strictEqual(error.reason._tag === "LimitExceeded" ? error.reason.limit : error.reason, max)
          assert.strictEqual(error.operation, "readAll")
        }
        assertBytes(yield* Read.readAll(socket, { max: 3 }), "abc")
      }))

    it.effect("a failure says how much had come, and it stays unread", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("abc"), fail(Reason.ConnectionReset()), end)
        const error = failure(yield* Effect.exit(Read.readAll(socket)))
        assert.deepStrictEqual([error.reason._tag, error.transferred], ["ConnectionReset", 3])
        assertBytes(yield* Read.readAll(socket), "abc")
      }))

    it.effect("an interruption puts everything back", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(data("abc"), block, data("def"), end)
        const fiber = yield* start(Read.readAll(socket))
        yield* Fiber.interrupt(fiber)
        yield* readable
        assertBytes(yield* Read.readAll(socket), "abcdef")
      }))
  })

  describe("the line", () => {
    it.effect("serves composed and plain reads in the order in which they were started", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(
          block,
          data("on"),
          data("e\ntw"),
          block,
          data("o"),
          data("rest"),
          end
        )
        const line = yield* start(Read.readUntil(socket, "\n"))
        const exact = new Uint8Array(3)
        const three = yield* start(Read.readExactly(socket, exact))
        const all = yield* start(Read.readAll(socket))
        yield* readable
        assertBytes(yield* Fiber.join(line), "one\n")
        assert.isUndefined(three.pollUnsafe())
        yield* readable
        yield* Fiber.join(three)
        assertBytes(exact, "two")
        assertBytes(yield* Fiber.join(all), "rest")
      }))

    it.effect("an interrupted read leaves its bytes to the next in line", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(data("he"), block, data("llo"), end)
        const first = yield* start(Read.readUntil(socket, "\n"))
        const second = yield* start(socket.readSome(new Uint8Array(9)))
        yield* Fiber.interrupt(first)
        assert.strictEqual(yield* Fiber.join(second), 2)
        yield* readable
        assert.strictEqual(yield* rest(socket), "llo")
      }))

    it.effect("one that is interrupted in line consumes nothing", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(block, data("abc"), end)
        const first = yield* start(Read.readExactly(socket, new Uint8Array(1)))
        const second = yield* start(Read.readExactly(socket, new Uint8Array(1)))
        yield* Fiber.interrupt(second)
        yield* readable
        yield* Fiber.join(first)
        assert.strictEqual(yield* rest(socket), "bc")
      }))

    it.effect("closing fails every reader in line and forgets what was put back", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("he"), block)
        const first = yield* start(Read.readUntil(socket, "\n"))
        const second = yield* start(Read.readAll(socket))
        yield* socket.close
        assert.deepStrictEqual([ending(yield* Fiber.await(first)), ending(yield* Fiber.await(second))], [
          "Closed",
          "Closed"
        ])
        assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(9)))), "Closed")
      }))
  })
})

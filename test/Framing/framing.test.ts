import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as SchemaBinary from "effect/encoding/SchemaBinary"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Framing from "../../src/Framing.ts"
import { Socket } from "../../src/internal/core/Socket.ts"
import * as Read from "../../src/Read.ts"
import { Reason } from "../../src/SocketError.ts"
import { make, type ReadStream, type StreamSocket, type WriteStream } from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, data, end, fail, take } = ScriptedStream

const utf8 = Buffers.utf8

const script = (...reads: ReadonlyArray<ScriptedStream.ReadStep>) => ScriptedStream.make({ reads })

/** Bytes as a person writes them down: two hexadecimal digits each, and text in quotes. */
const wire = (notation: string): Uint8Array =>
  Buffers.concat(
    Array.from(notation.matchAll(/"([^"]*)"|([\da-f]{2})/g), ([, text, digits]) =>
      text === undefined ? Uint8Array.of(parseInt(digits!, 16)) : Buffer.from(text, "utf8"))
  )

/** A socket, and the same without anything but its `readSome` and `writeSome`. */
const kinds: ReadonlyArray<readonly [string, (socket: StreamSocket) => ReadStream & WriteStream]> = [
  ["a socket", (socket) => socket],
  ["a plain stream", ({ readSome, writeSome }) => ({ readSome, writeSome })]
]

/** The `ContentError` that an exit failed with. */
const contentError = <A, E>(exit: Exit.Exit<A, E>): Framing.ContentError => {
  const error = Exit.isFailure(exit) ? Cause.findError(exit.cause) : undefined
  return error !== undefined && Result.isSuccess(error) && error.success instanceof Framing.ContentError
    ? error.success
    : assert.fail(`expected a ContentError, got ${String(exit)}`)
}

/** A socket that takes everything, write by write. */
const taking = () => {
  const backing = new FakeBacking()
  const writes: Array<Uint8Array> = []
  backing.writeAnswer = (source) => {
    const bytes = new Uint8Array(source.remaining)
    source.copyTo(bytes)
    writes.push(bytes)
    return bytes.byteLength
  }
  return { socket: make(backing), writes }
}

class Chat extends Schema.Class<Chat>("Chat")({ from: Schema.String, size: Schema.Int }) {}

/** A framing of the caller's own: a digit for the length, then so many bytes. */
const digit = Framing.make({
  max: 9,
  find: (bytes) => {
    if (bytes.byteLength === 0) return undefined
    const length = bytes[0]! - 48
    if (length < 0 || length > 9) return `${bytes[0]} is not a digit`
    return bytes.byteLength < 1 + length ? undefined : { start: 1, end: 1 + length, size: 1 + length }
  },
  enclose: (payload, length) => [utf8(String(length)), ...(ArrayBuffer.isView(payload) ? [payload] : payload)]
})

const prefixed = Framing.lengthPrefixed

type Vectors = ReadonlyArray<
  readonly [name: string, framing: Framing.ByteFraming, ReadonlyArray<readonly [string, string]>]
>

/** Payloads and their frames, written by hand. */
const vectors: Vectors = [
  ["lengthPrefixed()", prefixed(), [[`"hello"`, `00000005"hello"`], ["", "00000000"], [
    "0a0d00ff",
    "000000040a0d00ff"
  ]]],
  ["lengthPrefixed, 1 byte", prefixed({ width: 1 }), [[`"hello"`, `05"hello"`], ["", "00"], [
    "ff".repeat(255),
    `ff${"ff".repeat(255)}`
  ]]],
  ["lengthPrefixed, 1 byte, counted", prefixed({ width: 1, includesHeader: true }), [[`"hello"`, `06"hello"`], [
    "",
    "01"
  ], ["ab".repeat(254), `ff${"ab".repeat(254)}`]]],
  ["lengthPrefixed, 2 bytes", prefixed({ width: 2 }), [[`"hello"`, `0005"hello"`], [
    "61".repeat(300),
    `012c${"61".repeat(300)}`
  ]]],
  ["lengthPrefixed, 2 bytes, little", prefixed({ width: 2, endian: "little" }), [[`"hello"`, `0500"hello"`], [
    "61".repeat(300),
    `2c01${"61".repeat(300)}`
  ]]],
  ["lengthPrefixed, 2 bytes, counted", prefixed({ width: 2, includesHeader: true }), [[`"hello"`, `0007"hello"`], [
    "",
    "0002"
  ]]],
  ["lengthPrefixed, 4 bytes, little, counted", prefixed({ endian: "little", includesHeader: true }), [[
    `"hello"`,
    `09000000"hello"`
  ], ["", "04000000"]]],
  ["lengthPrefixed, 8 bytes", prefixed({ width: 8 }), [[`"hello"`, `0000000000000005"hello"`], [
    "",
    "0000000000000000"
  ]]],
  ["lengthPrefixed, 8 bytes, little", prefixed({ width: 8, endian: "little" }), [
    [`"hello"`, `0500000000000000"hello"`],
    ["61".repeat(300), `2c01000000000000${"61".repeat(300)}`]
  ]],
  ["lengthPrefixed, 8 bytes, counted", prefixed({ width: 8, includesHeader: true }), [[
    `"hello"`,
    `000000000000000d"hello"`
  ]]],
  ["lengthPrefixed, varint", prefixed({ width: "varint" }), [
    [`"hello"`, `05"hello"`],
    ["", "00"],
    ["61".repeat(127), `7f${"61".repeat(127)}`],
    ["61".repeat(128), `8001${"61".repeat(128)}`],
    ["61".repeat(300), `ac02${"61".repeat(300)}`]
  ]],
  ["delimited by text", Framing.delimited("|"), [[`"hello"`, `"hello|"`], ["", `"|"`], ["0d0a", `0d0a"|"`]]],
  ["delimited by bytes", Framing.delimited(Uint8Array.of(0, 255)), [[`"hello"`, `"hello"00ff`], ["ff00", "ff0000ff"], [
    "",
    "00ff"
  ]]],
  ["delimited by text beyond ASCII", Framing.delimited("\u00e9"), [[`"hello"`, `"hello"c3a9`], ["c3", "c3c3a9"]]],
  ["lines()", Framing.lines(), [[`"hello"`, `"hello"0a`], ["", "0a"], [`"a"0d"b"`, `"a"0d"b"0a`]]],
  ["lines, CRLF", Framing.lines({ ending: "\r\n" }), [[`"hello"`, `"hello"0d0a`], ["", "0d0a"], [
    `"a"0d`,
    `"a"0d0d0a`
  ]]],
  ["fixed", Framing.fixed(3), [[`"abc"`, `"abc"`], ["000aff", "000aff"]]],
  ["netstring", Framing.netstring(), [[`"hello"`, `"5:hello,"`], ["", `"0:,"`], [
    `",:,:,:,:,:,"`,
    `"11:,:,:,:,:,:,,"`
  ]]],
  ["one of the caller's own", digit, [[`"hello"`, `"5hello"`], ["", `"0"`], [`"123456789"`, `"9123456789"`]]]
]

describe("Framing", () => {
  for (const [name, framing, pairs] of vectors) {
    describe(name, () => {
      const payloads = pairs.map(([payload]) => wire(payload))
      const frames = pairs.map(([, frame]) => wire(frame))
      const all = Buffers.concat(frames)

      it.effect("sends each message as these bytes, in one gather write", () =>
        Effect.gen(function*() {
          const { socket, writes } = taking()
          for (const [i, payload] of payloads.entries()) {
            assert.strictEqual(yield* Framing.send(socket, framing, payload), frames[i]!.byteLength)
          }
          // In pieces too, and the other way round.
          for (const payload of payloads) {
            const half = Math.floor(payload.byteLength / 2)
            yield* Framing.send(framing, [payload.subarray(0, half), new DataView(payload.slice(half).buffer)])(socket)
          }
          assert.strictEqual(writes.length, 2 * frames.length)
          for (const [i, written] of writes.entries()) assertBytes(written, frames[i % frames.length]!)
        }))

      for (const [kind, streamOf] of kinds) {
        it.effect(`${kind}: receives them whole, in any two parts, and byte by byte`, () =>
          Effect.gen(function*() {
            const scripts: Array<ReadonlyArray<ScriptedStream.ReadStep>> = [[data(all)]]
            for (let at = 1; at < Math.min(all.byteLength, 40); at++) {
              scripts.push([data(all.subarray(0, at)), data(all.subarray(at))])
            }
            scripts.push([...all].map((byte) => data(Uint8Array.of(byte))))
            for (const steps of scripts) {
              const { socket } = yield* script(...steps, end)
              const stream = streamOf(socket)
              for (const payload of payloads) assertBytes(yield* Framing.receive(stream, framing), payload)
              for (let i = 0; i < 2; i++) {
                assert.strictEqual(ending(yield* Effect.exit(Framing.receive(framing)(stream))), "Done")
              }
            }
          }))

        it.effect(`${kind}: sends them over as many writes as it takes`, () =>
          Effect.gen(function*() {
            const { socket, written } = yield* ScriptedStream.make({ writes: Array.from(all, () => take(1)) })
            for (const payload of payloads) yield* Framing.send(streamOf(socket), framing, payload)
            assertBytes(yield* written, all)
          }))

        it.effect(`${kind}: a stream that ends inside a message is UnexpectedEof, and its bytes stay unread`, () =>
          Effect.gen(function*() {
            const frame = frames[0]!
            for (let length = 1; length < frame.byteLength; length++) {
              const { socket } = yield* script(data(frame), data(frame.subarray(0, length)), end)
              const stream = streamOf(socket)
              yield* Framing.receive(stream, framing)
              for (let i = 0; i < 2; i++) {
                const error = failure(yield* Effect.exit(Framing.receive(stream, framing)))
                assert.deepStrictEqual(
                  [error.reason._tag, error.operation, error.transferred],
                  ["UnexpectedEof", "receive", length]
                )
              }
              assertBytes(yield* Read.readAll(stream), frame.subarray(0, length))
            }
          }))

        it.effect(`${kind}: a hundred receives that are interrupted lose nothing`, () =>
          Effect.gen(function*() {
            const bytes = Buffers.concat(Array.from({ length: 100 }, () => frames[0]!)).subarray(0, 100)
            const { readable, socket } = yield* script(
              ...Array.from(bytes, (byte) => [data(Uint8Array.of(byte)), block]).flat(),
              end
            )
            const stream = streamOf(socket)
            let received = 0
            for (let i = 0; i < 100; i++) {
              const fiber = yield* start(Framing.receive(stream, framing))
              yield* Effect.yieldNow
              yield* Fiber.interrupt(fiber)
              const exit = yield* Fiber.await(fiber)
              if (Exit.isSuccess(exit)) {
                assertBytes(exit.value, payloads[0]!)
                received++
              }
              yield* readable
            }
            assert.strictEqual(received, Math.floor(100 / frames[0]!.byteLength))
          }))
      }

      it.effect("what is received is memory of the caller's own", () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data(all), end)
          const first = yield* Framing.receive(socket, framing)
          first.fill(0)
          if (payloads.length > 1) assertBytes(yield* Framing.receive(socket, framing), payloads[1]!)
        }))
    })
  }

  it.effect("lines are received up to LF as well as CRLF, whatever is sent", () =>
    Effect.gen(function*() {
      for (const ending of ["\n", "\r\n"] as const) {
        const { socket } = yield* script(data("one\ntwo\r\n\n\r\nth\rree\n"), end)
        const framing = Framing.text(Framing.lines({ ending }))
        const found = yield* Stream.runCollect(Framing.stream(socket, framing))
        assert.deepStrictEqual(found, ["one", "two", "", "", "th\rree"])
      }
    }))

  describe("limits", () => {
    /** Each with a largest payload of 5 bytes, a frame of exactly that, and one of a byte more. */
    const limited: ReadonlyArray<readonly [string, Framing.ByteFraming, string, string]> = [
      ["lengthPrefixed", prefixed({ max: 5 }), `00000005"hello"`, `00000006"hello!"`],
      ["lengthPrefixed, counted", prefixed({ max: 5, width: 2, includesHeader: true }), `0007"hello"`, `0008"hello!"`],
      ["lengthPrefixed, varint", prefixed({ max: 5, width: "varint" }), `05"hello"`, `06"hello!"`],
      ["delimited", Framing.delimited("||", { max: 5 }), `"hello||"`, `"hello!||"`],
      ["lines", Framing.lines({ max: 5 }), `"hello"0a`, `"hello!"0a`],
      ["lines, CRLF", Framing.lines({ max: 5, ending: "\r\n" }), `"hello"0d0a`, `"hello!"0d0a`],
      ["netstring", Framing.netstring({ max: 5 }), `"5:hello,"`, `"6:hello!,"`]
    ]
    for (const [name, framing, fits, over] of limited) {
      for (const [kind, streamOf] of kinds) {
        it.effect(`${name}, ${kind}: max bytes are received, one more is LimitExceeded for ever`, () =>
          Effect.gen(function*() {
            for (const split of [1, 3, 100]) {
              const bytes = Buffers.concat([wire(fits), wire(over)])
              const steps: Array<ScriptedStream.ReadStep> = []
              for (let at = 0; at < bytes.byteLength; at += split) steps.push(data(bytes.subarray(at, at + split)))
              const { socket } = yield* script(...steps, end)
              const stream = streamOf(socket)
              assertBytes(yield* Framing.receive(stream, framing), "hello")
              for (let i = 0; i < 3; i++) {
                const error = failure(yield* Effect.exit(Framing.receive(stream, framing)))
                assert.strictEqual(error.reason._tag === "LimitExceeded" ? error.reason.limit : error.reason._tag, 5)
                assert.strictEqual(error.operation, "receive")
              }
              assertBytes(yield* Read.readAll(stream), wire(over))
            }
          }))
      }

      it.effect(`${name}: max bytes are sent, one more is LimitExceeded before the first byte`, () =>
        Effect.gen(function*() {
          const { socket, writes } = taking()
          const error = failure(yield* Effect.exit(Framing.send(socket, framing, utf8("hello!"))))
          assert.deepStrictEqual(
            [error.reason._tag, error.operation, error.transferred, error.total],
            ["LimitExceeded", "send", 0, 6]
          )
          assert.strictEqual(writes.length, 0)
          yield* Framing.send(socket, framing, utf8("hello"))
          assertBytes(Buffers.concat(writes), wire(fits))
        }))

      it.effect(`${name}: max 0 leaves room for empty messages`, () =>
        Effect.gen(function*() {
          const none = name.startsWith("lines")
            ? Framing.lines({ max: 0 })
            : name === "delimited"
            ? Framing.delimited("|", { max: 0 })
            : name === "netstring"
            ? Framing.netstring({ max: 0 })
            : prefixed({ max: 0 })
          const { socket, writes } = taking()
          yield* Framing.send(socket, none, new Uint8Array(0))
          assert.strictEqual(ending(yield* Effect.exit(Framing.send(socket, none, utf8("x")))), "LimitExceeded")
          const { socket: receiver } = yield* script(data(Buffers.concat(writes)), end)
          assert.strictEqual((yield* Framing.receive(receiver, none)).byteLength, 0)
        }))
    }

    it.effect("default to 1 MiB", () =>
      Effect.gen(function*() {
        assert.strictEqual(Framing.defaultMax, 1_048_576)
        const framings = [
          prefixed(),
          prefixed({ width: "varint" }),
          Framing.lines(),
          Framing.netstring(),
          Framing.delimited("|")
        ]
        for (const framing of framings) {
          const { socket, writes } = taking()
          yield* Framing.send(socket, framing, new Uint8Array(1_048_576))
          assert.strictEqual(
            ending(yield* Effect.exit(Framing.send(socket, framing, new Uint8Array(1_048_577)))),
            "LimitExceeded"
          )
          const { socket: receiver } = yield* script(data(Buffers.concat(writes)), end)
          assert.strictEqual((yield* Framing.receive(receiver, framing)).byteLength, 1_048_576)
        }
      }))

    it.effect("are never more than the header can say", () =>
      Effect.gen(function*() {
        const widths = [[1, false, 255], [1, true, 254], [2, false, 65_535], [2, true, 65_533]] as const
        for (const [width, includesHeader, most] of widths) {
          const framing = prefixed({ width, includesHeader })
          assert.strictEqual(framing.max, most)
          const { socket, writes } = taking()
          assert.strictEqual(yield* Framing.send(socket, framing, new Uint8Array(most)), width + most)
          assert.strictEqual(
            ending(yield* Effect.exit(Framing.send(socket, framing, new Uint8Array(most + 1)))),
            "LimitExceeded"
          )
          const { socket: receiver } = yield* script(data(Buffers.concat(writes)), end)
          assert.strictEqual((yield* Framing.receive(receiver, framing)).byteLength, most)
        }
      }))

    it("wrong arguments throw where the framing is made", () => {
      for (const max of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
        assert.throws(() => prefixed({ max }), RangeError)
        assert.throws(() => prefixed({ max, width: "varint" }), RangeError)
        assert.throws(() => Framing.delimited("|", { max }), RangeError)
        assert.throws(() => Framing.lines({ max }), RangeError)
        assert.throws(() => Framing.netstring({ max }), RangeError)
        assert.throws(
          () => Framing.make({ ...digit, max, find: () => undefined, enclose: (payload) => payload }),
          RangeError
        )
      }
      for (const size of [0, -1, 0.5, NaN, Infinity]) assert.throws(() => Framing.fixed(size), RangeError)
      assert.throws(() => Framing.delimited(""), RangeError)
      assert.throws(() => prefixed({ width: 3 as 4 }), RangeError)
    })

    it.effect("a delimiter's memory may be used again", () =>
      Effect.gen(function*() {
        const delimiter = Uint8Array.of(10)
        const framing = Framing.delimited(delimiter)
        delimiter.fill(120)
        const { socket, writes } = taking()
        yield* Framing.send(socket, framing, utf8("ax"))
        assertBytes(Buffers.concat(writes), "ax\n")
        const { socket: receiver } = yield* script(data("ax\n"), end)
        assertBytes(yield* Framing.receive(receiver, framing), "ax")
      }))
  })

  describe("hostile headers", () => {
    const hostile: ReadonlyArray<readonly [string, Framing.ByteFraming, string, "Framing" | "LimitExceeded"]> = [
      ["4 GiB", prefixed(), "ffffffff", "LimitExceeded"],
      ["4 GiB, little", prefixed({ endian: "little" }), "000000ff", "LimitExceeded"],
      ["16 EiB", prefixed({ width: 8 }), "ffffffffffffffff", "LimitExceeded"],
      [
        "2^63, little, counted",
        prefixed({ width: 8, endian: "little", includesHeader: true }),
        "0000000000000080",
        "LimitExceeded"
      ],
      ["a counted length of 0", prefixed({ includesHeader: true }), "00000000", "Framing"],
      ["a counted length of 3 behind a header of 4", prefixed({ includesHeader: true }), "00000003", "Framing"],
      [
        "a counted length of 7 behind a header of 8, little",
        prefixed({ width: 8, endian: "little", includesHeader: true }),
        "0700000000000000",
        "Framing"
      ],
      ["a counted length of 0 in 1 byte", prefixed({ width: 1, includesHeader: true }), "00", "Framing"],
      ["a varint that goes on and on", prefixed({ width: "varint" }), "80".repeat(50), "Framing"],
      ["a varint of 2^53", prefixed({ width: "varint" }), "8080808080808010", "Framing"],
      ["a varint of 2^53 - 1", prefixed({ width: "varint" }), "ffffffffffffff0f", "LimitExceeded"],
      ["no delimiter", Framing.delimited("|", { max: 9 }), `"0123456789"`, "LimitExceeded"],
      ["no line feed", Framing.lines({ max: 9 }), `"01234567890"`, "LimitExceeded"],
      ["a netstring without a length", Framing.netstring(), `":"`, "Framing"],
      ["a netstring that begins with a letter", Framing.netstring(), `"x"`, "Framing"],
      ["a netstring with a negative length", Framing.netstring(), `"-1:"`, "Framing"],
      ["a netstring with a space", Framing.netstring(), `"5 :hello,"`, "Framing"],
      ["a netstring with a space in front", Framing.netstring(), `" 5:hello,"`, "Framing"],
      ["a netstring with a hexadecimal length", Framing.netstring(), `"0x5:hello,"`, "Framing"],
      ["a netstring that begins with 0", Framing.netstring(), `"05:hello,"`, "Framing"],
      ["a netstring of zeros", Framing.netstring(), `"00:,"`, "Framing"],
      ["a netstring with another end", Framing.netstring(), `"5:hello;"`, "Framing"],
      ["a netstring that is longer than it says", Framing.netstring(), `"5:hello!,"`, "Framing"],
      ["a netstring with a length beyond all numbers", Framing.netstring(), `"${"9".repeat(400)}"`, "LimitExceeded"],
      ["a netstring over the limit", Framing.netstring(), `"1048577:"`, "LimitExceeded"],
      ["what the caller's own function does not like", digit, `"x"`, "Framing"]
    ]
    for (const [name, framing, notation, tag] of hostile) {
      for (const [kind, streamOf] of kinds) {
        it.effect(`${name}, ${kind}: ${tag} at once, where it begins, and for ever`, () =>
          Effect.gen(function*() {
            const bytes = wire(notation)
            const good = framing.enclose(utf8("ok"), 2)
            if (Result.isFailure(good)) return assert.fail("the message in front cannot be sent")
            const front = Buffers.concat(good.success)
            for (
              const steps of [
                [data(Buffers.concat([front, front, bytes]))],
                [data(front), data(front), ...[...bytes].map((byte) => data(Uint8Array.of(byte)))]
              ]
            ) {
              // The script has no end, so a wait for more would be a defect.
              const { socket } = yield* script(...steps)
              const stream = streamOf(socket)
              assertBytes(yield* Framing.receive(stream, framing), "ok")
              assertBytes(yield* Framing.receive(stream, framing), "ok")
              const messages: Array<string> = []
              for (let i = 0; i < 3; i++) {
                const error = failure(yield* Effect.exit(Framing.receive(stream, framing)))
                assert.deepStrictEqual([error.reason._tag, error.operation], [tag, "receive"])
                if (error.reason._tag === "Framing") {
                  assert.strictEqual(error.reason.position, 2 * front.byteLength)
                  assert.include(error.message, `at byte ${2 * front.byteLength}`)
                }
                messages.push(error.message)
              }
              const batch = failure(yield* Effect.exit(Stream.runDrain(Framing.stream(stream, framing))))
              assert.deepStrictEqual([...messages, batch.message], Array(4).fill(messages[0]))
              // All that has come is unread; the rest of it was not even asked for.
              const come = socket.bytesRead - 2 * front.byteLength
              assertBytes(yield* Read.peek(stream, come), bytes.subarray(0, come))
              const all = 2 * front.byteLength + bytes.byteLength
              while (socket.bytesRead < all) yield* Read.peek(stream, socket.bytesRead - 2 * front.byteLength + 1)
            }
          }))
      }
    }

    it.effect("a header of 4 GiB under a limit of 4 GiB allocates nothing for it", () =>
      Effect.gen(function*() {
        const framing = prefixed({ max: 2 ** 32 - 1 })
        const backing = new FakeBacking()
        const asked: Array<number> = []
        let isFirst = true
        backing.readAnswer = (target) => {
          asked.push(target.byteLength)
          if (!isFirst) return WouldBlock
          isFirst = false
          target.set(wire("ffffffff"))
          return 4
        }
        const socket = make(backing)
        const fiber = yield* start(Framing.receive(socket, framing))
        assert.isUndefined(fiber.pollUnsafe())
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(asked, [16_384, 16_384])
        assert.strictEqual(socket instanceof Socket ? socket.readHalf.readBuffer().bytes().buffer.byteLength : -1, 1024)
      }))

    const wrong: ReadonlyArray<readonly [string, () => Framing.Frame]> = [
      ["throws", () => {
        throw new RangeError("no opinion")
      }],
      ["answers a frame of no bytes", () => ({ start: 0, end: 0, size: 0 })],
      ["answers a frame that ends before it starts", () => ({ start: 2, end: 1, size: 3 })],
      ["answers a frame that starts before the first byte", () => ({ start: -1, end: 1, size: 3 })],
      ["answers a payload beyond its frame", () => ({ start: 0, end: 3, size: 2 })],
      ["answers more than there is", () => ({ start: 0, end: 3, size: 4 })],
      ["answers fractions", () => ({ start: 0.5, end: 1, size: 2 })],
      ["answers NaN", () => ({ start: 0, end: NaN, size: NaN })]
    ]
    for (const [name, find] of wrong) {
      it.effect(`a function that ${name} is a defect, and the bytes stay unread`, () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("abc"), end)
          const framing = Framing.make({ find, enclose: (payload) => payload })
          assert.instanceOf(defect(yield* Effect.exit(Framing.receive(socket, framing))), RangeError)
          assertBytes(yield* Read.readAll(socket), "abc")
        }))
    }

    it.effect("a function that never finds anything is stopped by max", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("abcdef"), end)
        const asked: Array<readonly [number, number]> = []
        const framing = Framing.make({
          max: 4,
          overhead: 1,
          find: (bytes, scanned) => {
            asked.push([bytes.byteLength, scanned])
            return undefined
          },
          enclose: (payload) => payload
        })
        assert.strictEqual(ending(yield* Effect.exit(Framing.receive(socket, framing))), "LimitExceeded")
        assert.deepStrictEqual(asked, [[0, 0], [6, 0]])
        assertBytes(yield* Read.readAll(socket), "abcdef")
      }))
  })

  describe("content", () => {
    const chat = new Chat({ from: "ada", size: 3 })

    it.effect("text, JSON, ndjson and schemas have these bytes", () =>
      Effect.gen(function*() {
        const { socket, writes } = taking()
        yield* Framing.send(socket, Framing.text(prefixed({ width: 1 })), "h\u00e9\u{1f600}")
        yield* Framing.send(socket, Framing.json(Framing.lines()), { a: [1, null, "\n"] })
        yield* Framing.send(socket, Framing.schema(Framing.lines(), Chat), chat)
        yield* Framing.send(socket, Framing.schema(prefixed({ width: 2 }), Schema.Date), new Date(0))
        assert.deepStrictEqual(writes.map((one) => Buffer.from(one).toString("latin1")), [
          Buffer.from("\u0007h\u00e9\u{1f600}").toString("latin1"),
          "{\"a\":[1,null,\"\\n\"]}\n",
          "{\"from\":\"ada\",\"size\":3}\n",
          "\0\x1a\"1970-01-01T00:00:00.000Z\""
        ])
        const { socket: receiver } = yield* script(data(Buffers.concat(writes)), end)
        assert.strictEqual(yield* Framing.receive(receiver, Framing.text(prefixed({ width: 1 }))), "h\u00e9\u{1f600}")
        assert.deepStrictEqual(yield* Framing.receive(receiver, Framing.json(Framing.lines())), { a: [1, null, "\n"] })
        const received = yield* Framing.receive(receiver, Framing.schema(Framing.lines(), Chat))
        assert.instanceOf(received, Chat)
        assert.deepStrictEqual(received, chat)
        assert.deepStrictEqual(
          yield* Framing.receive(receiver, Framing.schema(prefixed({ width: 2 }), Schema.Date)),
          new Date(0)
        )
      }))

    it.effect("schemaBinary has the bytes of Effect's own encoder behind the header", () =>
      Effect.gen(function*() {
        const encoded = Schema.encodeSync(SchemaBinary.toCodec(Chat))(chat)
        const framing = Framing.schemaBinary(prefixed({ width: 2 }), Chat)
        const { socket, writes } = taking()
        yield* Framing.send(socket, framing, chat)
        assertBytes(writes[0]!, Buffers.concat([Uint8Array.of(0, encoded.byteLength), encoded]))
        const { socket: receiver } = yield* script(...Array.from(writes[0]!, (byte) => data(Uint8Array.of(byte))), end)
        assert.deepStrictEqual(yield* Framing.receive(receiver, framing), chat)
      }))

    it.effect("bytes inside a binary message are memory of the caller's own", () =>
      Effect.gen(function*() {
        const framing = Framing.schemaBinary(prefixed({ width: 1 }), Schema.Struct({ bytes: Schema.Uint8Array }))
        const { socket, writes } = taking()
        yield* Framing.send(socket, framing, { bytes: utf8("abc") })
        const { socket: receiver } = yield* script(data(Buffers.concat([writes[0]!, utf8("behind")])), end)
        const received = yield* Framing.receive(receiver, framing)
        // Where the message was, there is something else now.
        yield* Read.unread(receiver, new Uint8Array(writes[0]!.byteLength).fill(9))
        assertBytes(received.bytes, "abc")
      }))

    it.effect("a byte order mark is text like any other", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("\u{feff}a\n"), end)
        assert.strictEqual(yield* Framing.receive(socket, Framing.text(Framing.lines())), "\u{feff}a")
      }))

    it.effect("map makes other messages, around others as well", () =>
      Effect.gen(function*() {
        const numbers = Framing.map(Framing.text(Framing.lines()), {
          encode: (value: number) => String(value),
          decode: Number
        })
        const dates = Framing.map({
          encode: (value: Date) => value.getTime(),
          decode: (value: number) => new Date(value)
        })(
          numbers
        )
        const { socket, writes } = taking()
        yield* Framing.send(socket, dates, new Date(42))
        assertBytes(writes[0]!, "42\n")
        const { socket: receiver } = yield* script(data("42\n"), end)
        assert.deepStrictEqual(yield* Framing.receive(receiver, dates), new Date(42))
      }))

    const failsTo = {
      decode: Framing.map(Framing.text(Framing.lines()), {
        encode: (value: string) => value,
        decode: (value: string): string => {
          if (value === "bad") throw new Error("not this one")
          return value
        }
      })
    }
    type Bad = readonly [
      string,
      Framing.Framing<never, unknown, Framing.ContentError>,
      good: string,
      bad: string,
      expected: unknown,
      detail: RegExp
    ]
    const bad: ReadonlyArray<Bad> = [
      ["text that is no UTF-8", Framing.text(Framing.lines()), `"ok"0a`, "ff0a", "ok", /./],
      ["text that is cut inside a character", Framing.text(Framing.netstring()), `"2:ok,"`, `"1:"c3","`, "ok", /./],
      ["JSON that is none", Framing.json(Framing.lines()), `"[1]"0a`, `"{oops}"0a`, [1], /JSON/],
      ["JSON of nothing", Framing.json(prefixed({ width: 1 })), `03"[1]"`, "00", [1], /JSON/],
      ["JSON that is no UTF-8", Framing.json(Framing.lines()), `"[1]"0a`, `"["22ff22"]"0a`, [1], /./],
      [
        "JSON that the schema does not accept",
        Framing.schema(Framing.lines(), Schema.Struct({ n: Schema.Int })),
        `7b226e223a317d0a`,
        `7b226e223a2278227d0a`,
        { n: 1 },
        /integer|number|n/
      ],
      [
        "something that is no JSON for a schema",
        Framing.schema(Framing.lines(), Schema.Int),
        `"1"0a`,
        `"one"0a`,
        1,
        /./
      ],
      ["what throws in map", failsTo.decode, `"ok"0a`, `"bad"0a`, "ok", /^not this one$/]
    ]
    for (const [name, framing, good, wrong, expected, detail] of bad) {
      for (const [kind, streamOf] of kinds) {
        it.effect(`${name}, ${kind}: fails that message, and the next ones are received`, () =>
          Effect.gen(function*() {
            const { socket } = yield* script(
              data(Buffers.concat([wire(good), wire(wrong), wire(good), wire(wrong)])),
              end
            )
            const stream = streamOf(socket)
            assert.deepStrictEqual(yield* Framing.receive(stream, framing), expected)
            const error = contentError(yield* Effect.exit(Framing.receive(stream, framing)))
            assert.strictEqual(error.direction, "receive")
            assert.match(error.detail, detail)
            assert.include(error.message, error.detail)
            assert.isDefined(error.cause)
            assert.deepStrictEqual(yield* Framing.receive(stream, framing), expected)
            contentError(yield* Effect.exit(Framing.receive(stream, framing)))
            assert.strictEqual(ending(yield* Effect.exit(Framing.receive(stream, framing))), "Done")
          }))
      }
    }

    it.effect("bad bytes for schemaBinary fail that message only", () =>
      Effect.gen(function*() {
        const framing = Framing.schemaBinary(prefixed({ width: 1 }), Chat)
        const { socket, writes } = taking()
        yield* Framing.send(socket, framing, chat)
        const { socket: receiver } = yield* script(
          data(Buffers.concat([wire("03ffffff"), writes[0]!, wire("00"), writes[0]!])),
          end
        )
        for (let i = 0; i < 2; i++) {
          assert.strictEqual(contentError(yield* Effect.exit(Framing.receive(receiver, framing))).direction, "receive")
          assert.deepStrictEqual(yield* Framing.receive(receiver, framing), chat)
        }
      }))

    const cyclic: Array<Schema.Json> = []
    cyclic.push(cyclic)
    const refused: ReadonlyArray<readonly [string, (stream: WriteStream) => Effect.Effect<number, unknown>]> = [
      ["the delimiter in the message", Framing.send(Framing.delimited("||"), utf8("a||b"))],
      ["the delimiter at the end of the message", Framing.send(Framing.delimited("||"), utf8("a||"))],
      ["a delimiter that begins in the message", Framing.send(Framing.delimited("||"), utf8("a|"))],
      ["a delimiter that overlaps itself", Framing.send(Framing.delimited("aba"), utf8("xab"))],
      ["a delimiter across two pieces", Framing.send(Framing.delimited("||"), [utf8("a|"), utf8("|b")])],
      ["a line feed in a line", Framing.send(Framing.lines(), utf8("a\nb"))],
      ["a line feed in a line that ends in CRLF", Framing.send(Framing.lines({ ending: "\r\n" }), utf8("a\nb"))],
      ["a carriage return at the end of a line", Framing.send(Framing.lines(), utf8("a\r"))],
      ["too little for a fixed size", Framing.send(Framing.fixed(3), utf8("ab"))],
      ["nothing for a fixed size", Framing.send(Framing.fixed(3), [])],
      ["JSON that goes round in circles", Framing.send(Framing.json(Framing.lines()), cyclic)],
      ["a value that the schema does not accept", Framing.send(Framing.schema(Framing.lines(), Schema.Int), 1.5)],
      [
        "a value that the binary schema does not accept",
        Framing.send(Framing.schemaBinary(prefixed(), Schema.Int), 1.5)
      ],
      [
        "what throws in map",
        Framing.send(
          Framing.map(prefixed(), {
            encode: (): Uint8Array => {
              throw new Error("no")
            },
            decode: (bytes) => bytes
          }),
          1
        )
      ]
    ]
    for (const [name, send] of refused) {
      it.effect(`${name} is a ContentError before the first byte, and the next message is sent`, () =>
        Effect.gen(function*() {
          for (const [, streamOf] of kinds) {
            const { socket, writes } = taking()
            const error = contentError(yield* Effect.exit(send(streamOf(socket))))
            assert.strictEqual(error.direction, "send")
            assert.match(error.message, /^send: ./)
            assert.strictEqual(writes.length, 0)
            assert.strictEqual(socket.state.write, "open")
            yield* Framing.send(streamOf(socket), Framing.lines(), utf8("fine"))
            assertBytes(Buffers.concat(writes), "fine\n")
          }
        }))
    }

    it.effect("too much for a fixed size is LimitExceeded", () =>
      Effect.gen(function*() {
        const { socket } = taking()
        assert.strictEqual(
          ending(yield* Effect.exit(Framing.send(socket, Framing.fixed(3), utf8("abcd")))),
          "LimitExceeded"
        )
      }))

    it.effect("a payload that is no memory is a defect and writes nothing", () =>
      Effect.gen(function*() {
        const { socket, writes } = taking()
        const gone = new Uint8Array(3)
        structuredClone(gone.buffer, { transfer: [gone.buffer] })
        assert.instanceOf(defect(yield* Effect.exit(Framing.send(socket, prefixed(), gone))), TypeError)
        assert.instanceOf(defect(yield* Effect.exit(Framing.send(socket, prefixed(), "x" as never))), TypeError)
        assert.strictEqual(writes.length, 0)
      }))

    it.effect("values that were given to send may change as soon as it ends", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({ writes: [take(99), take(99)] })
        const payload = Uint8Array.from(utf8("abc"))
        yield* Framing.send(socket, prefixed({ width: 1 }), payload)
        payload.fill(120)
        yield* Framing.send(socket, prefixed({ width: 1 }), payload)
        assertBytes(yield* written, "\u0003abc\u0003xxx")
      }))
  })

  describe("one operation", () => {
    const framing = prefixed({ width: 2 })
    const message = utf8("abcdef")
    const frame = wire(`0006"abcdef"`)
    const other = wire(`0002"zz"`)
    // One by one, because a plain stream is offered one piece of memory at a time.
    const takes = (count: number) => Array.from({ length: count }, () => take(1))
    const policies = {
      terminal: Cancellation.terminal,
      partial: Cancellation.partial,
      total: Cancellation.total()
    } as const

    for (const [kind, streamOf] of kinds) {
      for (const policy of ["terminal", "partial", "total"] as const) {
        it.effect(`${kind}, ${policy}: interrupted after any number of bytes a send completes or tears`, () =>
          Effect.gen(function*() {
            for (let k = 0; k < frame.byteLength; k++) {
              const stops = k === 0 || policy === "terminal"
              const isTorn = stops && k > 0
              const { socket, writable, written } = yield* ScriptedStream.make({
                writes: [
                  ...takes(k),
                  block,
                  ...takes(stops ? 0 : frame.byteLength - k),
                  ...takes(isTorn ? 0 : other.byteLength)
                ]
              })
              const stream = streamOf(socket)
              const fiber = yield* start(policies[policy](Framing.send(stream, framing, message)))
              const interrupting = yield* start(Fiber.interrupt(fiber))
              assert.strictEqual(fiber.pollUnsafe() !== undefined, stops, `after ${k} bytes`)
              if (!stops) yield* writable
              yield* Fiber.join(interrupting)
              assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
                transferred: stops ? k : frame.byteLength,
                total: frame.byteLength,
                guarantee: isTorn ? "terminal" : "total"
              })
              if (isTorn) {
                // A plain stream does not know the word; its caller was told.
                if (kind === "a socket") {
                  const error = failure(yield* Effect.exit(Framing.send(socket, framing, utf8("zz"))))
                  assert.deepStrictEqual(error.reason, Reason.Torn({ transferred: k, total: frame.byteLength }))
                }
                assertBytes(yield* written, frame.subarray(0, k))
              } else {
                if (stops) yield* writable
                assert.strictEqual(socket.state.write, "open")
                assert.strictEqual(yield* Framing.send(stream, framing, utf8("zz")), other.byteLength)
                assertBytes(yield* written, Buffers.concat(stops ? [other] : [frame, other]))
              }
            }
          }))

        it.effect(`${kind}, ${policy}: asked after any number of bytes a send ends, tears or runs on`, () =>
          Effect.gen(function*() {
            for (let k = 0; k < frame.byteLength; k++) {
              const stops = k === 0 || policy === "terminal"
              const isTorn = stops && k > 0
              const { socket, writable, written } = yield* ScriptedStream.make({
                writes: [
                  ...takes(k),
                  block,
                  ...takes(stops ? 0 : frame.byteLength - k),
                  ...takes(isTorn ? 0 : other.byteLength)
                ]
              })
              const stream = streamOf(socket)
              const signal = Cancellation.makeSignal()
              const fiber = yield* start(Cancellation.withSignal(Framing.send(stream, framing, message), signal))
              const { ended, continued } = yield* signal.emit(policy)
              assert.deepStrictEqual([ended.length, continued.length], stops ? [1, 0] : [0, 1], `after ${k} bytes`)
              if (!stops) {
                yield* writable
                assert.strictEqual(yield* Fiber.join(fiber), frame.byteLength)
              } else {
                const error = failure(yield* Fiber.await(fiber))
                assert.deepStrictEqual(
                  error.reason,
                  Reason.OperationAborted({
                    type: isTorn ? "terminal" : "total",
                    transferred: k,
                    total: frame.byteLength
                  })
                )
                assert.strictEqual(error.operation, "send")
              }
              if (isTorn) {
                if (kind === "a socket") assert.strictEqual(socket.state.write, "torn")
                assertBytes(yield* written, frame.subarray(0, k))
              } else {
                if (stops) yield* writable
                yield* Framing.send(stream, framing, utf8("zz"))
                assertBytes(yield* written, Buffers.concat(stops ? [other] : [frame, other]))
              }
            }
          }))
      }

      it.effect(`${kind}: partial has the bound of total, after which the message is torn`, () =>
        Effect.gen(function*() {
          const { socket } = yield* ScriptedStream.make({ writes: [...takes(3), block] })
          const fiber = yield* start(
            Framing.send(streamOf(socket), framing, message).pipe(Cancellation.total({ within: "1 second" }))
          )
          const interrupting = yield* start(Fiber.interrupt(fiber))
          yield* TestClock.adjust(999)
          assert.isUndefined(fiber.pollUnsafe())
          yield* TestClock.adjust(1)
          yield* Fiber.join(interrupting)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
            transferred: 3,
            total: frame.byteLength,
            guarantee: "terminal"
          })
          if (kind === "a socket") assert.strictEqual(socket.state.write, "torn")
        }))
    }

    it.effect("header and body are offered to a plain stream together", () =>
      Effect.gen(function*() {
        const { socket, writes } = taking()
        yield* Framing.send({ writeSome: socket.writeSome }, framing, message)
        assert.deepStrictEqual(writes, [frame])
      }))

    it.effect("the next send goes on where a finished one ends, never inside it", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* ScriptedStream.make({
          writes: [take(3), block, take(99), take(99)]
        })
        const first = yield* start(Cancellation.partial(Framing.send(socket, framing, message)))
        const second = yield* start(Framing.send(socket, framing, utf8("zz")))
        const interrupting = yield* start(Fiber.interrupt(first))
        assert.isUndefined(first.pollUnsafe())
        assert.isUndefined(second.pollUnsafe())
        yield* writable
        yield* Fiber.join(interrupting)
        yield* Fiber.join(second)
        assertBytes(yield* written, Buffers.concat([frame, other]))
      }))

    it.effect("one that waits in line takes nothing when it is interrupted", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* ScriptedStream.make({ writes: [take(3), block, take(99)] })
        const first = yield* start(Framing.send(socket, framing, message))
        const second = yield* start(Framing.send(socket, framing, utf8("zz")))
        yield* Fiber.interrupt(second)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(second)), { transferred: 0, total: 4, guarantee: "total" })
        yield* writable
        yield* Fiber.join(first)
        assertBytes(yield* written, frame)
      }))

    it.effect("fails as its write does, with its own name", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ writes: [take(3), fail(Reason.BrokenPipe())] })
        const error = failure(yield* Effect.exit(Framing.send(socket, framing, message)))
        assert.deepStrictEqual(
          [error.reason._tag, error.operation, error.transferred, error.total],
          ["BrokenPipe", "send", 3, 8]
        )
      }))

    it.effect("many fibers send at once, and every message arrives whole", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 50, seed: 4, chunk: 7 })
        const texts = Framing.text(Framing.netstring())
        const senders = Effect.forEach(
          Array.from({ length: 20 }, (_, i) => i),
          (i) =>
            Effect.forEach(
              Array.from({ length: 10 }, (_, j) => j),
              (j) => Framing.send(left, texts, `${i} ${j} ${"x".repeat((i * 7 + j * 13) % 90)}`),
              { discard: true }
            ),
          { concurrency: "unbounded", discard: true }
        )
        const fiber = yield* start(Effect.andThen(senders, left.shutdownWrite))
        const messages = yield* Stream.runCollect(Framing.stream(right, texts))
        yield* Fiber.join(fiber)
        assert.strictEqual(messages.length, 200)
        for (let i = 0; i < 20; i++) {
          const own = messages.filter((message) => message.startsWith(`${i} `))
          assert.deepStrictEqual(
            own,
            Array.from({ length: 10 }, (_, j) => `${i} ${j} ${"x".repeat((i * 7 + j * 13) % 90)}`)
          )
        }
        // They really took turns.
        assert.notDeepEqual(messages.slice(0, 10).map((message) => message.split(" ")[0]), Array(10).fill("0"))
      }))

    it.effect("receives that overlap on a plain stream do not run messages together", () =>
      Effect.gen(function*() {
        for (const framing of [Framing.lines(), Framing.delimited("\n")]) {
          const { readable, socket } = yield* script(data("on"), block, data("e\n\ntwo"), data("x\n"), end)
          const stream: ReadStream = { readSome: socket.readSome }
          const first = yield* start(Framing.receive(stream, framing))
          const second = yield* start(Framing.receive(stream, framing))
          yield* readable
          assertBytes(yield* Fiber.join(first), "one")
          assertBytes(yield* Fiber.join(second), "")
          assertBytes(yield* Framing.receive(stream, framing), "twox")
        }
      }))

    it.effect("many fibers receive at once, each whole messages, in the order in which they asked", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(block, data("one\ntw"), block, data("o\nthree\nfo"), end)
        const lines = Framing.text(Framing.lines())
        const fibers = [
          yield* start(Framing.receive(socket, lines)),
          yield* start(Framing.receive(socket, lines)),
          yield* start(Framing.receive(socket, lines)),
          yield* start(Framing.receive(socket, lines))
        ]
        yield* readable
        assert.isUndefined(fibers[1]!.pollUnsafe())
        yield* readable
        const exits = yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual(exits.map((exit) => Exit.isSuccess(exit) ? exit.value : ending(exit)), [
          "one",
          "two",
          "three",
          "UnexpectedEof"
        ])
      }))
  })

  describe("stream", () => {
    const texts = Framing.text(Framing.lines({ max: 10 }))

    for (const [kind, streamOf] of kinds) {
      it.effect(`${kind}: emits what has arrived together as one chunk, to the end`, () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("a\nb\nc"), data("\nd\n"), end)
          const chunks = yield* Stream.runCollect(Stream.chunks(Framing.stream(streamOf(socket), texts)))
          assert.deepStrictEqual(chunks, [["a", "b"], ["c", "d"]])
        }))

      it.effect(`${kind}: bad content in the middle of a batch costs neither what is before it nor what is behind it`, () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data(wire(`"a"0a"b"0aff0a"c"0afe0afd0a"d"0a`)), end)
          const stream = streamOf(socket)
          const seen: Array<string> = []
          const run = Effect.exit(
            Stream.runForEach(Framing.stream(stream, texts), (text) => Effect.sync(() => void seen.push(text)))
          )
          contentError(yield* run)
          assert.deepStrictEqual(seen, ["a", "b"])
          contentError(yield* run)
          assert.deepStrictEqual(seen, ["a", "b", "c"])
          contentError(yield* run)
          assert.deepStrictEqual(seen, ["a", "b", "c"])
          assert.strictEqual(ending(yield* run), "Success")
          assert.deepStrictEqual(seen, ["a", "b", "c", "d"])
        }))

      it.effect(`${kind}: bad framing in the middle of a batch comes after what is before it, with its position`, () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("2:ab,3:cde,x"), end)
          const seen: Array<string> = []
          const exit = yield* Effect.exit(
            Stream.runForEach(
              Framing.stream(streamOf(socket), Framing.text(Framing.netstring())),
              (text) => Effect.sync(() => void seen.push(text))
            )
          )
          const { reason } = failure(exit)
          assert.strictEqual(reason._tag === "Framing" ? reason.position : reason._tag, 11)
          assert.deepStrictEqual(seen, ["ab", "cde"])
        }))

      it.effect(`${kind}: an end inside a message comes after the messages before it`, () =>
        Effect.gen(function*() {
          const { socket } = yield* script(data("a\nb"), end)
          const seen: Array<string> = []
          const exit = yield* Effect.exit(
            Stream.runForEach(
              Framing.stream(streamOf(socket), texts),
              (text) => Effect.sync(() => void seen.push(text))
            )
          )
          assert.strictEqual(ending(exit), "UnexpectedEof")
          assert.deepStrictEqual(seen, ["a"])
        }))
    }

    it.effect("reads nothing before it is pulled and nothing ahead of its consumer", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 100 })
        const framing = Framing.fixed(10)
        const sending = yield* start(
          Effect.forEach(Array.from({ length: 100 }, (_, i) => i), (i) =>
            Framing.send(left, framing, new Uint8Array(10).fill(i)))
        )
        const stream = Framing.stream(right, framing)
        for (let i = 0; i < 20; i++) {
          yield* Effect.yieldNow
        }
        assert.strictEqual(right.bytesRead, 0)
        let received = 0
        let ahead = 0
        yield* Stream.runForEach(Stream.take(stream, 95), (message) =>
          Effect.gen(function*() {
            assert.strictEqual(message[0], received++)
            for (let i = 0; i < 5; i++) {
              yield* Effect.yieldNow
            }
            ahead = Math.max(ahead, right.bytesRead - 10 * received)
          }))
        assert.isAtMost(ahead, 100)
        yield* Fiber.join(sending)
      }))

    it.effect("what a decode does to its own stream loses and repeats nothing", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("a\nb\nc\n"), end)
        let pushed = false
        const framing = Framing.map(texts, {
          encode: (text: string) => text,
          decode: (text) => {
            if (text === "b" && !pushed) {
              pushed = true
              Effect.runSync(Read.unread(socket, Buffers.utf8("new\n")))
            }
            return text
          }
        })
        assert.deepStrictEqual(yield* Stream.runCollect(Framing.stream(socket, framing)), ["new", "a", "b", "c"])
      }))

    it.effect("a decode that interrupts its fiber leaves its message, and those around it, unread", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data("a\nb\nc\n"), end)
        let stop = () => {}
        const framing = Framing.map(texts, {
          encode: (text: string) => text,
          decode: (text) => {
            if (text === "b") stop()
            return text
          }
        })
        const fiber = yield* start(Effect.withFiber((self) => {
          stop = () => self.interruptUnsafe()
          return Stream.runCollect(Framing.stream(socket, framing))
        }))
        assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
        stop = () => {}
        assert.deepStrictEqual(yield* Stream.runCollect(Framing.stream(socket, texts)), ["a", "b", "c"])
      }))

    it.effect("text that has no UTF-8, and values that have no JSON, are refused", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(end)
        const { json, lines, text } = Framing
        for (
          const send of [
            Framing.send(socket, text(lines()), "a\ud800b"),
            Framing.send(socket, json(lines()), undefined as never)
          ]
        ) assert.strictEqual((yield* Effect.flip(send))._tag, "ContentError")
        assert.strictEqual(socket.bytesWritten, 0)
      }))

    it.effect("a batch has an upper bound, and goes on with the next", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data(new Uint8Array(300)), end)
        const chunks = yield* Stream.runCollect(Stream.chunks(Framing.stream(socket, Framing.fixed(1))))
        assert.deepStrictEqual(chunks.map((chunk) => chunk.length), [128, 128, 44])
      }))

    it.effect("an interruption while it waits loses nothing", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* script(data("a\nb"), block, data("c\n"), end)
        const seen: Array<string> = []
        const fiber = yield* start(
          Stream.runForEach(Framing.stream(socket, texts), (text) => Effect.sync(() => void seen.push(text)))
        )
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(seen, ["a"])
        yield* readable
        assert.deepStrictEqual(yield* Stream.runCollect(Framing.stream(socket, texts)), ["bc"])
      }))
  })

  describe("sink", () => {
    const texts = Framing.text(Framing.lines({ max: 10 }))

    it.effect("sends messages that come together in one gather write, and counts their bytes", () =>
      Effect.gen(function*() {
        const { socket, writes } = taking()
        const sink = Framing.sink(socket, texts)
        assert.strictEqual(yield* Stream.run(Stream.fromArray(["a", "bc", ""]), sink), 6)
        assert.strictEqual(yield* Stream.run(Stream.empty, sink), 0)
        assert.deepStrictEqual(writes.map(Buffers.toUtf8), ["a\nbc\n\n"])
      }))

    it.effect("gather writes are bounded", () =>
      Effect.gen(function*() {
        const { socket, writes } = taking()
        const messages = Array.from({ length: 100 }, (_, i) => pattern(10_000 + i))
        const sent = yield* Stream.run(Stream.fromArray(messages), Framing.sink(socket, prefixed()))
        assert.strictEqual(sent, messages.reduce((sum, message) => sum + 4 + message.byteLength, 0))
        assert.isAtMost(Math.max(...writes.map((one) => one.byteLength)), 65_536 + 10_200)
        assert.isAtMost(writes.length, 16)
        const { socket: receiver } = yield* script(data(Buffers.concat(writes)), end)
        const received = yield* Stream.runCollect(Framing.stream(receiver, prefixed()))
        assert.strictEqual(received.length, 100)
        for (const [i, message] of received.entries()) assertBytes(message, messages[i]!)
      }))

    for (
      const [name, bad, expected] of [["bad content", "x\ny", "ContentError"], [
        "too much",
        "x".repeat(11),
        "LimitExceeded"
      ]] as const
    ) {
      it.effect(`${name} fails it after what came before has been sent, and nothing behind it is`, () =>
        Effect.gen(function*() {
          const { socket, writes } = taking()
          const exit = yield* Effect.exit(
            Stream.run(Stream.fromArray(["a", "b", bad, "c"]), Framing.sink(socket, texts))
          )
          assert.include(expected === "ContentError" ? contentError(exit)._tag : ending(exit), expected)
          assertBytes(Buffers.concat(writes), "a\nb\n")
        }))
    }

    it.effect("holds the producer back while the peer does not read", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
        let produced = 0
        const fiber = yield* start(
          Stream.range(1, 100).pipe(
            Stream.rechunk(1),
            Stream.map(() => {
              produced++
              return "abcd"
            }),
            Stream.run(Framing.sink(left, texts))
          )
        )
        for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        assert.isAtMost(produced, 4)
        yield* Read.discard(right, 500)
        assert.strictEqual(yield* Fiber.join(fiber), 500)
      }))

    it.effect("an interruption completes or tears the gather write at hand", () =>
      Effect.gen(function*() {
        for (const policy of [Cancellation.terminal, Cancellation.partial]) {
          const isTorn = policy === Cancellation.terminal
          const { socket, writable, written } = yield* ScriptedStream.make({
            writes: [take(3), block, ...(isTorn ? [] : [take(99)])]
          })
          const fiber = yield* start(policy(Stream.run(Stream.fromArray(["ab", "cd"]), Framing.sink(socket, texts))))
          while ((yield* written).byteLength < 3) yield* Effect.yieldNow
          const interrupting = yield* start(Fiber.interrupt(fiber))
          if (!isTorn) yield* writable
          yield* Fiber.join(interrupting)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
            transferred: isTorn ? 3 : 6,
            total: 6,
            guarantee: isTorn ? "terminal" : "total"
          })
          assert.strictEqual(socket.state.write, isTorn ? "torn" : "open")
        }
      }))

    it.effect("works over a plain stream", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({ writes: [take(2), take(1), take(99)] })
        const plain: WriteStream = { writeSome: socket.writeSome }
        assert.strictEqual(yield* Stream.run(Stream.fromArray(["ab", "cd"]), Framing.sink(plain, texts)), 6)
        assertBytes(yield* written, "ab\ncd\n")
      }))
  })

  describe("channel", () => {
    const texts = Framing.text(Framing.lines({ max: 100 }))
    const through = <E = never>(stream: Parameters<typeof Framing.channel>[0], input: Stream.Stream<string, E>) =>
      Stream.pipeThroughChannel(input, Framing.channel(stream, texts)<E>())

    it.effect("sends its input, half-closes after it, and emits what is received to the end", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 20, seed: 3 })
        const messages = Array.from({ length: 50 }, (_, i) => `message ${i}`)
        // The peer answers only when it has everything.
        const answering = yield* start(
          Effect.flatMap(Read.readAll(peer), (all) => Effect.andThen(Write.writeAll(peer, all), peer.shutdownWrite))
        )
        assert.deepStrictEqual(yield* Stream.runCollect(through(socket, Stream.fromArray(messages))), messages)
        yield* Fiber.join(answering)
        assert.deepStrictEqual(socket.state, { socket: "open", read: "ended", write: "shutdown" })
      }))

    it.effect("an input without an end does not keep it open when the peer ends", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("a\nb\n"), end], writes: [] })
        assert.deepStrictEqual(yield* Stream.runCollect(through(socket, Stream.never)), ["a", "b"])
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("a failure of sending ends the receive that waits", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* ScriptedStream.make({
          reads: [data("half a line"), block],
          writes: [block, fail(Reason.BrokenPipe())]
        })
        const fiber = yield* start(Stream.runCollect(through(socket, Stream.make("a"))))
        while (socket.bytesRead === 0) yield* Effect.yieldNow
        assert.isUndefined(fiber.pollUnsafe())
        yield* writable
        const error = failure(yield* Fiber.await(fiber))
        assert.deepStrictEqual([error.reason._tag, error.operation], ["BrokenPipe", "send"])
        assert.strictEqual(socket.state.read, "open")
        assertBytes(yield* Read.peek(socket, 11), "half a line")
      }))

    it.effect("a failure of sending ends a channel that is not receiving yet", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ writes: [fail(Reason.BrokenPipe())] })
        const exit = yield* Effect.exit(Stream.runCollect(through(socket, Stream.make("a"))))
        assert.strictEqual(failure(exit).reason._tag, "BrokenPipe")
      }))

    const inputs: ReadonlyArray<
      readonly [string, Stream.Stream<string, unknown>, (exit: Exit.Exit<unknown, unknown>) => string]
    > = [
      ["a message that cannot be sent", Stream.make("b\nc"), (exit) => contentError(exit).direction],
      ["a failure of the input", Stream.fail("send"), ending],
      ["a defect of the input", Stream.die(new Error("send")), (exit) => defect(exit).message]
    ]
    for (const [name, input, told] of inputs) {
      it.effect(`${name} ends the receive that waits`, () =>
        Effect.gen(function*() {
          const { socket, writable, written } = yield* ScriptedStream.make({
            reads: [data("half a line"), block],
            writes: [block, take(99)]
          })
          const fiber = yield* start(Stream.runCollect(through(socket, Stream.concat(Stream.make("a"), input))))
          while (socket.bytesRead === 0) yield* Effect.yieldNow
          assert.isUndefined(fiber.pollUnsafe())
          yield* writable
          assert.strictEqual(told(yield* Fiber.await(fiber)), "send")
          assertBytes(yield* written, "a\n")
          assertBytes(yield* Read.peek(socket, 11), "half a line")
        }))
    }

    it.effect("a failure of receiving ends it, and interrupts what is being sent", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* ScriptedStream.make({
          reads: [data("a\n"), block, fail(Reason.ConnectionReset())],
          writes: [take(2), block]
        })
        const seen: Array<string> = []
        const fiber = yield* start(
          Stream.runForEach(through(socket, Stream.make("abc")), (text) => Effect.sync(() => void seen.push(text)))
        )
        while (socket.bytesWritten < 2 || seen.length === 0) yield* Effect.yieldNow
        yield* readable
        assert.strictEqual(failure(yield* Fiber.await(fiber)).reason._tag, "ConnectionReset")
        assert.deepStrictEqual(seen, ["a"])
        assert.strictEqual(socket.state.write, "torn")
      }))

    it.effect("bad content fails it, and what is behind that is still unread", () =>
      Effect.gen(function*() {
        const { socket } = yield* script(data(wire(`"a"0aff0a"b"0a`)), end)
        const seen: Array<string> = []
        const exit = yield* Effect.exit(
          Stream.runForEach(through(socket, Stream.never), (text) => Effect.sync(() => void seen.push(text)))
        )
        assert.strictEqual(contentError(exit).direction, "receive")
        assert.deepStrictEqual(seen, ["a"])
        assert.strictEqual(yield* Framing.receive(socket, texts), "b")
      }))

    it.effect("an interruption ends both directions", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("a"), block], writes: [block] })
        const fiber = yield* start(Stream.runCollect(through(socket, Stream.make("abc"))))
        for (let i = 0; i < 10; i++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
        assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "open" })
        assertBytes(yield* Read.peek(socket, 1), "a")
      }))

    it.effect("holds its input back while the peer does not read, and receives all the same", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 10 })
        let produced = 0
        const input = Stream.range(1, 100).pipe(
          Stream.rechunk(1),
          Stream.map(() => {
            produced++
            return "abcd"
          })
        )
        const seen: Array<string> = []
        const fiber = yield* start(
          Stream.runForEach(through(socket, input), (text) => Effect.sync(() => void seen.push(text)))
        )
        yield* Framing.send(peer, texts, "news")
        for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        assert.deepStrictEqual(seen, ["news"])
        assert.isAtMost(produced, 4)
        assert.strictEqual((yield* Read.readAll(peer)).byteLength, 500)
        yield* peer.shutdownWrite
        yield* Fiber.join(fiber)
      }))

    it.effect("a stream that cannot half-close goes on receiving after its input", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({
          reads: [data("b\n"), end],
          writes: [take(1), take(1)]
        })
        const { readSome, writeSome } = socket
        assert.deepStrictEqual(yield* Stream.runCollect(through({ readSome, writeSome }, Stream.make("a"))), ["b"])
        assertBytes(yield* written, "a\n")
        assert.strictEqual(socket.state.write, "open")
      }))
  })
})

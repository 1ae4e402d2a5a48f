import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import * as Buffers from "../../src/Buffers.ts"
import { assertBytes } from "../support/bytes.ts"

/** A gather list over views of every kind, each somewhere inside a larger buffer. */
const gatherList = fc.array(
  fc.record({
    kind: fc.constantFrom("Uint8Array", "Buffer", "DataView"),
    bytes: fc.uint8Array({ maxLength: 12 }),
    before: fc.nat(3),
    after: fc.nat(3)
  }).map(({ after, before, bytes, kind }): Buffers.View => {
    const memory = new Uint8Array(before + bytes.byteLength + after).fill(0xee)
    memory.set(bytes, before)
    return kind === "DataView"
      ? new DataView(memory.buffer, before, bytes.byteLength)
      : kind === "Buffer"
      ? Buffer.from(memory.buffer, before, bytes.byteLength)
      : memory.subarray(before, before + bytes.byteLength)
  }),
  { maxLength: 8 }
)

/** The reference model: all bytes in one piece. */
const flat = (views: ReadonlyArray<Buffers.View>): Buffer =>
  Buffer.concat(views.map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)))

const detached = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  return bytes
}

const outOfBounds = (): Uint8Array => {
  const buffer = new ArrayBuffer(8, { maxByteLength: 8 })
  const bytes = new Uint8Array(buffer, 2, 4)
  buffer.resize(3)
  return bytes
}

// What a caller without types may pass.
const wrong = (value: unknown): Buffers.Input => value as Buffers.Input

const wrongInputs: ReadonlyArray<readonly [string, unknown]> = [
  ["a string", "hello"],
  ["null", null],
  ["undefined", undefined],
  ["a number", 5],
  ["an ArrayBuffer", new ArrayBuffer(4)],
  ["an array of numbers", [1, 2, 3]],
  ["a nested list", [[new Uint8Array(1)]]],
  ["a list with a hole", [new Uint8Array(1), undefined]],
  ["a view of wider elements", new Float64Array(2)],
  ["an iterable", new Set([new Uint8Array(1)])],
  ["an object with a length", { byteLength: 3 }]
]

describe("Buffers", () => {
  describe("byteLength", () => {
    it("counts one view of any kind", () => {
      assert.strictEqual(Buffers.byteLength(new Uint8Array(3)), 3)
      assert.strictEqual(Buffers.byteLength(Buffer.from("four")), 4)
      assert.strictEqual(Buffers.byteLength(new DataView(new ArrayBuffer(10), 2, 5)), 5)
      assert.strictEqual(Buffers.byteLength(new Uint8Array(0)), 0)
      assert.strictEqual(Buffers.byteLength(new Uint8Array(new SharedArrayBuffer(6))), 6)
    })

    it("counts a gather list, empty views and empty lists included", () => {
      assert.strictEqual(Buffers.byteLength([]), 0)
      assert.strictEqual(Buffers.byteLength([new Uint8Array(0), new DataView(new ArrayBuffer(0))]), 0)
      assert.strictEqual(Buffers.byteLength([new Uint8Array(3), new Uint8Array(0), Buffer.from("four")]), 7)
    })

    it("counts past 2 GiB", () => {
      const view = new Uint8Array(65_536)
      assert.strictEqual(Buffers.byteLength(Array.from({ length: 65_536 }, () => view)), 4_294_967_296)
    })

    for (const [name, value] of wrongInputs) {
      it(`throws a TypeError for ${name}`, () => {
        assert.throws(() => Buffers.byteLength(wrong(value)), TypeError, "expected a Uint8Array or a DataView")
        assert.throws(() => Buffers.cursor(wrong(value)), TypeError, "expected a Uint8Array or a DataView")
      })
    }

    it("throws a TypeError for memory that is gone", () => {
      assert.throws(() => Buffers.byteLength(detached(4)), TypeError, "detached")
      assert.throws(() => Buffers.byteLength([new Uint8Array(1), detached(4)]), TypeError, "detached")
      assert.throws(() => Buffers.byteLength(new DataView(detached(4).buffer)), TypeError)
      assert.throws(() => Buffers.byteLength(outOfBounds()), TypeError)
      assert.throws(() => Buffers.cursor([outOfBounds()]), TypeError)
    })
  })

  describe("slice", () => {
    it("takes a range as views over the same memory", () => {
      const left = Buffer.from("abc")
      const right = Buffer.from("defg")
      const middle = Buffers.slice([left, right], 2, 5)
      assertBytes(Buffers.concat(middle), "cde")
      left[2] = 0x21
      assertBytes(Buffers.concat(middle), "!de")
    })

    it("cuts offsets past the end and answers an empty list for an empty range", () => {
      const bytes = Buffer.from("abc")
      assertBytes(Buffers.concat(Buffers.slice(bytes, 1)), "bc")
      assertBytes(Buffers.concat(Buffers.slice(bytes, 1, 1000)), "bc")
      assert.deepStrictEqual(Buffers.slice(bytes, 3), [])
      assert.deepStrictEqual(Buffers.slice(bytes, 2, 1), [])
      assert.deepStrictEqual(Buffers.slice([], 0), [])
    })

    it("throws a RangeError for offsets that are not whole and positive", () => {
      const bytes = new Uint8Array(4)
      for (const offset of [-1, 0.5, NaN, Infinity, -Infinity]) {
        assert.throws(() => Buffers.slice(bytes, offset), RangeError, String(offset))
        assert.throws(() => Buffers.slice(bytes, 0, offset), RangeError, String(offset))
      }
    })

    it("agrees with a slice of the flat bytes", () => {
      fc.assert(fc.property(gatherList, fc.nat(60), fc.nat(60), (views, start, end) => {
        assertBytes(Buffers.concat(Buffers.slice(views, start, end)), flat(views).subarray(start, Math.max(start, end)))
      }))
    })
  })

  describe("copy and concat", () => {
    it("copies what fits and says how much", () => {
      const target = new Uint8Array(4)
      assert.strictEqual(Buffers.copy([Buffer.from("ab"), Buffer.from("cdef")], target), 4)
      assertBytes(target, "abcd")
      assert.strictEqual(Buffers.copy(Buffer.from("x"), target), 1)
      assertBytes(target, "xbcd")
      assert.strictEqual(Buffers.copy([], target), 0)
      assert.strictEqual(Buffers.copy(Buffer.from("x"), new Uint8Array(0)), 0)
    })

    it("concat makes memory of its own", () => {
      const source = Buffer.from("abc")
      const out = Buffers.concat(source)
      source.fill(0)
      assertBytes(out, "abc")
    })

    it("agree with the flat bytes", () => {
      fc.assert(fc.property(gatherList, fc.nat(60), (views, room) => {
        const expected = flat(views)
        assert.strictEqual(Buffers.byteLength(views), expected.byteLength)
        assertBytes(Buffers.concat(views), expected)
        const target = new Uint8Array(room).fill(0xaa)
        const count = Buffers.copy(views, target)
        assert.strictEqual(count, Math.min(room, expected.byteLength))
        assertBytes(target.subarray(0, count), expected.subarray(0, count))
        assert.isTrue(target.subarray(count).every((byte) => byte === 0xaa))
      }))
    })
  })

  describe("utf8", () => {
    it("encodes and decodes any text", () => {
      assertBytes(Buffers.utf8("h\u00e9 \u{1f600}"), Uint8Array.of(0x68, 0xc3, 0xa9, 0x20, 0xf0, 0x9f, 0x98, 0x80))
      assert.strictEqual(Buffers.toUtf8(Uint8Array.of(0x61, 0xff, 0x62)), "a\ufffdb")
      const scalar = fc.integer({ min: 0, max: 0x10_ffff }).filter((point) => point < 0xd800 || point > 0xdfff)
      fc.assert(fc.property(fc.array(scalar), (points) => {
        const text = String.fromCodePoint(...points)
        assert.strictEqual(Buffers.toUtf8(Buffers.utf8(text)), text)
      }))
    })

    it("keeps a byte order mark, which is text here", () => {
      assert.strictEqual(Buffers.toUtf8(Buffers.utf8("\ufeffid")), "\ufeffid")
    })

    it("keeps no state between calls", () => {
      assert.strictEqual(Buffers.toUtf8(Uint8Array.of(0xc3)), "\ufffd")
      assert.strictEqual(Buffers.toUtf8(Uint8Array.of(0xa9)), "\ufffd")
    })
  })

  describe("cursor", () => {
    it("starts at the front and knows its total", () => {
      const cursor = Buffers.cursor([Buffer.from("ab"), new Uint8Array(0), Buffer.from("cde")])
      assert.deepStrictEqual([cursor.total, cursor.transferred, cursor.remaining], [5, 0, 5])
      assertBytes(cursor.chunk(), "ab")
      assertBytes(cursor.chunk(1), "a")
      assert.strictEqual(cursor.chunk(0).byteLength, 0)
    })

    it("advances over view boundaries and ends with an empty chunk", () => {
      const cursor = Buffers.cursor([Buffer.from("ab"), new Uint8Array(0), Buffer.from("cde")])
      cursor.advance(3)
      assert.deepStrictEqual([cursor.transferred, cursor.remaining], [3, 2])
      assertBytes(cursor.chunk(), "de")
      cursor.advance(0)
      cursor.advance(2)
      assert.deepStrictEqual([cursor.transferred, cursor.remaining], [5, 0])
      assert.strictEqual(cursor.chunk().byteLength, 0)
      assert.strictEqual(cursor.copyTo(new Uint8Array(3)), 0)
    })

    it("lends the caller's memory, not a copy", () => {
      const bytes = Buffer.from("abc")
      const cursor = Buffers.cursor(bytes)
      bytes[0] = 0x7a
      assertBytes(cursor.chunk(), "zbc")
      assert.strictEqual(cursor.chunk().buffer, bytes.buffer)
    })

    it("does not see later changes of the list itself", () => {
      const list: Array<Uint8Array> = [Buffer.from("ab"), Buffer.from("cd")]
      const cursor = Buffers.cursor(list)
      list.length = 0
      const out = new Uint8Array(4)
      assert.strictEqual(cursor.copyTo(out), 4)
      assertBytes(out, "abcd")
    })

    it("refuses to advance by more than remains, by less than nothing and by fractions", () => {
      const cursor = Buffers.cursor(Buffer.from("abc"))
      cursor.advance(1)
      for (const count of [3, -1, 0.5, NaN, Infinity]) {
        assert.throws(() => cursor.advance(count), RangeError, "0 to 2")
      }
      assert.strictEqual(cursor.transferred, 1)
      assertBytes(cursor.chunk(), "bc")
    })

    it("is known by its guard", () => {
      assert.isTrue(Buffers.isCursor(Buffers.cursor([])))
      for (const value of [null, undefined, 1, "x", {}, new Uint8Array(1), []]) {
        assert.isFalse(Buffers.isCursor(value))
      }
    })

    it("throws a TypeError once a view was detached, shrunk, grown or moved", () => {
      const changes: ReadonlyArray<readonly [string, (buffer: ArrayBuffer) => void]> = [
        ["detached", (buffer) => structuredClone(buffer, { transfer: [buffer] })],
        ["transferred", (buffer) => buffer.transfer()],
        ["shrunk", (buffer) => buffer.resize(2)],
        ["grown", (buffer) => buffer.resize(8)],
        ["emptied", (buffer) => buffer.resize(0)]
      ]
      for (const [name, change] of changes) {
        const buffer = new ArrayBuffer(4, { maxByteLength: 8 })
        const cursor = Buffers.cursor([Buffer.from("ab"), new Uint8Array(buffer)])
        cursor.advance(3)
        change(buffer)
        assert.throws(() => cursor.chunk(), TypeError, "detached or resized", name)
        assert.throws(() => cursor.copyTo(new Uint8Array(8)), TypeError, "detached or resized", name)
        assert.strictEqual(cursor.transferred, 3)
      }
    })

    it("notices a DataView whose memory went away", () => {
      const buffer = new ArrayBuffer(4, { maxByteLength: 8 })
      const cursor = Buffers.cursor(new DataView(buffer))
      buffer.resize(2)
      assert.throws(() => cursor.chunk(), TypeError, "detached or resized")
    })

    it("notices only the views it still has to send", () => {
      const buffer = new ArrayBuffer(2, { maxByteLength: 2 })
      const cursor = Buffers.cursor([new Uint8Array(buffer), Buffer.from("cd")])
      cursor.advance(2)
      buffer.resize(0)
      assertBytes(cursor.chunk(), "cd")
    })

    it("agrees with a plain offset into the flat bytes", () => {
      const step = fc.oneof(
        fc.record({ do: fc.constant("advance" as const), count: fc.nat(12) }),
        fc.record({ do: fc.constant("copy" as const), count: fc.nat(30) }),
        fc.record({ do: fc.constant("chunk" as const), count: fc.nat(30) })
      )
      fc.assert(fc.property(gatherList, fc.array(step, { maxLength: 20 }), (views, steps) => {
        const expected = flat(views)
        const cursor = Buffers.cursor(views)
        let offset = 0
        for (const { count, do: action } of steps) {
          const rest = expected.subarray(offset)
          if (action === "advance") {
            const by = Math.min(count, rest.byteLength)
            cursor.advance(by)
            offset += by
          } else if (action === "copy") {
            const target = new Uint8Array(count)
            const copied = cursor.copyTo(target)
            assert.strictEqual(copied, Math.min(count, rest.byteLength))
            assertBytes(target.subarray(0, copied), rest.subarray(0, copied))
          } else {
            const chunk = cursor.chunk(count)
            assert.isTrue(chunk.byteLength <= count)
            assert.isTrue(chunk.byteLength > 0 || count === 0 || rest.byteLength === 0)
            assertBytes(chunk, rest.subarray(0, chunk.byteLength))
          }
          assert.strictEqual(cursor.total, expected.byteLength)
          assert.strictEqual(cursor.transferred, offset)
          assert.strictEqual(cursor.remaining, expected.byteLength - offset)
        }
      }))
    })
  })
})

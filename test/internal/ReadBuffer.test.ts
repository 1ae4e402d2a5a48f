import { assert, describe, it, vi } from "@effect/vitest"
import fc from "fast-check"
import { ReadBuffer } from "../../src/internal/core/ReadBuffer.ts"
import { assertBytes, pattern } from "../support/bytes.ts"

describe("ReadBuffer", () => {
  it("is empty at first", () => {
    const buffer = new ReadBuffer()
    assert.strictEqual(buffer.length, 0)
    assert.strictEqual(buffer.bytes().byteLength, 0)
    assert.strictEqual(buffer.peek(new Uint8Array(4)), 0)
    buffer.consume(0)
    assert.strictEqual(buffer.length, 0)
  })

  it("lets its memory go with the last byte", () => {
    const buffer = new ReadBuffer()
    buffer.append(pattern(100_000))
    buffer.consume(99_999)
    assert.isAbove(buffer.bytes().buffer.byteLength, 0)
    buffer.consume(1)
    assert.strictEqual(buffer.bytes().buffer.byteLength, 0)
  })

  it("has another version whenever it begins elsewhere", () => {
    const buffer = new ReadBuffer()
    const versions = [buffer.frontChanges]
    buffer.append(Buffer.from("abc"))
    buffer.consume(0)
    buffer.unread(Buffer.from(""))
    assert.strictEqual(buffer.frontChanges, versions[0])
    buffer.consume(1)
    versions.push(buffer.frontChanges)
    buffer.unread(Buffer.from("x"))
    versions.push(buffer.frontChanges)
    assert.strictEqual(new Set(versions).size, 3)
  })

  it("counts what has left it at the front", () => {
    const buffer = new ReadBuffer()
    buffer.append(Buffer.from("abcdef"))
    buffer.consume(4)
    buffer.unread(Buffer.from("cd"))
    assert.strictEqual(buffer.consumed, 2)
    assertBytes(buffer.bytes(), "cdef")
    buffer.consume(4)
    assert.strictEqual(buffer.consumed, 6)
  })

  it("puts bytes back where they were, or makes room for more, and copies them", () => {
    const buffer = new ReadBuffer()
    buffer.append(pattern(2000))
    buffer.consume(1500)
    const memory = buffer.bytes().buffer
    buffer.unread(pattern(1500))
    assert.strictEqual(buffer.bytes().buffer, memory)
    assertBytes(buffer.bytes(), pattern(2000))
    const front = Buffer.from("front")
    buffer.unread(front)
    front.fill(0)
    assertBytes(buffer.bytes(), Buffer.concat([Buffer.from("front"), pattern(2000)]))
  })

  it("copies what is appended", () => {
    const buffer = new ReadBuffer()
    const bytes = Buffer.from("abc")
    buffer.append(bytes)
    bytes.fill(0)
    assertBytes(buffer.bytes(), "abc")
  })

  it("does not grow without need while bytes pass through", () => {
    const buffer = new ReadBuffer()
    const chunk = pattern(1000)
    let largest = 0
    for (let i = 0; i < 5000; i++) {
      buffer.append(chunk)
      buffer.consume(i === 0 ? 999 : 1000)
      largest = Math.max(largest, buffer.bytes().buffer.byteLength)
    }
    assert.strictEqual(buffer.length, 1)
    assert.isAtMost(largest, 8192)
  })

  it("moves each byte at most once per doubling, however few are consumed at a time", () => {
    const typedArrays: Pick<Uint8Array, "copyWithin"> = Object.getPrototypeOf(Uint8Array.prototype)
    const moves = vi.spyOn(typedArrays, "copyWithin")
    const buffer = new ReadBuffer()
    buffer.append(pattern(10_000))
    for (let i = 0; i < 1000; i++) {
      buffer.consume(1)
      buffer.append(pattern(1))
    }
    assert.isAtMost(moves.mock.calls.length, 10)
    moves.mockRestore()
  })

  it("grows by doubling, so that collecting is not quadratic", () => {
    const buffer = new ReadBuffer()
    const chunk = pattern(1024)
    const memories = new Set<ArrayBufferLike>()
    for (let i = 0; i < 4096; i++) {
      buffer.append(chunk)
      memories.add(buffer.bytes().buffer)
    }
    assert.strictEqual(buffer.length, 4096 * 1024)
    assert.isAtMost(memories.size, 16)
  })

  it("agrees with a plain array", () => {
    const step = fc.oneof(
      fc.record({
        do: fc.constant("append" as const),
        size: fc.oneof(fc.nat(40), fc.integer({ min: 900, max: 3000 }))
      }),
      fc.record({ do: fc.constant("consume" as const), size: fc.oneof(fc.nat(60), fc.nat(3000)) }),
      fc.record({ do: fc.constant("peek" as const), size: fc.nat(3000) }),
      fc.record({ do: fc.constant("unread" as const), size: fc.oneof(fc.nat(40), fc.nat(3000)) })
    )
    fc.assert(fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const buffer = new ReadBuffer()
      let model = Buffer.alloc(0)
      let next = 0
      const fresh = (size: number) => Uint8Array.from({ length: size }, () => next++ % 251)
      for (const { do: action, size } of steps) {
        if (action === "append") {
          const bytes = fresh(size)
          buffer.append(bytes)
          model = Buffer.concat([model, bytes])
        } else if (action === "consume") {
          const count = Math.min(size, model.byteLength)
          buffer.consume(count)
          model = model.subarray(count)
        } else if (action === "unread") {
          const bytes = fresh(size)
          buffer.unread(bytes)
          model = Buffer.concat([bytes, model])
        } else {
          const target = new Uint8Array(size)
          const count = buffer.peek(target)
          assert.strictEqual(count, Math.min(size, model.byteLength))
          assertBytes(target.subarray(0, count), model.subarray(0, count))
        }
        assert.strictEqual(buffer.length, model.byteLength)
        assertBytes(buffer.bytes(), model)
      }
    }))
  })
})

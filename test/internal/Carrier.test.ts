/** The carrier of TLS over a connection that is no socket of Node: its chunks in both directions, and their memory. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Buffer } from "node:buffer"
import { BackingCarrier } from "../../src/internal/tls/Carrier.ts"
import * as Memory from "../../src/internal/tls/memory.ts"
import { WouldBlock } from "../../src/Transport.ts"
import { FakeBacking } from "../support/fakes.ts"

/** One turn of the event loop, after what streams have deferred. */
const turn = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** A carrier over a backing that has received the chunks in `incoming`. */
const received = (unread: string, ...chunks: ReadonlyArray<string>) => {
  const backing = new FakeBacking()
  const incoming = [...chunks]
  backing.readAnswer = (target) => {
    const next = incoming.shift()
    if (next === undefined) return WouldBlock
    target.set(Buffer.from(next))
    return next.length
  }
  const { stream } = new BackingCarrier(backing, Buffer.from(unread))
  const readable = () => {
    if (backing.events === undefined) throw new Error("the carrier is not attached")
    backing.events.readable()
  }
  return { incoming, readable, stream }
}

/** Memory that no other buffer shares, as `node:tls` allocates it for each write. */
const own = (text: string): Buffer => {
  const chunk = Buffer.allocUnsafeSlow(text.length)
  chunk.write(text)
  return chunk
}

const isFreed = ({ buffer }: Buffer): boolean => buffer instanceof ArrayBuffer && buffer.detached

describe("what TLS receives", () => {
  it.live("stays in order if more arrives while a chunk is being delivered", () =>
    Effect.gen(function*() {
      const { incoming, readable, stream } = received("")
      const seen: Array<string> = []
      stream.on("data", (chunk: Buffer) => {
        if (seen.length === 0) {
          incoming.push("two", "three")
          readable()
        }
        seen.push(chunk.toString())
      })
      yield* turn
      incoming.push("one")
      readable()
      assert.deepStrictEqual(seen, ["one", "two", "three"])
    }))

  it.live("is read as long as it is wanted, after the bytes that were received before", () =>
    Effect.gen(function*() {
      const { incoming, readable, stream } = received("early ", "one ")
      let seen = ""
      stream.on("data", (chunk: Buffer) => seen += chunk.toString())
      yield* turn
      assert.strictEqual(seen, "early one ")
      incoming.push("two ", "three ")
      readable()
      assert.strictEqual(seen, "early one two three ")
    }))

  it.live("is copied while it is not wanted", () =>
    Effect.gen(function*() {
      const { incoming, readable, stream } = received("")
      const seen: Array<string> = []
      stream.on("data", (chunk: Buffer) => seen.push(chunk.toString()))
      yield* turn
      stream.pause()
      incoming.push("one", "two", "six")
      readable()
      yield* turn
      assert.deepStrictEqual([...seen, ...incoming], [], "all of it is in the stream")
      stream.resume()
      yield* turn
      assert.deepStrictEqual(seen, ["one", "two", "six"])
    }))

  it.live("is not read when the stream is full", () =>
    Effect.gen(function*() {
      const { incoming, readable, stream } = received("")
      let count = 0
      stream.on("data", (chunk: Buffer) => count += chunk.byteLength)
      yield* turn
      stream.pause()
      const chunk = "x".repeat(60_000)
      incoming.push(chunk, chunk, chunk, chunk)
      readable()
      yield* turn
      assert.strictEqual(incoming.length, 2)
      stream.resume()
      yield* turn
      yield* turn
      assert.strictEqual(count, 240_000)
    }))
})

describe("what TLS sends", () => {
  it("keeps its memory until the last byte was taken", () => {
    const backing = new FakeBacking()
    let taken = ""
    let room = 3
    backing.writeAnswer = (source) => {
      if (room === 0) return WouldBlock
      const bytes = Buffer.from(source.chunk(room))
      taken += bytes.toString()
      room -= bytes.byteLength
      return bytes.byteLength
    }
    const { stream } = new BackingCarrier(backing, new Uint8Array(0))
    const chunks = [own("abcd"), own("efgh")]
    stream.cork()
    for (const chunk of chunks) stream.write(chunk)
    stream.uncork()
    assert.deepStrictEqual([taken, ...chunks.map(isFreed)], ["abc", false, false])
    room = 4
    backing.events?.writable()
    assert.deepStrictEqual([taken, ...chunks.map(isFreed)], ["abcdefg", false, false])
    room = 4
    backing.events?.writable()
    assert.deepStrictEqual([taken, ...chunks.map(isFreed)], ["abcdefgh", true, true])
  })
})

describe("memory that was cut into pieces", () => {
  const pieces = () => {
    const memory = Buffer.allocUnsafeSlow(12)
    return [memory.subarray(0, 4), memory.subarray(4, 8), memory.subarray(8, 12)] as const
  }

  it("is freed with the last of them, in whatever order they are given up", () => {
    const [first, second, third] = pieces()
    Memory.release(third)
    Memory.release(first)
    assert.isFalse(isFreed(second))
    Memory.release(second)
    assert.isTrue(isFreed(second))
  })

  it("is left to the garbage collector if another piece may be in use", () => {
    const [first, second, third] = pieces()
    const [other] = pieces()
    Memory.release(first)
    Memory.release(third)
    Memory.release(other)
    assert.deepStrictEqual([isFreed(second), isFreed(other)], [false, false])
    // The pieces that were released before it no longer count.
    Memory.release(second)
    assert.isFalse(isFreed(second))
  })
})

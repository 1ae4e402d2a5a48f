import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import fc from "fast-check"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, transferOf } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

describe("MemoryTransport", () => {
  describe("pair", () => {
    it.effect("carries bytes both ways at once", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        yield* Write.writeAll(left, text("to the right\n"))
        yield* Write.writeAll(right, text("to the left\n"))
        assertBytes(yield* Read.readUntil(left, "\n"), "to the left\n")
        assertBytes(yield* Read.readUntil(right, "\n"), "to the right\n")
        assert.deepStrictEqual(left.remoteAddress, right.localAddress)
        assert.deepStrictEqual(right.remoteAddress, left.localAddress)
      }))

    it.effect("holds no more than its capacity in each direction", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
        const writer = yield* start(Write.writeAll(left, pattern(25)))
        assert.strictEqual(left.bytesWritten, 10)
        assert.strictEqual(yield* right.readSome(new Uint8Array(4)), 4)
        yield* Effect.yieldNow
        assert.strictEqual(left.bytesWritten, 14)
        assert.isUndefined(writer.pollUnsafe())
        const rest = new Uint8Array(21)
        yield* Read.readExactly(right, rest)
        yield* Fiber.join(writer)
        assertBytes(rest, pattern(25).subarray(4))
      }))

    it.effect("moves at most chunk bytes an attempt", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ chunk: 3 })
        assert.strictEqual(yield* left.writeSome(text("abcdefgh")), 3)
        yield* Write.writeAll(left, text("defgh"))
        assert.strictEqual(yield* right.readSome(new Uint8Array(100)), 3)
        assert.strictEqual(yield* Read.readAtLeast(right, new Uint8Array(100), 4), 5)
      }))

    it.effect("the same seed gives the same sizes, another seed others", () =>
      Effect.gen(function*() {
        const sizes = (seed: number) =>
          Effect.scoped(Effect.gen(function*() {
            const [left, right] = yield* MemoryTransport.pair({ seed, chunk: 100, capacity: 1000 })
            const out: Array<number> = []
            for (let i = 0; i < 20; i++) {
              out.push(yield* left.writeSome(pattern(50)), yield* right.readSome(new Uint8Array(50)))
            }
            return out
          }))
        const first = yield* sizes(1)
        assert.deepStrictEqual(yield* sizes(1), first)
        assert.notDeepEqual(yield* sizes(2), first)
        assert.isAbove(new Set(first).size, 5)
        assert.isTrue(first.every((size) => size >= 1 && size <= 50))
      }))

    it.effect("half-closes either way", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        yield* Write.writeAll(left, text("last"))
        yield* left.shutdownWrite
        assertBytes(yield* Read.readAll(right), "last")
        yield* Write.writeAll(right, text("answer"))
        yield* right.shutdownWrite
        assertBytes(yield* Read.readAll(left), "answer")
        assert.strictEqual(ending(yield* Effect.exit(right.readSome(new Uint8Array(1)))), "Done")
      }))

    it.effect("close delivers what was taken, abort cuts it off with a reset behind it", () =>
      Effect.gen(function*() {
        const closed = yield* MemoryTransport.pair()
        yield* Write.writeAll(closed[0], text("taken"))
        yield* closed[0].close
        assertBytes(yield* Read.readAll(closed[1]), "taken")
        assert.strictEqual(ending(yield* Effect.exit(closed[1].writeSome(text("x")))), "BrokenPipe")

        const aborted = yield* MemoryTransport.pair()
        const reader = yield* start(Read.readAll(aborted[1]))
        const writer = yield* start(Write.writeAll(aborted[1], pattern(100_000)))
        yield* aborted[0].abort
        assert.strictEqual(ending(yield* Fiber.await(reader)), "ConnectionReset")
        assert.strictEqual(ending(yield* Fiber.await(writer)), "ConnectionReset")
      }))

    it.effect("sizes that make no sense are defects", () =>
      Effect.gen(function*() {
        for (const value of [0, -1, 0.5, NaN, Infinity]) {
          const capacity = yield* Effect.exit(Effect.scoped(MemoryTransport.pair({ capacity: value })))
          assert.instanceOf(defect(capacity), RangeError, `capacity ${value}`)
          if (value === Infinity) continue
          const chunk = yield* Effect.exit(Effect.scoped(MemoryTransport.clogged({ chunk: value })))
          assert.instanceOf(defect(chunk), RangeError, `chunk ${value}`)
        }
      }))
  })

  describe("clogged", () => {
    it.effect("the first end cannot write until the second has read", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.clogged({ capacity: 8 })
        const cut = yield* start(Write.writeAll(left, text("never")))
        yield* Fiber.interrupt(cut)
        const exit = yield* Fiber.await(cut)
        assert.deepStrictEqual(transferOf(exit), { transferred: 0, total: 5, guarantee: "total" })
        const writer = yield* start(Cancellation.partial(Write.writeAll(left, text("hello"))))
        assert.strictEqual(left.bytesWritten, 0)
        const zeros = new Uint8Array(8).fill(1)
        yield* Read.readExactly(right, zeros)
        assertBytes(zeros, new Uint8Array(8))
        yield* Fiber.join(writer)
        const hello = new Uint8Array(5)
        yield* Read.readExactly(right, hello)
        assertBytes(hello, "hello")
      }))

    it.effect("the second end can write, and closing the clogged one does not hang", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.clogged()
        yield* Write.writeAll(right, text("hi"))
        assert.strictEqual(yield* left.readSome(new Uint8Array(9)), 2)
        yield* left.close
        assert.strictEqual((yield* Read.readAll(right)).byteLength, 65_536)
      }))
  })

  describe("random", () => {
    it("is the same for the same seed, spread out, and from 0 to 1", () => {
      const next = MemoryTransport.random(7)
      const again = MemoryTransport.random(7)
      const buckets = new Array<number>(10).fill(0)
      for (let i = 0; i < 10_000; i++) {
        const value = next()
        assert.strictEqual(again(), value)
        assert.isTrue(value >= 0 && value < 1)
        buckets[Math.floor(value * 10)]! += 1
      }
      assert.isTrue(buckets.every((count) => count > 850 && count < 1150), buckets.join())
      assert.notStrictEqual(MemoryTransport.random(8)(), MemoryTransport.random(7)())
    })
  })

  describe("layer", () => {
    const address = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:7000")
    const unix = NetAddress.unixPathAddress("/nowhere/on/disk.sock")

    const roundTrip = (target: Parameters<typeof StreamSocket.connect>[0], bound: NetAddress.SocketAddress) =>
      Effect.scoped(Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(bound)
        const client = yield* StreamSocket.connect(target)
        const server = yield* acceptor.accept
        yield* Write.writeAll(client, text("ping\n"))
        assertBytes(yield* Read.readUntil(server, "\n"), "ping\n")
        yield* server.close
        assertBytes(yield* Read.readAll(client), "")
      }))

    it.effect("connects by address, by name and by path", () =>
      Effect.gen(function*() {
        yield* roundTrip(address, address)
        yield* roundTrip("127.0.0.1:7000", address)
        yield* roundTrip("localhost:7000", address)
        yield* roundTrip({ host: "localhost", port: 7000 }, address)
        yield* roundTrip(unix, unix)
      }).pipe(Effect.provide(MemoryTransport.layer)))

    it.effect("gives out its ports again, except those of listeners", () =>
      Effect.gen(function*() {
        const anyPort = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0")
        const first = yield* Acceptor.listen(anyPort)
        const second = yield* Acceptor.listen(anyPort)
        for (let i = 0; i < 16_400; i++) {
          const client = yield* Effect.scoped(StreamSocket.connect(first.address))
          assert.notDeepEqual(client.localAddress, first.address)
          assert.notDeepEqual(client.localAddress, second.address)
          yield* Effect.scoped(first.accept)
        }
      }).pipe(Effect.scoped, Effect.provide(MemoryTransport.layer)))

    it.effect("where nobody listens a port refuses and a path is not there", () =>
      Effect.gen(function*() {
        assert.strictEqual(ending(yield* Effect.exit(StreamSocket.connect(address))), "ConnectionRefused")
        assert.strictEqual(ending(yield* Effect.exit(StreamSocket.connect(unix))), "AddressNotAvailable")
        assert.strictEqual(ending(yield* Effect.exit(StreamSocket.connect("elsewhere:1"))), "NameResolution")
      }).pipe(Effect.provide(MemoryTransport.layer)))

    it.effect("every layer is a network of its own", () =>
      Effect.gen(function*() {
        yield* Acceptor.listen(address)
        const other = StreamSocket.connect(address).pipe(
          Effect.provide(MemoryTransport.layerWith({ capacity: 10 })),
          Effect.scoped,
          Effect.exit
        )
        assert.strictEqual(ending(yield* other), "ConnectionRefused")
      }).pipe(Effect.provide(MemoryTransport.layerWith())))

    it.effect("its options hold for its connections", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(address)
        const client = yield* StreamSocket.connect(address)
        yield* acceptor.accept
        assert.strictEqual(yield* client.writeSome(pattern(100)), 10)
      }).pipe(Effect.provide(MemoryTransport.layerWith({ capacity: 10 }))))
  })

  it("never loses, repeats or moves a byte, whatever the sizes", () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          capacity: fc.integer({ min: 1, max: 300 }),
          chunk: fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined }),
          seed: fc.option(fc.nat(), { nil: undefined }),
          writes: fc.array(fc.nat(200), { maxLength: 12 }),
          reads: fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 5 })
        }),
        ({ capacity, chunk, reads, seed, writes }) =>
          Effect.runPromise(Effect.scoped(Effect.gen(function*() {
            const [left, right] = yield* MemoryTransport.pair({ capacity, chunk, seed })
            const all = pattern(writes.reduce((sum, size) => sum + size, 0))
            yield* start(Effect.gen(function*() {
              let at = 0
              for (const size of writes) {
                assert.strictEqual(yield* Write.writeAll(left, all.subarray(at, at + size)), size)
                at += size
              }
              yield* left.shutdownWrite
            }))
            const got: Array<Uint8Array> = []
            let last: string | undefined
            for (let i = 0; last === undefined; i++) {
              const target = new Uint8Array(reads[i % reads.length]!)
              const exit = yield* Effect.exit(right.readSome(target))
              assert.isAtMost(left.bytesWritten - right.bytesRead, capacity)
              if (exit._tag === "Success") got.push(target.subarray(0, exit.value))
              else last = ending(exit)
            }
            assert.strictEqual(last, "Done")
            assertBytes(Buffer.concat(got), all)
          })))
      ),
      { numRuns: 60 }
    ))
})

/** `copy` and `relay`: every byte once, in order, whatever ends them and when. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import { createHash } from "node:crypto"
import { Acceptor, Buffers, Cancellation, Read, Relay, SocketError, StreamSocket, Write } from "../../src/index.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { start, turns } from "../support/waiting.ts"

type Socket = StreamSocket.StreamSocket

const dice = (seed: number) => {
  const next = MemoryTransport.random(seed)
  return {
    int: (least: number, most: number): number => least + Math.floor(next() * (most - least + 1)),
    of: <A>(...values: readonly [A, ...ReadonlyArray<A>]): A => values[Math.floor(next() * values.length)] ?? values[0]
  }
}

const seeds = (count: number): ReadonlyArray<number> =>
  process.env["SEED"] === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(process.env["SEED"])]

/** Runs a case of each seed; a failure names its own, and `SEED=<seed>` runs that one alone. */
const forSeeds = (count: number, run: (seed: number) => Effect.Effect<void, unknown, Scope.Scope>) =>
  Effect.forEach(
    seeds(count),
    (seed) =>
      Effect.catchCause(Effect.scoped(run(seed)), (cause) =>
        Effect.die(new Error(`SEED=${seed}\n${Cause.pretty(cause)}`))),
    { discard: true }
  )

/** client <-> left, right <-> server: what is between left and right is for the test to do. */
const line = (options: MemoryTransport.Options = { capacity: 16 }) =>
  Effect.gen(function*() {
    const [client, left] = yield* MemoryTransport.pair({ ...options, linger: 0 })
    const [right, server] = yield* MemoryTransport.pair({ ...options, linger: 0 })
    return { client, left, right, server }
  })

/** A connection of odd sizes, its behaviour fixed by the seed. */
const oddLine = (random: ReturnType<typeof dice>) =>
  line({ capacity: random.int(1, 40), chunk: random.int(1, 20), seed: random.int(1, 1_000_000) })

const send = (socket: Socket, message: Uint8Array) =>
  Effect.andThen(Write.writeAll(socket, message), socket.shutdownWrite)

const receiveAll = (socket: StreamSocket.ReadStream) => Read.readAll(socket, { max: 1_000_000 })

const exactly = (socket: StreamSocket.ReadStream, count: number) =>
  Effect.gen(function*() {
    const target = new Uint8Array(count)
    if (count > 0) yield* Read.readExactly(socket, target)
    return target
  })

/** A stream that is none of ours. */
const plain = (socket: Socket): Relay.DuplexStream => ({
  readSome: (target) => socket.readSome(target),
  writeSome: (source) => socket.writeSome(source),
  shutdownWrite: socket.shutdownWrite
})

const policies = {
  terminal: Cancellation.terminal,
  partial: Cancellation.partial,
  total: Cancellation.total()
} as const

const types = ["terminal", "partial", "total"] as const

describe("copy", () => {
  it.effect("moves every byte in order, with buffers and connections of any size", () =>
    forSeeds(80, (seed) =>
      Effect.gen(function*() {
        const random = dice(seed)
        const { client, left, right, server } = yield* oddLine(random)
        const message = pattern(random.int(0, 400))
        yield* start(send(client, message))
        const received = yield* start(receiveAll(server))
        const count = yield* Relay.copy(
          random.of(left, plain(left)),
          random.of(right, plain(right)),
          { bufferSize: random.int(1, 100) }
        )
        assert.strictEqual(count, message.byteLength)
        assert.strictEqual(right.state.write, "open")
        yield* right.shutdownWrite
        assertBytes(yield* Fiber.join(received), message)
      })))

  it.effect("takes its arguments in either order, and a stream to itself is an echo", () =>
    Effect.gen(function*() {
      const [client, socket] = yield* MemoryTransport.pair()
      yield* send(client, pattern(1000))
      assert.strictEqual(yield* Relay.copy(socket, { bufferSize: 7 })(socket), 1000)
      assertBytes(yield* exactly(client, 1000), pattern(1000))
      assert.strictEqual(yield* Relay.copy(socket)(socket), 0)
    }))

  it.effect("a buffer of no bytes, or of half a byte, is a defect", () =>
    Effect.gen(function*() {
      const { left, right } = yield* line()
      for (const bufferSize of [0, -1, 1.5, Number.NaN]) {
        assert.instanceOf(defect(yield* Effect.exit(Relay.copy(left, right, { bufferSize }))), RangeError)
        assert.instanceOf(defect(yield* Effect.exit(Relay.relay(left, right, { bufferSize }))), RangeError)
      }
    }))

  it.effect("a receiver that does not read stops the reader", () =>
    Effect.gen(function*() {
      const { client, left, right, server } = yield* line({ capacity: 16 })
      const message = pattern(1000)
      yield* start(send(client, message))
      const fiber = yield* start(Relay.copy(left, right, { bufferSize: 10 }))
      yield* turns()
      // 16 have left, and one buffer waits for room.
      assert.deepStrictEqual([left.bytesRead, right.bytesWritten], [26, 16])
      assertBytes(yield* exactly(server, 1000), message)
      assert.strictEqual(yield* Fiber.join(fiber), 1000)
    }))

  it.effect("one buffer serves the whole copy", () =>
    Effect.gen(function*() {
      const backing = new FakeBacking()
      const targets = new Set<unknown>()
      let reads = 0
      backing.readAnswer = (target) => {
        targets.add(target.buffer)
        return ++reads > 100 ? 0 : Math.min(target.byteLength, 1 + reads)
      }
      const { right } = yield* line({ capacity: 100_000 })
      yield* Relay.copy(StreamSocket.make(backing), right)
      assert.deepStrictEqual([targets.size, reads], [1, 101])
    }))

  for (
    const [name, wrap] of [["our streams", (socket: Socket) => socket], ["streams that are not ours", plain]] as const
  ) {
    describe(`over ${name}`, () => {
      it.effect("what a composed read has left over comes first", () =>
        Effect.gen(function*() {
          const { client, left, right, server } = yield* line({ capacity: 1000 })
          const from = wrap(left)
          yield* send(client, Buffers.utf8("CONNECT\r\nand the rest"))
          yield* Read.readUntil(from, "\r\n")
          assert.strictEqual(yield* Relay.copy(from, wrap(right)), 12)
          assertBytes(yield* exactly(server, 12), "and the rest")
        }))

      it.effect("a read that fails: the count is of all that was taken", () =>
        Effect.gen(function*() {
          const { client, left, right, server } = yield* line()
          const fiber = yield* start(Relay.copy(wrap(left), wrap(right)))
          yield* Write.writeAll(client, pattern(12))
          yield* turns()
          yield* client.abort
          const error = failure(yield* Fiber.await(fiber))
          assert.deepStrictEqual([error.reason._tag, error.operation, error.transferred], [
            "ConnectionReset",
            "copy",
            12
          ])
          assertBytes(yield* exactly(server, 12), pattern(12))
          assert.strictEqual(right.state.write, "open")
        }))

      it.effect("a write that fails: what was not taken is unread again", () =>
        Effect.gen(function*() {
          const [client, left] = yield* MemoryTransport.pair()
          const { socket: right, written } = yield* ScriptedStream.make({
            writes: [
              ScriptedStream.take(10),
              ScriptedStream.take(3),
              ScriptedStream.fail(SocketError.Reason.BrokenPipe())
            ]
          })
          yield* send(client, pattern(25))
          const from = wrap(left)
          const error = failure(yield* Effect.exit(Relay.copy(from, wrap(right), { bufferSize: 10 })))
          assert.deepStrictEqual([error.reason._tag, error.operation, error.transferred], ["BrokenPipe", "copy", 13])
          assertBytes(yield* written, pattern(25).subarray(0, 13))
          assertBytes(yield* receiveAll(from), pattern(25).subarray(13))
        }))
    })
  }

  it.effect("a source that is closed meanwhile has no use for the bytes", () =>
    Effect.gen(function*() {
      const { client, left, right } = yield* line()
      yield* start(send(client, pattern(40)))
      const fiber = yield* start(Relay.copy(left, right))
      yield* turns()
      yield* left.close
      assert.isUndefined(fiber.pollUnsafe())
      yield* right.abort
      const error = failure(yield* Fiber.await(fiber))
      assert.deepStrictEqual([error.reason._tag, error.transferred], ["Closed", 16])
    }))

  it.effect("a stream that answers no bytes is a defect, and no endless loop", () =>
    Effect.gen(function*() {
      const { right } = yield* line()
      const exit = yield* Effect.exit(Relay.copy({ readSome: () => Effect.succeed(0) }, right))
      assert.include(defect(exit).message, "answered 0")
    }))
})

// ---- ends in the middle

/** A copy of which the server has read `taken` bytes and no more, so that it stands somewhere. */
const somewhere = (random: ReturnType<typeof dice>, cut: <A, E>(copy: Effect.Effect<A, E>) => Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const ends = yield* oddLine(random)
    const message = pattern(random.int(1, 300))
    const from = random.of<Relay.DuplexStream>(ends.left, plain(ends.left))
    const bufferSize = random.int(1, 60)
    const source = yield* start(send(ends.client, message))
    const taken = random.int(0, message.byteLength)
    const reading = yield* start(exactly(ends.server, taken))
    const fiber = yield* start(cut(Relay.copy(from, ends.right, { bufferSize })))
    // From the first turn to when everything stands still.
    for (let moment = random.int(0, 60); moment > 0; moment--) yield* Effect.yieldNow
    if (random.int(0, 1) === 0) yield* turns(3)
    return { ...ends, from, bufferSize, message, source, reading, fiber, taken }
  })

type Somewhere = Effect.Success<ReturnType<typeof somewhere>>

/** What the server has got so far; if it was not all that it asked for, it is nothing, and everything stays unread. */
const stopReading = ({ reading }: Somewhere) =>
  Effect.map(
    Effect.andThen(Fiber.interrupt(reading), Fiber.await(reading)),
    (exit) => Exit.isSuccess(exit) ? exit.value : new Uint8Array(0)
  )

/** All that was taken is at the server, the rest is unread, and another copy goes on there. */
const accounted = (place: Somewhere, soFar: Uint8Array) =>
  Effect.gen(function*() {
    const { from, left, message, right, server } = place
    const taken = right.bytesWritten
    if (right.state.write === "torn") {
      const atServer = Buffers.concat([soFar, yield* exactly(server, taken - soFar.byteLength)])
      assertBytes(atServer, message.subarray(0, taken))
      assertBytes(yield* receiveAll(from), message.subarray(taken))
    } else {
      const receiving = yield* start(receiveAll(server))
      const count = yield* Relay.copy(from, right, { bufferSize: place.bufferSize })
      assert.strictEqual(count, message.byteLength - taken)
      yield* right.shutdownWrite
      assertBytes(Buffers.concat([soFar, yield* Fiber.join(receiving)]), message)
    }
    assert.strictEqual(left.bytesRead, message.byteLength)
    yield* Fiber.join(place.source)
  })

describe("copy, interrupted at any moment", () => {
  for (const policy of types) {
    it.effect(`under ${policy}, it says what was taken, and another copy goes on exactly there`, () =>
      forSeeds(120, (seed) =>
        Effect.gen(function*() {
          const place = yield* somewhere(dice(seed), policies[policy])
          const { fiber, left, right, server } = place
          const { bytesRead } = left
          const { bytesWritten } = right
          fiber.interruptUnsafe()
          const soFar = [yield* stopReading(place)]
          // Only total may have to wait for room.
          for (yield* turns(1); fiber.pollUnsafe() === undefined; yield* turns(1)) {
            assert.strictEqual(policy, "total")
            soFar.push(yield* exactly(server, 1))
          }
          const exit = yield* Fiber.await(fiber)
          const [transferred, total] = [right.bytesWritten, left.bytesRead]
          if (Exit.isSuccess(exit)) {
            assert.deepStrictEqual([transferred, total], [exit.value, place.message.byteLength])
          } else {
            const isTorn = right.state.write === "torn"
            assert.isTrue(!isTorn || policy === "terminal")
            const guarantee = isTorn ? "terminal" : transferred === 0 ? "total" : "partial"
            assert.deepStrictEqual(transferOf(exit), { transferred, total, guarantee })
            if (policy === "total") {
              // Nothing is read any more. A buffer of which nothing had left went back, any other one left whole.
              assert.strictEqual(total, bytesRead)
              assert.include([bytesWritten, total], transferred)
            }
          }
          yield* accounted(place, Buffers.concat(soFar))
        })))

    it.effect(`asked for ${policy}, it says what was taken, and another copy goes on exactly there`, () =>
      forSeeds(120, (seed) =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const place = yield* somewhere(dice(seed), Cancellation.withSignal(signal))
          const { fiber, left, right } = place
          const { ended, continued } = yield* signal.emit(policy)
          if (ended.length === 0) {
            // It was between two operations, it had ended, or it is in the middle of a buffer and cannot keep the guarantee.
            if (continued.length > 0) assert.strictEqual(policy, "total")
            fiber.interruptUnsafe()
            yield* Fiber.await(fiber)
          } else {
            const error = failure(yield* Fiber.await(fiber))
            const [transferred, total] = [right.bytesWritten, left.bytesRead]
            const type = right.state.write === "torn" ? "terminal" : transferred === 0 ? "total" : "partial"
            assert.deepStrictEqual(error.reason, SocketError.Reason.OperationAborted({ type, transferred, total }))
            assert.deepStrictEqual([error.operation, error.transferred], ["copy", transferred])
            assert.isTrue(type !== "terminal" || policy === "terminal")
          }
          yield* accounted(place, yield* stopReading(place))
        })))
  }

  it.effect("a deadline is told as one", () =>
    Effect.gen(function*() {
      const { client, left, right } = yield* line()
      yield* start(send(client, pattern(40)))
      const copying = Cancellation.cancelAfter(Relay.copy(left, right), "1 second", "partial")
      const fiber = yield* start(copying)
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.await(fiber)
      assert.deepStrictEqual(Cancellation.outcome(exit), {
        _tag: "Cancelled",
        by: "deadline",
        guarantee: "partial",
        transferred: 16,
        total: left.bytesRead
      })
    }))
})

describe("copy, traced", () => {
  it.effect("a copy is one span, and a relay two, however many buffers it takes", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.Span> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const { client, left, right, server } = yield* line({ capacity: 5 })
      yield* start(send(client, pattern(100)))
      yield* start(send(server, pattern(40)))
      yield* Effect.all([start(receiveAll(server)), start(receiveAll(client))])
      yield* Effect.withTracer(Relay.copy(left, right), tracer)
      yield* Effect.withTracer(Relay.relay(left, right), tracer)
      assert.deepStrictEqual(
        spans.map((span) => [span.name, span.attributes.get("effect_asio.transferred")]),
        [["effect-asio.copy", 100], ["effect-asio.copy", 0], ["effect-asio.copy", 40]]
      )
    }))
})

// ---- both ways

describe("relay", () => {
  it.effect("moves every byte of both directions, passes both ends on, and counts", () =>
    forSeeds(60, (seed) =>
      Effect.gen(function*() {
        const random = dice(seed)
        const { client, left, right, server } = yield* oddLine(random)
        const [up, down] = [pattern(random.int(0, 300)), pattern(random.int(0, 300)).toReversed()]
        const peers = yield* start(Effect.all([
          send(client, up),
          send(server, down),
          receiveAll(client),
          receiveAll(server)
        ], { concurrency: "unbounded" }))
        const options = { bufferSize: random.int(1, 60), idle: random.of(undefined, "1 minute" as const) }
        const [a, b] = [random.of(left, plain(left)), random.of(right, plain(right))]
        const counts = yield* random.of(Relay.relay(a, b, options), Relay.relay(b, options)(a))
        assert.deepStrictEqual(counts, { sent: up.byteLength, received: down.byteLength })
        const [, , atClient, atServer] = yield* Fiber.join(peers)
        assertBytes(atServer, up)
        assertBytes(atClient, down)
        for (const socket of [left, right]) {
          assert.deepStrictEqual(socket.state, { socket: "open", read: "ended", write: "shutdown" })
        }
      })))

  for (const first of ["client", "server"] as const) {
    it.effect(`when the ${first} has ended its side, it still gets the answer`, () =>
      Effect.gen(function*() {
        const { client, left, right, server } = yield* line()
        const [asking, answering] = first === "client" ? [client, server] : [server, client]
        const fiber = yield* start(Relay.relay(left, right))
        yield* send(asking, Buffers.utf8("question"))
        assertBytes(yield* receiveAll(answering), "question")
        yield* turns()
        assert.isUndefined(fiber.pollUnsafe())
        yield* start(send(answering, pattern(100)))
        assertBytes(yield* receiveAll(asking), pattern(100))
        assert.deepStrictEqual(
          yield* Fiber.join(fiber),
          first === "client" ? { sent: 8, received: 100 } : { sent: 100, received: 8 }
        )
      }))

    it.effect(`when the ${first} is reset, both directions end, and the streams have the counts`, () =>
      Effect.gen(function*() {
        const { client, left, right, server } = yield* line()
        const fiber = yield* start(Relay.relay(left, right))
        yield* Write.writeAll(client, pattern(5))
        yield* Write.writeAll(server, pattern(7))
        yield* turns()
        yield* (first === "client" ? client : server).abort
        const error = failure(yield* Fiber.await(fiber))
        assert.deepStrictEqual(
          [error.reason._tag, error.operation, error.transferred],
          ["ConnectionReset", "relay", first === "client" ? 5 : 7]
        )
        assert.deepStrictEqual([right.bytesWritten, left.bytesWritten], [5, 7])
      }))
  }

  /** The way to the client is full in the middle of a buffer. */
  const halfFull = (run: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>, options?: Relay.Options) =>
    Effect.gen(function*() {
      const ends = yield* line({ capacity: 16 })
      const fiber = yield* start(run(Relay.relay(ends.left, ends.right, options)))
      yield* Write.writeAll(ends.server, pattern(21).subarray(0, 5))
      yield* turns()
      yield* Write.writeAll(ends.server, pattern(21).subarray(5))
      yield* turns()
      assert.deepStrictEqual([ends.right.bytesRead, ends.left.bytesWritten], [21, 16])
      return { ...ends, fiber }
    })

  const runs = { ...policies, uninterruptible: Effect.uninterruptible }

  for (const [name, run] of Object.entries(runs)) {
    it.effect(`a failure stops the other direction at once and tears nothing: ${name}`, () =>
      Effect.gen(function*() {
        const { client, fiber, left, right } = yield* halfFull(run)
        yield* right.shutdownWrite
        yield* Write.writeAll(client, pattern(3))
        const error = failure(yield* Fiber.await(fiber))
        assert.deepStrictEqual([error.reason._tag, error.transferred], ["BrokenPipe", 0])
        assert.deepStrictEqual([left.state.write, left.bytesWritten], ["open", 16])
        // What each direction had read and nobody has taken.
        assertBytes(yield* exactly(left, 3), pattern(3))
        assertBytes(yield* exactly(right, 5), pattern(21).subarray(16))
      }))

    it.effect(`silence in the middle of a buffer tears nothing either: ${name}`, () =>
      Effect.gen(function*() {
        const { client, fiber, left, right } = yield* halfFull(run, { idle: "10 seconds" })
        yield* TestClock.adjust("10 seconds")
        const error = failure(yield* Fiber.await(fiber))
        assert.deepStrictEqual([error.reason._tag, error.operation, error.transferred], ["TimedOut", "relay", 16])
        assert.strictEqual(left.state.write, "open")
        assertBytes(yield* exactly(client, 16), pattern(16))
        assertBytes(yield* exactly(right, 5), pattern(21).subarray(16))
      }))
  }

  it.effect("interrupted in both directions under partial, another relay goes on exactly there", () =>
    forSeeds(60, (seed) =>
      Effect.gen(function*() {
        const random = dice(seed)
        const { client, left, right, server } = yield* oddLine(random)
        const [up, down] = [pattern(random.int(0, 300)), pattern(random.int(0, 300)).toReversed()]
        const peers = yield* start(Effect.all([
          send(client, up),
          send(server, down),
          receiveAll(client),
          receiveAll(server)
        ], { concurrency: "unbounded" }))
        const relay = Relay.relay(left, random.of(right, plain(right)), { bufferSize: random.int(1, 60) })
        for (let cuts = random.int(1, 20); cuts > 0; cuts--) {
          const fiber = yield* start(Cancellation.partial(relay))
          for (let moment = random.int(0, 20); moment > 0; moment--) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
        }
        yield* relay
        const [, , atClient, atServer] = yield* Fiber.join(peers)
        assertBytes(atServer, up)
        assertBytes(atClient, down)
        assert.deepStrictEqual([left.bytesRead, right.bytesWritten], [up.byteLength, up.byteLength])
      })))

  it.effect("a request ends both directions", () =>
    Effect.gen(function*() {
      const { left, right } = yield* line()
      const signal = Cancellation.makeSignal()
      const fiber = yield* start(Cancellation.withSignal(Relay.relay(left, right), signal))
      const { ended } = yield* signal.emit("total")
      assert.deepStrictEqual(ended.map(({ operation }) => operation), ["readSome", "readSome"])
      assert.deepStrictEqual(
        failure(yield* Fiber.await(fiber)).reason,
        SocketError.Reason.OperationAborted({ type: "total", transferred: 0, total: 0 })
      )
    }))

  it.effect("interrupted under total, it writes what it has read in both directions, and then ends", () =>
    Effect.gen(function*() {
      const { client, left, right, server } = yield* line({ capacity: 16 })
      const fiber = yield* start(Cancellation.total(Relay.relay(left, right)))
      for (const [from, to] of [[0, 5], [5, 20], [20, 30]] as const) {
        yield* Write.writeAll(client, pattern(30).subarray(from, to))
        yield* Write.writeAll(server, pattern(30).subarray(from, to))
        yield* turns()
      }
      // Of the second buffer, 4 bytes have not left yet.
      assert.deepStrictEqual([left.bytesRead, right.bytesRead], [20, 20])
      fiber.interruptUnsafe()
      yield* turns()
      assert.isUndefined(fiber.pollUnsafe())
      assertBytes(yield* exactly(client, 20), pattern(20))
      yield* turns()
      assert.isUndefined(fiber.pollUnsafe())
      assertBytes(yield* exactly(server, 20), pattern(20))
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
      assert.deepStrictEqual([left.state.write, right.state.write], ["open", "open"])
    }))
})

describe("relay, idle", () => {
  it.effect("times out when nothing has moved for so long, and not before", () =>
    Effect.gen(function*() {
      const { left, right } = yield* line()
      const fiber = yield* start(Relay.relay(left, right, { idle: "10 seconds" }))
      yield* TestClock.adjust(9_999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      const error = failure(yield* Fiber.await(fiber))
      assert.deepStrictEqual([error.reason._tag, error.transferred], ["TimedOut", 0])
    }))

  for (const sender of ["client", "server"] as const) {
    it.effect(`bytes of the ${sender} alone keep it alive`, () =>
      Effect.gen(function*() {
        const ends = yield* line()
        const fiber = yield* start(Relay.relay(ends.left, ends.right, { idle: "10 seconds" }))
        for (let i = 0; i < 10; i++) {
          yield* TestClock.adjust("9 seconds")
          yield* Write.writeAll(ends[sender], Uint8Array.of(i))
          yield* turns()
        }
        yield* TestClock.adjust(9_999)
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        const error = failure(yield* Fiber.await(fiber))
        assert.deepStrictEqual([error.reason._tag, error.transferred], ["TimedOut", 10])
      }))
  }

  it.effect("a receiver that takes one buffer slowly, byte by byte, is not idle", () =>
    Effect.gen(function*() {
      const { client, left, right, server } = yield* line({ capacity: 16 })
      const fiber = yield* start(Relay.relay(left, right, { idle: "10 seconds" }))
      yield* Write.writeAll(client, pattern(16))
      yield* Write.writeAll(client, pattern(16))
      yield* turns()
      assert.strictEqual(left.bytesRead, 32)
      for (let i = 0; i < 16; i++) {
        yield* TestClock.adjust("9 seconds")
        yield* exactly(server, 1)
        yield* turns()
        assert.isUndefined(fiber.pollUnsafe())
      }
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(failure(yield* Fiber.await(fiber)).transferred, 32)
    }))

  it.effect("bytes that arrive while the receiver takes none have moved, too", () =>
    Effect.gen(function*() {
      const { client, left, right } = yield* line({ capacity: 16 })
      const fiber = yield* start(Relay.relay(left, right, { idle: "10 seconds" }))
      yield* Write.writeAll(client, pattern(16))
      yield* TestClock.adjust("9 seconds")
      yield* Write.writeAll(client, pattern(16))
      yield* turns()
      assert.deepStrictEqual([left.bytesRead, right.bytesWritten], [32, 16])
      yield* TestClock.adjust(9_999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "TimedOut")
    }))

  it.effect("also while one direction has ended", () =>
    Effect.gen(function*() {
      const { client, left, right } = yield* line()
      const fiber = yield* start(Relay.relay(left, right, { idle: "10 seconds" }))
      yield* TestClock.adjust("5 seconds")
      yield* send(client, pattern(3))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(failure(yield* Fiber.await(fiber)).reason._tag, "TimedOut")
      assert.strictEqual(right.state.write, "shutdown")
    }))

  it.effect("a relay that is over leaves no timer and no fiber behind, however it ends", () =>
    leavingNothing(Effect.gen(function*() {
      const ends = Effect.gen(function*() {
        const { client, left, right, server } = yield* line()
        const fiber = yield* start(Relay.relay(left, right, { idle: "1 hour" }))
        return { client, server, fiber }
      })
      const done = yield* ends
      yield* Effect.all([done.client.shutdownWrite, done.server.shutdownWrite])
      assert.deepStrictEqual(yield* Fiber.join(done.fiber), { sent: 0, received: 0 })
      const cut = yield* ends
      yield* Fiber.interrupt(cut.fiber)
      const failed = yield* ends
      yield* failed.server.abort
      assert.strictEqual(ending(yield* Fiber.await(failed.fiber)), "ConnectionReset")
    })))
})

describe("relay over real TCP", () => {
  const block = pattern(1_048_573)

  const hashOf = (socket: Socket) =>
    Effect.suspend(() => {
      const hash = createHash("sha256")
      const buffer = new Uint8Array(262_144)
      return Effect.forever(Effect.map(socket.readSome(buffer), (count) => {
        hash.update(buffer.subarray(0, count))
      })).pipe(Pull.catchDone(() => Effect.sync(() => hash.digest("hex"))))
    })

  const sendBlocks = (socket: Socket, blocks: number) =>
    Effect.gen(function*() {
      const hash = createHash("sha256")
      for (let i = 0; i < blocks; i++) {
        hash.update(block)
        yield* Write.writeAll(socket, block)
      }
      yield* socket.shutdownWrite
      return hash.digest("hex")
    })

  const pair = Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen("127.0.0.1:0")
    const accepting = yield* start(acceptor.accept)
    const connected = yield* StreamSocket.connect(acceptor.address)
    return [connected, yield* Fiber.join(accepting)] as const
  })

  it.live("100 MB up and 30 MB down at once arrive unchanged, and nothing is left behind", () =>
    leavingNothing(
      Effect.gen(function*() {
        const [client, left] = yield* pair
        const [right, server] = yield* pair
        const relaying = yield* start(Relay.relay(left, right, { idle: "1 minute" }))
        const [up, down, atClient, atServer] = yield* Effect.all([
          sendBlocks(client, 100),
          sendBlocks(server, 30),
          hashOf(client),
          hashOf(server)
        ], { concurrency: "unbounded" })
        assert.deepStrictEqual([atServer, atClient], [up, down])
        assert.deepStrictEqual(yield* Fiber.join(relaying), {
          sent: 100 * block.byteLength,
          received: 30 * block.byteLength
        })
      }).pipe(Effect.provide(NodeTransport.layer))
    ))
})

/** The guide `examples/interruption.md`: its code is the code of the files beside it, and what it claims is so. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import * as Retry from "../../examples/interruption/1-retry.ts"
import * as TwoWrites from "../../examples/interruption/2-two-writes.ts"
import * as ReadAndWork from "../../examples/interruption/3-read-and-work.ts"
import * as NoBound from "../../examples/interruption/4-no-bound.ts"
import * as AfterTheTear from "../../examples/interruption/5-after-the-tear.ts"
import { Buffers, Cancellation, Read, type StreamSocket, Write } from "../../src/index.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { tcp } from "../suites/conformance/node.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { eventually, start, steady } from "../support/waiting.ts"

const folder = new URL("../../examples/interruption/", import.meta.url)
const guide = readFileSync(new URL("../interruption.md", folder), "utf8")

describe("the code in the guide", () => {
  // ```ts blocks that name their origin: <!-- file.ts region -->
  const shown = new Map(
    Array.from(
      guide.matchAll(/^<!-- (\S+\.ts \w+) -->\n```ts\n([^]*?)^```$/gm),
      ([, name, code]) => [name!, code!] as const
    )
  )
  const regions = new Map(
    readdirSync(folder).sort().flatMap((file) =>
      Array.from(
        readFileSync(new URL(file, folder), "utf8").matchAll(/^\/\/ #region (\w+)\n([^]*?)^\/\/ #endregion$/gm),
        ([, region, code]) => [`${file} ${region}`, code!] as const
      )
    )
  )

  it("there are five mistakes, each wrong and right", () => {
    assert.deepStrictEqual(
      [...regions.keys()],
      [
        "1-retry.ts",
        "2-two-writes.ts",
        "3-read-and-work.ts",
        "4-no-bound.ts",
        "5-after-the-tear.ts"
      ].flatMap((file) => [`${file} wrong`, `${file} right`])
    )
  })

  it("every region is shown, in this order, as it is in its file", () => {
    assert.deepStrictEqual([...shown], [...regions])
  })

  it("no other TypeScript is shown, which nobody would check", () => {
    assert.strictEqual(guide.match(/^```ts/gm)?.length, regions.size)
  })

  it("its links lead somewhere", () => {
    const targets = Array.from(guide.matchAll(/\]\(([^)#]+)/g), ([, target]) => target!)
      .filter((target) => !target.startsWith("https:"))
    assert.isNotEmpty(targets)
    assert.deepStrictEqual(targets.filter((target) => !existsSync(new URL(`../${target}`, folder))), [])
  })
})

// ---- the five mistakes

/** Connections with ends that discard what nobody reads, so that a test with a stuck peer ends at once. */
const networks = [
  { name: "in memory", pair: MemoryTransport.pair({ capacity: 16, linger: 0 }), size: 40 },
  { name: "over loopback TCP", pair: tcp("TCP", "127.0.0.1").pair({ linger: 0 }), size: 16 * 1_048_576 }
]

const reads = (peer: StreamSocket.StreamSocket, count: number) =>
  Effect.gen(function*() {
    const target = new Uint8Array(count)
    yield* Read.readExactly(peer, target)
    return target
  })

for (const { name, pair, size } of networks) {
  const message = pattern(size)

  describe(`mistake 1, ${name}`, () => {
    it.effect("wrong: the peer gets the front of the message twice", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(Retry.wrong(socket, message))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(fiber.pollUnsafe())
        const reading = yield* start(Read.readAll(peer, { max: 2 * size }))
        yield* Fiber.join(fiber)
        const twice = socket.bytesWritten - size
        assert.isTrue(0 < twice && twice < size)
        yield* socket.shutdownWrite
        assertBytes(yield* Fiber.join(reading), Buffers.concat([message.subarray(0, twice), message]))
      }))

    it.effect("right: the peer gets the message", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(Retry.right(socket, message))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(fiber.pollUnsafe())
        const received = yield* reads(peer, size)
        yield* Fiber.join(fiber)
        assertBytes(received, message)
        assert.strictEqual(socket.bytesWritten, size)
      }))

    it.effect("right: when it gives up, the message is cut and the stream does not know", () =>
      Effect.gen(function*() {
        const [socket] = yield* pair
        const fiber = yield* start(Retry.right(socket, message))
        yield* TestClock.adjust("4 seconds")
        assert.isTrue(Cause.isTimeoutError(yield* Effect.flip(Fiber.join(fiber))))
        assert.isTrue(0 < socket.bytesWritten && socket.bytesWritten < size)
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("under the default policy the second attempt is refused", () =>
      Effect.gen(function*() {
        const [socket] = yield* pair
        const attempt = Write.writeAll(socket, message).pipe(Effect.timeout("1 second"))
        const fiber = yield* start(Effect.exit(Effect.retry(attempt, { times: 1 })))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(ending(yield* Fiber.join(fiber)), "Torn")
      }))
  })

  describe(`mistake 3, ${name}`, () => {
    /** Work that takes two seconds and notes what it did; `begun` tells when it has a line. */
    const worker = Effect.gen(function*() {
      const begun = yield* Deferred.make<void>()
      const done: Array<string> = []
      const work = (line: Uint8Array) =>
        Deferred.succeed(begun, undefined).pipe(
          Effect.andThen(Effect.sleep("2 seconds")),
          Effect.andThen(Effect.sync(() => void done.push(Buffers.toUtf8(line))))
        )
      return { begun: Deferred.await(begun), done, work }
    })
    const nextLine = (socket: StreamSocket.StreamSocket) => Effect.map(Read.readUntil(socket, "\n"), Buffers.toUtf8)

    it.effect("wrong: a line is consumed, and nobody has worked on it", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const { begun, done, work } = yield* worker
        yield* Write.writeAll(peer, Buffers.utf8("one\ntwo\n"))
        const fiber = yield* start(ReadAndWork.wrong(socket, work))
        yield* begun
        yield* TestClock.adjust("1 second")
        assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
        assert.deepStrictEqual(done, [])
        assert.strictEqual(yield* nextLine(socket), "two\n")
      }))

    it.effect("right: what was read is worked on", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const { begun, done, work } = yield* worker
        yield* Write.writeAll(peer, Buffers.utf8("one\ntwo\n"))
        const fiber = yield* start(ReadAndWork.right(socket, work))
        yield* begun
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(done, ["one\n"])
        assert.strictEqual(yield* nextLine(socket), "two\n")
      }))

    it.effect("right: half a line at the time-out is there for the next read", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const { done, work } = yield* worker
        const fiber = yield* start(ReadAndWork.right(socket, work))
        yield* Write.writeAll(peer, Buffers.utf8("on"))
        yield* eventually("half a line", () => socket.bytesRead === 2)
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(done, [])
        yield* Write.writeAll(peer, Buffers.utf8("e\n"))
        assert.strictEqual(yield* nextLine(socket), "one\n")
      }))
  })

  describe(`mistake 4, ${name}`, () => {
    it.effect("wrong: the time-out waits for the peer, however long", () =>
      Effect.gen(function*() {
        const [socket] = yield* pair
        const fiber = yield* start(NoBound.wrong(socket, message))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("30 days")
        assert.isUndefined(fiber.pollUnsafe())
        // Only the end of the stream ends it.
        yield* socket.abort
        assert.isDefined((yield* Fiber.await(fiber))._tag)
      }))

    it.effect("right: it gives up two seconds later, and the stream is torn", () =>
      Effect.gen(function*() {
        const [socket] = yield* pair
        const fiber = yield* start(NoBound.right(socket, message))
        // A kernel takes bytes for a while after the first attempt.
        yield* steady(() => socket.bytesWritten)
        yield* TestClock.adjust("2999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
        assert.strictEqual(socket.state.write, "torn")
      }))

    it.effect("right: when the peer reads in time, the answer is None and the message is whole", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(NoBound.right(socket, message))
        yield* TestClock.adjust("1 second")
        assertBytes(yield* reads(peer, size), message)
        assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
        assert.strictEqual(socket.state.write, "open")
      }))
  })

  describe(`mistake 5, ${name}`, () => {
    const messages = [message, Buffers.utf8("second"), Buffers.utf8("third")]

    it.effect("wrong: it succeeds, two messages are gone, and the peer waits for the rest of the first", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(AfterTheTear.wrong(socket, messages))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        const left = socket.bytesWritten
        assert.isTrue(0 < left && left < size)
        assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "torn" })
        assertBytes(yield* reads(peer, left), message.subarray(0, left))
        const more = yield* start(reads(peer, 1))
        assert.isUndefined(more.pollUnsafe())
      }))

    it.effect("right: the caller has the error, and the peer the end of the connection", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(Effect.flip(AfterTheTear.right(socket, messages)))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Cause.isTimeoutError(yield* Fiber.join(fiber)))
        assert.strictEqual(socket.state.socket, "closed")
        assert.strictEqual(ending(yield* Effect.exit(Read.readAll(peer, { max: size }))), "ConnectionReset")
      }))
  })
}

// Only in memory can the buffers be made to be full right behind the header.
describe("mistake 2, in memory", () => {
  const header = (length: number) => Uint8Array.of(0, 0, 0, length)
  const readFrame = (peer: StreamSocket.StreamSocket) =>
    Effect.gen(function*() {
      const [, , , length] = yield* reads(peer, 4)
      return yield* reads(peer, length!)
    })
  const body = Buffers.utf8("first")
  const next = [header(6), Buffers.utf8("second")]

  it.effect("wrong: the next message is read as the body of the one that was cut, and the stream looks fine", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* MemoryTransport.pair({ capacity: 4 })
      const fiber = yield* start(TwoWrites.wrong(socket, header(5), body))
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 0, total: 5, guarantee: "total" })
      assert.strictEqual(socket.state.write, "open")
      yield* start(Write.writeAll(socket, next))
      assertBytes(yield* readFrame(peer), Buffers.concat([header(6), Buffers.utf8("s")]))
    }))

  it.effect("wrong: two fibers mix their headers and bodies, without any interruption", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* MemoryTransport.pair({ capacity: 2 })
      yield* start(TwoWrites.wrong(socket, header(5), body))
      yield* start(TwoWrites.wrong(socket, header(6), Buffers.utf8("second")))
      assertBytes(yield* reads(peer, 8), Buffers.concat([header(5), header(6)]))
    }))

  it.effect("right: the message is whole, and so is the next one", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* MemoryTransport.pair({ capacity: 4 })
      const fiber = yield* start(TwoWrites.right(socket, header(5), body))
      fiber.interruptUnsafe()
      yield* start(Write.writeAll(socket, next))
      assertBytes(yield* readFrame(peer), "first")
      assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 9, total: 9, guarantee: "total" })
      assertBytes(yield* readFrame(peer), "second")
    }))
})

// ---- what else the guide claims

const message = pattern(40)
const connection = MemoryTransport.pair({ capacity: 16 })
const write = (socket: StreamSocket.StreamSocket, source: Buffers.Input = message) => Write.writeAll(socket, source)

describe("where the count is", () => {
  const long = new Uint8Array(33_554_432)

  it.effect("the texts in the guide are what is printed", () =>
    Effect.gen(function*() {
      const inGuide = (text: string) => assert.include(guide, text)
      const [first] = yield* MemoryTransport.pair()
      const fiber = yield* start(write(first, long))
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit))
      if (Exit.isFailure(exit)) inGuide(Cause.pretty(exit.cause).split("\n").slice(0, 2).join("\n").replace(/ \{$/, ""))
      inGuide(`{ transferred: 65536, total: 33554432, guarantee: "terminal" }`)
      assert.deepStrictEqual(transferOf(exit), { transferred: 65536, total: 33554432, guarantee: "terminal" })
      inGuide(failure(yield* Effect.exit(write(first))).message)

      const [second] = yield* MemoryTransport.pair()
      const late = yield* start(Effect.exit(Cancellation.cancelAfter(write(second, long), "1 second", "partial")))
      yield* TestClock.adjust("1 second")
      inGuide(failure(yield* Fiber.join(late)).message)
    }))

  it.effect("Effect.timeout keeps nothing but the cursor", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const cursor = Buffers.cursor(message)
      const fiber = yield* start(Effect.exit(Effect.timeout(Write.writeAll(socket, cursor), "1 second")))
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.join(fiber)
      assert.isTrue(Exit.isFailure(exit) && Option.isNone(Cancellation.transfer(exit.cause)))
      assert.strictEqual(cursor.transferred, 16)
    }))
})

describe("the decision table", () => {
  it.effect("emit total ends those that have done nothing, and no other", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const signal = Cancellation.makeSignal()
      const inMessage = yield* start(Cancellation.withSignal(write(socket), signal))
      const inLine = yield* start(Effect.exit(Cancellation.withSignal(write(socket), signal)))
      const reading = yield* start(Effect.exit(Cancellation.withSignal(reads(socket, 1), signal)))
      const { ended, continued } = yield* signal.emit("total")
      assert.deepStrictEqual(ended.map((one) => one.operation), ["writeAll", "readExactly"])
      assert.deepStrictEqual(continued.map((one) => one.transferred), [16])
      assert.strictEqual(ending(yield* Fiber.join(inLine)), "OperationAborted")
      assert.strictEqual(ending(yield* Fiber.join(reading)), "OperationAborted")
      assert.isUndefined(inMessage.pollUnsafe())
    }))

  it.effect("escalate answers which request was enough", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const signal = Cancellation.makeSignal()
      yield* start(Effect.exit(Cancellation.withSignal(write(socket), signal)))
      const escalating = yield* start(Cancellation.escalate(signal))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(escalating)).endedBy, "partial")
    }))

  it.effect("an AbortSignal that was aborted before is not forgotten", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const region = Cancellation.withSignal(Cancellation.fromAbortSignal(AbortSignal.abort("gone"), "partial"))
      const error = yield* Effect.flip(region(write(socket)))
      assert.deepStrictEqual(
        [error.reason, error.cause],
        [{ _tag: "OperationAborted", type: "partial", transferred: 16, total: 40 }, "gone"]
      )
    }))

  it.effect("a filter holds requests off and lets interruption through; uninterruptible the other way round", () =>
    Effect.gen(function*() {
      const [left] = yield* connection
      const [right] = yield* connection
      const signal = Cancellation.makeSignal()
      const region = Cancellation.withSignal(signal)
      const filtered = yield* start(region(Cancellation.withFilter(write(left), Cancellation.allowNone)))
      const masked = yield* start(region(Effect.uninterruptible(write(right))))
      masked.interruptUnsafe()
      assert.isUndefined(masked.pollUnsafe())
      const { ended, continued } = yield* signal.emit("partial")
      assert.deepStrictEqual([ended.length, continued.length], [1, 1])
      assert.isDefined(masked.pollUnsafe())
      yield* Fiber.interrupt(filtered)
      assert.strictEqual(transferOf(yield* Fiber.await(filtered)).guarantee, "terminal")
    }))
})

describe("and others", () => {
  it.effect("writeSome takes a part", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      assert.strictEqual(yield* socket.writeSome(message), 16)
    }))

  it.effect("an uninterruptible write waits for the peer, whoever interrupts it", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      const fiber = yield* start(Effect.uninterruptible(write(socket)))
      const interrupting = yield* start(Fiber.interrupt(fiber))
      yield* TestClock.adjust("30 days")
      assert.isUndefined(interrupting.pollUnsafe())
      assertBytes(yield* reads(peer, 40), message)
      yield* Fiber.join(interrupting)
    }))

  it.effect("a signal that was emitted before is forgotten, a deadline that has passed is not", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const signal = Cancellation.makeSignal()
      yield* signal.emit("terminal")
      const fiber = yield* start(Cancellation.withSignal(write(socket), signal))
      yield* TestClock.adjust("30 days")
      assert.isUndefined(fiber.pollUnsafe())
      const late = yield* start(
        Effect.exit(Cancellation.cancelAfter(Effect.andThen(Effect.sleep("2 seconds"), write(socket)), "1 second"))
      )
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(ending(yield* Fiber.join(late)), "OperationAborted")
    }))

  it.effect("an effect that shares its cursor sends nothing when it runs again", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const send = Write.writeAll(socket, Buffers.cursor(Buffers.utf8("hello")))
      assert.deepStrictEqual([yield* send, yield* send, socket.bytesWritten], [5, 0, 5])
    }))
})

describe("races and groups", () => {
  const two = Effect.all([connection, connection])
  const byte = (socket: StreamSocket.StreamSocket) => Effect.as(socket.readSome(new Uint8Array(1)), socket)

  for (const race of [Effect.race, Effect.raceFirst]) {
    const name = race === Effect.race ? "race" : "raceFirst"

    it.effect(`${name} of two reads of two sockets that become readable in one turn: one is read`, () =>
      Effect.gen(function*() {
        const [[a, peerOfA], [b, peerOfB]] = yield* two
        const fiber = yield* start(race(byte(a), byte(b)))
        // Uninterrupted by a turn: both events come in the same run of microtasks.
        yield* Effect.andThen(peerOfA.writeSome(Uint8Array.of(1)), peerOfB.writeSome(Uint8Array.of(2)))
        assert.strictEqual(yield* Fiber.join(fiber), a)
        assert.deepStrictEqual([a.bytesRead, b.bytesRead], [1, 0])
        assertBytes(yield* reads(b, 1), Uint8Array.of(2))
      }))

    it.effect(`${name} of two reads of one socket: the loser gets nothing, the next read everything`, () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* connection
        const fiber = yield* start(race(byte(socket), byte(socket)))
        yield* write(peer, Uint8Array.of(1, 2))
        yield* Fiber.join(fiber)
        assertBytes(yield* reads(socket, 1), Uint8Array.of(2))
      }))

    it.effect(`${name} of two reads that are ready: the second is never started`, () =>
      Effect.gen(function*() {
        const [[a, peerOfA], [b, peerOfB]] = yield* two
        yield* Effect.all([write(peerOfA, Uint8Array.of(1)), write(peerOfB, Uint8Array.of(2))])
        assert.strictEqual(yield* race(byte(a), byte(b)), a)
        assert.strictEqual(b.bytesRead, 0)
      }))

    it.effect(`${name} waits for a loser that goes on under total`, () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* connection
        const fiber = yield* start(race(Cancellation.total(write(socket)), Effect.sleep("1 second")))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(fiber.pollUnsafe())
        assertBytes(yield* reads(peer, 40), message)
        yield* Fiber.join(fiber)
      }))
  }

  it.effect("the boundary: a race that waits for its loser can lose what its winner has read", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      const fiber = yield* start(Effect.raceFirst(byte(socket), Cancellation.total(write(socket))))
      yield* write(peer, Uint8Array.of(1, 2))
      yield* eventually("the read", () => socket.bytesRead === 1)
      assert.isUndefined(fiber.pollUnsafe())
      fiber.interruptUnsafe()
      yield* reads(peer, 40)
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
      assertBytes(yield* reads(socket, 1), Uint8Array.of(2))
    }))

  it.effect("the boundary: an uninterruptible loser reads after all, and nobody gets it", () =>
    Effect.gen(function*() {
      const [[a, peerOfA], [b, peerOfB]] = yield* two
      const fiber = yield* start(Effect.raceFirst(Effect.uninterruptible(byte(a)), byte(b)))
      yield* write(peerOfB, Uint8Array.of(1))
      yield* eventually("the winner", () => b.bytesRead === 1)
      assert.isUndefined(fiber.pollUnsafe())
      yield* write(peerOfA, Uint8Array.of(2))
      assert.strictEqual(yield* Fiber.join(fiber), b)
      assert.strictEqual(a.bytesRead, 1)
    }))

  it.effect("all: a failure beside it loses what was read", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      yield* write(peer, Uint8Array.of(1, 2))
      const both = Effect.all([byte(socket), Effect.fail("no")], { concurrency: "unbounded" })
      assert.strictEqual(yield* Effect.flip(both), "no")
      assertBytes(yield* reads(socket, 1), Uint8Array.of(2))
    }))

  it.effect("all: a failure cuts the writes beside it by their policy, and those not started never start", () =>
    Effect.gen(function*() {
      const [[a], [b]] = yield* two
      const failing = Effect.andThen(Effect.sleep("1 second"), Effect.fail("no"))
      const fiber = yield* start(Effect.flip(Effect.all([write(a), failing, write(b)], { concurrency: 2 })))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "no")
      assert.deepStrictEqual([a.state.write, b.state.write, b.bytesWritten], ["torn", "open", 0])
    }))

  it.effect("all: the failure waits for a write that goes on under total", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      const both = Effect.all([Cancellation.total(write(socket)), Effect.fail("no")], { concurrency: 2 })
      const fiber = yield* start(Effect.flip(both))
      assert.isUndefined(fiber.pollUnsafe())
      assertBytes(yield* reads(peer, 40), message)
      assert.strictEqual(yield* Fiber.join(fiber), "no")
    }))

  it.effect("Fiber.interrupt waits for a write under total; interruptUnsafe does not, and the next write waits in line", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      const fiber = yield* Effect.forkDetach(Cancellation.total(write(socket)), { startImmediately: true })
      fiber.interruptUnsafe()
      const interrupting = yield* start(Fiber.interrupt(fiber))
      const next = yield* start(write(socket, Buffers.utf8("next")))
      assert.deepStrictEqual([interrupting.pollUnsafe(), next.pollUnsafe()], [undefined, undefined])
      assertBytes(yield* reads(peer, 44), Buffers.concat([message, Buffers.utf8("next")]))
      yield* Effect.all([Fiber.join(interrupting), Fiber.join(next)])
    }))

  it.effect("a scope interrupts the fibers that were forked after the connection was opened, and closes it then", () =>
    Effect.gen(function*() {
      const fibers = yield* Effect.scoped(Effect.gen(function*() {
        const stranger = yield* connection
        const [socket] = yield* connection
        const own = yield* Effect.forkScoped(write(socket), { startImmediately: true })
        return { own, stranger: yield* Effect.forkDetach(write(stranger[0]), { startImmediately: true }) }
      }))
      assert.deepStrictEqual(transferOf(yield* Fiber.await(fibers.own)).transferred, 16)
      const error = failure(yield* Fiber.await(fibers.stranger))
      assert.deepStrictEqual([error.reason._tag, error.transferred], ["Closed", 16])
    }))

  it.effect("a FiberSet interrupts all of its fibers, each by its own policy, and waits for them", () =>
    Effect.gen(function*() {
      const [[a, peerOfA], [b]] = yield* two
      const set = yield* FiberSet.make<number>()
      yield* FiberSet.run(set, Cancellation.total(write(a)), { startImmediately: true })
      yield* FiberSet.run(set, Cancellation.partial(write(b)), { startImmediately: true })
      yield* Effect.yieldNow
      const clearing = yield* start(FiberSet.clear(set))
      assert.deepStrictEqual([b.state.write, b.bytesWritten], ["open", 16])
      assert.isUndefined(clearing.pollUnsafe())
      assertBytes(yield* reads(peerOfA, 40), message)
      yield* Fiber.join(clearing)
    }))
})

describe("shared connections and torn streams", () => {
  const torn = Effect.gen(function*() {
    const ends = yield* connection
    yield* Fiber.interrupt(yield* start(write(ends[0])))
    return ends
  })

  it.effect("a torn stream refuses every write, and reads on", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* torn
      for (const attempt of [write(socket), socket.writeSome(message), socket.writeSome([]), socket.shutdownWrite]) {
        const { reason } = yield* Effect.flip(Effect.asVoid(attempt))
        assert.deepStrictEqual(reason, { _tag: "Torn", transferred: 16, total: 40 })
      }
      yield* write(peer, Buffers.utf8("why?"))
      assertBytes(yield* reads(socket, 4), "why?")
    }))

  it.effect("close and abort reset it: the peer never takes its end for that of a message", () =>
    Effect.gen(function*() {
      for (const how of ["close", "abort"] as const) {
        const [socket, peer] = yield* torn
        yield* socket[how]
        assert.strictEqual(ending(yield* Effect.exit(reads(peer, 40))), "ConnectionReset")
      }
    }))

  it.effect("terminal in the middle: those in line fail with Torn, and nothing of theirs has left", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const cut = yield* start(write(socket))
      const inLine = yield* start(Effect.flip(write(socket, Buffers.utf8("other"))))
      yield* Fiber.interrupt(cut)
      const error = yield* Fiber.join(inLine)
      assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["Torn", 0, 5])
    }))

  it.effect("partial in the middle: the next in line comes between the two halves", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      const cursor = Buffers.cursor(message)
      const cut = yield* start(Cancellation.partial(Write.writeAll(socket, cursor)))
      yield* start(write(socket, Buffers.utf8("other")))
      yield* Fiber.interrupt(cut)
      yield* start(Write.writeAll(socket, cursor))
      assertBytes(
        yield* reads(peer, 45),
        Buffers.concat([message.subarray(0, 16), Buffers.utf8("other"), message.subarray(16)])
      )
    }))

  it.effect("total in the middle, or any policy in line: the others are untouched", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      const first = yield* start(Cancellation.total(write(socket)))
      const second = yield* start(write(socket, Buffers.utf8("second")))
      yield* start(write(socket, Buffers.utf8("third")))
      yield* Fiber.interrupt(second)
      assert.deepStrictEqual(transferOf(yield* Fiber.await(second)), { transferred: 0, total: 6, guarantee: "total" })
      first.interruptUnsafe()
      assertBytes(yield* reads(peer, 45), Buffers.concat([message, Buffers.utf8("third")]))
    }))

  it.effect("an operation that was interrupted in line and runs again joins at the end", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* connection
      yield* start(write(socket))
      const second = yield* start(write(socket, Buffers.utf8("second")))
      yield* start(write(socket, Buffers.utf8("third")))
      yield* Fiber.interrupt(second)
      yield* start(write(socket, Buffers.utf8("second")))
      assertBytes(yield* reads(peer, 51), Buffers.concat([message, Buffers.utf8("thirdsecond")]))
    }))

  it.effect("a supervisor finds out by the outcome of the fiber and by the state of the stream", () =>
    Effect.gen(function*() {
      const [socket] = yield* connection
      const fiber = yield* start(write(socket))
      yield* Fiber.interrupt(fiber)
      const outcome = Cancellation.outcome(yield* Fiber.await(fiber))
      assert.isTrue(outcome._tag === "Cancelled" && outcome.guarantee === "terminal")
      assert.strictEqual(socket.state.write, "torn")
    }))
})

describe("limits", () => {
  it.effect("a plain stream has the count, but no torn state", () =>
    Effect.gen(function*() {
      const { socket, writable, written } = yield* ScriptedStream.make({
        writes: [ScriptedStream.take(3), ScriptedStream.block, ScriptedStream.take(5)]
      })
      const plain = { writeSome: socket.writeSome }
      const fiber = yield* start(Write.writeAll(plain, Buffers.utf8("hello")))
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 3, total: 5, guarantee: "terminal" })
      yield* writable
      yield* Write.writeAll(plain, Buffers.utf8("other"))
      assertBytes(yield* written, "helother")
    }))
})

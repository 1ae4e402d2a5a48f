import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const local = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:1")
const remote = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:2")

const error = (reason: Reason): SocketError =>
  new SocketError({ reason, operation: "socket", address: remote, transferred: 0 })

const fake = (options?: Parameters<typeof StreamSocket.make>[1]) => {
  const backing = new FakeBacking()
  return { backing, socket: StreamSocket.make(backing, options) }
}

describe("StreamSocket", () => {
  it("is known by its guard", () => {
    assert.isTrue(StreamSocket.isStreamSocket(fake().socket))
    for (const value of [null, undefined, 1, "x", {}, { readSome: 1, writeSome: 2 }]) {
      assert.isFalse(StreamSocket.isStreamSocket(value))
    }
  })

  it("has the addresses of its backing and starts open, with nothing moved", () => {
    const { socket } = fake()
    assert.deepStrictEqual(socket.localAddress, local)
    assert.deepStrictEqual(socket.remoteAddress, remote)
    assert.deepStrictEqual([socket.bytesRead, socket.bytesWritten], [0, 0])
    assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "open" })
  })

  describe("readSome", () => {
    it.effect("counts bytes, ends again and again, and says so in its state", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [ScriptedStream.data("abc"), ScriptedStream.end] })
        assert.strictEqual(yield* socket.readSome(new Uint8Array(2)), 2)
        assert.strictEqual(yield* socket.readSome(new Uint8Array(2)), 1)
        assert.strictEqual(socket.bytesRead, 3)
        for (let i = 0; i < 3; i++) {
          assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(2)))), "Done")
        }
        assert.strictEqual(socket.state.read, "ended")
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("the end is the end, whatever becomes of the connection later", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        const answers: Array<number | SocketError> = [0, error(Reason.ConnectionReset()), 5]
        backing.readAnswer = () => answers.shift() ?? WouldBlock
        for (let i = 0; i < 3; i++) {
          assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(9)))), "Done")
          assertBytes(yield* Read.readAll(socket), "")
        }
        backing.events?.failed(error(Reason.ConnectionReset()))
        assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(9)))), "Done")
        assert.deepStrictEqual(socket.state, { socket: "open", read: "ended", write: "failed" })
      }))

    it.effect("an empty target succeeds with 0: before data, at the end, never after close", () =>
      Effect.gen(function*() {
        const empty = new Uint8Array(0)
        const { socket } = yield* ScriptedStream.make({ reads: [ScriptedStream.data("a"), ScriptedStream.end] })
        assert.strictEqual(yield* socket.readSome(empty), 0)
        yield* Read.readAll(socket)
        assert.strictEqual(yield* socket.readSome(empty), 0)
        yield* socket.close
        assert.strictEqual(ending(yield* Effect.exit(socket.readSome(empty))), "Closed")
      }))

    it.effect("several outstanding reads are served in the order in which they were started", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* ScriptedStream.make({
          reads: [ScriptedStream.block, ScriptedStream.data("ab"), ScriptedStream.block, ScriptedStream.data("c")]
        })
        const targets = [new Uint8Array(1), new Uint8Array(1), new Uint8Array(1)]
        const fibers = yield* Effect.forEach(targets, (target) => start(socket.readSome(target)))
        yield* readable
        assert.deepStrictEqual(fibers.map((fiber) => fiber.pollUnsafe() !== undefined), [true, true, false])
        yield* readable
        yield* Fiber.joinAll(fibers)
        assert.strictEqual(Buffer.concat(targets).toString(), "abc")
      }))

    it.effect("an interrupted read loses nothing and leaves its target alone from then on", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* ScriptedStream.make({
          reads: [ScriptedStream.block, ScriptedStream.data("abc")]
        })
        const target = new Uint8Array(3).fill(7)
        const fiber = yield* start(socket.readSome(target))
        yield* Fiber.interrupt(fiber)
        yield* readable
        const next = new Uint8Array(3)
        assert.strictEqual(yield* socket.readSome(next), 3)
        assertBytes(next, "abc")
        assertBytes(target, Uint8Array.of(7, 7, 7))
      }))

    it.effect("a failure is that read's own; the write side goes on", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({
          reads: [ScriptedStream.fail(Reason.ConnectionReset())],
          writes: [ScriptedStream.take(1)]
        })
        const exit = yield* Effect.exit(socket.readSome(new Uint8Array(3)))
        assert.strictEqual(failure(exit).operation, "readSome")
        assert.strictEqual(failure(exit).reason._tag, "ConnectionReset")
        assert.strictEqual(socket.state.read, "failed")
        assert.strictEqual(yield* socket.writeSome(text("x")), 1)
      }))
  })

  describe("writeSome", () => {
    it.effect("waits for room, several in the order in which they were started", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* ScriptedStream.make({
          writes: [ScriptedStream.block, ScriptedStream.take(2), ScriptedStream.take(9), ScriptedStream.take(9)]
        })
        const fibers = yield* Effect.forEach(["first", "2nd", "3rd"], (word) => start(socket.writeSome(text(word))))
        yield* writable
        assert.deepStrictEqual(yield* Fiber.joinAll(fibers), [2, 3, 3])
        assertBytes(yield* written, "fi2nd3rd")
        assert.strictEqual(socket.bytesWritten, 8)
      }))

    it.effect("an interruption while waiting took nothing and says so", () =>
      Effect.gen(function*() {
        const { socket, writable, written } = yield* ScriptedStream.make({
          writes: [ScriptedStream.block, ScriptedStream.take(9)]
        })
        const bytes = text("first")
        for (const policy of [Cancellation.terminal, Cancellation.total()]) {
          const fiber = yield* start(policy(socket.writeSome(bytes)))
          yield* Fiber.interrupt(fiber)
          const exit = yield* Fiber.await(fiber)
          assert.deepStrictEqual(transferOf(exit), { transferred: 0, total: 5, guarantee: "total" })
        }
        bytes.fill(0)
        yield* writable
        assert.strictEqual(yield* socket.writeSome(text("ok")), 2)
        assertBytes(yield* written, "ok")
      }))

    it.effect("no bytes succeed with 0 and no attempt", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        for (const source of [new Uint8Array(0), [], [new Uint8Array(0), new DataView(new ArrayBuffer(0))]]) {
          assert.strictEqual(yield* socket.writeSome(source), 0)
        }
      }))

    it.effect("a transport that breaks its contract is a defect", () =>
      Effect.gen(function*() {
        for (const answer of [0, 4, -2, 0.5, NaN]) {
          const { backing, socket } = fake()
          backing.writeAnswer = () => answer
          defect(yield* Effect.exit(socket.writeSome(text("abc"))))
        }
      }))
  })

  describe("shutdownWrite", () => {
    it.effect("goes behind the writes that were started earlier", () =>
      Effect.gen(function*() {
        const { calls, socket, writable, written } = yield* ScriptedStream.make({
          writes: [ScriptedStream.block, ScriptedStream.take(9)]
        })
        const write = yield* start(socket.writeSome(text("last words")))
        const shutdown = yield* start(socket.shutdownWrite)
        const late = yield* start(socket.writeSome(text("too late")))
        assert.strictEqual(calls.shutdownWrite, 0)
        yield* writable
        assert.strictEqual(yield* Fiber.join(write), 9)
        yield* Fiber.join(shutdown)
        assert.strictEqual(failure(yield* Fiber.await(late)).reason._tag, "BrokenPipe")
        assert.strictEqual(calls.shutdownWrite, 1)
        assertBytes(yield* written, "last word")
        assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "shutdown" })
      }))

    it.effect("repeating it succeeds without another FIN", () =>
      Effect.gen(function*() {
        const { calls, socket } = yield* ScriptedStream.make({})
        yield* socket.shutdownWrite
        yield* socket.shutdownWrite
        assert.strictEqual(calls.shutdownWrite, 1)
        assert.strictEqual(failure(yield* Effect.exit(socket.writeSome(text("x")))).reason._tag, "BrokenPipe")
        assert.strictEqual(failure(yield* Effect.exit(Write.writeAll(socket, text("x")))).reason._tag, "BrokenPipe")
      }))

    it.effect("waits while taken bytes are on their way; interrupted then, nothing happened", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        backing.shutdownAnswer = () => WouldBlock
        const fiber = yield* start(socket.shutdownWrite)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(socket.state.write, "open")
        const again = yield* start(socket.shutdownWrite)
        backing.shutdownAnswer = () => 0
        backing.events?.writable()
        yield* Fiber.join(again)
        assert.strictEqual(socket.state.write, "shutdown")
      }))

    it.effect("after close it fails with Closed", () =>
      Effect.gen(function*() {
        const { socket } = fake()
        yield* socket.close
        const closed = failure(yield* Effect.exit(socket.shutdownWrite))
        assert.deepStrictEqual([closed.reason._tag, closed.operation], ["Closed", "shutdownWrite"])
      }))
  })

  describe("failed", () => {
    it.effect("closes the write side at once and leaves reads to the backing", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        const writer = yield* start(Write.writeAll(socket, text("abc")))
        const reader = yield* start(socket.readSome(new Uint8Array(9)))
        const answers: Array<number | SocketError> = [5, 0, 0]
        backing.readAnswer = () => answers.shift() ?? WouldBlock
        backing.events?.failed(error(Reason.BrokenPipe()))
        assert.strictEqual(failure(yield* Fiber.await(writer)).reason._tag, "BrokenPipe")
        assert.strictEqual(yield* Fiber.join(reader), 5)
        assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(9)))), "Done")
        assert.strictEqual(ending(yield* Effect.exit(socket.writeSome(text("x")))), "BrokenPipe")
        assert.deepStrictEqual(socket.state, { socket: "open", read: "ended", write: "failed" })
      }))

    it.effect("losing the descriptor wakes everyone; close then has nothing left to wait for", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        const reader = yield* start(socket.readSome(new Uint8Array(9)))
        backing.readAnswer = () => error(Reason.ConnectionReset())
        backing.events?.failed(error(Reason.ConnectionReset()))
        backing.events?.closed()
        assert.strictEqual(ending(yield* Fiber.await(reader)), "ConnectionReset")
        assert.strictEqual(socket.state.socket, "open")
        yield* socket.close
        assert.strictEqual(socket.state.socket, "closed")
      }))

    it.effect("spurious events change nothing", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        const reader = yield* start(socket.readSome(new Uint8Array(9)))
        const writer = yield* start(socket.writeSome(text("x")))
        for (let i = 0; i < 3; i++) {
          backing.events?.readable()
          backing.events?.writable()
        }
        assert.isUndefined(reader.pollUnsafe())
        assert.isUndefined(writer.pollUnsafe())
        yield* socket.abort
        assert.strictEqual(ending(yield* Fiber.await(reader)), "Closed")
        assert.strictEqual(ending(yield* Fiber.await(writer)), "Closed")
        backing.events?.readable()
        backing.events?.failed(error(Reason.ConnectionReset()))
        backing.events?.closed()
        assert.deepStrictEqual(socket.state, { socket: "closed", read: "closed", write: "closed" })
      }))
  })

  describe("close and abort", () => {
    it.effect("close wakes waiting operations at once and ends when the descriptor is released", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        backing.releases = []
        const reader = yield* start(socket.readSome(new Uint8Array(1)))
        const writer = yield* start(socket.writeSome(text("x")))
        const shutdown = yield* start(socket.shutdownWrite)
        const close = yield* start(socket.close)
        assert.strictEqual(failure(yield* Fiber.await(reader)).reason._tag, "Closed")
        assert.strictEqual(failure(yield* Fiber.await(writer)).reason._tag, "Closed")
        assert.strictEqual(failure(yield* Fiber.await(shutdown)).reason._tag, "Closed")
        assert.deepStrictEqual(socket.state, { socket: "closing", read: "closed", write: "closed" })
        assert.isUndefined(close.pollUnsafe())
        backing.events?.closed()
        yield* Fiber.join(close)
        assert.strictEqual(socket.state.socket, "closed")
        assert.deepStrictEqual(backing.calls, ["close"])
      }))

    it.effect("close aborts at the end of the linger time and not before", () =>
      Effect.gen(function*() {
        for (const [options, millis] of [[undefined, 2000], [{ linger: "30 seconds" }, 30_000]] as const) {
          const { backing, socket } = fake(options)
          backing.releases = ["abort"]
          const close = yield* start(socket.close)
          yield* TestClock.adjust(millis - 1)
          assert.isUndefined(close.pollUnsafe())
          assert.deepStrictEqual(backing.calls, ["close"])
          yield* TestClock.adjust(1)
          yield* Fiber.join(close)
          assert.deepStrictEqual(backing.calls, ["close", "abort"])
        }
      }))

    it.effect("close lingers just the same where its scope closes it", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        backing.releases = ["abort"]
        const scope = yield* Scope.make()
        yield* Scope.addFinalizer(scope, socket.close)
        const closing = yield* start(Scope.close(scope, Exit.void))
        yield* TestClock.adjust(1999)
        assert.isUndefined(closing.pollUnsafe())
        yield* TestClock.adjust(1)
        yield* Fiber.join(closing)
        assert.deepStrictEqual(backing.calls, ["close", "abort"])
      }))

    it.effect("a release in time leaves no timer behind that aborts later", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        yield* socket.close
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(backing.calls, ["close"])
      }))

    it.effect("linger zero aborts at once, linger without end never does", () =>
      Effect.gen(function*() {
        const now = fake({ linger: 0 })
        yield* now.socket.close
        assert.deepStrictEqual(now.backing.calls, ["abort"])
        const never = fake({ linger: Duration.infinity })
        never.backing.releases = []
        const close = yield* start(never.socket.close)
        yield* TestClock.adjust("10 days")
        assert.isUndefined(close.pollUnsafe())
        assert.deepStrictEqual(never.backing.calls, ["close"])
        never.backing.events?.closed()
        yield* Fiber.join(close)
      }))

    it.effect("interrupting close turns it into abort and waits for the release", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        backing.releases = []
        const close = yield* start(socket.close)
        const interruption = yield* start(Fiber.interrupt(close))
        assert.deepStrictEqual(backing.calls, ["close", "abort"])
        assert.isUndefined(interruption.pollUnsafe())
        backing.events?.closed()
        yield* Fiber.join(interruption)
        assert.strictEqual(socket.state.socket, "closed")
      }))

    it.effect("both are idempotent, one after the other and at the same time", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        backing.releases = []
        const fibers = yield* Effect.forEach([1, 2, 3], () => start(socket.close))
        assert.deepStrictEqual(backing.calls, ["close"])
        backing.events?.closed()
        yield* Fiber.joinAll(fibers)
        for (const again of [socket.close, socket.abort, socket.close]) yield* again
        assert.deepStrictEqual(backing.calls, ["close"])
      }))

    it.effect("abort ends a close that lingers", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        backing.releases = ["abort"]
        const close = yield* start(socket.close)
        yield* socket.abort
        yield* Fiber.join(close)
        assert.deepStrictEqual(backing.calls, ["close", "abort"])
      }))

    it.effect("interrupting abort stops the wait, not the release", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        backing.releases = []
        const abort = yield* start(socket.abort)
        yield* Fiber.interrupt(abort)
        assert.strictEqual(ending(yield* Fiber.await(abort)), "Interrupt")
        assert.strictEqual(socket.state.socket, "closing")
        backing.events?.closed()
        assert.strictEqual(socket.state.socket, "closed")
        assert.deepStrictEqual(backing.calls, ["abort"])
      }))

    it.effect("a fiber that closing wakes may close again", () =>
      Effect.gen(function*() {
        const { backing, socket } = fake()
        const reader = yield* start(Effect.ensuring(socket.readSome(new Uint8Array(1)), socket.close))
        const writer = yield* start(Effect.ensuring(socket.writeSome(text("x")), socket.abort))
        yield* socket.close
        assert.strictEqual(ending(yield* Fiber.await(reader)), "Closed")
        assert.strictEqual(ending(yield* Fiber.await(writer)), "Closed")
        assert.strictEqual(socket.state.socket, "closed")
        // The abort of the writer came first and released the descriptor: nothing may be asked after that.
        assert.deepStrictEqual(backing.calls, ["abort"])
      }))
  })

  it.effect("configure hands on what is given, and fails with Closed after close", () =>
    Effect.gen(function*() {
      const { backing, socket } = fake()
      yield* socket.configure({})
      assert.deepStrictEqual(backing.configured, {})
      yield* socket.configure({ noDelay: false })
      assert.deepStrictEqual(backing.configured, { noDelay: false })
      yield* socket.configure({ keepAlive: "30 seconds" })
      const keepAlive = { idle: Duration.seconds(30), interval: Duration.seconds(1), count: 10 }
      assert.deepStrictEqual(backing.configured, { noDelay: false, keepAlive })
      // Says nothing, and so all of it is by default.
      yield* socket.configure({ keepAlive: {} })
      const byDefault = { idle: Duration.hours(2), interval: Duration.seconds(1), count: 10 }
      assert.deepStrictEqual(backing.configured, { noDelay: false, keepAlive: byDefault })
      yield* socket.configure({ keepAlive: true })
      assert.deepStrictEqual(backing.configured, { noDelay: false, keepAlive: true })
      yield* socket.configure({ keepAlive: false, noDelay: undefined })
      assert.deepStrictEqual(backing.configured, { noDelay: false, keepAlive: false })
      yield* socket.close
      const closed = failure(yield* Effect.exit(socket.configure({ noDelay: true })))
      assert.deepStrictEqual([closed.reason._tag, closed.operation], ["Closed", "configure"])
    }))

  describe("at the end of a fiber's turn", () => {
    const turn = 64
    /** Brings a fiber to where its turn ends soon, then lets it run the operation. */
    const late = <A, E>(operations: number, effect: Effect.Effect<A, E>) => {
      let before: Effect.Effect<void> = Effect.void
      for (let i = 0; i < operations; i++) before = Effect.andThen(before, Effect.void)
      return start(Effect.andThen(before, effect).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, turn)))
    }

    it.effect("an interruption loses no byte that was read", () =>
      Effect.gen(function*() {
        for (let operations = 0; operations < 2 * turn; operations++) {
          for (const composed of [false, true]) {
            const { socket } = yield* ScriptedStream.make({ reads: [ScriptedStream.data("abc"), ScriptedStream.end] })
            const target = new Uint8Array(2)
            let got = 0
            const read = composed ? Read.readExactly(socket, target) : socket.readSome(target)
            const fiber = yield* late(operations, Effect.map(read, (count) => got += count))
            yield* Fiber.interrupt(fiber)
            const rest = yield* Read.readAll(socket)
            assertBytes(Buffer.concat([target.subarray(0, got), rest]), "abc")
          }
        }
      }))

    it.effect("an interruption loses no count that was written", () =>
      Effect.gen(function*() {
        for (let operations = 0; operations < 2 * turn; operations++) {
          for (const composed of [false, true]) {
            const { socket, writable } = yield* ScriptedStream.make({ writes: [ScriptedStream.take(3)] })
            let told = 0
            const write = composed ? Write.writeAll(socket, text("abc")) : socket.writeSome(text("abc"))
            const fiber = yield* late(operations, Effect.map(write, (count) => told += count))
            yield* Fiber.interrupt(fiber)
            const exit = yield* Fiber.await(fiber)
            if (Exit.isFailure(exit) && told === 0) {
              told = Option.match(Cancellation.transfer(exit.cause), {
                onNone: () => 0,
                onSome: (transfer) => transfer.transferred
              })
            }
            assert.strictEqual(told, socket.bytesWritten, `after ${operations} operations`)
            yield* writable
            if (socket.bytesWritten === 0) yield* socket.writeSome(text("abc"))
          }
        }
      }))

    it.effect("turns of any length get messages through, waits included", () =>
      Effect.gen(function*() {
        for (const length of [3, 4, 5, 6, 7, 8, 13, 16, 17, 18, 20, 30]) {
          const [left, right] = yield* MemoryTransport.pair({ capacity: 5 })
          const echo = Effect.gen(function*() {
            const bytes = new Uint8Array(20)
            yield* Read.readExactly(right, bytes)
            yield* Write.writeAll(right, bytes, () => Infinity)
            yield* right.shutdownWrite
          })
          const client = Effect.gen(function*() {
            yield* Write.writeAll(left, text("twelve bytes"))
            yield* left.writeSome(text("\n"))
            yield* Write.writeAll(left, text("behind\n"))
            const answer = yield* Read.readUntil(left, "\n")
            const byte = new Uint8Array(1)
            yield* left.readSome(byte)
            return Buffer.concat([answer, byte, yield* Read.readAll(left)])
          })
          const fibers = yield* Effect.all([Effect.forkChild(echo), Effect.forkChild(client)]).pipe(
            Effect.provideService(Scheduler.MaxOpsBeforeYield, length)
          )
          const done = Effect.andThen(Fiber.join(fibers[0]), Fiber.join(fibers[1]))
          let turns = 0
          while (fibers[1].pollUnsafe() === undefined && turns < 5000) {
            turns++
            yield* Effect.yieldNow
          }
          assert.isBelow(turns, 5000, `stuck with turns of ${length} operations`)
          assertBytes(yield* done, "twelve bytes\nbehind\n")
        }
      }))
  })

  it.effect("can be printed", () =>
    Effect.sync(() => {
      assert.deepStrictEqual(JSON.parse(JSON.stringify(fake().socket)), {
        _id: "StreamSocket",
        localAddress: "tcp://127.0.0.1:1",
        remoteAddress: "tcp://127.0.0.1:2",
        bytesRead: 0,
        bytesWritten: 0,
        state: { socket: "open", read: "open", write: "open" }
      })
    }))
})

import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import * as NetAddress from "effect/net/NetAddress"
import * as TestClock from "effect/testing/TestClock"
import { getEventListeners } from "node:events"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Read from "../../src/Read.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { type Backing, Transport, WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, data, make: scripted, take } = ScriptedStream
const text = Buffers.utf8
const hello = text("hello")

const types = ["total", "partial", "terminal"] as const
type Type = Cancellation.Type

const scriptedAddress = NetAddress.unixPathAddress("scripted")
const remote = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:2")

const nothingDone: Cancellation.Report = { ended: [], continued: [] }

/** What a report says without addresses: `writeAll 3/5`, with the guarantee behind it where there is one. */
const told = ({ ended, continued }: Cancellation.Report) => ({
  ended: ended.map(({ guarantee, operation, total, transferred }) =>
    `${operation} ${transferred}/${total} ${guarantee}`
  ),
  continued: continued.map(({ operation, total, transferred }) => `${operation} ${transferred}/${total}`)
})

/** How an exit tells of the request that ended it: `writeAll 3/5 partial`. */
const aborted = <A, E>(exit: Exit.Exit<A, E>): string => {
  const { operation, reason, total, transferred } = failure(exit)
  if (reason._tag !== "OperationAborted") return assert.fail(`${operation} failed with ${reason._tag}`)
  assert.strictEqual(transferred, reason.transferred, "the error's own count")
  assert.strictEqual(total ?? 0, reason.total, "the error's own total")
  assert.isUndefined(reason.deadline)
  return `${operation} ${reason.transferred}/${reason.total} ${reason.type}`
}

const abortedOf = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<string> => Effect.map(Fiber.await(fiber), aborted)

/** A write of "hello" that has taken "hel" and waits. */
const midway = (signal: Cancellation.CancellationSignal, ...then: ReadonlyArray<ScriptedStream.WriteStep>) =>
  Effect.gen(function*() {
    const stream = yield* scripted({ writes: [take(3), block, ...then] })
    const cursor = Buffers.cursor(hello)
    const write = Write.writeAll(stream.socket, cursor)
    const fiber = yield* start(Cancellation.withSignal(write, signal))
    return { ...stream, cursor, fiber }
  })

/** A `readSome` that waits. */
const waitingRead = (signal: Cancellation.CancellationSignal, ...then: ReadonlyArray<ScriptedStream.ReadStep>) =>
  Effect.gen(function*() {
    const stream = yield* scripted({ reads: [block, ...then] })
    const target = new Uint8Array(5)
    const fiber = yield* start(Cancellation.withSignal(stream.socket.readSome(target), signal))
    return { ...stream, target, fiber }
  })

describe("a request", () => {
  it.effect("to a writeAll is judged by the goal of its condition, not by the bytes offered", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ writes: [take(3), block] })
      const write = Write.writeAll(socket, hello, CompletionCondition.transferExactly(4))
      const fiber = yield* start(Cancellation.withSignal(write, signal))
      assert.deepStrictEqual(told(yield* signal.emit("partial")), { ended: ["writeAll 3/4 partial"], continued: [] })
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/4 partial")
    }))

  it.effect("can be caught by its reason, and the region goes on", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket, writable, written } = yield* scripted({ writes: [take(3), block, take(2)] })
      const cursor = Buffers.cursor(hello)
      const fiber = yield* start(
        Write.writeAll(socket, cursor).pipe(
          Effect.catchReason("SocketError", "OperationAborted", () => Write.writeAll(socket, cursor)),
          Cancellation.withSignal(signal)
        )
      )
      yield* signal.emit("partial")
      assert.deepStrictEqual(signal.pending.map(({ total, transferred }) => [transferred, total]), [[0, 2]])
      yield* writable
      assert.strictEqual(yield* Fiber.join(fiber), 2)
      assertBytes(yield* written, "hello")
    }))

  it.effect("is a failure and not an interruption", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber } = yield* waitingRead(signal)
      yield* signal.emit("total")
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterrupts(exit.cause))
      assert.isUndefined(failure(exit).cause)
    }))

  it.effect("is asked of callbacks too", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber } = yield* waitingRead(signal)
      const reports: Array<Cancellation.Report> = []
      yield* Effect.callback<void>((resume) => {
        queueMicrotask(() => {
          reports.push(signal.emitUnsafe("partial"))
          resume(Effect.void)
        })
      })
      assert.deepStrictEqual(reports.map(told), [{ ended: ["readSome 0/5 total"], continued: [] }])
      assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
    }))

  it("is only made through signals of this module", () => {
    // A look-alike, as only code without types can pass it.
    const other = { ...Cancellation.makeSignal() } as Cancellation.CancellationSignal
    assert.throws(() => Cancellation.withSignal(Effect.void, other), TypeError, "makeSignal")
  })

  it.effect("of a type that there is not is an error that names it, and nothing is cancelled", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber } = yield* waitingRead(signal)
      const gently = "gently" as Type
      assert.include(defect(yield* Effect.exit(signal.emit(gently))).message, "gently")
      assert.throws(() => signal.emitUnsafe(gently), TypeError, "gently")
      assert.throws(() => Cancellation.fromAbortSignal(new AbortController().signal, gently), TypeError, "gently")
      assert.throws(() => Cancellation.fromAbortSignal({} as AbortSignal, "total"), TypeError, "not an AbortSignal")
      assert.isUndefined(fiber.pollUnsafe())
    }))
})

describe("interleavings", () => {
  const turnOf = (signal: Cancellation.CancellationSignal, first: "readiness" | "request") =>
    Effect.gen(function*() {
      const backing = new FakeBacking()
      const socket = StreamSocket.make(backing)
      const read = yield* start(Cancellation.withSignal(socket.readSome(new Uint8Array(5)), signal))
      const write = yield* start(Cancellation.withSignal(Write.writeAll(socket, hello), signal))
      let reads = 0
      let writes = 0
      const ready = () => {
        backing.readAnswer = (target) => {
          reads++
          return target.byteLength
        }
        backing.writeAnswer = (source, limit) => {
          writes++
          return Math.min(source.remaining, limit)
        }
        backing.events?.readable()
        backing.events?.writable()
      }
      // One turn: nothing comes between the two.
      const report = yield* Effect.sync(() => {
        if (first === "readiness") ready()
        const report = signal.emitUnsafe("terminal")
        if (first === "request") ready()
        return report
      })
      return { backing, socket, read, write, report, attempts: [reads, writes] }
    })

  it.effect("the request, then readiness in the same turn: nothing happened, and nothing is attempted", () =>
    Effect.gen(function*() {
      const { attempts, read, report, socket, write } = yield* turnOf(Cancellation.makeSignal(), "request")
      assert.deepStrictEqual(told(report), { ended: ["readSome 0/5 total", "writeAll 0/5 total"], continued: [] })
      assert.deepStrictEqual([yield* abortedOf(read), yield* abortedOf(write)], [
        "readSome 0/5 total",
        "writeAll 0/5 total"
      ])
      assert.deepStrictEqual(attempts, [0, 0])
      assert.deepStrictEqual([socket.bytesRead, socket.bytesWritten], [0, 0])
      // What became ready is there for the next.
      assert.strictEqual(yield* socket.readSome(new Uint8Array(5)), 5)
    }))

  it.effect("bytes that are there but not yet reported are not consumed", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const [here, there] = yield* MemoryTransport.pair()
      const fiber = yield* start(Cancellation.withSignal(here.readSome(new Uint8Array(5)), signal))
      // The pipe tells the reader in a microtask; the request comes before.
      const report = yield* Effect.flatMap(there.writeSome(hello), () => signal.emit("total"))
      assert.deepStrictEqual(told(report), { ended: ["readSome 0/5 total"], continued: [] })
      assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
      const target = new Uint8Array(5)
      assert.strictEqual(yield* here.readSome(target), 5)
      assertBytes(target, hello)
    }))

  describe("two requests of different strength", () => {
    for (const turns of ["one turn", "two turns"] as const) {
      const between = turns === "one turn" ? Effect.void : Effect.yieldNow

      it.effect(`total and then terminal, in ${turns}: the second ends what refused the first`, () =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const { fiber, socket } = yield* midway(signal)
          assert.deepStrictEqual(told(yield* signal.emit("total")), { ended: [], continued: ["writeAll 3/5"] })
          yield* between
          assert.deepStrictEqual(told(yield* signal.emit("terminal")), {
            ended: ["writeAll 3/5 terminal"],
            continued: []
          })
          assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 terminal")
          assert.strictEqual(socket.state.write, "torn")
        }))

      it.effect(`terminal and then total, in ${turns}: the second finds nothing`, () =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const { fiber, socket } = yield* midway(signal)
          assert.deepStrictEqual(told(yield* signal.emit("terminal")), {
            ended: ["writeAll 3/5 terminal"],
            continued: []
          })
          yield* between
          assert.deepStrictEqual(yield* signal.emit("total"), nothingDone)
          assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 terminal")
          assert.strictEqual(socket.state.write, "torn")
        }))

      it.effect(`partial and then terminal, in ${turns}: the stream stays usable`, () =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const { fiber, socket } = yield* midway(signal)
          yield* signal.emit("partial")
          yield* between
          assert.deepStrictEqual(yield* signal.emit("terminal"), nothingDone)
          assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 partial")
          assert.strictEqual(socket.state.write, "open")
        }))

      it.effect(`terminal and then partial, in ${turns}: the stream is torn`, () =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const { fiber, socket } = yield* midway(signal)
          yield* signal.emit("terminal")
          yield* between
          assert.deepStrictEqual(yield* signal.emit("partial"), nothingDone)
          assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 terminal")
          assert.strictEqual(socket.state.write, "torn")
        }))
    }
  })

  describe("a request to a write that finishes under the total policy", () => {
    /** Interrupted after 3 of 5 bytes, and finishing. */
    const finishing = (
      signal: Cancellation.CancellationSignal,
      options?: { readonly within?: Duration.Input },
      ...then: ReadonlyArray<ScriptedStream.WriteStep>
    ) =>
      Effect.gen(function*() {
        const stream = yield* scripted({ writes: [take(3), block, ...then] })
        const fiber = yield* start(
          Write.writeAll(stream.socket, hello).pipe(Cancellation.total(options), Cancellation.withSignal(signal))
        )
        const interruption = yield* start(Fiber.interrupt(fiber))
        yield* Effect.yieldNow
        assert.isUndefined(fiber.pollUnsafe())
        return { ...stream, fiber, interruption }
      })

    for (const [name, options] of [["for ever", undefined], ["within a second", { within: "1 second" }]] as const) {
      it.effect(`${name}: total is refused, and it finishes`, () =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const { fiber, interruption, writable, written } = yield* finishing(signal, options, take(2))
          assert.deepStrictEqual(told(yield* signal.emit("total")), { ended: [], continued: ["writeAll 3/5"] })
          assert.isUndefined(fiber.pollUnsafe())
          yield* writable
          yield* Fiber.await(interruption)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
            transferred: 5,
            total: 5,
            guarantee: "total"
          })
          assertBytes(yield* written, "hello")
        }))

      for (const type of ["partial", "terminal"] as const) {
        it.effect(`${name}: ${type} ends it, and the interruption proceeds with what was kept`, () =>
          Effect.gen(function*() {
            const signal = Cancellation.makeSignal()
            const { fiber, interruption, socket, written } = yield* finishing(signal, options)
            assert.deepStrictEqual(told(yield* signal.emit(type)), { ended: [`writeAll 3/5 ${type}`], continued: [] })
            yield* Fiber.await(interruption)
            const exit = yield* Fiber.await(fiber)
            assert.strictEqual(ending(exit), "Interrupt")
            assert.deepStrictEqual(transferOf(exit), { transferred: 3, total: 5, guarantee: type })
            assert.strictEqual(socket.state.write, type === "partial" ? "open" : "torn")
            // The bound has no say any more.
            yield* TestClock.adjust("1 hour")
            assert.strictEqual(socket.state.write, type === "partial" ? "open" : "torn")
            assertBytes(yield* written, "hel")
          }))
      }
    }

    it.effect("the bound runs out first: torn, and a request finds nothing", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fiber, socket } = yield* finishing(signal, { within: "1 second" })
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(told(yield* signal.emit("total")), { ended: [], continued: ["writeAll 3/5"] })
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(yield* signal.emit("partial"), nothingDone)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
          transferred: 3,
          total: 5,
          guarantee: "terminal"
        })
        assert.strictEqual(socket.state.write, "torn")
      }))

    it.effect("an interruption behind the request that ended the write finds the failure", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fiber } = yield* midway(signal)
        yield* Effect.andThen(signal.emit("partial"), Fiber.interrupt(fiber))
        assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 partial")
      }))

    it.effect("an interruption before the request has the say, and the policy with it", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fiber, socket } = yield* midway(signal)
        const report = yield* Effect.sync(() => {
          fiber.interruptUnsafe()
          return signal.emitUnsafe("partial")
        })
        assert.deepStrictEqual(report, nothingDone)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
          transferred: 3,
          total: 5,
          guarantee: "terminal"
        })
        assert.strictEqual(socket.state.write, "torn")
      }))
  })

  it.effect("a signal serves the next operation anew", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { readable, socket } = yield* scripted({ reads: [block, data("hello"), block] })
      for (const type of types) {
        const fiber = yield* start(Cancellation.withSignal(socket.readSome(new Uint8Array(5)), signal))
        yield* Effect.yieldNow
        assert.isUndefined(fiber.pollUnsafe())
        yield* signal.emit(type)
        assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
      }
      const last = yield* start(Cancellation.withSignal(socket.readSome(new Uint8Array(5)), signal))
      yield* readable
      assert.strictEqual(yield* Fiber.join(last), 5)
      const waiting = yield* start(Cancellation.withSignal(socket.readSome(new Uint8Array(5)), signal))
      assert.strictEqual(signal.pending.length, 1)
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(signal.pending.length, 0)
    }))

  describe("from inside a completion", () => {
    it.effect("a condition that emits ends its own write at the count it was asked with", () =>
      Effect.gen(function*() {
        for (const type of ["partial", "terminal"] as const) {
          const signal = Cancellation.makeSignal()
          const reports: Array<Cancellation.Report> = []
          const { socket, written } = yield* scripted({ writes: [take(3)] })
          const fiber = yield* start(
            Write.writeAll(socket, hello, (transferred) => {
              if (transferred === 3) reports.push(signal.emitUnsafe(type))
              return 3
            }).pipe(Cancellation.withSignal(signal))
          )
          yield* Effect.yieldNow
          assert.strictEqual(yield* abortedOf(fiber), `writeAll 3/5 ${type}`)
          assert.deepStrictEqual(reports.map(told), [{ ended: [`writeAll 3/5 ${type}`], continued: [] }])
          assert.strictEqual(socket.state.write, type === "partial" ? "open" : "torn")
          assertBytes(yield* written, "hel")
        }
      }))

    it.effect("a condition that asks for total is answered that its write runs on", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const reports: Array<Cancellation.Report> = []
        const { socket, written } = yield* scripted({ writes: [take(3), take(2)] })
        const count = yield* Write.writeAll(socket, hello, (transferred) => {
          if (transferred === 3) reports.push(signal.emitUnsafe("total"))
          return 3
        }).pipe(Cancellation.withSignal(signal))
        assert.strictEqual(count, 5)
        assert.deepStrictEqual(reports.map(told), [{ ended: [], continued: ["writeAll 3/5"] }])
        assertBytes(yield* written, "hello")
      }))

    it.effect("a match function that emits ends its own read, which consumes nothing", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const reports: Array<Cancellation.Report> = []
        const { socket } = yield* scripted({ reads: [data("hello"), block] })
        const fiber = yield* start(
          Read.readUntil(socket, (bytes) => {
            if (bytes.byteLength < 5) return undefined
            reports.push(signal.emitUnsafe("total"))
            return 5
          }).pipe(Cancellation.withSignal(signal))
        )
        yield* Effect.yieldNow
        assert.strictEqual(yield* abortedOf(fiber), "readUntil 0/0 total")
        assert.deepStrictEqual(reports.map(told), [{ ended: ["readUntil 0/0 total"], continued: [] }])
        assertBytes(yield* Read.readUntil(socket, "o"), "hello")
        yield* start(Effect.exit(socket.readSome(new Uint8Array(1))))
      }))

    it.effect("a condition that emits ends those in line behind it, which are never tried", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { socket, writable, written } = yield* scripted({ writes: [block, take(3), take(2)] })
        const reports: Array<Cancellation.Report> = []
        const front = yield* start(Write.writeAll(socket, hello, (transferred) => {
          if (transferred === 3) reports.push(signal.emitUnsafe("terminal"))
          return Infinity
        }))
        const behind = yield* start(Cancellation.withSignal(Write.writeAll(socket, text("world")), signal))
        yield* Effect.yieldNow
        yield* writable
        assert.strictEqual(yield* Fiber.join(front), 5)
        assert.deepStrictEqual(reports.map(told), [{ ended: ["writeAll 0/5 total"], continued: [] }])
        assert.strictEqual(yield* abortedOf(behind), "writeAll 0/5 total")
        assertBytes(yield* written, "hello")
      }))

    it.effect("a fiber that the same readiness resumed may emit: the next in line loses nothing", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { readable, socket } = yield* scripted({ reads: [block, data("ab"), block] })
        const one = () => new Uint8Array(1)
        const reports: Array<Cancellation.Report> = []
        const first = yield* start(Effect.andThen(
          socket.readSome(one()),
          Effect.map(signal.emit("total"), (report) => reports.push(report))
        ))
        const second = yield* start(Cancellation.withSignal(socket.readSome(one()), signal))
        const target = one()
        const third = yield* start(socket.readSome(target))
        yield* readable
        yield* Fiber.join(first)
        assert.deepStrictEqual(reports.map(told), [{ ended: ["readSome 0/1 total"], continued: [] }])
        assert.strictEqual(yield* abortedOf(second), "readSome 0/1 total")
        assert.strictEqual(yield* Fiber.join(third), 1)
        assertBytes(target, "b")
        yield* start(Effect.exit(socket.readSome(one())))
      }))
  })
})

describe("regions", () => {
  const target = () => new Uint8Array(5)

  it.effect("reach forked and nested fibers of every kind, and none outside", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const backing = new FakeBacking()
      const socket = StreamSocket.make(backing)
      const outside = yield* start(socket.readSome(target()))
      const endings: Array<string> = []
      const read = (name: string) =>
        Effect.onExit(socket.readSome(target()), (exit) => Effect.sync(() => endings.push(`${name} ${ending(exit)}`)))
      const immediately = { startImmediately: true }
      yield* Cancellation.withSignal(
        Effect.gen(function*() {
          yield* Effect.forkDetach(read("forkDetach"), immediately)
          yield* Effect.forkScoped(read("forkScoped"), immediately)
          yield* Effect.forkScoped(
            Effect.scoped(Effect.forkScoped(read("cut with its scope"), immediately)),
            immediately
          )
          yield* start(read("forkChild"))
          yield* Effect.forkScoped(
            Effect.flatMap(Effect.forkChild(read("forked in a fork"), immediately), Fiber.await),
            immediately
          )
          yield* Effect.forkScoped(
            Effect.all([read("all 1"), read("all 2")], { concurrency: "unbounded" }),
            immediately
          )
          yield* Effect.forkScoped(
            Effect.forEach(["each 1", "each 2", "not started"], read, { concurrency: 2 }),
            immediately
          )
          yield* Effect.forkScoped(Effect.race(read("race 1"), read("race 2")), immediately)
          yield* Effect.forkScoped(Effect.raceFirst(read("raceFirst 1"), read("raceFirst 2")), immediately)
          yield* Effect.forkScoped(Effect.timeout(read("timeout"), "1 hour"), immediately)
        }),
        signal
      )
      endings.length = 0
      assert.strictEqual(signal.pending.length, 13)
      const { ended, continued } = yield* signal.emit("total")
      assert.deepStrictEqual([ended.length, continued.length], [13, 0])
      yield* Effect.yieldNow
      // Where the first failure is the end of all, it is the others' end before they have gone on.
      assert.deepStrictEqual(endings.toSorted(), [
        "all 1 OperationAborted",
        "all 2 Interrupt",
        "each 1 OperationAborted",
        "each 2 Interrupt",
        "forkChild OperationAborted",
        "forkDetach OperationAborted",
        "forkScoped OperationAborted",
        "forked in a fork OperationAborted",
        "race 1 OperationAborted",
        "race 2 OperationAborted",
        "raceFirst 1 OperationAborted",
        "raceFirst 2 Interrupt",
        "timeout OperationAborted"
      ])
      assert.isUndefined(outside.pollUnsafe())
      backing.readAnswer = (into) => into.byteLength
      backing.events?.readable()
      assert.strictEqual(yield* Fiber.join(outside), 5)
    }))

  it.effect("end where they end: an operation behind the region is untouched", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { readable, socket } = yield* scripted({ reads: [data("hello"), block, data("hello")] })
      const read = socket.readSome(target())
      const fiber = yield* start(Effect.andThen(Cancellation.withSignal(read, signal), read))
      assert.deepStrictEqual(yield* signal.emit("terminal"), nothingDone)
      yield* readable
      assert.strictEqual(yield* Fiber.join(fiber), 5)
    }))

  it.effect("reach into uninterruptible effects", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block], writes: [take(3), block] })
      const read = yield* start(Cancellation.withSignal(Effect.uninterruptible(socket.readSome(target())), signal))
      const write = yield* start(
        Effect.uninterruptible(Cancellation.withSignal(Write.writeAll(socket, hello), signal))
      )
      read.interruptUnsafe()
      write.interruptUnsafe()
      yield* Effect.yieldNow
      assert.deepStrictEqual([read.pollUnsafe(), write.pollUnsafe()], [undefined, undefined])
      assert.deepStrictEqual(told(yield* signal.emit("partial")), {
        ended: ["readSome 0/5 total", "writeAll 3/5 partial"],
        continued: []
      })
      assert.strictEqual(yield* abortedOf(read), "readSome 0/5 total")
      assert.strictEqual(yield* abortedOf(write), "writeAll 3/5 partial")
    }))

  it.effect("two signals over one operation: each of them reaches it, once", () =>
    Effect.gen(function*() {
      for (const order of ["outer", "inner"] as const) {
        const signals = { outer: Cancellation.makeSignal(), inner: Cancellation.makeSignal() }
        const { socket } = yield* scripted({ reads: [block] })
        const fiber = yield* start(
          socket.readSome(target()).pipe(Cancellation.withSignal(signals.inner), Cancellation.withSignal(signals.outer))
        )
        assert.deepStrictEqual([signals.outer.pending.length, signals.inner.pending.length], [1, 1])
        const other = order === "outer" ? "inner" : "outer"
        assert.deepStrictEqual(told(yield* signals[order].emit("total")).ended, ["readSome 0/5 total"])
        assert.deepStrictEqual([signals.outer.pending, signals.inner.pending], [[], []])
        assert.deepStrictEqual(yield* signals[other].emit("terminal"), nothingDone)
        assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
      }
    }))

  it.effect("the same signal nested twice asks once", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      const fiber = yield* start(
        socket.readSome(target()).pipe(Cancellation.withSignal(signal), Cancellation.withSignal(signal))
      )
      assert.strictEqual(signal.pending.length, 1)
      assert.deepStrictEqual(told(yield* signal.emit("total")), { ended: ["readSome 0/5 total"], continued: [] })
      yield* Fiber.await(fiber)
      assert.deepStrictEqual(signal.pending, [])
    }))

  it.effect("one signal in two places that do not know of each other", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const read = yield* waitingRead(signal)
      const write = yield* midway(signal)
      assert.deepStrictEqual(told(yield* signal.emit("partial")), {
        ended: ["readSome 0/5 total", "writeAll 3/5 partial"],
        continued: []
      })
      assert.strictEqual(yield* abortedOf(read.fiber), "readSome 0/5 total")
      assert.strictEqual(yield* abortedOf(write.fiber), "writeAll 3/5 partial")
    }))

  it.effect("do not change what an effect succeeds, fails or dies with, nor its policy", () =>
    Effect.gen(function*() {
      const region = Cancellation.withSignal(Cancellation.makeSignal())
      assert.deepStrictEqual(yield* Effect.exit(region(Effect.succeed(1))), Exit.succeed(1))
      assert.deepStrictEqual(yield* Effect.exit(region(Effect.fail("no"))), Exit.fail("no"))
      assert.strictEqual(yield* region(Cancellation.partial(Cancellation.Policy)), "partial")
      const signal = Cancellation.makeSignal()
      const { fiber, socket } = yield* midway(signal)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 3, total: 5, guarantee: "terminal" })
      assert.strictEqual(socket.state.write, "torn")
      assert.deepStrictEqual(signal.pending, [])
    }))

  it.effect("policies have no say in requests", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ writes: [take(3), block] })
      const fiber = yield* start(
        Write.writeAll(socket, hello).pipe(Cancellation.total(), Cancellation.withSignal(signal))
      )
      assert.deepStrictEqual(told(yield* signal.emit("terminal")), { ended: ["writeAll 3/5 terminal"], continued: [] })
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 terminal")
    }))

  it.effect("are data-first and data-last", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      yield* start(Cancellation.withSignal(socket.readSome(target()), signal))
      yield* start(socket.readSome(target()).pipe(Cancellation.withSignal(signal)))
      assert.strictEqual(signal.pending.length, 2)
    }))
})

describe("the report", () => {
  it.effect("of a line with the front in the middle of its bytes: the front runs on, those in line end", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { calls, socket, writable, written } = yield* scripted({ writes: [take(3), block, take(2), take(1)] })
      const inRegion = Cancellation.withSignal(signal)
      const front = yield* start(inRegion(Write.writeAll(socket, hello)))
      const inLine: ReadonlyArray<Fiber.Fiber<unknown, SocketError>> = [
        yield* start(inRegion(Write.writeAll(socket, text("second")))),
        yield* start(inRegion(socket.writeSome(text("third")))),
        yield* start(inRegion(socket.shutdownWrite))
      ]
      const outside = yield* start(Write.writeAll(socket, text("!")))
      const address = scriptedAddress
      assert.deepStrictEqual(signal.pending, [
        { operation: "writeAll", address, transferred: 3, total: 5 },
        { operation: "writeAll", address, transferred: 0, total: 6 },
        { operation: "writeSome", address, transferred: 0, total: 5 },
        { operation: "shutdownWrite", address, transferred: 0, total: 0 }
      ])
      assert.deepStrictEqual(told(yield* signal.emit("total")), {
        ended: ["writeAll 0/6 total", "writeSome 0/5 total", "shutdownWrite 0/0 total"],
        continued: ["writeAll 3/5"]
      })
      for (const fiber of inLine) assert.match(yield* abortedOf(fiber), / total$/)
      yield* writable
      assert.deepStrictEqual([yield* Fiber.join(front), yield* Fiber.join(outside)], [5, 1])
      assertBytes(yield* written, "hello!")
      assert.strictEqual(calls.shutdownWrite, 0)
    }))

  it.effect("is in the order in which the operations began to wait, whatever stream they are on", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const sizes = [3, 1, 4, 2]
      const sockets = yield* Effect.forEach([0, 1], () => scripted({ reads: [block] }))
      for (const [index, size] of sizes.entries()) {
        const { socket } = sockets[index % 2]!
        yield* start(Cancellation.withSignal(Effect.exit(socket.readSome(new Uint8Array(size))), signal))
      }
      const order: Array<number> = []
      const { ended } = yield* signal.emit("total")
      for (const { total } of ended) order.push(total)
      assert.deepStrictEqual(order, sizes)
    }))

  it.effect("is not shared with what comes later", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, writable } = yield* midway(signal, take(2))
      const { continued } = yield* signal.emit("total")
      const pending = signal.pending
      yield* writable
      yield* Fiber.join(fiber)
      assert.deepStrictEqual([...continued.map((it) => it.transferred), ...pending.map((it) => it.transferred)], [3, 3])
    }))

  describe("all have ended before the first fiber goes on", () => {
    /** Five reads on streams of their own, of which the first does something when it is resumed. */
    const five = (
      signal: Cancellation.CancellationSignal,
      then: (
        sockets: ReadonlyArray<StreamSocket.StreamSocket>,
        fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
      ) => Effect.Effect<unknown, unknown>
    ) =>
      Effect.gen(function*() {
        const backings = [1, 2, 3, 4, 5].map(() => new FakeBacking())
        const sockets = backings.map((backing) => StreamSocket.make(backing))
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        for (const [index, socket] of sockets.entries()) {
          const read = socket.readSome(new Uint8Array(5))
          fibers.push(
            yield* start(Cancellation.withSignal(
              index > 0
                ? read
                : Effect.catchTag(
                  read,
                  "SocketError",
                  () => Effect.andThen(then(sockets, fibers), Effect.fail("first"))
                ),
              signal
            ))
          )
        }
        const report = yield* signal.emit("total")
        return { backings, sockets, fibers, report }
      })

    const allFive = { ended: Array.from({ length: 5 }, () => "readSome 0/5 total"), continued: [] }

    it.effect("it sees none of them wait, and emits again to nobody", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const seen: Array<unknown> = []
        const { fibers, report } = yield* five(signal, () =>
          Effect.gen(function*() {
            seen.push(signal.pending, yield* signal.emit("terminal"))
          }))
        assert.deepStrictEqual(seen, [[], nothingDone])
        assert.deepStrictEqual(told(report), allFive)
        for (const fiber of fibers.slice(1)) assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
      }))

    it.effect("it starts a new operation, which this request does not reach", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { backings, fibers, report } = yield* five(
          signal,
          (sockets) => Effect.andThen(sockets[0]!.readSome(new Uint8Array(7)), sockets[4]!.readSome(new Uint8Array(9)))
        )
        assert.deepStrictEqual(told(report), allFive)
        assert.deepStrictEqual(signal.pending.map((it) => it.total), [7])
        backings[0]!.readAnswer = (target) => target.byteLength
        backings[0]!.events?.readable()
        assert.deepStrictEqual(signal.pending.map((it) => it.total), [9])
        assert.deepStrictEqual(told(yield* signal.emit("total")).ended, ["readSome 0/9 total"])
        assert.strictEqual(yield* abortedOf(fibers[0]!), "readSome 0/9 total")
        assert.strictEqual(yield* abortedOf(fibers[4]!), "readSome 0/5 total")
      }))

    it.effect("it closes another's socket, which fails with the request all the same", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fibers, report, sockets } = yield* five(signal, (sockets) => sockets[2]!.close)
        assert.deepStrictEqual(told(report), allFive)
        assert.strictEqual(yield* abortedOf(fibers[2]!), "readSome 0/5 total")
        assert.strictEqual(sockets[2]!.state.socket, "closed")
      }))

    it.effect("it interrupts another's fiber, which is interrupted then, and once", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fibers, report } = yield* five(
          signal,
          (_, fibers) => Effect.sync(() => fibers[2]!.interruptUnsafe())
        )
        assert.deepStrictEqual(told(report), allFive)
        assert.strictEqual(ending(yield* Fiber.await(fibers[2]!)), "Interrupt")
        assert.strictEqual(yield* abortedOf(fibers[3]!), "readSome 0/5 total")
      }))

    it.effect("a write that is withdrawn and then interrupted keeps its account", () =>
      Effect.gen(function*() {
        for (const type of ["partial", "terminal"] as const) {
          const signal = Cancellation.makeSignal()
          const cell: { write?: Fiber.Fiber<number, SocketError> } = {}
          const backing = new FakeBacking()
          const socket = StreamSocket.make(backing)
          const read = yield* start(Cancellation.withSignal(
            Effect.catch(socket.readSome(new Uint8Array(5)), () => Effect.sync(() => cell.write?.interruptUnsafe())),
            signal
          ))
          const write = yield* midway(signal)
          cell.write = write.fiber
          assert.deepStrictEqual(told(yield* signal.emit(type)).ended, ["readSome 0/5 total", `writeAll 3/5 ${type}`])
          yield* Fiber.join(read)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(write.fiber)), {
            transferred: 3,
            total: 5,
            guarantee: type
          })
          assert.strictEqual(write.socket.state.write, type === "partial" ? "open" : "torn")
        }
      }))

    it.effect("those in one line end without an attempt in between", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const backing = new FakeBacking()
        const socket = StreamSocket.make(backing)
        const fibers = yield* Effect.forEach(
          [1, 2, 3],
          (size) => start(Cancellation.withSignal(Write.writeAll(socket, new Uint8Array(size)), signal))
        )
        let attempts = 0
        backing.writeAnswer = (source) => {
          attempts++
          return source.remaining
        }
        assert.deepStrictEqual(told(yield* signal.emit("terminal")).ended, [
          "writeAll 0/1 total",
          "writeAll 0/2 total",
          "writeAll 0/3 total"
        ])
        assert.strictEqual(attempts, 0)
        for (const fiber of fibers) assert.match(yield* abortedOf(fiber), /^writeAll 0/)
      }))
  })

  describe("what stood behind a front that ended", () => {
    const withFront = Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const backing = new FakeBacking()
      const attempts: Array<number> = []
      let room = 3
      backing.writeAnswer = (source, limit) => {
        attempts.push(source.remaining)
        const count = Math.min(room, source.remaining, limit)
        room -= count
        return count === 0 ? WouldBlock : count
      }
      const socket = StreamSocket.make(backing)
      const front = yield* start(Cancellation.withSignal(Write.writeAll(socket, hello), signal))
      const next = yield* start(socket.writeSome(text("next")))
      const last = yield* start(socket.writeSome(text("at last")))
      attempts.length = 0
      room = 4
      return { signal, socket, attempts, front, next, last }
    })

    it.effect("goes on at once, each exactly once, where the stream is whole", () =>
      Effect.gen(function*() {
        const { attempts, front, last, next, signal } = yield* withFront
        assert.deepStrictEqual(told(yield* signal.emit("partial")).ended, ["writeAll 3/5 partial"])
        // The next one fits, the one behind it does not.
        assert.deepStrictEqual(attempts, [4, 7])
        assert.strictEqual(yield* Fiber.join(next), 4)
        assert.isUndefined(last.pollUnsafe())
        assert.strictEqual(yield* abortedOf(front), "writeAll 3/5 partial")
      }))

    it.effect("fails as torn, without an attempt, where it is not", () =>
      Effect.gen(function*() {
        const { attempts, last, next, signal } = yield* withFront
        yield* signal.emit("terminal")
        assert.deepStrictEqual(attempts, [])
        assert.deepStrictEqual([ending(yield* Fiber.await(next)), ending(yield* Fiber.await(last))], ["Torn", "Torn"])
      }))

    it.effect("stays in line behind a front that refused", () =>
      Effect.gen(function*() {
        const { attempts, last, next, signal } = yield* withFront
        assert.deepStrictEqual(told(yield* signal.emit("total")), { ended: [], continued: ["writeAll 3/5"] })
        assert.deepStrictEqual(attempts, [])
        assert.deepStrictEqual([next.pollUnsafe(), last.pollUnsafe()], [undefined, undefined])
      }))
  })
})

describe("filters", () => {
  const passed = (filter: Cancellation.Filter) => types.map((type) => filter(type))

  it("the three let through what they say", () => {
    assert.deepStrictEqual(passed(Cancellation.allowNone), [undefined, undefined, undefined])
    assert.deepStrictEqual(passed(Cancellation.allowTerminal), [undefined, undefined, "terminal"])
    assert.deepStrictEqual(passed(Cancellation.allowPartial), [undefined, "partial", "terminal"])
  })

  const filters = {
    allowNone: Cancellation.allowNone,
    allowTerminal: Cancellation.allowTerminal,
    allowPartial: Cancellation.allowPartial,
    unchanged: (type: Type) => type
  }
  for (const [name, filter] of Object.entries(filters)) {
    for (const type of types) {
      it.effect(`${name} over an operation that waits, asked for ${type}`, () =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const { readable, socket } = yield* scripted({ reads: [block, data("hello")] })
          const fiber = yield* start(
            socket.readSome(new Uint8Array(5)).pipe(Cancellation.withFilter(filter), Cancellation.withSignal(signal))
          )
          const report = told(yield* signal.emit(type))
          const passes = filter(type) !== undefined
          assert.deepStrictEqual(
            report,
            passes ? { ended: ["readSome 0/5 total"], continued: [] } : { ended: [], continued: ["readSome 0/5"] }
          )
          yield* readable
          assert.strictEqual(ending(yield* Fiber.await(fiber)), passes ? "OperationAborted" : "Success")
          if (passes) yield* socket.readSome(new Uint8Array(5))
        }))
    }
  }

  it.effect("filters of nested regions add up: the outer one is asked first, the inner one about what that made of it", () =>
    Effect.gen(function*() {
      const all = [...Object.values(filters), (type: Type) => type === "total" ? "partial" as const : undefined]
      for (const outer of all) {
        for (const inner of all) {
          for (const type of types) {
            const passedOuter = outer(type)
            const expected = passedOuter === undefined ? undefined : inner(passedOuter)
            const nested = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
              effect.pipe(Cancellation.withFilter(inner), Cancellation.withFilter(outer))
            const signal = Cancellation.makeSignal()
            const backing = new FakeBacking()
            backing.writeAnswer = (source) => source.remaining === 5 ? 3 : WouldBlock
            const write = Write.writeAll(StreamSocket.make(backing), hello)
            const fiber = yield* start(Cancellation.withSignal(nested(write), signal))
            const { ended } = yield* signal.emit(type)
            fiber.interruptUnsafe()
            const guarantee = expected === undefined || expected === "total" ? "ran on" : expected
            assert.strictEqual(ended[0]?.guarantee ?? "ran on", guarantee)
          }
        }
      }
    }))

  it.effect("a filter that asks for less makes a refused request an honoured one", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ writes: [take(3), block] })
      const fiber = yield* start(
        Write.writeAll(socket, hello).pipe(
          Cancellation.withFilter((type) => type === "total" ? "partial" : type),
          Cancellation.withSignal(signal)
        )
      )
      assert.deepStrictEqual(told(yield* signal.emit("total")), { ended: ["writeAll 3/5 partial"], continued: [] })
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 partial")
      assert.strictEqual(socket.state.write, "open")
    }))

  it.effect("a filter that asks for more protects a stream", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ writes: [take(3), block] })
      const fiber = yield* start(
        Write.writeAll(socket, hello).pipe(
          Cancellation.withFilter((type) => type === "terminal" ? "partial" : type),
          Cancellation.withSignal(signal)
        )
      )
      assert.deepStrictEqual(told(yield* signal.emit("terminal")), { ended: ["writeAll 3/5 partial"], continued: [] })
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 partial")
      assert.strictEqual(socket.state.write, "open")
    }))

  it.effect("a filter holds back the signals around it, and not those inside", () =>
    Effect.gen(function*() {
      const around = Cancellation.makeSignal()
      const inside = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      const fiber = yield* start(
        socket.readSome(new Uint8Array(5)).pipe(
          Cancellation.withSignal(inside),
          Cancellation.withFilter(Cancellation.allowNone),
          Cancellation.withSignal(around)
        )
      )
      assert.deepStrictEqual(told(yield* around.emit("terminal")), { ended: [], continued: ["readSome 0/5"] })
      assert.deepStrictEqual(told(yield* inside.emit("total")), { ended: ["readSome 0/5 total"], continued: [] })
      assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
    }))

  it.effect("a signal that is given again inside a filter is in force anew", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      yield* start(Effect.exit(
        socket.readSome(new Uint8Array(5)).pipe(
          Cancellation.withSignal(signal),
          Cancellation.withFilter(Cancellation.allowNone),
          Cancellation.withSignal(signal)
        )
      ))
      assert.deepStrictEqual(told(yield* signal.emit("total")), { ended: ["readSome 0/5 total"], continued: [] })
    }))

  it.effect("a filter outside any region, and over other operations, does nothing", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      const read = socket.readSome(new Uint8Array(5))
      const fiber = yield* start(read.pipe(
        Cancellation.withSignal(signal),
        Cancellation.withFilter(Cancellation.allowNone)
      ))
      const behind = yield* start(Cancellation.withSignal(
        Effect.andThen(Cancellation.withFilter(Effect.void, Cancellation.allowNone), read),
        signal
      ))
      assert.strictEqual((yield* signal.emit("total")).ended.length, 2)
      yield* Fiber.await(fiber)
      yield* Fiber.await(behind)
    }))

  it.effect("filters have no say in interruption", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ writes: [take(3), block] })
      const fiber = yield* start(
        Write.writeAll(socket, hello).pipe(
          Cancellation.withFilter(Cancellation.allowNone),
          Cancellation.withSignal(Cancellation.makeSignal())
        )
      )
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(transferOf(yield* Fiber.await(fiber)).guarantee, "terminal")
    }))

  describe("that throw", () => {
    const broken: Cancellation.Filter = () => {
      throw new Error("broken filter")
    }

    const behindOne = (signal: Cancellation.CancellationSignal) =>
      Effect.gen(function*() {
        const first = yield* waitingRead(signal, data("hello"))
        const { readable, socket } = yield* scripted({ reads: [block, data("hello")] })
        const second = yield* start(
          socket.readSome(new Uint8Array(5)).pipe(
            Cancellation.withFilter(broken),
            Cancellation.withSignal(signal)
          )
        )
        return {
          assertUntouched: Effect.gen(function*() {
            assert.strictEqual(signal.pending.length, 2)
            yield* first.readable
            yield* readable
            assert.deepStrictEqual([yield* Fiber.join(first.fiber), yield* Fiber.join(second)], [5, 5])
          })
        }
      })

    it.effect("are a defect of the emitter, and nothing is cancelled", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { assertUntouched } = yield* behindOne(signal)
        assert.strictEqual(defect(yield* Effect.exit(signal.emit("terminal"))).message, "broken filter")
        assert.throws(() => signal.emitUnsafe("terminal"), "broken filter")
        yield* assertUntouched
      }))

    it.effect("do not bring down the process when an AbortSignal asks, and nothing is cancelled", () =>
      Effect.gen(function*() {
        const controller = new AbortController()
        const { assertUntouched } = yield* behindOne(Cancellation.fromAbortSignal(controller.signal, "total"))
        const uncaught: Array<unknown> = []
        const note = (error: unknown) => uncaught.push(error)
        process.on("uncaughtException", note)
        process.on("unhandledRejection", note)
        controller.abort()
        yield* Effect.promise(() => new Promise(setImmediate))
        process.off("uncaughtException", note)
        process.off("unhandledRejection", note)
        assert.deepStrictEqual(uncaught, [])
        yield* assertUntouched
      }))
  })

  it.effect("a filter that ends what is asked about leaves nothing to report of it", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const other = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      const fiber = yield* start(
        socket.readSome(new Uint8Array(5)).pipe(
          Cancellation.withSignal(other),
          Cancellation.withFilter((type) => {
            other.emitUnsafe("total")
            return type
          }),
          Cancellation.withSignal(signal)
        )
      )
      // It was the other signal that ended it; to run on it would have to run.
      assert.deepStrictEqual(yield* signal.emit("total"), nothingDone)
      assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
    }))
})

describe("streams that are not ours", () => {
  /** Only a `writeSome`, over a socket or over an effect. */
  const foreign = (writeSome: StreamSocket.WriteStream["writeSome"]): StreamSocket.WriteStream => ({ writeSome })

  const midwayOver = (signal: Cancellation.CancellationSignal, ...then: ReadonlyArray<ScriptedStream.WriteStep>) =>
    Effect.gen(function*() {
      const stream = yield* scripted({ writes: [take(3), block, ...then] })
      const cursor = Buffers.cursor(hello)
      const write = Write.writeAll(foreign(stream.socket.writeSome), cursor)
      const fiber = yield* start(Cancellation.withSignal(write, signal))
      return { ...stream, cursor, fiber }
    })

  for (const type of types) {
    it.effect(`before the first byte, ${type} is honoured as total`, () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { socket } = yield* scripted({ writes: [block] })
        const fiber = yield* start(
          Cancellation.withSignal(Write.writeAll(foreign(socket.writeSome), hello), signal)
        )
        const { ended, continued } = yield* signal.emit(type)
        assert.deepStrictEqual([ended.length, continued.length], [1, 0])
        assert.strictEqual(yield* abortedOf(fiber), "writeAll 0/5 total")
      }))
  }

  it.effect("total is refused in the middle of the bytes", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, writable, written } = yield* midwayOver(signal, take(2))
      const { ended, continued } = yield* signal.emit("total")
      assert.deepStrictEqual([ended.length, continued.length], [0, 1])
      yield* writable
      assert.strictEqual(yield* Fiber.join(fiber), 5)
      assertBytes(yield* written, "hello")
    }))

  for (const type of ["partial", "terminal"] as const) {
    it.effect(`${type} is honoured in the middle, with the name and the counts of the whole`, () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { cursor, fiber, socket, writable } = yield* midwayOver(signal, take(2))
        const { ended, continued } = yield* signal.emit(type)
        assert.deepStrictEqual([ended.length, continued.length], [1, 0])
        assert.strictEqual(yield* abortedOf(fiber), `writeAll 3/5 ${type}`)
        assert.deepStrictEqual(failure(yield* Fiber.await(fiber)).address, scriptedAddress)
        assert.deepStrictEqual([cursor.transferred, cursor.remaining], [3, 2])
        // The step took nothing, so the stream below is whole: what a torn one means is for the caller.
        assert.strictEqual(socket.state.write, "open")
        yield* writable
        assert.strictEqual(yield* Write.writeAll(socket, cursor), 2)
      }))
  }

  it.effect("total and then partial: the second ends what refused the first", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber } = yield* midwayOver(signal)
      yield* signal.emit("total")
      yield* signal.emit("partial")
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 partial")
    }))

  it.effect("filters around count for the whole", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ writes: [take(3), block] })
      const fiber = yield* start(
        Write.writeAll(foreign(socket.writeSome), hello).pipe(
          Cancellation.withFilter((type) => type === "terminal" ? "partial" : type),
          Cancellation.withSignal(signal)
        )
      )
      yield* signal.emit("terminal")
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 partial")
    }))

  it.effect("a request ends one that finishes under the total policy, and the interruption proceeds", () =>
    Effect.gen(function*() {
      for (const options of [undefined, { within: "1 second" }] as const) {
        for (const type of ["partial", "terminal"] as const) {
          const signal = Cancellation.makeSignal()
          const { socket } = yield* scripted({ writes: [take(3), block] })
          const fiber = yield* start(
            Write.writeAll(foreign(socket.writeSome), hello).pipe(
              Cancellation.total(options),
              Cancellation.withSignal(signal)
            )
          )
          fiber.interruptUnsafe()
          yield* Effect.yieldNow
          assert.isUndefined(fiber.pollUnsafe())
          assert.strictEqual((yield* signal.emit("total")).continued.length, 1)
          assert.strictEqual((yield* signal.emit(type)).ended.length, 1)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 3, total: 5, guarantee: type })
        }
      }
    }))

  it.effect("an effect that is no operation of ours is not reached, and interruption still is", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const fiber = yield* start(
        Cancellation.withSignal(Write.writeAll(foreign(() => Effect.never), hello), signal)
      )
      assert.deepStrictEqual(yield* signal.emit("terminal"), nothingDone)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(transferOf(yield* Fiber.await(fiber)).guarantee, "total")
    }))

  it.effect("composed reads are total, with the name and the goal of the whole, and lose nothing", () =>
    Effect.gen(function*() {
      for (const type of types) {
        const signal = Cancellation.makeSignal()
        const { readable, socket } = yield* scripted({ reads: [data("he"), block, data("llo")] })
        const stream: StreamSocket.ReadStream = { readSome: socket.readSome }
        const target = new Uint8Array(5)
        const fiber = yield* start(Cancellation.withSignal(Read.readExactly(stream, target), signal))
        const { ended, continued } = yield* signal.emit(type)
        assert.deepStrictEqual([ended.length, continued.length], [1, 0])
        assert.strictEqual(yield* abortedOf(fiber), "readExactly 0/5 total")
        yield* readable
        assert.strictEqual(yield* Read.readExactly(stream, target), 5)
        assertBytes(target, hello)
      }
    }))

  it.effect("the cause of the request is kept", () =>
    Effect.gen(function*() {
      const controller = new AbortController()
      const signal = Cancellation.fromAbortSignal(controller.signal, "partial")
      const { fiber } = yield* midwayOver(signal)
      const reason = new Error("the user left")
      controller.abort(reason)
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 3/5 partial")
      assert.strictEqual(failure(yield* Fiber.await(fiber)).cause, reason)
    }))
})

describe("connecting, accepting and closing", () => {
  const connecting = (connect: () => Effect.Effect<Backing, SocketError>) =>
    Layer.succeed(Transport, { name: "told", connect, listen: () => Effect.die("not here") })

  const neverResolves = Layer.succeed(AddressResolver.AddressResolver, { resolve: () => Effect.never })

  it.effect("a connect is one operation, whatever its transport waits for", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      const answer = Effect.andThen(socket.readSome(new Uint8Array(1)), Effect.never)
      const fiber = yield* start(
        StreamSocket.connect(remote).pipe(
          Cancellation.withSignal(signal),
          Effect.provide(connecting(() => Effect.orDie(answer)))
        )
      )
      yield* Effect.yieldNow
      assert.deepStrictEqual(told(yield* signal.emit("partial")), { ended: ["connect 0/0 total"], continued: [] })
      assert.strictEqual(yield* abortedOf(fiber), "connect 0/0 total")
    }))

  it.effect("an answer, then the request in the same turn: connected", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const backing = new FakeBacking()
      const answer = yield* Deferred.make<Backing>()
      const fiber = yield* start(
        StreamSocket.connect(remote).pipe(
          Cancellation.withSignal(signal),
          Effect.provide(connecting(() => Deferred.await(answer)))
        )
      )
      yield* Effect.yieldNow
      assert.strictEqual(signal.pending.length, 1)
      const report = yield* Effect.sync(() => {
        Deferred.doneUnsafe(answer, Exit.succeed<Backing>(backing))
        return signal.emitUnsafe("terminal")
      })
      assert.deepStrictEqual(report, nothingDone)
      assert.isTrue(StreamSocket.isStreamSocket(yield* Fiber.join(fiber)))
      assert.deepStrictEqual(backing.calls, [])
    }))

  it.effect("the request, then an answer in the same turn: the attempt was cut, and the answer reaches nobody", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const cut: Array<string> = []
      const answer = yield* Deferred.make<Backing>()
      const fiber = yield* start(
        StreamSocket.connect(remote).pipe(
          Cancellation.withSignal(signal),
          Effect.provide(
            connecting(() => Effect.onInterrupt(Deferred.await(answer), () => Effect.sync(() => cut.push("released"))))
          )
        )
      )
      yield* Effect.yieldNow
      yield* Effect.sync(() => {
        signal.emitUnsafe("total")
        Deferred.doneUnsafe(answer, Exit.succeed<Backing>(new FakeBacking()))
      })
      assert.strictEqual(yield* abortedOf(fiber), "connect 0/0 total")
      assert.deepStrictEqual(cut, ["released"])
    }))

  it.effect("a connection that is made as its fiber is interrupted is let go", () =>
    Effect.gen(function*() {
      const backing = new FakeBacking()
      const fiber = yield* start(Effect.withFiber((fiber) =>
        StreamSocket.connect(remote).pipe(
          Cancellation.withSignal(Cancellation.makeSignal()),
          Effect.provide(connecting(() =>
            Effect.sync(() => {
              fiber.interruptUnsafe()
              return backing
            })
          ))
        )
      ))
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
      assert.deepStrictEqual(backing.calls, ["abort"])
    }))

  it.effect("a connect in a region connects, fails and is interrupted as one outside", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const region = Cancellation.withSignal(signal)
      const acceptor = yield* Acceptor.listen("localhost:0")
      const socket = yield* region(StreamSocket.connect(acceptor.address))
      assert.strictEqual(socket.state.socket, "open")
      const refused = yield* Effect.exit(region(StreamSocket.connect("localhost:1")))
      assert.strictEqual(ending(refused), "ConnectionRefused")
      assert.deepStrictEqual(signal.pending, [])
      const fiber = yield* start(
        region(StreamSocket.connect(remote)).pipe(Effect.provide(connecting(() => Effect.never)))
      )
      yield* Effect.yieldNow
      assert.strictEqual(signal.pending.length, 1)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
      assert.deepStrictEqual(signal.pending, [])
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a name that nobody resolves, to connect to and to listen on", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const region = Cancellation.withSignal(signal)
      const connect = yield* start(region(StreamSocket.connect("db.internal:5432")))
      const listen = yield* start(region(Acceptor.listen("db.internal:5432")))
      yield* Effect.yieldNow
      assert.deepStrictEqual(told(yield* signal.emit("partial")), {
        ended: ["connect 0/0 total", "listen 0/0 total"],
        continued: []
      })
      const exit = yield* Fiber.await(connect)
      assert.strictEqual(aborted(exit), "connect 0/0 total")
      assert.include(failure(exit).message, "tcp://db.internal:5432")
      assert.strictEqual(yield* abortedOf(listen), "listen 0/0 total")
    }).pipe(Effect.provide([MemoryTransport.layer, neverResolves])))

  it.effect("a server stops accepting, waits for its handlers, and says why", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const acceptor = yield* Acceptor.listen("localhost:0")
      const handled: Array<number> = []
      const stopped = yield* Deferred.make<string>()
      yield* start(
        Acceptor.serve(acceptor, (socket) =>
          socket.readSome(new Uint8Array(5)).pipe(
            Effect.map((count) => handled.push(count)),
            Cancellation.withFilter(Cancellation.allowNone)
          )).pipe(
            Effect.exit,
            Effect.flatMap((exit) => Deferred.succeed(stopped, aborted(exit))),
            Effect.andThen(Effect.never),
            Cancellation.withSignal(signal)
          )
      )
      const client = yield* StreamSocket.connect(acceptor.address)
      // Until the handler waits, and the server for the next connection.
      yield* Effect.repeat(Effect.yieldNow, { until: () => signal.pending.length === 2 })
      assert.deepStrictEqual(told(yield* signal.emit("total")), {
        ended: ["accept 0/0 total"],
        continued: ["readSome 0/5"]
      })
      yield* Effect.repeat(Effect.yieldNow, { times: 10 })
      assert.isFalse(yield* Deferred.isDone(stopped))
      yield* Write.writeAll(client, hello)
      assert.strictEqual(yield* Deferred.await(stopped), "accept 0/0 total")
      assert.deepStrictEqual(handled, [5])
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a server that is asked to stop finishes the message that it is in the middle of", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen("localhost:0")
      const signal = Cancellation.makeSignal()
      const outcomes: Array<string> = []
      const message = pattern(1_000_000)
      const serving = yield* start(
        Acceptor.serve(acceptor, (socket) =>
          Write.writeAll(socket, message).pipe(
            Effect.onExit((exit) => Effect.sync(() => outcomes.push(Cancellation.outcome(exit)._tag)))
          )).pipe(Cancellation.withSignal(signal))
      )
      const client = yield* StreamSocket.connect(acceptor.address)
      yield* Effect.repeat(Effect.yieldNow, { until: () => signal.pending.length === 2 })
      const climbing = yield* start(
        Cancellation.escalate(signal, { types: ["total", "terminal"], until: Fiber.await(serving) })
      )
      assertBytes(yield* Read.readAll(client), message)
      assert.strictEqual((yield* Fiber.join(climbing)).endedBy, "total")
      assert.deepStrictEqual(outcomes, ["Completed"])
      assert.strictEqual(ending(yield* Fiber.await(serving)), "OperationAborted")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a condition that ends its write by a request and then throws leaves the stream as it was asked", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket, writable } = yield* scripted({ writes: [take(2), block] })
      const condition = (transferred: number): number => {
        if (transferred === 0) return 2
        signal.emitUnsafe("partial")
        throw new Error("too late")
      }
      const fiber = yield* start(Cancellation.withSignal(Write.writeAll(socket, hello, condition), signal))
      yield* Effect.yieldNow
      assert.strictEqual(yield* abortedOf(fiber), "writeAll 2/5 partial")
      assert.strictEqual(socket.state.write, "open")
      yield* start(socket.writeSome(hello))
      yield* writable.pipe(Effect.ignore)
    }))

  describe("a close that lingers", () => {
    const lingering = (signal: Cancellation.CancellationSignal, options?: Parameters<typeof StreamSocket.make>[1]) =>
      Effect.gen(function*() {
        const backing = new FakeBacking()
        backing.releases = ["abort"]
        const socket = StreamSocket.make(backing, options)
        const fiber = yield* start(Cancellation.withSignal(socket.close, signal))
        return { backing, socket, fiber }
      })

    it.effect("that ends by itself is not reached any more", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { backing, fiber } = yield* lingering(signal)
        const report = yield* Effect.sync(() => {
          backing.events?.closed()
          return signal.emitUnsafe("terminal")
        })
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(report, nothingDone)
        assert.deepStrictEqual(backing.calls, ["close"])
      }))

    it.effect("that is interrupted leaves the region", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { backing, fiber } = yield* lingering(signal)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(backing.calls, ["close", "abort"])
        assert.deepStrictEqual(signal.pending, [])
      }))

    it.effect("of a scope is nobody's but its linger time's, in whatever region the stream was opened", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const backing = new FakeBacking()
        backing.releases = ["abort"]
        const fiber = yield* start(
          Effect.scoped(StreamSocket.connect(remote)).pipe(
            Cancellation.withSignal(signal),
            Cancellation.cancelAfter(0),
            Cancellation.withSignal(Cancellation.fromAbortSignal(AbortSignal.abort(), "terminal")),
            Effect.provide(connecting(() => Effect.succeed(backing)))
          )
        )
        yield* TestClock.adjust(0)
        yield* Effect.repeat(Effect.yieldNow, { times: 10 })
        assert.deepStrictEqual(told(yield* signal.emit("terminal")), { ended: [], continued: [] })
        assert.deepStrictEqual(backing.calls, ["close"])
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(backing.calls, ["close", "abort"])
      }))
  })

  it.effect("operations that wait when the socket is closed end with Closed and leave the region", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, socket } = yield* waitingRead(signal)
      const write = yield* midway(signal)
      yield* socket.close
      yield* write.socket.abort
      assert.deepStrictEqual(signal.pending, [])
      assert.deepStrictEqual([ending(yield* Fiber.await(fiber)), ending(yield* Fiber.await(write.fiber))], [
        "Closed",
        "Closed"
      ])
    }))
})

describe("idle", () => {
  it.effect("ends at once, a turn later, where nothing waits", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const fiber = yield* start(signal.idle)
      yield* Effect.yieldNow
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
    }))

  it.effect("waits for the last operation of all", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const read = yield* waitingRead(signal, data("hello"))
      const write = yield* midway(signal, take(2))
      const idle = yield* start(signal.idle)
      yield* read.readable
      yield* Effect.yieldNow
      assert.isUndefined(idle.pollUnsafe())
      yield* write.writable
      yield* Fiber.join(idle)
      yield* Fiber.join(write.fiber)
    }))

  for (const [name, between] of [["at once", Effect.void], ["within a turn", Effect.yieldNow]] as const) {
    it.effect(`goes on waiting when another operation follows ${name}`, () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { readable, socket } = yield* scripted({ reads: [block, data("a"), block, data("b")] })
        const read = socket.readSome(new Uint8Array(1))
        const fiber = yield* start(Cancellation.withSignal(Effect.andThen(Effect.andThen(read, between), read), signal))
        const idle = yield* start(signal.idle)
        yield* readable
        for (let turn = 0; turn < 5; turn++) yield* Effect.yieldNow
        assert.isUndefined(idle.pollUnsafe())
        yield* readable
        yield* Fiber.join(fiber)
        yield* Fiber.join(idle)
      }))
  }

  it.effect("an interrupted wait leaves the others", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, readable } = yield* waitingRead(signal, data("hello"))
      const first = yield* start(signal.idle)
      const second = yield* start(signal.idle)
      yield* Fiber.interrupt(first)
      const third = yield* start(signal.idle)
      assert.deepStrictEqual([second.pollUnsafe(), third.pollUnsafe()], [undefined, undefined])
      yield* readable
      yield* Fiber.join(second)
      yield* Fiber.join(third)
      yield* Fiber.join(fiber)
    }))
})

describe("fromAbortSignal", () => {
  const listeners = (signal: AbortSignal) => getEventListeners(signal, "abort").length

  it.effect("an abort asks what waits, and its reason is the cause of the errors", () =>
    Effect.gen(function*() {
      const controller = new AbortController()
      const signal = Cancellation.fromAbortSignal(controller.signal, "partial")
      const read = yield* waitingRead(signal)
      const write = yield* midway(signal)
      const reason = new Error("the user left")
      yield* Effect.sync(() => controller.abort(reason))
      assert.strictEqual(yield* abortedOf(read.fiber), "readSome 0/5 total")
      assert.strictEqual(yield* abortedOf(write.fiber), "writeAll 3/5 partial")
      assert.strictEqual(failure(yield* Fiber.await(read.fiber)).cause, reason)
      assert.strictEqual(failure(yield* Fiber.await(write.fiber)).cause, reason)
      assert.strictEqual(listeners(controller.signal), 0)
    }))

  it.effect("an abort in the turn of readiness: who comes first has the say", () =>
    Effect.gen(function*() {
      for (const first of ["readiness", "abort"] as const) {
        const controller = new AbortController()
        const backing = new FakeBacking()
        const socket = StreamSocket.make(backing)
        const signal = Cancellation.fromAbortSignal(controller.signal, "total")
        const fiber = yield* start(Cancellation.withSignal(socket.readSome(new Uint8Array(5)), signal))
        yield* Effect.sync(() => {
          if (first === "abort") controller.abort()
          backing.readAnswer = (target) => target.byteLength
          backing.events?.readable()
          controller.abort()
        })
        assert.strictEqual(ending(yield* Fiber.await(fiber)), first === "abort" ? "OperationAborted" : "Success")
      }
    }))

  it.effect("having been aborted stands: what has to wait afterwards is asked, what need not is not", () =>
    Effect.gen(function*() {
      const reason = { why: "before it began" }
      const signal = Cancellation.fromAbortSignal(AbortSignal.abort(reason), "total")
      const { socket } = yield* scripted({ reads: [data("hello"), block], writes: [take(5), take(3), block] })
      const region = Cancellation.withSignal(signal)
      assert.strictEqual(yield* region(socket.readSome(new Uint8Array(5))), 5)
      assert.strictEqual(yield* region(Write.writeAll(socket, hello)), 5)
      const waited = yield* Effect.exit(region(socket.readSome(new Uint8Array(5))))
      assert.strictEqual(aborted(waited), "readSome 0/5 total")
      assert.strictEqual(failure(waited).cause, reason)
      // Again and again, and only as far as the guarantee can be kept.
      assert.strictEqual(aborted(yield* Effect.exit(region(socket.readSome(new Uint8Array(4))))), "readSome 0/4 total")
      const write = yield* start(region(Write.writeAll(socket, hello)))
      yield* Effect.yieldNow
      assert.isUndefined(write.pollUnsafe())
      assert.deepStrictEqual(signal.pending.map((it) => it.transferred), [3])
    }))

  it.effect("an abort between two operations reaches the second", () =>
    Effect.gen(function*() {
      const controller = new AbortController()
      const { socket } = yield* scripted({ reads: [data("a"), block] })
      const gate = yield* Deferred.make<void>()
      const read = socket.readSome(new Uint8Array(1))
      const fiber = yield* start(
        Effect.andThen(Effect.andThen(read, Deferred.await(gate)), read).pipe(
          Cancellation.withSignal(Cancellation.fromAbortSignal(controller.signal, "terminal"))
        )
      )
      controller.abort()
      assert.isUndefined(fiber.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* abortedOf(fiber), "readSome 0/1 total")
    }))

  it.effect("listens only while operations wait, once for all of them", () =>
    Effect.gen(function*() {
      const controller = new AbortController()
      const signal = Cancellation.fromAbortSignal(controller.signal, "total")
      assert.strictEqual(listeners(controller.signal), 0)
      const first = yield* waitingRead(signal, data("hello"))
      const second = yield* waitingRead(signal)
      assert.strictEqual(listeners(controller.signal), 1)
      yield* first.readable
      yield* Fiber.join(first.fiber)
      assert.strictEqual(listeners(controller.signal), 1)
      yield* Fiber.interrupt(second.fiber)
      assert.strictEqual(listeners(controller.signal), 0)
      const third = yield* waitingRead(signal)
      assert.strictEqual(listeners(controller.signal), 1)
      yield* signal.emit("total")
      yield* Fiber.await(third.fiber)
      assert.strictEqual(listeners(controller.signal), 0)
    }))

  it.effect("it can be emitted by hand as well, with any type and without a cause", () =>
    Effect.gen(function*() {
      const signal = Cancellation.fromAbortSignal(new AbortController().signal, "total")
      const { fiber, socket } = yield* midway(signal)
      assert.deepStrictEqual(told(yield* signal.emit("terminal")).ended, ["writeAll 3/5 terminal"])
      assert.isUndefined(failure(yield* Fiber.await(fiber)).cause)
      assert.strictEqual(socket.state.write, "torn")
    }))

  it.effect("AbortSignal.any joins several", () =>
    Effect.gen(function*() {
      const controllers = [new AbortController(), new AbortController()] as const
      const joined = AbortSignal.any(controllers.map((controller) => controller.signal))
      const { fiber } = yield* waitingRead(Cancellation.fromAbortSignal(joined, "total"))
      controllers[1].abort("the second")
      assert.strictEqual(yield* abortedOf(fiber), "readSome 0/5 total")
      assert.strictEqual(failure(yield* Fiber.await(fiber)).cause, "the second")
    }))
})

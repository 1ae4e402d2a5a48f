import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as Write from "../../src/Write.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, data, make: scripted, take } = ScriptedStream
const hello = Buffers.utf8("hello")
const types = ["total", "partial", "terminal"] as const

/** How an exit tells of the deadline that ended it: `writeAll 3/5 partial`. */
const late = <A, E>(exit: Exit.Exit<A, E>): string => {
  const { operation, reason } = failure(exit)
  if (reason._tag !== "OperationAborted") return assert.fail(`${operation} failed with ${reason._tag}`)
  assert.isTrue(reason.deadline)
  return `${operation} ${reason.transferred}/${reason.total} ${reason.type}`
}

const lateOf = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<string> => Effect.map(Fiber.await(fiber), late)

const told = ({ ended, continued }: Cancellation.Report) => ({
  ended: ended.map(({ guarantee, operation, total, transferred }) =>
    `${operation} ${transferred}/${total} ${guarantee}`
  ),
  continued: continued.map(({ operation, total, transferred }) => `${operation} ${transferred}/${total}`)
})

const target = () => new Uint8Array(5)

/** A clock whose every sleep is ended by hand, so that something else can happen in the same turn. */
class HandClock implements Clock.Clock {
  readonly sleeps: Array<{ readonly millis: number; readonly end: () => void }> = []
  readonly currentTimeMillis = Effect.succeed(0)
  readonly currentTimeNanos = Effect.succeed(0n)
  readonly monotonicTimeNanos = Effect.succeed(0n)

  currentTimeMillisUnsafe(): number {
    return 0
  }
  currentTimeNanosUnsafe(): bigint {
    return 0n
  }
  monotonicTimeNanosUnsafe(): bigint {
    return 0n
  }
  sleep(duration: Duration.Duration): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const leave = () => {
        this.sleeps.splice(this.sleeps.indexOf(sleep), 1)
      }
      const sleep = {
        millis: Duration.toMillis(duration),
        end: () => {
          leave()
          resume(Effect.void)
        }
      }
      this.sleeps.push(sleep)
      return Effect.sync(leave)
    })
  }
}

const onClock = (clock: HandClock) => Effect.provideService(Clock.Clock, clock)

/** Until every fiber has gone as far as it can without anybody's help. */
const turns = Effect.repeat(Effect.yieldNow, { times: 5 })

describe("cancelAfter", () => {
  it.effect("the type is terminal by default, in both orders of arguments", () =>
    Effect.gen(function*() {
      for (
        const after of [
          (write: Effect.Effect<number, unknown>) => Cancellation.cancelAfter(write, "1 second"),
          Cancellation.cancelAfter("1 second"),
          Cancellation.cancelAfter(1000),
          Cancellation.cancelAfter(Duration.seconds(1))
        ]
      ) {
        const { socket } = yield* scripted({ writes: [take(3), block] })
        const fiber = yield* start(after(Write.writeAll(socket, hello)))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* lateOf(fiber), "writeAll 3/5 terminal")
      }
    }))

  it.effect("does not change what an effect ends with in time", () =>
    Effect.gen(function*() {
      const clock = new HandClock()
      const inTime = Cancellation.cancelAfter("1 second")
      assert.deepStrictEqual(yield* Effect.exit(inTime(Effect.succeed(1))), Exit.succeed(1))
      assert.deepStrictEqual(yield* Effect.exit(inTime(Effect.fail("no"))), Exit.fail("no"))
      const { readable, socket } = yield* scripted({ reads: [block, data("hello")] })
      const fiber = yield* start(onClock(clock)(inTime(socket.readSome(target()))))
      yield* turns
      assert.deepStrictEqual(clock.sleeps.map((sleep) => sleep.millis), [1000])
      yield* readable
      assert.strictEqual(yield* Fiber.join(fiber), 5)
      assert.deepStrictEqual(clock.sleeps, [])
    }))

  it.effect("reaches every operation inside, also of forked fibers, and none outside", () =>
    Effect.gen(function*() {
      const waitingRead = Effect.map(scripted({ reads: [block] }), ({ socket }) => socket.readSome(target()))
      const [one, two, three, outside] = yield* Effect.all([waitingRead, waitingRead, waitingRead, waitingRead])
      const apart = yield* start(outside)
      const fiber = yield* start(
        Effect.gen(function*() {
          const detached = yield* Effect.forkDetach(one, { startImmediately: true })
          const both = yield* Effect.all([Effect.exit(two), Effect.exit(three)], { concurrency: "unbounded" })
          return [yield* Fiber.await(detached), ...both]
        }).pipe(Cancellation.cancelAfter("1 second", "total"))
      )
      yield* TestClock.adjust("1 second")
      const exits = yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        exits.map(late),
        Array.from({ length: 3 }, () => "readSome 0/5 total")
      )
      assert.isUndefined(apart.pollUnsafe())
    }))

  it.effect("does not touch what is no operation, and reaches the operation that follows", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ reads: [data("a"), block] })
      const gate = yield* Deferred.make<void>()
      const read = socket.readSome(new Uint8Array(1))
      const fiber = yield* start(
        Effect.andThen(Effect.andThen(read, Deferred.await(gate)), read).pipe(
          Cancellation.cancelAfter("1 second", "partial")
        )
      )
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(fiber.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* lateOf(fiber), "readSome 0/1 total")
    }))

  it.effect("after the deadline, what need not wait completes, and what has to is asked each time", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ reads: [block], writes: [take(5), take(3), block] })
      const endings: Array<string> = []
      const note = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.map(Effect.exit(effect), (exit) => endings.push(Exit.isSuccess(exit) ? "done" : late(exit)))
      const fiber = yield* start(
        Effect.gen(function*() {
          yield* note(socket.readSome(target()))
          yield* note(socket.readSome(new Uint8Array(4)))
          yield* note(Write.writeAll(socket, hello))
          yield* note(Write.writeAll(socket, hello))
        }).pipe(Cancellation.cancelAfter("1 second", "partial"))
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(endings, [
        "readSome 0/5 total",
        "readSome 0/4 total",
        "done",
        "writeAll 3/5 partial"
      ])
    }))

  it.effect("a deadline that one operation refused asks the next", () =>
    Effect.gen(function*() {
      const { socket, writable } = yield* scripted({ reads: [block], writes: [take(3), block, take(2)] })
      const fiber = yield* start(
        Effect.andThen(Write.writeAll(socket, hello), socket.readSome(target())).pipe(
          Cancellation.cancelAfter("1 second", "total")
        )
      )
      yield* TestClock.adjust("1 second")
      assert.isUndefined(fiber.pollUnsafe())
      yield* writable
      assert.strictEqual(yield* lateOf(fiber), "readSome 0/5 total")
    }))

  it.effect("does not hold for what outlives the effect", () =>
    Effect.gen(function*() {
      const { readable, socket } = yield* scripted({ reads: [block, data("hello"), block] })
      const both = yield* Effect.gen(function*() {
        const read = socket.readSome(target())
        const fiber = yield* Effect.forkDetach(Effect.andThen(read, read), { startImmediately: true })
        yield* Effect.sleep("2 seconds")
        return fiber
      }).pipe(Cancellation.cancelAfter("3 seconds", "terminal"), Effect.tap(Effect.void), start)
      yield* TestClock.adjust("2 seconds")
      const outlives = yield* Fiber.join(both)
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(outlives.pollUnsafe())
      yield* readable
      yield* turns
      assert.isUndefined(outlives.pollUnsafe())
      yield* Fiber.interrupt(outlives)
    }))

  it.effect("that has passed is lifted with the effect: what outlives it may wait", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ reads: [block] })
      const gate = yield* Deferred.make<void>()
      const cancelling = yield* start(
        Effect.gen(function*() {
          const read = Effect.andThen(Deferred.await(gate), socket.readSome(target()))
          const outlives = yield* Effect.forkDetach(read, { startImmediately: true })
          yield* Effect.sleep("2 seconds")
          return outlives
        }).pipe(Cancellation.cancelAfter("1 second", "terminal"))
      )
      yield* TestClock.adjust("2 seconds")
      const outlives = yield* Fiber.join(cancelling)
      yield* Deferred.succeed(gate, undefined)
      yield* turns
      assert.isUndefined(outlives.pollUnsafe())
      yield* Fiber.interrupt(outlives)
    }))

  describe("in the turn in which the time is over", () => {
    const onTheMinute = Effect.gen(function*() {
      const clock = new HandClock()
      const backing = new FakeBacking()
      const socket = StreamSocket.make(backing)
      const fiber = yield* start(
        Effect.all([socket.readSome(target()), Write.writeAll(socket, hello)], { concurrency: "unbounded" }).pipe(
          Cancellation.cancelAfter("1 minute", "terminal"),
          onClock(clock)
        )
      )
      yield* turns
      assert.deepStrictEqual(clock.sleeps.map((sleep) => sleep.millis), [60_000])
      const ready = () => {
        backing.readAnswer = (into) => into.byteLength
        backing.writeAnswer = (source) => source.remaining
        backing.events?.readable()
        backing.events?.writable()
      }
      return { clock, ready, fiber, socket }
    })

    it.effect("an operation that becomes ready before has finished", () =>
      Effect.gen(function*() {
        const { clock, fiber, ready } = yield* onTheMinute
        yield* Effect.sync(() => {
          const { end } = clock.sleeps[0]!
          ready()
          end()
        })
        assert.deepStrictEqual(yield* Fiber.join(fiber), [5, 5])
        assert.deepStrictEqual(clock.sleeps, [])
      }))

    it.effect("an operation that becomes ready after has finished, too", () =>
      Effect.gen(function*() {
        const { clock, fiber, ready, socket } = yield* onTheMinute
        yield* Effect.sync(() => {
          clock.sleeps[0]!.end()
          ready()
        })
        assert.deepStrictEqual(yield* Fiber.join(fiber), [5, 5])
        yield* turns
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("so has one whose readiness is told in a microtask behind", () =>
      Effect.gen(function*() {
        const { clock, fiber, ready } = yield* onTheMinute
        yield* Effect.sync(() => {
          clock.sleeps[0]!.end()
          queueMicrotask(() => queueMicrotask(ready))
        })
        assert.deepStrictEqual(yield* Fiber.join(fiber), [5, 5])
      }))

    it.effect("one that becomes ready a turn later is late", () =>
      Effect.gen(function*() {
        const { clock, fiber, ready, socket } = yield* onTheMinute
        yield* Effect.sync(() => clock.sleeps[0]!.end())
        yield* turns
        ready()
        assert.strictEqual(yield* lateOf(fiber), "readSome 0/5 total")
        assert.deepStrictEqual([socket.bytesRead, socket.bytesWritten], [0, 0])
      }))
  })

  describe("nested", () => {
    const cases = [
      { outer: ["1 second", "terminal"], inner: ["2 seconds", "partial"], at: 1000, type: "terminal" },
      { outer: ["2 seconds", "terminal"], inner: ["1 second", "partial"], at: 1000, type: "partial" },
      { outer: ["2 seconds", "partial"], inner: ["1 second", "terminal"], at: 1000, type: "terminal" },
      { outer: ["1 second", "partial"], inner: ["2 seconds", "terminal"], at: 1000, type: "partial" },
      // The earlier one is refused, and so leaves it to the later.
      { outer: ["1 second", "total"], inner: ["2 seconds", "partial"], at: 2000, type: "partial" },
      { outer: ["2 seconds", "terminal"], inner: ["1 second", "total"], at: 2000, type: "terminal" }
    ] as const

    for (const { at, inner, outer, type } of cases) {
      it.effect(`${outer.join(" ")} around ${inner.join(" ")}: ${type} after ${at} ms`, () =>
        Effect.gen(function*() {
          const { socket } = yield* scripted({ writes: [take(3), block] })
          const fiber = yield* start(
            Write.writeAll(socket, hello).pipe(
              Cancellation.cancelAfter(inner[0], inner[1]),
              Cancellation.cancelAfter(outer[0], outer[1])
            )
          )
          yield* TestClock.adjust(at - 1)
          assert.isUndefined(fiber.pollUnsafe())
          yield* TestClock.adjust(1)
          assert.strictEqual(yield* lateOf(fiber), `writeAll 3/5 ${type}`)
        }))
    }

    it.effect("the later one is gone with the effect", () =>
      Effect.gen(function*() {
        const clock = new HandClock()
        const { socket } = yield* scripted({ reads: [block] })
        const fiber = yield* start(
          socket.readSome(target()).pipe(
            Cancellation.cancelAfter("1 second"),
            Cancellation.cancelAfter("2 seconds"),
            onClock(clock)
          )
        )
        yield* turns
        assert.deepStrictEqual(clock.sleeps.map((sleep) => sleep.millis).toSorted((a, b) => a - b), [1000, 2000])
        clock.sleeps.find((sleep) => sleep.millis === 1000)?.end()
        assert.strictEqual(yield* lateOf(fiber), "readSome 0/5 total")
        assert.deepStrictEqual(clock.sleeps, [])
      }))

    it.effect("an inner one holds only for its part", () =>
      Effect.gen(function*() {
        const { socket } = yield* scripted({ reads: [block] })
        const read = socket.readSome(target())
        const fiber = yield* start(
          Effect.andThen(Effect.exit(Cancellation.cancelAfter(read, "1 second")), read).pipe(
            Cancellation.cancelAfter("3 seconds")
          )
        )
        yield* TestClock.adjust("2999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* lateOf(fiber), "readSome 0/5 total")
      }))
  })

  it.effect("next to a signal: a request is not a deadline, and either ends it", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      const read = socket.readSome(target()).pipe(
        Cancellation.cancelAfter("1 second"),
        Cancellation.withSignal(signal)
      )
      const asked = yield* start(read)
      yield* signal.emit("total")
      const { reason } = failure(yield* Fiber.await(asked))
      assert.isTrue(reason._tag === "OperationAborted" && reason.deadline !== true)
      const waited = yield* start(read)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* lateOf(waited), "readSome 0/5 total")
      assert.deepStrictEqual(signal.pending, [])
    }))

  it.effect("a filter holds back the deadlines around it", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ reads: [block] })
      const fiber = yield* start(
        socket.readSome(target()).pipe(
          Cancellation.cancelAfter("3 seconds"),
          Cancellation.withFilter(Cancellation.allowNone),
          Cancellation.cancelAfter("1 second")
        )
      )
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* lateOf(fiber), "readSome 0/5 total")
    }))

  it.effect("an infinite duration is no deadline and starts no timer", () =>
    Effect.gen(function*() {
      const clock = new HandClock()
      const { readable, socket } = yield* scripted({ reads: [block, data("hello")] })
      const fiber = yield* start(
        socket.readSome(target()).pipe(Cancellation.cancelAfter(Duration.infinity), onClock(clock))
      )
      yield* turns
      assert.deepStrictEqual(clock.sleeps, [])
      yield* readable
      assert.strictEqual(yield* Fiber.join(fiber), 5)
    }))

  it.effect("a duration of nothing asks in the next turn, and lets pass what does not wait", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ reads: [data("hello"), block] })
      const read = socket.readSome(target()).pipe(Cancellation.cancelAfter(0, "total"))
      assert.strictEqual(yield* read, 5)
      const fiber = yield* start(read)
      assert.isUndefined(fiber.pollUnsafe())
      yield* turns
      const exit = fiber.pollUnsafe()
      assert.strictEqual(exit && late(exit), "readSome 0/5 total")
    }))

  it("a duration that is none is an error that names it, at the call", () => {
    // Input that only code without types can pass.
    const wrong = "soon" as Duration.Input
    assert.throws(() => Cancellation.cancelAfter(Effect.void, wrong), "soon")
    assert.throws(() => Cancellation.cancelAfter(wrong)(Effect.void), "soon")
  })

  it("a type that there is not is an error that names it, at the call", () => {
    const gently = "gently" as Cancellation.Type
    assert.throws(() => Cancellation.cancelAfter(Effect.void, "1 second", gently), TypeError, "gently")
  })

  describe("interrupted", () => {
    it.effect("ends as without a deadline and leaves no timer", () =>
      Effect.gen(function*() {
        const clock = new HandClock()
        const { socket } = yield* scripted({ writes: [take(3), block] })
        const fiber = yield* start(
          Write.writeAll(socket, hello).pipe(
            Cancellation.cancelAfter("1 second", "terminal"),
            Cancellation.partial,
            onClock(clock)
          )
        )
        yield* turns
        assert.strictEqual(clock.sleeps.length, 1)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
          transferred: 3,
          total: 5,
          guarantee: "partial"
        })
        assert.deepStrictEqual(clock.sleeps, [])
        yield* turns
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("at once, before anything has had its turn: leaves no timer", () =>
      Effect.gen(function*() {
        const clock = new HandClock()
        const { socket } = yield* scripted({ reads: [block] })
        const fiber = yield* start(socket.readSome(target()).pipe(Cancellation.cancelAfter("1 second"), onClock(clock)))
        yield* Fiber.interrupt(fiber)
        yield* turns
        assert.deepStrictEqual(clock.sleeps, [])
      }))

    it.effect("a write that finishes under the total policy can still be ended by the deadline", () =>
      Effect.gen(function*() {
        const { socket } = yield* scripted({ writes: [take(3), block] })
        const fiber = yield* start(
          Write.writeAll(socket, hello).pipe(Cancellation.total(), Cancellation.cancelAfter("1 second", "partial"))
        )
        yield* turns
        const interruption = yield* start(Fiber.interrupt(fiber))
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(interruption.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(interruption)
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), {
          transferred: 3,
          total: 5,
          guarantee: "partial"
        })
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("a deadline and the bound of the total policy: the earlier wins", () =>
      Effect.gen(function*() {
        for (const [within, deadline] of [["1 second", "2 seconds"], ["2 seconds", "1 second"]] as const) {
          const { socket } = yield* scripted({ writes: [take(3), block] })
          const fiber = yield* start(
            Write.writeAll(socket, hello).pipe(
              Cancellation.total({ within }),
              Cancellation.cancelAfter(deadline, "partial")
            )
          )
          yield* turns
          const interruption = yield* start(Fiber.interrupt(fiber))
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(interruption)
          assert.strictEqual(
            transferOf(yield* Fiber.await(fiber)).guarantee,
            deadline === "1 second" ? "partial" : "terminal"
          )
        }
      }))
  })

  it.live("leaves no timer of the event loop, however it ends", () =>
    Effect.gen(function*() {
      const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length
      const before = timers()
      const [here, there] = yield* MemoryTransport.pair()
      const read = here.readSome(target()).pipe(Cancellation.cancelAfter("1 hour"))
      const waits = start(read).pipe(Effect.tap(turns))
      const interrupted = yield* waits
      assert.strictEqual(timers(), before + 1)
      yield* Fiber.interrupt(interrupted)
      assert.strictEqual(timers(), before)
      const completed = yield* waits
      assert.strictEqual(timers(), before + 1)
      yield* there.writeSome(hello)
      assert.strictEqual(yield* Fiber.join(completed), 5)
      assert.strictEqual(timers(), before)
      const closed = yield* waits
      yield* here.close
      assert.strictEqual(ending(yield* Fiber.await(closed)), "Closed")
      assert.strictEqual(timers(), before)
    }))

  it.live("asks by the real clock, too", () =>
    Effect.gen(function*() {
      const [here] = yield* MemoryTransport.pair()
      const exit = yield* Effect.exit(Cancellation.cancelAfter(here.readSome(target()), "1 millis", "total"))
      assert.strictEqual(late(exit), "readSome 0/5 total")
    }))
})

const unchanged: Cancellation.Filter = (type) => type

describe("escalate", () => {
  const schedule = Schedule.spaced("1 second")

  /** A write in the middle of its bytes, behind a filter if there is one. */
  const midway = (
    signal: Cancellation.CancellationSignal,
    filter: Cancellation.Filter = unchanged,
    ...then: ReadonlyArray<ScriptedStream.WriteStep>
  ) =>
    Effect.gen(function*() {
      const stream = yield* scripted({ writes: [take(3), block, ...then] })
      const fiber = yield* start(
        Write.writeAll(stream.socket, hello).pipe(Cancellation.withFilter(filter), Cancellation.withSignal(signal))
      )
      return { ...stream, fiber }
    })

  const reading = (signal: Cancellation.CancellationSignal) =>
    Effect.flatMap(
      scripted({ reads: [block] }),
      ({ socket }) => start(Cancellation.withSignal(socket.readSome(target()), signal))
    )

  const summary = ({ endedBy, steps }: Cancellation.Escalation) => ({
    endedBy,
    steps: steps.map(({ type, ...report }) => ({ type, ...told(report) }))
  })

  const read = "readSome 0/5 total"
  const refused = { ended: [], continued: ["writeAll 3/5"] }

  it.effect("total is enough for reads, at once", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const fibers = [yield* reading(signal), yield* reading(signal)]
      assert.deepStrictEqual(summary(yield* Cancellation.escalate(signal)), {
        endedBy: "total",
        steps: [{ type: "total", ended: [read, read], continued: [] }]
      })
      for (const fiber of fibers) assert.strictEqual(ending(yield* Fiber.await(fiber)), "OperationAborted")
    }))

  it.effect("partial is enough for a write in the middle, a second later", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      yield* reading(signal)
      const { fiber, socket } = yield* midway(signal)
      const escalating = yield* start(Cancellation.escalate(signal))
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(summary(yield* Fiber.join(escalating)), {
        endedBy: "partial",
        steps: [
          { type: "total", ended: [read], continued: ["writeAll 3/5"] },
          { type: "partial", ended: ["writeAll 3/5 partial"], continued: [] }
        ]
      })
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "OperationAborted")
      assert.strictEqual(socket.state.write, "open")
    }))

  it.effect("terminal is enough for what lets nothing else through, two seconds later", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, socket } = yield* midway(signal, Cancellation.allowTerminal)
      const escalating = yield* start(Cancellation.escalate(signal))
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(summary(yield* Fiber.join(escalating)), {
        endedBy: "terminal",
        steps: [
          { type: "total", ...refused },
          { type: "partial", ...refused },
          { type: "terminal", ended: ["writeAll 3/5 terminal"], continued: [] }
        ]
      })
      assert.strictEqual(socket.state.write, "torn")
    }))

  it.effect("nothing is enough for what lets nothing through: it waits once more, and says so", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, writable } = yield* midway(signal, Cancellation.allowNone, take(2))
      const escalating = yield* start(Cancellation.escalate(signal))
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(escalating.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(summary(yield* Fiber.join(escalating)), {
        endedBy: undefined,
        steps: types.map((type) => ({ type, ...refused }))
      })
      yield* writable
      assert.strictEqual(yield* Fiber.join(fiber), 5)
    }))

  it.effect("where nothing waits, the first step is enough", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Cancellation.escalate(Cancellation.makeSignal()), {
        endedBy: "total",
        steps: [{ type: "total", ended: [], continued: [] }]
      })
    }))

  it.effect("work that ends by itself between two steps: the last step was enough", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, socket, writable } = yield* midway(signal, unchanged, take(2))
      const escalating = yield* start(Cancellation.escalate(signal))
      yield* TestClock.adjust("500 millis")
      yield* writable
      assert.deepStrictEqual(summary(yield* Fiber.join(escalating)), {
        endedBy: "total",
        steps: [{ type: "total", ...refused }]
      })
      assert.strictEqual(yield* Fiber.join(fiber), 5)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(socket.state.write, "open")
    }))

  it.effect("a fiber that goes on with another operation is not over", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ reads: [block] })
      const read = socket.readSome(target())
      const fiber = yield* start(Cancellation.withSignal(Effect.andThen(Effect.exit(read), read), signal))
      const escalating = yield* start(Cancellation.escalate(signal))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(summary(yield* Fiber.join(escalating)), {
        endedBy: "partial",
        steps: [
          { type: "total", ended: ["readSome 0/5 total"], continued: [] },
          { type: "partial", ended: ["readSome 0/5 total"], continued: [] }
        ]
      })
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "OperationAborted")
    }))

  describe("with a schedule", () => {
    it.effect("takes its steps when the schedule says", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fiber } = yield* midway(signal, Cancellation.allowTerminal)
        const escalating = yield* start(
          Cancellation.escalate(signal, { schedule: Schedule.exponential("100 millis", 10) })
        )
        yield* TestClock.adjust("1099 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual((yield* Fiber.join(escalating)).endedBy, "terminal")
      }))

    it.effect("its input is the request just made", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        yield* midway(signal, Cancellation.allowNone)
        const inputs: Array<string> = []
        const noting = schedule.pipe(
          Schedule.setInputType<Cancellation.Type>(),
          Schedule.tap(({ input }) => Effect.sync(() => inputs.push(input)))
        )
        const escalating = yield* start(Cancellation.escalate(signal, { schedule: noting }))
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(escalating)
        assert.deepStrictEqual(inputs, [...types])
      }))

    it.effect("that ends takes no further step", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { socket } = yield* midway(signal, Cancellation.allowTerminal)
        const escalation = yield* Cancellation.escalate(signal, { schedule: Schedule.recurs(1) })
        assert.deepStrictEqual(summary(escalation), {
          endedBy: undefined,
          steps: [{ type: "total", ...refused }, { type: "partial", ...refused }]
        })
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("that ends with a step that was enough says so", () =>
      Effect.gen(function*() {
        for (const [recurs, enough] of [[0, "total"], [1, "partial"], [2, "terminal"]] as const) {
          const signal = Cancellation.makeSignal()
          if (enough === "total") yield* reading(signal)
          else yield* midway(signal, enough === "partial" ? Cancellation.allowPartial : Cancellation.allowTerminal)
          const escalation = yield* Cancellation.escalate(signal, { schedule: Schedule.recurs(recurs) })
          assert.strictEqual(escalation.endedBy, enough)
          assert.strictEqual(escalation.steps.length, recurs + 1)
        }
      }))

    it.effect("that fails is the failure of the escalation", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fiber } = yield* midway(signal)
        const failing = schedule.pipe(Schedule.tap(() => Effect.fail("no more")))
        const escalating = yield* start(Cancellation.escalate(signal, { schedule: failing }))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.await(escalating), Exit.fail("no more"))
        assert.isUndefined(fiber.pollUnsafe())
      }))
  })

  describe("until", () => {
    it.effect("a fiber is over, whatever it does besides", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { socket } = yield* scripted({ reads: [block] })
        const fiber = yield* start(
          Effect.andThen(Effect.exit(socket.readSome(target())), Effect.sleep("1500 millis")).pipe(
            Cancellation.withSignal(signal)
          )
        )
        const escalating = yield* start(Cancellation.escalate(signal, { until: Fiber.await(fiber) }))
        yield* TestClock.adjust("1499 millis")
        assert.isUndefined(escalating.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(summary(yield* Fiber.join(escalating)), {
          endedBy: "partial",
          steps: [{ type: "total", ended: [read], continued: [] }, { type: "partial", ended: [], continued: [] }]
        })
      }))

    it.effect("a set of fibers is empty", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const set = yield* FiberSet.make<number>()
        for (const steps of [[block], [block]]) {
          const { socket } = yield* scripted({ reads: steps })
          yield* FiberSet.run(set, Cancellation.withSignal(socket.readSome(target()), signal), {
            startImmediately: true
          })
        }
        const { endedBy, steps } = yield* Cancellation.escalate(signal, { until: FiberSet.awaitEmpty(set) })
        assert.deepStrictEqual([endedBy, steps.length, yield* FiberSet.size(set)], ["total", 1, 0])
      }))

    it.effect("it does not matter how it ends", () =>
      Effect.gen(function*() {
        for (const until of [Effect.fail("no"), Effect.die("no"), Effect.interrupt, Effect.succeed(1)]) {
          const signal = Cancellation.makeSignal()
          yield* midway(signal)
          const { endedBy, steps } = yield* Cancellation.escalate(signal, { until })
          assert.deepStrictEqual([endedBy, steps.length], ["total", 1])
        }
      }))

    it.effect("is not waited for any more when the steps are over", () =>
      Effect.gen(function*() {
        const cut: Array<string> = []
        const until = Effect.onInterrupt(Effect.never, () => Effect.sync(() => cut.push("until")))
        const escalating = yield* start(Cancellation.escalate(Cancellation.makeSignal(), { until }))
        yield* TestClock.adjust("3 seconds")
        assert.isUndefined((yield* Fiber.join(escalating)).endedBy)
        assert.deepStrictEqual(cut, ["until"])
      }))
  })

  it.effect("takes the steps it is given", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket } = yield* midway(signal)
      const short = yield* Cancellation.escalate(signal, { types: ["terminal", "total"] })
      assert.deepStrictEqual(summary(short), {
        endedBy: "terminal",
        steps: [{ type: "terminal", ended: ["writeAll 3/5 terminal"], continued: [] }]
      })
      assert.strictEqual(socket.state.write, "torn")
      assert.deepStrictEqual(yield* Cancellation.escalate(signal, { types: [] }), { endedBy: undefined, steps: [] })
    }))

  it.effect("interrupted: takes no further step, waits for nothing, and undoes nothing", () =>
    Effect.gen(function*() {
      const clock = new HandClock()
      const signal = Cancellation.makeSignal()
      const cut: Array<string> = []
      const until = Effect.onInterrupt(Effect.never, () => Effect.sync(() => cut.push("until")))
      const asked = yield* reading(signal)
      const { fiber } = yield* midway(signal)
      const escalating = yield* start(onClock(clock)(Cancellation.escalate(signal, { until })))
      yield* turns
      assert.deepStrictEqual(clock.sleeps.map((sleep) => sleep.millis), [1000])
      yield* Fiber.interrupt(escalating)
      assert.deepStrictEqual(clock.sleeps, [])
      assert.deepStrictEqual(cut, ["until"])
      yield* turns
      assert.isUndefined(fiber.pollUnsafe())
      assert.strictEqual(ending(yield* Fiber.await(asked)), "OperationAborted")
    }))

  it.effect("a filter that throws is its defect", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber } = yield* midway(signal, () => {
        throw new Error("broken filter")
      })
      assert.strictEqual(ending(yield* Effect.exit(Cancellation.escalate(signal))), "Die")
      assert.isUndefined(fiber.pollUnsafe())
    }))
})

import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { ending } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, make: scripted, take } = ScriptedStream
const hello = Buffers.utf8("hello")

const cancelled = (
  by: "interruption" | "request" | "deadline",
  guarantee: Cancellation.Type,
  transferred: number,
  total: number
) => Cancellation.Outcome.Cancelled({ by, guarantee, transferred, total })

/** A write of "hello" that has taken `k` bytes and waits. */
const waiting = (k: 0 | 3, region: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const stream = yield* scripted({ writes: k === 0 ? [block] : [take(k), block] })
    return { ...stream, fiber: yield* start(region(Write.writeAll(stream.socket, hello))) }
  })

const abortedError = (deadline?: boolean) =>
  new SocketError({
    reason: Reason.OperationAborted({ type: "partial", transferred: 3, total: 5, deadline }),
    operation: "writeAll",
    transferred: 3,
    total: 5
  })

const transfer = { transferred: 3, total: 5, guarantee: "partial" } as const
const interruption = Cause.annotate(Cause.interrupt(1), Context.make(Cancellation.Transfer, transfer))

describe("outcome", () => {
  it("a success has completed, with its value", () => {
    assert.deepStrictEqual(Cancellation.outcome(Exit.succeed(7)), Cancellation.Outcome.Completed({ value: 7 }))
    assert.deepStrictEqual(Cancellation.outcome(Exit.void), Cancellation.Outcome.Completed({ value: undefined }))
  })

  it("a failure and a defect have failed, with their cause", () => {
    const closed = new SocketError({ reason: Reason.Closed(), operation: "writeAll", transferred: 0 })
    const torn = new SocketError({
      reason: Reason.Torn({ transferred: 3, total: 5 }),
      operation: "writeAll",
      transferred: 0
    })
    const causes: ReadonlyArray<Cause.Cause<unknown>> = [
      Cause.fail("no"),
      Cause.fail(closed),
      Cause.fail(torn),
      Cause.fail(Cause.Done()),
      Cause.die(new Error("broken")),
      // Only a failure is one, wherever the error has got to.
      Cause.die(abortedError()),
      Cause.empty
    ]
    for (const cause of causes) {
      assert.deepStrictEqual<unknown>(
        Cancellation.outcome(Exit.failCause(cause)),
        Cancellation.Outcome.Failed({ cause })
      )
    }
  })

  it("an interruption of no write reads as total, 0 of 0", () => {
    assert.deepStrictEqual(Cancellation.outcome(Exit.interrupt(1)), cancelled("interruption", "total", 0, 0))
  })

  it.effect("an interrupted write that failed while it was finishing is cancelled, with both in its cause", () =>
    Effect.gen(function*() {
      const { socket, writable } = yield* scripted({
        writes: [take(3), block, ScriptedStream.fail(Reason.ConnectionReset())]
      })
      const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
      fiber.interruptUnsafe()
      yield* writable
      const exit = yield* Fiber.await(fiber)
      assert.strictEqual(ending(exit), "ConnectionReset")
      assert.deepStrictEqual(Cancellation.outcome(exit), cancelled("interruption", "terminal", 3, 5))
    }))

  it.effect("a request and a deadline say which of them it was", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const requested = yield* waiting(3, Cancellation.withSignal(signal))
      yield* signal.emit("partial")
      assert.deepStrictEqual(
        Cancellation.outcome(yield* Fiber.await(requested.fiber)),
        cancelled("request", "partial", 3, 5)
      )
      const late = yield* waiting(3, Cancellation.cancelAfter("1 second"))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        Cancellation.outcome(yield* Fiber.await(late.fiber)),
        cancelled("deadline", "terminal", 3, 5)
      )
      const aborted = yield* waiting(
        0,
        Cancellation.withSignal(Cancellation.fromAbortSignal(AbortSignal.abort(), "total"))
      )
      assert.deepStrictEqual(
        Cancellation.outcome(yield* Fiber.await(aborted.fiber)),
        cancelled("request", "total", 0, 5)
      )
    }))

  it.effect("a write that a request ended while it finished is cancelled by the interruption", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber } = yield* waiting(
        3,
        (effect) => effect.pipe(Cancellation.total(), Cancellation.withSignal(signal))
      )
      fiber.interruptUnsafe()
      yield* signal.emit("partial")
      assert.deepStrictEqual(
        Cancellation.outcome(yield* Fiber.await(fiber)),
        cancelled("interruption", "partial", 3, 5)
      )
    }))

  describe("of a combined cause", () => {
    const of = (...causes: ReadonlyArray<Cause.Cause<unknown>>) =>
      Cancellation.outcome(Exit.failCause(causes.reduce(Cause.combine)))
    const died = Cause.die(new Error("broken"))

    it("an interruption next to a failure is cancelled, in either order", () => {
      const expected = cancelled("interruption", "partial", 3, 5)
      assert.deepStrictEqual(of(interruption, Cause.fail("no")), expected)
      assert.deepStrictEqual(of(Cause.fail("no"), interruption), expected)
      assert.deepStrictEqual(of(Cause.interrupt(2), interruption), expected)
      assert.deepStrictEqual(
        of(Cause.fail(abortedError()), Cause.interrupt(2)),
        cancelled("interruption", "total", 0, 0)
      )
    })

    it("a defect is a failure, whatever stands next to it", () => {
      for (const other of [interruption, Cause.interrupt(2), Cause.fail(abortedError()), Cause.fail("no")]) {
        assert.strictEqual(of(other, died)._tag, "Failed")
        assert.strictEqual(of(died, other)._tag, "Failed")
      }
    })

    it("a request next to another failure is cancelled", () => {
      const expected = cancelled("request", "partial", 3, 5)
      assert.deepStrictEqual(of(Cause.fail("no"), Cause.fail(abortedError())), expected)
      assert.deepStrictEqual(of(Cause.fail(abortedError()), Cause.fail("no")), expected)
      assert.deepStrictEqual(
        of(Cause.fail("no"), Cause.fail(abortedError(true))),
        cancelled("deadline", "partial", 3, 5)
      )
    })
  })

  it("can be told apart with $match, $is and its tag", () => {
    const { $is, $match } = Cancellation.Outcome
    const say = $match({
      Completed: ({ value }) => `completed ${String(value)}`,
      Cancelled: ({ by, guarantee, total, transferred }) => `${by} ${transferred}/${total} ${guarantee}`,
      Failed: ({ cause }) => `failed ${String(Cause.squash(cause))}`
    })
    assert.deepStrictEqual(
      [Exit.succeed(1), Exit.fail("no"), Exit.failCause(interruption), Exit.fail(abortedError(true))].map((exit) =>
        say(Cancellation.outcome<number, unknown>(exit))
      ),
      ["completed 1", "failed no", "interruption 3/5 partial", "deadline 3/5 partial"]
    )
    assert.isTrue($is("Cancelled")(Cancellation.outcome(Exit.interrupt())))
  })
})

describe("what a cause prints", () => {
  const account = "interrupted after 65,536 of 33,554,432 bytes (terminal, stream torn)"

  /** A write of 32 MiB that has taken 64 KiB and waits. */
  const large = (
    region: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>,
    over: (socket: StreamSocket.StreamSocket) => StreamSocket.WriteStream = (socket) => socket
  ) => {
    const backing = new FakeBacking()
    let room = 65_536
    backing.writeAnswer = () => {
      const taken = room
      room = 0
      return taken === 0 ? WouldBlock : taken
    }
    const message = new Uint8Array(33_554_432)
    return start(region(Write.writeAll(over(StreamSocket.make(backing)), message)))
  }

  const printed = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<string> =>
    Effect.map(
      Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber)),
      (exit) => Exit.isFailure(exit) ? Cause.pretty(exit.cause) : assert.fail("it succeeded")
    )

  const count = (text: string, part: string) => text.split(part).length - 1

  it.effect("an interrupted write tells its account, once", () =>
    Effect.gen(function*() {
      const text = yield* printed(yield* large(Cancellation.terminal))
      assert.include(text, account)
      assert.strictEqual(count(text, "interrupted after"), 1)
    }))

  it.effect("each guarantee in its words", () =>
    Effect.gen(function*() {
      assert.include(
        yield* printed(yield* large(Cancellation.partial)),
        "interrupted after 65,536 of 33,554,432 bytes (partial)"
      )
      const { socket, writable } = yield* scripted({ writes: [take(3), block, take(2)] })
      const finishing = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
      finishing.interruptUnsafe()
      yield* writable
      assert.include(yield* printed(finishing), "interrupted after 5 of 5 bytes (total)")
    }))

  it.effect("where nothing was moved there is nothing to tell", () =>
    Effect.gen(function*() {
      const { fiber } = yield* waiting(0, Cancellation.terminal)
      assert.notInclude(yield* printed(fiber), "bytes")
      assert.notInclude(Cause.pretty(Cause.interrupt(1)), "bytes")
    }))

  it.effect("inside spans the account stands above their frames, which are all still there", () =>
    Effect.gen(function*() {
      const text = yield* printed(
        yield* large((effect) => effect.pipe(Effect.withSpan("sending"), Effect.withSpan("serving")))
      )
      const places = [account, "at sending (", "at serving ("].map((part) => text.indexOf(part))
      assert.notInclude(places, -1)
      assert.deepStrictEqual(places, places.toSorted((a, b) => a - b))
      // With the line of code where each span was made.
      assert.match(text, /at sending \(.*outcome\.test\.ts/)
      assert.match(text, /at serving \(.*outcome\.test\.ts/)
    }))

  it.effect("over a stream that is not ours it is the account of the whole", () =>
    Effect.gen(function*() {
      const text = yield* printed(
        yield* large(Effect.withSpan("sending"), ({ writeSome }) => ({ writeSome }))
      )
      assert.include(text, account)
      assert.strictEqual(count(text, "interrupted after"), 1)
      assert.include(text, "at sending (")
    }))

  it.effect("a write that failed while it finished tells the failure and its count", () =>
    Effect.gen(function*() {
      const { socket, writable } = yield* scripted({
        writes: [take(3), block, ScriptedStream.fail(Reason.ConnectionReset())]
      })
      const fiber = yield* start(Cancellation.total(Write.writeAll(socket, hello)))
      fiber.interruptUnsafe()
      yield* writable
      assert.include(yield* printed(fiber), "connection reset by the peer after 3 of 5 bytes")
    }))

  it.effect("a request tells its account as the error's message", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const fiber = yield* large(Cancellation.withSignal(signal))
      yield* signal.emit("terminal")
      const text = yield* printed(fiber)
      assert.include(
        text,
        "writeAll tcp://127.0.0.1:2: cancelled after 65,536 of 33,554,432 bytes (terminal, stream torn)"
      )
    }))

  it.effect("loggers print it", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const fiber = yield* large(Effect.withSpan("sending"))
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      if (!Exit.isFailure(exit)) return assert.fail("it succeeded")
      for (const format of [Logger.formatSimple, Logger.formatLogFmt, Logger.formatJson]) {
        yield* Effect.logError("the connection failed", exit.cause).pipe(
          Effect.provide(Logger.layer([Logger.map(format, (line) => void lines.push(line))]))
        )
      }
      assert.strictEqual(lines.length, 3)
      for (const line of lines) assert.include(line, account)
    }))

  it.effect("the account survives what the cause goes through on its way", () =>
    Effect.gen(function*() {
      const fiber = yield* large((effect) =>
        effect.pipe(
          Effect.ensuring(Effect.void),
          Effect.onError(() => Effect.void),
          Effect.onInterrupt(() => Effect.void),
          Effect.tapCause(() => Effect.void)
        )
      )
      assert.include(yield* printed(fiber), account)
    }))
})

import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import { readExactly, readUntil } from "../../Read.ts"
import { writeAll } from "../../Write.ts"
import type { Check } from "./Subject.ts"
import {
  check,
  clogged,
  cloggedFor,
  connect,
  drain,
  drainTorn,
  equal,
  exitOf,
  failedWith,
  midway,
  promptly,
  readToEnd,
  sameBytes,
  start,
  stillWaiting,
  succeeded,
  succeededWith,
  text
} from "./support.ts"

const types = ["total", "partial", "terminal"] as const

const deadline = Duration.millis(100)

/** What an operation that honoured a request fails with. */
const aborted = (
  what: string,
  exit: Exit.Exit<unknown, unknown>,
  expected: { readonly type: Cancellation.Type; readonly transferred: number; readonly total: number }
): void => {
  const { reason, transferred } = failedWith(what, exit, "OperationAborted")
  if (reason._tag !== "OperationAborted") return
  equal(`${what}: the guarantee`, reason.type, expected.type)
  equal(`${what}: transferred`, reason.transferred, expected.transferred)
  equal(`${what}: transferred on the error`, transferred, expected.transferred)
  equal(`${what}: total`, reason.total, expected.total)
}

const ended = (what: string, report: Cancellation.Report, count: number, continued: number): void => {
  equal(`${what}: operations that ended`, report.ended.length, count)
  equal(`${what}: operations that ran on`, report.continued.length, continued)
}

export const requesting: ReadonlyArray<Check> = [
  check(
    "a request of any type ends a write that waits for room, which has taken nothing",
    (subject) =>
      Effect.gen(function*() {
        const { filled, left, right } = yield* clogged(subject)
        const signal = Cancellation.makeSignal()
        for (const type of types) {
          for (const write of [left.writeSome(text("never sent")), writeAll(left, text("never sent"))]) {
            const fiber = yield* start(Cancellation.withSignal(write, signal))
            yield* stillWaiting(`a write before ${type}`, fiber)
            ended(type, yield* signal.emit(type), 1, 0)
            aborted(`a write after ${type}`, yield* exitOf("the write", fiber), {
              type: "total",
              transferred: 0,
              total: 10
            })
          }
        }
        equal("bytesWritten", left.bytesWritten, filled.byteLength)
        sameBytes("what the peer reads", yield* drain(left, right), filled)
      })
  ),

  check(
    "a total request ends what waits in line, and the writeAll in front runs on",
    (subject) =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const { fiber, filled, left, message, read, right, total } = yield* midway(
          subject,
          (socket, message) => Cancellation.withSignal(writeAll(socket, message), signal)
        )
        const behind = yield* start(Cancellation.withSignal(writeAll(left, text("never sent")), signal))
        const outside = yield* start(writeAll(left, text("next")))
        ended("total", yield* signal.emit("total"), 1, 1)
        aborted("the write in line", yield* exitOf("the write in line", behind), {
          type: "total",
          transferred: 0,
          total: 10
        })
        yield* stillWaiting("the write in front", fiber)
        const reading = yield* start(readToEnd(right))
        succeededWith("the write in front", yield* exitOf("the write in front", fiber), total)
        succeededWith("the write outside the region", yield* exitOf("the write outside", outside), 4)
        succeeded("close", yield* promptly("close", left.close))
        const all = succeeded("reading", yield* exitOf("reading", reading))
        sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message, text("next"))
      })
  ),

  check(
    "a partial request stops a writeAll in the middle, and the cursor sends the rest",
    (subject) =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        let cursor = Buffers.cursor([])
        const { fiber, filled, k, left, message, read, right, total } = yield* midway(subject, (socket, message) => {
          cursor = Buffers.cursor(message)
          return Cancellation.withSignal(writeAll(socket, cursor), signal)
        })
        ended("partial", yield* signal.emit("partial"), 1, 0)
        aborted("writeAll", yield* exitOf("writeAll", fiber), { type: "partial", transferred: k, total })
        equal("the write side", left.state.write, "open")
        const rest = yield* start(writeAll(left, cursor))
        const reading = yield* start(readToEnd(right))
        succeededWith("the rest", yield* exitOf("the rest", rest), total - k)
        succeeded("close", yield* promptly("close", left.close))
        const all = succeeded("reading", yield* exitOf("reading", reading))
        sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message)
      })
  ),

  check("a terminal request stops a writeAll in the middle and tears the stream", (subject) =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { fiber, filled, k, left, message, read, right, total } = yield* midway(
        subject,
        (socket, message) => Cancellation.withSignal(writeAll(socket, message), signal)
      )
      const behind = yield* start(left.writeSome(text("!")))
      ended("terminal", yield* signal.emit("terminal"), 1, 0)
      aborted("writeAll", yield* exitOf("writeAll", fiber), { type: "terminal", transferred: k, total })
      equal("the write side", left.state.write, "torn")
      failedWith("the write in line", yield* exitOf("the write in line", behind), "Torn")
      const all = yield* drainTorn(subject, left, right)
      sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message.subarray(0, k))
    })),

  check("a request ends a read that waits, and costs no byte", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const signal = Cancellation.makeSignal()
      yield* writeAll(right, text("he"))
      for (const type of types) {
        const composed = yield* start(Cancellation.withSignal(readExactly(left, new Uint8Array(6)), signal))
        const inLine = yield* start(Cancellation.withSignal(left.readSome(new Uint8Array(6)), signal))
        yield* stillWaiting("a composed read", composed)
        ended(type, yield* signal.emit(type), 2, 0)
        aborted("readExactly", yield* exitOf("readExactly", composed), { type: "total", transferred: 0, total: 6 })
        aborted("readSome in line", yield* exitOf("readSome", inLine), { type: "total", transferred: 0, total: 6 })
      }
      yield* writeAll(right, text("llo\n"))
      const line = succeeded("readUntil", yield* promptly("readUntil", readUntil(left, "\n")))
      sameBytes("what is read later", line, text("hello\n"))
    })),

  check("a deadline asks once the time is over, and says so", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* cloggedFor(subject, deadline)
      const fiber = yield* start(Cancellation.cancelAfter(writeAll(left, text("never sent")), deadline))
      yield* subject.advance(deadline)
      const { reason } = failedWith("writeAll", yield* exitOf("writeAll", fiber), "OperationAborted")
      equal("the deadline", reason._tag === "OperationAborted" && reason.deadline, true)
      sameBytes("what the peer reads", yield* drain(left, right), filled)
    })),

  check("a terminal request makes a close that lingers an abort", (subject) =>
    Effect.gen(function*() {
      const { left } = yield* clogged(subject, { linger: Duration.infinity })
      const signal = Cancellation.makeSignal()
      const closing = yield* start(Cancellation.withSignal(left.close, signal))
      // A transport that has nothing of its own to flush is closed at once.
      if (signal.pending.length > 0) {
        ended("total", yield* signal.emit("total"), 0, 1)
        ended("partial", yield* signal.emit("partial"), 0, 1)
        ended("terminal", yield* signal.emit("terminal"), 1, 0)
      }
      succeeded("close", yield* exitOf("close", closing))
      equal("after close", left.state.socket, "closed")
    }))
]

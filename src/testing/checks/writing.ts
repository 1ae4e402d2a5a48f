import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Buffers from "../../Buffers.ts"
import * as CompletionCondition from "../../CompletionCondition.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { writeAll } from "../../Write.ts"
import type { Check } from "./Subject.ts"
import {
  check,
  clog,
  clogged,
  connect,
  cut,
  drain,
  drainTorn,
  ensure,
  equal,
  eventually,
  exitOf,
  failedWith,
  interrupted,
  midway,
  pattern,
  promptly,
  readOut,
  readToEnd,
  sameBytes,
  start,
  stillWaiting,
  succeeded,
  succeededWith,
  take,
  text,
  turns,
  waitingForRoom
} from "./support.ts"

const empty = new Uint8Array(0)
const nothings: ReadonlyArray<Buffers.Input> = [empty, [], [empty, empty], new DataView(new ArrayBuffer(0))]

export const writing: ReadonlyArray<Check> = [
  check("writing nothing succeeds with 0, with room and without", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      for (const nothing of nothings) {
        succeededWith("writeSome of nothing", yield* promptly("writeSome", left.writeSome(nothing)), 0)
        succeededWith("writeAll of nothing", yield* promptly("writeAll", writeAll(left, nothing)), 0)
      }
      const filled = yield* clog(left)
      for (const nothing of nothings) {
        const what = "of nothing to a clogged peer"
        succeededWith(`writeSome ${what}`, yield* promptly("writeSome", left.writeSome(nothing)), 0)
        succeededWith(`writeAll ${what}`, yield* promptly("writeAll", writeAll(left, nothing)), 0)
      }
      equal("bytesWritten", left.bytesWritten, filled.byteLength)
      sameBytes("what the peer reads", yield* drain(left, right), filled)
    })),

  check("writing nothing fails with Closed on a closed socket", (subject) =>
    Effect.gen(function*() {
      for (const end of ["close", "abort"] as const) {
        const [left] = yield* connect(subject)
        succeeded(end, yield* promptly(end, left[end]))
        for (const nothing of nothings) {
          failedWith(`writeSome after ${end}`, yield* promptly("writeSome", left.writeSome(nothing)), "Closed")
          failedWith(`writeAll after ${end}`, yield* promptly("writeAll", writeAll(left, nothing)), "Closed")
        }
      }
    })),

  check("writeSome takes 1 to all bytes from the front and says how many", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const reading = yield* start(readToEnd(right))
      const taken: Array<Uint8Array> = []
      let total = 0
      for (const size of [1, 2, 3, 100, 1023, 4096, 4097, 65_535, 65_536, 65_537, 200_000]) {
        const bytes = pattern(size, size)
        const count = succeeded("writeSome", yield* promptly("writeSome", left.writeSome(bytes)))
        ensure(
          `writeSome of ${size} bytes`,
          Number.isInteger(count) && count >= 1 && count <= size,
          `1 to ${size}`,
          count
        )
        taken.push(bytes.subarray(0, count))
        total += count
        equal("bytesWritten", left.bytesWritten, total)
      }
      succeeded("close", yield* promptly("close", left.close))
      sameBytes("what the peer reads", yield* Fiber.join(reading), ...taken)
    })),

  check("a gather list leaves strictly in order", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const reading = yield* start(readToEnd(right))
      const bytes = pattern(70_000)
      const list: Array<Buffers.View> = [empty]
      for (let at = 0, size = 1; at < bytes.byteLength; at += size, size = (size * 7) % 4001) {
        const piece = bytes.subarray(at, at + size)
        list.push(list.length % 3 === 0 ? new DataView(piece.buffer, piece.byteOffset, piece.byteLength) : piece, empty)
      }
      let rest: Buffers.Input = list
      for (let left_ = bytes.byteLength; left_ > 0;) {
        const count = succeeded("writeSome", yield* promptly("writeSome", left.writeSome(rest)))
        ensure("writeSome of a list", count >= 1 && count <= left_, `1 to ${left_}`, count)
        rest = Buffers.slice(rest, count)
        left_ -= count
      }
      succeededWith("writeAll of a list", yield* promptly("writeAll", writeAll(left, list)), bytes.byteLength)
      succeeded("close", yield* promptly("close", left.close))
      sameBytes("what the peer reads", yield* Fiber.join(reading), bytes, bytes)
    })),

  check(
    "a peer that does not read makes the writer wait, and its reading lets it go on",
    (subject) =>
      Effect.gen(function*() {
        const { fiber, filled, left, right } = yield* waitingForRoom(
          subject,
          (socket) => socket.writeSome(text("more"))
        )
        const reading = yield* start(readToEnd(right))
        const count = succeeded("the write that waited", yield* exitOf("the write that waited", fiber))
        ensure("the write that waited", count >= 1 && count <= 4, "1 to 4", count)
        succeeded("close", yield* promptly("close", left.close))
        sameBytes("what the peer reads", yield* Fiber.join(reading), filled, text("more").subarray(0, count))
      })
  ),

  check("outstanding writeSome leave in the order in which they were started", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject)
      const sources = [1, 500, 2, 70_000, 30, 8, 3000].map((size, i) => pattern(size, i * 1000))
      const fibers: Array<Fiber.Fiber<number, unknown>> = []
      for (const source of sources) fibers.push(yield* start(left.writeSome(source)))
      const reading = yield* start(readToEnd(right))
      const taken: Array<Uint8Array> = []
      for (const [i, fiber] of fibers.entries()) {
        const count = succeeded(`writeSome ${i}`, yield* exitOf(`writeSome ${i}`, fiber))
        ensure(`writeSome ${i}`, count >= 1, "at least 1", count)
        taken.push(sources[i]!.subarray(0, count))
      }
      succeeded("close", yield* promptly("close", left.close))
      sameBytes("what the peer reads", yield* Fiber.join(reading), filled, ...taken)
    })),

  check(
    "two writeAll never interleave, and what is started behind them leaves behind them",
    (subject) =>
      Effect.gen(function*() {
        const { filled, left, right } = yield* clogged(subject)
        const size = filled.byteLength + 5
        const messages = [pattern(size, 1), pattern(size, 2), pattern(size, 3)]
        const fibers: Array<Fiber.Fiber<number, unknown>> = []
        for (const [i, message] of messages.entries()) {
          fibers.push(yield* start(writeAll(left, [message.subarray(0, i), empty, message.subarray(i)])))
        }
        const last = yield* start(left.writeSome(text("!")))
        const reading = yield* start(readToEnd(right))
        for (const fiber of fibers) succeededWith("writeAll", yield* exitOf("writeAll", fiber), size)
        succeededWith("writeSome behind writeAll", yield* exitOf("writeSome", last), 1)
        succeeded("close", yield* promptly("close", left.close))
        sameBytes("what the peer reads", yield* Fiber.join(reading), filled, ...messages, text("!"))
      })
  ),

  check(
    "a write that is started while a writeAll is in the middle waits for its end",
    (subject) =>
      Effect.gen(function*() {
        const { fiber, filled, left, message, read, right, total } = yield* midway(subject, writeAll)
        const behind = yield* start(left.writeSome(text("!")))
        yield* stillWaiting("a write behind a writeAll in the middle", behind)
        const reading = yield* start(readToEnd(right))
        succeededWith("writeAll", yield* exitOf("writeAll", fiber), total)
        succeededWith("writeSome behind writeAll", yield* exitOf("writeSome", behind), 1)
        succeeded("close", yield* promptly("close", left.close))
        sameBytes("what the peer reads", Buffers.concat([read, yield* Fiber.join(reading)]), filled, message, text("!"))
      })
  ),

  check("writeAll ends where its completion condition says", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const reading = yield* start(readToEnd(right))
      const bytes = pattern(150_000)
      const parts: Array<Uint8Array> = []
      const write = (name: string, condition: CompletionCondition.Input, least: number, most: number) =>
        Effect.gen(function*() {
          const source = Buffers.cursor(bytes)
          const count = succeeded(name, yield* promptly(name, writeAll(left, source, condition)))
          ensure(name, count >= least && count <= most, `${least} to ${most}`, count)
          equal(`${name}: the cursor`, source.transferred, count)
          parts.push(bytes.subarray(0, count))
        })
      yield* write("transferAll", CompletionCondition.transferAll, 150_000, 150_000)
      yield* write("transferAtLeast(100000)", CompletionCondition.transferAtLeast(100_000), 100_000, 150_000)
      yield* write("transferAtLeast(0)", CompletionCondition.transferAtLeast(0), 0, 0)
      yield* write("transferExactly(99999)", CompletionCondition.transferExactly(99_999), 99_999, 99_999)
      yield* write("transferExactly(200000)", CompletionCondition.transferExactly(200_000), 150_000, 150_000)
      yield* write("a function", (transferred) => transferred < 1000 ? 7 : 0, 1000, 1006)
      succeeded("close", yield* promptly("close", left.close))
      sameBytes("what the peer reads", yield* Fiber.join(reading), ...parts)
    })),

  check("buffers are the caller's again after a success", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const reading = yield* start(readToEnd(right))
      const taken: Array<Uint8Array> = []
      for (let size = 1; size < 300_000; size = size * 3 + 1) {
        const bytes = pattern(size, size)
        const lent = bytes.slice()
        // Overwritten in the same step in which the write ends.
        taken.push(
          yield* Effect.map(left.writeSome(lent), (count) => {
            lent.fill(0xff)
            return bytes.subarray(0, count)
          })
        )
        lent.set(bytes)
        yield* Effect.map(
          writeAll(left, [lent.subarray(0, size >> 1), lent.subarray(size >> 1)]),
          () => lent.fill(0xff)
        )
        taken.push(bytes)
      }
      succeeded("close", yield* promptly("close", left.close))
      sameBytes("what the peer reads", yield* Fiber.join(reading), ...taken)
    })),

  check("buffers are the caller's again after an interruption", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, k, left, message, read, right, total } = yield* midway(
        subject,
        (socket, message) => writeAll(socket, message)
      )
      const lent = text("also overwritten")
      const behind = yield* start(left.writeSome(lent))
      const expected = message.slice(0, k)
      interrupted("the write in line", yield* cut("the write in line", behind), {
        transferred: 0,
        total: lent.byteLength,
        guarantee: "total"
      })
      lent.fill(0xff)
      fiber.interruptUnsafe()
      message.fill(0xff)
      interrupted("writeAll", yield* exitOf("writeAll", fiber), { transferred: k, total, guarantee: "terminal" })
      sameBytes("what the peer reads", Buffers.concat([read, yield* drainTorn(subject, left, right)]), filled, expected)
    })),

  check("buffers are the caller's again after a failure", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, k, left, message, read, right, total } = yield* midway(subject, writeAll)
      const expected = message.slice(0, k)
      const closing = yield* start(left.close)
      const error = failedWith("writeAll", yield* exitOf("writeAll", fiber), "Closed")
      message.fill(0xff)
      equal("transferred", error.transferred, k)
      equal("total", error.total, total)
      const rest = succeeded("reading", yield* promptly("reading", readOut(right))).bytes
      succeeded("close", yield* exitOf("close", closing))
      // The message is cut inside, so that the close resets: the end of it may be lost.
      const all = Buffers.concat([filled, expected])
      sameBytes("what the peer reads", Buffers.concat([read, rest]), all.subarray(0, read.byteLength + rest.byteLength))
    })),

  check("one reader and one writer do not hold each other up", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const reader = yield* start(take(left, 5))
      yield* stillWaiting("a read", reader)
      succeededWith("a write beside a waiting read", yield* promptly("writeAll", writeAll(left, text("hello"))), 5)
      sameBytes("what the peer reads", succeeded("take", yield* promptly("take", take(right, 5))), text("hello"))
      const filled = yield* clog(left)
      const writer = yield* start(left.writeSome(text("!")))
      yield* stillWaiting("a write to a clogged peer", writer)
      yield* writeAll(right, text("there"))
      sameBytes("a read beside a waiting write", succeeded("take", yield* exitOf("take", reader)), text("there"))
      const reading = yield* start(readToEnd(right))
      succeededWith("the write that waited", yield* exitOf("writeSome", writer), 1)
      succeeded("close", yield* promptly("close", left.close))
      sameBytes("what the peer reads", yield* Fiber.join(reading), filled, text("!"))
    })),

  check("both directions carry full streams at once", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const there = pattern(700_001, 3)
      const back = pattern(600_007, 4)
      const send = (socket: StreamSocket, bytes: Uint8Array) => start(writeAll(socket, bytes))
      const writers = [yield* send(left, there), yield* send(right, back)]
      const readers = [yield* start(take(right, there.byteLength)), yield* start(take(left, back.byteLength))]
      for (const writer of writers) succeeded("writeAll", yield* exitOf("writeAll", writer))
      sameBytes("one way", succeeded("take", yield* exitOf("take", readers[0]!)), there)
      sameBytes("the other way", succeeded("take", yield* exitOf("take", readers[1]!)), back)
      equal("bytesWritten of one end", left.bytesWritten, there.byteLength)
      equal("bytesRead of one end", left.bytesRead, back.byteLength)
      equal("bytesWritten of the other end", right.bytesWritten, back.byteLength)
      equal("bytesRead of the other end", right.bytesRead, there.byteLength)
    })),

  check("a conversation in small steps loses no wake-up", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const answering = yield* start(
        Effect.gen(function*() {
          for (let i = 0; i < 200; i++) {
            const question = yield* take(right, 3)
            yield* writeAll(right, question.reverse())
          }
        })
      )
      for (let i = 0; i < 200; i++) {
        const question = pattern(3, i)
        yield* writeAll(left, question)
        const answer = succeeded("an answer", yield* promptly("an answer", take(left, 3)))
        sameBytes("an answer", answer.reverse(), question)
      }
      succeeded("the answering end", yield* exitOf("the answering end", answering))
    })),

  check("state says open until something ends", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const states = () => [left, right].map(({ state }) => `${state.socket} ${state.read} ${state.write}`).join(", ")
      const open = "open open open, open open open"
      equal("a new connection", states(), open)
      const filled = yield* clog(left)
      equal("a clogged connection", states(), open)
      const waiting = yield* start(left.writeSome(text("!")))
      const reading = yield* start(left.readSome(new Uint8Array(1)))
      yield* turns()
      equal("with waiting operations", states(), open)
      yield* cut("a write", waiting)
      yield* cut("a read", reading)
      equal("after interruptions", states(), open)
      sameBytes("what the peer reads", yield* drain(left, right), filled)
      yield* eventually(() => `states ${states()}`, () => states() === "closed closed closed, open ended open")
    }))
]

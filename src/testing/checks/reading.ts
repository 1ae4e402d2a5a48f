import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import * as Buffers from "../../Buffers.ts"
import { readAll, readAtLeast, readExactly, readUntil } from "../../Read.ts"
import type { SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { writeAll } from "../../Write.ts"
import type { Check } from "./Subject.ts"
import {
  check,
  connect,
  cut,
  ended,
  ensure,
  equal,
  eventually,
  exitOf,
  failedWith,
  isEnd,
  pattern,
  promptly,
  readToEnd,
  sameBytes,
  show,
  start,
  stillWaiting,
  succeeded,
  succeededWith,
  take,
  text,
  turn,
  turns
} from "./support.ts"

type Reading = Effect.Effect<unknown, SocketError | Cause.Done>

/** Composed reads that cannot be content with fewer than a hundred bytes. */
const composed = (socket: StreamSocket): ReadonlyArray<readonly [string, Reading]> => [
  ["readExactly", readExactly(socket, new Uint8Array(100))],
  ["readAtLeast", readAtLeast(socket, new Uint8Array(200), 100)],
  ["readUntil a string", readUntil(socket, "\r\n\r\n")],
  ["readUntil a byte", readUntil(socket, 0)],
  ["readUntil a pattern", readUntil(socket, /x+y/)],
  ["readUntil a function", readUntil(socket, (bytes) => bytes.byteLength >= 100 ? 100 : undefined)],
  ["readAll", readAll(socket)]
]

export const reading: ReadonlyArray<Check> = [
  check(
    "reading into nothing succeeds with 0: unread, with data waiting, and at end of stream",
    (subject) =>
      Effect.gen(function*() {
        const [left, right] = yield* connect(subject)
        const none = new Uint8Array(0)
        succeededWith("nothing has come", yield* promptly("readSome", left.readSome(none)), 0)
        yield* writeAll(right, text("ab"))
        yield* take(left, 1)
        succeededWith("data is waiting", yield* promptly("readSome", left.readSome(none)), 0)
        sameBytes("the data", yield* take(left, 1), text("b"))
        yield* start(right.close)
        ended("end of stream", yield* promptly("readSome", left.readSome(new Uint8Array(1))))
        succeededWith("at end of stream", yield* promptly("readSome", left.readSome(none)), 0)
      })
  ),

  check("reading into nothing fails with Closed on a closed socket", (subject) =>
    Effect.gen(function*() {
      for (const end of ["close", "abort"] as const) {
        const [left] = yield* connect(subject)
        succeeded(end, yield* promptly(end, left[end]))
        failedWith(`after ${end}`, yield* promptly("readSome", left.readSome(new Uint8Array(0))), "Closed")
      }
    })),

  check(
    "readSome gives 1 to all bytes of its target, in order, and touches nothing behind them",
    (subject) =>
      Effect.gen(function*() {
        const [left, right] = yield* connect(subject)
        const bytes = pattern(100_000)
        const writing = yield* start(writeAll(right, bytes))
        const target = new Uint8Array(5000)
        for (let at = 0, size = 1; at < bytes.byteLength; size = (size * 5) % 4999) {
          target.fill(0xee)
          const count = succeeded("readSome", yield* promptly("readSome", left.readSome(target.subarray(0, size))))
          ensure("readSome", Number.isInteger(count) && count >= 1 && count <= size, `1 to ${size}`, count)
          sameBytes("the bytes", target.subarray(0, count), bytes.subarray(at, at + count))
          ensure(
            "memory behind them",
            target.subarray(count).every((byte) => byte === 0xee),
            "untouched",
            "overwritten"
          )
          at += count
          equal("bytesRead", left.bytesRead >= at, true)
        }
        succeededWith("writeAll", yield* exitOf("writeAll", writing), bytes.byteLength)
      })
  ),

  check("outstanding reads are served in the order in which they were started", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const targets = [3, 1, 4, 1, 5].map((size) => new Uint8Array(size))
      const fibers: Array<Fiber.Fiber<number, unknown>> = []
      for (const target of targets) fibers.push(yield* start(left.readSome(target)))
      yield* writeAll(right, text("abcdefghijklmnopqrstuvwxyz"))
      const parts: Array<Uint8Array> = []
      for (const [i, fiber] of fibers.entries()) {
        const count = succeeded(`read ${i}`, yield* exitOf(`read ${i}`, fiber))
        parts.push(targets[i]!.subarray(0, count))
      }
      const rest = yield* take(left, 26 - Buffers.byteLength(parts))
      sameBytes("all reads", Buffers.concat([...parts, rest]), text("abcdefghijklmnopqrstuvwxyz"))
    })),

  check("an interrupted read loses nothing, and touches its target no more", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const target = new Uint8Array(10)
      const front = yield* start(left.readSome(target))
      const behind = yield* start(left.readSome(target))
      yield* stillWaiting("a read of nothing", front)
      yield* cut("a read in line", behind)
      yield* cut("a read", front)
      yield* writeAll(right, text("0123456789"))
      yield* turns()
      ensure("the targets", target.every((byte) => byte === 0), "untouched", "overwritten")
      sameBytes("the next read", yield* take(left, 10), text("0123456789"))
    })),

  check("a long line of reads keeps its order while others leave it", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const line: Array<{ readonly target: Uint8Array; readonly fiber: Fiber.Fiber<number, unknown> }> = []
      for (let i = 0; i < 100; i++) {
        const target = new Uint8Array(1 + i % 7)
        line.push({ target, fiber: yield* start(readExactly(left, target)) })
      }
      const leaving = line.filter((_, i) => i % 3 === 1 || i < 10 || i > 90)
      const staying = line.filter((entry) => !leaving.includes(entry))
      for (const { fiber } of leaving) yield* cut("a read in line", fiber)
      const bytes = pattern(staying.reduce((sum, { target }) => sum + target.byteLength, 0))
      yield* start(writeAll(right, bytes))
      for (const { fiber, target } of staying) {
        succeededWith("a read that stays", yield* exitOf("a read that stays", fiber), target.byteLength)
      }
      sameBytes("what the reads got", Buffers.concat(staying.map(({ target }) => target)), bytes)
    })),

  check(
    "interrupting a fiber that reads without a pause loses nothing, whichever step its turn ends at",
    (subject) =>
      Effect.gen(function*() {
        const sent = pattern(1000)
        for (let steps = 0; steps < 12; steps++) {
          const [left, right] = yield* connect(subject)
          const writing = yield* start(writeAll(right, sent))
          const received: Array<Uint8Array> = [yield* take(left, 1)]
          const target = new Uint8Array(1)
          let done = 0
          // The run loop lets others in after some number of steps; an interruption comes there.
          const fiber = yield* start(
            Effect.andThen(
              Effect.whileLoop({ while: () => done < steps, body: () => Effect.void, step: () => done++ }),
              Effect.forever(
                Effect.map(left.readSome(target), (count) => {
                  received.push(target.slice(0, count))
                }),
                { disableYield: true }
              )
            )
          )
          yield* cut("a read", fiber)
          received.push(yield* take(left, sent.byteLength - Buffers.byteLength(received)))
          sameBytes("all that was read", Buffers.concat(received), sent)
          succeededWith("writeAll", yield* exitOf("writeAll", writing), sent.byteLength)
        }
      })
  ),

  check("interrupting a read as its bytes arrive loses nothing", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const received: Array<Uint8Array> = []
      const sent = pattern(500)
      for (let i = 0; i < sent.byteLength; i++) {
        const target = new Uint8Array(3)
        const fiber = yield* start(
          Effect.map(left.readSome(target), (count) => {
            received.push(target.slice(0, count))
          })
        )
        yield* writeAll(right, sent.subarray(i, i + 1))
        for (let wait = i % 4; wait > 0; wait--) yield* (wait === 1 ? Effect.yieldNow : turn)
        yield* cut("a read", fiber)
      }
      received.push(yield* take(left, sent.byteLength - Buffers.byteLength(received)))
      sameBytes("all that was read", Buffers.concat(received), sent)
    })),

  check("end of stream is Done again and again", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const target = new Uint8Array(10)
      const waiting: ReadonlyArray<Fiber.Fiber<unknown, unknown>> = [
        yield* start(left.readSome(target)),
        yield* start(left.readSome(target)),
        yield* start(readExactly(left, target)),
        yield* start(readUntil(left, "\n"))
      ]
      yield* start(right.close)
      for (const fiber of waiting) ended("a read that waited", yield* exitOf("a read that waited", fiber))
      for (let i = 0; i < 100; i++) ended(`read ${i}`, yield* promptly(`read ${i}`, left.readSome(target)))
      const forever = Pull.catchDone(Effect.forever(left.readSome(target)), () => Effect.void)
      succeeded("Effect.forever", yield* promptly("Effect.forever", forever))
      ended("readExactly", yield* promptly("readExactly", readExactly(left, target)))
      ended("readAtLeast", yield* promptly("readAtLeast", readAtLeast(left, target, 1)))
      ended("readUntil", yield* promptly("readUntil", readUntil(left, "\n")))
      sameBytes("readAll", succeeded("readAll", yield* promptly("readAll", readAll(left))))
      equal("the read side", left.state.read, "ended")
    })),

  check("data and end of stream that came before the first read wait for it", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const bytes = pattern(1000)
      const count = yield* right.writeSome(bytes)
      const closing = yield* start(right.close)
      yield* turns(20)
      equal("bytesRead", left.bytesRead, 0)
      const all = succeeded("reading", yield* promptly("reading", readToEnd(left)))
      sameBytes("the data", all, bytes.subarray(0, count))
      succeeded("the peer's close", yield* exitOf("the peer's close", closing))
    })),

  check("a connection that is not read at first loses nothing, in any amount", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const bytes = pattern(300_000)
      const writing = yield* start(Effect.andThen(writeAll(right, bytes), right.close))
      // Async work before the first read.
      yield* turns(20)
      const all = succeeded("reading", yield* promptly("reading", readToEnd(left)))
      succeeded("writing", yield* exitOf("writing", writing))
      sameBytes("the data", all, bytes)
    })),

  check("composed reads complete, and leave later bytes unread", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const target = new Uint8Array(8)
      yield* writeAll(right, text("exactly:least:line\nline\r\nabc0xxy:all of it"))
      const closing = yield* start(right.close)
      const read = <A>(name: string, effect: Effect.Effect<A, SocketError | Cause.Done>) =>
        Effect.map(promptly(name, effect), (exit) => succeeded(name, exit))
      equal("readExactly", yield* read("readExactly", readExactly(left, target)), 8)
      sameBytes("readExactly", target, text("exactly:"))
      const some = yield* read("readAtLeast", readAtLeast(left, target.subarray(0, 6), 2))
      ensure("readAtLeast", some >= 2 && some <= 6, "2 to 6", some)
      yield* read("take", take(left, 6 - some))
      sameBytes("readUntil a byte", yield* read("readUntil", readUntil(left, 10)), text("line\n"))
      sameBytes("readUntil a string", yield* read("readUntil", readUntil(left, "\r\n")), text("line\r\n"))
      sameBytes("readUntil a pattern", yield* read("readUntil", readUntil(left, /[0-9]/)), text("abc0"))
      sameBytes("readUntil bytes", yield* read("readUntil", readUntil(left, text("xy"))), text("xxy"))
      const colon = (bytes: Uint8Array) => bytes.includes(58) ? bytes.indexOf(58) + 1 : undefined
      sameBytes("readUntil a function", yield* read("readUntil", readUntil(left, colon)), text(":"))
      sameBytes("readAll", yield* read("readAll", readAll(left)), text("all of it"))
      succeeded("close", yield* exitOf("close", closing))
    })),

  check("cancelled composed reads put their bytes back", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const sent = text("partial input")
      for (const [name, read] of composed(left)) {
        const before = left.bytesRead
        const fiber = yield* start(read)
        yield* writeAll(right, sent.subarray(0, 7))
        yield* eventually(`${name}: the first bytes`, () => left.bytesRead === before + 7)
        yield* writeAll(right, sent.subarray(7))
        yield* eventually(`${name}: the last bytes`, () => left.bytesRead === before + sent.byteLength)
        yield* stillWaiting(name, fiber)
        const target = new Uint8Array(5)
        const behind = yield* start(readExactly(left, target))
        yield* cut(name, fiber)
        succeededWith(`a read behind ${name}`, yield* exitOf(`a read behind ${name}`, behind), 5)
        sameBytes(`a read behind ${name}`, target, sent.subarray(0, 5))
        sameBytes(`what ${name} put back`, yield* take(left, sent.byteLength - 5), sent.subarray(5))
      }
    })),

  check("a composed read finds what a cancelled one collected", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      for (const [name, read] of composed(left)) {
        const before = left.bytesRead
        const fiber = yield* start(read)
        yield* writeAll(right, text("first "))
        yield* eventually(`${name}: the first bytes`, () => left.bytesRead === before + 6)
        yield* cut(name, fiber)
        yield* writeAll(right, text("line\n"))
        const line = yield* promptly(`readUntil after ${name}`, readUntil(left, "\n"))
        sameBytes(`readUntil after ${name}`, succeeded("readUntil", line), text("first line\n"))
      }
    })),

  check(
    "end of stream midway is UnexpectedEof with the bytes so far, which stay unread",
    (subject) =>
      Effect.gen(function*() {
        const [left, right] = yield* connect(subject)
        yield* writeAll(right, text("half"))
        yield* start(right.close)
        for (const [name, read] of composed(left)) {
          if (name === "readAll") continue
          const error = failedWith(name, yield* promptly(name, read), "UnexpectedEof")
          equal(`${name}: transferred`, error.transferred, 4)
        }
        sameBytes("the bytes so far", yield* take(left, 4), text("half"))
        ended("after them", yield* promptly("readSome", left.readSome(new Uint8Array(1))))
      })
  ),

  check("a message over its limit is LimitExceeded, and nothing is consumed", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const line = text("0123456789\n")
      const limited: ReadonlyArray<readonly [string, Reading]> = [
        ["readUntil", readUntil(left, "\n", { max: 10 })],
        ["readUntil a pattern", readUntil(left, /\n/, { max: 10 })],
        ["readAll", readAll(left, { max: 10 })],
        ["readUntil with max 0", readUntil(left, "\n", { max: 0 })]
      ]
      yield* writeAll(right, line)
      for (const [name, read] of limited) {
        const error = failedWith(name, yield* promptly(name, read), "LimitExceeded")
        if (error.reason._tag === "LimitExceeded") {
          equal(`${name}: limit`, error.reason.limit, name.endsWith("0") ? 0 : 10)
        }
      }
      const whole = yield* promptly("readUntil", readUntil(left, "\n", { max: 11 }))
      sameBytes("the message", succeeded("readUntil", whole), line)
      yield* start(right.close)
      sameBytes("readAll of nothing", succeeded("readAll", yield* promptly("readAll", readAll(left, { max: 0 }))))
    })),

  check("a composed read holds its direction until it ends", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const target = new Uint8Array(6)
      const front = yield* start(readExactly(left, target))
      const behind = yield* start(take(left, 3))
      yield* writeAll(right, text("abc"))
      yield* stillWaiting("the read in front", front)
      yield* stillWaiting("the read behind", behind)
      yield* writeAll(right, text("defghi"))
      succeededWith("the read in front", yield* exitOf("the read in front", front), 6)
      sameBytes("the read in front", target, text("abcdef"))
      sameBytes("the read behind", succeeded("behind", yield* exitOf("behind", behind)), text("ghi"))
    })),

  check("end of stream reaches every reader in line", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 20; i++) fibers.push(yield* start(left.readSome(new Uint8Array(4))))
      yield* writeAll(right, text("last"))
      yield* start(right.close)
      let served = 0
      for (const [i, fiber] of fibers.entries()) {
        const exit = yield* exitOf(`read ${i}`, fiber)
        if (isEnd(exit)) continue
        ensure(`read ${i}`, i === served && exit._tag === "Success", "data before the end", show(exit))
        served++
      }
      ensure("reads with data", served >= 1 && served <= 4, "1 to 4", served)
    }))
]

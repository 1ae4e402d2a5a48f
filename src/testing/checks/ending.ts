import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Buffers from "../../Buffers.ts"
import { readAll, readExactly, readUntil } from "../../Read.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { writeAll } from "../../Write.ts"
import type { Check } from "./Subject.ts"
import {
  check,
  clog,
  clogged,
  connect,
  cut,
  ended,
  ensure,
  equal,
  eventually,
  exitOf,
  failedWith,
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

const linger = Duration.millis(100)
const forever = Duration.infinity

export const ending: ReadonlyArray<Check> = [
  check("shutdownWrite ends one direction and leaves the other, both ways round", (subject) =>
    Effect.gen(function*() {
      const pair = yield* connect(subject)
      for (const [one, other] of [pair, [pair[1], pair[0]]] as const) {
        const both = one.state.read === "ended"
        yield* writeAll(one, text("the end"))
        succeeded("shutdownWrite", yield* promptly("shutdownWrite", one.shutdownWrite))
        equal("the write side", one.state.write, "shutdown")
        equal("the socket", one.state.socket, "open")
        sameBytes(
          "what the peer reads",
          succeeded("reading", yield* promptly("reading", readToEnd(other))),
          text("the end")
        )
        if (both) continue
        yield* writeAll(other, text("still open"))
        sameBytes("the other direction", yield* take(one, 10), text("still open"))
        const waiting = yield* start(one.readSome(new Uint8Array(1)))
        yield* stillWaiting("a read on the open direction", waiting)
        yield* cut("a read", waiting)
      }
      ended("the end of the other direction", yield* promptly("readSome", pair[0].readSome(new Uint8Array(1))))
    }), "halfClose"),

  check(
    "shutdownWrite again succeeds; writes after it fail with BrokenPipe, each promptly",
    (subject) =>
      Effect.gen(function*() {
        const [left] = yield* connect(subject)
        yield* left.shutdownWrite
        for (let i = 0; i < 3; i++) {
          succeeded("shutdownWrite again", yield* promptly("shutdownWrite", left.shutdownWrite))
          failedWith("writeSome", yield* promptly("writeSome", left.writeSome(text("!"))), "BrokenPipe")
          failedWith("writeAll", yield* promptly("writeAll", writeAll(left, text("!"))), "BrokenPipe")
        }
        equal("bytesWritten", left.bytesWritten, 0)
      }),
    "halfClose"
  ),

  check("shutdownWrite goes behind everything that was started before it", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject)
      const message = pattern(filled.byteLength, 5)
      const writing = yield* start(writeAll(left, message))
      const behind = yield* start(left.writeSome(text("!")))
      const shutting = yield* start(left.shutdownWrite)
      const late = yield* start(left.writeSome(text("too late")))
      yield* stillWaiting("shutdownWrite", shutting)
      const all = succeeded("reading", yield* promptly("reading", readToEnd(right)))
      succeededWith("writeAll", yield* exitOf("writeAll", writing), message.byteLength)
      succeededWith("writeSome", yield* exitOf("writeSome", behind), 1)
      succeeded("shutdownWrite", yield* exitOf("shutdownWrite", shutting))
      failedWith("a write behind it", yield* exitOf("a write behind it", late), "BrokenPipe")
      sameBytes("what the peer reads", all, filled, message, text("!"))
    }), "halfClose"),

  check("an interrupted shutdownWrite has not happened", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, left, right } = yield* waitingForRoom(subject, (socket) => writeAll(socket, text("a")))
      const shutting = yield* start(left.shutdownWrite)
      yield* stillWaiting("shutdownWrite in line", shutting)
      yield* cut("shutdownWrite", shutting)
      equal("the write side", left.state.write, "open")
      const reading = yield* start(readToEnd(right))
      succeededWith("writeAll", yield* exitOf("writeAll", fiber), 1)
      succeededWith("a later write", yield* promptly("writeAll", writeAll(left, text("b"))), 1)
      succeeded("shutdownWrite", yield* promptly("shutdownWrite", left.shutdownWrite))
      sameBytes("what the peer reads", yield* Fiber.join(reading), filled, text("ab"))
    }), "halfClose"),

  check("close wakes waiting reads with Closed", (subject) =>
    Effect.gen(function*() {
      for (const end of ["close", "abort"] as const) {
        const [left, right] = yield* connect(subject)
        yield* writeAll(right, text("part"))
        const fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>> = [
          yield* start(readExactly(left, new Uint8Array(10))),
          yield* start(left.readSome(new Uint8Array(10))),
          yield* start(readUntil(left, "\n")),
          yield* start(readAll(left))
        ]
        yield* eventually("the first bytes", () => left.bytesRead === 4)
        const ending = yield* start(left[end])
        for (const fiber of fibers) failedWith(`a read at ${end}`, yield* exitOf("a read", fiber), "Closed")
        succeeded(end, yield* exitOf(end, ending))
        equal("the socket", left.state.socket, "closed")
      }
    })),

  check("close wakes waiting writes with Closed and their progress", (subject) =>
    Effect.gen(function*() {
      for (const end of ["close", "abort"] as const) {
        const { fiber, k, left, total } = yield* midway(subject, writeAll)
        const behind: ReadonlyArray<Fiber.Fiber<unknown, unknown>> = [
          yield* start(left.writeSome(text("!"))),
          yield* start(writeAll(left, text("!"))),
          yield* start(left.shutdownWrite)
        ]
        yield* start(left[end])
        const error = failedWith(`writeAll at ${end}`, yield* exitOf("writeAll", fiber), "Closed")
        equal(`writeAll at ${end}: transferred`, error.transferred, k)
        equal(`writeAll at ${end}: total`, error.total, total)
        for (const fiber of behind) {
          const error = failedWith(`a write in line at ${end}`, yield* exitOf("a write in line", fiber), "Closed")
          equal(`a write in line at ${end}: transferred`, error.transferred, 0)
        }
        succeeded("abort", yield* promptly("abort", left.abort))
      }
    })),

  check("every operation on a closed socket fails with Closed, each promptly", (subject) =>
    Effect.gen(function*() {
      for (const end of ["close", "abort"] as const) {
        const [left, right] = yield* connect(subject)
        yield* writeAll(right, text("unread"))
        succeeded(end, yield* promptly(end, left[end]))
        const operations = {
          readSome: left.readSome(new Uint8Array(1)),
          writeSome: left.writeSome(text("!")),
          writeAll: writeAll(left, text("!")),
          readExactly: readExactly(left, new Uint8Array(1)),
          readUntil: readUntil(left, "\n"),
          readAll: readAll(left),
          shutdownWrite: left.shutdownWrite,
          configure: left.configure({ noDelay: true })
        }
        for (const [name, operation] of Object.entries<Effect.Effect<unknown, unknown>>(operations)) {
          failedWith(`${name} after ${end}`, yield* promptly(name, operation), "Closed")
        }
        const { read, socket, write } = left.state
        equal("state", `${socket} ${read} ${write}`, "closed closed closed")
      }
    })),

  check("close flushes what was taken", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject, { linger: forever })
      const closing = yield* start(left.close)
      yield* turns(20)
      const all = succeeded("reading", yield* promptly("reading", readToEnd(right)))
      succeeded("close", yield* exitOf("close", closing))
      sameBytes("what the peer reads", all, filled)
    })),

  check("close flushes although there is unread input", (subject) =>
    Effect.gen(function*() {
      for (const isMuch of [false, true]) {
        const [left, right] = yield* connect(subject)
        if (isMuch) yield* clog(right)
        else yield* writeAll(right, text("never read"))
        yield* turns(20)
        yield* writeAll(left, text("good bye"))
        const closing = yield* start(left.close)
        yield* turns(20)
        sameBytes(
          "what the peer reads",
          succeeded("reading", yield* promptly("reading", readToEnd(right))),
          text("good bye")
        )
        const closingToo = yield* start(right.close)
        succeeded("close", yield* exitOf("close", closing))
        succeeded("the peer's close", yield* exitOf("the peer's close", closingToo))
      }
    })),

  check("close flushes behind a clogged peer's own close", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      yield* writeAll(left, text("there"))
      yield* writeAll(right, text("back"))
      const closing = [yield* start(left.close), yield* start(right.close)]
      for (const fiber of closing) succeeded("close from both ends", yield* exitOf("close from both ends", fiber))
      equal("states", `${left.state.socket} ${right.state.socket}`, "closed closed")
    })),

  check("close and abort are idempotent, one after the other and at once", (subject) =>
    Effect.gen(function*() {
      for (const first of ["close", "abort"] as const) {
        const [left, right] = yield* connect(subject)
        yield* writeAll(left, text("last"))
        const fibers: Array<Fiber.Fiber<void>> = []
        for (let i = 0; i < 3; i++) fibers.push(yield* start(left[first]), yield* start(left.close))
        for (const fiber of fibers) succeeded(`concurrent ${first}`, yield* exitOf(`concurrent ${first}`, fiber))
        equal("the socket", left.state.socket, "closed")
        for (const again of ["close", "abort", "close"] as const) {
          succeeded(`${again} after ${first}`, yield* promptly(again, left[again]))
        }
        const { bytes } = yield* readOut(right)
        sameBytes("what the peer reads", bytes, text("last").subarray(0, bytes.byteLength))
        if (first === "close") equal("bytes after close", bytes.byteLength, 4)
      }
    })),

  check("an interrupted close aborts", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject, { linger: forever })
      const closing = yield* start(left.close)
      const other = yield* start(left.close)
      yield* turns(20)
      // If nothing has to be flushed, close has ended by now and there is nothing to abort.
      const waited = closing.pollUnsafe() === undefined
      yield* cut("close", closing)
      succeeded("another close", yield* exitOf("another close", other))
      equal("the socket", left.state.socket, "closed")
      const { bytes, exit } = succeeded("reading", yield* promptly("reading", readOut(right)))
      sameBytes("what the peer reads", bytes, filled.subarray(0, bytes.byteLength))
      if (waited && subject.can.reset) failedWith("what the peer sees", exit, "ConnectionReset")
    })),

  check("a peer that never reads holds close up for the linger time at most", (subject) =>
    Effect.gen(function*() {
      const { left, right } = yield* clogged(subject, { linger })
      const waiting = yield* start(left.writeSome(text("!")))
      const closing = yield* start(left.close)
      failedWith("a waiting write", yield* exitOf("a waiting write", waiting), "Closed")
      yield* turns()
      yield* subject.advance(linger)
      succeeded("close", yield* exitOf("close", closing))
      equal("the socket", left.state.socket, "closed")
      ensure("the peer's socket", right.state.socket === "open", "open", right.state.socket)
    })),

  check("with a linger time of 0 close does not wait", (subject) =>
    Effect.gen(function*() {
      const { left } = yield* clogged(subject, { linger: Duration.zero })
      succeeded("close", yield* promptly("close", left.close))
      equal("the socket", left.state.socket, "closed")
    })),

  check("abort during close ends both", (subject) =>
    Effect.gen(function*() {
      const { left } = yield* clogged(subject, { linger: forever })
      const closing = yield* start(left.close)
      yield* turns()
      succeeded("abort", yield* promptly("abort", left.abort))
      succeeded("close", yield* exitOf("close", closing))
      equal("the socket", left.state.socket, "closed")
    })),

  check("abort in the same moment as shutdownWrite or close ends promptly", (subject) =>
    Effect.gen(function*() {
      for (const before of [0, 1, 2]) {
        const [left] = yield* connect(subject)
        if (subject.can.halfClose) yield* left.shutdownWrite
        for (let i = 0; i < before; i++) yield* Effect.yieldNow
        succeeded("abort after shutdownWrite", yield* promptly("abort after shutdownWrite", left.abort))
        equal("the socket", left.state.socket, "closed")
        const [other] = yield* connect(subject)
        yield* writeAll(other, text("last"))
        const closing = yield* start(other.close)
        for (let i = 0; i < before; i++) yield* Effect.yieldNow
        succeeded("abort after close", yield* promptly("abort after close", other.abort))
        succeeded("close", yield* exitOf("close", closing))
        equal("the socket", other.state.socket, "closed")
      }
    })),

  check("abort does not wait for a clogged peer", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject, { linger: forever })
      succeeded("abort", yield* promptly("abort", left.abort))
      equal("the socket", left.state.socket, "closed")
      const { bytes, exit } = succeeded("reading", yield* promptly("reading", readOut(right)))
      sameBytes("what the peer reads", bytes, filled.subarray(0, bytes.byteLength))
      if (subject.can.reset) failedWith("what the peer sees", exit, "ConnectionReset")
    })),

  check("the scope that opened a stream closes it", (subject) =>
    Effect.gen(function*() {
      const opened = Effect.gen(function*() {
        const [left, right] = yield* subject.pair()
        yield* writeAll(left, text("unread"))
        return { left, right, reader: yield* start(left.readSome(new Uint8Array(1))) }
      })
      const scoped = yield* promptly("a scope", Effect.scoped(opened))
      const { left, right } = succeeded("a scope", scoped)
      equal("states", `${left.state.socket} ${right.state.socket}`, "closed closed")
    })),

  check(
    "a scope that closes on a clogged stream takes no longer than the linger times",
    (subject) =>
      Effect.gen(function*() {
        let ends: ReadonlyArray<StreamSocket> = []
        const scope = yield* start(
          Effect.scoped(
            Effect.gen(function*() {
              ends = yield* subject.pair({ linger })
              for (const end of ends) yield* clog(end)
            })
          )
        )
        yield* eventually("both ends clogged and closing", () => ends.some(({ state }) => state.socket !== "open"))
        for (const _ of ends) {
          yield* turns()
          yield* subject.advance(linger)
        }
        succeeded("the scope", yield* exitOf("the scope", scope))
        equal("states", ends.map(({ state }) => state.socket).join(" "), "closed closed")
      })
  ),

  check("closing a fresh connection ends it cleanly for the peer", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      succeeded("close", yield* promptly("close", left.close))
      ended("the peer's read", yield* promptly("readSome", right.readSome(new Uint8Array(1))))
      succeeded("the peer's close", yield* promptly("close", right.close))
      equal("bytesWritten", left.bytesWritten + right.bytesWritten, 0)
    })),

  check("options of a live connection can be changed, clogged or not", (subject) =>
    Effect.gen(function*() {
      const [left] = yield* connect(subject)
      yield* left.configure({ noDelay: false, keepAlive: "10 seconds" })
      yield* clog(left)
      yield* left.configure({ noDelay: true, keepAlive: false })
      yield* left.configure({})
      equal("the socket", left.state.socket, "open")
    })),

  check(
    "close in the middle of a message aborts: the peer does not take the end of the stream for its end",
    (subject) =>
      Effect.gen(function*() {
        const { fiber, filled, k, left, message, read, right } = yield* midway(subject, writeAll, { linger: forever })
        succeeded("close", yield* promptly("close", left.close))
        equal("transferred", failedWith("writeAll", yield* exitOf("writeAll", fiber), "Closed").transferred, k)
        const { bytes, exit } = succeeded("reading", yield* promptly("reading", readOut(right)))
        if (subject.can.reset) failedWith("what the peer sees", exit, "ConnectionReset")
        const all = Buffers.concat([filled, message.subarray(0, k)])
        const seen = Buffers.concat([read, bytes])
        sameBytes("what the peer reads", seen, all.subarray(0, seen.byteLength))
      })
  )
]

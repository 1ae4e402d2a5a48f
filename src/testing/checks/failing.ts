import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Cancellation from "../../Cancellation.ts"
import { readExactly, readUntil } from "../../Read.ts"
import type { SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { writeAll } from "../../Write.ts"
import type { Check } from "./Subject.ts"
import {
  check,
  clogged,
  connect,
  ended,
  equal,
  eventually,
  exitOf,
  failedWith,
  lost,
  midway,
  pattern,
  promptly,
  readOut,
  readToEnd,
  sameBytes,
  start,
  stillWaiting,
  succeeded,
  take,
  text,
  turns,
  waitingForRoom
} from "./support.ts"

const linger = Duration.millis(50)

/** Writes until the transport has noticed that the peer is gone. */
const untilLost = (socket: StreamSocket) =>
  Effect.gen(function*() {
    const deadline = performance.now() + 30_000
    for (;;) {
      const exit = yield* promptly("a write to a peer that is gone", socket.writeSome(text("anyone there?")))
      if (exit._tag === "Failure") {
        lost("a write to a peer that is gone", exit)
        return
      }
      if (performance.now() > deadline) {
        throw new Error("writes to a peer that is gone: expected to fail, all succeeded")
      }
      yield* turns()
    }
  })

/** What a lost connection answers from then on. */
const staysLost = (socket: StreamSocket) =>
  Effect.gen(function*() {
    const { bytesWritten } = socket
    for (let i = 0; i < 5; i++) {
      lost(`later writeSome ${i}`, yield* promptly("a later writeSome", socket.writeSome(text("!"))))
      lost(`later writeAll ${i}`, yield* promptly("a later writeAll", writeAll(socket, text("!"))))
      lost(`later shutdownWrite ${i}`, yield* promptly("a later shutdownWrite", socket.shutdownWrite))
    }
    equal("bytes taken after the failure", socket.bytesWritten, bytesWritten)
    equal("the write side", socket.state.write, "failed")
    equal("the socket", socket.state.socket, "open")
  })

const staysReset = (socket: StreamSocket) =>
  Effect.gen(function*() {
    for (let i = 0; i < 5; i++) {
      const exit = yield* promptly("a later read", socket.readSome(new Uint8Array(8)))
      failedWith(`later read ${i}`, exit, "ConnectionReset")
    }
    equal("the read side", socket.state.read, "failed")
  })

const closes = (socket: StreamSocket) =>
  Effect.gen(function*() {
    succeeded("close", yield* promptly("close", socket.close))
    equal("the socket after close", socket.state.socket, "closed")
    failedWith("a read after close", yield* promptly("readSome", socket.readSome(new Uint8Array(1))), "Closed")
    failedWith("a write after close", yield* promptly("writeSome", socket.writeSome(text("!"))), "Closed")
  })

const named = (what: string, error: SocketError, operation: string, socket: StreamSocket): void => {
  equal(`${what}: operation`, error.operation, operation)
  equal(`${what}: address`, JSON.stringify(error.address), JSON.stringify(socket.remoteAddress))
}

export const failing: ReadonlyArray<Check> = [
  check("errors name the operation, the peer and the progress", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      yield* writeAll(right, text("part"))
      const reading = yield* start(readExactly(left, new Uint8Array(10)))
      yield* eventually("the first bytes", () => left.bytesRead === 4)
      yield* start(right.close)
      const early = failedWith("readExactly", yield* exitOf("readExactly", reading), "UnexpectedEof")
      named("readExactly", early, "readExactly", left)
      equal("readExactly: transferred", early.transferred, 4)
      equal("readExactly: total", early.total, 10)
      succeeded("close", yield* promptly("close", left.close))
      const operations = {
        readSome: left.readSome(new Uint8Array(1)),
        writeSome: left.writeSome(text("!")),
        writeAll: writeAll(left, text("!")),
        readExactly: readExactly(left, new Uint8Array(1)),
        readUntil: readUntil(left, "\n"),
        shutdownWrite: left.shutdownWrite
      }
      for (const [name, operation] of Object.entries<Effect.Effect<unknown, unknown>>(operations)) {
        const error = failedWith(name, yield* promptly(name, operation), "Closed")
        named(name, error, name, left)
        equal(`${name}: transferred`, error.transferred, 0)
        const json: unknown = JSON.parse(JSON.stringify(error))
        equal(`${name}: as JSON`, typeof json === "object" && json !== null && "message" in json, true)
        equal(`${name}: lines of its message`, error.message.split("\n").length, 1)
      }
    })),

  check(
    "reset while idle: the next read says so, and so does every other operation",
    (subject) =>
      Effect.gen(function*() {
        const [left, right] = yield* connect(subject)
        yield* writeAll(right, text("hello"))
        yield* take(left, 5)
        succeeded("abort", yield* promptly("abort", right.abort))
        yield* turns(20)
        yield* staysReset(left)
        yield* untilLost(left)
        yield* staysLost(left)
        yield* closes(left)
      }),
    "reset"
  ),

  check("reset while idle: the next write says so", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      succeeded("abort", yield* promptly("abort", right.abort))
      yield* turns(20)
      yield* untilLost(left)
      yield* staysLost(left)
      yield* staysReset(left)
      yield* closes(left)
    }), "reset"),

  check("reset while idle: close does not mind", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      succeeded("abort", yield* promptly("abort", right.abort))
      yield* turns(20)
      yield* closes(left)
    })),

  check(
    "reset while readers wait: all of them fail, and what they had collected stays readable",
    (subject) =>
      Effect.gen(function*() {
        const [left, right] = yield* connect(subject)
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = [
          yield* start(readExactly(left, new Uint8Array(10))),
          yield* start(readUntil(left, "\n"))
        ]
        yield* writeAll(right, text("part"))
        yield* eventually("the first bytes", () => left.bytesRead === 4)
        succeeded("abort", yield* promptly("abort", right.abort))
        for (const fiber of fibers) {
          const error = failedWith("a composed read", yield* exitOf("a composed read", fiber), "ConnectionReset")
          equal("a composed read: transferred", error.transferred, 4)
        }
        sameBytes("what had arrived", succeeded("take", yield* promptly("take", take(left, 4))), text("part"))
        yield* staysReset(left)
        yield* closes(left)
      }),
    "reset"
  ),

  check("reset while a plain read waits, with others in line", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 5; i++) fibers.push(yield* start(left.readSome(new Uint8Array(10))))
      yield* turns()
      succeeded("abort", yield* promptly("abort", right.abort))
      for (const fiber of fibers) failedWith("a read", yield* exitOf("a read", fiber), "ConnectionReset")
      yield* staysReset(left)
      yield* closes(left)
    }), "reset"),

  check(
    "reset while writes wait for room: all of them fail, having taken nothing",
    (subject) =>
      Effect.gen(function*() {
        const { fiber, filled, left, right } = yield* waitingForRoom(subject, (socket) => socket.writeSome(text("!")))
        const behind = yield* start(writeAll(left, text("!")))
        succeeded("abort", yield* promptly("abort", right.abort))
        equal("transferred", lost("writeSome", yield* exitOf("writeSome", fiber)).transferred, 0)
        equal("transferred", lost("writeAll", yield* exitOf("writeAll", behind)).transferred, 0)
        equal("bytesWritten", left.bytesWritten, filled.byteLength)
        yield* staysLost(left)
        yield* closes(left)
      })
  ),

  check("reset in the middle of a writeAll: it fails with its progress", (subject) =>
    Effect.gen(function*() {
      for (const policy of [Cancellation.terminal, Cancellation.partial, Cancellation.total()]) {
        const { fiber, filled, k, left, right, total } = yield* midway(
          subject,
          (socket, message) => policy(writeAll(socket, message))
        )
        succeeded("abort", yield* promptly("abort", right.abort))
        const error = lost("writeAll", yield* exitOf("writeAll", fiber))
        equal("transferred", error.transferred, k)
        equal("total", error.total, total)
        equal("bytesWritten", left.bytesWritten, filled.byteLength + k)
        yield* staysLost(left)
        yield* closes(left)
      }
    })),

  check("reset before the first read: first what had arrived, then the reset", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      yield* writeAll(right, text("hello"))
      yield* turns(20)
      succeeded("abort", yield* promptly("abort", right.abort))
      yield* turns(20)
      const { bytes, exit } = succeeded("reading", yield* promptly("reading", readOut(left)))
      sameBytes("what had arrived", bytes, text("hello").subarray(0, bytes.byteLength))
      failedWith("the end", exit, "ConnectionReset")
      yield* staysReset(left)
      yield* closes(left)
    }), "reset"),

  check("reset after end of stream: reads stay at the end, writes fail", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      yield* right.shutdownWrite
      ended("a read", yield* promptly("readSome", left.readSome(new Uint8Array(1))))
      succeeded("abort", yield* promptly("abort", right.abort))
      yield* turns(20)
      for (let i = 0; i < 3; i++) {
        ended("a later read", yield* promptly("readSome", left.readSome(new Uint8Array(1))))
      }
      yield* untilLost(left)
      yield* staysLost(left)
      ended("a read after the failed write", yield* promptly("readSome", left.readSome(new Uint8Array(1))))
      yield* closes(left)
    }), "halfClose"),

  check("reset while closing: close ends promptly", (subject) =>
    Effect.gen(function*() {
      const { left, right } = yield* clogged(subject, { linger: Duration.infinity })
      const closing = yield* start(left.close)
      yield* turns()
      succeeded("abort", yield* promptly("abort", right.abort))
      succeeded("close", yield* exitOf("close", closing))
      equal("the socket", left.state.socket, "closed")
    })),

  check("reset after a torn write: the stream stays torn, reads see the reset", (subject) =>
    Effect.gen(function*() {
      const { fiber, left, right } = yield* midway(subject, writeAll)
      fiber.interruptUnsafe()
      succeeded("abort", yield* promptly("abort", right.abort))
      const { exit } = succeeded("reading", yield* promptly("reading", readOut(left)))
      failedWith("a read", exit, "ConnectionReset")
      failedWith("a write", yield* promptly("writeSome", left.writeSome(text("!"))), "Torn")
      yield* closes(left)
    }), "reset"),

  check("writes after the peer is gone fail, each promptly", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      yield* writeAll(left, text("read"))
      yield* take(right, 4)
      succeeded("the peer's close", yield* promptly("close", right.close))
      yield* untilLost(left)
      yield* staysLost(left)
      yield* closes(left)
    })),

  check("a waiting write is answered when the peer closes with our bytes unread", (subject) =>
    Effect.gen(function*() {
      const { fiber, left, right } = yield* waitingForRoom(subject, (socket) => socket.writeSome(text("!")), { linger })
      const closing = yield* start(right.close)
      yield* turns()
      yield* subject.advance(linger)
      yield* exitOf("the waiting write", fiber)
      succeeded("the peer's close", yield* exitOf("the peer's close", closing))
      yield* untilLost(left)
      yield* staysLost(left)
      yield* closes(left)
    })),

  check("a failed write leaves what was received readable", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const bytes = pattern(100)
      yield* writeAll(right, bytes)
      // Whatever the transport reads ahead, it has it now.
      sameBytes("the first byte", yield* take(left, 1), bytes.subarray(0, 1))
      succeeded("the peer's close", yield* promptly("close", right.close))
      yield* untilLost(left)
      yield* staysLost(left)
      sameBytes("the other bytes", succeeded("take", yield* promptly("take", take(left, 99))), bytes.subarray(1))
      yield* promptly("the end", left.readSome(new Uint8Array(1)))
      yield* closes(left)
    })),

  check("a failed write leaves a composed read and its bytes alone", (subject) =>
    Effect.gen(function*() {
      const [left, right] = yield* connect(subject)
      const reader = yield* start(readUntil(left, "\n"))
      yield* writeAll(right, text("no line yet"))
      yield* eventually("the first bytes", () => left.bytesRead === 11)
      yield* stillWaiting("a read", reader)
      succeeded("the peer's close", yield* promptly("close", right.close))
      yield* untilLost(left)
      failedWith("the read", yield* exitOf("the read", reader), "UnexpectedEof", "ConnectionReset", "BrokenPipe")
      sameBytes("what had arrived", succeeded("take", yield* promptly("take", take(left, 11))), text("no line yet"))
    })),

  check(
    "a failed write leaves everything on its way readable, to the end of the stream",
    (subject) =>
      Effect.gen(function*() {
        const [left, right] = yield* connect(subject)
        const bytes = pattern(3000)
        const count = yield* right.writeSome(bytes)
        succeeded("the peer's close", yield* promptly("close", right.close))
        yield* untilLost(left)
        yield* staysLost(left)
        const all = succeeded("reading", yield* promptly("reading", readToEnd(left)))
        sameBytes("the peer's last words", all, bytes.subarray(0, count))
        yield* closes(left)
      }),
    "readAfterWriteFailure"
  )
]

import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { writeAll } from "../../Write.ts"
import type { Check } from "./Subject.ts"
import {
  check,
  clogged,
  cloggedFor,
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
  readToEnd,
  sameBytes,
  show,
  start,
  stillWaiting,
  succeeded,
  succeededWith,
  take,
  text,
  transferred,
  turns,
  waitingForRoom
} from "./support.ts"

const within = Duration.millis(100)

type Region = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const policies: ReadonlyArray<readonly [name: string, region: Region]> = [
  ["terminal", Cancellation.terminal],
  ["partial", Cancellation.partial],
  ["total", (effect) => Cancellation.total(effect)],
  ["total within", (effect) => Cancellation.total(effect, { within })]
]

/** Every kind of write, with what it is called. */
const writes = (source: Uint8Array) => (socket: StreamSocket) =>
  policies.flatMap(([name, region]) => [
    [`writeSome (${name})`, region(socket.writeSome(source))] as const,
    [`writeAll (${name})`, region(writeAll(socket, source))] as const,
    [`writeAll of a list (${name})`, region(writeAll(socket, [source.subarray(0, 1), source.subarray(1)]))] as const
  ])

const untouched = (total: number) => ({ transferred: 0, total, guarantee: "total" }) as const

export const cancelling: ReadonlyArray<Check> = [
  check("interrupting a write that waits for room takes nothing", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject)
      for (const [name, write] of writes(text("never sent"))(left)) {
        const fiber = yield* start(write)
        yield* stillWaiting(name, fiber)
        interrupted(name, yield* cut(name, fiber), untouched(10))
        equal(`${name}: bytesWritten`, left.bytesWritten, filled.byteLength)
        equal(`${name}: the write side`, left.state.write, "open")
      }
      const after = yield* start(writeAll(left, text("sent")))
      const reading = yield* start(readToEnd(right))
      succeededWith("the next write", yield* exitOf("the next write", after), 4)
      succeeded("close", yield* promptly("close", left.close))
      const all = succeeded("reading", yield* exitOf("reading", reading))
      sameBytes("what the peer reads", all, filled, text("sent"))
    })),

  check(
    "interrupting a write that waits in line takes nothing and keeps the others in order",
    (subject) =>
      Effect.gen(function*() {
        const { fiber, filled, left, message, read, right, total } = yield* midway(subject, writeAll)
        const first = yield* start(left.writeSome(text("1")))
        for (const [name, write] of writes(text("never sent"))(left)) {
          const fiber = yield* start(write)
          yield* stillWaiting(name, fiber)
          interrupted(name, yield* cut(name, fiber), untouched(10))
        }
        const cutLater = yield* start(writeAll(left, text("never sent")))
        const second = yield* start(writeAll(left, text("2")))
        interrupted("a write between others", yield* cut("a write between others", cutLater), untouched(10))
        const reading = yield* start(readToEnd(right))
        succeededWith("the write in front", yield* exitOf("the write in front", fiber), total)
        succeededWith("the first behind it", yield* exitOf("the first behind it", first), 1)
        succeededWith("the second behind it", yield* exitOf("the second behind it", second), 1)
        succeeded("close", yield* promptly("close", left.close))
        const all = succeeded("reading", yield* exitOf("reading", reading))
        sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message, text("12"))
      })
  ),

  check("a long line of writes keeps its order while others leave it", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject)
      const line: Array<{ readonly bytes: Uint8Array; readonly fiber: Fiber.Fiber<number, unknown> }> = []
      for (let i = 0; i < 300; i++) {
        const bytes = pattern(1 + (i * 7) % 50, i * 50)
        line.push({ bytes, fiber: yield* start(writeAll(left, bytes)) })
      }
      // First every third, then the front, then the back.
      const leaving = line.filter((_, i) => i % 3 === 1 || i < 10 || i > 290)
      for (const { bytes, fiber } of leaving) {
        interrupted("a write in line", yield* cut("a write in line", fiber), untouched(bytes.byteLength))
      }
      const reading = yield* start(readToEnd(right))
      const staying = line.filter((entry) => !leaving.includes(entry))
      for (const { bytes, fiber } of staying) {
        succeededWith("a write that stays", yield* exitOf("a write that stays", fiber), bytes.byteLength)
      }
      succeeded("close", yield* promptly("close", left.close))
      sameBytes(
        "what the peer reads",
        succeeded("reading", yield* exitOf("reading", reading)),
        filled,
        ...staying.map(({ bytes }) => bytes)
      )
    })),

  check("a write that is interrupted before it starts does nothing", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* clogged(subject)
      yield* take(right, 1)
      for (const [name, write] of writes(text("never sent"))(left)) {
        const fiber = yield* Effect.forkChild(write)
        const exit = yield* cut(name, fiber)
        ensure(name, Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause), "an interruption", show(exit))
      }
      equal("bytesWritten", left.bytesWritten, filled.byteLength)
      equal("the write side", left.state.write, "open")
      sameBytes("what the peer reads", yield* drain(left, right), filled.subarray(1))
    })),

  check("interrupting what stands in front lets the next one go on", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, left, right } = yield* waitingForRoom(
        subject,
        (socket) => Cancellation.total(writeAll(socket, text("never sent")))
      )
      const behind = yield* start(writeAll(left, text("sent")))
      interrupted("the write in front", yield* cut("the write in front", fiber), untouched(10))
      const reading = yield* start(readToEnd(right))
      succeededWith("the write behind", yield* exitOf("the write behind", behind), 4)
      succeeded("close", yield* promptly("close", left.close))
      sameBytes(
        "what the peer reads",
        succeeded("reading", yield* exitOf("reading", reading)),
        filled,
        text("sent")
      )
    })),

  check("terminal: a writeAll cut in the middle tears the stream", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, k, left, message, read, right, total } = yield* midway(
        subject,
        (socket, message) => Cancellation.terminal(writeAll(socket, message))
      )
      const behind = yield* start(left.writeSome(text("!")))
      interrupted("writeAll", yield* cut("writeAll", fiber), { transferred: k, total, guarantee: "terminal" })
      equal("the write side", left.state.write, "torn")
      equal("the socket", left.state.socket, "open")
      equal("the read side", left.state.read, "open")
      equal("bytesWritten", left.bytesWritten, filled.byteLength + k)
      const later = [
        ["the write in line", exitOf("the write in line", behind)],
        ["writeSome", promptly("writeSome", left.writeSome(text("!")))],
        ["writeAll", promptly("writeAll", writeAll(left, text("!")))],
        ["writeSome, again", promptly("writeSome", left.writeSome(text("!")))],
        ["shutdownWrite", promptly("shutdownWrite", left.shutdownWrite)]
      ] as const
      for (const [name, run] of later) {
        const error = failedWith(`${name} on a torn stream`, yield* run, "Torn")
        equal(`${name}: transferred`, error.transferred, 0)
        if (error.reason._tag === "Torn") {
          equal(`${name}: transferred of the torn message`, error.reason.transferred, k)
          equal(`${name}: total of the torn message`, error.reason.total, total)
        }
      }
      yield* writeAll(right, text("still here"))
      sameBytes("a read on a torn stream", yield* take(left, 10), text("still here"))
      sameBytes(
        "what the peer reads",
        Buffers.concat([read, yield* drainTorn(subject, left, right)]),
        filled,
        message.subarray(0, k)
      )
      equal("after close", left.state.socket, "closed")
    })),

  check("terminal is what plain interruption asks for", (subject) =>
    Effect.gen(function*() {
      const { fiber, k, left, total } = yield* midway(subject, writeAll)
      interrupted("writeAll", yield* cut("writeAll", fiber), { transferred: k, total, guarantee: "terminal" })
      equal("the write side", left.state.write, "torn")
      succeeded("abort", yield* promptly("abort", left.abort))
    })),

  check(
    "partial: a writeAll cut in the middle leaves a usable stream, and the cursor sends the rest",
    (subject) =>
      Effect.gen(function*() {
        let cursor = Buffers.cursor([])
        const { fiber, filled, k, left, message, read, right, total } = yield* midway(subject, (socket, message) => {
          cursor = Buffers.cursor([message.subarray(0, 3), message.subarray(3)])
          return Cancellation.partial(writeAll(socket, cursor))
        })
        interrupted("writeAll", yield* cut("writeAll", fiber), { transferred: k, total, guarantee: "partial" })
        equal("the write side", left.state.write, "open")
        equal("the cursor", cursor.transferred, k)
        equal("what remains", cursor.remaining, total - k)
        equal("bytesWritten", left.bytesWritten, filled.byteLength + k)
        const rest = yield* start(writeAll(left, cursor))
        const reading = yield* start(readToEnd(right))
        succeededWith("the rest", yield* exitOf("the rest", rest), total - k)
        equal("the cursor at the end", cursor.remaining, 0)
        succeeded("close", yield* promptly("close", left.close))
        const all = succeeded("reading", yield* exitOf("reading", reading))
        sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message)
      })
  ),

  check("partial: what waits behind a writeAll that is cut gets its turn", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, k, left, message, read, right } = yield* midway(
        subject,
        (socket, message) => Cancellation.partial(writeAll(socket, message))
      )
      const behind = yield* start(writeAll(left, text("next")))
      yield* cut("writeAll", fiber)
      const reading = yield* start(readToEnd(right))
      succeededWith("the write behind", yield* exitOf("the write behind", behind), 4)
      succeeded("close", yield* promptly("close", left.close))
      const all = succeeded("reading", yield* exitOf("reading", reading))
      sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message.subarray(0, k), text("next"))
    })),

  check(
    "total: a writeAll cut in the middle goes on to its last byte, and is interrupted then",
    (subject) =>
      Effect.gen(function*() {
        const { fiber, filled, left, message, read, right, total } = yield* midway(
          subject,
          (socket, message) => Cancellation.total(writeAll(socket, message))
        )
        const behind = yield* start(writeAll(left, text("next")))
        fiber.interruptUnsafe()
        yield* stillWaiting("an interrupted writeAll that goes on", fiber)
        equal("the write side", left.state.write, "open")
        const reading = yield* start(readToEnd(right))
        interrupted("writeAll", yield* exitOf("writeAll", fiber), { transferred: total, total, guarantee: "total" })
        succeededWith("the write behind", yield* exitOf("the write behind", behind), 4)
        equal("the write side", left.state.write, "open")
        succeeded("close", yield* promptly("close", left.close))
        const all = succeeded("reading", yield* exitOf("reading", reading))
        sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message, text("next"))
      })
  ),

  check("total within: becomes terminal after that time", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, k, left, message, read, right, total } = yield* midway(
        subject,
        (socket, message) => Cancellation.total(writeAll(socket, message), { within })
      )
      const began = performance.now()
      fiber.interruptUnsafe()
      yield* turns()
      if (performance.now() - began < Duration.toMillis(within)) {
        yield* stillWaiting("an interrupted writeAll that goes on", fiber)
      }
      yield* subject.advance(within)
      interrupted("writeAll", yield* exitOf("writeAll", fiber), { transferred: k, total, guarantee: "terminal" })
      equal("the write side", left.state.write, "torn")
      failedWith("a later write", yield* promptly("a later write", left.writeSome(text("!"))), "Torn")
      sameBytes(
        "what the peer reads",
        Buffers.concat([read, yield* drainTorn(subject, left, right)]),
        filled,
        message.subarray(0, k)
      )
    })),

  check("total within: finishing in time keeps the total guarantee", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, left, message, read, right, total } = yield* midway(
        subject,
        (socket, message) => Cancellation.total(writeAll(socket, message), { within: "1 hour" })
      )
      fiber.interruptUnsafe()
      const reading = yield* start(readToEnd(right))
      interrupted("writeAll", yield* exitOf("writeAll", fiber), { transferred: total, total, guarantee: "total" })
      equal("the write side", left.state.write, "open")
      succeeded("close", yield* promptly("close", left.close))
      const all = succeeded("reading", yield* exitOf("reading", reading))
      sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message)
    })),

  check(
    "a closed socket ends a writeAll that goes on under total, and says how far it came",
    (subject) =>
      Effect.gen(function*() {
        const { fiber, k, left, total } = yield* midway(
          subject,
          (socket, message) => Cancellation.total(writeAll(socket, message))
        )
        fiber.interruptUnsafe()
        yield* stillWaiting("an interrupted writeAll that goes on", fiber)
        succeeded("abort", yield* promptly("abort", left.abort))
        const exit = yield* exitOf("writeAll", fiber)
        ensure("writeAll", Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause), "an interruption", show(exit))
        if (Exit.isFailure(exit)) transferred("writeAll", exit.cause, { transferred: k, total, guarantee: "terminal" })
      })
  ),

  check(
    "the last byte counts: a writeAll whose bytes were all taken has completed",
    (subject) =>
      Effect.gen(function*() {
        for (const [name, region] of policies) {
          const { fiber, filled, left, right } = yield* waitingForRoom(
            subject,
            (socket) => region(Effect.andThen(writeAll(socket, text("!")), Effect.never))
          )
          const reading = yield* start(take(right, filled.byteLength + 1))
          yield* eventually(`${name}: the last byte`, () => left.bytesWritten === filled.byteLength + 1)
          yield* cut(name, fiber)
          equal(`${name}: the write side`, left.state.write, "open")
          sameBytes(
            `${name}: what the peer reads`,
            succeeded("reading", yield* exitOf("reading", reading)),
            filled,
            text("!")
          )
          succeededWith(`${name}: the next write`, yield* promptly("the next write", writeAll(left, text("?"))), 1)
        }
      })
  ),

  check("progress is visible in Fiber.await, Effect.exit and Effect.onExit", (subject) =>
    Effect.gen(function*() {
      const seen: Array<Exit.Exit<unknown, unknown>> = []
      const { fiber, k, total } = yield* midway(subject, (socket, message) =>
        writeAll(socket, message).pipe(
          Effect.onExit((exit) => Effect.sync(() => seen.push(exit))),
          (writing) =>
            Effect.uninterruptibleMask((restore) =>
              Effect.flatMap(Effect.exit(restore(writing)), (exit) => {
                seen.push(exit)
                return exit
              })
            )
        ))
      const expected = { transferred: k, total, guarantee: "terminal" } as const
      interrupted("Fiber.await", yield* cut("writeAll", fiber), expected)
      equal("exits seen", seen.length, 2)
      interrupted("Effect.onExit", seen[0]!, expected)
      interrupted("Effect.exit", seen[1]!, expected)
    })),

  check(
    "interrupting a fiber that writes without a pause keeps its count, whichever step its turn ends at",
    (subject) =>
      Effect.gen(function*() {
        const bytes = pattern(1)
        for (let steps = 0; steps < 12; steps++) {
          const [left, right] = yield* connect(subject)
          let count = 0
          let done = 0
          // The run loop lets others in after some number of steps; an interruption comes there.
          const fiber = yield* start(
            Effect.andThen(
              Effect.whileLoop({ while: () => done < steps, body: () => Effect.void, step: () => done++ }),
              Effect.forever(
                Effect.map(left.writeSome(bytes), (taken) => {
                  count += taken
                }),
                { disableYield: true }
              )
            )
          )
          yield* cut("a write", fiber)
          equal("bytesWritten", left.bytesWritten, count)
          equal("bytes the peer reads", (yield* drain(left, right)).byteLength, count)
        }
      })
  ),

  check("an uninterruptible writeAll is not cut", (subject) =>
    Effect.gen(function*() {
      const { fiber, filled, left, message, read, right } = yield* midway(
        subject,
        (socket, message) => Effect.uninterruptible(writeAll(socket, message))
      )
      fiber.interruptUnsafe()
      yield* stillWaiting("an uninterruptible writeAll", fiber)
      equal("the write side", left.state.write, "open")
      const reading = yield* start(readToEnd(right))
      yield* exitOf("writeAll", fiber)
      equal("the write side", left.state.write, "open")
      succeeded("close", yield* promptly("close", left.close))
      const all = succeeded("reading", yield* exitOf("reading", reading))
      sameBytes("what the peer reads", Buffers.concat([read, all]), filled, message)
    })),

  check("a timeout keeps the count in the cursor", (subject) =>
    Effect.gen(function*() {
      const { filled, left, right } = yield* cloggedFor(subject, within)
      const cursor = Buffers.cursor(text("later"))
      const fiber = yield* start(
        Effect.timeoutOption(Cancellation.partial(writeAll(left, cursor)), within)
      )
      yield* turns()
      yield* subject.advance(within)
      const exit = yield* exitOf("a write with a timeout", fiber)
      ensure("a write with a timeout", Exit.isSuccess(exit), "no value", show(exit))
      equal("the cursor", cursor.transferred, 0)
      const rest = yield* start(writeAll(left, cursor))
      const reading = yield* start(readToEnd(right))
      succeededWith("the rest", yield* exitOf("the rest", rest), 5)
      succeeded("close", yield* promptly("close", left.close))
      sameBytes(
        "what the peer reads",
        succeeded("reading", yield* exitOf("reading", reading)),
        filled,
        text("later")
      )
    }))
]

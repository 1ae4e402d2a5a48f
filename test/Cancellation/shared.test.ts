/** Torn streams, and one connection that many fibers write frames to. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as TestClock from "effect/testing/TestClock"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Read from "../../src/Read.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { WouldBlock } from "../../src/Transport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { readToEnd } from "../support/reading.ts"
import { eventually, start, steady, turns } from "../support/waiting.ts"

type Socket = StreamSocket.StreamSocket
type Region = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const { block, take } = ScriptedStream
const text = Buffers.utf8
const hello = text("hello")
const empty = new Uint8Array(0)

const seeds = (() => {
  const chosen = process.env["SEED"]
  return chosen === undefined ? Array.from({ length: 60 }, (_, index) => index + 1) : [Number(chosen)]
})()

/** A stream that was torn after 3 of 5 bytes. */
const torn = (reads: ReadonlyArray<ScriptedStream.ReadStep> = []) =>
  Effect.gen(function*() {
    const scripted = yield* ScriptedStream.make({ reads, writes: [take(3), block] })
    const write = yield* start(Write.writeAll(scripted.socket, hello))
    yield* Fiber.interrupt(write)
    assert.deepStrictEqual(transferOf(yield* Fiber.await(write)), { transferred: 3, total: 5, guarantee: "terminal" })
    assert.deepStrictEqual(scripted.socket.state, { socket: "open", read: "open", write: "torn" })
    return scripted
  })

describe("a torn stream", () => {
  const reason = Reason.Torn({ transferred: 3, total: 5 })

  const refused: Readonly<
    Record<
      string,
      {
        readonly operation: string
        readonly total?: number
        readonly run: (socket: Socket) => Effect.Effect<unknown, SocketError>
      }
    >
  > = {
    "writeSome": { operation: "writeSome", total: 2, run: (socket) => socket.writeSome(text("hi")) },
    "writeSome of a gather list": {
      operation: "writeSome",
      total: 4,
      run: (socket) => socket.writeSome([text("hi"), text("ho")])
    },
    "writeSome of nothing": { operation: "writeSome", total: 0, run: (socket) => socket.writeSome(empty) },
    "writeSome of a list of nothing": { operation: "writeSome", total: 0, run: (socket) => socket.writeSome([]) },
    "writeAll": { operation: "writeAll", total: 2, run: (socket) => Write.writeAll(socket, text("hi")) },
    "writeAll of a cursor": {
      operation: "writeAll",
      total: 2,
      run: (socket) => Write.writeAll(socket, Buffers.cursor(text("hi")))
    },
    "writeAll of nothing": { operation: "writeAll", total: 0, run: (socket) => Write.writeAll(socket, empty) },
    "writeAll of a condition that is met at the start": {
      operation: "writeAll",
      total: 0,
      run: (socket) => Write.writeAll(socket, text("hi"), CompletionCondition.transferExactly(0))
    },
    "writeAll by a function": {
      operation: "writeAll",
      total: 2,
      run: (socket) => Write.writeAll(socket, text("hi"), () => 1)
    },
    "writeAll of the rest of what was cut": {
      operation: "writeAll",
      total: 2,
      run: (socket) => Write.writeAll(socket, hello.subarray(3))
    },
    "shutdownWrite": { operation: "shutdownWrite", run: (socket) => socket.shutdownWrite }
  }

  for (const [name, { operation, run, total }] of Object.entries(refused)) {
    it.effect(`${name}: answers Torn at once, with the counts of the cut write, and takes nothing`, () =>
      leavingNothing(Effect.gen(function*() {
        const { calls, socket, written } = yield* torn()
        for (const policy of [Cancellation.terminal, Cancellation.partial, Cancellation.total()]) {
          const error = failure(yield* Effect.exit(policy(run(socket))))
          assert.deepStrictEqual(error.reason, reason)
          assert.strictEqual(error.operation, operation)
          assert.strictEqual(error.transferred, 0)
          if (total !== undefined && total > 0) assert.strictEqual(error.total, total)
          assert.include(error.message, "3 of 5")
        }
        assertBytes(yield* written, "hel")
        assert.strictEqual(socket.bytesWritten, 3)
        assert.deepStrictEqual(calls, { shutdownWrite: 0, close: 0, abort: 0 })
      })))
  }

  it.effect("the reason can be caught, and narrows to both counts", () =>
    Effect.gen(function*() {
      const { socket } = yield* torn()
      const counts = yield* Write.writeAll(socket, hello).pipe(
        Effect.as("written"),
        Effect.catchReason("SocketError", "Torn", ({ total, transferred }) => Effect.succeed([transferred, total]))
      )
      assert.deepStrictEqual(counts, [3, 5])
    }))

  it.effect("configure works", () =>
    Effect.gen(function*() {
      const { socket } = yield* torn()
      yield* socket.configure({ noDelay: true })
      assert.strictEqual(socket.state.write, "torn")
    }))

  for (const how of ["close", "abort"] as const) {
    it.effect(`${how} aborts it, twice, and from then on the answer is Closed`, () =>
      leavingNothing(Effect.gen(function*() {
        const { calls, socket } = yield* torn([block])
        const reading = yield* start(socket.readSome(new Uint8Array(1)))
        yield* socket[how]
        yield* socket[how]
        assert.deepStrictEqual(socket.state, { socket: "closed", read: "closed", write: "closed" })
        assert.deepStrictEqual(calls, { shutdownWrite: 0, close: 0, abort: 1 })
        assert.strictEqual(ending(yield* Fiber.await(reading)), "Closed")
        for (const { run } of Object.values(refused)) {
          assert.strictEqual(failure(yield* Effect.exit(run(socket))).reason._tag, "Closed")
        }
        assert.strictEqual(ending(yield* Effect.exit(socket.configure({}))), "Closed")
      })))
  }

  for (const how of ["close", "abort"] as const) {
    it.effect(`${how}: the peer learns that it was no regular end`, () =>
      leavingNothing(Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 3 })
        const write = yield* start(Write.writeAll(left, hello))
        yield* Fiber.interrupt(write)
        yield* left[how]
        const { bytes, end } = yield* readToEnd(right)
        assertBytes(bytes, "hel")
        assert.strictEqual(end, "ConnectionReset")
      })))
  }

  it.effect("what waits in line when it tears gets the same answer, in order, before the interrupted fiber is done", () =>
    leavingNothing(Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      const order: Array<string> = []
      const note = (name: string) => <A>(effect: Effect.Effect<A, SocketError>) =>
        Effect.onExit(effect, (exit) => Effect.sync(() => void order.push(`${name} ${ending(exit)}`)))
      const cut = yield* start(note("cut")(Write.writeAll(socket, hello)))
      const line = [
        yield* start(note("some")(socket.writeSome(text("x")))),
        yield* start(note("all")(Write.writeAll(socket, text("xyz")))),
        yield* start(note("shutdown")(socket.shutdownWrite))
      ]
      cut.interruptUnsafe()
      assert.deepStrictEqual(order, ["some Torn", "all Torn", "shutdown Torn", "cut Interrupt"])
      for (const fiber of line) {
        const error = failure(yield* Fiber.await<unknown, SocketError>(fiber))
        assert.deepStrictEqual([error.reason, error.transferred], [reason, 0])
      }
    })))

  it.effect("it stays torn, whatever fails afterwards", () =>
    Effect.gen(function*() {
      const backing = new FakeBacking()
      const socket = StreamSocket.make(backing)
      backing.writeAnswer = (source) => source.remaining === 5 ? 3 : WouldBlock
      const write = yield* start(Write.writeAll(socket, hello))
      yield* Fiber.interrupt(write)
      const reset = new SocketError({
        reason: Reason.ConnectionReset(),
        operation: "socket",
        address: backing.remoteAddress,
        transferred: 0
      })
      backing.readAnswer = () => reset
      backing.events?.failed(reset)
      assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(1)))), "ConnectionReset")
      assert.deepStrictEqual(failure(yield* Effect.exit(socket.writeSome(text("x")))).reason, reason)
      assert.deepStrictEqual(socket.state, { socket: "open", read: "failed", write: "torn" })
    }))

  it.live("over loopback TCP: reads go on to the last byte of the peer, and the peer reads what was reported", () =>
    leavingNothing(
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const accepting = yield* start(acceptor.accept)
        const client = yield* StreamSocket.connect(acceptor.address)
        const server = yield* Fiber.join(accepting)
        const message = pattern(32 * 1024 * 1024)
        const write = yield* start(Write.writeAll(client, message))
        yield* steady(() => client.bytesWritten)
        yield* Fiber.interrupt(write)
        const { guarantee, transferred } = transferOf(yield* Fiber.await(write))
        assert.deepStrictEqual([guarantee, client.state.write, client.bytesWritten], ["terminal", "torn", transferred])
        assert.deepStrictEqual(
          failure(yield* Effect.exit(client.writeSome(text("x")))).reason,
          Reason.Torn({ transferred, total: message.byteLength })
        )
        assert.strictEqual(failure(yield* Effect.exit(client.shutdownWrite)).reason._tag, "Torn")
        const answer = pattern(200_000)
        const reading = yield* start(Read.readAll(client))
        yield* Write.writeAll(server, answer)
        yield* server.shutdownWrite
        assertBytes(yield* Fiber.join(reading), answer)
        const rest = yield* start(readToEnd(server))
        yield* eventually("everything has arrived", () => server.bytesRead === transferred)
        yield* client.close
        const { bytes, end } = yield* Fiber.join(rest)
        assertBytes(bytes, message.subarray(0, transferred))
        assert.strictEqual(end, "ConnectionReset")
      }).pipe(Effect.provide(NodeTransport.layer))
    ))
})

// ---- frames

/** Length, who wrote it, which one of his; then bytes that can be told from any other frame's. */
const header = 6

const frame = (who: number, which: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(header + length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, length)
  view.setUint16(2, who)
  view.setUint16(4, which)
  for (let i = 0; i < length; i++) bytes[header + i] = (who * 31 + which * 7 + i) % 251
  return bytes
}

interface Parsed {
  /** The frames that are whole, as `who:which`. */
  readonly frames: ReadonlyArray<string>
  /** What stands behind the last of them. */
  readonly rest: Uint8Array
}

/** Takes frames apart as a peer would, and fails on anything that is not one. */
const parse = (bytes: Uint8Array): Parsed => {
  const frames: Array<string> = []
  let at = 0
  while (bytes.byteLength - at >= header) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at)
    const [length, who, which] = [view.getUint16(0), view.getUint16(2), view.getUint16(4)]
    if (bytes.byteLength - at < header + length) break
    assertBytes(bytes.subarray(at, at + header + length), frame(who, which, length))
    frames.push(`${who}:${which}`)
    at += header + length
  }
  return { frames, rest: bytes.subarray(at) }
}

/** One frame on its way: how it ended is known once its fiber is done. */
interface Attempt {
  readonly key: string
  readonly bytes: Uint8Array
  readonly cursor: Buffers.Cursor
  readonly fiber: number
  exit: Exit.Exit<number, SocketError> | undefined
}

const attempt = (who: number, which: number, length: number): Attempt => {
  const bytes = frame(who, which, length)
  return { key: `${who}:${which}`, bytes, cursor: Buffers.cursor(bytes), fiber: who, exit: undefined }
}

const send = (socket: Socket, attempt: Attempt): Effect.Effect<number, SocketError> =>
  Effect.onExit(Write.writeAll(socket, attempt.cursor), (exit) =>
    Effect.sync(() => {
      attempt.exit = exit
    }))

/**
 * What holds of a shared connection in any case, whatever was cut: the bytes that were reported are the bytes that the
 * peer has, a frame is there or is not, and only a tear may leave a part of one, as the very last thing. Answers how the
 * attempts ended.
 */
const account = (attempts: ReadonlyArray<Attempt>, received: Uint8Array, state: StreamSocket.State["write"]) => {
  const { frames, rest } = parse(received)
  const reported = attempts.reduce((sum, { cursor }) => sum + cursor.transferred, 0)
  assert.strictEqual(received.byteLength, reported)
  const whole = attempts.filter(({ bytes, cursor }) => cursor.transferred === bytes.byteLength)
  assert.deepStrictEqual([...frames].sort(), whole.map(({ key }) => key).sort())
  const inOrder = (who: number) =>
    frames.filter((key) => key.startsWith(`${who}:`)).map((key) => Number(key.split(":")[1]))
  for (const { fiber } of attempts) {
    const numbers = inOrder(fiber)
    assert.deepStrictEqual(numbers, [...numbers].sort((a, b) => a - b))
  }
  const parts = attempts.filter(({ bytes, cursor }) => cursor.transferred > 0 && cursor.transferred < bytes.byteLength)
  assert.isAtMost(parts.length, 1)
  const part = parts[0]
  assert.strictEqual(state, part === undefined ? "open" : "torn")
  assertBytes(rest, part === undefined ? empty : part.bytes.subarray(0, part.cursor.transferred))
  const tally = { completed: 0, untouched: 0, finished: 0, torn: 0, refused: 0 }
  for (const { bytes, cursor, exit, key } of attempts) {
    if (exit === undefined) return assert.fail(`${key} did not end`)
    const outcome = Cancellation.outcome(exit)
    switch (outcome._tag) {
      case "Completed":
        assert.deepStrictEqual([outcome.value, cursor.remaining], [bytes.byteLength, 0], key)
        tally.completed++
        break
      case "Cancelled":
        assert.deepStrictEqual([outcome.transferred, outcome.total], [cursor.transferred, bytes.byteLength], key)
        if (outcome.guarantee === "total") {
          assert.include([0, bytes.byteLength], outcome.transferred, key)
          if (outcome.transferred === 0) tally.untouched++
          else tally.finished++
        } else {
          assert.deepStrictEqual([outcome.guarantee, key], ["terminal", part?.key])
          tally.torn++
        }
        break
      case "Failed": {
        // Nobody but the tear may have refused it, and then it says whose.
        const error = failure(exit)
        assert.deepStrictEqual(
          error.reason,
          Reason.Torn({ transferred: part?.cursor.transferred ?? -1, total: part?.bytes.byteLength ?? -1 }),
          key
        )
        assert.deepStrictEqual([error.transferred, cursor.transferred], [0, 0], key)
        tally.refused++
      }
    }
  }
  return tally
}

describe("a shared connection", () => {
  interface Cut {
    readonly region: Region
    /** What the signal around all of the writers is asked for, if anything. */
    readonly requests: ReadonlyArray<Cancellation.Type>
    readonly interrupts: boolean
    /** What has to have happened over all the seeds, so that the test shows something. */
    readonly shows: ReadonlyArray<"completed" | "untouched" | "finished" | "torn" | "refused">
    readonly never: ReadonlyArray<"completed" | "untouched" | "finished" | "torn" | "refused">
  }
  const cuts: Readonly<Record<string, Cut>> = {
    "interruption under terminal": {
      region: Cancellation.terminal,
      requests: [],
      interrupts: true,
      shows: ["completed", "untouched", "torn", "refused"],
      never: ["finished"]
    },
    "interruption under total": {
      region: Cancellation.total(),
      requests: [],
      interrupts: true,
      shows: ["completed", "untouched", "finished"],
      never: ["torn", "refused"]
    },
    "interruption under total within a minute": {
      region: Cancellation.total({ within: "1 minute" }),
      requests: [],
      interrupts: true,
      shows: ["completed", "untouched", "finished", "torn", "refused"],
      never: []
    },
    "requests for total": {
      region: Cancellation.terminal,
      requests: ["total"],
      interrupts: false,
      shows: ["completed", "untouched"],
      never: ["finished", "torn", "refused"]
    },
    "requests for total and terminal": {
      region: Cancellation.terminal,
      requests: ["total", "total", "total", "terminal"],
      interrupts: false,
      shows: ["completed", "untouched", "torn"],
      never: ["finished"]
    },
    "requests for total, and interruption under total": {
      region: Cancellation.total(),
      requests: ["total"],
      interrupts: true,
      shows: ["completed", "untouched", "finished"],
      never: ["torn", "refused"]
    }
  }

  const run = (cut: Cut, seed: number) =>
    Effect.gen(function*() {
      const next = MemoryTransport.random(seed)
      const int = (least: number, most: number) => least + Math.floor(next() * (most - least + 1))
      const [left, right] = yield* MemoryTransport.pair({
        capacity: int(5, 80),
        ...(next() < 0.5 ? { seed, chunk: int(3, 40) } : undefined)
      })
      const signal = Cancellation.makeSignal()
      const attempts: Array<Attempt> = []
      const victims = new Set<number>()
      const asked = new Set<string>()
      const writer = (who: number) =>
        cut.region(Effect.gen(function*() {
          for (let which = 0; which < 6; which++) {
            const one = attempt(who, which, int(0, 60))
            attempts.push(one)
            // A request is no reason to give the connection up; a tear is.
            const exit = yield* Effect.exit(send(left, one))
            if (Exit.isFailure(exit) && failure(exit).reason._tag === "Torn") return
            if (Exit.isFailure(exit)) asked.add(one.key)
          }
        })).pipe(Cancellation.withSignal(signal))
      const writers = yield* Effect.forEach(Array.from({ length: int(3, 8) }, (_, who) => who), (who) =>
        start(writer(who)))
      const received: Array<Uint8Array> = []
      let steps = 0
      while (
        writers.some((fiber) =>
          fiber.pollUnsafe() === undefined
        )
      ) {
        if (++steps > 5000) assert.fail("it does not end")
        const dice = next()
        if (dice < 0.6) {
          const target = new Uint8Array(int(1, 40))
          const reading = yield* start(
            Effect.map(right.readSome(target), (count) => void received.push(target.subarray(0, count)))
          )
          if (next() < 0.7) yield* turns(1)
          yield* Fiber.interrupt(reading)
        } else if (dice < 0.7) yield* turns(1)
        else if (dice < 0.73 && cut.interrupts) {
          const who = int(0, writers.length - 1)
          victims.add(who)
          writers[who]!.interruptUnsafe()
        } else if (dice < 0.8 && cut.requests.length > 0) {
          const { ended, continued } = yield* signal.emit(cut.requests[int(0, cut.requests.length - 1)]!)
          // The one in the middle of its frame, if any, is the only one that can refuse.
          assert.isAtMost(continued.length, 1)
          for (const { guarantee, transferred } of ended) {
            assert.strictEqual(guarantee === "total", transferred === 0)
          }
        } else if (dice < 0.82) yield* TestClock.adjust("1 minute")
      }
      const { write } = left.state
      const reading = yield* start(readToEnd(right))
      yield* left.close
      const { bytes, end } = yield* Fiber.join(reading)
      assert.strictEqual(end, write === "torn" ? "ConnectionReset" : "Done")
      received.push(bytes)
      const tally = account(attempts, Buffers.concat(received), write)
      assert.strictEqual(left.bytesWritten, Buffers.concat(received).byteLength)
      // Whom nobody cut is whole, or was refused by the tear of another.
      for (const { exit, fiber, key } of attempts) {
        if (exit === undefined || Exit.isSuccess(exit) || victims.has(fiber) || asked.has(key)) continue
        assert.strictEqual(failure(exit).reason._tag, "Torn", key)
      }
      return tally
    })

  for (const [name, cut] of Object.entries(cuts)) {
    it.effect(`${name}, at random: a frame is there or is not, and a part of one is the very last thing`, () =>
      leavingNothing(Effect.gen(function*() {
        const sums = { completed: 0, untouched: 0, finished: 0, torn: 0, refused: 0 }
        for (const seed of seeds) {
          const tally = yield* Effect.scoped(run(cut, seed)).pipe(
            Effect.catchDefect((defect) => Effect.die(new Error(`SEED=${seed}`, { cause: defect })))
          )
          for (const key of [...cut.shows, ...cut.never]) sums[key] += tally[key]
        }
        for (const key of cut.never) assert.strictEqual(sums[key], 0, key)
        if (seeds.length > 1) { for (const key of cut.shows) assert.isAbove(sums[key], 0, key) }
      })))
  }

  for (
    const [name, region] of [
      ["terminal", Cancellation.terminal],
      ["partial", Cancellation.partial],
      ["total", Cancellation.total()]
    ] as const
  ) {
    it.effect(`${name}: whoever is interrupted in line leaves no trace, the others keep their places`, () =>
      leavingNothing(Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
        const attempts = Array.from({ length: 6 }, (_, who) => attempt(who, 0, 20))
        const enclosing: Region = region
        const fibers = yield* Effect.forEach(attempts, (one) => start(enclosing(send(left, one))))
        yield* Fiber.interruptAll([fibers[2]!, fibers[4]!, fibers[5]!])
        const reading = yield* start(Read.readAll(right))
        assert.deepStrictEqual(
          yield* Effect.all([fibers[0]!, fibers[1]!, fibers[3]!].map(Fiber.join)),
          [26, 26, 26]
        )
        const { write } = left.state
        yield* left.close
        const received = yield* Fiber.join(reading)
        assert.deepStrictEqual(parse(received).frames, ["0:0", "1:0", "3:0"])
        const tally = account(attempts, received, write)
        assert.deepStrictEqual(tally, { completed: 3, untouched: 3, finished: 0, torn: 0, refused: 0 })
      })))
  }

  it.effect("a request for total empties the line and leaves the frame in the middle alone", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
      const signal = Cancellation.makeSignal()
      const attempts = Array.from({ length: 4 }, (_, who) => attempt(who, 0, 20))
      yield* Effect.forEach(attempts, (one) => start(Cancellation.withSignal(send(left, one), signal)))
      const { ended, continued } = yield* signal.emit("total")
      assert.deepStrictEqual(ended.map(({ guarantee, transferred }) => [guarantee, transferred]), [
        ["total", 0],
        ["total", 0],
        ["total", 0]
      ])
      assert.deepStrictEqual(continued.map(({ total, transferred }) => [transferred, total]), [[10, 26]])
      const whole = new Uint8Array(26)
      yield* Read.readExactly(right, whole)
      assertBytes(whole, attempts[0]!.bytes)
      // And the next one finds the connection as it should be.
      const last = attempt(9, 0, 2)
      yield* send(left, last)
      const { write } = left.state
      yield* left.close
      const received = Buffers.concat([whole, yield* Read.readAll(right)])
      assert.strictEqual(account([...attempts, last], received, write).untouched, 3)
    })))

  it.effect("under partial the next frame lands inside the one that was cut: the peer cannot read on", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
      const [cut, next] = [attempt(0, 0, 20), attempt(1, 0, 20)]
      const cutting = yield* start(Cancellation.partial(send(left, cut)))
      const waiting = yield* start(send(left, next))
      yield* Fiber.interrupt(cutting)
      assert.deepStrictEqual(transferOf(yield* Fiber.await(cutting)), {
        transferred: 10,
        total: 26,
        guarantee: "partial"
      })
      const reading = yield* start(Read.readAll(right))
      yield* Fiber.join(waiting)
      yield* left.close
      const received = yield* Fiber.join(reading)
      assertBytes(received, Buffers.concat([cut.bytes.subarray(0, 10), next.bytes]))
      assert.throws(() => parse(received))
    })))

  it.effect("partial is for one writer: who goes on from his cursor before anybody else has made the frame whole", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
      const one = attempt(0, 0, 20)
      const cutting = yield* start(Cancellation.partial(send(left, one)))
      yield* Fiber.interrupt(cutting)
      assert.strictEqual(one.cursor.transferred, 10)
      const reading = yield* start(Read.readAll(right))
      yield* send(left, one)
      yield* send(left, attempt(0, 1, 3))
      yield* left.close
      assert.deepStrictEqual(parse(yield* Fiber.join(reading)).frames, ["0:0", "0:1"])
    })))
})

describe("a supervisor of a shared connection", () => {
  /** Reads every connection to its end. */
  const collecting = (acceptor: Acceptor.Acceptor) =>
    Effect.gen(function*() {
      const connections: Array<{ bytes: Uint8Array; end: string }> = []
      yield* Effect.forkScoped(
        Effect.exit(Acceptor.serve(acceptor, (socket) => {
          const connection: (typeof connections)[number] = { bytes: empty, end: "open" }
          connections.push(connection)
          const target = new Uint8Array(7)
          return Effect.onExit(
            Effect.forever(
              Effect.andThen(
                // Slowly, so that there is always a frame in the middle.
                Effect.sleep("1 second"),
                Effect.map(socket.readSome(target), (count) => {
                  connection.bytes = Buffers.concat([connection.bytes, target.subarray(0, count)])
                })
              )
            ),
            (exit) =>
              Effect.sync(() => {
                connection.end = ending(exit)
              })
          )
        }))
      )
      return connections
    })

  for (
    const [name, learns] of [
      ["by the exits of its writers", "exit"],
      ["by the state of the socket", "state"]
    ] as const
  ) {
    it.effect(`finds out ${name}, closes and connects anew: each frame arrives once, but the one that was cut`, () =>
      leavingNothing(
        Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(anyPort)
          const connections = yield* collecting(acceptor)
          let socket = yield* StreamSocket.connect(acceptor.address)
          const ended = yield* Queue.unbounded<
            { readonly one: Attempt; readonly exit: Exit.Exit<number, SocketError> }
          >()
          const launch = (one: Attempt) =>
            Effect.gen(function*() {
              const fiber = yield* start(send(socket, one))
              yield* start(Effect.flatMap(Fiber.await(fiber), (exit) => Queue.offer(ended, { one, exit })))
              return fiber
            })
          const attempts = Array.from({ length: 9 }, (_, who) => attempt(who, 0, 30))
          let waiting = attempts.length
          const reconnects: Array<string> = []
          const supervisor = yield* start(Effect.gen(function*() {
            while (waiting > 0) {
              const { exit, one } = yield* Queue.take(ended)
              const outcome = Cancellation.outcome(exit)
              const isCut = outcome._tag === "Cancelled" && outcome.guarantee === "terminal"
              if (learns === "exit" ? isCut : socket.state.write === "torn") {
                reconnects.push(one.key)
                yield* start(socket.close)
                socket = yield* StreamSocket.connect(acceptor.address)
              }
              // Torn says that nothing of it was taken: it can go again, from its first byte.
              if (outcome._tag === "Failed") yield* launch(one)
              else waiting--
            }
          }))
          // The pipe holds 20 bytes: the first is in the middle of its frame, the others are in line.
          const fibers = yield* Effect.forEach(attempts, launch)
          assert.strictEqual(attempts[0]!.cursor.transferred, 20)
          yield* TestClock.adjust("1 second")
          yield* Fiber.interrupt(fibers[0]!)
          const cut = transferOf(yield* Fiber.await(fibers[0]!))
          assert.deepStrictEqual([cut.guarantee, cut.total], ["terminal", 36])
          yield* TestClock.adjust("10 minutes")
          yield* Fiber.join(supervisor)
          yield* socket.close.pipe(start)
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(reconnects.length, 1)
          assert.strictEqual(connections.length, 2)
          assert.deepStrictEqual(connections.map(({ end }) => end), ["ConnectionReset", "Done"])
          const [old, renewed] = connections.map(({ bytes }) => parse(bytes))
          assert.deepStrictEqual(old?.frames, [])
          assertBytes(connections[0]!.bytes, attempts[0]!.bytes.subarray(0, cut.transferred))
          assert.deepStrictEqual([...renewed!.frames].sort(), attempts.slice(1).map(({ key }) => key))
          assertBytes(renewed!.rest, empty)
        }).pipe(Effect.provide(MemoryTransport.layerWith({ capacity: 20 })))
      ))
  }

  it.effect("reads the peer's last word on the torn connection before it closes", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 16 })
      const write = yield* start(Write.writeAll(left, frame(0, 0, 30)))
      yield* Fiber.interrupt(write)
      const reading = yield* start(Read.readAll(left))
      // The peer answers what it has got, waits in vain for the rest of the frame, and says so.
      const peer = yield* start(Effect.gen(function*() {
        const target = new Uint8Array(36)
        const exit = yield* Effect.exit(Effect.timeout(Read.readExactly(right, target), "1 minute"))
        assert.isTrue(Exit.isFailure(exit))
        yield* Write.writeAll(right, text("I am tired of waiting, and this is longer than a pipe"))
        yield* right.shutdownWrite
      }))
      yield* TestClock.adjust("1 minute")
      assertBytes(yield* Fiber.join(reading), "I am tired of waiting, and this is longer than a pipe")
      yield* Fiber.join(peer)
      assert.deepStrictEqual(left.state, { socket: "open", read: "ended", write: "torn" })
      yield* left.close
      const { bytes, end } = yield* readToEnd(right)
      assertBytes(bytes, frame(0, 0, 30).subarray(0, 16))
      assert.strictEqual(end, "ConnectionReset")
    })))
})

/** Socket operations inside the combinators of Effect: who wins, what the losers leave behind, what is never lost. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberHandle from "effect/FiberHandle"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Read from "../../src/Read.ts"
import { Reason, type SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { type Backing, Transport } from "../../src/Transport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { hangingListener } from "../support/hangingListener.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { readToEnd } from "../support/reading.ts"
import { eventually, start, turns } from "../support/waiting.ts"

type Socket = StreamSocket.StreamSocket

const { block, data, end, take } = ScriptedStream
const text = Buffers.utf8

const seeds = (() => {
  const chosen = process.env["SEED"]
  return chosen === undefined ? Array.from({ length: 60 }, (_, index) => index + 1) : [Number(chosen)]
})()

type Region = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A read of at most three bytes, which answers what it read. */
type ReadOf = (socket: Socket) => Pull.Pull<Uint8Array, SocketError>

const into = (
  read: (socket: Socket, target: Uint8Array) => Pull.Pull<number, SocketError>
): ReadOf =>
(socket) =>
  Effect.suspend(() => {
    const target = new Uint8Array(3)
    return Effect.map(read(socket, target), (count) => target.subarray(0, count))
  })

const reads: Readonly<Record<string, ReadOf>> = {
  "readSome": into((socket, target) => socket.readSome(target)),
  "readExactly": into(Read.readExactly),
  "readAtLeast": into((socket, target) => Read.readAtLeast(socket, target, 1)),
  "readUntil a text": (socket) => Read.readUntil(socket, "c"),
  "readUntil by a function": (socket) => Read.readUntil(socket, (bytes) => bytes.byteLength >= 3 ? 3 : undefined)
}

/** The four races of Effect, with their members in one list. */
const races: Readonly<
  Record<
    string,
    <A, E, R>(members: readonly [Effect.Effect<A, E, R>, Effect.Effect<A, E, R>]) => Effect.Effect<A, E, R>
  >
> = {
  "race": ([self, that]) => Effect.race(self, that),
  "raceFirst": ([self, that]) => Effect.raceFirst(self, that),
  "raceAll": (members) => Effect.raceAll(members),
  "raceAllFirst": (members) => Effect.raceAllFirst(members)
}

/** As many operations of the run loop, and some more. */
const steps = (count: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    let left = count
    return Effect.whileLoop({ while: () => left-- > 0, body: () => Effect.void, step: () => {} })
  })

/** Wherever in its turn a fiber is when it starts something: the run loop lets others in after 2,048 operations. */
const aroundTheEndOfATurn = Array.from({ length: 160 }, (_, index) => 1900 + index)

describe("two reads raced", () => {
  for (const [raceName, race] of Object.entries(races)) {
    for (const [readName, read] of Object.entries(reads)) {
      for (const first of [0, 1] as const) {
        it.effect(`${raceName} of two ${readName}, input for both in one step, the ${first + 1}. first: one is consumed`, () =>
          leavingNothing(Effect.gen(function*() {
            const streams = [
              yield* ScriptedStream.make({ reads: [block, data("abcdef"), end] }),
              yield* ScriptedStream.make({ reads: [block, data("abcdef"), end] })
            ] as const
            const member = (index: 0 | 1) =>
              Effect.map(read(streams[index].socket), (bytes) => ({ index, text: Buffers.toUtf8(bytes) }))
            const racing = yield* start(race([member(0), member(1)]))
            yield* Effect.yieldNow
            yield* Effect.andThen(streams[first].readable, streams[1 - first]!.readable)
            assert.deepStrictEqual(yield* Fiber.join(racing), { index: first, text: "abc" })
            assert.strictEqual(streams[1 - first]!.socket.bytesRead, 0)
            assertBytes(yield* Read.readAll(streams[first].socket), "def")
            assertBytes(yield* Read.readAll(streams[1 - first]!.socket), "abcdef")
          })))
      }

      it.effect(`${raceName} of two ${readName} on one socket: one of them gets the front, the rest is unread`, () =>
        leavingNothing(Effect.gen(function*() {
          const { readable, socket } = yield* ScriptedStream.make({ reads: [block, data("abcdef"), end] })
          const racing = yield* start(race([read(socket), read(socket)]))
          yield* Effect.yieldNow
          yield* readable
          assertBytes(yield* Fiber.join(racing), "abc")
          assertBytes(yield* Read.readAll(socket), "def")
        })))

      it.effect(`${raceName} of two ${readName}, input for both there before: one is consumed`, () =>
        leavingNothing(Effect.gen(function*() {
          const one = yield* ScriptedStream.make({ reads: [data("abcdef"), end] })
          const two = yield* ScriptedStream.make({ reads: [data("abcdef"), end] })
          assertBytes(yield* race([read(one.socket), read(two.socket)]), "abc")
          assertBytes(yield* Read.readAll(one.socket), "def")
          assertBytes(yield* Read.readAll(two.socket), "abcdef")
        })))
    }
  }

  it.effect("readAll raced with readAll, both at their ends in one step: the other is all there", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [data("one"), block, end] })
      const two = yield* ScriptedStream.make({ reads: [data("two"), block, end] })
      const racing = yield* start(Effect.race(Read.readAll(one.socket), Read.readAll(two.socket)))
      yield* Effect.andThen(two.readable, one.readable)
      assertBytes(yield* Fiber.join(racing), "two")
      assertBytes(yield* Read.readAll(one.socket), "one")
    }))

  it.effect("a composed read that had collected a part when it lost leaves that part, in order", () =>
    Effect.gen(function*() {
      const slow = yield* ScriptedStream.make({ reads: [data("he"), block, data("llo\n"), end] })
      const quick = yield* ScriptedStream.make({ reads: [block, data("now\n"), end] })
      const racing = yield* start(Effect.race(Read.readUntil(slow.socket, "\n"), Read.readUntil(quick.socket, "\n")))
      yield* quick.readable
      assertBytes(yield* Fiber.join(racing), "now\n")
      yield* slow.readable
      assertBytes(yield* Read.readUntil(slow.socket, "\n"), "hello\n")
    }))

  it.effect("end of stream does not win a race, and the other read goes on; it wins raceFirst, and nothing is consumed", () =>
    Effect.gen(function*() {
      for (const [race, expected, left] of [[Effect.race, "Success", ""], [Effect.raceFirst, "Done", "abc"]] as const) {
        const over = yield* ScriptedStream.make({ reads: [block, end] })
        const going = yield* ScriptedStream.make({ reads: [block, data("abc"), end] })
        const racing = yield* start(
          race(over.socket.readSome(new Uint8Array(3)), going.socket.readSome(new Uint8Array(3)))
        )
        yield* Effect.andThen(over.readable, going.readable)
        assert.strictEqual(ending(yield* Fiber.await(racing)), expected)
        assertBytes(yield* Read.readAll(going.socket), left)
      }
    }))

  it.effect("a read that times out in the step in which its input comes: the clock first or the input first, never both", () =>
    Effect.gen(function*() {
      for (const inputFirst of [true, false]) {
        const { readable, socket } = yield* ScriptedStream.make({ reads: [block, data("abc"), end] })
        const read = Read.readExactly(socket, new Uint8Array(3))
        const arriving = Effect.andThen(Effect.sleep("1 second"), readable)
        const racing = inputFirst
          ? (yield* start(arriving), yield* start(Effect.timeoutOption(read, "1 second")))
          : yield* Effect.tap(start(Effect.timeoutOption(read, "1 second")), () => start(arriving))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(racing), inputFirst ? Option.some(3) : Option.none())
        assertBytes(yield* Read.readAll(socket), inputFirst ? "" : "abc")
      }
    }))

  for (const seed of seeds) {
    it.effect(`any number of reads, raced until everything has come: nothing is lost or doubled (seed ${seed})`, () =>
      leavingNothing(Effect.gen(function*() {
        const next = MemoryTransport.random(seed)
        const int = (least: number, most: number) => least + Math.floor(next() * (most - least + 1))
        const count = int(2, 5)
        const lanes = yield* Effect.forEach(
          Array.from({ length: count }, (_, index) => index),
          (index) =>
            Effect.gen(function*() {
              const [left, right] = yield* MemoryTransport.pair(
                next() < 0.5 ? { seed: seed + index, chunk: 40, capacity: 100 } : undefined
              )
              const sent = pattern(int(0, 300)).map((byte) => (byte + index * 7) % 251)
              return { left, right, sent, cursor: Buffers.cursor(sent), got: new Array<Uint8Array>(), over: false }
            })
        )
        type Lane = (typeof lanes)[number]
        // What a member does with its bytes happens right behind its read, in the same step.
        const read = (lane: Lane): Effect.Effect<unknown, unknown> => {
          const keep = (bytes: Uint8Array) => void lane.got.push(bytes)
          const target = new Uint8Array(int(1, 50))
          const reading = next() < 0.5
            ? Effect.map(lane.right.readSome(target), (count) => keep(target.subarray(0, count)))
            : next() < 0.5
            ? Effect.map(Read.readAtLeast(lane.right, target, 1), (count) => keep(target.subarray(0, count)))
            : Effect.map(Read.readUntil(lane.right, (bytes) => Math.min(bytes.byteLength, 5) || undefined), keep)
          return Effect.onError(
            Effect.andThen(steps(int(0, 60) === 0 ? 2010 : 0), reading),
            (cause) =>
              Effect.sync(() => {
                if (cause.reasons.some((reason) => Cause.isFailReason(reason) && Cause.isDone(reason.error))) {
                  lane.over = true
                }
              })
          )
        }
        // All of the senders move in one step of the program, in any order.
        const arrive = Effect.gen(function*() {
          for (const lane of [...lanes].sort(() => next() - 0.5)) {
            if (next() < 0.3) continue
            if (lane.cursor.remaining === 0) yield* lane.left.shutdownWrite
            else {
              const some = CompletionCondition.transferExactly(int(1, 60))
              yield* Fiber.interrupt(yield* start(Cancellation.partial(Write.writeAll(lane.left, lane.cursor, some))))
            }
          }
        })
        let rounds = 0
        while (lanes.some((lane) => !lane.over)) {
          if (++rounds > 5000) assert.fail(`seed ${seed}: it does not end`)
          const members = lanes.flatMap((lane) =>
            lane.over ? [] : next() < 0.7 ? [read(lane), read(lane)] : [read(lane)]
          )
          const race = next() < 0.5 ? Effect.raceAll(members) : Effect.raceAllFirst(members)
          const racing = yield* start(next() < 0.3 ? Effect.timeoutOption(race, "1 second") : race)
          if (next() < 0.8) yield* arrive
          if (next() < 0.3) yield* TestClock.adjust("1 second")
          if (next() < 0.5) yield* turns(1)
          yield* Fiber.interrupt(racing)
        }
        for (const lane of lanes) assertBytes(Buffers.concat(lane.got), lane.sent)
      })))
  }
})

describe("where the promise about reads ends", () => {
  const letters = (socket: Socket, target: Uint8Array) =>
    Effect.map(socket.readSome(target), (count) => Buffers.toUtf8(target.subarray(0, count)))

  it.effect("work that waits behind a read, inside the race: both are consumed, and one is dropped", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
      const two = yield* ScriptedStream.make({ reads: [block, data("two"), end] })
      const target = new Uint8Array(3)
      const racing = yield* start(Effect.race(
        Effect.tap(letters(one.socket, target), () => Effect.sleep("1 second")),
        letters(two.socket, new Uint8Array(3))
      ))
      yield* Effect.andThen(one.readable, two.readable)
      assert.strictEqual(yield* Fiber.join(racing), "two")
      // Its read had completed: only its buffer knows.
      assertBytes(target, "one")
      assertBytes(yield* Read.readAll(one.socket), "")
    }))

  it.effect("the same work behind the race: nothing is dropped", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
      const two = yield* ScriptedStream.make({ reads: [block, data("two"), end] })
      const racing = yield* start(
        Effect.race(letters(one.socket, new Uint8Array(3)), letters(two.socket, new Uint8Array(3))).pipe(
          Effect.tap(() => Effect.sleep("1 second"))
        )
      )
      yield* Effect.andThen(one.readable, two.readable)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(racing), "one")
      assertBytes(yield* Read.readAll(two.socket), "two")
    }))

  it.effect("work inside the race that does not wait: nothing is dropped", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
      const two = yield* ScriptedStream.make({ reads: [block, data("two"), end] })
      const kept: Array<string> = []
      const keep = (socket: Socket) =>
        Effect.tap(letters(socket, new Uint8Array(3)), (read) => Effect.sync(() => void kept.push(read)))
      const racing = yield* start(Effect.race(keep(one.socket), keep(two.socket)))
      yield* Effect.andThen(one.readable, two.readable)
      assert.strictEqual(yield* Fiber.join(racing), "one")
      assert.deepStrictEqual(kept, ["one"])
      assertBytes(yield* Read.readAll(two.socket), "two")
    }))

  it.effect("a race inside a race whose loser takes time to end is work that waits", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
      const two = yield* ScriptedStream.make({ reads: [block, data("two"), end] })
      const gate = yield* Deferred.make<void>()
      const slow = Effect.onInterrupt(Effect.never, () => Deferred.await(gate))
      const target = new Uint8Array(3)
      const racing = yield* start(
        Effect.race(Effect.race(letters(one.socket, target), slow), letters(two.socket, new Uint8Array(3)))
      )
      yield* Effect.andThen(one.readable, two.readable)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(racing), "two")
      assertBytes(target, "one")
      assertBytes(yield* Read.readAll(one.socket), "")
    }))

  it.effect("a loser that takes time to end has lost all the same: the race waits, its input stays", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
      const two = yield* ScriptedStream.make({ reads: [block, data("two"), end] })
      const gate = yield* Deferred.make<void>()
      const racing = yield* start(Effect.race(
        letters(one.socket, new Uint8Array(3)),
        Effect.onInterrupt(letters(two.socket, new Uint8Array(3)), () => Deferred.await(gate))
      ))
      yield* Effect.andThen(one.readable, two.readable)
      assert.isUndefined(racing.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(racing), "one")
      assertBytes(yield* Read.readAll(two.socket), "two")
    }))

  it.effect("reads that cannot be interrupted: the race waits for the loser, and drops what it read", () =>
    Effect.gen(function*() {
      for (const race of [Effect.race, Effect.raceFirst] as const) {
        const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
        const two = yield* ScriptedStream.make({ reads: [block, data("two"), end] })
        const target = new Uint8Array(3)
        const racing = yield* start(race(
          Effect.uninterruptible(letters(one.socket, new Uint8Array(3))),
          Effect.uninterruptible(letters(two.socket, target))
        ))
        yield* one.readable
        yield* turns()
        assert.isUndefined(racing.pollUnsafe())
        yield* two.readable
        assert.strictEqual(yield* Fiber.join(racing), "one")
        assertBytes(target, "two")
        assertBytes(yield* Read.readAll(two.socket), "")
      }
    }))

  it.effect("a race in an uninterruptible region is a race like any other", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
      const two = yield* ScriptedStream.make({ reads: [block, data("two"), end] })
      const racing = yield* start(
        Effect.uninterruptible(
          Effect.race(letters(one.socket, new Uint8Array(3)), letters(two.socket, new Uint8Array(3)))
        )
      )
      yield* Effect.andThen(two.readable, one.readable)
      assert.strictEqual(yield* Fiber.join(racing), "two")
      assertBytes(yield* Read.readAll(one.socket), "one")
    }))

  it.effect("Effect.all is no race: a read that has completed is dropped when a sibling fails later", () =>
    Effect.gen(function*() {
      const one = yield* ScriptedStream.make({ reads: [block, data("one"), end] })
      const two = yield* ScriptedStream.make({ reads: [data("tw"), block, data("o"), end] })
      const target = new Uint8Array(3)
      const failing = yield* Deferred.make<never, string>()
      const all = yield* start(
        Effect.all([
          letters(one.socket, target),
          Read.readExactly(two.socket, new Uint8Array(3)),
          Deferred.await(failing)
        ], {
          concurrency: "unbounded"
        })
      )
      yield* one.readable
      yield* Deferred.fail(failing, "no")
      assert.strictEqual(ending(yield* Fiber.await(all)), "no")
      assertBytes(target, "one")
      assertBytes(yield* Read.readAll(one.socket), "")
      // The one that had not completed lost nothing.
      yield* two.readable
      assertBytes(yield* Read.readAll(two.socket), "two")
    }))

  describe("an interruption from outside, wherever the turn of the fiber ends", () => {
    const groups: Readonly<Record<string, <A, E>(read: Effect.Effect<A, E>) => Effect.Effect<unknown, unknown>>> = {
      "a read": (read) => read,
      "race": (read) => Effect.race(read, Effect.never),
      "raceFirst": (read) => Effect.raceFirst(Effect.never, read),
      "timeout": (read) => Effect.timeout(read, "1 second"),
      "timeoutOption": (read) => Effect.timeoutOption(read, "1 second"),
      "all": (read) => Effect.all([read, Effect.never], { concurrency: "unbounded" }),
      "a fork that is joined": (read) => Effect.flatMap(start(read), Fiber.join),
      "a scope": (read) => Effect.scoped(read)
    }
    for (const [name, group] of Object.entries(groups)) {
      it.effect(`${name}: what is kept right behind the read and what is unread are all of it`, () =>
        Effect.gen(function*() {
          const seen = new Set<string>()
          for (const inside of [true, false]) {
            for (const count of aroundTheEndOfATurn) {
              const { socket } = yield* ScriptedStream.make({ reads: [data("hello"), end] })
              let kept = ""
              const target = new Uint8Array(3)
              const read = Effect.map(socket.readSome(target), () => {
                kept = Buffers.toUtf8(target)
              })
              const fiber = yield* Effect.forkChild(
                inside ? group(Effect.andThen(steps(count), read)) : Effect.andThen(steps(count), group(read))
              )
              yield* Effect.yieldNow
              yield* Fiber.interrupt(fiber)
              seen.add(kept)
              assert.strictEqual(
                kept + Buffers.toUtf8(yield* Read.readAll(socket)),
                "hello",
                `after ${count} operations`
              )
            }
          }
          // Both happened: an interruption before the read and one after it.
          assert.deepStrictEqual([...seen].sort(), ["", "hel"])
        }))
    }

    it.effect("an interruption between a read and what stands behind its group: the bytes are in the target only", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* ScriptedStream.make({ reads: [block, data("hello"), end] })
        const target = new Uint8Array(3)
        let used = false
        const fiber: Fiber.Fiber<void, unknown> = yield* start(
          Effect.timeout(
            Effect.tap(socket.readSome(target), () => Effect.sync(() => fiber.interruptUnsafe())),
            "1 second"
          ).pipe(
            Effect.map(() => {
              used = true
            })
          )
        )
        yield* readable
        assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
        assert.isFalse(used)
        assertBytes(target, "hel")
        assertBytes(yield* Read.readAll(socket), "lo")
      }))
  })
})

describe("accept", () => {
  const listening = Effect.all([Acceptor.listen(anyPort), Acceptor.listen(anyPort)])

  for (const [raceName, race] of Object.entries(races)) {
    for (const first of [0, 1] as const) {
      it.effect(`${raceName} on two acceptors, a connection to both in one step, the ${first + 1}. first: the other is still there`, () =>
        leavingNothing(
          Effect.gen(function*() {
            const acceptors = yield* listening
            const racing = yield* start(race([acceptors[0].accept, acceptors[1].accept]))
            const clients = [
              yield* StreamSocket.connect(acceptors[first].address),
              yield* StreamSocket.connect(acceptors[1 - first]!.address)
            ] as const
            yield* clients[0].writeSome(text("first"))
            yield* clients[1].writeSome(text("second"))
            const accepted = yield* Fiber.join(racing)
            const target = new Uint8Array(10)
            assert.strictEqual(yield* accepted.readSome(target), 5)
            assertBytes(target.subarray(0, 5), "first")
            const later = yield* acceptors[1 - first]!.accept
            assert.strictEqual(yield* later.readSome(target), 6)
            assertBytes(target.subarray(0, 6), "second")
          }).pipe(Effect.provide(MemoryTransport.layer))
        ))
    }

    it.effect(`${raceName} of two accepts on one acceptor takes one connection`, () =>
      leavingNothing(
        Effect.gen(function*() {
          const [acceptor] = yield* listening
          const racing = yield* start(race([acceptor.accept, acceptor.accept]))
          const one = yield* StreamSocket.connect(acceptor.address)
          const two = yield* StreamSocket.connect(acceptor.address)
          yield* two.writeSome(text("two"))
          yield* one.writeSome(text("one"))
          const target = new Uint8Array(3)
          yield* (yield* Fiber.join(racing)).readSome(target)
          assertBytes(target, "one")
          yield* (yield* acceptor.accept).readSome(target)
          assertBytes(target, "two")
        }).pipe(Effect.provide(MemoryTransport.layer))
      ))
  }

  it.effect("that times out takes nothing; a connection in the same turn waits for the next accept", () =>
    leavingNothing(
      Effect.gen(function*() {
        const [acceptor] = yield* listening
        const racing = yield* start(Effect.timeoutOption(acceptor.accept, "1 second"))
        const connecting = yield* start(
          Effect.andThen(Effect.sleep("1 second"), StreamSocket.connect(acceptor.address))
        )
        yield* TestClock.adjust("1 second")
        assert.isTrue(Option.isNone(yield* Fiber.join(racing)))
        const client = yield* Fiber.join(connecting)
        yield* client.writeSome(text("hi"))
        const target = new Uint8Array(2)
        yield* (yield* acceptor.accept).readSome(target)
        assertBytes(target, "hi")
      }).pipe(Effect.provide(MemoryTransport.layer))
    ))

  it.effect("is interrupted in a group whose sibling fails, and loses no connection", () =>
    leavingNothing(
      Effect.gen(function*() {
        const [acceptor] = yield* listening
        const all = Effect.all([acceptor.accept, Effect.fail("no")], { concurrency: "unbounded" })
        assert.strictEqual(ending(yield* Effect.exit(all)), "no")
        const client = yield* StreamSocket.connect(acceptor.address)
        assert.deepStrictEqual((yield* acceptor.accept).remoteAddress, client.localAddress)
      }).pipe(Effect.provide(MemoryTransport.layer))
    ))

  it.effect("a connection that is accepted as the turn of its fiber ends is closed or still there", () =>
    leavingNothing(
      Effect.gen(function*() {
        const ends = new Set<string>()
        for (const count of aroundTheEndOfATurn) {
          const acceptor = yield* Acceptor.listen(anyPort)
          const client = yield* StreamSocket.connect(acceptor.address)
          const fiber = yield* Effect.forkChild(
            Effect.andThen(steps(count), Effect.scoped(Effect.andThen(acceptor.accept, Effect.never)))
          )
          yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          const next = yield* start(acceptor.take)
          const other = next.pollUnsafe()
          if (other !== undefined && Exit.isSuccess(other)) yield* other.value.close
          ends.add(other === undefined ? "closed" : "still there")
          assert.strictEqual(ending(yield* Effect.exit(client.readSome(new Uint8Array(1)))), "Done", `after ${count}`)
          yield* Fiber.interrupt(next)
        }
        assert.deepStrictEqual([...ends].sort(), ["closed", "still there"])
      }).pipe(Effect.provide(MemoryTransport.layer))
    ))
})

describe("connect", () => {
  const remote = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:2")

  const over = (connect: Effect.Effect<Backing, SocketError>) =>
    Layer.succeed(Transport, { name: "told", connect: () => connect, listen: () => Effect.die("not here") })

  /** A transport whose one attempt is decided by the test; it writes down whether the attempt was given up. */
  const attempt = () => {
    const backing = new FakeBacking()
    const state = { givenUp: false, complete: () => {} }
    const connect = Effect.callback<Backing>((resume) => {
      state.complete = () => resume(Effect.succeed(backing))
      return Effect.sync(() => {
        state.givenUp = true
      })
    })
    return { backing, state, layer: over(connect) }
  }

  for (const inRegion of [false, true]) {
    const connect = inRegion
      ? Cancellation.withSignal(StreamSocket.connect(remote), Cancellation.makeSignal())
      : StreamSocket.connect(remote)
    const where = inRegion ? ", in the region of a signal" : ""

    it.effect(`that times out gives its attempt up${where}`, () =>
      leavingNothing(Effect.gen(function*() {
        const { backing, layer, state } = attempt()
        const connecting = yield* start(Effect.scoped(Effect.timeout(connect, "1 second")).pipe(Effect.provide(layer)))
        yield* TestClock.adjust("1 second")
        const exit = yield* Fiber.await(connecting)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasFails(exit.cause) && state.givenUp)
        // Too late: nobody is there for it.
        state.complete()
        yield* turns()
        assert.deepStrictEqual(backing.calls, [])
      })))

    it.effect(`that is made in the turn of its timeout is used, and closed by its scope${where}`, () =>
      leavingNothing(Effect.gen(function*() {
        const { backing, layer, state } = attempt()
        const completing = Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => state.complete()))
        yield* start(completing)
        const connecting = yield* start(
          Effect.scoped(Effect.map(Effect.timeout(connect, "1 second"), ({ state }) => state.socket)).pipe(
            Effect.provide(layer)
          )
        )
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(connecting), "open")
        assert.isFalse(state.givenUp)
        assert.deepStrictEqual(backing.calls, ["close"])
      })))

    it.effect(`raced with another, both made in one step: one is used, the other given up${where}`, () =>
      leavingNothing(Effect.gen(function*() {
        for (const race of Object.values(races)) {
          const attempts = [attempt(), attempt()] as const
          const connecting = yield* start(
            Effect.scoped(race([
              Effect.as(Effect.provide(connect, attempts[0].layer), 0),
              Effect.as(Effect.provide(connect, attempts[1].layer), 1)
            ]))
          )
          attempts[1].state.complete()
          attempts[0].state.complete()
          assert.strictEqual(yield* Fiber.join(connecting), 1)
          assert.deepStrictEqual([attempts[0].state.givenUp, attempts[1].state.givenUp], [true, false])
          assert.deepStrictEqual([attempts[0].backing.calls, attempts[1].backing.calls], [[], ["close"]])
        }
      })))

    it.effect(`a connection that is made as the turn of its fiber ends is closed, or was never made${where}`, () =>
      leavingNothing(Effect.gen(function*() {
        const ends = new Set<string>()
        for (const count of aroundTheEndOfATurn) {
          const backing = new FakeBacking()
          let made = false
          const layer = over(Effect.sync(() => {
            made = true
            return backing
          }))
          const fiber = yield* Effect.forkChild(
            Effect.andThen(steps(count), Effect.scoped(Effect.andThen(connect, Effect.never))).pipe(
              Effect.provide(layer)
            )
          )
          yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          const end = made ? backing.calls.length > 0 ? "closed" : `open, after ${count} operations` : "never made"
          ends.add(end)
        }
        assert.deepStrictEqual([...ends].sort(), ["closed", "never made"])
      })))
  }

  it.effect("the winner of a race closes with the scope of the race, the others were never made", () =>
    leavingNothing(
      Effect.gen(function*() {
        const one = yield* Acceptor.listen(anyPort)
        const two = yield* Acceptor.listen(anyPort)
        const waiting = yield* start(two.accept)
        yield* Effect.scoped(Effect.race(StreamSocket.connect(one.address), StreamSocket.connect(two.address)))
        assert.strictEqual(ending(yield* Effect.exit((yield* one.accept).readSome(new Uint8Array(1)))), "Done")
        yield* turns()
        assert.isUndefined(waiting.pollUnsafe())
        yield* Fiber.interrupt(waiting)
      }).pipe(Effect.provide(MemoryTransport.layer))
    ))

  it.live("over TCP, to a peer that does not answer: a timeout releases the descriptor", () =>
    Effect.gen(function*() {
      const { target } = yield* hangingListener
      yield* leavingNothing(Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.timeout(StreamSocket.connect(target), "20 millis"))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasFails(exit.cause))
        assert.isTrue(Option.isNone(yield* Effect.timeoutOption(StreamSocket.connect(target), "20 millis")))
      })).pipe(Effect.provide(NodeTransport.layer))
    }))

  it.live("over TCP, two raced: the peer of the loser sees its end", () =>
    leavingNothing(
      Effect.gen(function*() {
        const acceptors = yield* Effect.all([Acceptor.listen(anyPort), Acceptor.listen(anyPort)])
        // Whatever either of them gets: counted, and read to its end.
        const counts = [0, 0]
        const ended = [0, 0]
        yield* Effect.forEach(acceptors, (acceptor, index) =>
          Effect.forkScoped(Acceptor.serve(acceptor, (socket) => {
            counts[index]!++
            return Effect.ensuring(
              socket.readSome(new Uint8Array(1)),
              Effect.sync(() => {
                ended[index]!++
              })
            )
          })))
        yield* Effect.scoped(Effect.gen(function*() {
          const socket = yield* Effect.race(
            StreamSocket.connect(acceptors[0].address),
            StreamSocket.connect(acceptors[1].address)
          )
          const winner = acceptors.findIndex(({ address }) =>
            NetAddress.formatSocketAddress(address) === NetAddress.formatSocketAddress(socket.remoteAddress)
          )
          yield* eventually("the loser's peer", () => counts[winner] === 1 && counts[1 - winner] === ended[1 - winner])
          assert.deepStrictEqual([socket.state.socket, ended[winner]], ["open", 0])
        }))
        yield* eventually("the winner's peer", () => counts[0] === ended[0] && counts[1] === ended[1])
      }).pipe(Effect.provide(NodeTransport.layer))
    ))
})

/**
 * Everything in Effect that interrupts. Each starts an operation, which then waits, and answers with what asks for its
 * end and waits for that.
 */
const ways: Readonly<
  Record<
    string,
    <E, R>(operation: Effect.Effect<unknown, E, R>) => Effect.Effect<Effect.Effect<unknown>, never, R | Scope.Scope>
  >
> = {
  "Fiber.interrupt": (operation) => Effect.map(start(operation), Fiber.interrupt),
  "Fiber.interruptAll": (operation) =>
    Effect.map(
      Effect.all([start(Effect.never), start(operation)]),
      (fibers) => Fiber.interruptAll<Iterable<Fiber.Fiber<unknown, unknown>>>(fibers)
    ),
  "the end of the fiber that forked it": (operation) => gated((gate) => Effect.andThen(start(operation), gate)),
  "the close of a scope, by forkScoped": (operation) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      yield* Effect.forkScoped(operation, { startImmediately: true }).pipe(Scope.provide(scope))
      return Scope.close(scope, Exit.void)
    }),
  "the close of a scope, by forkIn": (operation) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      yield* Effect.forkIn(operation, scope, { startImmediately: true })
      return Scope.close(scope, Exit.void)
    }),
  "FiberSet.clear": (operation) =>
    Effect.gen(function*() {
      const set = yield* FiberSet.make()
      yield* FiberSet.run(set, operation)
      return FiberSet.clear(set)
    }),
  "the close of a FiberSet": (operation) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const set = yield* Scope.provide(FiberSet.make(), scope)
      yield* FiberSet.run(set, operation)
      return Scope.close(scope, Exit.void)
    }),
  "FiberMap.remove": (operation) =>
    Effect.gen(function*() {
      const map = yield* FiberMap.make<string>()
      yield* FiberMap.run(map, "operation", operation)
      return FiberMap.remove(map, "operation")
    }),
  "FiberHandle.clear": (operation) =>
    Effect.gen(function*() {
      const handle = yield* FiberHandle.make()
      yield* FiberHandle.run(handle, operation)
      return FiberHandle.clear(handle)
    }),
  "a FiberHandle that runs something else": (operation) =>
    Effect.gen(function*() {
      const handle = yield* FiberHandle.make()
      const fiber = yield* FiberHandle.run(handle, operation)
      return Effect.andThen(FiberHandle.run(handle, Effect.void), Fiber.await(fiber))
    }),
  "Effect.timeout": (operation) => timed(Effect.timeout(operation, "1 second")),
  "Effect.timeoutOption": (operation) => timed(Effect.timeoutOption(operation, "1 second")),
  "Effect.timeoutOrElse": (operation) =>
    timed(Effect.timeoutOrElse(operation, { duration: "1 second", orElse: () => Effect.void })),
  "a lost race": (operation) => gated((gate) => Effect.race(operation, gate)),
  "a lost raceFirst": (operation) => gated((gate) => Effect.raceFirst(gate, operation)),
  "a lost raceAll": (operation) => gated((gate) => Effect.raceAll([Effect.asVoid(operation), Effect.never, gate])),
  "a sibling that fails in Effect.all": (operation) =>
    gated((gate) => Effect.all([operation, Effect.flip(gate)], { concurrency: "unbounded" })),
  "a sibling that fails in a bounded Effect.all": (operation) =>
    gated((gate) => Effect.all([operation, Effect.flip(gate), Effect.die("never started")], { concurrency: 2 })),
  "a sibling that fails in Effect.forEach": (operation) =>
    gated((gate) =>
      Effect.forEach(
        [Effect.flip(gate), Effect.mapError(operation, (error): unknown => error)],
        (effect) => effect,
        { concurrency: 2, discard: true }
      )
    ),
  "the AbortSignal of a run": (operation) =>
    Effect.gen(function*() {
      const controller = new AbortController()
      const run = Effect.runForkWith(yield* Effect.context<EffectServices<typeof operation>>())
      const fiber = run(operation, { signal: controller.signal })
      return Effect.andThen(Effect.sync(() => controller.abort()), Fiber.await(fiber))
    })
}

type EffectServices<T> = T extends Effect.Effect<unknown, unknown, infer R> ? R : never

/** Starts a group around something that stands still until the group is told to go on. */
const gated = <R>(
  group: (gate: Effect.Effect<void>) => Effect.Effect<unknown, unknown, R>
): Effect.Effect<Effect.Effect<unknown>, never, R> =>
  Effect.gen(function*() {
    const gate = yield* Deferred.make<void>()
    const fiber = yield* start(group(Deferred.await(gate)))
    return Effect.andThen(Deferred.succeed(gate, undefined), Fiber.await(fiber))
  })

/** Starts a group that gives its operation a second. */
const timed = <R>(group: Effect.Effect<unknown, unknown, R>): Effect.Effect<Effect.Effect<unknown>, never, R> =>
  Effect.map(start(group), (fiber) => Effect.andThen(TestClock.adjust("1 second"), Fiber.await(fiber)))

const hello = text("hello")

describe("whatever interrupts a write", () => {
  const situations: Readonly<
    Record<string, {
      readonly writes: ReadonlyArray<ScriptedStream.WriteStep>
      readonly policy: Region
      /** What the write waits for to end, once it was interrupted. */
      readonly needs?: "room"
      readonly transfer: Cancellation.Transfer["Service"]
      readonly state: StreamSocket.State["write"]
    }>
  > = {
    "after 3 of 5 bytes, terminal": {
      writes: [take(3), block],
      policy: Cancellation.terminal,
      transfer: { transferred: 3, total: 5, guarantee: "terminal" },
      state: "torn"
    },
    "after 3 of 5 bytes, total": {
      writes: [take(3), block, take(1), take(1)],
      policy: Cancellation.total(),
      needs: "room",
      transfer: { transferred: 5, total: 5, guarantee: "total" },
      state: "open"
    }
  }

  for (const [way, interrupt] of Object.entries(ways)) {
    for (const [moment, { needs, policy, state, transfer, writes }] of Object.entries(situations)) {
      it.effect(`${way}, ${moment}: the account is the same`, () =>
        leavingNothing(Effect.gen(function*() {
          const { socket, writable, written } = yield* ScriptedStream.make({ writes })
          const cursor = Buffers.cursor(hello)
          const exits: Array<Exit.Exit<number, SocketError>> = []
          const write = Write.writeAll(socket, cursor).pipe(
            policy,
            Effect.onExit((exit) => Effect.sync(() => void exits.push(exit)))
          )
          const asked = yield* start(yield* interrupt(write))
          if (needs !== undefined) {
            yield* turns()
            assert.deepStrictEqual([exits.length, asked.pollUnsafe(), socket.state.write], [0, undefined, "open"])
            yield* writable
          }
          yield* Fiber.await(asked)
          assert.strictEqual(exits.length, 1)
          assert.deepStrictEqual(transferOf(exits[0]!), transfer)
          assert.strictEqual(ending(exits[0]!), "Interrupt")
          assert.strictEqual(cursor.transferred, transfer.transferred)
          assertBytes(yield* written, hello.subarray(0, transfer.transferred))
          assert.strictEqual(socket.state.write, state)
        })))
    }
  }
})

describe("Effect.timeout around a write", () => {
  it.effect("a write that can end in the turn of its timeout: whoever comes first, and the account is right either way", () =>
    Effect.gen(function*() {
      for (const roomFirst of [true, false]) {
        const { socket, writable, written } = yield* ScriptedStream.make({
          writes: roomFirst ? [take(3), block, take(2)] : [take(3), block]
        })
        const cursor = Buffers.cursor(hello)
        const room = Effect.andThen(Effect.sleep("1 second"), writable)
        const write = Effect.timeoutOption(Cancellation.partial(Write.writeAll(socket, cursor)), "1 second")
        if (roomFirst) yield* start(room)
        const fiber = yield* start(write)
        if (!roomFirst) yield* start(room)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(fiber), roomFirst ? Option.some(5) : Option.none())
        assert.strictEqual(cursor.transferred, roomFirst ? 5 : 3)
        assertBytes(yield* written, hello.subarray(0, cursor.transferred))
        assert.strictEqual(socket.state.write, "open")
      }
    }))

  it.effect("two writes raced on one socket: the winner is whole, the one in line never started", () =>
    leavingNothing(Effect.gen(function*() {
      for (const race of Object.values(races)) {
        const { socket, writable, written } = yield* ScriptedStream.make({ writes: [take(1), block, take(2)] })
        const racing = yield* start(race([Write.writeAll(socket, text("one")), Write.writeAll(socket, text("two"))]))
        yield* writable
        assert.strictEqual(yield* Fiber.join(racing), 3)
        assertBytes(yield* written, "one")
        assert.strictEqual(socket.state.write, "open")
      }
    })))

  it.effect("two writes raced on two sockets: the loser is in the middle, by policy", () =>
    leavingNothing(Effect.gen(function*() {
      for (const [policy, state] of [[Cancellation.terminal, "torn"], [Cancellation.partial, "open"]] as const) {
        const one = yield* ScriptedStream.make({ writes: [take(1), block, take(2)] })
        const two = yield* ScriptedStream.make({ writes: [take(2), block] })
        const racing = yield* start(policy(Effect.race(
          Write.writeAll(one.socket, text("one")),
          Write.writeAll(two.socket, text("two"))
        )))
        // Room for both in one step: by then the second is not in line any more.
        yield* Effect.andThen(one.writable, two.writable)
        assert.strictEqual(yield* Fiber.join(racing), 3)
        assertBytes(yield* one.written, "one")
        assertBytes(yield* two.written, "tw")
        assert.deepStrictEqual([one.socket.state.write, two.socket.state.write], ["open", state])
      }
    })))
})

describe("groups", () => {
  for (const concurrency of ["unbounded", 3] as const) {
    for (
      const [name, policy, transferred, state] of [
        ["terminal", Cancellation.terminal, 2, "torn"],
        ["partial", Cancellation.partial, 2, "open"],
        ["total", Cancellation.total(), 5, "open"]
      ] as const
    ) {
      it.effect(`Effect.all, ${concurrency}, ${name}: when one fails, each other one stops by its place`, () =>
        leavingNothing(Effect.gen(function*() {
          const shared = yield* ScriptedStream.make({
            writes: name === "total" ? [take(2), block, take(3)] : [take(2), block]
          })
          const reading = yield* ScriptedStream.make({ reads: [data("in"), block, data("put"), end] })
          const cursors = [Buffers.cursor(hello), Buffers.cursor(hello), Buffers.cursor(hello)]
          const failing = yield* Deferred.make<never, string>()
          const region: Region = policy
          const members: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
            Write.writeAll(shared.socket, cursors[0]!),
            Write.writeAll(shared.socket, cursors[1]!),
            Deferred.await(failing),
            Read.readUntil(reading.socket, "\n"),
            Write.writeAll(shared.socket, cursors[2]!)
          ]
          const all = yield* start(region(Effect.all(members, { concurrency, discard: true })))
          yield* Deferred.fail(failing, "no")
          if (name === "total") {
            assert.isUndefined(all.pollUnsafe())
            yield* shared.writable
          }
          const exit = yield* Fiber.await(all)
          assert.strictEqual(ending(exit), "no")
          // The failure is told, the accounts of the interrupted members are not: that is what cursors are for.
          assert.isTrue(Exit.isFailure(exit) && Option.isNone(Cancellation.transfer(exit.cause)))
          assert.deepStrictEqual(cursors.map((cursor) => cursor.transferred), [transferred, 0, 0])
          assertBytes(yield* shared.written, hello.subarray(0, transferred))
          assert.strictEqual(shared.socket.state.write, state)
          if (concurrency === 3) assert.strictEqual(reading.socket.bytesRead, 0)
          if (concurrency === "unbounded") yield* reading.readable
          const rest = yield* start(Read.readAll(reading.socket))
          if (concurrency !== "unbounded") yield* reading.readable
          assertBytes(yield* Fiber.join(rest), "input")
        })))
    }
  }

  for (const concurrency of [1, 2, 4] as const) {
    it.effect(`Effect.forEach over connections, ${concurrency} at a time, one of them fails: the others' counts are the peers'`, () =>
      leavingNothing(Effect.gen(function*() {
        const pairs = yield* Effect.replicateEffect(MemoryTransport.pair({ capacity: 8 }), 6)
        const cursors = pairs.map(() => Buffers.cursor(text("a message of some length")))
        // The second connection is lost before the others have been read.
        yield* pairs[1]![1].abort
        yield* turns()
        const all = yield* start(
          Effect.forEach(pairs, ([left], index) => Write.writeAll(left, cursors[index]!), {
            concurrency,
            discard: true
          })
        )
        if (concurrency === 1) yield* start(Read.readExactly(pairs[0]![1], new Uint8Array(24)))
        const error = failure(yield* Fiber.await(all))
        assert.include(["ConnectionReset", "BrokenPipe"], error.reason._tag)
        const taken = cursors.map((cursor) => cursor.transferred)
        assert.deepStrictEqual(taken, [concurrency === 1 ? 24 : 8, 0, 0, 0, 0, 0])
        for (const [index, [left, right]] of pairs.entries()) {
          if (index === 1) continue
          const { write } = left.state
          assert.strictEqual(write, index === 0 && concurrency > 1 ? "torn" : "open")
          yield* left.close
          const { end } = yield* readToEnd(right)
          assert.strictEqual(end, write === "torn" ? "ConnectionReset" : "Done")
          assert.strictEqual(right.bytesRead, taken[index])
        }
      })))
  }
})

describe("interruption from inside", () => {
  for (
    const [name, policy, transfer, state] of [
      ["terminal", Cancellation.terminal, { transferred: 3, total: 5, guarantee: "terminal" }, "torn"],
      ["partial", Cancellation.partial, { transferred: 3, total: 5, guarantee: "partial" }, "open"],
      ["total", Cancellation.total(), { transferred: 5, total: 5, guarantee: "total" }, "open"]
    ] as const
  ) {
    it.effect(`${name}: a completion condition that interrupts its own fiber after 3 bytes`, () =>
      leavingNothing(Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({
          writes: name === "total" ? [take(3), take(2)] : [take(3)]
        })
        const fiber: Fiber.Fiber<number, SocketError> = yield* start(policy(
          Write.writeAll(socket, hello, (count) => {
            if (count === 3) fiber.interruptUnsafe()
            return Infinity
          })
        ))
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), transfer)
        assertBytes(yield* written, hello.subarray(0, transfer.transferred))
        assert.strictEqual(socket.state.write, state)
      })))
  }

  it.effect("a match function that interrupts its own fiber consumes nothing", () =>
    leavingNothing(Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({ reads: [data("abc"), end] })
      const fiber: Fiber.Fiber<unknown, unknown> = yield* start(Read.readUntil(socket, (bytes) => {
        if (bytes.byteLength > 0) fiber.interruptUnsafe()
        return bytes.byteLength > 0 ? bytes.byteLength : undefined
      }))
      assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
      assertBytes(yield* Read.readAll(socket), "abc")
    })))

  it.effect("Effect.interrupt behind a write does not reach back into it", () =>
    Effect.gen(function*() {
      const { socket, written } = yield* ScriptedStream.make({ writes: [take(5)] })
      const exit = yield* Effect.exit(Effect.andThen(Write.writeAll(socket, hello), Effect.interrupt))
      assert.strictEqual(ending(exit), "Interrupt")
      assert.isTrue(Exit.isFailure(exit) && Option.isNone(Cancellation.transfer(exit.cause)))
      assertBytes(yield* written, "hello")
      assert.strictEqual(socket.state.write, "open")
    }))

  it.effect("a sibling that interrupts itself ends the group like one that fails", () =>
    leavingNothing(Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      const cursor = Buffers.cursor(hello)
      const exit = yield* Effect.exit(
        Cancellation.partial(
          Effect.all([Write.writeAll(socket, cursor), Effect.interrupt], { concurrency: "unbounded" })
        )
      )
      assert.strictEqual(ending(exit), "Interrupt")
      assert.deepStrictEqual([cursor.transferred, socket.state.write], [3, "open"])
    })))
})

describe("regions without interruption", () => {
  it.effect("what uninterruptibleMask restores is interrupted by policy, and what is behind it runs", () =>
    leavingNothing(Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      const seen: Array<unknown> = []
      const fiber = yield* start(Effect.uninterruptibleMask((restore) =>
        Effect.onExit(
          restore(Cancellation.partial(Write.writeAll(socket, hello))),
          (exit) => Effect.andThen(Effect.yieldNow, Effect.sync(() => void seen.push(transferOf(exit))))
        )
      ))
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(seen, [{ transferred: 3, total: 5, guarantee: "partial" }])
      assert.strictEqual(socket.state.write, "open")
    })))

  it.effect("a request reaches into an uninterruptible write, as a typed failure", () =>
    leavingNothing(Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      const signal = Cancellation.makeSignal()
      const errors: Array<SocketError> = []
      const fiber = yield* start(
        Effect.uninterruptible(
          Effect.catch(Write.writeAll(socket, hello), (error) => Effect.sync(() => errors.push(error)))
        )
          .pipe(Cancellation.withSignal(signal))
      )
      const interrupting = yield* start(Fiber.interrupt(fiber))
      assert.deepStrictEqual((yield* signal.emit("total")).ended, [])
      assert.strictEqual((yield* signal.emit("partial")).ended[0]?.guarantee, "partial")
      yield* Fiber.await(interrupting)
      assert.deepStrictEqual(errors.map(({ reason }) => reason), [
        Reason.OperationAborted({ type: "partial", transferred: 3, total: 5 })
      ])
    })))

  it.effect("a timeout in an uninterruptible region interrupts what is inside the timeout all the same", () =>
    leavingNothing(Effect.gen(function*() {
      const { socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      const cursor = Buffers.cursor(hello)
      const fiber = yield* start(
        Effect.uninterruptible(Effect.timeoutOption(Write.writeAll(socket, cursor), "1 second"))
      )
      yield* TestClock.adjust("1 second")
      assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
      assert.deepStrictEqual([cursor.transferred, socket.state.write], [3, "torn"])
    })))

  it.effect("a timeout around an uninterruptible write waits for it", () =>
    leavingNothing(Effect.gen(function*() {
      const { socket, writable } = yield* ScriptedStream.make({ writes: [take(3), block, take(2)] })
      const cursor = Buffers.cursor(hello)
      const fiber = yield* start(
        Effect.timeoutOption(Effect.uninterruptible(Write.writeAll(socket, cursor)), "1 second")
      )
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(fiber.pollUnsafe())
      yield* writable
      assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
      assert.deepStrictEqual([cursor.transferred, socket.state.write], [5, "open"])
    })))

  describe("a write that is let go of: forked detached, its join raced", () => {
    const detached = (socket: Socket, source: Buffers.Cursor, limit: "1 second") =>
      Effect.gen(function*() {
        const write = yield* Effect.forkDetach(Write.writeAll(socket, source), { startImmediately: true })
        return { write, joined: yield* Effect.timeoutOption(Fiber.join(write), limit) }
      })

    it.effect("the caller goes on in time, the write goes on too, and the next one waits in line behind it", () =>
      leavingNothing(Effect.gen(function*() {
        const { socket, writable, written } = yield* ScriptedStream.make({
          writes: [take(3), block, take(2), take(5)]
        })
        const cursor = Buffers.cursor(hello)
        const caller = yield* start(detached(socket, cursor, "1 second"))
        yield* TestClock.adjust("1 second")
        const { joined, write } = yield* Fiber.join(caller)
        assert.isTrue(Option.isNone(joined))
        assert.deepStrictEqual([write.pollUnsafe(), cursor.transferred, socket.state.write], [undefined, 3, "open"])
        const next = yield* start(Write.writeAll(socket, text("world")))
        yield* writable
        assert.deepStrictEqual([yield* Fiber.join(write), yield* Fiber.join(next)], [5, 5])
        assertBytes(yield* written, "helloworld")
      })))

    it.effect("it ends by itself when the socket closes", () =>
      leavingNothing(Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
        const caller = yield* start(detached(socket, Buffers.cursor(hello), "1 second"))
        yield* TestClock.adjust("1 second")
        const { write } = yield* Fiber.join(caller)
        yield* socket.close
        const error = failure(yield* Fiber.await(write))
        assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["Closed", 3, 5])
      })))

    it.effect("a read that is let go of takes the input that comes later, and nobody else gets it", () =>
      leavingNothing(Effect.gen(function*() {
        const { readable, socket } = yield* ScriptedStream.make({ reads: [block, data("late"), end] })
        const target = new Uint8Array(4)
        const read = yield* Effect.forkDetach(socket.readSome(target), { startImmediately: true })
        const caller = yield* start(Effect.timeoutOption(Fiber.join(read), "1 second"))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Option.isNone(yield* Fiber.join(caller)))
        yield* readable
        assert.strictEqual(yield* Fiber.join(read), 4)
        assertBytes(target, "late")
        assertBytes(yield* Read.readAll(socket), "")
      })))
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Ndjson from "effect/encoding/Ndjson"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as EffectStream from "../../src/adapter/EffectStream.ts"
import { toUtf8, utf8 as text, type View } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import { Reason, type SocketError } from "../../src/SocketError.ts"
import type * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure, transferOf } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

const { block, data, end, fail, take } = ScriptedStream

describe("EffectStream", () => {
  describe("toStream", () => {
    it.effect("gives the bytes to the end of the stream, as they arrive", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const chunks = yield* Stream.runCollect(EffectStream.toStream(socket))
        assert.deepStrictEqual(chunks.map(toUtf8), ["one", "two"])
        assert.strictEqual(socket.state.socket, "open")
      }))

    it.effect("cuts chunks to chunkSize", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("abcde"), end] })
        const chunks = yield* Stream.runCollect(EffectStream.toStream(socket, { chunkSize: 2 }))
        assert.deepStrictEqual(chunks.map(toUtf8), ["ab", "cd", "e"])
      }))

    it.effect("each chunk is memory of the consumer's own", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const chunks = yield* EffectStream.toStream(socket).pipe(Stream.runCollect)
        chunks[0]?.fill(0)
        assertBytes(chunks[1]!, "two")
        assert.strictEqual(chunks[1]!.byteLength, chunks[1]!.buffer.byteLength)
      }))

    it.effect("reads nothing before it is pulled, and leaves what was not pulled", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const stream = EffectStream.toStream(socket)
        assert.strictEqual(socket.bytesRead, 0)
        const first = yield* stream.pipe(Stream.take(1), Stream.runCollect)
        assert.deepStrictEqual(first.map(toUtf8), ["one"])
        assertBytes(yield* Read.readAll(socket), "two")
      }))

    it.effect("an interruption loses no byte", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* ScriptedStream.make({ reads: [data("one"), block, data("two"), end] })
        const got: Array<string> = []
        const fiber = yield* start(
          Stream.runForEach(EffectStream.toStream(socket), (chunk) => Effect.sync(() => got.push(toUtf8(chunk))))
        )
        yield* Fiber.interrupt(fiber)
        yield* readable
        assert.strictEqual(got.join("") + toUtf8(yield* Read.readAll(socket)), "onetwo")
      }))

    it.effect("gives first what composed reads have put back", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("head\nbody"), end] })
        yield* Read.readUntil(socket, "\n")
        const chunks = yield* Stream.runCollect(EffectStream.toStream(socket))
        assert.deepStrictEqual(chunks.map(toUtf8), ["body"])
      }))

    it.effect("fails with the error of the read, after what came before it", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), fail(Reason.ConnectionReset())] })
        const got: Array<string> = []
        const exit = yield* Effect.exit(
          Stream.runForEach(EffectStream.toStream(socket), (chunk) => Effect.sync(() => got.push(toUtf8(chunk))))
        )
        assert.strictEqual(failure(exit).reason._tag, "ConnectionReset")
        assert.deepStrictEqual(got, ["one"])
      }))

    it.effect("can be run again where it stopped", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const stream = EffectStream.toStream(socket)
        yield* stream.pipe(Stream.take(1), Stream.runDrain)
        assert.deepStrictEqual((yield* Stream.runCollect(stream)).map(toUtf8), ["two"])
        assert.deepStrictEqual(yield* Stream.runCollect(stream), [])
      }))

    it.effect("a chunkSize that makes no sense is a defect", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        for (const chunkSize of [0, -1, 0.5, NaN, Infinity]) {
          const exit = yield* Effect.exit(Stream.runDrain(EffectStream.toStream(socket, { chunkSize })))
          assert.instanceOf(defect(exit), RangeError)
        }
      }))
  })

  describe("toSink", () => {
    it.effect("writes every element whole and in order, and counts", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({ writes: [take(1), take(4), take(9), take(9)] })
        const views: Array<View> = [text("one"), new DataView(text("two").buffer), new Uint8Array(0), Buffer.from("3")]
        const count = yield* Stream.fromIterable(views).pipe(Stream.rechunk(2), Stream.run(EffectStream.toSink(socket)))
        assert.strictEqual(count, 7)
        assertBytes(yield* written, "onetwo3")
        assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "open" })
      }))

    it.effect("the elements of one chunk leave in one gather write", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ writes: [take(100)] })
        assert.strictEqual(
          yield* Stream.make(text("a"), text("b"), text("c")).pipe(Stream.run(EffectStream.toSink(socket))),
          3
        )
      }))

    it.effect("of nothing writes nothing", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        assert.strictEqual(yield* Stream.run(Stream.empty, EffectStream.toSink(socket)), 0)
      }))

    it.effect("counts anew each time it is run", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ writes: [take(9), take(9)] })
        const sink = EffectStream.toSink(socket)
        assert.strictEqual(yield* Stream.run(Stream.make(text("ab")), sink), 2)
        assert.strictEqual(yield* Stream.run(Stream.make(text("abc")), sink), 3)
      }))

    it.effect("holds the producer back while the peer does not read", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
        let produced = 0
        const fiber = yield* start(
          Stream.range(1, 100).pipe(
            Stream.rechunk(1),
            Stream.map(() => {
              produced++
              return pattern(5)
            }),
            Stream.run(EffectStream.toSink(left))
          )
        )
        for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        assert.isAtMost(produced, 4)
        const all = new Uint8Array(500)
        yield* Read.readExactly(right, all)
        assert.strictEqual(yield* Fiber.join(fiber), 500)
      }))

    it.effect("fails with the error of the write", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ writes: [take(2), fail(Reason.BrokenPipe())] })
        const exit = yield* Effect.exit(Stream.run(Stream.make(text("abc")), EffectStream.toSink(socket)))
        assert.deepStrictEqual([failure(exit).reason._tag, failure(exit).transferred], ["BrokenPipe", 2])
      }))

    it.effect("an interruption follows the policy, for the chunk at hand", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({ writes: [take(9), take(1), block] })
        const fiber = yield* start(
          Stream.make(text("one"), text("two")).pipe(
            Stream.rechunk(1),
            Stream.run(EffectStream.toSink(socket)),
            Cancellation.partial
          )
        )
        while ((yield* written).byteLength < 4) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual(transferOf(exit), { transferred: 1, total: 3, guarantee: "partial" })
        assert.strictEqual(socket.state.write, "open")
      }))
  })

  describe("toChannel", () => {
    const echoThrough = (socket: StreamSocket.StreamSocket, input: Stream.Stream<View, SocketError>) =>
      Stream.runCollect(Stream.pipeThroughChannel(input, EffectStream.toChannel<SocketError>(socket)))

    it.effect("writes its input, ends it with a half-close, and gives what arrives to the end", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 100, seed: 11 })
        const answering = yield* start(
          Effect.tap(Read.readAll(peer), (bytes) => Effect.andThen(Write.writeAll(peer, bytes), peer.shutdownWrite))
        )
        const chunks = yield* echoThrough(socket, Stream.make(pattern(3000), text("end")).pipe(Stream.rechunk(1)))
        assertBytes(Buffer.concat(chunks), Buffer.concat([pattern(3000), text("end")]))
        yield* Fiber.join(answering)
        assert.deepStrictEqual(socket.state, { socket: "open", read: "ended", write: "shutdown" })
      }))

    it.effect("reads and writes independently of each other", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.clogged({ capacity: 10 })
        const got: Array<string> = []
        const fiber = yield* start(
          Stream.make(text("a write that waits")).pipe(
            Stream.concat(Stream.never),
            Stream.pipeThroughChannel(EffectStream.toChannel(socket)),
            Stream.runForEach((chunk) => Effect.sync(() => got.push(toUtf8(chunk))))
          )
        )
        yield* Write.writeAll(peer, text("and"))
        while (got.length === 0) yield* Effect.yieldNow
        assert.deepStrictEqual([got, fiber.pollUnsafe()], [["and"], undefined])
        yield* Fiber.interrupt(fiber)
      }))

    it.effect("reads nothing before it is pulled, and no input while the peer does not read", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 10 })
        yield* Write.writeAll(peer, text("unread"))
        let produced = 0
        const input = Stream.range(1, 100).pipe(
          Stream.rechunk(1),
          Stream.map(() => {
            produced++
            return pattern(6)
          })
        )
        const scope = yield* Scope.make()
        const pull = yield* Channel.toPullScoped(
          Stream.toChannel(Stream.pipeThroughChannel(input, EffectStream.toChannel(socket))),
          scope
        )
        yield* start(pull)
        for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        assert.isAtMost(produced, 3)
        assert.strictEqual(socket.bytesWritten, 10)
        yield* Scope.close(scope, Exit.void)
      }))

    it.effect("is over with the peer's stream, and cuts what its input has still to say", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair()
        yield* Write.writeAll(peer, text("bye"))
        yield* peer.shutdownWrite
        const chunks = yield* echoThrough(socket, Stream.never)
        assertBytes(Buffer.concat(chunks), "bye")
        assert.strictEqual(socket.state.write, "open")
      }))

    it.effect("a failed write ends it, although a read waits, and leaves what arrives later unread", () =>
      Effect.gen(function*() {
        const { readable, socket, writable } = yield* ScriptedStream.make({
          reads: [block, data("the last word"), end],
          writes: [take(2), block, fail(Reason.BrokenPipe())]
        })
        const fiber = yield* start(Effect.exit(echoThrough(socket, Stream.make(text("hello")))))
        while (socket.bytesWritten === 0) yield* Effect.yieldNow
        yield* writable
        const error = failure(yield* Fiber.join(fiber))
        assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["BrokenPipe", 2, 5])
        yield* readable
        assertBytes(yield* Read.readAll(socket), "the last word")
      }))

    it.effect("a write that failed between two pulls fails the second", () =>
      Effect.gen(function*() {
        const { socket, writable } = yield* ScriptedStream.make({
          reads: [data("one"), block],
          writes: [block, fail(Reason.BrokenPipe())]
        })
        const pull = yield* Channel.toPullScoped(
          Stream.toChannel(Stream.pipeThroughChannel(Stream.make(text("hello")), EffectStream.toChannel(socket))),
          yield* Effect.scope
        )
        assert.deepStrictEqual((yield* pull).map(toUtf8), ["one"])
        for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        yield* writable
        assert.strictEqual(failure(yield* Effect.exit(pull)).reason._tag, "BrokenPipe")
        // The second pull has not even tried to read.
        yield* Fiber.interrupt(yield* start(socket.readSome(new Uint8Array(1))))
      }))

    it.effect("a failure of its input is its own", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [block], writes: [take(9)] })
        const exit = yield* Stream.make(text("hello")).pipe(
          // By then its reader waits.
          Stream.concat(Stream.fromEffect(Effect.andThen(Effect.yieldNow, Effect.fail("no more")))),
          Stream.pipeThroughChannel(EffectStream.toChannel<string>(socket)),
          Stream.runDrain,
          Effect.exit
        )
        assert.strictEqual(ending(exit), "no more")
        assert.deepStrictEqual([socket.state.write, socket.bytesWritten], ["open", 5])
      }))

    it.effect("a failed read is its failure", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("x"), fail(Reason.ConnectionReset())] })
        const exit = yield* Effect.exit(echoThrough(socket, Stream.never))
        assert.strictEqual(failure(exit).reason._tag, "ConnectionReset")
      }))

    it.effect("an interruption loses no byte, and cuts the write at hand by the policy", () =>
      Effect.gen(function*() {
        for (const policy of [Cancellation.terminal, Cancellation.partial]) {
          const { readable, socket } = yield* ScriptedStream.make({
            reads: [block, data("unread"), end],
            writes: [take(2), block]
          })
          const fiber = yield* start(policy(echoThrough(socket, Stream.make(text("hello")))))
          while (socket.bytesWritten === 0) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(socket.state.write, policy === Cancellation.partial ? "open" : "torn")
          yield* readable
          assertBytes(yield* Read.readAll(socket), "unread")
        }
      }))

    it.effect("protocols that are channels talk over it", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 50, seed: 2 })
        yield* start(
          Effect.andThen(EffectStream.toStream(peer).pipe(Stream.run(EffectStream.toSink(peer))), peer.shutdownWrite)
        )
        const sent = Array.from({ length: 50 }, (_, n) => ({ n, text: "é\n" }))
        const answers = yield* Stream.fromIterable(sent).pipe(
          Stream.pipeThroughChannel(Ndjson.duplex(EffectStream.toChannel<Ndjson.NdjsonError>(socket))),
          Stream.runCollect
        )
        assert.deepStrictEqual(answers, sent)
      }))

    it.effect("a chunkSize that makes no sense is a defect", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        for (const chunkSize of [0, -1, 0.5, NaN]) {
          const channel = EffectStream.toChannel(socket, { chunkSize })
          const exit = yield* Effect.exit(Stream.runDrain(Stream.pipeThroughChannel(Stream.never, channel)))
          assert.instanceOf(defect(exit), RangeError)
        }
      }))
  })

  it.effect("a stream into a sink copies one socket to another", () =>
    Effect.gen(function*() {
      const [a, b] = yield* MemoryTransport.pair({ capacity: 100, seed: 3 })
      const [c, d] = yield* MemoryTransport.pair({ capacity: 70, seed: 4 })
      const relay = yield* start(
        Effect.andThen(EffectStream.toStream(b).pipe(Stream.run(EffectStream.toSink(c))), c.shutdownWrite)
      )
      yield* start(
        Effect.andThen(
          Stream.make(pattern(5000)).pipe(Stream.run(EffectStream.toSink(a))),
          a.shutdownWrite
        )
      )
      assertBytes(yield* Read.readAll(d), pattern(5000))
      assert.strictEqual(ending(yield* Fiber.await(relay)), "Success")
    }))

  it.effect("a sink of ours composes like any other", () =>
    Effect.gen(function*() {
      const { socket, written } = yield* ScriptedStream.make({ writes: [take(99)] })
      const sink = EffectStream.toSink(socket).pipe(Sink.mapInput((line: string) => text(`${line}\n`)))
      assert.strictEqual(yield* Stream.run(Stream.make("a", "bc"), sink), 5)
      assertBytes(yield* written, "a\nbc\n")
    }))
})

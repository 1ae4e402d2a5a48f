import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { createHash, randomBytes } from "node:crypto"
import { setImmediate } from "node:timers/promises"
import * as WebStreams from "../../src/adapter/WebStreams.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import { isSocketError, Reason, SocketError } from "../../src/SocketError.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { connection } from "../support/connection.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { start, turns } from "../support/waiting.ts"

const { block, data, end, fail, take } = ScriptedStream

/** A promise whose rejection is handled from the start. */
const awaiting = <A>(promise: Promise<A>): Effect.Effect<A, unknown> => {
  promise.catch(() => {})
  return Effect.tryPromise({ try: () => promise, catch: (error) => error })
}

const rejection = (promise: Promise<unknown>): Effect.Effect<unknown, unknown> => Effect.flip(awaiting(promise))

/** What a promise was rejected with, as the tag of its reason. */
const tagOf = (promise: Promise<unknown>): Effect.Effect<string, unknown> =>
  Effect.map(rejection(promise), (error) => isSocketError(error) ? error.reason._tag : String(error))

const isPending = (promise: Promise<unknown>): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    for (let i = 0; i < 3; i++) await setImmediate()
    return await Promise.race([promise.then(() => false, () => false), setImmediate(true)])
  })

/** A read that has been started, by a reader of either kind. */
const waitingRead = (stream: ReadableStream<Uint8Array>, mode: "default" | "byob") => {
  const reader = mode === "default" ? stream.getReader() : stream.getReader({ mode })
  const reading: Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }> =
    reader instanceof ReadableStreamBYOBReader ? reader.read(new Uint8Array(5)) : reader.read()
  reading.catch(() => {})
  return { reading, cancel: () => reader.cancel("enough"), release: () => reader.releaseLock() }
}

const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const some = randomBytes(2 * 1024 * 1024)

describe("WebStreams", () => {
  describe("toReadableStream", () => {
    it.effect("gives the bytes to the end of the stream, as they arrive", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const stream = yield* WebStreams.toReadableStream(socket)
        const chunks: Array<string> = []
        yield* awaiting((async () => {
          for await (const chunk of stream) chunks.push(Buffer.from(chunk).toString())
        })())
        assert.deepStrictEqual(chunks, ["one", "two"])
        assert.strictEqual(socket.state.socket, "open")
      }))

    it.effect("is what a Response reads", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("{\"a\":"), data("1}"), end] })
        const stream = yield* WebStreams.toReadableStream(socket)
        assert.deepStrictEqual(yield* awaiting(new Response(stream).json()), { a: 1 })
      }))

    it.effect("reads nothing before it is asked, and nothing ahead", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair()
        yield* Write.writeAll(peer, pattern(10_000))
        const reader = (yield* WebStreams.toReadableStream(socket, { chunkSize: 100 })).getReader()
        yield* turns()
        assert.strictEqual(socket.bytesRead, 0)
        const { value } = yield* awaiting(reader.read())
        yield* turns()
        assertBytes(value!, pattern(100))
        assert.strictEqual(socket.bytesRead, 100)
      }))

    it.effect("chunks are memory of the consumer's own, as large as what arrived", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({
          reads: [data("one"), data(pattern(90)), data("two"), data(pattern(100)), end]
        })
        const reader = (yield* WebStreams.toReadableStream(socket, { chunkSize: 100 })).getReader()
        const chunks: Array<Uint8Array> = []
        for (let i = 0; i < 4; i++) chunks.push((yield* awaiting(reader.read())).value!)
        for (const [i, expected] of [text("one"), pattern(90), text("two"), pattern(100)].entries()) {
          assertBytes(chunks[i]!, expected)
        }
        assert.deepStrictEqual(chunks.map(({ buffer }) => buffer.byteLength), [3, 100, 3, 100])
        assert.isTrue((yield* awaiting(reader.read())).done)
      }))

    it.effect("a BYOB reader has its own memory filled, by one read of just that size", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("hello"), end] })
        const targets: Array<number> = []
        const stream = yield* WebStreams.toReadableStream({
          readSome: (target) => {
            targets.push(target.byteLength)
            return socket.readSome(target)
          }
        })
        const reader = stream.getReader({ mode: "byob" })
        const first = yield* awaiting(reader.read(new Uint8Array(new ArrayBuffer(10), 2, 4)))
        assertBytes(first.value!, "hell")
        assert.deepStrictEqual([first.value!.byteOffset, first.value!.buffer.byteLength], [2, 10])
        assertBytes((yield* awaiting(reader.read(new Uint8Array(9)))).value!, "o")
        assert.deepStrictEqual(targets, [4, 9])
      }))

    it.effect("a BYOB reader sees the end with its memory given back", () =>
      Effect.gen(function*() {
        const { readable, socket } = yield* ScriptedStream.make({ reads: [block, end] })
        const reader = (yield* WebStreams.toReadableStream(socket)).getReader({ mode: "byob" })
        const reading = reader.read(new Uint8Array(9))
        assert.isTrue(yield* isPending(reading))
        yield* readable
        const { done, value } = yield* awaiting(reading)
        assert.deepStrictEqual([done, value?.byteLength, value?.buffer.byteLength], [true, 0, 9])
        yield* awaiting(reader.closed)
      }))

    it.effect("errors with the error of the read, after what came before it", () =>
      Effect.gen(function*() {
        for (const mode of ["default", "byob"] as const) {
          const { socket } = yield* ScriptedStream.make({ reads: [data("one"), fail(Reason.ConnectionReset())] })
          const stream = yield* WebStreams.toReadableStream(socket)
          const first = waitingRead(stream, mode)
          assertBytes((yield* awaiting(first.reading)).value!, "one")
          first.release()
          const second = waitingRead(stream, mode)
          assert.strictEqual(yield* tagOf(second.reading), "ConnectionReset")
        }
      }))

    it.effect("cancelling while a read waits loses no byte", () =>
      Effect.gen(function*() {
        for (const mode of ["default", "byob"] as const) {
          const [socket, peer] = yield* MemoryTransport.pair()
          const stream = yield* WebStreams.toReadableStream(socket)
          const { reading, cancel } = waitingRead(stream, mode)
          assert.isTrue(yield* isPending(reading))
          // What arrives in the same turn as the cancellation.
          yield* Write.writeAll(peer, text("hello"))
          yield* awaiting(cancel())
          yield* peer.shutdownWrite
          assert.deepStrictEqual(yield* awaiting(reading), { done: true, value: undefined })
          assertBytes(yield* Read.readAll(socket), "hello")
        }
      }))

    it.effect("what was not delivered stays unread", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const stream = yield* WebStreams.toReadableStream(socket)
        const chunks: Array<Uint8Array> = []
        yield* awaiting((async () => {
          for await (const chunk of stream) {
            chunks.push(chunk)
            break
          }
        })())
        assertBytes(Buffer.concat(chunks), "one")
        assertBytes(yield* Read.readAll(socket), "two")
      }))

    it.effect("the end of the scope ends a read that waits", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair()
        const scope = yield* Scope.make()
        const stream = yield* Scope.provide(WebStreams.toReadableStream(socket), scope)
        const reader = stream.getReader()
        const reading = reader.read()
        reading.catch(() => {})
        assert.isTrue(yield* isPending(reading))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* tagOf(reading), "Closed")
        yield* Write.writeAll(peer, text("later"))
        yield* peer.shutdownWrite
        assertBytes(yield* Read.readAll(socket), "later")
      }))

    it.effect("both branches of a tee get everything", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 1000, seed: 3 })
        const [a, b] = (yield* WebStreams.toReadableStream(socket)).tee()
        yield* start(Effect.andThen(Write.writeAll(peer, pattern(20_000)), peer.shutdownWrite))
        const [left, right] = yield* awaiting(Promise.all(
          [a, b].map(async (branch) => new Uint8Array(await new Response(branch).arrayBuffer()))
        ))
        assertBytes(left!, pattern(20_000))
        assertBytes(right!, pattern(20_000))
      }))

    it.effect("a chunkSize that makes no sense is a defect", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        for (const chunkSize of [0, -1, 0.5, NaN]) {
          assert.instanceOf(defect(yield* Effect.exit(WebStreams.toReadableStream(socket, { chunkSize }))), RangeError)
        }
      }))
  })

  describe("toWritableStream", () => {
    it.effect("writes every chunk whole and in order, of any kind of memory", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({
          writes: [take(1), take(9), take(9), take(9), take(9)]
        })
        const writer = (yield* WebStreams.toWritableStream(socket)).getWriter()
        const shared = text("_three_")
        void writer.write(text("one"))
        void writer.write(text("two").buffer as ArrayBuffer)
        void writer.write(new DataView(shared.buffer, 1, 5))
        void writer.write(new Uint16Array([0x2121]))
        yield* awaiting(writer.write(new Uint8Array(0)))
        assertBytes(yield* written, "onetwothree!!")
      }))

    it.effect("what is not bytes errors the stream with a TypeError", () =>
      Effect.gen(function*() {
        for (const wrong of ["text", null, 5, [1, 2]]) {
          const { socket } = yield* ScriptedStream.make({})
          const writer = (yield* WebStreams.toWritableStream(socket)).getWriter()
          writer.closed.catch(() => {})
          assert.instanceOf(yield* rejection(writer.write(wrong as never)), TypeError)
          assert.strictEqual(socket.state.write, "open")
        }
      }))

    it.effect("a write resolves when all of it was taken, and the producer waits till then", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 10 })
        const writer = (yield* WebStreams.toWritableStream(socket)).getWriter()
        yield* awaiting(writer.ready)
        const writing = writer.write(pattern(100))
        assert.deepStrictEqual([yield* isPending(writing), yield* isPending(writer.ready)], [true, true])
        assert.strictEqual(socket.bytesWritten, 10)
        yield* Read.readExactly(peer, new Uint8Array(100))
        yield* awaiting(writing)
        yield* awaiting(writer.ready)
      }))

    it.effect("close is a half-close behind everything written", () =>
      Effect.gen(function*() {
        const { calls, socket, written } = yield* ScriptedStream.make({ writes: [take(2), take(9)] })
        const writer = (yield* WebStreams.toWritableStream(socket)).getWriter()
        void writer.write(text("hello"))
        yield* awaiting(writer.close())
        assertBytes(yield* written, "hello")
        assert.deepStrictEqual(calls, { shutdownWrite: 1, close: 0, abort: 0 })
      }))

    it.effect("a failed write errors the stream with its account", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ writes: [take(2), fail(Reason.BrokenPipe())] })
        const writer = (yield* WebStreams.toWritableStream(socket)).getWriter()
        writer.closed.catch(() => {})
        const error = yield* rejection(writer.write(text("hello")))
        assert.instanceOf(error, SocketError)
        assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["BrokenPipe", 2, 5])
        assert.strictEqual(yield* tagOf(writer.write(text("x"))), "BrokenPipe")
      }))

    it.effect("a failed half-close rejects close", () =>
      Effect.gen(function*() {
        const [socket] = yield* MemoryTransport.pair()
        const writer = (yield* WebStreams.toWritableStream(socket)).getWriter()
        writer.closed.catch(() => {})
        yield* socket.close
        assert.strictEqual(yield* tagOf(writer.close()), "Closed")
      }))

    /** Aborts a stream in the middle of a write of five bytes. */
    const aborting = (
      policy: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>,
      rest: ReadonlyArray<ScriptedStream.WriteStep>
    ) =>
      Effect.gen(function*() {
        const { calls, socket, writable, written } = yield* ScriptedStream.make({ writes: [take(2), block, ...rest] })
        const writer = (yield* policy(WebStreams.toWritableStream(socket))).getWriter()
        writer.closed.catch(() => {})
        const writing = writer.write(text("hello"))
        writing.catch(() => {})
        yield* turns()
        const aborted = writer.abort("no more")
        aborted.catch(() => {})
        yield* turns()
        return { aborted, calls, socket, writable, writing, written }
      })

    it.effect("abort under the terminal policy cuts the write and aborts the socket", () =>
      Effect.gen(function*() {
        const { aborted, calls, writing, written } = yield* aborting(Cancellation.terminal, [])
        assert.strictEqual(yield* rejection(writing), "no more")
        yield* awaiting(aborted)
        assertBytes(yield* written, "he")
        assert.deepStrictEqual(calls, { shutdownWrite: 0, close: 0, abort: 1 })
      }))

    it.effect("abort under the partial policy cuts the write and leaves the socket usable", () =>
      Effect.gen(function*() {
        const { aborted, calls, socket, writable, writing, written } = yield* aborting(Cancellation.partial, [take(9)])
        assert.strictEqual(yield* rejection(writing), "no more")
        yield* awaiting(aborted)
        assert.deepStrictEqual([calls.abort, socket.state.write], [0, "open"])
        yield* writable
        yield* Write.writeAll(socket, text("llo"))
        assertBytes(yield* written, "hello")
      }))

    it.effect("abort under the total policy lets the write finish", () =>
      Effect.gen(function*() {
        const { aborted, calls, socket, writable, written } = yield* aborting(Cancellation.total(), [take(9)])
        assert.isTrue(yield* isPending(aborted))
        yield* writable
        yield* awaiting(aborted)
        assertBytes(yield* written, "hello")
        assert.deepStrictEqual([calls.abort, socket.state.write], [0, "open"])
      }))

    it.effect("abort cuts a close that waits, too", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.clogged({ capacity: 10 })
        const writer = (yield* WebStreams.toWritableStream(socket)).getWriter()
        writer.closed.catch(() => {})
        const other = yield* start(Effect.exit(Write.writeAll(socket, pattern(10))))
        const closing = writer.close()
        closing.catch(() => {})
        assert.isTrue(yield* isPending(closing))
        yield* Effect.exit(awaiting(writer.abort("no more")))
        assert.strictEqual(ending(yield* Fiber.join(other)), "Closed")
        assert.strictEqual(failure(yield* Effect.exit(Read.readAll(peer))).reason._tag, "ConnectionReset")
      }))

    it.effect("the end of the scope ends a write that waits, and leaves the socket open", () =>
      Effect.gen(function*() {
        const [socket] = yield* MemoryTransport.clogged({ capacity: 10 })
        const scope = yield* Scope.make()
        const stream = yield* Scope.provide(WebStreams.toWritableStream(socket), scope)
        const writer = stream.getWriter()
        writer.closed.catch(() => {})
        const writing = writer.write(pattern(5))
        writing.catch(() => {})
        assert.isTrue(yield* isPending(writing))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* tagOf(writing), "Closed")
        assert.strictEqual(yield* tagOf(writer.write(pattern(5))), "Closed")
        assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "open" })
      }))

    it.effect("after the end of the scope it takes nothing", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        const stream = yield* Effect.scoped(WebStreams.toWritableStream(socket))
        const writer = stream.getWriter()
        writer.closed.catch(() => {})
        assert.strictEqual(yield* tagOf(writer.write(text("x"))), "Closed")
      }))
  })

  describe("toWebStreams", () => {
    it.effect("closes the socket when both directions are over, however they ended", () =>
      Effect.gen(function*() {
        const endings: ReadonlyArray<
          (pair: { readonly readable: ReadableStream; readonly writable: WritableStream }) => Promise<unknown>
        > = [
          ({ readable, writable }) => Promise.all([readable.cancel(), writable.close()]),
          ({ readable, writable }) => Promise.all([writable.abort(), readable.cancel()]),
          ({ readable, writable }) => writable.close().then(() => new Response(readable).text())
        ]
        for (const over of endings) {
          const [socket, peer] = yield* MemoryTransport.pair()
          const pair = yield* WebStreams.toWebStreams(socket)
          yield* peer.shutdownWrite
          yield* awaiting(over(pair))
          yield* turns()
          assert.strictEqual(socket.state.socket, "closed")
        }
      }))

    it.effect("a direction that has failed is over", () =>
      Effect.gen(function*() {
        const { calls, socket } = yield* ScriptedStream.make({ reads: [end], writes: [fail(Reason.BrokenPipe())] })
        const { readable, writable } = yield* WebStreams.toWebStreams(socket)
        yield* rejection(new Response("hello").body!.pipeTo(writable))
        assert.strictEqual(calls.close, 0)
        assert.strictEqual(yield* awaiting(new Response(readable).text()), "")
        yield* turns()
        assert.strictEqual(calls.close, 1)
      }))

    it.effect("a direction alone does not", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair()
        const { readable, writable } = yield* WebStreams.toWebStreams(socket)
        yield* awaiting(writable.close())
        assertBytes(yield* Read.readAll(peer), "")
        yield* Write.writeAll(peer, text("still here"))
        const { value } = yield* awaiting(readable.getReader().read())
        assertBytes(value!, "still here")
        assert.strictEqual(socket.state.socket, "open")
      }))

    it.effect("pipeTo itself is an echo", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ capacity: 500, seed: 9 })
        const { readable, writable } = yield* WebStreams.toWebStreams(socket)
        const piping = readable.pipeTo(writable)
        yield* start(Effect.andThen(Write.writeAll(peer, pattern(30_000)), peer.shutdownWrite))
        assertBytes(yield* Read.readAll(peer), pattern(30_000))
        yield* awaiting(piping)
        yield* turns()
        assert.strictEqual(socket.state.socket, "closed")
      }))
  })

  describe("fromReadableStream", () => {
    it.effect("reads on demand, to the end, in the sizes of the reader", () =>
      Effect.gen(function*() {
        let pulls = 0
        const stream = new ReadableStream<Uint8Array>({
          pull: (controller) => {
            pulls++
            if (pulls === 1) controller.enqueue(text("hello\nwor"))
            else if (pulls === 2) controller.enqueue(new Uint8Array(0))
            else if (pulls === 3) controller.enqueue(text("ld\nrest"))
            else controller.close()
          }
        }, { highWaterMark: 0 })
        const socket = yield* WebStreams.fromReadableStream(stream)
        yield* turns()
        assert.strictEqual(pulls, 0)
        const two = new Uint8Array(2)
        assert.strictEqual(yield* socket.readSome(two), 2)
        assertBytes(two, "he")
        assertBytes(yield* Read.readUntil(socket, "\n"), "llo\n")
        assertBytes(yield* Read.readUntil(socket, "\n"), "world\n")
        assertBytes(yield* Read.readAll(socket), "rest")
        assert.strictEqual(ending(yield* Effect.exit(socket.readSome(two))), "Done")
      }))

    it.effect("interrupted reads lose nothing, and are served in order", () =>
      Effect.gen(function*() {
        let controller: ReadableStreamDefaultController<Uint8Array> | undefined
        const stream = new ReadableStream<Uint8Array>({
          start: (given) => {
            controller = given
          }
        })
        const socket = yield* WebStreams.fromReadableStream(stream)
        const targets = [1, 2, 3].map(() => new Uint8Array(1))
        const fibers = yield* Effect.forEach(targets, (target) => start(socket.readSome(target)))
        yield* Fiber.interrupt(fibers[0]!)
        controller?.enqueue(text("ab"))
        assert.deepStrictEqual(yield* Fiber.joinAll(fibers.slice(1)), [1, 1])
        assertBytes(Buffer.concat(targets), "\0ab")
      }))

    it.effect("errors are typed: ours as they were, others by their code, with the cause", () =>
      Effect.gen(function*() {
        const ours = new SocketError({ reason: Reason.BrokenPipe(), operation: "elsewhere", transferred: 0 })
        for (
          const [thrown, tag] of [
            [ours, "BrokenPipe"],
            [Object.assign(new Error("gone"), { code: "ECONNRESET" }), "ConnectionReset"],
            ["just text", "Unknown"]
          ] as const
        ) {
          const stream = new ReadableStream<Uint8Array>({ start: (controller) => controller.error(thrown) })
          const socket = yield* WebStreams.fromReadableStream(stream)
          const error = failure(yield* Effect.exit(Read.readAll(socket)))
          assert.strictEqual(error.reason._tag, tag)
          if (thrown !== ours) assert.strictEqual(error.cause, thrown)
        }
      }))

    it.effect("a chunk that is not bytes is an error, not a hang", () =>
      Effect.gen(function*() {
        const stream = new ReadableStream({ start: (controller) => controller.enqueue("text") })
        const socket = yield* WebStreams.fromReadableStream(stream)
        const error = failure(yield* Effect.exit(socket.readSome(new Uint8Array(1))))
        assert.deepStrictEqual([error.reason._tag, error.cause instanceof TypeError], ["Unknown", true])
      }))

    it.effect("locks the stream, and cancels it with the scope", () =>
      Effect.gen(function*() {
        let cancelled = 0
        const stream = new ReadableStream<Uint8Array>({ cancel: () => void cancelled++ })
        yield* Effect.scoped(Effect.gen(function*() {
          const socket = yield* WebStreams.fromReadableStream(stream)
          assert.isTrue(stream.locked)
          yield* start(socket.readSome(new Uint8Array(1)))
        }))
        assert.strictEqual(cancelled, 1)
      }))
  })

  describe("fromWritableStream", () => {
    const sink = (options?: { readonly slow?: boolean }) => {
      const seen: Array<string> = []
      const chunks: Array<Uint8Array> = []
      const taken: Array<() => void> = []
      const stream = new WritableStream<Uint8Array>({
        write: (chunk) => {
          chunks.push(chunk)
          if (options?.slow !== true) return undefined
          return new Promise((resolve) => {
            taken.push(() => resolve())
          })
        },
        close: () => void seen.push("close"),
        abort: () => void seen.push("abort")
      })
      return { stream, seen, chunks, taken }
    }

    it.effect("writes in slices of its own memory, and the end of the scope closes", () =>
      Effect.gen(function*() {
        const { chunks, seen, stream } = sink()
        const bytes = pattern(2500)
        yield* Effect.scoped(Effect.gen(function*() {
          const socket = yield* WebStreams.fromWritableStream(stream, { sliceSize: 1000 })
          assert.strictEqual(yield* Write.writeAll(socket, [bytes.subarray(0, 10), bytes.subarray(10)]), 2500)
          bytes.fill(0)
        }))
        assert.deepStrictEqual(chunks.map(({ byteLength }) => byteLength), [1000, 1000, 500])
        assertBytes(Buffer.concat(chunks), pattern(2500))
        assert.deepStrictEqual(seen, ["close"])
      }))

    it.effect("takes no more than the stream asks for", () =>
      Effect.gen(function*() {
        const { chunks, stream, taken } = sink({ slow: true })
        const socket = yield* WebStreams.fromWritableStream(stream, { sliceSize: 10 })
        assert.strictEqual(yield* socket.writeSome(pattern(100)), 10)
        const waiting = yield* start(socket.writeSome(pattern(100)))
        yield* turns()
        assert.isUndefined(waiting.pollUnsafe())
        taken.shift()?.()
        assert.strictEqual(yield* Fiber.join(waiting), 10)
        yield* turns()
        assert.strictEqual(chunks.length, 2)
        taken.shift()?.()
      }))

    it.effect("shutdownWrite waits for what was taken, and closes", () =>
      Effect.gen(function*() {
        const { seen, stream, taken } = sink({ slow: true })
        const socket = yield* WebStreams.fromWritableStream(stream)
        yield* Write.writeAll(socket, text("x"))
        const shutting = yield* start(socket.shutdownWrite)
        yield* turns()
        assert.deepStrictEqual([shutting.pollUnsafe(), seen], [undefined, []])
        taken.shift()?.()
        yield* Fiber.join(shutting)
        yield* turns()
        assert.deepStrictEqual(seen, ["close"])
        assert.strictEqual(failure(yield* Effect.exit(Write.writeAll(socket, text("x")))).reason._tag, "BrokenPipe")
      }))

    it.effect("a torn stream, and a scope that fails, abort it: what is half written must not look whole", () =>
      Effect.gen(function*() {
        const torn = sink({ slow: true })
        yield* Effect.scoped(Effect.gen(function*() {
          const socket = yield* WebStreams.fromWritableStream(torn.stream, { sliceSize: 10 })
          const writing = yield* start(Write.writeAll(socket, pattern(100)))
          yield* turns()
          yield* Fiber.interrupt(writing)
          torn.taken.shift()?.()
        }))
        const failed = sink()
        yield* Effect.ignore(Effect.scoped(Effect.gen(function*() {
          const socket = yield* WebStreams.fromWritableStream(failed.stream)
          yield* Write.writeAll(socket, text("x"))
          return yield* Effect.fail("something else")
        })))
        yield* turns()
        assert.deepStrictEqual([torn.seen, failed.seen], [["abort"], ["abort"]])
      }))

    it.effect("a sink that fails fails what waits and what comes after", () =>
      Effect.gen(function*() {
        const stream = new WritableStream<Uint8Array>({
          write: async () => {
            await setImmediate()
            throw Object.assign(new Error("gone"), { code: "EPIPE" })
          }
        })
        const socket = yield* WebStreams.fromWritableStream(stream, { sliceSize: 10 })
        const error = failure(yield* Effect.exit(Write.writeAll(socket, pattern(25))))
        assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["BrokenPipe", 10, 25])
        assert.strictEqual(failure(yield* Effect.exit(socket.shutdownWrite)).reason._tag, "BrokenPipe")
      }))
  })

  it.effect("fromWebStreams knows of a failure as soon as the stream does", () =>
    Effect.gen(function*() {
      const controllers: Array<WritableStreamDefaultController> = []
      const socket = yield* WebStreams.fromWebStreams({
        readable: new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(text("still here")) }),
        writable: new WritableStream<Uint8Array>({ start: (controller) => void controllers.push(controller) })
      })
      controllers[0]?.error(new Error("gone"))
      yield* turns()
      assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "failed" })
      const bytes = new Uint8Array(10)
      yield* Read.readExactly(socket, bytes)
      assertBytes(bytes, "still here")
    }))

  it.effect("fromWebStreams of a TransformStream is a socket that answers itself", () =>
    Effect.gen(function*() {
      const socket = yield* WebStreams.fromWebStreams(new TransformStream<Uint8Array, Uint8Array>())
      yield* start(Effect.andThen(Write.writeAll(socket, some), socket.shutdownWrite))
      assert.strictEqual(hash(yield* Read.readAll(socket)), hash(some))
    }))
})

describe("WebStreams over TCP", () => {
  it.live("megabytes through compression, a socket, and decompression", () =>
    Effect.provide(
      leavingNothing(Effect.gen(function*() {
        const [client, server] = yield* connection()
        const near = yield* WebStreams.toWebStreams(client)
        const far = yield* WebStreams.toWebStreams(server)
        const echo = far.readable.pipeTo(far.writable)
        const sent = new Blob([some]).stream().pipeThrough(new CompressionStream("gzip")).pipeTo(
          near.writable
        )
        const got = new Response(near.readable.pipeThrough(new DecompressionStream("gzip")))
        assert.strictEqual(hash(new Uint8Array(yield* Effect.promise(() => got.arrayBuffer()))), hash(some))
        yield* Effect.promise(() => Promise.all([echo, sent]))
      })),
      NodeTransport.layer
    ))

  it.live("the body of a fetch goes into a socket, and a socket is the body of a request", () =>
    Effect.provide(
      leavingNothing(Effect.gen(function*() {
        const [near, far] = yield* connection()
        const writable = yield* WebStreams.toWritableStream(near)
        const body = yield* WebStreams.toReadableStream(far)
        yield* Effect.promise(async () => {
          const piped = new Response(some).body!.pipeTo(writable)
          const request = new Request("http://x/", { method: "POST", body: body, duplex: "half" })
          assert.strictEqual(hash(new Uint8Array(await request.arrayBuffer())), hash(some))
          await piped
        })
      })),
      NodeTransport.layer
    ))
})

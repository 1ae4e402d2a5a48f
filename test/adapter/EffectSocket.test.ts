import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import { assert, describe, it } from "@effect/vitest"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as NetAddress from "effect/net/NetAddress"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import * as Acceptor from "../../src/Acceptor.ts"
import * as EffectSocket from "../../src/adapter/EffectSocket.ts"
import { concat, toUtf8, utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { readToEnd } from "../support/reading.ts"
import { start } from "../support/waiting.ts"

const { data, end, fail, take } = ScriptedStream

/** Why an exit failed, in Effect's terms. */
const reasonOf = <A, E>(exit: Exit.Exit<A, E>): Socket.SocketErrorReason => {
  const error = Exit.isFailure(exit) ? Cause.findError(exit.cause) : undefined
  if (error === undefined || Result.isFailure(error) || !Socket.isSocketError(error.success)) {
    return assert.fail(`expected Effect's SocketError, got ${ending(exit)}`)
  }
  return error.success.reason
}

/** The tag of {@link reasonOf}, and of our error in its cause. */
const tagsOf = <A, E>(exit: Exit.Exit<A, E>): readonly [string, string | undefined] => {
  const reason = reasonOf(exit)
  return [reason._tag, "cause" in reason && reason.cause instanceof SocketError ? reason.cause.reason._tag : undefined]
}

/** The code and reason that an exit was closed with. */
const closeOf = <A, E>(exit: Exit.Exit<A, E>): readonly [number, string | undefined] => {
  const reason = reasonOf(exit)
  return reason._tag === "SocketCloseError"
    ? [reason.code, reason.closeReason]
    : assert.fail(`expected SocketCloseError, got ${reason._tag}`)
}

const joined = (batch: ReadonlyArray<Uint8Array | string>): string =>
  batch.map((frame) => typeof frame === "string" ? frame : toUtf8(frame)).join("|")

/** Reader and writer of one connection, in the scope of the test. */
const open = Effect.fnUntraced(function*(socket: Socket.Socket) {
  return { ...(yield* socket.reader), ...(yield* socket.writer) }
})

describe("toSocket", () => {
  describe("reading", () => {
    it.effect("a pull gives what has arrived; the end is code 1000, again and again", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const { pull } = yield* EffectSocket.toSocket(socket).reader
        assert.strictEqual(joined(yield* pull), "one")
        assert.strictEqual(joined(yield* pull), "two")
        for (let i = 0; i < 3; i++) assert.deepStrictEqual(closeOf(yield* Effect.exit(pull)), [1000, undefined])
      }))

    it.effect("each element is memory of the consumer's own", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("one"), data("two"), end] })
        const pull = yield* Socket.readerBytes(EffectSocket.toSocket(socket))
        const [first] = yield* pull
        const [second] = yield* pull
        second.fill(0)
        assertBytes(first, "one")
        assert.strictEqual(first.byteLength, first.buffer.byteLength)
      }))

    it.effect("elements have at most chunkSize bytes, and grow to it", () =>
      Effect.gen(function*() {
        for (const chunkSize of [1, 100, 4096, 30_000, 100_000]) {
          const [left, right] = yield* MemoryTransport.pair({ capacity: 500_000 })
          yield* Write.writeAll(right, pattern(500_000))
          const chunks = Stream.take(Socket.toStream(EffectSocket.toSocket(left, { chunkSize })), 6)
          const sizes = (yield* Stream.runCollect(chunks)).map((chunk) => chunk.byteLength)
          assert.strictEqual(Math.max(...sizes), chunkSize)
        }
        const { socket } = yield* ScriptedStream.make({})
        for (const chunkSize of [0, -1, 1.5, Infinity, Number.NaN]) {
          assert.throws(() => EffectSocket.toSocket(socket, { chunkSize }), RangeError, "chunkSize")
        }
      }))

    it.effect("nothing is read before it is pulled: a consumer that does not pull stops the peer", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
        const { pull } = yield* EffectSocket.toSocket(left).reader
        const writing = yield* start(Write.writeAll(right, pattern(50)))
        for (let i = 0; i < 20; i++) yield* Effect.yieldNow
        assert.strictEqual(right.bytesWritten, 10)
        const read: Array<Uint8Array> = []
        while (read.reduce((sum, bytes) => sum + bytes.byteLength, 0) < 50) {
          for (const frame of yield* pull) {
            if (typeof frame !== "string") read.push(frame)
          }
        }
        assertBytes(concat(read), pattern(50))
        yield* Fiber.join(writing)
      }))

    it.effect("an interrupted pull loses nothing", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const { pull } = yield* EffectSocket.toSocket(left).reader
        for (const word of ["one", "two", "three"]) {
          const waiting = yield* start(pull)
          yield* Fiber.interrupt(waiting)
          yield* Write.writeAll(right, text(word))
          assert.strictEqual(joined(yield* pull), word)
        }
      }))

    it.effect("a failure is SocketReadError with our error as its cause", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [data("x"), fail(Reason.ConnectionReset())] })
        const { pull } = yield* EffectSocket.toSocket(socket).reader
        yield* pull
        assert.deepStrictEqual(tagsOf(yield* Effect.exit(pull)), ["SocketReadError", "ConnectionReset"])
      }))

    it.effect("text and streams of Effect's own work on it", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({
          reads: [data(text("gr\u00fc").subarray(0, 3)), data(text("\u00fc\u00dfe").subarray(1)), end]
        })
        const pull = yield* Socket.readerString(EffectSocket.toSocket(socket))
        assert.deepStrictEqual(yield* pull, ["gr"])
        assert.deepStrictEqual(yield* pull, ["\u00fc\u00dfe"])
        const other = yield* ScriptedStream.make({ reads: [data("ab"), fail(Reason.ConnectionReset())] })
        const exit = yield* Effect.exit(Stream.runDrain(Socket.toStream(EffectSocket.toSocket(other.socket))))
        assert.deepStrictEqual(tagsOf(exit), ["SocketReadError", "ConnectionReset"])
        assert.strictEqual(other.calls.close, 1)
      }))

    it.effect("an upgrade to TLS is not supported, and says so", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        const { upgrade } = yield* EffectSocket.toSocket(socket).reader
        assert.strictEqual(reasonOf(yield* Effect.exit(upgrade()))._tag, "SocketUpgradeError")
      }))
  })

  describe("writing", () => {
    it.effect("strings leave as UTF-8, and bytes as they are", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const { write, writeAll } = yield* open(EffectSocket.toSocket(left))
        yield* write("na\u00efve ")
        yield* write(text("bytes "))
        yield* writeAll(["\u65e5\u672c", text("!"), ""])
        yield* write("")
        yield* left.shutdownWrite
        assert.strictEqual(toUtf8(yield* Read.readAll(right)), "na\u00efve bytes \u65e5\u672c!")
      }))

    it.effect("the frames of one writeAll leave in one gather write", () =>
      Effect.gen(function*() {
        const { socket, written } = yield* ScriptedStream.make({ writes: [take(100)] })
        const { writeAll } = yield* open(EffectSocket.toSocket(socket))
        yield* writeAll(["one ", text("two "), "three"])
        assertBytes(yield* written, "one two three")
      }))

    it.effect("a peer that does not read holds the writer back", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
        const { write } = yield* open(EffectSocket.toSocket(left))
        const writing = yield* start(write(pattern(25)))
        for (let i = 0; i < 20; i++) yield* Effect.yieldNow
        assert.deepStrictEqual([writing.pollUnsafe(), left.bytesWritten], [undefined, 10])
        const all = new Uint8Array(25)
        yield* Read.readExactly(right, all)
        assertBytes(all, pattern(25))
        assert.strictEqual(ending(yield* Fiber.await(writing)), "Success")
      }))

    it.effect("frames of many fibers do not interleave", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 7, seed: 11 })
        const { write } = yield* open(EffectSocket.toSocket(left))
        const frames = Array.from({ length: 20 }, (_, i) => `${String.fromCharCode(97 + i).repeat(i * 3 + 1)}\n`)
        for (const frame of frames) yield* start(write(frame))
        for (const frame of frames) assert.strictEqual(toUtf8(yield* Read.readUntil(right, "\n")), frame)
      }))

    it.effect("a failure is SocketWriteError with our error, and its count, as the cause; reading goes on", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({
          writes: [take(2), fail(Reason.BrokenPipe())],
          reads: [data("still here"), end]
        })
        const { pull, write } = yield* open(EffectSocket.toSocket(socket))
        const exit = yield* Effect.exit(write("abc"))
        assert.deepStrictEqual(tagsOf(exit), ["SocketWriteError", "BrokenPipe"])
        const reason = reasonOf(exit)
        assert.deepInclude(reason._tag === "SocketWriteError" ? reason.cause : undefined, { transferred: 2, total: 3 })
        assert.strictEqual(joined(yield* pull), "still here")
      }))
  })

  describe("ending", () => {
    it.effect("releasing the writer half-closes behind what was written, and reading goes on", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const socket = EffectSocket.toSocket(left)
        const { pull } = yield* socket.reader
        yield* Effect.scoped(Effect.flatMap(socket.writer, ({ write }) => write("the end")))
        assert.strictEqual(toUtf8(yield* Read.readAll(right)), "the end")
        yield* Write.writeAll(right, text("reply"))
        assert.strictEqual(joined(yield* pull), "reply")
        assert.strictEqual(left.state.write, "shutdown")
      }))

    it.effect("releasing the writer does not wait for a clogged peer, and the end comes behind its bytes", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
        const socket = EffectSocket.toSocket(left)
        yield* socket.reader
        const writer = yield* Scope.make()
        const { write } = yield* Scope.provide(socket.writer, writer)
        const writing = yield* start(write(pattern(25)))
        yield* Scope.close(writer, Exit.void)
        assert.strictEqual(left.state.write, "open")
        assertBytes(yield* Read.readAll(right), pattern(25))
        assert.strictEqual(ending(yield* Fiber.await(writing)), "Success")
      }))

    it.effect("closing the scope of the reader closes the stream; pulls and writes that wait fail", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 4 })
        const socket = EffectSocket.toSocket(left)
        const scope = yield* Scope.make()
        const { pull } = yield* Scope.provide(socket.reader, scope)
        const { write } = yield* socket.writer
        const pulling = yield* start(pull)
        const writing = yield* start(write("12345678"))
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(closeOf(yield* Fiber.await(pulling)), [1006, undefined])
        assert.deepStrictEqual(tagsOf(yield* Fiber.await(writing)), ["SocketWriteError", "Closed"])
        assert.strictEqual(left.state.socket, "closed")
        const { bytes, end } = yield* readToEnd(right)
        assertBytes(bytes, "1234")
        assert.strictEqual(end, "ConnectionReset")
      }))

    it.effect("after the connection a write fails at once, since no other one will come for it", () =>
      Effect.gen(function*() {
        const [left] = yield* MemoryTransport.pair()
        const socket = EffectSocket.toSocket(left)
        const { write, writeAll } = yield* socket.writer
        yield* Effect.scoped(socket.reader)
        for (const writing of [write("a"), writeAll(["a", "b"])]) {
          assert.deepStrictEqual(tagsOf(yield* Effect.exit(Effect.uninterruptible(writing))), [
            "SocketWriteError",
            "Closed"
          ])
        }
        yield* write(new Socket.CloseEvent(1000))
      }))

    it.effect("a writer that is released after the connection has nothing to do", () =>
      Effect.gen(function*() {
        const { calls, socket } = yield* ScriptedStream.make({})
        yield* Effect.scoped(open(EffectSocket.toSocket(socket)))
        yield* Effect.scoped(EffectSocket.toSocket(socket).writer)
        assert.deepStrictEqual(calls, { shutdownWrite: 0, close: 1, abort: 0 })
      }))

    it.effect("CloseEvent 1000 closes: what was written arrives, and own pulls end with its code", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const { pull, write } = yield* open(EffectSocket.toSocket(left))
        const pulling = yield* start(pull)
        yield* write("bye")
        yield* write(new Socket.CloseEvent(1000, "done"))
        assert.deepStrictEqual(closeOf(yield* Fiber.await(pulling)), [1000, "done"])
        assert.strictEqual(toUtf8(yield* Read.readAll(right)), "bye")
        assert.deepStrictEqual(tagsOf(yield* Effect.exit(write("!"))), ["SocketWriteError", "Closed"])
      }))

    it.effect("any other CloseEvent aborts: the peer sees a reset, and own pulls end with its code", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const { pull, write } = yield* open(EffectSocket.toSocket(left))
        yield* write(new Socket.CloseEvent(1009, "too big"))
        yield* write(new Socket.CloseEvent(1000))
        assert.deepStrictEqual(closeOf(yield* Effect.exit(pull)), [1009, "too big"])
        assert.strictEqual(ending(yield* Effect.exit(Read.readAll(right))), "ConnectionReset")
      }))

    it.effect("as a channel: what goes in comes out at the peer, the other way too, and each half ends", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 100, seed: 5 })
        yield* start(
          Effect.gen(function*() {
            const request = yield* Read.readAll(right)
            yield* Write.writeAll(right, [text("got "), request])
            yield* right.close
          })
        )
        const chunks: Array<string> = []
        const exit = yield* Stream.make(
          ["a", text("b")] as Arr.NonEmptyReadonlyArray<string | Uint8Array>,
          ["c"] as const
        )
          .pipe(
            Stream.toChannel,
            Channel.flattenArray,
            Channel.pipeTo(Socket.toChannelString()(EffectSocket.toSocket(left))),
            Channel.runForEach((batch) => Effect.sync(() => chunks.push(...batch))),
            Effect.exit
          )
        assert.strictEqual(chunks.join(""), "got abc")
        assert.deepStrictEqual(closeOf(exit), [1000, undefined])
        assert.strictEqual(left.state.socket, "closed")
      }))
  })

  describe("interrupting a write", () => {
    const clogged = Effect.fnUntraced(function*(options?: EffectSocket.Options) {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 10 })
      return { left, right, ...(yield* open(EffectSocket.toSocket(left, options))) }
    })

    it.effect("where no policy is set, the frame is finished first", () =>
      Effect.gen(function*() {
        const { left, right, write } = yield* clogged()
        const writing = yield* start(write(pattern(25)))
        writing.interruptUnsafe()
        const all = new Uint8Array(25)
        yield* Read.readExactly(right, all)
        assertBytes(all, pattern(25))
        assert.deepStrictEqual(transferOf(yield* Fiber.await(writing)), {
          transferred: 25,
          total: 25,
          guarantee: "total"
        })
        yield* write("next")
        assert.strictEqual(left.state.write, "open")
      }))

    it.effect("a frame of which nothing was taken is as if never written", () =>
      Effect.gen(function*() {
        const { left, right, write } = yield* clogged()
        yield* write(pattern(10))
        const writing = yield* start(write("never"))
        yield* Fiber.interrupt(writing)
        assert.deepInclude(transferOf(yield* Fiber.await(writing)), { transferred: 0, guarantee: "total" })
        yield* left.shutdownWrite
        assertBytes(yield* Read.readAll(right), pattern(10))
      }))

    for (
      const [name, options, millis] of [
        ["2 seconds by default", undefined, 2000],
        ["as long as it is told", { within: "50 millis" }, 50]
      ] as const
    ) {
      it.effect(`a peer that does not read holds it up for ${name}, and then loses the connection`, () =>
        Effect.gen(function*() {
          const { left, pull, right, write } = yield* clogged(options)
          const pulling = yield* start(pull)
          const writing = yield* start(write(pattern(25)))
          writing.interruptUnsafe()
          yield* TestClock.adjust(millis - 1)
          assert.strictEqual(writing.pollUnsafe(), undefined)
          yield* TestClock.adjust(1)
          assert.deepStrictEqual(transferOf(yield* Fiber.await(writing)), {
            transferred: 10,
            total: 25,
            guarantee: "terminal"
          })
          assert.deepStrictEqual(closeOf(yield* Fiber.await(pulling)), [1006, "a write stopped after 10 of 25 bytes"])
          assert.strictEqual(left.state.socket, "closed")
          const exit = yield* Effect.exit(Effect.forever(right.readSome(new Uint8Array(100))))
          assert.strictEqual(ending(exit), "ConnectionReset")
        }))
    }

    it.effect("a region's own policy rules: partial stops in the frame and leaves the connection usable", () =>
      Effect.gen(function*() {
        const { left, right, write } = yield* clogged()
        const writing = yield* start(Cancellation.partial(write(pattern(25))))
        yield* Fiber.interrupt(writing)
        const transfer = transferOf(yield* Fiber.await(writing))
        assert.deepStrictEqual(transfer, { transferred: 10, total: 25, guarantee: "partial" })
        const rest = yield* start(write(pattern(25).subarray(transfer.transferred)))
        const all = new Uint8Array(25)
        yield* Read.readExactly(right, all)
        assertBytes(all, pattern(25))
        yield* Fiber.join(rest)
        assert.strictEqual(left.state.socket, "open")
      }))

    it.effect("a region's own policy rules: terminal stops at once and ends the connection", () =>
      Effect.gen(function*() {
        const { left, pull, write } = yield* clogged()
        const writing = yield* start(Cancellation.terminal(write(pattern(25))))
        yield* Fiber.interrupt(writing)
        assert.deepInclude(transferOf(yield* Fiber.await(writing)), { transferred: 10, guarantee: "terminal" })
        assert.deepStrictEqual(closeOf(yield* Effect.exit(pull))[0], 1006)
        assert.strictEqual(left.state.socket, "closed")
      }))

    it.effect("a region's own policy rules: total without a bound waits for the peer", () =>
      Effect.gen(function*() {
        const { right, write } = yield* clogged()
        const writing = yield* start(Cancellation.total(write(pattern(25))))
        writing.interruptUnsafe()
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(writing.pollUnsafe(), undefined)
        yield* Read.readExactly(right, new Uint8Array(25))
        assert.deepInclude(transferOf(yield* Fiber.await(writing)), { transferred: 25, guarantee: "total" })
      }))
  })
})

describe("makeSocket", () => {
  const listening = Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(anyPort)
    return { acceptor, socket: yield* EffectSocket.makeSocket(acceptor.address) }
  })

  it.effect("connects when its reader is acquired; what was written before waits until then", () =>
    Effect.gen(function*() {
      const { acceptor, socket } = yield* listening
      const { write, writeAll } = yield* socket.writer
      const writes = [yield* start(write("early ")), yield* start(writeAll(["bird"]))]
      yield* Effect.yieldNow
      assert.isUndefined(writes[0]?.pollUnsafe())
      yield* socket.reader
      const peer = yield* acceptor.accept
      for (const write of writes) yield* Fiber.join(write)
      const all = new Uint8Array(10)
      yield* Read.readExactly(peer, all)
      assertBytes(all, "early bird")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("connects anew each time; a write in between waits for the next connection", () =>
    Effect.gen(function*() {
      const { acceptor, socket } = yield* listening
      const { write } = yield* socket.writer
      for (const word of ["one", "two", "three"]) {
        const writing = yield* start(write(word))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* socket.reader
          const peer = yield* acceptor.accept
          const all = new Uint8Array(word.length)
          yield* Read.readExactly(peer, all)
          assertBytes(all, word)
          yield* Fiber.join(writing)
        }))
      }
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("an older connection that ends does not end the newer one", () =>
    Effect.gen(function*() {
      const { acceptor, socket } = yield* listening
      const older = yield* Scope.make()
      yield* Scope.provide(socket.reader, older)
      yield* acceptor.accept
      yield* socket.reader
      const peer = yield* acceptor.accept
      yield* Scope.close(older, Exit.void)
      const { write } = yield* socket.writer
      yield* write("to the newer")
      const all = new Uint8Array(12)
      yield* Read.readExactly(peer, all)
      assertBytes(all, "to the newer")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a connection that fails is SocketOpenError with our error as its cause", () =>
    Effect.gen(function*() {
      const refused = yield* EffectSocket.makeSocket("localhost:9")
      const exit = yield* Effect.exit(Effect.scoped(refused.reader))
      assert.deepStrictEqual(tagsOf(exit), ["SocketOpenError", "ConnectionRefused"])
      assert.deepInclude(reasonOf(exit), { kind: "Unknown" })
      const late = yield* EffectSocket.makeSocketWith(
        Effect.fail(new SocketError({ reason: Reason.TimedOut(), operation: "connect", transferred: 0 }))
      )
      assert.deepInclude(reasonOf(yield* Effect.exit(Effect.scoped(late.reader))), {
        _tag: "SocketOpenError",
        kind: "Timeout"
      })
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a retry of the reader is a reconnect", () =>
    Effect.gen(function*() {
      const { acceptor, socket } = yield* listening
      let attempts = 0
      const client = yield* start(
        Effect.gen(function*() {
          attempts++
          const { pull } = yield* socket.reader
          const received = yield* pull
          return joined(received)
        }).pipe(Effect.scoped, Effect.retry({ times: 2 }))
      )
      yield* Effect.flatMap(acceptor.take, (peer) => peer.close)
      const peer = yield* acceptor.accept
      yield* Write.writeAll(peer, text("welcome back"))
      assert.strictEqual(yield* Fiber.join(client), "welcome back")
      assert.strictEqual(attempts, 2)
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("interrupting it while it connects releases the attempt", () =>
    Effect.gen(function*() {
      let released = false
      const socket = yield* EffectSocket.makeSocketWith(
        Effect.onInterrupt(Effect.never, () => Effect.sync(() => released = true))
      )
      const opening = yield* start(Effect.scoped(socket.reader))
      yield* Fiber.interrupt(opening)
      assert.isTrue(released)
    }))

  it.effect("opens with the services of where it was made", () =>
    Effect.gen(function*() {
      class Peer extends Context.Service<Peer, string>()("Peer") {}
      const [left] = yield* MemoryTransport.pair()
      const peers: Array<string> = []
      const socket: Socket.Socket = yield* EffectSocket.makeSocketWith(
        Effect.map(Peer, (peer) => {
          peers.push(peer)
          return left
        })
      ).pipe(Effect.provideService(Peer, "made here"))
      yield* Effect.scoped(socket.reader)
      assert.deepStrictEqual(peers, ["made here"])
    }))
})

describe("SocketServer", () => {
  const words = (socket: Socket.Socket) =>
    Effect.scoped(Effect.gen(function*() {
      const { pull, write } = yield* open(socket)
      while (true) {
        const batch = yield* pull
        yield* write(`<${joined(batch)}>`)
      }
    }))

  it.effect("hands each connection to the handler, also those that came before it ran", () =>
    Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      const early = yield* StreamSocket.connect(server.address)
      yield* Write.writeAll(early, text("early"))
      yield* start(server.run(words))
      const late = yield* StreamSocket.connect(server.address)
      yield* Write.writeAll(late, text("late"))
      assert.strictEqual(toUtf8(yield* Read.readUntil(early, ">")), "<early>")
      assert.strictEqual(toUtf8(yield* Read.readUntil(late, ">")), "<late>")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a handler that fails is logged; its connection is closed, and the others go on", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const logger = Logger.make(({ logLevel, message }) => {
        logged.push([logLevel, Array.isArray(message) ? message[0] : message])
      })
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      yield* start(
        server.run((socket) =>
          Effect.scoped(Effect.gen(function*() {
            const { pull, write } = yield* open(socket)
            if (joined(yield* pull) === "fail") return yield* Effect.fail("as I was told")
            return yield* write("fine")
          }))
        ).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(References.UnhandledLogLevel, "Warn"))
      )
      const good = yield* StreamSocket.connect(server.address)
      const bad = yield* StreamSocket.connect(server.address)
      yield* Write.writeAll(bad, text("fail"))
      assertBytes(yield* Read.readAll(bad), "")
      yield* Write.writeAll(good, text("do not"))
      assertBytes(yield* Read.readAll(good), "fine")
      assert.deepStrictEqual(logged, [["Warn", "Unhandled error in SocketServer"]])
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a handler that fails as it is interrupted is logged at the same level, and nowhere else", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const logger = Logger.make(({ logLevel }) => {
        logged.push(logLevel)
      })
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      const began = yield* Deferred.make<void>()
      const running = yield* start(
        server.run(() =>
          Effect.andThen(
            Deferred.succeed(began, undefined),
            Effect.onInterrupt(Effect.never, () => Effect.die("too late"))
          )
        ).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(References.UnhandledLogLevel, "Warn"))
      )
      yield* StreamSocket.connect(server.address)
      yield* Deferred.await(began)
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(logged, ["Warn"])
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a handler that throws before it has an effect does not end the server", () =>
    Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      const running = yield* start(
        Effect.provideService(
          server.run((): Effect.Effect<void> => {
            throw new Error("no handler")
          }),
          References.UnhandledLogLevel,
          undefined
        )
      )
      for (let i = 0; i < 2; i++) {
        const socket = yield* StreamSocket.connect(server.address)
        assertBytes(yield* Read.readAll(socket), "")
      }
      assert.isUndefined(running.pollUnsafe())
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a connection is closed when its handler ends, whether it acquired the reader or not", () =>
    Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      yield* start(server.run(() => Effect.void))
      const socket = yield* StreamSocket.connect(server.address)
      assertBytes(yield* Read.readAll(socket), "")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("interrupting run interrupts the handlers and closes their connections; run can be run again", () =>
    Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      const interrupted = yield* Deferred.make<void>()
      const running = yield* start(
        server.run((socket) => Effect.onInterrupt(words(socket), () => Deferred.succeed(interrupted, undefined)))
      )
      const socket = yield* StreamSocket.connect(server.address)
      yield* Write.writeAll(socket, text("hi"))
      assert.strictEqual(toUtf8(yield* Read.readUntil(socket, ">")), "<hi>")
      yield* Fiber.interrupt(running)
      yield* Deferred.await(interrupted)
      assertBytes(yield* Read.readAll(socket), "")
      yield* start(server.run(words))
      const next = yield* StreamSocket.connect(server.address)
      yield* Write.writeAll(next, text("again"))
      assert.strictEqual(toUtf8(yield* Read.readUntil(next, ">")), "<again>")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("run fails when the acceptor is closed under it", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anyPort)
      const running = yield* start(EffectSocket.toSocketServer(acceptor).run(words))
      yield* acceptor.close
      const error = yield* Effect.flip(Fiber.join(running))
      assert.strictEqual(error.reason._tag, "SocketServerUnknownError")
      assert.strictEqual(failure(Exit.fail(error.reason.cause)).reason._tag, "Closed")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("an address in use is SocketServerOpenError with our error as its cause", () =>
    Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      const error = yield* Effect.flip(EffectSocket.makeSocketServer(server.address))
      assert.strictEqual(error.reason._tag, "SocketServerOpenError")
      assert.strictEqual(failure(Exit.fail(error.reason.cause)).reason._tag, "AddressInUse")
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("layers provide both services", () => {
    const client = Effect.scoped(Effect.gen(function*() {
      const { pull, write } = yield* open(yield* Socket.Socket)
      yield* write("hi")
      return joined(yield* pull)
    }))
    return Effect.gen(function*() {
      const server = yield* SocketServer.SocketServer
      yield* start(server.run(words))
      const answer = yield* client.pipe(Effect.provide(EffectSocket.layerSocket(server.address)))
      assert.strictEqual(answer, "<hi>")
    }).pipe(
      Effect.provide(Layer.provideMerge(EffectSocket.layerSocketServer("localhost:0"), MemoryTransport.layer))
    )
  })
})

describe("fromSocket", () => {
  type Step =
    | ReadonlyArray<Uint8Array | string>
    | Socket.SocketErrorReason
    | (() => Effect.Effect<never, Socket.SocketError>)

  /** A socket that reads what the test says, and logs what is done to it. Writes wait for the gate. */
  const scripted = (steps: ReadonlyArray<Step> = [], gate: Latch.Latch = Latch.makeUnsafe(true)) => {
    const log: Array<string> = []
    let pulls = 0
    const pull: Socket.Reader["pull"] = Effect.suspend(() => {
      const step = steps[pulls++]
      if (step === undefined) return Effect.never
      if (typeof step === "function") return step()
      if ("_tag" in step) return Effect.fail(new Socket.SocketError({ reason: step }))
      return Effect.succeed(step as Arr.NonEmptyReadonlyArray<Uint8Array | string>)
    })
    const write: Socket.Writer["write"] = (chunk) =>
      Effect.suspend(() => {
        log.push(Socket.isCloseEvent(chunk) ? `close ${chunk.code}` : `write ${chunk.length}`)
        return Socket.isCloseEvent(chunk)
          ? Effect.void
          : Effect.onInterrupt(gate.await, () => Effect.sync(() => log.push("write cut")))
      })
    const released = (what: string) => Effect.sync(() => log.push(`${what} released`))
    const socket = Socket.make({
      reader: Effect.acquireRelease(
        Effect.succeed({ pull, upgrade: Socket.SocketUpgradeError.unsupported }),
        () => released("reader")
      ),
      writer: Effect.acquireRelease(
        Effect.succeed({ write, writeAll: (chunks) => write(chunks[0]) }),
        () => released("writer")
      )
    })
    return { socket, log, gate, pulls: () => pulls }
  }

  const readError = (cause: unknown) => new Socket.SocketReadError({ cause })
  const errno = (code: string) => Object.assign(new Error(code), { code })

  it.effect("frames are one stream of bytes, and text is UTF-8", () =>
    Effect.gen(function*() {
      const { socket } = scripted([
        ["", "gr\u00fc", new Uint8Array(0)],
        [""],
        [text("\u00df"), "e", text("!")],
        new Socket.SocketCloseError({ code: 1000 })
      ])
      const stream = yield* EffectSocket.fromSocket(socket)
      assert.strictEqual(toUtf8(yield* Read.readAll(stream)), "gr\u00fc\u00dfe!")
      assert.isTrue(StreamSocket.isStreamSocket(stream))
    }))

  for (
    const [what, reason, expected] of [
      ["code 1000", new Socket.SocketCloseError({ code: 1000 }), "Done"],
      ["a close frame without a code", new Socket.SocketCloseError({ code: 1005 }), "Done"],
      ["code 1001", new Socket.SocketCloseError({ code: 1001 }), "ConnectionAborted"],
      ["code 1006", new Socket.SocketCloseError({ code: 1006 }), "ConnectionAborted"],
      ["a reset", readError(errno("ECONNRESET")), "ConnectionReset"],
      ["a failure that nobody has named", readError("it broke"), "Unknown"],
      ["a stream that Node destroyed", readError(errno("ERR_STREAM_DESTROYED")), "BrokenPipe"],
      [
        "a failure of ours",
        readError(new SocketError({ reason: Reason.TimedOut(), operation: "x", transferred: 0 })),
        "TimedOut"
      ]
    ] as const
  ) {
    it.effect(`${what} is ${expected}, again and again, behind what was read`, () =>
      Effect.gen(function*() {
        const { socket } = scripted([["ab"], reason])
        const stream = yield* EffectSocket.fromSocket(socket)
        yield* Read.readExactly(stream, new Uint8Array(2))
        for (let i = 0; i < 2; i++) {
          assert.strictEqual(ending(yield* Effect.exit(stream.readSome(new Uint8Array(1)))), expected)
        }
      }))
  }

  it.effect("a socket that dies is an error like any other", () =>
    Effect.gen(function*() {
      const { socket } = scripted([() => Effect.die(new Error("a bug"))])
      const stream = yield* EffectSocket.fromSocket(socket)
      const error = failure(yield* Effect.exit(stream.readSome(new Uint8Array(1))))
      assert.deepStrictEqual([error.reason._tag, error.cause], ["Unknown", new Error("a bug")])
    }))

  it.effect("errors name the operation and, where it was given, the peer", () =>
    Effect.gen(function*() {
      const remoteAddress = NetAddress.inetAddressFromStringUnsafe("192.0.2.1:80")
      const named = yield* EffectSocket.fromSocket(scripted([readError(errno("ETIMEDOUT"))]).socket, { remoteAddress })
      const error = failure(yield* Effect.exit(named.readSome(new Uint8Array(1))))
      assert.strictEqual(error.message, "readSome tcp://192.0.2.1:80: timed out (ETIMEDOUT)")
      const unnamed = yield* EffectSocket.fromSocket(scripted([readError(errno("ETIMEDOUT"))]).socket)
      assert.strictEqual(
        failure(yield* Effect.exit(unnamed.readSome(new Uint8Array(1)))).message,
        "readSome unix:(unnamed): timed out (ETIMEDOUT)"
      )
    }))

  it.effect("a socket that cannot be opened fails as connect does, and what was acquired is released", () =>
    Effect.gen(function*() {
      const { log, socket } = scripted()
      const opening = (reason: Socket.SocketErrorReason) =>
        EffectSocket.fromSocket(
          Socket.make({ writer: socket.writer, reader: Effect.fail(new Socket.SocketError({ reason })) })
        )
      const late = new Socket.SocketOpenError({ kind: "Timeout", cause: undefined })
      const refused = new Socket.SocketOpenError({ kind: "Unknown", cause: errno("ECONNREFUSED") })
      for (const [reason, expected] of [[late, "TimedOut"], [refused, "ConnectionRefused"]] as const) {
        const error = failure(yield* Effect.exit(opening(reason)))
        assert.deepStrictEqual([error.reason._tag, error.operation], [expected, "connect"])
      }
      assert.deepStrictEqual(log, ["writer released", "writer released"])
    }))

  it.effect("interrupting the opening releases what was acquired", () =>
    Effect.gen(function*() {
      const { log, socket } = scripted()
      const opening = yield* start(
        EffectSocket.fromSocket(Socket.make({ writer: socket.writer, reader: Effect.never }))
      )
      yield* Fiber.interrupt(opening)
      assert.deepStrictEqual(log, ["writer released"])
    }))

  it.effect("pulls only when a read wants bytes, and not before the last batch is used up", () =>
    Effect.gen(function*() {
      const { pulls, socket } = scripted([["abc", "def"], ["ghi"]])
      const stream = yield* EffectSocket.fromSocket(socket)
      const target = new Uint8Array(2)
      const seen: Array<readonly [string, number]> = []
      assert.strictEqual(pulls(), 0)
      for (let i = 0; i < 5; i++) {
        const count = yield* stream.readSome(target)
        seen.push([toUtf8(target.subarray(0, count)), pulls()])
      }
      assert.deepStrictEqual(seen, [["ab", 1], ["c", 1], ["de", 1], ["f", 1], ["gh", 2]])
    }))

  it.effect("an interrupted read leaves its pull to the next one, so that sockets that lose bytes do not", () =>
    Effect.gen(function*() {
      // Interrupting the pull of this one abandons a promise that has the bytes.
      const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
      const stream = yield* EffectSocket.fromSocket(
        yield* Socket.fromTransformStream(Effect.succeed({ readable, writable }))
      )
      for (const word of ["one", "two", "three"]) {
        const waiting = yield* start(stream.readSome(new Uint8Array(9)))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(waiting)
        yield* Write.writeAll(stream, text(word))
        const all = new Uint8Array(word.length)
        yield* Read.readExactly(stream, all)
        assertBytes(all, word)
      }
    }))

  it.effect("a write hands over one slice at a time, of memory of its own", () =>
    Effect.gen(function*() {
      const { gate, log, socket } = scripted([], Latch.makeUnsafe(false))
      const stream = yield* EffectSocket.fromSocket(socket, { sliceSize: 10 })
      const message = pattern(25)
      const writing = yield* start(Write.writeAll(stream, message))
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow
      assert.deepStrictEqual(log, ["write 10"])
      assert.strictEqual(stream.bytesWritten, 10)
      yield* gate.open
      assert.strictEqual(yield* Fiber.join(writing), 25)
      assert.deepStrictEqual(log, ["write 10", "write 10", "write 5"])
    }))

  it.effect("the caller's memory is free as soon as a write has taken it", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 4 })
      const stream = yield* EffectSocket.fromSocket(EffectSocket.toSocket(left))
      const message = text("precious")
      yield* Write.writeAll(stream, message)
      message.fill(0)
      const all = new Uint8Array(8)
      yield* Read.readExactly(right, all)
      assertBytes(all, "precious")
    }))

  it.effect("shutdownWrite waits for the slice that was handed over and releases the writer; reads go on", () =>
    Effect.gen(function*() {
      const { gate, log, socket } = scripted([["still here"]], Latch.makeUnsafe(false))
      const stream = yield* EffectSocket.fromSocket(socket)
      yield* Write.writeAll(stream, text("bye"))
      const shutting = yield* start(stream.shutdownWrite)
      yield* Effect.yieldNow
      assert.deepStrictEqual(log, ["write 3"])
      yield* gate.open
      yield* Fiber.join(shutting)
      assert.deepStrictEqual(log, ["write 3", "writer released"])
      assert.strictEqual(yield* stream.readSome(new Uint8Array(99)), 10)
    }))

  it.effect("close waits for the slice that was handed over, and releases the writer and then the reader", () =>
    Effect.gen(function*() {
      const { gate, log, socket } = scripted([], Latch.makeUnsafe(false))
      const stream = yield* EffectSocket.fromSocket(socket)
      yield* Write.writeAll(stream, text("bye"))
      const closing = yield* start(stream.close)
      yield* Effect.yieldNow
      assert.deepStrictEqual(log, ["write 3"])
      yield* gate.open
      yield* Fiber.join(closing)
      assert.deepStrictEqual(log, ["write 3", "writer released", "reader released"])
    }))

  it.effect("close gives up on a slice after the linger time; abort does at once; both say so to the socket", () =>
    Effect.gen(function*() {
      for (const how of ["close", "abort"] as const) {
        const { log, socket } = scripted([], Latch.makeUnsafe(false))
        const stream = yield* EffectSocket.fromSocket(socket, { linger: "1 second" })
        yield* Write.writeAll(stream, text("bye"))
        const ending = yield* start(stream[how])
        if (how === "close") yield* TestClock.adjust("1 second")
        yield* Fiber.join(ending)
        assert.deepStrictEqual(log, ["write 3", "write cut", "close 4000", "reader released", "writer released"])
      }
    }))

  it.effect("a connection that cannot be read is gone: writes that wait fail too, and later ones", () =>
    Effect.gen(function*() {
      const late = yield* Deferred.make<never, Socket.SocketError>()
      for (const atOnce of [true, false]) {
        const { socket } = scripted(
          [atOnce ? readError(errno("ECONNRESET")) : () => Deferred.await(late)],
          Latch.makeUnsafe(false)
        )
        const stream = yield* EffectSocket.fromSocket(socket, { linger: 0 })
        yield* Write.writeAll(stream, text("handed over"))
        const waiting = yield* start(Write.writeAll(stream, text("waiting")))
        const reading = yield* start(stream.readSome(new Uint8Array(1)))
        yield* Deferred.fail(late, new Socket.SocketError({ reason: readError(errno("ECONNRESET")) }))
        assert.strictEqual(ending(yield* Fiber.await(reading)), "ConnectionReset")
        assert.strictEqual(ending(yield* Fiber.await(waiting)), "ConnectionReset")
        assert.strictEqual(ending(yield* Effect.exit(stream.writeSome(text("!")))), "ConnectionReset")
        assert.strictEqual(ending(yield* Effect.exit(stream.shutdownWrite)), "ConnectionReset")
      }
    }))

  it.effect("after a read has failed, a write that the socket would take fails, too", () =>
    Effect.gen(function*() {
      const { log, socket } = scripted([readError(errno("ECONNRESET"))])
      const stream = yield* EffectSocket.fromSocket(socket)
      assert.strictEqual(ending(yield* Effect.exit(stream.readSome(new Uint8Array(1)))), "ConnectionReset")
      assert.strictEqual(ending(yield* Effect.exit(stream.writeSome(text("!")))), "ConnectionReset")
      assert.deepStrictEqual(log, [])
    }))

  it.effect("a scope that closes while a read waits releases everything", () =>
    Effect.gen(function*() {
      const { log, socket } = scripted()
      const reading = yield* Effect.scoped(Effect.gen(function*() {
        const stream = yield* EffectSocket.fromSocket(socket)
        const reading = yield* Effect.forkDetach(stream.readSome(new Uint8Array(1)), { startImmediately: true })
        assert.deepStrictEqual(log, [])
        return reading
      }))
      assert.strictEqual(ending(yield* Fiber.await(reading)), "Closed")
      assert.deepStrictEqual(log, ["writer released", "reader released"])
    }))

  it.live("a WebSocket carries bytes both ways, and its close is the end", () =>
    Effect.gen(function*() {
      // Outside of the count: NodeSocketServer keeps a fiber of its own that does not end.
      const server = yield* NodeSocketServer.makeWebSocket({ port: 0, host: "127.0.0.1" })
      yield* start(
        server.run((socket) =>
          Effect.scoped(Effect.gen(function*() {
            const stream = yield* EffectSocket.fromSocket(socket)
            const message = yield* Read.readUntil(stream, "\n", { max: 300_000 })
            yield* Write.writeAll(stream, [text("got "), message])
            yield* stream.close
          }))
        )
      )
      yield* leavingNothing(Effect.gen(function*() {
        const url = `ws://127.0.0.1:${portOf(server.address)}`
        const client = yield* Socket.makeWebSocket(url).pipe(Effect.provide(NodeSocket.layerWebSocketConstructor))
        const stream = yield* EffectSocket.fromSocket(client)
        const message = "\u00fc".repeat(100_000) + "\n"
        yield* Write.writeAll(stream, text(message))
        assertBytes(yield* Read.readAll(stream), `got ${message}`)
      }))
    }))
})

describe("over TCP", () => {
  const size = 4 * 1024 * 1024
  const message = pattern(size)

  const echo = (socket: Socket.Socket) =>
    Effect.scoped(Effect.gen(function*() {
      const { pull, writeAll } = yield* open(socket)
      yield* Effect.forever(Effect.flatMap(pull, writeAll), { disableYield: true })
    })).pipe(Effect.catchReason("SocketError", "SocketCloseError", () => Effect.void))

  /** Sends the message, half-closes, and reads everything. */
  const ask = (socket: Socket.Socket) =>
    Effect.scoped(Effect.gen(function*() {
      const pull = yield* Socket.readerBytes(socket)
      const received: Array<Uint8Array> = []
      const { write } = yield* socket.writer
      const sending = yield* start(
        Effect.forEach(Array.from({ length: 16 }), (_, i) =>
          write(message.subarray((i * size) / 16, ((i + 1) * size) / 16)))
      )
      let count = 0
      while (count < size) {
        for (const bytes of yield* pull) {
          received.push(bytes)
          count += bytes.byteLength
        }
      }
      yield* Fiber.join(sending)
      assertBytes(concat(received), message)
    }))

  it.live("our client and our server: 4 MiB there and back, by two clients at once", () =>
    leavingNothing(Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      const running = yield* start(server.run(echo))
      const client = yield* EffectSocket.makeSocket(server.address)
      yield* Effect.all([ask(client), ask(yield* EffectSocket.makeSocket(server.address))], { concurrency: 2 })
      // And again, over a new connection of the same socket.
      yield* ask(client)
      yield* Fiber.interrupt(running)
    })).pipe(Effect.provide(NodeTransport.layer)))

  it.live("our client and Effect's server", () =>
    Effect.gen(function*() {
      // Outside of the count: NodeSocketServer keeps a fiber of its own that does not end.
      const server = yield* NodeSocketServer.make({ port: 0, host: "127.0.0.1" })
      yield* start(server.run(echo))
      yield* leavingNothing(Effect.flatMap(EffectSocket.makeSocket(server.address), ask))
    }).pipe(Effect.provide(NodeTransport.layer)))

  it.live("Effect's client and our server", () =>
    leavingNothing(Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort)
      const running = yield* start(server.run(echo))
      yield* ask(yield* NodeSocket.makeNet({ port: portOf(server.address) }))
      yield* Fiber.interrupt(running)
    })).pipe(Effect.provide(NodeTransport.layer)))

  it.live("peers that reset, say nothing, or never read harm nobody else, and nothing is left of them", () =>
    leavingNothing(Effect.gen(function*() {
      const server = yield* EffectSocket.makeSocketServer(anyPort, { linger: "300 millis" })
      const running = yield* start(Effect.provideService(server.run(echo), References.UnhandledLogLevel, undefined))
      const peers = yield* Effect.all({
        silent: StreamSocket.connect(server.address),
        rude: StreamSocket.connect(server.address),
        early: StreamSocket.connect(server.address),
        deaf: StreamSocket.connect(server.address, { linger: 0 })
      })
      yield* peers.early.abort
      yield* Write.writeAll(peers.rude, text("x"))
      yield* peers.rude.abort
      const shouting = yield* start(Effect.forever(Write.writeAll(peers.deaf, message)))
      yield* ask(yield* EffectSocket.makeSocket(server.address))
      assert.isUndefined(running.pollUnsafe())
      assert.strictEqual(peers.silent.state.socket, "open")
      yield* Fiber.interrupt(shouting)
      yield* Fiber.interrupt(running)
      assertBytes(yield* Read.readAll(peers.silent), "")
    })).pipe(Effect.provide(NodeTransport.layer)))
})

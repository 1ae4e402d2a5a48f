import { Client } from "@effect/platform-node/Undici"
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { execFileSync } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as Http from "node:http"
import * as Http2 from "node:http2"
import * as Net from "node:net"
import { constants, tmpdir } from "node:os"
import { join } from "node:path"
import { Duplex, duplexPair, PassThrough, Readable } from "node:stream"
import { buffer as collect } from "node:stream/consumers"
import { pipeline } from "node:stream/promises"
import * as Tls from "node:tls"
import * as Acceptor from "../../src/Acceptor.ts"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import { isSocketError, Reason, type SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import type { Transport } from "../../src/Transport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { readToEnd } from "../support/reading.ts"
import { start, turns } from "../support/waiting.ts"

const { block, data, end, fail, take } = ScriptedStream

/** Waits for an event, and gives what came with it. Unlike `once` of `node:events` it does not fail on errors. */
const event = (emitter: NodeJS.EventEmitter, name: string): Effect.Effect<ReadonlyArray<unknown>> =>
  Effect.callback((resume) => {
    const listener = (...args: ReadonlyArray<unknown>) => resume(Effect.succeed(args))
    emitter.once(name, listener)
    return Effect.sync(() => emitter.off(name, listener))
  })

const closed = (duplex: Duplex): Effect.Effect<void> =>
  duplex.closed ? Effect.void : Effect.asVoid(event(duplex, "close"))

/** The errors that a stream has emitted. */
const errorsOf = (duplex: Duplex): ReadonlyArray<NodeJS.ErrnoException> => {
  const errors: Array<NodeJS.ErrnoException> = []
  duplex.on("error", (error) => errors.push(error))
  return errors
}

const causeOf = (error: Error | undefined): SocketError =>
  isSocketError(error?.cause) ? error.cause : assert.fail(`no SocketError: ${String(error?.cause)}`)

/** Everything to the end of a stream, which it leaves open; the consumers of Node destroy it. */
const readOut = (duplex: Duplex): Effect.Effect<Buffer> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    duplex.on("data", (chunk) => chunks.push(chunk))
    duplex.once("end", () => resume(Effect.sync(() => Buffer.concat(chunks))))
  })

const write = (duplex: Duplex, chunk: Uint8Array): Effect.Effect<void, Error> =>
  Effect.callback((resume) => {
    duplex.write(chunk, (error) => resume(error ? Effect.fail(error) : Effect.void))
  })

const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const some = randomBytes(3 * 1024 * 1024)

describe("NodeDuplex", () => {
  describe("toDuplex", () => {
    it.effect("has the members of a net.Socket that libraries ask for", () =>
      Effect.gen(function*() {
        const [socket] = yield* MemoryTransport.pair()
        const duplex = yield* NodeDuplex.toDuplex(socket)
        assert.instanceOf(duplex, Duplex)
        assert.deepStrictEqual(
          [duplex.remoteAddress, duplex.remotePort, duplex.remoteFamily],
          ["127.0.0.1", 2, "IPv4"]
        )
        assert.deepStrictEqual([duplex.localAddress, duplex.localPort, duplex.localFamily], ["127.0.0.1", 1, "IPv4"])
        assert.deepStrictEqual(duplex.address(), { address: "127.0.0.1", port: 1, family: "IPv4" })
        assert.deepStrictEqual(
          [duplex.connecting, duplex.pending, duplex.allowHalfOpen, duplex.readyState],
          [false, false, false, "open"]
        )
        for (
          const same of [
            duplex.ref(),
            duplex.unref(),
            duplex.setNoDelay(),
            duplex.setKeepAlive(true, 1000),
            duplex.setTimeout(0)
          ]
        ) assert.strictEqual(same, duplex)
        yield* write(duplex, text("hello"))
        assert.deepStrictEqual([duplex.bytesWritten, duplex.bytesRead], [5, 0])
      }))

    it.effect("has no addresses where there are none", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({})
        const duplex = yield* NodeDuplex.toDuplex(socket)
        assert.deepStrictEqual([duplex.remoteAddress, duplex.remotePort, duplex.localFamily], [
          undefined,
          undefined,
          undefined
        ])
        assert.deepStrictEqual(duplex.address(), {})
      }))

    it.effect("carries bytes both ways, to the end of both streams", () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 1000, seed: 5 })
        const a = yield* NodeDuplex.toDuplex(left, { allowHalfOpen: true })
        const b = yield* NodeDuplex.toDuplex(right, { allowHalfOpen: true, highWaterMark: 333 })
        const echo = pipeline(b, new PassThrough(), b)
        a.end(some.subarray(0, 100_000))
        assertBytes(yield* Effect.promise(() => collect(a)), some.subarray(0, 100_000))
        yield* Effect.promise(() => echo)
        yield* Effect.andThen(closed(a), closed(b))
        assert.deepStrictEqual([left.state.socket, right.state.socket], ["closed", "closed"])
      }))

    describe("reading", () => {
      it.effect("nothing is read before the first consumer, and no more than the mark ahead of it", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair()
          yield* Write.writeAll(peer, pattern(60_000))
          const duplex = yield* NodeDuplex.toDuplex(socket, { highWaterMark: 1000 })
          yield* turns()
          assert.strictEqual(socket.bytesRead, 0)
          const got: Array<Uint8Array> = []
          duplex.once("readable", () => got.push(duplex.read(10)))
          yield* turns()
          assert.strictEqual(got[0]?.byteLength, 10)
          assert.isAtMost(socket.bytesRead, 2000)
          yield* Write.writeAll(peer, pattern(9))
          yield* peer.shutdownWrite
          assertBytes(
            Buffer.concat([...got, yield* Effect.promise(() => collect(duplex))]),
            Buffer.concat([pattern(60_000), pattern(9)])
          )
        }))

      it.effect("chunks do not share memory with what is read later", () =>
        Effect.gen(function*() {
          const big = pattern(90)
          const { readable, socket } = yield* ScriptedStream.make({
            reads: [data("one"), block, data(big), block, data("two"), end]
          })
          const duplex = yield* NodeDuplex.toDuplex(socket, { highWaterMark: 100 })
          const chunks: Array<Buffer> = []
          duplex.on("data", (chunk) => chunks.push(chunk))
          const ending = yield* start(event(duplex, "end"))
          yield* turns()
          yield* readable
          yield* turns()
          yield* readable
          yield* Fiber.join(ending)
          assert.deepStrictEqual(chunks.map(({ byteLength }) => byteLength), [3, 90, 3])
          assertBytes(Buffer.concat(chunks), Buffer.concat([text("one"), big, text("two")]))
        }))

      it.effect("a small chunk does not hold the memory of a large one", () =>
        Effect.gen(function*() {
          const highWaterMark = 1024 * 1024
          const { socket } = yield* ScriptedStream.make({ reads: [data("small"), end] })
          const duplex = yield* NodeDuplex.toDuplex(socket, { highWaterMark })
          const [chunk] = yield* event(duplex, "data")
          assert.isBelow((chunk as Buffer).buffer.byteLength, highWaterMark)
        }))

      it.effect("the end of the peer's stream is the end of this side only", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair()
          const duplex = yield* NodeDuplex.toDuplex(socket, { allowHalfOpen: true })
          yield* peer.shutdownWrite
          assertBytes(yield* readOut(duplex), "")
          yield* turns()
          assert.deepStrictEqual([duplex.readyState, duplex.destroyed], ["writeOnly", false])
          duplex.end("still here")
          assertBytes(yield* Read.readAll(peer), "still here")
          yield* closed(duplex)
          assert.strictEqual(duplex.readyState, "closed")
        }))

      it.effect("ends the write side as well where no half-open stream is wanted", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair()
          const duplex = yield* NodeDuplex.toDuplex(socket, { allowHalfOpen: false })
          yield* peer.shutdownWrite
          duplex.resume()
          assertBytes(yield* Read.readAll(peer), "")
          yield* closed(duplex)
        }))

      it.effect("a failure is an errno-like error, after what came before it", () =>
        Effect.gen(function*() {
          const { calls, socket } = yield* ScriptedStream.make({ reads: [data("one"), fail(Reason.ConnectionReset())] })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          const errors = errorsOf(duplex)
          const got: Array<Buffer> = []
          duplex.on("data", (chunk) => got.push(chunk))
          yield* closed(duplex)
          assertBytes(Buffer.concat(got), "one")
          assert.strictEqual(errors.length, 1)
          const [error] = errors
          assert.deepStrictEqual([error?.code, error?.syscall, error?.message], [
            "ECONNRESET",
            "read",
            "read ECONNRESET"
          ])
          assert.strictEqual(error?.errno, -constants.errno.ECONNRESET)
          assert.strictEqual(causeOf(error).reason._tag, "ConnectionReset")
          assert.strictEqual(calls.abort, 1)
        }))

      it.effect("a socket that is closed by its owner is ECONNABORTED", () =>
        Effect.gen(function*() {
          const [socket] = yield* MemoryTransport.pair()
          const duplex = yield* NodeDuplex.toDuplex(socket)
          const errors = errorsOf(duplex)
          duplex.resume()
          yield* turns()
          yield* socket.close
          yield* closed(duplex)
          assert.deepStrictEqual(errors.map(({ code }) => code), ["ECONNABORTED"])
        }))

      it.effect("a reason without a name of the system's is EIO", () =>
        Effect.gen(function*() {
          const { socket } = yield* ScriptedStream.make({ reads: [fail(Reason.Tls({ kind: "truncated" }))] })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          const errors = errorsOf(duplex)
          duplex.resume()
          yield* closed(duplex)
          assert.deepStrictEqual(errors.map(({ code }) => code), ["EIO"])
          assert.strictEqual(causeOf(errors[0]).reason._tag, "Tls")
        }))

      it.effect("without anybody listening an error escapes to nobody", () =>
        Effect.gen(function*() {
          const { socket } = yield* ScriptedStream.make({ reads: [fail(Reason.ConnectionReset())] })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          duplex.resume()
          yield* closed(duplex)
          yield* turns()
          assert.strictEqual(Reflect.get(duplex.errored ?? {}, "code"), "ECONNRESET")
        }))

      it.effect("what a listener throws reaches the process, and nothing of ours is stuck by it", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair()
          const duplex = yield* NodeDuplex.toDuplex(socket)
          const caught: Array<unknown> = []
          yield* Effect.acquireRelease(
            Effect.sync(() => process.setUncaughtExceptionCaptureCallback((error) => caught.push(error))),
            () => Effect.sync(() => process.setUncaughtExceptionCaptureCallback(null))
          )
          duplex.once("data", () => {
            throw new Error("from a listener")
          })
          yield* turns()
          yield* Write.writeAll(peer, text("one"))
          yield* turns()
          assert.deepStrictEqual(caught.map(String), ["Error: from a listener"])
          const got: Array<Buffer> = []
          duplex.on("data", (chunk) => got.push(chunk))
          duplex.pause().resume()
          yield* Write.writeAll(peer, text("two"))
          yield* turns()
          assertBytes(Buffer.concat(got), "two")
        }))
    })

    describe("writing", () => {
      it.effect("chunks that were corked or queued leave in one gather write", () =>
        Effect.gen(function*() {
          // Each attempt takes all that it is offered, so there are as many attempts as gather writes.
          const { socket, writable, written } = yield* ScriptedStream.make({
            writes: [take(99), block, take(99), take(99)]
          })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          duplex.cork()
          duplex.write("a")
          duplex.write(text("b"))
          duplex.write("c")
          duplex.uncork()
          assertBytes(yield* written, "abc")
          const writing = yield* Effect.forEach(["d", "e", "f"], (word) => start(write(duplex, text(word))))
          yield* turns()
          // "d" waits for room, and what comes after it has to queue.
          yield* writable
          yield* Fiber.joinAll(writing)
          assertBytes(yield* written, "abcdef")
        }))

      it.effect("a callback comes when all of its bytes were taken, and not before", () =>
        Effect.gen(function*() {
          const { socket, writable, written } = yield* ScriptedStream.make({
            writes: [take(2), block, take(2), block, take(9)]
          })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          const fiber = yield* start(write(duplex, text("hello")))
          yield* turns()
          assert.isUndefined(fiber.pollUnsafe())
          yield* writable
          yield* turns()
          assert.isUndefined(fiber.pollUnsafe())
          yield* writable
          yield* Fiber.join(fiber)
          assertBytes(yield* written, "hello")
        }))

      it.effect("a peer that does not read holds the producer back", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair({ capacity: 100 })
          const duplex = yield* NodeDuplex.toDuplex(socket, { highWaterMark: 50 })
          assert.isTrue(duplex.write(pattern(10)))
          assert.isFalse(duplex.write(pattern(500)))
          yield* turns()
          assert.deepStrictEqual([socket.bytesWritten, duplex.writableNeedDrain], [100, true])
          const drained = yield* start(event(duplex, "drain"))
          yield* Read.readExactly(peer, new Uint8Array(510))
          yield* Fiber.join(drained)
        }))

      it.effect("end is a half-close behind everything written", () =>
        Effect.gen(function*() {
          const { calls, socket, written } = yield* ScriptedStream.make({ reads: [block], writes: [take(3), take(9)] })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          duplex.end("hello")
          yield* event(duplex, "finish")
          assertBytes(yield* written, "hello")
          assert.deepStrictEqual(calls, { shutdownWrite: 1, close: 0, abort: 0 })
          duplex.resume()
          yield* turns()
          assert.deepStrictEqual([duplex.readyState, socket.state.read], ["readOnly", "open"])
        }))

      it.effect("a failure reaches the callback and destroys the stream", () =>
        Effect.gen(function*() {
          const { socket } = yield* ScriptedStream.make({ writes: [take(2), fail(Reason.BrokenPipe())] })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          const errors = errorsOf(duplex)
          const error = yield* Effect.flip(write(duplex, text("hello")))
          yield* closed(duplex)
          assert.deepStrictEqual(errors.map(({ code }) => code), ["EPIPE"])
          assert.strictEqual(error, errors[0])
          assert.deepStrictEqual([causeOf(error).transferred, causeOf(error).total], [2, 5])
        }))

      it.effect("writing after the end fails as on any stream", () =>
        Effect.gen(function*() {
          const { socket } = yield* ScriptedStream.make({})
          const duplex = yield* NodeDuplex.toDuplex(socket)
          duplex.end()
          const error: NodeJS.ErrnoException = yield* Effect.flip(write(duplex, text("x")))
          assert.strictEqual(error.code, "ERR_STREAM_WRITE_AFTER_END")
        }))
    })

    describe("ending", () => {
      it.effect("destroy closes, destroy with an error aborts, and both close once", () =>
        Effect.gen(function*() {
          for (const [error, expected] of [[undefined, [1, 0]], [new Error("no more"), [0, 1]]] as const) {
            const { calls, socket } = yield* ScriptedStream.make({ reads: [block] })
            const duplex = yield* NodeDuplex.toDuplex(socket)
            const errors = errorsOf(duplex)
            let closes = 0
            duplex.on("close", () => closes++)
            duplex.resume()
            yield* turns()
            duplex.destroy(error)
            duplex.destroy()
            yield* turns()
            assert.deepStrictEqual([calls.close, calls.abort], [...expected])
            assert.deepStrictEqual([closes, errors], [1, error === undefined ? [] : [error]])
            assert.strictEqual(socket.state.socket, "closed")
          }
        }))

      it.effect("resetAndDestroy aborts without an error", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair()
          const duplex = yield* NodeDuplex.toDuplex(socket)
          const errors = errorsOf(duplex)
          duplex.resetAndDestroy()
          yield* closed(duplex)
          assert.deepStrictEqual(errors, [])
          assert.strictEqual(failure(yield* Effect.exit(Read.readAll(peer))).reason._tag, "ConnectionReset")
        }))

      it.effect("destroySoon waits until everything was taken", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair({ capacity: 10 })
          const duplex = yield* NodeDuplex.toDuplex(socket)
          duplex.write(pattern(1000))
          duplex.destroySoon()
          yield* turns()
          assert.isFalse(duplex.destroyed)
          assertBytes(yield* Read.readAll(peer), pattern(1000))
          yield* closed(duplex)
          duplex.destroySoon()
        }))

      it.effect("the end of the scope destroys it, and waits for the close", () =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair()
          const seen: Array<string> = []
          yield* Effect.scoped(Effect.gen(function*() {
            const duplex = yield* NodeDuplex.toDuplex(socket)
            for (const name of ["error", "end", "close"]) duplex.on(name, () => seen.push(name))
            duplex.resume()
            duplex.setTimeout(1000)
            yield* turns()
          }))
          assert.deepStrictEqual([...seen, socket.state.socket], ["close", "closed"])
          assertBytes(yield* Read.readAll(peer), "")
        }))

      it.effect("destroy cuts the write at hand by the policy of the effect that made the stream", () =>
        Effect.gen(function*() {
          for (const policy of [Cancellation.terminal, Cancellation.total()]) {
            const [socket, peer] = yield* MemoryTransport.pair({ capacity: 10 })
            const duplex = yield* policy(NodeDuplex.toDuplex(socket))
            const writing = yield* start(Effect.exit(write(duplex, pattern(100))))
            yield* turns()
            duplex.destroy()
            const { bytes, end } = yield* readToEnd(peer)
            yield* closed(duplex)
            yield* Fiber.join(writing)
            const isTorn = policy === Cancellation.terminal
            assertBytes(bytes, pattern(isTorn ? 10 : 100))
            assert.strictEqual(end, isTorn ? "ConnectionReset" : "Done")
          }
        }))

      it.effect("destroy with an error cuts it under every policy", () =>
        Effect.gen(function*() {
          const [socket] = yield* MemoryTransport.pair({ capacity: 10 })
          const duplex = yield* Cancellation.total(NodeDuplex.toDuplex(socket))
          duplex.write(pattern(100))
          yield* turns()
          duplex.destroy(new Error("no more"))
          yield* closed(duplex)
          assert.strictEqual(socket.bytesWritten, 10)
        }))

      it.effect("a request of a signal around it destroys it with ECANCELED", () =>
        Effect.gen(function*() {
          const [socket] = yield* MemoryTransport.pair()
          const signal = Cancellation.makeSignal()
          const duplex = yield* Cancellation.withSignal(NodeDuplex.toDuplex(socket), signal)
          const errors = errorsOf(duplex)
          duplex.resume()
          yield* turns()
          const { ended } = yield* signal.emit("total")
          yield* closed(duplex)
          assert.deepStrictEqual(ended.map(({ operation }) => operation), ["readSome"])
          assert.deepStrictEqual(errors.map(({ code }) => code), ["ECANCELED"])
          assert.strictEqual(causeOf(errors[0]).reason._tag, "OperationAborted")
        }))

      it.effect("a mark that makes no sense is a defect", () =>
        Effect.gen(function*() {
          const { socket } = yield* ScriptedStream.make({})
          for (const highWaterMark of [0, -1, 0.5, NaN]) {
            assert.instanceOf(defect(yield* Effect.exit(NodeDuplex.toDuplex(socket, { highWaterMark }))), RangeError)
          }
        }))
    })

    describe("setTimeout", () => {
      const timed = (options?: MemoryTransport.Options) =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair(options)
          const duplex = yield* NodeDuplex.toDuplex(socket)
          let timeouts = 0
          duplex.on("timeout", () => timeouts++)
          return { duplex, peer, after: (ms: number) => Effect.as(wait(ms), undefined), timeouts: () => timeouts }
        })
      const wait = (ms: number) => Effect.andThen(TestClock.adjust(ms), turns())

      it.effect("tells of a time without a byte, once, and again after the next byte", () =>
        Effect.gen(function*() {
          const { after, duplex, peer, timeouts } = yield* timed()
          duplex.resume()
          duplex.setTimeout(100)
          assert.strictEqual(duplex.timeout, 100)
          yield* after(99)
          assert.strictEqual(timeouts(), 0)
          yield* after(1)
          assert.strictEqual(timeouts(), 1)
          yield* after(1000)
          assert.strictEqual(timeouts(), 1)
          yield* Write.writeAll(peer, text("x"))
          yield* turns()
          yield* after(100)
          assert.strictEqual(timeouts(), 2)
          assert.isFalse(duplex.destroyed)
        }))

      it.effect("bytes in either direction start it anew", () =>
        Effect.gen(function*() {
          const { after, duplex, peer, timeouts } = yield* timed()
          duplex.resume()
          duplex.setTimeout(100)
          yield* after(60)
          yield* Write.writeAll(peer, text("x"))
          yield* turns()
          yield* after(60)
          duplex.write("x")
          yield* after(99)
          assert.strictEqual(timeouts(), 0)
          yield* after(1)
          assert.strictEqual(timeouts(), 1)
        }))

      it.effect("a write that progresses is not idle", () =>
        Effect.gen(function*() {
          const { after, duplex, peer, timeouts } = yield* timed({ capacity: 10 })
          duplex.setTimeout(100)
          duplex.write(pattern(100))
          for (let i = 0; i < 5; i++) {
            yield* after(90)
            yield* Read.readExactly(peer, new Uint8Array(10))
            yield* turns()
          }
          assert.strictEqual(timeouts(), 0)
          yield* after(300)
          assert.strictEqual(timeouts(), 1)
        }))

      it.effect("a callback is called once; 0 switches it off", () =>
        Effect.gen(function*() {
          const { after, duplex, timeouts } = yield* timed()
          let calls = 0
          const callback = () => calls++
          duplex.setTimeout(50, callback)
          yield* after(50)
          duplex.setTimeout(50, callback)
          duplex.setTimeout(0, callback)
          yield* after(500)
          assert.deepStrictEqual([calls, timeouts()], [1, 1])
          for (const wrong of [-1, NaN, Infinity]) assert.throws(() => duplex.setTimeout(wrong), RangeError)
        }))
    })

    it.effect("passes options of the socket on, in its units", () =>
      Effect.gen(function*() {
        const backing = new FakeBacking()
        const duplex = yield* NodeDuplex.toDuplex(StreamSocket.make(backing))
        duplex.setNoDelay()
        assert.deepStrictEqual(backing.configured, { noDelay: true })
        duplex.setNoDelay(false).setKeepAlive(true, 1500)
        const keepAlive = { idle: Duration.seconds(2), interval: Duration.seconds(1), count: 10 }
        assert.deepStrictEqual(backing.configured, { noDelay: false, keepAlive })
        duplex.setKeepAlive(true)
        assert.deepStrictEqual(backing.configured, { noDelay: false, keepAlive: true })
        duplex.setKeepAlive()
        assert.deepStrictEqual(backing.configured, { noDelay: false, keepAlive: false })
      }))
  })

  describe("fromDuplex", () => {
    for (
      const [name, options] of [
        ["that emits no close", { emitClose: false }],
        ["whose destroy never ends", { destroy: () => {} }]
      ] as const
    ) {
      it.live(`closing one ${name} ends all the same, and leaves nothing`, () =>
        leavingNothing(Effect.gen(function*() {
          const silent = new Duplex({ read: () => {}, write: () => {}, ...options })
          const socket = yield* NodeDuplex.fromDuplex(silent, { linger: 0 })
          yield* start(Write.writeAll(socket, text("never taken")))
          yield* socket.close
          assert.strictEqual(socket.state.socket, "closed")
        })))
    }

    it.effect("carries bytes both ways, with half-close", () =>
      Effect.gen(function*() {
        const [near, far] = duplexPair()
        const socket = yield* NodeDuplex.fromDuplex(near)
        const writing = yield* start(Effect.andThen(Write.writeAll(socket, some), socket.shutdownWrite))
        assert.strictEqual(hash(yield* readOut(far)), hash(some))
        yield* Fiber.join(writing)
        far.end("the answer")
        assertBytes(yield* Read.readAll(socket), "the answer")
        assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(1)))), "Done")
      }))

    it.effect("takes no more than the stream asks for, and copies what it takes", () =>
      Effect.gen(function*() {
        const held: Array<Buffer> = []
        const callbacks: Array<() => void> = []
        const slow = new Duplex({
          highWaterMark: 100,
          write: (chunk, _encoding, callback) => {
            held.push(chunk)
            callbacks.push(callback)
          },
          read: () => {}
        })
        const socket = yield* NodeDuplex.fromDuplex(slow, { linger: 0 })
        const bytes = pattern(250)
        const cursorless = yield* start(Write.writeAll(socket, bytes))
        assert.strictEqual(socket.bytesWritten, 100)
        bytes.fill(0, 0, 100)
        callbacks.shift()?.()
        yield* turns()
        assert.strictEqual(socket.bytesWritten, 200)
        yield* Fiber.interrupt(cursorless)
        assertBytes(Buffer.concat(held), pattern(200))
        assert.strictEqual(socket.state.write, "torn")
        while (callbacks.length > 0) callbacks.shift()?.()
      }))

    it.effect("reads on demand, and an interrupted read loses nothing", () =>
      Effect.gen(function*() {
        let pulls = 0
        const source = new Duplex({
          read: () => {
            pulls++
          },
          write: (_chunk, _encoding, callback) => callback()
        })
        const socket = yield* NodeDuplex.fromDuplex(source)
        yield* turns()
        assert.strictEqual(pulls, 0)
        for (let i = 0; i < 3; i++) {
          const reading = yield* start(socket.readSome(new Uint8Array(9)))
          yield* turns()
          yield* Fiber.interrupt(reading)
        }
        source.push("one\ntwo\n")
        source.push(null)
        assertBytes(yield* Read.readUntil(socket, "\n"), "one\n")
        assertBytes(yield* Read.readAll(socket), "two\n")
      }))

    it.effect("an error keeps its code, and what had been received is read before it", () =>
      Effect.gen(function*() {
        const source = new PassThrough()
        const socket = yield* NodeDuplex.fromDuplex(source)
        const first = new Uint8Array(2)
        source.write("one")
        yield* socket.readSome(first)
        source.destroy(Object.assign(new Error("gone"), { code: "ETIMEDOUT" }))
        yield* turns()
        assert.strictEqual(yield* socket.readSome(first), 1)
        const reading = failure(yield* Effect.exit(socket.readSome(first)))
        const writing = failure(yield* Effect.exit(socket.writeSome(first)))
        assert.deepStrictEqual([reading.reason._tag, writing.reason._tag], ["TimedOut", "TimedOut"])
        assert.strictEqual(String(reading.cause), "Error: gone")
      }))

    it.effect("an error that was there before is known", () =>
      Effect.gen(function*() {
        const source = new PassThrough()
        source.on("error", () => {})
        source.destroy(Object.assign(new Error("gone"), { code: "ETIMEDOUT" }))
        yield* turns()
        const socket = yield* NodeDuplex.fromDuplex(source)
        assert.strictEqual(failure(yield* Effect.exit(Read.readAll(socket))).reason._tag, "TimedOut")
      }))

    it.effect("an error of ours comes back as it was", () =>
      Effect.gen(function*() {
        const { socket } = yield* ScriptedStream.make({ reads: [fail(Reason.Tls({ kind: "truncated" }))] })
        const back = yield* NodeDuplex.fromDuplex(yield* NodeDuplex.toDuplex(socket))
        assert.deepStrictEqual(
          failure(yield* Effect.exit(Read.readAll(back))).reason,
          Reason.Tls({ kind: "truncated" })
        )
      }))

    it.effect("large reads do not make the stream buffer more", () =>
      Effect.gen(function*() {
        const source = new PassThrough({ highWaterMark: 100 })
        const socket = yield* NodeDuplex.fromDuplex(source)
        source.end(pattern(5000))
        assertBytes(yield* Read.readAll(socket), pattern(5000))
        assert.strictEqual(source.readableHighWaterMark, 100)
      }))

    it.effect("a stream that is destroyed without an error was reset", () =>
      Effect.gen(function*() {
        for (const early of [true, false]) {
          const [near] = duplexPair()
          if (early) near.destroy()
          yield* turns()
          const socket = yield* NodeDuplex.fromDuplex(near)
          const reading = yield* start(Effect.exit(socket.readSome(new Uint8Array(1))))
          near.destroy()
          assert.strictEqual(failure(yield* Fiber.join(reading)).reason._tag, "ConnectionReset")
          if (!early) assert.strictEqual(socket.state.write, "failed")
          yield* socket.close
          assert.strictEqual(socket.state.socket, "closed")
        }
      }))

    it.effect("an end that was there before is the end", () =>
      Effect.gen(function*() {
        const [near, far] = duplexPair()
        far.end()
        near.resume()
        yield* turns()
        const socket = yield* NodeDuplex.fromDuplex(near, { linger: 0 })
        assertBytes(yield* Read.readAll(socket), "")
      }))

    it.effect("a write side that somebody has ended is a broken pipe", () =>
      Effect.gen(function*() {
        const source = new PassThrough()
        const socket = yield* NodeDuplex.fromDuplex(source)
        source.end()
        assert.strictEqual(failure(yield* Effect.exit(Write.writeAll(socket, text("x")))).reason._tag, "BrokenPipe")
        assert.strictEqual(failure(yield* Effect.exit(socket.shutdownWrite)).reason._tag, "BrokenPipe")
      }))

    it.effect("a write that the stream refuses on the spot has taken nothing", () =>
      Effect.gen(function*() {
        const source = new Duplex({
          read: () => {},
          write: (_chunk, _encoding, callback) => callback(Object.assign(new Error("gone"), { code: "EPIPE" }))
        })
        const socket = yield* NodeDuplex.fromDuplex(source)
        assert.strictEqual(failure(yield* Effect.exit(socket.writeSome(text("x")))).reason._tag, "BrokenPipe")
        assert.strictEqual(socket.bytesWritten, 0)
      }))

    it.effect("shutdownWrite waits for what was taken; interrupted, it has done nothing", () =>
      Effect.gen(function*() {
        const callbacks: Array<() => void> = []
        const source = new Duplex({
          read: () => {},
          write: (_chunk, _encoding, callback) => void callbacks.push(callback)
        })
        const socket = yield* NodeDuplex.fromDuplex(source)
        yield* Write.writeAll(socket, text("one"))
        yield* Fiber.interrupt(yield* start(socket.shutdownWrite))
        assert.isFalse(source.writableEnded)
        const shutting = yield* start(socket.shutdownWrite)
        yield* turns()
        assert.deepStrictEqual([shutting.pollUnsafe(), source.writableEnded], [undefined, false])
        callbacks.shift()?.()
        yield* Fiber.join(shutting)
        assert.isTrue(source.writableEnded)
      }))

    it.effect("close throws unread input away, where it would hold up what was taken", () =>
      Effect.gen(function*() {
        const source = new PassThrough({ highWaterMark: 10 })
        const socket = yield* NodeDuplex.fromDuplex(source, { linger: "1 hour" })
        const writing = yield* start(Cancellation.partial(Write.writeAll(socket, pattern(100))))
        yield* socket.readSome(new Uint8Array(1))
        yield* turns()
        yield* Fiber.interrupt(writing)
        yield* socket.close
        assert.isTrue(source.writableFinished)
      }))

    it.effect("after the linger time a stream that has flushed is destroyed, and not reset", () =>
      Effect.gen(function*() {
        let resets = 0
        const source = Object.assign(
          new Duplex({ read: () => {}, write: (_chunk, _encoding, callback) => callback() }),
          {
            resetAndDestroy: () => {
              resets++
            }
          }
        )
        const socket = yield* NodeDuplex.fromDuplex(source, { linger: "2 seconds" })
        source.push("unread")
        const closing = yield* start(socket.close)
        yield* turns()
        // The peer's end is awaited, because it has sent what nobody has read.
        assert.deepStrictEqual([closing.pollUnsafe(), source.writableFinished], [undefined, true])
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(closing)
        assert.deepStrictEqual([resets, source.errored], [0, null])
      }))

    it.effect("abort destroys with an error", () =>
      Effect.gen(function*() {
        const source = new PassThrough()
        const errors = errorsOf(source)
        const socket = yield* NodeDuplex.fromDuplex(source)
        yield* socket.abort
        assert.deepStrictEqual(errors.map(({ code }) => code), ["ECONNABORTED"])
      }))

    it.effect("streams of objects or of text are refused", () =>
      Effect.gen(function*() {
        for (
          const wrong of [
            new PassThrough({ objectMode: true }),
            new PassThrough({ readableObjectMode: true }),
            new PassThrough({ writableObjectMode: true }),
            new PassThrough().setEncoding("utf8")
          ]
        ) assert.instanceOf(defect(yield* Effect.exit(NodeDuplex.fromDuplex(wrong))), TypeError)
      }))

    it.effect("knows the addresses and the options of a net.Socket, and does without", () =>
      Effect.gen(function*() {
        const calls: Array<unknown> = []
        const like = Object.assign(new PassThrough(), {
          remoteAddress: "::1",
          remotePort: 80,
          setNoDelay: (on: boolean) => calls.push(on),
          setKeepAlive: (on: boolean, delay: number) => calls.push(on, delay)
        })
        const socket = yield* NodeDuplex.fromDuplex(like)
        like.remotePort = 81
        assert.strictEqual(NetAddress.formatUrlUnsafe(socket.remoteAddress, "tcp"), "tcp://[::1]:80")
        assert.isTrue(NetAddress.isUnixPathAddress(socket.localAddress))
        yield* socket.configure({ noDelay: true, keepAlive: "2 seconds" })
        yield* socket.configure({ keepAlive: false })
        assert.deepStrictEqual(calls, [true, true, 2000, false, 0])
      }))
  })
})

// ---- libraries that take a socket, over real TCP

/** A server of Node's, on sockets of ours; answers its port. */
const served = (
  server: NodeJS.EventEmitter,
  onConnection?: (duplex: NodeDuplex.SocketDuplex) => void
): Effect.Effect<number, SocketError, Transport | Scope.Scope> =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(anyPort)
    yield* Effect.forkScoped(Acceptor.serve(acceptor, (socket) =>
      Effect.scoped(Effect.gen(function*() {
        const duplex = yield* NodeDuplex.toDuplex(socket)
        onConnection?.(duplex)
        server.emit("connection", duplex)
        yield* closed(duplex)
      }))))
    return portOf(acceptor.address)
  })

/** A server of Node's on sockets of Node's; answers its port. */
const listening = (server: Net.Server): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return (server.address() as Net.AddressInfo).port
    }),
    () => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )

/** An agent whose connections are ours, in the scope of the effect that makes it. */
const makeAgent = (options: Http.AgentOptions) =>
  Effect.gen(function*() {
    const context = yield* Effect.context<Transport | Scope.Scope>()
    const duplexes: Array<NodeDuplex.SocketDuplex> = []
    const agent = new Http.Agent(options)
    agent.createConnection = ({ port }, callback) => {
      const connecting = connected(Number(port)).pipe(
        Effect.tap((duplex) => Effect.sync(() => duplexes.push(duplex)))
      )
      Effect.runPromiseWith(context)(connecting).then(
        (duplex) => callback?.(null, duplex),
        (error: Error) => callback?.(error, new PassThrough())
      )
      return undefined
    }
    yield* Effect.addFinalizer(() => Effect.sync(() => agent.destroy()))
    return { agent, duplexes }
  })

const connected = (port: number) =>
  Effect.flatMap(
    StreamSocket.connect(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`)),
    (socket) => NodeDuplex.toDuplex(socket, { allowHalfOpen: true })
  )

interface Answer {
  readonly status: number | undefined
  readonly body: Buffer
}

const request = (options: Http.RequestOptions, body?: Iterable<Uint8Array>): Effect.Effect<Answer, Error> =>
  Effect.tryPromise({
    try: async () => {
      const message = Http.request({ host: "127.0.0.1", ...options })
      if (body === undefined) message.end()
      else pipeline(Readable.from(body), message).catch(() => {})
      const [response]: Array<Http.IncomingMessage> = await once(message, "response")
      return { status: response!.statusCode, body: await collect(response!) }
    },
    catch: (error) => error as Error
  })

const chunksOf = function*(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size)
}

const echo = (request: Http.IncomingMessage, response: Http.ServerResponse) => {
  response.setHeader("x-method", request.method ?? "")
  pipeline(request, response).catch(() => {})
}

const certificate = (() => {
  const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
  try {
    const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")]
    const named = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    const command = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 ${named}`
    execFileSync("openssl", [...command.split(" "), "-keyout", key, "-out", cert], { stdio: "ignore" })
    return { key: readFileSync(key), cert: readFileSync(cert) }
  } catch {
    console.warn("no openssl: the tests over TLS are skipped")
    return undefined
  } finally {
    rmSync(directory, { recursive: true })
  }
})()

const live = <E>(name: string, effect: () => Effect.Effect<void, E, Transport | Scope.Scope>, skip = false): void => {
  it.live.skipIf(skip)(name, () => Effect.provide(leavingNothing(effect()), NodeTransport.layer))
}

describe("node:http over sockets of ours", () => {
  live(
    "a server of ours answers a client of Node's: chunked bodies of some megabytes, on one connection",
    () =>
      Effect.gen(function*() {
        let connections = 0
        const port = yield* served(Http.createServer(echo), () => connections++)
        const agent = new Http.Agent({ keepAlive: true, maxSockets: 1 })
        yield* Effect.addFinalizer(() => Effect.sync(() => agent.destroy()))
        for (let i = 0; i < 3; i++) {
          const { body, status } = yield* request({ port, agent, method: "POST" }, chunksOf(some, 70_000))
          assert.deepStrictEqual([status, hash(body)], [200, hash(some)])
        }
        assert.strictEqual(connections, 1)
      })
  )

  live("a server of ours answers fetch", () =>
    Effect.gen(function*() {
      const port = yield* served(Http.createServer(echo))
      const body = yield* Effect.promise(async () => {
        const response = await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body: some })
        return { method: response.headers.get("x-method"), bytes: new Uint8Array(await response.arrayBuffer()) }
      })
      assert.deepStrictEqual([body.method, hash(body.bytes)], ["POST", hash(some)])
    }))

  live("a server of ours knows its peer, and closes what it says it closes", () =>
    Effect.gen(function*() {
      const port = yield* served(Http.createServer((request, response) => {
        response.setHeader("connection", "close")
        response.end(`${request.socket.remoteFamily} ${request.socket.remoteAddress}`)
      }))
      const { body } = yield* request({ port })
      assertBytes(body, "IPv4 127.0.0.1")
    }))

  live("a client that half-closes after its request still gets the answer", () =>
    Effect.gen(function*() {
      const port = yield* served(Http.createServer((_request, response) => response.end("the answer")))
      const socket = yield* StreamSocket.connect(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`))
      yield* Write.writeAll(socket, text("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
      yield* socket.shutdownWrite
      assert.match(Buffer.from(yield* Read.readAll(socket)).toString(), /^HTTP\/1.1 200 OK[^]*the answer$/)
    }))

  live("a client that goes away is an aborted request, and nothing else", () =>
    Effect.gen(function*() {
      const server = Http.createServer()
      const incoming = yield* start(event(server, "request"))
      const port = yield* served(server)
      const message = Http.request({ host: "127.0.0.1", port, method: "POST" })
      message.on("error", () => {})
      message.write("the first of many")
      const [request] = yield* Fiber.join(incoming)
      const failed = yield* start(event(request as Http.IncomingMessage, "error"))
      message.destroy()
      const [error] = yield* Fiber.join(failed)
      assert.strictEqual((error as NodeJS.ErrnoException).code, "ECONNRESET")
    }))

  live("a server's time-out ends an idle connection", () =>
    Effect.gen(function*() {
      const server = Http.createServer(echo)
      server.timeout = 30
      const port = yield* served(server)
      const socket = yield* StreamSocket.connect(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`))
      assertBytes(yield* Read.readAll(socket), "")
    }))

  live(
    "a client on our connections talks to a server of Node's: chunked bodies, on one connection",
    () =>
      Effect.gen(function*() {
        const port = yield* listening(Http.createServer(echo))
        const { agent, duplexes } = yield* makeAgent({ keepAlive: true, maxSockets: 1 })
        for (let i = 0; i < 3; i++) {
          const { body, status } = yield* request({ port, agent, method: "POST" }, chunksOf(some, 70_000))
          assert.deepStrictEqual([status, hash(body)], [200, hash(some)])
        }
        assert.strictEqual(duplexes.length, 1)
        assert.isAbove(duplexes[0]!.bytesWritten, 3 * some.byteLength)
      })
  )

  live("a server that closes in the middle is an error of the request", () =>
    Effect.gen(function*() {
      const port = yield* listening(
        Http.createServer((_request, response) => {
          response.writeHead(200, { "content-length": 1000 })
          response.write("part", () => response.destroy())
        })
      )
      const { agent } = yield* makeAgent({})
      const error: NodeJS.ErrnoException = yield* Effect.flip(request({ port, agent }))
      assert.strictEqual(error.code, "ECONNRESET")
    }))

  live("nobody listening is an error of the request", () =>
    Effect.gen(function*() {
      const port = yield* Effect.scoped(listening(Net.createServer()))
      const { agent } = yield* makeAgent({})
      const error = yield* Effect.flip(request({ port, agent }))
      assert.strictEqual(isSocketError(error) ? error.reason._tag : String(error), "ConnectionRefused")
    }))

  live("a request that is aborted closes its connection", () =>
    Effect.gen(function*() {
      const port = yield* listening(Http.createServer((_request, response) => response.write("and so on")))
      const { agent, duplexes } = yield* makeAgent({})
      const controller = new AbortController()
      const message = Http.request({ host: "127.0.0.1", port, agent, signal: controller.signal })
      message.end()
      const errors: Array<NodeJS.ErrnoException> = []
      message.on("error", (error) => errors.push(error))
      const [response] = yield* event(message, "response")
      ;(response as Http.IncomingMessage).on("error", (error) => errors.push(error)).resume()
      controller.abort()
      yield* closed(duplexes[0]!)
      assert.deepStrictEqual(errors.map(({ name }) => name), ["AbortError"])
    }))

  live("a client and a server of ours, through each other", () =>
    Effect.gen(function*() {
      const port = yield* served(Http.createServer(echo))
      const { agent } = yield* makeAgent({ keepAlive: true })
      const answers = yield* Effect.forEach(
        [1, 2, 3, 4],
        (n) => request({ port, agent, method: "PUT" }, chunksOf(some.subarray(n), 50_000)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(answers.map(({ body }) => hash(body)), [1, 2, 3, 4].map((n) => hash(some.subarray(n))))
    }))
})

describe("other libraries over sockets of ours", () => {
  live("undici", () =>
    Effect.gen(function*() {
      const port = yield* served(Http.createServer(echo))
      const context = yield* Effect.context<Transport | Scope.Scope>()
      const client = new Client(`http://127.0.0.1:${port}`, {
        connect: (_options, callback) => {
          Effect.runPromiseWith(context)(connected(port)).then(
            (duplex) => callback(null, duplex as unknown as Net.Socket),
            (error: Error) => callback(error, null)
          )
        }
      })
      yield* Effect.promise(async () => {
        for (let i = 0; i < 2; i++) {
          const { body, statusCode } = await client.request({ path: "/", method: "POST", body: some })
          assert.deepStrictEqual([statusCode, hash(Buffer.from(await body.arrayBuffer()))], [200, hash(some)])
        }
        await client.close()
      })
    }))

  live("node:http2, both ends", () =>
    Effect.gen(function*() {
      const server = Http2.createServer()
      server.on("stream", (stream: Http2.ServerHttp2Stream) => {
        stream.respond({ ":status": 200 })
        pipeline(stream, stream).catch(() => {})
      })
      const port = yield* served(server)
      const duplex = yield* connected(port)
      const session = Http2.connect(`http://127.0.0.1:${port}`, { createConnection: () => duplex })
      const bodies = yield* Effect.promise(() =>
        Promise.all([1, 2, 3].map(async (n) => {
          const stream = session.request({ ":method": "POST", ":path": "/" })
          stream.end(some.subarray(n))
          return hash(await collect(stream))
        }))
      )
      assert.deepStrictEqual(bodies, [1, 2, 3].map((n) => hash(some.subarray(n))))
      const over = yield* start(closed(duplex))
      session.close()
      yield* Fiber.join(over)
    }))

  live("tls.connect over a socket of ours, as a socket of ours again", () =>
    Effect.gen(function*() {
      const server = Tls.createServer({ ...certificate, allowHalfOpen: true }, (socket) => {
        pipeline(socket, socket).catch(() => {})
      })
      const port = yield* listening(server)
      const duplex = yield* connected(port)
      const secure = Tls.connect({ socket: duplex, ca: certificate?.cert, servername: "localhost" })
      yield* event(secure, "secureConnect")
      assert.isTrue(secure.authorized)
      const socket = yield* NodeDuplex.fromDuplex(secure)
      const writing = yield* start(Effect.andThen(Write.writeAll(socket, some), socket.shutdownWrite))
      assert.strictEqual(hash(yield* Read.readAll(socket)), hash(some))
      yield* Fiber.join(writing)
    }), certificate === undefined)

  live("a TLS certificate that nobody trusts is a typed error", () =>
    Effect.gen(function*() {
      const server = Tls.createServer({ ...certificate })
      server.on("tlsClientError", () => {})
      const port = yield* listening(server)
      const duplex = yield* connected(port)
      const socket = yield* NodeDuplex.fromDuplex(Tls.connect({ socket: duplex, servername: "localhost" }))
      const error = failure(yield* Effect.exit(Read.readAll(socket)))
      assert.strictEqual(error.code, "DEPTH_ZERO_SELF_SIGNED_CERT")
    }), certificate === undefined)

  live("stream.pipeline copies a file's worth through a socket and back", () =>
    Effect.gen(function*() {
      const server = Net.createServer({ allowHalfOpen: true }, (socket) => {
        pipeline(socket, socket).catch(() => {})
      })
      const port = yield* listening(server)
      const duplex = yield* connected(port)
      const sent = pipeline(Readable.from(chunksOf(some, 10_000)), duplex)
      assert.strictEqual(hash(yield* Effect.promise(() => collect(duplex))), hash(some))
      yield* Effect.promise(() => sent)
    }))

  live(
    "an address that is reset while it is used fails the pipeline with the system's name for it",
    () =>
      Effect.gen(function*() {
        const server = Net.createServer((socket) => void socket.once("data", () => socket.resetAndDestroy()))
        const port = yield* listening(server)
        const duplex = yield* connected(port)
        const error = yield* Effect.flip(Effect.tryPromise({
          try: () =>
            pipeline(Readable.from(chunksOf(some, 10_000)), duplex, async (source) => void await collect(source)),
          catch: (error) => error as NodeJS.ErrnoException
        }))
        assert.include(["ECONNRESET", "EPIPE"], error.code)
      })
  )
})

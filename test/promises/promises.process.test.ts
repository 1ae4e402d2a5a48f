/** The promise face: over the real kernel against raw peers of `node:net`, and in memory where the moment has to be exact. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { execFile } from "node:child_process"
import { getEventListeners, once, setMaxListeners } from "node:events"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Duplex } from "node:stream"
import { setImmediate } from "node:timers/promises"
import * as NodeTls from "node:tls"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { Script } from "node:vm"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import type * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import type * as Connector from "../../src/Connector.ts"
import {
  type Abortable,
  connect,
  fromAcceptor,
  fromStreamSocket,
  listen,
  type Listener,
  type Socket
} from "../../src/promises.ts"
import { isSocketError, type SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Tls from "../../src/Tls.ts"
import { portOf } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { authority, localhost, root } from "../support/certificates.ts"
import { hangingListener } from "../support/hangingListener.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { secured } from "../support/tls.ts"
import { steady } from "../support/waiting.ts"

const text = Buffers.utf8
const anyPort = "127.0.0.1:0"
const types: ReadonlyArray<Cancellation.Type> = ["terminal", "partial", "total"]

/** A test in plain async code that has to leave nothing open. */
const test = (name: string, body: () => Promise<void>): void => {
  it(name, () => Effect.runPromise(leavingNothing(Effect.promise(body))))
}

/** What a promise rejects with. */
const rejection = async (promise: Promise<unknown>): Promise<unknown> => {
  try {
    await promise
  } catch (error) {
    return error
  }
  return assert.fail("expected a rejection")
}

const failure = async (promise: Promise<unknown>): Promise<SocketError> => {
  const error = await rejection(promise)
  return isSocketError(error) ? error : assert.fail(`expected a SocketError, got ${String(error)}`)
}

const isPending = async (promise: Promise<unknown>): Promise<boolean> => {
  await setImmediate()
  const pending = Symbol()
  return await Promise.race([promise, Promise.resolve(pending)]) === pending
}

/** A socket of ours and the raw socket at its other end, which reads nothing by itself. */
const withPeer = async (options?: Parameters<typeof connect>[1]) => {
  const server = Net.createServer({ pauseOnConnect: true, allowHalfOpen: true })
  await once(server.listen(0, "127.0.0.1"), "listening")
  const accepted = once(server, "connection")
  const bound = server.address()
  const port = typeof bound === "object" && bound !== null ? bound.port : assert.fail("no port")
  const socket = await connect({ host: "127.0.0.1", port }, options)
  const peer: Net.Socket = (await accepted)[0]
  peer.on("error", () => {})
  server.close()
  const chunks: Array<Uint8Array> = []
  let count = 0
  /** Lets the peer read until it has that many bytes in all, or until it ends. */
  const take = (total: number): Promise<void> =>
    new Promise((resolve) => {
      const stop = () => {
        peer.pause().off("data", onData).off("end", stop).off("close", stop)
        resolve()
      }
      const onData = (chunk: Uint8Array) => {
        chunks.push(chunk)
        count += chunk.byteLength
        if (count >= total) stop()
      }
      peer.on("data", onData).on("end", stop).on("close", stop).resume()
    })
  return {
    socket,
    peer,
    take,
    received: () => Buffers.concat(chunks),
    async [Symbol.asyncDispose]() {
      await socket.abort()
      if (!peer.closed) await once(peer.destroy(), "close")
    }
  }
}

const bothEnds = async () => {
  await using listener = await listen(anyPort)
  const [left, right] = await Promise.all([connect(listener.address), listener.accept()])
  return {
    left,
    right,
    async [Symbol.asyncDispose]() {
      await left.abort()
      await right.abort()
    }
  }
}

const enough = 32 * 1_048_576

/** Waits until a write goes no further. */
const clogged = (socket: Socket): Promise<void> => Effect.runPromise(steady(() => socket.bytesWritten))

/** Tests are compiled, examples are not: before Node 24 the syntax is missing. */
const canRunExamples = (() => {
  try {
    return new Script("async () => { await using nothing = null }") instanceof Script
  } catch {
    return false
  }
})()

const readUntilEnd = async (socket: Socket): Promise<Uint8Array> => {
  const chunks: Array<Uint8Array> = []
  for await (const chunk of socket) chunks.push(chunk)
  return Buffers.concat(chunks)
}

describe("promises", () => {
  describe("connect and listen", () => {
    test("take an address, a host with a port, or both in one string", async () => {
      await using listener = await listen({ host: "127.0.0.1", port: 0 })
      const port = portOf(listener.address)
      assert.isAbove(port, 0)
      for (const target of [listener.address, `127.0.0.1:${port}`, { host: "localhost", port }]) {
        await using client = await connect(target, { keepAlive: true, noDelay: false })
        await using server = await listener.accept()
        assert.deepStrictEqual(server.remoteAddress, client.localAddress)
        assert.deepStrictEqual(server.localAddress, client.remoteAddress)
        await client.writeAll(text("ping"))
        const ping = new Uint8Array(4)
        assert.strictEqual(await server.readExactly(ping), 4)
        assertBytes(ping, "ping")
        await server.writeAll(text("pong!"))
        assertBytes((await client.readUntil("!"))!, "pong!")
        assert.strictEqual(client.bytesRead, 5)
        assert.strictEqual(client.bytesWritten, 4)
        assert.deepStrictEqual(client.state, { socket: "open", read: "open", write: "open" })
        assert.isTrue(StreamSocket.isStreamSocket(client.stream))
      }
      assert.isTrue(Acceptor.isAcceptor(listener.acceptor))
    })

    test("take a Unix-domain path, which goes away with the listener", async () => {
      const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
      try {
        const address = NetAddress.unixPathAddress(join(directory, "socket"))
        const listener = await listen(address)
        {
          await using client = await connect(address)
          await using server = await listener.accept()
          await client.writeAll(text("over a path"))
          await client.shutdownWrite()
          assertBytes(await server.readAll(), "over a path")
        }
        await listener.close()
        assert.isFalse(existsSync(address.path))
      } finally {
        rmSync(directory, { recursive: true })
      }
    })

    test("reject with the reason of the system, the address and the code", async () => {
      const listener = await listen(anyPort)
      const inUse = await failure(listen(listener.address))
      assert.strictEqual(inUse.reason._tag, "AddressInUse")
      assert.strictEqual(inUse.code, "EADDRINUSE")
      await listener.close()
      const refused = await failure(connect(listener.address))
      assert.strictEqual(refused.reason._tag, "ConnectionRefused")
      assert.strictEqual(refused.operation, "connect")
      assert.strictEqual(refused.code, "ECONNREFUSED")
      assert.deepStrictEqual(refused.address, listener.address)
      assert.strictEqual((await failure(connect("no port"))).reason._tag, "NameResolution")
    })

    test("reject wrong options with the defect itself", async () => {
      assert.instanceOf(await rejection(connect("127.0.0.1:1", { sliceSize: 0 })), RangeError)
      assert.instanceOf(await rejection(listen(anyPort, { backlog: -1 })), RangeError)
    })

    it.live("an aborted connect releases its descriptor and says why", () =>
      Effect.gen(function*() {
        const { target } = yield* hangingListener
        yield* leavingNothing(Effect.promise(async () => {
          const controller = new AbortController()
          const connecting = connect(target, { signal: controller.signal })
          assert.isTrue(await isPending(connecting))
          controller.abort("changed my mind")
          const error = await failure(connecting)
          assert.deepInclude(error.reason, { _tag: "OperationAborted", type: "total", transferred: 0, total: 0 })
          assert.strictEqual(error.operation, "connect")
          assert.deepStrictEqual(error.address, target)
          assert.strictEqual(error.cause, "changed my mind")
          assert.lengthOf(getEventListeners(controller.signal, "abort"), 0)
        }))
      }).pipe(Effect.scoped))

    test("the signal of a connect has no say in the socket that came of it", async () => {
      const controller = new AbortController()
      await using listener = await listen(anyPort, { signal: controller.signal })
      await using client = await connect(listener.address, { signal: controller.signal })
      await using server = await listener.accept({ signal: controller.signal })
      controller.abort()
      await client.writeAll(text("still here\n"))
      assertBytes((await server.readUntil("\n"))!, "still here\n")
      await using another = await connect(listener.address)
      assert.strictEqual(another.state.socket, "open")
    })
  })

  describe("reads", () => {
    test("readSome resolves to what is there, and to null at the end, as often as it is asked", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      peer.end("hello")
      const target = new Uint8Array(10)
      assert.strictEqual(await socket.readSome(target.subarray(0, 3)), 3)
      assert.strictEqual(await socket.readSome(target.subarray(3)), 2)
      assertBytes(target.subarray(0, 5), "hello")
      assert.isNull(await socket.readSome(target))
      assert.isNull(await socket.readSome(target))
      assert.strictEqual(await socket.readSome(new Uint8Array(0)), 0)
      assert.strictEqual(socket.state.read, "ended")
    })

    test("exact amounts, delimiters and the rest", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      peer.end("abcdefgh one\ntwo\r\nrest")
      const target = new Uint8Array(4)
      assert.strictEqual(await socket.readExactly(target), 4)
      assertBytes(target, "abcd")
      const many = await socket.readAtLeast(target, 1)
      assert.isAtLeast(many!, 1)
      assertBytes(target.subarray(0, many!), "efgh".slice(0, many!))
      assertBytes((await socket.readUntil(0x20))!, "efgh ".slice(many!))
      assertBytes((await socket.readUntil("\n"))!, "one\n")
      assertBytes((await socket.readUntil(/\r\n/, { max: 5 }))!, "two\r\n")
      const overLimit = await failure(socket.readAll({ max: 3 }))
      assert.deepInclude(overLimit.reason, { _tag: "LimitExceeded", limit: 3 })
      assertBytes(await socket.readAll(), "rest")
      assert.lengthOf(await socket.readAll(), 0)
      assert.isNull(await socket.readExactly(target))
      assert.isNull(await socket.readAtLeast(target, 2))
      assert.isNull(await socket.readUntil("\n"))
    })

    test("an end midway is UnexpectedEof with the count, and consumes nothing", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      peer.end("abc")
      const error = await failure(socket.readExactly(new Uint8Array(5)))
      assert.strictEqual(error.reason._tag, "UnexpectedEof")
      assert.deepInclude(error, { operation: "readExactly", transferred: 3, total: 5 })
      assert.strictEqual((await failure(socket.readUntil("\n"))).reason._tag, "UnexpectedEof")
      assertBytes(await socket.readAll(), "abc")
    })

    test("a reset is an error, and not the end", async () => {
      await using ends = await withPeer()
      const reading = failure(ends.socket.readSome(new Uint8Array(1)))
      ends.peer.resetAndDestroy()
      const error = await reading
      assert.strictEqual(error.reason._tag, "ConnectionReset")
      assert.strictEqual(error.code, "ECONNRESET")
      assert.deepStrictEqual(error.address, ends.socket.remoteAddress)
    })

    test("wrong arguments reject with the defect itself, and harm nobody", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      assert.instanceOf(await rejection(socket.readSome("text" as never)), TypeError)
      assert.instanceOf(await rejection(socket.readExactly(null as never)), TypeError)
      assert.instanceOf(await rejection(socket.readAtLeast(new Uint8Array(2), 3)), RangeError)
      assert.instanceOf(await rejection(socket.readUntil("")), RangeError)
      assert.instanceOf(await rejection(socket.writeSome("text" as never)), TypeError)
      assert.instanceOf(await rejection(socket.writeAll([1, 2] as never)), TypeError)
      peer.end("fine")
      const boom = new Error("of the caller's own")
      assert.strictEqual(
        await rejection(socket.readUntil(() => {
          throw boom
        })),
        boom
      )
      assertBytes(await socket.readAll(), "fine")
    })

    test("take their turns in the order in which they were started", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      const first = new Uint8Array(3)
      const reads = [socket.readExactly(first), socket.readUntil(" "), socket.readAll()] as const
      peer.end("onetwo three")
      assert.strictEqual(await reads[0], 3)
      assertBytes(first, "one")
      assertBytes((await reads[1])!, "two ")
      assertBytes(await reads[2], "three")
    })
  })

  describe("writes", () => {
    test("writeSome says how many, writeAll takes lists, cursors and conditions", async () => {
      await using ends = await withPeer()
      const { peer, received, socket, take } = ends
      assert.strictEqual(await socket.writeSome(text("one ")), 4)
      assert.strictEqual(await socket.writeSome([]), 0)
      assert.strictEqual(await socket.writeAll([text("two "), new DataView(text("three ").buffer)]), 10)
      const cursor = Buffers.cursor(text("four, and more"))
      assert.strictEqual(await socket.writeAll(cursor, { condition: CompletionCondition.transferExactly(4) }), 4)
      assert.strictEqual(cursor.remaining, 10)
      assert.strictEqual(await socket.writeAll(text(" five"), { condition: (count) => 3 - count }), 3)
      await socket.shutdownWrite()
      await socket.shutdownWrite()
      assert.strictEqual(socket.state.write, "shutdown")
      await take(Infinity)
      assertBytes(received(), "one two three four fi")
      peer.end("and reads go on")
      assertBytes(await socket.readAll(), "and reads go on")
    })

    test("leave whole and in the order in which they were started", async () => {
      await using ends = await bothEnds()
      const { left, right } = ends
      const parts = Array.from({ length: 20 }, (_, index) => pattern(100_000 + index))
      const written = Promise.all([...parts.map((part) => left.writeAll(part)), left.shutdownWrite()])
      assertBytes(await readUntilEnd(right), Buffers.concat(parts))
      assert.deepStrictEqual((await written).slice(0, -1), parts.map((part) => part.length))
    })

    test("on a stream that cannot be written any more reject with its reason", async () => {
      await using ends = await bothEnds()
      await ends.left.shutdownWrite()
      assert.strictEqual((await failure(ends.left.writeAll(text("late")))).reason._tag, "BrokenPipe")
    })
  })

  describe("aborting", () => {
    test("a clogged writeAll, terminal (the default): exact to the byte, and the stream is torn", async () => {
      await using ends = await withPeer()
      const { peer, received, socket, take } = ends
      const message = pattern(enough)
      const controller = new AbortController()
      const writing = failure(socket.writeAll(message, { signal: controller.signal }))
      await clogged(socket)
      controller.abort()
      const error = await writing
      const { transferred } = error
      assert.isAbove(transferred, 0)
      assert.isBelow(transferred, enough)
      assert.deepInclude(error.reason, { _tag: "OperationAborted", type: "terminal", transferred, total: enough })
      assert.deepInclude(error, { operation: "writeAll", total: enough, cause: controller.signal.reason })
      assert.strictEqual(socket.bytesWritten, transferred)

      for (const next of [socket.writeAll(text("x")), socket.writeSome(text("x")), socket.shutdownWrite()]) {
        assert.deepInclude((await failure(next)).reason, { _tag: "Torn", transferred, total: enough })
      }
      peer.write("still heard\n")
      assertBytes((await socket.readUntil("\n"))!, "still heard\n")
      await take(transferred)
      assertBytes(received(), message.subarray(0, transferred))
      const reset = once(peer.resume(), "error")
      await socket.close()
      assert.propertyVal((await reset)[0], "code", "ECONNRESET")
    })

    test("a clogged writeAll, partial: the cursor goes on, and the peer gets every byte once", async () => {
      await using ends = await withPeer()
      const { received, socket, take } = ends
      const message = pattern(enough)
      const cursor = Buffers.cursor(message)
      const write = async () => {
        const controller = new AbortController()
        const before = cursor.transferred
        const writing = failure(socket.writeAll(cursor, { signal: controller.signal, type: "partial" }))
        await clogged(socket)
        controller.abort()
        const error = await writing
        const { transferred } = error
        assert.isAbove(transferred, 0)
        assert.deepInclude(error.reason, {
          _tag: "OperationAborted",
          type: "partial",
          transferred,
          total: enough - before
        })
        assert.strictEqual(transferred, cursor.transferred - before)
        assert.strictEqual(socket.bytesWritten, cursor.transferred)
        assert.strictEqual(socket.state.write, "open")
      }
      await write()
      await take(cursor.transferred)
      assertBytes(received(), message.subarray(0, cursor.transferred))
      await write()
      const rest = cursor.remaining
      const sent = socket.writeAll(cursor)
      await take(enough)
      assert.strictEqual(await sent, rest)
      assertBytes(received(), message)
    })

    test("a clogged writeAll, total: runs on to its end", async () => {
      await using ends = await withPeer()
      const { received, socket, take } = ends
      const message = pattern(enough)
      const controller = new AbortController()
      const writing = socket.writeAll(message, { signal: controller.signal, type: "total" })
      await clogged(socket)
      controller.abort()
      assert.isTrue(await isPending(writing))
      await take(enough)
      assert.strictEqual(await writing, enough)
      assert.lengthOf(getEventListeners(controller.signal, "abort"), 0)
      await Promise.all([socket.close(), take(Infinity)])
      assertBytes(received(), message)
    })

    for (const type of types) {
      test(`what waits without having done anything ends as total when asked for ${type}`, async () => {
        await using ends = await withPeer()
        const { received, socket, take } = ends
        const controller = new AbortController()
        const options = { signal: controller.signal, type }
        const message = pattern(enough)
        const writing = socket.writeAll(message)
        await clogged(socket)
        const clear = [
          failure(socket.writeSome(text("behind"), options)),
          failure(socket.writeAll(text("it"), options)),
          failure(socket.shutdownWrite(options)),
          failure(socket.readSome(new Uint8Array(7), options)),
          failure(socket.readExactly(new Uint8Array(8), options))
        ]
        controller.abort(type)
        const errors = await Promise.all(clear)
        assert.deepStrictEqual(
          errors.map(({ operation, total, transferred }) => [operation, transferred, total]),
          [["writeSome", 0, 6], ["writeAll", 0, 2], ["shutdownWrite", 0, undefined], ["readSome", 0, 7], [
            "readExactly",
            0,
            8
          ]]
        )
        for (const { cause, reason } of errors) {
          assert.deepInclude(reason, { _tag: "OperationAborted", type: "total", transferred: 0 })
          assert.strictEqual(cause, type)
        }
        // The one in front was not asked, and nothing came behind it.
        await take(enough)
        assert.strictEqual(await writing, enough)
        await Promise.all([socket.shutdownWrite(), take(Infinity)])
        assertBytes(received(), message)
      })
    }

    const waitingReads: Record<string, (socket: Socket, options: Abortable) => Promise<unknown>> = {
      readSome: (socket, options) => socket.readSome(new Uint8Array(10), options),
      readExactly: (socket, options) => socket.readExactly(new Uint8Array(10), options),
      readAtLeast: (socket, options) => socket.readAtLeast(new Uint8Array(10), 9, options),
      readUntil: (socket, options) => socket.readUntil("\n", options),
      "readUntil with a function": (socket, options) => socket.readUntil(() => undefined, options),
      readAll: (socket, options) => socket.readAll(options)
    }
    for (const [name, read] of Object.entries(waitingReads)) {
      it.effect(`a waiting ${name}: no byte is lost, not even those that had arrived`, () =>
        Effect.gen(function*() {
          const [left, right] = (yield* MemoryTransport.pair()).map(fromStreamSocket) as [Socket, Socket]
          yield* Effect.promise(async () => {
            const arrived = name === "readSome" ? "" : "early"
            await right.writeAll(text(arrived))
            const controller = new AbortController()
            const reading = read(left, { signal: controller.signal })
            assert.isTrue(await isPending(reading))
            controller.abort()
            const { reason } = await failure(reading)
            assert.deepInclude(reason, { _tag: "OperationAborted", type: "total", transferred: 0 })
            await right.writeAll(text(" and late"))
            await right.shutdownWrite()
            assertBytes(await left.readAll(), `${arrived} and late`)
          })
        }))
    }

    it.effect("one in the middle of a line: the others are served as if it had not been there", () =>
      Effect.gen(function*() {
        const [left, right] = (yield* MemoryTransport.pair()).map(fromStreamSocket) as [Socket, Socket]
        yield* Effect.promise(async () => {
          const controller = new AbortController()
          const before = left.readUntil(" ")
          const middle = failure(left.readUntil(" ", { signal: controller.signal }))
          const behind = left.readUntil(" ")
          controller.abort()
          assert.deepInclude((await middle).reason, { _tag: "OperationAborted", type: "total" })
          await right.writeAll(text("one two "))
          assertBytes((await before)!, "one ")
          assertBytes((await behind)!, "two ")
        })
      }))

    test("an accept: the connection goes to the next one", async () => {
      await using listener = await listen(anyPort)
      const controller = new AbortController()
      const accepting = failure(listener.accept({ signal: controller.signal }))
      controller.abort()
      const error = await accepting
      assert.deepInclude(error.reason, { _tag: "OperationAborted", type: "total" })
      assert.deepInclude(error, { operation: "accept", cause: controller.signal.reason })
      await using client = await connect(listener.address)
      await using server = await listener.accept()
      assert.deepStrictEqual(server.remoteAddress, client.localAddress)
    })

    test("has no say in what its first attempt completes", async () => {
      await using ends = await withPeer()
      const { received, socket, take } = ends
      const controller = new AbortController()
      const written = socket.writeAll(text("fits"), { signal: controller.signal })
      controller.abort()
      assert.strictEqual(await written, 4)
      await socket.shutdownWrite()
      await take(Infinity)
      assertBytes(received(), "fits")
    })

    test("before the start: rejects before anything is attempted", async () => {
      await using listener = await listen(anyPort)
      await using ends = await withPeer()
      const { peer, socket } = ends
      peer.write(">unread")
      assertBytes((await socket.readUntil(">"))!, ">")
      const bytes = new Uint8Array(5)
      const cursor = Buffers.cursor(bytes)
      cursor.advance(1)
      const reason = new Error("long ago")
      const signal = AbortSignal.abort(reason)
      type Row = readonly [string, (options: Abortable) => Promise<unknown>, NetAddress.SocketAddress, number?]
      const there = socket.remoteAddress
      const here = listener.address
      const rows: ReadonlyArray<Row> = [
        ["connect", (options) => connect(here, options), here],
        ["connect", (options) => connect(here, { ...options, tls: { servername: "x" } }), here],
        ["listen", (options) => listen(here, options), here],
        ["listen", (options) => listen(here, { ...options, tls: localhost }), here],
        ["accept", (options) => listener.accept(options), here],
        ["readSome", (options) => socket.readSome(bytes, options), there, 5],
        ["readExactly", (options) => socket.readExactly(bytes, options), there, 5],
        ["readAtLeast", (options) => socket.readAtLeast(bytes, 3, options), there, 3],
        ["readUntil", (options) => socket.readUntil("d", options), there],
        ["readAll", (options) => socket.readAll(options), there],
        ["writeSome", (options) => socket.writeSome([bytes, bytes], options), there, 10],
        ["writeAll", (options) => socket.writeAll(cursor, options), there, 4],
        [
          "writeAll",
          (options) => socket.writeAll(bytes, { ...options, condition: CompletionCondition.transferExactly(2) }),
          there,
          2
        ],
        ["shutdownWrite", (options) => socket.shutdownWrite(options), there],
        ["Tls.client", (options) => socket.tlsClient({ servername: "x" }, options), there],
        ["Tls.server", (options) => socket.tlsServer(localhost, options), there]
      ]
      for (const [operation, attempt, address, total] of rows) {
        for (const type of types) {
          const error = await failure(attempt({ signal, type }))
          assert.deepInclude(
            error.reason,
            { _tag: "OperationAborted", type: "total", transferred: 0, total: total ?? 0 },
            operation
          )
          assert.strictEqual(error.operation, operation)
          assert.strictEqual(error.transferred, 0)
          assert.strictEqual(error.total, total)
          assert.strictEqual(error.cause, reason)
          assert.deepStrictEqual(error.address, address)
        }
      }
      assert.strictEqual(socket.bytesWritten, 0)
      assert.strictEqual(cursor.transferred, 1)
      assert.strictEqual(socket.state.write, "open")
      peer.end()
      assertBytes(await socket.readAll(), "unread")
    })

    test("by AbortSignal.timeout: the cause is the time-out", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      const error = await failure(socket.readSome(new Uint8Array(1), { signal: AbortSignal.timeout(1) }))
      assert.instanceOf(error.cause, DOMException)
      assert.propertyVal(error.cause, "name", "TimeoutError")
      peer.end("late")
      assertBytes(await socket.readAll(), "late")
    })

    it.effect("the error survives JSON.stringify with every field", () =>
      Effect.gen(function*() {
        const socket = fromStreamSocket((yield* MemoryTransport.clogged())[0])
        yield* Effect.promise(async () => {
          const controller = new AbortController()
          const writing = failure(socket.writeAll(pattern(10), { signal: controller.signal }))
          controller.abort(new Error("enough"))
          assert.deepInclude(JSON.parse(JSON.stringify(await writing)), {
            _tag: "SocketError",
            reason: { _tag: "OperationAborted", type: "total", transferred: 0, total: 10 },
            operation: "writeAll",
            transferred: 0,
            total: 10,
            cause: "enough"
          })
        })
      }))

    it.effect("one signal for a hundred operations at once: a listener for each type, and none afterwards", () =>
      Effect.gen(function*() {
        const warnings: Array<Error> = []
        const note = (warning: Error) => void warnings.push(warning)
        yield* Effect.acquireRelease(
          Effect.sync(() => process.on("warning", note)),
          () => Effect.sync(() => process.off("warning", note))
        )
        const pairs = yield* Effect.all(Array.from({ length: 50 }, () => MemoryTransport.clogged()))
        yield* Effect.promise(async () => {
          const controller = new AbortController()
          const { signal } = controller
          // Node 22 warns by itself, later ones have to be told.
          setMaxListeners(10, signal)
          const waiting = pairs.flatMap(([stream], index) => {
            const socket = fromStreamSocket(stream)
            const options = { signal, type: types[index % 3]! }
            return [socket.readSome(new Uint8Array(1), options), socket.writeAll(pattern(3), options)].map(failure)
          })
          await setImmediate()
          assert.lengthOf(getEventListeners(signal, "abort"), types.length)
          controller.abort()
          assert.lengthOf(getEventListeners(signal, "abort"), 0)
          for (const { reason } of await Promise.all(waiting)) assert.strictEqual(reason._tag, "OperationAborted")
          assert.deepStrictEqual(warnings, [])
        })
      }))

    it.effect("one signal for a thousand operations in a row: nothing is left on it", () =>
      Effect.gen(function*() {
        const [left, right] = (yield* MemoryTransport.pair()).map(fromStreamSocket) as [Socket, Socket]
        yield* Effect.promise(async () => {
          const { signal } = new AbortController()
          const target = new Uint8Array(8)
          for (let round = 0; round < 500; round++) {
            const reading = left.readSome(target, { signal })
            assert.strictEqual(await right.writeAll(text("x"), { signal }), 1)
            assert.strictEqual(await reading, 1)
          }
          assert.lengthOf(getEventListeners(signal, "abort"), 0)
        })
      }))

    it.effect("a signal that is none is a TypeError and harms nobody", () =>
      Effect.gen(function*() {
        const [left, right] = (yield* MemoryTransport.pair()).map(fromStreamSocket) as [Socket, Socket]
        yield* Effect.promise(async () => {
          for (const signal of [{}, "signal"]) {
            assert.instanceOf(await rejection(left.readAll({ signal: signal as never })), TypeError)
          }
          assert.instanceOf(await rejection(left.readAll({ type: "soft" as never })), TypeError)
          assert.instanceOf(await rejection(left.writeAll(text("x"), { condition: -1 as never })), TypeError)
          // As for `fetch`.
          assert.strictEqual(await left.writeSome(text("x"), { signal: null }), 1)
          await right.writeAll(text("fine"))
          await right.shutdownWrite()
          assertBytes(await left.readAll(), "fine")
        })
      }))
  })

  describe("errors", () => {
    test("have the caller on their stack, at once and after a wait", async () => {
      await using ends = await withPeer()
      const { socket } = ends
      const nobodyElse = () => socket.readSome(new Uint8Array(1))
      const waited = failure(nobodyElse())
      await socket.close()
      for (const error of [await waited, await failure(nobodyElse())]) {
        const [first, ...frames] = error.stack?.split("\n") ?? []
        assert.strictEqual(first, `SocketError: ${error.message}`)
        assert.isTrue(frames.slice(0, 2).some((frame) => frame.includes("nobodyElse")), error.stack)
      }
    })
  })

  describe("for await over a socket", () => {
    test("brings every byte once, in memory of the consumer's own, and ends with the stream", async () => {
      await using ends = await bothEnds()
      const { left, right } = ends
      const message = pattern(1_000_003)
      const sent = left.writeAll(message).then(() => left.shutdownWrite())
      const chunks: Array<Uint8Array> = []
      for await (const chunk of right) {
        assert.isAbove(chunk.byteLength, 0)
        assert.isFalse(chunks.some((other) => other.buffer === chunk.buffer))
        chunks.push(chunk)
      }
      await sent
      assertBytes(Buffers.concat(chunks), message)
      for await (const chunk of right) assert.fail(`${chunk.byteLength} bytes after the end`)
    })

    const ways: Record<string, (socket: Socket) => Promise<Uint8Array>> = {
      break: async (socket) => {
        let first = new Uint8Array()
        for await (const chunk of socket) {
          first = chunk.slice()
          break
        }
        return first
      },
      return: async (socket) => {
        for await (const chunk of socket) return chunk
        return assert.fail("no chunk")
      },
      throw: async (socket) => {
        try {
          for await (const chunk of socket) throw new Error("enough", { cause: chunk })
        } catch (error) {
          if (error instanceof Error && error.cause instanceof Uint8Array) return error.cause
          throw error
        }
        return assert.fail("no chunk")
      }
    }
    for (const [way, leave] of Object.entries(ways)) {
      test(`${way} loses no byte and closes nothing`, async () => {
        await using ends = await withPeer()
        const { peer, socket } = ends
        peer.write("one ")
        assertBytes(await leave(socket), "one ")
        assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "open" })
        peer.write("two ")
        assertBytes(await leave(socket), "two ")
        peer.end("three four")
        assertBytes((await socket.readUntil(" "))!, "three ")
        assertBytes(await readUntilEnd(socket), "four")
        await socket.writeAll(text("and writes go on"))
      })
    }

    it.effect("return() ends a next() that waits: it has read nothing", () =>
      Effect.gen(function*() {
        const [left, right] = (yield* MemoryTransport.pair()).map(fromStreamSocket) as [Socket, Socket]
        yield* Effect.promise(async () => {
          const chunks = left[Symbol.asyncIterator]()
          const waiting = [chunks.next(), chunks.next()]
          assert.isTrue(await isPending(Promise.race(waiting)))
          const over = { done: true, value: undefined } as const
          assert.deepStrictEqual(await chunks.return!(), over)
          assert.deepStrictEqual(await Promise.all(waiting), [over, over])
          assert.deepStrictEqual(await chunks.next(), over)
          await right.writeAll(text("for another"))
          const target = new Uint8Array(20)
          assertBytes(target.subarray(0, (await left.readSome(target))!), "for another")
        })
      }))

    it.effect("return() does not touch the reads of others", () =>
      Effect.gen(function*() {
        const [left, right] = (yield* MemoryTransport.pair()).map(fromStreamSocket) as [Socket, Socket]
        yield* Effect.promise(async () => {
          const [one, other] = [left[Symbol.asyncIterator](), left[Symbol.asyncIterator]()]
          const first = one.next()
          const second = other.next()
          await one.return!()
          await right.writeAll(text("mine"))
          assert.isTrue((await first).done)
          assertBytes((await second).value!, "mine")
        })
      }))

    it.effect("several next() at once are served in order, each in memory of its own", () =>
      Effect.gen(function*() {
        const [left, right] = (yield* MemoryTransport.pair({ chunk: 4 })).map(fromStreamSocket) as [Socket, Socket]
        yield* Effect.promise(async () => {
          const chunks = left[Symbol.asyncIterator]()
          assert.strictEqual(chunks[Symbol.asyncIterator](), chunks)
          const waiting = Array.from({ length: 5 }, () => chunks.next())
          await right.writeAll(text("one,two,six,"))
          await right.shutdownWrite()
          const results = await Promise.all(waiting)
          assert.deepStrictEqual(
            results.map(({ value }) => value === undefined ? undefined : Buffers.toUtf8(value)),
            ["one,", "two,", "six,", undefined, undefined]
          )
        })
      }))

    test("a failed read is thrown into the loop, once", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      peer.write("some")
      const chunks = socket[Symbol.asyncIterator]()
      assertBytes((await chunks.next()).value!, "some")
      const next = failure(chunks.next())
      peer.resetAndDestroy()
      assert.strictEqual((await next).reason._tag, "ConnectionReset")
      assert.isTrue((await chunks.next()).done)
      assert.strictEqual((await failure(readUntilEnd(socket))).reason._tag, "ConnectionReset")
    })

    test("closing the socket is thrown into the loop that waits", async () => {
      await using ends = await withPeer()
      const reading = failure(readUntilEnd(ends.socket))
      assert.isTrue(await isPending(reading))
      await ends.socket.close()
      assert.strictEqual((await reading).reason._tag, "Closed")
    })
  })

  describe("for await over a listener", () => {
    test("brings every connection, and ends when the listener is closed", async () => {
      const listener = await listen(anyPort)
      const greeted: Array<string> = []
      const serving = (async () => {
        for await (const accepted of listener) {
          await using socket = accepted
          greeted.push(Buffers.toUtf8((await socket.readUntil("\n"))!))
          await socket.writeAll(text("hello\n"))
        }
      })()
      for (const name of ["one\n", "two\n", "three\n"]) {
        await using client = await connect(listener.address)
        await client.writeAll(text(name))
        assertBytes(await client.readAll(), "hello\n")
      }
      assert.isTrue(await isPending(serving))
      await listener.close()
      await serving
      assert.deepStrictEqual(greeted, ["one\n", "two\n", "three\n"])
      for await (const socket of listener) assert.fail(`a connection of a closed listener: ${socket.state.socket}`)
    })

    const firstOf = async (listener: Listener): Promise<Socket> => {
      for await (const socket of listener) return socket
      return assert.fail("no connection")
    }

    test("leaving it loses no connection and does not close the listener", async () => {
      await using listener = await listen(anyPort)
      await using one = await connect(listener.address)
      await using other = await connect(listener.address)
      await using first = await firstOf(listener)
      await using second = await listener.accept()
      assert.sameDeepMembers([first.remoteAddress, second.remoteAddress], [one.localAddress, other.localAddress])
      await using third = await connect(listener.address)
      await using accepted = await firstOf(listener)
      assert.deepStrictEqual(accepted.remoteAddress, third.localAddress)
    })

    test("return() ends a next() that waits: the connection goes to another", async () => {
      await using listener = await listen(anyPort)
      const sockets = listener[Symbol.asyncIterator]()
      const waiting = sockets.next()
      assert.isTrue((await sockets.return!()).done)
      assert.isTrue((await waiting).done)
      await using client = await connect(listener.address)
      await using server = await listener.accept()
      assert.deepStrictEqual(server.remoteAddress, client.localAddress)
    })
  })

  describe("the end", () => {
    test("await using closes gracefully: the peer gets everything and the end", async () => {
      await using ends = await withPeer()
      {
        await using socket = ends.socket
        await socket.writeAll(pattern(300_000))
      }
      assert.deepStrictEqual(ends.socket.state, { socket: "closed", read: "closed", write: "closed" })
      await ends.take(Infinity)
      assertBytes(ends.received(), pattern(300_000))
    })

    test("await using a listener releases the address, and accepted connections go on", async () => {
      let address: NetAddress.SocketAddress
      let ends: readonly [Socket, Socket]
      {
        await using listener = await listen(anyPort)
        address = listener.address
        ends = [await connect(address), await listener.accept()]
      }
      assert.strictEqual((await failure(connect(address))).reason._tag, "ConnectionRefused")
      await using left = ends[0]
      await using right = ends[1]
      await left.writeAll(text("still here"))
      await left.shutdownWrite()
      assertBytes(await right.readAll(), "still here")
    })

    test("close answers everything that waits, and everything that comes, with Closed", async () => {
      await using ends = await withPeer()
      const { socket } = ends
      const writing = failure(socket.writeAll(pattern(enough)))
      const waiting = [socket.readSome(new Uint8Array(1)), socket.writeSome(text("x")), socket.shutdownWrite()]
        .map(failure)
      await clogged(socket)
      const taken = socket.bytesWritten
      ends.peer.resume()
      await Promise.all([socket.close(), socket.close()])
      const error = await writing
      assert.deepInclude(error, { transferred: taken, total: enough })
      const later = [
        socket.readAll(),
        socket.writeSome([]),
        socket.writeAll(text("x")),
        socket.shutdownWrite(),
        socket.configure({})
      ].map(failure)
      for (const { reason } of [error, ...await Promise.all([...waiting, ...later])]) {
        assert.strictEqual(reason._tag, "Closed")
      }
      await socket.close()
      await socket.abort()
    })

    test("a listener that was closed answers with Closed, again and again", async () => {
      const listener = await listen(anyPort)
      const waiting = failure(listener.accept())
      await listener.close()
      await listener.close()
      for (const error of [await waiting, await failure(listener.accept())]) {
        assert.strictEqual(error.reason._tag, "Closed")
        assert.deepStrictEqual(error.address, listener.address)
      }
    })

    test("abort discards what has not left, and ends a close that waits for a clogged peer", async () => {
      await using ends = await withPeer({ linger: "1 hour" })
      const { received, socket, take } = ends
      const writing = failure(socket.writeAll(pattern(enough)))
      await clogged(socket)
      const closing = socket.close()
      assert.strictEqual((await writing).reason._tag, "Closed")
      assert.isTrue(await isPending(closing))
      await socket.abort()
      await closing
      // A reset also discards what the peer has not read yet.
      await take(Infinity)
      assert.isBelow(received().byteLength, socket.bytesWritten)
    })

    test("a socket that was idle can be looked at before its next use", async () => {
      await using ends = await withPeer()
      const { peer, socket } = ends
      assert.isTrue(await socket.isReusable())
      peer.write("421 timeout")
      while (await socket.isReusable()) await setImmediate()
      const farewell = new Uint8Array(11)
      await socket.readExactly(farewell)
      assert.strictEqual(Buffers.toUtf8(farewell), "421 timeout")
      assert.isTrue(await socket.isReusable())
      peer.end()
      while (await socket.isReusable()) await setImmediate()
      await socket.close()
      assert.isFalse(await socket.isReusable())
    })

    test("options of a live connection can be changed", async () => {
      await using ends = await withPeer()
      await ends.socket.configure({ noDelay: false, keepAlive: "30 seconds" })
    })
  })

  describe("with Effect code", () => {
    it.effect("a connection has two faces, over whatever transport", () =>
      Effect.gen(function*() {
        const address = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:7000")
        const listener = fromAcceptor(yield* Acceptor.listen(address))
        const stream = yield* StreamSocket.connect(address)
        const client = fromStreamSocket(stream)
        assert.strictEqual(client.stream, stream)
        yield* Effect.promise(async () => {
          await using server = await listener.accept()
          await client.writeAll(text("from async code"))
          assertBytes((await server.readUntil("code"))!, "from async code")
          await server.writeAll(text("to Effect code"))
        })
        assert.strictEqual(yield* stream.readSome(new Uint8Array(100)), 14)
        const exit = yield* Effect.exit(stream.readSome(new Uint8Array(100)))
        assert.isTrue(exit._tag === "Failure" && exit.cause.reasons.some((reason) => Cause.isFailReason(reason)))
        assert.isNull(yield* Effect.promise(() => client.readSome(new Uint8Array(1))))
      }).pipe(Effect.provide(MemoryTransport.layer)))
  })

  describe("over TLS", () => {
    const tls = { ca: root.certificate }
    const client = root.issue({ names: ["a client"] })
    const stranger = authority("nobody's root").issue({ names: ["localhost"] })

    /** A server of `node:tls` that echoes, until the end of its block. */
    const tlsEcho = async (options: NodeTls.TlsOptions = {}) => {
      const server = NodeTls.createServer({ cert: localhost.certificate, key: localhost.keyText, ...options })
      const failures: Array<NodeJS.ErrnoException> = []
      server.on("tlsClientError", (error) => failures.push(error))
      server.on("secureConnection", (socket) => {
        socket.on("error", () => {})
        socket.pipe(socket)
      })
      await once(server.listen(0, "127.0.0.1"), "listening")
      const bound = server.address()
      const port = typeof bound === "object" && bound !== null ? bound.port : assert.fail("no port")
      return {
        port,
        failures,
        async [Symbol.asyncDispose]() {
          await once(server.close(), "close")
        }
      }
    }

    /** A client of `node:tls`, and what of TLS it has got so far. */
    const tlsPeer = async (listener: Listener, options: NodeTls.ConnectionOptions = {}) => {
      const raw = Net.connect(portOf(listener.address), "127.0.0.1")
      raw.on("error", () => {})
      await once(raw, "connect")
      const answered = once(raw, "data")
      const released = Promise.withResolvers<void>()
      let flights = 0
      // What comes behind its greeting waits to be released: the handshake is under way until then.
      const way: Duplex = new Duplex({
        read() {},
        write: (bytes, _encoding, done) => {
          const pass = () => raw.write(bytes, () => done())
          if (flights++ === 0) pass()
          else void released.promise.then(pass)
        },
        final: (done) => raw.end(() => done())
      })
      raw.on("data", (bytes) => way.push(bytes)).on("end", () => way.push(null)).on("close", () => way.destroy())
      const socket = NodeTls.connect({ socket: way, servername: "localhost", ca: root.certificate, ...options })
      socket.on("error", () => {})
      return {
        socket,
        raw,
        /** The other side has begun. */
        answered,
        /** Ends the handshake; the other side's ticket says that it has done so too. */
        async finish() {
          const session = once(socket, "session")
          released.resolve()
          await session
        },
        async [Symbol.asyncDispose]() {
          released.resolve()
          socket.destroy()
          if (!raw.closed) await once(raw.destroy(), "close")
        }
      }
    }

    /** However it ends; `once` rejects where that is by an error. */
    const closed = (socket: Net.Socket): Promise<void> =>
      new Promise((resolve) => {
        if (socket.closed) resolve()
        else socket.once("close", () => resolve())
      })

    const tlsReason = ({ reason }: SocketError) =>
      reason._tag === "Tls" ? reason : assert.fail(`not of TLS: ${reason._tag}`)

    /** Collects failures of handshakes, and waits for them. */
    const failedHandshakes = () => {
      const failures: Array<SocketError> = []
      let tell = () => {}
      return {
        failures,
        onHandshakeFailure: (error: SocketError) => {
          failures.push(error)
          tell()
        },
        count: (wanted: number): Promise<void> =>
          new Promise((resolve) => {
            tell = () => failures.length >= wanted && resolve()
            tell()
          })
      }
    }

    /** What is logged while a body runs. */
    const logged = async (body: (lines: ReadonlyArray<string>) => Promise<void>): Promise<void> => {
      const lines: Array<string> = []
      const { log } = console
      console.log = (...words) => void lines.push(words.map(String).join(" "))
      try {
        await body(lines)
      } finally {
        console.log = log
      }
    }

    test("connect to a server of node:tls, and what was agreed on", async () => {
      await using server = await tlsEcho({ ALPNProtocols: ["echo/1", "echo/2"] })
      await using socket = await connect(`localhost:${server.port}`, { tls: { ...tls, alpn: ["echo/2"] } })
      assert.deepInclude(
        { ...socket.tls },
        { protocol: "TLSv1.3", alpn: "echo/2", servername: "localhost", authorized: true }
      )
      assert.include(socket.tls.peerCertificate?.subjectAltName, "localhost")
      assert.isTrue(Tls.isTlsSocket(socket.stream))
      assert.strictEqual(socket.stream.tls, socket.tls)
      const echoed = readUntilEnd(socket)
      assert.strictEqual(await socket.writeAll(pattern(300_000)), 300_000)
      await socket.shutdownWrite()
      assertBytes(await echoed, pattern(300_000))
      await using old = await connect(`127.0.0.1:${server.port}`, { tls: { ...tls, maxVersion: "TLSv1.2" } })
      assert.deepStrictEqual([old.tls.protocol, old.tls.alpn], ["TLSv1.2", undefined])
    })

    test("listen for clients of node:tls, with a certificate of their own or without", async () => {
      await using listener = await listen(anyPort, {
        tls: { ...localhost, ca: root.certificate, alpn: ["a", "b"], clientCertificate: "request" }
      })
      const { certificate: cert, keyText: key } = client
      await using known = await tlsPeer(listener, { cert, key, ALPNProtocols: ["b"] })
      const [socket] = await Promise.all([listener.accept(), known.finish()])
      assert.deepInclude({ ...socket.tls }, { alpn: "b", servername: "localhost", authorized: true })
      assert.include(socket.tls.peerCertificate?.subject, "a client")
      assert.strictEqual(known.socket.alpnProtocol, "b")
      known.socket.end("from node:tls")
      assertBytes(await socket.readAll(), "from node:tls")
      await socket.close()
      await using unknown = await tlsPeer(listener)
      const [other] = await Promise.all([listener.accept(), unknown.finish()])
      assert.deepStrictEqual([other.tls.authorized, other.tls.peerCertificate], [false, undefined])
      await other.abort()
    })

    test("strangers and slow ones hold up nobody, and are told of", async () => {
      const { count, failures, onHandshakeFailure } = failedHandshakes()
      await using listener = await listen(anyPort, { tls: localhost, onHandshakeFailure })
      const port = portOf(listener.address)
      const serving = (async () => {
        for await (const socket of listener) {
          await socket.writeAll(text(`hello, ${socket.tls.servername}\n`))
          await socket.close()
        }
      })()
      await using slow = await tlsPeer(listener)
      await slow.answered
      const plain = Net.connect(port, "127.0.0.1", () => plain.write("GET / HTTP/1.1\r\n\r\n"))
      await closed(plain.on("error", () => {}).resume())
      await count(1)
      const refused = await failure(connect(`localhost:${port}`, { tls: { ca: stranger.certificate } }))
      assert.deepInclude(tlsReason(refused), { kind: "certificate" })
      await count(2)
      for (let i = 0; i < 3; i++) {
        await using socket = await connect(`localhost:${port}`, { tls })
        assertBytes(await socket.readAll(), "hello, localhost\n")
      }
      // The slow one was not refused: it is served when it is ready.
      slow.socket.resume()
      await slow.finish()
      await once(slow.socket, "end")
      await listener.close()
      await serving
      assert.deepStrictEqual(failures.map((error) => [error.operation, tlsReason(error).kind]), [
        ["Tls.server", "protocol"],
        ["Tls.server", "handshake"]
      ])
      for (const { address } of failures) assert.notDeepEqual(address, listener.address)
    })

    test("a certificate that cannot be trusted rejects, and everything is closed", async () => {
      await using server = await tlsEcho()
      const rows: ReadonlyArray<readonly [NonNullable<Connector.Options["tls"]>, code: string]> = [
        [{ ca: stranger.certificate }, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
        [{ ...tls, servername: "elsewhere.test" }, "ERR_TLS_CERT_ALTNAME_INVALID"]
      ]
      for (const [options, code] of rows) {
        const error = await failure(connect(`127.0.0.1:${server.port}`, { tls: options }))
        assert.strictEqual(tlsReason(error).kind, "certificate")
        assert.deepInclude(error, { operation: "Tls.client", code, transferred: 0 })
        assert.strictEqual(error.address !== undefined && "port" in error.address && error.address.port, server.port)
        assert.match(error.stack ?? "", /promises\.process\.test\.ts/)
      }
    })

    test("a client without the certificate that is required comes to no accept", async () => {
      const { count, failures, onHandshakeFailure } = failedHandshakes()
      await using listener = await listen(anyPort, {
        tls: { ...localhost, ca: root.certificate, clientCertificate: "require" },
        onHandshakeFailure
      })
      const accepting = listener.accept()
      const target = `localhost:${portOf(listener.address)}`
      await using refused = await connect(target, { tls })
      // With TLS 1.3 the client is done before the server has seen what it sends.
      assert.strictEqual(tlsReason(await failure(refused.readAll())).alert, "certificate_required")
      await count(1)
      assert.strictEqual(tlsReason(failures[0]!).kind, "certificate")
      assert.isTrue(await isPending(accepting))
      const { certificate, key } = client
      await using known = await connect(target, { tls: { ...tls, certificate, key } })
      await using socket = await accepting
      assert.deepStrictEqual(socket.remoteAddress, known.localAddress)
      assert.isTrue(socket.tls.authorized)
    })

    test("an aborted handshake is gone when it rejects; asked for less than terminal, it runs on", async () => {
      const server = Net.createServer({ pauseOnConnect: true })
      await once(server.listen(0, "127.0.0.1"), "listening")
      const bound = server.address()
      const port = typeof bound === "object" && bound !== null ? bound.port : assert.fail("no port")
      for (const type of ["total", "partial", "terminal", undefined] as const) {
        const accepted = once(server, "connection")
        const controller = new AbortController()
        const connecting = failure(connect(`127.0.0.1:${port}`, { tls, signal: controller.signal, type }))
        const [peer]: Array<Net.Socket> = await accepted
        peer!.on("error", () => {}).resume()
        const gone = closed(peer!)
        // Its greeting has come, and the handshake is under way.
        await once(peer!, "data")
        controller.abort("changed my mind")
        if (type === "total" || type === "partial") {
          assert.isTrue(await isPending(connecting))
          peer!.destroy()
          assert.notStrictEqual((await connecting).reason._tag, "OperationAborted")
        } else {
          const error = await connecting
          assert.deepInclude(error.reason, { _tag: "OperationAborted", type: "terminal", transferred: 0 })
          assert.deepInclude(error, { operation: "Tls.client", cause: "changed my mind" })
        }
        assert.lengthOf(getEventListeners(controller.signal, "abort"), 0)
        await gone
      }
      await once(server.close(), "close")
    })

    test("an aborted accept leaves the connection, whose handshake goes on, to the next one", async () => {
      await using listener = await listen(anyPort, { tls: localhost })
      await using peer = await tlsPeer(listener)
      const controller = new AbortController()
      const accepting = failure(listener.accept({ signal: controller.signal }))
      await peer.answered
      controller.abort()
      const error = await accepting
      assert.deepInclude(error.reason, { _tag: "OperationAborted", type: "total" })
      assert.deepInclude(error, { operation: "accept", cause: controller.signal.reason })
      assert.deepStrictEqual(error.address, listener.address)
      await peer.finish()
      await using socket = await listener.accept()
      assert.strictEqual(portOf(socket.remoteAddress), peer.raw.localPort)
      // The same by way of a loop that is left.
      await using other = await tlsPeer(listener)
      const sockets = listener[Symbol.asyncIterator]()
      const waiting = sockets.next()
      await other.answered
      await sockets.return!()
      assert.isTrue((await waiting).done)
      await other.finish()
      await using second = await listener.accept()
      assert.strictEqual(portOf(second.remoteAddress), other.raw.localPort)
    })

    test("nothing is taken while nobody accepts", async () => {
      await using listener = await listen(anyPort, { tls: localhost })
      await using first = await tlsPeer(listener)
      const [socket] = await Promise.all([listener.accept(), first.finish()])
      await socket.close()
      await using second = await tlsPeer(listener)
      let isAnswered = false
      void second.answered.then(() => isAnswered = true)
      // A round trip of a connection that came later, on a listener of its own.
      await using ends = await bothEnds()
      await ends.left.writeAll(text("x"))
      await ends.right.readExactly(new Uint8Array(1))
      assert.isFalse(isAnswered)
      const [other] = await Promise.all([listener.accept(), second.finish()])
      await other.close()
    })

    test("closing the listener resets what nobody has accepted, in or behind its handshake", async () => {
      await logged(async (lines) => {
        const { failures, onHandshakeFailure } = failedHandshakes()
        const listener = await listen(anyPort, { tls: localhost, onHandshakeFailure })
        const accepting = listener.accept()
        await using first = await tlsPeer(listener)
        await using ready = await tlsPeer(listener)
        await using unready = await tlsPeer(listener)
        await Promise.all([first.answered, ready.answered, unready.answered])
        await first.finish()
        await using socket = await accepting
        await ready.finish()
        const closing = listener.close().then(() => "closed")
        assert.strictEqual((await failure(listener.accept())).reason._tag, "Closed")
        // Again, it waits for as much.
        assert.strictEqual(await Promise.race([closing, listener.close().then(() => "closed again")]), "closed")
        await Promise.all([closed(ready.raw), closed(unready.raw)])
        for await (const socket of listener) assert.fail(`a connection of a closed listener: ${socket.tls.protocol}`)
        // Nobody's handshake has failed, and what was accepted goes on.
        assert.deepStrictEqual([failures, lines], [[], []])
        first.socket.end("still here")
        assertBytes(await socket.readAll(), "still here")
      })
    })

    test("closing the listener ends every accept that waits, also when it is closed for Effect code", async () => {
      for (const isForEffect of [false, true]) {
        await using listener = await listen(anyPort, { tls: localhost })
        const waiting = [failure(listener.accept()), failure(listener.accept())]
        await using peer = await tlsPeer(listener)
        await peer.answered
        await (isForEffect ? Effect.runPromise(listener.acceptor.close) : listener.close())
        for (const error of await Promise.all(waiting)) {
          assert.deepInclude(error, { operation: "accept" })
          assert.strictEqual(error.reason._tag, "Closed")
          assert.deepStrictEqual(error.address, listener.address)
        }
      }
    })

    test("options that cannot be used reject at once, and leave nothing", async () => {
      const noKey = await failure(listen(anyPort, { tls: { ...localhost, key: stranger.key } }))
      assert.include(tlsReason(noKey).detail, "the options of this side cannot be used")
      assert.instanceOf(await rejection(listen(anyPort, { tls: null as never })), TypeError)
      await using listener = await listen(anyPort)
      const connecting = failure(connect(listener.address, { tls: { ca: "nonsense", servername: "localhost" } }))
      await using accepted = await listener.accept()
      assert.lengthOf(await accepted.readAll(), 0)
      assert.include(tlsReason(await connecting).detail, "the options of this side cannot be used")
      const nameless = await rejection(connect(NetAddress.unixPathAddress("/nowhere"), { tls }))
      assert.instanceOf(nameless, TypeError)
      assert.include(String(nameless), "servername")
    })

    test("what onHandshakeFailure throws or rejects with is logged, and harms nobody", async () => {
      await logged(async (lines) => {
        for (const throws of [true, false]) {
          const { count, onHandshakeFailure } = failedHandshakes()
          await using listener = await listen(anyPort, {
            tls: localhost,
            onHandshakeFailure: (error) => {
              onHandshakeFailure(error)
              if (throws) throw new Error("thrown by the program")
              return Promise.reject(new Error("rejected by the program"))
            }
          })
          const accepting = listener.accept()
          const plain = Net.connect(portOf(listener.address), "127.0.0.1", () => plain.write("no handshake at all\n"))
          await closed(plain.on("error", () => {}).resume())
          await count(1)
          await using peer = await tlsPeer(listener)
          await peer.finish()
          await (await accepting).abort()
        }
        assert.match(lines.join("\n"), /ERROR[^]*thrown by the program[^]*ERROR[^]*rejected by the program/)
      })
    })

    test("without onHandshakeFailure, only what the program has failed at is logged", async () => {
      await logged(async (lines) => {
        const identityFor = (name: string) => name === "localhost" ? undefined : Effect.fail("the database is down")
        await using listener = await listen(anyPort, { tls: { ...localhost, identityFor } })
        const accepting = listener.accept()
        const plain = Net.connect(portOf(listener.address), "127.0.0.1", () => plain.write("no handshake at all\n"))
        await closed(plain.on("error", () => {}).resume())
        await failure(connect(listener.address, { tls: { ...tls, servername: "elsewhere.test" } }))
        await using client = await connect(listener.address, { tls: { ...tls, servername: "localhost" } })
        await (await accepting).close()
        assert.lengthOf(await client.readAll(), 0)
        assert.lengthOf(lines, 1)
        assert.match(lines[0]!, /ERROR[^]*the look-up of an identity for elsewhere.test failed[^]*the database is down/)
      })
    })

    test("a context that is reloaded holds for the handshakes to come", async () => {
      const context = await Effect.runPromise(Tls.makeServerContext(localhost))
      await using listener = await listen(anyPort, { tls: context })
      const subject = async () => {
        const [client, server] = await Promise.all([
          connect(listener.address, { tls: { ...tls, servername: "localhost" } }),
          listener.accept()
        ])
        const serial = client.tls.peerCertificate?.serialNumber
        await Promise.all([client.close(), server.close()])
        return serial
      }
      const before = await subject()
      await Effect.runPromise(context.reload(root.issue({ names: ["localhost"] })))
      assert.notStrictEqual(await subject(), before)
    })

    describe("where a connection begins in plain text", () => {
      test("tlsClient, with node:tls at the other end", async () => {
        await using ends = await withPeer()
        const { peer, socket: plain } = ends
        assert.isUndefined(plain.tls)
        await plain.writeAll(text("STARTTLS\n"))
        await once(peer, "readable")
        assert.strictEqual(String(peer.read()), "STARTTLS\n")
        peer.write("go ahead\n")
        assertBytes((await plain.readUntil("\n"))!, "go ahead\n")
        const { certificate: cert, keyText: key } = localhost
        const server = new NodeTls.TLSSocket(peer, { isServer: true, cert, key, ALPNProtocols: ["smtp"] })
        const options = { servername: "localhost", ca: root.certificate, alpn: ["smtp"] }
        const socket = await plain.tlsClient(options, { signal: AbortSignal.timeout(60_000) })
        assert.deepInclude({ ...socket.tls }, { protocol: "TLSv1.3", alpn: "smtp", authorized: true })
        server.write("secret\n")
        assertBytes((await socket.readUntil("\n"))!, "secret\n")
        await socket.writeAll(text("more"))
        assert.strictEqual(String((await once(server, "data"))[0]), "more")
        for (const operation of [plain.readAll(), plain.writeAll(text("x")), plain.tlsClient(options)]) {
          assert.deepStrictEqual((await failure(operation)).reason, { _tag: "Consumed", by: "Tls.client" })
        }
        // Whoever has the plain socket still closes the connection.
        server.resume().end()
        await plain.close()
        assert.deepStrictEqual([plain.state.socket, socket.state.socket], ["closed", "closed"])
      })

      test("tlsServer, with node:tls at the other end, from options or a context", async () => {
        const context = await Effect.runPromise(Tls.makeServerContext(localhost))
        await using listener = await listen(anyPort)
        for (const options of [localhost, context]) {
          const raw = Net.connect(portOf(listener.address), "127.0.0.1")
          await using plain = await listener.accept()
          raw.write("STARTTLS\n")
          assertBytes((await plain.readUntil("\n"))!, "STARTTLS\n")
          const upgrading = plain.tlsServer(options)
          const client = NodeTls.connect({ socket: raw, servername: "localhost", ca: root.certificate })
          const socket = await upgrading
          assert.strictEqual(socket.tls.servername, "localhost")
          client.end("secret")
          assertBytes(await readUntilEnd(socket), "secret")
          client.resume()
          await Promise.all([closed(client), socket.close()])
        }
      })

      test("is refused, and the socket stays as it was, while a read waits or plain text is unread", async () => {
        await using ends = await withPeer()
        const { peer, socket } = ends
        const options = { servername: "localhost", ca: root.certificate }
        const reading = socket.readUntil("\n")
        assert.deepStrictEqual((await failure(socket.tlsClient(options))).reason, {
          _tag: "Busy",
          detail: "readUntil waits on the stream"
        })
        peer.write("go ahead\nsmuggled\n")
        assertBytes((await reading)!, "go ahead\n")
        const refused = await failure(socket.tlsClient(options))
        assert.deepInclude(tlsReason(refused), { kind: "protocol" })
        assertBytes((await socket.readUntil("\n"))!, "smuggled\n")
        assert.instanceOf(await rejection(socket.tlsClient({ ...options, servername: "" })), TypeError)
        assert.instanceOf(await rejection(socket.tlsServer(undefined as never)), TypeError)
        assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "open" })
      })

      test("an aborted handshake is terminal: the connection is gone", async () => {
        await using ends = await withPeer()
        const { peer, socket } = ends
        const controller = new AbortController()
        const upgrading = failure(
          socket.tlsClient({ servername: "localhost", ca: root.certificate }, { signal: controller.signal })
        )
        await once(peer, "readable")
        controller.abort()
        const error = await upgrading
        assert.deepInclude(error.reason, { _tag: "OperationAborted", type: "terminal" })
        assert.deepInclude(error, { operation: "Tls.client", cause: controller.signal.reason })
        assert.strictEqual(socket.state.socket, "closed")
      })
    })

    it.effect("a connection over TLS of Effect code has two faces, too", () =>
      Effect.gen(function*() {
        const [left, right] = yield* secured(yield* MemoryTransport.pair())
        const [client, server] = [fromStreamSocket(left), fromStreamSocket(right)]
        assert.strictEqual(client.tls, left.tls)
        yield* Effect.promise(async () => {
          await server.writeAll(text(server.tls.servername ?? "nobody"))
          assertBytes((await client.readUntil("t"))!, "localhost")
        })
      }))
  })

  // Processes of their own take a while to start on a busy machine.
  describe("the process", () => {
    const node = (...args: ReadonlyArray<string>) => promisify(execFile)(process.execPath, args, { timeout: 50_000 })

    it("ends when everything is closed, whatever was waiting and whatever time-out is to come", async () => {
      const { stdout } = await node(
        "--input-type=module",
        "--eval",
        `import { connect, listen } from ${JSON.stringify(import.meta.resolve("../../src/promises.ts"))}
        const listener = await listen("localhost:0")
        const options = { signal: AbortSignal.timeout(3_600_000) }
        const [client, server] = await Promise.all([connect(listener.address, options), listener.accept(options)])
        await client.writeAll(new Uint8Array(3), options)
        console.log(await server.readSome(new Uint8Array(3), options))
        const waiting = server.readSome(new Uint8Array(1), options).catch((error) => error.reason._tag)
        await Promise.all([client.close(), server.close(), listener.close()])
        console.log(await waiting)`
      )
      assert.match(stdout, /^3\nClosed\n$/)
    })

    it.skipIf(!canRunExamples)("ends after the example, which gets every byte across", async () => {
      const { stdout } = await node(fileURLToPath(new URL("../../examples/03-promises.ts", import.meta.url)))
      const lines = stdout.trimEnd().split("\n")
      assert.deepStrictEqual(lines.slice(0, 4), ["hello", "from", "async", "code"].map((word) => `echoed: ${word}`))
      const [, transferred] = lines[4]?.match(/: cancelled after ([\d,]+) of 33,554,432 bytes \(partial\)$/) ?? []
      const [, rest] = lines[5]?.match(/^([\d,]+) bytes later, the server has 33,554,432$/) ?? []
      const numeric = (digits = "") => Number(digits.replaceAll(",", ""))
      assert.strictEqual(numeric(transferred) + numeric(rest), enough)
      assert.lengthOf(lines, 6)
    })
  })
})

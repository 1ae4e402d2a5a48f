/** A torn stream never looks complete to its peer, whoever ends it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { NetAddress } from "effect/net"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Socket as NetSocket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Buffers, Cancellation, Read, StreamSocket, Write } from "../../src/index.ts"
import { MemoryTransport, ScriptedStream } from "../../src/testing/index.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { pattern } from "../support/bytes.ts"
import { connection } from "../support/connection.ts"
import { ending, failure } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { readToEnd } from "../support/reading.ts"
import { secured, tellsReset } from "../support/tls.ts"
import { eventually, start, steady } from "../support/waiting.ts"

type Socket = StreamSocket.StreamSocket

const { block, take } = ScriptedStream
const hello = Buffers.utf8("hello")

/** Cuts a message that does not fit, and answers how much of it was taken. */
const tear = (socket: Socket, message = pattern(32 * 1024 * 1024)) =>
  Effect.gen(function*() {
    const writing = yield* start(Write.writeAll(socket, message))
    yield* steady(() => socket.bytesWritten)
    yield* Fiber.interrupt(writing)
    assert.strictEqual(socket.state.write, "torn")
    assert.isBelow(socket.bytesWritten, message.byteLength)
    return socket.bytesWritten
  })

describe("close", () => {
  it.effect("aborts a torn stream, without the linger time", () =>
    leavingNothing(Effect.gen(function*() {
      const { calls, socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      yield* Fiber.interrupt(yield* start(Write.writeAll(socket, hello)))
      yield* socket.close
      yield* socket.close
      assert.deepStrictEqual(calls, { shutdownWrite: 0, close: 0, abort: 1 })
      assert.deepStrictEqual(socket.state, { socket: "closed", read: "closed", write: "closed" })
    })))

  for (const [name, cancel] of Object.entries({ request: "terminal", deadline: "terminal" } as const)) {
    it.live(`aborts a stream that a ${name} has torn`, () =>
      leavingNothing(Effect.gen(function*() {
        const { calls, socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
        const signal = Cancellation.makeSignal()
        const region = name === "request" ? Cancellation.withSignal(signal) : Cancellation.cancelAfter("1 millis")
        const writing = yield* start(region(Write.writeAll(socket, hello)))
        if (name === "request") yield* signal.emit(cancel)
        assert.strictEqual(ending(yield* Fiber.await(writing)), "OperationAborted")
        yield* socket.close
        assert.deepStrictEqual([calls.close, calls.abort], [0, 1])
      })))
  }

  it.effect("aborts while a writeAll waits inside its message, which fails with Closed and its count", () =>
    leavingNothing(Effect.gen(function*() {
      const { calls, socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      const writing = yield* start(Write.writeAll(socket, hello))
      yield* socket.close
      const error = failure(yield* Fiber.await(writing))
      assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["Closed", 3, 5])
      assert.deepStrictEqual([calls.close, calls.abort], [0, 1])
    })))

  for (
    const [name, prepare] of Object.entries({
      "no write": () => Effect.void,
      "a write that has taken nothing": (socket: Socket) => Write.writeAll(socket, hello),
      "a writeSome": (socket: Socket) => socket.writeSome(hello)
    })
  ) {
    it.effect(`is graceful while ${name} waits: no message is cut`, () =>
      leavingNothing(Effect.gen(function*() {
        const { calls, socket } = yield* ScriptedStream.make({ writes: name === "no write" ? [] : [block] })
        yield* start(prepare(socket))
        yield* socket.close
        assert.deepStrictEqual([calls.close, calls.abort], [1, 0])
      })))
  }

  it.effect("is graceful after a partial cut: the caller knows that a message is open, and may have ended it", () =>
    leavingNothing(Effect.gen(function*() {
      const { calls, socket } = yield* ScriptedStream.make({ writes: [take(3), block] })
      yield* Fiber.interrupt(yield* start(Cancellation.partial(Write.writeAll(socket, hello))))
      yield* socket.close
      assert.deepStrictEqual([calls.close, calls.abort], [1, 0])
    })))
})

describe("the peer in memory", () => {
  for (const how of ["close", "scope"] as const) {
    it.effect(`reads what was taken, and then a reset: ${how}`, () =>
      leavingNothing(Effect.gen(function*() {
        const scope = yield* Scope.make()
        const [left, right] = yield* MemoryTransport.pair({ capacity: 3 }).pipe(Scope.provide(scope))
        yield* Fiber.interrupt(yield* start(Write.writeAll(left, hello)))
        const reading = yield* start(readToEnd(right))
        if (how === "close") yield* left.close
        else yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        const { bytes, end } = yield* Fiber.join(reading)
        assert.strictEqual(Buffers.toUtf8(bytes), "hel")
        assert.include(how === "close" ? ["ConnectionReset"] : ["ConnectionReset", "Closed"], end)
      })))
  }
})

const transports = {
  NodeTransport: { layer: Layer.orDie(NodeTransport.layer), isSupported: true },
  EpollTransport: { layer: Layer.orDie(EpollTransport.layer), isSupported: EpollTransport.isSupported() }
}

/** A peer by `node:net`, which does not read until it is told. */
const rawPeer = (address: { readonly port: 0 } | { readonly path: string }) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      new Promise<{ readonly server: ReturnType<typeof createServer>; readonly accepted: Promise<NetSocket> }>(
        (resolve) => {
          const server = createServer({ pauseOnConnect: true, allowHalfOpen: true })
          const accepted = new Promise<NetSocket>((resolve) => {
            server.once("connection", resolve)
          })
          server.listen(
            "path" in address ? { path: address.path } : { port: 0, host: "127.0.0.1" },
            () => resolve({ server, accepted })
          )
        }
      )
    ),
    ({ server }) => Effect.sync(() => server.close())
  )

/** How a raw peer sees the connection end: by an error, or by the end of the stream. */
const endOf = (peer: NetSocket): Promise<string> =>
  new Promise((resolve) => {
    peer.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    peer.once("end", () => {
      peer.destroy()
      resolve("end")
    })
  })

for (const [name, { isSupported, layer }] of Object.entries(transports)) {
  describe.skipIf(!isSupported)(`a raw peer over ${name}`, () => {
    for (const how of ["close", "scope"] as const) {
      it.live(`TCP, ${how}: reads what was taken, and then ECONNRESET`, () =>
        leavingNothing(
          Effect.gen(function*() {
            const { accepted, server } = yield* rawPeer({ port: 0 })
            const bound = server.address()
            if (bound === null || typeof bound === "string") return assert.fail("no port")
            const scope = yield* Scope.make()
            const socket = yield* StreamSocket.connect(`127.0.0.1:${bound.port}`, { linger: "1 hour" }).pipe(
              Scope.provide(scope)
            )
            const peer = yield* Effect.promise(() => accepted)
            const ended = endOf(peer)
            const transferred = yield* tear(socket)
            peer.resume()
            yield* eventually("the peer has everything", () => peer.bytesRead === transferred)
            yield* how === "close" ? socket.close : Scope.close(scope, Exit.void)
            assert.strictEqual(socket.state.socket, "closed")
            assert.strictEqual(yield* Effect.promise(() => ended), "ECONNRESET")
            yield* Scope.close(scope, Exit.void)
          }).pipe(Effect.provide(layer), Effect.scoped)
        ))
    }

    // libuv before 1.52 tells a reset behind unread bytes as the end of the stream.
    it.live.skipIf(!tellsReset)(
      "TCP, close while a writeAll waits: ECONNRESET for a peer that had not read",
      () =>
        leavingNothing(
          Effect.gen(function*() {
            const { accepted, server } = yield* rawPeer({ port: 0 })
            const bound = server.address()
            if (bound === null || typeof bound === "string") return assert.fail("no port")
            const socket = yield* StreamSocket.connect(`127.0.0.1:${bound.port}`)
            const peer = yield* Effect.promise(() => accepted)
            const ended = endOf(peer)
            const writing = yield* start(Write.writeAll(socket, pattern(32 * 1024 * 1024)))
            yield* steady(() => socket.bytesWritten)
            yield* socket.close
            const error = failure(yield* Fiber.await(writing))
            assert.deepStrictEqual([error.reason._tag, error.transferred], ["Closed", socket.bytesWritten])
            peer.resume()
            assert.strictEqual(yield* Effect.promise(() => ended), "ECONNRESET")
          }).pipe(Effect.provide(layer), Effect.scoped)
        )
    )

    it.live("a Unix-domain path has no reset: the descriptor is released at once, without the linger time", () =>
      leavingNothing(
        Effect.gen(function*() {
          const directory = mkdtempSync(join(tmpdir(), "effect-asio-torn-"))
          yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true })))
          const path = join(directory, "socket")
          const { accepted } = yield* rawPeer({ path })
          const socket = yield* StreamSocket.connect(NetAddress.unixPathAddress(path), { linger: "1 hour" })
          const peer = yield* Effect.promise(() => accepted)
          const ended = endOf(peer)
          yield* tear(socket)
          yield* socket.close
          assert.strictEqual(socket.state.socket, "closed")
          peer.resume()
          assert.include(["end", "ECONNRESET"], yield* Effect.promise(() => ended))
        }).pipe(Effect.provide(layer), Effect.scoped)
      ))

    it.live("TLS: the peer is told that its stream was truncated or reset, and never of a regular end", () =>
      leavingNothing(
        Effect.gen(function*() {
          const [client, server] = yield* Effect.flatMap(connection(), (ends) => secured(ends))
          const transferred = yield* tear(client)
          const target = new Uint8Array(transferred)
          yield* Read.readExactly(server, target)
          yield* client.close
          const { end } = yield* readToEnd(server)
          assert.include(["ConnectionReset", "Tls"], end)
        }).pipe(Effect.provide(layer), Effect.scoped)
      ))
  })
}

/** Two copies of the package in one process: each loads modules of its own from the same `effect`. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Metric } from "effect"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { afterAll, beforeAll } from "vitest"
import * as ours from "../../src/index.ts"
import { version } from "../../src/internal/base/copies.ts"
import { coreOf, Socket } from "../../src/internal/core/Socket.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { localhost, root } from "../support/certificates.ts"
import { defect, failure } from "../support/exits.ts"
import { start } from "../support/waiting.ts"

type Package = typeof ours

const packageRoot = join(import.meta.dirname, "../..")
const directory = mkdtempSync(join(tmpdir(), "effect-asio-copies-"))
let copy: Package
let otherVersion: Package

const load = async (name: string, change: (source: string) => string): Promise<Package> => {
  const src = join(directory, name, "src")
  cpSync(join(packageRoot, "src"), src, { recursive: true })
  symlinkSync(join(packageRoot, "node_modules"), join(directory, name, "node_modules"))
  const file = join(src, "internal/base/copies.ts")
  writeFileSync(file, change(readFileSync(file, "utf8")))
  return import(/* @vite-ignore */ pathToFileURL(join(src, "index.ts")).href)
}

beforeAll(async () => {
  copy = await load("copy", (source) => source)
  otherVersion = await load("other", (source) => source.replace(`"${version}"`, "\"0.0.9\""))
})

afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** A connection over the loopback: the first end is opened by `make`, the other one is ours. */
const connected = (make: Package) =>
  Effect.gen(function*() {
    const acceptor = yield* ours.Acceptor.listen("127.0.0.1:0")
    const [socket, peer] = yield* Effect.all([make.StreamSocket.connect(acceptor.address), acceptor.accept], {
      concurrency: 2
    })
    return { socket, peer }
  }).pipe(Effect.provide(NodeTransport.layer))

/** Each byte that the peer reads, until `total` have come, as runs of the same byte. */
const runs = (peer: ours.StreamSocket.StreamSocket, total: number) =>
  Effect.gen(function*() {
    const found: Array<readonly [byte: number, length: number]> = []
    const target = new Uint8Array(65_536)
    for (let left = total; left > 0;) {
      const count = yield* peer.readSome(target)
      left -= count
      for (let from = 0; from < count;) {
        const byte = target[from]!
        let to = from
        while (to < count && target[to] === byte) to++
        const last = found.at(-1)
        if (last?.[0] === byte) found[found.length - 1] = [byte, last[1] + to - from]
        else found.push([byte, to - from])
        from = to
      }
    }
    return found
  })

const size = 4 * 1024 * 1024

describe("two copies of the same version", () => {
  it("the version is that of package.json", () => {
    assert.strictEqual(JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")).version, version)
  })

  it("the copies have classes of their own", () => {
    assert.notStrictEqual(copy.StreamSocket.make, ours.StreamSocket.make)
    assert.notStrictEqual(copy.Buffers.Cursor, ours.Buffers.Cursor)
  })

  it.live("two writeAll of two copies never interleave", () =>
    Effect.scoped(Effect.gen(function*() {
      const { peer, socket } = yield* connected(copy)
      assert.isTrue(ours.StreamSocket.isStreamSocket(socket))
      assert.isFalse(socket instanceof Socket)
      assert.strictEqual<unknown>(coreOf(socket), socket)
      const writing = Effect.all([
        ours.Write.writeAll(socket, new Uint8Array(size).fill(1)),
        copy.Write.writeAll(socket, new Uint8Array(size).fill(2)),
        ours.Write.writeAll(socket, [new Uint8Array(size).fill(3)]),
        copy.Write.writeAll(socket, copy.Buffers.cursor(new Uint8Array(size).fill(4))),
        ours.Write.writeAll(
          socket,
          copy.Buffers.cursor(new Uint8Array(size).fill(5)),
          copy.CompletionCondition.transferAll
        ),
        ours.Write.writeAll(socket, new Uint8Array(2 * size).fill(6), copy.CompletionCondition.transferExactly(size))
      ], { concurrency: "unbounded" })
      const [counts, found] = yield* Effect.all([writing, runs(peer, 6 * size)], { concurrency: 2 })
      assert.deepStrictEqual(counts, [size, size, size, size, size, size])
      assert.deepStrictEqual(found, [1, 2, 3, 4, 5, 6].map((byte) => [byte, size]))
    })))

  it.live("a readLine of one copy and a readSome of the other keep their order", () =>
    Effect.scoped(Effect.gen(function*() {
      const { peer, socket } = yield* connected(copy)
      const first = yield* start(ours.Read.readLine(socket))
      const target = new Uint8Array(64)
      const second = yield* start(socket.readSome(target))
      const third = yield* start(copy.Read.readLine(socket))
      const fourth = yield* start(ours.Read.readLine(socket))
      yield* ours.Write.writeAll(peer, ours.Buffers.utf8("one\ntwo"))
      assert.strictEqual(yield* Fiber.join(first), "one")
      const count = yield* Fiber.join(second)
      assert.strictEqual(ours.Buffers.toUtf8(target.subarray(0, count)), "two")
      yield* ours.Write.writeAll(peer, ours.Buffers.utf8("three\nfour\n"))
      assert.strictEqual(yield* Fiber.join(third), "three")
      assert.strictEqual(yield* Fiber.join(fourth), "four")
    })))

  it.live("what one copy leaves over of a foreign stream comes first for the other", () =>
    Effect.gen(function*() {
      const lines = ["one\ntwo\nthr", "ee\nfour\n"]
      const foreign: ours.StreamSocket.ReadStream = {
        readSome: (target) => Effect.sync(() => ours.Buffers.copy(ours.Buffers.utf8(lines.shift() ?? ""), target))
      }
      assert.strictEqual(yield* ours.Read.readLine(foreign), "one")
      assert.strictEqual(yield* copy.Read.readLine(foreign), "two")
      assert.strictEqual(yield* ours.Read.readLine(foreign), "three")
      assert.strictEqual(yield* copy.Read.readLine(foreign), "four")
    }))

  it.live("a signal of one copy reaches operations of the other, as policies do", () =>
    Effect.scoped(Effect.gen(function*() {
      const { socket } = yield* connected(copy)
      const signal = copy.Cancellation.makeSignal()
      const fiber = yield* start(ours.Cancellation.withSignal(ours.Read.readLine(socket), signal))
      assert.strictEqual(signal.pending[0]?.operation, "readLine")
      yield* signal.emit("total")
      assert.strictEqual(failure(yield* Fiber.await(fiber)).reason._tag, "OperationAborted")

      const cursor = ours.Buffers.cursor(new Uint8Array(8 * size))
      const writing = yield* start(copy.Cancellation.partial(ours.Write.writeAll(socket, cursor)))
      yield* Effect.sleep(0)
      writing.interruptUnsafe()
      assert.isTrue(Exit.isFailure(yield* Fiber.await(writing)))
      assert.strictEqual(socket.state.write, "open")
      assert.strictEqual(socket.bytesWritten, cursor.transferred)
    })))

  it.live("an acceptor of one copy serves by the other, and gives the same counts", () =>
    Effect.scoped(
      Effect.gen(function*() {
        const acceptor = yield* copy.Acceptor.listen("127.0.0.1:0")
        yield* start(ours.Acceptor.serve(acceptor, (socket) => ours.Relay.copy(socket, socket)))
        const client = yield* ours.StreamSocket.connect(acceptor.address)
        yield* copy.Write.writeAll(client, copy.Buffers.utf8("hello\n"))
        assert.strictEqual(yield* copy.Read.readLine(client), "hello")
        const error = failure(yield* Effect.exit(ours.Acceptor.detachFd(acceptor)))
        assert.strictEqual(error.reason._tag, "Busy")
        const bytes = ours.Metrics.bytesWritten
        const shown = yield* Metric.value(bytes).pipe(Effect.provide(ours.Metrics.layer))
        const shownByCopy = yield* Metric.value(bytes).pipe(Effect.provide(copy.Metrics.layer))
        assert.isAbove(shown.count, 0)
        assert.deepStrictEqual(shownByCopy, shown)
      }).pipe(Effect.provide(NodeTransport.layer))
    ))

  it.live("a TLS context of one copy serves a connection of the other, with what was reloaded last", () =>
    Effect.scoped(Effect.gen(function*() {
      const { peer, socket } = yield* connected(copy)
      const context = yield* copy.Tls.makeServerContext({ ...localhost, alpn: ["before"] })
      yield* context.reload({ ...localhost, alpn: ["after"] })
      const [server, client] = yield* Effect.all([
        ours.Tls.server(peer, context),
        ours.Tls.client(socket, { servername: "localhost", ca: root.certificate, alpn: ["after"] })
      ], { concurrency: 2 })
      assert.strictEqual(server.tls.alpn, "after")
      yield* copy.Write.writeAll(client, copy.Buffers.utf8("hello\n"))
      assert.strictEqual(yield* copy.Read.readLine(server), "hello")
      yield* Effect.all([server.close, client.close], { concurrency: 2 })
    })))
})

describe("two versions", () => {
  const refused = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.map(Effect.exit(effect), (exit) => {
      const { message } = defect(exit)
      assert.include(message, version)
      assert.include(message, "0.0.9")
      assert.include(message, "npm ls effect-asio")
    })

  it.live("a stream of another version is a defect at the first use, and keeps its own operations", () =>
    Effect.scoped(Effect.gen(function*() {
      const { peer, socket } = yield* connected(otherVersion)
      const bytes = Uint8Array.of(1, 2, 3)
      yield* refused(ours.Write.writeAll(socket, bytes))
      yield* refused(ours.Read.readLine(socket))
      yield* refused(ours.Read.unread(socket, bytes))
      yield* refused(ours.Relay.copy(socket, peer))
      yield* refused(ours.StreamSocket.detachFd(socket))
      yield* refused(ours.Tls.client(socket, { servername: "localhost" }))
      yield* refused(
        Effect.suspend(() =>
          ours.Cancellation.withSignal(ours.Read.readLine(peer), otherVersion.Cancellation.makeSignal())
        )
      )
      yield* refused(otherVersion.Cancellation.withSignal(
        ours.Read.readLine(peer),
        otherVersion.Cancellation.makeSignal()
      ))
      yield* refused(ours.Write.writeAll(peer, otherVersion.Buffers.cursor(bytes)))
      assert.strictEqual(socket.state.write, "open")
      assert.strictEqual(yield* otherVersion.Write.writeAll(socket, bytes), 3)
      assert.strictEqual(yield* peer.readSome(new Uint8Array(8)), 3)
      yield* ours.Write.writeAll(peer, ours.Buffers.utf8("hello\n"))
      assert.strictEqual(yield* otherVersion.Read.readLine(socket), "hello")
    })))

  it.live("an acceptor of another version is a defect of its server", () =>
    Effect.scoped(
      Effect.gen(function*() {
        const acceptor = yield* otherVersion.Acceptor.listen("127.0.0.1:0")
        yield* refused(ours.Acceptor.detachFd(acceptor))
      }).pipe(Effect.provide(NodeTransport.layer))
    ))

  it.live("a TLS context of another version is a defect, and the connection stays as it was", () =>
    Effect.scoped(Effect.gen(function*() {
      const { peer } = yield* connected(ours)
      yield* refused(ours.Tls.server(peer, yield* otherVersion.Tls.makeServerContext(localhost)))
      assert.strictEqual(peer.state.socket, "open")
    })))

  it.live("the leftovers of another version are a defect", () =>
    Effect.gen(function*() {
      const foreign: ours.StreamSocket.ReadStream = {
        readSome: (target) => Effect.sync(() => ours.Buffers.copy(ours.Buffers.utf8("one\ntwo\n"), target))
      }
      assert.strictEqual(yield* otherVersion.Read.readLine(foreign), "one")
      yield* refused(ours.Read.readLine(foreign))
    }))
})

/** What only the epoll transport can get wrong: edges, numbers used again, turns, the life of the process. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import type * as Koffi from "koffi"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import * as Net from "node:net"
import { join } from "node:path"
import { vi } from "vitest"
import * as Acceptor from "../../src/Acceptor.ts"
import { concat, type Cursor, cursor, utf8 as text } from "../../src/Buffers.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Read from "../../src/Read.ts"
import { isSocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { type ListenerBacking, resolveOptions, Transport, WouldBlock } from "../../src/Transport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import { listen } from "../../src/transport/internal/epoll/EpollListener.ts"
import * as Linux from "../../src/transport/internal/epoll/linux.ts"
import { Reactor } from "../../src/transport/internal/epoll/Reactor.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf, temporaryDirectory, unixPaths } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { connected } from "../support/connection.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { hangingListener } from "../support/hangingListener.ts"
import { openSockets } from "../support/kernel.ts"
import { eventually, start, turn, turns } from "../support/waiting.ts"

const { isSupported } = EpollTransport

const directory = temporaryDirectory()
const anyPath = unixPaths()

/** System calls of peers that are nobody's sockets, made when they are called and not a turn later. */
const raw = () => {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi
  const library = koffi.load(null)
  const send = library.func("long send(int fd, const void *buffer, size_t length, int flags)")
  const sendmsg = library.func("long sendmsg(int fd, const void *message, int flags)")
  return {
    ...Linux.load(),
    sendUrgent: (fd: number, byte: string): number => send(fd, text(byte), 1, 1),
    /** Sends a byte with a copy of a descriptor. */
    sendDescriptor: (fd: number, byte: string, descriptor: number): number => {
      const data = text(byte)
      const piece = new BigUint64Array([koffi.address(data), 1n])
      // `struct cmsghdr` of SCM_RIGHTS with one descriptor.
      const control = new DataView(new ArrayBuffer(24))
      control.setBigUint64(0, 20n, true)
      control.setInt32(8, Linux.SOL_SOCKET, true)
      control.setInt32(12, 1, true)
      control.setInt32(16, descriptor, true)
      const message = new BigUint64Array([0n, 0n, koffi.address(piece), 1n, koffi.address(control), 24n, 0n])
      return sendmsg(fd, message, 0)
    }
  }
}

/** A raw connection to an acceptor: its descriptor, which the test closes. */
const rawConnection = (linux: Linux.Linux, address: NetAddress.SocketAddress) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => linux.socket(NetAddress.isUnixPathAddress(address) ? Linux.AF_UNIX : Linux.AF_INET)),
      (fd) => Effect.sync(() => linux.close(fd))
    ),
    (fd) => {
      const answer = linux.connect(fd, Linux.encodeAddress(address))
      assert.include([0, -Linux.EINPROGRESS], answer)
      return fd
    }
  )

describe.skipIf(!isSupported())("EpollTransport", () => {
  it.layer(EpollTransport.layer, { excludeTestServices: true })("edges", (it) => {
    it.effect("a peer that ends before the connection was told of is read to its end", () =>
      Effect.gen(function*() {
        const linux = raw()
        const listener = linux.socket(Linux.AF_INET)
        yield* Effect.addFinalizer(() => Effect.sync(() => linux.close(listener)))
        assert.strictEqual(linux.bind(listener, Linux.encodeAddress(anyPort)), 0)
        assert.strictEqual(linux.listen(listener, 1), 0)
        const address = linux.localAddress(listener) ?? assert.fail("no address")
        const connecting = yield* start(StreamSocket.connect(address))
        // All of it in one turn, and so in one event.
        const peer = linux.accept(listener)
        assert.strictEqual(linux.send(peer, text("farewell")), 8)
        linux.close(peer)
        assertBytes(yield* Read.readAll(yield* Fiber.join(connecting)), "farewell")
      }))

    it.effect("what is behind a byte of urgent data is read, and the byte is not in between", () =>
      Effect.gen(function*() {
        const linux = raw()
        const acceptor = yield* Acceptor.listen(anyPort)
        const peer = yield* rawConnection(linux, acceptor.address)
        const server = yield* acceptor.accept
        linux.send(peer, text("before "))
        linux.sendUrgent(peer, "!")
        linux.send(peer, text("behind\n"))
        yield* turns(10)
        assertBytes(yield* Read.readUntil(server, "\n"), "before behind\n")
      }))

    it.effect("what is behind a descriptor that was sent along a path is read, and the descriptor is gone", () =>
      Effect.gen(function*() {
        const linux = raw()
        const acceptor = yield* Acceptor.listen(anyPath())
        const peer = yield* rawConnection(linux, acceptor.address)
        const server = yield* acceptor.accept
        const before = openSockets()
        linux.sendDescriptor(peer, "a", peer)
        linux.sendDescriptor(peer, "b", peer)
        linux.send(peer, text("c\n"))
        yield* turns(10)
        assertBytes(yield* Read.readUntil(server, "\n"), "abc\n")
        assert.strictEqual(openSockets(), before)
      }))

    it.effect("a connection and its acceptor on an abstract name leave no file", () =>
      Effect.gen(function*() {
        const address = NetAddress.unixPathAddress(`\0effect-asio-${process.pid}`)
        const { acceptor, client, server } = yield* connected(address)
        assert.deepStrictEqual([acceptor.address, client.remoteAddress, server.localAddress], [
          address,
          address,
          address
        ])
        assert.deepStrictEqual(client.localAddress, NetAddress.unixPathAddress(""))
        assert.deepStrictEqual(server.remoteAddress, NetAddress.unixPathAddress(""))
        yield* Write.writeAll(client, text("hello\n"))
        assertBytes(yield* Read.readUntil(server, "\n"), "hello\n")
        assert.strictEqual(ending(yield* Effect.exit(Acceptor.listen(address))), "AddressInUse")
      }))

    it.effect("a path with a zero inside is refused, and nothing listens at the part before it", () =>
      Effect.gen(function*() {
        const plain = anyPath()
        const odd = NetAddress.unixPathAddress(`${plain.path}\0x`)
        assert.strictEqual(ending(yield* Effect.exit(Acceptor.listen(odd))), "AddressNotAvailable")
        assert.strictEqual(ending(yield* Effect.exit(StreamSocket.connect(odd))), "AddressNotAvailable")
        assert.isFalse(existsSync(plain.path))
      }))

    it.effect("closing behind the end of the stream costs one call, and the peer still gets everything", () =>
      Effect.gen(function*() {
        const linux = Linux.load()
        const calls: Array<string> = []
        const reactor = new Reactor({
          ...linux,
          recv: (...args) => {
            calls.push("recv")
            return linux.recv(...args)
          },
          shutdownWrite: (fd) => {
            calls.push("shutdown")
            return linux.shutdownWrite(fd)
          },
          close: (fd) => {
            calls.push("close")
            return linux.close(fd)
          }
        })
        for (const address of [anyPort, anyPath()]) {
          const acceptor = Acceptor.make(yield* listen(reactor, address, resolveOptions(undefined)))
          const client = yield* StreamSocket.connect(acceptor.address)
          const server = yield* acceptor.accept
          yield* Write.writeAll(client, text("question"))
          yield* client.shutdownWrite
          assertBytes(yield* Read.readAll(server), "question")
          yield* Write.writeAll(server, pattern(100_000))
          calls.length = 0
          yield* server.close
          assert.deepStrictEqual(calls, ["close"])
          assertBytes(yield* Read.readAll(client), pattern(100_000))
          yield* acceptor.close
        }
      }))

    it.effect("an acceptor that the reactor cannot take leaves no path and no descriptor", () =>
      Effect.gen(function*() {
        const ENOSPC = 28
        const reactor = new Reactor({ ...Linux.load(), epollAdd: () => -ENOSPC })
        const before = openSockets()
        for (const address of [anyPath(), anyPort]) {
          const error = failure(yield* Effect.exit(listen(reactor, address, resolveOptions(undefined))))
          assert.strictEqual(error.code, "ENOSPC")
          if (NetAddress.isUnixPathAddress(address)) assert.isFalse(existsSync(address.path))
        }
        assert.strictEqual(openSockets(), before)
      }))

    it.effect("closing an acceptor whose path has become something else harms nobody", () =>
      Effect.gen(function*() {
        const address = anyPath()
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Acceptor.listen(address)
          rmSync(address.path)
          mkdirSync(address.path)
        }))
        assert.isTrue(existsSync(address.path))
      }))

    it.effect("closing an acceptor leaves the path to the one that has taken it over", () =>
      Effect.gen(function*() {
        const [address, next] = [anyPath(), anyPath()]
        const old = yield* Acceptor.listen(address)
        const acceptor = yield* Acceptor.listen(next)
        renameSync(next.path, address.path)
        yield* old.close
        yield* StreamSocket.connect(address)
        yield* acceptor.accept
        // It knows the path by another name.
        rmSync(address.path)
      }))

    it.effect("a relative path is removed where it is, wherever the process has gone", () =>
      Effect.gen(function*() {
        const before = process.cwd()
        yield* Effect.addFinalizer(() => Effect.sync(() => process.chdir(before)))
        const there = join(directory, "there")
        mkdirSync(there)
        writeFileSync(join(there, "relative"), "not a socket")
        process.chdir(directory)
        const acceptor = yield* Acceptor.listen(NetAddress.unixPathAddress("relative"))
        process.chdir(there)
        yield* acceptor.close
        assert.deepStrictEqual(
          [existsSync(join(directory, "relative")), existsSync(join(there, "relative"))],
          [false, true]
        )
      }))
  })

  it.layer(EpollTransport.layer, { excludeTestServices: true })("descriptors that are used again", (it) => {
    // Which of the two events comes first is for the kernel to say.
    for (const order of ["ab", "ba"] as const) {
      it.effect(`an event of a closed socket does not reach the next one of its number (${order})`, () =>
        Effect.gen(function*() {
          const { target } = yield* hangingListener
          const scope = yield* Effect.scope
          const a = yield* connected()
          const b = yield* connected()
          const ends = { a: a.server, b: b.server }
          let opened: Fiber.Fiber<unknown, unknown> | undefined
          // Whoever is told first closes the other one, whose event is in the same batch, and takes its number.
          const race = (mine: "a" | "b", other: "a" | "b") =>
            start(Effect.gen(function*() {
              yield* ends[mine].readSome(new Uint8Array(9))
              if (opened !== undefined) return
              yield* ends[other].abort
              opened = yield* Effect.forkIn(StreamSocket.connect(target), scope, { startImmediately: true })
            }))
          const fibers = [yield* race("a", "b"), yield* race("b", "a")]
          yield* turn
          // Both in the same turn.
          const [first, second] = order === "ab" ? [a.client, b.client] : [b.client, a.client]
          yield* Effect.all([first.writeSome(text("x")), second.writeSome(text("x"))])
          yield* Effect.forEach(fibers, Fiber.await)
          yield* turns(20)
          if (opened === undefined) return assert.fail("nobody was told")
          // A connect that hangs has no event: it would have taken the other one's for its own.
          assert.isUndefined(opened.pollUnsafe())
          yield* Fiber.interrupt(opened)
        }))
    }

    it.effect("an object that is closed has no number any more", () =>
      Effect.gen(function*() {
        const transport = yield* Transport
        const listener = yield* transport.listen(anyPort, resolveOptions(undefined))
        const backing = yield* transport.connect(listener.address, resolveOptions(undefined))
        backing.abort()
        listener.close()
        const before = openSockets()
        // Another socket may have the numbers now.
        const { client, server } = yield* connected()
        assert.isTrue(typeof backing.read(new Uint8Array(1)) === "object")
        assert.isTrue(typeof backing.shutdownWrite() === "object")
        assert.isTrue(typeof listener.accept() === "object")
        backing.configure({ noDelay: false })
        backing.abort()
        yield* Write.writeAll(client, text("fine\n"))
        assertBytes(yield* Read.readUntil(server, "\n"), "fine\n")
        assert.strictEqual(openSockets(), before + 3)
      }))

    it.effect("a reactor comes and goes any number of times in one turn, and gives back what it took", () =>
      Effect.gen(function*() {
        const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi
        const [alloc, free] = [vi.spyOn(koffi, "alloc"), vi.spyOn(koffi, "free")]
        yield* Effect.addFinalizer(() => Effect.sync(() => vi.restoreAllMocks()))
        const reactor = new Reactor(Linux.load())
        for (let i = 0; i < 10_000; i++) {
          assert.strictEqual(reactor.use(), 0)
          reactor.release()
        }
        const taken = alloc.mock.results.map(({ value }) => value as unknown)
        assert.isAtLeast(taken.length, 10_000)
        yield* eventually("libuv has closed all of them", () => {
          const given = new Set(free.mock.calls.map(([handle]) => handle as unknown))
          return taken.every((handle) => given.has(handle))
        })
      }))

    it.effect("the service of a layer that is gone still works", () =>
      Effect.gen(function*() {
        const transport = yield* Effect.scoped(Effect.provide(Effect.service(Transport), EpollTransport.layer))
        const { client, server } = yield* connected().pipe(Effect.provideService(Transport, transport))
        yield* Write.writeAll(client, text("x"))
        assert.strictEqual(yield* server.readSome(new Uint8Array(9)), 1)
      }))
  })

  it.layer(EpollTransport.layer, { excludeTestServices: true })("memory", (it) => {
    /** A view that says of itself that it is longer. */
    class Liar extends Uint8Array<ArrayBuffer> {
      override get byteLength() {
        return 1_000_000
      }
    }

    it.effect("the kernel is told the true length of a view, whatever the view says", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected()
        const transport = Linux.load()
        const peer = yield* rawConnection(transport, (yield* Acceptor.listen(anyPort)).address)
        yield* turn
        assert.strictEqual(transport.send(peer, new Liar(new ArrayBuffer(10))), 10)
        assert.strictEqual(transport.sendAll(peer, [new Liar(new ArrayBuffer(10)), new Uint8Array(7)], 2), 17)
        assert.throws(() => transport.sendAll(peer, [new Uint8Array(7), new Uint8Array(0)], 2), TypeError)
        yield* Write.writeAll(client, pattern(100))
        const behind = new Uint8Array(64)
        const target = new Liar(behind.buffer, 0, 8)
        // However the operation ends, it has not written over what is behind.
        yield* Effect.exit(server.readSome(target))
        assertBytes(behind.subarray(8), new Uint8Array(56))
        yield* server.abort
      }))

    it.effect("nothing is written behind a view that says it is less than nothing", () =>
      Effect.gen(function*() {
        for (const said of [-1, -5, -(2 ** 40), 0.5]) {
          class Liar extends Uint8Array<ArrayBuffer> {
            override get byteLength() {
              return said
            }
          }
          const { client, server } = yield* connected()
          yield* Write.writeAll(client, pattern(1000))
          yield* turn
          const memory = new Uint8Array(2000)
          const exit = yield* Effect.exit(server.readSome(new Liar(memory.buffer, 8, 8)))
          assertBytes(memory.subarray(16), new Uint8Array(1984))
          assert.notStrictEqual(ending(exit), "Done")
          yield* server.abort
        }
      }))

    it.effect("memory that is gone is refused, not taken for the end of the stream", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected()
        const gone = new Uint8Array(8)
        gone.buffer.transfer()
        const linux = Linux.load()
        assert.throws(() => linux.recv(0, gone, 8), TypeError)
        assert.throws(() => linux.send(0, gone), TypeError)
        const target = new Uint8Array(8)
        const reading = yield* start(server.readSome(target))
        target.buffer.transfer()
        yield* Write.writeAll(client, text("kept"))
        assert.instanceOf(defect(yield* Fiber.await(reading)), TypeError)
        const kept = new Uint8Array(8)
        assert.strictEqual(yield* server.readSome(kept), 4)
        assertBytes(kept.subarray(0, 4), "kept")
      }))

    const resizable: Readonly<Record<string, (length: number) => Uint8Array>> = {
      "a resizable buffer, with its length": (length) =>
        new Uint8Array(new ArrayBuffer(length, { maxByteLength: 2 * length })),
      "a resizable buffer, of fixed length": (length) =>
        new Uint8Array(new ArrayBuffer(length, { maxByteLength: 2 * length }), 0, length),
      "a growable shared buffer": (length) =>
        new Uint8Array(new SharedArrayBuffer(length, { maxByteLength: 2 * length }))
    }
    for (const [name, view] of Object.entries(resizable)) {
      it.effect(`a view of ${name} is refused before anything is moved`, () =>
        Effect.gen(function*() {
          const { client, server } = yield* connected()
          const refused = <A, E>(effect: Effect.Effect<A, E>) =>
            Effect.map(Effect.exit(effect), (exit) => {
              assert.match(defect(exit).message, /resizable/)
            })
          yield* refused(client.writeSome(view(40)))
          yield* refused(Write.writeAll(client, view(100_000)))
          yield* refused(Write.writeAll(client, [new Uint8Array(64), view(100_000)]))
          // Their turn would come in a later call.
          yield* refused(Write.writeAll(client, [new Uint8Array(2_000_000), view(100_000)]))
          yield* refused(
            Write.writeAll(client, [new Uint8Array(10), view(10_000)], CompletionCondition.transferAtLeast(1))
          )
          assert.strictEqual(client.bytesWritten, 0)
          assert.strictEqual(client.state.write, "open")
          yield* Write.writeAll(client, text("kept"))
          yield* turn
          yield* refused(server.readSome(view(40)))
          yield* refused(Read.readExactly(server, view(100_000)))
          const kept = new Uint8Array(4)
          yield* Read.readExactly(server, kept)
          assertBytes(kept, "kept")
          assert.strictEqual(server.bytesRead, 4)
        }))
    }

    it.effect("memory that could shrink between two attempts is refused at the first, and what has gone at the next", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected()
        const buffer = new ArrayBuffer(1000, { maxByteLength: 1000 })
        const reading = yield* start(server.readSome(new Uint8Array(buffer, 0, 1000)))
        // Refused at once: nothing of it is left for a later attempt.
        assert.match(defect(yield* Fiber.await(reading)).message, /resizable/)
        // The longest wait that memory of a fixed size can have is for its transfer.
        const large = new Uint8Array(30_000_000)
        const writing = yield* start(Write.writeAll(client, large))
        const before = client.bytesWritten
        assert.isBelow(before, large.byteLength)
        large.buffer.transfer(0)
        const sink = new Uint8Array(1_000_000)
        while (writing.pollUnsafe() === undefined) yield* server.readSome(sink)
        assert.instanceOf(defect(yield* Fiber.await(writing)), TypeError)
        assert.strictEqual(client.bytesWritten, before)
        assert.strictEqual(client.state.write, "torn")
        // Nobody needs the rest: no close has to wait for it.
        yield* client.abort
        yield* server.abort
      }))

    it.effect("small pieces of a gather list may be of any memory, because they are put together first", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected()
        const pieces = Object.values(resizable).map((view) => view(40))
        for (const piece of pieces) piece.set(pattern(40))
        yield* Write.writeAll(client, pieces)
        for (const piece of pieces) {
          const got = new Uint8Array(40)
          yield* Read.readExactly(server, got)
          assertBytes(got, piece)
        }
      }))

    it.effect("small pieces may be of any memory wherever they stand, and are copied, so that none tears the stream", () =>
      Effect.gen(function*() {
        for (const view of Object.values(resizable)) {
          const small = (length: number) => {
            const piece = view(length)
            piece.set(pattern(length))
            return piece
          }
          const lists: ReadonlyArray<ReadonlyArray<Uint8Array>> = [
            [small(100), pattern(60_000)],
            // Only large ones are left, and then it alone.
            [pattern(2_000_000), small(100), pattern(1_500_000)],
            [pattern(3_000_000), small(10)],
            // Together they are small enough to be copied; a part of them is as large as what is refused.
            [pattern(1), small(8000)]
          ]
          for (const list of lists) {
            // Room for some bytes at a time.
            const acceptor = yield* Acceptor.listen(anyPort, { receiveBuffer: 2304 })
            const client = yield* StreamSocket.connect(acceptor.address, { sendBuffer: 4608 })
            const server = yield* acceptor.accept
            const writing = yield* start(Write.writeAll(client, list))
            const all = concat(list)
            const got = new Uint8Array(all.byteLength)
            yield* Read.readExactly(server, got)
            assert.strictEqual(yield* Fiber.join(writing), all.byteLength)
            assertBytes(got, all)
          }
        }
      }))

    it.effect("large pieces leave by one call, at most 64 of them, from wherever the cursor is", () =>
      Effect.gen(function*() {
        const transport = yield* Transport
        const listener = yield* transport.listen(anyPort, resolveOptions(undefined))
        const backing = yield* transport.connect(listener.address, resolveOptions(undefined))
        yield* turn
        const peer = listener.accept()
        if (peer === WouldBlock || isSocketError(peer)) return assert.fail("nobody came")
        const got = new Uint8Array(1_000_000)
        const received = Effect.fn(function*(length: number) {
          for (let at = 0; at < length;) {
            const answer = peer.read(got.subarray(at, length))
            if (typeof answer === "number" && answer > 0) at += answer
            else yield* turn
          }
          return got.subarray(0, length)
        })
        const write = (source: Cursor, limit: number) =>
          Effect.gen(function*() {
            const answer = backing.write(source, limit)
            if (typeof answer !== "number") return assert.fail(answer.message)
            source.advance(answer)
            yield* turn
            return answer
          })
        // A header and a body, cut in the body, and on from there.
        const bytes = pattern(64 + 65_536)
        const message = cursor([bytes.subarray(0, 64), bytes.subarray(64)])
        assert.strictEqual(yield* write(message, 20_000), 20_000)
        assert.strictEqual(yield* write(message, Infinity), bytes.byteLength - 20_000)
        assertBytes(yield* received(bytes.byteLength), bytes)
        const many = pattern(100 * 5000)
        const list = cursor(Array.from({ length: 100 }, (_, i) => many.subarray(i * 5000, (i + 1) * 5000)))
        assert.strictEqual(yield* write(list, Infinity), 64 * 5000)
        assert.strictEqual(yield* write(list, Infinity), 36 * 5000)
        assertBytes(yield* received(many.byteLength), many)
        backing.abort()
        peer.abort()
        listener.close()
      }))

    it.effect("memory of every kind carries bytes", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected()
        const kinds = (): ReadonlyArray<Uint8Array> => [
          new Uint8Array(40),
          new Uint8Array(4000).subarray(1000, 1040),
          Buffer.from(new Uint8Array(40)),
          new Uint8Array(new SharedArrayBuffer(40))
        ]
        for (const source of kinds()) {
          for (const target of kinds()) {
            source.set(pattern(40))
            target.fill(0)
            yield* Write.writeAll(client, source)
            yield* Read.readExactly(server, target)
            assertBytes(target, pattern(40))
          }
        }
      }))

    it.effect("a gather list of pieces of every size arrives in order", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected()
        const bytes = pattern(1_500_000)
        const pieces: Array<Uint8Array> = []
        for (let at = 0, i = 0; at < bytes.byteLength; i++) {
          const size = [1, 0, 100, 16_383, 16_384, 16_385, 65_535, 3, 65_536, 200_000][i % 10]!
          pieces.push(bytes.subarray(at, at + size))
          at += size
        }
        const writing = yield* start(Write.writeAll(client, pieces))
        const got = new Uint8Array(bytes.byteLength)
        yield* Read.readExactly(server, got)
        assert.strictEqual(yield* Fiber.join(writing), bytes.byteLength)
        assertBytes(got, bytes)
      }))
  })

  it.layer(EpollTransport.layer, { excludeTestServices: true })("turns", (it) => {
    // Both halves of a turn, before and behind the test's own.
    const atMost = (limit: number) => 2 * limit

    it.effect("connections that never rest starve no other one, no timer and no signal", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const flood = `const socket = require("node:net").connect(${portOf(acceptor.address)}, "127.0.0.1")
          socket.resume()
          socket.on("error", () => process.exit())
          const fill = () => { while (socket.write(Buffer.alloc(65536))); }
          socket.on("drain", fill)
          fill()`
        for (let i = 0; i < 2; i++) {
          yield* Effect.acquireRelease(
            Effect.sync(() => {
              const child = spawn(process.execPath, ["-e", flood], { stdio: "inherit" })
              return { child, closed: once(child, "close") }
            }),
            ({ child, closed }) =>
              Effect.promise(() => {
                child.kill("SIGKILL")
                return closed
              })
          )
        }
        const flooded = [yield* acceptor.accept, yield* acceptor.accept] as const
        const target = new Uint8Array(4_000_000)
        yield* start(Effect.forever(flooded[0].readSome(target)))
        yield* start(Effect.forever(Read.readExactly(flooded[1], target)))
        yield* start(Effect.forever(Write.writeAll(flooded[0], pattern(1_000_000))))
        yield* start(Effect.forever(Write.writeAll(flooded[1], [pattern(1_000_000), pattern(100)])))
        yield* eventually("a flood", () => flooded.every((socket) => socket.bytesRead > 10_000_000))

        const { client, server } = yield* connected()
        yield* start(
          Effect.forever(Effect.flatMap(Read.readUntil(server, "\n"), (line) => Write.writeAll(server, line)))
        )
        for (let round = 0; round < 50; round++) {
          yield* Write.writeAll(client, text(`${round}\n`))
          assertBytes(yield* Read.readUntil(client, "\n"), `${round}\n`)
          yield* Effect.sleep(1)
        }
        const signal = once(process, "SIGUSR2")
        process.kill(process.pid, "SIGUSR2")
        yield* Effect.promise(() => signal)
        const before = flooded.map((socket) => socket.bytesRead)
        yield* eventually("the flood goes on", () => flooded.every((socket, i) => socket.bytesRead > before[i]!))
        for (const socket of flooded) yield* socket.abort
      }))

    it.effect("however many want another turn, a few at a time have it, one after the other", () =>
      Effect.gen(function*() {
        // None of them is a socket, and none has an event.
        const reactor = new Reactor({ ...Linux.load(), epollAdd: () => 0 })
        const told: Array<number> = []
        const all = Array.from({ length: 100 }, (_, i) => ({
          fd: 100_000 + i,
          onEvents: (flags: number) => {
            assert.strictEqual(flags, 0)
            told.push(i)
          }
        }))
        for (const entry of all) {
          assert.strictEqual(reactor.register(entry), 0)
          reactor.reschedule(entry)
        }
        const turns: Array<number> = []
        while (told.length < all.length) {
          const before = told.length
          yield* turn
          turns.push(told.length - before)
        }
        assert.isAtMost(Math.max(...turns), atMost(16), turns.join())
        assert.deepStrictEqual(told, all.map((_, i) => i))
        for (const entry of all) reactor.unregister(entry)
      }))

    it.effect("a write moves a megabyte in one turn, and what the kernel takes in the next ones", () =>
      Effect.gen(function*() {
        for (const input of [new Uint8Array(32_000_000), Array.from({ length: 500 }, () => new Uint8Array(64_000))]) {
          const { client, server } = yield* connected()
          yield* start(Write.writeAll(client, input))
          assert.isAbove(client.bytesWritten, 0)
          assert.isAtMost(client.bytesWritten, 1024 * 1024)
          yield* eventually("another turn", () => client.bytesWritten > 1024 * 1024)
          yield* client.abort
          yield* server.abort
        }
      }))

    it.effect("closing a flooded connection ends with its linger time, and others go on meanwhile", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort, { linger: "100 millis" })
        const peer = Net.connect({ port: portOf(acceptor.address), allowHalfOpen: true }).on("error", () => {})
        const fill = () => {
          while (peer.write(pattern(65_536)));
        }
        fill()
        peer.on("drain", fill)
        const flooded = yield* acceptor.accept
        yield* flooded.readSome(new Uint8Array(1))
        const closing = yield* start(flooded.close)
        assert.strictEqual(flooded.state.socket, "closing")
        const { client, server } = yield* connected()
        for (let round = 0; round < 10; round++) {
          yield* Write.writeAll(client, text("x"))
          yield* server.readSome(new Uint8Array(1))
        }
        yield* Fiber.join(closing)
        assert.strictEqual(flooded.state.socket, "closed")
        peer.destroy()
      }))

    it.effect("a listener gives a limited number of connections in one turn, and the others in the next ones", () =>
      Effect.gen(function*() {
        const linux = raw()
        const transport = yield* Transport
        const listener = yield* transport.listen(anyPort, resolveOptions(undefined))
        const turns: Array<number> = []
        listener.attach({ acceptable: () => void turns.push(acceptAll(listener)) })
        for (let i = 0; i < 150; i++) yield* rawConnection(linux, listener.address)
        turns.push(acceptAll(listener))
        yield* eventually("everybody was accepted", () => turns.reduce((sum, count) => sum + count) === 150)
        assert.isAtLeast(turns.length, 3)
        assert.isAtMost(Math.max(...turns), 64)
        listener.close()
      }))

    it.effect("a connection that has enough to read does not get more turns for every event", () =>
      Effect.gen(function*() {
        const { client, listener, server } = yield* backings
        let count = 0
        const read = () => {
          const one = new Uint8Array(1)
          while (server.read(one) === 1) count++
        }
        server.attach({ readable: read, writable() {}, failed() {}, closed() {} })
        read()
        const turns: Array<number> = []
        for (let i = 0; i < 40; i++) {
          assert.strictEqual(client.write(cursor(new Uint8Array(5000)), Infinity), 5000)
          yield* turn
          turns.push(count)
          count = 0
        }
        assert.isAbove(Math.max(...turns), 0)
        assert.isAtMost(Math.max(...turns), atMost(1024), turns.join())
        client.abort()
        server.abort()
        listener.close()
      }))

    it.effect("a listener that has enough to accept does not get more turns for every connection", () =>
      Effect.gen(function*() {
        const linux = raw()
        const transport = yield* Transport
        const listener = yield* transport.listen(anyPort, resolveOptions(undefined))
        let count = 0
        const accept = () => void (count += acceptAll(listener))
        listener.attach({ acceptable: accept })
        accept()
        for (let i = 0; i < 400; i++) yield* rawConnection(linux, listener.address)
        const before = count
        count = 0
        const turns: Array<number> = []
        for (let i = 0; i < 10; i++) {
          yield* rawConnection(linux, listener.address)
          yield* turn
          turns.push(count)
          count = 0
        }
        assert.isAtMost(Math.max(...turns), atMost(64), turns.join())
        const sum = turns.reduce((sum, count) => sum + count, before)
        yield* eventually("everybody was accepted", () => sum + count === 410)
        listener.close()
      }))
  })

  it.layer(EpollTransport.layer, { excludeTestServices: true })("connecting", (it) => {
    it.effect("to the unspecified address: both ends know whom they have reached", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected(NetAddress.inetAddressFromStringUnsafe("0.0.0.0:0"))
        assert.strictEqual(
          NetAddress.formatSocketAddress(client.remoteAddress),
          `127.0.0.1:${portOf(server.localAddress)}`
        )
        assert.deepStrictEqual([client.remoteAddress, client.localAddress], [server.localAddress, server.remoteAddress])
      }))

    it.effect("waits at a path whose backlog is full, and gets in when somebody is accepted", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPath(), { backlog: 1 })
        const before = openSockets()
        const attempts = yield* Effect.forEach(
          [0, 1, 2, 3, 4],
          () => start(StreamSocket.connect(acceptor.address))
        )
        yield* turns(10)
        const waiting = attempts.filter((fiber) => fiber.pollUnsafe() === undefined)
        assert.isAbove(waiting.length, 0)
        yield* Fiber.interrupt(waiting[0]!)
        assert.strictEqual(openSockets(), before + 4)
        for (let i = 0; i < 4; i++) yield* acceptor.accept
        for (const fiber of attempts) {
          if (fiber !== waiting[0]) yield* Fiber.join(fiber)
        }
      }))
  })
})

/** Two ends of a connection as the transport has them, which the test ends. */
const backings = Effect.gen(function*() {
  const transport = yield* Transport
  const listener = yield* transport.listen(anyPort, resolveOptions(undefined))
  const client = yield* transport.connect(listener.address, resolveOptions(undefined))
  yield* turn
  const server = listener.accept()
  if (server === WouldBlock || isSocketError(server)) return assert.fail("nobody came")
  return { client, listener, server }
})

/** Takes what a listener gives at once, ends it, and answers how many that were. */
const acceptAll = (listener: ListenerBacking): number => {
  for (let count = 0;; count++) {
    const answer = listener.accept()
    if (answer === WouldBlock) return count
    if (isSocketError(answer)) return assert.fail(answer.message)
    answer.abort()
  }
}

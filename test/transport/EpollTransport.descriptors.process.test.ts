/** Descriptors that others have opened, and those that are given away. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import type * as Koffi from "koffi"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import { formatAddress } from "../../src/internal/base/format.ts"
import * as Read from "../../src/Read.ts"
import { isSocketError, Reason } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import { resolveOptions, Transport, WouldBlock } from "../../src/Transport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import { passedOn } from "../../src/transport/internal/epoll/descriptor.ts"
import * as Linux from "../../src/transport/internal/epoll/linux.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { ending, failure } from "../support/exits.ts"
import { openSockets } from "../support/kernel.ts"
import { eventually, start } from "../support/waiting.ts"

const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** System calls for descriptors that are nobody's sockets yet. */
const raw = () => {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi
  const library = koffi.load(null)
  const socket = library.func("int socket(int domain, int type, int protocol)")
  const duplicate = library.func("int dup(int fd)")
  const fcntl = library.func("int fcntl(int fd, int command, ...)")
  const setsockopt = library.func("int setsockopt(int fd, int level, int name, const void *value, uint32_t length)")
  const linux = Linux.load()
  return {
    ...linux,
    /** Blocking, and inherited by whoever is started. */
    plainSocket: (domain: number, type: number): number => socket(domain, type, 0),
    duplicate: (fd: number): number => duplicate(fd),
    /** Lets `close` wait until what was taken has arrived, or so many seconds. */
    setLinger: (fd: number, seconds: number): number =>
      setsockopt(fd, Linux.SOL_SOCKET, Linux.SO_LINGER, new Int32Array([1, seconds]), 8),
    lingers: (fd: number): boolean => linux.getInt(fd, Linux.SOL_SOCKET, Linux.SO_LINGER) !== 0,
    flags: (fd: number): ReadonlyArray<boolean> => [
      (fcntl(fd, Linux.F_GETFL, "int", 0) & Linux.O_NONBLOCK) !== 0,
      (fcntl(fd, Linux.F_GETFD, "int", 0) & Linux.FD_CLOEXEC) !== 0
    ]
  }
}

/** A descriptor of the test's, closed with its scope unless it is somebody else's by then. */
const owned = (linux: Linux.Linux, open: () => number) =>
  Effect.acquireRelease(Effect.sync(open), (fd) => Effect.sync(() => linux.close(fd)))

const plainConnection = (linux: ReturnType<typeof raw>, address: NetAddress.SocketAddress): number => {
  const fd = linux.plainSocket(NetAddress.isUnixPathAddress(address) ? Linux.AF_UNIX : Linux.AF_INET, Linux.SOCK_STREAM)
  assert.strictEqual(linux.connect(fd, Linux.encodeAddress(address)), 0)
  return fd
}

const adopted = (fd: number) =>
  Effect.acquireRelease(
    Effect.map(EpollTransport.fromFd(fd), (backing) => StreamSocket.make(backing)),
    (socket) => socket.abort
  )

/** The sockets that are registered with an epoll descriptor of this process, by number; Node's own left out. */
const watched = (): ReadonlyArray<number> =>
  readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`) !== "anon_inode:[eventpoll]") return []
      return [...readFileSync(`/proc/self/fdinfo/${fd}`, "utf8").matchAll(/tfd: +(\d+) events: +([0-9a-f]+)/g)]
        .filter(([, , events]) => (Number.parseInt(events ?? "", 16) & Linux.EPOLLET) !== 0)
        .map(([, number]) => Number(number))
    } catch {
      // The descriptor of the listing itself.
      return []
    }
  })

const assertIs = (fd: number, open: boolean): void => assert.strictEqual(existsSync(`/proc/self/fd/${fd}`), open)

describe("descriptors that a service manager passes on", () => {
  const cases: ReadonlyArray<readonly [Record<string, string>, ReadonlyArray<string>]> = [
    [{ LISTEN_PID: "7", LISTEN_FDS: "2", LISTEN_FDNAMES: "web:admin" }, ["3=web", "4=admin"]],
    [{ LISTEN_PID: "7", LISTEN_FDS: "2", LISTEN_FDNAMES: "web" }, ["3=web", "4=unknown"]],
    [{ LISTEN_PID: "7", LISTEN_FDS: "1" }, ["3=unknown"]],
    [{ LISTEN_PID: "7", LISTEN_FDS: "1", LISTEN_FDNAMES: "" }, ["3="]],
    [{ LISTEN_PID: "8", LISTEN_FDS: "1" }, []],
    [{ LISTEN_FDS: "1" }, []],
    [{ LISTEN_PID: "7" }, []],
    [{ LISTEN_PID: "7", LISTEN_FDS: "0" }, []],
    [{ LISTEN_PID: "7", LISTEN_FDS: "-1" }, []],
    [{ LISTEN_PID: "7", LISTEN_FDS: "1e3" }, []],
    [{}, []]
  ]
  it("are what the environment says of this process, and nothing where it says nonsense", () => {
    for (const [environment, expected] of cases) {
      const found = passedOn(environment, 7).map(({ fd, name }) => `${fd}=${name}`)
      assert.deepStrictEqual(found, expected, JSON.stringify(environment))
    }
  })
})

describe.skipIf(!EpollTransport.isSupported())("descriptors of EpollTransport", () => {
  describe("taken over", () => {
    it.layer(EpollTransport.layer, { excludeTestServices: true })("connections", (it) => {
      const addresses: Readonly<Record<string, () => NetAddress.SocketAddress>> = {
        "TCP": () => anyPort,
        "a Unix-domain path": () => NetAddress.unixPathAddress(join(directory, "connection.sock"))
      }
      for (const [name, address] of Object.entries(addresses)) {
        it.effect(`a blocking socket becomes a stream, with its addresses: ${name}`, () =>
          Effect.gen(function*() {
            const linux = raw()
            const acceptor = yield* Acceptor.listen(address())
            const fd = plainConnection(linux, acceptor.address)
            const server = yield* acceptor.accept
            assert.deepStrictEqual(linux.flags(fd), [false, false])
            // What has arrived before is read too.
            yield* Write.writeAll(server, text("early "))
            const socket = yield* adopted(fd)
            assert.deepStrictEqual(linux.flags(fd), [true, true])
            assert.deepStrictEqual([socket.localAddress, socket.remoteAddress], [
              server.remoteAddress,
              acceptor.address
            ])
            yield* Write.writeAll(server, text("late\n"))
            assertBytes(yield* Read.readUntil(socket, "\n"), "early late\n")
            const bytes = pattern(3_000_000)
            const writing = yield* start(Write.writeAll(socket, bytes))
            const got = new Uint8Array(bytes.byteLength)
            yield* Read.readExactly(server, got)
            yield* Fiber.join(writing)
            assertBytes(got, bytes)
            const waiting = yield* start(socket.readSome(new Uint8Array(1)))
            yield* server.close
            assert.strictEqual(ending(yield* Fiber.await(waiting)), "Done")
            yield* socket.close
            assertIs(fd, false)
          }))
      }

      it.effect("a listener accepts who has come before and after, and leaves its path in place", () =>
        Effect.gen(function*() {
          const linux = raw()
          const address = NetAddress.unixPathAddress(join(directory, "listener.sock"))
          const fd = linux.plainSocket(Linux.AF_UNIX, Linux.SOCK_STREAM)
          assert.strictEqual(linux.bind(fd, Linux.encodeAddress(address)), 0)
          assert.strictEqual(linux.listen(fd, 5), 0)
          const early = yield* StreamSocket.connect(address)
          const acceptor = Acceptor.make(yield* EpollTransport.listenerFromFd(fd))
          assert.deepStrictEqual(acceptor.address, address)
          yield* Write.writeAll(early, text("first"))
          const first = yield* acceptor.accept
          const accepting = yield* start(acceptor.accept)
          const late = yield* StreamSocket.connect(address)
          yield* Write.writeAll(late, text("second"))
          const second = yield* Fiber.join(accepting)
          const got = new Uint8Array(9)
          assert.strictEqual(yield* first.readSome(got), 5)
          assert.strictEqual(yield* second.readSome(got), 6)
          yield* acceptor.close
          assertIs(fd, false)
          assert.isTrue(existsSync(address.path))
        }))

      it.effect("closing does not wait in the kernel, whatever its opener has asked for", () =>
        Effect.gen(function*() {
          const linux = raw()
          const acceptor = yield* Acceptor.listen(anyPort)
          const connection = plainConnection(linux, acceptor.address)
          const peer = yield* acceptor.accept
          assert.strictEqual(linux.setLinger(connection, 60), 0)
          const copy = yield* owned(linux, () => linux.duplicate(connection))
          const socket = yield* adopted(connection)
          assert.isTrue(linux.lingers(connection))
          yield* socket.close
          assert.isFalse(linux.lingers(copy))
          assert.strictEqual(ending(yield* Effect.exit(peer.readSome(new Uint8Array(1)))), "Done")
          // Those that a listener accepts have what it has.
          const listener = linux.socket(Linux.AF_INET)
          assert.strictEqual(linux.setLinger(listener, 60), 0)
          assert.strictEqual(linux.listen(listener, 5), 0)
          const taken = yield* EpollTransport.listenerFromFd(listener)
          const client = yield* StreamSocket.connect(taken.address)
          const accepted = taken.accept()
          if (accepted === WouldBlock || isSocketError(accepted)) return assert.fail("nobody came")
          const fd = Number(accepted.detach?.())
          assert.isFalse(linux.lingers(fd))
          assert.isTrue(linux.lingers(listener))
          linux.close(fd)
          taken.close()
          yield* client.close
        }))

      it.effect("what others have too goes on there, and no event of it comes here any more", () =>
        Effect.gen(function*() {
          const linux = raw()
          const listener = linux.socket(Linux.AF_INET)
          assert.strictEqual(linux.bind(listener, Linux.encodeAddress(anyPort)), 0)
          assert.strictEqual(linux.listen(listener, 5), 0)
          const other = yield* owned(linux, () => linux.duplicate(listener))
          const acceptor = Acceptor.make(yield* EpollTransport.listenerFromFd(listener))
          assert.include(watched(), listener)
          yield* acceptor.close
          assert.notInclude(watched(), listener)
          // The address is still there, and the other one accepts.
          const client = yield* StreamSocket.connect(acceptor.address)
          const connection = linux.accept(other)
          assert.isAtLeast(connection, 0)
          const copy = yield* owned(linux, () => linux.duplicate(connection))
          const socket = yield* adopted(connection)
          assert.include(watched(), connection)
          yield* socket.close
          assert.notInclude(watched(), connection)
          assertIs(copy, true)
          assert.strictEqual(ending(yield* Effect.exit(client.readSome(new Uint8Array(1)))), "Done")
        }))

      it.effect("a descriptor that is not what it should be is refused, and stays as it was", () =>
        Effect.gen(function*() {
          const linux = raw()
          const acceptor = yield* Acceptor.listen(anyPort)
          const file = openSync(import.meta.filename, "r")
          yield* Effect.addFinalizer(() => Effect.sync(() => closeSync(file)))
          const datagram = yield* owned(linux, () => linux.plainSocket(Linux.AF_INET, 2))
          const fresh = yield* owned(linux, () => linux.plainSocket(Linux.AF_INET, Linux.SOCK_STREAM))
          const connection = yield* owned(linux, () => plainConnection(linux, acceptor.address))
          const listener = yield* owned(linux, () => linux.plainSocket(Linux.AF_INET, Linux.SOCK_STREAM))
          assert.strictEqual(linux.listen(listener, 1), 0)
          const other = yield* owned(linux, () => linux.plainSocket(16, 3))
          const { fromFd, listenerFromFd } = EpollTransport
          const refusals: ReadonlyArray<readonly [typeof fromFd | typeof listenerFromFd, number, string]> = [
            [fromFd, 9999, "fromFd: descriptor 9999, which is not open, is not supported here (EBADF)"],
            [fromFd, file, `fromFd: descriptor ${file}, which is not a socket, is not supported here (ENOTSOCK)`],
            [fromFd, datagram, "is neither a TCP nor a Unix-domain stream"],
            [fromFd, other, "is neither a TCP nor a Unix-domain stream"],
            [fromFd, listener, "listens, and so is no connection"],
            [fromFd, fresh, "fromFd: not connected (ENOTCONN)"],
            [listenerFromFd, 9999, "which is not open"],
            [listenerFromFd, fresh, "does not listen"],
            [listenerFromFd, connection, "does not listen"]
          ]
          const before = openSockets()
          for (const [take, fd, message] of refusals) {
            const error = failure(yield* Effect.exit<unknown, unknown, never>(take(fd)))
            assert.include(error.message, message)
            assert.strictEqual(error.reason._tag, fd === fresh && take === fromFd ? "NotConnected" : "Unsupported")
          }
          for (const fd of [datagram, fresh, connection, listener]) {
            assert.deepStrictEqual(linux.flags(fd), [false, false])
          }
          assert.deepStrictEqual([openSockets(), watched().length], [before, 1])
          for (const fd of [-1, 1.5, Number.NaN, 2 ** 31]) {
            assert.strictEqual(ending(yield* Effect.exit<unknown, unknown, never>(fromFd(fd))), "Die")
          }
        }))

      it.effect("a descriptor that is in use already is refused, and its owner hears of everything still", () =>
        Effect.gen(function*() {
          const linux = raw()
          const acceptor = yield* Acceptor.listen(anyPort)
          const fd = plainConnection(linux, acceptor.address)
          const server = yield* acceptor.accept
          const socket = yield* adopted(fd)
          const waiting = yield* start(socket.readSome(new Uint8Array(9)))
          const error = failure(yield* Effect.exit(EpollTransport.fromFd(fd)))
          assert.deepStrictEqual(
            error.reason,
            Reason.Busy({ detail: `a socket of this transport has descriptor ${fd}` })
          )
          yield* Write.writeAll(server, text("hello"))
          assert.strictEqual(yield* Fiber.join(waiting), 5)
        }))
    })

    it.live("needs no layer, and leaves nothing behind", () =>
      Effect.gen(function*() {
        const server = Net.createServer((socket) => socket.end("hello")).listen(0, "127.0.0.1")
        yield* Effect.promise(() => once(server, "listening"))
        const linux = raw()
        const before = [openSockets(), watched()]
        const { port } = server.address() as Net.AddressInfo
        const fd = plainConnection(linux, NetAddress.inetAddressUnsafe(NetAddress.ipv4Loopback, port))
        const socket = yield* adopted(fd)
        assertBytes(yield* Read.readAll(socket), "hello")
        yield* socket.close
        server.close()
        yield* eventually(
          "all is released",
          () => JSON.stringify([openSockets(), watched()]) === JSON.stringify(before)
        )
      }))
  })

  it.layer(EpollTransport.layer, { excludeTestServices: true })("given away", (it) => {
    const pair = Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anyPort)
      const client = yield* StreamSocket.connect(acceptor.address)
      const server = yield* acceptor.accept
      return { acceptor, client, server }
    })

    it.effect("a connection goes on as node:net's, with what the kernel has of it", () =>
      Effect.gen(function*() {
        const { client, server } = yield* pair
        yield* Write.writeAll(client, text("hello\nunread here\n"))
        yield* Write.writeAll(server, text("taken here, "))
        const line = new Uint8Array(6)
        yield* Read.readExactly(server, line.subarray(0, 0))
        assert.strictEqual(yield* server.readSome(line), 6)
        const fd = yield* StreamSocket.detachFd(server)
        assert.deepStrictEqual(server.state, { socket: "closed", read: "closed", write: "closed" })
        assert.notInclude(watched(), fd)
        for (const effect of [server.readSome(line), server.writeSome(line), server.shutdownWrite]) {
          assert.strictEqual(ending(yield* Effect.exit<unknown, unknown, never>(effect)), "Closed")
        }
        assert.strictEqual(ending(yield* Effect.exit(StreamSocket.detachFd(server))), "Closed")
        // Harmless: the number is somebody else's.
        yield* server.close
        yield* server.abort
        assertIs(fd, true)
        const native = new Net.Socket({ fd, readable: true, writable: true })
        const closed = once(native, "close")
        const [chunk] = yield* Effect.promise(() => once(native, "data"))
        assert.strictEqual(String(chunk), "unread here\n")
        native.end("written there")
        assertBytes(yield* Read.readAll(client), "taken here, written there")
        yield* client.close
        yield* Effect.promise(() => closed)
        assertIs(fd, false)
      }))

    it.effect("neither a connection nor a listener has its number any more", () =>
      Effect.gen(function*() {
        const linux = raw()
        const transport = yield* Transport
        const listener = yield* transport.listen(anyPort, resolveOptions(undefined))
        const backing = yield* transport.connect(listener.address, resolveOptions(undefined))
        const given = [
          yield* owned(linux, () => Number(backing.detach?.())),
          yield* owned(linux, () => Number(listener.detach?.()))
        ]
        assert.notIncludeMembers([...watched()], given)
        assert.strictEqual(typeof backing.read(new Uint8Array(1)), "object")
        assert.strictEqual(typeof listener.accept(), "object")
        backing.abort()
        listener.close()
        for (const fd of given) assertIs(fd, true)
      }))

    it.effect("and taken over again, it is a stream as before", () =>
      Effect.gen(function*() {
        const { client, server } = yield* pair
        yield* Write.writeAll(client, text("kept\n"))
        const again = yield* adopted(yield* StreamSocket.detachFd(server))
        assert.deepStrictEqual([again.localAddress, again.remoteAddress], [server.localAddress, server.remoteAddress])
        assertBytes(yield* Read.readUntil(again, "\n"), "kept\n")
      }))

    it.effect("a connection that is in use is refused, and goes on", () =>
      Effect.gen(function*() {
        const { client, server } = yield* pair
        const refused = (socket: StreamSocket.StreamSocket) =>
          Effect.map(Effect.exit(StreamSocket.detachFd(socket)), (exit) => failure(exit).reason)
        const reading = yield* start(server.readSome(new Uint8Array(9)))
        assert.deepStrictEqual(yield* refused(server), Reason.Busy({ detail: "readSome waits on the stream" }))
        yield* Fiber.interrupt(reading)
        yield* Write.writeAll(client, text("line\nrest"))
        assertBytes(yield* Read.readUntil(server, "\n"), "line\n")
        assert.deepStrictEqual(yield* refused(server), Reason.Busy({ detail: "4 bytes in its read buffer" }))
        yield* Read.discard(server, 4)
        const writing = yield* start(Cancellation.terminal(Write.writeAll(server, new Uint8Array(20_000_000))))
        assert.deepStrictEqual(yield* refused(server), Reason.Busy({ detail: "writeAll waits on the stream" }))
        yield* Fiber.interrupt(writing)
        assert.strictEqual((yield* refused(server))._tag, "Torn")
        assert.strictEqual(server.state.socket, "open")
        yield* Write.writeAll(client, text("still here"))
        assert.strictEqual(yield* server.readSome(new Uint8Array(20)), 10)
      }))

    it.effect("a listener goes on elsewhere, with everybody who has come", () =>
      Effect.gen(function*() {
        const address = NetAddress.unixPathAddress(join(directory, "given.sock"))
        const acceptor = yield* Acceptor.listen(address)
        const accepting = yield* start(acceptor.take)
        const busy = failure(yield* Effect.exit(Acceptor.detachFd(acceptor)))
        assert.deepStrictEqual(busy.reason, Reason.Busy({ detail: "accept waits on the address" }))
        assert.deepStrictEqual(busy.address, address)
        yield* Fiber.interrupt(accepting)
        const client = yield* StreamSocket.connect(address)
        const fd = yield* Acceptor.detachFd(acceptor)
        assert.strictEqual(ending(yield* Effect.exit(acceptor.take)), "Closed")
        assert.strictEqual(ending(yield* Effect.exit(Acceptor.detachFd(acceptor))), "Closed")
        yield* acceptor.close
        const native = Net.createServer((socket) => socket.end("hello")).listen({ fd })
        yield* Effect.addFinalizer(() => Effect.sync(() => native.close()))
        assertBytes(yield* Read.readAll(client), "hello")
      }))

    it.effect("what is no descriptor cannot be given away", () =>
      Effect.gen(function*() {
        const [memory] = yield* MemoryTransport.pair()
        const { client, server } = yield* Effect.provide(pair, NodeTransport.layer)
        for (const socket of [memory, server]) {
          const error = failure(yield* Effect.exit(StreamSocket.detachFd(socket)))
          assert.include(error.message, "giving away a stream of this transport is not supported here")
        }
        const acceptor = yield* Effect.provide(Acceptor.listen(anyPort), NodeTransport.layer)
        assert.strictEqual(ending(yield* Effect.exit(Acceptor.detachFd(acceptor))), "Unsupported")
        // All of them work on.
        yield* Write.writeAll(client, text("x"))
        assert.strictEqual(yield* server.readSome(new Uint8Array(9)), 1)
      }))
  })

  it.layer(EpollTransport.layer, { excludeTestServices: true })("in a child process", (it) => {
    /** What a child prints, when it has ended well. */
    const said = (child: ChildProcess) => {
      let output = ""
      child.stdout?.on("data", (chunk) => (output += String(chunk)))
      child.stderr?.on("data", (chunk) => (output += String(chunk)))
      const closed = once(child, "close")
      return Effect.promise(async () => {
        const [code] = await closed
        assert.strictEqual(code, 0, output)
        return output.trim()
      })
    }

    const started = (open: () => ChildProcess) =>
      Effect.acquireRelease(Effect.sync(open), (child) => Effect.sync(() => child.kill("SIGKILL")))

    const adopt = (what: string, fd: number) =>
      started(() =>
        spawn(process.execPath, ["epoll-adopt.ts", what], {
          cwd: import.meta.dirname,
          stdio: ["ignore", "pipe", "pipe", fd]
        })
      )

    /** Talks to an echo as any client does. */
    const talk = (address: NetAddress.SocketAddress) =>
      Effect.gen(function*() {
        const client = Net.connect(
          NetAddress.isUnixPathAddress(address)
            ? { path: address.path }
            : { port: address.port, host: "127.0.0.1" }
        ).on("error", () => {})
        yield* Effect.addFinalizer(() => Effect.sync(() => client.destroy()))
        client.end("hello")
        let answer = ""
        client.on("data", (chunk) => (answer += String(chunk)))
        yield* Effect.promise(() => once(client, "end"))
        return answer
      })

    it.effect("a connection that the parent accepted and gave away echoes there", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const answer = yield* start(talk(acceptor.address))
        const server = yield* acceptor.accept
        const fd = yield* StreamSocket.detachFd(server)
        const child = yield* adopt("connection", fd)
        closeSync(fd)
        const output = yield* said(child)
        assert.strictEqual(yield* Fiber.join(answer), "hello")
        assert.strictEqual(output, `${formatAddress(acceptor.address)} ${formatAddress(server.remoteAddress)} false`)
      }))

    it.effect("a listener that the parent has accepts there", () =>
      Effect.gen(function*() {
        const linux = raw()
        const listener = yield* owned(linux, () => linux.socket(Linux.AF_INET))
        assert.strictEqual(linux.bind(listener, Linux.encodeAddress(anyPort)), 0)
        assert.strictEqual(linux.listen(listener, 5), 0)
        const address = linux.localAddress(listener) ?? assert.fail("no address")
        const child = yield* adopt("listener", listener)
        assert.strictEqual(yield* talk(address), "hello")
        assert.strictEqual(yield* said(child), formatAddress(address))
      }))

    it.effect("activated as systemd does it", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const { address } = acceptor
        // It comes before the server does.
        const answer = yield* start(talk(address))
        const fd = yield* Acceptor.detachFd(acceptor)
        // `exec` keeps the process id, which only the child can know.
        const child = yield* started(() =>
          spawn("sh", ["-c", `LISTEN_PID=$$ exec "${process.execPath}" epoll-adopt.ts activated`], {
            cwd: import.meta.dirname,
            env: { ...process.env, LISTEN_FDS: "1", LISTEN_FDNAMES: "echo" },
            stdio: ["ignore", "pipe", "pipe", fd]
          })
        )
        closeSync(fd)
        assert.strictEqual(yield* said(child), `${formatAddress(address)} 3=echo`)
        assert.strictEqual(yield* Fiber.join(answer), "hello")
      }))

    const hasSystemd = spawnSync("systemd-socket-activate", ["--version"]).status === 0
    it.effect.skipIf(!hasSystemd)(
      "activated by systemd-socket-activate with the first connection",
      () =>
        Effect.gen(function*() {
          const address = NetAddress.unixPathAddress(join(directory, "activated.sock"))
          const child = yield* started(() =>
            spawn("systemd-socket-activate", [
              `--listen=${address.path}`,
              "--fdname=echo",
              process.execPath,
              "epoll-adopt.ts",
              "activated"
            ], { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "pipe"] })
          )
          yield* Effect.promise(() => once(child.stderr ?? assert.fail("no output"), "data"))
          const output = yield* start(said(child))
          assert.strictEqual(yield* talk(address), "hello")
          assert.include(yield* Fiber.join(output), `${formatAddress(address)} 3=echo`)
        })
    )
  })
})

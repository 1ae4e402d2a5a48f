/** Addresses, errors, options and descriptors on the real kernel, loopback only. Raw peers have a file of their own. */
import { afterAll, assert, beforeAll, describe, it, vi } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { spawnSync } from "node:child_process"
import { existsSync, linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Net from "node:net"
import { networkInterfaces, tmpdir } from "node:os"
import { join } from "node:path"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, inet, portOf } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { connected } from "../support/connection.ts"
import { ending, failure } from "../support/exits.ts"
import { hangingListener } from "../support/hangingListener.ts"
import { openSockets, tcpTable } from "../support/kernel.ts"
import { eventually, start, turns } from "../support/waiting.ts"

const path = NetAddress.unixPathAddress

const hasIpv6 = await new Promise<boolean>((resolve) => {
  const server = Net.createServer().once("error", () => resolve(false))
  server.listen({ host: "::1", port: 0 }, () => server.close(() => resolve(true)))
})

const [linkLocal] = Object.values(networkInterfaces()).flatMap((list = []) =>
  list.flatMap((entry) =>
    entry.family === "IPv6" && entry.address.startsWith("fe80:")
      ? [{ address: NetAddress.ipFromStringUnsafe(entry.address), scopeId: entry.scopeid }]
      : []
  )
)

let directory = ""
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const talk = (left: StreamSocket.StreamSocket, right: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    yield* Write.writeAll(left, text("ping\n"))
    assertBytes(yield* Read.readUntil(right, "\n"), "ping\n")
    yield* Write.writeAll(right, text("pong\n"))
    assertBytes(yield* Read.readUntil(left, "\n"), "pong\n")
  })

const refusal = <A, R>(effect: Effect.Effect<A, unknown, R>) => Effect.map(Effect.exit(effect), failure)

describe("NodeTransport", () => {
  it.layer(NodeTransport.layer, { excludeTestServices: true })("addresses", (it) => {
    it.effect("connects by address, and both ends know who is who", () =>
      Effect.gen(function*() {
        const { acceptor, client, server } = yield* connected()
        assert.isAbove(portOf(acceptor.address), 0)
        assert.deepStrictEqual(client.remoteAddress, acceptor.address)
        assert.deepStrictEqual(server.localAddress, acceptor.address)
        assert.deepStrictEqual(server.remoteAddress, client.localAddress)
        yield* talk(client, server)
      }))

    it.effect("still knows them when the connection is over", () =>
      Effect.gen(function*() {
        const { acceptor, client, server } = yield* Effect.scoped(connected())
        assert.strictEqual(client.state.socket, "closed")
        assert.deepStrictEqual(client.remoteAddress, acceptor.address)
        assert.deepStrictEqual(server.localAddress, acceptor.address)
        assert.isTrue(NetAddress.isInetAddress(client.localAddress))
        assert.deepStrictEqual(server.remoteAddress, client.localAddress)
      }))

    it.effect("knows whom it has reached at no address in particular", () =>
      Effect.gen(function*() {
        const { acceptor, client, server } = yield* connected(inet("0.0.0.0:0"))
        assert.deepStrictEqual(client.remoteAddress, inet(`127.0.0.1:${portOf(acceptor.address)}`))
        assert.deepStrictEqual(server.localAddress, client.remoteAddress)
        yield* talk(client, server)
      }))

    it.effect.skipIf(linkLocal === undefined)("knows the zone of a link-local address", () =>
      Effect.gen(function*() {
        const bound = NetAddress.inetAddressFromInputUnsafe({ ...linkLocal!, port: 0 })
        const { acceptor, client, server } = yield* connected(bound)
        for (const end of [acceptor.address, client.remoteAddress, client.localAddress, server.remoteAddress]) {
          assert.include(end, { scopeId: linkLocal!.scopeId })
        }
        yield* talk(client, server)
      }))

    it.effect.skipIf(!hasIpv6)("connects over IPv6", () =>
      Effect.gen(function*() {
        const { acceptor, client, server } = yield* connected(inet("[::1]:0"))
        assert.deepStrictEqual(server.remoteAddress, client.localAddress)
        assert.include(NetAddress.formatSocketAddress(acceptor.address), "[::1]:")
        yield* talk(client, server)
      }))

    it.effect.skipIf(!hasIpv6)(
      "an IPv6 address takes IPv4 peers as well, unless it must not",
      () =>
        Effect.gen(function*() {
          const both = yield* Acceptor.listen(inet("[::]:0"))
          const client = yield* StreamSocket.connect(inet(`127.0.0.1:${portOf(both.address)}`))
          const server = yield* both.accept
          yield* talk(client, server)
          assert.strictEqual(portOf(server.remoteAddress), portOf(client.localAddress))
          const only = yield* Acceptor.listen(inet("[::]:0"), { ipv6Only: true })
          const error = yield* refusal(StreamSocket.connect(inet(`127.0.0.1:${portOf(only.address)}`)))
          assert.strictEqual(error.reason._tag, "ConnectionRefused")
        })
    )

    it.effect("connects by host and port in every form, names resolved by the system", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const port = portOf(acceptor.address)
        for (
          const target of [`127.0.0.1:${port}`, `localhost:${port}`, { host: "127.0.0.1", port }, {
            host: "localhost",
            port
          }]
        ) {
          const client = yield* StreamSocket.connect(target)
          yield* talk(client, yield* acceptor.accept)
        }
      }))

    it.effect("connects over a Unix-domain path, which is removed on close", () =>
      Effect.gen(function*() {
        const socketPath = join(directory, "round-trip.sock")
        yield* Effect.scoped(Effect.gen(function*() {
          const { acceptor, client, server } = yield* connected(path(socketPath))
          assert.deepStrictEqual(acceptor.address, path(socketPath))
          assert.deepStrictEqual(client.remoteAddress, path(socketPath))
          assert.deepStrictEqual(server.localAddress, path(socketPath))
          assert.isTrue(NetAddress.isUnixPathAddress(server.remoteAddress))
          yield* talk(client, server)
          assert.isTrue(existsSync(socketPath))
        }))
        assert.isFalse(existsSync(socketPath))
        const again = yield* connected(path(socketPath))
        yield* talk(again.client, again.server)
      }))

    it.effect("a port is free again as soon as its acceptor is closed", () =>
      Effect.gen(function*() {
        const bound = yield* Effect.scoped(Effect.map(Acceptor.listen(anyPort), (acceptor) => acceptor.address))
        for (let i = 0; i < 5; i++) yield* Effect.scoped(Acceptor.listen(bound))
      }))

    const resolver = (...addresses: ReadonlyArray<string>) =>
      Layer.succeed(
        AddressResolver.AddressResolver,
        AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts: { "db.internal": addresses } })))
      )

    it.effect("tries the addresses of a name in order: the first is refused, the second works", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(inet("127.0.0.2:0"))
        const client = yield* StreamSocket.connect(`db.internal:${portOf(acceptor.address)}`).pipe(
          Effect.provide(resolver("127.0.0.3", "127.0.0.2", "127.0.0.4"))
        )
        assert.deepStrictEqual(client.remoteAddress, acceptor.address)
        yield* talk(client, yield* acceptor.accept)
      }))

    it.effect("lists every attempt when all are refused", () =>
      Effect.gen(function*() {
        const port = portOf((yield* Effect.scoped(Acceptor.listen(anyPort))).address)
        const error = yield* refusal(
          StreamSocket.connect(`db.internal:${port}`).pipe(Effect.provide(resolver("127.0.0.3", "127.0.0.2")))
        )
        if (error.reason._tag !== "ConnectFailed") return assert.fail(error.message)
        assert.deepStrictEqual(
          error.reason.attempts.map((attempt) => [attempt.reason._tag, attempt.code, attempt.address]),
          [
            ["ConnectionRefused", "ECONNREFUSED", inet(`127.0.0.3:${port}`)],
            ["ConnectionRefused", "ECONNREFUSED", inet(`127.0.0.2:${port}`)]
          ]
        )
        for (const word of [`db.internal:${port}`, `127.0.0.3:${port}`, `127.0.0.2:${port}`]) {
          assert.include(error.message, word)
        }
      }))

    it.effect("an unknown name is NameResolution with the name in it", () =>
      Effect.gen(function*() {
        const error = yield* refusal(
          StreamSocket.connect("nowhere.internal:5432").pipe(Effect.provide(resolver("127.0.0.1")))
        )
        assert.strictEqual(error.reason._tag, "NameResolution")
        assert.include(error.message, "nowhere.internal")
      }))
  })

  it.layer(NodeTransport.layer, { excludeTestServices: true })("errors", (it) => {
    it.effect("nobody listens: ConnectionRefused", () =>
      Effect.gen(function*() {
        const free = (yield* Effect.scoped(Acceptor.listen(anyPort))).address
        const error = yield* refusal(StreamSocket.connect(free))
        assert.deepStrictEqual([error.reason._tag, error.code, error.operation], [
          "ConnectionRefused",
          "ECONNREFUSED",
          "connect"
        ])
        assert.deepStrictEqual(error.address, free)
        assert.include(error.message, NetAddress.formatSocketAddress(free))
        assert.strictEqual((yield* refusal(StreamSocket.connect(anyPort))).reason._tag, "ConnectionRefused")
      }))

    it.effect("already bound: AddressInUse, for ports and for paths", () =>
      Effect.gen(function*() {
        for (const wanted of [anyPort, path(join(directory, "taken.sock"))]) {
          const { address } = yield* Acceptor.listen(wanted)
          const error = yield* refusal(Acceptor.listen(address))
          assert.deepStrictEqual([error.reason._tag, error.code, error.operation], [
            "AddressInUse",
            "EADDRINUSE",
            "listen"
          ])
          assert.deepStrictEqual(error.address, address)
        }
      }))

    it.effect("a failed listen leaves no trace of itself", () =>
      Effect.gen(function*() {
        const taken = path(join(directory, "kept.sock"))
        const acceptor = yield* Acceptor.listen(taken)
        yield* refusal(Acceptor.listen(taken))
        const client = yield* StreamSocket.connect(taken)
        yield* talk(client, yield* acceptor.accept)
      }))

    it.effect("not an address of this machine: AddressNotAvailable", () =>
      Effect.gen(function*() {
        // TEST-NET-1, which nobody has; binding sends nothing.
        const error = yield* refusal(Acceptor.listen(inet("192.0.2.1:0")))
        assert.deepStrictEqual([error.reason._tag, error.code], ["AddressNotAvailable", "EADDRNOTAVAIL"])
        assert.include(error.message, "192.0.2.1")
      }))

    it.effect("no way there: NetworkUnreachable", () =>
      Effect.gen(function*() {
        // The kernel refuses TCP to a broadcast address by itself; no packet leaves.
        const error = yield* refusal(StreamSocket.connect(inet("255.255.255.255:9")))
        assert.deepStrictEqual([error.reason._tag, error.code], ["NetworkUnreachable", "ENETUNREACH"])
        assert.include(error.message, "255.255.255.255:9")
      }))

    it.effect.skipIf(process.platform !== "linux")(
      "not permitted: PermissionDenied, for root too",
      () =>
        Effect.gen(function*() {
          const error = yield* refusal(Acceptor.listen(path("/proc/effect-asio.sock")))
          assert.strictEqual(error.reason._tag, "PermissionDenied")
          assert.include(error.message, "/proc/effect-asio.sock")
        })
    )

    it.effect("a path that does not exist: AddressNotAvailable", () =>
      Effect.gen(function*() {
        const missing = yield* refusal(StreamSocket.connect(path(join(directory, "missing.sock"))))
        assert.deepStrictEqual([missing.reason._tag, missing.code], ["AddressNotAvailable", "ENOENT"])
        writeFileSync(join(directory, "file"), "")
        const inFile = yield* refusal(StreamSocket.connect(path(join(directory, "file", "x.sock"))))
        assert.deepStrictEqual([inFile.reason._tag, inFile.code], ["AddressNotAvailable", "ENOTDIR"])
      }))

    it.effect("a path without a listener behind it: refused to connect, in use to listen", () =>
      Effect.gen(function*() {
        const stale = join(directory, "stale.sock")
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Acceptor.listen(path(join(directory, "alive.sock")))
          // A second name for the socket outlives its listener, as the name of a crashed process's does.
          linkSync(join(directory, "alive.sock"), stale)
        }))
        mkdirSync(join(directory, "folder"))
        writeFileSync(join(directory, "plain"), "")
        for (const name of [stale, join(directory, "folder"), join(directory, "plain")]) {
          assert.strictEqual((yield* refusal(StreamSocket.connect(path(name)))).reason._tag, "ConnectionRefused")
          assert.strictEqual((yield* refusal(Acceptor.listen(path(name)))).reason._tag, "AddressInUse")
          assert.isTrue(existsSync(name))
        }
      }))

    it.effect.skipIf(process.platform !== "linux")(
      "a path of 107 bytes works, one of 108 is LimitExceeded",
      () =>
        Effect.gen(function*() {
          const fits = join(directory, "\u00e9".padEnd(106 - Buffer.byteLength(directory) - 1, "x"))
          assert.strictEqual(Buffer.byteLength(fits), 107)
          const { client, server } = yield* connected(path(fits))
          yield* talk(client, server)
          for (const long of [`${fits}x`, `${fits}${"x".repeat(1000)}`]) {
            for (
              const error of [
                yield* refusal(StreamSocket.connect(path(long))),
                yield* refusal(Acceptor.listen(path(long)))
              ]
            ) {
              assert.strictEqual(error.reason._tag === "LimitExceeded" ? error.reason.limit : error.reason, 107)
              assert.deepStrictEqual(error.address, path(long))
            }
            assert.isFalse(existsSync(long.slice(0, 107 + 1)))
          }
        })
    )

    it.effect("paths that no system can have fail, and do not crash", () =>
      Effect.gen(function*() {
        for (const odd of ["", "a\0b"]) {
          assert.notStrictEqual(ending(yield* Effect.exit(StreamSocket.connect(path(odd)))), "Success")
          assert.notStrictEqual(ending(yield* Effect.exit(Acceptor.listen(path(odd)))), "Success")
        }
      }))
  })

  it.layer(NodeTransport.layer, { excludeTestServices: true })("options", (it) => {
    it.effect("noDelay and keepAlive reach the socket, at the start and later", () =>
      Effect.gen(function*() {
        const noDelay = vi.spyOn(Net.Socket.prototype, "setNoDelay")
        const keepAlive = vi.spyOn(Net.Socket.prototype, "setKeepAlive")
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            noDelay.mockRestore()
            keepAlive.mockRestore()
          })
        )
        const { client, server } = yield* connected(anyPort, { keepAlive: "30 seconds" })
        noDelay.mockClear()
        keepAlive.mockClear()
        yield* client.configure({ noDelay: false })
        assert.deepStrictEqual(noDelay.mock.calls, [[false]])
        assert.deepStrictEqual(keepAlive.mock.calls, [])
        yield* client.configure({ noDelay: true, keepAlive: "10 seconds" })
        yield* client.configure({ keepAlive: true })
        yield* client.configure({ keepAlive: false })
        assert.deepStrictEqual(noDelay.mock.calls, [[false], [true]])
        assert.deepStrictEqual<unknown>(keepAlive.mock.calls, [[true, 10_000, 1000, 10], [true, 0], [false, 0]])
        yield* talk(client, server)
        yield* client.close
        assert.strictEqual((yield* refusal(client.configure({ noDelay: true }))).reason._tag, "Closed")
      }))

    it.effect.skipIf(process.platform !== "linux")(
      "keepAlive arms the kernel's timer on both ends",
      () =>
        Effect.gen(function*() {
          for (const [keepAlive, expected] of [["1 minute", "02"], [false, "00"]] as const) {
            const { client } = yield* connected(anyPort, { keepAlive })
            for (const end of [client.localAddress, client.remoteAddress]) {
              // The timer of a fresh connection may still be that of its handshake.
              yield* eventually(
                `timer ${expected} with keepAlive ${keepAlive}`,
                () => timerOf(portOf(end)) === expected
              )
            }
          }
        })
    )

    it.effect("options that mean nothing on a Unix-domain path are ignored", () =>
      Effect.gen(function*() {
        const options = { noDelay: false, keepAlive: "5 seconds" } as const
        const { client, server } = yield* connected(path(join(directory, "options.sock")), options)
        yield* client.configure({ noDelay: true, keepAlive: false })
        yield* server.configure(options)
        yield* talk(client, server)
      }))

    it.effect("a slice size of 1 takes one byte at a time, and all of them arrive", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected(anyPort, { sliceSize: 1 })
        assert.strictEqual(yield* client.writeSome(pattern(100)), 1)
        const writer = yield* start(Write.writeAll(client, pattern(3000)))
        const got = new Uint8Array(3001)
        yield* Read.readExactly(server, got)
        assert.strictEqual(yield* Fiber.join(writer), 3000)
        assertBytes(got, Buffer.concat([pattern(1), pattern(3000)]))
      }))

    it.effect("odd slice sizes carry a megabyte unchanged, both ways at once", () =>
      Effect.gen(function*() {
        const bytes = pattern(1_000_000)
        for (const sliceSize of [4096, 4097, 65_535, 65_537, 10_000_000]) {
          const { client, server } = yield* connected(anyPort, { sliceSize })
          yield* start(Write.writeAll(client, bytes))
          yield* start(Write.writeAll(server, bytes))
          for (const end of [client, server]) {
            const got = new Uint8Array(bytes.byteLength)
            yield* Read.readExactly(end, got)
            assertBytes(got, bytes)
          }
        }
      }))
  })

  it.layer(NodeTransport.layer, { excludeTestServices: true })("descriptors", (it) => {
    it.effect("400 connections at the same time, all answered, all released", () =>
      Effect.gen(function*() {
        const before = openSockets()
        yield* Effect.scoped(Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(anyPort)
          yield* start(Acceptor.serve(acceptor, (socket) =>
            Effect.gen(function*() {
              while (true) yield* Write.writeAll(socket, yield* Read.readUntil(socket, "\n"))
            })))
          const clients = yield* Effect.forEach(
            Array.from({ length: 400 }),
            () => StreamSocket.connect(acceptor.address),
            { concurrency: "unbounded" }
          )
          yield* Effect.forEach(clients, (client, i) =>
            Effect.gen(function*() {
              for (let round = 0; round < 3; round++) {
                yield* Write.writeAll(client, text(`${i} ${round}\n`))
                assertBytes(yield* Read.readUntil(client, "\n"), `${i} ${round}\n`)
              }
            }), { concurrency: "unbounded" })
        }))
        yield* eventually("every descriptor released", () => openSockets() <= before)
      }))

    it.effect("a connect that is interrupted releases its descriptor, whenever that is", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const before = openSockets()
        for (const count of [0, 1, 2, 3, 5, 8]) {
          for (let i = 0; i < 10; i++) {
            const fiber = yield* start(
              Effect.scoped(Effect.andThen(StreamSocket.connect(acceptor.address), Effect.never))
            )
            yield* turns(count)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
          }
        }
        yield* acceptor.close
        yield* eventually("every descriptor released", () => openSockets() < before)
      }))

    it.effect.skipIf(process.platform !== "linux")(
      "a connect that nobody answers waits, and releases its descriptor when interrupted",
      () =>
        Effect.gen(function*() {
          const { target } = yield* hangingListener
          const before = openSockets()
          const fiber = yield* start(Effect.scoped(StreamSocket.connect(target)))
          yield* turns(20)
          assert.isUndefined(fiber.pollUnsafe())
          assert.strictEqual(openSockets(), before + 1)
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(openSockets(), before)
          const timedOut = yield* Effect.scoped(StreamSocket.connect(target)).pipe(Effect.timeoutOption("20 millis"))
          assert.strictEqual(timedOut._tag, "None")
          assert.strictEqual(openSockets(), before)
        })
    )

    it.effect("an interrupted accept and an interrupted listen leave nothing", () =>
      Effect.gen(function*() {
        const before = openSockets()
        for (let i = 0; i < 20; i++) {
          const listening = yield* start(Effect.scoped(Effect.andThen(Acceptor.listen(anyPort), Effect.never)))
          yield* turns(i % 4)
          yield* Fiber.interrupt(listening)
        }
        yield* Effect.scoped(Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(anyPort)
          const waiting = yield* Effect.forEach(Array.from({ length: 20 }), () => start(Effect.scoped(acceptor.accept)))
          yield* Fiber.interruptAll(waiting)
          const client = yield* StreamSocket.connect(acceptor.address)
          yield* talk(client, yield* acceptor.accept)
        }))
        yield* eventually("every descriptor released", () => openSockets() <= before)
      }))

    it.effect("close ends when the descriptor is released, abort too", () =>
      Effect.gen(function*() {
        const { client, server } = yield* connected()
        const before = openSockets()
        yield* client.close
        assert.strictEqual(openSockets(), before - 1)
        yield* server.abort
        assert.strictEqual(openSockets(), before - 2)
      }))
  })

  // Node's permission model knows networks since version 25.
  it.skipIf(!process.allowedNodeEnvironmentFlags.has("--allow-net"))("fails where Node forbids networks", () => {
    const say = (...args: ReadonlyArray<string>): ReadonlyArray<string> =>
      spawnSync(process.execPath, ["--permission", "--allow-fs-read=*", ...args, "node-permission.ts"], {
        cwd: import.meta.dirname,
        encoding: "utf8"
      }).stdout.trim().split("\n")
    assert.deepStrictEqual(say(), [
      "listen tcp://127.0.0.1:0: permission denied (ERR_ACCESS_DENIED)",
      "connect tcp://127.0.0.1:0: permission denied (ERR_ACCESS_DENIED)",
      "listen unix:///nowhere.sock: permission denied (ERR_ACCESS_DENIED)",
      "connect unix:///nowhere.sock: permission denied (ERR_ACCESS_DENIED)"
    ])
    assert.strictEqual(say("--allow-net")[0], "works")
  })
})

/** What the kernel's table says of the timer of the connection that has this local port: "00" none, "02" keep-alive. */
const timerOf = (port: number): string | undefined => {
  const hex = port.toString(16).toUpperCase().padStart(4, "0")
  const line = tcpTable().find((columns) => columns[1]?.endsWith(`:${hex}`) === true && columns[3] === "01")
  return line?.[5]?.split(":")[0]
}

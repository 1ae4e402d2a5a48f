/** Options at the kernel: what each transport asks of it, read back from the descriptors of this process. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import * as NetAddress from "effect/net/NetAddress"
import * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Connector from "../../src/Connector.ts"
import * as Read from "../../src/Read.ts"
import type { SocketError } from "../../src/SocketError.ts"
import type * as StreamSocket from "../../src/StreamSocket.ts"
import type { ListenOptions, Transport } from "../../src/Transport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as Linux from "../../src/transport/internal/epoll/linux.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, inet, portOf, unixPaths } from "../support/addresses.ts"
import { assertBytes } from "../support/bytes.ts"
import { openSockets } from "../support/kernel.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { start, turn, turns } from "../support/waiting.ts"

const anyPort6 = inet("[::1]:0")
const anyPath = unixPaths()

/** Two ends of a connection, without the listener. */
const pair = (
  at: NetAddress.SocketAddress,
  connectOptions?: Connector.Options,
  listenOptions?: ListenOptions
) =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(at, listenOptions)
    const client = yield* Connector.connect(acceptor.address, connectOptions)
    const server = yield* acceptor.accept
    yield* acceptor.close
    return { client, server }
  })

const talk = (one: StreamSocket.StreamSocket, other: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    yield* Write.writeAll(one, new TextEncoder().encode("there\n"))
    assertBytes(yield* Read.readUntil(other, "\n"), "there\n")
    yield* Write.writeAll(other, new TextEncoder().encode("back\n"))
    assertBytes(yield* Read.readUntil(one, "\n"), "back\n")
  })

const linux = EpollTransport.isSupported() ? Linux.load() : undefined

/** What the kernel has for the one socket of this process with that local port. */
const kernel = (socket: StreamSocket.StreamSocket) => {
  if (linux === undefined) return assert.fail("not on Linux")
  for (let fd = 0; fd < 1000; fd++) {
    const local = linux.localAddress(fd)
    if (local === undefined || NetAddress.isUnixPathAddress(local)) continue
    if (local.port !== portOf(socket.localAddress)) continue
    const { IPPROTO_TCP, SOL_SOCKET } = Linux
    return {
      noDelay: linux.getInt(fd, IPPROTO_TCP, Linux.TCP_NODELAY),
      keepAlive: linux.getInt(fd, SOL_SOCKET, Linux.SO_KEEPALIVE),
      idle: linux.getInt(fd, IPPROTO_TCP, Linux.TCP_KEEPIDLE),
      interval: linux.getInt(fd, IPPROTO_TCP, Linux.TCP_KEEPINTVL),
      count: linux.getInt(fd, IPPROTO_TCP, Linux.TCP_KEEPCNT),
      userTimeout: linux.getInt(fd, IPPROTO_TCP, Linux.TCP_USER_TIMEOUT),
      sendBuffer: linux.getInt(fd, SOL_SOCKET, Linux.SO_SNDBUF),
      receiveBuffer: linux.getInt(fd, SOL_SOCKET, Linux.SO_RCVBUF)
    }
  }
  return assert.fail(`no socket has the port of ${NetAddress.formatSocketAddress(socket.localAddress)}`)
}

const probesOf = (socket: StreamSocket.StreamSocket) => {
  const { count, idle, interval, keepAlive } = kernel(socket)
  return [keepAlive, idle, interval, count]
}

/** A listener that is none of ours, and who connected to it. */
const foreignListener = (host: string) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly server: Net.Server; readonly seen: Array<string> }>((resume) => {
      const seen: Array<string> = []
      const server = Net.createServer((socket) => {
        seen.push(`${socket.remoteAddress} ${socket.remotePort}`)
        socket.on("error", () => {}).resume()
      })
      server.listen(0, host, () => resume(Effect.succeed({ server, seen })))
    }),
    ({ server }) => Effect.sync(() => server.close())
  ).pipe(Effect.map(({ seen, server }) => {
    const bound = server.address()
    if (bound === null || typeof bound === "string") return assert.fail("no port")
    return { at: NetAddress.inetAddressFromNativeUnsafe(bound.address, bound.port), seen }
  }))

const unsupportedIn = <A, R>(effect: Effect.Effect<A, SocketError, R>) =>
  Effect.map(Effect.exit(effect), (exit) => {
    const error = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined
    return error?.reason._tag === "Unsupported" ? error.message : assert.fail(error?.message ?? "success")
  })

const transports: Readonly<Record<string, Layer.Layer<Transport | AddressResolver.AddressResolver>>> = {
  NodeTransport: NodeTransport.layer,
  EpollTransport: Layer.orDie(EpollTransport.layer)
}

const setsProbes = Net.Socket.prototype.setKeepAlive.length >= 4

for (const [name, layer] of Object.entries(transports)) {
  const isNode = name === "NodeTransport"
  const canProbe = !isNode || setsProbes

  describe.skipIf(!EpollTransport.isSupported())(`options of ${name}`, () => {
    it.layer(layer, { excludeTestServices: true })("keepAlive and noDelay", (it) => {
      it.effect.skipIf(!canProbe)(
        "every number reaches both ends, brought into the kernel's range",
        () =>
          Effect.gen(function*() {
            const keepAlive = { idle: "90 seconds", interval: 6500, count: 1000 } as const
            const { client, server } = yield* pair(anyPort, { keepAlive, noDelay: false }, { keepAlive })
            assert.deepStrictEqual(probesOf(client), [1, 90, 7, 127])
            assert.deepStrictEqual(probesOf(server), [1, 90, 7, 127])
            assert.deepStrictEqual([kernel(client).noDelay, kernel(server).noDelay], [0, 1])
            yield* talk(client, server)
          })
      )

      it.effect("an idle time alone finds a dead peer ten seconds after it", () =>
        Effect.gen(function*() {
          const { client, server } = yield* pair(anyPort6, { keepAlive: "1 day" }, { keepAlive: "20 millis" })
          assert.deepStrictEqual(probesOf(client), [1, 32_767, 1, 10])
          assert.deepStrictEqual(probesOf(server), [1, 1, 1, 10])
        }))

      it.effect("true leaves all times to the system, and false is none", () =>
        Effect.gen(function*() {
          const { client, server } = yield* pair(anyPort, { keepAlive: true }, { keepAlive: true })
          const plain = yield* pair(anyPort)
          const [, ...system] = probesOf(plain.client)
          assert.deepStrictEqual(probesOf(plain.client), [0, ...system])
          assert.deepStrictEqual(probesOf(plain.server), [0, ...system])
          assert.deepStrictEqual(probesOf(client), [1, ...system])
          assert.deepStrictEqual(probesOf(server), [1, ...system])
        }))

      it.effect.skipIf(!canProbe)("can be changed while the connection lives", () =>
        Effect.gen(function*() {
          const { client, server } = yield* pair(anyPort)
          for (const socket of [client, server]) {
            yield* socket.configure({
              keepAlive: { idle: "5 seconds", interval: "2 seconds", count: 3 },
              noDelay: false
            })
            assert.deepStrictEqual([...probesOf(socket), kernel(socket).noDelay], [1, 5, 2, 3, 0])
            yield* socket.configure({ keepAlive: { idle: "6 seconds" } })
            assert.deepStrictEqual(probesOf(socket), [1, 6, 1, 10])
            yield* socket.configure({ keepAlive: false })
            assert.strictEqual(kernel(socket).keepAlive, 0)
            yield* socket.configure({ keepAlive: true, noDelay: true })
            assert.deepStrictEqual([kernel(socket).keepAlive, kernel(socket).noDelay], [1, 1])
          }
          yield* talk(client, server)
        }))
    })

    it.layer(layer, { excludeTestServices: true })("localAddress", (it) => {
      it.effect("is where the peer sees the connection come from", () =>
        Effect.gen(function*() {
          const { at, seen } = yield* foreignListener("127.0.0.1")
          const client = yield* Connector.connect(at, { localAddress: inet("127.0.0.5:0") })
          yield* Effect.repeat(turn, { until: () => seen.length > 0 })
          assert.isAbove(portOf(client.localAddress), 0)
          assert.deepStrictEqual(seen, [`127.0.0.5 ${portOf(client.localAddress)}`])
          assert.strictEqual(NetAddress.formatSocketAddress(client.localAddress), seen[0]?.replace(" ", ":"))
        }))

      it.effect("works over IPv6, and for a name", () =>
        Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(anyPort6)
          const client = yield* Connector.connect(`[::1]:${portOf(acceptor.address)}`, { localAddress: anyPort6 })
          const server = yield* acceptor.accept
          assert.deepStrictEqual(server.remoteAddress, client.localAddress)
          yield* talk(client, server)
        }))

      it.effect("a port can be fixed, and used to connect to two places", () =>
        Effect.gen(function*() {
          const one = yield* Acceptor.listen(anyPort)
          const two = yield* Acceptor.listen(anyPort)
          // One that is free: nobody else is given it while its connection lives.
          const first = yield* Connector.connect(one.address, { localAddress: inet("127.0.0.7:0") })
          const localAddress = first.localAddress
          const second = yield* Connector.connect(two.address, { localAddress })
          assert.deepStrictEqual(second.localAddress, localAddress)
          yield* talk(second, yield* two.accept)
          const again = yield* Effect.flip(Connector.connect(one.address, { localAddress }))
          assert.strictEqual(again.reason._tag, "AddressNotAvailable")
        }))

      it.effect("that is nobody's, or in use, or of another family, is a typed error and leaves nothing", () =>
        Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(anyPort)
          const before = openSockets()
          const from = (localAddress: NetAddress.SocketAddress) =>
            Effect.flip(Connector.connect(acceptor.address, { localAddress }))
          assert.strictEqual((yield* from(inet("203.0.113.1:0"))).reason._tag, "AddressNotAvailable")
          assert.strictEqual((yield* from(acceptor.address)).reason._tag, "AddressInUse")
          assert.strictEqual((yield* from(anyPort6)).reason._tag, "Unsupported")
          assert.strictEqual((yield* from(anyPath())).reason._tag, "Unsupported")
          const toPath = yield* Acceptor.listen(anyPath())
          const error = yield* Effect.flip(Connector.connect(toPath.address, { localAddress: anyPort }))
          assert.strictEqual(error.reason._tag, "Unsupported")
          yield* toPath.close
          yield* Effect.repeat(turn, { until: () => openSockets() === before })
        }))
    })

    it.layer(layer, { excludeTestServices: true })("reusePort", (it) => {
      it.effect("lets listeners share a port, if all of them ask for it", () =>
        Effect.gen(function*() {
          const { address } = yield* Acceptor.listen(anyPort, { reusePort: true })
          const second = yield* Acceptor.listen(address, { reusePort: true })
          assert.deepStrictEqual(second.address, address)
          const error = yield* Effect.flip(Acceptor.listen(address))
          assert.strictEqual(error.reason._tag, "AddressInUse")
        }))

      it.effect("of somebody who did not ask is not given away", () =>
        Effect.gen(function*() {
          const { address } = yield* Acceptor.listen(anyPort)
          const error = yield* Effect.flip(Acceptor.listen(address, { reusePort: true }))
          assert.strictEqual(error.reason._tag, "AddressInUse")
        }))
    })

    it.layer(layer, { excludeTestServices: true })("on a Unix-domain path", (it) => {
      it.effect("what belongs to TCP is ignored", () =>
        Effect.gen(function*() {
          const options = {
            noDelay: false,
            keepAlive: { interval: "9 seconds" },
            userTimeout: "1 second",
            reusePort: true,
            ipv6Only: true
          } as const
          const { client, server } = yield* pair(anyPath(), options, options)
          yield* client.configure(options)
          yield* server.configure({ keepAlive: false, userTimeout: 1 })
          yield* talk(client, server)
        }))
    })
  })
}

describe.skipIf(!EpollTransport.isSupported())("what NodeTransport cannot do", () => {
  it.layer(NodeTransport.layer, { excludeTestServices: true })("is Unsupported", (it) => {
    const rejected: Readonly<Record<string, ListenOptions>> = {
      "userTimeout over node:net": { userTimeout: "1 second" },
      "sendBuffer over node:net": { sendBuffer: 4096 },
      "receiveBuffer over node:net": { receiveBuffer: 4096 }
    }
    for (const [feature, options] of Object.entries(rejected)) {
      it.effect(feature, () =>
        leavingNothing(Effect.gen(function*() {
          const listening = yield* unsupportedIn(Acceptor.listen(anyPort, options))
          assert.strictEqual(listening, `listen tcp://127.0.0.1:0: ${feature} is not supported here`)
          const { at, seen } = yield* foreignListener("127.0.0.1")
          const connecting = yield* unsupportedIn(Connector.connect(at, options))
          assert.strictEqual(
            connecting,
            `connect tcp://${NetAddress.formatInet(at)}: ${feature} is not supported here`
          )
          assert.deepStrictEqual(seen, [])
        })))
    }

    it.effect("in the middle of a connection, and changes nothing", () =>
      Effect.gen(function*() {
        const { client, server } = yield* pair(anyPort)
        const message = yield* unsupportedIn(client.configure({ noDelay: false, userTimeout: "1 second" }))
        assert.match(message, /^configure tcp:.* userTimeout over node:net is not supported here$/)
        assert.strictEqual(kernel(client).noDelay, 1)
        yield* talk(client, server)
      }))

    it.effect.skipIf(setsProbes)("times of probes, on a Node that has no way to them", () =>
      Effect.gen(function*() {
        for (const keepAlive of [{ interval: "2 seconds" }, { idle: "9 seconds", count: 3 }] as const) {
          assert.include(yield* unsupportedIn(Acceptor.listen(anyPort, { keepAlive })), "interval and count")
          const acceptor = yield* Acceptor.listen(anyPort)
          assert.include(yield* unsupportedIn(Connector.connect(acceptor.address, { keepAlive })), "interval and count")
        }
      }))
  })
})

describe.skipIf(!EpollTransport.isSupported())("what only EpollTransport can do", () => {
  it.layer(Layer.orDie(EpollTransport.layer), { excludeTestServices: true })("is done", (it) => {
    it.effect("userTimeout reaches both ends, and can be changed", () =>
      Effect.gen(function*() {
        const { client, server } = yield* pair(anyPort, { userTimeout: "90 seconds" }, { userTimeout: 0 })
        assert.deepStrictEqual([kernel(client).userTimeout, kernel(server).userTimeout], [90_000, 1])
        yield* client.configure({ userTimeout: "1 minute" })
        assert.strictEqual(kernel(client).userTimeout, 60_000)
        yield* client.configure({ userTimeout: "Infinity" })
        assert.strictEqual(kernel(client).userTimeout, 2 ** 31 - 1)
      }))

    it.effect("a peer that takes nothing for longer than the userTimeout: TimedOut", () =>
      Effect.gen(function*() {
        const { client } = yield* pair(anyPort, { userTimeout: "200 millis", sendBuffer: 4096 }, {
          receiveBuffer: 4096
        })
        const error = yield* Effect.flip(Write.writeAll(client, new Uint8Array(1_000_000)))
        assert.strictEqual(error.reason._tag, "TimedOut")
        assert.isAbove(error.transferred, 0)
      }))

    it.effect("buffers have the size that was asked for, at both ends", () =>
      Effect.gen(function*() {
        const options = { sendBuffer: 8192, receiveBuffer: 8192 }
        const { client, server } = yield* pair(anyPort, options, options)
        for (const socket of [client, server]) {
          assert.deepStrictEqual([kernel(socket).sendBuffer, kernel(socket).receiveBuffer], [16_384, 16_384])
        }
        for (const at of [anyPort, anyPath()]) {
          const { client, server } = yield* pair(at, options, options)
          yield* start(Write.writeAll(client, new Uint8Array(10_000_000)))
          yield* start(Write.writeAll(server, new Uint8Array(10_000_000)))
          yield* turns(50)
          for (const socket of [client, server]) {
            assert.isAbove(socket.bytesWritten, 1000)
            assert.isBelow(socket.bytesWritten, 100_000)
          }
          yield* client.abort
          yield* server.abort
        }
      }))
  })
})

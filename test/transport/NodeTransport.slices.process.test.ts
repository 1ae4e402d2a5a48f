import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { NetAddress } from "effect/net"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Acceptor, Read, SocketError, StreamSocket, Write } from "../../src/index.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { tcpTable } from "../support/kernel.ts"
import { eventually, turn } from "../support/waiting.ts"

const pair = Effect.fnUntraced(function*(sliceSize?: number) {
  const acceptor = yield* Acceptor.listen(anyPort, { sliceSize })
  const client = yield* StreamSocket.connect(acceptor.address)
  return [client, yield* acceptor.accept] as const
})

/** Writes until nothing more fits; the write that waits is interrupted and has taken nothing. */
const fill = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket, write: Effect.Effect<number, unknown>) {
  let total = 0
  for (;;) {
    const fiber = yield* Effect.forkChild(write, { startImmediately: true })
    let idle = 0
    while (fiber.pollUnsafe() === undefined && idle++ < 200) yield* turn
    if (fiber.pollUnsafe() === undefined) {
      yield* Fiber.interrupt(fiber)
      return total
    }
    total += yield* Effect.orDie(Fiber.join(fiber))
    assert.strictEqual(total, socket.bytesWritten)
  }
})

/** Bytes of a connection that the kernel holds, at both ends: the send queue of one and the receive queue of the other. */
const inKernel = (here: number, there: number): number => {
  let bytes = 0
  for (const line of tcpTable()) {
    const ports = new Set([line[1], line[2]].map((column) => Number.parseInt(column?.split(":")[1] ?? "0", 16)))
    if (!ports.has(here) || !ports.has(there)) continue
    const [sent, received] = (line[4] ?? "0:0").split(":").map((count) => Number.parseInt(count, 16))
    bytes += (sent ?? 0) + (received ?? 0)
  }
  return bytes
}

describe("slices of NodeTransport", () => {
  // Small slices go another way than large ones.
  for (const size of [1000, 20_000]) {
    it.live(`pieces of ${size} bytes are the caller's again at once, also when the kernel is full`, () =>
      Effect.gen(function*() {
        const [client, server] = yield* pair()
        const piece = new Uint8Array(size)
        const total = yield* fill(
          server,
          Effect.suspend(() => {
            piece.fill(1)
            return Effect.ensuring(server.writeSome(piece), Effect.sync(() => piece.fill(2)))
          })
        )
        const reading = yield* Effect.forkChild(Read.readAll(client))
        yield* server.close
        const all = yield* Fiber.join(reading)
        assert.strictEqual(all.byteLength, total)
        assert.isTrue(all.every((byte) => byte === 1))
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer)))
  }

  it.live.skipIf(process.platform !== "linux")(
    "at most two slices of a clogged connection are outside the kernel",
    () =>
      Effect.gen(function*() {
        const sliceSize = 100_000
        const [client, server] = yield* pair(sliceSize)
        let total = yield* fill(server, server.writeSome(new Uint8Array(1_000_000)))
        const outside = () => total - inKernel(portOf(client.localAddress), portOf(client.remoteAddress))
        // A kernel may take more of them later than the writer has patience for; then there is room for another.
        for (let i = 0; i < 10 && outside() < sliceSize; i++) {
          total += yield* fill(server, server.writeSome(new Uint8Array(1_000_000)))
        }
        // What has arrived and is not acknowledged yet counts at both ends for a moment.
        yield* eventually("everything is acknowledged", () => outside() >= 0)
        assert.isAtMost(outside(), 2 * sliceSize)
        // And it is worth something: the pipe is kept full.
        assert.isAtLeast(outside(), sliceSize)
        yield* client.abort
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
  )

  it.live("a writer that waits hears what the peer says before it goes", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anyPort)
      const peer = Net.connect({ host: "127.0.0.1", port: portOf(acceptor.address) })
      peer.on("error", () => {})
      const server = yield* acceptor.accept
      const writing = yield* Effect.forkChild(Effect.flip(Write.writeAll(server, new Uint8Array(32 << 20))), {
        startImmediately: true
      })
      // It reads nothing, says its word, and resets.
      peer.write("too much", () => setImmediate(() => peer.resetAndDestroy()))
      assert.strictEqual((yield* Fiber.join(writing)).reason._tag, "ConnectionReset")
      const target = new Uint8Array(100)
      const count = yield* server.readSome(target)
      assert.strictEqual(Buffer.from(target.subarray(0, count)).toString(), "too much")
    }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer)))

  it.live("a write that the kernel refuses on the spot has taken nothing", () =>
    Effect.gen(function*() {
      const path = NetAddress.unixPathAddress(join(tmpdir(), `effect-asio-${process.pid}-refused.sock`))
      const acceptor = yield* Acceptor.listen(path)
      const client = yield* StreamSocket.connect(path)
      const server = yield* acceptor.accept
      yield* client.abort
      const error = yield* Effect.flip(server.writeSome(new Uint8Array(10)))
      assert.isTrue(SocketError.Reason.$is("BrokenPipe")(error.reason), error.message)
      assert.strictEqual(server.bytesWritten, 0)
    }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer)))

  it.live("a backlog of two keeps two connections and resets the third", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anyPort, { backlog: 2 })
      const peers = [1, 2, 3, 4].map(() => {
        const peer = Net.connect({ host: "127.0.0.1", port: portOf(acceptor.address) })
        peer.on("error", () => {})
        return peer
      })
      yield* eventually("two peers are reset", () => peers.filter((peer) => peer.closed).length === 2)
      for (const _ of [1, 2]) {
        const server = yield* acceptor.accept
        yield* Write.writeAll(server, Buffer.from("welcome"))
        yield* server.shutdownWrite
      }
      const kept = peers.filter((peer) => !peer.closed)
      assert.strictEqual(kept.length, 2)
      yield* eventually("both are served", () => kept.every((peer) => peer.bytesRead === 7))
      for (const peer of kept) peer.destroy()
    }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer)))

  it.live.skipIf(process.platform !== "linux")(
    "keep-alive probes start after the idle time that was asked for",
    () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const client = yield* StreamSocket.connect(acceptor.address, { keepAlive: "1000 seconds" })
        // The kernel's timer of the connection: 02 is keep-alive, and it runs for the idle time, in hundredths of a second.
        const ports = [client.localAddress, client.remoteAddress].map((address) =>
          `:${portOf(address).toString(16).toUpperCase().padStart(4, "0")}`
        )
        const line = tcpTable().find((columns) => columns[1]?.endsWith(ports[0]!) && columns[2]?.endsWith(ports[1]!))
        const [timer, left] = line?.[5]?.split(":") ?? []
        assert.strictEqual(timer, "02")
        assert.approximately(Number.parseInt(left ?? "0", 16), 100_000, 1000)
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
  )

  it.live("a writer whose peer keeps up leaves the event loop its turns", () =>
    Effect.gen(function*() {
      const [client, server] = yield* pair()
      const piece = new Uint8Array(4 * 1024 * 1024)
      const writing = yield* Effect.forkChild(Effect.forever(Write.writeAll(server, piece)), { startImmediately: true })
      // The kernel takes more than this of what nobody has read yet.
      assert.isAtMost(server.bytesWritten, 1024 * 1024 + 65_536)
      const first = server.bytesWritten
      yield* turn
      assert.isAtMost(server.bytesWritten - first, 2 * (1024 * 1024 + 65_536))
      yield* Fiber.interrupt(writing)
      yield* client.abort
    }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer)))
})

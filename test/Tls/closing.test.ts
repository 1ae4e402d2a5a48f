/** How a TLS stream ends if its peer, which is `node:tls`, answers late or never. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, type Scope } from "effect"
import { NetAddress } from "effect/net"
import { once } from "node:events"
import * as Net from "node:net"
import { Duplex } from "node:stream"
import * as NodeTls from "node:tls"
import { Acceptor, Buffers, Read, StreamSocket, Tls, Write } from "../../src/index.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { anyPort } from "../support/addresses.ts"
import { localhost, root } from "../support/certificates.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { trusting } from "../support/tls.ts"
import { eventually, start, turns } from "../support/waiting.ts"

const forever = Duration.infinity

/** A peer that is `node:tls`, and what has happened to it. */
class Peer {
  readonly socket: NodeTls.TLSSocket
  readonly errors: Array<string> = []
  received = 0
  isToldGoodbye = false

  constructor(socket: NodeTls.TLSSocket) {
    this.socket = socket
    socket.on("data", (chunk: Buffer) => void (this.received += chunk.byteLength))
    socket.on("end", () => void (this.isToldGoodbye = true))
    socket.on("error", (error: NodeJS.ErrnoException) => void this.errors.push(error.code ?? error.message))
  }
}

/** A connection whose far end is `node:tls`; both sides have sent data. */
const conversation = (role: "client" | "server", maxVersion: Tls.Version, linger: Duration.Input) =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(anyPort, { linger })
    if (!NetAddress.isInetAddress(acceptor.address)) return assert.fail("no port")
    const { port } = acceptor.address
    let ours: Tls.TlsSocket
    let peer: Peer
    if (role === "server") {
      const raw = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
      peer = new Peer(NodeTls.connect({ socket: raw, servername: "localhost", ca: root.certificate, maxVersion }))
      ours = yield* Tls.server(yield* acceptor.accept, localhost)
    } else {
      const server = NodeTls.createServer({
        cert: localhost.certificate,
        key: localhost.keyText,
        allowHalfOpen: true,
        maxVersion
      })
      const connected = once(server, "secureConnection")
      yield* Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening"))
      const address = server.address()
      if (address === null || typeof address === "string") return assert.fail("no port")
      const to = NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${address.port}`)
      ours = yield* Tls.client(yield* StreamSocket.connect(to, { linger }), trusting)
      const [socket] = yield* Effect.promise(() => connected)
      server.close()
      peer = new Peer(socket)
    }
    yield* Effect.addFinalizer(() => Effect.sync(() => peer.socket.destroy()))
    peer.socket.write("hello\n")
    assert.strictEqual(yield* Read.readLine(ours), "hello")
    yield* Write.writeAll(ours, Buffers.utf8("hello yourself\n"))
    return { ours, peer }
  })

const suite = (name: string, layer: typeof NodeTransport.layer) =>
  describe(name, () => {
    for (const role of ["client", "server"] as const) {
      for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
        const live = <E>(
          title: string,
          effect: () => Effect.Effect<void, E, Scope.Scope | Effect.Services<ReturnType<typeof conversation>>>
        ) =>
          it.live(`as the ${role} of ${version}, ${title}`, () =>
            leavingNothing(Effect.suspend(effect)).pipe(Effect.provide(layer)))

        live("close waits for a peer that still sends, and no reset costs it anything", () =>
          Effect.gen(function*() {
            const { ours, peer } = yield* conversation(role, version, forever)
            const message = new Uint8Array(300_000)
            yield* Write.writeAll(ours, message)
            const closing = yield* start(ours.close)
            yield* eventually("the good-bye has come", () => peer.isToldGoodbye)
            for (let i = 0; i < 10; i++) {
              peer.socket.write("one more thing\n")
              yield* turns(5)
            }
            assert.isUndefined(closing.pollUnsafe())
            peer.socket.end()
            yield* Fiber.join(closing)
            assert.strictEqual(peer.received, 15 + message.byteLength)
            assert.deepStrictEqual(peer.errors, [])
          }))

        live("close lets go of a peer that never answers, without a reset", () =>
          Effect.gen(function*() {
            // A peer that sends nothing is awaited for less than a long linger time, and never longer than a short one.
            for (const linger of [forever, Duration.millis(20)]) {
              const { ours, peer } = yield* conversation(role, version, linger)
              yield* ours.close
              assert.strictEqual(ours.state.socket, "closed")
              yield* eventually("the good-bye has come", () => peer.isToldGoodbye)
              assert.deepStrictEqual(peer.errors, [])
            }
          }))

        live("close does not wait longer than the linger time for a peer that never stops", () =>
          Effect.gen(function*() {
            const { ours, peer } = yield* conversation(role, version, "300 millis")
            const sending = setInterval(() => void peer.socket.write("and another thing\n"), 5)
            yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(sending)))
            yield* ours.close
            assert.isTrue(peer.isToldGoodbye)
          }))
      }
    }
  })

suite("NodeTransport", NodeTransport.layer)

describe.skipIf(!EpollTransport.isSupported())("epoll", () => {
  suite("EpollTransport", Layer.orDie(EpollTransport.layer))
})

/** A client of `node:tls` that sends the end of its handshake and a message in one packet, and a reset behind it. */
const hitAndRun = (port: number): void => {
  const raw = Net.connect({ port, host: "127.0.0.1" })
  const pieces: Array<Buffer> = []
  const wire = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      // The ClientHello leaves at once; everything after it is held back.
      if (pieces.push(chunk) === 1) raw.write(chunk)
      done()
    }
  })
  raw.on("data", (chunk) => wire.push(chunk))
  raw.on("error", () => {})
  const socket = NodeTls.connect({ socket: wire, servername: "localhost", ca: root.certificate })
  socket.on("error", () => {})
  socket.once("secureConnect", () => {
    socket.write("hello\n")
    setImmediate(() => raw.write(Buffer.concat(pieces.slice(1)), () => raw.resetAndDestroy()))
  })
}

// Over epoll the handshake has failed by then.
it.live("a peer that disconnects during the last flight of the handshake fails shutdownWrite over node:net", () =>
  leavingNothing(Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(anyPort)
    if (!NetAddress.isInetAddress(acceptor.address)) return assert.fail("no port")
    hitAndRun(acceptor.address.port)
    const ours = yield* Tls.server(yield* acceptor.accept, localhost)
    // Nothing of this side may leave in the same packet as that flight.
    yield* turns()
    yield* Effect.ignore(Write.writeAll(ours, Buffers.utf8("hello yourself\n")))
    const error = yield* Effect.flip(ours.shutdownWrite)
    assert.include(["ConnectionReset", "BrokenPipe"], error.reason._tag)
    assert.strictEqual(ours.state.write, "failed")
  })).pipe(Effect.provide(NodeTransport.layer)))

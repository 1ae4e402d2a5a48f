/** TLS behaves the same over every transport: how it ends, and with a peer that goes right behind the handshake. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import * as Net from "node:net"
import { Duplex } from "node:stream"
import * as NodeTls from "node:tls"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Read from "../../src/Read.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { turns } from "../../src/testing/checks/support.ts"
import * as Tls from "../../src/Tls.ts"
import type { Transport } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { localhost, root } from "../support/certificates.ts"
import { ending } from "../support/exits.ts"
import { trusting } from "../support/tls.ts"
import { kernel, nodeTcp, type Place, rawServer } from "../support/transports.ts"

type Opened = Effect.Effect<
  readonly [ours: Tls.TlsSocket, theirs: NodeTls.TLSSocket, raw: Net.Socket],
  SocketError,
  Transport | Scope.Scope
>

const dial = (address: NetAddress.SocketAddress): Net.Socket =>
  NetAddress.isUnixPathAddress(address)
    ? Net.connect({ path: address.path, allowHalfOpen: true })
    : Net.connect({ port: address.port, host: "127.0.0.1", allowHalfOpen: true })

/** A connection whose other end is `node:tls`, and the socket of `node:net` below that. */
const opened = (
  place: Place,
  role: "server" | "client",
  options: Tls.CommonOptions = {},
  maxVersion: Tls.Version = "TLSv1.3"
): Opened =>
  Effect.gen(function*() {
    if (role === "server") {
      const acceptor = yield* Acceptor.listen(place.address(), { linger: "1 second" })
      const raw = dial(acceptor.address).on("error", () => {})
      yield* Effect.addFinalizer(() => Effect.sync(() => raw.destroy()))
      const theirs = NodeTls.connect({ socket: raw, servername: "localhost", ca: root.certificate, maxVersion })
      theirs.on("error", () => {})
      const secure = once(theirs, "secureConnect")
      const ours = yield* Tls.server(yield* acceptor.accept, { ...options, ...localhost })
      yield* Effect.promise(() => secure)
      return [ours, theirs, raw] as const
    }
    let accepted: ((pair: readonly [NodeTls.TLSSocket, Net.Socket]) => void) | undefined
    const other = new Promise<readonly [NodeTls.TLSSocket, Net.Socket]>((resolve) => {
      accepted = resolve
    })
    const address = yield* rawServer(place, (raw) => {
      const theirs = new NodeTls.TLSSocket(raw, {
        isServer: true,
        cert: localhost.certificate,
        key: localhost.keyText,
        maxVersion
      })
      theirs.on("error", () => {})
      // A turn later: Node 22 sends no close_notify when `end` is called inside the handshake.
      theirs.on("secure", () => setImmediate(() => accepted?.([theirs, raw])))
    }, { allowHalfOpen: true })
    const plain = yield* StreamSocket.connect(address, { linger: "1 second" })
    const ours = yield* Tls.client(plain, { ...trusting, ...options })
    const [theirs, raw] = yield* Effect.promise(() => other)
    return [ours, theirs, raw] as const
  })

/** One word for how a stream ended behind "hello". */
const endOf = (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    const hello = new Uint8Array(5)
    yield* Read.readExactly(socket, hello)
    assert.strictEqual(Buffer.from(hello).toString(), "hello")
    const exit = yield* Effect.exit(socket.readSome(hello))
    const how = ending(exit)
    if (how !== "Tls" || Exit.isSuccess(exit)) return how
    return /cut off|truncated/.test(String(exit.cause)) ? "truncated" : String(exit.cause)
  })

const roles = ["server", "client"] as const
const versions = ["TLSv1.2", "TLSv1.3"] as const

describe("a TLS stream that is cut off, without close_notify", () => {
  for (const place of kernel) {
    for (const role of roles) {
      for (const version of versions) {
        it.live(
          `is truncated for those who ask for that (${role}, ${version}), over ${place.name}`,
          () =>
            Effect.gen(function*() {
              const [ours, theirs, raw] = yield* opened(place, role, { strictEnd: true }, version)
              theirs.write("hello", () => raw.end())
              assert.strictEqual(yield* endOf(ours), "truncated")
            }).pipe(Effect.scoped, Effect.provide(place.layer)),
          20_000
        )

        // On its own TCP sockets `node:tls` does not tell, and making it tell costs 50 % of processor time.
        const told = place.name === nodeTcp.name ? "Done" : "truncated"
        it.live(`is ${told} by default (${role}, ${version}), over ${place.name}`, () =>
          Effect.gen(function*() {
            const [ours, theirs, raw] = yield* opened(place, role, {}, version)
            theirs.write("hello", () => raw.end())
            assert.strictEqual(yield* endOf(ours), told)
          }).pipe(Effect.scoped, Effect.provide(place.layer)), 20_000)
      }

      it.live(`is a clean end for those who ask for that (${role}), over ${place.name}`, () =>
        Effect.gen(function*() {
          const [ours, theirs, raw] = yield* opened(place, role, { strictEnd: false })
          theirs.write("hello", () => raw.end())
          assert.strictEqual(yield* endOf(ours), "Done")
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 20_000)

      for (const strictEnd of [undefined, true, false]) {
        it.live(
          `with close_notify it is a clean end (${role}, strictEnd ${strictEnd}), over ${place.name}`,
          () =>
            Effect.gen(function*() {
              const [ours, theirs] = yield* opened(place, role, { strictEnd })
              theirs.end("hello")
              assert.strictEqual(yield* endOf(ours), "Done")
            }).pipe(Effect.scoped, Effect.provide(place.layer)),
          20_000
        )
      }

      it.live(
        `that carried much is a clean end behind its last byte (${role}), over ${place.name}`,
        () =>
          Effect.gen(function*() {
            const [ours, theirs, raw] = yield* opened(place, role, { strictEnd: false })
            const sent = Buffer.alloc(300_000, "abc")
            theirs.write(sent, () => raw.end())
            assert.isTrue(Buffer.from(yield* Read.readAll(ours)).equals(sent))
            assert.strictEqual(yield* Write.writeAll(ours, Buffer.from("goes on")), 7)
          }).pipe(Effect.scoped, Effect.provide(place.layer)),
        20_000
      )
    }
  }
})

const large = new Uint8Array(8 * 1024 * 1024)

/** What is done with a stream whose peer is gone; none of it may wait for ever. */
const operations: Readonly<Record<string, (socket: StreamSocket.StreamSocket) => Effect.Effect<unknown, unknown>>> = {
  shutdownWrite: (socket) => socket.shutdownWrite,
  "a large writeAll": (socket) => Write.writeAll(socket, large),
  "writeAll, again and again": (socket) => Effect.forever(Write.writeAll(socket, new Uint8Array(65_536))),
  "writeAll and shutdownWrite": (socket) =>
    Effect.andThen(Write.writeAll(socket, new Uint8Array(1000)), socket.shutdownWrite),
  readSome: (socket) => socket.readSome(new Uint8Array(1)),
  close: (socket) => socket.close
}

/** A client of `node:tls` that sends the end of its handshake and a message in one packet, and is gone behind it. */
const hitAndRun = (address: NetAddress.SocketAddress): void => {
  const raw = dial(address)
  const pieces: Array<Buffer> = []
  const wire = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      // The ClientHello has to leave; what comes behind it waits.
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
    setImmediate(() => raw.write(Buffer.concat(pieces.slice(1)), () => raw.destroy()))
  })
}

describe("a peer that goes right behind the handshake", () => {
  for (const place of kernel) {
    for (const [name, operation] of Object.entries(operations)) {
      it.live(`does not hold up ${name}, over ${place.name}`, () =>
        Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(place.address(), { linger: "1 second" })
          for (let i = 0; i < 5; i++) {
            hitAndRun(acceptor.address)
            yield* Effect.scoped(Effect.gen(function*() {
              const exit = yield* Effect.exit(Tls.server(yield* acceptor.accept, localhost))
              if (Exit.isFailure(exit)) return
              // What is to be done here leaves by itself, behind the last words of the handshake.
              yield* turns()
              const ended = yield* Effect.timeoutOption(Effect.exit(operation(exit.value)), "5 seconds")
              assert.strictEqual(ended._tag, "Some", `${name} still waits after 5 seconds`)
              yield* exit.value.abort
            }))
          }
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
    }
  }
})

import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Result } from "effect"
import * as NetAddress from "effect/net/NetAddress"
import { Acceptor, Buffers, Connector, Read, Tls, Write } from "../../src/index.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { localhost, root } from "../support/certificates.ts"
import { leavingNothing } from "../support/leftovers.ts"

/** A server that greets each client over TLS; succeeds with its port. */
const greeter = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen("127.0.0.1:0")
  yield* Effect.forkScoped(
    Acceptor.serve(acceptor, (plain) =>
      Effect.scoped(
        Effect.flatMap(Tls.server(plain, localhost), (socket) => Write.writeAll(socket, Buffers.utf8("hello\n")))
      ))
  )
  return NetAddress.isInetAddress(acceptor.address) ? acceptor.address.port : 0
})

const tls = { ca: root.certificate }

describe("Connector over TLS", () => {
  it.live("the certificate has to name the host of the target", () =>
    leavingNothing(
      Effect.gen(function*() {
        const port = yield* greeter
        const socket = yield* Connector.connect(`localhost:${port}`, { tls, timeout: "5 seconds" })
        assert.strictEqual(socket.tls.authorized, true)
        assert.strictEqual(socket.tls.protocol, "TLSv1.3")
        assert.strictEqual(yield* Read.readLine(socket), "hello")
        const error = yield* Effect.flip(
          Connector.connect(`localhost:${port}`, { tls: { ...tls, servername: "elsewhere.test" } })
        )
        assert.deepStrictEqual([error.reason._tag, "kind" in error.reason && error.reason.kind], ["Tls", "certificate"])
        const byAddress = yield* Connector.connect(`127.0.0.1:${port}`, { tls })
        assert.strictEqual(yield* Read.readLine(byAddress), "hello")
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
    ))

  it.live("the service does too", () =>
    leavingNothing(
      Effect.gen(function*() {
        const port = yield* greeter
        const { connect } = yield* Connector.Connector
        const socket = yield* connect(`localhost:${port}`)
        assert.isTrue(Tls.isTlsSocket(socket))
        assert.strictEqual(yield* Read.readLine(socket), "hello")
      }).pipe(Effect.scoped, Effect.provide(Connector.layer({ tls })), Effect.provide(NodeTransport.layer))
    ))

  it.live("the time-out counts for the handshake, and so does an interruption", () =>
    leavingNothing(
      Effect.gen(function*() {
        // Accepts and sends nothing.
        const acceptor = yield* Acceptor.listen("127.0.0.1:0")
        const target = NetAddress.isInetAddress(acceptor.address) ? acceptor.address : undefined
        if (target === undefined) return assert.fail("no address")
        const late = yield* Effect.flip(
          Connector.connect(target, { timeout: "50 millis", tls: { ...tls, servername: "localhost" } })
        )
        assert.deepStrictEqual([late.reason._tag, late.code], ["Tls", "ETIMEDOUT"])
        const fiber = yield* Effect.forkChild(Connector.connect(target, { tls: { ...tls, servername: "localhost" } }))
        yield* acceptor.accept
        const peer = yield* acceptor.accept
        // The ClientHello has arrived, so the handshake is under way.
        yield* Read.readUint(peer, 1)
        const exit = yield* Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        // The stream ends or is reset, because the client has gone.
        yield* Effect.exit(Read.readAll(peer, { max: 10_000 }))
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
    ))

  it.effect("a Unix-domain path has no name of its own", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Connector.connect(NetAddress.unixPathAddress("/tmp/none"), { tls }))
      if (Exit.isSuccess(exit)) return assert.fail("connected")
      assert.match(String(Result.getOrThrow(Cause.findDefect(exit.cause))), /servername/)
    }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer)))
})

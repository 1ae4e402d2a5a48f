import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger, Redacted } from "effect"
import * as NetAddress from "effect/net/NetAddress"
import { Buffers, Connector, ProxyProtocol, Read, Server, StreamSocket, Tls, Write } from "../../src/index.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { localhost, root } from "../support/certificates.ts"
import { ending, failure } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { eventually } from "../support/waiting.ts"

const portOf = (server: Server.Server): number => {
  const [address] = server.addresses
  return NetAddress.isInetAddress(address) ? address.port : 0
}

const greet: Server.Handler<unknown, never> = (socket, connection) =>
  Effect.andThen(
    Write.writeAll(socket, Buffers.utf8(`${Tls.isTlsSocket(socket)} ${NetAddress.formatHost(clientOf(connection))}\n`)),
    Read.readAll(socket, { max: 100 })
  )

const clientOf = ({ remoteAddress }: Server.Connection): NetAddress.InetAddress =>
  NetAddress.isInetAddress(remoteAddress) ? remoteAddress : NetAddress.inetAddressFromStringUnsafe("0.0.0.0:0")

const tls = { ca: root.certificate }

describe("Server over TLS", () => {
  it.live("its handlers have streams over TLS, and a client that has none is its own affair", () =>
    leavingNothing(
      Effect.gen(function*() {
        const failed: Array<string> = []
        const strange: Array<string> = []
        const server = yield* Server.make(greet, {
          listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
          tls: localhost,
          limits: { idle: "10 seconds" },
          shutdown: { deadline: 0 },
          onError: (cause) => Effect.sync(() => failed.push(String(cause))),
          onHandshakeFailure: (cause) => Effect.sync(() => strange.push(ending(Exit.failCause(cause))))
        })
        const socket = yield* Connector.connect(`localhost:${portOf(server)}`, { tls })
        assert.strictEqual(yield* Read.readLine(socket), "true 127.0.0.1")
        const [live] = yield* server.connections
        assert.isAbove(live?.bytesWritten ?? 0, 0)
        const plain = yield* StreamSocket.connect(server.addresses[0])
        yield* Write.writeAll(plain, Buffers.utf8("GET / HTTP/1.1\r\n\r\n"))
        yield* Effect.exit(Read.readAll(plain, { max: 10_000 }))
        yield* eventually(() => `told of ${strange.length}`, () => strange.length > 0)
        const { connections, failures, handshakeFailures } = yield* server.health
        assert.deepStrictEqual([connections, failures, handshakeFailures.Tls], [1, 0, 1])
        assert.deepStrictEqual([failed, strange], [[], ["Tls"]])
        const other = yield* Connector.connect(`localhost:${portOf(server)}`, { tls })
        assert.strictEqual(yield* Read.readLine(other), "true 127.0.0.1")
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
    ))

  it.live("options that cannot be used fail the server, and not those who connect", () =>
    Effect.gen(function*() {
      const listen = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0")
      const wrong = { ...localhost, key: Redacted.make("no key") }
      const exit = yield* Effect.exit(Effect.scoped(Server.make(greet, { listen, tls: wrong })))
      const error = failure(exit)
      assert.strictEqual(error.reason._tag, "Tls")
    }).pipe(Effect.provide(NodeTransport.layer)))

  it.live("behind a PROXY header, in the same segment as the greeting of the client", () =>
    leavingNothing(
      Effect.gen(function*() {
        const context = yield* Tls.makeServerContext(localhost)
        const server = yield* Server.make(greet, {
          listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
          tls: context,
          proxyProtocol: { trusted: ProxyProtocol.trustAnyone },
          shutdown: { deadline: 0 }
        })
        const plain = yield* StreamSocket.connect(server.addresses[0])
        yield* Write.writeAll(plain, Buffers.utf8("PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n"))
        const socket = yield* Tls.client(plain, { ...tls, servername: "localhost" })
        assert.strictEqual(yield* Read.readLine(socket), "true 192.0.2.7")
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
    ))

  it.live("a context may have a deadline of its own", () =>
    leavingNothing(
      Effect.gen(function*() {
        const context = yield* Tls.makeServerContext({ ...localhost, deadline: "50 millis" })
        const server = yield* Server.make(greet, {
          listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
          tls: context,
          limits: { handshake: "1 hour" },
          shutdown: { deadline: 0 }
        })
        const silent = yield* StreamSocket.connect(server.addresses[0])
        // Ends, one way or the other, because the server does not wait any more.
        yield* Effect.exit(Read.readAll(silent, { max: 100 }))
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
    ))

  it.live("a look-up of an identity that fails is an error of the program, and logged as one", () =>
    leavingNothing(
      Effect.gen(function*() {
        const levels: Array<string> = []
        const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
          if (String(message).includes("failed before its handler")) levels.push(logLevel)
        })
        const tls = { ...localhost, identityFor: () => Effect.fail("the database is down") }
        const server = yield* Effect.provide(
          Server.make(greet, {
            listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
            tls,
            shutdown: { deadline: 0 }
          }),
          Logger.layer([logger])
        )
        const refused = yield* Effect.exit(
          Connector.connect(`localhost:${portOf(server)}`, { tls: { ca: root.certificate } })
        )
        assert.strictEqual(Exit.isFailure(refused), true)
        yield* eventually(() => `logged ${levels.length}`, () => levels.length > 0)
        assert.deepStrictEqual(levels, ["Error"])
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
    ))

  it.live("a peer that says nothing has the time of the handshake", () =>
    leavingNothing(
      Effect.gen(function*() {
        const limits: Array<string> = []
        const server = yield* Server.make(greet, {
          listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
          tls: localhost,
          limits: { handshake: "100 millis" },
          shutdown: { deadline: 0 },
          onLimit: (limit) => Effect.sync(() => limits.push(limit._tag))
        })
        const silent = yield* StreamSocket.connect(server.addresses[0])
        yield* Effect.exit(Read.readAll(silent, { max: 100 }))
        yield* eventually(() => "no limit was told", () => limits.length > 0)
        assert.deepStrictEqual([limits, (yield* server.health).limited.Handshake], [["Handshake"], 1])
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer))
    ))
})

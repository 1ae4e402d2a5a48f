import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { randomBytes, X509Certificate } from "node:crypto"
import { Buffers, Read, StreamSocket, Tls, Write } from "../../src/index.ts"
import { MemoryTransport } from "../../src/testing/index.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { authority, localhost, root } from "../support/certificates.ts"
import { connection } from "../support/connection.ts"
import { ending, failure } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { handshake, type Options, secured, type Socket, trusting } from "../support/tls.ts"
import { start, turns } from "../support/waiting.ts"

const agreed = (options?: Options) => Effect.flatMap(MemoryTransport.pair(), (ends) => secured(ends, options))

/** Sends bytes in both directions. */
const converses = (one: Socket, other: Socket) =>
  Effect.gen(function*() {
    const target = new Uint8Array(100)
    yield* Write.writeAll(one, Buffers.utf8("there"))
    assert.strictEqual(yield* other.readSome(target), 5)
    yield* Write.writeAll(other, Buffers.utf8("and back"))
    assert.strictEqual(yield* one.readSome(target), 8)
  })

describe("what two peers have agreed on", () => {
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    it.effect(`the version and the cipher (${maxVersion})`, () =>
      Effect.gen(function*() {
        const [client, server] = yield* agreed({ server: { maxVersion } })
        assert.strictEqual(client.tls.protocol, maxVersion)
        assert.match(client.tls.cipher, /^TLS_/)
        assert.strictEqual(client.tls.cipher, server.tls.cipher)
        assert.isTrue(client.tls.authorized)
        assert.strictEqual(server.tls.servername, "localhost")
        assert.isTrue(Tls.isTlsSocket(client) && StreamSocket.isStreamSocket(client))
        yield* converses(client, server)
      }))
  }

  it.effect("a cipher that one of them insists on", () =>
    Effect.gen(function*() {
      const [client] = yield* agreed({
        client: { maxVersion: "TLSv1.2" },
        server: { ciphers: "ECDHE-ECDSA-CHACHA20-POLY1305" }
      })
      assert.strictEqual(client.tls.cipher, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
    }))

  it.effect("an application protocol, in the order of the server; none where one side has none", () =>
    Effect.gen(function*() {
      const both = yield* agreed({ client: { alpn: ["http/1.1", "h2"] }, server: { alpn: ["h2", "http/1.1"] } })
      assert.deepStrictEqual(both.map(({ tls }) => tls.alpn), ["h2", "h2"])
      const one = yield* agreed({ client: { alpn: ["h2"] } })
      assert.deepStrictEqual(one.map(({ tls }) => tls.alpn), [undefined, undefined])
    }))

  it.effect("the certificate of the server", () =>
    Effect.gen(function*() {
      const [client] = yield* agreed()
      const certificate = client.tls.peerCertificate
      assert.strictEqual(certificate?.subject, "CN=localhost")
      assert.strictEqual(certificate?.fingerprint256, new X509Certificate(localhost.certificate).fingerprint256)
      // At every call, and also after the connection has ended.
      yield* client.close
      assert.strictEqual(client.tls.peerCertificate?.fingerprint256, certificate?.fingerprint256)
    }))

  it.effect("a name is sent and verified in ASCII and without the dot of the root", () =>
    Effect.gen(function*() {
      const [rooted] = yield* agreed({ client: { servername: "localhost." } })
      assert.strictEqual(rooted.tls.servername, "localhost")
      const [, server] = yield* agreed({
        client: { servername: "münchen.test" },
        server: root.issue({ names: ["xn--mnchen-3ya.test"] })
      })
      assert.strictEqual(server.tls.servername, "xn--mnchen-3ya.test")
      // The same dot, in another script.
      const [again] = yield* agreed({ client: { servername: "localhost\u3002" } })
      assert.strictEqual(again.tls.servername, "localhost")
    }))

  it.effect("an IP address is verified as one, and is not sent as a name", () =>
    Effect.gen(function*() {
      const address = root.issue({ names: ["127.0.0.1", "fe80::1"] })
      // In brackets, as in a URL; and with a zone, which no certificate has.
      for (const servername of ["127.0.0.1", "fe80::1", "FE80:0:0::1", "[fe80::1]", "fe80::1%lo"]) {
        const [client, server] = yield* agreed({ client: { servername }, server: address })
        assert.isTrue(client.tls.authorized)
        assert.isUndefined(server.tls.servername)
      }
    }))

  it.effect("all of it survives JSON, without a secret in it", () =>
    Effect.gen(function*() {
      const [client, server] = yield* agreed()
      yield* converses(client, server)
      const text = JSON.stringify(client.tls)
      assert.include(text, client.tls.cipher)
      assert.isDefined(client.tls.session)
      assert.notInclude(text, "session")
    }))
})

describe("client certificates", () => {
  const me = root.issue({ names: ["me"] })
  const asks = { ca: root.certificate, clientCertificate: "request" } as const

  it.effect("a good one is required, and readable", () =>
    Effect.gen(function*() {
      const [, server] = yield* agreed({
        client: { certificate: me.certificate, key: me.key },
        server: { ...asks, clientCertificate: "require" }
      })
      assert.isTrue(server.tls.authorized)
      assert.strictEqual(server.tls.peerCertificate?.subject, "CN=me")
    }))

  it.effect("if one is only requested, clients without one and with an invalid one are accepted, and the connection reports it", () =>
    Effect.gen(function*() {
      const none = yield* agreed({ server: asks })
      assert.isFalse(none[1].tls.authorized)
      assert.isUndefined(none[1].tls.authorizationError)
      assert.isUndefined(none[1].tls.peerCertificate)
      const bad = authority("unknown root").issue({ names: ["me"] })
      const unverified = yield* agreed({ client: { certificate: bad.certificate, key: bad.key }, server: asks })
      assert.isFalse(unverified[1].tls.authorized)
      assert.strictEqual(unverified[1].tls.authorizationError, "UNABLE_TO_VERIFY_LEAF_SIGNATURE")
    }))

  it.effect("clients are not asked for one by default", () =>
    Effect.gen(function*() {
      const [, server] = yield* agreed({ client: { certificate: me.certificate, key: me.key } })
      assert.isUndefined(server.tls.peerCertificate)
    }))
})

describe("certificates by name", () => {
  const names = ["a.test", "b.test"] as const
  const identities: Readonly<Record<string, Tls.Identity>> = Object.fromEntries(
    names.map((name) => [name, root.issue({ names: [name] })])
  )
  const ways: Readonly<Record<string, NonNullable<Tls.ServerOptions["identityFor"]>>> = {
    "by a function": (name) => identities[name],
    "by an effect that succeeds at once": (name) => Effect.succeed(identities[name]),
    "by an effect that takes its time": (name) => Effect.andThen(Effect.yieldNow, Effect.succeed(identities[name]))
  }
  for (const [way, identityFor] of Object.entries(ways)) {
    it.effect(way, () =>
      leavingNothing(Effect.gen(function*() {
        for (const servername of [...names, "localhost"]) {
          const [client] = yield* agreed({ client: { servername }, server: { identityFor } })
          assert.strictEqual(client.tls.peerCertificate?.subject, `CN=${servername}`)
        }
      })))
  }

  it.effect("a name is looked up in lower case, however a client writes it", () =>
    Effect.gen(function*() {
      const identityFor = (name: string) => identities[name]
      const [client] = yield* agreed({ client: { servername: "A.Test" }, server: { identityFor } })
      assert.strictEqual(client.tls.peerCertificate?.subject, "CN=a.test")
    }))

  it.effect("a look-up that fails, throws or gives a wrong value fails the handshake of its client alone", () =>
    leavingNothing(Effect.gen(function*() {
      const failing: ReadonlyArray<NonNullable<Tls.ServerOptions["identityFor"]>> = [
        () => Effect.fail("no such name"),
        () => Effect.die(new Error("a bug")),
        () => {
          throw new Error("a bug")
        },
        () => ({ certificate: "nonsense", key: Redacted.make("nonsense") })
      ]
      for (const identityFor of failing) {
        const [client, server] = yield* handshake(yield* MemoryTransport.pair(), { server: { identityFor } })
        const { reason } = failure(server)
        assert.include(reason, { _tag: "Tls", kind: "handshake" })
        assert.include(failure(server).message, "the look-up of an identity for localhost failed")
        assert.strictEqual(ending(client), "Tls")
      }
    })))

  it.effect("a look-up runs in the environment of its handshake", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const identityFor = () => Effect.delay(Effect.succeed(identities["a.test"]), "1 hour")
      const deadline = "2 hours"
      const serving = yield* start(Tls.server(right, { ...localhost, identityFor, deadline }))
      const connecting = yield* start(Tls.client(left, { ...trusting, servername: "a.test", deadline }))
      yield* turns(20)
      assert.isUndefined(serving.pollUnsafe())
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(serving)
      assert.strictEqual((yield* Fiber.join(connecting)).tls.peerCertificate?.subject, "CN=a.test")
    }))

  it.effect("a look-up that is under way ends with its handshake", () =>
    leavingNothing(Effect.gen(function*() {
      const began = yield* Deferred.make<void>()
      let ended: Exit.Exit<unknown, unknown> | undefined
      const identityFor = () =>
        Effect.onExit(
          Effect.andThen(Deferred.succeed(began, undefined), Effect.never),
          (exit) => Effect.sync(() => void (ended = exit))
        )
      const [left, right] = yield* MemoryTransport.pair()
      const serving = yield* start(Tls.server(right, { ...localhost, identityFor }))
      yield* start(Effect.exit(Tls.client(left, { servername: "localhost", ca: root.certificate })))
      yield* Deferred.await(began)
      yield* Fiber.interrupt(serving)
      yield* Effect.yieldNow
      assert.isTrue(ended !== undefined && Exit.isFailure(ended))
    })))
})

describe("sessions", () => {
  /** The session that a connection leaves, once bytes have come. */
  const sessionOf = ([client, server]: readonly [Tls.TlsSocket, Tls.TlsSocket]) =>
    Effect.map(converses(client, server), () => {
      const { session } = client.tls
      return session ?? assert.fail("no session")
    })

  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    it.effect(`are resumed with the same context (${maxVersion})`, () =>
      Effect.gen(function*() {
        const context = yield* Tls.makeServerContext({ ...localhost, maxVersion })
        const first = yield* agreed({ server: context })
        assert.isFalse(first[0].tls.resumed)
        const session = yield* sessionOf(first)
        assert.strictEqual(session.servername, "localhost")
        assert.notInclude(JSON.stringify(session), Buffer.from(Redacted.value(session.data)).toString("base64"))
        const [client, server] = yield* agreed({ server: context, client: { session } })
        assert.deepStrictEqual([client.tls.resumed, server.tls.resumed], [true, true])
        yield* converses(client, server)
        // Any number of connections can resume it. A server that resumes it need not send another one.
        assert.isDefined(client.tls.session)
        const [third] = yield* agreed({ server: context, client: { session: client.tls.session } })
        assert.isTrue(third.tls.resumed)
        // Another context has other keys: the handshake is a full one, and nothing else.
        const other = yield* agreed({ server: { ...localhost, maxVersion }, client: { session } })
        assert.isFalse(other[0].tls.resumed)
      }))
  }

  it.effect("are good for the name that was verified, and no other", () =>
    Effect.gen(function*() {
      const context = yield* Tls.makeServerContext(localhost)
      const session = yield* sessionOf(yield* agreed({ server: context }))
      const [exit] = yield* handshake(yield* MemoryTransport.pair(), {
        server: context,
        client: { session, servername: "elsewhere.test" }
      })
      assert.strictEqual(failure(exit).code, "ERR_TLS_CERT_ALTNAME_INVALID")
    }))

  it.effect("are not resumed by a client that verifies, if they began without verification", () =>
    Effect.gen(function*() {
      const context = yield* Tls.makeServerContext(root.issue({ names: ["elsewhere.test"] }))
      const skips = { dangerouslySkipVerification: "anybody can pretend to be the server" } as const
      const session = yield* sessionOf(yield* agreed({ server: context, client: skips }))
      const [again] = yield* agreed({ server: context, client: { ...skips, session } })
      assert.isTrue(again.tls.resumed)
      const [exit] = yield* handshake(yield* MemoryTransport.pair(), { server: context, client: { session } })
      assert.strictEqual(failure(exit).code, "ERR_TLS_CERT_ALTNAME_INVALID")
    }))

  it.effect("are resumed by another process that has the same ticket keys", () =>
    Effect.gen(function*() {
      const ticketKeys = Redacted.make(new Uint8Array(randomBytes(48)))
      const one = yield* Tls.makeServerContext({ ...localhost, ticketKeys })
      // node:tls distinguishes programs by their command line, and each process of a test has its own.
      process.argv.push("--process=2")
      yield* Effect.addFinalizer(() => Effect.sync(() => process.argv.pop()))
      const another = yield* Tls.makeServerContext({ ...localhost, ticketKeys })
      const session = yield* sessionOf(yield* agreed({ server: one }))
      const [client] = yield* agreed({ server: another, client: { session } })
      assert.isTrue(client.tls.resumed)
    }))

  it.effect("do not carry the trust in a client past a reload that ends it", () =>
    Effect.gen(function*() {
      const ticketKeys = Redacted.make(new Uint8Array(randomBytes(48)))
      const { certificate, key } = root.issue({ names: ["me"] })
      const asks = { ...localhost, ticketKeys, ca: root.certificate, clientCertificate: "require" } as const
      const context = yield* Tls.makeServerContext(asks)
      const client = {
        certificate,
        key,
        session: yield* sessionOf(yield* agreed({ server: context, client: { certificate, key } }))
      }
      const [, same] = yield* agreed({ server: context, client })
      assert.deepStrictEqual([same.tls.resumed, same.tls.authorized], [true, true])
      yield* context.reload({ ...asks, ca: authority("another root").certificate })
      const [, server] = yield* handshake(yield* MemoryTransport.pair(), { server: context, client })
      assert.include(failure(server).reason, { _tag: "Tls", kind: "certificate" })
      // A client of the other authority, which was not verified before, is verified now.
      yield* context.reload({ ...asks, clientCertificate: undefined })
      const session = yield* sessionOf(yield* agreed({ server: context }))
      yield* context.reload(asks)
      const [, asked] = yield* agreed({ server: context, client: { certificate, key, session } })
      assert.deepStrictEqual([asked.tls.resumed, asked.tls.authorized], [false, true])
    }))
})

describe("messages of full records, with nothing after them", () => {
  // Full records are gathered, so that several need one wake-up. The reader must not wait for a record that never comes.
  const wakesReaders = Effect.fnUntraced(function*([client, server]: readonly [Socket, Socket]) {
    for (const records of [1, 2, 4, 5, 9]) {
      const message = new Uint8Array(randomBytes(records * 16_384))
      const target = new Uint8Array(message.byteLength)
      const reading = yield* start(Read.readExactly(server, target))
      yield* Write.writeAll(client, message)
      yield* Fiber.join(reading)
      assert.isTrue(Buffer.from(target).equals(message), `${records} records`)
    }
  })

  it.effect("wake a reader that waits, in memory", () => Effect.flatMap(agreed(), wakesReaders))

  it.live("wake a reader that waits, over node:net", () =>
    connection().pipe(
      Effect.flatMap((ends) => secured(ends)),
      Effect.flatMap(wakesReaders),
      Effect.provide(NodeTransport.layer)
    ))
})

describe("reloading", () => {
  it.effect("concerns handshakes from then on, and no connection before", () =>
    Effect.gen(function*() {
      const context = yield* Tls.makeServerContext(localhost)
      const old = yield* agreed({ server: context })
      const renewed = root.issue({ names: ["localhost"] })
      yield* context.reload({ ...renewed, alpn: ["new"] })
      const fresh = yield* agreed({ server: context, client: { alpn: ["new"] } })
      yield* converses(...old)
      assert.strictEqual(fresh[0].tls.alpn, "new")
      const [before, after] = [old[0].tls.peerCertificate, fresh[0].tls.peerCertificate]
      assert.strictEqual(before?.fingerprint256, new X509Certificate(localhost.certificate).fingerprint256)
      assert.strictEqual(after?.fingerprint256, new X509Certificate(renewed.certificate).fingerprint256)
    }))

  it.effect("with options that cannot be used changes nothing", () =>
    Effect.gen(function*() {
      const context = yield* Tls.makeServerContext(localhost)
      const exit = yield* Effect.exit(context.reload({ ...localhost, certificate: "nonsense" }))
      assert.strictEqual(ending(exit), "Tls")
      yield* converses(...(yield* agreed({ server: context })))
    }))
})

describe("the key log", () => {
  it.effect("may throw: that is logged, and the handshake goes on", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const logger = Logger.make<unknown, void>(({ message }) => void logged.push(message))
      const keyLog = () => {
        throw new Error("the disk is full")
      }
      const ends = yield* MemoryTransport.pair()
      const sockets = secured(ends, { client: { keyLog }, server: { keyLog } })
      yield* converses(...(yield* Effect.provide(sockets, Logger.layer([logger]))))
      assert.include(logged.flat(), "keyLog has thrown")
    }))

  for (const [name, pair] of [["in memory", MemoryTransport.pair()], ["over node:net", connection()]] as const) {
    it.live(`has the same lines on both sides, ${name}`, () =>
      Effect.gen(function*() {
        const lines: Record<"client" | "server", Array<string>> = { client: [], server: [] }
        const keyLog = (side: "client" | "server") => (line: Uint8Array) =>
          void lines[side].push(Buffer.from(line).toString())
        const [client, server] = yield* secured(yield* pair, {
          client: { keyLog: keyLog("client") },
          server: { keyLog: keyLog("server") }
        })
        yield* converses(client, server)
        assert.isNotEmpty(lines.client)
        assert.deepStrictEqual(lines.client.toSorted(), lines.server.toSorted())
        for (const line of lines.client) {
          assert.match(line, /^(CLIENT|SERVER|EXPORTER)_[A-Z_0-9]+ [0-9a-f]+ [0-9a-f]+\n$/)
        }
      }).pipe(Effect.provide(NodeTransport.layer)))
  }
})

describe("the stream below", () => {
  const places = [
    ["in memory", Effect.map(MemoryTransport.pair(), (ends) => ends)],
    ["over node:net", Effect.provide(connection(), NodeTransport.layer)],
    ...(EpollTransport.isSupported()
      ? [["over epoll", Effect.provide(connection(), Layer.orDie(EpollTransport.layer))] as const]
      : [])
  ] as const

  for (const [name, pair] of places) {
    it.live(`delivers what was written before the upgrade, ${name}`, () =>
      leavingNothing(Effect.gen(function*() {
        const [left, right] = yield* pair
        const before = new Uint8Array(300_000).map((_, i) => i % 251)
        const serving = yield* start(Effect.andThen(Write.writeAll(right, before), Tls.server(right, localhost)))
        const target = new Uint8Array(before.byteLength)
        yield* Read.readExactly(left, target)
        assert.isTrue(Buffer.from(target).equals(before))
        yield* converses(yield* Tls.client(left, trusting), yield* Fiber.join(serving))
      })))

    it.live(`may have received the beginning of the handshake with the bytes that were read last, ${name}`, () =>
      leavingNothing(Effect.gen(function*() {
        const [left, right] = yield* pair
        yield* Write.writeAll(left, Buffers.utf8("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"))
        const connecting = yield* start(Tls.client(left, trusting))
        yield* turns(20)
        assert.include(yield* Read.readLine(right), "PROXY")
        const server = yield* Tls.server(right, localhost)
        yield* converses(yield* Fiber.join(connecting), server)
      })))

    it.live(`may be upgraded some time after the go-ahead, ${name}`, () =>
      leavingNothing(Effect.gen(function*() {
        const [left, right] = yield* pair
        // This read waits, so that Node goes on reading after it.
        const reading = yield* start(Read.readLine(right))
        yield* Write.writeAll(left, Buffers.utf8("STARTTLS\r\n"))
        yield* Fiber.join(reading)
        const connecting = yield* start(Tls.client(left, trusting))
        yield* turns(20)
        const server = yield* Tls.server(right, localhost)
        yield* converses(yield* Fiber.join(connecting), server)
      })))

    it.live(`is refused if plaintext has arrived, in whatever buffer, and stays as it was, ${name}`, () =>
      leavingNothing(Effect.gen(function*() {
        const hello = yield* clientHello
        const smuggled = [Buffers.utf8("NOOP\r\n"), Buffers.concat([Buffers.utf8("NOOP\r\n"), hello])]
        for (const behind of smuggled) {
          for (const upgrade of ["client", "server"] as const) {
            const [left, right] = yield* pair
            yield* Write.writeAll(left, Buffers.concat([Buffers.utf8("STARTTLS\r\n"), behind]))
            // Reads its ten bytes without the read buffer.
            assert.strictEqual(yield* right.readSome(new Uint8Array(10)), 10)
            yield* turns(20)
            const exit = yield* Effect.exit(
              upgrade === "client" ? Tls.client(right, trusting) : Tls.server(right, localhost)
            )
            assert.include(failure(exit).message, `${behind.byteLength} bytes were received before TLS began`)
            assert.strictEqual(yield* Read.readLine(right), "NOOP")
          }
        }
      })))

    it.live(`of a client is refused if any bytes have arrived, even those of a handshake, ${name}`, () =>
      leavingNothing(Effect.gen(function*() {
        const [left, right] = yield* pair
        yield* Write.writeAll(left, Buffers.concat([Buffers.utf8("220 go\r\n"), yield* clientHello]))
        assert.strictEqual(yield* Read.readLine(right), "220 go")
        const exit = yield* Effect.exit(Tls.client(right, trusting))
        assert.include(failure(exit).message, "received before TLS began and not read")
      })))

    it.live(`is released with the scope, after close_notify, ${name}`, () =>
      leavingNothing(Effect.gen(function*() {
        const [left, right] = yield* pair
        const serving = yield* start(Tls.server(right, { ...localhost, strictEnd: true }))
        yield* Effect.scoped(
          Effect.flatMap(Tls.client(left, trusting), (client) => client.writeSome(Buffers.utf8("!")))
        )
        assert.strictEqual(left.state.socket, "closed")
        const server = yield* Fiber.join(serving)
        assert.strictEqual((yield* Read.readAll(server)).byteLength, 1)
      })))
  }
})

/** The first bytes of a client. */
const clientHello = Effect.scoped(Effect.gen(function*() {
  const [left, right] = yield* MemoryTransport.pair()
  yield* start(Effect.exit(Tls.client(left, trusting)))
  const buffer = new Uint8Array(65_536)
  return buffer.slice(0, yield* right.readSome(buffer))
}))

describe("any stream", () => {
  /** A stream that was not made by this library. */
  const wrapped = (socket: Socket): Tls.Underlying => ({
    localAddress: socket.localAddress,
    remoteAddress: socket.remoteAddress,
    readSome: socket.readSome,
    writeSome: (source) => socket.writeSome(Buffers.concat(source).subarray(0, 1000)),
    shutdownWrite: socket.shutdownWrite,
    close: socket.close,
    abort: socket.abort
  })

  it.effect("is refused while composed reads have bytes in their buffer, and keeps them", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const stream = wrapped(right)
      yield* Write.writeAll(left, Buffers.utf8("STARTTLS\r\nNOOP\r\n"))
      assert.strictEqual(yield* Read.readLine(stream), "STARTTLS")
      const exit = yield* Effect.exit(Tls.server(stream, localhost))
      assert.include(failure(exit).message, "6 bytes were received before TLS began")
      assert.strictEqual(yield* Read.readLine(stream), "NOOP")
      const connecting = yield* start(Tls.client(left, trusting))
      yield* turns(20)
      // The buffered bytes are the beginning of the handshake.
      assert.strictEqual((yield* Read.peek(stream, 1)).byteLength, 1)
      yield* converses(yield* Tls.server(stream, localhost), yield* Fiber.join(connecting))
    }))

  it.effect("a stream of the program, in both roles, to the end of the stream and with nothing left", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const [client, server] = yield* secured([wrapped(left), wrapped(right)])
      const message = new Uint8Array(1_000_000).map((_, i) => i % 251)
      const writing = yield* start(Effect.andThen(Write.writeAll(client, message), client.shutdownWrite))
      const received = yield* Read.readAll(server)
      assert.isTrue(Buffer.from(received).equals(message))
      yield* Fiber.join(writing)
      yield* Write.writeAll(server, Buffers.utf8("bye"))
      yield* server.close
      assert.strictEqual(Buffer.from(yield* Read.readAll(client)).toString(), "bye")
      yield* client.close
      assert.deepStrictEqual([left.state.socket, right.state.socket], ["closed", "closed"])
    })))
})

import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Pull, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import { Buffers, Cancellation, Read, SocketError, StreamSocket, Tls, type Transport, Write } from "../../src/index.ts"
import { Socket } from "../../src/internal/core/Socket.ts"
import { Reason } from "../../src/SocketError.ts"
import { MemoryTransport } from "../../src/testing/index.ts"
import { WouldBlock } from "../../src/Transport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { authority, daysFromNow, localhost, root, selfSigned } from "../support/certificates.ts"
import { connection } from "../support/connection.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { handshake, type Options, secured, trusting } from "../support/tls.ts"
import { eventually, start, turns } from "../support/waiting.ts"

/** The reason `Tls` of a failed handshake, and how the error presents it. */
const says = (exit: Exit.Exit<unknown, unknown>) => {
  const { code, message, operation, reason } = failure(exit)
  if (reason._tag !== "Tls") return assert.fail(`not of TLS: ${message}`)
  assert.strictEqual(message.split("\n").length, 1)
  JSON.stringify(failure(exit))
  return { kind: reason.kind, detail: reason.detail, alert: reason.alert, code, operation }
}

const attempt = (options: Options) => Effect.flatMap(MemoryTransport.pair(), (ends) => handshake(ends, options))

const unknownRoot = authority("unknown root")

const lost = new SocketError.SocketError({
  reason: SocketError.Reason.ConnectionReset(),
  operation: "socket",
  transferred: 0
})

describe("what is wrong with a certificate", () => {
  const rejections: ReadonlyArray<readonly [string, Options, code: string, detail: string]> = [
    [
      "it has expired",
      { server: root.issue({ names: ["localhost"], from: daysFromNow(-9), to: daysFromNow(-1) }) },
      "CERT_HAS_EXPIRED",
      "the certificate has expired"
    ],
    [
      "it is not valid yet",
      { server: root.issue({ names: ["localhost"], from: daysFromNow(1) }) },
      "CERT_NOT_YET_VALID",
      "the certificate is not valid yet"
    ],
    [
      "it is for another name",
      { server: root.issue({ names: ["elsewhere.test"] }) },
      "ERR_TLS_CERT_ALTNAME_INVALID",
      "Host: localhost. is not in the cert's altnames: DNS:elsewhere.test"
    ],
    [
      "it is for another address",
      { client: { servername: "192.0.2.7" } },
      "ERR_TLS_CERT_ALTNAME_INVALID",
      "IP: 192.0.2.7 is not in the cert's list: 127.0.0.1"
    ],
    [
      "its authority is unknown",
      { server: unknownRoot.issue({ names: ["localhost"] }) },
      "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
      "the authority of the certificate is unknown"
    ],
    [
      "it is self-signed",
      { server: selfSigned({ names: ["localhost"] }) },
      "DEPTH_ZERO_SELF_SIGNED_CERT",
      "the certificate is self-signed and not trusted"
    ],
    [
      "it has a fault for which Node has no code",
      { server: root.issue({ names: ["localhost"], hasUnknownExtension: true }) },
      "UNSPECIFIED",
      "unhandled critical extension"
    ],
    [
      "no authority is named, and Node's own do not know it",
      { client: { ca: undefined } },
      "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
      "the authority of the certificate is unknown"
    ]
  ]
  for (const [name, options, code, detail] of rejections) {
    it.effect(name, () =>
      leavingNothing(Effect.gen(function*() {
        const [client] = yield* attempt(options)
        assert.deepStrictEqual(says(client), {
          kind: "certificate",
          detail,
          alert: undefined,
          code,
          operation: "Tls.client"
        })
      })))
  }

  it.effect("an intermediate authority is enough if the server sends its certificate", () =>
    Effect.gen(function*() {
      const server = root.issueAuthority("in between").issue({ names: ["localhost"] })
      const [client] = yield* attempt({ server })
      assert.strictEqual(ending(client), "Success")
    }))

  it.effect("the environment does not turn verification off, as it does with node:tls", () =>
    Effect.gen(function*() {
      const before = process.env["NODE_TLS_REJECT_UNAUTHORIZED"]
      process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0"
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          if (before === undefined) delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"]
          else process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = before
        })
      )
      const [client] = yield* attempt({ server: selfSigned({ names: ["localhost"] }) })
      assert.strictEqual(says(client).code, "DEPTH_ZERO_SELF_SIGNED_CERT")
    }))

  for (const almost of [false, true, null, "", "yes", "anybody can pretend to be the server."]) {
    it.effect(`verification is not skipped by ${JSON.stringify(almost)}`, () =>
      Effect.gen(function*() {
        // The types exclude these values, but a configuration file may contain them.
        const client: object = { ca: undefined, dangerouslySkipVerification: almost }
        const [exit] = yield* attempt({ server: selfSigned({ names: ["localhost"] }), client })
        assert.strictEqual(says(exit).code, "DEPTH_ZERO_SELF_SIGNED_CERT")
      }))
  }

  it.effect("without a name nothing can be verified: that is a defect, and the stream stays as it was", () =>
    Effect.gen(function*() {
      const [left] = yield* MemoryTransport.pair()
      const servernames: ReadonlyArray<object> = [{ servername: "" }, { servername: undefined }]
      for (const servername of servernames) {
        const exit = yield* Effect.exit(Tls.client(left, { ...trusting, ...servername }))
        assert.include(defect(exit).message, "there is no servername")
      }
      // These become empty names, which node:tls would take for "localhost".
      for (const servername of [".", "\u00fc b", "xn--\u00fc\u0000", "[]"]) {
        const exit = yield* Effect.exit(Tls.client(left, { ...trusting, servername }))
        assert.include(defect(exit).message, "is no name")
      }
      assert.strictEqual(left.state.socket, "open")
    }))

  it.effect("one sentence skips verification, and the connection reports it", () =>
    Effect.gen(function*() {
      const [client] = yield* secured(yield* MemoryTransport.pair(), {
        server: selfSigned({ names: ["elsewhere.test"] }),
        client: { ca: undefined, dangerouslySkipVerification: "anybody can pretend to be the server" }
      })
      assert.isFalse(client.tls.authorized)
      assert.strictEqual(client.tls.authorizationError, "DEPTH_ZERO_SELF_SIGNED_CERT")
    }))
})

describe("nothing in common to agree on", () => {
  it.effect("in the versions of the protocol", () =>
    Effect.gen(function*() {
      const [client, server] = yield* attempt({
        client: { maxVersion: "TLSv1.2" },
        server: { minVersion: "TLSv1.3" }
      })
      assert.deepStrictEqual(says(server), {
        kind: "handshake",
        detail: "the peer offers no protocol version that this side allows",
        alert: undefined,
        code: "ERR_SSL_UNSUPPORTED_PROTOCOL",
        operation: "Tls.server"
      })
      assert.include(says(client), {
        kind: "handshake",
        detail: "the peer answered with the alert protocol_version",
        alert: "protocol_version"
      })
    }))

  it.effect("in the ciphers", () =>
    Effect.gen(function*() {
      const [client, server] = yield* attempt({
        client: { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256" },
        server: { ciphers: "ECDHE-ECDSA-AES256-GCM-SHA384" }
      })
      assert.include(says(server), {
        kind: "handshake",
        detail: "the peer offers no cipher that this side can use",
        code: "ERR_SSL_NO_SHARED_CIPHER"
      })
      assert.include(says(client), { kind: "handshake", alert: "handshake_failure" })
    }))

  it.effect("in the application protocols", () =>
    Effect.gen(function*() {
      const [client, server] = yield* attempt({ client: { alpn: ["h2"] }, server: { alpn: ["imap", "pop3"] } })
      assert.include(says(server), {
        kind: "handshake",
        detail: "the peer offers none of our application protocols (ALPN)",
        code: "ERR_SSL_NO_APPLICATION_PROTOCOL"
      })
      assert.include(says(client), { kind: "handshake", alert: "no_application_protocol" })
    }))

  it.effect("in client certificates: none", () =>
    Effect.gen(function*() {
      const [client, server] = yield* handshake(yield* far, {
        server: { clientCertificate: "require", ca: root.certificate }
      })
      assert.include(says(server), {
        kind: "certificate",
        detail: "the client sent no certificate",
        code: "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"
      })
      // A client of TLS 1.3 has finished the handshake before the server has seen its certificate.
      if (Exit.isFailure(client)) return assert.fail("the client should not know yet")
      const read = yield* Effect.exit(client.value.readSome(new Uint8Array(1)))
      assert.include(says(read), { kind: "certificate", alert: "certificate_required", operation: "readSome" })
    }))

  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    it.effect(`in client certificates: one of an unknown authority (${maxVersion})`, () =>
      Effect.gen(function*() {
        const [, server] = yield* attempt({
          client: { ...unknownRoot.issue({ names: ["me"] }), maxVersion },
          server: { clientCertificate: "require", ca: root.certificate }
        })
        assert.deepStrictEqual(says(server), {
          kind: "certificate",
          detail: "the authority of the certificate is unknown",
          alert: undefined,
          code: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
          operation: "Tls.server"
        })
      }))
  }
})

describe("a peer that does not speak TLS", () => {
  /** The result of a server whose peer sends these bytes, and perhaps ends the connection. */
  const served = (bytes: Uint8Array, options?: { readonly ends?: boolean; readonly server?: Tls.ServerOptions }) =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const serving = yield* start(Effect.exit(Tls.server(right, options?.server ?? localhost)))
      yield* Write.writeAll(left, bytes)
      if (options?.ends === true) yield* left.shutdownWrite
      const exit = yield* Fiber.join(serving)
      assert.strictEqual(right.state.socket, "closed")
      return exit
    })

  it.effect("a server is sent plain HTTP", () =>
    leavingNothing(Effect.gen(function*() {
      assert.deepStrictEqual(says(yield* served(Buffers.utf8("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))), {
        kind: "protocol",
        detail: "the peer sends plain HTTP",
        alert: undefined,
        code: "ERR_SSL_HTTP_REQUEST",
        operation: "Tls.server"
      })
    })))

  it.effect("a server is sent garbage", () =>
    Effect.gen(function*() {
      assert.include(says(yield* served(Buffers.utf8("EHLO garbage.test\r\n"))), {
        kind: "protocol",
        detail: "what the peer sends is not TLS"
      })
    }))

  it.effect("a client is answered in plain text", () =>
    Effect.gen(function*() {
      const [left, right] = yield* far
      const connecting = yield* start(Effect.exit(Tls.client(left, trusting)))
      yield* Write.writeAll(right, Buffers.utf8("220 mail.test ready for anything\r\n"))
      assert.include(says(yield* Fiber.join(connecting)), {
        kind: "protocol",
        detail: "what the peer sends is not TLS"
      })
      yield* Read.readAll(right)
    }))

  it.effect("the peer ends the connection during the handshake, at any length", () =>
    Effect.gen(function*() {
      const hello = yield* clientHello
      for (const length of [0, 1, 4, 5, 6, 100, hello.byteLength - 1, hello.byteLength]) {
        assert.include(says(yield* served(hello.subarray(0, length), { ends: true })), {
          kind: "handshake",
          detail: "the peer ended the connection during the handshake"
        })
      }
    }))

  it.effect("the server ends the connection during the handshake", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const connecting = yield* start(Effect.exit(Tls.client(left, trusting)))
      yield* eventually("the first bytes", () => left.bytesWritten >= 0)
      yield* right.close
      assert.include(says(yield* Fiber.join(connecting)), {
        kind: "handshake",
        detail: "the peer ended the connection during the handshake"
      })
    }))

  it.effect("an alert that arrived before a reset is the reason", () =>
    leavingNothing(Effect.gen(function*() {
      for (const notices of ["at once", "by writing"] as const) {
        const backing = new FakeBacking()
        let arrived: ReadonlyArray<number> = []
        backing.readAnswer = (target) => {
          if (arrived.length === 0) return backing.writeAnswer === taken ? WouldBlock : lost
          target.set(arrived)
          const count = arrived.length
          arrived = []
          return count
        }
        const taken: FakeBacking["writeAnswer"] = (source) => source.remaining
        const isLost: FakeBacking["writeAnswer"] = () => lost
        backing.writeAnswer = taken
        if (notices === "by writing") {
          backing.writeAnswer = isLost
          arrived = [21, 3, 3, 0, 2, 2, 45]
        }
        const connecting = yield* start(Effect.exit(Tls.client(StreamSocket.make(backing), trusting)))
        if (notices === "at once") {
          yield* turns(3)
          arrived = [21, 3, 3, 0, 2, 2, 45]
          backing.writeAnswer = isLost
          backing.events?.failed(lost)
        }
        assert.include(says(yield* Fiber.join(connecting)), { kind: "certificate", alert: "certificate_expired" })
      }
    })))

  it.effect("a write that fails in the turn of the last message fails the handshake, although OpenSSL has succeeded", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      if (!(right instanceof Socket)) return assert.fail("not a stream of ours")
      const [backing] = right.takeOver("a test", { close: Effect.void, abort: Effect.void })
      let flights = 0
      const losing: Transport.Backing = {
        localAddress: backing.localAddress,
        remoteAddress: backing.remoteAddress,
        attach: (events) =>
          backing.attach({
            readable: () => ++flights === 2 ? events.failed(lost) : events.readable(),
            writable: () => events.writable(),
            failed: (error) => events.failed(error),
            closed: () => events.closed()
          }),
        read: (target) => backing.read(target),
        write: (source, limit) => backing.write(source, limit),
        shutdownWrite: () => backing.shutdownWrite(),
        close: () => backing.close(),
        abort: () => backing.abort(),
        configure: (options) => backing.configure(options)
      }
      const [, server] = yield* handshake([left, StreamSocket.make(losing)])
      assert.strictEqual(flights, 2)
      assert.strictEqual(ending(server), "ConnectionReset")
    })))

  it.effect("the connection is reset during the handshake", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const connecting = yield* start(Effect.exit(Tls.client(left, trusting)))
      yield* right.abort
      const error = failure(yield* Fiber.join(connecting))
      assert.deepStrictEqual([error.reason._tag, error.operation], ["ConnectionReset", "Tls.client"])
    }))
})

/** The first bytes of a client. */
const clientHello = Effect.scoped(Effect.gen(function*() {
  const [left, right] = yield* MemoryTransport.pair()
  yield* start(Effect.exit(Tls.client(left, trusting)))
  const buffer = new Uint8Array(65_536)
  return buffer.slice(0, yield* right.readSome(buffer))
}))

describe("time and interruption", () => {
  it.effect("a peer that does not answer fails the handshake at the deadline, by Effect's clock", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const client = yield* start(Effect.exit(Tls.client(left, trusting)))
      yield* TestClock.adjust(Duration.millis(9999))
      assert.isUndefined(client.pollUnsafe())
      yield* TestClock.adjust(Duration.millis(1))
      assert.deepStrictEqual(says(yield* Fiber.join(client)), {
        kind: "handshake",
        detail: "not finished within 10s",
        alert: undefined,
        code: "ETIMEDOUT",
        operation: "Tls.client"
      })
      assert.strictEqual(left.state.socket, "closed")
      const target = new Uint8Array(65_536)
      assert.strictEqual(ending(yield* Effect.exit(right.readSome(target))), "Success")
      assert.strictEqual(ending(yield* Effect.exit(right.readSome(target))), "ConnectionReset")
    })))

  it.effect("an interruption aborts the connection before it proceeds", () =>
    leavingNothing(Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const server = yield* start(Tls.server(right, localhost))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(server)
      assert.strictEqual(ending(yield* Effect.exit(left.readSome(new Uint8Array(1)))), "ConnectionReset")
    })))

  it.effect("a signal that asks for less than terminal does not reach it, and terminal does", () =>
    leavingNothing(Effect.gen(function*() {
      const [left] = yield* MemoryTransport.pair()
      const signal = Cancellation.makeSignal()
      const client = yield* start(Effect.exit(Cancellation.withSignal(Tls.client(left, trusting), signal)))
      for (const type of ["total", "partial"] as const) {
        const { ended, continued } = yield* signal.emit(type)
        assert.deepStrictEqual([ended.length, continued.map((it) => it.operation)], [0, ["Tls.client"]])
      }
      const { ended } = yield* signal.emit("terminal")
      assert.deepStrictEqual(ended.map((it) => [it.operation, it.guarantee]), [["Tls.client", "terminal"]])
      assert.strictEqual(ending(yield* Fiber.join(client)), "OperationAborted")
    })))

  it.effect("closing or aborting the plain stream ends the handshake", () =>
    leavingNothing(Effect.gen(function*() {
      for (const end of ["close", "abort"] as const) {
        const [left] = yield* MemoryTransport.pair()
        const client = yield* start(Effect.exit(Tls.client(left, trusting)))
        yield* left[end]
        assert.strictEqual(ending(yield* Fiber.join(client)), "Closed")
      }
    })))

  it.effect("every fiber that ends the connection waits until its descriptor is released", () =>
    leavingNothing(Effect.gen(function*() {
      const backing = new FakeBacking()
      backing.releases = []
      const plain = StreamSocket.make(backing)
      const client = yield* start(Effect.exit(Tls.client(plain, trusting)))
      const closing = yield* start(plain.close)
      yield* turns(20)
      assert.deepStrictEqual([client.pollUnsafe(), closing.pollUnsafe()], [undefined, undefined])
      backing.events?.closed()
      yield* Fiber.join(closing)
      assert.strictEqual(ending(yield* Fiber.join(client)), "Closed")
    })))
})

describe("options of this side that cannot be used", () => {
  const bad: ReadonlyArray<readonly [string, Partial<Tls.ServerOptions>]> = [
    ["the key is another certificate's", { key: unknownRoot.key }],
    ["the key is no key", { key: Redacted.make("nonsense") }],
    ["the passphrase is wrong", {
      key: root.issue({ names: ["x"], passphrase: "right" }).key,
      passphrase: Redacted.make("wrong")
    }],
    ["the certificate is no certificate", { certificate: "nonsense" }],
    ["the ciphers do not exist", { ciphers: "ROT13" }],
    ["there is no authority in `ca`", { ca: "nonsense" }],
    ["`ca` is empty", { ca: [root.certificate, ""] }],
    ["`ca` is a key", { ca: localhost.keyText.replace("PRIVATE", "PUBLIC") }],
    ["the ticket keys are too short", { ticketKeys: Redacted.make(new Uint8Array(47)) }]
  ]
  for (const [name, options] of bad) {
    it.effect(`${name}: a typed error, and nothing has happened to the stream`, () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair()
        const exit = yield* Effect.exit(Tls.server(right, { ...localhost, ...options }))
        assert.include(says(exit).detail, "the options of this side cannot be used")
        assert.notInclude(JSON.stringify(failure(exit)), "PRIVATE KEY")
        yield* Write.writeAll(left, Buffers.utf8("still there"))
        assert.strictEqual(yield* right.readSome(new Uint8Array(100)), 11)
        assert.strictEqual(ending(yield* Effect.exit(Tls.makeServerContext({ ...localhost, ...options }))), "Tls")
      }))
  }

  const wrong: ReadonlyArray<readonly [string, object]> = [
    ["the key is not Redacted", { key: "open sesame" }],
    ["the passphrase is not Redacted", { passphrase: "open sesame" }],
    ["the passphrase is not text", { passphrase: Redacted.make(["open sesame"]) }],
    ["the key is neither text nor bytes", { key: Redacted.make({ pem: "open sesame" }) }],
    ["client certificates are asked for in another word", { clientCertificate: "required" }],
    ["an application protocol has no name", { alpn: ["h2", ""] }],
    ["the name of an application protocol is too long", { alpn: ["x".repeat(256)] }]
  ]
  for (const [name, options] of wrong) {
    it.effect(`${name}: a defect that shows no secret, and nothing has happened to the stream`, () =>
      Effect.gen(function*() {
        const [, right] = yield* MemoryTransport.pair()
        const exit = yield* Effect.exit(Tls.server(right, { ...localhost, ...options }))
        assert.match(defect(exit).message, /^Tls: /)
        assert.notInclude(inspect(exit, { depth: null }), "sesame")
        assert.strictEqual(right.state.socket, "open")
      }))
  }

  it.effect("printing an object that has secrets does not show them", () =>
    Effect.gen(function*() {
      const passphrase = Redacted.make("open sesame")
      const server = { ...root.issue({ names: ["localhost"], passphrase: "open sesame" }), passphrase, keyText: "" }
      const context = yield* Tls.makeServerContext({
        ...server,
        ticketKeys: Redacted.make(new Uint8Array(Buffer.from("sesame".repeat(8))))
      })
      const ends = yield* MemoryTransport.pair()
      const sockets = yield* secured(ends, { server: context })
      const shown = [context, server, ...ends, ...sockets, ...sockets.map(({ tls }) => tls)].map((it) =>
        inspect(it, { depth: null, showHidden: true, maxArrayLength: null })
      )
      for (const text of [...shown, JSON.stringify(context), JSON.stringify(sockets[0].tls)]) {
        for (const secret of ["sesame", "PRIVATE KEY", "73, 65, 73, 61, 6d"]) assert.isFalse(text.includes(secret))
      }
    }))

  it.live("printing the sockets of a resumed session does not show the session", () =>
    Effect.gen(function*() {
      const context = yield* Tls.makeServerContext(localhost)
      let session: Tls.Session | undefined
      for (const isLast of [false, true]) {
        // Not over the in-memory network: its buffers would show the ticket, which is sent in the clear.
        const plain = yield* connection()
        const ends = yield* secured(plain, { server: context, client: { session } })
        yield* Write.writeAll(ends[1], Buffers.utf8("!"))
        yield* ends[0].readSome(new Uint8Array(1))
        yield* eventually("there is a session", () => ends[0].tls.session !== undefined)
        session ??= ends[0].tls.session
        if (session === undefined) return assert.fail("no session")
        const secret = Buffer.from(Redacted.value(session.data))
        // Node prints only the beginning of such a buffer, and its first bytes are the same for every session.
        const beginning = secret.indexOf("3082", "hex") + 12
        const shown = inspect(secret.subarray(beginning, beginning + 20)).slice(8, -1)
        const options: Tls.ClientOptions = { ...trusting, session }
        for (const it of [...plain, ...ends, ...ends.map(({ tls }) => tls), session, options]) {
          const text = inspect(it, { depth: null, showHidden: true, maxArrayLength: null })
          assert.isFalse(text.includes(shown), `resumed: ${ends[0].tls.resumed}`)
        }
        assert.notInclude(inspect(ends[0].tls), "TLSSocket")
        assert.strictEqual(ends[0].tls.resumed, isLast)
        yield* Effect.all([ends[0].close, ends[1].close], { concurrency: 2 })
      }
    }).pipe(Effect.provide(NodeTransport.layer)))

  it.effect("a client has a certificate and its key, or neither", () =>
    Effect.gen(function*() {
      const [left] = yield* MemoryTransport.pair()
      const { certificate, key } = root.issue({ names: ["me"] })
      for (const half of [{ certificate }, { key }]) {
        const exit = yield* Effect.exit(Tls.client(left, { ...trusting, ...half }))
        assert.include(says(exit).detail, "certificate and key need each other")
      }
      const wrong: ReadonlyArray<object> = [
        { alpn: [""] },
        { session: { servername: "localhost", verified: true, data: "open sesame" } }
      ]
      for (const options of wrong) {
        const exit = yield* Effect.exit(Tls.client(left, { ...trusting, ...options }))
        assert.match(defect(exit).message, /^Tls: /)
        assert.notInclude(inspect(exit, { depth: null }), "sesame")
      }
      assert.strictEqual(left.state.socket, "open")
    }))

  it.effect("an encrypted key needs its passphrase", () =>
    Effect.gen(function*() {
      const server = root.issue({ names: ["localhost"], passphrase: "open sesame" })
      const [client] = yield* attempt({ server: { ...server, passphrase: Redacted.make("open sesame") } })
      assert.strictEqual(ending(client), "Success")
    }))
})

describe("the plain stream", () => {
  it.effect("is consumed: each operation fails with Consumed, each promptly", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      yield* secured([left, right])
      const operations: Readonly<Record<string, Effect.Effect<unknown, unknown>>> = {
        readSome: left.readSome(new Uint8Array(1)),
        writeSome: left.writeSome(Buffers.utf8("!")),
        writeAll: Write.writeAll(left, Buffers.utf8("!")),
        readUntil: Read.readUntil(left, "\n"),
        readExactly: Read.readExactly(left, new Uint8Array(100_000)),
        shutdownWrite: left.shutdownWrite,
        configure: left.configure({ noDelay: true })
      }
      for (const [name, operation] of Object.entries(operations)) {
        const error = failure(yield* Effect.exit(operation))
        assert.deepStrictEqual([name, error.operation, error.reason._tag], [name, name, "Consumed"])
      }
      const twice = failure(yield* Effect.exit(Tls.client(left, trusting)))
      assert.deepStrictEqual(twice.reason, { _tag: "Consumed", by: "Tls.client" })
    }))

  it.effect("closes the TLS stream when it is closed, and the other way round", () =>
    leavingNothing(Effect.gen(function*() {
      for (const closesPlain of [true, false]) {
        const [left, right] = yield* MemoryTransport.pair()
        const [client, server] = yield* secured([left, right])
        yield* (closesPlain ? left : client).close
        assert.deepStrictEqual([left.state.socket, client.state.socket], ["closed", "closed"])
        assert.strictEqual(ending(yield* Effect.exit(server.readSome(new Uint8Array(1)))), "Done")
      }
    })))

  it.effect("is refused while bytes were received and not read: plaintext behind STARTTLS", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      yield* Write.writeAll(left, Buffers.utf8("STARTTLS\r\nRCPT TO:<evil@test>\r\n"))
      assert.strictEqual(yield* Read.readLine(right), "STARTTLS")
      const error = says(yield* Effect.exit(Tls.server(right, localhost)))
      assert.include(error, { kind: "protocol", detail: "21 bytes were received before TLS began and not read" })
      assert.strictEqual(yield* Read.readLine(right), "RCPT TO:<evil@test>")
    }))

  it.effect("is refused while operations wait on it, or when it is torn, shut, ended or closed", () =>
    Effect.gen(function*() {
      const reading = yield* MemoryTransport.pair()
      const reader = yield* start(reading[0].readSome(new Uint8Array(1)))
      const busyReading = failure(yield* Effect.exit(Tls.client(reading[0], trusting)))
      assert.deepStrictEqual(busyReading.reason, Reason.Busy({ detail: "readSome waits on the stream" }))
      // The read still waits.
      yield* Write.writeAll(reading[1], Buffers.utf8("!"))
      assert.strictEqual(yield* Fiber.join(reader), 1)
      const torn = yield* MemoryTransport.clogged()
      const writing = yield* start(Write.writeAll(torn[0], new Uint8Array(10)))
      const busyWriting = failure(yield* Effect.exit(Tls.client(torn[0], trusting)))
      assert.deepStrictEqual(busyWriting.reason, Reason.Busy({ detail: "writeAll waits on the stream" }))
      yield* torn[1].readSome(new Uint8Array(3))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(writing)
      const shut = yield* MemoryTransport.pair()
      yield* shut[0].shutdownWrite
      const ended = yield* MemoryTransport.pair()
      yield* ended[1].shutdownWrite
      yield* Effect.exit(ended[0].readSome(new Uint8Array(1)))
      const closed = yield* MemoryTransport.pair()
      yield* closed[0].close
      const tags: Array<string> = []
      for (const [stream] of [torn, shut, ended, closed]) {
        tags.push(ending(yield* Effect.exit(Tls.client(stream, trusting))))
      }
      assert.deepStrictEqual(tags, ["Torn", "BrokenPipe", "Tls", "Closed"])
    }))
})

describe("after the handshake", () => {
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    it.effect(`a peer that ends without close_notify truncates the stream: it is no end of stream (${maxVersion})`, () =>
      Effect.gen(function*() {
        const { cut, inLeft, left, right } = yield* farWith()
        const [client, server] = yield* secured([left, right], { server: { maxVersion } })
        yield* Write.writeAll(server, Buffers.utf8("hello"))
        const { bytesRead } = left
        yield* eventually("the bytes are on their way", () => inLeft.bytesWritten > bytesRead)
        yield* turns(20)
        // From here on nothing arrives but the end of the connection.
        yield* cut
        yield* inLeft.shutdownWrite
        assert.strictEqual(yield* client.readSome(new Uint8Array(100)), 5)
        for (let i = 0; i < 3; i++) {
          const error = failure(yield* Effect.exit(client.readSome(new Uint8Array(100))))
          assert.deepStrictEqual(error.reason, {
            _tag: "Tls",
            kind: "truncated",
            detail: "the peer ended the connection without close_notify"
          })
        }
        assert.strictEqual(client.state.read, "failed")
        assert.strictEqual(client.state.write, "open")
        yield* client.close
      }))
  }

  it.effect("a record that was changed on its way fails the stream with a typed error, and the peer gets an alert", () =>
    Effect.gen(function*() {
      let changes = false
      const { left, right } = yield* farWith((bytes) => {
        if (changes) bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
      })
      const [client, server] = yield* secured([left, right])
      yield* Write.writeAll(client, Buffers.utf8("fine"))
      assert.strictEqual(yield* server.readSome(new Uint8Array(100)), 4)
      changes = true
      yield* Write.writeAll(client, Buffers.utf8("changed"))
      const error = says(yield* Effect.exit(server.readSome(new Uint8Array(100))))
      assert.include(error, { kind: "protocol", detail: "a record was changed on its way" })
      assert.include(says(yield* Effect.exit(client.readSome(new Uint8Array(100)))), {
        kind: "protocol",
        alert: "bad_record_mac",
        operation: "readSome"
      })
      assert.strictEqual(ending(yield* Effect.exit(client.writeSome(Buffers.utf8("!")))), "Tls")
    }))
})

const pump = (from: StreamSocket.StreamSocket, to: StreamSocket.StreamSocket, change?: (bytes: Uint8Array) => void) =>
  Effect.gen(function*() {
    const target = new Uint8Array(65_536)
    for (;;) {
      const bytes = target.subarray(0, yield* from.readSome(target))
      yield* turns(5)
      change?.(bytes)
      yield* Write.writeAll(to, bytes)
    }
  }).pipe(Pull.catchDone(() => to.shutdownWrite))

/**
 * A connection on which bytes take some turns of the event loop. `node:tls` loses an alert that is sent in the same turn as
 * the bytes before it, and only a peer in this process receives both in one turn.
 */
const farWith = (change?: (bytes: Uint8Array) => void) =>
  Effect.gen(function*() {
    const [left, inLeft] = yield* MemoryTransport.pair()
    const [inRight, right] = yield* MemoryTransport.pair()
    const there = yield* start(Effect.exit(pump(inLeft, inRight, change)))
    const back = yield* start(Effect.exit(pump(inRight, inLeft)))
    return { left, right, inLeft, cut: Effect.andThen(Fiber.interrupt(there), Fiber.interrupt(back)) }
  })

const far = Effect.map(farWith(), ({ left, right }) => [left, right] as const)

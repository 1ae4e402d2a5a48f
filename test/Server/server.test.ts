import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as NetAddress from "effect/net/NetAddress"
import * as Queue from "effect/Queue"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Metrics from "../../src/Metrics.ts"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import * as Read from "../../src/Read.ts"
import * as Server from "../../src/Server.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, inet } from "../support/addresses.ts"
import { assertBytes } from "../support/bytes.ts"
import { ending, failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { logs } from "../support/logs.ts"
import { echo, farewellOf, listening, received, serving } from "../support/server.ts"
import { start, turns } from "../support/waiting.ts"

const it_ = it.layer(Layer.fresh(MemoryTransport.layer))

const never: Server.Handler<never, never> = () => Effect.never

describe("Server", () => {
  it_("connections", (it) => {
    it.effect("every connection has its handler, all at the same time, on every address", () =>
      Effect.gen(function*() {
        const { server } = yield* serving(echo, { listen: [anyPort, anyPort] })
        assert.strictEqual(server.addresses.length, 2)
        const clients = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, i) => i),
          (i) => StreamSocket.connect(server.addresses[i % 2] ?? anyPort)
        )
        for (const [i, client] of clients.toReversed().entries()) {
          yield* Write.writeAll(client, text(`number ${i}\n`))
          assertBytes(yield* Read.readUntil(client, "\n"), `number ${i}\n`)
        }
        assert.strictEqual(yield* server.state, "listening")
      }))

    it.effect("hosts with ports are resolved", () =>
      Effect.gen(function*() {
        const { server } = yield* serving(echo, { listen: ["localhost:0", { host: "127.0.0.1", port: 0 }] })
        for (const address of server.addresses) yield* StreamSocket.connect(address)
        yield* turns()
        assert.strictEqual((yield* server.connections).length, 2)
      }))

    it.effect("an address that is taken fails, and releases those before it", () =>
      Effect.gen(function*() {
        const [first, second] = [inet("127.0.0.1:7000"), inet("127.0.0.1:7001")]
        const acceptor = yield* Acceptor.listen(second)
        const error = failure(yield* Effect.exit(Effect.scoped(Server.make(echo, { listen: [first, second] }))))
        assert.deepStrictEqual([error.reason._tag, error.address], ["AddressInUse", second])
        yield* Acceptor.listen(first)
        yield* acceptor.close
      }))

    it.effect("the handler knows whom it serves, by its argument and by the service", () =>
      Effect.gen(function*() {
        yield* TestClock.adjust(5000)
        const seen = yield* Queue.unbounded<readonly [Server.Connection, Server.Connection]>()
        const { server } = yield* serving(
          (socket, connection) =>
            Effect.gen(function*() {
              yield* Queue.offer(seen, [connection, yield* Server.Connection])
              yield* echo(socket, connection)
            }),
          { listen: [anyPort, anyPort] }
        )
        yield* TestClock.adjust(70)
        const clients = yield* Effect.forEach(server.addresses, (address) => StreamSocket.connect(address))
        for (const [listener, client] of clients.entries()) {
          const [connection, service] = yield* Queue.take(seen)
          assert.strictEqual(connection, service)
          assert.strictEqual(connection.server, server)
          assert.deepStrictEqual([connection.id, connection.listener], [listener + 1, listener])
          assert.deepStrictEqual(connection.remoteAddress, client.localAddress)
          assert.deepStrictEqual(connection.localAddress, client.remoteAddress)
          assert.strictEqual(DateTime.toEpochMillis(connection.startedAt), 5070)
          assert.isFalse(connection.isDraining)
          yield* Write.writeAll(client, text("hello"))
          yield* received(client, 5)
          assert.deepStrictEqual(
            [connection.bytesRead, connection.bytesWritten, connection.bytesWaiting],
            [5, 5, 0]
          )
        }
        assert.deepStrictEqual((yield* server.connections).map(({ id }) => id), [1, 2])
      }))

    it.effect("a handler has a scope of its own, which closes before its connection", () =>
      Effect.gen(function*() {
        const { connect } = yield* serving((socket) =>
          Effect.andThen(
            Effect.addFinalizer(() => Effect.ignore(Write.writeAll(socket, text("last words")))),
            socket.readSome(new Uint8Array(1))
          )
        )
        const [first, second] = [yield* connect, yield* connect]
        yield* first.shutdownWrite
        assert.strictEqual(yield* farewellOf(first), "last words, Done")
        assert.strictEqual(second.state.socket, "open")
        yield* second.shutdownWrite
        assert.strictEqual(yield* farewellOf(second), "last words, Done")
      }))

    const own = new Error("my own defect")
    const elsewhere = new SocketError({
      reason: Reason.ConnectionReset(),
      operation: "readSome",
      address: inet("10.9.9.9:5432"),
      transferred: 0
    })
    const endings: ReadonlyArray<
      readonly [string, "quiet" | "mistaken" | "told", string, Server.Handler<unknown, never>]
    > = [
      ["succeeds", "quiet", "Done", () => Effect.void],
      ["succeeds after it closed the connection", "quiet", "Done", (socket) => socket.close],
      [
        "reaches the end of the stream",
        "quiet",
        "Done",
        (socket) => Effect.forever(socket.readSome(new Uint8Array(9)))
      ],
      ["reaches it in the middle", "mistaken", "Done", (socket) => Read.readExactly(socket, new Uint8Array(9))],
      ["interrupts itself", "quiet", "Done", () => Effect.interrupt],
      [
        "uses a connection that it aborted",
        "quiet",
        "ConnectionReset",
        (socket) => Effect.andThen(socket.abort, socket.readSome(new Uint8Array(9)))
      ],
      [
        "tears the stream",
        "quiet",
        "ConnectionReset",
        (socket) =>
          Effect.timeoutOption(Write.writeAll(socket, new Uint8Array(100_000)), 0).pipe(Effect.andThen(Effect.void))
      ],
      ["meets a SocketError that is no end", "told", "ConnectionReset", (socket) => Read.readLine(socket, { max: 2 })],
      ["meets the end of another connection", "told", "ConnectionReset", () => Effect.fail(elsewhere)],
      ["fails with anything else", "told", "ConnectionReset", () => Effect.fail("my own error")],
      ["dies", "told", "ConnectionReset", () => Effect.die(own)],
      ["throws before it is an effect", "told", "ConnectionReset", () => {
        throw own
      }]
    ]
    for (const [name, quiet, atPeer, handler] of endings) {
      it.effect(`a handler that ${name} is ${quiet}, the peer sees ${atPeer}, and nothing else ends`, () =>
        Effect.gen(function*() {
          const told: Array<string> = []
          const { connect, lines, server } = yield* serving(
            (socket, connection) => connection.id === 1 ? echo(socket, connection) : handler(socket, connection),
            { onError: (cause, { id }) => Effect.sync(() => void told.push(`${id} ${ending(Exit.failCause(cause))}`)) }
          )
          const bystander = yield* connect
          for (const id of [2, 3]) {
            const client = yield* connect
            yield* Effect.ignore(Write.writeAll(client, text("xyz")))
            yield* Effect.ignore(client.shutdownWrite)
            yield* TestClock.adjust(0)
            const end = yield* farewellOf(client)
            assert.strictEqual(end.replaceAll("\0", "").replace(/^, /, ""), atPeer)
            yield* turns()
            assert.deepStrictEqual(
              told.map((line) => line.split(" ")[0]),
              quiet !== "told" ? [] : id === 2 ? ["2"] : ["2", "3"]
            )
          }
          yield* Write.writeAll(bystander, text("still there"))
          assert.strictEqual(yield* received(bystander, 11), "still there")
          assert.strictEqual((yield* server.health).failures, quiet === "told" ? 2 : 0)
          // What the peer did not finish is told once a minute.
          assert.deepStrictEqual(lines.map(({ level }) => level), quiet === "mistaken" ? ["Info", "Debug"] : [])
        }))
    }

    it.effect("a peer's reset ends a handler quietly", () =>
      Effect.gen(function*() {
        const { connect, lines, server } = yield* serving(echo, { onError: () => Effect.die("not quiet") })
        const client = yield* connect
        yield* turns()
        yield* client.abort
        yield* turns()
        assert.deepStrictEqual(yield* server.connections, [])
        assert.deepStrictEqual(lines, [])
      }))

    it.effect("a failure may close the connection instead of resetting it", () =>
      Effect.gen(function*() {
        const { connect, lines } = yield* serving(
          (socket) => Effect.andThen(Write.writeAll(socket, text("sorry")), Effect.fail("my own error")),
          { onFailure: "close" }
        )
        assert.strictEqual(yield* farewellOf(yield* connect), "sorry, Done")
        yield* turns()
        assert.strictEqual(lines.length, 1)
      }))

    it.effect("logs say whose they are: the handler's own, and that it failed", () =>
      Effect.gen(function*() {
        const { connect, lines } = yield* serving(() =>
          Effect.andThen(Effect.logInfo("here"), Effect.fail("my own error"))
        )
        const client = yield* connect
        yield* farewellOf(client)
        yield* turns()
        const peer = `tcp://${NetAddress.formatSocketAddress(client.localAddress)}`
        assert.deepStrictEqual(lines.map(({ level, text }) => [level, text.split("\n")[0]]), [
          ["Info", "here"],
          ["Error", `the connection from ${peer} failed Error: my own error`]
        ])
        for (const { annotations } of lines) assert.deepStrictEqual(annotations, { connection: 1, peer })
      }))

    it.effect("what hears of failures may fail itself", () =>
      Effect.gen(function*() {
        const { connect, lines, server } = yield* serving(() => Effect.fail("x"), {
          onError: () => Effect.die(new Error("in the report"))
        })
        for (let i = 0; i < 2; i++) assert.strictEqual(yield* farewellOf(yield* connect), "ConnectionReset")
        yield* turns()
        assert.deepStrictEqual(yield* server.connections, [])
        assert.strictEqual(lines.length, 2)
        for (const { level, text } of lines) {
          assert.deepStrictEqual([level, text.includes("in the report")], ["Error", true])
        }
      }))

    it.effect("a report that takes its time keeps no place, and a drain waits for it", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(
          (socket, { id }): Effect.Effect<unknown, unknown> =>
            id === 1 ? Effect.fail("x") : socket.readSome(new Uint8Array(1)),
          { onError: () => Effect.sleep("1 minute"), limits: { connections: 1, perPeer: 1 } }
        )
        assert.strictEqual(yield* farewellOf(yield* connect), "ConnectionReset")
        const second = yield* connect
        yield* turns()
        assert.deepStrictEqual((yield* server.connections).map(({ id }) => id), [2])
        yield* second.abort
        const draining = yield* start(server.drain("1 hour"))
        yield* TestClock.adjust("59 seconds")
        assert.isUndefined(draining.pollUnsafe())
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(draining)
      }))

    it.effect("a logger that throws keeps nobody from being served, and the server from no end", () =>
      Effect.gen(function*() {
        const broken = Logger.make<unknown, void>(() => {
          throw new Error("in the logger")
        })
        const server = yield* Effect.provide(
          Server.make((_, { id }) => id === 1 ? Effect.fail("x") : Effect.never, { listen: anyPort }),
          Logger.layer([broken])
        )
        const first = yield* StreamSocket.connect(server.addresses[0])
        assert.strictEqual(yield* farewellOf(first), "ConnectionReset")
        yield* StreamSocket.connect(server.addresses[0])
        yield* turns()
        assert.strictEqual((yield* server.health).connections, 1)
        assert.strictEqual((yield* server.drain(0)).aborted, 1)
      }))

    it.effect("handlers live in the environment of the server", () =>
      Effect.gen(function*() {
        const { connect } = yield* serving((socket) =>
          Effect.flatMap(Config.String("GREETING"), (greeting) => Write.writeAll(socket, text(greeting)))
        ).pipe(Effect.provideService(
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromEnv({ env: { GREETING: "welcome" } })
        ))
        assert.strictEqual(yield* farewellOf(yield* connect), "welcome, Done")
      }))
  })

  it_("PROXY protocol", (it) => {
    const trusted = ProxyProtocol.trustAnyone
    const header = (source: string) => text(`PROXY TCP4 ${source} 203.0.113.7 40000 443\r\n`)

    it.effect("the handler sees the client behind the proxy, and every byte behind the header", () =>
      Effect.gen(function*() {
        const { connect, lines } = yield* serving(
          (socket, connection) =>
            Effect.gen(function*() {
              yield* Effect.logInfo("served")
              const line = yield* Read.readUntil(socket, "\n")
              const { localAddress, remoteAddress } = connection
              yield* Write.writeAll(socket, [
                text(
                  `${NetAddress.formatSocketAddress(remoteAddress)} ${NetAddress.formatSocketAddress(localAddress)} `
                ),
                line
              ])
            }),
          { proxyProtocol: { trusted } }
        )
        const client = yield* connect
        yield* Write.writeAll(client, [header("198.51.100.1"), text("hello\n")])
        assert.strictEqual(yield* farewellOf(client), "198.51.100.1:40000 203.0.113.7:443 hello\n, Done")
        assert.deepStrictEqual(lines.map(({ annotations }) => annotations["peer"]), ["tcp://198.51.100.1:40000"])
      }))

    it.effect("malformed headers and untrusted peers fail their connection alone", () =>
      Effect.gen(function*() {
        const told: Array<string> = []
        const { server } = yield* serving(echo, {
          listen: [anyPort, inet("10.0.0.1:0")],
          proxyProtocol: { trusted: ProxyProtocol.trustPeers(["127.0.0.0/8"]), max: 100 },
          // What is no connection of ours is reset in any case.
          onFailure: "close",
          onError: () => Effect.die("strangers are no failure"),
          onHandshakeFailure: (cause, { id }) =>
            Effect.sync(() => void told.push(`${id} ${ending(Exit.failCause(cause))}`))
        })
        const [here, there = here] = server.addresses
        const good = yield* StreamSocket.connect(here)
        yield* Write.writeAll(good, header("198.51.100.1"))
        const long = Buffer.concat([
          ProxyProtocol.encode({ version: 2, command: "local" }).subarray(0, 14),
          Buffer.from([0xff, 0xff])
        ])
        for (const bad of [text("GET / HTTP/1.1\r\n\r\n"), text("PROXY TCP5 \r\n"), long]) {
          const client = yield* StreamSocket.connect(here)
          yield* Write.writeAll(client, bad)
          assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
        }
        const untrusted = yield* StreamSocket.connect(there)
        yield* Effect.ignore(Write.writeAll(untrusted, header("198.51.100.1")))
        assert.strictEqual(yield* farewellOf(untrusted), "ConnectionReset")
        yield* turns()
        assert.deepStrictEqual(told, ["2 Framing", "3 Framing", "4 LimitExceeded", "5 Untrusted"])
        const { accepted, connections, failures, handshakeFailures } = yield* server.health
        assert.deepStrictEqual([accepted, connections, failures], [5, 1, 0])
        assert.deepStrictEqual(handshakeFailures, { Untrusted: 1, Malformed: 3, Tls: 0, Gone: 0 })
        yield* Write.writeAll(good, text("ok"))
        assert.strictEqual(yield* received(good, 2), "ok")
      }))

    it.effect("a peer that leaves before or inside its header is counted, and its connection closed", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(echo, { proxyProtocol: { trusted } })
        for (const sent of ["", "PROXY TCP4 198.51"]) {
          const client = yield* connect
          yield* Write.writeAll(client, text(sent))
          yield* client.shutdownWrite
          assert.strictEqual(yield* farewellOf(client), "Done")
        }
        const client = yield* connect
        yield* turns()
        yield* client.abort
        yield* turns()
        const { failures, handshakeFailures } = yield* server.health
        assert.deepStrictEqual([failures, handshakeFailures.Gone], [0, 3])
      }))

    it.effect("none of them is more than a line for debugging", () =>
      Effect.gen(function*() {
        const { lines, server } = yield* serving(echo, {
          listen: [anyPort, inet("10.0.0.1:0")],
          proxyProtocol: { trusted: ProxyProtocol.trustPeers(["127.0.0.0/8"]) }
        })
        const [here, there = here] = server.addresses
        const bad = yield* StreamSocket.connect(here)
        yield* Write.writeAll(bad, text("GET / HTTP/1.1\r\n\r\n"))
        yield* farewellOf(bad)
        yield* farewellOf(yield* StreamSocket.connect(there))
        const quiet = yield* StreamSocket.connect(here)
        yield* quiet.shutdownWrite
        yield* farewellOf(quiet)
        yield* turns()
        assert.isTrue(lines.every(({ level }) => level === "Debug"))
        assert.deepStrictEqual(lines.map(({ text }) => text.replace(/:\d+/g, "").replace(/ after \d+.*/, "")), [
          "the connection from tcp://127.0.0.1 failed before its handler: receive tcp://127.0.0.1: bad framing at byte 0: " +
          "the connection begins with \"GET / HTTP/1\" and not with a PROXY header",
          "the connection from tcp://10.0.0.1 failed before its handler: receive tcp://10.0.0.1: " +
          "the peer is not trusted to send a PROXY header",
          "the connection from tcp://127.0.0.1 failed before its handler: it ended"
        ])
      }))

    it.effect("what a drain ends on the way to the handler is no failure of a peer", () =>
      Effect.gen(function*() {
        for (const deadline of [0, 1000]) {
          const { connect, lines, server } = yield* serving(echo, { proxyProtocol: { trusted } })
          yield* connect
          yield* turns()
          const draining = yield* start(server.drain(deadline))
          yield* TestClock.adjust(deadline)
          const drained = yield* Fiber.join(draining)
          assert.deepStrictEqual([drained.total, drained.aborted], deadline === 0 ? [0, 1] : [1, 0])
          const { failures, handshakeFailures } = yield* server.health
          assert.deepStrictEqual([failures, handshakeFailures.Gone], [0, 0])
          assert.isTrue(lines.every(({ level }) => level === "Info"))
        }
      }))

    it.effect("a defect of the program's own trust is a failure", () =>
      Effect.gen(function*() {
        const told: Array<string> = []
        const { connect, server } = yield* serving(echo, {
          proxyProtocol: {
            trusted: () => {
              throw new Error("in my trust")
            }
          },
          onError: (cause) => Effect.sync(() => void told.push(ending(Exit.failCause(cause)))),
          onHandshakeFailure: () => Effect.die("this is none")
        })
        assert.strictEqual(yield* farewellOf(yield* connect), "ConnectionReset")
        yield* turns()
        const { failures, handshakeFailures } = yield* server.health
        assert.deepStrictEqual([told, failures, Math.max(...Object.values(handshakeFailures))], [["Die"], 1, 0])
      }))

    it.effect("a header is no first byte of the client", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(echo, { proxyProtocol: { trusted }, limits: { firstByte: 2000 } })
        const [silent, late] = [yield* connect, yield* connect]
        yield* Write.writeAll(silent, header("198.51.100.1"))
        // The time of a client begins behind the header.
        yield* TestClock.adjust(1_900)
        yield* Write.writeAll(late, header("198.51.100.2"))
        yield* turns()
        yield* TestClock.adjust(600)
        assert.strictEqual(yield* farewellOf(silent), "ConnectionReset")
        yield* Write.writeAll(late, text("x"))
        yield* received(late, 1)
        yield* TestClock.adjust(5_000)
        const { connections, limited } = yield* server.health
        assert.deepStrictEqual([connections, limited.FirstByte], [1, 1])
      }))

    it.effect("a header of a megabyte fails its connection, and nothing of it is kept", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(echo, { proxyProtocol: { trusted } })
        const good = yield* connect
        yield* Write.writeAll(good, [header("198.51.100.1"), text("x")])
        const signature = [
          0x0d,
          0x0a,
          0x0d,
          0x0a,
          0x00,
          0x0d,
          0x0a,
          0x51,
          0x55,
          0x49,
          0x54,
          0x0a,
          0x21,
          0x11,
          0xff,
          0xff
        ]
        for (const begin of [text("PROXY TCP4 "), Uint8Array.from(signature)]) {
          const client = yield* connect
          const writing = yield* start(Write.writeAll(client, [begin, new Uint8Array(1_000_000).fill(65)]))
          assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
          assert.notStrictEqual(ending(yield* Fiber.await(writing)), "Success")
        }
        assert.strictEqual(yield* received(good, 1), "x")
        assert.strictEqual((yield* server.health).handshakeFailures.Malformed, 2)
      }))

    it.effect("a header that does not come meets the deadline of the handshake", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(never, { proxyProtocol: { trusted } })
        const slow = yield* connect
        yield* Write.writeAll(slow, text("PROXY TCP4 198.51"))
        const done = yield* connect
        yield* Write.writeAll(done, header("198.51.100.1"))
        yield* turns()
        yield* TestClock.adjust(9_999)
        assert.strictEqual((yield* server.health).connections, 2)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* farewellOf(slow), "ConnectionReset")
        yield* turns()
        const { connections, limited } = yield* server.health
        assert.deepStrictEqual([connections, limited.Handshake], [1, 1])
      }))

    it.effect("clients behind the proxy are counted, not the proxy", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(echo, { proxyProtocol: { trusted }, limits: { perPeer: 1 } })
        const from = (source: string) =>
          Effect.tap(connect, (client) => Write.writeAll(client, [header(source), text("x")]))
        const first = yield* from("198.51.100.1")
        yield* received(first, 1)
        yield* Effect.flatMap(from("198.51.100.2"), (client) => received(client, 1))
        assert.strictEqual(yield* farewellOf(yield* from("198.51.100.1")), "ConnectionReset")
        yield* first.close
        yield* turns()
        yield* Effect.flatMap(from("198.51.100.1"), (client) => received(client, 1))
        const { connections, limited } = yield* server.health
        assert.deepStrictEqual([connections, limited.PerPeer], [2, 1])
      }))
  })

  it_("running", (it) => {
    it.effect("serve succeeds when somebody has drained the server", () =>
      Effect.gen(function*() {
        const fiber = yield* start(
          Server.serve(
            (_, connection) => Effect.forkDetach(connection.server.drain(), { startImmediately: true }),
            { listen: inet("127.0.0.1:7000") }
          )
        )
        yield* StreamSocket.connect(inet("127.0.0.1:7000"))
        const drained = yield* Fiber.join(fiber)
        assert.deepStrictEqual(drained, { finished: 1, total: 0, partial: 0, terminal: 0, aborted: 0 })
        yield* Acceptor.listen(inet("127.0.0.1:7000"))
      }))

    it.effect("an interruption of serve drains within the deadline, and proceeds then", () =>
      Effect.gen(function*() {
        const { capture } = logs()
        const fiber = yield* start(capture(Server.serve(never, {
          listen: inet("127.0.0.1:7000"),
          shutdown: { deadline: "4 seconds" }
        })))
        const client = yield* StreamSocket.connect(inet("127.0.0.1:7000"))
        yield* turns()
        const interrupting = yield* start(Fiber.interrupt(fiber))
        yield* turns()
        assert.strictEqual(
          ending(yield* Effect.exit(StreamSocket.connect(inet("127.0.0.1:7000")))),
          "ConnectionRefused"
        )
        yield* TestClock.adjust(3_999)
        assert.isUndefined(interrupting.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
        yield* Fiber.join(interrupting)
        assert.strictEqual(ending(yield* Fiber.await(fiber)), "Interrupt")
      }))

    it.effect("at whatever moment it is interrupted, no connection and no address is left", () =>
      Effect.gen(function*() {
        for (let turns = 0; turns < 8; turns++) {
          const listen = inet("127.0.0.1:7000")
          const fiber = yield* Effect.forkChild(Server.serve(never, { listen, shutdown: { deadline: 0 } }))
          for (let i = 0; i < turns; i++) yield* Effect.yieldNow
          const clients = yield* Effect.forEach([1, 2], () => Effect.option(StreamSocket.connect(listen)))
          for (let i = 0; i < turns % 3; i++) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          for (const client of clients) {
            if (client._tag === "None") continue
            assert.strictEqual(yield* farewellOf(client.value), "ConnectionReset", `after ${turns} turns`)
          }
          yield* Effect.scoped(Acceptor.listen(listen))
        }
      }))

    it.effect("a request from outside reaches the handlers and begins a drain", () =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        const fiber = yield* start(Cancellation.withSignal(
          Server.serve((socket) => socket.readSome(new Uint8Array(1)), { listen: inet("127.0.0.1:7000") }),
          signal
        ))
        const client = yield* StreamSocket.connect(inet("127.0.0.1:7000"))
        yield* turns()
        yield* signal.emit("total")
        assert.strictEqual(yield* farewellOf(client), "Done")
        assert.deepStrictEqual(Object.values(yield* Fiber.join(fiber)), [1, 0, 0, 0, 0])
      }))

    it.effect("a scope ends what was made in it", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { connect, server } = yield* Scope.provide(serving(never), scope)
        const client = yield* connect
        yield* turns()
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* server.state, "stopped")
        assert.strictEqual((yield* server.stopped).aborted, 1)
        assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
      }))

    it.effect("the layer has the service, and ends with its scope", () =>
      Effect.gen(function*() {
        const client = yield* Effect.gen(function*() {
          const server = yield* Server.Server
          const client = yield* StreamSocket.connect(server.addresses[0])
          yield* Write.writeAll(client, text("x"))
          yield* received(client, 1)
          yield* Effect.forkDetach(Effect.andThen(Effect.yieldNow, client.shutdownWrite))
          return client
        }).pipe(Effect.provide(Server.layer(echo, { listen: inet("127.0.0.1:7000") })))
        assert.strictEqual(client.state.socket, "open")
        assert.strictEqual(yield* farewellOf(client), "Done")
        yield* Acceptor.listen(inet("127.0.0.1:7000"))
      }))
  })

  describe("configuration", () => {
    const provider = (env: Record<string, string>) => ConfigProvider.constantCase(ConfigProvider.fromEnv({ env }))
    const read = (env: Record<string, string>) => Config.nested(Server.config, "chat").parse(provider(env))

    it.effect("has every option under its name", () =>
      Effect.gen(function*() {
        const { proxyProtocol, ...options } = yield* read({
          CHAT_LISTEN: "127.0.0.1:7000, [::1]:7000,unix:/run/chat.sock",
          CHAT_BACKLOG: "10",
          CHAT_IPV6_ONLY: "true",
          CHAT_REUSE_PORT: "true",
          CHAT_NO_DELAY: "false",
          CHAT_KEEP_ALIVE_IDLE: "30 seconds",
          CHAT_KEEP_ALIVE_INTERVAL: "5 seconds",
          CHAT_KEEP_ALIVE_COUNT: "3",
          CHAT_USER_TIMEOUT: "7 seconds",
          CHAT_SEND_BUFFER: "256KiB",
          CHAT_RECEIVE_BUFFER: "65536",
          CHAT_LINGER: "1 second",
          CHAT_SLICE_SIZE: "1024",
          CHAT_LIMITS_CONNECTIONS: "1000",
          CHAT_LIMITS_PER_PEER: "7",
          CHAT_LIMITS_ACCEPT_RATE: "50",
          CHAT_LIMITS_BYTES_IN_FLIGHT: "64MiB",
          CHAT_LIMITS_HANDSHAKE: "3 seconds",
          CHAT_LIMITS_FIRST_BYTE: "4 seconds",
          CHAT_LIMITS_IDLE: "5 minutes",
          CHAT_LIMITS_PROGRESS: "1KiB",
          CHAT_PROXY_PROTOCOL_TRUSTED: "10.0.0.0/8, ::1, unix",
          CHAT_PROXY_PROTOCOL_REQUIRED: "false",
          CHAT_PROXY_PROTOCOL_UNTRUSTED: "plain",
          CHAT_SHUTDOWN_DEADLINE: "20 seconds"
        })
        const second = Duration.seconds(1)
        assert.deepStrictEqual(options, {
          listen: ["127.0.0.1:7000", "[::1]:7000", NetAddress.unixPathAddress("/run/chat.sock")],
          backlog: 10,
          ipv6Only: true,
          reusePort: true,
          noDelay: false,
          keepAlive: { idle: Duration.seconds(30), interval: Duration.seconds(5), count: 3 },
          userTimeout: Duration.seconds(7),
          sendBuffer: 262_144,
          receiveBuffer: 65_536,
          linger: second,
          sliceSize: 1024,
          limits: {
            connections: 1000,
            perPeer: 7,
            acceptRate: { limit: 50, window: second },
            bytesInFlight: 67_108_864,
            handshake: Duration.seconds(3),
            firstByte: Duration.seconds(4),
            idle: Duration.minutes(5),
            progress: { bytes: 1024, per: second }
          },
          shutdown: { deadline: Duration.seconds(20) }
        })
        assert.deepStrictEqual([proxyProtocol?.required, proxyProtocol?.untrusted], [false, "plain"])
        const peers = ["10.1.2.3:1", "[::1]:1", "11.1.2.3:1"].map((peer) => inet(peer))
        assert.deepStrictEqual(
          [...peers, NetAddress.unixPathAddress("/x")].map((peer) => proxyProtocol?.trusted(peer)),
          [true, true, false, true]
        )
      }))

    it.effect("needs an address and nothing else", () =>
      Effect.gen(function*() {
        const options = yield* read({ CHAT_LISTEN: "localhost:7000" })
        const there = JSON.parse(JSON.stringify(options)) as unknown
        assert.deepStrictEqual(there, { listen: ["localhost:7000"], limits: {}, shutdown: {} })
        const { proxyProtocol } = yield* read({ CHAT_LISTEN: "x:1", CHAT_PROXY_PROTOCOL_TRUSTED: "anyone" })
        assert.strictEqual(proxyProtocol?.trusted, ProxyProtocol.trustAnyone)
      }))

    it.effect("names are those of the options, in whatever the configuration comes from", () =>
      Effect.gen(function*() {
        const options = yield* Server.config.parse(ConfigProvider.fromUnknown({
          listen: "localhost:7000",
          keepAlive: "30 seconds",
          limits: { perPeer: 3, idle: "1 minute" }
        }))
        assert.deepStrictEqual([options.keepAlive, options.limits?.perPeer, options.limits?.idle], [
          Duration.seconds(30),
          3,
          Duration.minutes(1)
        ])
      }))

    const wrongConfigs: ReadonlyArray<Record<string, string>> = [
      {},
      { CHAT_LISTEN: "" },
      { CHAT_LISTEN: " , " },
      { CHAT_LISTEN: "x:1", CHAT_LIMITS_IDLE: "a while" },
      { CHAT_LISTEN: "x:1", CHAT_LIMITS_IDLE: "0 seconds" },
      { CHAT_LISTEN: "x:1", CHAT_LIMITS_CONNECTIONS: "0" },
      { CHAT_LISTEN: "x:1", CHAT_LIMITS_PROGRESS: "0B" },
      { CHAT_LISTEN: "x:1", CHAT_LIMITS_BYTES_IN_FLIGHT: "much" },
      { CHAT_LISTEN: "x:1", CHAT_BACKLOG: "-1" },
      { CHAT_LISTEN: "x:1", CHAT_KEEP_ALIVE: "perhaps" },
      { CHAT_LISTEN: "x:1", CHAT_PROXY_PROTOCOL_TRUSTED: "10.0.0.0/33" },
      { CHAT_LISTEN: "x:1", CHAT_PROXY_PROTOCOL_TRUSTED: "proxy.internal" },
      { CHAT_LISTEN: "x:1", CHAT_PROXY_PROTOCOL_TRUSTED: "unix", CHAT_PROXY_PROTOCOL_UNTRUSTED: "maybe" },
      { CHAT_LISTEN: "x:1", CHAT_PROXY_PROTOCOL_REQUIRED: "true" }
    ]
    for (const env of wrongConfigs) {
      it.effect(`what is no option is a ConfigError: ${JSON.stringify(env)}`, () =>
        Effect.gen(function*() {
          assert.instanceOf(yield* Effect.flip(read(env)), Config.ConfigError)
        }))
    }

    it.effect("makes a layer", () =>
      Effect.gen(function*() {
        yield* Effect.gen(function*() {
          const server = yield* Server.Server
          assert.strictEqual(NetAddress.formatSocketAddress(server.addresses[0]), "127.0.0.1:7000")
        }).pipe(
          Effect.provide(Server.layerConfig(echo, Config.nested(Server.config, "chat"))),
          Effect.provide(MemoryTransport.layer),
          Effect.provideService(
            ConfigProvider.ConfigProvider,
            provider({ CHAT_LISTEN: "localhost:7000" })
          )
        )
      }))

    const wrong: ReadonlyArray<Server.Limits> = [
      { connections: 0 },
      { connections: { max: 1.5 } },
      { perPeer: -1 },
      { perPeer: { max: 1, ipv6Prefix: 129 } },
      { acceptRate: { limit: 0, window: "1 second" } },
      { acceptRate: { limit: 1, window: 0 } },
      { bytesInFlight: NaN },
      { firstByte: 0 },
      { idle: { within: 0 } },
      { progress: { bytes: 0, per: "1 second" } }
    ]
    for (const limits of wrong) {
      it.effect(`wrong limits are defects: ${JSON.stringify(limits)}`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(Effect.scoped(Server.make(echo, { listen: anyPort, limits })))
          assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof RangeError)
        }).pipe(Effect.provide(MemoryTransport.layer)))
    }

    it.effect("so are shares of a deadline that are none", () =>
      Effect.gen(function*() {
        const { server } = yield* serving(echo)
        assert.strictEqual(ending(yield* Effect.exit(server.drain(0, { total: -1 }))), "Die")
        assert.strictEqual(yield* server.state, "listening")
      }).pipe(Effect.provide(MemoryTransport.layer)))
  })

  describe("exit status", () => {
    const status = (exit: Exit.Exit<unknown, unknown>) => {
      let code: number | undefined
      Server.teardown(exit, (status) => (code = status))
      return code
    }

    it("is 0 for an interruption, and that of the failure for failures", () => {
      assert.strictEqual(status(Exit.void), 0)
      assert.strictEqual(status(Exit.interrupt(1)), 0)
      assert.strictEqual(status(Exit.fail("x")), 1)
      assert.strictEqual(status(Exit.failCause(Cause.combine(Cause.interrupt(1), Cause.fail("x")))), 1)
    })
  })

  describe("a listener that fails", () => {
    const tooMany = new SocketError({
      reason: Reason.TooManyOpenFiles(),
      operation: "socket",
      address: inet("127.0.0.1:7000"),
      transferred: 0,
      code: "EMFILE"
    })

    const fake = listening(never)

    it.effect("pauses and goes on; each failure is counted, the first of a row is logged", () =>
      Effect.gen(function*() {
        const { lines, listener, server } = yield* fake
        const health = Effect.map(
          server.health,
          ({ acceptFailures, accepted, state }) => [state, acceptFailures, accepted] as const
        )
        listener.offer(tooMany, tooMany, new FakeBacking(), tooMany)
        yield* turns()
        assert.deepStrictEqual(yield* health, ["paused", 1, 0])
        yield* TestClock.adjust(50)
        assert.deepStrictEqual(yield* health, ["paused", 2, 0])
        yield* TestClock.adjust(49)
        assert.deepStrictEqual(yield* health, ["paused", 2, 0])
        yield* TestClock.adjust(1)
        yield* turns()
        assert.deepStrictEqual(yield* health, ["paused", 3, 1])
        yield* TestClock.adjust(50)
        assert.deepStrictEqual(yield* health, ["listening", 3, 1])
        assert.deepStrictEqual(lines.map(({ level, text }) => `${level} ${text}`), [
          "Warn accept tcp://127.0.0.1:7000: too many open files (EMFILE)",
          "Info accepting on tcp://127.0.0.1:7000 again, after 2 failures",
          "Warn accept tcp://127.0.0.1:7000: too many open files (EMFILE)"
        ])
      }))

    it.effect("is drained in its pause", () =>
      Effect.gen(function*() {
        const { listener, server } = yield* fake
        listener.offer(tooMany)
        yield* turns()
        assert.strictEqual((yield* server.drain()).finished, 0)
        assert.strictEqual(yield* server.state, "stopped")
      }))
  })

  it_("metrics", (it) => {
    const readings = Effect.gen(function*() {
      const gauge = (metric: Metric.Gauge<number>) => Effect.map(Metric.value(metric), ({ value }) => value)
      const counter = (metric: Metric.Counter<number>) => Effect.map(Metric.value(metric), ({ count }) => count)
      return {
        connections: yield* gauge(Metrics.serverConnections),
        listening: yield* gauge(Metrics.servers.listening),
        paused: yield* gauge(Metrics.servers.paused),
        draining: yield* gauge(Metrics.servers.draining),
        stopped: yield* gauge(Metrics.servers.stopped),
        accepted: yield* counter(Metrics.serverAccepted),
        failures: yield* counter(Metrics.serverFailures),
        connectionsLimit: yield* counter(Metrics.serverLimited.Connections),
        pauses: yield* counter(Metrics.serverPauses.Connections),
        finished: yield* counter(Metrics.serverDrained.finished),
        aborted: yield* counter(Metrics.serverDrained.aborted)
      }
    })
    type Readings = Effect.Success<typeof readings>

    it.effect("count no server that was interrupted before it began", () =>
      Effect.gen(function*() {
        const listening = Effect.map(Metric.value(Metrics.servers.listening), ({ value }) => value)
        const before = yield* listening
        // A fiber that lets others in after so many steps is interrupted at that very step.
        for (let steps = 3; steps < 200; steps++) {
          const fiber = yield* start(
            Effect.provideService(
              Effect.scoped(Server.make(never, { listen: anyPort })),
              Scheduler.MaxOpsBeforeYield,
              steps
            )
          )
          yield* Fiber.interrupt(fiber)
        }
        assert.strictEqual(yield* listening, before)
      }).pipe(
        Effect.provide(Metrics.layer),
        (effect) => Effect.suspend(() => Effect.provideService(effect, Metric.MetricRegistry, new Map()))
      ))

    it.effect("follow what servers do", () =>
      Effect.gen(function*() {
        const before = yield* readings
        const moved = (expected: Partial<Readings>) =>
          Effect.map(readings, (now) => {
            const names = Object.keys(before) as ReadonlyArray<keyof Readings>
            const moves = names.map((name) => [name, now[name] - before[name]] as const).filter(([, by]) => by !== 0)
            assert.deepStrictEqual(Object.fromEntries(moves), expected)
          })
        const handler: Server.Handler<string, never> = (_, { id }) => id === 1 ? Effect.fail("x") : Effect.never
        const { connect, server } = yield* serving(handler, { onError: () => Effect.void, limits: { connections: 1 } })
        yield* moved({ listening: 1 })
        yield* farewellOf(yield* connect)
        yield* connect
        yield* turns()
        yield* moved({ paused: 1, accepted: 2, connections: 1, failures: 1, pauses: 2 })
        const draining = yield* start(server.drain(1000))
        yield* moved({ draining: 1, accepted: 2, connections: 1, failures: 1, pauses: 2 })
        yield* TestClock.adjust(1000)
        yield* Fiber.join(draining)
        yield* moved({ stopped: 1, accepted: 2, failures: 1, pauses: 2, aborted: 1 })
      }).pipe(
        Effect.provide(Metrics.layer),
        (effect) => Effect.suspend(() => Effect.provideService(effect, Metric.MetricRegistry, new Map()))
      ))
  })
})

/** What peers do wrong is one line a minute and peer, with a count, whoever they are and however many. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as TestClock from "effect/testing/TestClock"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Framing from "../../src/Framing.ts"
import { PeerMistakes } from "../../src/internal/core/PeerMistakes.ts"
import * as Read from "../../src/Read.ts"
import * as Server from "../../src/Server.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Tls from "../../src/Tls.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, inet } from "../support/addresses.ts"
import { localhost } from "../support/certificates.ts"
import { type Line, logs } from "../support/logs.ts"
import { start, turns } from "../support/waiting.ts"

/** What is logged at the default level, without ports. */
const said = (lines: ReadonlyArray<Line>): ReadonlyArray<string> =>
  lines.filter(({ level }) => level !== "Debug" && level !== "Trace").map(({ level, text }) =>
    `${level}: ${text.replace(/(tcp:\/\/(\[[^\]]*\]|[\d.]+)):\d+/g, "$1")}`
  )

describe("the lines about peers", () => {
  const telling = () => {
    const { capture, lines } = logs()
    const mistakes = new PeerMistakes()
    const tell = (peer: string, what = "ended") => capture(mistakes.tell(inet(peer), what))
    return { capture, lines, mistakes, tell }
  }

  it.effect("one a minute and peer, by the monotonic clock, with the count of those between", () =>
    Effect.gen(function*() {
      const { lines, tell } = telling()
      for (let port = 1; port <= 4; port++) yield* tell(`192.0.2.1:${port}`)
      yield* TestClock.adjust("59 seconds")
      yield* tell("192.0.2.1:5")
      assert.deepStrictEqual(said(lines), ["Info: the connection from tcp://192.0.2.1 ended"])
      yield* TestClock.adjust("1 second")
      yield* tell("192.0.2.1:6")
      yield* tell("192.0.2.1:7")
      const second = "Info: the connection from tcp://192.0.2.1 ended (and 4 more of this peer since its last line)"
      assert.deepStrictEqual(said(lines).slice(1), [second])
      yield* TestClock.adjust("3 minutes")
      yield* tell("192.0.2.1:8")
      yield* TestClock.adjust("1 minute")
      yield* tell("192.0.2.1:9")
      assert.deepStrictEqual(said(lines).slice(2), [
        "Info: the connection from tcp://192.0.2.1 ended (and 1 more of this peer since its last line)",
        "Info: the connection from tcp://192.0.2.1 ended"
      ])
      // The others are there for those who debug.
      assert.strictEqual(lines.length, 9)
    }))

  it.effect("each peer has its own: an IPv4 address, mapped or not, a network of IPv6, all paths together", () =>
    Effect.gen(function*() {
      const { capture, lines, mistakes, tell } = telling()
      for (const peer of ["192.0.2.1:1", "[::ffff:192.0.2.1]:1", "192.0.2.2:1"]) yield* tell(peer)
      for (const peer of ["[2001:db8::1]:1", "[2001:db8::ffff]:1", "[2001:db8:0:1::1]:1"]) yield* tell(peer)
      for (const path of ["", "/run/a"]) yield* capture(mistakes.tell(NetAddress.unixPathAddress(path), "ended"))
      assert.deepStrictEqual(said(lines), [
        "Info: the connection from tcp://192.0.2.1 ended",
        "Info: the connection from tcp://192.0.2.2 ended",
        "Info: the connection from tcp://[2001:db8::1] ended",
        "Info: the connection from tcp://[2001:db8:0:1::1] ended",
        "Info: the connection from unix:(unnamed) ended"
      ])
    }))

  it.effect("a host of peers costs a bounded number of lines a minute, and is forgotten", () =>
    Effect.gen(function*() {
      const { lines, tell } = telling()
      const flood = (first: number) =>
        Effect.forEach(
          Array.from({ length: 3000 }, (_, i) => first + i),
          (i) => tell(`10.${first}.${i >> 8 & 255}.${i & 255}:1`),
          { discard: true }
        )
      yield* flood(1)
      assert.strictEqual(said(lines).length, 1001)
      yield* TestClock.adjust("1 minute")
      yield* flood(2)
      assert.isAtMost(said(lines).length, 2002)
      assert.lengthOf(
        said(lines).filter((line) => line.endsWith("(and 1,999 more of other peers since its last line)")),
        1
      )
    }))

  it.effect("one line each, of bounded length, whatever the peer says", () =>
    Effect.gen(function*() {
      const { lines, tell } = telling()
      yield* tell("192.0.2.1:1", `said ${"\r\nERROR forged\u2028\u001b[31m\u202e".repeat(1000)}`)
      assert.notMatch(lines[0]?.text ?? "", /[\p{Cc}\p{Zl}\p{Cf}]/u)
      assert.isBelow(lines[0]?.text.length ?? Infinity, 600)
    }))
})

describe("mistakes of peers", () => {
  const framing = Framing.delimited("\n", { max: 10 })
  const receive = (socket: StreamSocket.StreamSocket) => Effect.forever(Framing.receive(socket, framing))

  /** What peers send before they end, what is said of it, and whether it is a failure of the handler. */
  const mistakes: Readonly<Record<string, readonly [sent: string, line: RegExp, failure: boolean]>> = {
    "a message without its end": ["hello", /receive .*the stream ended early/, false],
    "a message that is too long": ["hello hello hello\n", /receive .*over the limit of 10 bytes/, true]
  }

  const peers = (address: NetAddress.SocketAddress, sent: string) =>
    Effect.forEach([1, 2, 3], () =>
      Effect.scoped(Effect.gen(function*() {
        const client = yield* StreamSocket.connect(address)
        yield* Write.writeAll(client, text(sent))
        yield* Effect.ignore(client.shutdownWrite)
        yield* Effect.exit(Read.readAll(client, { max: 10_000 }))
        yield* turns()
      })))

  for (const [name, [sent, line, isFailure]] of Object.entries(mistakes)) {
    it.effect(`${name}: one line, of Acceptor.serve`, () =>
      Effect.gen(function*() {
        const { capture, lines } = logs()
        const acceptor = yield* Acceptor.listen(anyPort)
        yield* start(capture(Effect.exit(Acceptor.serve(acceptor, receive))))
        yield* peers(acceptor.address, sent)
        assert.strictEqual(said(lines).length, 1)
        assert.match(said(lines)[0] ?? "", new RegExp(`^Info: the connection from .* ended: ${line.source}`))
        yield* TestClock.adjust("1 minute")
        yield* peers(acceptor.address, sent)
        assert.match(said(lines)[1] ?? "", /\(and 2 more of this peer since its last line\)$/)
      }).pipe(Effect.scoped, Effect.provide(MemoryTransport.layer)))

    it.effect(`${name}: one line, of Server`, () =>
      Effect.gen(function*() {
        const { capture, lines } = logs()
        const server = yield* capture(Server.make(receive, { listen: anyPort, shutdown: { deadline: 0 } }))
        yield* peers(server.addresses[0], sent)
        assert.strictEqual(said(lines).length, 1)
        assert.match(said(lines)[0] ?? "", new RegExp(`^Info: the connection from .* ended: ${line.source}`))
        assert.strictEqual((yield* server.health).failures, isFailure ? 3 : 0)
        yield* TestClock.adjust("1 minute")
        yield* peers(server.addresses[0], sent)
        assert.match(said(lines)[1] ?? "", /\(and 2 more of this peer since its last line\)$/)
      }).pipe(Effect.scoped, Effect.provide(MemoryTransport.layer)))
  }

  it.effect("plain HTTP to a handler that speaks TLS itself: one line, of Acceptor.serve", () =>
    Effect.gen(function*() {
      const { capture, lines } = logs()
      const acceptor = yield* Acceptor.listen(anyPort)
      const handler = (plain: StreamSocket.StreamSocket) =>
        Effect.scoped(Effect.flatMap(Tls.server(plain, localhost), receive))
      yield* start(capture(Effect.exit(Acceptor.serve(acceptor, handler))))
      yield* peers(acceptor.address, "GET / HTTP/1.1\r\n\r\n")
      assert.strictEqual(said(lines).length, 1, said(lines).join("\n"))
      assert.match(said(lines)[0] ?? "", /^Info: .*plain HTTP/)
    }).pipe(Effect.scoped, Effect.provide(MemoryTransport.layer)))

  const other = new SocketError({
    reason: Reason.Tls({ kind: "truncated" }),
    operation: "socket",
    address: inet("10.9.9.9:5432"),
    transferred: 0
  })
  const own = new SocketError({
    reason: Reason.Tls({ kind: "handshake", detail: "the options of this side cannot be used" }),
    operation: "Tls.server",
    transferred: 0
  })
  for (const [name, error] of [["another socket", other], ["the options of this side", own]] as const) {
    it.effect(`a failure of TLS of ${name} is an error, each time, of Acceptor.serve and Server`, () =>
      Effect.gen(function*() {
        const { capture, lines } = logs()
        const acceptor = yield* Acceptor.listen(anyPort)
        yield* start(capture(Effect.exit(Acceptor.serve(acceptor, () => Effect.fail(error)))))
        const server = yield* capture(
          Server.make(() => Effect.fail(error), { listen: anyPort, shutdown: { deadline: 0 } })
        )
        yield* peers(acceptor.address, "").pipe(Effect.ignore)
        yield* peers(server.addresses[0], "").pipe(Effect.ignore)
        assert.deepStrictEqual(lines.map(({ level }) => level), Array.from({ length: 6 }, () => "Error"))
        assert.strictEqual((yield* server.health).failures, 3)
      }).pipe(Effect.scoped, Effect.provide(MemoryTransport.layer)))
  }
})

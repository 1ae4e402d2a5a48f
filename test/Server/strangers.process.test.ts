/** What strangers do is never logged as a failure of the handler. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import { once } from "node:events"
import type * as Net from "node:net"
import * as NodeTls from "node:tls"
import * as Acceptor from "../../src/Acceptor.ts"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import * as Read from "../../src/Read.ts"
import * as Server from "../../src/Server.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import { eventually, turns } from "../../src/testing/checks/support.ts"
import * as Tls from "../../src/Tls.ts"
import * as Write from "../../src/Write.ts"
import { localhost, root } from "../support/certificates.ts"
import { logs } from "../support/logs.ts"
import { kernel, type Place, rawConnect } from "../support/transports.ts"

/** Answers every line, for ever. */
const lines = (socket: StreamSocket) =>
  Effect.gen(function*() {
    while (true) {
      const line = yield* Read.readLine(socket, { max: 1000 })
      yield* Write.writeAll(socket, Buffer.from(`${line}\n`))
    }
  })

const serving = (place: Place, options: Partial<Server.Options>) =>
  Effect.gen(function*() {
    const captured = logs()
    const server = yield* captured.capture(
      Server.make(lines, { listen: place.address(), shutdown: { deadline: 0 }, ...options })
    )
    return { server, lines: captured.lines }
  })

const secureClient = (address: NetAddress.SocketAddress, maxVersion: NodeTls.SecureVersion) =>
  Effect.gen(function*() {
    const raw = yield* rawConnect(address, { allowHalfOpen: true })
    const client = NodeTls.connect({ socket: raw, servername: "localhost", ca: root.certificate, maxVersion })
    client.on("error", () => {})
    yield* Effect.promise(() => once(client, "secureConnect"))
    client.write("hello\n")
    yield* Effect.promise(() => once(client, "data"))
    return { raw, client }
  })

type Peer = { readonly raw: Net.Socket; readonly client: NodeTls.TLSSocket }

const departures: Readonly<Record<string, (peer: Peer) => void>> = {
  "ends without close_notify": ({ raw }) => void raw.end(),
  "resets": ({ raw }) => void raw.resetAndDestroy(),
  "goes": ({ raw }) => void raw.destroy(),
  // The server refuses, or goes on without; either way the client is gone soon after.
  "renegotiates": ({ client, raw }) => {
    client.renegotiate({ rejectUnauthorized: false }, () => {})
    setTimeout(() => raw.destroy(), 200)
  },
  // More often than Node allows in ten minutes.
  "renegotiates without end": ({ client }) => {
    const again = () => void client.renegotiate({ rejectUnauthorized: false }, (error) => error === null && again())
    again()
  },
  "sends what is not TLS": ({ raw }) => void raw.write("this is no record\n"),
  "says goodbye": ({ client }) => void client.end()
}

describe("a TLS client between two requests", () => {
  for (const place of kernel) {
    for (const [name, depart] of Object.entries(departures)) {
      for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
        // TLS 1.3 has no renegotiation.
        if (name.startsWith("renegotiates") && version === "TLSv1.3") continue
        // Unix-domain sockets know no reset.
        if (name === "resets" && place.isUnix) continue
        it.live(
          `that ${name} is no error of a handler of Acceptor.serve (${version}), over ${place.name}`,
          () =>
            Effect.gen(function*() {
              const { capture, lines: logged } = logs()
              const acceptor = yield* Acceptor.listen(place.address())
              let ended = 0
              const handler = (plain: StreamSocket) =>
                Effect.ensuring(
                  Effect.scoped(Effect.flatMap(Tls.server(plain, localhost), lines)),
                  Effect.sync(() => void ended++)
                )
              yield* Effect.forkScoped(capture(Effect.exit(Acceptor.serve(acceptor, handler))))
              depart(yield* secureClient(acceptor.address, version))
              yield* eventually(() => "its handler has ended", () => ended === 1)
              yield* turns()
              assert.deepStrictEqual(told(logged), [])
            }).pipe(Effect.scoped, Effect.provide(place.layer)),
          20_000
        )

        it.live(
          `that ${name} is no error of the handler (${version}), over ${place.name}`,
          () =>
            Effect.gen(function*() {
              const { lines, server } = yield* serving(place, { tls: localhost })
              const peer = yield* secureClient(server.addresses[0], version)
              depart(peer)
              const health = () => Effect.runSync(server.health)
              yield* eventually(() => "its connection has ended", () => health().connections === 0)
              assert.deepStrictEqual(
                lines.filter(({ level }) => level !== "Debug" && level !== "Trace").map(({ text }) =>
                  text.slice(0, 200)
                ),
                []
              )
              assert.strictEqual(health().failures, 0)
            }).pipe(Effect.scoped, Effect.provide(place.layer)),
          20_000
        )
      }
    }
  }
})

const signature = Buffer.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a])

/** A PROXY v2 header, LOCAL, of family UNSPEC. */
const local = (block: Uint8Array): Buffer =>
  Buffer.concat([signature, Buffer.from([0x20, 0x00, block.byteLength >> 8, block.byteLength & 0xff]), block])

const blocks: Readonly<Record<string, Uint8Array>> = {
  nothing: Buffer.alloc(0),
  "one byte": Buffer.from([7]),
  "two bytes": Buffer.from([7, 7]),
  "twelve zeros": Buffer.alloc(12),
  "a TLV that ends too early": Buffer.from([0x03, 0xff, 0xff, 1]),
  "a checksum that is wrong": Buffer.from([0x03, 0, 4, 1, 2, 3, 4]),
  "500 bytes of anything": Buffer.alloc(500, 0xab)
}

describe("a health check with a PROXY v2 LOCAL header of family UNSPEC", () => {
  for (const place of kernel) {
    for (const [name, block] of Object.entries(blocks)) {
      it.live(`and ${name} in its block is served, over ${place.name}`, () =>
        Effect.gen(function*() {
          const { lines, server } = yield* serving(place, {
            proxyProtocol: { trusted: ProxyProtocol.trustAnyone, required: true }
          })
          const raw = yield* rawConnect(server.addresses[0])
          raw.write(Buffer.concat([local(block), Buffer.from("hello\n")]))
          const answer = yield* Effect.race(
            Effect.promise(() => once(raw, "data").then(String, () => "closed")),
            Effect.promise(() => once(raw, "close").then(() => "closed", () => "closed"))
          )
          assert.strictEqual(answer, "hello\n", lines.map(({ text }) => text).join("\n"))
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 20_000)
    }
  }
})

/** What is told at the default level. */
const told = (lines: ReadonlyArray<{ readonly level: string; readonly text: string }>) =>
  lines.filter(({ level }) => !["Debug", "Trace"].includes(level)).map(({ level, text }) => `${level}: ${text}`)

describe("a mistake of those who set a client up is told once a minute and peer", () => {
  for (const place of kernel) {
    it.live(`plain HTTP to a TLS port, over ${place.name}`, () =>
      Effect.gen(function*() {
        const { lines, server } = yield* serving(place, { tls: localhost })
        for (let i = 0; i < 3; i++) {
          const raw = yield* rawConnect(server.addresses[0])
          raw.resume()
          raw.write("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
          yield* Effect.promise(() => once(raw, "close").catch(() => {}))
        }
        yield* eventually(() => "they have ended", () => Effect.runSync(server.health).connections === 0)
        const said = told(lines)
        assert.strictEqual(said.length, 1, said.join("\n"))
        assert.match(said[0] ?? "", /plain HTTP|not TLS/)
        assert.notMatch(said[0] ?? "", /^Error/)
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 20_000)

    it.live(`a last line without its end, over ${place.name}`, () =>
      Effect.gen(function*() {
        const { lines, server } = yield* serving(place, {})
        for (let i = 0; i < 3; i++) {
          const raw = yield* rawConnect(server.addresses[0])
          raw.resume()
          raw.end("hello without an end")
          yield* Effect.promise(() => once(raw, "close").catch(() => {}))
        }
        yield* eventually(() => "they have ended", () => Effect.runSync(server.health).connections === 0)
        const said = told(lines)
        assert.strictEqual(said.length, 1, said.join("\n"))
        assert.notMatch(said[0] ?? "", /^Error/)
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 20_000)
  }
})

/** Which waits are waits for the next request, and what a drain and `limits.idle` do to the others. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Framing from "../../src/Framing.ts"
import * as Read from "../../src/Read.ts"
import * as Relay from "../../src/Relay.ts"
import * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { eventually } from "../../src/testing/checks/support.ts"
import * as Tls from "../../src/Tls.ts"
import type { Transport } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { localhost, root } from "../support/certificates.ts"
import { ending } from "../support/exits.ts"
import { received } from "../support/server.ts"
import { all, kernel, memory, type Place, rawConnect } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

const lines = Framing.lines()

const make = (place: Place, handler: Server.Handler<unknown, Scope.Scope>, options?: Partial<Server.Options>) =>
  Server.make(handler, { listen: place.address(), shutdown: { deadline: 0 }, ...options })

const ask = (client: StreamSocket.StreamSocket, line: string) =>
  Effect.andThen(Write.writeAll(client, text(`${line}\n`)), Read.readLine(client, { max: 100 }))

const deadline = 10_000

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const before = performance.now()
    const value = yield* effect
    return { value, time: performance.now() - before }
  })

/** The drain is over long before its first request, and needed neither a torn write nor a reset. */
const endsAtOnce = (server: Server.Server, connections = 1) =>
  Effect.gen(function*() {
    const { time, value } = yield* timed(server.drain(deadline))
    assert.isBelow(time, deadline / 4)
    assert.deepStrictEqual(value, { finished: 0, total: connections, partial: 0, terminal: 0, aborted: 0 })
  })

const hasRead = (server: Server.Server, bytes: number) =>
  eventually("its request", () => Effect.runSync(server.connections)[0]?.bytesRead === bytes)

/** Each reads one request after the other, and has answered the first one. */
const loops: Record<string, Server.Handler<unknown, never>> = {
  readSome: (socket) => {
    const buffer = new Uint8Array(100)
    return Effect.forever(
      Effect.flatMap(socket.readSome(buffer), (count) => Write.writeAll(socket, buffer.slice(0, count)))
    )
  },
  readLine: (socket) =>
    Effect.forever(
      Effect.flatMap(Read.readLine(socket, { max: 100 }), (line) => Write.writeAll(socket, text(`${line}\n`)))
    ),
  "next, with a time-out around the read": (socket, connection) =>
    Effect.forever(
      Effect.flatMap(
        connection.next(Effect.timeout(Framing.receive(socket, lines), "1 minute")),
        (line) => Framing.send(socket, lines, line)
      )
    ),
  "next, in a fiber of its own": (socket, connection) =>
    Effect.all([
      Effect.forever(
        Effect.flatMap(connection.next(Framing.receive(socket, lines)), (line) => Framing.send(socket, lines, line))
      ),
      Effect.never
    ], { concurrency: 2 })
}

describe("a drain ends at its start", () => {
  for (const place of all) {
    for (const [name, handler] of Object.entries(loops)) {
      it.live(`a loop over ${name}, over ${place.name}`, () =>
        Effect.gen(function*() {
          const server = yield* make(place, handler)
          const client = yield* StreamSocket.connect(server.addresses[0])
          assert.strictEqual(yield* ask(client, "hello"), "hello")
          yield* endsAtOnce(server)
          assert.strictEqual(ending(yield* Effect.exit(client.readSome(new Uint8Array(1)))), "Done")
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
    }

    it.live(`messages without an answer, by next, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(
          place,
          (socket, connection) => Effect.forever(connection.next(Framing.receive(socket, lines)))
        )
        const client = yield* StreamSocket.connect(server.addresses[0])
        yield* Write.writeAll(client, text("hello\n"))
        yield* hasRead(server, 6)
        yield* endsAtOnce(server)
        assert.strictEqual(ending(yield* Effect.exit(client.readSome(new Uint8Array(1)))), "Done")
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)

    it.live(`a loop behind a TLS that the handler has begun, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(place, (socket) =>
          Effect.gen(function*() {
            yield* Read.readLine(socket, { max: 100 })
            yield* Write.writeAll(socket, text("go on\n"))
            const secure = yield* Tls.server(socket, localhost)
            while (true) yield* Framing.send(secure, lines, yield* Framing.receive(secure, lines))
          }))
        const client = yield* StreamSocket.connect(server.addresses[0])
        assert.strictEqual(yield* ask(client, "STARTTLS"), "go on")
        const secure = yield* Tls.client(client, { ca: root.certificate, servername: "localhost" })
        assert.strictEqual(yield* ask(secure, "hello"), "hello")
        yield* endsAtOnce(server)
        assert.strictEqual(ending(yield* Effect.exit(secure.readSome(new Uint8Array(1)))), "Done")
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
  }

  for (const place of kernel) {
    it.live(`a TLS client without a byte, with FIN, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(place, () => Effect.never, { tls: localhost })
        const raw = yield* rawConnect(server.addresses[0])
        const ends: Array<string> = []
        raw.on("error", () => ends.push("error"))
        raw.on("end", () => ends.push("end"))
        raw.resume()
        yield* eventually("its connection", () => Effect.runSync(server.health).connections === 1)
        yield* endsAtOnce(server)
        yield* eventually("its end", () => ends.length > 0)
        assert.deepStrictEqual(ends, ["end"])
        const { failures, handshakeFailures } = yield* server.health
        assert.deepStrictEqual([failures, handshakeFailures.Tls, handshakeFailures.Gone], [0, 0, 0])
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
  }
})

/** Handlers that are in the middle of a request when the drain starts, and what the client has to send to end it. */
const busy: Record<string, {
  readonly handler: Server.Handler<unknown, never>
  readonly before: string
  readonly answered?: string
  readonly after: string
  readonly answer: string
}> = {
  "half a line": {
    handler: loops["readLine"] ?? (() => Effect.die("no handler")),
    before: "hel",
    after: "lo\n",
    answer: "hello\n"
  },
  "a header without its body": {
    handler: (socket) =>
      Effect.gen(function*() {
        while (true) {
          const length = Number(yield* Read.readLine(socket, { max: 100 }))
          const body = new Uint8Array(length)
          yield* Read.readExactly(socket, body)
          yield* Write.writeAll(socket, body)
        }
      }),
    before: "5\n",
    after: "hello",
    answer: "hello"
  },
  "a body that is asked for, by next": {
    handler: (socket, connection) =>
      Effect.gen(function*() {
        while (true) {
          yield* connection.next(Read.readLine(socket, { max: 100 }))
          yield* Write.writeAll(socket, text("continue\n"))
          const body = new Uint8Array(5)
          yield* Read.readExactly(socket, body)
          yield* Write.writeAll(socket, body)
        }
      }),
    before: "DATA\n",
    answered: "continue\n",
    after: "hello",
    answer: "hello"
  },
  "half a line, by next": {
    handler: loops["next, with a time-out around the read"] ?? (() => Effect.die("no handler")),
    before: "hel",
    after: "lo\n",
    answer: "hello\n"
  }
}

describe("a drain leaves its time to", () => {
  for (const place of all) {
    for (const [name, { after, answer, answered = "", before, handler }] of Object.entries(busy)) {
      it.live(`${name}, over ${place.name}`, () =>
        Effect.gen(function*() {
          const server = yield* make(place, handler)
          const client = yield* StreamSocket.connect(server.addresses[0])
          yield* Write.writeAll(client, text(before))
          yield* hasRead(server, before.length)
          if (answered !== "") assert.strictEqual(yield* received(client, answered.length), answered)
          const draining = yield* start(server.drain(deadline))
          yield* Effect.sleep(300)
          assert.isUndefined(draining.pollUnsafe())
          yield* Write.writeAll(client, text(after))
          assert.strictEqual(yield* received(client, answer.length), answer)
          // And then it is between two requests.
          const { time, value } = yield* timed(Fiber.join(draining))
          assert.isBelow(time, deadline / 4)
          assert.deepStrictEqual(value, { finished: 0, total: 1, partial: 0, terminal: 0, aborted: 0 })
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
    }

    it.live(`a request that arrives as it starts, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(place, (socket) =>
          Effect.gen(function*() {
            while (true) yield* Framing.send(socket, lines, yield* Framing.receive(socket, lines))
          }))
        const client = yield* StreamSocket.connect(server.addresses[0])
        assert.strictEqual(yield* ask(client, "hello"), "hello")
        yield* Write.writeAll(client, text("again\n"))
        const draining = yield* start(server.drain(deadline))
        assert.strictEqual(yield* Read.readLine(client, { max: 100 }), "again")
        yield* Fiber.join(draining)
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)

    it.live(
      `a handler that listens for it: a request that crosses its goodbye is answered, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const server = yield* make(place, (socket, connection) =>
            Effect.gen(function*() {
              yield* Effect.forkChild(Effect.andThen(connection.draining, Framing.send(socket, lines, text("bye"))))
              while (true) yield* Framing.send(socket, lines, yield* Framing.receive(socket, lines))
            }))
          const client = yield* StreamSocket.connect(server.addresses[0])
          assert.strictEqual(yield* ask(client, "hello"), "hello")
          const draining = yield* start(server.drain(deadline))
          assert.strictEqual(yield* Read.readLine(client, { max: 100 }), "bye")
          yield* Effect.sleep(200)
          assert.strictEqual(yield* ask(client, "again"), "again")
          yield* client.close
          assert.strictEqual((yield* Fiber.join(draining)).finished, 1)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )

    it.live(
      `requests that fibers work on while the handler reads on, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const server = yield* make(place, (socket) =>
            Effect.gen(function*() {
              while (true) {
                const request = yield* Framing.receive(socket, lines)
                const wait = Number(new TextDecoder().decode(request))
                yield* Effect.forkChild(Effect.andThen(Effect.sleep(wait), Framing.send(socket, lines, request)))
              }
            }))
          const client = yield* StreamSocket.connect(server.addresses[0])
          yield* Write.writeAll(client, text("0\n700\n"))
          yield* hasRead(server, 6)
          assert.strictEqual(yield* Read.readLine(client, { max: 100 }), "0")
          const draining = yield* start(server.drain(deadline))
          assert.strictEqual(yield* Read.readLine(client, { max: 100 }), "700")
          yield* client.close
          yield* Fiber.join(draining)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )
  }

  for (const place of kernel) {
    it.live(`a TLS client in the middle of its handshake, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(place, () => Effect.never, { tls: localhost })
        const raw = yield* rawConnect(server.addresses[0])
        raw.on("error", () => {})
        raw.resume()
        raw.write(Uint8Array.of(22, 3, 1))
        yield* eventually("its connection", () => Effect.runSync(server.health).connections === 1)
        yield* Effect.sleep(200)
        const { time } = yield* timed(server.drain(1000))
        assert.isAbove(time, 500)
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
  }

  it.live("a relay, whichever side has spoken last", () =>
    Effect.gen(function*() {
      const upstream = yield* make(memory, (socket) =>
        Effect.gen(function*() {
          yield* Read.readLine(socket, { max: 100 })
          yield* Write.writeAll(socket, text("one "))
          yield* Effect.sleep(700)
          yield* Write.writeAll(socket, text("two"))
        }))
      const transport = yield* Effect.context<Transport>()
      const server = yield* make(memory, (socket) =>
        Effect.gen(function*() {
          const target = yield* StreamSocket.connect(upstream.addresses[0])
          yield* Relay.relay(socket, target)
        }).pipe(Effect.provideContext(transport)))
      const client = yield* StreamSocket.connect(server.addresses[0])
      yield* Write.writeAll(client, text("get\n"))
      assert.strictEqual(yield* received(client, 4), "one ")
      const draining = yield* start(server.drain(deadline))
      assert.strictEqual(yield* received(client, 3), "two")
      yield* client.close
      yield* Fiber.join(draining)
    }).pipe(Effect.scoped, Effect.provide(memory.layer)), 60_000)
})

it.live("a handler that reads on after the request is not asked again and again", () =>
  Effect.gen(function*() {
    let asked = 0
    const server = yield* make(memory, (socket) =>
      Effect.forever(
        Effect.catchReason(
          socket.readSome(new Uint8Array(1)),
          "SocketError",
          "OperationAborted",
          () => Effect.sync(() => asked++)
        )
      ))
    const client = yield* StreamSocket.connect(server.addresses[0])
    yield* eventually("its connection", () => Effect.runSync(server.health).connections === 1)
    const draining = yield* start(server.drain(deadline))
    yield* Effect.sleep(200)
    assert.strictEqual(asked, 1)
    yield* client.close
    assert.strictEqual((yield* Fiber.join(draining)).aborted, 0)
  }).pipe(Effect.scoped, Effect.provide(memory.layer)), 60_000)

describe("limits.idle", () => {
  for (const place of all) {
    const cut = (name: string, handler: Server.Handler<unknown, never>, sent: string) =>
      it.live(`ends ${name}, over ${place.name}`, () =>
        Effect.gen(function*() {
          const server = yield* make(place, handler, { limits: { idle: 300 } })
          const client = yield* StreamSocket.connect(server.addresses[0])
          yield* Write.writeAll(client, text(sent))
          yield* eventually("its limit", () => Effect.runSync(server.health).limited.Idle === 1)
          yield* eventually("its end", () => Effect.runSync(server.health).connections === 0)
        }).pipe(Effect.scoped, Effect.timeout("20 seconds"), Effect.provide(place.layer)), 60_000)

    cut("a client that stops inside a line", loops["readLine"] ?? (() => Effect.never), "hel")
    cut("a client that stops inside a line, by next", loops["next, in a fiber of its own"] ?? (() => Effect.never), "h")
    cut("a client that sends nothing, whatever the handler does", () => Effect.never, "")
    cut("a client that does not read", (socket) => Write.writeAll(socket, new Uint8Array(50_000_000)), "hello\n")

    it.live(`does not run outside of next, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(place, (socket, connection) =>
          Effect.gen(function*() {
            while (true) {
              const request = yield* connection.next(Framing.receive(socket, lines))
              // Another fiber waits for what the client says meanwhile.
              yield* Effect.raceFirst(Effect.sleep(1200), Framing.receive(socket, lines))
              yield* Framing.send(socket, lines, request)
            }
          }), { limits: { idle: 300 } })
        const client = yield* StreamSocket.connect(server.addresses[0])
        assert.strictEqual(yield* ask(client, "hello"), "hello")
        assert.strictEqual(ending(yield* Effect.exit(client.readSome(new Uint8Array(1)))), "Done")
        assert.strictEqual((yield* server.health).limited.Idle, 1)
      }).pipe(Effect.scoped, Effect.timeout("20 seconds"), Effect.provide(place.layer)), 60_000)
  }
})

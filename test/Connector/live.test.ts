/** Races on real IPv4 and IPv6 loopback: one side refuses, or never answers. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import type * as NetAddress from "effect/net/NetAddress"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Connector from "../../src/Connector.ts"
import * as Read from "../../src/Read.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import { random } from "../../src/testing/MemoryTransport.ts"
import type { Transport } from "../../src/Transport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { inet, portOf } from "../support/addresses.ts"
import { assertBytes } from "../support/bytes.ts"
import { ending, failure } from "../support/exits.ts"
import { hangingListenerAt } from "../support/hangingListener.ts"
import { openSockets } from "../support/kernel.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { start, turn, turns } from "../support/waiting.ts"

const hasIpv6 = await Effect.runPromise(
  Acceptor.listen(inet("[::1]:0")).pipe(
    Effect.scoped,
    Effect.provide(NodeTransport.layer),
    Effect.match({ onFailure: () => false, onSuccess: () => true })
  )
)

/** A name for addresses that have their ports already. */
const named = (...addresses: ReadonlyArray<NetAddress.SocketAddress>) =>
  Layer.succeed(
    AddressResolver.AddressResolver,
    // The one signature that is asked for stands for its overloads.
    { resolve: () => Effect.succeed(addresses) } as unknown as AddressResolver.AddressResolver["Service"]
  )

/** A port of that address on which no socket listens. */
const refusing = (host: string) =>
  Effect.map(Effect.scoped(Acceptor.listen(`${host}:0`)), (acceptor) => acceptor.address)

const talk = (one: StreamSocket, other: StreamSocket) =>
  Effect.gen(function*() {
    yield* Write.writeAll(one, text("there\n"))
    assertBytes(yield* Read.readUntil(other, "\n"), "there\n")
    yield* Write.writeAll(other, text("back\n"))
    assertBytes(yield* Read.readUntil(one, "\n"), "back\n")
  })

const transports: Readonly<Record<string, Layer.Layer<Transport | AddressResolver.AddressResolver>>> = {
  NodeTransport: NodeTransport.layer,
  ...(EpollTransport.isSupported() ? { EpollTransport: Layer.orDie(EpollTransport.layer) } : undefined)
}

for (const [name, layer] of Object.entries(transports)) {
  describe.skipIf(!hasIpv6)(`Connector over ${name}`, () => {
    it.layer(layer, { excludeTestServices: true })("on loopback", (it) => {
      for (const [bad, good] of [["[::1]", "127.0.0.1"], ["127.0.0.1", "[::1]"]] as const) {
        it.effect(`${bad} is refused: ${good} is next`, () =>
          leavingNothing(Effect.gen(function*() {
            const acceptor = yield* Acceptor.listen(`${good}:0`)
            const unused = yield* refusing(bad)
            const client = yield* Connector.connect("db.internal:1", { attemptDelay: "1 hour" }).pipe(
              Effect.provide(named(unused, acceptor.address))
            )
            assert.deepStrictEqual(client.remoteAddress, acceptor.address)
            yield* talk(client, yield* acceptor.accept)
          })))

        it.effect(`${bad} never answers: ${good} joins in and wins, and nothing is left of the attempt`, () =>
          leavingNothing(Effect.gen(function*() {
            const { target } = yield* hangingListenerAt(bad === "[::1]" ? "::1" : bad)
            const acceptor = yield* Acceptor.listen(`${good}:0`)
            const before = openSockets()
            const client = yield* Connector.connect("db.internal:1", { attemptDelay: "50 millis" }).pipe(
              Effect.provide(named(target, acceptor.address))
            )
            // The winner, and perhaps its other end, which was not accepted yet. Never the loser.
            assert.deepStrictEqual(client.remoteAddress, acceptor.address)
            const server = yield* acceptor.accept
            assert.strictEqual(openSockets(), before + 2)
            yield* talk(client, server)
          })))

        it.effect(`${bad} never answers and ${good} is refused: both are listed`, () =>
          leavingNothing(Effect.gen(function*() {
            const { target } = yield* hangingListenerAt(bad === "[::1]" ? "::1" : bad)
            const unused = yield* refusing(good)
            const before = openSockets()
            const exit = yield* Connector.connect("db.internal:5432", {
              attemptDelay: "10 millis",
              attemptTimeout: "60 millis"
            }).pipe(Effect.provide(named(target, unused)), Effect.scoped, Effect.exit)
            const { reason } = failure(exit)
            if (reason._tag !== "ConnectFailed") return assert.fail(reason._tag)
            assert.deepStrictEqual(
              reason.attempts.map(({ address, code, reason }) => [address, reason._tag, code]),
              [[target, "TimedOut", undefined], [unused, "ConnectionRefused", "ECONNREFUSED"]]
            )
            const [hung, refused] = reason.attempts
            assert.isAtLeast(Duration.toMillis(hung?.took ?? Duration.zero), 60)
            assert.isAtLeast(Duration.toMillis(refused?.startedAfter ?? Duration.zero), 10)
            assert.strictEqual(openSockets(), before)
          })))
      }

      it.effect("a time-out, an interruption and a single address that never answers leave nothing", () =>
        leavingNothing(Effect.gen(function*() {
          const { target } = yield* hangingListenerAt("127.0.0.1")
          const before = openSockets()
          const timedOut = yield* Effect.exit(Effect.scoped(Connector.connect(target, { timeout: "20 millis" })))
          assert.strictEqual(ending(timedOut), "TimedOut")
          assert.strictEqual(openSockets(), before)
          const several = Connector.connect("db.internal:1", { attemptDelay: "10 millis" }).pipe(
            Effect.provide(named(target, inet(`127.0.0.2:${target.port}`)))
          )
          for (const connect of [Effect.scoped(Connector.connect(target)), Effect.scoped(several)]) {
            const fiber = yield* start(connect)
            yield* turn
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(openSockets(), before)
          }
        })))

      it.effect("interrupted at any moment, nothing is left", () =>
        leavingNothing(Effect.gen(function*() {
          const { target } = yield* hangingListenerAt("::1")
          const acceptor = yield* Acceptor.listen("127.0.0.1:0")
          yield* start(Acceptor.serve(acceptor, (socket) => socket.readSome(new Uint8Array(1))))
          const before = openSockets()
          const next = random(7)
          const connect = Connector.connect("db.internal:1", { attemptDelay: "10 millis", linger: 0 }).pipe(
            Effect.provide(named(target, acceptor.address)),
            Effect.scoped
          )
          const endings = new Set<string>()
          yield* Effect.forEach(
            Array.from({ length: 150 }),
            () =>
              Effect.gen(function*() {
                const fiber = yield* start(connect)
                yield* turns(Math.floor(next() * 40))
                yield* Effect.sleep(next() * 15)
                yield* Fiber.interrupt(fiber)
                endings.add(ending(yield* Fiber.await(fiber)))
              }),
            { concurrency: 10 }
          )
          yield* Effect.repeat(turn, { until: () => openSockets() <= before })
          assert.include([...endings], "Interrupt")
        })))

      it.effect("a name of this machine, through the system's resolver", () =>
        leavingNothing(Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen("[::]:0")
          const client = yield* Connector.connect(`tcp://localhost:${portOf(acceptor.address)}`)
          yield* talk(client, yield* acceptor.accept)
        })))
    })
  })
}

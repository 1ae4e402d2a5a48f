/** A connection to a free port is refused, and is never one to itself. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as NetAddress from "effect/net/NetAddress"
import { existsSync, readFileSync } from "node:fs"
import * as Connector from "../../src/Connector.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { ending } from "../support/exits.ts"
import { tcp } from "../support/transports.ts"

const range = "/proc/sys/net/ipv4/ip_local_port_range"
const [first = 0, last = 0] = existsSync(range) ? readFileSync(range, "utf8").trim().split(/\s+/).map(Number) : []

// The kernel gives connections every other port of the range, roughly in turn: so many attempts come round some times.
const attempts = 4 * (last - first)

describe.skipIf(attempts <= 0 || attempts > 200_000)("connecting to a free port of the ephemeral range", () => {
  for (const [i, place] of tcp.entries()) {
    const many = <R>(
      offset: number,
      attempt: (address: NetAddress.InetAddress) => Effect.Effect<StreamSocket.StreamSocket, unknown, R>
    ) =>
      Effect.gen(function*() {
        const address = NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${first + offset + 2 * i}`)
        const endings = new Map<string, number>()
        yield* Effect.forEach(
          Array.from({ length: attempts }),
          () =>
            [...endings.keys()].some((how) => how.startsWith("Success")) ? Effect.void : Effect.scoped(
              Effect.map(Effect.exit(attempt(address)), (exit) => {
                const how = Exit.isSuccess(exit)
                  ? `Success: ${String(exit.value.localAddress)} to ${String(exit.value.remoteAddress)}`
                  : ending(exit)
                endings.set(how, (endings.get(how) ?? 0) + 1)
              })
            ),
          { concurrency: 50, discard: true }
        )
        return [...endings.keys()]
      })

    it.live(`is refused every time, over ${place.name}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* many(1000, (address) => StreamSocket.connect(address)), ["ConnectionRefused"])
      }).pipe(Effect.provide(place.layer)), 60_000)

    it.live(`by a connector, too, over ${place.name}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* many(2000, (address) => Connector.connect(address)), ["ConnectionRefused"])
      }).pipe(Effect.provide(place.layer)), 60_000)

    it.live(`who asks for the same local address gets it, over ${place.name}`, () =>
      Effect.gen(function*() {
        const address = NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${first + 3001 + 2 * i}`)
        const socket = yield* StreamSocket.connect(address, { localAddress: address })
        assert.deepStrictEqual(socket.localAddress, socket.remoteAddress)
        yield* socket.abort
      }).pipe(Effect.scoped, Effect.provide(place.layer)))
  }
})

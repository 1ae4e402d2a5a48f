/** Connecting to a Unix-domain listener whose backlog is full waits until there is room, within the time-outs. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Connector from "../../src/Connector.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { ending } from "../support/exits.ts"
import { fullBacklogAt } from "../support/hangingListener.ts"
import { epollUnix, nodeUnix } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

describe.skipIf(process.platform !== "linux")("a Unix-domain listener whose backlog is full", () => {
  for (const place of [nodeUnix, epollUnix]) {
    const at = () => {
      const address = place.address()
      return NetAddress.isUnixPathAddress(address) ? address : assert.fail("no path")
    }

    it.live(`connecting waits until there is room, over ${place.name}`, () =>
      Effect.gen(function*() {
        const address = at()
        const listener = yield* fullBacklogAt(address.path)
        const connecting = yield* start(StreamSocket.connect(address))
        yield* Effect.sleep(100)
        assert.isUndefined(connecting.pollUnsafe())
        listener.resume()
        const socket = yield* Fiber.join(connecting)
        assert.strictEqual(socket.state.socket, "open")
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 30_000)

    it.live(
      `a connector waits within its time-out, which is transient, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const address = at()
          yield* fullBacklogAt(address.path)
          const exit = yield* Effect.exit(Connector.connect(address, { timeout: 100 }))
          assert.strictEqual(ending(exit), "TimedOut")
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      30_000
    )

    it.live(`an interruption ends the wait, over ${place.name}`, () =>
      Effect.gen(function*() {
        const address = at()
        yield* fullBacklogAt(address.path)
        const connecting = yield* start(StreamSocket.connect(address))
        yield* Effect.sleep(20)
        yield* Fiber.interrupt(connecting)
        assert.strictEqual(connecting.pollUnsafe()?._tag, "Failure")
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 30_000)
  }
})

/** What becomes of a running `SocketServer` when its scope closes under it: the same as of Effect's own. */
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type * as SocketServer from "effect/socket/SocketServer"
import * as EffectSocket from "../../src/adapter/EffectSocket.ts"
import { turns } from "../../src/testing/checks/support.ts"
import { all } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

/** How `run` is after its scope has closed, and how it ends when it is interrupted then. */
const story = <E, R>(make: Effect.Effect<SocketServer.SocketServer["Service"], E, R | Scope.Scope>) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const server = yield* Scope.provide(make, scope)
    const running = yield* start(Effect.exit(server.run(() => Effect.never)))
    yield* turns()
    yield* Scope.close(scope, Exit.void)
    yield* turns(10)
    const before = running.pollUnsafe()
    yield* Fiber.interrupt(running)
    const after = yield* Fiber.await(running)
    return [
      before === undefined ? "goes on" : `ended: ${JSON.stringify(before)}`,
      Exit.isFailure(after) && Cause.hasInterruptsOnly(after.cause) ? "interrupted" : "not interrupted"
    ]
  })

const wanted = ["goes on", "interrupted"]

describe("SocketServer.run, when its scope closes under it", () => {
  it.live("Effect's own goes on until it is interrupted", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* story(NodeSocketServer.make({ port: 0, host: "127.0.0.1" })), wanted)
    }))

  for (const place of all) {
    it.live(`ours goes on, too, over ${place.name}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* story(EffectSocket.makeSocketServer(place.address())), wanted)
      }).pipe(Effect.provide(place.layer)))
  }
})

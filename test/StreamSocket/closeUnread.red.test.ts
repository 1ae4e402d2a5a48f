/** `end` and `destroy` of a Duplex behind a large answer, to a peer that goes on sending, over `node:net`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import { kernel, rawClientOf } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

const answer = new Uint8Array(3_000_000)

describe("end and destroy of toDuplex behind a large answer, to a peer that still sends", () => {
  for (const place of kernel.filter(({ name }) => name.startsWith("NodeTransport"))) {
    it.live(`the peer gets all of it every time, over ${place.name}`, () =>
      Effect.gen(function*() {
        for (let round = 0; round < 10; round++) {
          const [peer, socket] = yield* rawClientOf(place, { socket: { linger: "20 seconds" } })
          let received = 0
          peer.on("error", () => {})
          peer.on("data", (chunk: Buffer) => {
            received += chunk.byteLength
            peer.pause()
            if (socket.state.socket !== "open") peer.write("x")
            setTimeout(() => peer.resume(), 1)
          })
          peer.on("end", () => peer.end())
          const over = Effect.callback<void>((resume) => {
            peer.once("close", () => resume(Effect.void))
          })
          yield* start(Effect.scoped(Effect.flatMap(NodeDuplex.toDuplex(socket), (duplex) =>
            Effect.callback<void>((resume) => {
              duplex.once("close", () => resume(Effect.void))
              duplex.end(answer, () => duplex.destroy())
            }))))
          yield* over
          assert.strictEqual(received, answer.byteLength)
        }
      }).pipe(Effect.scoped, Effect.provide(place.layer)))
  }
})

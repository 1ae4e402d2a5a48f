import { it } from "@effect/vitest"
import { Effect } from "effect"
import * as NodeDuplex from "../../../src/adapter/NodeDuplex.ts"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { conformance } from "./bind.ts"

conformance({
  name: "a socket as a Duplex as a socket",
  advance: Effect.sleep,
  can: { reset: true, halfClose: true, readAfterWriteFailure: false },
  pair: (options) =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair(options)
      return [
        yield* NodeDuplex.fromDuplex(yield* NodeDuplex.toDuplex(left, { allowHalfOpen: true }), options),
        right
      ] as const
    })
}, it.live)

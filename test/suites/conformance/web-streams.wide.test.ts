import { it } from "@effect/vitest"
import { Effect } from "effect"
import * as WebStreams from "../../../src/adapter/WebStreams.ts"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { conformance } from "./bind.ts"

conformance({
  name: "a socket as Web streams as a socket",
  advance: Effect.sleep,
  can: { reset: true, halfClose: true, readAfterWriteFailure: true },
  pair: (options) =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair(options)
      const { readable, writable } = yield* WebStreams.toWebStreams(left)
      return [yield* WebStreams.fromWebStreams({ readable, writable }, options), right] as const
    })
}, it.live)

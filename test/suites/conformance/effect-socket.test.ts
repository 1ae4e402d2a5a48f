import { it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as EffectSocket from "../../../src/adapter/EffectSocket.ts"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { conformance } from "./bind.ts"

conformance({
  name: "a stream as a Socket as a stream, in memory",
  pair: (options) =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair(options)
      return [
        yield* EffectSocket.fromSocket(EffectSocket.toSocket(left), options),
        yield* EffectSocket.fromSocket(EffectSocket.toSocket(right), options)
      ]
    }),
  advance: TestClock.adjust,
  can: { reset: true, halfClose: true, readAfterWriteFailure: true }
}, it.effect)

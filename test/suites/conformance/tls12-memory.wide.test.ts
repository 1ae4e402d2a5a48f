import { it } from "@effect/vitest"
import { TestClock } from "effect/testing"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { conformance } from "./bind.ts"
import { overTls } from "./tls.ts"

conformance(
  overTls({
    name: "an in-memory pair of 1,021 bytes with seeded chunks",
    pair: (options) => MemoryTransport.pair({ ...options, capacity: 1021, chunk: 257, seed: 7 }),
    advance: TestClock.adjust,
    can: { reset: true, halfClose: true, readAfterWriteFailure: true }
  }, { version: "TLSv1.2" }),
  it.effect
)

import { it } from "@effect/vitest"
import { TestClock } from "effect/testing"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { conformance } from "./bind.ts"
import { overTls } from "./tls.ts"

conformance(
  overTls({
    name: "an in-memory pair",
    pair: MemoryTransport.pair,
    advance: TestClock.adjust,
    can: { reset: true, halfClose: true, readAfterWriteFailure: true }
  }),
  it.effect
)

import { it } from "@effect/vitest"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { conformance, overTransport } from "./bind.ts"

const can = { reset: true, halfClose: true, readAfterWriteFailure: true }

conformance({ name: "in-memory pair", pair: MemoryTransport.pair, advance: TestClock.adjust, can }, it.effect)

conformance({
  name: "in-memory pair of 1,021 bytes with seeded chunks",
  pair: (options) => MemoryTransport.pair({ ...options, capacity: 1021, chunk: 257, seed: 7 }),
  advance: TestClock.adjust,
  can
}, it.effect)

conformance(
  overTransport({
    name: "in-memory network",
    layer: MemoryTransport.layer,
    address: () => NetAddress.inetAddressFromStringUnsafe("10.0.0.1:0"),
    advance: TestClock.adjust,
    can
  }),
  it.effect
)

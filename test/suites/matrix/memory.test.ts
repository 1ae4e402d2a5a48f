import { NetAddress } from "effect/net"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { pattern } from "../../support/bytes.ts"
import { turns } from "../../support/waiting.ts"
import { matrix } from "./play.ts"

matrix({
  name: "in memory",
  kind: "memory",
  layer: MemoryTransport.layerWith({ capacity: 1000 }),
  address: () => NetAddress.inetAddressFromStringUnsafe("10.0.0.1:0"),
  settle: () => turns(3),
  plenty: pattern(12_000),
  resets: true,
  atOnce: 1
})

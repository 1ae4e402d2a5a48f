import { Layer } from "effect"
import { NetAddress } from "effect/net"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { pattern } from "../../support/bytes.ts"
import { overTls } from "../../support/tlsTransport.ts"
import { steady } from "../../support/waiting.ts"
import { matrix } from "./play.ts"

matrix({
  name: "TLS in memory",
  // Records that the connection below has not taken have to be flushed.
  kind: "node",
  layer: Layer.provide(overTls({ sliceSize: 1000 }), MemoryTransport.layerWith({ capacity: 1000 })),
  address: () => NetAddress.inetAddressFromStringUnsafe("10.0.0.1:0"),
  settle: (writer) => steady(() => writer.bytesWritten),
  plenty: pattern(2 * 1024 * 1024),
  resets: true,
  atOnce: 6
})

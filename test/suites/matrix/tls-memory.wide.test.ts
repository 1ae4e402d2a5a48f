import { Layer } from "effect"
import { NetAddress } from "effect/net"
import { pattern, settled } from "../../../src/testing/checks/support.ts"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { overTls } from "../../support/tlsTransport.ts"
import { matrix } from "./play.ts"

matrix({
  name: "TLS in memory",
  // Records that the connection below has not taken have to be flushed.
  kind: "node",
  layer: Layer.provide(overTls({ sliceSize: 1000 }), MemoryTransport.layerWith({ capacity: 1000 })),
  address: () => NetAddress.inetAddressFromStringUnsafe("10.0.0.1:0"),
  settle: (writer) => settled(() => writer.bytesWritten),
  plenty: pattern(2 * 1024 * 1024),
  resets: true,
  atOnce: 6
})

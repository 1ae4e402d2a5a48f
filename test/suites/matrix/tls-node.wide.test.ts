import { Layer } from "effect"
import { NetAddress } from "effect/net"
import { layer } from "../../../src/transport/NodeTransport.ts"
import { pattern } from "../../support/bytes.ts"
import { tellsReset } from "../../support/tls.ts"
import { overTls } from "../../support/tlsTransport.ts"
import { steady } from "../../support/waiting.ts"
import { matrix } from "./play.ts"

matrix({
  name: "TLS over NodeTransport",
  kind: "node",
  layer: Layer.provide(overTls(), layer),
  address: () => NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
  settle: (writer) => steady(() => writer.bytesWritten),
  plenty: pattern(16 * 1024 * 1024),
  resets: tellsReset,
  atOnce: 6
})

import { Layer } from "effect"
import { NetAddress } from "effect/net"
import { describe } from "vitest"
import { isSupported, layer } from "../../../src/transport/EpollTransport.ts"
import { pattern } from "../../support/bytes.ts"
import { overTls } from "../../support/tlsTransport.ts"
import { steady } from "../../support/waiting.ts"
import { matrix } from "./play.ts"

describe.skipIf(!isSupported())("EpollTransport", () => {
  matrix({
    name: "TLS over EpollTransport",
    kind: "node",
    layer: Layer.provide(overTls(), Layer.orDie(layer)),
    address: () => NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
    settle: (writer) => steady(() => writer.bytesWritten),
    plenty: pattern(16 * 1024 * 1024),
    resets: true,
    atOnce: 6
  })
})

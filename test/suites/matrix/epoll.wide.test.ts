import { Layer } from "effect"
import { NetAddress } from "effect/net"
import { describe } from "vitest"
import { isSupported, layer } from "../../../src/transport/EpollTransport.ts"
import { unixPaths } from "../../support/addresses.ts"
import { pattern } from "../../support/bytes.ts"
import { steady } from "../../support/waiting.ts"
import { matrix } from "./play.ts"
import type { Place } from "./stage.ts"

// As in memory, nothing is left to flush: `shutdownWrite` and `close` do not wait, and a path connects at once.
const kernel: Pick<Place, "kind" | "layer" | "settle" | "atOnce"> = {
  kind: "memory",
  layer: Layer.orDie(layer),
  settle: (writer) => steady(() => writer.bytesWritten),
  atOnce: 6
}

describe.skipIf(!isSupported())("EpollTransport", () => {
  matrix({
    ...kernel,
    name: "EpollTransport over TCP",
    address: () => NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
    plenty: pattern(16 * 1024 * 1024),
    resets: true
  })

  matrix({
    ...kernel,
    name: "EpollTransport over a Unix-domain path",
    address: unixPaths(),
    plenty: pattern(2 * 1024 * 1024),
    resets: false
  })
})

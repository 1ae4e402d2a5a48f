import { NetAddress } from "effect/net"
import { layer } from "../../../src/transport/NodeTransport.ts"
import { pattern } from "../../support/bytes.ts"
import { steady } from "../../support/waiting.ts"
import { matrix } from "./play.ts"

matrix({
  kind: "node",
  layer,
  settle: (writer) => steady(() => writer.bytesWritten),
  atOnce: 6,
  name: "NodeTransport over TCP",
  address: () => NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
  plenty: pattern(16 * 1024 * 1024),
  resets: true
})

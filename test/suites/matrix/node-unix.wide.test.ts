import { layer } from "../../../src/transport/NodeTransport.ts"
import { unixPaths } from "../../support/addresses.ts"
import { pattern } from "../../support/bytes.ts"
import { steady } from "../../support/waiting.ts"
import { matrix } from "./play.ts"

matrix({
  kind: "node",
  layer,
  settle: (writer) => steady(() => writer.bytesWritten),
  atOnce: 6,
  name: "NodeTransport over a Unix-domain path",
  address: unixPaths(),
  plenty: pattern(2 * 1024 * 1024),
  resets: false
})

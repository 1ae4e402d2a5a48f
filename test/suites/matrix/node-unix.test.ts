import { NetAddress } from "effect/net"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { layer } from "../../../src/transport/NodeTransport.ts"
import { pattern } from "../../support/bytes.ts"
import { steady } from "../../support/waiting.ts"
import { matrix } from "./play.ts"

const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
afterAll(() => rmSync(directory, { recursive: true }))
let paths = 0

matrix({
  kind: "node",
  layer,
  settle: (writer) => steady(() => writer.bytesWritten),
  atOnce: 6,
  name: "NodeTransport over a Unix-domain path",
  address: () => NetAddress.unixPathAddress(join(directory, `${paths++}.sock`)),
  plenty: pattern(2 * 1024 * 1024),
  resets: false
})

import { Effect } from "effect"
import { NetAddress } from "effect/net"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import type { StreamChecks } from "../../../src/testing/index.ts"
import { layer } from "../../../src/transport/NodeTransport.ts"
import { overTransport } from "./bind.ts"

export const tcp = (name: string, host: string): StreamChecks.Subject =>
  overTransport({
    name,
    layer,
    address: () => NetAddress.inetAddressFromStringUnsafe(`${host}:0`),
    advance: Effect.sleep,
    can: { reset: true, halfClose: true, readAfterWriteFailure: false }
  })

/** A path of its own for every connection, in a directory that goes away with the test file. */
export const unix = (): StreamChecks.Subject => {
  const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
  afterAll(() => rmSync(directory, { recursive: true }))
  let paths = 0
  return overTransport({
    name: "NodeTransport over a Unix-domain path",
    layer,
    address: () => NetAddress.unixPathAddress(join(directory, `${paths++}.sock`)),
    advance: Effect.sleep,
    can: { reset: false, halfClose: true, readAfterWriteFailure: false }
  })
}

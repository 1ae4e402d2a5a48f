import { Effect, Layer } from "effect"
import { NetAddress } from "effect/net"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import type { StreamChecks } from "../../../src/testing/index.ts"
import * as EpollTransport from "../../../src/transport/EpollTransport.ts"
import { overTransport } from "./bind.ts"

export const epollTcp = (name: string, host: string): StreamChecks.Subject =>
  overTransport({
    name,
    layer: Layer.orDie(EpollTransport.layer),
    address: () => NetAddress.inetAddressFromStringUnsafe(`${host}:0`),
    advance: Effect.sleep,
    can: { reset: true, halfClose: true, readAfterWriteFailure: true }
  })

export const epollUnix = (): StreamChecks.Subject => {
  const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
  afterAll(() => rmSync(directory, { recursive: true }))
  let count = 0
  return overTransport({
    name: "EpollTransport over a Unix-domain path",
    layer: Layer.orDie(EpollTransport.layer),
    address: () => NetAddress.unixPathAddress(join(directory, `${count++}`)),
    advance: Effect.sleep,
    can: { reset: false, halfClose: true, readAfterWriteFailure: true }
  })
}

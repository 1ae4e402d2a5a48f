import { Effect } from "effect"
import { NetAddress } from "effect/net"
import type { StreamChecks } from "../../../src/testing/index.ts"
import { layer } from "../../../src/transport/NodeTransport.ts"
import { unixPaths } from "../../support/addresses.ts"
import { overTransport } from "./bind.ts"

export const tcp = (name: string, host: string): StreamChecks.Subject =>
  overTransport({
    name,
    layer,
    address: () => NetAddress.inetAddressFromStringUnsafe(`${host}:0`),
    advance: Effect.sleep,
    can: { reset: true, halfClose: true, readAfterWriteFailure: false }
  })

export const unix = (): StreamChecks.Subject =>
  overTransport({
    name: "NodeTransport over a Unix-domain path",
    layer,
    address: unixPaths(),
    advance: Effect.sleep,
    can: { reset: false, halfClose: true, readAfterWriteFailure: false }
  })

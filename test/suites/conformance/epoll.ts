import { Effect, Layer } from "effect"
import { NetAddress } from "effect/net"
import type { StreamChecks } from "../../../src/testing/index.ts"
import * as EpollTransport from "../../../src/transport/EpollTransport.ts"
import { unixPaths } from "../../support/addresses.ts"
import { overTransport } from "./bind.ts"

export const epollTcp = (name: string, host: string): StreamChecks.Subject =>
  overTransport({
    name,
    layer: Layer.orDie(EpollTransport.layer),
    address: () => NetAddress.inetAddressFromStringUnsafe(`${host}:0`),
    advance: Effect.sleep,
    can: { reset: true, halfClose: true, readAfterWriteFailure: true }
  })

export const epollUnix = (): StreamChecks.Subject =>
  overTransport({
    name: "EpollTransport over a Unix-domain path",
    layer: Layer.orDie(EpollTransport.layer),
    address: unixPaths(),
    advance: Effect.sleep,
    can: { reset: false, halfClose: true, readAfterWriteFailure: true }
  })

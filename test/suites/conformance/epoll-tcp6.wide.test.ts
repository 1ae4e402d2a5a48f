import { describe, it } from "@effect/vitest"
import { networkInterfaces } from "node:os"
import { isSupported } from "../../../src/transport/EpollTransport.ts"
import { conformance } from "./bind.ts"
import { epollTcp } from "./epoll.ts"

const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
const hasIpv6 = addresses.some(({ address }) => address === "::1")

describe.skipIf(!hasIpv6 || !isSupported())(
  "epoll",
  () => conformance(epollTcp("EpollTransport over TCP and IPv6", "[::1]"), it.live)
)

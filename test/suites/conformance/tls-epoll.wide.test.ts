import { describe, it } from "@effect/vitest"
import { isSupported } from "../../../src/transport/EpollTransport.ts"
import { conformance } from "./bind.ts"
import { epollTcp, epollUnix } from "./epoll.ts"
import { overTls } from "./tls.ts"

describe.skipIf(!isSupported())("epoll", () => {
  conformance(overTls(epollTcp("EpollTransport over TCP", "127.0.0.1")), it.live)
  conformance(overTls(epollUnix()), it.live)
})

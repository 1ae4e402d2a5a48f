import { describe, it } from "@effect/vitest"
import { isSupported } from "../../../src/transport/EpollTransport.ts"
import { conformance } from "./bind.ts"
import { epollTcp } from "./epoll.ts"

describe.skipIf(!isSupported())("epoll", () => conformance(epollTcp("EpollTransport over TCP", "127.0.0.1"), it.live))

import { it } from "@effect/vitest"
import { conformance } from "./bind.ts"
import { epollTcp } from "./epoll.ts"

conformance(epollTcp("EpollTransport over TCP", "127.0.0.1"), it.live)

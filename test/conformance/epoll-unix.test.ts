import { it } from "@effect/vitest"
import { conformance } from "./bind.ts"
import { epollUnix } from "./epoll.ts"

conformance(epollUnix(), it.live)

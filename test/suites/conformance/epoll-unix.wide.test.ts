import { describe, it } from "@effect/vitest"
import { isSupported } from "../../../src/transport/EpollTransport.ts"
import { conformance } from "./bind.ts"
import { epollUnix } from "./epoll.ts"

describe.skipIf(!isSupported())("epoll", () => conformance(epollUnix(), it.live))

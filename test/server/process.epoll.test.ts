import { describe } from "@effect/vitest"
import { isSupported } from "../../src/transport/EpollTransport.ts"
import { suite } from "./process.ts"

describe.skipIf(!isSupported())("epoll", () => suite("epoll"))

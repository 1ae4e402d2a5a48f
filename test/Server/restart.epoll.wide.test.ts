import { describe } from "@effect/vitest"
import { isSupported } from "../../src/transport/EpollTransport.ts"
import { suite } from "./restart.ts"

describe.skipIf(!isSupported())("epoll", () => suite("epoll"))

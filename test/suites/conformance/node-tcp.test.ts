import { it } from "@effect/vitest"
import { conformance } from "./bind.ts"
import { tcp } from "./node.ts"

conformance(tcp("NodeTransport over TCP", "127.0.0.1"), it.live)

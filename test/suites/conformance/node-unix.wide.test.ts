import { it } from "@effect/vitest"
import { conformance } from "./bind.ts"
import { unix } from "./node.ts"

conformance(unix(), it.live)

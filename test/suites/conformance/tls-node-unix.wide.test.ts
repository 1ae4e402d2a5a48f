import { it } from "@effect/vitest"
import { conformance } from "./bind.ts"
import { unix } from "./node.ts"
import { overTls } from "./tls.ts"

conformance(overTls(unix()), it.live)

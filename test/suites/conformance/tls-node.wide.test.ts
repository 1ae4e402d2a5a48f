import { it } from "@effect/vitest"
import { tellsReset } from "../../support/tls.ts"
import { conformance } from "./bind.ts"
import { tcp } from "./node.ts"
import { overTls } from "./tls.ts"

conformance(overTls(tcp("NodeTransport over TCP", "127.0.0.1"), { can: { reset: tellsReset } }), it.live)

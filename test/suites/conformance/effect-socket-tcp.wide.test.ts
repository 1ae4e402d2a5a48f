import { NodeSocket } from "@effect/platform-node"
import { it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { NetAddress } from "effect/net"
import * as EffectSocket from "../../../src/adapter/EffectSocket.ts"
import { Acceptor } from "../../../src/index.ts"
import * as NodeTransport from "../../../src/transport/NodeTransport.ts"
import { portOf } from "../../support/addresses.ts"
import { start } from "../../support/waiting.ts"
import { conformance } from "./bind.ts"

conformance(
  {
    name: "an Effect NodeSocket as a stream",
    pair: (options) =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"), options)
        const accepting = yield* start(acceptor.accept)
        const node = yield* NodeSocket.makeNet({ port: portOf(acceptor.address), allowHalfOpen: true })
        const left = yield* EffectSocket.fromSocket(node, options)
        const right = yield* Fiber.join(accepting)
        yield* acceptor.close
        return [left, right] as const
      }).pipe(Effect.provide(NodeTransport.layer)),
    advance: Effect.sleep,
    // A `net.Socket` that is destroyed with nothing unread ends like any other.
    can: { reset: false, halfClose: true, readAfterWriteFailure: false }
  },
  it.live,
  // A NodeSocket that is closed does not wait for the peer; the docs of fromSocket say what that costs.
  { without: ["close flushes although there is unread input"] }
)

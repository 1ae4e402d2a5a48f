import { it } from "@effect/vitest"
import { Effect } from "effect"
import { once } from "node:events"
import * as Net from "node:net"
import * as NodeDuplex from "../../../src/adapter/NodeDuplex.ts"
import { conformance } from "./bind.ts"

conformance({
  name: "net.Socket as a socket",
  advance: Effect.sleep,
  // Before Node 24, a reset behind unread bytes looks like the end of the stream.
  can: {
    reset: Number.parseInt(process.versions.node, 10) >= 24,
    halfClose: true,
    readAfterWriteFailure: false
  },
  pair: (options) =>
    Effect.gen(function*() {
      const [near, far] = yield* Effect.promise(async () => {
        const server = Net.createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, "127.0.0.1")
        await once(server, "listening")
        const { port } = server.address() as Net.AddressInfo
        const near = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
        const [far]: Array<Net.Socket> = await once(server, "connection")
        if (near.connecting) await once(near, "connect")
        server.close()
        return [near, far!]
      })
      return [yield* NodeDuplex.fromDuplex(near!, options), yield* NodeDuplex.fromDuplex(far!, options)] as const
    })
}, it.live)

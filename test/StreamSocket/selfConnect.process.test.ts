/** A connection whose two ends have one address is refused; `selfConnect.wide.test.ts` finds real ones. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import { syncBuiltinESMExports } from "node:module"
import type * as Net from "node:net"
import net from "node:net"
import { resolveOptions } from "../../src/Transport.ts"
import { isSupported } from "../../src/transport/EpollTransport.ts"
import { connect } from "../../src/transport/internal/epoll/connect.ts"
import * as Linux from "../../src/transport/internal/epoll/linux.ts"
import { Reactor } from "../../src/transport/internal/epoll/Reactor.ts"
import { connect as connectOverNode } from "../../src/transport/internal/node/connect.ts"
import { inet } from "../support/addresses.ts"
import { nodeTcp, rawServer } from "../support/transports.ts"
import { eventually } from "../support/waiting.ts"

/** The addresses that a caller may ask for, and whether it asked for a port. */
const asked: ReadonlyArray<readonly [string, NetAddress.SocketAddress | undefined]> = [
  ["no local address", undefined],
  ["a local address without a port", inet("127.0.0.1:0")]
]

/** A server whose connections are counted. */
const counting = Effect.gen(function*() {
  const open = new Set<Net.Socket>()
  const address = yield* rawServer(nodeTcp, (socket) => {
    open.add(socket)
    socket.on("close", () => open.delete(socket))
    socket.resume()
  })
  return { address, open }
})

describe("a connection to itself", () => {
  for (const [what, localAddress] of asked) {
    it.live(`is refused, and released, over NodeTransport: ${what}`, () =>
      Effect.gen(function*() {
        const { address, open } = yield* counting
        // The real connection pretends to have the port of its peer.
        const { connect } = net
        const setConnect = (to: unknown) =>
          Effect.sync(() => {
            Object.assign(net, { connect: to })
            syncBuiltinESMExports()
          })
        yield* Effect.acquireRelease(
          setConnect((options: Net.NetConnectOpts) => {
            const socket = connect(options)
            Object.defineProperty(socket, "localPort", { get: () => socket.remotePort })
            return socket
          }),
          () => setConnect(connect)
        )
        const error = yield* Effect.flip(connectOverNode(address, resolveOptions({ localAddress })))
        assert.deepStrictEqual([error.reason._tag, error.code], ["ConnectionRefused", "ECONNREFUSED"])
        assert.deepStrictEqual([error.operation, error.address], ["connect", address])
        yield* eventually("the release", () => open.size === 0)
      }).pipe(Effect.scoped))

    it.live.skipIf(!isSupported())(
      `is refused, and released, over EpollTransport: ${what}`,
      () =>
        Effect.gen(function*() {
          const { address, open } = yield* counting
          const reactor = new Reactor({ ...Linux.load(), localAddress: () => address })
          assert.strictEqual(reactor.use(), 0)
          yield* Effect.addFinalizer(() => Effect.sync(() => reactor.release()))
          const error = yield* Effect.flip(connect(reactor, address, resolveOptions({ localAddress })))
          assert.deepStrictEqual([error.reason._tag, error.code], ["ConnectionRefused", "ECONNREFUSED"])
          assert.deepStrictEqual([error.operation, error.address], ["connect", address])
          yield* eventually("the release", () => open.size === 0)
        }).pipe(Effect.scoped)
    )
  }
})

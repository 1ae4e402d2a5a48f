/** Connections of the transport at hand. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import * as Acceptor from "../../src/Acceptor.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import type { SocketOptions, Transport } from "../../src/Transport.ts"
import { anyPort } from "./addresses.ts"
import { start } from "./waiting.ts"

export interface Connected {
  readonly acceptor: Acceptor.Acceptor
  readonly client: StreamSocket.StreamSocket
  readonly server: StreamSocket.StreamSocket
}

/** Both ends of a connection, and the acceptor that it came through. */
export const connected = (
  address: NetAddress.SocketAddress = anyPort,
  options?: SocketOptions
): Effect.Effect<Connected, SocketError, Transport | Scope.Scope> =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(address, options)
    const accepting = yield* start(acceptor.accept)
    const client = yield* StreamSocket.connect(acceptor.address, options)
    return { acceptor, client, server: yield* Fiber.join(accepting) }
  })

/** Both ends of a connection. */
export const connection = (address?: NetAddress.SocketAddress, options?: SocketOptions) =>
  Effect.flatMap(
    connected(address, options),
    ({ acceptor, client, server }) => Effect.as(acceptor.close, [client, server] as const)
  )

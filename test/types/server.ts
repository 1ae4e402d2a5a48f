/** Servers: what they ask for, how they fail, and what their handlers know. Nothing here runs. */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import * as Server from "../../src/Server.ts"
import type { SocketError } from "../../src/SocketError.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import type { Transport } from "../../src/Transport.ts"
import { expectType } from "./expect.ts"

class Database extends Context.Service<Database, { readonly query: Effect.Effect<string, "no database"> }>()(
  "Database"
) {}
class Audit extends Context.Service<Audit, { readonly note: (what: string) => Effect.Effect<void> }>()("Audit") {}

declare const plain: (socket: StreamSocket) => Effect.Effect<void, "my own error">
declare const rich: (
  socket: StreamSocket,
  connection: Server.Connection
) => Effect.Effect<number, "my own error", Database | Scope.Scope | Server.Connection>

export const environment = (
  address: NetAddress.SocketAddress,
  inet: NetAddress.InetAddress,
  either: NetAddress.SocketAddress | string
) => {
  // An address needs no resolver, a name does, and so does one among several.
  expectType<Effect.Effect<Server.DrainReport, SocketError, Transport>>()(Server.serve(plain, { listen: address }))
  expectType<Effect.Effect<Server.DrainReport, SocketError, Transport>>()(
    Server.serve(plain, { listen: [inet, address] })
  )
  expectType<Effect.Effect<Server.DrainReport, SocketError, Transport | AddressResolver.AddressResolver>>()(
    Server.serve(plain, { listen: "localhost:7000" })
  )
  expectType<Effect.Effect<Server.DrainReport, SocketError, Transport | AddressResolver.AddressResolver>>()(
    Server.serve(plain, { listen: [address, { host: "::1", port: 7000 }, "localhost:7000"] })
  )
  expectType<Effect.Effect<Server.DrainReport, SocketError, Transport | AddressResolver.AddressResolver>>()(
    Server.serve(plain, { listen: either })
  )
  // The scope and the connection of a handler come from the server, the rest from outside.
  expectType<Effect.Effect<Server.DrainReport, SocketError, Transport | Database>>()(
    Server.serve(rich, { listen: address })
  )
  expectType<Effect.Effect<Server.Server, SocketError, Transport | Database | Scope.Scope>>()(
    Server.make(rich, { listen: address })
  )
  expectType<Layer.Layer<Server.Server, SocketError, Transport | Database>>()(Server.layer(rich, { listen: address }))
  expectType<
    Layer.Layer<
      Server.Server,
      SocketError | Config.ConfigError,
      Transport | Database | AddressResolver.AddressResolver
    >
  >()(
    Server.layerConfig(rich, Config.nested(Server.config, "chat"))
  )
  expectType<Layer.Layer<Server.Server, SocketError | Config.ConfigError, Transport | Database>>()(
    Server.layerConfig(rich, Config.succeed({ listen: address }))
  )
}

export const configured = (server: Server.Server) => {
  expectType<Config.Config<Server.Options>>()(Server.config)
  expectType<Effect.Effect<Readonly<Record<"Untrusted" | "Malformed" | "Tls" | "Gone", number>>>>()(
    Effect.map(server.health, ({ handshakeFailures }) => handshakeFailures)
  )
}

export const reports = (listen: NetAddress.SocketAddress) => {
  // What a report asks for is asked for, and it sees the handler's own failures.
  const served = Server.serve(rich, {
    listen,
    onError: (cause, connection) => {
      expectType<Cause.Cause<"my own error">>()(cause)
      expectType<Server.Connection>()(connection)
      return Effect.flatMap(Audit, ({ note }) => note(Cause.pretty(cause)))
    },
    onHandshakeFailure: (cause, connection) => {
      expectType<Cause.Cause<SocketError | Cause.Done>>()(cause)
      expectType<Server.Connection>()(connection)
      return Effect.flatMap(Audit, ({ note }) => note(Cause.pretty(cause)))
    },
    onLimit: (limit, connection) => {
      expectType<Server.Limit>()(limit)
      return Effect.logWarning(Server.describeLimit(limit), connection.id)
    }
  })
  expectType<Effect.Effect<Server.DrainReport, SocketError, Transport | Database | Audit>>()(served)
  // @ts-expect-error a report may not fail
  Server.serve(plain, { listen, onError: () => Effect.fail("x") })
  // @ts-expect-error nor may the other one
  Server.serve(plain, { listen, onHandshakeFailure: () => Effect.fail("x") })
  // @ts-expect-error a handler answers with an effect
  Server.serve(async () => {}, { listen })
  // @ts-expect-error a server listens somewhere
  Server.serve(plain, {})
  // @ts-expect-error on one address at least
  Server.serve(plain, { listen: [] })
  // @ts-expect-error a port alone is no endpoint
  Server.serve(plain, { listen: 7000 })
}

export const limits = (listen: NetAddress.SocketAddress) => {
  const all: Server.Limits = {
    connections: { max: 10, action: { send: "busy", within: "1 second" } },
    perPeer: { max: 2, ipv6Prefix: 56, action: "reset" },
    acceptRate: { limit: 10, window: "1 second", action: "wait" },
    bytesInFlight: 1_000_000,
    handshake: "3 seconds",
    firstByte: { within: 1000, action: "close" },
    idle: { within: { minutes: 5 }, action: { send: new Uint8Array(3) } },
    progress: { bytes: 1000, per: "10 seconds" }
  }
  Server.serve(plain, {
    listen,
    limits: all,
    proxyProtocol: { trusted: ProxyProtocol.trustPeers(["10.0.0.0/8"]) },
    shutdown: { deadline: "5 seconds", phases: { partial: 0 } },
    backlog: 100,
    keepAlive: "30 seconds"
  })
  // One peer's connections cannot wait: everybody else's would.
  // @ts-expect-error no such answer
  Server.serve(plain, { listen, limits: { perPeer: { max: 1, action: "wait" } } })
  // @ts-expect-error who is there already cannot wait
  Server.serve(plain, { listen, limits: { idle: { within: 1, action: "wait" } } })
  // @ts-expect-error bytes would not reach who does not read
  Server.serve(plain, { listen, limits: { progress: { bytes: 1, per: 1, answer: "close" } } })
  // @ts-expect-error whom to trust has to be said
  Server.serve(plain, { listen, proxyProtocol: {} })
}

export const server = (server: Server.Server, connection: Server.Connection, limit: Server.Limit) => {
  expectType<readonly [NetAddress.SocketAddress, ...Array<NetAddress.SocketAddress>]>()(server.addresses)
  expectType<Effect.Effect<"listening" | "paused" | "draining" | "stopped">>()(server.state)
  expectType<Effect.Effect<ReadonlyArray<Server.Connection>>>()(server.connections)
  expectType<Effect.Effect<Server.DrainReport>>()(server.drain("2 seconds", { total: 1 }))
  expectType<Effect.Effect<Server.DrainReport>>()(server.drain())
  expectType<Effect.Effect<Server.DrainReport>>()(server.stopped)
  expectType<Effect.Effect<Server.Health>>()(server.health)
  expectType<Effect.Effect<void>>()(connection.draining)
  expectType<DateTime.Utc>()(connection.startedAt)
  expectType<Effect.Effect<Server.Server, never, Server.Server>>()(Effect.map(Server.Server, (server) => server))
  expectType<Effect.Effect<boolean, never, Server.Connection>>()(
    Effect.map(Server.Connection, ({ isDraining }) => isDraining)
  )
  expectType<Runtime.Teardown>()(Server.teardown)
  expectType<number>()(
    Server.Limit.$match(limit, {
      Connections: ({ max }) => max,
      PerPeer: ({ max }) => max,
      AcceptRate: ({ limit }) => limit,
      BytesInFlight: ({ bytes }) => bytes,
      Handshake: () => 0,
      FirstByte: () => 0,
      Idle: () => 0,
      Progress: ({ taken }) => taken
    })
  )
  // @ts-expect-error the state is not the program's to change
  server.state = Effect.succeed("listening")
}

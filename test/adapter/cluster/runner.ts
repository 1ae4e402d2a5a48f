/**
 * One runner of a cluster, as a process: `node runner.ts <database file>`. It serves other runners under a `Server`, and
 * asks them, over this library's sockets. Commands come on its input, events go to its output.
 */
import * as Entity from "effect/cluster/Entity"
import * as MessageStorage from "effect/cluster/MessageStorage"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as RunnerHealth from "effect/cluster/RunnerHealth"
import * as Runners from "effect/cluster/Runners"
import * as ShardId from "effect/cluster/ShardId"
import * as Sharding from "effect/cluster/Sharding"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as SocketRunner from "effect/cluster/SocketRunner"
import * as SqlRunnerStorage from "effect/cluster/SqlRunnerStorage"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import type * as AddressResolver from "effect/net/AddressResolver"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as RpcClient from "effect/rpc/RpcClient"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Stream from "effect/Stream"
import { createInterface } from "node:readline"
import * as EffectSocket from "../../../src/adapter/EffectSocket.ts"
import * as Metrics from "../../../src/Metrics.ts"
import * as Server from "../../../src/Server.ts"
import type { Transport } from "../../../src/Transport.ts"
import * as NodeTransport from "../../../src/transport/NodeTransport.ts"
import { type Answer, type Command, type Event, Greeter, shards } from "./protocol.ts"
import * as Sqlite from "./sqlite.ts"

const tell = (event: Event): void => console.log(JSON.stringify(event))

/** How runners reach each other. */
const layerClientProtocol: Layer.Layer<
  Runners.RpcClientProtocol,
  never,
  RpcSerialization.RpcSerialization | Transport | AddressResolver.AddressResolver
> = Layer.effect(Runners.RpcClientProtocol)(Effect.gen(function*() {
  const serialization = yield* RpcSerialization.RpcSerialization
  const transport = yield* Effect.context<Transport | AddressResolver.AddressResolver>()
  return {
    codecFor: serialization.codecFor,
    make: ({ host, port }) =>
      EffectSocket.makeSocket(`${host}:${port}`).pipe(
        Effect.provideContext(transport),
        Effect.flatMap((socket) => Effect.provideService(RpcClient.makeProtocolSocket(), Socket.Socket, socket)),
        Effect.provideService(RpcSerialization.RpcSerialization, serialization)
      )
  }
}))

/**
 * A server whose connections are Effect's sockets. They wait, unread, for whoever runs the `SocketServer`. It keeps its
 * connections for as long as they last, so a drain ends their handlers at once.
 */
const makeServer = Effect.gen(function*() {
  const handler = yield* Deferred.make<(socket: Socket.Socket) => Effect.Effect<unknown, unknown>>()
  const server = yield* Server.make(
    (stream, connection) =>
      Effect.raceFirst(
        Effect.flatMap(Deferred.await(handler), (handle) => Effect.ignore(handle(EffectSocket.toSocket(stream)))),
        connection.draining
      ),
    {
      listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
      limits: { connections: 100, firstByte: "10 seconds" },
      shutdown: { deadline: "2 seconds" }
    }
  )
  const sockets = SocketServer.SocketServer.of({
    address: server.addresses[0],
    run: <R, E, A>(handle: (socket: Socket.Socket) => Effect.Effect<A, E, R>) =>
      Effect.contextWith((context: Context.Context<R>) =>
        Effect.ensuring(
          Effect.andThen(
            Deferred.succeed(handler, (socket) => Effect.provideContext(handle(socket), context)),
            Effect.never
          ),
          server.drain()
        )
      )
  })
  return { server, sockets }
})

const layerRunner = (sockets: SocketServer.SocketServer["Service"], port: number, database: string) => {
  const health = RunnerHealth.layerPing.pipe(Layer.provide(Runners.layerRpc), Layer.provide(layerClientProtocol))
  return SocketRunner.layer.pipe(
    Layer.provide(Layer.succeed(SocketServer.SocketServer, sockets)),
    Layer.provide(layerClientProtocol),
    Layer.provide(health),
    Layer.provide(MessageStorage.layerNoop),
    Layer.provide(Layer.orDie(SqlRunnerStorage.layer)),
    Layer.provide(Sqlite.layer(database)),
    Layer.provide(ShardingConfig.layer({
      runnerAddress: Option.some(RunnerAddress.make("127.0.0.1", port)),
      shardsPerGroup: shards,
      refreshAssignmentsInterval: "50 millis",
      sendRetryInterval: "20 millis",
      entityTerminationTimeout: "1 second"
    })),
    Layer.provide(RpcSerialization.layerSchemaBinary())
  )
}

const handlers = Greeter.toLayer(Effect.gen(function*() {
  const { entityId } = yield* Entity.CurrentAddress
  return Greeter.of({
    Greet: ({ payload }) => Effect.succeed({ greeting: `${entityId} greets ${payload.name}`, pid: process.pid }),
    Count: ({ payload }) => Stream.range(1, payload.to)
  })
}))

/** Tells which shards this runner holds, now and after every change. */
const watch = Effect.gen(function*() {
  const sharding = yield* Sharding.Sharding
  let last = ""
  while (true) {
    const held = Array.from({ length: shards }, (_, i) => i + 1).filter((id) =>
      sharding.hasShardId(ShardId.make("default", id))
    )
    if (held.join() !== last) tell({ _tag: "Holds", shards: held })
    last = held.join()
    yield* Effect.sleep("10 millis")
  }
})

const ask = Effect.fnUntraced(function*(ids: ReadonlyArray<string>) {
  const client = yield* Greeter.client
  const answers = yield* Effect.forEach(ids, (id) =>
    Effect.gen(function*() {
      const { greeting, pid } = yield* client(id).Greet({ name: `process ${process.pid}` })
      const counted = yield* Stream.runCollect(client(id).Count({ to: 5 }))
      const answer: Answer = { id, greeting, pid, counted }
      return answer
    }), { concurrency: "unbounded" })
  tell({ _tag: "Answers", answers })
})

const commands = Stream.fromAsyncIterable(
  createInterface({ input: process.stdin }),
  (cause) => new Error("the input broke", { cause })
).pipe(Stream.map((line) => JSON.parse(line) as Command))

const main = Effect.gen(function*() {
  const database = process.argv[2]
  if (database === undefined) return yield* Effect.die("usage: node runner.ts <database file>")
  const { server, sockets } = yield* makeServer
  const port = NetAddress.isUnixPathAddress(sockets.address) ? 0 : sockets.address.port
  yield* Effect.gen(function*() {
    tell({ _tag: "Listening", port })
    yield* Effect.forkScoped(watch)
    yield* Stream.runForEach(commands, (command) => ask(command.ask))
  }).pipe(
    Effect.scoped,
    Effect.provide(Layer.provideMerge(handlers, layerRunner(sockets, port, database)))
  )
  return server
}).pipe(
  Effect.scoped,
  Effect.flatMap((server) =>
    Effect.gen(function*() {
      const { count: bytesRead } = yield* Metric.value(Metrics.bytesRead)
      const { count: bytesWritten } = yield* Metric.value(Metrics.bytesWritten)
      const { accepted, connections, failures, state } = yield* server.health
      tell({ _tag: "Stopped", bytesRead, bytesWritten, server: { accepted, connections, failures, state } })
    })
  ),
  Effect.provide([NodeTransport.layer, Metrics.layer]),
  Effect.provide(Logger.layer([Logger.map(Logger.formatLogFmt, (line) => console.error(line))])),
  Effect.provideService(References.MinimumLogLevel, "Warn")
)

// Nothing ends the process but that nothing is left to do.
Effect.runFork(main).addObserver((exit) => {
  if (exit._tag === "Success") return
  console.error(String(exit.cause))
  process.exitCode = 1
})

/** Effect RPC over this library's sockets on real TCP, with Effect's own sockets at either end as well. */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as NetAddress from "effect/net/NetAddress"
import * as Queue from "effect/Queue"
import * as References from "effect/References"
import * as Rpc from "effect/rpc/Rpc"
import * as RpcClient from "effect/rpc/RpcClient"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Stream from "effect/Stream"
import * as Acceptor from "../../src/Acceptor.ts"
import * as EffectSocket from "../../src/adapter/EffectSocket.ts"
import { toUtf8, utf8 as text } from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { ending } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { start } from "../support/waiting.ts"

class Refused extends Schema.TaggedError<Refused>("test/Refused")("Refused", { why: Schema.String }) {}

const Api = RpcGroup.make(
  Rpc.make("Echo", { payload: { text: Schema.String }, success: Schema.String }),
  Rpc.make("Refuse", { payload: { why: Schema.String }, error: Refused }),
  Rpc.make("Count", { payload: { to: Schema.Int }, success: Schema.Int, error: Refused, stream: true }),
  Rpc.make("Hang"),
  Rpc.make("Endless", { success: Schema.Int, stream: true })
)

/** What happened at the server, in order. */
class Events extends Context.Service<Events, Queue.Queue<string>>()("test/Events") {}

const handlers = Api.toLayer(Effect.gen(function*() {
  const events = yield* Events
  const tell = (event: string) => Queue.offer(events, event)
  return Api.of({
    Echo: ({ text }) => Effect.succeed(text),
    Refuse: ({ why }) => Effect.fail(new Refused({ why })),
    Count: ({ to }) => Stream.concat(Stream.range(1, to), Stream.fail(new Refused({ why: `no more than ${to}` }))),
    Hang: () => Effect.andThen(tell("hanging"), Effect.onInterrupt(Effect.never, () => tell("hang interrupted"))),
    Endless: () => Stream.ensuring(Stream.fromSchedule(Schedule.forever), tell("endless ended"))
  })
}))

type Serialization = Layer.Layer<RpcSerialization.RpcSerialization>

/** Serves the API until the scope closes, and answers with the address. */
const serve = <E, R>(
  server: Layer.Layer<SocketServer.SocketServer, E, R>,
  serialization: Serialization
): Effect.Effect<NetAddress.SocketAddress, E, R | Events | Scope.Scope> =>
  RpcServer.layer(Api, { disableFatalDefects: true }).pipe(
    Layer.provide(handlers),
    Layer.provide(RpcServer.layerProtocolSocketServer),
    Layer.provideMerge(server),
    Layer.provide(serialization),
    Layer.build,
    Effect.map((services) => Context.get(services, SocketServer.SocketServer).address)
  )

/** A client that lives as long as the scope. */
const connect = <E, R>(socket: Layer.Layer<Socket.Socket, E, R>, serialization: Serialization) =>
  Effect.gen(function*() {
    const protocol = yield* Layer.build(
      RpcClient.layerProtocolSocket({ retryPolicy: Schedule.spaced("10 millis") }).pipe(
        Layer.provide(socket),
        Layer.provide(serialization)
      )
    )
    return yield* Effect.provideContext(RpcClient.make(Api), protocol)
  })

type Client = Effect.Success<ReturnType<typeof connect>>

/** Everything that a client does with a server. */
const talk = Effect.fnUntraced(function*(client: Client) {
  const events = yield* Events
  const next = (expected: string) => Effect.map(Queue.take(events), (event) => assert.strictEqual(event, expected))

  assert.strictEqual(yield* client.Echo({ text: "gr\u00fc\u00dfe" }), "gr\u00fc\u00dfe")

  const large = "0123456789\u00fc".repeat(200_000)
  const answers = yield* Effect.forEach(
    Array.from({ length: 20 }, (_, i) => i === 7 ? large : `message ${i}`),
    (text) => client.Echo({ text }),
    { concurrency: "unbounded" }
  )
  assert.isTrue(answers[7] === large)
  assert.strictEqual(answers[19], "message 19")

  const refused = yield* Effect.flip(client.Refuse({ why: "because" }))
  assert.deepInclude(refused, { _tag: "Refused", why: "because" })

  const counted: Array<number> = []
  const end = yield* Effect.flip(
    Stream.runForEach(client.Count({ to: 500 }), (number) => Effect.sync(() => counted.push(number)))
  )
  assert.deepStrictEqual(counted, Array.from({ length: 500 }, (_, i) => i + 1))
  assert.deepInclude(end, { _tag: "Refused", why: "no more than 500" })

  const hanging = yield* start(client.Hang())
  yield* next("hanging")
  yield* Fiber.interrupt(hanging)
  assert.strictEqual(ending(yield* Fiber.await(hanging)), "Interrupt")
  yield* next("hang interrupted")

  assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(client.Endless(), 3)), [0, 1, 2])
  yield* next("endless ended")

  assert.strictEqual(yield* client.Echo({ text: "still here" }), "still here")
})

const withEvents = Effect.provideServiceEffect(Events, Queue.unbounded<string>())
const quiet = Effect.provideService(References.UnhandledLogLevel, undefined)

const ourServer = EffectSocket.layerSocketServer(anyPort)
const nodeServer = NodeSocketServer.layer({ port: 0, host: "127.0.0.1" })
const nodeClient = (address: NetAddress.SocketAddress) =>
  NodeSocket.layerNet({ port: portOf(address), host: "127.0.0.1" })

describe("RPC over TCP", () => {
  for (
    const [format, serialization] of [
      ["ndjson", RpcSerialization.layerNdjson],
      ["SchemaBinary", RpcSerialization.layerSchemaBinary()]
    ] as const
  ) {
    const what = "calls, streams, errors and interruption"

    it.live(`${what}: our client and our server, in ${format}`, () =>
      leavingNothing(Effect.gen(function*() {
        const address = yield* serve(ourServer, serialization)
        yield* talk(yield* connect(EffectSocket.layerSocket(address), serialization))
      })).pipe(withEvents, Effect.provide(NodeTransport.layer)))

    it.live(`${what}: Effect's NodeSocket and our server, in ${format}`, () =>
      leavingNothing(Effect.gen(function*() {
        const address = yield* serve(ourServer, serialization)
        yield* talk(yield* connect(nodeClient(address), serialization))
      })).pipe(withEvents, Effect.provide(NodeTransport.layer)))

    it.live(`${what}: our client and Effect's NodeSocketServer, in ${format}`, () =>
      Effect.gen(function*() {
        // Outside of the count: NodeSocketServer keeps a fiber of its own that does not end.
        const address = yield* serve(nodeServer, serialization)
        yield* leavingNothing(
          Effect.flatMap(connect(EffectSocket.layerSocket(address), serialization), talk)
        )
      }).pipe(withEvents, Effect.provide(NodeTransport.layer)))
  }

  it.live("a call that is interrupted in the middle of its bytes harms no other call on the connection", () =>
    leavingNothing(Effect.gen(function*() {
      const connections: Array<Socket.Socket> = []
      const counting = Layer.effect(
        SocketServer.SocketServer,
        Effect.map(EffectSocket.makeSocketServer(anyPort), (server) => ({
          address: server.address,
          run: (handler) =>
            server.run((socket) => {
              connections.push(socket)
              return handler(socket)
            })
        }))
      )
      const address = yield* serve(counting, RpcSerialization.layerNdjson)
      const socket = yield* Effect.acquireRelease(StreamSocket.connect(address), (socket) => socket.close)
      const client = yield* connect(
        Layer.effect(Socket.Socket, EffectSocket.makeSocketWith(Effect.succeed(socket))),
        RpcSerialization.layerNdjson
      )
      assert.strictEqual(yield* client.Echo({ text: "before" }), "before")
      const other = yield* start(client.Echo({ text: "at once" }))
      const before = socket.bytesWritten
      const large = "x".repeat(8 * 1024 * 1024)
      const uploading = yield* start(client.Echo({ text: large }))
      assert.isAbove(socket.bytesWritten, before)
      assert.isBelow(socket.bytesWritten - before, large.length)
      yield* Fiber.interrupt(uploading)
      assert.strictEqual(yield* Fiber.join(other), "at once")
      assert.strictEqual(yield* client.Echo({ text: "after" }), "after")
      assert.deepStrictEqual([connections.length, socket.state.write], [1, "open"])
      assert.isAbove(socket.bytesWritten - before, large.length)
    })).pipe(withEvents, Effect.provide(NodeTransport.layer)))

  it.live("a connection that is lost fails the calls on it, and later calls take the next one", () =>
    leavingNothing(Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anyPort)
      const client = yield* connect(EffectSocket.layerSocket(acceptor.address), RpcSerialization.layerNdjson)
      const lost = yield* start(client.Echo({ text: "lost" }))
      yield* Effect.scoped(Effect.gen(function*() {
        const first = yield* acceptor.accept
        yield* Read.readUntil(first, "\n")
        yield* first.abort
      }))
      assert.deepInclude(yield* Effect.flip(Fiber.join(lost)), { _tag: "RpcClientError" })
      const server = Layer.succeed(SocketServer.SocketServer, EffectSocket.toSocketServer(acceptor))
      yield* serve(server, RpcSerialization.layerNdjson)
      // Until the client has connected again its calls fail at once.
      const answer = yield* Effect.retry(client.Echo({ text: "back" }), Schedule.spaced("5 millis"))
      assert.strictEqual(answer, "back")
    })).pipe(withEvents, quiet, Effect.provide(NodeTransport.layer)))

  it.live("peers that send nonsense, too much, or nothing do not harm the others", () =>
    leavingNothing(Effect.gen(function*() {
      const serialization = RpcSerialization.layerNdjsonWith({ maxBufferSize: 10_000 })
      const address = yield* serve(ourServer, serialization)
      const client = yield* connect(EffectSocket.layerSocket(address), serialization)
      yield* StreamSocket.connect(address)

      const nonsense = yield* StreamSocket.connect(address)
      yield* Write.writeAll(nonsense, text("this is not JSON\n"))
      assert.include(toUtf8(yield* Read.readUntil(nonsense, "\n")), "Defect")

      // The server answers with a CloseEvent of code 1009.
      const endless = yield* StreamSocket.connect(address)
      yield* Effect.exit(Write.writeAll(endless, text("x".repeat(20_000))))
      assert.strictEqual(ending(yield* Effect.exit(Read.readAll(endless))), "ConnectionReset")

      const rude = yield* StreamSocket.connect(address)
      yield* Write.writeAll(rude, text("{\"_tag\":"))
      yield* rude.abort

      assert.strictEqual(yield* client.Echo({ text: "unharmed" }), "unharmed")
    })).pipe(withEvents, quiet, Effect.provide(NodeTransport.layer)))

  it.live("a client that goes away while it is being answered, having read nothing, does not hold the server up", () =>
    leavingNothing(Effect.gen(function*() {
      const events = yield* Events
      for (const leave of ["close", "abort"] as const) {
        yield* Effect.scoped(Effect.gen(function*() {
          const address = yield* serve(ourServer, RpcSerialization.layerNdjson)
          const deaf = yield* StreamSocket.connect(address, { linger: "50 millis" })
          const request = (id: string, tag: string, payload: unknown) =>
            text(`${JSON.stringify({ _tag: "Request", id, tag, payload, headers: [] })}\n`)
          yield* Write.writeAll(deaf, request("1", "Echo", { text: "y".repeat(8 * 1024 * 1024) }))
          yield* Write.writeAll(deaf, request("2", "Hang", null))
          assert.strictEqual(yield* Queue.take(events), "hanging")
          yield* deaf[leave]
        }))
        assert.strictEqual(yield* Queue.take(events), "hang interrupted")
      }
    })).pipe(withEvents, quiet, Effect.provide(NodeTransport.layer)))
})

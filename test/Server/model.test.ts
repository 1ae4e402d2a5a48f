/** Random limits, peers, handlers and drains, in fibers that yield at random steps: the accounts of a server add up. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import { counters } from "../../src/internal/base/counters.ts"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import type * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort } from "../support/addresses.ts"
import { seed, some } from "../support/properties.ts"
import { echo, serving } from "../support/server.ts"
import { start, turns } from "../support/waiting.ts"

type Connection = Server.Connection
type Handler = (socket: StreamSocket.StreamSocket, connection: Connection) => Effect.Effect<unknown, unknown>

/** What is drawn for one program. */
class Draw {
  private readonly next: () => number

  constructor(seed: number) {
    this.next = MemoryTransport.random(seed)
  }

  /** 0 to n - 1. */
  upTo(n: number): number {
    return Math.floor(this.next() * n)
  }

  chance(share: number): boolean {
    return this.next() < share
  }

  one<A>(from: readonly [A, ...Array<A>]): A {
    return from[this.upTo(from.length)] ?? from[0]
  }

  maybe<A>(value: A): A | undefined {
    return this.chance(0.3) ? value : undefined
  }

  get limits(): Server.Limits {
    const answer = this.one<"wait" | "reset" | Server.RejectMessage>(["wait", "reset", { send: "no" }])
    const max = 1 + this.upTo(4)
    return {
      connections: this.chance(0.5) ? { max, action: answer } : undefined,
      perPeer: this.maybe(max),
      acceptRate: this.maybe({ limit: max, window: "1 second", answer }),
      bytesInFlight: this.maybe(10_000),
      idle: this.maybe(500),
      firstByte: this.maybe(400),
      progress: this.maybe({ bytes: 1000, per: 500 })
    }
  }

  get handler(): Handler {
    const time = this.upTo(2000)
    return this.one<Handler>([
      echo,
      (socket) => Write.writeAll(socket, new Uint8Array(100_000)),
      (socket) => Cancellation.total(Write.writeAll(socket, new Uint8Array(80_000))),
      (_, connection) => connection.draining,
      () => Effect.never,
      () => Effect.uninterruptible(Effect.sleep(time)),
      () => Effect.fail("x"),
      (_, { server }) => Effect.forkDetach(server.drain(time / 4), { startImmediately: true })
    ])
  }
}

const sum = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((sum, count) => sum + count, 0)

const program = (seed: number) =>
  Effect.gen(function*() {
    const draw = new Draw(seed)
    const { limits } = draw
    const proxied = draw.chance(0.3)
    let begun = 0
    let ended = 0
    let reported = 0
    const { server } = yield* serving((socket, connection) => {
      begun++
      return Effect.ensuring(draw.handler(socket, connection), Effect.sync(() => ended++))
    }, {
      listen: draw.chance(0.5) ? [anyPort, anyPort] : anyPort,
      limits,
      onLimit: () => Effect.sync(() => reported++),
      proxyProtocol: proxied ? { trusted: ProxyProtocol.trustAnyone, required: false } : undefined
    })
    // In one step: the server goes on between two.
    const agrees = Effect.sync(() =>
      assert.strictEqual(Effect.runSync(server.health).connections, Effect.runSync(server.connections).length)
    )
    const clients: Array<StreamSocket.StreamSocket> = []
    const act = Effect.suspend((): Effect.Effect<unknown> => {
      const client = clients[draw.upTo(clients.length)]
      switch (draw.upTo(6)) {
        case 0:
          return TestClock.adjust(draw.upTo(300))
        case 1:
          return client?.abort ?? turns()
        case 2:
          return client === undefined ? turns() : start(client.close)
        case 3:
          return client === undefined ? turns() : start(Effect.ignore(client.readSome(new Uint8Array(70_000))))
        case 4:
          return client === undefined ? turns() : start(Effect.ignore(Write.writeAll(
            client,
            text(`PROXY TCP4 198.51.100.${draw.upTo(3)} 203.0.113.7 40000 443\r\nx`)
          )))
        default:
          return Effect.yieldNow
      }
    })
    for (let left = 5 + draw.upTo(40); left > 0; left--) {
      if (draw.chance(0.4)) {
        const client = yield* Effect.option(StreamSocket.connect(draw.one(server.addresses)))
        if (client._tag === "Some") clients.push(client.value)
      } else yield* act
      if (draw.chance(0.3)) yield* turns()
      yield* agrees
    }
    const draining = yield* start(server.drain(draw.chance(0.2) ? 0 : draw.upTo(1000)))
    if (draw.chance(0.3)) yield* start(server.drain(draw.upTo(300)))
    // To the deadline, and the second behind it.
    for (let i = 0; i < 2; i++) yield* Effect.andThen(TestClock.adjust(1000), turns())
    yield* Fiber.join(draining)
    // The handlers that did not end by then.
    yield* Effect.andThen(TestClock.adjust(3000), turns())
    yield* agrees
    const { accepted, connections, limited, state } = yield* server.health
    assert.deepStrictEqual([state, connections, ended, reported], ["stopped", 0, begun, sum(limited)])
    const refused = limited.Connections + limited.PerPeer + limited.AcceptRate + limited.BytesInFlight
    if (!proxied) assert.strictEqual(accepted, begun + refused)
    // Nothing of theirs waits for a clock that stands.
    yield* Effect.forEach(clients, (client) => client.abort)
  })

describe("the accounts of a server", () => {
  for (let i = 0; i < some(500); i++) {
    it.effect(`add up, and nothing is left (seed ${seed + i})`, () =>
      Effect.gen(function*() {
        const shown = () => {
          const { draining, listening, paused } = counters.servers
          return [draining, listening, paused, counters.served.connection]
        }
        const before = shown()
        let fibers = 0
        yield* Effect.scoped(program(seed + i)).pipe(
          Effect.provideService(Scheduler.MaxOpsBeforeYield, i % 2 === 0 ? 3 + i % 60 : 2048),
          Effect.provideService(Metric.FiberRuntimeMetrics, {
            recordFiberStart: () => void fibers++,
            recordFiberEnd: () => void fibers--
          })
        )
        yield* turns()
        assert.deepStrictEqual([fibers, ...shown()], [0, ...before])
      }).pipe(Effect.provide(Layer.fresh(MemoryTransport.layer))))
  }
})

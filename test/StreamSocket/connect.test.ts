import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import { type Backing, Transport } from "../../src/Transport.ts"
import { defect, failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const remote = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:2")

describe("StreamSocket.connect", () => {
  const resolver = (hosts: Readonly<Record<string, ReadonlyArray<string>>>) =>
    Layer.succeed(
      AddressResolver.AddressResolver,
      AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts })))
    )

  /** A transport whose connects go as told, address by address; it writes down which were tried. */
  const transport = (
    connect: (address: NetAddress.SocketAddress) => Effect.Effect<Backing, SocketError>,
    tried: Array<string> = []
  ) =>
    Layer.succeed(Transport, {
      name: "told",
      connect: (address) => {
        tried.push(NetAddress.formatSocketAddress(address))
        return connect(address)
      },
      listen: () => Effect.die("not here")
    })

  const refuse = (address: NetAddress.SocketAddress) =>
    Effect.fail(
      new SocketError({ reason: Reason.ConnectionRefused(), operation: "connect", address, transferred: 0 })
    )

  it.effect("closes the stream with the scope", () =>
    Effect.gen(function*() {
      const backing = new FakeBacking()
      yield* Effect.scoped(Effect.gen(function*() {
        const socket = yield* StreamSocket.connect(remote)
        assert.strictEqual(socket.state.socket, "open")
      })).pipe(Effect.provide(transport(() => Effect.succeed(backing))))
      assert.deepStrictEqual(backing.calls, ["close"])
    }))

  it.effect("tries the addresses of a name one after the other, up to the first that answers", () =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      const backing = new FakeBacking()
      const socket = yield* StreamSocket.connect("db.internal:5432").pipe(
        Effect.provide([
          transport(
            (address) =>
              NetAddress.formatSocketAddress(address) === "[::1]:5432" ? Effect.succeed(backing) : refuse(address),
            tried
          ),
          resolver({ "db.internal": ["127.0.0.9", "::1", "127.0.0.7"] })
        ])
      )
      assert.isTrue(StreamSocket.isStreamSocket(socket))
      assert.deepStrictEqual(tried, ["127.0.0.9:5432", "[::1]:5432"])
    }))

  it.effect("lists every attempt when all fail", () =>
    Effect.gen(function*() {
      const exit = yield* StreamSocket.connect("db.internal:5432").pipe(
        Effect.provide([transport(refuse), resolver({ "db.internal": ["127.0.0.9", "::1"] })]),
        Effect.exit
      )
      const failed = failure(exit)
      assert.isTrue(failed.reason._tag === "ConnectFailed")
      if (failed.reason._tag !== "ConnectFailed") return
      assert.deepStrictEqual(failed.reason.attempts.map((attempt) => attempt.reason._tag), [
        "ConnectionRefused",
        "ConnectionRefused"
      ])
      for (const word of ["connect tcp://db.internal:5432", "127.0.0.9:5432", "[::1]:5432", "refused"]) {
        assert.include(failed.message, word)
      }
    }))

  it.effect("running the same effect again starts a new list of attempts", () =>
    Effect.gen(function*() {
      const connect = StreamSocket.connect("db.internal:5432")
      const attempts = Effect.map(Effect.exit(connect), (exit) => {
        const { reason } = failure(exit)
        return reason._tag === "ConnectFailed" ? reason.attempts.length : -1
      })
      const counts = yield* Effect.all([attempts, attempts]).pipe(
        Effect.provide([transport(refuse), resolver({ "db.internal": ["127.0.0.9", "::1"] })])
      )
      assert.deepStrictEqual(counts, [2, 2])
    }))

  it.effect("with a single address fails with the reason of the attempt itself", () =>
    Effect.gen(function*() {
      const exit = yield* StreamSocket.connect({ host: "db.internal", port: 1 }).pipe(
        Effect.provide([transport(refuse), resolver({ "db.internal": ["127.0.0.9"] })]),
        Effect.exit
      )
      assert.strictEqual(failure(exit).reason._tag, "ConnectionRefused")
      assert.include(failure(exit).message, "127.0.0.9:1")
    }))

  it.effect("a name without addresses is NameResolution, and so is a text that is no endpoint", () =>
    Effect.gen(function*() {
      const layers = Layer.merge(transport(refuse), resolver({ "db.internal": ["127.0.0.9"] }))
      const unknown = failure(yield* StreamSocket.connect("nowhere:1").pipe(Effect.provide(layers), Effect.exit))
      assert.strictEqual(unknown.reason._tag === "NameResolution" ? unknown.reason.host : unknown.reason, "nowhere")
      assert.include(unknown.message, "nowhere")
      assert.isDefined(unknown.cause)
      for (const input of ["no-port", "::1", "a b:1", "x:99999", "x:-1", ""]) {
        const error = failure(yield* StreamSocket.connect(input).pipe(Effect.provide(layers), Effect.exit))
        assert.strictEqual(error.reason._tag, "NameResolution", input)
        assert.notInclude(error.message, "[object")
      }
    }))

  it.effect("wrong options are defects before anything is tried", () =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      for (const sliceSize of [0, -1, 1.5, NaN]) {
        const exit = yield* StreamSocket.connect(remote, { sliceSize }).pipe(
          Effect.provide(transport(refuse, tried)),
          Effect.exit
        )
        assert.instanceOf(defect(exit), RangeError)
      }
      assert.deepStrictEqual(tried, [])
    }))

  it.effect("an interruption cuts the attempt at hand and tries no other", () =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      let cut = 0
      const waiting = Effect.onInterrupt(Effect.never, () => Effect.sync(() => void cut++))
      const fiber = yield* start(
        StreamSocket.connect("db.internal:5432").pipe(
          Effect.provide([transport(() => waiting, tried), resolver({ "db.internal": ["127.0.0.9", "::1"] })]),
          Effect.scoped
        )
      )
      yield* Effect.yieldNow
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual([tried, cut], [["127.0.0.9:5432"], 1])
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
    }))

  it.effect("a defect of one attempt is not taken for a refusal", () =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      const exit = yield* StreamSocket.connect("db.internal:5432").pipe(
        Effect.provide([
          transport(() => Effect.die(new Error("bug")), tried),
          resolver({ "db.internal": ["127.0.0.9", "::1"] })
        ]),
        Effect.exit
      )
      assert.strictEqual(defect(exit).message, "bug")
      assert.strictEqual(tried.length, 1)
    }))

  it.effect("works over the network in memory by name", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(StreamSocket.connect("localhost:1"))
      assert.strictEqual(failure(exit).reason._tag, "ConnectionRefused")
      assert.isFalse(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    }).pipe(Effect.provide(MemoryTransport.layer)))
})

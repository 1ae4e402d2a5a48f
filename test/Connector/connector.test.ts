import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Connector from "../../src/Connector.ts"
import { fromErrno, Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import { type Backing, type ResolvedConnectOptions, type Target, Transport } from "../../src/Transport.ts"
import { inet } from "../support/addresses.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"
import { connects, hangs, play, refuses } from "./stage.ts"

/** A transport that accepts every connection, and records its address and options. */
const taking = (tried: Array<string> = [], seen: Array<ResolvedConnectOptions> = []) =>
  Layer.succeed(Transport, {
    name: "told",
    connect: (address, options) =>
      Effect.sync((): Backing => {
        tried.push(NetAddress.isUnixPathAddress(address) ? `unix ${address.path}` : NetAddress.formatInet(address))
        seen.push(options)
        return new FakeBacking()
      }),
    listen: () => Effect.die("not here")
  })

const refusing = Layer.succeed(Transport, {
  name: "told",
  connect: (address) =>
    Effect.fail(new SocketError({ reason: Reason.ConnectionRefused(), operation: "connect", address, transferred: 0 })),
  listen: () => Effect.die("not here")
})

type Answer = Effect.Effect<ReadonlyArray<NetAddress.SocketAddress>, Dns.DnsError | NetAddress.NetAddressError>

/** A resolver with a given answer, which its type may forbid. */
const resolver = (answer: (endpoint: string) => Answer) =>
  Layer.succeed(
    AddressResolver.AddressResolver,
    // The one signature that is asked for stands for its overloads.
    { resolve: (target: Host.HostPort) => answer(Host.formatHostPort(target)) } as unknown as Context.Service.Shape<
      typeof AddressResolver.AddressResolver
    >
  )

const zone = (hosts: Readonly<Record<string, ReadonlyArray<string>>>) =>
  Layer.succeed(AddressResolver.AddressResolver, AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts }))))

const noResolver = resolver(() => Effect.die(new Error("the resolver must not be asked")))

describe("Connector.connect: targets", () => {
  const target = (input: Target) =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      const exit = yield* Connector.connect(input).pipe(
        Effect.scoped,
        Effect.provide([taking(tried), zone({ "db.internal": ["192.0.2.1"], localhost: ["::1", "127.0.0.1"] })]),
        Effect.exit
      )
      return Exit.isSuccess(exit) ? tried.join(", ") : `${ending(exit)}: ${failure(exit).message}`
    })

  const good: ReadonlyArray<readonly [Target, string]> = [
    ["db.internal:5432", "192.0.2.1:5432"],
    ["DB.Internal:5432", "192.0.2.1:5432"],
    ["tcp://db.internal:5432", "192.0.2.1:5432"],
    ["TCP://db.internal:5432/", "192.0.2.1:5432"],
    ["localhost:1", "[::1]:1"],
    ["192.0.2.7:80", "192.0.2.7:80"],
    ["tcp://192.0.2.7:80", "192.0.2.7:80"],
    ["[::1]:7", "[::1]:7"],
    ["tcp://[::1]:7", "[::1]:7"],
    ["unix:///run/app.sock", "unix /run/app.sock"],
    ["unix:///run/with space & umlaut ü.sock", "unix /run/with space & umlaut ü.sock"],
    ["unix://\0abstract", "unix \0abstract"],
    [{ host: "db.internal", port: 5432 }, "192.0.2.1:5432"],
    [{ host: "::1", port: 5432 }, "[::1]:5432"],
    [Host.hostPortFromStringUnsafe("db.internal:1"), "192.0.2.1:1"],
    [inet("[2001:db8::1]:9"), "[2001:db8::1]:9"],
    [NetAddress.unixPathAddress("relative.sock"), "unix relative.sock"]
  ]
  for (const [input, expected] of good) {
    it.effect(`${JSON.stringify(input)} is ${JSON.stringify(expected)}`, () =>
      Effect.map(target(input), (tried) => assert.strictEqual(tried, expected)))
  }

  it.effect("an address reads back from what errors print of it", () =>
    Effect.gen(function*() {
      for (const to of [inet("192.0.2.7:80"), inet("[::1]:80"), NetAddress.unixPathAddress("/run/x.sock")]) {
        const error = yield* Effect.flip(Effect.provide(Effect.scoped(Connector.connect(to)), refusing))
        const [, printed = ""] = /^connect (.*): connection refused$/.exec(error.message) ?? []
        assert.strictEqual(yield* target(printed), yield* target(to))
      }
    }))

  const bad: Readonly<Record<string, string>> = {
    "": "expected host:port",
    "no-port": "expected host:port",
    "::1": "IPv6 addresses must be bracketed",
    "::1:7": "IPv6 addresses must be bracketed",
    "a b:1": "invalid domain name",
    "host:99999": "0 through 65535",
    "host:-1": "decimal integer",
    "tcp://": "expected host:port",
    "tcp://host": "expected host:port",
    "tcp://host:1/path": "decimal integer",
    "tcp://user@host:1": "invalid domain name",
    "unix://run/app.sock": "expected unix:///path",
    "unix://": "expected unix:///path",
    "http://host:80": "no such scheme: http; expected tcp://host:port or unix:///path",
    "tcp://host:1\nforged": "decimal integer"
  }
  for (const [input, detail] of Object.entries(bad)) {
    it.effect(`${JSON.stringify(input)} is no target, and the error says why`, () =>
      Effect.gen(function*() {
        const message = yield* target(input)
        assert.include(message, "NameResolution: connect: cannot resolve")
        assert.include(message, detail)
        assert.notInclude(message, "\n")
      }))
  }

  it.effect("literals ask no resolver", () =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      yield* Effect.forEach(
        ["192.0.2.7:80", "[::1]:80", "tcp://[::1]:81", "unix:///run/app.sock"],
        (input) => Connector.connect(input)
      ).pipe(Effect.provide([taking(tried), noResolver]))
      assert.deepStrictEqual(tried, ["192.0.2.7:80", "[::1]:80", "[::1]:81", "unix /run/app.sock"])
    }))
})

describe("Connector.connect: look-ups", () => {
  /** A resolver that answers when the test says so, and counts the questions. */
  const desk = () => {
    const asked: Array<string> = []
    const cut: Array<string> = []
    const answers: Array<() => void> = []
    const layer = resolver((endpoint) =>
      Effect.callback((resume) => {
        asked.push(endpoint)
        answers.push(() => resume(Effect.succeed([inet("192.0.2.1:5432")])))
        return Effect.sync(() => cut.push(endpoint))
      })
    )
    return { asked, cut, layer, answer: Effect.sync(() => answers.splice(0).forEach((answer) => answer())) }
  }

  it.effect("fibers that ask for the same name at the same time share one", () =>
    Effect.gen(function*() {
      const { answer, asked, cut, layer } = desk()
      const tried: Array<string> = []
      yield* Effect.gen(function*() {
        const same = yield* Effect.forEach(
          ["db.internal:5432", "tcp://DB.internal:5432", { host: "db.internal", port: 5432 }],
          (target) => start(Connector.connect(target))
        )
        const other = yield* start(Connector.connect("db.internal:5433"))
        assert.deepStrictEqual(asked, ["db.internal:5432", "db.internal:5433"])
        yield* answer
        yield* Effect.forEach([...same, other], Fiber.join)
        assert.strictEqual(tried.length, 4)
        // The answer was not cached.
        const later = yield* start(Connector.connect("db.internal:5432"))
        assert.strictEqual(asked.length, 3)
        yield* answer
        yield* Fiber.join(later)
      }).pipe(Effect.provide([taking(tried), layer]))
      assert.deepStrictEqual(cut, [])
    }))

  it.effect("an interruption leaves the shared one to the other fibers; that of the last one interrupts it", () =>
    Effect.gen(function*() {
      const { answer, asked, cut, layer } = desk()
      yield* Effect.gen(function*() {
        const connect = start(Connector.connect("db.internal:5432"))
        const [first, second, third] = [yield* connect, yield* connect, yield* connect]
        yield* Fiber.interrupt(first)
        yield* Fiber.interrupt(second)
        assert.deepStrictEqual(cut, [])
        yield* Fiber.interrupt(third)
        assert.deepStrictEqual([asked.length, cut.length], [1, 1])
        // The next fiber starts another one.
        const again = yield* connect
        const companion = yield* connect
        assert.strictEqual(asked.length, 2)
        yield* Fiber.interrupt(again)
        yield* answer
        yield* Fiber.join(companion)
        assert.strictEqual(cut.length, 1)
      }).pipe(Effect.provide([taking(), layer]))
    }))

  it.effect("each fiber has its own time-out", () =>
    Effect.gen(function*() {
      const { answer, asked, cut, layer } = desk()
      yield* Effect.gen(function*() {
        const hasty = yield* start(Connector.connect("db.internal:5432", { lookupTimeout: "1 second" }))
        const patient = yield* start(Connector.connect("db.internal:5432", { lookupTimeout: "1 minute" }))
        yield* TestClock.adjust("1 second")
        const error = failure(yield* Fiber.await(hasty))
        assert.strictEqual(
          error.message,
          "connect tcp://db.internal:5432: cannot resolve db.internal: no answer within 1s"
        )
        assert.isTrue(Connector.isTransient(error))
        yield* answer
        yield* Fiber.join(patient)
        assert.deepStrictEqual([asked.length, cut.length], [1, 0])
      }).pipe(Effect.provide([taking(), layer]))
    }))

  it.effect("every fiber gets the failure, and the next one asks again", () =>
    Effect.gen(function*() {
      let asked = 0
      const failing = resolver((endpoint) =>
        Effect.suspend(() => {
          asked++
          return Effect.delay(
            Effect.fail(new Dns.DnsError({ reason: "NotFound", method: "lookup", hostname: endpoint })),
            10
          )
        })
      )
      yield* Effect.gen(function*() {
        const connect = start(Connector.connect("nowhere.internal:1"))
        const fibers = [yield* connect, yield* connect]
        yield* TestClock.adjust(10)
        for (const fiber of fibers) {
          const error = failure(yield* Fiber.await(fiber))
          assert.strictEqual(error.reason._tag, "NameResolution")
          assert.include(error.message, "nowhere.internal")
          assert.include(error.message, "NotFound")
          assert.instanceOf(error.cause, Dns.DnsError)
        }
        assert.strictEqual(asked, 1)
        yield* connect
        assert.strictEqual(asked, 2)
      }).pipe(Effect.provide([taking(), failing]))
    }))

  it.effect("an answer without addresses is NameResolution", () =>
    Effect.gen(function*() {
      const error = yield* Connector.connect("empty.internal:1").pipe(
        Effect.provide([taking(), resolver(() => Effect.succeed([]))]),
        Effect.flip
      )
      assert.strictEqual(
        error.message,
        "connect tcp://empty.internal:1: cannot resolve empty.internal: it has no addresses"
      )
      assert.isFalse(Connector.isTransient(error))
    }))

  it.effect("a resolver that throws is a defect for every fiber that waits", () =>
    Effect.gen(function*() {
      const broken = resolver(() => Effect.delay(Effect.die(new Error("bug")), 10))
      yield* Effect.gen(function*() {
        const fibers = [
          yield* start(Connector.connect("db.internal:1")),
          yield* start(Connector.connect("db.internal:1"))
        ]
        yield* TestClock.adjust(10)
        for (const fiber of fibers) assert.strictEqual(defect(yield* Fiber.await(fiber)).message, "bug")
      }).pipe(Effect.provide([taking(), broken]))
    }))

  it.effect("different resolvers are asked separately, also for listening", () =>
    Effect.gen(function*() {
      const [one, other] = [desk(), desk()]
      yield* start(Effect.provide(Connector.connect("db.internal:1"), [taking(), one.layer]))
      yield* start(Effect.provide(Acceptor.listen("db.internal:1"), [taking(), other.layer]))
      assert.deepStrictEqual([one.asked, other.asked], [["db.internal:1"], ["db.internal:1"]])
    }))
})

describe("Connector.connect: many addresses", () => {
  const thousand = Array.from({ length: 1000 }, (_, index) => `n${index + 1}.${index % 2 === 0 ? 6 : 4}`)

  it.effect("of a name with 1,000 addresses that are refused, 16 are tried", () =>
    Effect.gen(function*() {
      const { end, log } = yield* play({ fates: thousand.map((label) => [label, refuses(0)] as const) })
      assert.strictEqual(log.filter((line) => !line.includes("refused")).length, 16)
      assert.strictEqual(end.split("ConnectionRefused 0+0").length - 1, 16)
      assert.include(end, "984 untried")
    }))

  it.effect("1,000 addresses that do not answer are tried one after the other", () =>
    Effect.gen(function*() {
      const { end, log } = yield* play({
        options: { maxAddresses: 1000, attemptTimeout: "3 seconds" },
        fates: thousand.map((label) => [label, hangs] as const)
      })
      assert.strictEqual(log.length, 2000)
      assert.match(end, new RegExp(`^${999 * 250 + 3000} n1.6 TimedOut 0\\+3000, n2.4 TimedOut 250\\+3000, `))
      assert.strictEqual(end.split("TimedOut").length - 1, 1000)
    }))

  it.effect("the last of 1,000 addresses answers", () =>
    Effect.gen(function*() {
      const last = thousand.at(-1)
      const { end } = yield* play({
        options: { maxAddresses: 1000 },
        fates: thousand.map((label) => [label, label === last ? connects(1) : refuses(1)] as const)
      })
      assert.strictEqual(end, `1000 ${last}`)
    }))

  it.effect("the error of a long list is a line that can be read", () =>
    Effect.gen(function*() {
      const error = yield* Connector.connect("db.internal:5432").pipe(
        Effect.provide([refusing, zone({ "db.internal": Array.from({ length: 40 }, (_, i) => `192.0.2.${i}`) })]),
        Effect.flip
      )
      assert.isBelow(error.message.length, 400)
      assert.include(
        error.message,
        "16 of 40 addresses tried, all failed: tcp://192.0.2.0:5432 connection refused after"
      )
      assert.include(error.message, "; and 12 more")
    }))
})

describe("Connector.connect: local address", () => {
  const local = (localAddress: NetAddress.SocketAddress, target: Target) =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      const exit = yield* Connector.connect(target, { localAddress, attemptTimeout: "1 second" }).pipe(
        Effect.provide([taking(tried), zone({ "db.internal": ["2001:db8::1", "192.0.2.1"] })]),
        Effect.scoped,
        Effect.exit
      )
      return Exit.isSuccess(exit) ? tried.join() : failure(exit).message
    })

  it.effect("only addresses of its family are tried", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* local(inet("127.0.0.1:0"), "db.internal:1"), "192.0.2.1:1")
      assert.strictEqual(yield* local(inet("[::1]:0"), "db.internal:1"), "[2001:db8::1]:1")
    }))

  it.effect("no address of its family, and what cannot be bound, is Unsupported", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        yield* local(inet("127.0.0.1:0"), "[::1]:1"),
        "connect tcp://[::1]:1: an IPv6 connection from 127.0.0.1:0 is not supported here"
      )
      assert.include(yield* local(inet("127.0.0.1:0"), "unix:///run/x.sock"), "not supported here")
      assert.include(yield* local(NetAddress.unixPathAddress("/tmp/x"), "db.internal:1"), "not supported here")
    }))
})

describe("Connector.connect: options", () => {
  it.effect("wrong numbers are defects before anything is tried", () =>
    Effect.gen(function*() {
      const tried: Array<string> = []
      const wrong: ReadonlyArray<Connector.Options> = [
        { firstFamilyCount: 0 },
        { maxAddresses: 1.5 },
        { sendBuffer: -1 },
        { receiveBuffer: NaN },
        { keepAlive: { count: 0 } },
        { sliceSize: 0 }
      ]
      for (const options of wrong) {
        const exit = yield* Effect.exit(
          Effect.provide(Connector.connect(inet("192.0.2.1:1"), options), taking(tried))
        )
        assert.instanceOf(defect(exit), RangeError)
      }
      assert.deepStrictEqual(tried, [])
    }))

  it.effect("reach the transport with every default filled in", () =>
    Effect.gen(function*() {
      const seen: Array<ResolvedConnectOptions> = []
      yield* Effect.forEach(
        [undefined, true, "90 seconds", { idle: 500, count: 1000 }, { interval: "1 day" }] as const,
        (keepAlive) => Connector.connect(inet("192.0.2.1:1"), { keepAlive })
      ).pipe(Effect.provide(taking([], seen)))
      assert.deepStrictEqual(seen.map(({ keepAlive }) => keepAlive), [
        false,
        true,
        { idle: Duration.seconds(90), interval: Duration.seconds(1), count: 10 },
        { idle: Duration.seconds(1), interval: Duration.seconds(1), count: 127 },
        { idle: Duration.seconds(7200), interval: Duration.seconds(32_767), count: 10 }
      ])
    }))
})

describe("Connector.connect: the end of a fiber's turn", () => {
  const turn = 256
  const pad = (count: number): Effect.Effect<void> => count === 0 ? Effect.void : Effect.suspend(() => pad(count - 1))
  const regions = {
    "in no region": <A, E, R>(effect: Effect.Effect<A, E, R>) => effect,
    "in the region of a signal": <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Cancellation.withSignal(effect, Cancellation.makeSignal())
  }

  for (const [name, region] of Object.entries(regions)) {
    it.effect(`an interruption there leaves no connection open, ${name}`, () =>
      Effect.gen(function*() {
        const ends = new Set<string>()
        for (let padding = 0; padding < turn; padding++) {
          const made: Array<FakeBacking> = []
          const transport = Layer.succeed(Transport, {
            name: "told",
            connect: () =>
              Effect.sync(() => {
                const backing = new FakeBacking()
                made.push(backing)
                return backing
              }),
            listen: () => Effect.die("not here")
          })
          const program = Effect.andThen(
            pad(padding),
            Effect.scoped(
              Effect.andThen(region(Connector.connect("db.internal:1", { timeout: "1 hour" })), Effect.never)
            )
          ).pipe(
            Effect.provide([transport, zone({ "db.internal": ["192.0.2.1", "::1"] })]),
            Effect.provideService(Scheduler.MaxOpsBeforeYield, turn)
          )
          const fiber = yield* Effect.forkChild(program)
          yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          for (const { calls } of made) ends.add(calls.join() || `open, padding ${padding}`)
          if (made.length === 0) ends.add("never made")
        }
        for (const end of ends) assert.include(["abort", "close", "never made"], end)
        assert.include([...ends], "close")
      }))
  }
})

describe("Connector as a service", () => {
  const resolved = zone({ "db.internal": ["192.0.2.1", "192.0.2.2"] })

  it.effect("needs no service of its caller, and each call may replace its options", () =>
    Effect.gen(function*() {
      const seen: Array<ResolvedConnectOptions> = []
      const layer = Connector.layer({ noDelay: false, linger: "5 seconds" }).pipe(
        Layer.provide([taking([], seen), resolved])
      )
      yield* Effect.gen(function*() {
        const connector = yield* Connector.Connector
        const socket = yield* connector.connect("db.internal:1")
        assert.isTrue(StreamSocket.isStreamSocket(socket))
        yield* connector.connect("db.internal:1", { linger: "1 second", noDelay: undefined })
      }).pipe(Effect.scoped, Effect.provide(layer))
      assert.deepStrictEqual(
        seen.map(({ linger, noDelay }) => [noDelay, Duration.toSeconds(linger)]),
        [[false, 5], [false, 1]]
      )
    }))

  it.effect("a program can be given another one", () =>
    Effect.gen(function*() {
      const asked: Array<Target> = []
      const program = Effect.flatMap(Connector.Connector, (connector) => connector.connect("db.internal:1"))
      yield* program.pipe(Effect.provideService(Connector.Connector, {
        connect: (target) =>
          Effect.sync(() => {
            asked.push(target)
            return StreamSocket.make(new FakeBacking())
          })
      }))
      assert.deepStrictEqual(asked, ["db.internal:1"])
    }))

  /** What a connection of a layer is asked for. */
  const configured = (
    layer: Layer.Layer<Connector.Connector, Config.ConfigError, Transport | AddressResolver.AddressResolver>,
    provider: ConfigProvider.ConfigProvider
  ) =>
    Effect.gen(function*() {
      const seen: Array<ResolvedConnectOptions> = []
      yield* Effect.flatMap(Connector.Connector, (connector) => connector.connect("db.internal:1")).pipe(
        Effect.scoped,
        Effect.provide(Layer.provide(layer, [taking([], seen), resolved])),
        Effect.provideService(ConfigProvider.ConfigProvider, provider)
      )
      return seen[0] ?? assert.fail("there was no connection")
    })

  it.effect("reads its options from the configuration", () =>
    Effect.gen(function*() {
      const env = {
        DB_TIMEOUT: "10 seconds",
        DB_ATTEMPT_DELAY: "100 millis",
        DB_ATTEMPT_TIMEOUT: "2 seconds",
        DB_LOOKUP_TIMEOUT: "1 second",
        DB_FIRST_FAMILY_COUNT: "2",
        DB_MAX_ADDRESSES: "3",
        DB_LOCAL_ADDRESS: "192.0.2.9:0",
        DB_NO_DELAY: "false",
        DB_KEEP_ALIVE_IDLE: "30 seconds",
        DB_KEEP_ALIVE_INTERVAL: "5 seconds",
        DB_KEEP_ALIVE_COUNT: "3",
        DB_USER_TIMEOUT: "1 minute",
        DB_SEND_BUFFER: "8192",
        DB_RECEIVE_BUFFER: "4096",
        DB_LINGER: "1 second",
        DB_SLICE_SIZE: "1024"
      }
      const provider = ConfigProvider.constantCase(ConfigProvider.fromEnv({ env }))
      const nested = Config.nested(Connector.config, "db")
      const options = yield* nested.parse(provider)
      assert.deepStrictEqual(options, {
        timeout: Duration.seconds(10),
        attemptDelay: Duration.millis(100),
        attemptTimeout: Duration.seconds(2),
        lookupTimeout: Duration.seconds(1),
        firstFamilyCount: 2,
        maxAddresses: 3,
        localAddress: inet("192.0.2.9:0"),
        noDelay: false,
        keepAlive: { idle: Duration.seconds(30), interval: Duration.seconds(5), count: 3 },
        userTimeout: Duration.minutes(1),
        sendBuffer: 8192,
        receiveBuffer: 4096,
        linger: Duration.seconds(1),
        sliceSize: 1024
      })
      const asked = yield* configured(Connector.layerConfig(nested), provider)
      assert.deepStrictEqual(
        [asked.noDelay, asked.sendBuffer, asked.localAddress, asked.sliceSize],
        [false, 8192, inet("192.0.2.9:0"), 1024]
      )
      assert.deepStrictEqual(asked.keepAlive, options.keepAlive as ResolvedConnectOptions["keepAlive"])
    }))

  it.effect("an empty configuration sets no option, and options can be configured one by one", () =>
    Effect.gen(function*() {
      const nothing = yield* configured(Connector.layerConfig(), ConfigProvider.fromUnknown({}))
      assert.deepStrictEqual([nothing.noDelay, nothing.keepAlive, nothing.sliceSize], [true, false, 65_536])
      const some = yield* configured(
        Connector.layerConfig({ noDelay: Config.succeed(false), sliceSize: Config.Int("slice") }),
        ConfigProvider.fromUnknown({ slice: 7 })
      )
      assert.deepStrictEqual([some.noDelay, some.sliceSize], [false, 7])
      for (const keepAlive of [true, false]) {
        const asked = yield* configured(Connector.layerConfig(), ConfigProvider.fromUnknown({ keepAlive }))
        assert.strictEqual(asked.keepAlive, keepAlive)
      }
    }))

  it.effect("a value that is no option is a ConfigError", () =>
    Effect.gen(function*() {
      const wrong = [
        { timeout: "soon" },
        { maxAddresses: "0" },
        { firstFamilyCount: "1.5" },
        { localAddress: "localhost:1" },
        { keepAlive: "perhaps" },
        { keepAlive: { count: "-1" } }
      ]
      for (const values of wrong) {
        const exit = yield* Effect.exit(configured(Connector.layerConfig(), ConfigProvider.fromUnknown(values)))
        const error = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined
        assert.instanceOf(error, Config.ConfigError)
      }
    }))
})

describe("Connector.isTransient", () => {
  const error = (reason: Reason, cause?: unknown) =>
    new SocketError({ reason, operation: "connect", transferred: 0, cause })
  const dns = (reason: Dns.DnsErrorReason) =>
    error(
      Reason.NameResolution({ host: "x", detail: reason }),
      new Dns.DnsError({ reason, method: "lookup", hostname: "x" })
    )
  const attempt = (reason: Reason) => ({
    address: inet("192.0.2.1:1"),
    reason,
    startedAfter: Duration.zero,
    took: Duration.zero
  })

  const verdicts: ReadonlyArray<readonly [string, unknown, boolean]> = [
    ["refused", error(Reason.ConnectionRefused()), true],
    ["reset", error(Reason.ConnectionReset()), true],
    ["timed out", error(Reason.TimedOut()), true],
    ["no route", error(Reason.HostUnreachable()), true],
    ["no network", error(Reason.NetworkUnreachable()), true],
    ["out of descriptors", error(Reason.TooManyOpenFiles()), true],
    ["out of ports", error(Reason.AddressNotAvailable()), true],
    ["permission", error(Reason.PermissionDenied()), false],
    ["unsupported", error(Reason.Unsupported({ feature: "x" })), false],
    ["cancelled", error(Reason.OperationAborted({ type: "total", transferred: 0, total: 0 })), false],
    ["closed", error(Reason.Closed()), false],
    ["busy with this program", error(Reason.Busy({ detail: "readSome waits on the stream" })), false],
    ["path too long", error(Reason.LimitExceeded({ limit: 107, subject: "the path" })), false],
    ["bad certificate", error(Reason.Tls({ kind: "certificate" })), false],
    ["a resolver without an answer", dns("Timeout"), true],
    ["a resolver in trouble", dns("ServerFailure"), true],
    ["no such name", dns("NotFound"), false],
    ["no name at all", error(Reason.NameResolution({ host: "x", detail: "bad" })), false],
    ["all refused", error(Reason.ConnectFailed({ attempts: [attempt(Reason.ConnectionRefused())], untried: 0 })), true],
    [
      "all forbidden",
      error(Reason.ConnectFailed({ attempts: [attempt(Reason.PermissionDenied())], untried: 0 })),
      false
    ],
    ["some untried", error(Reason.ConnectFailed({ attempts: [attempt(Reason.PermissionDenied())], untried: 1 })), true],
    ["another error", new Error("x"), false],
    ["nothing", undefined, false]
  ]
  for (const [name, given, expected] of verdicts) {
    it(`${name}: ${expected ? "try again" : "give up"}`, () => {
      assert.strictEqual(Connector.isTransient(given), expected)
    })
  }

  const byErrno: Readonly<Record<string, string>> = {
    "pass by themselves":
      "EADDRINUSE EADDRNOTAVAIL EAGAIN ECONNABORTED ECONNREFUSED ECONNRESET EDQUOT EEXIST EHOSTDOWN EHOSTUNREACH EINTR EIO EISDIR ELOOP EMFILE EMSGSIZE ENETDOWN ENETRESET ENETUNREACH ENFILE ENOBUFS ENODEV ENOENT ENOMEM ENONET ENOSPC ENOSR ENOTDIR ENXIO EPROTO ESTALE ETIMEDOUT",
    "stay":
      "EACCES EAFNOSUPPORT EALREADY EBADF EBUSY ECANCELED EDESTADDRREQ EDOM EFAULT EINPROGRESS EINVAL EISCONN ENAMETOOLONG ENOPROTOOPT ENOSYS ENOTCONN ENOTSOCK ENOTTY EOPNOTSUPP EPERM EPFNOSUPPORT EPIPE EPROTONOSUPPORT EPROTOTYPE EROFS ESHUTDOWN ESOCKTNOSUPPORT"
  }
  for (const [verdict, codes] of Object.entries(byErrno)) {
    for (const code of codes.split(" ")) {
      it(`failures with ${code} ${verdict}`, () => {
        const failure = fromErrno({ code }, { operation: "connect" })
        assert.strictEqual(Connector.isTransient(failure), verdict === "pass by themselves")
      })
    }
  }

  it.effect("retrying with a schedule tries until the address listens, and stops at an error that is not transient", () =>
    Effect.gen(function*() {
      const acceptorAt = inet("127.0.0.1:7000")
      const tries = { count: 0 }
      const connect = (target: Target) =>
        Effect.retry(
          Effect.suspend(() => {
            tries.count++
            return Connector.connect(target, { timeout: "5 seconds" })
          }),
          {
            while: Connector.isTransient,
            schedule: Schedule.jittered(Schedule.exponential("100 millis")),
            times: 5
          }
        )
      const connecting = yield* start(connect("127.0.0.1:7000"))
      yield* TestClock.adjust("350 millis")
      assert.isUndefined(connecting.pollUnsafe())
      yield* Acceptor.listen(acceptorAt)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Fiber.join(connecting)).state.socket, "open")
      assert.isAbove(tries.count, 1)
      tries.count = 0
      assert.strictEqual(ending(yield* Effect.exit(connect("nowhere:1"))), "NameResolution")
      assert.strictEqual(tries.count, 1)
    }).pipe(Effect.provide(MemoryTransport.layer)))
})

describe("Connector over the network in memory", () => {
  it.effect("connects by name and by address, from a local address", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen("localhost:0")
      const to = NetAddress.isUnixPathAddress(acceptor.address) ? assert.fail("no port") : acceptor.address
      const client = yield* Connector.connect(`tcp://localhost:${to.port}`, {
        localAddress: inet("127.0.0.9:0"),
        timeout: "1 second"
      })
      const server = yield* acceptor.accept
      assert.deepStrictEqual(client.localAddress, server.remoteAddress)
      assert.include(NetAddress.formatSocketAddress(client.localAddress), "127.0.0.9:")
      const fixed = yield* Connector.connect(to, { localAddress: inet("127.0.0.9:1234") })
      assert.deepStrictEqual(fixed.localAddress, inet("127.0.0.9:1234"))
      const taken = yield* Effect.flip(Connector.connect(to, { localAddress: to }))
      assert.strictEqual(taken.reason._tag, "AddressInUse")
      const family = yield* Effect.flip(Connector.connect(to, { localAddress: inet("[::1]:0") }))
      assert.strictEqual(family.reason._tag, "Unsupported")
    }).pipe(Effect.provide(MemoryTransport.layer)))
})

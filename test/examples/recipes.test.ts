/** The recipes of `examples/recipes.md`: their code is the code of the files beside it, and what they claim is so. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Pool from "effect/Pool"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import * as Reconnect from "../../examples/recipes/1-reconnect.ts"
import * as Pooled from "../../examples/recipes/2-pool.ts"
import * as NotSent from "../../examples/recipes/3-not-sent.ts"
import * as Liveness from "../../examples/recipes/4-liveness.ts"
import * as Deadline from "../../examples/recipes/5-deadline.ts"
import * as Shutdown from "../../examples/recipes/6-shutdown.ts"
import {
  Acceptor,
  Buffers,
  Cancellation,
  Framing,
  Read,
  type SocketError,
  StreamSocket,
  Write
} from "../../src/index.ts"
import { clog } from "../../src/testing/checks/support.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { tcp } from "../suites/conformance/node.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { readToEnd } from "../support/reading.ts"
import { eventually, start, turn, turns } from "../support/waiting.ts"

const folder = new URL("../../examples/recipes/", import.meta.url)
const guide = readFileSync(new URL("../recipes.md", folder), "utf8")

describe("the code in the recipes", () => {
  // ```ts blocks that name their origin: <!-- file.ts region -->
  const shown = new Map(
    Array.from(
      guide.matchAll(/^<!-- (\S+\.ts \w+) -->\n```ts\n([^]*?)^```$/gm),
      ([, name, code]) => [name!, code!] as const
    )
  )
  const files = readdirSync(folder).sort()
  const regions = new Map(
    files.flatMap((file) =>
      Array.from(
        readFileSync(new URL(file, folder), "utf8").matchAll(/^\/\/ #region (\w+)\n([^]*?)^\/\/ #endregion$/gm),
        ([, region, code]) => [`${file} ${region}`, code!] as const
      )
    )
  )

  it("every file has something to show", () => {
    assert.isNotEmpty(files)
    const origins = Array.from(regions.keys(), (name) => name.split(" ")[0])
    assert.deepStrictEqual([...new Set(origins)], files)
  })

  it("every region is shown, in this order, as it is in its file", () => {
    assert.deepStrictEqual([...shown], [...regions])
  })

  it("no other TypeScript is shown, which nobody would check", () => {
    assert.strictEqual(guide.match(/^```ts/gm)?.length, regions.size)
  })

  it("its links lead somewhere", () => {
    const targets = Array.from(guide.matchAll(/\]\(([^)#]+)/g), ([, target]) => target!)
    assert.isNotEmpty(targets)
    assert.deepStrictEqual(targets.filter((target) => !existsSync(new URL(`../${target}`, folder))), [])
  })
})

// ---- servers with faults

const anywhere = "127.0.0.1:0"

/** Pauses as if every random number were this one. */
const withRandom = (value: number) =>
  Effect.provideService(Random.Random, { nextDoubleUnsafe: () => value, nextIntUnsafe: () => 0 })

/** A server that can be stopped and started again at the same address, and answers each line with the same one. */
const echoServer = Effect.gen(function*() {
  const first = yield* Acceptor.listen(anywhere, { linger: 0 })
  const { address } = first
  const accepted: Array<StreamSocket.StreamSocket> = []
  const run = (acceptor: Acceptor.Acceptor) =>
    start(Acceptor.serve(acceptor, (socket) => {
      accepted.push(socket)
      return echo(socket)
    }))
  let running = { acceptor: first, serving: yield* run(first) }
  const stop = Effect.suspend(() => Effect.andThen(running.acceptor.close, Fiber.interrupt(running.serving)))
  const again = Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(address, { linger: 0 })
    running = { acceptor, serving: yield* run(acceptor) }
  })
  return { address, accepted, stop, again }
})

const echo = (socket: StreamSocket.StreamSocket) =>
  Read.readLine(socket).pipe(
    Effect.flatMap((line) => Write.writeAll(socket, Buffers.utf8(`${line}\n`))),
    Effect.forever,
    Pull.catchDone(() => Effect.void)
  )

const ask = (socket: StreamSocket.StreamSocket, word: string) =>
  Effect.andThen(Write.writeAll(socket, Buffers.utf8(`${word}\n`)), Read.readLine(socket))

const reads = (peer: StreamSocket.ReadStream, count: number) =>
  Effect.gen(function*() {
    const target = new Uint8Array(count)
    yield* Read.readExactly(peer, target)
    return Buffers.toUtf8(target)
  })

const says = (peer: StreamSocket.WriteStream, text: string) => Write.writeAll(peer, Buffers.utf8(text))

const transports = [
  { name: "in memory", layer: MemoryTransport.layer },
  { name: "over loopback TCP", layer: NodeTransport.layer }
]

const networks = [
  { name: "in memory", pair: MemoryTransport.pair({ capacity: 16, linger: 0 }), size: 40 },
  { name: "over loopback TCP", pair: tcp("TCP", "127.0.0.1").pair({ linger: 0 }), size: 16 * 1_048_576 }
]

// ---- 1

describe("recipe 1: the backoff", () => {
  /** The seconds between attempts that all fail. */
  const pauses = (count: number) =>
    Effect.gen(function*() {
      let times: Array<number> = []
      const attempt = Effect.andThen(
        Effect.clockWith((clock) => Effect.sync(() => times.push(clock.currentTimeMillisUnsafe()))),
        Effect.fail("refused")
      )
      const fiber = yield* start(Effect.retry(attempt, Reconnect.backoff))
      while (times.length <= count) yield* TestClock.adjust("1 millis")
      yield* Fiber.interrupt(fiber)
      times = times.slice(0, count + 1)
      return times.slice(1).map((time, index) => time - times[index]!)
    })

  it.effect("grows exponentially up to its cap, scaled by a random number", () =>
    Effect.gen(function*() {
      const half = yield* withRandom(0.5)(pauses(9))
      assert.deepStrictEqual(half, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000])
      const quarter = yield* withRandom(0.25)(pauses(4))
      assert.deepStrictEqual(quarter, [25, 50, 100, 200])
    }))

  it.effect("full jitter: a pause may be anything from nothing to all of it", () =>
    Effect.gen(function*() {
      const first = yield* Effect.forEach(Array.from({ length: 50 }), () => pauses(1))
      const found = first.map(([pause]) => pause!)
      assert.isTrue(found.every((pause) => 0 <= pause && pause <= 100))
      // What `Schedule.jittered` would never do; by chance it happens once in 10^13.
      assert.isTrue(found.some((pause) => pause < 50) && found.some((pause) => pause > 50))
      assert.isAbove(new Set(found).size, 5)
    }).pipe(Random.withSeed("recipes")))
})

for (const { layer, name } of transports) {
  describe(`recipe 1: one connection for everybody, ${name}`, () => {
    const setup = Effect.gen(function*() {
      const server = yield* echoServer
      let attempts = 0
      const connect = Effect.suspend(() => {
        attempts++
        return StreamSocket.connect(server.address, { linger: 0 })
      })
      const current = yield* Reconnect.shared(connect)
      const use = (word: string) => Effect.scoped(Effect.flatMap(current, (socket) => ask(socket, word)))
      return { ...server, current, use, attempts: () => attempts }
    })

    it.effect("many fibers make one", () =>
      Effect.gen(function*() {
        const { accepted, attempts, current } = yield* setup
        const sockets = yield* Effect.all(Array.from({ length: 20 }, () => current), { concurrency: "unbounded" })
        assert.strictEqual(new Set(sockets).size, 1)
        assert.strictEqual(attempts(), 1)
        yield* eventually("accepted", () => accepted.length === 1)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("it is kept while nobody uses it", () =>
      Effect.gen(function*() {
        const { attempts, use } = yield* setup
        assert.strictEqual(yield* use("one"), "one")
        yield* TestClock.adjust("1 day")
        assert.strictEqual(yield* use("two"), "two")
        assert.strictEqual(attempts(), 1)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("a torn one is given to nobody any more; who has it can still read, and the last one closes it", () =>
      Effect.gen(function*() {
        const { attempts, current, use } = yield* setup
        const torn = yield* Effect.scoped(Effect.gen(function*() {
          const socket = yield* current
          const cut = yield* start(Write.writeAll(socket, new Uint8Array(32 * 1_048_576)))
          yield* Fiber.interrupt(cut)
          assert.strictEqual(socket.state.write, "torn")
          assert.strictEqual(yield* use("meanwhile"), "meanwhile")
          assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "torn" })
          return socket
        }))
        assert.strictEqual(torn.state.socket, "closed")
        assert.strictEqual(yield* use("later"), "later")
        assert.strictEqual(attempts(), 2)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("one that its server has ended is given to nobody any more, once a read has met the end", () =>
      Effect.gen(function*() {
        const { accepted, attempts, current, use } = yield* setup
        assert.strictEqual(yield* use("one"), "one")
        yield* accepted[0]!.shutdownWrite
        yield* Effect.scoped(Effect.gen(function*() {
          const socket = yield* current
          assert.strictEqual(ending(yield* Effect.exit(Read.readLine(socket))), "Done")
          assert.deepStrictEqual(socket.state, { socket: "open", read: "ended", write: "open" })
        }))
        assert.strictEqual(yield* use("two"), "two")
        assert.strictEqual(attempts(), 2)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("a server that goes away and comes back: refused, tried again, connected", () =>
      Effect.gen(function*() {
        const { again, attempts, stop, use } = yield* setup
        assert.strictEqual(yield* use("before"), "before")
        yield* stop
        // The request that finds out.
        assert.include(["Done", "ConnectionReset", "BrokenPipe"], ending(yield* Effect.exit(use("during"))))
        const waiting = yield* start(use("after"))
        for (let tries = 2; tries < 6; tries++) {
          yield* untilSo(() => attempts() >= tries)
          assert.isUndefined(waiting.pollUnsafe())
        }
        yield* again
        yield* untilSo(() => waiting.pollUnsafe() !== undefined)
        assert.strictEqual(yield* Fiber.join(waiting), "after")
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("it stops trying when nobody waits any more", () =>
      Effect.gen(function*() {
        const { attempts, stop, use } = yield* setup
        yield* stop
        const waiting = yield* start(Effect.timeoutOption(use("x"), "1 minute"))
        yield* untilSo(() => waiting.pollUnsafe() !== undefined)
        const last = attempts()
        assert.isAbove(last, 1)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(attempts(), last)
      }).pipe(Effect.scoped, Effect.provide(layer)))
  })
}

/** Lets the clock run on, and the kernel keep up with it. */
const untilSo = (condition: () => boolean) =>
  Effect.gen(function*() {
    for (let i = 0; !condition() && i < 3000; i++) {
      yield* TestClock.adjust("100 millis")
      yield* turn
    }
    assert.isTrue(condition())
  })

// ---- 2

/** How a server ends an idle connection. */
const farewells: ReadonlyArray<
  readonly [string, (peer: StreamSocket.StreamSocket) => Effect.Effect<unknown, SocketError.SocketError>]
> = [
  ["said farewell and closed", (peer) => Effect.andThen(says(peer, "421 timeout\n"), Effect.forkDetach(peer.close))],
  ["said farewell", (peer) => says(peer, "421 timeout\n")],
  ["closed", (peer) => Effect.forkDetach(peer.close)],
  ["reset", (peer) => peer.abort]
]

for (const { layer, name } of transports) {
  describe(`recipe 2, ${name}`, () => {
    const setup = Effect.gen(function*() {
      const server = yield* echoServer
      const pool = yield* Pooled.makePool(StreamSocket.connect(server.address, { linger: 0 }))
      const use = <A, E>(request: (socket: StreamSocket.StreamSocket) => Effect.Effect<A, E>) =>
        Pooled.withConnection(pool, request)
      /** The connection that the next request gets. */
      const next = use((socket) => Effect.as(ask(socket, "?"), socket))
      return { ...server, pool, use, next }
    })

    it.effect("a connection is used again after a whole answer", () =>
      Effect.gen(function*() {
        const { next, pool } = yield* setup
        const first = yield* next
        assert.strictEqual(yield* next, first)
        const { idle, used } = yield* Pool.stats(pool)
        assert.deepStrictEqual({ idle, used }, { idle: 1, used: 0 })
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("as many requests as there are connections run at once, each on its own", () =>
      Effect.gen(function*() {
        const { accepted, use } = yield* setup
        const words = Array.from({ length: 20 }, (_, index) => `${index}`)
        const answers = yield* Effect.forEach(words, (word) => use((socket) => ask(socket, word)), {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(answers, words)
        assert.isAtMost(accepted.length, 8)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    for (const [what, goes] of farewells) {
      it.effect(`${what}: the next request gets another one, and its own answer`, () =>
        Effect.gen(function*() {
          const { accepted, next, use } = yield* setup
          // Several at once, so that several are idle.
          yield* Effect.forEach([1, 2, 3], (word) => use((socket) => ask(socket, `${word}`)), { concurrency: 3 })
          const before = [...accepted]
          assert.isNotEmpty(before)
          yield* Effect.forEach(before, goes)
          yield* turns(10)
          assert.strictEqual(yield* use((socket) => ask(socket, "hello")), "hello")
          assert.isAbove(accepted.length, before.length)
          assert.strictEqual((yield* next).state.socket, "open")
        }).pipe(Effect.scoped, Effect.provide(layer)))
    }

    it.effect("a server that ends each connection at once is not asked again and again", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anywhere)
        let count = 0
        yield* start(Acceptor.serve(acceptor, (socket) => {
          count++
          return socket.close
        }))
        const pool = yield* Pooled.makePool(StreamSocket.connect(acceptor.address))
        const exit = yield* Effect.exit(Pooled.withConnection(pool, (socket) => ask(socket, "hello")))
        assert.isTrue(Exit.isFailure(exit))
        // All that a pool may hold, and one for the request.
        assert.isAtMost(count, 9)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("interrupted without a byte: used again", () =>
      Effect.gen(function*() {
        const { next, use } = yield* setup
        const first = yield* next
        const fiber = yield* start(use((socket) => Read.readLine(socket)))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* next, first)
        assert.strictEqual(first.state.socket, "open")
      }).pipe(Effect.scoped, Effect.provide(layer)))

    const faults: ReadonlyArray<
      readonly [string, (socket: StreamSocket.StreamSocket) => Effect.Effect<unknown, unknown>]
    > = [
      ["failed after its bytes left", (socket) => Effect.andThen(says(socket, "late\n"), Effect.fail("no"))],
      ["succeeded, but closed the connection", (socket) => socket.close],
      ["succeeded, but aborted the connection", (socket) => socket.abort],
      [
        "succeeded, but tore the connection",
        (socket) =>
          Effect.gen(function*() {
            yield* Fiber.interrupt(yield* start(Write.writeAll(socket, new Uint8Array(32 * 1_048_576))))
            assert.strictEqual(socket.state.write, "torn")
          })
      ]
    ]
    for (const [what, request] of faults) {
      it.effect(`${what}: never used again`, () =>
        Effect.gen(function*() {
          const { next, use } = yield* setup
          const first = yield* next
          yield* Effect.exit(use(request))
          assert.strictEqual(first.state.socket, "closed")
          const second = yield* next
          assert.notStrictEqual(second, first)
          assert.strictEqual(second.state.socket, "open")
        }).pipe(Effect.scoped, Effect.provide(layer)))
    }

    it.effect("interrupted while it waits for its answer: the next request does not get it", () =>
      Effect.gen(function*() {
        const { next, use } = yield* setup
        const first = yield* next
        const fiber = yield* start(use((socket) => Effect.andThen(says(socket, "late\n"), Effect.never)))
        yield* eventually("the question has left", () => first.bytesWritten === 7)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* use((socket) => ask(socket, "own")), "own")
        assert.strictEqual(first.state.socket, "closed")
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("a server that refuses fails the request, and is asked again by the next one", () =>
      Effect.gen(function*() {
        const { again, stop, use } = yield* setup
        yield* stop
        const exit = yield* Effect.exit(use((socket) => ask(socket, "x")))
        assert.strictEqual(failure(exit).reason._tag, "ConnectionRefused")
        yield* again
        assert.strictEqual(yield* use((socket) => ask(socket, "y")), "y")
      }).pipe(Effect.scoped, Effect.provide(layer)))
  })
}

// ---- 3

for (const { name, pair, size } of networks) {
  describe(`recipe 3, ${name}`, () => {
    const message = pattern(size)
    const short = Buffers.utf8("question\n")

    it.effect("done: the answer", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(NotSent.request(socket, short, Read.readLine(socket)))
        assert.strictEqual(yield* reads(peer, 9), "question\n")
        yield* says(peer, "answer\n")
        assert.strictEqual(yield* Fiber.join(fiber), "answer")
      }))

    it.effect("not sent: a peer that reads nothing, and the connection is as it was", () =>
      Effect.gen(function*() {
        const [socket] = yield* pair
        yield* clog(socket)
        const before = socket.bytesWritten
        const fiber = yield* start(Effect.flip(NotSent.request(socket, message, Effect.never)))
        yield* TestClock.adjust("2 seconds")
        const error = yield* Fiber.join(fiber)
        assert.isTrue(error instanceof NotSent.NotSent && Cause.isTimeoutError(error.cause))
        assert.deepStrictEqual([socket.bytesWritten, socket.state.write], [before, "open"])
      }))

    it.effect("not sent: a connection that is torn or closed", () =>
      Effect.gen(function*() {
        const [socket] = yield* pair
        yield* Fiber.interrupt(yield* start(Write.writeAll(socket, message)))
        const torn = yield* Effect.flip(NotSent.request(socket, short, Effect.never))
        yield* socket.abort
        const closed = yield* Effect.flip(NotSent.request(socket, short, Effect.never))
        assert.deepStrictEqual([torn._tag, closed._tag], ["NotSent", "NotSent"])
      }))

    it.effect("maybe sent: a part, when the time is over in the middle", () =>
      Effect.gen(function*() {
        const [socket] = yield* pair
        const fiber = yield* start(Effect.flip(NotSent.request(socket, message, Effect.never)))
        yield* TestClock.adjust("2 seconds")
        const error = yield* Fiber.join(fiber)
        assert.isTrue(error instanceof NotSent.MaybeSent)
        if (!(error instanceof NotSent.MaybeSent)) return
        assert.deepStrictEqual([error.transferred, error.total], [socket.bytesWritten, size])
        assert.isTrue(0 < error.transferred && error.transferred < size)
        assert.strictEqual(socket.state.write, "torn")
      }))

    it.effect("maybe sent: all of it, to a server that dies before it answers", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(Effect.flip(NotSent.request(socket, short, Read.readLine(socket))))
        yield* reads(peer, 9)
        yield* peer.abort
        const error = yield* Fiber.join(fiber)
        assert.isTrue(error instanceof NotSent.MaybeSent && error.transferred === 9 && error.total === 9)
      }))

    it.effect("maybe sent: a part, to a server that dies while it reads", () =>
      Effect.gen(function*() {
        const [socket, peer] = yield* pair
        const fiber = yield* start(Effect.flip(NotSent.request(socket, message, Read.readLine(socket))))
        yield* reads(peer, 8)
        yield* peer.abort
        const error = yield* Fiber.join(fiber)
        assert.isTrue(error instanceof NotSent.MaybeSent && 8 <= error.transferred && error.transferred < size)
      }))
  })
}

describe("recipe 3: sending again", () => {
  /** A request that meets these in turn. */
  const meeting = (...errors: ReadonlyArray<NotSent.NotSent | NotSent.MaybeSent | string>) => {
    let attempts = 0
    const request = Effect.suspend(() => {
      const error = errors[attempts++]
      return error === undefined ? Effect.succeed("done") : Effect.fail(error)
    })
    return { request, attempts: () => attempts }
  }
  const notSent = new NotSent.NotSent({ cause: "" })
  const maybeSent = new NotSent.MaybeSent({ transferred: 9, total: 9, cause: "" })
  const outcomeOf = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const fiber = yield* start(effect)
      // A pool looks at a connection for some turns of the event loop before the request begins.
      yield* untilSo(() => fiber.pollUnsafe() !== undefined)
      return yield* Fiber.await(fiber)
    })

  it.effect("what was not sent is sent again", () =>
    Effect.gen(function*() {
      const { attempts, request } = meeting(notSent, notSent)
      const exit = yield* outcomeOf(NotSent.retry(request, { isIdempotent: false }))
      assert.deepStrictEqual([exit, attempts()], [Exit.succeed("done"), 3])
    }))

  it.effect("what was maybe sent is sent again only if twice does no harm", () =>
    Effect.gen(function*() {
      const once = meeting(notSent, maybeSent)
      const exit = yield* outcomeOf(NotSent.retry(once.request, { isIdempotent: false }))
      assert.deepStrictEqual([exit, once.attempts()], [Exit.fail(maybeSent), 2])
      const twice = meeting(notSent, maybeSent)
      const again = yield* outcomeOf(NotSent.retry(twice.request, { isIdempotent: true }))
      assert.deepStrictEqual([again, twice.attempts()], [Exit.succeed("done"), 3])
    }))

  it.effect("what failed for another reason is not", () =>
    Effect.gen(function*() {
      const { attempts, request } = meeting("no")
      const exit = yield* outcomeOf(NotSent.retry(request, { isIdempotent: true }))
      assert.deepStrictEqual([exit, attempts()], [Exit.fail("no"), 1])
    }))

  it.effect("over a pool: a server that dies after it has read gets the request once, or again if that is harmless", () =>
    Effect.gen(function*() {
      let received = 0
      const acceptor = yield* Acceptor.listen(anywhere)
      yield* start(
        Acceptor.serve(acceptor, (socket) =>
          Effect.andThen(
            Read.readLine(socket),
            Effect.suspend(() => ++received % 2 === 1 ? socket.abort : says(socket, "answer\n"))
          ))
      )
      const pool = yield* Pooled.makePool(StreamSocket.connect(acceptor.address))
      const request = Pooled.withConnection(
        pool,
        (socket) => NotSent.request(socket, Buffers.utf8("question\n"), Read.readLine(socket))
      )
      const exit = yield* outcomeOf(NotSent.retry(request, { isIdempotent: false }))
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(received, 1)
      received = 0
      assert.deepStrictEqual(yield* outcomeOf(NotSent.retry(request, { isIdempotent: true })), Exit.succeed("answer"))
      assert.strictEqual(received, 2)
    }).pipe(Effect.provide(MemoryTransport.layer)))
})

describe("recipe 3: the exit of a sending", () => {
  const framing = Framing.text(Framing.lines())
  const long = "x".repeat(40)
  const pair = MemoryTransport.pair({ capacity: 16, linger: 0 })

  it.effect("everything", () =>
    Effect.gen(function*() {
      const [socket] = yield* pair
      assert.strictEqual(NotSent.sent(yield* Effect.exit(Framing.send(socket, framing, "short"))), "everything")
    }))

  it.effect("everything, although it was interrupted", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* pair
      const fiber = yield* start(Cancellation.total(Framing.send(socket, framing, long)))
      fiber.interruptUnsafe()
      yield* reads(peer, 41)
      const exit = yield* Fiber.await(fiber)
      assert.strictEqual(transferOf(exit).transferred, 41)
      assert.strictEqual(NotSent.sent(exit), "everything")
    }))

  it.effect("a part: interrupted, asked, or failed in the middle", () =>
    Effect.gen(function*() {
      const [first] = yield* pair
      const cut = yield* start(Framing.send(first, framing, long))
      yield* Fiber.interrupt(cut)
      const [second] = yield* pair
      const late = yield* start(Cancellation.cancelAfter(Framing.send(second, framing, long), "1 second"))
      yield* TestClock.adjust("1 second")
      const [third, peer] = yield* pair
      const failing = yield* start(Framing.send(third, framing, long))
      yield* peer.abort
      for (const fiber of [cut, late, failing]) assert.strictEqual(NotSent.sent(yield* Fiber.await(fiber)), "a part")
    }))

  it.effect("nothing: interrupted, asked, or failed before the first byte, or refused by the framing", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* MemoryTransport.clogged({ capacity: 16, linger: 0 })
      const cut = yield* start(Framing.send(socket, framing, long))
      yield* Fiber.interrupt(cut)
      const late = yield* start(Cancellation.cancelAfter(Framing.send(socket, framing, long), "1 second"))
      yield* TestClock.adjust("1 second")
      const refused = yield* start(Framing.send(socket, framing, "two\nlines"))
      const failing = yield* start(Framing.send(socket, framing, long))
      yield* peer.abort
      for (const fiber of [cut, late, refused, failing]) {
        assert.strictEqual(NotSent.sent(yield* Fiber.await(fiber)), "nothing")
      }
    }))
})

// ---- 4

describe("recipe 4", () => {
  const options = { idle: "30 seconds", within: "5 seconds" } as const
  const setup = Effect.gen(function*() {
    const [socket, peer] = yield* MemoryTransport.pair({ linger: 0 })
    let pings = 0
    const ping = Effect.suspend(() => {
      pings++
      return ask(socket, "ping")
    })
    return { socket, peer, ping, pings: () => pings }
  })

  it.effect("a peer that answers stays connected", () =>
    Effect.gen(function*() {
      const { peer, ping, pings, socket } = yield* setup
      yield* start(echo(peer))
      const fiber = yield* start(Liveness.alive(socket, ping, options))
      for (let i = 1; i <= 20; i++) {
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(pings(), i)
      }
      assert.isUndefined(fiber.pollUnsafe())
      assert.strictEqual(socket.state.socket, "open")
    }))

  it.effect("a peer that is heard of is not asked", () =>
    Effect.gen(function*() {
      const { peer, ping, pings, socket } = yield* setup
      yield* start(Effect.forever(Read.readLine(socket)))
      yield* start(Liveness.alive(socket, ping, options))
      for (let i = 0; i < 20; i++) {
        yield* says(peer, "news\n")
        yield* TestClock.adjust("30 seconds")
      }
      assert.strictEqual(pings(), 0)
    }))

  it.effect("a peer that hangs is given up, and every operation ends", () =>
    Effect.gen(function*() {
      const { ping, socket } = yield* setup
      const fiber = yield* start(Liveness.alive(socket, ping, options))
      const waiting = yield* start(Read.readLine(socket))
      yield* TestClock.adjust("34999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(
        Exit.isFailure(exit) &&
          exit.cause.reasons.some((reason) => Cause.isFailReason(reason) && Cause.isTimeoutError(reason.error))
      )
      assert.strictEqual(ending(yield* Fiber.await(waiting)), "Closed")
      assert.strictEqual(socket.state.socket, "closed")
    }))

  it.effect("a ping that cannot leave is a ping that is not answered", () =>
    Effect.gen(function*() {
      const [socket] = yield* MemoryTransport.clogged({ capacity: 16, linger: 0 })
      yield* start(Liveness.alive(socket, ask(socket, "ping"), options))
      yield* TestClock.adjust("35 seconds")
      assert.strictEqual(socket.state.socket, "closed")
    }))

  it.effect("a session ends with its work, or with its peer", () =>
    Effect.gen(function*() {
      const { ping, socket } = yield* setup
      assert.strictEqual(yield* Liveness.session(socket, Effect.succeed("work"), ping), "work")
      assert.strictEqual(socket.state.socket, "open")
      const hanging = yield* start(Liveness.session(socket, Effect.never, ping))
      yield* TestClock.adjust("35 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(hanging)))
      assert.strictEqual(socket.state.socket, "closed")
    }))
})

// ---- 5

describe("recipe 5", () => {
  const setup = Effect.gen(function*() {
    const [socket, peer] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
    return { socket, peer, ask: Deadline.makeClient(socket) }
  })
  const long = "x".repeat(40)

  it.effect("an answer that comes too late is not taken for the next one", () =>
    Effect.gen(function*() {
      const { ask, peer, socket } = yield* setup
      for (const question of ["one", "two"]) {
        const late = yield* start(ask(question))
        yield* TestClock.adjust("1 second")
        const { reason } = failure(yield* Fiber.await(late))
        assert.isTrue(reason._tag === "OperationAborted" && reason.type === "total" && reason.deadline === true)
      }
      const next = yield* start(ask("three"))
      assert.strictEqual(yield* reads(peer, 14), "one\ntwo\nthree\n")
      yield* says(peer, "1\n2\n3\n")
      assert.strictEqual(yield* Fiber.join(next), "3")
      assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "open" })
    }))

  it.effect("a question that has not begun to leave never does", () =>
    Effect.gen(function*() {
      const { ask, peer, socket } = yield* setup
      yield* clog(socket)
      const late = yield* start(ask("one"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(ending(yield* Fiber.await(late)), "OperationAborted")
      yield* reads(peer, 16)
      const next = yield* start(ask("two"))
      assert.strictEqual(yield* reads(peer, 4), "two\n")
      yield* says(peer, "2\n")
      assert.strictEqual(yield* Fiber.join(next), "2")
    }))

  it.effect("a question in the middle of its bytes leaves whole, and its answer is dropped", () =>
    Effect.gen(function*() {
      const { ask, peer } = yield* setup
      const late = yield* start(ask(long))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(late.pollUnsafe())
      assert.strictEqual(yield* reads(peer, 41), `${long}\n`)
      assert.strictEqual(ending(yield* Fiber.await(late)), "OperationAborted")
      const next = yield* start(ask("two"))
      yield* says(peer, "1\n2\n")
      assert.strictEqual(yield* Fiber.join(next), "2")
    }))

  it.effect("the same for an interruption", () =>
    Effect.gen(function*() {
      const { ask, peer } = yield* setup
      const middle = yield* start(ask(long))
      middle.interruptUnsafe()
      assert.strictEqual(yield* reads(peer, 41), `${long}\n`)
      assert.strictEqual(ending(yield* Fiber.await(middle)), "Interrupt")
      const waiting = yield* start(ask("two"))
      yield* Fiber.interrupt(waiting)
      const next = yield* start(ask("three"))
      yield* says(peer, "1\n2\n3\n")
      assert.strictEqual(yield* Fiber.join(next), "3")
    }))

  it.effect("a peer that reads nothing more tears the connection in the end", () =>
    Effect.gen(function*() {
      const { ask, socket } = yield* setup
      const late = yield* start(ask(long))
      yield* TestClock.adjust("5 seconds")
      const { reason } = failure(yield* Fiber.await(late))
      assert.isTrue(reason._tag === "OperationAborted" && reason.type === "terminal" && reason.transferred === 16)
      assert.strictEqual(socket.state.write, "torn")
    }))

  it.effect("questions of many fibers are asked in turn", () =>
    Effect.gen(function*() {
      const { ask, peer } = yield* setup
      yield* start(echo(peer))
      const words = Array.from({ length: 30 }, (_, index) => `${index}`)
      assert.deepStrictEqual(yield* Effect.forEach(words, ask, { concurrency: "unbounded" }), words)
    }))
})

// ---- 6

describe("recipe 6", () => {
  const framing = Framing.text(Framing.lines())
  const big = "x".repeat(100)
  /** Answers every line with a long one. */
  const handler = (socket: StreamSocket.StreamSocket) =>
    Framing.receive(socket, framing).pipe(
      Effect.andThen(Framing.send(socket, framing, big)),
      Effect.forever,
      Pull.catchDone(() => Effect.void)
    )
  const layer = MemoryTransport.layerWith({ capacity: 64 })

  const setup = Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(anywhere)
    const server = yield* Shutdown.serve(acceptor, handler)
    /** A client that has asked so often and has read nothing. */
    const client = (questions: number) =>
      Effect.tap(StreamSocket.connect(acceptor.address), (socket) => says(socket, "?\n".repeat(questions)))
    return { acceptor, client, stop: server.stop }
  })

  it.effect("without clients it stops at once", () =>
    Effect.gen(function*() {
      const { stop } = yield* setup
      assert.strictEqual((yield* stop).endedBy, "total")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("idle clients are let go at once, and no more connections are accepted", () =>
    Effect.gen(function*() {
      const { acceptor, client, stop } = yield* setup
      const idle = yield* Effect.all([client(0), client(0)])
      yield* turns()
      const { endedBy, steps } = yield* stop
      assert.strictEqual(endedBy, "total")
      assert.strictEqual(steps[0]?.ended.length, 2)
      for (const socket of idle) assertBytes(yield* Read.readAll(socket), "")
      const exit = yield* Effect.exit(StreamSocket.connect(acceptor.address))
      assert.strictEqual(failure(exit).reason._tag, "ConnectionRefused")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("a client that is being answered gets its answer whole, and is let go after it", () =>
    Effect.gen(function*() {
      const { client, stop } = yield* setup
      const busy = yield* client(1)
      yield* turns()
      const stopping = yield* start(stop)
      assert.strictEqual(yield* Read.readLine(busy), big)
      yield* turns()
      assert.isUndefined(stopping.pollUnsafe())
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(stopping)).endedBy, "partial")
      assertBytes(yield* Read.readAll(busy), "")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("a client that reads nothing is cut after ten seconds", () =>
    Effect.gen(function*() {
      const { client, stop } = yield* setup
      const stuck = yield* client(2)
      yield* turns()
      const stopping = yield* start(stop)
      yield* TestClock.adjust("9999 millis")
      assert.isUndefined(stopping.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const { endedBy, steps } = yield* Fiber.join(stopping)
      assert.strictEqual(endedBy, "terminal")
      assert.deepStrictEqual(steps.map(({ ended, continued }) => [ended.length, continued.length]), [[0, 1], [0, 1], [
        1,
        0
      ]])
      const { bytes, end } = yield* readToEnd(stuck)
      assert.isTrue(0 < bytes.byteLength && bytes.byteLength < big.length)
      assert.strictEqual(end, "ConnectionReset")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("a handler that is busy with something else is interrupted in the end", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anywhere)
      const { stop } = yield* Shutdown.serve(acceptor, () => Effect.never)
      const client = yield* StreamSocket.connect(acceptor.address)
      yield* turns()
      const stopping = yield* start(stop)
      yield* TestClock.adjust("15 seconds")
      assert.isUndefined((yield* Fiber.join(stopping)).endedBy)
      assertBytes(yield* Read.readAll(client), "")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("it stops as well when it runs as the program is interrupted", () =>
    Effect.gen(function*() {
      const { client, stop } = yield* setup
      const idle = yield* client(0)
      yield* turns()
      const program = yield* start(Effect.onInterrupt(Effect.never, () => stop))
      yield* Fiber.interrupt(program)
      assertBytes(yield* Read.readAll(idle), "")
    }).pipe(Effect.scoped, Effect.provide(layer)))
})

/** The Redis client of `examples/redis/resp.ts`, and `examples/07-redis.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { expect } from "vitest"
import * as Redis from "../../examples/redis/resp.ts"
import { Acceptor, Buffers, Cancellation, Framing, Read, SocketError, StreamSocket, Write } from "../../src/index.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { anyPort } from "../support/addresses.ts"
import { assertBytes } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { eventually, start } from "../support/waiting.ts"
import * as Server from "./redis/server.ts"
import { beside, play, recorder, type Session, type Step } from "./redis/session.ts"

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url))

if (!Server.isInstalled) console.log("redis-server is not installed here: only the recorded session is spoken to")

/** Replies with text in place of bytes, as assertions want them; of errors the code, because servers differ in words. */
const plain = (reply: Redis.Reply): unknown =>
  reply instanceof Uint8Array
    ? Buffers.toUtf8(reply)
    : reply instanceof Redis.RedisError
    ? reply.message.split(" ")[0]
    : Array.isArray(reply)
    ? reply.map(plain)
    : reply

const everyByte = Uint8Array.from({ length: 256 }, (_, index) => index)

/** The server's refusal as a reply. */
const refusal = (error: Redis.RedisError | Redis.Unanswered) =>
  error._tag === "RedisError" ? Effect.succeed(error) : Effect.fail(error)

// ---- a server, real or recorded

/** What a client does with a server; every answer is checked. What it sends in one step depends on no answer of it. */
const conversation = <R>(
  connect: Effect.Effect<StreamSocket.StreamSocket, SocketError.SocketError, R>,
  step: Step
) =>
  Effect.gen(function*() {
    const redis = yield* Effect.flatMap(connect, Redis.make)
    const alone = yield* Effect.flatMap(connect, Redis.make)
    const together = { concurrency: "unbounded" } as const
    const ask = (...command: Redis.Command) => step(String(command[0]), Effect.map(redis(...command), plain))

    // Any bytes go there and back, and nothing is null.
    const bytes = Buffers.concat([everyByte, Buffers.utf8("\r\n$-1\r\n")])
    assert.strictEqual(yield* ask("SET", "bytes", bytes), "OK")
    const found = yield* step("GET", redis("GET", "bytes"))
    assertBytes(found instanceof Uint8Array ? found : assert.fail("no bytes"), bytes)
    assert.strictEqual(yield* ask("SET", "empty", ""), "OK")
    assert.strictEqual(yield* ask("GET", "empty"), "")
    assert.isNull(yield* ask("GET", "nothing"))
    assert.isNull(yield* ask("BLPOP", "nothing", "0.01"))

    // Integers keep all of their digits.
    yield* ask("SET", "number", "-9007199254740992")
    assert.strictEqual(yield* ask("INCR", "number"), -9007199254740991)
    yield* ask("SET", "number", "9223372036854775806")
    assert.strictEqual(yield* ask("INCR", "number"), 9223372036854775807n)

    // Arrays hold anything, arrays and errors as well.
    const script = "return {1, {2, {'three', false}}, {}, {err = 'ERR four'}, {ok = 'five'}}"
    const nested = yield* ask("EVAL", script, "0")
    assert.deepStrictEqual(nested, [1, [2, ["three", null]], [], "ERR", "five"])
    const transaction = [alone("MULTI"), alone("INCR", "bytes"), alone("ECHO", "after"), alone("EXEC")]
    assert.deepStrictEqual((yield* step("a transaction", Effect.all(transaction, together))).map(plain), [
      "OK",
      "QUEUED",
      "QUEUED",
      ["ERR", "after"]
    ])

    // An error fails its command, and no other.
    const commands = [redis("ECHO", "one"), redis("INCR", "bytes"), redis("NONSENSE"), redis("ECHO", "two")]
    const said = yield* step("errors", Effect.all(commands.map((command) => Effect.catch(command, refusal)), together))
    assert.deepStrictEqual(said.map(plain), ["one", "ERR", "ERR", "two"])

    // A hundred fibers at once, each with its own answer.
    const words = Array.from({ length: 100 }, (_, index) => `word ${index}`)
    const echoes = Effect.all(words.map((word) => redis("ECHO", word)), together)
    assert.deepStrictEqual((yield* step("a hundred fibers", echoes)).map(plain), words)

    // A command that is interrupted while it waits for its answer harms no other.
    yield* step(
      "interruption",
      Effect.gen(function*() {
        const before = yield* start(redis("ECHO", "before"))
        const cut = yield* start(redis("ECHO", "cut"))
        const behind = yield* start(redis("ECHO", "behind"))
        cut.interruptUnsafe()
        assert.strictEqual(plain(yield* Fiber.join(before)), "before")
        assert.strictEqual(plain(yield* Fiber.join(behind)), "behind")
        assert.strictEqual(ending(yield* Fiber.await(cut)), "Interrupt")
      })
    )

    const subscribe = (...channels: Array<string>) =>
      Effect.flatMap(connect, (socket) => Redis.subscribe(socket, ...channels))
    const messages = yield* step("SUBSCRIBE", subscribe("news", "sport"))
    yield* step(
      "PUBLISH",
      Effect.gen(function*() {
        const heard: Array<unknown> = []
        const enough = yield* Deferred.make<void>()
        const listener = yield* start(Stream.runForEach(messages, (message) => {
          heard.push(plain(message))
          return heard.length === 3 ? Deferred.succeed(enough, undefined) : Effect.void
        }))
        const publish = [["news", "one"], ["nobody", "two"], ["sport", "three"], ["news", "four"]]
          .map((message) => redis("PUBLISH", ...message))
        assert.deepStrictEqual(yield* Effect.all(publish, together), [1, 0, 1, 1])
        yield* Deferred.await(enough)
        yield* Fiber.interrupt(listener)
        assert.deepStrictEqual(heard, [
          ["message", "news", "one"],
          ["message", "sport", "three"],
          ["message", "news", "four"]
        ])
      })
    )

    // A subscription that the server refuses fails.
    yield* ask("ACL", "SETUSER", "default", "resetchannels")
    assert.include((yield* step("SUBSCRIBE", Effect.flip(subscribe("news")))).message, "NOPERM")
  })

const sessionFile = "./redis/session.json"

describe("a recorded session", () => {
  it.effect("a client that does the same gets the same answers", () =>
    Effect.gen(function*() {
      const session: Session = JSON.parse(readFileSync(file(sessionFile), "utf8"))
      const acceptor = yield* Acceptor.listen(anyPort)
      const connect = StreamSocket.connect(acceptor.address)
      yield* beside(Effect.scoped(conversation(connect, (_name, effect) => effect)), play(acceptor, session))
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("a client that says something else is told where", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anyPort)
      const redis = yield* Effect.flatMap(StreamSocket.connect(acceptor.address), Redis.make)
      const session = [{ step: "", connection: 1, request: "*1\r\n$4\r\nPING\r\n", answer: "+PONG\r\n" }]
      const exit = yield* Effect.exit(beside(redis("PONG"), play(acceptor, session)))
      assert.isTrue(Exit.isFailure(exit) && String(exit.cause).includes("different at 9"))
    }).pipe(Effect.provide(MemoryTransport.layer)))
})

const real = Server.isInstalled ? describe : describe.skip

real("a Redis server", () => {
  it.live("says what was recorded (record anew with vitest -u)", () =>
    leavingNothing(Effect.gen(function*() {
      const { path } = yield* Server.start
      const { handler, session, step } = recorder(StreamSocket.connect(NetAddress.unixPathAddress(path)))
      const acceptor = yield* Acceptor.listen(NetAddress.unixPathAddress(`${path}.proxy`))
      yield* start(Acceptor.serve(acceptor, handler))
      yield* Effect.scoped(conversation(StreamSocket.connect(acceptor.address), step))
      const text = `${JSON.stringify(session, null, 2)}\n`
      yield* Effect.promise(() => expect(text).toMatchFileSnapshot(sessionFile))
    })).pipe(Effect.provide(NodeTransport.layer)))

  const connected = Effect.gen(function*() {
    const { path, pid } = yield* Server.start
    const connect = StreamSocket.connect(NetAddress.unixPathAddress(path), { linger: 0 })
    return { connect, path, pid }
  })

  // As much as no buffer on the way holds, so that it is in the middle when it is interrupted.
  const big = new Uint8Array(16 * 1_048_576).fill(65)

  it.live("a command that is interrupted in the middle of its bytes leaves whole, and harms no other", () =>
    leavingNothing(Effect.gen(function*() {
      const { connect } = yield* connected
      const socket = yield* connect
      const redis = yield* Redis.make(socket, "1 minute")
      const before = yield* start(redis("ECHO", "before"))
      const cut = yield* start(redis("SET", "big", big))
      const behind = yield* start(redis("STRLEN", "big"))
      assert.isTrue(0 < socket.bytesWritten && socket.bytesWritten < big.byteLength)
      cut.interruptUnsafe()
      assert.strictEqual(plain(yield* Fiber.join(before)), "before")
      assert.strictEqual(yield* Fiber.join(behind), big.byteLength)
      assert.strictEqual(transferOf(yield* Fiber.await(cut)).guarantee, "total")
    })).pipe(Effect.provide(NodeTransport.layer)))

  it.live("a command that is cut in the middle of its bytes does not run, and what was sent before it is answered", () =>
    leavingNothing(Effect.gen(function*() {
      const { connect } = yield* connected
      const redis = yield* Effect.flatMap(connect, (socket) => Redis.make(socket, 0))
      const before = yield* start(redis("ECHO", "before"))
      const cut = yield* start(redis("SET", "big", big))
      const behind = yield* start(Effect.flip(redis("ECHO", "behind")))
      cut.interruptUnsafe()
      assert.strictEqual(transferOf(yield* Fiber.await(cut)).guarantee, "terminal")
      assert.strictEqual(plain(yield* Fiber.join(before)), "before")
      const error = yield* Fiber.join(behind)
      assert.isTrue(error._tag === "Unanswered" && error.ran === "no")
      assert.include(error.message, "the stream is torn")
      const other = yield* Effect.flatMap(connect, Redis.make)
      assert.strictEqual(yield* other("EXISTS", "big"), 0)
    })).pipe(Effect.provide(NodeTransport.layer)))

  it.live("ten thousand commands of as many fibers", () =>
    leavingNothing(Effect.gen(function*() {
      const { connect } = yield* connected
      const redis = yield* Effect.flatMap(connect, Redis.make)
      const answers = yield* Effect.all(
        Array.from({ length: 10_000 }, () => redis("INCR", "n")),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(answers, Array.from({ length: 10_000 }, (_, index) => index + 1))
    })).pipe(Effect.provide(NodeTransport.layer)))

  it.live("a server that is killed: commands without an answer may have run, and later ones have not", () =>
    leavingNothing(Effect.gen(function*() {
      const { connect, pid } = yield* connected
      const redis = yield* Effect.flatMap(connect, Redis.make)
      // It would answer in a minute.
      const waiting = yield* start(Effect.flip(redis("BLPOP", "never", "60")))
      const behind = yield* start(Effect.flip(redis("ECHO", "behind")))
      yield* Effect.sync(() => process.kill(pid, "SIGKILL"))
      const errors = [yield* Fiber.join(waiting), yield* Fiber.join(behind), yield* Effect.flip(redis("ECHO", "later"))]
      assert.deepStrictEqual(
        errors.map((error) => error._tag === "Unanswered" ? error.ran : error.message),
        ["maybe", "maybe", "no"]
      )
    })).pipe(Effect.provide(NodeTransport.layer)))

  it.live("the example prints what it says", () =>
    leavingNothing(Effect.gen(function*() {
      const { path } = yield* Server.start
      const { code, errors, output } = yield* run(file("../../examples/07-redis.ts"), "--unix", path)
      assert.strictEqual(errors, "")
      assert.deepStrictEqual(output.trimEnd().split("\n"), [
        "1000 commands at once, the last answer is 1000",
        "published: [message, effect-asio:news, one]",
        "published: [message, effect-asio:news, two]",
        "before the interrupted command: 1000",
        "behind it: 8388608 bytes were set"
      ])
      assert.strictEqual(code, 0)
    })).pipe(Effect.provide(NodeTransport.layer)))

  it.live("nothing of the server is left", () =>
    Effect.gen(function*() {
      const { path, pid } = yield* Effect.scoped(Server.start)
      assert.isFalse(existsSync(path))
      assert.throws(() => process.kill(pid, 0))
    }))
})

it.live("without a server, the example says so and fails", () =>
  Effect.gen(function*() {
    const path = file("./redis/no-such.sock")
    const { code, errors } = yield* run(file("../../examples/07-redis.ts"), "--unix", path)
    assert.include(errors, "no such address")
    assert.strictEqual(code, 1)
  }))

const run = (...args: ReadonlyArray<string>) =>
  Effect.callback<{ readonly code: number | null; readonly output: string; readonly errors: string }>((resume) => {
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    let errors = ""
    child.stdout.on("data", (chunk) => output += chunk)
    child.stderr.on("data", (chunk) => errors += chunk)
    child.once("close", (code) => resume(Effect.succeed({ code, output, errors })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

// ---- interruption and loss, in memory, to the byte

const bytesOf = (...command: Redis.Command): string => {
  const encoded = command.map((part) => `$${part.length}\r\n${String(part)}\r\n`)
  return `*${command.length}\r\n${encoded.join("")}`
}

const reads = (peer: StreamSocket.ReadStream, expected: string) =>
  Effect.gen(function*() {
    const target = new Uint8Array(expected.length)
    yield* Read.readExactly(peer, target)
    assertBytes(target, expected)
  })

const says = (peer: StreamSocket.WriteStream, text: string) => Write.writeAll(peer, Buffers.utf8(text))

/** A client with room for 32 bytes on their way to the peer. */
const small = Effect.gen(function*() {
  const [socket, peer] = yield* MemoryTransport.pair({ capacity: 32, linger: 0 })
  return { socket, peer, redis: yield* Redis.make(socket, "2 seconds") }
})

const unanswered = (error: Redis.RedisError | Redis.Unanswered): Redis.Unanswered =>
  error._tag === "Unanswered" ? error : assert.fail(`expected Unanswered, got ${error.message}`)

const long = "x".repeat(40)

describe("an interrupted command", () => {
  it.effect("in line: never leaves, and has no place among the answers", () =>
    Effect.gen(function*() {
      const { peer, redis } = yield* small
      const first = yield* start(redis("SET", "a", long))
      const cut = yield* start(redis("GET", "b"))
      const last = yield* start(redis("GET", "c"))
      yield* Fiber.interrupt(cut)
      yield* reads(peer, bytesOf("SET", "a", long) + bytesOf("GET", "c"))
      yield* says(peer, "+OK\r\n$1\r\nc\r\n")
      assert.deepStrictEqual([yield* Fiber.join(first), plain(yield* Fiber.join(last))], ["OK", "c"])
    }))

  it.effect("whose first byte has no room: never leaves, and has no place among the answers", () =>
    Effect.gen(function*() {
      const { peer, redis, socket } = yield* small
      const first = yield* start(redis("ECHO", "12345678901"))
      assert.strictEqual(socket.bytesWritten, 32)
      const cut = yield* start(redis("GET", "b"))
      yield* Fiber.interrupt(cut)
      assert.strictEqual(transferOf(yield* Fiber.await(cut)).guarantee, "total")
      assert.strictEqual(socket.state.write, "open")
      const last = yield* start(redis("GET", "c"))
      yield* reads(peer, bytesOf("ECHO", "12345678901") + bytesOf("GET", "c"))
      yield* says(peer, "+first\r\n+last\r\n")
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(last)], ["first", "last"])
    }))

  it.effect("in the middle of its bytes: leaves whole, its answer is read and dropped", () =>
    Effect.gen(function*() {
      const { peer, redis, socket } = yield* small
      const cut = yield* start(redis("SET", "a", long))
      const last = yield* start(redis("GET", "c"))
      cut.interruptUnsafe()
      assert.strictEqual(socket.bytesWritten, 32)
      assert.isUndefined(cut.pollUnsafe())
      yield* reads(peer, bytesOf("SET", "a", long) + bytesOf("GET", "c"))
      const size = bytesOf("SET", "a", long).length
      const transfer = transferOf(yield* Fiber.await(cut))
      assert.deepStrictEqual(transfer, { transferred: size, total: size, guarantee: "total" })
      yield* says(peer, "+OK\r\n+c\r\n")
      assert.strictEqual(yield* Fiber.join(last), "c")
    }))

  it.effect("that cannot be finished in time tears: what was sent is answered, what was not fails and says so", () =>
    Effect.gen(function*() {
      const { peer, redis, socket } = yield* small
      const before = yield* start(redis("GET", "a"))
      const cut = yield* start(redis("SET", "b", long))
      const behind = yield* start(Effect.flip(redis("GET", "c")))
      cut.interruptUnsafe()
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(cut.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(transferOf(yield* Fiber.await(cut)).guarantee, "terminal")
      const later = Effect.flip(redis("GET", "d"))
      for (const error of [unanswered(yield* Fiber.join(behind)), unanswered(yield* later)]) {
        assert.strictEqual(error.ran, "no")
        assert.isTrue(SocketError.isSocketError(error.cause) && error.cause.reason._tag === "Torn")
        assert.include(error.message, "an earlier write stopped after 12 of 67 bytes")
      }
      yield* reads(peer, (bytesOf("GET", "a") + bytesOf("SET", "b", long)).slice(0, 32))
      yield* says(peer, "+a\r\n")
      assert.strictEqual(yield* Fiber.join(before), "a")
      assert.deepStrictEqual(socket.state, { socket: "open", read: "open", write: "torn" })
    }))

  it.effect("by a time-out, or by its answer: whoever comes first decides, and no other command minds", () =>
    Effect.gen(function*() {
      const { peer, redis } = yield* small
      const late = yield* start(Effect.timeoutOption(redis("GET", "a"), "1 second"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(late))._tag, "None")
      const next = yield* start(Effect.timeoutOption(redis("GET", "b"), "1 second"))
      yield* reads(peer, bytesOf("GET", "a") + bytesOf("GET", "b"))
      yield* says(peer, "+a\r\n+b\r\n")
      assert.strictEqual(Option.getOrThrow(yield* Fiber.join(next)), "b")
    }))
})

describe("a fiber whose turn ends while it sends", () => {
  /** Commands that come at each of the last steps of a turn, so that some have to wait for the next one in between. */
  const atEachStep = (
    test: (first: Fiber.Fiber<Redis.Reply, Redis.RedisError | Redis.Unanswered>) => Effect.Effect<unknown>
  ) =>
    Effect.gen(function*() {
      const [socket, peer] = yield* MemoryTransport.pair()
      const redis = yield* Redis.make(socket)
      // The peer answers each GET with its key, in the order in which they come.
      yield* start(Effect.forever(Effect.gen(function*() {
        const command = new Uint8Array(20)
        yield* Read.readExactly(peer, command)
        yield* says(peer, `+${String.fromCharCode(command[17]!)}\r\n`)
      })))
      for (let steps = 0; steps < 100; steps++) {
        const first = Effect.gen(function*() {
          for (let i = 0; i < steps; i++) yield* Effect.sync(() => i)
          return yield* redis("GET", "a")
        })
        const a = yield* start(Effect.provideService(first, Scheduler.MaxOpsBeforeYield, 100))
        yield* test(a)
        assert.strictEqual(yield* redis("GET", "b"), "b")
        assert.isTrue(Exit.isFailure(yield* Fiber.await(a)) || (yield* Fiber.join(a)) === "a")
      }
    })

  it.effect("keeps its place: every command gets its own answer", () => atEachStep(() => Effect.void))

  it.effect("and is interrupted there: no other command gets its answer", () =>
    atEachStep((first) => Effect.sync(() => first.interruptUnsafe())))
})

describe("a request of a signal", () => {
  it.effect("total: takes out the command that has not begun to leave, and only that one", () =>
    Effect.gen(function*() {
      const { peer, redis } = yield* small
      yield* start(redis("ECHO", "12345678901"))
      const signal = Cancellation.makeSignal()
      const cut = yield* start(Effect.flip(Cancellation.withSignal(redis("GET", "b"), signal)))
      assert.strictEqual((yield* signal.emit("total")).ended.length, 1)
      assert.strictEqual(unanswered(yield* Fiber.join(cut)).ran, "no")
      const last = yield* start(redis("GET", "c"))
      yield* reads(peer, bytesOf("ECHO", "12345678901") + bytesOf("GET", "c"))
      yield* says(peer, "+first\r\n+last\r\n")
      assert.strictEqual(yield* Fiber.join(last), "last")
    }))

  it.effect("partial: does not cut a command, so that no other lands inside it", () =>
    Effect.gen(function*() {
      const { peer, redis, socket } = yield* small
      const signal = Cancellation.makeSignal()
      const first = yield* start(Cancellation.withSignal(redis("SET", "a", long), signal))
      assert.strictEqual(socket.bytesWritten, 32)
      assert.strictEqual((yield* signal.emit("partial")).continued.length, 1)
      yield* reads(peer, bytesOf("SET", "a", long))
      yield* says(peer, "+OK\r\n")
      assert.strictEqual(yield* Fiber.join(first), "OK")
    }))
})

describe("a connection that is lost", () => {
  /** One command that has left, one in the middle of its bytes, and one in line. */
  const busy = Effect.gen(function*() {
    const client = yield* small
    const fibers = yield* Effect.forEach(
      [client.redis("GET", "a"), client.redis("SET", "b", long), client.redis("GET", "c")],
      (command) => start(Effect.flip(command))
    )
    return { ...client, fibers }
  })
  const tell = (fibers: ReadonlyArray<Fiber.Fiber<Redis.RedisError | Redis.Unanswered, unknown>>) =>
    Effect.map(Effect.forEach(fibers, Fiber.join), (errors) => errors.map((error) => unanswered(error).ran))

  it.effect("closed by the server: only what left whole may have run", () =>
    Effect.gen(function*() {
      const { fibers, peer, redis } = yield* busy
      yield* peer.shutdownWrite
      assert.deepStrictEqual(yield* tell(fibers), ["maybe", "no", "no"])
      const later = unanswered(yield* Effect.flip(redis("GET", "d")))
      assert.deepStrictEqual([later.ran, later.message], ["no", "the server has ended the connection"])
    }))

  it.effect("reset: the same, and the cause says so", () =>
    Effect.gen(function*() {
      const { fibers, peer, redis } = yield* busy
      yield* peer.abort
      assert.deepStrictEqual(yield* tell(fibers), ["maybe", "no", "no"])
      assert.include(unanswered(yield* Effect.flip(redis("GET", "d"))).message, "connection reset by the peer")
    }))

  it.effect("ended inside an answer: the same", () =>
    Effect.gen(function*() {
      const { fibers, peer, redis } = yield* busy
      yield* says(peer, "*2\r\n$1\r\na\r\n")
      yield* peer.shutdownWrite
      assert.deepStrictEqual(yield* tell(fibers), ["maybe", "no", "no"])
      assert.include(unanswered(yield* Effect.flip(redis("GET", "d"))).message, "ended early")
    }))

  it.effect("no RESP: the error says where", () =>
    Effect.gen(function*() {
      const { fibers, peer, redis } = yield* busy
      yield* says(peer, "+a\r\nHTTP/1.1 400\r\n")
      const answered = yield* Fiber.await(fibers[0]!)
      assert.isTrue(Exit.isFailure(answered))
      assert.deepStrictEqual(yield* tell(fibers.slice(1)), ["no", "no"])
      const { message } = unanswered(yield* Effect.flip(redis("GET", "d")))
      assert.include(message, `bad framing at byte 4: no type of RESP: "H"`)
    }))

  it.effect("an answer that nobody asked for: it is lost before a wrong command gets it", () =>
    Effect.gen(function*() {
      const { peer, redis, socket } = yield* small
      yield* says(peer, "-ERR max number of clients reached\r\n")
      yield* eventually("the end", () => socket.state.socket === "closed")
      const error = unanswered(yield* Effect.flip(redis("PING")))
      assert.strictEqual(error.ran, "no")
      assert.include(error.message, "ERR max number of clients reached")
    }))

  it.effect("by the end of its scope: those that wait are told", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const [socket, peer] = yield* MemoryTransport.pair()
      const redis = yield* Scope.provide(Redis.make(socket), scope)
      const waiting = yield* start(Effect.flip(redis("GET", "a")))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(unanswered(yield* Fiber.join(waiting)).ran, "maybe")
      assertBytes(yield* Read.readAll(peer), bytesOf("GET", "a"))
    }))

  it.effect("a command over the limit fails alone, before its first byte", () =>
    Effect.gen(function*() {
      const { peer, redis } = yield* small
      const error = unanswered(yield* Effect.flip(redis("SET", "a", new Uint8Array(64 * 1_048_576))))
      assert.strictEqual(error.ran, "no")
      const next = yield* start(redis("GET", "a"))
      yield* reads(peer, bytesOf("GET", "a"))
      yield* says(peer, "+a\r\n")
      assert.strictEqual(yield* Fiber.join(next), "a")
    }))
})

// ---- the framing

const line = fc.string({ unit: fc.constantFrom("a", "b", " ", "ä", "$", "*", "-", "+", ":") })
const { reply } = fc.letrec<{ reply: Redis.Reply }>((tie) => ({
  reply: fc.oneof(
    { maxDepth: 4 },
    line,
    fc.maxSafeInteger(),
    fc.bigInt({ min: 2n ** 60n, max: 2n ** 63n - 1n }),
    fc.uint8Array({ maxLength: 40 }),
    fc.constant(null),
    line.map((message) => new Redis.RedisError({ message })),
    fc.array(tie("reply"), { maxLength: 5 })
  )
}))

/** As a server writes it. */
const written = (value: Redis.Reply): Uint8Array => {
  if (value === null) return Buffers.utf8("$-1\r\n")
  if (typeof value === "string") return Buffers.utf8(`+${value}\r\n`)
  if (typeof value === "number" || typeof value === "bigint") return Buffers.utf8(`:${value}\r\n`)
  if (value instanceof Redis.RedisError) return Buffers.utf8(`-${value.message}\r\n`)
  if (value instanceof Uint8Array) {
    return Buffers.concat([Buffers.utf8(`$${value.byteLength}\r\n`), value, Buffers.utf8("\r\n")])
  }
  return Buffers.concat([Buffers.utf8(`*${value.length}\r\n`), ...value.map(written)])
}

/** With bytes that compare by content. */
const comparable = (value: Redis.Reply): unknown =>
  value instanceof Uint8Array
    ? Buffer.from(value).toString("hex")
    : value instanceof Redis.RedisError
    ? { error: value.message }
    : Array.isArray(value)
    ? value.map(comparable)
    : value

describe("RESP", () => {
  const property = <A>(arbitrary: fc.Arbitrary<A>, test: (value: A) => Effect.Effect<void, unknown, Scope.Scope>) =>
    Effect.promise(() =>
      fc.assert(fc.asyncProperty(arbitrary, (value) => Effect.runPromise(Effect.scoped(test(value)))))
    )

  it.live("any replies arrive as they are, however their bytes are cut", () =>
    property(
      fc.tuple(fc.array(reply, { maxLength: 8 }), fc.nat(), fc.integer({ min: 1, max: 64 })),
      ([sent, seed, chunk]) =>
        Effect.gen(function*() {
          const [socket, peer] = yield* MemoryTransport.pair({ seed, chunk })
          yield* start(Effect.andThen(Write.writeAll(peer, sent.map(written)), peer.shutdownWrite))
          const received = yield* Stream.runCollect(Framing.stream(socket, Redis.resp()))
          assert.deepStrictEqual(received.map(comparable), sent.map(comparable))
        })
    ))

  it.live("one that is interrupted again and again loses nothing", () =>
    property(fc.tuple(reply, fc.nat()), ([sent, seed]) =>
      Effect.gen(function*() {
        const [socket, peer] = yield* MemoryTransport.pair({ seed, chunk: 3 })
        const framing = Redis.resp()
        const bytes = written(sent)
        for (const byte of bytes.subarray(0, -1)) {
          const cut = yield* start(Framing.receive(socket, framing))
          yield* Write.writeAll(peer, Uint8Array.of(byte))
          yield* Fiber.interrupt(cut)
          assert.strictEqual(ending(yield* Fiber.await(cut)), "Interrupt")
        }
        yield* Write.writeAll(peer, bytes.subarray(-1))
        assert.deepStrictEqual(comparable(yield* Framing.receive(socket, framing)), comparable(sent))
      })))

  it.live("every truncation is an unexpected end, and every noise a typed error", () =>
    property(
      fc.tuple(reply, fc.nat(), fc.uint8Array({ maxLength: 200 })),
      ([sent, at, noise]) =>
        Effect.gen(function*() {
          const whole = written(sent)
          const ends = function*(bytes: Uint8Array) {
            const [socket, peer] = yield* MemoryTransport.pair({ chunk: 7 })
            yield* start(Effect.andThen(Write.writeAll(peer, bytes), peer.shutdownWrite))
            return ending(yield* Effect.exit(Stream.runDrain(Framing.stream(socket, Redis.resp()))))
          }
          assert.strictEqual(yield* ends(whole.subarray(0, 1 + at % (whole.byteLength - 1))), "UnexpectedEof")
          const noisy = yield* ends(Buffers.concat([whole, noise]))
          assert.isTrue(
            ["Success", "UnexpectedEof", "Framing"].includes(noisy) || noisy.startsWith("ContentError"),
            noisy
          )
        })
    ))

  it.effect("announced lengths allocate nothing, and more than the limit is refused", () =>
    Effect.gen(function*() {
      const framing = () => Redis.resp(1000)
      const [socket, peer] = yield* MemoryTransport.pair()
      const waiting = yield* start(Framing.receive(socket, framing()))
      yield* says(peer, "*999999999999999\r\n*999999999999999\r\n$999999999999999\r\n")
      yield* eventually("all of it", () => socket.bytesRead === 54)
      assert.isUndefined(waiting.pollUnsafe())
      yield* says(peer, "x".repeat(1000))
      assert.strictEqual(failure(yield* Fiber.await(waiting)).reason._tag, "LimitExceeded")
    }))

  it.effect("arrays in arrays, too many to follow, fail with an error and not with a crash", () =>
    Effect.gen(function*() {
      const [socket, peer] = yield* MemoryTransport.pair()
      yield* start(says(peer, `${"*1\r\n".repeat(100_000)}:1\r\n+next\r\n`))
      const framing = Redis.resp()
      const error = yield* Effect.flip(Framing.receive(socket, framing))
      assert.strictEqual(error._tag, "ContentError")
      assert.strictEqual(yield* Framing.receive(socket, framing), "next")
    }))

  it.effect("what is not RESP is refused, with its place in the stream", () =>
    Effect.gen(function*() {
      for (const bad of ["!", "$x\r\n", "$\r\n", "$-2\r\n", "*1.5\r\n", "+no CR\n", "$1\r\nab\r\n", "$1\r\na\n\n"]) {
        const [socket, peer] = yield* MemoryTransport.pair()
        yield* says(peer, `:1\r\n*2\r\n:2\r\n${bad}`)
        const error = failure(yield* Effect.exit(Stream.runDrain(Framing.stream(socket, Redis.resp()))))
        assert.deepStrictEqual([error.reason._tag, "position" in error.reason && error.reason.position], ["Framing", 4])
      }
    }))
})

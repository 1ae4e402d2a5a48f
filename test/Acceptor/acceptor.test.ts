import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as NetAddress from "effect/net/NetAddress"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import { type Backing, type Events, type ListenerBacking, Transport, WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { assertBytes } from "../support/bytes.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { start, turns } from "../support/waiting.ts"

const fixed = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:7000")

/** Collects what is logged, as one text each. */
const logs = () => {
  const lines: Array<string> = []
  const logger = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
    lines.push(`${logLevel} ${String(message)} ${Cause.pretty(cause)}`)
  })
  return { lines, layer: Logger.layer([logger]) }
}

const it_ = it.layer(Layer.fresh(MemoryTransport.layer))

describe("Acceptor", () => {
  it_("listen and accept", (it) => {
    it.effect("is known by its guard", () =>
      Effect.gen(function*() {
        assert.isTrue(Acceptor.isAcceptor(yield* Acceptor.listen(anyPort)))
        for (const value of [null, undefined, {}, "x"]) assert.isFalse(Acceptor.isAcceptor(value))
      }))

    it.effect("port 0 binds a free port, which is in the address", () =>
      Effect.gen(function*() {
        const first = yield* Acceptor.listen(anyPort)
        const second = yield* Acceptor.listen(anyPort)
        assert.isAbove(portOf(first.address), 0)
        assert.notStrictEqual(portOf(first.address), portOf(second.address))
      }))

    it.effect("an address is in use until its acceptor is closed, by hand or with the scope", () =>
      Effect.gen(function*() {
        const first = yield* Acceptor.listen(fixed)
        const taken = failure(yield* Effect.exit(Acceptor.listen(fixed)))
        assert.deepStrictEqual([taken.reason._tag, taken.operation], ["AddressInUse", "listen"])
        assert.include(taken.message, "127.0.0.1:7000")
        yield* first.close
        yield* first.close
        yield* Effect.scoped(Acceptor.listen(fixed))
        yield* Effect.scoped(Acceptor.listen(fixed))
      }))

    it.effect("wrong options are defects", () =>
      Effect.gen(function*() {
        for (const sliceSize of [0, -1, 0.5, NaN]) {
          assert.instanceOf(defect(yield* Effect.exit(Acceptor.listen(anyPort, { sliceSize }))), RangeError)
        }
        for (const backlog of [-1, 0, 0.5, NaN]) {
          assert.instanceOf(defect(yield* Effect.exit(Acceptor.listen(anyPort, { backlog }))), RangeError)
        }
      }))

    it.effect("accepts in the order of arrival, whoever came first", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const waiting = yield* Effect.forEach([0, 1], () => start(acceptor.accept))
        const clients = yield* Effect.forEach([0, 1, 2], () => StreamSocket.connect(acceptor.address))
        const sockets = [...yield* Fiber.joinAll(waiting), yield* acceptor.accept]
        assert.deepStrictEqual(
          sockets.map((socket) => portOf(socket.remoteAddress)),
          clients.map((client) => portOf(client.localAddress))
        )
      }))

    it.effect("an interrupted accept loses no connection", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const first = yield* start(acceptor.accept)
        const second = yield* start(acceptor.accept)
        yield* Fiber.interrupt(first)
        assert.strictEqual(ending(yield* Fiber.await(first)), "Interrupt")
        const client = yield* StreamSocket.connect(acceptor.address)
        assert.strictEqual(
          portOf((yield* Fiber.join(second)).remoteAddress),
          portOf(client.localAddress)
        )
      }))

    it.effect("closes the accepted connection with its scope, not with the acceptor", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const client = yield* StreamSocket.connect(acceptor.address)
        const scope = yield* Scope.make()
        const socket = yield* Scope.provide(acceptor.accept, scope)
        yield* acceptor.close
        yield* Write.writeAll(socket, text("still here"))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(socket.state.socket, "closed")
        assertBytes(yield* Read.readAll(client), "still here")
      }))

    it.effect("closing fails waiting accepts, refuses later ones and resets what nobody accepted", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const address = acceptor.address
        const client = yield* StreamSocket.connect(address)
        const taken = yield* acceptor.accept
        const waiting = yield* start(acceptor.accept)
        const late = yield* start(acceptor.accept)
        yield* acceptor.close
        for (const exit of [yield* Fiber.await(waiting), yield* Fiber.await(late)]) {
          assert.deepStrictEqual([failure(exit).reason._tag, failure(exit).operation], ["Closed", "accept"])
        }
        assert.strictEqual(failure(yield* Effect.exit(acceptor.accept)).reason._tag, "Closed")
        assert.strictEqual(ending(yield* Effect.exit(StreamSocket.connect(address))), "ConnectionRefused")
        yield* Write.writeAll(taken, text("x"))
        assert.strictEqual(yield* client.readSome(new Uint8Array(4)), 1)

        const again = yield* Acceptor.listen(anyPort)
        const unaccepted = yield* StreamSocket.connect(again.address)
        yield* again.close
        assert.strictEqual(ending(yield* Effect.exit(unaccepted.readSome(new Uint8Array(1)))), "ConnectionReset")
      }))

    it.effect("a full backlog refuses", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort, { backlog: 2 })
        yield* StreamSocket.connect(acceptor.address)
        yield* StreamSocket.connect(acceptor.address)
        assert.strictEqual(ending(yield* Effect.exit(StreamSocket.connect(acceptor.address))), "ConnectionRefused")
        yield* acceptor.accept
        yield* StreamSocket.connect(acceptor.address)
      }))
  })

  /** A listener whose attempts answer what the test put there. */
  class FakeListener implements ListenerBacking {
    readonly address = fixed
    readonly answers: Array<Backing | SocketError> = []
    closes = 0
    private acceptable: () => void = () => {}
    attach(events: { readonly acceptable: () => void }): void {
      this.acceptable = events.acceptable
    }
    accept(): Backing | typeof WouldBlock | SocketError {
      return this.answers.shift() ?? WouldBlock
    }
    close(): void {
      this.closes++
    }
    offer(...answers: ReadonlyArray<Backing | SocketError>): void {
      this.answers.push(...answers)
      this.acceptable()
    }
  }

  const fake = Effect.gen(function*() {
    const listener = new FakeListener()
    const acceptor = yield* Acceptor.listen(fixed).pipe(Effect.provideService(Transport, {
      name: "fake",
      connect: () => Effect.die("not here"),
      listen: () => Effect.succeed(listener)
    }))
    return { acceptor, listener }
  })

  /** A connection that ends at once and counts its closes. */
  class QuietBacking implements Backing {
    readonly localAddress = fixed
    readonly remoteAddress = anyPort
    closes = 0
    private events: Events | undefined = undefined
    attach(events: Events): void {
      this.events = events
    }
    read(): number {
      return 0
    }
    write(): number {
      return WouldBlock
    }
    shutdownWrite(): number {
      return 0
    }
    close(): void {
      this.closes++
      this.events?.closed()
    }
    abort(): void {
      this.close()
    }
    configure(): void {}
  }

  const tooMany = new SocketError({
    reason: Reason.TooManyOpenFiles(),
    operation: "socket",
    address: fixed,
    transferred: 0,
    code: "EMFILE"
  })

  it.effect("a connection that could not be taken fails one accept, and the next succeeds", () =>
    Effect.gen(function*() {
      const { acceptor, listener } = yield* fake
      const first = yield* start(acceptor.accept)
      const second = yield* start(acceptor.accept)
      listener.offer(tooMany, new QuietBacking())
      const error = failure(yield* Fiber.await(first))
      assert.deepStrictEqual([error.reason._tag, error.operation, error.code], ["TooManyOpenFiles", "accept", "EMFILE"])
      assert.isTrue(StreamSocket.isStreamSocket(yield* Fiber.join(second)))
    }))

  it.effect("an interruption while listening closes what was bound", () =>
    Effect.gen(function*() {
      let released = 0
      const fiber = yield* start(
        Effect.scoped(Acceptor.listen(fixed)).pipe(Effect.provideService(Transport, {
          name: "slow",
          connect: () => Effect.die("not here"),
          listen: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => void released++))
        }))
      )
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(released, 1)
    }))

  describe("serve", () => {
    const serving = <E, R>(handler: (socket: StreamSocket.StreamSocket) => Effect.Effect<unknown, E, R>) =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const { layer, lines } = logs()
        const server = yield* start(Acceptor.serve(acceptor, handler).pipe(Effect.provide(layer)))
        return { acceptor, server, lines, connect: StreamSocket.connect(acceptor.address) }
      })

    const echo = (socket: StreamSocket.StreamSocket) =>
      Effect.gen(function*() {
        const buffer = new Uint8Array(64)
        while (true) {
          const count = yield* socket.readSome(buffer)
          yield* Write.writeAll(socket, buffer.subarray(0, count))
        }
      })

    it_((it) => {
      it.effect("runs a handler for every connection, all at the same time", () =>
        Effect.gen(function*() {
          const { connect, lines, server } = yield* serving(echo)
          const clients = yield* Effect.forEach(Array.from({ length: 20 }), () => connect)
          yield* Effect.forEach(clients.toReversed(), (client, i) =>
            Effect.gen(function*() {
              yield* Write.writeAll(client, text(`number ${i}\n`))
              assertBytes(yield* Read.readUntil(client, "\n"), `number ${i}\n`)
            }))
          assert.isUndefined(server.pollUnsafe())
          assert.deepStrictEqual(lines, [])
        }))

      it.effect("accepts in one turn of the event loop as many as there are", () =>
        Effect.gen(function*() {
          let handled = 0
          const { connect } = yield* serving(() => Effect.andThen(Effect.sync(() => void handled++), Effect.never))
          yield* turns()
          yield* Effect.forEach(Array.from({ length: 100 }), () => connect)
          yield* turns()
          assert.strictEqual(handled, 100)
        }))

      it.effect("closes the connection when its handler ends, after the handler's own finalizers", () =>
        Effect.gen(function*() {
          const { connect } = yield* serving((socket) =>
            Effect.ensuring(Write.writeAll(socket, text("bye")), Effect.ignore(Write.writeAll(socket, text(" bye"))))
          )
          const client = yield* connect
          assertBytes(yield* Read.readAll(client), "bye bye")
        }))

      const endings: ReadonlyArray<
        readonly [string, boolean, (s: StreamSocket.StreamSocket) => Effect.Effect<unknown, unknown>]
      > = [
        ["succeeds", true, () => Effect.void],
        ["reaches the end of the stream", true, (socket) => socket.readSome(new Uint8Array(1))],
        ["meets a SocketError", true, (socket) => Effect.andThen(socket.close, socket.readSome(new Uint8Array(9)))],
        ["interrupts itself", true, () => Effect.interrupt],
        ["fails with anything else", false, () => Effect.fail("my own error")],
        ["dies", false, () => Effect.die(new Error("my own defect"))],
        ["throws before it is an effect", false, () => {
          throw new Error("my own throw")
        }]
      ]
      for (const [name, quiet, handler] of endings) {
        it.effect(`a handler that ${name} ends ${quiet ? "quietly" : "in the log"} and ends nothing else`, () =>
          Effect.gen(function*() {
            let handled = 0
            const { connect, lines, server } = yield* serving((socket) => {
              handled++
              return handler(socket)
            })
            for (let i = 1; i <= 2; i++) {
              const client = yield* connect
              yield* Effect.ignore(Write.writeAll(client, text("x")))
              yield* Effect.ignore(client.shutdownWrite)
              yield* Effect.ignore(Read.readAll(client))
              assert.strictEqual(handled, i)
            }
            yield* turns()
            assert.isUndefined(server.pollUnsafe())
            assert.strictEqual(lines.length, quiet ? 0 : 2, lines.join("\n"))
            for (const line of lines) {
              assert.include(line, "my own")
              assert.match(line, /^Error .*tcp:\/\/127\.0\.0\.1:\d+/)
            }
          }))
      }

      it.effect("a message that its peer did not finish is one line a minute and peer", () =>
        Effect.gen(function*() {
          const { connect, lines } = yield* serving((socket) => Read.readExactly(socket, new Uint8Array(9)))
          const cut = Effect.gen(function*() {
            const client = yield* connect
            yield* Write.writeAll(client, text("x"))
            yield* client.shutdownWrite
            yield* Effect.ignore(Read.readAll(client))
            yield* turns()
          })
          const said = () => lines.filter((line) => !line.startsWith("Debug")).map((line) => line.replace(/:\d+/g, ""))
          const line =
            "Info the connection from tcp://127.0.0.1 ended: readExactly tcp://127.0.0.1: the stream ended early after 1 of 9 bytes"
          for (let i = 0; i < 4; i++) yield* cut
          assert.deepStrictEqual(said().map((line) => line.trim()), [line])
          yield* TestClock.adjust("1 minute")
          yield* cut
          assert.deepStrictEqual(said().map((line) => line.trim()), [
            line,
            `${line} (and 3 more of this peer since its last line)`
          ])
        }))

      it.effect("an interruption stops accepting, interrupts the handlers and closes their connections", () =>
        Effect.gen(function*() {
          const ended: Array<string> = []
          const begun = yield* Queue.unbounded<void>()
          const { acceptor, connect, lines, server } = yield* serving((socket) =>
            Queue.offer(begun, undefined).pipe(
              Effect.andThen(echo(socket)),
              Effect.onExit((exit) => Effect.sync(() => void ended.push(ending(exit))))
            )
          )
          const clients = yield* Effect.forEach([1, 2, 3], () => connect)
          yield* Queue.takeN(begun, 3)
          yield* Fiber.interrupt(server)
          assert.deepStrictEqual(ended, ["Interrupt", "Interrupt", "Interrupt"])
          assert.strictEqual(ending(yield* Fiber.await(server)), "Interrupt")
          for (const client of clients) assertBytes(yield* Read.readAll(client), "")
          assert.deepStrictEqual(lines, [])
          yield* connect
          yield* acceptor.accept
        }))

      it.effect("at whatever moment the server is interrupted, no connection stays open", () =>
        Effect.gen(function*() {
          for (let turns = 0; turns < 6; turns++) {
            const { acceptor, connect, server } = yield* serving(() => Effect.never)
            const clients = yield* Effect.forEach([1, 2], () => connect)
            for (let i = 0; i < turns; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(server)
            yield* acceptor.close
            for (const client of clients) {
              const exit = yield* Effect.exit(client.readSome(new Uint8Array(1)))
              assert.include(["Done", "ConnectionReset"], ending(exit), `after ${turns} turns`)
            }
          }
        }))

      it.effect("closing the acceptor ends it with Closed", () =>
        Effect.gen(function*() {
          const { acceptor, server } = yield* serving(echo)
          yield* acceptor.close
          assert.strictEqual(failure(yield* Fiber.await(server)).reason._tag, "Closed")
        }))

      it.effect("a handler may close the acceptor it came from", () =>
        Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(anyPort)
          const server = yield* start(Acceptor.serve(acceptor, () => acceptor.close))
          yield* StreamSocket.connect(acceptor.address)
          assert.strictEqual(failure(yield* Fiber.await(server)).reason._tag, "Closed")
        }))
    })

    it.effect("a connection that could not be taken is logged, and accepting goes on after a pause", () =>
      Effect.gen(function*() {
        const { acceptor, listener } = yield* fake
        const { layer, lines } = logs()
        let handled = 0
        yield* start(Acceptor.serve(acceptor, () => Effect.sync(() => void handled++)).pipe(Effect.provide(layer)))
        const backing = new QuietBacking()
        listener.offer(tooMany, backing)
        yield* TestClock.adjust(49)
        assert.strictEqual(handled, 0)
        assert.strictEqual(lines.length, 1)
        assert.include(lines[0], "too many open files (EMFILE)")
        yield* TestClock.adjust(1)
        yield* turns()
        assert.deepStrictEqual([handled, backing.closes], [1, 1])
        assert.strictEqual(lines.length, 1)
      }))

    it.effect("can be interrupted in that pause", () =>
      Effect.gen(function*() {
        const { acceptor, listener } = yield* fake
        const { layer } = logs()
        const server = yield* start(Acceptor.serve(acceptor, () => Effect.void).pipe(Effect.provide(layer)))
        listener.offer(tooMany)
        yield* Fiber.interrupt(server)
        assert.strictEqual(ending(yield* Fiber.await(server)), "Interrupt")
      }))
  })
})

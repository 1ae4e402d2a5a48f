/** Peers of another make: raw `node:net` at the other end, which ends, resets and stalls when it likes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import { toUtf8, utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { openSockets, tcpTable } from "../support/kernel.ts"
import { eventually, start, turn, turns } from "../support/waiting.ts"

/** A raw socket with everything that happened to it. */
class Raw {
  readonly socket: Net.Socket
  readonly received: Array<Buffer> = []
  ended = false
  closed = false
  code: string | undefined = undefined

  constructor(socket: Net.Socket) {
    this.socket = socket
    socket.on("end", () => {
      this.ended = true
    })
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.code = error.code ?? "error"
    })
    socket.on("close", () => {
      this.closed = true
    })
  }

  /** Begins to read. */
  read(): this {
    this.socket.on("data", (chunk) => this.received.push(Buffer.from(chunk)))
    this.socket.resume()
    return this
  }

  /** Writes and waits until the kernel has it. */
  send(text: string): Effect.Effect<void> {
    return Effect.callback((resume) => void this.socket.write(text, () => resume(Effect.void)))
  }

  get bytes(): Buffer {
    return Buffer.concat(this.received)
  }

  /** Waits until the peer knows that it was reset behind bytes that it had not read. */
  get wasReset(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      yield* eventually("closed at the peer", () => {
        // To Node before 24, that is the end of the stream. After a reset even a write of nothing fails; after a FIN it
        // does not.
        if (!tellsResetFromEnd && this.ended) this.socket.write("")
        return this.closed
      })
      assert.strictEqual(this.code, "ECONNRESET")
    })
  }
}

const tellsResetFromEnd = Number.parseInt(process.versions.node, 10) >= 24

const released = (socket: Net.Socket) => Effect.sync(() => void socket.destroy())

/** Our connection that was accepted from a raw client, and that client. */
const accepted = (options?: Parameters<typeof Acceptor.listen>[1]) =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(anyPort, options)
    const raw = yield* rawClient(acceptor)
    return { acceptor, raw, socket: yield* acceptor.accept }
  })

const rawClient = (acceptor: Acceptor.Acceptor): Effect.Effect<Raw, never, Scope.Scope> =>
  Effect.gen(function*() {
    const socket = Net.connect({ host: "127.0.0.1", port: portOf(acceptor.address), allowHalfOpen: true })
    yield* Effect.addFinalizer(() => released(socket))
    const raw = new Raw(socket)
    yield* Effect.promise(() => once(socket, "connect"))
    return raw
  })

/** Our connection to a raw server, and the raw socket there. */
const connected = (options?: Parameters<typeof StreamSocket.connect>[1]) =>
  Effect.gen(function*() {
    const server = Net.createServer({ allowHalfOpen: true, pauseOnConnect: true })
    yield* Effect.addFinalizer(() => Effect.sync(() => void server.close()))
    yield* Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening"))
    const arrival = once(server, "connection")
    const bound = server.address()
    if (bound === null || typeof bound === "string") return assert.fail("not bound")
    const socket = yield* StreamSocket.connect(
      NetAddress.inetAddressFromNativeUnsafe(bound.address, bound.port),
      options
    )
    const peer: Net.Socket = (yield* Effect.promise(() => arrival))[0]
    yield* Effect.addFinalizer(() => released(peer))
    return { raw: new Raw(peer), socket }
  })

/** Fills every buffer on the way to a peer that does not read; the rest of the message waits. */
const clog = (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    const fiber = yield* start(Cancellation.partial(Write.writeAll(socket, new Uint8Array(64 * 1024 * 1024))))
    let last = -1
    // Twenty turns in which nothing moves: the kernel has taken what it takes.
    for (let still = 0; still < 20; still = socket.bytesWritten === last ? still + 1 : 0) {
      last = socket.bytesWritten
      yield* turn
    }
    return fiber
  })

/** The states of the connections from a port, as the kernel's table has them. */
const kernelStates = (port: number, other?: number): ReadonlyArray<string | undefined> => {
  const hex = (port: number) => `:${port.toString(16).toUpperCase().padStart(4, "0")}`
  return tcpTable()
    .filter((row) =>
      row[1]?.endsWith(hex(port)) === true && (other === undefined || row[2]?.endsWith(hex(other)) === true)
    )
    .map((row) => row[3])
}

const sides = [["accepted", accepted], ["connected", connected]] as const

describe("NodeTransport and raw peers", () => {
  for (const [side, open] of sides) {
    it.layer(NodeTransport.layer, { excludeTestServices: true })(`${side} by us`, (it) => {
      it.effect("the peer ends first: everything is read, end of stream again and again, writes go on", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.read().socket.end("last words")
          assertBytes(yield* Read.readAll(socket), "last words")
          for (let i = 0; i < 3; i++) {
            assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(1)))), "Done")
          }
          yield* Write.writeAll(socket, pattern(300_000))
          yield* socket.shutdownWrite
          yield* eventually("FIN at the peer", () => raw.ended)
          assertBytes(raw.bytes, pattern(300_000))
          assert.isUndefined(raw.code)
        }))

      it.effect("we end first: the peer sees it and still answers", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.read()
          yield* Write.writeAll(socket, text("question"))
          yield* socket.shutdownWrite
          yield* eventually("FIN at the peer", () => raw.ended)
          assert.strictEqual(raw.bytes.toString(), "question")
          raw.socket.end(pattern(300_000))
          assertBytes(yield* Read.readAll(socket), pattern(300_000))
          yield* socket.close
          yield* eventually("closed at the peer", () => raw.closed)
          assert.isUndefined(raw.code)
        }))

      it.effect("data and FIN before the first read lose nothing, whatever happens in between", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.socket.end(pattern(100_000))
          yield* eventually("everything sent", () => raw.socket.writableFinished)
          yield* turns(50)
          assert.strictEqual(socket.bytesRead, 0)
          assertBytes(yield* Read.readAll(socket), pattern(100_000))
        }))

      it.effect("nothing is read before the first read: a large sender stays stuck", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          const bytes = pattern(12 * 1024 * 1024)
          raw.socket.end(bytes)
          yield* turns(100)
          assert.isFalse(raw.socket.writableFinished)
          assertBytes(yield* Read.readAll(socket, { max: bytes.byteLength }), bytes)
        }))

      it.effect("nothing more is read than reads ask for: a large sender gets stuck after a small read", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          const bytes = pattern(12 * 1024 * 1024)
          raw.socket.end(bytes)
          const first = new Uint8Array(100)
          yield* Read.readExactly(socket, first)
          yield* socket.readSome(first)
          yield* turns(200)
          assert.isFalse(raw.socket.writableFinished)
          const waiting = yield* start(Read.readUntil(socket, "not in there", { max: 1_000_000 }))
          yield* Fiber.interrupt(waiting)
          yield* turns(200)
          assert.isFalse(raw.socket.writableFinished)
          const at = socket.bytesRead
          assertBytes(yield* Read.readAll(socket, { max: bytes.byteLength }), bytes.subarray(200))
          assert.isBelow(at, 2_000_000)
        }))

      it.effect("close flushes what was taken to a peer whose own bytes nobody has read", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open({ linger: "1 minute" })
          yield* raw.send("nobody reads this")
          const fiber = yield* clog(socket)
          yield* Fiber.interrupt(fiber)
          const { transferred } = transferOf(yield* Fiber.await(fiber))
          const close = yield* start(socket.close)
          yield* raw.send("nor this")
          yield* turns(20)
          raw.read()
          yield* eventually("the end at the peer", () => raw.ended || raw.closed)
          assert.strictEqual(raw.bytes.byteLength, transferred)
          assert.isUndefined(raw.code)
          raw.socket.end()
          yield* Fiber.join(close)
        }))

      it.effect("close flushes what was taken, even to a peer that reads later", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          const fiber = yield* clog(socket)
          yield* Fiber.interrupt(fiber)
          const { transferred } = transferOf(yield* Fiber.await(fiber))
          assert.isAbove(transferred, 65_536)
          const close = yield* start(socket.close)
          raw.read()
          yield* Fiber.join(close)
          yield* eventually("FIN at the peer", () => raw.ended)
          assert.strictEqual(raw.bytes.byteLength, transferred)
          assert.isUndefined(raw.code)
        }))

      it.effect("close with unread input and a busy sender still delivers what was taken", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.read().socket.end(pattern(200_000))
          yield* eventually("input on its way", () => raw.socket.writableFinished)
          yield* Write.writeAll(socket, pattern(200_000))
          yield* socket.close
          yield* eventually("the end at the peer", () => raw.ended || raw.closed)
          assertBytes(raw.bytes, pattern(200_000))
          assert.isUndefined(raw.code)
        }))

      it.effect("abort is a reset at the peer", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.read()
          yield* socket.abort
          yield* eventually("closed at the peer", () => raw.closed)
          assert.strictEqual(raw.code, "ECONNRESET")
        }))

      it.effect("abort is a reset after the peer's half-close too", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.read().socket.end()
          yield* Read.readAll(socket)
          yield* socket.abort
          yield* eventually("closed at the peer", () => raw.closed)
          assert.strictEqual(raw.code, "ECONNRESET")
        }))

      it.effect.skipIf(process.platform !== "linux")(
        "abort is a reset after our own half-close too",
        () =>
          Effect.gen(function*() {
            const { raw, socket } = yield* open()
            raw.read()
            yield* socket.shutdownWrite
            yield* eventually("FIN at the peer", () => raw.ended)
            const port = portOf(socket.localAddress)
            assert.isAbove(kernelStates(port).length, 0)
            yield* socket.abort
            // A peer that has seen FIN watches for nothing more; but the kernel forgets what was reset.
            yield* eventually("no trace of the connection", () => kernelStates(port, raw.socket.localPort).length === 0)
          })
      )

      it.effect("linger 0 closes with a reset, at once, a clogged connection included", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open({ linger: 0 })
          yield* clog(socket)
          yield* socket.close
          yield* raw.read().wasReset
        }))

      it.effect("close of a clogged connection gives up at the end of its linger time", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open({ linger: "60 millis" })
          yield* Fiber.interrupt(yield* clog(socket))
          const began = performance.now()
          yield* socket.close
          // A timer may fire a millisecond early.
          assert.isAtLeast(performance.now() - began, 55)
          yield* raw.read().wasReset
        }))

      it.effect("a reset while nobody looks shows at the next read", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.socket.resetAndDestroy()
          yield* turns(20)
          const error = failure(yield* Effect.exit(socket.readSome(new Uint8Array(9))))
          assert.deepStrictEqual([error.reason._tag, error.operation], ["ConnectionReset", "readSome"])
          assert.include(error.message, NetAddress.formatSocketAddress(socket.remoteAddress))
        }))

      it.effect("what came before a reset is read before the reset is told", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          yield* raw.send("last words")
          const word = new Uint8Array(4)
          yield* Read.readExactly(socket, word)
          raw.socket.resetAndDestroy()
          yield* turns(20)
          const rest = new Uint8Array(20)
          assert.strictEqual(yield* socket.readSome(rest), 6)
          assertBytes(rest.subarray(0, 6), " words")
          assert.strictEqual(ending(yield* Effect.exit(socket.readSome(rest))), "ConnectionReset")
          assert.strictEqual(ending(yield* Effect.exit(socket.readSome(rest))), "ConnectionReset")
        }))

      it.effect("a reset while a read waits fails it, and a composed read says how far it was", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.socket.write("half")
          const fiber = yield* start(Read.readExactly(socket, new Uint8Array(8)))
          yield* eventually("half the message", () => socket.bytesRead === 4)
          raw.socket.resetAndDestroy()
          const error = failure(yield* Fiber.await(fiber))
          assert.deepStrictEqual([error.reason._tag, error.transferred, error.total], ["ConnectionReset", 4, 8])
          assert.strictEqual(error.code, "ECONNRESET")
          assert.strictEqual(socket.state.read, "failed")
        }))

      it.effect("a reset while a write waits fails it promptly with its count, and every later write", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          const writer = yield* clog(socket)
          const behind = yield* start(socket.writeSome(text("x")))
          raw.socket.resetAndDestroy()
          const error = failure(yield* Fiber.await(writer))
          assert.include(["ConnectionReset", "BrokenPipe"], error.reason._tag)
          assert.strictEqual(error.transferred, socket.bytesWritten)
          for (const exit of [yield* Fiber.await(behind), yield* Effect.exit(socket.writeSome(text("x")))]) {
            assert.strictEqual(failure(exit).reason._tag, error.reason._tag)
            assert.strictEqual(failure(exit).transferred, 0)
          }
          assert.strictEqual(failure(yield* Effect.exit(socket.shutdownWrite)).reason._tag, error.reason._tag)
          assert.strictEqual(socket.state.write, "failed")
        }))

      it.effect("a reset while both wait fails both", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          const reader = yield* start(socket.readSome(new Uint8Array(1)))
          const writer = yield* clog(socket)
          raw.socket.resetAndDestroy()
          assert.strictEqual(ending(yield* Fiber.await(reader)), "ConnectionReset")
          assert.include(["ConnectionReset", "BrokenPipe"], ending(yield* Fiber.await(writer)))
        }))

      it.effect("a reset during close, after close and after abort is nobody's business", () =>
        Effect.gen(function*() {
          const during = yield* open({ linger: "1 minute" })
          yield* clog(during.socket)
          const close = yield* start(during.socket.close)
          during.raw.socket.resetAndDestroy()
          yield* Fiber.join(close)
          assert.strictEqual(during.socket.state.socket, "closed")

          const after = yield* open()
          yield* after.socket.close
          after.raw.socket.resetAndDestroy()
          const aborted = yield* open()
          yield* aborted.socket.abort
          aborted.raw.socket.resetAndDestroy()
          yield* turns(20)
          for (const { socket } of [after, aborted]) {
            assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(1)))), "Closed")
          }
        }))

      it.effect("writing to a peer that is gone fails soon, without a word from the reader", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.socket.destroy()
          const exit = yield* Effect.exit(Effect.forever(Effect.andThen(socket.writeSome(pattern(1000)), turn)))
          assert.include(["ConnectionReset", "BrokenPipe"], ending(exit))
        }))

      it.effect("cut writes leave what they reported, whole and in order", () =>
        Effect.gen(function*() {
          const { raw, socket } = yield* open()
          raw.socket.pause()
          const bytes = pattern(16 * 1024 * 1024)
          const fiber = yield* start(Cancellation.terminal(Write.writeAll(socket, bytes)))
          yield* turns(10)
          yield* Fiber.interrupt(fiber)
          const transfer = transferOf(yield* Fiber.await(fiber))
          assert.strictEqual(transfer.guarantee, "terminal")
          raw.read()
          yield* eventually("what was taken at the peer", () => raw.bytes.byteLength === transfer.transferred)
          assertBytes(raw.bytes, bytes.subarray(0, transfer.transferred))
          yield* socket.close
          yield* raw.wasReset
        }))
    })
  }

  it.layer(NodeTransport.layer, { excludeTestServices: true })("accepting", (it) => {
    it.effect("a connection that was reset before it was accepted fails its first read, not the acceptor", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        for (const bytes of ["", "data first"]) {
          const raw = yield* rawClient(acceptor)
          if (bytes !== "") yield* raw.send(bytes)
          raw.socket.resetAndDestroy()
          yield* turns(10)
          const socket = yield* acceptor.accept
          assert.isTrue(NetAddress.isInetAddress(socket.localAddress))
          const exit = yield* Effect.exit(Read.readAll(socket))
          assert.strictEqual(ending(exit), "ConnectionReset")
          yield* socket.close
        }
        const raw = yield* rawClient(acceptor)
        raw.socket.end("still here")
        assertBytes(yield* Read.readAll(yield* acceptor.accept), "still here")
      }))

    it.effect("what a peer sent and ended long before it was accepted is all there", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen(anyPort)
        const raws = yield* Effect.forEach([0, 1, 2], () => rawClient(acceptor))
        for (const [i, raw] of raws.entries()) raw.socket.end(pattern(50_000 + i))
        yield* eventually("everything sent", () => raws.every((raw) => raw.socket.writableFinished))
        yield* turns(20)
        const lengths: Array<number> = []
        for (let i = 0; i < 3; i++) {
          const bytes = yield* Read.readAll(yield* acceptor.accept)
          assertBytes(bytes, pattern(bytes.byteLength))
          lengths.push(bytes.byteLength)
        }
        assert.deepStrictEqual(lengths.toSorted((a, b) => a - b), [50_000, 50_001, 50_002])
      }))

    it.effect("closing the acceptor resets what nobody accepted and leaves the accepted alone", () =>
      Effect.gen(function*() {
        const { acceptor, raw, socket } = yield* accepted()
        const waiting = yield* rawClient(acceptor)
        waiting.read()
        yield* turns(10)
        yield* acceptor.close
        yield* eventually("closed at the peer", () => waiting.closed)
        assert.strictEqual(waiting.code, "ECONNRESET")
        raw.socket.end("go on")
        assertBytes(yield* Read.readAll(socket), "go on")
      }))

    it.effect("serve over real sockets: failing handlers end only themselves, interruption closes all", () =>
      Effect.gen(function*() {
        const before = openSockets()
        const acceptor = yield* Acceptor.listen(anyPort)
        const server = yield* start(Acceptor.serve(acceptor, (socket) =>
          Effect.gen(function*() {
            const line = toUtf8(yield* Read.readUntil(socket, "\n"))
            if (line === "eof\n") return yield* socket.readSome(new Uint8Array(1))
            if (line === "read past the end\n") return yield* Read.readExactly(socket, new Uint8Array(9))
            yield* Write.writeAll(socket, text(line))
            return yield* Effect.never
          })))
        const staying = yield* rawClient(acceptor)
        staying.read().socket.write("stay\n")
        for (const line of ["eof\n", "read past the end\n"]) {
          const raw = yield* rawClient(acceptor)
          raw.read().socket.end(line)
          yield* eventually("closed at the peer", () => raw.closed)
          assert.isUndefined(raw.code)
        }
        const resetting = yield* rawClient(acceptor)
        resetting.socket.resetAndDestroy()
        yield* eventually("an answer for the one that stays", () => staying.bytes.toString() === "stay\n")
        yield* Fiber.interrupt(server)
        yield* eventually("FIN at the peer", () => staying.ended)
        staying.socket.end()
        yield* acceptor.close
        yield* eventually("every descriptor released", () => openSockets() <= before)
      }))
  })

  /** Runs a script of this folder in a process of its own and gives what it printed. */
  const script = (command: string, ...args: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const child = spawn(command, args, { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "pipe"] })
      let output = ""
      child.stdout.on("data", (chunk) => (output += String(chunk)))
      child.stderr.on("data", (chunk) => (output += String(chunk)))
      const [code, signal] = yield* Effect.promise(() => once(child, "close"))
      assert.deepStrictEqual([code, signal], [0, null], output)
      return output
    })

  for (const seed of [1, Date.now() % 100_000]) {
    it.live(`a storm of resets never crashes the process (seed ${seed})`, () =>
      Effect.gen(function*() {
        const output = yield* script(process.execPath, "storm.ts", String(seed))
        assert.strictEqual(output, "calm after 400 connections; 0 sockets left\n")
      }))
  }

  it.live.skipIf(process.platform !== "linux")(
    "out of descriptors: TooManyOpenFiles, and all is well when some are free again",
    () =>
      Effect.gen(function*() {
        const output = yield* script("sh", "-c", `ulimit -n 80 && exec "${process.execPath}" exhaust.ts`)
        assert.strictEqual(
          output,
          "connect: TooManyOpenFiles (EMFILE)\nlisten: TooManyOpenFiles (EMFILE)\nafterwards: connected, listening\n"
        )
      })
  )
})

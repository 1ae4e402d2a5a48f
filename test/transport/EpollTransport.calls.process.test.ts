/** Which system calls a connection over epoll makes: none whose answer it could know to be "would block". */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { resolveOptions } from "../../src/Transport.ts"
import { isSupported } from "../../src/transport/EpollTransport.ts"
import { connect } from "../../src/transport/internal/epoll/connect.ts"
import { listen } from "../../src/transport/internal/epoll/EpollListener.ts"
import * as Linux from "../../src/transport/internal/epoll/linux.ts"
import { Reactor } from "../../src/transport/internal/epoll/Reactor.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, unixPaths } from "../support/addresses.ts"

/** A binding that counts short writes, and the calls behind a short write that would block. */
const counting = () => {
  const linux = Linux.load()
  const answers = { short: 0, wouldBlock: 0, sends: 0 }
  let lastWasShort = false
  const note = (offered: number, answer: number): number => {
    answers.sends++
    if (lastWasShort && answer === -Linux.EAGAIN) answers.wouldBlock++
    lastWasShort = answer >= 0 && answer < offered
    if (lastWasShort) answers.short++
    return answer
  }
  const binding: Linux.Linux = {
    ...linux,
    send: (fd, source) => note(source.byteLength, linux.send(fd, source)),
    sendAll: (fd, source, count) => {
      const offered = source.slice(0, count).reduce((bytes, view) => bytes + view.byteLength, 0)
      return note(offered, linux.sendAll(fd, source, count))
    }
  }
  return { answers, binding }
}

/** Claims 1,000 bytes more than its memory has. */
class Liar extends Uint8Array {
  override get byteLength() {
    return super.byteLength + 1000
  }
}

const total = 16 * 1024 * 1024

const sources = {
  "one large view": () => new Uint8Array(total),
  "large pieces, which leave by one call": () => Array.from({ length: 256 }, () => new Uint8Array(total / 256)),
  "small pieces, which are put together": () => Array.from({ length: 8192 }, () => new Uint8Array(total / 8192))
}

describe.skipIf(!isSupported())("EpollTransport asks the kernel only for what it may do", () => {
  const nextPath = unixPaths()
  const places: Record<string, () => NetAddress.SocketAddress> = { TCP: () => anyPort, "a Unix path": nextPath }
  for (const [place, address] of Object.entries(places)) {
    for (const [what, source] of Object.entries(sources)) {
      it.live(`a short write is not tried again before there is room: ${what} over ${place}`, () =>
        Effect.gen(function*() {
          const { answers, binding } = counting()
          const reactor = new Reactor(binding)
          assert.strictEqual(reactor.use(), 0)
          yield* Effect.addFinalizer(() => Effect.sync(() => reactor.release()))
          // Small buffers, which one attempt fills.
          const options = resolveOptions({ sendBuffer: 32_768, receiveBuffer: 32_768 })
          const acceptor = Acceptor.make(yield* listen(reactor, address(), options))
          const accepting = yield* Effect.forkChild(acceptor.take, { startImmediately: true })
          const left = StreamSocket.make(yield* connect(reactor, acceptor.address, options))
          const right = yield* Fiber.join(accepting)
          const writing = yield* Effect.forkChild(Write.writeAll(left, source()), { startImmediately: true })
          const buffer = new Uint8Array(100_000)
          let received = 0
          while (received < total) received += yield* right.readSome(buffer)
          assert.strictEqual(yield* Fiber.join(writing), total)
          assert.isAbove(answers.short, 0, `no short write among ${answers.sends}`)
          assert.strictEqual(answers.wouldBlock, 0, `${answers.wouldBlock} of ${answers.sends} sends would block`)
          yield* Effect.all([left.close, right.close, acceptor.close])
        }).pipe(Effect.scoped))
    }
  }

  const liars: Record<string, () => Uint8Array | ReadonlyArray<Uint8Array>> = {
    "one view": () => new Liar(new ArrayBuffer(8192)),
    "a piece of a gather list": () => [new Uint8Array(8192), new Liar(new ArrayBuffer(8192)), new Uint8Array(8192)]
  }
  for (const [what, source] of Object.entries(liars)) {
    it.live(`a view that claims more bytes than it has does not pass for a full kernel: ${what}`, () =>
      Effect.gen(function*() {
        const reactor = new Reactor(Linux.load())
        assert.strictEqual(reactor.use(), 0)
        yield* Effect.addFinalizer(() => Effect.sync(() => reactor.release()))
        const acceptor = Acceptor.make(yield* listen(reactor, anyPort, resolveOptions(undefined)))
        const accepting = yield* Effect.forkChild(acceptor.take, { startImmediately: true })
        const left = StreamSocket.make(yield* connect(reactor, acceptor.address, resolveOptions(undefined)))
        const right = yield* Fiber.join(accepting)
        const taken = yield* left.writeSome(source())
        assert.isAbove(taken, 0)
        // The kernel has room for these, so no event comes that a write could wait for.
        assert.strictEqual(yield* left.writeSome(new Uint8Array(10)), 10)
        const buffer = new Uint8Array(100_000)
        let received = 0
        while (received < taken + 10) received += yield* right.readSome(buffer)
        assert.strictEqual(received, taken + 10)
        yield* Effect.all([left.close, right.close, acceptor.close])
      }).pipe(Effect.scoped))
  }

  it.live("a target that claims more room than it has does not pass for an empty socket", () =>
    Effect.gen(function*() {
      const reactor = new Reactor(Linux.load())
      assert.strictEqual(reactor.use(), 0)
      yield* Effect.addFinalizer(() => Effect.sync(() => reactor.release()))
      const acceptor = Acceptor.make(yield* listen(reactor, anyPort, resolveOptions(undefined)))
      const accepting = yield* Effect.forkChild(acceptor.take, { startImmediately: true })
      const left = StreamSocket.make(yield* connect(reactor, acceptor.address, resolveOptions(undefined)))
      const right = yield* Fiber.join(accepting)
      // The event of these bytes is used up by this read, which waits for it.
      const reading = yield* Effect.forkChild(right.readSome(new Liar(new ArrayBuffer(8))), { startImmediately: true })
      assert.strictEqual(yield* left.writeSome(new Uint8Array(100)), 100)
      assert.strictEqual(yield* Fiber.join(reading), 8)
      // The bytes are there already, so no event comes that a read could wait for.
      assert.strictEqual(yield* right.readSome(new Uint8Array(100)), 92)
      yield* Effect.all([left.close, right.close, acceptor.close])
    }).pipe(Effect.scoped))

  it.live("a write without a short answer does not wait for an event", () =>
    Effect.gen(function*() {
      const { answers, binding } = counting()
      const reactor = new Reactor(binding)
      assert.strictEqual(reactor.use(), 0)
      yield* Effect.addFinalizer(() => Effect.sync(() => reactor.release()))
      const acceptor = Acceptor.make(yield* listen(reactor, anyPort, resolveOptions(undefined)))
      const accepting = yield* Effect.forkChild(acceptor.take, { startImmediately: true })
      const left = StreamSocket.make(yield* connect(reactor, acceptor.address, resolveOptions(undefined)))
      const right = yield* Fiber.join(accepting)
      const bytes = Buffers.utf8("ping")
      for (let i = 0; i < 10; i++) assert.strictEqual(yield* left.writeSome(bytes), 4)
      assert.deepStrictEqual(answers, { sends: 10, short: 0, wouldBlock: 0 })
      yield* Effect.all([left.close, right.close, acceptor.close])
    }).pipe(Effect.scoped))
})

/** The end of the stream as a typed failure, and the hint that a program without a transport gets. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { inet } from "../support/addresses.ts"
import { defect, failure } from "../support/exits.ts"

describe("failOnEnd", () => {
  it.effect("makes the end of the stream a SocketError with operation and address", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      yield* right.shutdownWrite
      const exit = yield* Effect.exit(Read.failOnEnd(left)(Read.readLine(left)))
      const error = failure(exit)
      assert.strictEqual(error.reason._tag, "UnexpectedEof")
      assert.strictEqual(error.operation, "failOnEnd")
      assert.strictEqual(error.address, left.remoteAddress)
      assert.include(Cause.pretty(Exit.isFailure(exit) ? exit.cause : Cause.empty), "SocketError")
      assert.notInclude(Cause.pretty(Exit.isFailure(exit) ? exit.cause : Cause.empty), "Done")
    }).pipe(Effect.scoped))

  it.effect("leaves everything else as it is", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      yield* Write.writeAll(right, new TextEncoder().encode("hello\nhal"))
      assert.strictEqual(yield* Read.readLine(left).pipe(Read.failOnEnd(left)), "hello")
      yield* right.shutdownWrite
      const error = failure(yield* Effect.exit(Read.failOnEnd(Read.readExactly(left, new Uint8Array(5)), left)))
      assert.strictEqual(error.operation, "readExactly")
      assert.strictEqual(error.transferred, 3)
    }).pipe(Effect.scoped))
})

describe("a program without a transport", () => {
  it.effect("is told which layer to provide", () =>
    Effect.gen(function*() {
      // The types refuse it; a cast stands for a program in JavaScript.
      const program = StreamSocket.connect(inet("127.0.0.1:1")) as Effect.Effect<unknown>
      assert.include(defect(yield* Effect.exit(program)).message, "NodeTransport.layer")
    }))
})

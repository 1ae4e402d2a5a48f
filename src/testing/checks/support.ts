import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import type { Reason, SocketError } from "../../SocketError.ts"
import { isSocketError } from "../../SocketError.ts"
import type { ReadStream, StreamSocket } from "../../StreamSocket.ts"
import type { SocketOptions } from "../../Transport.ts"
import type { Capabilities, Check, Subject } from "./Subject.ts"

export const check = (
  name: string,
  run: (subject: Subject) => Effect.Effect<void, unknown, Scope.Scope>,
  needs?: keyof Capabilities
): Check => ({ name, needs, run })

// ---- saying what is wrong

const fail = (what: string, expected: string, actual: string): never => {
  throw new Error(`${what}: expected ${expected}, got ${actual}`)
}

export const ensure = (what: string, holds: boolean, expected: string, actual: unknown): void => {
  if (!holds) fail(what, expected, String(actual))
}

export const equal = <A extends string | number | boolean | undefined>(what: string, actual: A, expected: A): void => {
  if (actual !== expected) fail(what, String(expected), String(actual))
}

/** `actual` is the bytes of all parts in a row. */
export const sameBytes = (what: string, actual: Uint8Array, ...parts: ReadonlyArray<Uint8Array>): void => {
  const expected = Buffers.concat(parts)
  const shared = Math.min(actual.byteLength, expected.byteLength)
  for (let i = 0; i < shared; i++) {
    if (actual[i] !== expected[i]) fail(what, `byte ${i} to be ${expected[i]}`, `${actual[i]}`)
  }
  if (actual.byteLength !== expected.byteLength) fail(what, `${expected.byteLength} bytes`, `${actual.byteLength}`)
}

export const show = (exit: Exit.Exit<unknown, unknown> | undefined): string => {
  if (exit === undefined) return "still running"
  if (Exit.isSuccess(exit)) {
    return `success with ${exit.value instanceof Uint8Array ? `${exit.value.byteLength} bytes` : String(exit.value)}`
  }
  return exit.cause.reasons.map((reason) => {
    switch (reason._tag) {
      case "Fail":
        return Cause.isDone(reason.error) ? "Done" : String(reason.error)
      case "Die":
        return `a defect: ${String(reason.defect)}`
      case "Interrupt":
        return "an interruption"
    }
  }).join(" and ")
}

export const succeeded = <A>(what: string, exit: Exit.Exit<A, unknown>): A =>
  Exit.isSuccess(exit) ? exit.value : fail(what, "success", show(exit))

export const succeededWith = <A extends number | undefined>(
  what: string,
  exit: Exit.Exit<A, unknown>,
  expected: A
): void => equal(what, succeeded(what, exit), expected)

const failureOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) && exit.cause.reasons.length === 1 && Cause.isFailReason(exit.cause.reasons[0]!)
    ? exit.cause.reasons[0].error
    : undefined

export const isEnd = (exit: Exit.Exit<unknown, unknown>): boolean => Cause.isDone(failureOf(exit))

/** End of stream. */
export const ended = (what: string, exit: Exit.Exit<unknown, unknown>): void => {
  if (!isEnd(exit)) fail(what, "Done", show(exit))
}

export const failedWith = (
  what: string,
  exit: Exit.Exit<unknown, unknown>,
  ...tags: ReadonlyArray<Reason["_tag"]>
): SocketError => {
  const error = failureOf(exit)
  if (Exit.isFailure(exit) && Option.isSome(Cancellation.transfer(exit.cause))) {
    fail(what, "a failure without the annotation of an interruption", show(exit))
  }
  return isSocketError(error) && tags.includes(error.reason._tag)
    ? error
    : fail(what, `SocketError ${tags.join(" or ")}`, show(exit))
}

/** The peer is gone, in the words of whichever side noticed. */
export const lost = (what: string, exit: Exit.Exit<unknown, unknown>): SocketError =>
  failedWith(what, exit, "ConnectionReset", "BrokenPipe")

/** An interruption with its annotation. */
export const interrupted = (
  what: string,
  exit: Exit.Exit<unknown, unknown>,
  expected: Cancellation.Transfer["Service"]
): void => {
  if (Exit.isSuccess(exit) || !Cause.hasInterruptsOnly(exit.cause)) return fail(what, "an interruption", show(exit))
  transferred(what, exit.cause, expected)
}

export const transferred = (
  what: string,
  cause: Cause.Cause<unknown>,
  expected: Cancellation.Transfer["Service"]
): void => {
  const actual = Option.getOrUndefined(Cancellation.transfer(cause))
  const text = (transfer: Cancellation.Transfer["Service"] | undefined) =>
    transfer === undefined
      ? "no annotation"
      : `${transfer.transferred} of ${transfer.total} bytes (${transfer.guarantee})`
  if (text(actual) !== text(expected)) fail(what, text(expected), text(actual))
}

// ---- time

/** A few turns of the event loop, under any clock: what needs no more than the event loop has happened then. */
export const turns = (count: number = 5): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let left = count
    let handle: NodeJS.Immediate | undefined
    const next = (): void => {
      if (left-- <= 0) resume(Effect.void)
      else handle = setImmediate(next)
    }
    next()
    return Effect.sync(() => clearImmediate(handle))
  })

export const turn: Effect.Effect<void> = turns(1)

const tick: Effect.Effect<void> = Effect.callback((resume) => {
  const handle = setTimeout(() => resume(Effect.void), 1)
  return Effect.sync(() => clearTimeout(handle))
})

/** Waits, in real time and with a bound, for what only the kernel can bring about. */
export const eventually = (
  what: string | (() => string),
  condition: () => boolean,
  within = 30_000
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const deadline = performance.now() + within
    let looks = 0
    const look: Effect.Effect<void> = Effect.suspend(() => {
      if (condition()) return Effect.void
      if (performance.now() > deadline) {
        throw new Error(`${typeof what === "string" ? what : what()}: not within ${within} ms`)
      }
      return Effect.flatMap(++looks < 50 ? turn : tick, () => look)
    })
    return look
  })

/** Waits until a number has stopped changing. */
export const steady = (read: () => number): Effect.Effect<void> =>
  Effect.gen(function*() {
    let last = read()
    for (let quiet = 0; quiet < 12; quiet++) {
      yield* turns()
      yield* tick
      const now = read()
      if (now !== last) quiet = -1
      last = now
    }
  })

/** Starts an effect at once, in a fiber that ends with the check. */
export const start = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Fiber.Fiber<A, E>, never, R> =>
  Effect.forkChild(effect, { startImmediately: true })

/** How a fiber ended; it has to, soon. */
export const exitOf = <A, E>(what: string, fiber: Fiber.Fiber<A, E>): Effect.Effect<Exit.Exit<A, E>> =>
  Effect.andThen(eventually(`${what}: did not end`, () => fiber.pollUnsafe() !== undefined), Fiber.await(fiber))

/** How an effect ends; it has to, soon. */
export const promptly = <A, E, R>(
  what: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Exit.Exit<A, E>, never, R> => Effect.flatMap(start(effect), (fiber) => exitOf(what, fiber))

/** Interrupts a fiber, which has to end soon. */
export const cut = <A, E>(what: string, fiber: Fiber.Fiber<A, E>): Effect.Effect<Exit.Exit<A, E>> =>
  Effect.suspend(() => {
    fiber.interruptUnsafe()
    return exitOf(what, fiber)
  })

export const stillWaiting = <A, E>(what: string, fiber: Fiber.Fiber<A, E>): Effect.Effect<void> =>
  Effect.map(turns(), () => {
    if (fiber.pollUnsafe() !== undefined) fail(what, "to wait", show(fiber.pollUnsafe()))
  })

// ---- bytes

const period = 65_521
const table = (() => {
  const bytes = new Uint8Array(period)
  let state = 1
  for (let i = 0; i < period; i++) {
    state = (state * 48_271) % 2_147_483_647
    bytes[i] = state >>> 8
  }
  return bytes
})()

/** `count` bytes that differ from those at most other offsets; `offset` chooses which. */
export const pattern = (count: number, offset: number = 0): Uint8Array => {
  const bytes = new Uint8Array(count)
  for (let at = 0, from = offset % period; at < count; from = 0) {
    const piece = table.subarray(from, from + count - at)
    bytes.set(piece, at)
    at += piece.byteLength
  }
  return bytes
}

export const text = Buffers.utf8

// ---- connections

/** A new connection that is torn down at once when the check ends, whatever state it is in. */
export const connect = (
  subject: Subject,
  options?: Pick<SocketOptions, "linger">
): Effect.Effect<readonly [StreamSocket, StreamSocket], SocketError, Scope.Scope> =>
  Effect.tap(
    subject.pair(options),
    ([left, right]) => Effect.addFinalizer(() => Effect.andThen(left.abort, right.abort))
  )

/** Reads exactly `count` bytes with nothing but `readSome`. */
export const take = (socket: ReadStream, count: number): Pull.Pull<Uint8Array, SocketError> =>
  Effect.suspend(() => {
    const bytes = new Uint8Array(count)
    let at = 0
    return Effect.as(
      Effect.whileLoop({
        while: () => at < count,
        body: () => socket.readSome(bytes.subarray(at, at + 65_536)),
        step: (read) => {
          at += read
        }
      }),
      bytes
    )
  })

/** Reads with nothing but `readSome` until it fails, and says how. */
export const readOut = (
  socket: ReadStream
): Effect.Effect<{ readonly bytes: Uint8Array; readonly exit: Exit.Exit<unknown, SocketError | Cause.Done> }> =>
  Effect.suspend(() => {
    const chunks: Array<Uint8Array> = []
    const target = new Uint8Array(65_536)
    const loop = Effect.forever(
      Effect.map(socket.readSome(target), (read) => {
        chunks.push(target.slice(0, read))
      })
    )
    return Effect.map(Effect.exit(loop), (exit) => ({ bytes: Buffers.concat(chunks), exit }))
  })

/** Everything to the end of the stream, which must be an end and not a failure. */
export const readToEnd = (socket: ReadStream): Effect.Effect<Uint8Array> =>
  Effect.map(readOut(socket), ({ bytes, exit }) => {
    ended(`after ${bytes.byteLength} bytes`, exit)
    return bytes
  })

/** Closes one end while the other reads what is left. */
export const drain = (from: StreamSocket, to: StreamSocket): Effect.Effect<Uint8Array> =>
  Effect.gen(function*() {
    const reading = yield* start(readToEnd(to))
    succeeded("close", yield* promptly("close", from.close))
    return succeeded("what the peer reads", yield* exitOf("what the peer reads", reading))
  })

/**
 * Closes one end, whose message is torn, when the other one has read all that
 * was taken: the reset that follows may overtake bytes. Answers these bytes.
 */
export const drainTorn = (subject: Subject, from: StreamSocket, to: StreamSocket): Effect.Effect<Uint8Array> =>
  Effect.gen(function*() {
    const left = from.bytesWritten - to.bytesRead
    const bytes = succeeded("what the peer reads", yield* promptly("what the peer reads", take(to, left)))
    succeeded("close", yield* promptly("close", from.close))
    const end = yield* promptly("the end of a torn stream", to.readSome(new Uint8Array(1)))
    if (subject.can.reset) failedWith("the end of a torn stream", end, "ConnectionReset")
    else ensure("the end of a torn stream", Exit.isFailure(end), "a failure, or the end of the stream", show(end))
    return bytes
  })

const enough = 256 * 1024 * 1024

/** Writes until the connection takes no more, and answers with the bytes it took. */
export const clog = (socket: StreamSocket): Effect.Effect<Uint8Array, SocketError> =>
  Effect.gen(function*() {
    const before = socket.bytesWritten
    let taken = 0
    const filling = yield* start(
      Effect.forever(
        Effect.suspend(() => {
          if (taken > enough) fail("a peer that does not read", "the writer to wait", `${taken} bytes taken`)
          return Effect.map(socket.writeSome(pattern(65_536, taken)), (count) => {
            taken += count
          })
        }),
        { disableYield: true }
      )
    )
    yield* steady(() => socket.bytesWritten)
    interrupted("the write that fills the connection", yield* cut("the write that fills the connection", filling), {
      transferred: 0,
      total: 65_536,
      guarantee: "total"
    })
    equal("bytes reported while filling the connection", taken, socket.bytesWritten - before)
    return pattern(taken)
  })

/** A connection whose left end cannot write, and what fills it. */
export const clogged = (subject: Subject, options?: Pick<SocketOptions, "linger">) =>
  Effect.gen(function*() {
    const [left, right] = yield* connect(subject, options)
    return { left, right, filled: yield* clog(left) }
  })

/** The same for as long as a time-out: a kernel may find some room when a delayed acknowledgement is due. */
export const cloggedFor = (subject: Subject, time: Duration.Duration) =>
  Effect.gen(function*() {
    const { filled, left, right } = yield* clogged(subject)
    const pieces = [filled]
    for (;;) {
      yield* subject.advance(time)
      const more = yield* clog(left)
      if (more.byteLength === 0) return { left, right, filled: Buffers.concat(pieces) }
      pieces.push(more)
    }
  })

/** A clogged connection and a write that waits for room. */
export const waitingForRoom = <A>(
  subject: Subject,
  write: (socket: StreamSocket) => Effect.Effect<A, SocketError>,
  options?: Pick<SocketOptions, "linger">
) =>
  Effect.gen(function*() {
    const { filled, left, right } = yield* clogged(subject, options)
    const fiber = yield* start(write(left))
    yield* stillWaiting("a write to a clogged peer", fiber)
    equal("bytes taken by a write to a clogged peer", left.bytesWritten, filled.byteLength)
    return { left, right, filled, fiber }
  })

/** A connection and a write of which `k` bytes, more than none and fewer than all, have been taken. */
export const midway = <A>(
  subject: Subject,
  write: (socket: StreamSocket, message: Uint8Array) => Effect.Effect<A, SocketError>,
  options?: Pick<SocketOptions, "linger">
) =>
  Effect.gen(function*() {
    const { filled, left, right } = yield* clogged(subject, options)
    // Twice what the connection holds, so that the room which one read makes is never enough.
    const message = pattern(filled.byteLength * 2 + 7, 1)
    const fiber = yield* start(write(left, message))
    const read: Array<Uint8Array> = []
    while (left.bytesWritten === filled.byteLength) {
      const step = Math.ceil(filled.byteLength / 8)
      read.push(succeeded("the peer's read", yield* promptly("the peer's read", take(right, step))))
      yield* steady(() => left.bytesWritten)
    }
    yield* stillWaiting("a write in the middle", fiber)
    const k = left.bytesWritten - filled.byteLength
    ensure("bytes taken in the middle", k > 0 && k < message.byteLength, `1 to ${message.byteLength - 1}`, k)
    return { left, right, filled, fiber, message, k, total: message.byteLength, read: Buffers.concat(read) }
  })

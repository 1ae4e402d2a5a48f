/**
 * Bytes reported = bytes the peer can read, whatever cuts a write, wherever it
 * is cut. Every case is made from a seed; a failure names it, and
 * `SEED=<seed>` runs that seed alone.
 */
import { it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, type Fiber, Option, type Scope } from "effect"
import { describe } from "vitest"
import {
  Buffers,
  Cancellation,
  CompletionCondition,
  type SocketError,
  type StreamSocket,
  Write
} from "../../../src/index.ts"
import {
  connect,
  ensure,
  equal,
  failedWith,
  interrupted,
  sameBytes,
  show,
  succeeded,
  succeededWith,
  text
} from "../../../src/testing/checks/support.ts"
import { MemoryTransport, type StreamChecks } from "../../../src/testing/index.ts"
import { pattern } from "../../support/bytes.ts"
import { leavingNothing } from "../../support/leftovers.ts"
import { some } from "../../support/properties.ts"
import { eventually, exitOf, promptly, start, steady, turn, turns } from "../../support/waiting.ts"

type Socket = StreamSocket.StreamSocket
export type Random = ReturnType<typeof dice>

const dice = (seed: number) => {
  const next = MemoryTransport.random(seed)
  return {
    int: (least: number, most: number): number => least + Math.floor(next() * (most - least + 1)),
    of: <A>(...values: readonly [A, ...ReadonlyArray<A>]): A => values[Math.floor(next() * values.length)] ?? values[0]
  }
}

// ---- what is written

interface Operation {
  readonly name: string
  /** What the operation may take, at most. */
  readonly bytes: Uint8Array
  /** How many bytes it reports to be after. */
  readonly goal: number
  /** Whether it is complete after `count` bytes. */
  readonly complete: (count: number) => boolean
  readonly run: (socket: Socket) => Effect.Effect<number, SocketError.SocketError>
  /** Whether a stream that knows the word is torn when the operation is cut in the middle. */
  readonly tears: boolean
  /** Where the caller looks for the progress, if it passed a cursor. */
  readonly cursor: Buffers.Cursor | undefined
}

/** A completion condition that interrupts the fiber which asks it, once, after `at` bytes. */
interface Probe {
  readonly at: number
  interrupt: () => void
}

const ignore = () => {}

const gather = (random: Random, bytes: Uint8Array): ReadonlyArray<Buffers.View> => {
  const list: Array<Buffers.View> = []
  for (let at = 0; at < bytes.byteLength;) {
    const piece = bytes.subarray(at, at + random.int(0, Math.ceil(bytes.byteLength / 3)))
    list.push(random.int(0, 3) > 0 ? piece : new DataView(piece.buffer, piece.byteOffset, piece.byteLength))
    at += piece.byteLength
  }
  return list
}

const condition = (random: Random, size: number): Pick<Operation, "name" | "goal" | "complete"> & {
  readonly input: CompletionCondition.CompletionCondition
} => {
  const enough = random.int(1, size)
  const limit = random.int(1, size)
  return random.of<ReturnType<typeof condition>>(
    {
      name: "",
      input: CompletionCondition.transferAll,
      goal: size,
      complete: (count) => count === size
    },
    {
      name: `, at least ${enough}`,
      input: CompletionCondition.transferAtLeast(enough),
      goal: enough,
      complete: (count) => count >= enough
    },
    {
      name: `, exactly ${enough}`,
      input: CompletionCondition.transferExactly(enough),
      goal: enough,
      complete: (count) => count >= enough
    },
    {
      name: `, ${limit} at a time up to ${enough}`,
      input: CompletionCondition.make((count) => count >= enough ? 0 : limit),
      goal: size,
      complete: (count) => count >= enough
    }
  )
}

const operation = (random: Random, size: number, probe: Probe | undefined): Operation => {
  const bytes = pattern(size, random.int(1, 60_000))
  const input = random.of<Buffers.Input>(bytes, gather(random, bytes))
  const kind = `${size} bytes${Array.isArray(input) ? ` in ${input.length} pieces` : ""}`
  if (random.int(1, 5) === 1) {
    return {
      name: `writeSome of ${kind}`,
      bytes,
      goal: size,
      complete: (count) => count > 0,
      run: (socket) => socket.writeSome(input),
      tears: false,
      cursor: undefined
    }
  }
  const conditionFor = (size: number): ReturnType<typeof condition> => {
    const known = condition(random, size)
    return probe === undefined ? known : {
      ...known,
      goal: size,
      input: CompletionCondition.make((count) => {
        if (count >= probe.at) {
          const { interrupt } = probe
          probe.interrupt = ignore
          interrupt()
        }
        return known.input.next(count)
      })
    }
  }
  // The same operation over a stream that is only a `writeSome`.
  const plain = random.int(1, 4) === 1
  const stream = (socket: Socket): StreamSocket.WriteStream => plain ? { writeSome: socket.writeSome } : socket
  const over = plain ? " over a plain stream" : ""
  if (random.int(1, 2) === 1) {
    const { input: until, ...rest } = conditionFor(size)
    return {
      ...rest,
      name: `writeAll of ${kind}${rest.name}${over}`,
      bytes,
      run: (socket) => Write.writeAll(stream(socket), input, until),
      tears: !plain,
      cursor: undefined
    }
  }
  const cursor = Buffers.cursor(input)
  cursor.advance(random.int(0, size - 1))
  const { input: until, ...rest } = conditionFor(cursor.remaining)
  return {
    ...rest,
    name: `writeAll of a cursor at ${cursor.transferred} of ${kind}${rest.name}${over}`,
    bytes: bytes.subarray(cursor.transferred),
    run: (socket) => Write.writeAll(stream(socket), cursor, until),
    tears: !plain,
    cursor
  }
}

// ---- what interruption asks for

const within = Duration.millis(20)

const policies = {
  "terminal": Cancellation.terminal,
  "partial": Cancellation.partial,
  "total": Cancellation.total(),
  "total, too late": Cancellation.total({ atMost: within }),
  "total, in time": Cancellation.total({ within: "1 hour" })
}
type Policy = keyof typeof policies

// ---- where

export interface Place {
  readonly subject: StreamChecks.Subject
  readonly size: readonly [least: number, most: number]
  /** The most bytes that the peer reads at once. */
  readonly gulp: number
  /** Until whatever can happen by itself has happened. */
  readonly settle: (socket: Socket) => Effect.Effect<void>
}

interface Stage {
  readonly random: Random
  readonly place: Place
  readonly left: Socket
  readonly right: Socket
  /** What filled the connection before the operation. */
  readonly filled: Uint8Array
  readonly operation: Operation
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly isOver: () => boolean
  /** Lets the peer read once, up to `most` bytes. */
  readonly read: (most?: number) => Effect.Effect<void, unknown>
}

/** When the interruption comes: runs from the start of the operation up to and including it. */
interface Moment {
  readonly name: string
  readonly places: "all" | "memory"
  /** Bytes of another write that stands in front of the operation. */
  readonly front?: true
  readonly unstarted?: true
  /** The completion condition interrupts the fiber that asks it. */
  readonly inside?: true
  /** What follows the operation in its fiber. */
  readonly after?: Effect.Effect<unknown>
  readonly run: (stage: Stage) => Effect.Effect<unknown, unknown>
}

const interrupt = ({ fiber }: Stage) => Effect.sync(() => fiber.interruptUnsafe())

const taken = ({ filled, left }: Stage): number => left.bytesWritten - filled.byteLength

/** Makes room bit by bit until `enough` bytes were taken, or the operation is over. */
const advanceTo = (stage: Stage, enough: number, most: number) =>
  Effect.whileLoop({
    while: () => taken(stage) < enough && !stage.isOver(),
    body: () =>
      stage.right.bytesRead < stage.left.bytesWritten
        ? Effect.andThen(stage.read(Math.min(most, enough - taken(stage))), turns(3))
        : turn,
    step: ignore
  })

const moments: ReadonlyArray<Moment> = [
  {
    name: "before it starts",
    places: "all",
    unstarted: true,
    run: interrupt
  },
  {
    name: "while it waits in line",
    places: "all",
    front: true,
    run: (stage) => Effect.andThen(stage.place.settle(stage.left), interrupt(stage))
  },
  {
    name: "while it waits for room",
    places: "all",
    run: (stage) => Effect.andThen(stage.place.settle(stage.left), interrupt(stage))
  },
  {
    name: "between its chunks",
    places: "all",
    run: (stage) =>
      Effect.andThen(
        advanceTo(stage, stage.random.int(1, stage.operation.bytes.byteLength), stage.place.gulp),
        interrupt(stage)
      )
  },
  {
    name: "before its last byte",
    places: "memory",
    run: (stage) => Effect.andThen(advanceTo(stage, stage.operation.goal - 1, 1), interrupt(stage))
  },
  {
    name: "in the turn of its last byte",
    places: "all",
    run: (stage) =>
      Effect.gen(function*() {
        const { gulp } = stage.place
        yield* advanceTo(stage, stage.operation.goal - stage.random.int(1, gulp), gulp)
        yield* stage.read(gulp)
        for (let steps = stage.random.int(0, 3); steps > 0; steps--) {
          yield* stage.random.of(
            Effect.yieldNow,
            turn,
            Effect.promise(() => Promise.resolve()),
            Effect.callback<void>((resume) => queueMicrotask(() => resume(Effect.void)))
          )
        }
        yield* interrupt(stage)
      })
  },
  {
    name: "at a random moment, while the peer reads",
    places: "all",
    run: (stage) =>
      Effect.gen(function*() {
        for (let steps = stage.random.int(0, 40); steps > 0 && !stage.isOver(); steps--) {
          yield* stage.random.of(Effect.yieldNow, turn, stage.read(stage.random.int(1, stage.place.gulp)))
        }
        yield* interrupt(stage)
      })
  },
  {
    name: "by its own completion condition",
    places: "all",
    inside: true,
    run: (stage) => Effect.andThen(advanceTo(stage, Infinity, stage.place.gulp), interrupt(stage))
  },
  {
    name: "after its end",
    places: "all",
    after: Effect.never,
    run: (stage) => Effect.andThen(advanceTo(stage, Infinity, stage.place.gulp), interrupt(stage))
  }
]

// ---- the property

const fill = (socket: Socket, settle: Effect.Effect<void>): Effect.Effect<Uint8Array> =>
  Effect.gen(function*() {
    let count = 0
    const filling = yield* start(
      Effect.forever(
        Effect.map(Effect.suspend(() => socket.writeSome(pattern(65_536, count))), (taken) => {
          count += taken
        }),
        { disableYield: true }
      )
    )
    yield* settle
    filling.interruptUnsafe()
    yield* exitOf("the write that fills the connection", filling)
    equal("bytes reported while filling the connection", count, socket.bytesWritten)
    return pattern(count)
  })

const accounted = (
  { policy, probe, random, place, moment }: {
    readonly probe: Probe
    readonly random: Random
    readonly place: Place
    readonly moment: Moment
    readonly policy: Policy
  },
  operation: Operation
): Effect.Effect<void, unknown, Scope.Scope> =>
  Effect.gen(function*() {
    const [left, right] = yield* connect(place.subject)
    const filled = yield* fill(left, place.settle(left))
    const received: Array<Uint8Array> = []
    const target = new Uint8Array(place.gulp)
    const read = (most = place.gulp) =>
      Effect.map(right.readSome(target.subarray(0, Math.max(1, most))), (count) => {
        received.push(target.slice(0, count))
      })

    const front = pattern(moment.front === undefined ? 0 : random.int(1, 5000), 7)
    const inFront = yield* start(Write.writeAll(left, front))
    if (moment.inside && random.int(0, 1) === 0) {
      while (right.bytesRead < left.bytesWritten) yield* read()
    }

    const ended: Array<Exit.Exit<number, SocketError.SocketError>> = []
    const writing = Effect.withFiber((self) => {
      probe.interrupt = () => self.interruptUnsafe()
      return policies[policy](operation.run(left))
    }).pipe(
      Effect.onExit((exit) => Effect.sync(() => ended.push(exit))),
      (writing) => moment.after === undefined ? writing : Effect.tap(writing, moment.after)
    )
    const fiber = yield* (moment.unstarted === undefined ? start(writing) : Effect.forkChild(writing))
    const waitedFor = yield* Effect.exit(
      moment.run({ random, place, left, right, filled, operation, fiber, isOver: () => ended.length > 0, read })
    )
    succeeded("up to the interruption", waitedFor)

    // Time passes, or the peer reads everything from here on, or both.
    const isLate = policy === "total, too late"
    const mayGoOn = policy === "total" || policy === "total, in time" || (isLate && random.int(0, 1) === 0)
    if (!mayGoOn && !isLate) yield* exitOf("the operation", fiber)
    const early = mayGoOn ? yield* start(Effect.forever(read())) : undefined
    if (isLate) {
      if (!mayGoOn) yield* turns(2)
      yield* place.subject.advance(within)
      yield* exitOf("the operation", fiber)
    }
    const reading = early ?? (yield* start(Effect.forever(read())))
    const exit = yield* exitOf("the operation", fiber)
    if (moment.front !== undefined) succeeded("the write in front", yield* exitOf("the write in front", inFront))

    // What was reported.
    const seen = ended[0]
    const isInterrupted = seen === undefined || Exit.isFailure(seen)
    // Without a goal, only the answer of its condition tells that an operation is complete: on a socket, one that stops
    // at once does not wait for it.
    const isWhole = (count: number): boolean =>
      count === 0 || count >= operation.goal ||
      ((policy.startsWith("total") || !operation.tears) && operation.complete(count))
    let k = 0
    if (seen !== undefined && Exit.isSuccess(seen)) k = seen.value
    else if (moment.unstarted === undefined) {
      ensure("the exit", Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause), "an interruption", show(exit))
      const transfer = Exit.isFailure(exit) ? Option.getOrUndefined(Cancellation.transfer(exit.cause)) : undefined
      k = transfer === undefined ? left.bytesWritten - filled.byteLength - front.byteLength : transfer.transferred
      const expected = {
        transferred: k,
        total: operation.goal,
        guarantee: isWhole(k) ? "total" : policy === "partial" ? "partial" : "terminal"
      } as const
      interrupted("Fiber.await", exit, expected)
      if (seen !== undefined) interrupted("Effect.onExit", seen, expected)
    } else equal("exits of an operation that was not started", ended.length, 0)

    // What happened.
    equal("bytesWritten", left.bytesWritten, filled.byteLength + front.byteLength + k)
    if (operation.cursor !== undefined) {
      equal("the cursor", operation.cursor.remaining, operation.bytes.byteLength - k)
    }
    if (!isInterrupted || (k > 0 && (policy === "total" || policy === "total, in time"))) {
      equal("it is complete", operation.complete(k), true)
    }

    // What comes next.
    const parts = [filled, front, operation.bytes.subarray(0, k)]
    const torn = operation.tears && isInterrupted && !isWhole(k) && policy !== "partial"
    equal("the write side", left.state.write, torn ? "torn" : "open")
    if (torn) {
      for (const next of [left.writeSome(text("!")), Write.writeAll(left, text("!"))]) {
        const { reason } = failedWith("the next write", yield* promptly("the next write", next), "Torn")
        if (reason._tag === "Torn") {
          equal("transferred of the torn message", reason.transferred, k)
          equal("total of the torn message", reason.total, operation.goal)
        }
      }
    } else {
      if (operation.cursor !== undefined) {
        const rest = operation.bytes.byteLength - k
        succeededWith("the rest", yield* promptly("the rest", Write.writeAll(left, operation.cursor)), rest)
        parts.push(operation.bytes.subarray(k))
      }
      succeededWith("the next write", yield* promptly("the next write", Write.writeAll(left, text("next"))), 4)
      parts.push(text("next"))
    }
    // The reset that ends a torn stream may overtake bytes.
    if (torn) yield* eventually("the peer has what was taken", () => right.bytesRead === left.bytesWritten)
    succeeded("close", yield* promptly("close", left.close))
    yield* exitOf("what the peer reads", reading)
    sameBytes("what the peer reads", Buffers.concat(received), ...parts)
  })

/** The case that a seed stands for. */
const run = (seed: number, moment: Moment, placeOf: (random: Random) => Place) =>
  Effect.suspend(() => {
    const random = dice(seed)
    const place = placeOf(random)
    const policy = random.of<Policy>("terminal", "partial", "total", "total, too late", "total, in time")
    const size = random.int(...place.size)
    const probe: Probe = { at: random.int(0, size), interrupt: ignore }
    const what = operation(random, size, moment.inside === undefined ? undefined : probe)
    return Effect.catchCause(
      leavingNothing(accounted({ random, place, moment, policy, probe }, what)),
      (cause) => {
        const name = `${what.name}, ${policy}, interrupted ${moment.name}, ${place.subject.name}`
        const error = new Error(`${name}\nRun it again with SEED=${seed}\n${Cause.pretty(cause)}`)
        return Effect.die(error)
      }
    )
  })

const seeds = (count: number): ReadonlyArray<number> =>
  process.env["SEED"] === undefined
    ? Array.from({ length: some(count) }, (_, i) => i + 1)
    : [Number(process.env["SEED"])]

export const property = (name: string, kind: "memory" | "node", count: number, placeOf: (random: Random) => Place) =>
  describe(`bytes reported are bytes the peer reads: ${name}`, () => {
    const tester = kind === "memory" ? it.effect : it.live
    for (const [i, moment] of moments.entries()) {
      if (moment.places === "memory" && kind !== "memory") continue
      tester(
        `interrupted ${moment.name}`,
        () =>
          Effect.forEach(
            seeds(count),
            (seed) => run(process.env["SEED"] === undefined ? seed * 100 + i : seed, moment, placeOf),
            { discard: true }
          )
      )
    }
  })

/** On a real kernel, where the size of a connection is the system's. */
export const kernel = (subject: StreamChecks.Subject, size: number): Place => ({
  subject,
  size: [1, size],
  gulp: 100_000,
  settle: (socket) => steady(() => socket.bytesWritten)
})

/** Runs a program on a connection and on the model, side by side. */
import { Cause, Effect, type Fiber, Scheduler } from "effect"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import {
  Buffers,
  Cancellation,
  CompletionCondition,
  Read,
  type SocketError,
  StreamSocket,
  Write
} from "../../../src/index.ts"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { type Backing, type ListenerBacking, resolveOptions, Transport, WouldBlock } from "../../../src/Transport.ts"
import { eventually, steady, turn } from "../../support/waiting.ts"
import { delimiters, letters } from "./bytes.ts"
import {
  type Command,
  type End,
  type Fork,
  type Layer,
  type MemoryConnection,
  type Program,
  signals,
  type Step,
  type TcpConnection,
  type Type,
  type Until
} from "./commands.ts"
import {
  type Capabilities,
  describeReport,
  filterOf,
  findEnd,
  Model,
  type Operation,
  type Tally,
  type Task
} from "./model.ts"
import { Recorder } from "./recorder.ts"

type Socket = StreamSocket.StreamSocket

/** Where connections come from. */
export interface Source<Connection> {
  readonly pair: (connection: Connection) => Effect.Effect<readonly [Backing, Backing]>
  readonly memory: (connection: Connection) => MemoryConnection | undefined
  /** Writes that are in the middle before the program begins. */
  readonly filling: (connection: Connection) => ReadonlyArray<Fork>
  readonly can: Capabilities
}

interface Running {
  readonly task: Task
  readonly fiber: Fiber.Fiber<void, unknown>
  /** Of the AbortSignal around it, if there is one. */
  readonly controller: AbortController | undefined
}

const ends: ReadonlyArray<End> = [0, 1]

// Nothing but the program may end a close.
const linger = { linger: "10 hours" } as const

class Run {
  readonly model: Model
  readonly sockets: readonly [Socket, Socket]
  private readonly signals: ReadonlyArray<Cancellation.CancellationSignal>
  private readonly running: Array<Running> = []
  private readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  private names = 0

  constructor(
    model: Model,
    backings: readonly [Backing, Backing],
    fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  ) {
    this.model = model
    this.fork = fork
    this.signals = Array.from({ length: signals }, () => Cancellation.makeSignal())
    const [left, right] = backings
    this.sockets = [
      StreamSocket.make(new Recorder(left, model.observer(0)), linger),
      StreamSocket.make(new Recorder(right, model.observer(1)), linger)
    ]
  }

  get alive(): ReadonlyArray<Running> {
    return this.running.filter(({ fiber }) => fiber.pollUnsafe() === undefined)
  }

  private chosen(which: number): Running | undefined {
    const { alive } = this
    return alive[which % alive.length]
  }

  perform(command: Command): Effect.Effect<void> | undefined {
    switch (command.do) {
      case "fork":
        this.start(command)
        break
      case "interrupt": {
        const chosen = this.chosen(command.which)
        if (chosen !== undefined) this.interrupt(chosen)
        break
      }
      case "abortSignal": {
        const chosen = this.chosen(command.which)
        if (chosen?.controller !== undefined) {
          chosen.task.aborted = true
          chosen.controller.abort()
        }
        break
      }
      case "emit": {
        const expected = this.model.emits(command.signal, command.type)
        const report = this.signals[command.signal]?.emitUnsafe(command.type)
        this.model.emitted()
        if (report !== undefined && describeReport(report) !== expected) {
          this.model.differs("the report", describeReport(report), expected)
        }
        break
      }
      case "pass":
        return command.time === "turn"
          ? this.settle
          : command.time === "microtask"
          ? Effect.promise(() => Promise.resolve())
          : this.advance(command.time)
    }
    this.model.checkAttempts(`after ${command.do}`)
    return undefined
  }

  /** Until what can happen by itself has happened. */
  get settle(): Effect.Effect<void> {
    return Effect.andThen(turn, Effect.map(turn, () => this.model.checkQuiet(this.sockets)))
  }

  private advance(millis: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      // Timers that were just set have begun to run.
      const passing = Effect.andThen(turn, TestClock.adjust(millis))
      return Effect.andThen(
        Effect.andThen(
          turn,
          Effect.sync(() => {
            this.model.now += millis
          })
        ),
        Effect.andThen(passing, this.settle)
      )
    })
  }

  interrupt({ fiber, task }: Running): void {
    this.model.interrupts(task)
    fiber.interruptUnsafe()
  }

  /** Starts a fiber that takes steps. */
  start(fork: Fork): Running {
    const { model } = this
    const controller = fork.region.some((layer) => "abortSignal" in layer) ? new AbortController() : undefined
    const task: Task = {
      name: `fiber ${++this.names} of end ${fork.end}`,
      policy: fork.policy,
      region: fork.region,
      uninterruptible: fork.uninterruptible,
      current: undefined,
      interrupted: false,
      deadline: undefined,
      aborted: false
    }
    let cursor: Buffers.Cursor | undefined
    const step = (step: Step): Effect.Effect<void, unknown> =>
      Effect.suspend(() => {
        const resumed = step.op === "writeAll" && step.resume ? cursor : undefined
        const rest = resumed === undefined ? undefined : restOf(resumed)
        const operation = model.begins(task, fork.end, step, rest)
        const { effect, source, target } = this.real(operation, resumed)
        if (source !== undefined) cursor = source
        const before = source?.transferred ?? 0
        return Effect.onExit(effect, (exit) =>
          Effect.sync(() => {
            model.exits(operation, exit, target)
            if (source !== undefined && source.transferred - before !== operation.transferred) {
              model.differs(`${operation.name}: its cursor`, source.transferred - before, operation.transferred)
            }
          })).pipe(
            Effect.asVoid,
            Effect.catchCause((cause) => Cause.hasInterrupts(cause) ? Effect.failCause(cause) : Effect.void)
          )
      })
    const all = fork.steps.map(step).reduce((before, next) => Effect.andThen(before, next))
    const started = Effect.suspend(() => {
      model.starts(task)
      return fork.region.reduceRight((inner, layer) => this.within(layer, task, controller, inner), all)
    })
    const governed = fork.policy === "terminal"
      ? Cancellation.terminal(started)
      : fork.policy === "partial"
      ? Cancellation.partial(started)
      : Cancellation.total(started, fork.policy === "total" ? {} : { atMost: fork.policy })
    // A fiber that has used up its turn lets others in before its next operation, which would then start unseen.
    const whole = Effect.provideService(governed, Scheduler.MaxOpsBeforeYield, Infinity)
    const placed = fork.later ? Effect.andThen(Effect.yieldNow, whole) : whole
    const running = {
      task,
      controller,
      fiber: this.fork(fork.uninterruptible ? Effect.uninterruptible(placed) : placed)
    }
    this.running.push(running)
    return running
  }

  private within(
    layer: Layer,
    task: Task,
    controller: AbortController | undefined,
    effect: Effect.Effect<void, unknown>
  ): Effect.Effect<void, unknown> {
    if ("filter" in layer) return Cancellation.withFilter(effect, filterOf(layer.filter))
    if ("signal" in layer) {
      const signal = this.signals[layer.signal]
      return signal === undefined ? effect : Cancellation.withSignal(effect, signal)
    }
    const told = Cancellation.withFilter(effect, (type: Type) => {
      this.model.asks(task, type)
      return type
    })
    if ("deadline" in layer) return Cancellation.cancelAfter(told, layer.deadline, layer.type)
    return controller === undefined
      ? effect
      : Cancellation.withSignal(told, Cancellation.fromAbortSignal(controller.signal, layer.abortSignal))
  }

  private real({ bytes, end, step }: Operation, resumed: Buffers.Cursor | undefined): {
    readonly effect: Effect.Effect<unknown, unknown>
    readonly source?: Buffers.Cursor
    readonly target?: Uint8Array
  } {
    const socket = this.sockets[end]
    switch (step.op) {
      case "writeSome":
        return { effect: socket.writeSome(pieces(bytes, step.pieces)) }
      case "writeAll": {
        const until = conditionOf(step.until)
        if (!step.resume) return { effect: Write.writeAll(socket, pieces(bytes, step.pieces), until) }
        const source = resumed ?? Buffers.cursor(pieces(bytes, step.pieces))
        return { effect: Write.writeAll(socket, source, until), source }
      }
      case "shutdownWrite":
        return { effect: socket.shutdownWrite }
      case "close":
        return { effect: socket.close }
      case "abort":
        return { effect: socket.abort }
      case "readSome": {
        const target = new Uint8Array(step.size)
        return { effect: socket.readSome(target), target }
      }
      case "readExactly": {
        const target = new Uint8Array(step.size)
        return { effect: Read.readExactly(socket, target), target }
      }
      case "readAtLeast": {
        const target = new Uint8Array(step.size)
        return { effect: Read.readAtLeast(socket, target, step.least), target }
      }
      case "readUntil": {
        const { by, max } = step
        const delimiter = by === "function"
          ? (all: Uint8Array) => findEnd("function", all)
          : delimiters[by]
        return { effect: Read.readUntil(socket, delimiter, { max }) }
      }
      case "readAll":
        return { effect: Read.readAll(socket, { max: step.max }) }
    }
  }

  /** Starts a write, and waits until nothing more of it fits. */
  fill(fork: Fork): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      this.start(fork)
      const socket = this.sockets[fork.end]
      for (let last = -1, quiet = 0; quiet < 3;) {
        yield* turn
        quiet = socket.bytesWritten === last ? quiet + 1 : 0
        last = socket.bytesWritten
      }
    })
  }

  /** Lets everything that is left come to its end, and closes. */
  get finish(): Effect.Effect<void, unknown> {
    return Effect.gen({ self: this }, function*() {
      const { model } = this
      const over = (what: string, condition: () => boolean) =>
        eventually(
          () => [what, ...model.pendingOperations.map(({ name }) => `waiting: ${name}`)].join("\n"),
          () => model.difference !== undefined || condition(),
          patience
        )
      yield* this.settle
      this.interruptReads()
      for (const end of ends) {
        this.start(plain(end, [{ op: "readAll", max: everything }]))
        this.start(plain(end, [{ op: "shutdownWrite" }]))
      }
      // Every write ends, because the peer reads; every byte arrives, unless the reader is gone.
      yield* over("the writes and their bytes", () =>
        ends.every((end) => {
          const reader = end === 0 ? 1 : 0
          return model.waits(end, "writers").length === 0 &&
            (model.directions[end].wire.length === 0 || model.sides[reader].read !== "open")
        }))
      yield* this.settle
      // Where the end of the stream did not come, what came instead is in the read buffer.
      this.interruptReads()
      for (const end of ends) {
        const { length } = model.sides[end].buffer
        if (length > 0) this.start(plain(end, [{ op: "readSome", size: length }]))
      }
      model.checkAccount()
      for (const end of ends) this.start(plain(end, [{ op: "close" }]))
      yield* over("the fibers of the program", () => this.alive.length === 0)
      yield* this.settle
      for (const operation of model.pendingOperations) model.differs(operation.name, "is left", "an end")
    })
  }

  private interruptReads(): void {
    for (const end of ends) {
      for (const reading of this.model.waits(end, "readers")) {
        const running = this.running.find(({ task }) => task === reading.task)
        if (running !== undefined) this.interrupt(running)
      }
    }
  }

  get discard(): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const { fiber } of this.alive) fiber.interruptUnsafe()
      const [left, right] = this.sockets
      return Effect.andThen(left.abort, right.abort)
    })
  }
}

/** Fails with the first thing that is not as the model says. */
export const run = <Connection>(
  { can, filling, memory, pair }: Source<Connection>,
  { commands, connection }: Program<Connection>,
  tally: Tally
): Effect.Effect<void, unknown> =>
  Effect.gen(function*() {
    const context = yield* Effect.context()
    const backings = yield* pair(connection)
    const model = new Model(tally, memory(connection), can)
    const run = new Run(model, backings, Effect.runForkWith(context))
    const program = Effect.gen(function*() {
      tally.isCounting = true
      for (const fork of filling(connection)) yield* run.fill(fork)
      for (const [i, command] of commands.entries()) {
        const waiting = run.perform(command)
        if (waiting !== undefined) yield* waiting
        if (model.difference !== undefined) throw new Error(`at command ${i + 1}: ${model.difference}`)
      }
      tally.isCounting = false
      yield* run.finish
      if (model.difference !== undefined) throw new Error(`at the end: ${model.difference}`)
    })
    yield* Effect.ensuring(program, run.discard)
  })

// ---- sources

const memoryAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0")

export const overMemory: Source<MemoryConnection> = {
  memory: (connection) => connection,
  filling: () => [],
  can: { tellResetFromEndWhenShutDown: true },
  pair: (connection) =>
    Effect.gen(function*() {
      const transport = yield* Transport
      const options = resolveOptions(undefined)
      const listener = yield* transport.listen(memoryAddress, options)
      const left = yield* transport.connect(listener.address, options)
      const right = listener.accept()
      if (right === WouldBlock || !("read" in right)) throw new Error("no connection")
      return [left, right] as const
    }).pipe(Effect.provide(MemoryTransport.layerWith(connection)), Effect.orDie)
}

/** All connections through one listener. */
export const overListener = (
  transport: Transport["Service"],
  listener: ListenerBacking,
  can: Capabilities
): Source<TcpConnection> => {
  let acceptable: (() => void) | undefined
  listener.attach({ acceptable: () => acceptable?.() })
  const accept = Effect.callback<Backing | SocketError.SocketError>((resume) => {
    const attempt = () => {
      const backing = listener.accept()
      if (backing === WouldBlock) return
      acceptable = undefined
      resume(Effect.succeed(backing))
    }
    acceptable = attempt
    attempt()
  })
  return {
    memory: () => undefined,
    filling: ({ filling }) => filling,
    can,
    pair: ({ sliceSize }) =>
      Effect.gen(function*() {
        const left = yield* transport.connect(listener.address, resolveOptions({ sliceSize }))
        const right = yield* accept
        if (!("read" in right)) throw right
        return [left, right] as const
      }).pipe(Effect.orDie)
  }
}

/** About as many bytes as a connection takes while nobody reads. */
export const roomOf = <Connection>({ pair }: Source<Connection>, connection: Connection): Effect.Effect<number> =>
  Effect.gen(function*() {
    const [left, right] = yield* pair(connection)
    const [writer, reader] = [StreamSocket.make(left), StreamSocket.make(right)]
    const filling = yield* Effect.forkChild(
      Effect.forever(Effect.suspend(() => writer.writeSome(letters(65_536, 0))), { disableYield: true })
    )
    yield* steady(() => writer.bytesWritten)
    filling.interruptUnsafe()
    yield* Effect.andThen(writer.abort, reader.abort)
    return writer.bytesWritten
  })

// ---- internal

const plain = (end: End, steps: ReadonlyArray<Step>): Fork => ({
  end,
  steps,
  policy: "terminal",
  region: [],
  uninterruptible: false,
  later: false
})

// Only something that hangs takes that long.
const patience = 5_000

const everything = 256 * 1024 * 1024

const restOf = (cursor: Buffers.Cursor): Uint8Array => {
  const bytes = new Uint8Array(cursor.remaining)
  cursor.copyTo(bytes)
  return bytes
}

/** One view, or a gather list of so many. */
const pieces = (bytes: Uint8Array, count: number): Buffers.Input => {
  const own = bytes.byteLength > 1_000_000 ? bytes : bytes.slice()
  if (count === 0) return own
  const size = Math.ceil(own.byteLength / count)
  return Array.from({ length: count }, (_, i) => {
    const piece = own.subarray(i * size, (i + 1) * size)
    return i % 2 === 0 ? piece : new DataView(piece.buffer, piece.byteOffset, piece.byteLength)
  })
}

const conditionOf = (until: Until): CompletionCondition.Input => {
  switch (until.until) {
    case "all":
      return CompletionCondition.transferAll
    case "atLeast":
      return CompletionCondition.transferAtLeast(until.count)
    case "exactly":
      return CompletionCondition.transferExactly(until.count)
    case "function":
      return (transferred) => transferred >= until.to ? 0 : until.count
  }
}

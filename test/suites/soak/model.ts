/**
 * The model of a connection: a plain byte queue in each direction, the lines of
 * operations that wait, and the rules by which they end (design, sections 3
 * and 4).
 *
 * It is told what is asked of the sockets, and what the transport answers to
 * the attempts of the core, because how many bytes an attempt moves is for the
 * transport to decide. Everything else it works out by itself: which operation
 * an attempt belongs to, how each operation ends and with which counts and
 * bytes, whether the stream is torn, what a request reports. Of the in-memory
 * transport it knows the rules too, and so predicts its answers as well.
 *
 * The first thing that is not as it says is kept in `difference`.
 */
import { Cause, Exit, Option } from "effect"
import { Buffer } from "node:buffer"
import { type Buffers, Cancellation, SocketError } from "../../../src/index.ts"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { WouldBlock } from "../../../src/Transport.ts"
import { ByteQueue, delimiters, letters, sameBytes, showDifference } from "./bytes.ts"
import {
  type CloseStep,
  type End,
  type FilterName,
  type Layer,
  type MemoryConnection,
  type Policy,
  type ReadStep,
  type Step,
  stepText,
  type Type,
  type Until,
  type WriteStep
} from "./commands.ts"
import type { Observer } from "./recorder.ts"

// ---- what there is

/** A fiber that takes steps. */
export interface Task {
  readonly name: string
  readonly policy: Policy
  readonly region: ReadonlyArray<Layer>
  readonly uninterruptible: boolean
  /** The operation that it is at. */
  current: Operation | undefined
  interrupted: boolean
  /** From when on its deadline stands. */
  deadline: number | undefined
  /** Its AbortSignal has been aborted. */
  aborted: boolean
}

type Kind = Step["op"]

export interface Operation {
  readonly id: number
  readonly name: string
  readonly task: Task
  readonly end: End
  readonly kind: Kind
  readonly step: Step
  /** What a write offers. */
  readonly bytes: Uint8Array
  /** Bytes that complete it; 0 where that is not known. */
  readonly total: number
  transferred: number
  pending: boolean
  /** It has been tried, or will be as soon as it is in front; one that runs the caller's code starts asleep. */
  awake: boolean
  /** The last attempt would block. */
  parked: boolean
  /** Interrupted, and going on to its end; until when, if there is a bound. */
  finishing: { readonly until: number } | undefined
  /** The deadline or the AbortSignal of its task has reached it. */
  asked: boolean
  expected: Expected | undefined
  exited: boolean
}

/** What it fails with, in the fields that a caller can see. */
interface Failure {
  readonly tag: SocketError.Reason["_tag"]
  readonly type?: Type
  readonly deadline?: boolean
  readonly of?: readonly [transferred: number, total: number]
}

interface Expected {
  /** In the words of `describeExit`. */
  readonly exit: string
  /** What a read delivers, or shows at the front of its target. */
  readonly bytes?: Uint8Array
}

class Direction {
  /** Taken from the writer and not yet handed to the reader's socket. */
  readonly wire = new ByteQueue()
  taken = 0
  received = 0
  /** FIN was sent, or the descriptor of the writer is gone. */
  finished = false
  abandoned = false
  reset = false
  /** The writer was aborted, at once or while it was closing. */
  aborted = false
  /** What the exits of writes say that was taken, and what the exits of reads delivered. */
  readonly reported: Array<{ readonly id: number; readonly bytes: Uint8Array }> = []
  readonly delivered: Array<Uint8Array> = []
}

class Side {
  phase: "open" | "closing" | "closed" = "open"
  write: "open" | "shutdown" | "torn" | "failed" | "closed" = "open"
  refusal: Failure | undefined = undefined
  read: "open" | "ended" | "failed" | "closed" = "open"
  released = false
  readonly writers: Array<Operation> = []
  readonly readers: Array<Operation> = []
  readonly closers: Array<Operation> = []
  /** Received and not consumed. */
  readonly buffer = new ByteQueue()
}

/** What came about in a soak, by name. */
export class Tally {
  operations = 0
  readonly counts = new Map<string, number>()
  /** A program is under way; what empties and closes a connection after it does not count. */
  isCounting = false

  operation(): void {
    if (this.isCounting) this.operations++
  }

  count(what: string): void {
    if (!this.isCounting) return
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }

  of(what: string): number {
    return this.counts.get(what) ?? 0
  }
}

// ---- exits in words

const progress = (transferred: number, total: number): string => `${transferred} of ${total}`

const describeFailure = (
  { deadline, of, tag, type }: Failure,
  transferred: number,
  total: number | undefined
): string =>
  [
    tag,
    ...(type === undefined ? [] : [type]),
    ...(deadline === true ? ["by deadline"] : []),
    ...(of === undefined ? [] : [`(${progress(...of)})`]),
    `after ${transferred}${total === undefined ? "" : ` of ${total}`}`
  ].join(" ")

const failureOf = (reason: SocketError.Reason): Failure => {
  if (reason._tag === "Torn") return { tag: reason._tag, of: [reason.transferred, reason.total] }
  if (reason._tag !== "OperationAborted") return { tag: reason._tag }
  return {
    tag: reason._tag,
    type: reason.type,
    of: [reason.transferred, reason.total],
    ...(reason.deadline === true ? { deadline: true } : undefined)
  }
}

const describeError = (error: unknown): string =>
  Cause.isDone(error)
    ? "Done"
    : SocketError.isSocketError(error)
    ? `${error.operation} ${describeFailure(failureOf(error.reason), error.transferred, error.total)}`
    : String(error)

const describeTransfer = ({ guarantee, total, transferred }: Cancellation.Transfer["Service"]): string =>
  ` (${guarantee}, ${progress(transferred, total)})`

export const describeExit = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) {
    const { value } = exit
    if (value === undefined) return "success"
    return `success with ${value instanceof Uint8Array ? value.byteLength : typeof value === "number" ? value : "?"}`
  }
  const words = exit.cause.reasons.map((reason) => {
    switch (reason._tag) {
      case "Interrupt":
        return "interrupted"
      case "Fail":
        return describeError(reason.error)
      case "Die":
        return `died: ${String(reason.defect)}`
    }
  })
  const transfer = Option.getOrUndefined(Cancellation.transfer(exit.cause))
  // One that waits to be served may be noted twice.
  return [...new Set(words)].join(" and ") + (transfer === undefined ? "" : describeTransfer(transfer))
}

const describePending = ({ operation, total, transferred }: Cancellation.Pending): string =>
  `${operation} ${progress(transferred, total)}`

export const describeReport = ({ ended, continued }: Cancellation.Report): string =>
  `ended [${ended.map((one) => `${describePending(one)} ${one.guarantee}`).join(", ")}], ran on [${
    continued.map(describePending).join(", ")
  }]`

// ---- rules

const filters: Record<FilterName, Cancellation.Filter> = {
  none: Cancellation.allowNone,
  terminal: Cancellation.allowTerminal,
  partial: Cancellation.allowPartial,
  all: (type) => type,
  weaken: () => "terminal"
}

export const filterOf = (name: FilterName): Cancellation.Filter => filters[name]

const strength: Record<Type, number> = { terminal: 0, partial: 1, total: 2 }

/** What a request of a layer has become when it has passed the filters inside; `undefined`: nothing. */
const passing = (region: ReadonlyArray<Layer>, from: number, type: Type): Type | undefined => {
  let passed: Type | undefined = type
  for (const layer of region.slice(from + 1)) {
    if (passed === undefined || !("filter" in layer)) continue
    switch (layer.filter) {
      case "none":
        passed = undefined
        break
      case "terminal":
        passed = passed === "terminal" ? passed : undefined
        break
      case "partial":
        passed = passed === "total" ? undefined : passed
        break
      case "weaken":
        passed = "terminal"
        break
      case "all":
        break
    }
  }
  return passed
}

const goalOf = (until: Until, offered: number): number =>
  until.until === "atLeast" || until.until === "exactly" ? Math.min(offered, until.count) : offered

/** The most bytes that the next attempt of a write may take; 0 when it is complete. */
const limitOf = ({ bytes, step, transferred }: Operation): number => {
  const rest = bytes.byteLength - transferred
  if (step.op === "writeSome") return transferred > 0 ? 0 : rest
  if (step.op !== "writeAll" || rest === 0) return 0
  const { until } = step
  switch (until.until) {
    case "all":
      return rest
    case "atLeast":
      return transferred >= until.count ? 0 : rest
    case "exactly":
      return Math.min(rest, Math.max(0, until.count - transferred))
    case "function":
      return transferred >= until.to ? 0 : Math.min(rest, until.count)
  }
}

const isWrite = (step: Step): step is WriteStep => ["writeSome", "writeAll", "shutdownWrite"].includes(step.op)
const isClose = (step: Step): step is CloseStep => step.op === "close" || step.op === "abort"

const totalOfRead = (step: ReadStep): number => {
  switch (step.op) {
    case "readSome":
    case "readExactly":
      return step.size
    case "readAtLeast":
      return step.least
    case "readUntil":
    case "readAll":
      return 0
  }
}

/** The bytes that make up a message of `readUntil`, if its end is among these. */
export const findEnd = (by: keyof typeof delimiters, bytes: Uint8Array): number | undefined => {
  const delimiter = delimiters[by]
  const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf(delimiter)
  return at < 0 ? undefined : at + (typeof delimiter === "string" ? delimiter.length : 1)
}

// ---- the model

/** What not every platform can do; everything else is required. */
export interface Capabilities {
  /** A reset behind bytes that nobody has read is told from the end of the stream, also once `shutdownWrite` was run. */
  readonly tellResetFromEndWhenShutDown: boolean
}

export class Model {
  readonly tally: Tally
  now = 0
  difference: string | undefined = undefined
  readonly sides: readonly [Side, Side] = [new Side(), new Side()]
  /** The direction that an end writes. */
  readonly directions: readonly [Direction, Direction] = [new Direction(), new Direction()]
  /** Ended here, and not yet in reality. */
  readonly due = new Set<Operation>()
  private readonly pending = new Set<Operation>()
  private emitting = false
  private ids = 0
  private readonly memory: MemoryConnection | undefined
  private readonly can: Capabilities
  private readonly limit: () => number

  constructor(tally: Tally, memory: MemoryConnection | undefined, can: Capabilities) {
    this.tally = tally
    this.memory = memory
    this.can = can
    const chunk = memory?.chunk ?? (memory?.seed === undefined ? Infinity : 4096)
    const next = memory?.seed === undefined ? undefined : MemoryTransport.random(memory.seed)
    this.limit = next === undefined ? () => chunk : () => next() < 0.1 ? 0 : 1 + Math.floor(next() * chunk)
  }

  differs(what: string, actual: unknown, expected: unknown): void {
    this.difference ??= `${what}: ${String(actual)}, expected ${String(expected)}`
  }

  private agreeOnBytes(what: string, actual: Uint8Array, expected: Uint8Array): void {
    if (!sameBytes(actual, expected)) this.difference ??= `${what}: ${showDifference(actual, expected)}`
  }

  private agree(what: string, actual: unknown, expected: unknown): void {
    if (actual !== expected) this.differs(what, actual, expected)
  }

  // ---- what is asked

  /** A fiber starts in its region. */
  starts(task: Task): void {
    const deadline = task.region.find((layer) => "deadline" in layer)
    if (deadline !== undefined) task.deadline = this.now + deadline.deadline
  }

  /** A fiber starts an operation. */
  begins(task: Task, end: End, step: Step, offered: Uint8Array | undefined): Operation {
    const id = ++this.ids
    this.tally.operation()
    const bytes = offered ?? letters(step.op === "writeAll" || step.op === "writeSome" ? step.size : 0, id)
    const runsCallerCode = (step.op === "writeAll" && step.until.until === "function") ||
      (step.op === "readUntil" && step.by === "function")
    const operation: Operation = {
      id,
      name: `${task.name}, ${stepText(step)}`,
      task,
      end,
      // What is cut inside a message is not closed but aborted.
      kind: step.op === "close" && this.isCutInside(this.sides[end]) ? "abort" : step.op,
      step,
      bytes,
      total: step.op === "writeSome"
        ? bytes.byteLength
        : step.op === "writeAll"
        ? goalOf(step.until, bytes.byteLength)
        : isWrite(step) || isClose(step)
        ? 0
        : totalOfRead(step),
      transferred: 0,
      pending: true,
      awake: !runsCallerCode,
      parked: false,
      finishing: undefined,
      asked: false,
      expected: undefined,
      exited: false
    }
    task.current = operation
    this.pending.add(operation)
    const side = this.sides[end]
    if (isClose(step)) {
      this.closes(side)
      side.closers.push(operation)
      if (side.phase === "closed") this.settle(operation, { exit: "success" })
    } else if (isWrite(step)) {
      if (this.isEmptyWrite(operation) && !runsCallerCode) {
        const refusal = this.refusalOf(operation)
        this.settle(operation, refusal === undefined ? { exit: "success with 0" } : this.fails(operation, refusal))
      } else {
        side.writers.push(operation)
        this.advanceWriters(side)
      }
    } else if (step.op === "readSome" && step.size === 0) {
      this.settle(
        operation,
        side.read === "closed" ? this.fails(operation, { tag: "Closed" }) : { exit: "success with 0" }
      )
    } else {
      side.readers.push(operation)
      this.advanceReaders(side)
    }
    return operation
  }

  /** The fiber of a task is interrupted while it is parked. */
  interrupts(task: Task): void {
    if (task.interrupted) return
    task.interrupted = true
    const operation = task.current
    if (task.uninterruptible || operation === undefined || !operation.pending) return
    const { step } = operation
    if (isClose(step)) {
      // A close waits for the release all the same; an abort has nothing to add to what is on its way.
      if (operation.kind === "abort") this.settle(operation, { exit: "interrupted" })
      else operation.finishing = { until: Infinity }
      return
    }
    if (!isWrite(step)) {
      this.tally.count("interrupted: total")
      this.settle(operation, { exit: "interrupted" })
      return
    }
    const { policy } = task
    const asked = typeof policy === "number" ? "total" : policy
    const guarantee = this.guaranteeOf(operation, asked)
    if (guarantee === undefined) {
      operation.finishing = { until: typeof policy === "number" ? this.now + policy : Infinity }
      return
    }
    this.tally.count(`interrupted: ${guarantee}`)
    this.cut(operation, guarantee)
  }

  /** A request by `emit`; answers the report that it has to give. */
  emits(signal: number, type: Type): string {
    this.emitting = true
    const reached: Array<{ readonly operation: Operation; readonly type: Type | undefined }> = []
    for (const operation of this.pending) {
      const { region } = operation.task
      const at = region.findLastIndex((layer) => "signal" in layer && layer.signal === signal)
      if (at >= 0 && this.isInRegion(operation)) {
        reached.push({ operation, type: passing(region, at, type) })
      }
    }
    return this.requests(reached, "request")
  }

  emitted(): void {
    this.emitting = false
  }

  /** The innermost filter of a deadline or an AbortSignal was asked: a request is on its way. */
  asks(task: Task, type: Type): void {
    const operation = task.current
    if (this.emitting || operation === undefined || !operation.pending) return
    const at = task.region.findIndex((layer) => "deadline" in layer || "abortSignal" in layer)
    const layer = task.region[at]
    if (layer === undefined) return
    if ("deadline" in layer) {
      this.agree(`${operation.name}: type of the deadline`, type, layer.type)
      if (task.deadline === undefined || this.now < task.deadline) {
        this.differs(`${operation.name}: its deadline comes`, `${this.now} ms`, `${task.deadline} ms`)
      }
    } else if ("abortSignal" in layer) {
      this.agree(`${operation.name}: type of the AbortSignal`, type, layer.abortSignal)
      this.agree(`${operation.name}: its AbortSignal`, task.aborted, true)
    }
    if (!this.isInRegion(operation)) return
    operation.asked = true
    this.requests(
      [{ operation, type: passing(task.region, at, type) }],
      "deadline" in layer ? "deadline" : "abortSignal"
    )
  }

  // ---- what the transport answers

  observer(end: End): Observer {
    const side = this.sides[end]
    const out = this.directions[end]
    const incoming = this.directions[end === 0 ? 1 : 0]
    return {
      onWrite: (source, limit, answer) => this.onWrite(side, out, incoming, source, limit, answer),
      onRead: (target, answer) => this.onRead(side, incoming, target, answer),
      onShutdown: (answer) => this.onShutdown(side, out, answer),
      onRelease: (how) => {
        if (how === "abort") out.aborted = true
        if (side.phase === "open") this.differs("released", how, "only after a close or an abort")
        if (side.released) return
        side.released = true
        if (how === "abort") out.reset = true
        out.finished = true
        incoming.abandoned = true
      },
      onEvent: (event) => this.onEvent(side, event),
      afterEvent: () => this.checkAttempts("after an event")
    }
  }

  private onWrite(
    side: Side,
    out: Direction,
    incoming: Direction,
    source: Buffers.Cursor,
    limit: number,
    answer: number | SocketError.SocketError
  ): void {
    const operation = side.writers[0]
    if (operation === undefined || operation.kind === "shutdownWrite" || side.write !== "open") {
      this.differs("a write attempt", `with ${operation?.name ?? "nobody"} in front, ${side.write}`, "none")
      return
    }
    operation.awake = true
    const most = limitOf(operation)
    this.agree(
      `${operation.name}: the attempt offers`,
      Math.min(source.remaining, limit),
      most
    )
    if (this.memory !== undefined) this.agree("the answer", tell(answer), this.predictWrite(out, incoming, most))
    if (typeof answer !== "number") {
      this.failed(operation, answer)
      side.write = "failed"
      side.refusal = failureOf(answer.reason)
      this.settle(operation, this.fails(operation, side.refusal))
      return
    }
    if (answer === WouldBlock) {
      operation.parked = true
      return
    }
    if (answer < 1 || answer > most) {
      this.differs(`${operation.name}: bytes taken`, answer, `1 to ${most}`)
      return
    }
    const piece = operation.bytes.subarray(operation.transferred, operation.transferred + answer)
    const taken = new Uint8Array(answer)
    source.copyTo(taken)
    this.agreeOnBytes(`${operation.name}: it offers`, taken, piece)
    out.wire.append(piece)
    out.taken += answer
    operation.transferred += answer
    operation.parked = false
    this.advanceWriters(side)
  }

  private onShutdown(side: Side, out: Direction, answer: number | SocketError.SocketError): void {
    const operation = side.writers[0]
    if (operation?.kind !== "shutdownWrite" || side.write !== "open") {
      this.differs("an attempt to shut down", `with ${operation?.name ?? "nobody"} in front, ${side.write}`, "none")
      return
    }
    if (answer === WouldBlock) {
      if (this.memory !== undefined) this.differs("shutdownWrite", "would block", "0")
      operation.parked = true
    } else if (typeof answer === "number") {
      out.finished = true
      side.write = "shutdown"
      side.refusal = { tag: "BrokenPipe" }
      this.settle(operation, { exit: "success" })
    } else {
      this.failed(operation, answer)
      side.write = "failed"
      side.refusal = failureOf(answer.reason)
      this.settle(operation, this.fails(operation, side.refusal))
    }
  }

  private onRead(
    side: Side,
    incoming: Direction,
    target: Uint8Array,
    answer: number | SocketError.SocketError
  ): void {
    const operation = side.readers[0]
    if (operation === undefined || side.read === "closed" || side.read === "ended") {
      this.differs("a read attempt", `with ${operation?.name ?? "nobody"} in front, ${side.read}`, "none")
      return
    }
    operation.awake = true
    this.advanceReaders(side)
    if (!operation.pending) {
      this.differs(`${operation.name}: a read attempt`, "although it was complete", "none")
      return
    }
    if (operation.kind === "readSome") {
      this.agree(`${operation.name}: it wants`, target.byteLength, operation.total)
    }
    if (this.memory !== undefined) this.agree("the answer", tell(answer), this.predictRead(incoming, target))
    if (typeof answer !== "number") {
      this.failed(operation, answer)
      side.read = "failed"
      this.settle(operation, this.fails(operation, failureOf(answer.reason), side.buffer.length))
    } else if (answer === WouldBlock) {
      operation.parked = true
    } else if (answer === 0) {
      const isLost = incoming.wire.length > 0
      const mayLose = !this.can.tellResetFromEndWhenShutDown && incoming.aborted && side.write === "shutdown"
      if (!incoming.finished || (isLost && !mayLose)) {
        this.differs("end of stream", `with ${incoming.wire.length} bytes on their way`, "none, and a FIN")
      }
      if (isLost) this.tally.count("a reset that looked like the end of the stream")
      side.read = "ended"
      this.advanceReaders(side)
    } else if (answer < 1 || answer > target.byteLength || answer > incoming.wire.length) {
      const most = Math.min(target.byteLength, incoming.wire.length)
      this.differs(`${operation.name}: bytes received`, answer, `1 to ${most}`)
    } else {
      const bytes = incoming.wire.shift(answer)
      const received = target.subarray(0, answer)
      this.agreeOnBytes(`${operation.name}: it receives`, received, bytes)
      incoming.received += answer
      operation.parked = false
      side.buffer.append(bytes)
      this.advanceReaders(side)
    }
  }

  private onEvent(side: Side, event: "readable" | "writable" | "closed" | SocketError.SocketError): void {
    const wakes = (operation: Operation | undefined) => {
      if (operation === undefined) return
      operation.awake = true
      operation.parked = false
    }
    if (event === "closed" && side.phase !== "open") {
      side.phase = "closed"
      for (const closer of side.closers.slice()) {
        this.settle(closer, { exit: closer.finishing === undefined ? "success" : "interrupted" })
      }
      return
    }
    if (side.phase !== "open") return
    if (event === "readable" || event === "closed") wakes(side.readers[0])
    if (event === "writable" || event === "closed") wakes(side.writers[0])
    if (typeof event === "object") {
      this.failed(side.writers[0], event)
      wakes(side.readers[0])
      wakes(side.writers[0])
      if (side.write === "open") {
        side.write = "failed"
        side.refusal = failureOf(event.reason)
      }
      this.advanceWriters(side)
    }
    // What waits for the end only, or has all it needs, needs no attempt.
    this.advanceReaders(side)
    this.advanceWriters(side)
  }

  private predictWrite(out: Direction, incoming: Direction, most: number): string {
    if (incoming.reset) return "ConnectionReset"
    if (out.abandoned) return "BrokenPipe"
    const room = this.memory!.capacity - out.wire.length
    if (room === 0) return "would block"
    const count = Math.min(room, most, this.limit())
    return count === 0 ? "would block" : String(count)
  }

  private predictRead(incoming: Direction, target: Uint8Array): string {
    const { wire } = incoming
    if (wire.length === 0) return incoming.reset ? "ConnectionReset" : incoming.finished ? "0" : "would block"
    const count = Math.min(wire.length, target.byteLength, this.limit())
    return count === 0 ? "would block" : String(count)
  }

  /** Only a connection that somebody has closed may fail. */
  private failed(operation: Operation | undefined, error: SocketError.SocketError): void {
    const tag = error.reason._tag
    if (!this.sides.some((side) => side.phase !== "open") || (tag !== "ConnectionReset" && tag !== "BrokenPipe")) {
      this.differs(operation?.name ?? "the connection", error, "no failure")
    }
    this.tally.count("the connection failed")
  }

  // ---- what becomes of it

  private isEmptyWrite({ kind, total }: Operation): boolean {
    return kind !== "shutdownWrite" && total === 0
  }

  private refusalOf(operation: Operation): Failure | undefined {
    const { refusal, write } = this.sides[operation.end]
    return this.isEmptyWrite(operation) && write !== "closed" && write !== "torn" ? undefined : refusal
  }

  /** Ends the writes in front that need no attempt to end. */
  private advanceWriters(side: Side): void {
    for (;;) {
      const operation = side.writers[0]
      if (operation === undefined || !operation.awake) return
      const refusal = this.refusalOf(operation)
      if (operation.kind === "shutdownWrite" && side.write === "shutdown") this.settle(operation, { exit: "success" })
      else if (refusal !== undefined) this.settle(operation, this.fails(operation, refusal))
      else if (operation.kind !== "shutdownWrite" && limitOf(operation) === 0) {
        this.settle(operation, { exit: `success with ${operation.transferred}` })
      } else return
    }
  }

  /** Ends the reads in front for which everything has arrived. */
  private advanceReaders(side: Side): void {
    for (;;) {
      const operation = side.readers[0]
      if (operation === undefined || !operation.awake) return
      const expected = this.outcomeOfRead(side, operation)
      if (expected === undefined) return
      this.settle(operation, expected)
    }
  }

  private outcomeOfRead(side: Side, operation: Operation): Expected | undefined {
    const { buffer } = side
    const { step } = operation
    if (isWrite(step) || isClose(step)) return undefined
    if (side.read === "closed") return this.fails(operation, { tag: "Closed" })
    const { length } = buffer
    const delivers = (count: number): Expected => ({ exit: `success with ${count}`, bytes: buffer.shift(count) })
    switch (step.op) {
      case "readSome":
        if (length > 0) return delivers(Math.min(length, step.size))
        break
      case "readExactly":
      case "readAtLeast":
        if (length >= operation.total) return delivers(Math.min(length, step.size))
        break
      case "readUntil": {
        const found = findEnd(step.by, buffer.peek(step.max))
        if (found !== undefined) return delivers(found)
        if (length >= step.max) return this.fails(operation, { tag: "LimitExceeded" }, length)
        break
      }
      case "readAll":
        if (length > step.max) return this.fails(operation, { tag: "LimitExceeded" }, length)
        if (side.read === "ended") return delivers(length)
        break
    }
    if (side.read !== "ended") return undefined
    if (length === 0) return { exit: "Done" }
    return {
      ...this.fails(operation, { tag: "UnexpectedEof" }, length),
      ...(step.op === "readUntil" ? undefined : { bytes: buffer.peek(length) })
    }
  }

  private fails({ kind, step, total, transferred }: Operation, failure: Failure, count = transferred): Expected {
    // A readSome has no total to miss.
    const missed = kind === "readSome" || kind === "readUntil" || kind === "readAll" ? undefined : total
    const told = failure.tag === "OperationAborted" && total === 0
      ? undefined
      : failure.tag === "OperationAborted"
      ? total
      : isClose(step)
      ? undefined
      : missed
    return { exit: `${kind} ${describeFailure(failure, count, told)}` }
  }

  private isCutInside({ phase, write, writers }: Side): boolean {
    return phase === "open" && (write === "torn" || (writers[0] !== undefined && writers[0].transferred > 0))
  }

  private closes(side: Side): void {
    if (side.phase !== "open") return
    side.phase = "closing"
    side.write = side.read = "closed"
    side.refusal = { tag: "Closed" }
    for (const operation of [side.writers[0], side.readers[0]]) if (operation !== undefined) operation.awake = true
    this.advanceWriters(side)
    this.advanceReaders(side)
  }

  /** The guarantee that stopping now keeps, if that is as much as is asked. */
  private guaranteeOf({ kind, step, total, transferred }: Operation, asked: Type): Type | undefined {
    if (isClose(step)) return asked === "terminal" ? "terminal" : undefined
    if (!isWrite(step) || kind !== "writeAll" || transferred === 0 || transferred >= total) return "total"
    return strength[asked] <= strength.partial ? asked : undefined
  }

  private isInRegion(operation: Operation): boolean {
    const { finishing, kind } = operation
    if (kind === "abort") return false
    return kind !== "close" || (finishing === undefined && !this.aborting.has(operation))
  }

  /** An interruption ends a write here and now. */
  private cut(operation: Operation, guarantee: Type): void {
    this.leave(operation, guarantee)
    this.settle(operation, { exit: `interrupted${describeTransfer({ ...operation, guarantee })}` })
  }

  private leave(operation: Operation, guarantee: Type): void {
    const side = this.sides[operation.end]
    for (const line of [side.writers, side.readers, side.closers]) {
      const at = line.indexOf(operation)
      if (at >= 0) line.splice(at, 1)
      const front = line[0]
      // Whoever is in front now is tried.
      if (at === 0 && front !== undefined) {
        front.awake = true
        front.parked = false
      }
    }
    if (guarantee === "terminal" && isWrite(operation.step) && side.write === "open") {
      this.tally.count("torn")
      side.write = "torn"
      side.refusal = { tag: "Torn", of: [operation.transferred, operation.total] }
    }
  }

  private requests(
    reached: ReadonlyArray<{ readonly operation: Operation; readonly type: Type | undefined }>,
    origin: "request" | "deadline" | "abortSignal"
  ): string {
    const ended: Array<readonly [Operation, Type]> = []
    const ranOn: Array<Operation> = []
    for (const { operation, type } of reached) {
      const guarantee = type === undefined ? undefined : this.guaranteeOf(operation, type)
      if (guarantee === undefined) {
        ranOn.push(operation)
        this.tally.count(type === undefined ? "held back by a filter" : `refused: ${origin}`)
      } else ended.push([operation, guarantee])
    }
    const report = `ended [${
      ended.map(([operation, guarantee]) => `${describe(operation)} ${guarantee}`).join(", ")
    }], ran on [${ranOn.map(describe).join(", ")}]`
    // All of them have ended before anything follows from it.
    for (const [operation, guarantee] of ended) {
      if (!isClose(operation.step)) this.leave(operation, guarantee)
    }
    for (const [operation, guarantee] of ended) {
      this.tally.count(`${origin}: ${guarantee}`)
      const { kind, total, transferred } = operation
      if (kind === "close") {
        // It goes on as an abort, which no request reaches.
        operation.finishing = undefined
        this.aborting.add(operation)
      } else {
        this.settle(
          operation,
          this.fails(operation, {
            tag: "OperationAborted",
            type: guarantee,
            of: [transferred, total],
            ...(origin === "deadline" ? { deadline: true } : undefined)
          }),
          guarantee
        )
      }
    }
    for (const side of this.sides) {
      this.advanceWriters(side)
      this.advanceReaders(side)
    }
    return report
  }

  private readonly aborting = new Set<Operation>()

  /** It has ended; `aborted` is the guarantee of the request that did it, if one did. */
  private settle(operation: Operation, expected: Expected, aborted?: Type): void {
    if (!operation.pending) return
    const { finishing, step, total, transferred } = operation
    const side = this.sides[operation.end]
    this.leave(operation, "total")
    operation.pending = false
    this.pending.delete(operation)
    if (finishing === undefined || !isWrite(step) || expected.exit.startsWith("interrupted")) {
      operation.expected = expected
    } else {
      // It was interrupted, and that proceeds now.
      const isWhole = expected.exit.startsWith("success")
      const guarantee = isWhole ? "total" : aborted ?? "terminal"
      this.tally.count(
        isWhole
          ? "finished after an interruption"
          : aborted === undefined
          ? "failed while finishing"
          : "asked while finishing"
      )
      operation.expected = {
        exit: `interrupted${isWhole || aborted !== undefined ? "" : ` and ${expected.exit}`}${
          describeTransfer({ transferred, total, guarantee })
        }`
      }
    }
    this.count(operation)
    if (!operation.exited) this.due.add(operation)
    this.advanceWriters(side)
    this.advanceReaders(side)
  }

  private count({ expected, kind }: Operation): void {
    const exit = expected!.exit
    if (exit.startsWith("success")) this.tally.count(`completed: ${kind}`)
    else if (exit === "Done") this.tally.count("end of stream")
    else {
      for (const tag of ["UnexpectedEof", "LimitExceeded", "Closed", "Torn"]) {
        if (exit.includes(` ${tag} `)) this.tally.count(`failed: ${tag}`)
      }
    }
  }

  // ---- what is compared

  /** The fiber of an operation has gone on with this exit. `shown` is the target of a read. */
  exits(operation: Operation, exit: Exit.Exit<unknown, unknown>, shown: Uint8Array | undefined): void {
    const { name } = operation
    const side = this.sides[operation.end]
    operation.exited = true
    const actual = describeExit(exit)
    if (operation.pending) this.catchUp(side, operation)
    this.due.delete(operation)
    if (operation.pending) {
      this.differs(name, actual, `to wait, after ${progress(operation.transferred, operation.total)}`)
      return
    }
    const { bytes, exit: expected } = operation.expected!
    this.agree(name, actual, expected)
    const delivered = Exit.isSuccess(exit) && exit.value instanceof Uint8Array ? exit.value : shown
    if (bytes !== undefined) {
      const read = delivered?.subarray(0, bytes.byteLength) ?? new Uint8Array(0)
      this.agreeOnBytes(`${name}: it delivers`, read, bytes)
    }
    this.keepAccount(operation, exit, delivered)
    this.agreeWithOutcome(operation, exit)
  }

  // What only time or a microtask could tell.
  private catchUp(side: Side, operation: Operation): void {
    const front = (isWrite(operation.step) ? side.writers : side.readers)[0]
    if (front === undefined) return
    if (front.finishing !== undefined && front.finishing.until <= this.now && side.write === "open") {
      this.tally.count("interrupted: terminal, because time was over")
      this.cut(front, "terminal")
    } else if (!front.awake) {
      front.awake = true
      this.advanceWriters(side)
      this.advanceReaders(side)
    }
  }

  private keepAccount(
    operation: Operation,
    exit: Exit.Exit<unknown, unknown>,
    delivered: Uint8Array | undefined
  ): void {
    const { bytes, end, id, step } = operation
    if (isClose(step)) return
    if (!isWrite(step)) {
      if (!Exit.isSuccess(exit)) return
      const count = typeof exit.value === "number" ? exit.value : delivered?.byteLength
      this.directions[end === 0 ? 1 : 0].delivered.push(delivered?.slice(0, count) ?? new Uint8Array(0))
      return
    }
    let count = 0
    if (Exit.isSuccess(exit)) count = typeof exit.value === "number" ? exit.value : 0
    else {
      const transfer = Option.getOrUndefined(Cancellation.transfer(exit.cause))
      const failed = exit.cause.reasons.find(Cause.isFailReason)?.error
      count = transfer?.transferred ?? (SocketError.isSocketError(failed) ? failed.transferred : 0)
    }
    if (count > 0) this.directions[end].reported.push({ id, bytes: bytes.subarray(0, count) })
  }

  private agreeWithOutcome({ name }: Operation, exit: Exit.Exit<unknown, unknown>): void {
    const outcome = Cancellation.outcome(exit)
    const failed = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined
    const reason = SocketError.isSocketError(failed) ? failed.reason : undefined
    const words = (by: string, guarantee: Type, transferred: number, total: number) =>
      `Cancelled by ${by} (${guarantee}, ${progress(transferred, total)})`
    const actual = outcome._tag === "Cancelled"
      ? words(outcome.by, outcome.guarantee, outcome.transferred, outcome.total)
      : outcome._tag
    if (Exit.isSuccess(exit)) this.agree(`${name}: outcome`, actual, "Completed")
    else if (Cause.hasInterrupts(exit.cause)) {
      const transfer = Option.getOrUndefined(Cancellation.transfer(exit.cause))
      const { guarantee, total, transferred } = transfer ?? { transferred: 0, total: 0, guarantee: "total" as const }
      this.agree(`${name}: outcome`, actual, words("interruption", guarantee, transferred, total))
    } else if (reason?._tag === "OperationAborted") {
      const { deadline, total, transferred, type } = reason
      this.agree(
        `${name}: outcome`,
        actual,
        words(deadline === true ? "deadline" : "request", type, transferred, total)
      )
    } else this.agree(`${name}: outcome`, actual, "Failed")
  }

  /** Whoever is in front has been tried, and would block. */
  checkAttempts(when: string): void {
    for (const side of this.sides) {
      for (const front of [side.writers[0], side.readers[0]]) {
        if (front !== undefined && front.awake && !front.parked) {
          this.differs(`${front.name}, ${when}`, "in front, and was not tried", "an attempt")
        }
      }
    }
  }

  /** Nothing is under way in this turn any more. */
  checkQuiet(sockets: ReadonlyArray<Sockets>): void {
    for (const operation of this.due) {
      this.differs(`${operation.name} at ${this.now} ms`, "still waits", operation.expected?.exit)
    }
    for (const [i, side] of this.sides.entries()) {
      const end: End = i === 0 ? 0 : 1
      for (const front of [side.writers[0], side.readers[0]]) {
        if (front === undefined) continue
        if (!front.awake) this.differs(front.name, "in front, and was not tried", "an attempt")
        if (front.finishing !== undefined && front.finishing.until <= this.now) {
          this.differs(`${front.name} at ${this.now} ms`, "still finishing", `an end at ${front.finishing.until} ms`)
        }
      }
      const socket = sockets[end]
      if (socket === undefined) continue
      const { read, socket: phase, write } = socket.state
      this.agree(
        `state of end ${end}`,
        `${phase}, read ${read}, write ${write}`,
        `${side.phase}, read ${side.read}, write ${side.write}`
      )
      this.agree(`bytesWritten of end ${end}`, socket.bytesWritten, this.directions[end].taken)
      this.agree(`bytesRead of end ${end}`, socket.bytesRead, this.directions[end === 0 ? 1 : 0].received)
    }
    for (const operation of this.pending) {
      const { task } = operation
      const isStanding = task.aborted || (task.deadline !== undefined && task.deadline <= this.now)
      if (isStanding && !operation.asked && this.isInRegion(operation)) {
        this.differs(`${operation.name} at ${this.now} ms`, "was not asked", "to be asked")
      }
    }
    if (this.memory === undefined) return
    for (const end of [0, 1] as const) {
      const { finished, reset, wire } = this.directions[end]
      if (this.sides[end].writers.length > 0 && wire.length < this.memory.capacity) {
        this.differs(`end ${end}`, "a write waits although there is room", "it to go on")
      }
      if (this.sides[end === 0 ? 1 : 0].readers.length > 0 && (wire.length > 0 || finished || reset)) {
        this.differs(`end ${end}`, "a read waits although there is something", "it to go on")
      }
    }
  }

  /** From the exits alone: what was reported, in the order in which it was started, is what was delivered. */
  checkAccount(): void {
    for (const end of [0, 1] as const) {
      const { abandoned, delivered, finished, reported, reset } = this.directions[end]
      const sent = Buffer.concat(reported.sort((a, b) => a.id - b.id).map(({ bytes }) => bytes))
      const read = Buffer.concat(delivered)
      // Somebody closed: then the peer may have had only the front of it.
      const wasCut = abandoned || reset || (finished && this.sides[end].released)
      // A reader that cannot be interrupted may hold on to what never becomes enough.
      const held = this.sides[end === 0 ? 1 : 0].buffer.length
      const expected = sent.subarray(0, wasCut ? read.byteLength : sent.byteLength - held)
      this.agreeOnBytes(`what the peer of end ${end} read, by the reports of the writes`, read, expected)
    }
  }

  waits(end: End, what: "writers" | "readers"): ReadonlyArray<Operation> {
    return this.sides[end][what]
  }

  get pendingOperations(): ReadonlyArray<Operation> {
    return [...this.pending]
  }
}

export interface Sockets {
  readonly state: { readonly socket: string; readonly read: string; readonly write: string }
  readonly bytesRead: number
  readonly bytesWritten: number
}

const describe = ({ kind, total, transferred, step }: Operation): string =>
  `${kind} ${progress(isWrite(step) ? transferred : 0, total)}`

const tell = (answer: number | SocketError.SocketError): string =>
  typeof answer !== "number" ? answer.reason._tag : answer === WouldBlock ? "would block" : String(answer)

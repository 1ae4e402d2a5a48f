/**
 * What an operation of the matrix is played on: the connection, how it comes to
 * wait, what makes it go on, and what must be true when everything is over.
 */
import { type Cause, Deferred, Effect, Exit, type Fiber, type Layer, Scope } from "effect"
import type { NetAddress } from "effect/net"
import {
  Acceptor,
  Buffers,
  Cancellation,
  CompletionCondition,
  Read,
  type SocketError,
  StreamSocket,
  Transport,
  Write
} from "../../../src/index.ts"
import {
  ended,
  equal,
  failedWith,
  interrupted,
  isEnd,
  readToEnd,
  sameBytes,
  show,
  succeeded,
  succeededWith,
  take,
  text
} from "../../../src/testing/checks/support.ts"
import { pattern } from "../../support/bytes.ts"
import { eventually, exitOf, promptly, start, turns } from "../../support/waiting.ts"
import { type Cell, type Expectation, isOver, type TransportKind } from "./matrix.ts"

type Socket = StreamSocket.StreamSocket
type Failure = SocketError.SocketError | Cause.Done

export type Ended = Exit.Exit<unknown, Failure>

/** Where a matrix is played. */
export interface Place {
  readonly name: string
  readonly kind: TransportKind
  readonly layer: Layer.Layer<Transport.Transport>
  readonly address: () => NetAddress.SocketAddress
  /** Until a writer whose peer does not read has been taken everything from that can be. */
  readonly settle: (writer: Socket) => Effect.Effect<void>
  /** More bytes than a connection takes whose peer does not read, however much it has read before. */
  readonly plenty: Uint8Array
  /** Whether the peer of an aborted connection sees a reset. */
  readonly resets: boolean
  /** How many cells may be played at once. */
  readonly atOnce: number
}

/** What came of the cell, for the last look. */
export interface Result {
  readonly exit: Ended | undefined
  readonly expected: Expectation
  /** What became of the operation in front: there was none, it was cut to let the next one come forward, it was not touched. */
  readonly front: "none" | "gone" | "stands" | "closed"
  readonly frontExit: Effect.Effect<Ended | undefined>
  /** The request was one to close the stream. */
  readonly isClosing: boolean
  readonly k: number
}

export interface Stage {
  readonly operation: Effect.Effect<unknown, Failure>
  /** An operation to start before, so that the other one has to queue. */
  readonly front: Effect.Effect<unknown, Failure>
  /** The operation has to wait until `ready` is run. */
  readonly waits: boolean
  /** Until the operation waits for the transport. */
  readonly wait: Effect.Effect<void>
  /** Lets some of the operation's bytes through, and not all. */
  readonly progress: Effect.Effect<void, Failure>
  /** Brings about all that the operation, and the one in front of it, wait for. Only the first time does anything. */
  readonly ready: Effect.Effect<void, Failure, Transport.Transport>
  /** Bytes of the operation that were moved for good; asked while nothing behind it has started to move. */
  readonly taken: () => number
  /** What its account says it was to move. */
  readonly total: number
  /** An interruption leaves its account on the cause. */
  readonly annotates: boolean
  /** The scope of its socket; for `accept` that of the acceptor. */
  readonly scope: Scope.Closeable
  readonly abort: Effect.Effect<void>
  readonly verify: (result: Result) => Effect.Effect<void, unknown, Scope.Scope | Transport.Transport>
}

export const stageOf = (place: Place, cell: Cell): Effect.Effect<Stage, Failure, Scope.Scope | Transport.Transport> => {
  switch (cell.operation.kind) {
    case "connect":
      return connecting(place, cell)
    case "accept":
      return accepting(place, cell)
    case "read":
      return reading(place, cell)
    case "write":
    case "shutdownWrite":
    case "close":
      return writing(place, cell)
  }
}

// ---- connections

/** A connection whose left end has a scope of its own. */
const connection = (place: Place) =>
  Effect.gen(function*() {
    const outer = yield* Effect.scope
    const scope = yield* Scope.fork(outer)
    const acceptor = yield* Acceptor.listen(place.address())
    const accept = yield* start(acceptor.accept)
    const left = yield* Scope.provide(StreamSocket.connect(acceptor.address), scope)
    const right = succeeded("accept", yield* exitOf("accept", accept))
    yield* acceptor.close
    yield* Effect.addFinalizer(() => Effect.andThen(left.abort, right.abort))
    return { scope, left, right }
  })

const once = <R>(effect: Effect.Effect<void, Failure, R>): Effect.Effect<void, Failure, R> => {
  let isDone = false
  return Effect.suspend(() => {
    if (isDone) return Effect.void
    isDone = true
    return effect
  })
}

/** A reset where the platform has one, otherwise the end. */
const cutOff = (place: Place, exit: Ended): void => {
  if (place.resets) failedWith("what the peer sees", exit, "ConnectionReset")
  else if (!isEnd(exit)) failedWith("what the peer sees", exit, "ConnectionReset", "BrokenPipe")
}

// ---- writes

const head = text("head")
const next = text("next")
const tail = text("tail")
const small = pattern(5000, 3)

/** The message of a write, and how many of its bytes complete it. */
const messageOf = (place: Place, { moment }: Cell) => {
  const bytes = moment === "after k bytes" ? place.plenty.subarray(small.byteLength) : small
  return { bytes, goal: Math.floor(bytes.byteLength * 0.8) }
}

/** Writes until the connection takes no more, and answers with the bytes it took. */
const fill = (place: Place, socket: Socket) =>
  Effect.gen(function*() {
    const filling = yield* start(Cancellation.partial(Write.writeAll(socket, place.plenty)))
    yield* place.settle(socket)
    filling.interruptUnsafe()
    const exit = yield* exitOf("the write that fills the connection", filling)
    const count = socket.bytesWritten
    interrupted("the write that fills the connection", exit, {
      transferred: count,
      total: place.plenty.byteLength,
      guarantee: "partial"
    })
    return place.plenty.subarray(0, count)
  })

const writing = (place: Place, cell: Cell): Effect.Effect<Stage, Failure, Scope.Scope | Transport.Transport> =>
  Effect.gen(function*() {
    const { name, kind } = cell.operation
    const { left, right, scope } = yield* connection(place)
    const { bytes, goal } = messageOf(place, cell)
    const { operation, total } = writes(left, bytes, goal)[name] ?? writeAll(left, bytes)

    // The peer does not read from here on.
    const filled = yield* fill(place, left)

    // What comes behind the bytes that fill the connection.
    const received: Array<Uint8Array> = []
    const target = new Uint8Array(262_144)
    const read = (most: number) =>
      Effect.map(right.readSome(target.subarray(0, most)), (count) => {
        const at = right.bytesRead - count
        const known = Math.min(count, Math.max(0, filled.byteLength - at))
        same("what fills the connection", target.subarray(0, known), filled.subarray(at, at + known))
        if (count > known) received.push(target.slice(known, count))
      })
    const readUntilEnd = Effect.forever(Effect.suspend(() => read(target.byteLength)))
    const draining = yield* Deferred.make<Exit.Exit<unknown, Failure>>()
    const drain = once(
      Effect.asVoid(start(Effect.flatMap(Effect.exit(readUntilEnd), (exit) => Deferred.succeed(draining, exit))))
    )
    let front = 0
    let behind: Fiber.Fiber<number, Failure> | undefined
    return {
      operation,
      front: Effect.tap(Write.writeAll(left, head), (count) => Effect.sync(() => void (front = count))),
      waits: kind === "write" || place.kind === "node",
      wait: turns(2),
      progress: Effect.gen(function*() {
        // As little as brings some of the message in.
        while (left.bytesWritten === filled.byteLength) {
          const least = right.bytesRead + filled.byteLength / 8
          while (right.bytesRead < least) yield* read(Math.ceil(least - right.bytesRead))
          yield* place.settle(left)
        }
        const k = left.bytesWritten - filled.byteLength
        equal("the write is in its middle", k > 0 && k < goal, true)
        behind = yield* start(Write.writeAll(left, tail))
      }),
      ready: drain,
      taken: () => left.bytesWritten - filled.byteLength - front,
      total,
      annotates: kind !== "close",
      scope,
      abort: left.abort,
      verify: (result) =>
        Effect.gen(function*() {
          const { expected, exit, front, k } = result
          const isDone = expected === "completes" || expected === "runs on"
          const isShut = kind === "shutdownWrite" && isDone
          const isClosed = result.isClosing || (kind === "close" && expected !== "not started")
          // A write queued behind a torn one fails at once; behind any other it is not touched.
          if (behind !== undefined && expected === "torn") {
            failedWith("the write behind", yield* exitOf("the write behind", behind), "Torn")
          }
          yield* drain
          const parts: Array<Uint8Array> = []
          if (front !== "none") {
            const frontExit = yield* result.frontExit
            if (front === "closed") equal("the write in front", failedWith("it", frontExit!, "Closed").transferred, 0)
            else if (front === "gone") {
              interrupted("the write in front", frontExit!, { transferred: 0, total: 4, guarantee: "total" })
            } else {
              succeededWith("the write in front", frontExit! as Exit.Exit<number>, 4)
              parts.push(head)
            }
          }
          const moved = kind === "write" && exit !== undefined && Exit.isSuccess(exit) ? exit.value as number : k
          if (kind === "write" && (isDone || expected === "finishes")) {
            equal("it has written enough", isEnough(name, moved, goal, bytes.byteLength), true)
          }
          parts.push(bytes.subarray(0, kind === "write" ? moved : 0))
          if (behind !== undefined && expected !== "torn") {
            const behindExit = yield* exitOf("the write behind", behind)
            if (isClosed) failedWith("the write behind", behindExit, "Closed")
            else {
              succeededWith("the write behind", behindExit, tail.byteLength)
              parts.push(tail)
            }
          }

          const after = yield* promptly("the next write", Write.writeAll(left, next))
          const state = isClosed ? "closed" : expected === "torn" ? "torn" : isShut ? "shutdown" : "open"
          equal("the write side", left.state.write, state)
          equal("the read side", left.state.read, isClosed ? "closed" : "open")
          switch (state) {
            case "closed":
              failedWith("the next write", after, "Closed")
              break
            case "shutdown":
              failedWith("the next write", after, "BrokenPipe")
              break
            case "torn": {
              const { reason } = failedWith("the next write", after, "Torn")
              if (reason._tag !== "Torn") break
              equal("torn after", reason.transferred, k)
              equal("torn inside", reason.total, total)
              break
            }
            case "open":
              succeededWith("the next write", after, 4)
              parts.push(next)
          }
          const isTorn = state === "torn"
          // The reset that ends a torn stream may overtake bytes.
          if (isTorn) yield* eventually("the peer has what was taken", () => right.bytesRead === left.bytesWritten)
          succeeded("close", yield* promptly("close", left.close))
          const end = yield* promptly("what the peer reads", Deferred.await(draining))
          equal("bytes reported", left.bytesWritten, filled.byteLength + Buffers.byteLength(parts))
          const peers = succeeded("what the peer reads", end)
          const isCutInside = isTorn || (result.isClosing && kind === "write" && !isDone && k > 0)
          const isAborted = cell.request.kind === "abort" || expected === "aborts" || isCutInside
          const isLate = isOver(cell.moment)
          // Over epoll `close` waits only for bytes that are not acknowledged yet. A request that stands meets it if it does.
          const mayWait = kind === "close" && expected === "completes" && cell.moment === "before start" &&
            "type" in cell.request && cell.request.type === "terminal" && cell.request.kind !== "emit"
          if (mayWait) {
            if (!isEnd(peers)) cutOff(place, peers)
          } else if (!isAborted || (isLate && kind === "close")) {
            ended("what the peer reads", peers)
            equal("bytes the peer reads", right.bytesRead, left.bytesWritten)
          } else {
            // Behind a FIN, the peer may or may not have looked before the reset came.
            if (!isLate || kind !== "shutdownWrite" || !isEnd(peers)) cutOff(place, peers)
          }
          const seen = Buffers.concat(received)
          same("what the peer reads", seen, Buffers.concat(parts).subarray(0, seen.byteLength))
        })
    }
  })

/** Compares at once, and looks for the place only where there is one. */
const same = (what: string, actual: Uint8Array, expected: Uint8Array): void => {
  if (Buffer.compare(actual, expected) !== 0) sameBytes(what, actual, expected)
}

const writeAll = (
  socket: Socket,
  bytes: Uint8Array,
  condition?: CompletionCondition.Input,
  goal = bytes.byteLength
) => ({
  operation: Write.writeAll(socket, bytes, condition),
  total: goal
})

const writes = (socket: Socket, bytes: Uint8Array, goal: number): Record<
  string,
  { readonly operation: Effect.Effect<unknown, Failure>; readonly total: number }
> => ({
  "writeSome": { operation: socket.writeSome(bytes), total: bytes.byteLength },
  "writeAll, transferAtLeast": writeAll(socket, bytes, CompletionCondition.transferAtLeast(goal), goal),
  "writeAll, transferExactly": writeAll(socket, bytes, CompletionCondition.transferExactly(goal), goal),
  // Nobody but the function knows its goal.
  "writeAll, a function": writeAll(socket, bytes, (count) => Math.max(0, goal - count)),
  "shutdownWrite": { operation: socket.shutdownWrite, total: 0 },
  "close": { operation: socket.close, total: 0 }
})

const isEnough = (name: string, count: number, goal: number, all: number): boolean => {
  switch (name) {
    case "writeSome":
      return count > 0 && count <= all
    case "writeAll, transferAtLeast":
      return count >= goal && count <= all
    case "writeAll, transferExactly":
    case "writeAll, a function":
      return count === goal
    default:
      return count === all
  }
}

// ---- reads

const line = text("a message of one line\n")
const half = 9

const reading = (place: Place, cell: Cell): Effect.Effect<Stage, Failure, Scope.Scope | Transport.Transport> =>
  Effect.gen(function*() {
    const { name } = cell.operation
    const { left, right, scope } = yield* connection(place)
    const target = new Uint8Array(line.byteLength)
    const { operation, total } = reads(left, target)[name] ?? readExactly(left, target)
    const headTarget = new Uint8Array(head.byteLength)
    const isInFront = cell.moment === "queued" ||
      (cell.operation.queued && cell.moment !== "waiting" && cell.moment !== "after k bytes")
    const sent: Array<Uint8Array> = []
    const send = (bytes: Uint8Array) => {
      sent.push(bytes)
      return Effect.asVoid(Write.writeAll(right, bytes))
    }
    let isHalf = false
    const behindTarget = new Uint8Array(half)
    let behind: Fiber.Fiber<number, Failure> | undefined
    const ready = once(
      Effect.gen(function*() {
        if (isInFront) yield* send(head)
        yield* send(isHalf ? line.subarray(half) : line)
        if (name === "readAll") yield* right.shutdownWrite
      })
    )
    return {
      operation,
      front: Read.readExactly(left, headTarget),
      waits: true,
      wait: turns(2),
      progress: Effect.gen(function*() {
        isHalf = true
        yield* send(line.subarray(0, half))
        yield* eventually("a read in the middle", () => left.bytesRead === half)
        behind = yield* start(left.readSome(behindTarget))
      }),
      ready,
      taken: () => 0,
      total,
      annotates: false,
      scope,
      abort: left.abort,
      verify: (result) =>
        Effect.gen(function*() {
          const { exit, expected, front } = result
          if (result.isClosing) {
            equal("the read side", left.state.read, "closed")
            equal("the write side", left.state.write, "closed")
            failedWith("the next read", yield* promptly("the next read", left.readSome(target.slice())), "Closed")
            if (front === "closed") failedWith("the read in front", (yield* result.frontExit)!, "Closed")
            if (behind !== undefined) failedWith("the read behind", yield* exitOf("the read behind", behind), "Closed")
            const peers = yield* promptly("the peer's read", right.readSome(new Uint8Array(1)))
            if (cell.request.kind === "abort") cutOff(place, peers)
            else ended("the peer's read", peers)
            return
          }
          // What a cut read had collected belongs to the next read in the queue, at once.
          const collected: Array<Uint8Array> = []
          if (behind !== undefined) {
            succeededWith("the read behind", yield* exitOf("the read behind", behind), half)
            collected.push(behindTarget)
          }
          yield* ready
          const got: Array<Uint8Array> = []
          if (front !== "none") {
            const frontExit = yield* result.frontExit
            if (front === "stands") {
              succeededWith("the read in front", frontExit! as Exit.Exit<number>, head.byteLength)
              got.push(headTarget)
            } else equal("the read in front", show(frontExit), "an interruption")
          }
          if (exit !== undefined && Exit.isSuccess(exit)) {
            const bytes = exit.value instanceof Uint8Array ? exit.value : target.subarray(0, exit.value as number)
            if (name !== "readSome") sameBytes("what it read", bytes, line)
            got.push(bytes)
          } else equal("it has read nothing", expected === "total" || expected === "not started", true)
          equal("the write side", left.state.write, "open")
          if (name !== "readAll") {
            equal("the read side", left.state.read, "open")
            yield* send(tail)
            yield* right.shutdownWrite
          }
          // Whatever it has not returned, the next read gets.
          got.push(...collected)
          got.push(succeeded("the next read", yield* promptly("the next read", readToEnd(left))))
          sameBytes("what was read", Buffers.concat(got), ...sent)
          yield* Write.writeAll(left, next)
          sameBytes("the other direction", succeeded("it", yield* promptly("it", take(right, 4))), next)
        })
    }
  })

const readExactly = (socket: Socket, target: Uint8Array) => ({
  operation: Read.readExactly(socket, target),
  total: target.byteLength
})

const reads = (socket: Socket, target: Uint8Array): Record<
  string,
  { readonly operation: Effect.Effect<unknown, Failure>; readonly total: number }
> => ({
  "readSome": { operation: socket.readSome(target), total: target.byteLength },
  "readUntil": { operation: Read.readUntil(socket, "\n"), total: 0 },
  "readAll": { operation: Read.readAll(socket), total: 0 }
})

// ---- accept and connect

/** Bytes go both ways, and then it is over. */
const converses = (one: Socket, other: Socket) =>
  Effect.gen(function*() {
    yield* Write.writeAll(one, head)
    sameBytes("there", succeeded("there", yield* promptly("there", take(other, head.byteLength))), head)
    yield* Write.writeAll(other, tail)
    sameBytes("and back", succeeded("and back", yield* promptly("and back", take(one, tail.byteLength))), tail)
    // Both at once, so that neither waits for the other to say good-bye.
    yield* Effect.all([one.close, other.close], { concurrency: "unbounded" })
  })

const accepting = (place: Place, cell: Cell): Effect.Effect<Stage, Failure, Scope.Scope | Transport.Transport> =>
  Effect.gen(function*() {
    const outer = yield* Effect.scope
    const scope = yield* Scope.fork(outer)
    const acceptor = yield* Scope.provide(Acceptor.listen(place.address()), scope)
    // Connections belong to the cell; the scope of the acceptor is its own.
    const connect = Scope.provide(StreamSocket.connect(acceptor.address), outer)
    const accept = Scope.provide(acceptor.accept, outer)
    const clients: Array<Socket> = []
    const ready = once(
      Effect.gen(function*() {
        clients.push(yield* connect)
        if (cell.moment === "queued") clients.push(yield* connect)
      })
    )
    return {
      operation: accept,
      front: accept,
      waits: true,
      wait: turns(2),
      progress: Effect.void,
      ready,
      taken: () => 0,
      total: 0,
      annotates: false,
      scope,
      abort: Effect.void,
      verify: (result) =>
        Effect.gen(function*() {
          const accepted: Array<Socket> = []
          const { exit, front, isClosing } = result
          if (!isClosing) yield* ready
          if (front === "closed") failedWith("the accept in front", (yield* result.frontExit)!, "Closed")
          else if (front === "stands") {
            accepted.push(succeeded("the accept in front", yield* result.frontExit as Effect.Effect<Exit.Exit<Socket>>))
          }
          if (exit !== undefined && Exit.isSuccess(exit)) accepted.push(exit.value as Socket)
          if (isClosing) {
            failedWith("the next accept", yield* promptly("the next accept", accept), "Closed")
            failedWith("connect", yield* promptly("connect", connect), "ConnectionRefused", "AddressNotAvailable")
          } else {
            while (accepted.length < clients.length) {
              accepted.push(succeeded("the next accept", yield* promptly("the next accept", accept)))
            }
          }
          // In the order in which they came, and none is lost.
          for (const [i, socket] of accepted.entries()) yield* converses(clients[i]!, socket)
        })
    }
  })

const connecting = (place: Place, cell: Cell): Effect.Effect<Stage, Failure, Scope.Scope | Transport.Transport> =>
  Effect.gen(function*() {
    const outer = yield* Effect.scope
    const scope = yield* Scope.fork(outer)
    const transport = yield* Transport.Transport
    const acceptor = yield* Acceptor.listen(place.address())
    const gate = yield* Deferred.make<void>()
    // The kernel answers within a turn. Where more time has to pass, and in memory, the attempt is held up.
    const isHeld = place.kind === "memory" || cell.request.kind === "deadline"
    let socket: Socket | undefined
    const attempt = StreamSocket.connect(acceptor.address).pipe(
      Effect.provideService(Transport.Transport, {
        ...transport,
        connect: (address, options) =>
          isHeld
            ? Effect.andThen(Deferred.await(gate), transport.connect(address, options))
            : transport.connect(address, options)
      }),
      Effect.tap((made) => Effect.sync(() => void (socket = made)))
    )
    return {
      operation: Scope.provide(attempt, scope),
      front: Effect.never,
      waits: isHeld,
      wait: Effect.void,
      progress: Effect.void,
      ready: Effect.asVoid(Deferred.succeed(gate, undefined)),
      taken: () => 0,
      total: 0,
      annotates: false,
      scope,
      abort: Effect.suspend(() => socket === undefined ? Effect.die(new Error("no socket yet")) : socket.abort),
      verify: ({ exit, expected, isClosing }) =>
        Effect.gen(function*() {
          equal("a socket was handed over", exit !== undefined && Exit.isSuccess(exit), expected === "completes")
          let client = socket
          if (client !== undefined && isClosing) {
            yield* eventually("the socket is closed", () => client?.state.socket === "closed")
            failedWith("a write", yield* promptly("a write", client.writeSome(next)), "Closed")
            client = undefined
          }
          client ??= yield* Scope.provide(StreamSocket.connect(acceptor.address), outer)
          // A cut attempt may have come as far as the listener: its other end is gone.
          yield* Write.writeAll(client, head)
          let server: Socket
          let first: Exit.Exit<Uint8Array, unknown>
          do {
            server = yield* acceptor.accept
            first = yield* promptly("the first read", take(server, head.byteLength))
          } while (Exit.isFailure(first))
          sameBytes("there", first.value, head)
          yield* converses(server, client)
        })
    }
  })

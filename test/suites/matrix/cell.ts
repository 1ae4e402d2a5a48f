/** One cell of the matrix, played out on a transport and compared with what the rules say. */
import { Cause, Deferred, Effect, Exit, type Fiber, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { getEventListeners } from "node:events"
import { Cancellation, type SocketError, type Transport } from "../../../src/index.ts"
import { isSocketError } from "../../../src/SocketError.ts"
import { ensure, equal, isEnd, show, succeeded } from "../../../src/testing/checks/support.ts"
import { leavingNothing } from "../../support/leftovers.ts"
import { eventually, exitOf, start, turns } from "../../support/waiting.ts"
import { type Cell, type Expectation, expectation, isOver, type Request, requestName } from "./matrix.ts"
import { type Ended, type Place, type Stage, stageOf } from "./stage.ts"

const time = "1 second"

/** Plays out cells at once, each on a connection and a clock of its own, and names every one that is not as it should be. */
export const verify = (place: Place, cells: ReadonlyArray<Cell>): Effect.Effect<void, unknown> =>
  Effect.gen(function*() {
    const exits = yield* leavingNothing(
      Effect.forEach(
        cells,
        (cell) => Effect.exit(Effect.provide(Effect.scoped(play(place, cell)), [place.layer, TestClock.layer()])),
        { concurrency: place.atOnce }
      )
    )
    const wrong = cells.flatMap((cell, i) => {
      const exit = exits[i]!
      return Exit.isSuccess(exit)
        ? []
        : [`${nameOf(cell)} (${expectation(cell, place.kind)}): ${Cause.pretty(exit.cause)}`]
    })
    if (wrong.length > 0) return yield* Effect.die(new Error(`${place.name}\n${wrong.join("\n")}`))
  })

const nameOf = ({ moment, operation, request }: Cell): string =>
  `${operation.name} | ${requestName(request)} | ${moment}`

// ---- requests

/** The way of a request to the operation: the region that it is run in, and the lever. */
interface Wire {
  readonly around: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly fire: (fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<void>
  /** How many listen for the request, outside the region. */
  readonly listeners?: () => number
  readonly report: () => Effect.Success<ReturnType<Cancellation.CancellationSignal["emit"]>> | undefined
}

const abortReason = new Error("the caller has gone")

const wireOf = (
  request: Request,
  stage: Stage,
  fiberScope: Scope.Closeable
): Wire => {
  const plain: Wire = { around: (effect) => effect, fire: () => Effect.void, report: () => undefined }
  switch (request.kind) {
    case "interrupt":
      return {
        ...plain,
        around: request.policy === "total"
          ? Cancellation.total(request.expires ? { within: time } : {})
          : request.policy === "partial"
          ? Cancellation.partial
          : Cancellation.terminal,
        fire: (fiber) => Effect.sync(() => fiber.interruptUnsafe())
      }
    case "emit": {
      const signal = Cancellation.makeSignal()
      let report: ReturnType<Wire["report"]>
      return {
        around: Cancellation.withSignal(signal),
        fire: () => Effect.map(signal.emit(request.type), (answer) => void (report = answer)),
        report: () => report
      }
    }
    case "deadline":
      return { ...plain, around: Cancellation.cancelAfter(time, request.type), fire: () => TestClock.adjust(time) }
    case "AbortSignal": {
      const controller = new AbortController()
      return {
        ...plain,
        around: Cancellation.withSignal(Cancellation.fromAbortSignal(controller.signal, request.type)),
        fire: () => Effect.sync(() => controller.abort(abortReason)),
        listeners: () => getEventListeners(controller.signal, "abort").length
      }
    }
    case "fiber's scope":
      return { ...plain, fire: () => Scope.close(fiberScope, Exit.void) }
    case "socket's scope":
      return { ...plain, fire: () => Scope.close(stage.scope, Exit.void) }
    case "abort":
      return { ...plain, fire: () => stage.abort }
  }
}

// ---- the play

const play = (place: Place, cell: Cell): Effect.Effect<void, unknown, Scope.Scope | Transport.Transport> =>
  Effect.gen(function*() {
    const { moment, operation, request } = cell
    const expected = expectation(cell, place.kind)
    const scope = yield* Effect.scope
    const stage = yield* stageOf(place, cell)
    const fiberScope = yield* Scope.fork(scope)
    const wire = wireOf(request, stage, fiberScope)

    const front = moment === "queued" || operation.queued ? yield* start(stage.front) : undefined
    const gate = yield* Deferred.make<void>()
    let exit: Ended | undefined
    let k = 0
    const firing: Array<Fiber.Fiber<void>> = []
    const fire = (target: Fiber.Fiber<unknown, unknown>) =>
      Effect.map(Effect.forkIn(wire.fire(target), scope, { startImmediately: true }), (it) => void firing.push(it))
    const body = stage.operation.pipe(
      Effect.onExit((ended) => {
        exit = ended
        k = stage.taken()
        return moment === "in the turn of completion" ? Effect.withFiber(fire) : Effect.void
      }),
      (run) => moment === "before start" ? Effect.andThen(Deferred.await(gate), run) : run,
      (run) => isOver(moment) ? Effect.andThen(run, Effect.never) : run
    )
    const fiber = yield* Effect.forkIn(wire.around(body), fiberScope, { startImmediately: true })
    const over = eventually(() => `${nameOf(cell)}: it did not end`, () => exit !== undefined)

    // Up to the request.
    const isPassed = operation.queued && (moment === "waiting" || moment === "after k bytes")
    if (front !== undefined && isPassed) {
      front.interruptUnsafe()
      yield* exitOf("what stood in front", front)
    }
    if (moment === "waiting") yield* stage.wait
    if (moment === "after k bytes") yield* stage.progress
    if (isOver(moment)) {
      ensure("it has to wait before it can complete", exit === undefined || !stage.waits, "to wait", show(exit))
      yield* stage.ready
      yield* over
    } else equal("it has ended before the request", show(exit), "still running")
    if (moment === "after") yield* turns(2)
    const asked = stage.taken()
    if (moment !== "in the turn of completion") yield* fire(fiber)
    // The clock needs turns of its own.
    if (request.kind === "deadline" && firing[0] !== undefined) yield* exitOf("the clock", firing[0])
    if (moment === "before start") {
      yield* turns(2)
      yield* Deferred.succeed(gate, undefined)
    }

    // What comes of it.
    if (expected === "not started") yield* exitOf("its fiber", fiber)
    else if (expected === "runs on" || expected === "finishes" || (expected === "completes" && !isOver(moment))) {
      yield* turns(3)
      // A socket that was aborted has nothing left to wait for.
      if (stage.waits && request.kind !== "abort") equal("it goes on", show(exit), "still running")
      yield* stage.ready
      yield* over
    } else {
      if (request.kind === "interrupt" && request.expires && expected === "torn") {
        yield* turns(3)
        equal("it goes on for a while", show(exit), "still running")
        yield* TestClock.adjust(time)
      }
      yield* over
    }
    equal("the result", exit === undefined ? "none" : resultOf(exit), resultFor(cell, expected, stage, k))
    if (request.kind === "AbortSignal" && isCut(expected)) equal("the cause", causeOf(exit) === abortReason, true)
    reported(wire, cell, expected, asked)

    // What is left.
    const isClosing = request.kind === "socket's scope" || request.kind === "abort"
    yield* stage.verify({
      exit,
      expected,
      front: front === undefined ? "none" : isPassed ? "gone" : isClosing && !isOver(moment) ? "closed" : "stands",
      frontExit: front === undefined ? Effect.succeed(undefined) : exitOf("what stands in front", front),
      isClosing,
      k
    })
    fiber.interruptUnsafe()
    yield* exitOf("its fiber", fiber)
    for (const it of firing) succeeded("the request", yield* exitOf("the request", it))
    equal("the number of requests", firing.length, 1)
    equal("listeners left behind", wire.listeners?.() ?? 0, 0)
  })

// ---- results in words

const isCut = (expected: Expectation): boolean => expected === "total" || expected === "partial" || expected === "torn"

const guarantees: Partial<Record<Expectation, Cancellation.Type>> = {
  total: "total",
  partial: "partial",
  torn: "terminal",
  aborts: "terminal",
  finishes: "total"
}

const account = (guarantee: Cancellation.Type | undefined, transferred: number, total: number) =>
  `${guarantee}, ${transferred} of ${total} bytes`

/** What the rules come down to for this stage, in the words of `resultOf`. */
const resultFor = ({ request }: Cell, expected: Expectation, stage: Stage, k: number): string => {
  const isInterruption = request.kind === "interrupt" || request.kind === "fiber's scope"
  switch (expected) {
    case "not started":
      return "none"
    case "completes":
    case "runs on":
      return "completed"
    case "aborts":
      return isInterruption ? "interrupted" : "completed"
    case "Closed":
      return `Closed after ${k} bytes`
    case "total":
    case "partial":
    case "torn":
    case "finishes": {
      const text = account(guarantees[expected], k, stage.total)
      if (isInterruption) return stage.annotates ? `interrupted: ${text}` : "interrupted"
      return `${request.kind === "deadline" ? "deadline" : "request"}: ${text}`
    }
  }
}

const resultOf = (exit: Ended): string => {
  const outcome = Cancellation.outcome(exit)
  switch (outcome._tag) {
    case "Completed":
      return "completed"
    case "Cancelled": {
      const { by, guarantee, total, transferred } = outcome
      if (by !== "interruption") return `${by}: ${account(guarantee, transferred, total)}`
      const isAnnotated = Exit.isFailure(exit) && Option.isSome(Cancellation.transfer(exit.cause))
      return isAnnotated ? `interrupted: ${account(guarantee, transferred, total)}` : "interrupted"
    }
    case "Failed": {
      const error = errorOf(exit)
      return error === undefined ? show(exit) : `${error.reason._tag} after ${error.transferred} bytes`
    }
  }
}

const errorOf = (exit: Ended | undefined): SocketError.SocketError | undefined => {
  if (exit === undefined || Exit.isSuccess(exit) || isEnd(exit)) return undefined
  const error = exit.cause.reasons.find(Cause.isFailReason)?.error
  return isSocketError(error) ? error : undefined
}

const causeOf = (exit: Ended | undefined): unknown => errorOf(exit)?.cause

/** What `emit` answered. */
const reported = ({ report }: Wire, { operation, request }: Cell, expected: Expectation, k: number): void => {
  if (request.kind !== "emit") return
  const answer = report()
  const name = operation.name.replace(/[ ,].*/, "")
  const ended = answer?.ended.map((it) => `${it.operation} ${it.guarantee} after ${it.transferred}`).join()
  const isEnded = isCut(expected) || expected === "aborts"
  equal("what emit says has ended", ended, isEnded ? `${name} ${guarantees[expected]} after ${k}` : "")
  equal(
    "what emit says ran on",
    answer?.continued.map((it) => `${it.operation} after ${it.transferred}`).join(),
    expected === "runs on" ? `${name} after ${k}` : ""
  )
}

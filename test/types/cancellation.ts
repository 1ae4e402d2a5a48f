/** Cancellation in types: regions keep what an effect is, outcomes and reports say what they hold. Nothing here runs. */
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import type * as Metric from "effect/Metric"
import type * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Metrics from "../../src/Metrics.ts"
import * as Read from "../../src/Read.ts"
import type { Address, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import type { Transport } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { expectType } from "./expect.ts"

type Type = "terminal" | "partial" | "total"
type Written = Effect.Effect<number, SocketError>
type Connected = Effect.Effect<StreamSocket.StreamSocket, SocketError, Transport | Scope.Scope>

interface Service {
  readonly name: "service"
}
type Other = Effect.Effect<"found", "not found", Service>

/** Whatever goes in comes out: value, error and requirements. */
export const keeping = (
  write: Written,
  connect: Connected,
  other: Other,
  never: Effect.Effect<void>,
  pull: Pull.Pull<number, SocketError>,
  signal: Cancellation.CancellationSignal,
  filter: Cancellation.Filter,
  duration: Duration.Input,
  type: Type
) => {
  // In no region can an effect fail that could not fail before.
  expectType<Effect.Effect<void>>()(Cancellation.terminal(never))
  expectType<Effect.Effect<void>>()(Cancellation.partial(never))
  expectType<Effect.Effect<void>>()(Cancellation.total(never))
  expectType<Effect.Effect<void>>()(never.pipe(Cancellation.total({ within: duration })))
  expectType<Effect.Effect<void>>()(Cancellation.withSignal(never, signal))
  expectType<Effect.Effect<void>>()(Cancellation.withFilter(never, filter))
  expectType<Effect.Effect<void>>()(Cancellation.cancelAfter(never, duration))

  expectType<Other>()(Cancellation.terminal(other))
  expectType<Other>()(Cancellation.partial(other))
  expectType<Other>()(Cancellation.total(other, { within: "1 second" }))
  expectType<Other>()(Cancellation.withSignal(other, signal))
  expectType<Other>()(other.pipe(Cancellation.withSignal(signal)))
  expectType<Other>()(Cancellation.withFilter(other, filter))
  expectType<Other>()(other.pipe(Cancellation.withFilter(filter)))
  expectType<Other>()(Cancellation.cancelAfter(other, duration))
  expectType<Other>()(Cancellation.cancelAfter(other, duration, type))
  expectType<Other>()(other.pipe(Cancellation.cancelAfter(duration)))
  expectType<Other>()(other.pipe(Cancellation.cancelAfter(duration, type)))

  expectType<Written>()(write.pipe(Cancellation.cancelAfter("2 seconds", "partial"), Cancellation.withSignal(signal)))
  expectType<Connected>()(connect.pipe(Cancellation.withFilter(filter), Cancellation.cancelAfter(duration)))
  // End of stream stays beside the errors.
  expectType<Pull.Pull<number, SocketError>>()(pull.pipe(Cancellation.withSignal(signal)))
  expectType<Effect.Effect<number, SocketError | Cause.Done>>()(pull.pipe(Cancellation.cancelAfter(1)))
}

/** What cannot fail says so. */
export const withoutFailure = (
  socket: StreamSocket.StreamSocket,
  acceptor: Acceptor.Acceptor,
  signal: Cancellation.CancellationSignal
) => {
  expectType<Effect.Effect<void>>()(socket.close)
  expectType<Effect.Effect<void>>()(socket.abort)
  expectType<Effect.Effect<void>>()(acceptor.close)
  expectType<Effect.Effect<void>>()(Cancellation.withSignal(socket.close, signal))
  expectType<Effect.Effect<Cancellation.Report>>()(signal.emit("total"))
  expectType<Effect.Effect<void>>()(signal.idle)
  expectType<Effect.Effect<Cancellation.Escalation>>()(Cancellation.escalate(signal))
  expectType<Layer.Layer<never>>()(Metrics.layer)
}

export const operations = (
  socket: StreamSocket.StreamSocket,
  address: Parameters<typeof StreamSocket.connect>[0],
  bytes: Uint8Array,
  signal: Cancellation.CancellationSignal
) => {
  const region = Cancellation.withSignal(signal)
  expectType<Written>()(region(Write.writeAll(socket, bytes)))
  expectType<Pull.Pull<number, SocketError>>()(region(socket.readSome(bytes)))
  expectType<Effect.Effect<Uint8Array, SocketError>>()(region(Read.readAll(socket)))
  expectType<ReturnType<typeof StreamSocket.connect>>()(region(StreamSocket.connect(address)))
  expectType<ReturnType<typeof Acceptor.listen>>()(region(Acceptor.listen(address)))
}

export const signals = (abort: AbortSignal, type: Cancellation.Type, name: string, filter: Cancellation.Filter) => {
  expectType<Type>()(type)
  const signal = Cancellation.makeSignal()
  expectType<Cancellation.CancellationSignal>()(signal)
  expectType<Cancellation.CancellationSignal>()(Cancellation.fromAbortSignal(abort, type))
  expectType<Cancellation.Report>()(signal.emitUnsafe("partial"))
  expectType<ReadonlyArray<Cancellation.Pending>>()(signal.pending)
  const { ended, continued } = signal.emitUnsafe(type)
  expectType<ReadonlyArray<Cancellation.Ended>>()(ended)
  expectType<ReadonlyArray<Cancellation.Pending>>()(continued)
  for (const { address, guarantee, operation, total, transferred } of ended) {
    expectType<Type>()(guarantee)
    expectType<readonly [string, number, number]>()([operation, transferred, total] as const)
    expectType<Address | undefined>()(address)
  }
  expectType<(type: Type) => Type | undefined>()(filter)
  expectType<Cancellation.Filter>()(Cancellation.allowNone)
  expectType<Cancellation.Filter>()(Cancellation.allowTerminal)
  expectType<Cancellation.Filter>()(Cancellation.allowPartial)
  Cancellation.withFilter(Effect.void, (type) => type === "total" ? "partial" : undefined)

  // @ts-expect-error not a type
  signal.emit("gently")
  // @ts-expect-error a type is missing
  signal.emit()
  // @ts-expect-error any string will not do
  signal.emitUnsafe(name)
  // @ts-expect-error what waits is not the caller's to change
  signal.pending.push({ operation: "readSome", address: undefined, transferred: 0, total: 0 })
  // @ts-expect-error nor is a report
  ended[0] = undefined
  // @ts-expect-error an AbortSignal has no type of its own
  Cancellation.fromAbortSignal(abort)
  // @ts-expect-error a controller is no signal
  Cancellation.fromAbortSignal(new AbortController(), type)
  // @ts-expect-error an AbortSignal becomes a signal with fromAbortSignal
  Cancellation.withSignal(Effect.void, abort)
  // @ts-expect-error a type is no signal
  Cancellation.withSignal(Effect.void, "total")
  // @ts-expect-error a region is a region of an effect
  Cancellation.withSignal(signal, Effect.void)
  // @ts-expect-error a type is no filter
  Cancellation.withFilter(Effect.void, "total")
  // @ts-expect-error a filter answers a type or nothing
  Cancellation.withFilter(Effect.void, () => true)
  // @ts-expect-error null is not nothing
  Cancellation.withFilter(Effect.void, () => null)
}

export const deadlines = (write: Written, signal: Cancellation.CancellationSignal) => {
  write.pipe(Cancellation.cancelAfter("Infinity"))
  // @ts-expect-error not a duration
  write.pipe(Cancellation.cancelAfter("soon"))
  // @ts-expect-error not a type
  write.pipe(Cancellation.cancelAfter("1 second", "gently"))
  // @ts-expect-error a duration is missing
  Cancellation.cancelAfter(write)
  // @ts-expect-error a bound is for total
  Cancellation.cancelAfter(write, { within: "1 second" })
  // @ts-expect-error a signal is not a duration
  Cancellation.cancelAfter(write, signal)
  // @ts-expect-error a duration is no effect
  Cancellation.cancelAfter("1 second", "2 seconds")
}

export const escalations = (
  signal: Cancellation.CancellationSignal,
  fiber: Fiber.Fiber<number, "fiber">,
  schedule: Schedule.Schedule<number, Type, "schedule", Service>,
  until: Effect.Effect<void, "until", Scope.Scope>
) => {
  type Plain = Effect.Effect<Cancellation.Escalation>
  expectType<Plain>()(Cancellation.escalate(signal, {}))
  expectType<Plain>()(Cancellation.escalate(signal, { types: ["partial", "terminal"] as const }))
  expectType<Plain>()(Cancellation.escalate(signal, { schedule: Schedule.exponential("100 millis", 10) }))
  expectType<Plain>()(Cancellation.escalate(signal, { until: Fiber.await(fiber) }))
  // How the work ends does not matter, so its errors are gone.
  expectType<Plain>()(Cancellation.escalate(signal, { until: Fiber.join(fiber) }))
  expectType<Effect.Effect<Cancellation.Escalation, never, Scope.Scope>>()(Cancellation.escalate(signal, { until }))
  expectType<Effect.Effect<Cancellation.Escalation, "schedule", Service>>()(
    Cancellation.escalate(signal, { schedule })
  )
  expectType<Effect.Effect<Cancellation.Escalation, "schedule", Service | Scope.Scope>>()(
    Cancellation.escalate(signal, { schedule, until, types: undefined })
  )
  expectType<Plain>()(Cancellation.escalate(signal, { schedule: undefined, until: undefined }))
  Effect.map(Cancellation.escalate(signal), ({ endedBy, steps }) => {
    expectType<Type | undefined>()(endedBy)
    for (const { ended, continued, type } of steps) {
      expectType<Type>()(type)
      expectType<Cancellation.Report["ended"]>()(ended)
      expectType<Cancellation.Report["continued"]>()(continued)
    }
  })
  // @ts-expect-error a signal is what is escalated
  Cancellation.escalate(fiber)
  // @ts-expect-error not a type
  Cancellation.escalate(signal, { types: ["gently"] })
  // @ts-expect-error a duration is not a schedule
  Cancellation.escalate(signal, { schedule: "1 second" })
  // @ts-expect-error a fiber is not an effect
  Cancellation.escalate(signal, { until: fiber })
  // @ts-expect-error its schedule is asked with types, not with numbers
  Cancellation.escalate(signal, { schedule: Schedule.recurs(1).pipe(Schedule.setInputType<number>()) })
}

export const outcomes = (
  exit: Exit.Exit<number, SocketError | "other">,
  never: Exit.Exit<number>,
  cause: Cause.Cause<unknown>
) => {
  const outcome = Cancellation.outcome(exit)
  expectType<Cancellation.Outcome<number, SocketError | "other">>()(outcome)
  expectType<Cancellation.Outcome<number, never>>()(Cancellation.outcome(never))
  expectType<string>()(
    Cancellation.Outcome.$match(outcome, {
      Completed: ({ value }) => value.toFixed(),
      Cancelled: ({ guarantee }) => guarantee,
      Failed: ({ cause }) => cause.toString()
    })
  )
  if (Cancellation.Outcome.$is("Cancelled")(outcome)) expectType<Type>()(outcome.guarantee)
  switch (outcome._tag) {
    case "Completed":
      expectType<number>()(outcome.value)
      // @ts-expect-error what has completed was not cancelled
      return outcome.by
    case "Cancelled":
      expectType<"interruption" | "request" | "deadline">()(outcome.by)
      expectType<Type>()(outcome.guarantee)
      expectType<readonly [number, number]>()([outcome.transferred, outcome.total] as const)
      // @ts-expect-error what was cancelled has no value
      return outcome.value
    case "Failed":
      expectType<Cause.Cause<SocketError | "other">>()(outcome.cause)
  }
  expectType<
    Option.Option<{ readonly transferred: number; readonly total: number; readonly guarantee: Type }>
  >()(Cancellation.transfer(cause))
  // @ts-expect-error an outcome is read from an exit
  Cancellation.outcome(cause)
  // @ts-expect-error a cause is not an exit
  Cancellation.transfer(exit)
  return undefined
}

/** `OperationAborted` can be told from the other reasons, and handled by itself. */
export const aborted = (write: Written, connect: Connected, pull: Pull.Pull<number, SocketError>) => {
  expectType<Effect.Effect<number | "stopped", SocketError>>()(
    write.pipe(Effect.catchReason("SocketError", "OperationAborted", (reason, error) => {
      expectType<Type>()(reason.type)
      expectType<readonly [number, number]>()([reason.transferred, reason.total] as const)
      expectType<boolean | undefined>()(reason.deadline)
      expectType<"OperationAborted">()(reason._tag)
      expectType<number>()(error.transferred)
      return Effect.succeed("stopped" as const)
    }))
  )
  expectType<Effect.Effect<StreamSocket.StreamSocket | undefined, SocketError, Transport | Scope.Scope>>()(
    connect.pipe(Effect.catchReason("SocketError", "OperationAborted", () => Effect.succeed(undefined)))
  )
  // Beside the end of a stream, too.
  expectType<Effect.Effect<number | "stopped", SocketError | Cause.Done>>()(
    pull.pipe(Effect.catchReason("SocketError", "OperationAborted", () => Effect.succeed("stopped" as const)))
  )
  expectType<Effect.Effect<number>>()(
    write.pipe(Effect.catchTag("SocketError", ({ reason }) => {
      if (reason._tag !== "OperationAborted") return Effect.succeed(0)
      expectType<Type>()(reason.type)
      return Effect.succeed(reason.transferred)
    }))
  )
  // @ts-expect-error the reason of a name that was not resolved is another one
  write.pipe(Effect.catchReason("SocketError", "OperationAborted", ({ host }) => Effect.succeed(host)))
}

export const policies = () => {
  expectType<Context.Reference<Type>>()(Cancellation.Policy)
  expectType<Context.Reference<Duration.Duration>>()(Cancellation.TotalTimeout)
  expectType<Effect.Effect<void>>()(Effect.provideService(Effect.void, Cancellation.Policy, "partial"))
}

export const metrics = () => {
  expectType<Metric.Counter<number>>()(Metrics.operationsCompleted)
  expectType<Metric.Counter<number>>()(Metrics.streamsTorn)
  expectType<Metric.Counter<number>>()(Metrics.bytesRead)
  expectType<Metric.Counter<number>>()(Metrics.bytesWritten)
  expectType<Readonly<Record<Type, Metric.Counter<number>>>>()(Metrics.operationsCancelled)
  // @ts-expect-error no such guarantee
  void Metrics.operationsCancelled.gently
  // @ts-expect-error the metrics are fixed
  Metrics.operationsCancelled.total = Metrics.bytesRead
}

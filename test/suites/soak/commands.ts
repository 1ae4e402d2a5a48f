/** What a soak program consists of, how it is generated, and how it is printed. */
import * as fc from "fast-check"
import type { Cancellation } from "../../../src/index.ts"

/** One of the two ends of a connection. */
export type End = 0 | 1

export type Type = Cancellation.Type

/** What plain interruption asks for; a number is `total` for at most so many milliseconds. */
export type Policy = Type | number

export type Until =
  | { readonly until: "all" }
  | { readonly until: "atLeast" | "exactly"; readonly count: number }
  /** A function: `count` bytes at a time, up to `to`. */
  | { readonly until: "function"; readonly count: number; readonly to: number }

export type WriteStep =
  /** `pieces` is the length of the gather list; 0 stands for one view. */
  | { readonly op: "writeSome"; readonly size: number; readonly pieces: number }
  /** With `resume` it goes on with the cursor of the last write of its fiber. */
  | {
    readonly op: "writeAll"
    readonly size: number
    readonly pieces: number
    readonly resume: boolean
    readonly until: Until
  }
  | { readonly op: "shutdownWrite" }

export type ReadStep =
  | { readonly op: "readSome" | "readExactly"; readonly size: number }
  | { readonly op: "readAtLeast"; readonly size: number; readonly least: number }
  | { readonly op: "readUntil"; readonly by: "byte" | "string" | "function"; readonly max: number }
  | { readonly op: "readAll"; readonly max: number }

export type CloseStep = { readonly op: "close" | "abort" }

export type Step = WriteStep | ReadStep | CloseStep

export type FilterName = "none" | "terminal" | "partial" | "all" | "weaken"

/** One layer of the region around the operations of a fiber. */
export type Layer =
  | { readonly signal: number }
  | { readonly filter: FilterName }
  | { readonly deadline: number; readonly type: Type }
  | { readonly abortSignal: Type }

/** One fiber: steps that it takes one after the other. */
export interface Fork {
  readonly end: End
  readonly steps: ReadonlyArray<Step>
  readonly policy: Policy
  /** From the outermost to the innermost. */
  readonly region: ReadonlyArray<Layer>
  readonly uninterruptible: boolean
  /** It starts in the next turn of the scheduler. */
  readonly later: boolean
}

export type Command =
  | ({ readonly do: "fork" } & Fork)
  /** Fibers are named by their place among those that run, counted round and round. */
  | { readonly do: "interrupt" | "abortSignal"; readonly which: number }
  | { readonly do: "emit"; readonly signal: number; readonly type: Type }
  | { readonly do: "pass"; readonly time: "microtask" | "turn" | number }

export interface Program<Connection> {
  readonly connection: Connection
  readonly commands: ReadonlyArray<Command>
}

export interface MemoryConnection {
  readonly capacity: number
  readonly chunk: number | undefined
  readonly seed: number | undefined
}

export interface TcpConnection {
  /** Writes that are larger than the buffers of the kernel; the first command finds them in the middle. */
  readonly filling: ReadonlyArray<Fork>
  readonly sliceSize: number
}

export const signals = 3

// ---- generating

const weighted = <A>(...choices: ReadonlyArray<readonly [weight: number, fc.Arbitrary<A>]>): fc.Arbitrary<A> =>
  fc.oneof(...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })))

const rarely = (oneIn: number): fc.Arbitrary<boolean> => fc.nat(oneIn - 1).map((n) => n === 1)

const type: fc.Arbitrary<Type> = fc.constantFrom<Type>("total", "partial", "terminal")

const end: fc.Arbitrary<End> = fc.constantFrom(0, 1)

interface Sizes {
  readonly write: fc.Arbitrary<number>
  readonly read: fc.Arbitrary<number>
}

const until = (sizes: Sizes): fc.Arbitrary<Until> =>
  weighted<Until>(
    [3, fc.constant({ until: "all" })],
    [1, fc.record({ until: fc.constantFrom("atLeast" as const, "exactly" as const), count: sizes.write })],
    [
      1,
      fc.record({
        until: fc.constant("function" as const),
        count: sizes.write.map((n) => n + 1),
        to: sizes.write.map((n) => n + 1)
      })
    ]
  )

const writeStep = (sizes: Sizes): fc.Arbitrary<WriteStep> =>
  weighted<WriteStep>(
    [6, fc.record({ op: fc.constant("writeSome" as const), size: sizes.write, pieces: fc.nat(3) })],
    [
      12,
      fc.record({
        op: fc.constant("writeAll" as const),
        size: sizes.write,
        pieces: fc.nat(3),
        resume: fc.boolean(),
        until: until(sizes)
      })
    ]
  )

const readStep = (sizes: Sizes): fc.Arbitrary<ReadStep> =>
  weighted<ReadStep>(
    [6, fc.record({ op: fc.constantFrom("readSome" as const, "readExactly" as const), size: sizes.read })],
    [
      2,
      fc.tuple(sizes.read, fc.double({ min: 0, max: 1, noNaN: true })).map(([size, part]) => ({
        op: "readAtLeast" as const,
        size,
        least: Math.floor(size * part)
      }))
    ],
    [
      3,
      fc.record({
        op: fc.constant("readUntil" as const),
        by: fc.constantFrom("byte" as const, "string" as const, "function" as const),
        max: sizes.read
      })
    ],
    [1, fc.record({ op: fc.constant("readAll" as const), max: sizes.read })]
  )

const plainLayer: fc.Arbitrary<Layer> = weighted<Layer>(
  [5, fc.nat(signals - 1).map((signal) => ({ signal }))],
  [2, fc.constantFrom<FilterName>("none", "terminal", "partial", "all", "weaken").map((filter) => ({ filter }))]
)

// At most one of those that stand: which of several asked could not be told apart.
const standingLayer: fc.Arbitrary<Layer> = weighted<Layer>(
  [3, fc.record({ deadline: fc.integer({ min: 1, max: 20 }), type })],
  [1, type.map((abortSignal) => ({ abortSignal }))]
)

const region: fc.Arbitrary<ReadonlyArray<Layer>> = weighted<ReadonlyArray<Layer>>(
  [2, fc.constant([])],
  [5, fc.array(plainLayer, { minLength: 1, maxLength: 3 })],
  [2, fc.tuple(plainLayer, standingLayer).map((layers) => layers)],
  [2, fc.tuple(standingLayer, plainLayer).map((layers) => layers)],
  [2, standingLayer.map((layer) => [layer])]
)

const policy: fc.Arbitrary<Policy> = weighted<Policy>(
  [1, fc.constant("terminal")],
  [2, fc.constant("partial")],
  [2, fc.constant("total")],
  [1, fc.integer({ min: 1, max: 20 })]
)

const fork = (steps: fc.Arbitrary<ReadonlyArray<Step>>): fc.Arbitrary<Command> =>
  fc.record({
    do: fc.constant("fork" as const),
    end,
    steps,
    policy,
    region,
    uninterruptible: rarely(12),
    later: rarely(8)
  })

const filling = (room: number): fc.Arbitrary<Fork> =>
  fc.record({
    end,
    steps: fc.integer({ min: Math.ceil(room * 1.1), max: Math.ceil(room * 1.3) })
      .map((size): ReadonlyArray<Step> => [
        { op: "writeAll", size, pieces: 0, resume: true, until: { until: "all" } },
        { op: "writeAll", size: 0, pieces: 0, resume: true, until: { until: "all" } }
      ]),
    policy,
    region,
    uninterruptible: fc.constant(false),
    later: fc.constant(false)
  })

const chain = (step: fc.Arbitrary<Step>): fc.Arbitrary<ReadonlyArray<Step>> =>
  weighted<ReadonlyArray<Step>>(
    [3, step.map((only) => [only])],
    [2, fc.array(step, { minLength: 2, maxLength: 4 })]
  )

const single = (...steps: ReadonlyArray<Step>): fc.Arbitrary<ReadonlyArray<Step>> =>
  fc.constantFrom(...steps).map((step) => [step])

const command = (sizes: Sizes): fc.Arbitrary<Command> =>
  weighted<Command>(
    [100, fork(chain(writeStep(sizes)))],
    [90, fork(chain(readStep(sizes)))],
    [1, fork(single({ op: "shutdownWrite" }))],
    [1, fork(single({ op: "close" }, { op: "abort" }))],
    [45, fc.record({ do: fc.constant("interrupt" as const), which: fc.nat(20) })],
    [10, fc.record({ do: fc.constant("abortSignal" as const), which: fc.nat(20) })],
    [50, fc.record({ do: fc.constant("emit" as const), signal: fc.nat(signals - 1), type })],
    [
      60,
      fc.record({
        do: fc.constant("pass" as const),
        time: weighted<"microtask" | "turn" | number>(
          [2, fc.constant("microtask")],
          [4, fc.constant("turn")],
          [2, fc.integer({ min: 1, max: 15 })]
        )
      })
    ]
  )

const program = <Connection>(
  connection: fc.Arbitrary<Connection>,
  sizes: Sizes
): fc.Arbitrary<Program<Connection>> =>
  fc.record({
    connection,
    commands: fc.array(command(sizes), { maxLength: 120, size: "max" })
  })

export const memoryPrograms: fc.Arbitrary<Program<MemoryConnection>> = program<MemoryConnection>(
  fc.record({
    capacity: weighted([3, fc.integer({ min: 1, max: 64 })], [1, fc.integer({ min: 65, max: 300 })]),
    chunk: fc.option(fc.integer({ min: 1, max: 40 }), { nil: undefined }),
    seed: fc.option(fc.nat(1_000_000), { nil: undefined })
  }),
  {
    write: weighted([12, fc.integer({ min: 0, max: 90 })], [1, fc.integer({ min: 90, max: 900 })]),
    read: weighted([12, fc.integer({ min: 0, max: 90 })], [1, fc.integer({ min: 90, max: 900 })])
  }
)

/** `room` is about as much as a connection takes while nobody reads. */
export const tcpPrograms = (room: number): fc.Arbitrary<Program<TcpConnection>> =>
  program<TcpConnection>(
    fc.record({
      filling: weighted<ReadonlyArray<Fork>>(
        [7, fc.constant([])],
        [3, filling(room).map((one) => [one])]
      ),
      sliceSize: fc.constantFrom(16_384, 65_536)
    }),
    {
      write: weighted([8, fc.integer({ min: 0, max: 3000 })], [2, fc.integer({ min: 3000, max: 80_000 })]),
      read: weighted(
        [8, fc.integer({ min: 0, max: 3000 })],
        [2, fc.integer({ min: 3000, max: 80_000 })],
        [1, fc.integer({ min: 80_000, max: 500_000 })]
      )
    }
  )

// ---- printing

const untilText = (until: Until): string => {
  switch (until.until) {
    case "all":
      return ""
    case "function":
      return `, ${until.count} at a time up to ${until.to}`
    case "atLeast":
    case "exactly":
      return `, ${until.until} ${until.count}`
  }
}

export const stepText = (step: Step): string => {
  switch (step.op) {
    case "writeSome":
      return `writeSome(${step.size}${step.pieces === 0 ? "" : ` in ${step.pieces}`})`
    case "writeAll":
      return `writeAll(${step.resume ? "the rest, or " : ""}${step.size}${
        step.pieces === 0 ? "" : ` in ${step.pieces}`
      }${untilText(step.until)})`
    case "readSome":
    case "readExactly":
      return `${step.op}(${step.size})`
    case "readAtLeast":
      return `readAtLeast(${step.size}, ${step.least})`
    case "readUntil":
      return `readUntil(${step.by}, max ${step.max})`
    case "readAll":
      return `readAll(max ${step.max})`
    case "shutdownWrite":
    case "close":
    case "abort":
      return step.op
  }
}

const layerText = (layer: Layer): string =>
  "signal" in layer
    ? `signal ${layer.signal}`
    : "filter" in layer
    ? `filter ${layer.filter}`
    : "deadline" in layer
    ? `cancelAfter(${layer.deadline} ms, ${layer.type})`
    : `AbortSignal(${layer.abortSignal})`

export const forkText = ({ end, later, policy, region, steps, uninterruptible }: Fork): string =>
  [
    `end ${end}: ${steps.map(stepText).join(", then ")}`,
    typeof policy === "number" ? `total at most ${policy} ms` : policy,
    ...(region.length === 0 ? [] : [`in ${region.map(layerText).join(" > ")}`]),
    ...(uninterruptible ? ["uninterruptible"] : []),
    ...(later ? ["starting later"] : [])
  ].join("; ")

const commandText = (command: Command): string => {
  switch (command.do) {
    case "fork":
      return forkText(command)
    case "interrupt":
      return `interrupt fiber ${command.which}`
    case "abortSignal":
      return `abort the AbortSignal of fiber ${command.which}`
    case "emit":
      return `emit ${command.type} on signal ${command.signal}`
    case "pass":
      return typeof command.time === "number" ? `${command.time} ms pass` : `a ${command.time} passes`
  }
}

const connectionText = (connection: MemoryConnection | TcpConnection): string =>
  "capacity" in connection
    ? `in memory, ${JSON.stringify(connection)}`
    : [
      `over TCP, slices of ${connection.sliceSize} bytes`,
      ...connection.filling.map((fork) => `  filled by ${forkText(fork)}`)
    ]
      .join("\n")

export const programText = <Connection extends MemoryConnection | TcpConnection>(
  { commands, connection }: Program<Connection>
): string =>
  [connectionText(connection), ...commands.map((command, i) => `${i + 1}. ${commandText(command)}`)].join("\n")

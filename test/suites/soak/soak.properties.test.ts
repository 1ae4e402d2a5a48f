/**
 * Random programs of operations, cancellations and time, run on a connection
 * and on a model of it side by side: zero differences.
 *
 * A failure prints the seed, the path and the shrunk program. `SEED=<seed>`
 * runs other programs, `REPLAY=<path>` together with it only the one of that
 * path, and `RUNS=<factor>` that many times as many:
 * `npm test` runs a part of them, `npm run test:wide` all.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { describe } from "vitest"
import { resolveOptions, Transport } from "../../../src/Transport.ts"
import * as EpollTransport from "../../../src/transport/EpollTransport.ts"
import { layer } from "../../../src/transport/NodeTransport.ts"
import { leavingNothing } from "../../support/leftovers.ts"
import { share, some } from "../../support/properties.ts"
import {
  type MemoryConnection,
  memoryPrograms,
  type Program,
  programText,
  type TcpConnection,
  tcpPrograms
} from "./commands.ts"
import { type Capabilities, Tally } from "./model.ts"
import { overListener, overMemory, roomOf, run, type Source } from "./run.ts"

const seed = Number(process.env["SEED"] ?? 20_260)
const path = process.env["REPLAY"]
const isWhole = share >= 1 && path === undefined

// A failure is shrunk for no longer than this.
const patience = 240_000

const soak = <Connection extends MemoryConnection | TcpConnection>(
  programs: fc.Arbitrary<Program<Connection>>,
  source: Source<Connection>,
  count: number
): Effect.Effect<Tally> =>
  Effect.gen(function*() {
    const context = yield* Effect.context()
    // Tells the test clock that time is not forgotten here.
    yield* TestClock.adjust(0)
    const tally = new Tally()
    const property = fc.asyncProperty(
      fc.noBias(programs),
      (program) => Effect.runPromiseWith(context)(run(source, program, tally))
    )
    const { counterexample, counterexamplePath, errorInstance, failed, numRuns, numShrinks } = yield* Effect.promise(
      () =>
        fc.check(property, {
          seed,
          numRuns: some(count),
          interruptAfterTimeLimit: patience,
          ...(path === undefined ? undefined : { path })
        })
    )
    if (failed) {
      const [program] = counterexample ?? []
      assert.fail([
        errorInstance instanceof Error ? errorInstance.message : String(errorInstance),
        `Program ${numRuns}, shrunk ${numShrinks} times:`,
        ...(program === undefined ? [] : [programText(program)]),
        `Run it again with SEED=${seed} REPLAY=${counterexamplePath ?? ""}`
      ].join("\n"))
    }
    return tally
  })

/** Prints what was run, and fails where too little of something was. */
const enough = (
  name: string,
  tally: Tally,
  operations: number,
  outcomes: ReadonlyArray<readonly [atLeast: number, ...ReadonlyArray<string>]>
): void => {
  const counts = [...tally.counts].sort(([a], [b]) => a < b ? -1 : 1).map(([what, count]) => `  ${what}: ${count}`)
  console.log([`${name}, seed ${seed}: ${tally.operations} operations, no difference`, ...counts].join("\n"))
  if (!isWhole) return
  assert.isAtLeast(tally.operations, operations, "operations")
  for (const [atLeast, ...names] of outcomes) {
    for (const name of names) assert.isAtLeast(tally.of(name), atLeast, name)
  }
}

const everyOperation = [
  "writeSome",
  "writeAll",
  "shutdownWrite",
  "readSome",
  "readExactly",
  "readAtLeast",
  "readUntil",
  "readAll",
  "close",
  "abort"
].map((operation) => `completed: ${operation}`)

const ways = (origin: string) => ["total", "partial", "terminal"].map((type) => `${origin}: ${type}`)

describe("random operations and cancellations, and the model beside them", () => {
  it.effect("in memory", () =>
    leavingNothing(Effect.gen(function*() {
      const tally = yield* soak(memoryPrograms, overMemory, 3700)
      enough("In memory", tally, 180_000, [
        [100, ...everyOperation, ...ways("interrupted"), ...ways("request"), "deadline: total"],
        [20, ...ways("deadline"), ...ways("abortSignal"), "interrupted: terminal, because time was over"],
        [20, "refused: request", "refused: deadline", "refused: abortSignal", "held back by a filter"],
        [20, "finished after an interruption", "asked while finishing", "failed while finishing"],
        [100, "torn", "end of stream", "the connection failed"],
        [100, "failed: Torn", "failed: Closed", "failed: UnexpectedEof", "failed: LimitExceeded"]
      ])
    })), patience + 60_000)

  const overTcp = (name: string, layer: Layer.Layer<Transport>, share: number, can: Capabilities) =>
    leavingNothing(
      Effect.gen(function*() {
        const transport = yield* Transport
        const listener = yield* Effect.acquireRelease(
          transport.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"), resolveOptions(undefined)),
          (listener) => Effect.sync(() => listener.close())
        )
        const source = overListener(transport, listener, can)
        const room = yield* roomOf(source, { filling: [], sliceSize: 65_536 })
        // Rounded, so that a seed stands for the same programs each time.
        const tally = yield* soak(tcpPrograms(Math.ceil(room / 1_000_000) * 1_000_000), source, 400 * share)
        // How often an operation is caught in the middle is for the kernel to decide.
        enough(name, tally, 20_000 * share, [
          [1, ...everyOperation, ...ways("interrupted"), ...ways("request"), "deadline: total", "abortSignal: total"],
          [1, "refused: request", "held back by a filter", "torn", "end of stream", "the connection failed"],
          [1, "failed: Torn", "failed: Closed", "failed: UnexpectedEof", "failed: LimitExceeded"]
        ])
      }).pipe(Effect.provide(layer))
    )

  // libuv before 1.52, which Node has from 24 on, reports a reset as the end of the stream when bytes came before it.
  const node: Capabilities = { tellResetFromEndWhenShutDown: Number.parseInt(process.versions.node, 10) >= 24 }

  it.effect("over TCP", () => overTcp("Over TCP", layer, 1, node), patience + 60_000)

  it.effect.skipIf(!EpollTransport.isSupported())(
    "over TCP, straight from the kernel",
    () =>
      overTcp("Over TCP with epoll", Layer.orDie(EpollTransport.layer), 0.5, { tellResetFromEndWhenShutDown: true }),
    patience + 60_000
  )
})

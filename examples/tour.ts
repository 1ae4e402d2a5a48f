// A tour of what this library is for: writes that can be interrupted, and that say how many bytes left.
//
//   npm start        (or: node examples/tour.ts)
//
// Everything runs over real loopback TCP and is checked; exit status 1 means that something did not add up.
// `tour/progress.ts` and `tour/interruption.ts` are the parts worth reading.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { randomBytes } from "node:crypto"
import * as NodeTransport from "../src/transport/NodeTransport.ts"
import * as Interruption from "./tour/interruption.ts"
import { slowReader } from "./tour/progress.ts"
import * as Screen from "./tour/screen.ts"

const main = Effect.gen(function*() {
  const started = performance.now()
  const message = randomBytes(32 * 1_048_576)
  const size = Screen.count(message.length)
  const wrong: Array<string> = []

  yield* print(Screen.heading(`1. A loop over writeSome sends ${size} bytes to a peer that reads slowly`))
  const problems = yield* slowReader(message)
  yield* print(...Screen.problems(problems))
  if (problems.length > 0) wrong.push("the loop over writeSome")

  yield* print(
    Screen.heading(`2. A writeAll of ${size} bytes to a peer that stopped reading is interrupted`),
    "  When its fiber has ended, the peer reads on: are the bytes reported the bytes that it gets?",
    "",
    Screen.tableHead
  )
  let refusal: string | undefined
  for (const policy of Interruption.policies) {
    const row = yield* Interruption.ofWriteAll(policy, message)
    yield* print(...Screen.tableRow(row))
    if (row.problems.length > 0) wrong.push(row.policy)
    refusal ??= row.refusal
  }
  if (refusal !== undefined) {
    yield* print("", "  How the torn stream of the first row answers the next write:", `  ${refusal}`)
  }

  yield* print(
    Screen.heading("3. The same interruption of a write with Effect's own NodeSocket, for contrast"),
    Screen.tableHead
  )
  const other = yield* Interruption.ofNodeSocket(message)
  yield* print(...Screen.tableRow(other))
  yield* print("", "  The caller cannot know what left, so it can neither go on nor send the message again.")

  const seconds = `in ${((performance.now() - started) / 1000).toFixed(1)} s`
  yield* print("", Screen.verdict(wrong, seconds))
  if (wrong.length > 0) process.exitCode = 1
})

const print = (...lines: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.forEach(lines, (line) => Console.log(line), { discard: true })

NodeRuntime.runMain(main.pipe(
  // Nothing here takes long. Should something hang after all, the tour ends by saying so.
  Effect.timeout("60 seconds"),
  Effect.provide(NodeTransport.layer)
))

/** Effect Cluster: two runner processes, each under a `Server`, that talk over this library's sockets on real TCP. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { type Answer, type Command, type Event, shards } from "./cluster/protocol.ts"

const program = fileURLToPath(new URL("cluster/runner.ts", import.meta.url))

/** A runner process, killed with the scope if it has not ended by then. */
const run = Effect.fnUntraced(function*(database: string) {
  const events = yield* Queue.unbounded<Event>()
  let complaints = ""
  let held: ReadonlyArray<number> = []
  const child: ChildProcess = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, ["--no-warnings", program, database], { stdio: "pipe" })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const { stderr, stdin, stdout } = child
  if (stderr === null || stdin === null || stdout === null) return assert.fail("no pipes")
  stderr.on("data", (data: Buffer) => complaints += data.toString())
  createInterface({ input: stdout }).on("line", (line) => Queue.offerUnsafe(events, JSON.parse(line) as Event))
  const ended = yield* Effect.forkScoped(
    Effect.callback<string>((resume) => {
      child.on("close", (code, signal) => resume(Effect.succeed(`${code ?? signal}`)))
    }),
    { startImmediately: true }
  )

  /** Takes events until one is of this kind. */
  const next = <Tag extends Event["_tag"]>(tag: Tag): Effect.Effect<Extract<Event, { readonly _tag: Tag }>> =>
    Effect.flatMap(
      Effect.raceFirst(
        Queue.take(events),
        Effect.flatMap(Fiber.join(ended), (code) => Effect.die(new Error(`ended with ${code}: ${complaints}`)))
      ),
      (event) => {
        if (event._tag === "Holds") held = event.shards
        return event._tag === tag ? Effect.succeed(event as Extract<Event, { readonly _tag: Tag }>) : next(tag)
      }
    )
  const send = (command: Command) => Effect.sync(() => stdin.write(`${JSON.stringify(command)}\n`))
  return {
    pid: child.pid,
    next,
    held: () => held,
    ask: (ids: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Answer>> =>
      Effect.andThen(send({ ask: ids }), Effect.map(next("Answers"), ({ answers }) => answers)),
    /** Ends its input, and answers with its exit code and the bytes it moved. */
    stop: Effect.gen(function*() {
      stdin.end()
      const { bytesRead, bytesWritten, server } = yield* next("Stopped")
      return { code: yield* Fiber.join(ended), complaints, bytesRead, bytesWritten, server }
    })
  }
})

const everyShard = Array.from({ length: shards }, (_, i) => i + 1)
const ids = Array.from({ length: 40 }, (_, i) => `entity ${i}`)

const assertAnswers = (answers: ReadonlyArray<Answer>, asker: number | undefined): void => {
  assert.deepStrictEqual(
    answers.map(({ counted, greeting, id }) => ({ counted, greeting, id })),
    ids.map((id) => ({ counted: [1, 2, 3, 4, 5], greeting: `${id} greets process ${asker}`, id }))
  )
}

it.live(
  "two runner processes share the entities, reach each other's, and one takes over when the other leaves",
  () =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-asio-"))),
        (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
      )
      const database = join(directory, "runners.db")

      // One after the other: the first makes the tables.
      const first = yield* run(database)
      yield* first.next("Listening")
      const second = yield* run(database)
      yield* second.next("Listening")

      const runners = [first, second]
      while (
        runners.some((runner) => runner.held().length === 0) ||
        runners.flatMap((runner) => runner.held()).sort((a, b) => a - b).join() !== everyShard.join()
      ) {
        yield* Effect.raceFirst(first.next("Holds"), second.next("Holds"))
      }

      const places: Array<ReadonlyMap<string, number>> = []
      for (const runner of runners) {
        const answers = yield* runner.ask(ids)
        assertAnswers(answers, runner.pid)
        // Some answers came from itself and some from the other.
        assert.sameMembers([...new Set(answers.map(({ pid }) => pid))], runners.map(({ pid }) => pid!))
        places.push(new Map(answers.map(({ id, pid }) => [id, pid])))
      }
      assert.deepStrictEqual(places[0], places[1])

      const left = yield* first.stop
      assert.deepInclude(left, { code: "0", complaints: "" })
      while (second.held().length < shards) yield* second.next("Holds")
      const answers = yield* second.ask(ids)
      assertAnswers(answers, second.pid)
      assert.deepStrictEqual([...new Set(answers.map(({ pid }) => pid))], [second.pid])

      const last = yield* second.stop
      assert.deepInclude(last, { code: "0", complaints: "" })
      for (const { bytesRead, bytesWritten, server } of [left, last]) {
        assert.deepInclude(server, { state: "stopped", connections: 0, failures: 0 })
        assert.isAbove(server.accepted, 0)
        assert.isAbove(bytesRead, ids.length)
        assert.isAbove(bytesWritten, ids.length)
      }
    }),
  20_000
)

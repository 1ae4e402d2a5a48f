/** `examples/08-many-processes.ts`, run for real, asked over raw `node:net` and restarted meanwhile. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { pbkdf2Sync } from "node:crypto"
import * as Net from "node:net"
import { createInterface } from "node:readline"
import { listening } from "../support/programs.ts"
import { eventually } from "../support/waiting.ts"

const file = "08-many-processes.ts"
const rounds = 10

const hashed = (line: string): string => pbkdf2Sync(line, "salt", rounds, 16, "sha256").toString("hex")

const program = listening(file, "--port", "0", "--rounds", String(rounds))

/** Clients that ask until they are stopped, and everything that did not go as it should. */
class Load {
  readonly failures: Array<string> = []
  /** Answers, by process. */
  readonly answers = new Map<number, number>()
  byes = 0
  private readonly port: number
  private readonly clients: Array<Promise<void>> = []
  private readonly sockets = new Set<Net.Socket>()
  private stopped = false

  constructor(port: number) {
    this.port = port
  }

  /** `most` requests on each connection, and then another connection. */
  start(clients: number, most: number): void {
    for (let i = 0; i < clients; i++) this.clients.push(this.client(most))
  }

  async stop(): Promise<void> {
    this.stopped = true
    await Promise.all(this.clients)
  }

  destroy(): void {
    this.stopped = true
    for (const socket of this.sockets) socket.destroy()
  }

  private async client(most: number): Promise<void> {
    while (!this.stopped && this.failures.length === 0) await this.connection(most)
  }

  private connection(most: number): Promise<void> {
    const socket = Net.connect(this.port, "127.0.0.1")
    this.sockets.add(socket)
    let asked = 0
    let waiting = false
    let warned = false
    const ask = () => {
      if (warned || this.stopped || asked === most) socket.end()
      else {
        waiting = true
        socket.write(`request ${++asked}\n`)
      }
    }
    socket.on("connect", ask)
    createInterface({ input: socket }).on("error", () => {}).on("line", (line) => {
      if (line === "bye") {
        this.byes++
        warned = true
        return
      }
      const [process, hash] = line.split(" ")
      if (!waiting || hash !== hashed(`request ${asked}`)) this.failures.push(`the answer ${line} to request ${asked}`)
      waiting = false
      this.answers.set(Number(process), (this.answers.get(Number(process)) ?? 0) + 1)
      // Slow enough to leave the processors to those that start.
      setTimeout(ask, 2)
    })
    return new Promise((resolve) => {
      socket.on("error", (error) => this.failures.push(`request ${asked} of ${most}: ${error.message}`))
      socket.on("close", () => {
        this.sockets.delete(socket)
        if (waiting) this.failures.push(`no answer to request ${asked} of ${most}`)
        resolve()
      })
    })
  }
}

const load = (port: number) =>
  Effect.acquireRelease(Effect.sync(() => new Load(port)), (load) => Effect.sync(() => load.destroy()))

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

describe("many processes", () => {
  it.live(
    "a rolling restart under load: every request is answered, and every process is a new one",
    () =>
      Effect.gen(function*() {
        const { interrupt, output, port, signal } = yield* program
        const clients = yield* load(port)
        // Most of them with a connection for each request: those are who comes while a process goes.
        clients.start(8, 1)
        clients.start(4, Infinity)
        yield* eventually("both processes answer", () => clients.answers.size === 2)
        const first = [...clients.answers.keys()]
        signal("SIGHUP")
        yield* eventually(
          () => `the restart is not over: ${output()}`,
          () => output().includes("every process is a new one") || clients.failures.length > 0,
          20_000
        )
        assert.deepStrictEqual(clients.failures, [])
        const replaced = [...output().matchAll(/^process (\d+) for (\d+)$/gm)]
        assert.sameMembers(replaced.map(([, , last]) => Number(last)), first)
        for (const pid of first) assert.isFalse(isAlive(pid), `${pid} has ended`)
        const second = replaced.map(([, next]) => Number(next))
        yield* eventually("the new processes answer", () => second.every((pid) => clients.answers.has(pid)))
        yield* Effect.promise(() => clients.stop())
        assert.deepStrictEqual(clients.failures, [])
        // Each of the long connections was asked to move.
        assert.isAtLeast(clients.byes, 4)

        assert.strictEqual(yield* interrupt, 0)
        for (const pid of second) assert.isFalse(isAlive(pid), `${pid} has ended`)
      }),
    40_000
  )

  it.live(
    "a process that dies takes only its own connections with it, and another takes its place",
    () =>
      Effect.gen(function*() {
        const { interrupt, output, port } = yield* program
        // Two connections, one with each process.
        const conversations: Array<{ readonly socket: Net.Socket; readonly lines: Array<string>; closed: boolean }> = []
        yield* Effect.addFinalizer(() => Effect.sync(() => conversations.forEach(({ socket }) => socket.destroy())))
        const open = Effect.gen(function*() {
          const socket = Net.connect(port, "127.0.0.1")
          const conversation = { socket, lines: new Array<string>(), closed: false }
          conversations.push(conversation)
          socket.on("error", () => {}).on("close", () => conversation.closed = true)
          createInterface({ input: socket }).on("error", () => {}).on("line", (line) => conversation.lines.push(line))
          return yield* ask(conversation)
        })
        const ask = (conversation: typeof conversations[number]) =>
          Effect.gen(function*() {
            const heard = conversation.lines.length
            conversation.socket.write("hello\n")
            yield* eventually("an answer", () => conversation.lines.length > heard)
            const [pid, hash] = conversation.lines[heard]!.split(" ")
            assert.strictEqual(hash, hashed("hello"))
            return Number(pid)
          })
        const first = yield* open
        let second = yield* open
        while (second === first) second = yield* open
        process.kill(first, "SIGKILL")
        const died = conversations[0]!
        yield* eventually("the connection of the process that died is closed", () => died.closed)
        for (const conversation of conversations.filter(({ closed }) => !closed)) {
          assert.strictEqual(yield* ask(conversation), second)
        }
        yield* eventually(
          () => `nobody in the place of ${first}: ${output()}`,
          () => new RegExp(`^process \\d+ for ${first}$`, "m").test(output()),
          10_000
        )
        assert.include(output(), `process ${first} has died`)
        const third = yield* Effect.repeat(open, { until: (pid) => pid !== second, times: 20 })
        assert.notInclude([first, second], third)
        for (const { socket } of conversations) socket.destroy()
        assert.strictEqual(yield* interrupt, 0)
        for (const pid of [second, third]) assert.isFalse(isAlive(pid), `${pid} has ended`)
      }),
    40_000
  )

  it.live(
    "Ctrl-C: open connections are told, what was asked is answered, and the exit code is 0",
    () =>
      Effect.gen(function*() {
        const { interrupt, port } = yield* program
        const socket = Net.connect(port, "127.0.0.1")
        yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
        let heard = ""
        let ended = false
        socket.setEncoding("utf8").on("data", (text: string) => {
          heard += text
          if (heard.endsWith("bye\n")) socket.end("last\n")
        }).on("end", () => ended = true)
        socket.write("first\n")
        yield* eventually("an answer", () => heard.includes(hashed("first")))
        assert.strictEqual(yield* interrupt, 0)
        yield* eventually(
          () => `the last answer: ${heard}`,
          () => ended && heard.replaceAll(/\d+ /g, "") === `${hashed("first")}\nbye\n${hashed("last")}\n`
        )
      }),
    20_000
  )
})

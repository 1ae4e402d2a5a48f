/** Servers and load clients as processes of their own, one core for each kind where the system can pin them. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import type { Result } from "./load.ts"
import type { Question, Report } from "./report.ts"

/** A step that takes longer than this will never end. */
const patience = 30_000

export const pinned = ["0", "1"].every((core) => spawnSync("taskset", ["-c", core, "true"]).status === 0)

const start = (core: string, args: ReadonlyArray<string>, ipc: boolean): ChildProcess => {
  const command = [...pinned ? ["taskset", "-c", core] : [], process.execPath, ...args]
  return spawn(command[0]!, command.slice(1), {
    cwd: import.meta.dirname,
    stdio: ["pipe", "pipe", "inherit", ...ipc ? ["ipc" as const] : []]
  })
}

const within = async <A>(what: string, child: ChildProcess, body: (signal: AbortSignal) => Promise<A>): Promise<A> => {
  const stop = new AbortController()
  const failure = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what}: no answer in ${patience / 1000} s`)), patience)
    const onExit = (code: number | null) => reject(new Error(`${what}: ended with ${code ?? "a signal"}`))
    child.once("exit", onExit)
    stop.signal.addEventListener("abort", () => {
      clearTimeout(timer)
      child.off("exit", onExit)
    })
  })
  try {
    return await Promise.race([body(stop.signal), failure])
  } finally {
    stop.abort()
  }
}

/** The port in the line that everything which listens begins with. */
export const portOf = (name: string, line: string): number => {
  const port = Number(/^listening on tcp:.*:(\d+)$/.exec(line)?.[1])
  if (Number.isNaN(port)) throw new Error(`${name}: said ${JSON.stringify(line)} instead of its address`)
  return port
}

export class Server {
  readonly name: string
  readonly port: number
  private readonly child: ChildProcess

  private constructor(name: string, port: number, child: ChildProcess) {
    this.name = name
    this.port = port
    this.child = child
  }

  /** `args` come behind the port, which is free to choose. */
  static async start(name: string, ...args: ReadonlyArray<string | number>): Promise<Server> {
    const script = ["--expose-gc", "--import", "./report.ts", `servers/${name}.ts`, "0", ...args.map(String)]
    const child = start("0", script, true)
    const lines = createInterface({ input: child.stdout! })
    const [line] = await within(name, child, (signal) => once(lines, "line", { signal }))
    return new Server(name, portOf(name, String(line)), child)
  }

  async ask(question: Question): Promise<Report> {
    const answer = within(this.name, this.child, (signal) => once(this.child, "message", { signal }))
    this.child.send(question)
    const [report] = await answer
    return report as Report
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const ended = once(this.child, "exit")
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 3000)
    this.child.kill("SIGTERM")
    await ended
    clearTimeout(timer)
  }
}

/** A load client, or whatever else is at the other end of a server; `line` waits for the next line that it prints. */
export class Load {
  private readonly name: string
  private readonly child: ChildProcess
  private readonly lines: AsyncIterator<string>

  constructor(script: string, mode: string, ...args: ReadonlyArray<number>) {
    this.name = `${script} ${mode}`
    this.child = start("1", [script, mode, ...args.map(String)], false)
    this.lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]()
  }

  async line(): Promise<string> {
    const { value } = await within(this.name, this.child, () => this.lines.next())
    return String(value)
  }

  async result(): Promise<Result> {
    const result = JSON.parse(await this.line()) as Result
    await this.end()
    return result
  }

  next(): void {
    this.child.stdin!.write("next\n")
  }

  /** Ends an idle client, or sees to it that another one ends well. */
  async end(): Promise<void> {
    this.child.stdin!.end()
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "exit")
    if (this.child.exitCode !== 0) throw new Error(`${this.name}: ended with ${this.child.exitCode}`)
  }

  kill(): void {
    this.child.kill("SIGKILL")
  }
}

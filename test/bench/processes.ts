/** Servers and load clients as processes of their own, one core for each kind where the system can pin them. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { createInterface } from "node:readline"
import { setTimeout } from "node:timers/promises"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import type { Answer, Question } from "./answer.ts"
import type { Result } from "./load.ts"
import * as Native from "./native.ts"

/** A step that takes longer than this will never end. */
const patience = 30_000

const isLinux = process.platform === "linux"

/** Two that share no execution units, where there are such. */
const cores = ((): readonly [string, string] => {
  const all = Array.from({ length: availableParallelism() }, (_, core) => core).slice(1)
  try {
    const list = readFileSync("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "latin1")
    const [first = 0, last = first] = list.split("-").map((core) => Number.parseInt(core, 10))
    const siblings = list.includes(",") ? list.split(",").map(Number) : [first, last]
    return ["0", String(all.find((core) => !siblings.includes(core)) ?? 1)]
  } catch {
    return ["0", "1"]
  }
})()

export const pinned = cores.every((core) => spawnSync("taskset", ["-c", core, "true"]).status === 0)

const spawnOn = (core: string, command: ReadonlyArray<string>, ipc: boolean): ChildProcess => {
  const [program, ...args] = pinned ? ["taskset", "-c", core, ...command] : command
  return spawn(program!, args, {
    cwd: import.meta.dirname,
    stdio: ["pipe", "pipe", "inherit", ...ipc ? ["ipc" as const] : []]
  })
}

const within = async <A>(what: string, child: ChildProcess, body: (signal: AbortSignal) => Promise<A>): Promise<A> => {
  const stop = new AbortController()
  const failure = new Promise<never>((_, reject) => {
    const timer = globalThis.setTimeout(() => reject(new Error(`${what}: no answer in ${patience / 1000} s`)), patience)
    const onExit = (code: number | null) => reject(new Error(`${what}: ended with ${code ?? "a signal"}`))
    child.once("close", onExit)
    stop.signal.addEventListener("abort", () => {
      clearTimeout(timer)
      child.off("close", onExit)
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

const script = (name: string): ReadonlyArray<string> => [
  process.execPath,
  "--expose-gc",
  "--import",
  "./answer.ts",
  `servers/${name}.ts`
]

const programs = {
  "Asio": Native.asio === undefined ? undefined : [Native.asio],
  "EpollTransport": EpollTransport.isSupported() ? script("epoll-transport") : undefined,
  "NodeTransport": script("node-transport"),
  "node:net": script("node-net"),
  "node:tls": script("node-tls"),
  "node:tls, a fiber": script("node-tls-fiber"),
  "Effect": script("effect-socket"),
  "epoll, callbacks": EpollTransport.isSupported() ? [...script("epoll-floor"), "callbacks"] : undefined,
  "epoll, a fiber": EpollTransport.isSupported() ? [...script("epoll-floor"), "fiber"] : undefined,
  "framing": script("framing"),
  "framing-ndjson": script("framing-ndjson")
}

export type Program = keyof typeof programs

/** Whether this machine has what it needs. */
export const isThere = (program: Program): boolean => programs[program] !== undefined

/** Starts a server. `args` come behind the port, which is free to choose. */
export const start = async (name: Program, ...args: ReadonlyArray<string | number>): Promise<Server> => {
  const program = programs[name]
  if (program === undefined) throw new Error(`${name} is not there`)
  const child = spawnOn(cores[0], [...program, "0", ...args.map(String)], true)
  const lines = createInterface({ input: child.stdout! })
  const [line] = await within(name, child, (signal) => once(lines, "line", { signal }))
  const server = new Server(name, portOf(name, String(line)), child)
  server.unconnected = await server.countSockets()
  return server
}

/** On Linux, most of what is asked of it is read from /proc, so that it need not answer in the middle of its work. */
export class Server {
  readonly name: string
  readonly port: number
  /** How many sockets it has without connections. */
  unconnected = 0
  private readonly child: ChildProcess

  constructor(name: string, port: number, child: ChildProcess) {
    this.name = name
    this.port = port
    this.child = child
  }

  get process(): number {
    return this.child.pid ?? 0
  }

  /** Programs that are not JavaScript have no answers. */
  async ask(question: Question): Promise<Answer> {
    const answer = within(this.name, this.child, (signal) => once(this.child, "message", { signal }))
    this.child.send(question)
    const [message] = await answer
    return message as Answer
  }

  async countSockets(): Promise<number> {
    return isLinux
      ? readdirSync(this.proc("fd")).filter((descriptor) => this.isSocket(descriptor)).length
      : (await this.ask("now")).connections
  }

  /** Waits until it has so many connections, or none any more. */
  async hasConnections(count: number): Promise<void> {
    const isThere = (sockets: number): boolean =>
      count === 0 ? sockets <= this.unconnected : sockets >= this.unconnected + count
    for (const end = performance.now() + patience; !isThere(await this.countSockets());) {
      if (performance.now() > end) throw new Error(`${this.name}: not ${count} connections in ${patience / 1000} s`)
      await setTimeout(5)
    }
  }

  /** Bytes of resident memory, now and at most since `forgetPeak`; only Linux knows. */
  resident(): number {
    return this.status("VmRSS")
  }

  peak(): number {
    return this.status("VmHWM")
  }

  forgetPeak(): void {
    if (isLinux) writeFileSync(this.proc("clear_refs"), "5")
  }

  private status(key: string): number {
    if (!isLinux) return NaN
    const line = readFileSync(this.proc("status"), "latin1").split("\n").find((line) => line.startsWith(`${key}:`))
    return Number.parseInt(line?.slice(key.length + 1) ?? "", 10) * 1024
  }

  private isSocket(descriptor: string): boolean {
    try {
      return readlinkSync(this.proc(`fd/${descriptor}`)).startsWith("socket:")
    } catch {
      // Closed by now.
      return false
    }
  }

  private proc(file: string): string {
    return `/proc/${this.process}/${file}`
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const ended = once(this.child, "exit")
    const timer = globalThis.setTimeout(() => this.child.kill("SIGKILL"), 3000)
    this.child.kill("SIGTERM")
    await ended
    clearTimeout(timer)
  }
}

/** Starts a server for each name, and stops all of them in the end. */
export const withServers = async <Name, A>(
  names: ReadonlyArray<Name>,
  startOne: (name: Name) => Promise<Server>,
  body: (serverOf: (name: Name) => Server) => Promise<A>
): Promise<A> => {
  const servers = new Map<Name, Server>()
  try {
    for (const name of names) servers.set(name, await startOne(name))
    return await body((name) => servers.get(name)!)
  } finally {
    await Promise.all([...servers.values()].map((server) => server.stop()))
  }
}

/** A load client, or whatever else is at the other end of a server; `line` waits for the next line that it prints. */
export class Load {
  private readonly name: string
  private readonly child: ChildProcess
  private readonly lines: AsyncIterator<string>

  private constructor(name: string, command: ReadonlyArray<string>) {
    this.name = name
    this.child = spawnOn(cores[1], command, false)
    this.lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]()
  }

  /** The native client where there is one. */
  static start(mode: string, ...args: ReadonlyArray<number>): Load {
    if (Native.load === undefined) return Load.script("load.ts", mode, ...args)
    return new Load(`load ${mode}`, [Native.load, mode, ...args.map(String)])
  }

  static startTls(mode: string, ...args: ReadonlyArray<number>): Load {
    if (Native.loadTls === undefined) return Load.script("load.ts", `tls-${mode}`, ...args)
    return new Load(`load ${mode} over TLS`, [Native.loadTls, mode, ...args.map(String)])
  }

  static script(script: string, mode: string, ...args: ReadonlyArray<number>): Load {
    return new Load(`${script} ${mode}`, [process.execPath, script, mode, ...args.map(String)])
  }

  async line(): Promise<string> {
    const { done, value } = await within(this.name, this.child, () => this.lines.next())
    if (done === true) throw new Error(`${this.name}: ended too early`)
    return value
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

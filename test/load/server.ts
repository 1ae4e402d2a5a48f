/**
 * Load on a server, by hand: thousands of echo connections, some of which are slow, stall, half-close or reset.
 *
 *     node test/load/server.ts [--seconds 60] [--connections 5000] [--transport node|epoll] [--seed 1]
 *         [--think MILLISECONDS]
 *
 * The server is a process of its own. Prints what the peers did, bytes that were lost or changed, latency of those that
 * behave well, and the server's descriptors and memory before and after; ends with 1 when one of them is not as it has to
 * be. Needs `ulimit -n` above the number of connections, at both ends.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import { fork } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import * as Net from "node:net"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Server, type StreamSocket, Write } from "../../src/index.ts"
import { random } from "../../src/testing/MemoryTransport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    connections: { type: "string", default: "5000" },
    transport: { type: "string", default: "node" },
    seed: { type: "string", default: "1" },
    think: { type: "string", default: "0" },
    serve: { type: "boolean", default: false }
  }
})
const seconds = Number(values.seconds)
const connections = Number(values.connections)
/** On average, between two messages of those that behave well; 0 is as fast as they can, which the server is not. */
const think = Number(values.think)

/** A collection takes time that would show as latency. */
type Question = "collected" | "at once"

interface Report {
  readonly descriptors: number
  readonly memory: number
  readonly health: Server.Health
}

// ---- the server

const echo = (socket: StreamSocket.StreamSocket) => {
  const buffer = new Uint8Array(4096)
  return Effect.forever(
    Effect.flatMap(socket.readSome(buffer), (count) => Write.writeAll(socket, buffer.subarray(0, count))),
    { disableYield: true }
  )
}

const memory = (): number => {
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

const collected = async (): Promise<number> => {
  let least = Infinity
  for (let i = 0; i < 10; i++) {
    globalThis.gc?.()
    await setTimeout(50)
    least = Math.min(least, memory())
  }
  return least
}

const serve = Effect.scoped(Effect.gen(function*() {
  const server = yield* Server.make(echo, {
    listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
    backlog: 4096,
    limits: {
      connections: 2 * connections,
      idle: "5 minutes",
      progress: { bytes: 1, per: "30 seconds" },
      bytesInFlight: 1_073_741_824
    },
    shutdown: { deadline: "2 seconds" }
  })
  const report = async (question: Question): Promise<Report> => ({
    memory: question === "collected" ? await collected() : memory(),
    descriptors: process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0,
    health: await Effect.runPromise(server.health)
  })
  process.on("message", (question: Question) => void report(question).then((answer) => process.send?.(answer)))
  const [address] = server.addresses
  process.send?.(NetAddress.isInetAddress(address) ? address.port : 0)
  yield* server.stopped
}))

// ---- its peers

let lost = 0
let changed = 0
let moved = 0
const latencies: Array<number> = []
const done: Record<string, number> = {}
/** Connections that ended without having been asked to. */
const broken: Record<string, number> = {}
const next = random(Number(values.seed))
const phase = {
  /** Everybody has come; before, it is the rush of their arrival that one sees. */
  isSteady: false,
  isOver: false
}

/** Byte `at` of what each connection sends. */
const pattern = new Uint8Array(65_536 + 251).map((_, i) => i % 251)
const bytes = (at: number, count: number) => pattern.subarray(at % 251, (at % 251) + count)

const first = (socket: Net.Socket, event: string): Promise<void> => {
  const { promise, resolve } = Promise.withResolvers<void>()
  socket.once(event, () => resolve())
  return promise
}

class Peer {
  readonly socket: Net.Socket
  sent = 0
  received = 0
  /** This end has ended it, and what follows is no surprise. */
  private isOver = false
  private hasEnded = false
  readonly connected: Promise<unknown>
  private readonly ended: Promise<unknown>
  private onBytes: () => void = () => {}

  constructor(port: number) {
    this.socket = Net.connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true })
    this.socket.on("error", ({ code }: NodeJS.ErrnoException) => {
      if (!this.isOver) broken[code ?? "?"] = (broken[code ?? "?"] ?? 0) + 1
    })
    this.socket.on("end", () => {
      if (!this.isOver) broken["early end"] = (broken["early end"] ?? 0) + 1
      this.hasEnded = true
      this.onBytes()
    })
    this.socket.on("data", (chunk: Buffer) => {
      for (let i = 0; i < chunk.byteLength; i += 65_536) {
        const piece = chunk.subarray(i, i + 65_536)
        if (piece.compare(bytes(this.received + i, piece.byteLength)) !== 0) changed += piece.byteLength
      }
      this.received += chunk.byteLength
      moved += chunk.byteLength
      this.onBytes()
    })
    this.socket.on("close", () => this.onBytes())
    const either = (event: string) => Promise.race([first(this.socket, event), first(this.socket, "close")])
    this.connected = either("connect")
    this.ended = either("end")
  }

  send(count: number): void {
    for (let left = count; left > 0; left -= 65_536) {
      const piece = bytes(this.sent, Math.min(left, 65_536))
      this.sent += piece.byteLength
      this.socket.write(piece)
    }
  }

  /** Everything that was sent has come back. */
  async caughtUp(): Promise<void> {
    while (this.received < this.sent && !this.hasEnded && !this.socket.destroyed) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.onBytes = resolve
      await promise
    }
  }

  /** Half-closes, and reads to the end. */
  async end(): Promise<void> {
    this.isOver = true
    this.socket.end()
    await this.ended
    lost += this.sent - this.received
    this.socket.destroy()
  }

  reset(): void {
    this.isOver = true
    this.socket.resetAndDestroy()
  }
}

type Kind = (peer: Peer) => Promise<void>

/** One thing that a connection does; the pause behind it is somebody else's. */
const kinds: Record<string, Kind> = {
  "well-behaved": async (peer) => {
    const start = performance.now()
    peer.send(64)
    await peer.caughtUp()
    if (phase.isSteady) latencies.push(performance.now() - start)
  },
  "slow reader": async (peer) => {
    peer.send(20_000)
    for (let i = 0; i < 5; i++) {
      peer.socket.pause()
      await setTimeout(50 + next() * 100)
      peer.socket.resume()
      await setTimeout(1)
    }
    await peer.caughtUp()
  },
  "half-closer": async (peer) => {
    peer.send(1 + Math.floor(next() * 100_000))
    await peer.end()
  },
  "resetter": async (peer) => {
    peer.send(1 + Math.floor(next() * 10_000))
    await setTimeout(next() * 50)
    peer.reset()
  },
  "staller": async (peer) => {
    peer.socket.pause()
    peer.send(1_000_000)
    await setTimeout(1000 + next() * 2000)
    peer.socket.resume()
    await peer.caughtUp()
  }
}

const kindOf = (i: number): string =>
  i % 100 < 84
    ? "well-behaved"
    : i % 100 < 89
    ? "slow reader"
    : i % 100 < 94
    ? "half-closer"
    : i % 100 < 99
    ? "resetter"
    : "staller"

const live = async (port: number, i: number): Promise<void> => {
  const name = kindOf(i)
  const act = kinds[name]!
  let peer: Peer | undefined
  await setTimeout(next() * 1500)
  while (!phase.isOver) {
    peer ??= new Peer(port)
    await peer.connected
    await act(peer)
    done[name] = (done[name] ?? 0) + 1
    if (peer.socket.destroyed) peer = undefined
    if (name !== "well-behaved") await setTimeout(500 + next() * 1000)
    else if (think > 0) await setTimeout(next() * 2 * think)
  }
  await peer?.end()
}

const drive = async (): Promise<void> => {
  const child = fork(fileURLToPath(import.meta.url), [...process.argv.slice(2), "--serve"], {
    execArgv: ["--expose-gc", "--no-warnings"]
  })
  const [port] = await once(child, "message") as [number]
  const report = async (question: Question): Promise<Report> => {
    const answer = once(child, "message")
    child.send(question)
    return (await answer)[0] as Report
  }
  const wave = async (run: (i: number) => Promise<void>): Promise<void> => {
    const all: Array<Promise<void>> = []
    for (let i = 0; i < connections; i++) {
      all.push(run(i))
      if (i % 100 === 99) await setTimeout(10)
    }
    await Promise.all(all)
  }
  const settled = async (): Promise<Report> => {
    let found = await report("collected")
    while (found.health.connections > 0) found = await report("collected")
    return found
  }
  // As many connections as later, so that what follows finds everything as large as it has to be.
  await wave(async () => {
    const peer = new Peer(port)
    peer.send(30_000)
    await peer.caughtUp()
    await setTimeout(1000)
    await peer.end()
  })
  const before = await settled()
  moved = 0
  const start = performance.now()
  void setTimeout(seconds * 1000).then(() => (phase.isOver = true))
  void setTimeout(Math.min(seconds * 250, 3000)).then(() => (phase.isSteady = true))
  const running = wave((i) => live(port, i))
  await setTimeout(seconds * 500)
  const midway = await report("at once")
  await running
  const time = (performance.now() - start) / 1000
  const after = await settled()
  const exit = once(child, "exit")
  child.kill("SIGTERM")
  const [code] = await exit
  latencies.sort((a, b) => a - b)
  const quantile = (q: number): number => latencies[Math.floor(q * (latencies.length - 1))] ?? NaN
  const [p50, p99] = [quantile(0.5), quantile(0.99)]
  const growth = after.memory / before.memory - 1
  console.log(`${connections} connections for ${time.toFixed(1)} s over ${values.transport}:`, done)
  if (Object.keys(broken).length > 0) console.log("connections that broke:", broken)
  console.log(`bytes back ${moved}, lost ${lost}, changed ${changed}`)
  console.log(
    `latency: p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms, ${(p99 / p50).toFixed(1)} times (${latencies.length})`
  )
  console.log(`descriptors: ${before.descriptors} before, ${midway.descriptors} meanwhile, ${after.descriptors} after`)
  console.log(
    `memory: ${(before.memory / 1e6).toFixed(2)} MB before, ${(midway.memory / 1e6).toFixed(2)} MB meanwhile, ${
      (after.memory / 1e6).toFixed(2)
    } MB after (${(growth * 100).toFixed(1)} %)`
  )
  console.log("server:", JSON.stringify(after.health), `exit status ${code}`)
  const wrong = [
    Object.keys(broken).length > 0 ? "connections" : undefined,
    lost !== 0 || changed !== 0 ? "bytes" : undefined,
    p99 > 5 * p50 ? "latency" : undefined,
    after.descriptors > before.descriptors ? "descriptors" : undefined,
    growth > 0.05 ? "memory" : undefined,
    after.health.failures > 0 ? "handlers" : undefined,
    code !== 0 ? "exit status" : undefined
  ].filter((what) => what !== undefined)
  console.log(wrong.length === 0 ? "all is well" : `not as it has to be: ${wrong.join(", ")}`)
  process.exitCode = wrong.length === 0 ? 0 : 1
}

if (values.serve) {
  serve.pipe(
    Effect.provide(values.transport === "epoll" ? EpollTransport.layer : Layer.orDie(NodeTransport.layer)),
    NodeRuntime.runMain({ teardown: Server.teardown })
  )
} else await drive()

/**
 * Compares this library with raw `node:net` and with Effect's own sockets: echo, bulk, memory, relaying, messages.
 *
 * Usage: npm run bench [-- --quick]
 *
 * Servers and client are processes of their own. Short rounds alternate between the servers, in an order that
 * rotates, and ratios are taken within a round: figures of one machine move by a fifth from minute to minute.
 * Fails when something crashed or came back changed, never for being slow.
 */
import { setTimeout } from "node:timers/promises"
import { cancellation } from "./cancellation.ts"
import { framing } from "./framing.ts"
import { Load, pinned, Server } from "./processes.ts"
import { relay } from "./relay.ts"
import { compare, print, type Row } from "./table.ts"

const quick = process.argv.includes("--quick")
// Many short rounds rather than a few long ones: neighbours in time see the same machine.
const rounds = quick ? 5 : 15
const seconds = quick ? 0.5 : 0.8
const warmUp = 0.3
const idleConnections = 2000

type Figures = ReadonlyArray<number>
type ByServer = Readonly<Record<"ours" | "nodeNet" | "effect", ReadonlyArray<Figures>>>

/** Runs `measure` on each server in turn, again and again; the first round only warms up. */
const alternate = async (
  servers: readonly [Server, Server, Server],
  rounds: number,
  measure: (server: Server) => Promise<Figures>
): Promise<ByServer> => {
  const figures: [Array<Figures>, Array<Figures>, Array<Figures>] = [[], [], []]
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < 3; turn++) {
      const index = (round + turn) % 3 as 0 | 1 | 2
      const values = await measure(servers[index])
      if (round > 0) figures[index].push(values)
    }
  }
  return { ours: figures[0], nodeNet: figures[1], effect: figures[2] }
}

const pick = (by: ByServer, index: number): Pick<Row, "ours" | "nodeNet" | "effect"> => ({
  ours: by.ours.map((figures) => figures[index]!),
  nodeNet: by.nodeNet.map((figures) => figures[index]!),
  effect: by.effect.map((figures) => figures[index]!)
})

/** Things per second, and server time in microseconds for each. */
const rate = (mode: "echo" | "bulk", connections: number, unit: number) => async (server: Server): Promise<Figures> => {
  const load = new Load("load.ts", mode, server.port, connections, seconds, warmUp)
  try {
    await load.line()
    const before = await server.ask("time")
    const result = await load.result()
    const after = await server.ask("time")
    const count = result.count / unit
    return [count / result.seconds, (after.cpu - before.cpu) / count]
  } finally {
    load.kill()
  }
}

/** Memory for each idle connection, fresh and after one message, in KB. */
const idle = async (server: Server): Promise<Figures> => {
  // Asked until it stays: what connections leave behind is not freed in one go.
  const memory = async (sockets: (count: number) => boolean): Promise<number> => {
    for (let least = Infinity;;) {
      const report = await server.ask("memory")
      if (sockets(report.sockets)) {
        if (report.memory > least * 0.999) return Math.min(report.memory, least)
        least = report.memory
      }
      await setTimeout(50)
    }
  }
  // Also waits until the connections of the turn before are gone.
  const before = await memory((count) => count === 0)
  const load = new Load("load.ts", "idle", server.port, idleConnections)
  try {
    await load.line()
    const fresh = await memory((count) => count >= idleConnections)
    load.next()
    await load.line()
    const used = await memory((count) => count >= idleConnections)
    await load.end()
    return [fresh - before, used - before].map((bytes) => bytes / idleConnections / 1000)
  } finally {
    load.kill()
  }
}

const started: Array<Server> = []

const startThree = async (prefix: string): Promise<[Server, Server, Server]> => {
  const start = async (name: string): Promise<Server> => {
    const server = await Server.start(prefix + name)
    started.push(server)
    return server
  }
  return [await start("node-transport"), await start("node-net"), await start("effect-socket")]
}

try {
  console.log(
    `node ${process.version}, ${rounds} rounds of ${seconds} s for each server` +
      (pinned ? ", servers on core 0, client on core 1" : ", not pinned to cores")
  )
  const echoServers = await startThree("")
  const echo = await alternate(echoServers, rounds, rate("echo", 64, 1))
  const waiting = await alternate(echoServers, quick ? 1 : 3, idle)
  const bulkServers = await startThree("bulk-")
  const bulk = await alternate(bulkServers, rounds, rate("bulk", 1, 1_000_000))
  const bulkMany = await alternate(bulkServers, rounds, rate("bulk", 16, 1_000_000))

  const written = { nodeNet: { atLeast: 0.9 } }
  console.log()
  print([
    {
      figure: "echo of 64 bytes, 64 connections, messages/s",
      ...pick(echo, 0),
      targets: { nodeNet: { atLeast: 0.88 }, effect: { atLeast: 1.05 } }
    },
    { figure: "    server CPU, us/message", ...pick(echo, 1), digits: 2 },
    { figure: "writes of 64 KiB, 1 connection, MB/s", ...pick(bulk, 0), targets: written },
    { figure: "    server CPU, us/MB", ...pick(bulk, 1) },
    { figure: "writes of 64 KiB, 16 connections, MB/s", ...pick(bulkMany, 0), targets: written },
    { figure: "    server CPU, us/MB", ...pick(bulkMany, 1) },
    {
      figure: "memory of an idle connection, KB",
      ...pick(waiting, 0),
      digits: 1,
      targets: { effect: { atMost: 0.5 } }
    },
    { figure: "    after one message, KB", ...pick(waiting, 1), digits: 1 }
  ])
  console.log(
    "\nMedians; each ratio is the median of its rounds. Memory includes the 1 KiB buffer of our echo handler.\n"
  )
  const { interrupt, writeAll } = await cancellation(quick ? 20 : 60)
  compare("interrupting a waiting writeSome, ns", interrupt, "a bare Effect.callback", { atMost: 2 })
  compare("writeAll in one attempt, ns", writeAll, "writeSome", { atMost: 1.3 })

  console.log()
  const size = quick ? 256 : 1024
  const relayed = await relay(quick ? 3 : 7, size * 1_048_576)
  compare(`relay of ${size} MiB, MB/s`, relayed.speed, "stream.pipeline", { atLeast: 0.9 })
  compare("    relay CPU, us/MB", relayed.cpu, "stream.pipeline")

  console.log()
  const { cpu, speed } = await framing(quick ? 3 : 7, quick ? 200_000 : 1_000_000)
  const batches = "ndjson over Effect's sockets"
  compare("100-byte messages, 64 together, messages/s", [speed.stream, speed.ndjson], batches, { atLeast: 1.5 })
  compare("    receiver CPU, us/message", [cpu.stream, cpu.ndjson], batches, undefined, 2)
  compare("    the same as JSON, messages/s", [speed.json, speed.ndjson], batches)
  compare("100-byte messages, one by one, messages/s", [speed.each, speed["ndjson-each"]], batches, { atLeast: 1.5 })
  compare("    receiver CPU, us/message", [cpu.each, cpu["ndjson-each"]], batches, undefined, 2)
} finally {
  await Promise.all(started.map((server) => server.stop()))
}

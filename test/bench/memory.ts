/** What a connection costs that does nothing: accepted, with the fiber, coroutine or callbacks that serve it. */
import { setTimeout } from "node:timers/promises"
import type { Effort } from "./effort.ts"
import { alternate, type Group } from "./figures.ts"
import { Load, type Server, start, withServers } from "./processes.ts"
import { contestants, ours } from "./rates.ts"
import { titles } from "./titles.ts"

const connections = 2000

/** Bytes: heap and buffers, where there are such, and resident memory. */
type Memory = readonly [live: number, resident: number]

/** Asked until it stays: what connections leave behind is not freed in one go. */
const settled = async (server: Server, connections: number): Promise<Memory> => {
  await server.hasConnections(connections)
  for (let least = Infinity;;) {
    const live = server.name === "Asio" ? NaN : (await server.ask("memory")).live ?? NaN
    if (!(live <= least * 0.999)) return [live, server.resident()]
    least = live
    await setTimeout(50)
  }
}

/** So many connections, before and after one message on each. */
const hold = async (server: Server, connections: number): Promise<readonly [Memory, Memory]> => {
  const load = Load.start("idle", server.port, connections)
  try {
    await load.line()
    const fresh = await settled(server, connections)
    load.next()
    await load.line()
    const used = await settled(server, connections)
    await load.end()
    return [fresh, used]
  } finally {
    load.kill()
  }
}

/**
 * KB for each connection. The server is a new one, because memory that was resident once stays so; and heap is compared
 * the second time, when everything that connections share is there already.
 */
const measure = (name: typeof contestants[number]): Promise<ReadonlyArray<number>> =>
  withServers([name], (name) => start(name, "echo"), async (serverOf) => {
    const server = serverOf(name)
    const compare = async (kind: 0 | 1): Promise<ReadonlyArray<number>> => {
      const before = await settled(server, 0)
      const held = await hold(server, connections)
      return held.map((memory) => (memory[kind] - before[kind]) / connections / 1000)
    }
    await hold(server, 100)
    const resident = await compare(1)
    const live = await compare(0)
    return [...live, ...resident]
  })

export const memory = async ({ roundsOfMemory }: Effort): Promise<ReadonlyArray<Group>> => [{
  title: titles.idle,
  figures: [
    { name: "live KB", digits: 1, compared: true },
    { name: "after a message", digits: 1 },
    { name: "resident KB", digits: 1 },
    { name: "after a message", digits: 1 }
  ],
  ours,
  rounds: await alternate(contestants, roundsOfMemory, measure, 0)
}]

/**
 * Relaying a connection to another one, compared with `stream.pipeline` between two `node:net` sockets. The relay, the
 * source and the sink are processes of their own.
 */
import { Load, portOf, Server } from "./processes.ts"
import type { Rounds } from "./table.ts"

/** MB/s, and relay time in microseconds for each MB. */
const measure = async (server: Server, bytes: number): Promise<readonly [number, number]> => {
  const source = new Load("pipe.ts", "source", server.port, bytes)
  try {
    const before = await server.ask("time")
    const { count, seconds } = await source.result()
    const after = await server.ask("time")
    const megabytes = count / 1_000_000
    return [megabytes / seconds, (after.cpu - before.cpu) / megabytes]
  } finally {
    source.kill()
  }
}

/** Ours and theirs, round by round, in an order that alternates. The first round only warms up. */
export const relay = async (rounds: number, bytes: number) => {
  const sink = new Load("pipe.ts", "sink")
  const servers: Array<Server> = []
  const speed: [Array<number>, Array<number>] = [[], []]
  const cpu: [Array<number>, Array<number>] = [[], []]
  try {
    const target = portOf("sink", await sink.line())
    servers.push(await Server.start("relay-node-transport", target))
    servers.push(await Server.start("relay-node-net", target))
    for (let round = 0; round <= rounds; round++) {
      for (let turn = 0; turn < 2; turn++) {
        const index = (round + turn) % 2 as 0 | 1
        const figures = await measure(servers[index]!, bytes)
        if (round === 0) continue
        speed[index].push(figures[0])
        cpu[index].push(figures[1])
      }
    }
    return { speed, cpu } satisfies Record<string, readonly [Rounds, Rounds]>
  } finally {
    await Promise.all(servers.map((server) => server.stop()))
    await sink.end()
  }
}

/**
 * Messages of 100 bytes one way over TCP: length-prefixed over this library, compared with Effect's ndjson over its own
 * sockets. Sender and receiver are processes of their own, both of the same kind, and all of them without Nagle's
 * algorithm.
 */
import { warmUp } from "./messages.ts"
import { Load, Server } from "./processes.ts"
import type { Rounds } from "./table.ts"

const kinds = {
  stream: ["framing", "stream"],
  json: ["framing", "json"],
  ndjson: ["framing-ndjson"],
  each: ["framing", "each"],
  "ndjson-each": ["framing-ndjson"]
} as const

type Kind = keyof typeof kinds

/** Messages per second, and receiver time in microseconds for each. */
const measure = async (kind: Kind, server: Server, messages: number): Promise<readonly [number, number]> => {
  const sender = new Load("frames.ts", kind, server.port, messages)
  try {
    const before = await server.ask("time")
    const { count, seconds } = await sender.result()
    const after = await server.ask("time")
    return [count / seconds, (after.cpu - before.cpu) / (count + warmUp(count))]
  } finally {
    sender.kill()
  }
}

/** Each kind, round by round, in an order that rotates. The first round only warms up. */
export const framing = async (rounds: number, messages: number) => {
  const servers: Array<readonly [Kind, Server]> = []
  const speed: Record<Kind, Array<number>> = { stream: [], json: [], ndjson: [], each: [], "ndjson-each": [] }
  const cpu: Record<Kind, Array<number>> = { stream: [], json: [], ndjson: [], each: [], "ndjson-each": [] }
  try {
    for (const kind of Object.keys(kinds) as ReadonlyArray<Kind>) {
      const [name, ...mode] = kinds[kind]
      servers.push([kind, await Server.start(name, ...mode)])
    }
    for (let round = 0; round <= rounds; round++) {
      for (let turn = 0; turn < servers.length; turn++) {
        const [kind, server] = servers[(round + turn) % servers.length]!
        const figures = await measure(kind, server, messages)
        if (round === 0) continue
        speed[kind].push(figures[0])
        cpu[kind].push(figures[1])
      }
    }
    return { speed, cpu } satisfies Record<string, Readonly<Record<Kind, Rounds>>>
  } finally {
    await Promise.all(servers.map(([, server]) => server.stop()))
  }
}

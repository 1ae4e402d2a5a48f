/**
 * Relaying a connection to another one, compared with `stream.pipeline` between two `node:net` sockets. The relay, the
 * source and the sink are processes of their own.
 */
import type { Effort } from "./effort.ts"
import { alternate, type Group } from "./figures.ts"
import { Load, portOf, type Server, start, withServers } from "./processes.ts"
import { ours } from "./rates.ts"
import { titles } from "./titles.ts"

/** MB/s, and relay time in microseconds for each MB. */
const measure = async (server: Server, bytes: number): Promise<ReadonlyArray<number>> => {
  const source = Load.script("pipe.ts", "source", server.port, bytes)
  try {
    const before = await server.ask("now")
    const { count, seconds } = await source.result()
    const after = await server.ask("now")
    const megabytes = count / 1_000_000
    return [megabytes / seconds, (after.cpu - before.cpu) / megabytes]
  } finally {
    source.kill()
  }
}

export const relay = async (effort: Effort): Promise<ReadonlyArray<Group>> => {
  const sink = Load.script("pipe.ts", "sink")
  try {
    const target = portOf("sink", await sink.line())
    const names = [...ours, "stream.pipeline"] as const
    const startOne = (name: typeof names[number]) =>
      start(name === "stream.pipeline" ? "node:net" : name, "relay", target)
    const rounds = await withServers(
      names,
      startOne,
      (serverOf) =>
        alternate(names, effort.roundsOfOthers, (name) => measure(serverOf(name), effort.relayedMebibytes * 1_048_576))
    )
    return [{
      title: titles.relay,
      figures: [{ name: "MB/s", digits: 0, compared: true }, { name: "CPU us", digits: 0, compared: true }],
      ours,
      rounds
    }]
  } finally {
    await sink.end()
  }
}

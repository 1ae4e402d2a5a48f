/**
 * Messages of 100 bytes one way over TCP: length-prefixed over this library, compared with Effect's ndjson over its own
 * sockets. Sender and receiver are processes of their own, both of the same kind, and all of them without Nagle's
 * algorithm.
 */
import type { Effort } from "./effort.ts"
import { alternate, type Group, type Rounds } from "./figures.ts"
import { warmUp } from "./messages.ts"
import { Load, type Program, type Server, start, withServers } from "./processes.ts"
import { titles } from "./titles.ts"

type Kind = "stream" | "json" | "ndjson" | "each" | "ndjson-each"

const receivers: Record<Kind, readonly [Program, ...Array<string>]> = {
  stream: ["framing", "stream"],
  json: ["framing", "json"],
  ndjson: ["framing-ndjson"],
  each: ["framing", "each"],
  "ndjson-each": ["framing-ndjson"]
}

/** Messages per second, and receiver time in microseconds for each. */
const measure = async (kind: Kind, server: Server, messages: number): Promise<ReadonlyArray<number>> => {
  const sender = Load.script("frames.ts", kind, server.port, messages)
  try {
    const before = await server.ask("now")
    const { count, seconds } = await sender.result()
    const after = await server.ask("now")
    return [count / seconds, (after.cpu - before.cpu) / (count + warmUp(count))]
  } finally {
    sender.kill()
  }
}

export const framing = ({ messages, roundsOfOthers }: Effort): Promise<ReadonlyArray<Group>> => {
  const kinds = Object.keys(receivers) as ReadonlyArray<Kind>
  return withServers(kinds, (kind) => start(...receivers[kind]), async (serverOf) => {
    const by = await alternate(kinds, roundsOfOthers, (kind) => measure(kind, serverOf(kind), messages))
    const group = (title: string, ours: ReadonlyArray<string>, rounds: Readonly<Record<string, Rounds>>): Group => ({
      title,
      figures: [{ name: "messages/s", digits: 0, compared: true }, { name: "CPU us", digits: 2, compared: true }],
      ours,
      rounds
    })
    return [
      group(titles.together, ["Framing.sink", "the same as JSON"], {
        "Framing.sink": by.stream,
        "the same as JSON": by.json,
        "ndjson": by.ndjson
      }),
      group(titles.oneByOne, ["Framing.send"], { "Framing.send": by.each, "ndjson": by["ndjson-each"] })
    ]
  })
}

/** What is to be reached, on whatever machine: ratios within one run, but for memory. */
import { type Group, ratio, summarize, type Summary, valuesOf } from "./figures.ts"
import { titles } from "./titles.ts"

interface Target {
  readonly title: string
  readonly figure: string
  readonly ours: string
  /** Without it, the figure itself is judged. */
  readonly theirs?: string
  readonly atLeast?: number
  readonly atMost?: number
}

/** As fast at least, and at most so much work for it. */
const faster = (ours: string, theirs: string, atLeast: number): ReadonlyArray<Target> => [
  { title: titles.echo, figure: "messages/s", ours, theirs, atLeast },
  { title: titles.echo, figure: "CPU us", ours, theirs, atMost: 1 / atLeast }
]

const targets: ReadonlyArray<Target> = [
  ...faster("EpollTransport", "node:net", 1.25),
  ...faster("EpollTransport", "Effect", 1.45),
  ...faster("EpollTransport", "Asio", 0.8),
  { title: titles.bulk, figure: "MB/s", ours: "EpollTransport", theirs: "node:net", atLeast: 1 },
  { title: titles.bulkMany, figure: "MB/s", ours: "EpollTransport", theirs: "node:net", atLeast: 1 },
  { title: titles.idle, figure: "live KB", ours: "EpollTransport", atMost: 4 },
  { title: titles.echo, figure: "messages/s", ours: "NodeTransport", theirs: "node:net", atLeast: 0.88 },
  { title: titles.echo, figure: "messages/s", ours: "NodeTransport", theirs: "Effect", atLeast: 1.05 },
  { title: titles.bulk, figure: "MB/s", ours: "NodeTransport", theirs: "node:net", atLeast: 0.9 },
  { title: titles.bulkMany, figure: "MB/s", ours: "NodeTransport", theirs: "node:net", atLeast: 0.9 },
  { title: titles.idle, figure: "live KB", ours: "NodeTransport", theirs: "Effect", atMost: 0.5 },
  { title: titles.tlsEcho, figure: "messages/s", ours: "NodeTransport", theirs: "node:tls", atLeast: 0.95 },
  { title: titles.tlsEchoLarge, figure: "messages/s", ours: "NodeTransport", theirs: "node:tls", atLeast: 0.95 },
  { title: titles.tlsSend, figure: "MB/s", ours: "NodeTransport", theirs: "node:tls", atLeast: 0.95 },
  { title: titles.tlsReceive, figure: "MB/s", ours: "NodeTransport", theirs: "node:tls", atLeast: 0.95 },
  { title: titles.tlsHandshake, figure: "handshakes/s", ours: "NodeTransport", theirs: "node:tls", atLeast: 0.9 },
  { title: titles.interrupt, figure: "ns", ours: "writeSome", theirs: "Effect.callback", atMost: 2 },
  { title: titles.writeAll, figure: "ns", ours: "writeAll", theirs: "writeSome", atMost: 1.3 },
  { title: titles.relay, figure: "MB/s", ours: "NodeTransport", theirs: "stream.pipeline", atLeast: 0.9 },
  { title: titles.together, figure: "messages/s", ours: "Framing.sink", theirs: "ndjson", atLeast: 1.5 },
  { title: titles.oneByOne, figure: "messages/s", ours: "Framing.send", theirs: "ndjson", atLeast: 1.5 }
]

export interface Verdict {
  readonly title: string
  readonly figure: string
  readonly what: string
  readonly reached: Summary
  readonly bound: string
  readonly isReached: boolean
}

/** Of the targets that something was measured for. */
export const judge = (groups: ReadonlyArray<Group>): ReadonlyArray<Verdict> =>
  targets.flatMap(({ atLeast = 0, atMost = Infinity, figure, ours, theirs, title }) => {
    const group = groups.find((group) => group.title === title)
    if (group === undefined) return []
    const reached = theirs === undefined
      ? summarize(valuesOf(group, ours, figure))
      : ratio(group, figure, ours, theirs)
    if (Number.isNaN(reached.median)) return []
    return [{
      title,
      figure,
      what: theirs === undefined ? ours : `${ours} / ${theirs}`,
      reached,
      bound: atLeast > 0 ? `at least ${atLeast.toFixed(2)}` : `at most ${atMost.toFixed(2)}`,
      isReached: reached.median >= atLeast && reached.median <= atMost
    }]
  })

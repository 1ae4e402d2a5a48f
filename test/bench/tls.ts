/**
 * TLS 1.3 over this library, compared with raw `node:tls`; and with a fiber over `node:tls` that does the least a fiber
 * can do, which is how near an Effect program can come to raw `node:tls` at all.
 */
import type { Effort } from "./effort.ts"
import type { Group } from "./figures.ts"
import * as Native from "./native.ts"
import { type Program, start } from "./processes.ts"
import { compareAll, ours, type Task } from "./rates.ts"
import { titles } from "./titles.ts"

const contestants: ReadonlyArray<Program> = [...ours, "node:tls", "node:tls, a fiber"]

export const tls = async (effort: Effort): Promise<ReadonlyArray<Group>> => {
  const compare = (mode: string, tasks: ReadonlyArray<Omit<Task, "overTls">>) =>
    compareAll(
      effort,
      contestants,
      (name) => start(name, mode, 4096, "tls"),
      tasks.map((task) => ({ ...task, overTls: true }))
    )
  const echo = { mode: "echo", connections: 64, name: "messages/s", digits: 2 } as const
  const bulk = { connections: 1, unit: 1_000_000, name: "MB/s", digits: 0 } as const
  const handshakes = { connections: 16, name: "handshakes/s", digits: 0 } as const
  return [
    ...await compare("echo", [
      { ...echo, title: titles.tlsEcho, size: 64 },
      { ...echo, title: titles.tlsEchoLarge, size: 4096 },
      ...Native.loadTls === undefined ? [] : [
        { ...handshakes, title: titles.tlsHandshake, mode: "accept" as const },
        { ...handshakes, title: titles.tlsResume, mode: "resume" as const }
      ]
    ]),
    ...await compare("bulk", [{ ...bulk, title: titles.tlsSend, mode: "bulk" }]),
    ...await compare("receive", [{ ...bulk, title: titles.tlsReceive, mode: "fill" }])
  ]
}

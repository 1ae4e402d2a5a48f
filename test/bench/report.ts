/**
 * Loaded into a server with `--import`: answers the runner's questions, so that
 * the server's own code stays as its users would write it.
 */
import { setImmediate } from "node:timers/promises"

export interface Report {
  /** User and system time of the process so far, in microseconds. */
  readonly cpu: number
  /** Live memory after garbage collection, in bytes; 0 when it was not asked for. */
  readonly memory: number
  /** Open connections. */
  readonly sockets: number
}

export type Question = "time" | "memory"

const collect = async (): Promise<number> => {
  // What one collection finalizes, the next one frees.
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.()
    await setImmediate()
  }
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

const answer = async (question: Question): Promise<void> => {
  const { system, user } = process.cpuUsage()
  const memory = question === "memory" ? await collect() : 0
  const sockets = process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length
  process.send?.({ cpu: user + system, memory, sockets } satisfies Report)
}

process.on("message", (question: Question) => void answer(question))
// The runner has gone.
process.on("disconnect", () => process.exit())

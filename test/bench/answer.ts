/**
 * Loaded into a server with `--import`: answers the runner's questions, so that
 * the server's own code stays as its users would write it.
 */
import { setImmediate } from "node:timers/promises"

export interface Answer {
  /** When it was given, and user and system time of the process until then, in microseconds. */
  readonly at: number
  readonly cpu: number
  readonly connections: number
  /** Heap and buffers after garbage collection, in bytes, where that was asked for. */
  readonly live?: number
}

export type Question = "now" | "memory"

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
  const answer: Answer = {
    at: performance.now() * 1000,
    cpu: user + system,
    connections: process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length,
    ...question === "memory" ? { live: await collect() } : undefined
  }
  process.send?.(answer)
}

process.on("message", (question: Question) => void answer(question))
// The runner has gone.
process.on("disconnect", () => process.exit())

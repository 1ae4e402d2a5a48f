import { fileURLToPath } from "node:url"
import { configDefaults, defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/**
 * The suites once more over further transports, and whatever starts many processes. They make up most of the time and
 * find little that the others do not, so `npm test` leaves them out; `npm run test:wide` runs them, and so does CI.
 */
export const wide = [
  "test/cancellation/matrix.{epoll,node-tcp,tls-epoll,tls-memory,tls-node}.test.ts",
  "test/conformance/{epoll-tcp6,node-tcp6,tls-epoll,tls-node-strict,tls-node-unix,tls-over-tls,tls12-node}.test.ts",
  "test/examples/many-processes.test.ts",
  "test/transport/EpollTransport.process.test.ts"
]

/** Files of which `npm test` runs a part of the random cases (`share` in support.properties.ts), and the wide run all. */
export const random = [
  "test/Framing.properties.test.ts",
  "test/conformance/{accounting,accounting-tls,soak}.test.ts",
  "test/internal/partialRegExp.test.ts"
]

// Files that look at no process as a whole, most of them in memory. They share a process: what a file of its own costs
// is the time to load vitest and Effect, and that is more than most of them take.
const together = [
  "test/!(*.live|Server*|Tls*|promises).test.ts",
  "test/{bench,internal,testing,tools}/*.test.ts",
  "test/cancellation/table.test.ts",
  "test/conformance/memory.test.ts",
  "test/examples/{interruption,recipes}.test.ts"
]

// A clone that is fresh knows no durations: were one of these among the last, the others would wait for it.
const longest = [
  "adapter/NodeDuplex",
  "conformance/soak",
  "cancellation/matrix.tls-epoll",
  "cancellation/matrix.tls-node",
  "cancellation/matrix.epoll",
  "cancellation/matrix.node-tcp",
  "conformance/tls",
  "conformance/accounting",
  "adapter/EffectSocket",
  "server/process",
  "cancellation/matrix.node",
  "conformance/node",
  "conformance/epoll",
  "adapter/cluster",
  "examples/"
]

class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.includes(`/test/${name}`))
      return at < 0 ? longest.length : at
    }
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b))
  }
}

const root = fileURLToPath(new URL("..", import.meta.url))

// Workers, and the processes that tests start, find what they load already compiled.
process.env["NODE_COMPILE_CACHE"] ??= fileURLToPath(new URL("../node_modules/.cache/compiled", import.meta.url))

export const shared = {
  root,
  // A process per file: leak checks look at /proc/self/fd and at the process's own handles and signals.
  pool: "forks",
  // Much of the time goes into waiting for the kernel and for other processes, so no core needs to be kept free.
  maxWorkers: "100%",
  testTimeout: 10_000,
  hookTimeout: 10_000,
  sequence: { sequencer: LongestFirst }
} as const

// What is named on the command line runs, wherever it belongs.
const isNamed = process.argv.some((argument) => /^test\/(?!vitest)/.test(argument))
const exclude = [...configDefaults.exclude, ...isNamed ? [] : wide]

export default defineConfig({
  test: {
    ...shared,
    projects: [
      { extends: true, test: { name: "alone", include: ["test/**/*.test.ts"], exclude: [...exclude, ...together] } },
      { extends: true, test: { name: "together", include: together, exclude, isolate: false } }
    ]
  }
})

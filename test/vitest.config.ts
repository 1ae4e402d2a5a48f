import { fileURLToPath } from "node:url"
import { configDefaults, defineConfig } from "vitest/config"

/**
 * The suites once more over further transports, and whatever starts many processes. They make up most of the time and
 * find little that the others do not, so `npm test` leaves them out; `npm run test:wide` runs them, and so does CI.
 */
export const wide = [
  "test/cancellation/matrix.{epoll,tls-epoll,tls-memory,tls-node}.test.ts",
  "test/conformance/{epoll-tcp6,node-tcp6,tls-epoll,tls-node-strict,tls-node-unix,tls-over-tls,tls12-node}.test.ts",
  "test/examples/many-processes.test.ts",
  "test/transport/EpollTransport.process.test.ts"
]

export const shared = {
  root: fileURLToPath(new URL("..", import.meta.url)),
  // A process per file: leak checks look at /proc/self/fd and at the process's own handles and signals.
  pool: "forks",
  // Most of the time goes into waiting for the kernel and for other processes, so no core needs to be kept free.
  maxWorkers: "100%",
  testTimeout: 10_000,
  hookTimeout: 10_000
} as const

// What is named on the command line runs, wherever it belongs.
const isNamed = process.argv.some((argument) => /^test\/(?!vitest)/.test(argument))

export default defineConfig({
  test: {
    ...shared,
    include: ["test/**/*.test.ts"],
    exclude: [...configDefaults.exclude, ...isNamed ? [] : wide]
  }
})

import { fileURLToPath } from "node:url"
import { configDefaults, defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/**
 * A file's name says how it runs (test/README.md):
 *
 * - `*.wide.test.ts`: left out of `npm test`; `npm run test:wide` and CI run it.
 * - `*.process.test.ts`: has a process of its own.
 * - `*.properties.test.ts`: `npm test` runs a part of its random cases, `npm run test:wide` all of them.
 * - any other `*.test.ts`: shares a process with others.
 */
export const wide = ["test/**/*.wide.test.ts"]
export const properties = ["test/**/*.properties.test.ts"]
const alone = [...wide, ...properties, "test/**/*.process.test.ts"]

// A clone that is fresh knows no durations: were one of these among the last, the others would wait for it.
const longest = [
  "adapter/NodeDuplex",
  "suites/soak/",
  "suites/matrix/tls-epoll",
  "suites/matrix/tls-node",
  "suites/matrix/epoll",
  "suites/matrix/node-tcp",
  "suites/conformance/tls",
  "Tls/closing",
  "suites/accounting/",
  "adapter/EffectSocket",
  "Server/restart",
  "suites/matrix/node",
  "suites/conformance/",
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
      { extends: true, test: { name: "alone", include: alone, exclude } },
      {
        extends: true,
        test: { name: "together", include: ["test/**/*.test.ts"], exclude: [...exclude, ...alone], isolate: false }
      }
    ]
  }
})

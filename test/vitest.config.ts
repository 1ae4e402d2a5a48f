import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { configDefaults, defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/**
 * A file's name says how it runs (test/README.md):
 *
 * - `*.wide.test.ts`: left out of `npm test`; `npm run test:wide` and CI run it.
 * - `*.process.test.ts`: has a process of its own, because it looks at or changes what belongs to the whole process.
 * - `*.properties.test.ts`: `npm test` runs a part of its random cases, `npm run test:wide` all of them.
 * - `*.red.test.ts`: states a promise that does not hold yet; only `RED=1` runs it.
 * - any other `*.test.ts`: shares a process with others, as the properties do.
 */
export const wide = ["test/**/*.wide.test.ts"]
export const properties = ["test/**/*.properties.test.ts"]
const alone = ["test/**/*.process.test.ts"]

// The first run in a clone knows no durations: if one of these came last, the other workers would idle.
const longest = [
  "suites/soak/",
  "suites/conformance/",
  "Tls/",
  "suites/accounting/",
  "Server/restart",
  "suites/matrix/",
  "adapter/",
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
  // Processes and not threads: leak checks look at /proc/self/fd and at the handles of the process.
  pool: "forks",
  // A test mostly waits for the kernel, a timer or another process: two workers for each core keep it busy.
  maxWorkers: 2 * availableParallelism(),
  // For what hangs. No test may depend on how fast the machine is.
  testTimeout: 60_000,
  hookTimeout: 60_000,
  sequence: { sequencer: LongestFirst }
} as const

// What is named on the command line runs, wherever it belongs.
const isNamed = process.argv.some((argument) => /^test\/(?!vitest)/.test(argument))
const red = process.env["RED"] === "1" ? [] : ["test/**/*.red.test.ts"]
const exclude = [...configDefaults.exclude, ...red, ...isNamed ? [] : wide]

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

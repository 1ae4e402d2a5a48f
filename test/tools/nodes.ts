/**
 * Runs what depends most on the version of Node on the other versions that are supported. The pinned one runs
 * everything (`npm test`); the others come by way of npm, which keeps them, and are not installed with the project.
 *
 *     node test/tools/nodes.ts [RESULT.json]
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"

const versions = ["22.23.3", "24.21.0"]

const files = [
  "test/suites/conformance/epoll",
  "test/suites/accounting",
  "test/suites/soak",
  "test/suites/matrix/epoll",
  "test/transport/linux",
  "test/transport/AutoTransport",
  "test/transport/EpollTransport",
  "test/transport/NodeTransport",
  "test/transport/options",
  "test/suites/conformance/tls-node",
  "test/Tls/",
  "test/Server/tls"
]

const [resultFile] = process.argv.slice(2)
const repository = resolve(import.meta.dirname, "../..")
const directory = mkdtempSync(join(tmpdir(), "effect-asio-nodes-"))
const result = { passed: 0, failed: 0 }

try {
  for (const version of versions) {
    const report = join(directory, `${version}.json`)
    const vitest = (...args: ReadonlyArray<string>) =>
      spawnSync("npm", [
        "exec",
        "--yes",
        `--package=node@${version}`,
        "--",
        "node",
        "node_modules/vitest/vitest.mjs",
        "run",
        "--config=test/vitest.config.ts",
        ...args
      ], { cwd: repository, stdio: "inherit", env: { ...process.env, RUNS: "0.3" } })
    console.log(`\n--- Node ${version}`)
    const { status } = vitest("--reporter=dot", "--reporter=json", `--outputFile.json=${report}`, ...files)
    const counts = read(report)
    result.passed += counts.passed
    // It stopped for a reason that no count shows, or it ran nothing.
    result.failed += counts.failed === 0 && (status !== 0 || counts.passed === 0) ? 1 : counts.failed
    console.log(`--- Node ${version}: ${counts.passed} passed, ${counts.failed} failed`)
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}

if (resultFile !== undefined) writeFileSync(resultFile, JSON.stringify(result))
process.exitCode = result.failed === 0 && result.passed > 0 ? 0 : 1

function read(report: string): { readonly passed: number; readonly failed: number } {
  try {
    const { numFailedTests, numPassedTests } = JSON.parse(readFileSync(report, "utf8"))
    return { passed: Number(numPassedTests), failed: Number(numFailedTests) }
  } catch {
    return { passed: 0, failed: 0 }
  }
}

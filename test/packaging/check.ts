/**
 * Installs a packed tarball into an empty project, as a user would, and checks what can be imported from there.
 *
 * Usage: node test/packaging/check.ts TARBALL RESULT.json
 */
import { deepStrictEqual } from "node:assert"
import { execFile } from "node:child_process"
import { existsSync, globSync } from "node:fs"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { promisify } from "node:util"

const [tarball, resultFile] = process.argv.slice(2)
if (tarball === undefined || resultFile === undefined) throw new Error("usage: check.ts TARBALL RESULT.json")

const run = promisify(execFile)
const repository = resolve(import.meta.dirname, "../..")
const manifest = JSON.parse(await readFile(join(repository, "package.json"), "utf8"))
const project = await mkdtemp(join(tmpdir(), "effect-asio-packaging-"))
const result = { passed: 0, failed: 0 }

const check = async (name: string, body: () => Promise<void>): Promise<void> => {
  try {
    await body()
    result.passed++
    console.log(`ok      ${name}`)
  } catch (error) {
    result.failed++
    const { stdout = "" } = error as { readonly stdout?: string }
    console.log(`NOT OK  ${name}\n${stdout}${error instanceof Error ? error.message : JSON.stringify(error)}`)
  }
}

const expect = (condition: boolean, message: string): void => {
  if (!condition) throw new Error(message)
}

// A process of its own for each import, so that no entry leans on what another one loaded.
const load = (specifier: string) =>
  run(process.execPath, [
    "--input-type=module",
    "--eval",
    `const module = await import(${JSON.stringify(specifier)}); console.log(Object.keys(module).length)`
  ], { cwd: project })

const expectRefused = async (specifier: string): Promise<void> => {
  const outcome = await load(specifier).then(() => "it can be imported", (error: Error) => error.message)
  expect(outcome.includes("ERR_PACKAGE_PATH_NOT_EXPORTED"), outcome)
}

try {
  await writeFile(join(project, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }))
  const peers = Object.keys(manifest.peerDependencies).map((name) => `${name}@${manifest.devDependencies[name]}`)
  await run("npm", ["install", "--no-audit", "--no-fund", resolve(tarball), ...peers], { cwd: project })

  const home = join(project, "node_modules", manifest.name)
  const inside = (pattern: string) =>
    globSync(pattern, { cwd: home }).map((file) => file.replaceAll("\\", "/")).toSorted()
  const modules = inside("dist/**/*.js").map((file) => file.slice("dist/".length, -".js".length))
  // The modules of testing/ are reached through `effect-asio/testing` alone.
  const isInternal = (module: string): boolean =>
    module.split("/").includes("internal") || (module.startsWith("testing/") && module !== "testing/index")
  const isIndex = (module: string): boolean => /(^|\/)index$/.test(module)
  const keyOf = (module: string): string => `./${module}`.replace(/\/index$/, "")
  const open = modules.filter((module) => !isInternal(module))
  const entries = open.map((module) => join(manifest.name, keyOf(module)).replaceAll("\\", "/"))

  await check("package.json exports every public module, by its name, and nothing else", async () => {
    const wanted = Object.fromEntries(open.map((module) => [keyOf(module), `./dist/${module}.js`]))
    deepStrictEqual(manifest.exports, { ...wanted, "./package.json": "./package.json" })
  })
  for (const entry of entries) {
    await check(`import ${entry}`, async () => {
      const { stdout } = await load(entry)
      expect(Number(stdout) > 0, "it exports nothing")
    })
  }
  await check(`${manifest.name}/package.json can be resolved`, async () => {
    await run(process.execPath, ["--eval", `require("${manifest.name}/package.json")`], { cwd: project })
  })
  const hidden = [...modules.filter(isInternal), ...modules.filter(isIndex)]
  for (const module of hidden) {
    await check(`refuse ${manifest.name}/${module}`, () => expectRefused(`${manifest.name}/${module}`))
  }
  await check("every source map points to a source in the package", async () => {
    for (const map of inside("dist/**/*.map")) {
      const { sources } = JSON.parse(await readFile(join(home, map), "utf8"))
      for (const source of sources) {
        expect(existsSync(join(home, dirname(map), source)), `${map}: ${source} is missing`)
      }
    }
  })
  await check("the tarball holds what it should and no more", async () => {
    const others = inside("*").filter((file) => !["package.json", "node_modules"].includes(file))
    const expected = ["CHANGELOG.md", "LICENSE", "README.md", "dist", "src"]
    expect(others.join() === expected.join(), `found ${others.join()} where ${expected.join()} was expected`)
  })
  await check("a strict consumer type-checks against every entry", async () => {
    const lines = entries.map((entry, index) => `import * as M${index} from "${entry}"\nvoid M${index}`)
    await writeFile(join(project, "consumer.ts"), lines.join("\n"))
    await writeFile(
      join(project, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          noEmit: true,
          strict: true,
          exactOptionalPropertyTypes: true,
          noUncheckedIndexedAccess: true,
          module: "nodenext",
          target: "es2024",
          lib: ["esnext", "dom"], // effect's own declarations name DOM types
          types: ["node"],
          typeRoots: [join(repository, "node_modules/@types")]
        },
        files: ["consumer.ts"]
      })
    )
    await run(process.execPath, [join(repository, "node_modules/typescript/bin/tsc"), "-p", project])
  })
} finally {
  await rm(project, { recursive: true, force: true })
}

await writeFile(resultFile, JSON.stringify(result))
process.exitCode = result.failed === 0 && result.passed > 0 ? 0 : 1

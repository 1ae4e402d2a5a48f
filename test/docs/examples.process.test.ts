/** The examples in the documentation compile, and those that are programs print what they say. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { stripTypeScriptTypes } from "node:module"
import { fileURLToPath } from "node:url"
import { examples, moduleOf, pathOf, publicModules, root, writeExamples } from "./examples.ts"

const config = writeExamples()
const programs = examples.filter(({ isProgram }) => isProgram)

/** Both outputs of Node with these arguments. */
const node = (...args: ReadonlyArray<string>): string => {
  const { stderr, stdout } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" })
  return stdout + stderr
}

describe("examples in the documentation", () => {
  it("every public module has one", () => {
    const shown = new Set(examples.map(({ file }) => file))
    assert.deepStrictEqual(publicModules.filter((file) => !file.endsWith("/index.ts") && !shown.has(file)), [])
  })

  it("they compile", { timeout: 60_000 }, () => {
    const compiler = fileURLToPath(new URL("../../node_modules/typescript/bin/tsc", import.meta.url))
    // Errors name the line of the documentation: node_modules/.cache/examples/src/Write.ts.50.ts(52,7)
    assert.strictEqual(node(compiler, "-p", config, "--pretty", "false"), "")
  })

  it("programs print what their comments say", { timeout: 60_000 }, () => {
    const files = programs.map((example) => {
      const path = pathOf(example, "mjs")
      // Node strips no types below node_modules.
      writeFileSync(path, stripTypeScriptTypes(moduleOf(example)))
      return path
    })
    const printed = node(
      "--disable-warning=ExperimentalWarning",
      fileURLToPath(new URL("play.ts", import.meta.url)),
      ...files
    )
    const expected = programs.map(({ code }, index) =>
      [files[index], ...Array.from(code.matchAll(/\/\/ => (.*)$/gm), ([, line]) => line!)].join("\n")
    )
    assert.strictEqual(printed, `${expected.join("\n")}\n`)
  })
})

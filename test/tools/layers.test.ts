import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { violation } from "./layers.ts"

const repository = resolve(import.meta.dirname, "../..")

describe("layers", () => {
  it("lets a module import its own layer and those below", () => {
    for (
      const [file, specifier] of [
        ["Cancellation.ts", "./SocketError.ts"],
        ["Buffers.ts", "./internal/base/format.ts"],
        ["internal/base/format.ts", "../../Buffers.ts"],
        ["internal/core/WriteHalf.ts", "../../Transport.ts"],
        ["Write.ts", "./StreamSocket.ts"],
        ["transport/NodeTransport.ts", "../Transport.ts"],
        ["transport/NodeTransport.ts", "node:net"],
        ["testing/index.ts", "../transport/NodeTransport.ts"],
        ["index.ts", "./Write.ts"],
        ["Write.ts", "effect/Effect"]
      ] as const
    ) assert.isUndefined(violation(file, specifier), `${file} -> ${specifier}`)
  })

  it("refuses what is above, beside the rules or not installed", () => {
    for (
      const [file, specifier] of [
        ["Buffers.ts", "./Write.ts"],
        ["Buffers.ts", "./internal/base/../../Write.ts"],
        ["Buffers.ts", "./internal/core/WriteHalf.ts"],
        ["internal/base/format.ts", "../../Transport.ts"],
        ["StreamSocket.ts", "./Write.ts"],
        ["Write.ts", "./index.ts"],
        ["StreamSocket.ts", "node:net"],
        ["transport/NodeTransport.ts", "../Read.ts"],
        ["transport/NodeTransport.ts", "../StreamSocket.ts"],
        ["adapter/EffectStream.ts", "../testing/index.ts"],
        ["testing/index.ts", "vitest"],
        ["Write.ts", "effect-asio/Read"],
        ["Write.ts", "../test/tools/layers.ts"],
        ["Unlisted.ts", "./Buffers.ts"]
      ] as const
    ) assert.isString(violation(file, specifier), `${file} -> ${specifier}`)
  })

  it("makes the lint fail, whatever the form of the import", () => {
    const project = mkdtempSync(join(tmpdir(), "effect-asio-layers-"))
    try {
      for (const file of [".oxlintrc.json", "tsconfig.json", "package.json", "test/tools/layers.ts"]) {
        cpSync(join(repository, file), join(project, file))
      }
      symlinkSync(join(repository, "node_modules"), join(project, "node_modules"), "junction")
      const sources = {
        "Write.ts": `export const write = 1\nexport type Write = typeof write\n`,
        "Buffers.ts": `import { write } from "./Write.ts"\nexport const x: number = write\n`,
        "SocketError.ts": `import { type Write, write } from "./Write.ts"\nexport const x: Write = write\n`,
        "Cancellation.ts": `export * from "./Write.ts"\n`,
        "CompletionCondition.ts": `export const x: Promise<unknown> = import("./Write.ts")\n`,
        "StreamSocket.ts": `import * as Net from "node:net"\nexport const x: unknown = Net\n`,
        "transport/NodeTransport.ts": `import { write } from "../Write.ts"\nexport const x: number = write\n`,
        "testing/a.ts": `import { b } from "./b.ts"\nexport const a: () => unknown = () => b\n`,
        "testing/b.ts": `import { a } from "./a.ts"\nexport const b: () => unknown = () => a\n`
      }
      for (const [file, text] of Object.entries(sources)) {
        mkdirSync(dirname(join(project, "src", file)), { recursive: true })
        writeFileSync(join(project, "src", file), text)
      }
      const oxlint = join(repository, "node_modules/oxlint/bin/oxlint")
      const { status, stdout } = spawnSync(process.execPath, [oxlint, "--format=unix"], {
        cwd: project,
        encoding: "utf8"
      })
      assert.strictEqual(status, 1, stdout)
      const reported = stdout.split("\n").filter((line) => /layers\(downward\)|import\(no-cycle\)/.test(line))
      const files = reported.map((line) => line.slice("src/".length, line.indexOf(":"))).toSorted()
      assert.deepStrictEqual(files, Object.keys(sources).filter((file) => file !== "Write.ts").toSorted(), stdout)
    } finally {
      rmSync(project, { recursive: true, force: true })
    }
  })
})

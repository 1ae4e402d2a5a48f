/** What is compiled for a run, where there is a compiler for it. It is gone when the process ends. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"

const directory = mkdtempSync(join(tmpdir(), "effect-asio-bench-"))
process.once("exit", () => rmSync(directory, { recursive: true }))
process.once("SIGINT", () => process.exit(130))
process.once("SIGTERM", () => process.exit(143))

const compile = (compilers: ReadonlyArray<string>, source: string, ...options: ReadonlyArray<string>) => {
  if (process.platform !== "linux") return undefined
  const program = join(directory, basename(source))
  const args = ["-O2", ...options, "-o", program, source]
  const isBuilt = compilers.some((compiler) =>
    spawnSync(compiler, args, { cwd: import.meta.dirname, stdio: "ignore" }).status === 0
  )
  return isBuilt ? program : undefined
}

/** The load client. */
export const load = compile(["cc", "gcc", "clang"], "load.c")

/** The servers over Asio. */
export const asio = compile(["c++", "g++", "clang++"], "servers/asio.cpp", "-std=c++20")

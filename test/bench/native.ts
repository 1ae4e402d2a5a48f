/** What is compiled for a run, where there is a compiler for it. It is gone when the process ends. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const directory = mkdtempSync(join(tmpdir(), "effect-asio-bench-"))
process.once("exit", () => rmSync(directory, { recursive: true }))
process.once("SIGINT", () => process.exit(130))
process.once("SIGTERM", () => process.exit(143))

const compile = (name: string, compilers: ReadonlyArray<string>, source: string, ...options: ReadonlyArray<string>) => {
  if (process.platform !== "linux") return undefined
  const program = join(directory, name)
  // Libraries go behind what needs them.
  const args = ["-O2", "-o", program, source, ...options]
  const isBuilt = compilers.some((compiler) =>
    spawnSync(compiler, args, { cwd: import.meta.dirname, stdio: "ignore" }).status === 0
  )
  return isBuilt ? program : undefined
}

const c = ["cc", "gcc", "clang"]

/** The load client. */
export const load = compile("load", c, "load.c")

/** The same over TLS, where OpenSSL is installed with its headers. */
export const loadTls = compile("load-tls", c, "load.c", "-DTLS", "-lssl", "-lcrypto")

/** The servers over Asio. */
export const asio = compile("asio", ["c++", "g++", "clang++"], "servers/asio.cpp", "-std=c++20")

/**
 * Whether this process can use epoll. A file of its own, so that asking loads nothing else.
 */
import { createRequire } from "node:module"
import { isMainThread } from "node:worker_threads"

/** The reason why this thread cannot use epoll; `undefined` if it can. */
export const unsupported = (): string | undefined => {
  if (process.platform !== "linux") return `the platform is ${process.platform}, and epoll is Linux's`
  if (process.arch !== "x64" && process.arch !== "arm64") return `the architecture is ${process.arch}`
  const other = ["bun", "deno"].find((name) => process.versions[name] !== undefined)
  if (other !== undefined) return `the runtime is ${other}, whose event loop cannot be reached`
  if (!isMainThread) return "this is a worker thread, whose event loop cannot be reached"
  const { permission } = process
  if (permission !== undefined && !permission.has("addon")) return "the permission model forbids native code"
  if (options().includes("--no-addons")) return "Node runs with --no-addons, which forbids native code"
  try {
    createRequire(import.meta.url).resolve("koffi")
    return undefined
  } catch {
    return "the package koffi is not installed"
  }
}

// ---- internal

/** The options that Node was started with: arguments and `NODE_OPTIONS`. */
const options = (): ReadonlyArray<string> => [
  ...process.execArgv,
  ...(process.env["NODE_OPTIONS"]?.trim().split(/\s+/) ?? [])
]

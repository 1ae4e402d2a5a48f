import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    root: fileURLToPath(new URL("..", import.meta.url)),
    include: ["test/**/*.test.ts"],
    // A process per file: leak checks look at /proc/self/fd and at the process's own handles and signals.
    pool: "forks",
    // Most of the time goes into waiting for the kernel and for other processes, so no core needs to be kept free.
    maxWorkers: "100%",
    testTimeout: 10_000,
    hookTimeout: 10_000
  }
})

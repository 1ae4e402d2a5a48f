/** The part of the tests that `vitest.config.ts` leaves out. */
import { defineConfig } from "vitest/config"
import { properties, shared, wide } from "./vitest.config.ts"

export default defineConfig({
  test: { ...shared, include: [...wide, ...properties], env: { RUNS: process.env["RUNS"] ?? "1" } }
})

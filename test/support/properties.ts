/** Properties are the same on every run: the seed is fixed, `SEED=<seed>` chooses another, and a failure names it. */
import type fc from "fast-check"

export const seed = Number(process.env["SEED"] ?? 20_260_101)

/** How much is run of what is random: `RUNS=<factor>`. `npm run test:wide` runs all of it. */
export const share = Number(process.env["RUNS"] ?? 0.1)

/** The part of `count` cases that is run, which is one at least. */
export const some = (count: number): number => Math.max(1, Math.ceil(count * share))

/** The parameters of `fc.assert`. fast-check itself prints the seed, and the path to the smallest case, of a failure. */
export const seeded = <T>(parameters: fc.Parameters<T>): fc.Parameters<T> => ({ ...parameters, seed })

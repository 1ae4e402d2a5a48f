/** Properties are the same on every run: the seed is fixed, `SEED=<seed>` chooses another, and a failure names it. */
import type fc from "fast-check"

export const seed = Number(process.env["SEED"] ?? 20_260_101)

/** The parameters of `fc.assert`. fast-check itself prints the seed, and the path to the smallest case, of a failure. */
export const seeded = <T>(parameters: fc.Parameters<T>): fc.Parameters<T> => ({ ...parameters, seed })

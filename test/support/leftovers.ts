import { Effect, Metric, type Scope } from "effect"
import { existsSync, readdirSync, readlinkSync } from "node:fs"
import { eventually } from "./waiting.ts"

const descriptors = "/proc/self/fd"

/** What each open descriptor of this process refers to; sockets and pipes have a name of their own each. */
const openDescriptors = (): ReadonlyArray<string> =>
  !existsSync(descriptors) ? [] : readdirSync(descriptors).flatMap((fd) => {
    try {
      return [readlinkSync(`${descriptors}/${fd}`)]
    } catch {
      // The descriptor of the listing itself.
      return []
    }
  })

/** The entries of `after` that `before` does not have. */
const excess = (before: ReadonlyArray<string>, after: ReadonlyArray<string>): ReadonlyArray<string> => {
  const known = [...before]
  return after.filter((name) => {
    const index = known.indexOf(name)
    if (index >= 0) known.splice(index, 1)
    return index < 0
  })
}

/**
 * Runs an effect in a scope of its own and fails unless everything that it opened is gone soon after: descriptors,
 * handles and timers of the event loop, and fibers.
 */
export const leavingNothing = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Scope.Scope>> =>
  Effect.gen(function*() {
    const descriptorsBefore = openDescriptors()
    const resourcesBefore = process.getActiveResourcesInfo()
    let fibers = 0
    const result = yield* Effect.provideService(Effect.scoped(effect), Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => {
        fibers++
      },
      recordFiberEnd: () => {
        fibers--
      }
    })
    const left = (): ReadonlyArray<string> => [
      ...excess(descriptorsBefore, openDescriptors()).map((name) => `descriptor ${name}`),
      ...excess(resourcesBefore, process.getActiveResourcesInfo()).map((name) => `handle ${name}`),
      ...(fibers === 0 ? [] : [`${fibers} fibers`])
    ]
    yield* eventually(() => `left behind: ${left().join(", ")}`, () => left().length === 0)
    return result
  })

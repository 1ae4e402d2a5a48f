/**
 * The stream contract as data: one check for every promise, to be run against
 * any transport by any test runner.
 *
 * @since 0.1.0
 */
import { cancelling } from "./checks/cancelling.ts"
import { ending } from "./checks/ending.ts"
import { failing } from "./checks/failing.ts"
import { reading } from "./checks/reading.ts"
import { requesting } from "./checks/requesting.ts"
import type { Check } from "./checks/Subject.ts"
import { writing } from "./checks/writing.ts"

export type {
  /**
   * Capabilities that not every platform has.
   *
   * @category models
   * @since 0.1.0
   */
  Capabilities,
  /**
   * One promise of the stream contract.
   *
   * @category models
   * @since 0.1.0
   */
  Check,
  /**
   * The transport under test.
   *
   * @category models
   * @since 0.1.0
   */
  Subject
} from "./checks/Subject.ts"

/**
 * Every check, in the order of the contract: writing, cancelling, requesting,
 * reading, ending, failing.
 *
 * **Details**
 *
 * Each check makes connections of its own and leaves nothing behind when its
 * scope closes. They may run in any order and at once. Checks that need a
 * capability are marked; skip those that the subject does not have. A check
 * waits a few milliseconds of real time here and there, for the kernel, and
 * gives up after 3 seconds, so a limit of 10 seconds for one check is enough.
 *
 * **Example** (Binding the checks to a test runner)
 *
 * ```ts
 * const subject: StreamChecks.Subject = {
 *   name: "in memory",
 *   pair: MemoryTransport.pair,
 *   advance: TestClock.adjust,
 *   can: { reset: true, halfClose: true, readAfterWriteFailure: true }
 * }
 *
 * describe(subject.name, () => {
 *   for (const { name, needs, run } of StreamChecks.checks) {
 *     it.effect.skipIf(needs !== undefined && !subject.can[needs])(name, () => run(subject))
 *   }
 * })
 * ```
 *
 * @category checks
 * @since 0.1.0
 */
export const checks: ReadonlyArray<Check> = [
  ...writing,
  ...cancelling,
  ...requesting,
  ...reading,
  ...ending,
  ...failing
]

/** Types that are the same, not only assignable: no `any`, no missing requirement, no widened error slips through. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- two open conditionals compare identity
export type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

/** `expectType<Expected>()(value)` compiles only when the type of `value` is exactly `Expected`. */
export const expectType =
  <Expected>() => <Actual>(_actual: Actual & (Same<Actual, Expected> extends true ? unknown : never)): void => {}

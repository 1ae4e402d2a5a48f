/** The checker itself: a difference has to be an error. Nothing here runs; `npm run check` is the test. */
import { expectType } from "./expect.ts"

export const checks = (text: string, anything: unknown, union: string | number) => {
  expectType<string>()(text)
  expectType<number | string>()(union)
  // @ts-expect-error string is assignable to unknown, but not the same
  expectType<unknown>()(text)
  // @ts-expect-error unknown is not string
  expectType<string>()(anything)
  // @ts-expect-error a part of a union is not the union
  expectType<string>()(union)
}

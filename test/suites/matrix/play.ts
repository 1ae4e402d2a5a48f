/** The tests of the matrix on one transport: one for each operation and request. */
import { describe, it } from "@effect/vitest"
import { verify } from "./cell.ts"
import { cells, operations, requestName, requests } from "./matrix.ts"
import type { Place } from "./stage.ts"

export const matrix = (place: Place): void => {
  const all = cells(place.kind)
  describe(`cancellation matrix: ${place.name}`, () => {
    for (const operation of operations) {
      describe(operation.name, () => {
        for (const request of requests) {
          const row = all.filter((cell) => cell.operation === operation && cell.request === request)
          it.effect(requestName(request), () => verify(place, row))
        }
      })
    }
  })
}

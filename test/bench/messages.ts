/**
 * Messages of 100 bytes, as bytes and as JSON: a ring of them that is sent again and again, so that making them costs
 * nothing, and a last one.
 */
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

const size = 100
const ringSize = 4096
/** So that every number has the same digits. */
const base = 10_000_000
const lastIndex = 89_999_999

/** Checks that messages come in order; true for the last one. */
export class Tally {
  count = 0

  private add(index: number): boolean {
    if (index === lastIndex) return true
    if (index !== this.count % ringSize) throw new Error(`message ${index} where ${this.count} is expected`)
    this.count++
    return false
  }

  readonly bytes = (message: Uint8Array): boolean => {
    if (message.byteLength !== size) throw new Error(`a message of ${message.byteLength} bytes`)
    return this.add(indexOf(message))
  }

  readonly json = (message: unknown): boolean => this.add(indexOfJson(message))
}

export const bytes = (index: number): Uint8Array => {
  const message = new Uint8Array(size)
  for (let i = 0; i < 4; i++) message[i] = index >>> (8 * i)
  return message
}

export const indexOf = (message: Uint8Array): number =>
  message[0]! + message[1]! * 256 + message[2]! * 65_536 + message[3]! * 16_777_216

export const json = (index: number): Schema.Json => ({ index: base + index, text: filling })

export const indexOfJson = (message: unknown): number => (message as { readonly index: number }).index - base

const filling = "x".repeat(size - JSON.stringify({ index: base, text: "" }).length)

/** How many messages go before the timed ones, so that both ends are compiled. */
export const warmUp = (count: number): number => Math.ceil(count / 4)

/** `count` messages and the last one. */
export const all = <A>(make: (index: number) => A, count: number): Iterable<A> => {
  const ring = Array.from({ length: ringSize }, (_, index) => make(index))
  const last = make(lastIndex)
  return {
    *[Symbol.iterator]() {
      for (let index = 0; index < count; index++) yield ring[index % ringSize]!
      yield last
    }
  }
}

/** The same as a stream of which `together` come at once. */
export const stream = <A>(make: (index: number) => A, count: number, together: number): Stream.Stream<A> =>
  Stream.fromIterable(all(make, count), { chunkSize: together })

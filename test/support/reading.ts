import * as Effect from "effect/Effect"
import type { ReadStream } from "../../src/StreamSocket.ts"
import { ending } from "./exits.ts"

/** Everything that can be read of a stream, and how it ended: `Done`, or the tag of the reason. */
export const readToEnd = (
  stream: ReadStream
): Effect.Effect<{ readonly bytes: Uint8Array; readonly end: string }> =>
  Effect.gen(function*() {
    const chunks: Array<Uint8Array> = []
    const target = new Uint8Array(65_536)
    const exit = yield* Effect.exit(
      Effect.forever(Effect.map(stream.readSome(target), (count) => void chunks.push(target.slice(0, count))))
    )
    return { bytes: Buffer.concat(chunks), end: ending(exit) }
  })

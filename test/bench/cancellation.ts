/**
 * What being cancellable costs: interrupting a `writeSome` that waits, compared with a bare fiber that waits for a
 * callback, and a `writeAll` that one attempt completes, compared with `writeSome`. No kernel, so that nothing else
 * is measured.
 */
import { Effect, Fiber } from "effect"
import { NetAddress } from "effect/net"
import { StreamSocket, Write } from "../../src/index.ts"
import { type Backing, WouldBlock } from "../../src/Transport.ts"
import type { Effort } from "./effort.ts"
import { alternate, type Group } from "./figures.ts"
import { titles } from "./titles.ts"

/** A backing that takes every byte at once, or none ever. */
const backing = (takesAll: boolean): Backing => ({
  localAddress: NetAddress.unixPathAddress("here"),
  remoteAddress: NetAddress.unixPathAddress("there"),
  attach: () => {},
  read: () => WouldBlock,
  write: (source, limit) => takesAll ? Math.min(source.remaining, limit) : WouldBlock,
  shutdownWrite: () => 0,
  close: () => {},
  abort: () => {},
  configure: () => {}
})

const repetitions = 3000
const bytes = new Uint8Array(64)

/** Nanoseconds for each interruption of a fiber that waits. */
const interrupting = (waiting: Effect.Effect<unknown, unknown>): Promise<number> =>
  Effect.runPromise(Effect.gen(function*() {
    let spent = 0n
    for (let i = 0; i < repetitions; i++) {
      const fiber = yield* Effect.forkChild(waiting, { startImmediately: true })
      const start = process.hrtime.bigint()
      yield* Fiber.interrupt(fiber)
      spent += process.hrtime.bigint() - start
    }
    return Number(spent) / repetitions
  }))

/** Nanoseconds for each run of an effect. */
const running = async (effect: Effect.Effect<unknown, unknown>): Promise<number> => {
  const start = process.hrtime.bigint()
  await Effect.runPromise(Effect.gen(function*() {
    for (let i = 0; i < repetitions; i++) yield* effect
  }))
  return Number(process.hrtime.bigint() - start) / repetitions
}

const compare = async <Name extends string>(
  title: string,
  ours: NoInfer<Name>,
  rounds: number,
  contestants: Readonly<Record<Name, () => Promise<number>>>
): Promise<Group> => {
  const names = Object.keys(contestants) as Array<Name>
  for (let i = 0; i < 10; i++) for (const name of names) await contestants[name]()
  return {
    title,
    figures: [{ name: "ns", digits: 0, compared: true }],
    ours: [ours],
    rounds: await alternate(names, rounds, async (name) => [await contestants[name]()])
  }
}

export const cancellation = async ({ roundsOfInterruption }: Effort): Promise<ReadonlyArray<Group>> => {
  const clogged = StreamSocket.make(backing(false))
  const open = StreamSocket.make(backing(true))
  return [
    await compare(titles.interrupt, "writeSome", roundsOfInterruption, {
      "writeSome": () => interrupting(clogged.writeSome(bytes)),
      "Effect.callback": () => interrupting(Effect.callback(() => {}))
    }),
    await compare(titles.writeAll, "writeAll", roundsOfInterruption, {
      "writeAll": () => running(Write.writeAll(open, bytes)),
      "writeSome": () => running(open.writeSome(bytes))
    })
  ]
}

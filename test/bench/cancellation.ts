/**
 * What being cancellable costs: interrupting a `writeSome` that waits, compared with a bare fiber that waits for a
 * callback, and a `writeAll` that one attempt completes, compared with `writeSome`. No kernel, so that nothing else
 * is measured.
 */
import { Effect, Fiber } from "effect"
import { NetAddress } from "effect/net"
import { StreamSocket, Write } from "../../src/index.ts"
import { type Backing, WouldBlock } from "../../src/Transport.ts"
import type { Rounds } from "./table.ts"

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

const alternate = async (
  rounds: number,
  ours: () => Promise<number>,
  theirs: () => Promise<number>
): Promise<readonly [Rounds, Rounds]> => {
  const figures: [Array<number>, Array<number>] = [[], []]
  for (let round = -10; round < rounds; round++) {
    const values = [await ours(), await theirs()] as const
    if (round >= 0) values.forEach((value, index) => figures[index]!.push(value))
  }
  return figures
}

/** Nanoseconds of ours and of what it is compared with, round by round. */
export const cancellation = async (rounds: number) => {
  const clogged = StreamSocket.make(backing(false))
  const open = StreamSocket.make(backing(true))
  return {
    interrupt: await alternate(
      rounds,
      () => interrupting(clogged.writeSome(bytes)),
      () => interrupting(Effect.callback(() => {}))
    ),
    writeAll: await alternate(
      rounds,
      () => running(Write.writeAll(open, bytes)),
      () => running(open.writeSome(bytes))
    )
  }
}

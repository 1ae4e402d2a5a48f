// Part 1 of the tour: a loop over `writeSome`, against a peer that reads slowly.
import * as Effect from "effect/Effect"
import { StreamSocket } from "../../src/index.ts"
import * as Peer from "./peer.ts"
import * as Screen from "./screen.ts"

const bytesPerSecond = 13 * 1_048_576

/** Sends the message through a slow reader, and answers what did not add up. */
export const slowReader = Effect.fnUntraced(function*(message: Uint8Array) {
  const peer = yield* Peer.listen
  const socket = yield* StreamSocket.connect(peer.address)
  // Should the tour be stopped here, the peer reads on, so that closing the socket need not wait for it.
  yield* Effect.addFinalizer(() => Effect.sync(() => peer.allow(Infinity)))
  const progress = new Progress(message.byteLength, peer)
  yield* Effect.forkScoped(readSlowly(peer))
  yield* Effect.forkScoped(every("80 millis", () => progress.show()))

  // No queue grows here and no code listens for "drain": `writeSome` takes what there is room for, or waits for room.
  let taken = 0
  while (taken < message.byteLength) {
    const started = performance.now()
    const count = yield* socket.writeSome(message.subarray(taken))
    taken += count
    progress.add(count, performance.now() - started)
  }
  yield* socket.shutdownWrite

  yield* Peer.until(() => peer.ended)
  yield* Effect.sync(() => progress.finish())
  return peer.ended && peer.received === taken && peer.sha256 === Peer.sha256(message)
    ? []
    : [`${Screen.count(taken)} bytes were taken, but the peer has ${Screen.count(peer.received)}, or other ones`]
}, Effect.scoped)

const every = (interval: "10 millis" | "80 millis", action: () => void): Effect.Effect<never> =>
  Effect.forever(Effect.andThen(Effect.sleep(interval), Effect.sync(action)))

// The clock sets the pace and not the number of naps, so that a busy machine does not make the tour longer.
const readSlowly = (peer: Peer.Peer): Effect.Effect<never> => {
  const started = performance.now()
  return every("10 millis", () => peer.allow((performance.now() - started) / 1000 * bytesPerSecond))
}

/** What the loop has done so far, and how to show it. */
class Progress {
  private readonly started = performance.now()
  private readonly total: number
  private readonly peer: Peer.Peer
  private readonly redraw = Screen.redrawing()
  private taken = 0
  private calls = 0
  private last = 0
  private min = Infinity
  private max = 0
  private longest = 0
  private quarters = 0
  // Progress of the last second, for the current rate.
  private marks: Array<{ readonly at: number; readonly taken: number }> = []

  constructor(total: number, peer: Peer.Peer) {
    this.total = total
    this.peer = peer
  }

  add(count: number, millis: number): void {
    this.taken += count
    this.calls++
    this.last = count
    this.min = Math.min(this.min, count)
    this.max = Math.max(this.max, count)
    this.longest = Math.max(this.longest, millis)
  }

  show(): void {
    if (Screen.isLive) {
      this.redraw(this.lines(this.recentRate()))
    } else if (this.taken >= this.total / 4 * (this.quarters + 1)) {
      this.quarters = Math.floor(4 * this.taken / this.total)
      Screen.write(this.amounts(this.recentRate()))
    }
  }

  finish(): void {
    const rate = this.taken / (performance.now() - this.started) * 1000
    if (Screen.isLive) this.redraw(this.lines(rate))
    else Screen.write(this.amounts(rate), this.sizes())
  }

  // Cut to the width of the terminal: a line that wraps would not be redrawn in place.
  private lines(rate: number): ReadonlyArray<string> {
    const amounts = this.amounts(rate).slice(0, Screen.width)
    const columns = Math.max(0, Screen.width - amounts.length - 2)
    const bar = Screen.bar(columns, this.peer.received / this.total, this.taken / this.total)
    return [columns === 0 ? amounts : `  ${bar}${amounts}`, this.sizes().slice(0, Screen.width)]
  }

  private amounts(rate: number): string {
    const taken = Screen.mebibytes(this.taken).padStart(8)
    const read = Screen.mebibytes(this.peer.received).padStart(8)
    return `  ${taken} taken  ${read} read by the peer  ${Screen.mebibytes(rate).padStart(8)}/s`
  }

  private sizes(): string {
    const mean = Screen.count(Math.round(this.taken / this.calls))
    return `  ${Screen.count(this.calls)} writeSome: last ${Screen.count(this.last)}, min ${Screen.count(this.min)}, ` +
      `mean ${mean}, max ${Screen.count(this.max)} bytes, longest wait ${this.longest.toFixed(0)} ms`
  }

  private recentRate(): number {
    const now = performance.now()
    this.marks.push({ at: now, taken: this.taken })
    while (this.marks.length > 2 && now - this.marks[0]!.at > 1000) this.marks.shift()
    const { at, taken } = this.marks.length > 1 ? this.marks[0]! : { at: this.started, taken: 0 }
    return (this.taken - taken) / (now - at) * 1000
  }
}

/** What several test files need: starting fibers, taking exits apart, and a backing on strings. */
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import { isSocketError, type SocketError } from "../../src/SocketError.ts"
import { type Backing, type Events, type ResolvedOptions, WouldBlock } from "../../src/Transport.ts"

/** Forks a fiber that has run up to its first wait when the fork returns. */
export const start = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Fiber.Fiber<A, E>, never, R> =>
  Effect.forkChild(effect, { startImmediately: true })

/** The `SocketError` that an exit failed with. */
export const failure = <A, E>(exit: Exit.Exit<A, E>): SocketError => {
  const error = Exit.isFailure(exit) ? Cause.findError(exit.cause) : undefined
  if (error === undefined || Result.isFailure(error) || !isSocketError(error.success)) {
    return assert.fail(`expected a SocketError, got ${show(exit)}`)
  }
  return error.success
}

/** The defect that an exit died with; it has to be an `Error`. */
export const defect = <A, E>(exit: Exit.Exit<A, E>): Error => {
  const found = Exit.isFailure(exit) ? Cause.findDefect(exit.cause) : undefined
  if (found === undefined || Result.isFailure(found) || !(found.success instanceof Error)) {
    return assert.fail(`expected a defect, got ${show(exit)}`)
  }
  return found.success
}

/** One word for how something ended: `Success`, a reason's tag, `Done`, `Die` or `Interrupt`. */
export const ending = <A, E>(exit: Exit.Exit<A, E>): string => {
  if (Exit.isSuccess(exit)) return "Success"
  if (Cause.hasDies(exit.cause)) return "Die"
  const error = Cause.findError(exit.cause)
  if (Result.isFailure(error)) return "Interrupt"
  if (Cause.isDone(error.success)) return "Done"
  return isSocketError(error.success) ? error.success.reason._tag : String(error.success)
}

/** The `Transfer` annotation of an exit; the exit has to be an interruption. */
export const transferOf = <A, E>(exit: Exit.Exit<A, E>): Cancellation.Transfer["Service"] => {
  if (Exit.isSuccess(exit) || !Cause.hasInterrupts(exit.cause)) return assert.fail(`not interrupted: ${show(exit)}`)
  const transfer = Cancellation.transfer(exit.cause)
  if (Option.isNone(transfer)) return assert.fail(`no Transfer annotation: ${show(exit)}`)
  return transfer.value
}

/** The bytes 0, 1, 2, ... modulo 251, so that a shift shows. */
export const pattern = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = i % 251
  return bytes
}

/** Compares bytes without printing a megabyte when they differ. */
export const assertBytes = (actual: Uint8Array, expected: Uint8Array | string): void => {
  const wanted = Buffer.from(expected)
  if (wanted.equals(actual)) return
  let at = 0
  while (actual[at] === wanted[at]) at++
  const near = (bytes: Uint8Array) => JSON.stringify(Buffer.from(bytes.subarray(at, at + 40)).toString("latin1"))
  assert.fail(
    `${actual.byteLength} bytes, expected ${wanted.byteLength}; different at ${at}: ${near(actual)}, expected ${
      near(wanted)
    }`
  )
}

const show = <A, E>(exit: Exit.Exit<A, E>): string =>
  Exit.isSuccess(exit) ? `a success with ${String(exit.value)}` : Cause.pretty(exit.cause)

/** A backing that does what the test says, and nothing by itself. */
export class FakeBacking implements Backing {
  readonly localAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:1")
  readonly remoteAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:2")
  readonly calls: Array<string> = []
  events: Events | undefined = undefined
  readAnswer: (target: Uint8Array) => number | SocketError = () => WouldBlock
  writeAnswer: (source: Buffers.Cursor, limit: number) => number | SocketError = () => WouldBlock
  shutdownAnswer: () => number | SocketError = () => 0
  configured: Partial<ResolvedOptions> = {}
  /** Whether `close` and `abort` release at once, as if asked for. */
  releases: ReadonlyArray<"close" | "abort"> = ["close", "abort"]

  attach(events: Events): void {
    this.events = events
  }
  read(target: Uint8Array): number | SocketError {
    return this.readAnswer(target)
  }
  write(source: Buffers.Cursor, limit: number): number | SocketError {
    return this.writeAnswer(source, limit)
  }
  shutdownWrite(): number | SocketError {
    this.calls.push("shutdownWrite")
    return this.shutdownAnswer()
  }
  close(): void {
    this.calls.push("close")
    if (this.releases.includes("close")) this.events?.closed()
  }
  abort(): void {
    this.calls.push("abort")
    if (this.releases.includes("abort")) this.events?.closed()
  }
  configure(options: Partial<ResolvedOptions>): void {
    this.configured = { ...this.configured, ...options }
  }
}

/** A backing and a listener that do what the test says, and nothing by themselves. */
import * as NetAddress from "effect/net/NetAddress"
import type * as Buffers from "../../src/Buffers.ts"
import type { SocketError } from "../../src/SocketError.ts"
import {
  type Backing,
  type Events,
  type ListenerBacking,
  type ResolvedOptions,
  WouldBlock
} from "../../src/Transport.ts"

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

/** A listener whose attempts answer what the test put there. */
export class FakeListener implements ListenerBacking {
  readonly address = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:7000")
  private readonly answers: Array<Backing | SocketError> = []
  private acceptable: () => void = () => {}
  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
  }
  accept(): Backing | typeof WouldBlock | SocketError {
    return this.answers.shift() ?? WouldBlock
  }
  close(): void {}
  /** For the next attempts; no event tells of them. */
  hold(...answers: ReadonlyArray<Backing | SocketError>): void {
    this.answers.push(...answers)
  }
  offer(...answers: ReadonlyArray<Backing | SocketError>): void {
    this.hold(...answers)
    this.acceptable()
  }
}

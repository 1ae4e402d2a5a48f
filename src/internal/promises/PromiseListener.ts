import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Acceptor from "../../Acceptor.ts"
import type { Abortable, Listener, Socket } from "../../promises.ts"
import type { SocketError } from "../../SocketError.ts"
import { PullIterator } from "./PullIterator.ts"
import { run } from "./run.ts"

export class PromiseListener<S extends Socket> implements Listener<S> {
  readonly acceptor: Acceptor.Acceptor
  private readonly next: Effect.Effect<S, SocketError>
  private readonly end: Effect.Effect<void>
  private closing: Promise<void> | undefined = undefined

  constructor(acceptor: Acceptor.Acceptor, next: Effect.Effect<S, SocketError>, end: Effect.Effect<void>) {
    this.acceptor = acceptor
    this.next = next
    this.end = end
  }

  get address(): NetAddress.SocketAddress {
    return this.acceptor.address
  }

  accept(options?: Abortable): Promise<S> {
    return run(this.next, options, () => ({ operation: "accept", address: this.address, total: 0 }))
  }

  close(): Promise<void> {
    return this.closing ??= run(this.end)
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<S, undefined> {
    return new PullIterator(Effect.catchReason(this.next, "SocketError", "Closed", () => Cause.done()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

// The other end of every connection in the tour: plain `node:net`, so that its counts owe nothing to this library.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import * as Net from "node:net"

/** A server for one connection. It reads as much as it is allowed to, counts it and hashes it. */
export class Peer {
  /** Bytes read so far. */
  received = 0
  /** Whether the end of the stream has come: everything was read, and nothing can follow. */
  ended = false
  private allowed = 0
  private socket: Net.Socket | undefined = undefined
  private readonly hash = createHash("sha256")
  // Connections start paused: not even the first byte leaves the kernel before it may.
  private readonly server = Net.createServer({ pauseOnConnect: true }, (socket) => this.onConnection(socket))

  /** Where it listens. */
  get address(): { readonly host: string; readonly port: number } {
    const address = this.server.address()
    if (address === null || typeof address === "string") throw new Error("the peer does not listen")
    return { host: address.address, port: address.port }
  }

  /** SHA-256 of all that was read so far. */
  get sha256(): string {
    return this.hash.copy().digest("hex")
  }

  /** Lets it read until it has this many bytes in all, to the next whole chunk. The rest waits in the kernel. */
  allow(bytes: number): void {
    this.allowed = bytes
    if (this.received < bytes) this.socket?.resume()
  }

  listen(onListening: () => void): void {
    this.server.listen(0, "127.0.0.1", onListening)
  }

  close(): void {
    this.server.close()
    this.socket?.destroy()
  }

  private onConnection(socket: Net.Socket): void {
    this.socket = socket
    socket.on("data", (chunk) => {
      this.received += chunk.length
      this.hash.update(chunk)
      if (this.received >= this.allowed) socket.pause()
    })
    socket.on("end", () => {
      this.ended = true
    })
    // A reset leaves `ended` unset, and the check that waits for it says so.
    socket.on("error", () => {})
    this.allow(this.allowed)
  }
}

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** Starts a peer that reads nothing yet, and stops it with the scope. */
export const listen: Effect.Effect<Peer, never, Scope.Scope> = Effect.acquireRelease(
  Effect.callback((resume) => {
    const peer = new Peer()
    peer.listen(() => resume(Effect.succeed(peer)))
  }),
  (peer) => Effect.sync(() => peer.close())
)

/** Waits for a condition, but no longer than five seconds: the caller looks again and reports what is missing. */
export const until = Effect.fnUntraced(function*(condition: () => boolean) {
  const deadline = performance.now() + 5000
  while (!condition() && performance.now() < deadline) yield* Effect.sleep("2 millis")
})

/** Waits until a counter has been the same for ten looks in a row: every buffer on the way is full. */
export const standsStill = Effect.fnUntraced(function*(counter: () => number) {
  let last = counter()
  for (let looks = 0; looks < 10; looks++) {
    yield* Effect.sleep("10 millis")
    const now = counter()
    if (now !== last) looks = 0
    last = now
  }
})

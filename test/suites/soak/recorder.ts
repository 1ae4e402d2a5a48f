import type { Buffers, SocketError } from "../../../src/index.ts"
import type { Backing, Events, ResolvedOptions } from "../../../src/Transport.ts"

/** What happens between the core and a transport, told as it happens. */
export interface Observer {
  readonly onRead: (target: Uint8Array, answer: number | SocketError.SocketError) => void
  /** Before the core has advanced the cursor. */
  readonly onWrite: (source: Buffers.Cursor, limit: number, answer: number | SocketError.SocketError) => void
  readonly onShutdown: (answer: number | SocketError.SocketError) => void
  readonly onRelease: (how: "close" | "abort") => void
  readonly onEvent: (event: "readable" | "writable" | "closed" | SocketError.SocketError) => void
  /** The core has dealt with the last event. */
  readonly afterEvent: () => void
}

/** Passes everything through, and tells an observer. */
export class Recorder implements Backing {
  private readonly backing: Backing
  private readonly observer: Observer

  constructor(backing: Backing, observer: Observer) {
    this.backing = backing
    this.observer = observer
  }

  get localAddress() {
    return this.backing.localAddress
  }

  get remoteAddress() {
    return this.backing.remoteAddress
  }

  attach(events: Events): void {
    const { observer } = this
    const told = (event: "readable" | "writable" | "closed" | SocketError.SocketError, tell: () => void) => {
      observer.onEvent(event)
      tell()
      observer.afterEvent()
    }
    this.backing.attach({
      readable: () => told("readable", () => events.readable()),
      writable: () => told("writable", () => events.writable()),
      closed: () => told("closed", () => events.closed()),
      failed: (error) => told(error, () => events.failed(error))
    })
  }

  read(target: Uint8Array): number | SocketError.SocketError {
    const answer = this.backing.read(target)
    this.observer.onRead(target, answer)
    return answer
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError.SocketError {
    const answer = this.backing.write(source, limit)
    this.observer.onWrite(source, limit, answer)
    return answer
  }

  shutdownWrite(): number | SocketError.SocketError {
    const answer = this.backing.shutdownWrite()
    this.observer.onShutdown(answer)
    return answer
  }

  close(): void {
    this.observer.onRelease("close")
    this.backing.close()
  }

  abort(): void {
    this.observer.onRelease("abort")
    this.backing.abort()
  }

  configure(options: Pick<Partial<ResolvedOptions>, "noDelay" | "keepAlive">): void {
    this.backing.configure(options)
  }
}

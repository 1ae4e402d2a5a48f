import { unixPathAddress } from "effect/net/NetAddress"
import type { MessagePort } from "node:worker_threads"
import { Reason, SocketError } from "../../src/SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../src/Transport.ts"

/** What one end tells the other: bytes, how many of them it has read, and how it has ended its direction. */
type Message = Uint8Array | number | "end" | "reset"

/** The most bytes that may be taken and not read yet. */
const window = 65_536

/** One end of a stream between two worker threads; the other end of the `MessageChannel` is the other end. */
export const makeBacking = (port: MessagePort): Backing => {
  let events: Events | undefined
  let unread = 0
  const received: Array<Uint8Array> = []
  let readEnd: 0 | SocketError | undefined
  let writeEnd: SocketError | undefined

  const fail = (): void => {
    writeEnd ??= new SocketError({ reason: Reason.ConnectionReset(), operation: "socket", transferred: 0 })
    readEnd ??= writeEnd
    events?.readable()
    events?.failed(writeEnd)
  }

  port.on("message", (message: Message) => {
    if (message === "reset") return fail()
    if (typeof message === "number") {
      unread -= message
      return events?.writable()
    }
    if (message === "end") readEnd = 0
    else received.push(message)
    events?.readable()
  })
  // The other end is closed, or its thread has exited. Everything that it sent has arrived before this event.
  port.on("close", fail)

  const release = (last: Message): void => {
    port.off("close", fail)
    port.postMessage(last)
    port.close()
    queueMicrotask(() => events?.closed())
  }

  return {
    localAddress: unixPathAddress("worker"),
    remoteAddress: unixPathAddress("worker"),
    attach: (attached) => void (events = attached),
    read: (target) => {
      const [first] = received
      if (first === undefined) return readEnd ?? WouldBlock
      const count = Math.min(first.byteLength, target.byteLength)
      target.set(first.subarray(0, count))
      if (count === first.byteLength) received.shift()
      else received[0] = first.subarray(count)
      port.postMessage(count)
      return count
    },
    write: (source, limit) => {
      if (writeEnd !== undefined) return writeEnd
      const count = Math.min(source.remaining, limit, window - unread)
      if (count === 0) return WouldBlock
      const bytes = new Uint8Array(count)
      source.copyTo(bytes)
      unread += count
      port.postMessage(bytes, [bytes.buffer])
      return count
    },
    shutdownWrite: () => {
      if (writeEnd === undefined) port.postMessage("end")
      return writeEnd ?? 0
    },
    close: () => release("end"),
    abort: () => release("reset"),
    configure: () => undefined
  }
}

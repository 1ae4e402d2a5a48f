/**
 * The load client, over raw `node:net`. Prints `ready` when the warm-up is over
 * and the result as JSON at the end; fails when a byte is not what it must be.
 *
 * Usage: node test/bench/load.ts echo|bulk|idle PORT CONNECTIONS [SECONDS] [WARM-UP SECONDS]
 */
import { Buffer } from "node:buffer"
import * as Net from "node:net"
import { chunk } from "./chunk.ts"

export interface Result {
  /** Messages (echo) or bytes (bulk) after the warm-up. */
  readonly count: number
  readonly seconds: number
}

const [mode, port, connections = 1, seconds = 3, warmUp = 0.5] = process.argv.slice(2)
  .map((argument, index) => index === 0 ? argument : Number(argument)) as [string, number, number?, number?, number?]

let count = 0
let over = false

const fail = (message: string): never => {
  console.error(`load ${mode}: ${message}`)
  process.exit(1)
}

// One buffer for all, and no stream machinery on the way in: the client should cost less than any server.
const received = Buffer.allocUnsafeSlow(chunk.byteLength)

const open = (onBytes: (length: number) => void): Promise<Net.Socket> =>
  new Promise((resume) => {
    const socket = Net.connect({
      host: "127.0.0.1",
      port,
      noDelay: true,
      onread: {
        buffer: received,
        callback: (length) => {
          onBytes(length)
          return true
        }
      }
    })
    socket.on("error", (error) => over ? undefined : fail(error.message))
    socket.on("close", () => over ? undefined : fail("the server closed a connection"))
    socket.once("connect", () => resume(socket))
  })

/** Opens connections a few at a time, so that no backlog overflows. */
const openAll = async <A>(make: (index: number) => Promise<A>): Promise<Array<A>> => {
  const all: Array<A> = []
  while (all.length < connections) {
    const few = Math.min(50, connections - all.length)
    all.push(...await Promise.all(Array.from({ length: few }, (_, index) => make(all.length + index))))
  }
  return all
}

/** One connection that sends a message, each unlike any other, whenever the one before has come back. */
const makePing = async (index: number, onEcho: (ping: () => void) => void): Promise<() => void> => {
  const message = Buffer.alloc(64, index)
  let sequence = 0
  let offset = 0
  const ping = (): void => {
    message.writeUInt32LE(index, 0)
    message.writeUInt32LE(++sequence, 4)
    offset = 0
    socket.write(message)
  }
  const socket = await open((length) => {
    if (offset + length > message.length || message.compare(received, 0, length, offset, offset + length) !== 0) {
      fail("a message came back changed")
    }
    offset += length
    if (offset === message.length) onEcho(ping)
  })
  return ping
}

const echo = async (): Promise<void> => {
  const pings = await openAll((index) =>
    makePing(index, (ping) => {
      count++
      ping()
    })
  )
  for (const ping of pings) ping()
  measure()
}

const bulk = async (): Promise<void> => {
  await openAll(() => {
    let place = 0
    return open((length) => {
      // The first bytes of every piece tell whether it is in its place; comparing all of them would slow the client.
      const checked = Math.min(length, 64, chunk.byteLength - place)
      if (received.compare(chunk, place, place + checked, 0, checked) !== 0) fail("bytes are lost or out of place")
      place = (place + length) % chunk.byteLength
      count += length
    })
  })
  measure()
}

const measure = (): void => {
  setTimeout(() => {
    count = 0
    const start = performance.now()
    console.log("ready")
    const finish = (): void => {
      // The runner decides how long nothing at all may come back.
      if (count === 0) {
        setTimeout(finish, 100)
        return
      }
      const result: Result = { count, seconds: (performance.now() - start) / 1000 }
      over = true
      console.log(JSON.stringify(result))
      process.exit()
    }
    setTimeout(finish, seconds * 1000)
  }, warmUp * 1000)
}

/** Opens connections and says `ready`; for a line on standard input, sends one message on each and says so again. */
const idle = async (): Promise<void> => {
  let echoes = 0
  const pings = await openAll((index) =>
    makePing(index, () => {
      if (++echoes === connections) console.log("ready")
    })
  )
  console.log("ready")
  process.stdin.once("data", () => {
    for (const ping of pings) ping()
  })
  process.stdin.once("end", () => process.exit())
}

const run = { echo, bulk, idle }[mode]
if (run === undefined) fail("the first argument is echo, bulk or idle")
else await run()

/**
 * What load.c is, over raw `node:net` or, with `tls-` before the mode, `node:tls`, for where no C compiler or no OpenSSL
 * is installed: slower, and without accepting.
 *
 * Usage: node test/bench/load.ts [tls-]echo|bulk|fill|idle PORT CONNECTIONS [SECONDS] [WARM-UP SECONDS] [MESSAGE BYTES]
 */
import { Buffer } from "node:buffer"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { chunk } from "./chunk.ts"

export interface Result {
  /** Messages (echo), connections (accept) or bytes after the warm-up. */
  readonly count: number
  readonly seconds: number
  /** Shares of `seconds`, from the client in C: in which it only waited, and had its core. It asks for all of it. */
  readonly idle?: number
  readonly busy?: number
  /** CPU time of the server, as another share. */
  readonly serverBusy?: number
}

const [name = "", ...numbers] = process.argv.slice(2)
const overTls = name.startsWith("tls-")
const mode = overTls ? name.slice(4) : name
const [port = 0, connections = 1, seconds = 3, warmUp = 0.5, size = 64] = numbers.map(Number)

let count = 0
let over = false

const fail = (message: string): never => {
  console.error(`load ${mode}: ${message}`)
  process.exit(1)
}

// One buffer for all, and no stream machinery on the way in: the client should cost less than any server.
const received = Buffer.allocUnsafeSlow(chunk.byteLength)
const chunkTwice = Buffer.concat([chunk, chunk])

const open = (onBytes: (length: number) => void): Promise<Net.Socket> =>
  new Promise((resume) => {
    const options = {
      host: "127.0.0.1",
      port,
      noDelay: true,
      onread: {
        buffer: received,
        callback: (length: number) => {
          onBytes(length)
          return true
        }
      }
    }
    const socket = overTls ? Tls.connect({ ...options, rejectUnauthorized: false }) : Net.connect(options)
    socket.on("error", (error) => over ? undefined : fail(error.message))
    socket.on("close", () => over ? undefined : fail("the server closed a connection"))
    socket.once(overTls ? "secureConnect" : "connect", () => resume(socket))
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

/** One connection that sends a message, unlike the one before and those of others, when the one before has come back. */
const makePing = async (index: number, onEcho: (ping: () => void) => void): Promise<() => void> => {
  let sequence = 0
  let place = 0
  let end = 0
  const ping = (): void => {
    place = (index * 7919 + ++sequence * 31) % chunk.byteLength
    end = place + size
    socket.write(chunkTwice.subarray(place, end))
  }
  const socket = await open((length) => {
    if (length > end - place) fail("more came back than was sent")
    if (chunkTwice.compare(received, 0, length, place, place + length) !== 0) fail("a message came back changed")
    place += length
    if (place === end) onEcho(ping)
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
      if (chunkTwice.compare(received, 0, length, place, place + length) !== 0) fail("bytes are lost or out of place")
      place = (place + length) % chunk.byteLength
      count += length
    })
  })
  measure()
}

const fill = async (): Promise<void> => {
  const sockets = await openAll(() => open(() => fail("a server answered that only receives")))
  for (const socket of sockets) {
    const write = (): void => {
      count += chunk.byteLength
      socket.write(chunk, write)
    }
    // One on its way, and one behind it.
    write()
    write()
  }
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
      over = true
      console.log(JSON.stringify({ count, seconds: (performance.now() - start) / 1000 } satisfies Result))
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

const run = { echo, bulk, fill, idle }[mode]
if (run === undefined) fail("the first argument is echo, bulk, fill or idle")
else if (!(size >= 1 && size <= chunk.byteLength)) fail(`a message has 1 to ${chunk.byteLength} bytes`)
else await run()

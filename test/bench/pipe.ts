/**
 * The two ends of a relay, over raw `node:net`: a sink that answers each
 * connection, at the end of its input, with the number of bytes that came, and
 * a source that sends so many, half-closes, waits for that answer and prints
 * the result as JSON. Fails when a byte is not what it must be.
 *
 * Usage: node test/bench/pipe.ts sink | source PORT BYTES
 */
import * as Net from "node:net"
import { chunk } from "./chunk.ts"
import type { Result } from "./load.ts"

const [mode, ...numbers] = process.argv.slice(2)
const [port = 0, size = 0] = numbers.map(Number)

const fail = (message: string): never => {
  console.error(`pipe ${mode}: ${message}`)
  process.exit(1)
}

const sink = (): void => {
  const server = Net.createServer({ allowHalfOpen: true }, (socket) => {
    let count = 0
    socket.on("data", (data) => {
      // The first bytes of every piece tell whether it is in its place; comparing all of them would slow the sink.
      const place = count % chunk.byteLength
      const checked = Math.min(data.byteLength, 64, chunk.byteLength - place)
      if (data.compare(chunk, place, place + checked, 0, checked) !== 0) fail("bytes are lost or out of place")
      count += data.byteLength
    })
    socket.on("end", () => socket.end(String(count)))
    socket.on("error", (error) => fail(error.message))
  })
  server.listen(0, "127.0.0.1", () => {
    console.log(`listening on tcp://127.0.0.1:${(server.address() as Net.AddressInfo).port}`)
  })
  // The runner has gone, or needs it no more.
  process.stdin.on("end", () => process.exit()).resume()
}

const source = (): void => {
  const socket = Net.connect({ host: "127.0.0.1", port, allowHalfOpen: true })
  let sent = 0
  let answer = ""
  let start = 0
  const fill = (): void => {
    while (sent < size) {
      const part = chunk.subarray(0, size - sent)
      sent += part.byteLength
      if (!socket.write(part)) return
    }
    socket.off("drain", fill)
    socket.end()
  }
  socket.on("drain", fill)
  socket.on("connect", () => {
    start = performance.now()
    fill()
  })
  socket.on("error", (error) => fail(error.message))
  socket.on("data", (data) => {
    answer += data.toString("latin1")
  })
  socket.on("end", () => {
    const seconds = (performance.now() - start) / 1000
    if (answer !== String(size)) fail(`${size} bytes were sent, and the sink got ${answer}`)
    console.log(JSON.stringify({ count: size, seconds } satisfies Result))
  })
}

const run = { sink, source }[mode ?? ""]
if (run === undefined) fail("the first argument is sink or source")
else run()

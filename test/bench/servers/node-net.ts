/** Raw `node:net` callbacks: `node test/bench/servers/node-net.ts PORT [echo|bulk|gather|relay] [TARGET PORT]` */
import * as Net from "node:net"
import { pipeline } from "node:stream"
import { chunk, gatherLists } from "../chunk.ts"

const [port, mode = "echo", target] = process.argv.slice(2)

const echo = (socket: Net.Socket): void => {
  socket.on("data", (data) => socket.write(data))
}

/** Again whenever the socket's buffer is empty. */
const fill = (socket: Net.Socket, write: () => void): void => {
  socket.on("drain", write)
  write()
}

const bulk = (socket: Net.Socket): void =>
  fill(socket, () => {
    while (socket.write(chunk));
  })

const gather = (socket: Net.Socket): void => {
  let next = 0
  const write = (): void => {
    do {
      let hasRoom = true
      socket.cork()
      for (const piece of gatherLists[next]!) hasRoom = socket.write(piece)
      socket.uncork()
      next = (next + 1) % gatherLists.length
      if (!hasRoom) return
    } while (next > 0)
    // The kernel may take everything at once for ever, and then nothing else would run.
    setImmediate(write)
  }
  fill(socket, write)
}

const relay = (client: Net.Socket): void => {
  const upstream = Net.connect({ host: "127.0.0.1", port: Number(target), allowHalfOpen: true })
  const onEnd = (error: Error | null | undefined): void => {
    if (error === null || error === undefined) return
    client.destroy()
    upstream.destroy()
  }
  pipeline(client, upstream, onEnd)
  pipeline(upstream, client, onEnd)
}

const handler = { echo, bulk, gather, relay }[mode]
if (handler === undefined) throw new Error(`no mode ${mode}`)

const server = Net.createServer({ allowHalfOpen: mode === "relay", noDelay: true }, (socket) => {
  socket.on("error", () => socket.destroy())
  handler(socket)
})

server.listen(Number(port), "127.0.0.1", 4096, () => {
  console.log(`listening on tcp://127.0.0.1:${(server.address() as Net.AddressInfo).port}`)
})

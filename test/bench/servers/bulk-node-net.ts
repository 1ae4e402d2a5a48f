/** Writes 64 KiB without end over raw `node:net` callbacks: `node test/bench/servers/bulk-node-net.ts PORT` */
import * as Net from "node:net"
import { chunk } from "../chunk.ts"

const server = Net.createServer((socket) => {
  const fill = (): void => {
    while (socket.write(chunk));
  }
  socket.on("drain", fill)
  socket.on("error", () => socket.destroy())
  fill()
})

server.listen(Number(process.argv[2]), "127.0.0.1", () => {
  console.log(`listening on tcp://127.0.0.1:${(server.address() as Net.AddressInfo).port}`)
})

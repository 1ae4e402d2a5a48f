/** Echo over raw `node:net` callbacks: `node test/bench/servers/node-net.ts PORT` */
import * as Net from "node:net"

const server = Net.createServer((socket) => {
  socket.on("data", (chunk) => socket.write(chunk))
  socket.on("error", () => socket.destroy())
})

server.listen(Number(process.argv[2]), "127.0.0.1", () => {
  console.log(`listening on tcp://127.0.0.1:${(server.address() as Net.AddressInfo).port}`)
})

/** Raw `node:tls` callbacks: `node test/bench/servers/node-tls.ts PORT [echo|bulk|receive]` */
import type { AddressInfo } from "node:net"
import * as Tls from "node:tls"
import { localhost } from "../../support/certificates.ts"
import { chunk } from "../chunk.ts"

const [port, mode = "echo"] = process.argv.slice(2)

const echo = (socket: Tls.TLSSocket): void => {
  socket.on("data", (data) => socket.write(data))
}

const bulk = (socket: Tls.TLSSocket): void => {
  const write = (): void => {
    while (socket.write(chunk));
  }
  socket.on("drain", write)
  write()
}

const receive = (socket: Tls.TLSSocket): void => {
  socket.on("data", () => {})
}

const handler = { echo, bulk, receive }[mode]
if (handler === undefined) throw new Error(`no mode ${mode}`)

const options = { cert: localhost.certificate, key: localhost.keyText, noDelay: true }

const server = Tls.createServer(options, (socket) => {
  socket.on("error", () => socket.destroy())
  handler(socket)
})

server.listen(Number(port), "127.0.0.1", 4096, () => {
  console.log(`listening on tcp://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

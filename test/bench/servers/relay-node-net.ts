/** A relay by `stream.pipeline`: `node test/bench/servers/relay-node-net.ts PORT TARGET` */
import * as Net from "node:net"
import { pipeline } from "node:stream"

const [port, target] = process.argv.slice(2).map(Number) as [number, number]

const server = Net.createServer({ allowHalfOpen: true }, (client) => {
  const upstream = Net.connect({ host: "127.0.0.1", port: target, allowHalfOpen: true })
  const onEnd = (error: Error | null | undefined): void => {
    if (error === null || error === undefined) return
    client.destroy()
    upstream.destroy()
  }
  pipeline(client, upstream, onEnd)
  pipeline(upstream, client, onEnd)
})

server.listen(port, "127.0.0.1", () => {
  console.log(`listening on tcp://127.0.0.1:${(server.address() as Net.AddressInfo).port}`)
})

/**
 * The least that a fiber can do over `node:tls`: one that waits for each message, with nothing of this library.
 * `node test/bench/servers/node-tls-fiber.ts PORT [echo|bulk|receive]`
 */
import * as Effect from "effect/Effect"
import type { AddressInfo } from "node:net"
import * as Tls from "node:tls"
import { localhost } from "../../support/certificates.ts"
import { chunk } from "../chunk.ts"

const [port, mode = "echo"] = process.argv.slice(2)

const nextOf = (socket: Tls.TLSSocket): Effect.Effect<Buffer> => {
  let resume: ((data: Effect.Effect<Buffer>) => void) | undefined
  let early: Buffer | undefined
  socket.on("data", (data) => {
    if (resume === undefined) early = early === undefined ? data : Buffer.concat([early, data])
    else {
      const wake = resume
      resume = undefined
      wake(Effect.succeed(data))
    }
  })
  return Effect.callback((wake) => {
    if (early === undefined) {
      resume = wake
      return
    }
    const data = early
    early = undefined
    wake(Effect.succeed(data))
  })
}

const drained = (socket: Tls.TLSSocket): Effect.Effect<void> =>
  Effect.callback((resume) => {
    socket.once("drain", () => resume(Effect.void))
  })

const echo = Effect.fnUntraced(function*(socket: Tls.TLSSocket) {
  const next = nextOf(socket)
  while (true) {
    const data = yield* next
    yield* Effect.sync(() => socket.write(data))
  }
})

const bulk = Effect.fnUntraced(function*(socket: Tls.TLSSocket) {
  const wait = drained(socket)
  while (true) {
    const hasRoom = yield* Effect.sync(() => socket.write(chunk))
    if (!hasRoom) yield* wait
  }
})

const receive = Effect.fnUntraced(function*(socket: Tls.TLSSocket) {
  const next = nextOf(socket)
  while (true) yield* next
})

const handler = { echo, bulk, receive }[mode]
if (handler === undefined) throw new Error(`no mode ${mode}`)

const options = { cert: localhost.certificate, key: localhost.keyText, noDelay: true }

const server = Tls.createServer(options, (socket) => {
  socket.on("error", () => socket.destroy())
  const fiber = Effect.runFork(handler(socket))
  socket.on("close", () => fiber.interruptUnsafe())
})

server.listen(Number(port), "127.0.0.1", 4096, () => {
  console.log(`listening on tcp://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

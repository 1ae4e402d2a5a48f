/**
 * Echoes a number of messages of 64 bytes over ten connections and ends. Its clients are processes of their own, so that
 * all its system calls are those of a server.
 *
 *     node test/transport/epoll-echo.ts MESSAGES
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as NetAddress from "effect/net/NetAddress"
import { fork } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as Write from "../../src/Write.ts"
import { portOf } from "../support/addresses.ts"

const connections = 10
const messages = Number(process.argv[2])

const serve = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"))
  let left = messages
  const done = yield* Latch.make()
  yield* Effect.forkChild(Acceptor.serve(acceptor, (socket) =>
    Effect.gen(function*() {
      const buffer = new Uint8Array(1024)
      while (true) {
        yield* Write.writeAll(socket, buffer.subarray(0, yield* socket.readSome(buffer)))
        if (--left === 0) yield* done.open
      }
    })))
  process.send?.(portOf(acceptor.address))
  yield* done.await
})

const clients = (port: number): void => {
  const message = Buffer.alloc(64, 1)
  for (let i = 0; i < connections; i++) {
    const socket = Net.connect(port, "127.0.0.1", () => socket.write(message))
    let got = 0
    socket.on("data", (chunk) => {
      got += chunk.byteLength
      if (got % 64 === 0) socket.write(message)
    })
    socket.on("error", () => socket.destroy())
  }
}

if (process.argv[3] === undefined) {
  await Effect.runPromise(Effect.scoped(serve).pipe(Effect.provide(EpollTransport.layer)))
} else {
  const server = fork(import.meta.filename, [process.argv[2]!], {
    execPath: "strace",
    execArgv: ["-f", "-c", "-o", process.argv[3], process.execPath]
  })
  const [port] = await once(server, "message")
  clients(Number(port))
  await once(server, "exit")
  process.exit()
}

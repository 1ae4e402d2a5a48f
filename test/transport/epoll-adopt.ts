/**
 * Echoes over a descriptor that it was started with: a connection until its end, or a listener until its first
 * connection has ended. The descriptor is 3, or the first one that the service manager tells of.
 *
 *     node test/transport/epoll-adopt.ts connection | listener | activated
 */
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import { spawnSync } from "node:child_process"
import * as Acceptor from "../../src/Acceptor.ts"
import { formatAddress } from "../../src/internal/base/format.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as Write from "../../src/Write.ts"

const echo = (socket: StreamSocket.StreamSocket) => {
  const buffer = new Uint8Array(1000)
  return socket.readSome(buffer).pipe(
    Effect.flatMap((count) => Write.writeAll(socket, buffer.subarray(0, count))),
    Effect.forever,
    Pull.catchDone(() => socket.shutdownWrite)
  )
}

const listener = Effect.fn(function*(fd: number) {
  const acceptor = yield* Effect.acquireRelease(
    Effect.map(EpollTransport.listenerFromFd(fd), (backing) => Acceptor.make(backing)),
    (acceptor) => acceptor.close
  )
  yield* echo(yield* acceptor.accept)
  return acceptor.address
})

const program = Effect.gen(function*() {
  switch (process.argv[2]) {
    case "connection": {
      const socket = yield* Effect.acquireRelease(
        Effect.map(EpollTransport.fromFd(3), (backing) => StreamSocket.make(backing)),
        (socket) => socket.close
      )
      // Nobody who is started from here gets it too.
      const inherited = spawnSync("ls", ["/proc/self/fd/3"]).status === 0
      yield* echo(socket)
      return `${formatAddress(socket.localAddress)} ${formatAddress(socket.remoteAddress)} ${inherited}`
    }
    case "listener":
      return formatAddress(yield* listener(3))
    case undefined:
    default: {
      const passed = yield* EpollTransport.listenFds
      const [first] = passed
      return first === undefined
        ? "nothing was passed on"
        : `${formatAddress(yield* listener(first.fd))} ${passed.map(({ fd, name }) => `${fd}=${name}`).join(" ")}`
    }
  }
})

console.log(await Effect.runPromise(Effect.scoped(program)))

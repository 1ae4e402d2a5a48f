/**
 * What the reactor of EpollTransport makes possible, with nothing of the library above it: no accounting, no errors, no
 * cancellation. `node test/bench/servers/epoll-floor.ts callbacks|fiber PORT`
 *
 * - `callbacks`: an event is a receive and a send.
 * - `fiber`: in a program of Effect like any other, a fiber for each connection waits for what its event receives, and
 *   sends. No server whose connections are fibers does less, so what it reaches is the most that one can.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as NetAddress from "effect/net/NetAddress"
import * as Queue from "effect/Queue"
import * as Linux from "../../../src/transport/internal/epoll/linux.ts"
import { Reactor, type Registered } from "../../../src/transport/internal/epoll/Reactor.ts"

const [how, port] = process.argv.slice(2)

const linux = Linux.load()
const reactor = new Reactor(linux)
reactor.use()
// Stays as long as it is not killed.
reactor.ref()

class Connection implements Registered {
  fd: number
  private readonly buffer = new Uint8Array(1024)

  constructor(fd: number) {
    this.fd = fd
  }

  onEvents(): void {
    this.send(this.receive())
  }

  /** The number of bytes, 0 when there are none. */
  protected receive(): number {
    const count = linux.recv(this.fd, this.buffer, this.buffer.byteLength)
    if (count > 0) return count
    if (count !== -Linux.EAGAIN) {
      reactor.unregister(this)
      linux.close(this.fd)
      this.fd = -1
    }
    return 0
  }

  send(count: number): void {
    if (count > 0) linux.send(this.fd, this.buffer.subarray(0, count))
  }
}

class Waiter extends Connection {
  private resume: ((exit: Exit.Exit<number>) => void) | undefined = undefined
  // An event has come while nobody waited.
  private isReady = false
  private readonly leave = Effect.sync(() => {
    this.resume = undefined
  })
  readonly received: Effect.Effect<number> = Effect.callback((resume) => {
    if (this.isReady) {
      this.isReady = false
      resume(Exit.succeed(this.receive()))
      return
    }
    this.resume = resume
    return this.leave
  })

  override onEvents(): void {
    const { resume } = this
    this.resume = undefined
    if (resume === undefined) this.isReady = true
    else resume(Exit.succeed(this.receive()))
  }
}

const echo = Effect.fnUntraced(function*(connection: Waiter) {
  while (true) connection.send(yield* connection.received)
})

const listen = (onAccept: (fd: number) => void): string => {
  const listener = linux.socket(Linux.AF_INET)
  linux.bind(listener, Linux.encodeAddress(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`)))
  linux.listen(listener, 4096)
  reactor.register({
    fd: listener,
    onEvents: () => {
      for (let fd = linux.accept(listener); fd >= 0; fd = linux.accept(listener)) {
        linux.setInt(fd, Linux.IPPROTO_TCP, Linux.TCP_NODELAY, 1)
        onAccept(fd)
      }
    }
  })
  const address = linux.localAddress(listener)
  if (!NetAddress.isInetAddress(address)) throw new Error("no address")
  return `listening on ${NetAddress.formatUrlUnsafe(address, "tcp")}`
}

const fibers = Effect.gen(function*() {
  const connections = yield* Queue.unbounded<Waiter>()
  const line = listen((fd) => {
    const connection = new Waiter(fd)
    reactor.register(connection)
    Queue.offerUnsafe(connections, connection)
  })
  yield* Console.log(line)
  return yield* Effect.forever(Effect.flatMap(Queue.take(connections), (waiter) => Effect.forkScoped(echo(waiter))))
})

if (how === "fiber") fibers.pipe(Effect.scoped, NodeRuntime.runMain)
else console.log(listen((fd) => reactor.register(new Connection(fd))))

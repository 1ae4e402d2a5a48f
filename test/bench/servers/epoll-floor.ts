/**
 * What the reactor of EpollTransport makes possible, with nothing of the library above it: no accounting, no errors, no
 * cancellation. `node test/bench/servers/epoll-floor.ts callbacks|fiber PORT`
 *
 * - `callbacks`: an event is a receive and a send.
 * - `fiber`: a fiber for each connection waits for the receive and sends. No server whose connections are fibers does
 *   less, so what it reaches is the most that one can.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as NetAddress from "effect/net/NetAddress"
import * as Linux from "../../../src/transport/internal/linux.ts"
import { Reactor, type Registered } from "../../../src/transport/internal/Reactor.ts"

const [how, port] = process.argv.slice(2)

const linux = Linux.load()
const reactor = new Reactor(linux)
reactor.use()
// Stays as long as it is not killed.
reactor.owe()

class Callbacks implements Registered {
  fd: number
  protected readonly buffer = new Uint8Array(1024)

  constructor(fd: number) {
    this.fd = fd
  }

  onEvents(): void {
    const count = linux.recv(this.fd, this.buffer, this.buffer.byteLength)
    if (count > 0) this.received(count)
    else if (count !== -Linux.EAGAIN) {
      reactor.unregister(this)
      linux.close(this.fd)
      this.fd = -1
    }
  }

  protected received(count: number): void {
    this.send(count)
  }

  send(count: number): void {
    linux.send(this.fd, this.buffer.subarray(0, count))
  }
}

class Waiter extends Callbacks {
  private resume: ((exit: Exit.Exit<number>) => void) | undefined = undefined
  private readonly leave = Effect.sync(() => {
    this.resume = undefined
  })
  readonly receive: Effect.Effect<number> = Effect.callback((resume) => {
    this.resume = resume
    return this.leave
  })

  protected override received(count: number): void {
    this.resume?.(Exit.succeed(count))
  }
}

const echo = Effect.fnUntraced(function*(connection: Waiter) {
  while (true) connection.send(yield* connection.receive)
})

const accept = (fd: number): void => {
  linux.setInt(fd, Linux.IPPROTO_TCP, Linux.TCP_NODELAY, 1)
  if (how === "callbacks") {
    reactor.register(new Callbacks(fd))
    return
  }
  const connection = new Waiter(fd)
  reactor.register(connection)
  Effect.runFork(echo(connection))
}

const listener = linux.socket(Linux.AF_INET)
linux.bind(listener, Linux.encodeAddress(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`)))
linux.listen(listener, 4096)
reactor.register({
  fd: listener,
  onEvents: () => {
    for (let fd = linux.accept(listener); fd >= 0; fd = linux.accept(listener)) accept(fd)
  }
})

const address = linux.localAddress(listener)
if (!NetAddress.isInetAddress(address)) throw new Error("no address")
console.log(`listening on ${NetAddress.formatUrlUnsafe(address, "tcp")}`)

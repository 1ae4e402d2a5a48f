/** What `toDuplex` emits, beside what a plain `net.Socket` emits in the same situation. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import { AsyncLocalStorage } from "node:async_hooks"
import { once } from "node:events"
import * as Net from "node:net"
import { duplexPair, PassThrough } from "node:stream"
import { setTimeout as sleep } from "node:timers/promises"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import { secured } from "../support/tls.ts"
import { kernel, rawServer } from "../support/transports.ts"
import { turns } from "../support/waiting.ts"

type Subject = Net.Socket | NodeDuplex.SocketDuplex

interface Situation {
  readonly name: string
  readonly allowHalfOpen?: boolean
  /** The stream is not read. */
  readonly isPaused?: boolean
  readonly run: (socket: Subject, peer: Net.Socket) => void | Promise<unknown>
  /** Only where the peer can reset. */
  readonly onTcp?: boolean
  /** A difference that the documentation of `toDuplex` tells. */
  readonly ours?: ReadonlyArray<string>
}

/** By then an event of the peer is there, if the stream looks. */
const passed = () => sleep(30)

const situations: ReadonlyArray<Situation> = [
  { name: "the peer ends", run: (_, peer) => void peer.end() },
  { name: "the peer says something and ends", run: (_, peer) => void peer.end("hello") },
  {
    name: "the peer half-closes, and end follows",
    allowHalfOpen: true,
    run: async (socket, peer) => {
      peer.end()
      await once(socket, "end")
      socket.end("bye")
    }
  },
  { name: "the peer half-closes, and nothing follows", allowHalfOpen: true, run: (_, peer) => void peer.end() },
  {
    name: "end, and the peer ends",
    run: (socket, peer) => {
      peer.once("end", () => peer.end())
      socket.end("bye")
    }
  },
  { name: "end, and the peer is silent", run: (socket) => void socket.end("bye") },
  { name: "destroy", run: (socket) => void socket.destroy() },
  {
    name: "destroy with an error",
    run: (socket) => void socket.destroy(Object.assign(new Error("x"), { code: "MINE" }))
  },
  { name: "destroy twice", run: (socket) => void socket.destroy().destroy() },
  { name: "destroySoon", run: (socket) => socket.destroySoon() },
  {
    name: "destroySoon behind a write",
    run: (socket) => {
      socket.write("bye")
      socket.destroySoon()
    }
  },
  {
    name: "end, then destroy",
    run: (socket) => {
      socket.end("bye")
      socket.destroy()
    }
  },
  {
    name: "end, then destroySoon",
    run: (socket) => {
      socket.end("bye")
      socket.destroySoon()
    }
  },
  { name: "the peer resets", onTcp: true, run: (_, peer) => void peer.resetAndDestroy() },
  {
    name: "the peer resets after end",
    onTcp: true,
    run: async (socket, peer) => {
      socket.end()
      await passed()
      peer.resetAndDestroy()
    }
  },
  {
    name: "the peer has reset, unread, and end follows",
    ours: ["finish", "error ECONNRESET", "close"],
    isPaused: true,
    onTcp: true,
    run: async (socket, peer) => {
      peer.resetAndDestroy()
      await passed()
      socket.end()
    }
  },
  {
    name: "the peer has reset, unread, and destroy follows",
    ours: ["close"],
    isPaused: true,
    onTcp: true,
    run: async (socket, peer) => {
      peer.resetAndDestroy()
      await passed()
      socket.destroy()
    }
  },
  {
    name: "the peer is gone, unread, and end follows",
    ours: ["finish", "end", "close"],
    isPaused: true,
    run: async (socket, peer) => {
      peer.destroy()
      await passed()
      socket.end()
    }
  },
  {
    name: "the peer is gone, and end follows",
    allowHalfOpen: true,
    run: async (socket, peer) => {
      peer.destroy()
      await once(socket, "end")
      socket.end()
    }
  },
  {
    name: "the peer is gone, a write is reset, and end follows",
    allowHalfOpen: true,
    onTcp: true,
    run: async (socket, peer) => {
      peer.destroy()
      await once(socket, "end")
      socket.write("x")
      await passed()
      socket.end()
    }
  },
  {
    name: "the peer is silent for the time-out",
    run: async (socket) => {
      socket.setTimeout(20)
      await once(socket, "timeout")
      socket.destroy()
    }
  }
]

const record = (socket: Subject, situation: Situation): Array<string> => {
  const events: Array<string> = []
  socket.on("end", () => events.push("end"))
  socket.on("finish", () => events.push("finish"))
  socket.on("timeout", () => events.push("timeout"))
  socket.on("close", () => events.push("close"))
  socket.on("error", (error: NodeJS.ErrnoException) => events.push(`error ${error.code}`))
  if (situation.isPaused !== true) socket.on("data", (chunk: Buffer) => events.push(`data ${chunk.toString()}`))
  return events
}

/** Until it is closed, or for long enough that nothing follows. */
const settled = async (events: ReadonlyArray<string>, expected: number): Promise<void> => {
  for (let i = 0; i < 30 && !events.includes("close"); i++) await sleep(10)
  for (let i = 0; i < 300 && events.length < expected; i++) await sleep(10)
}

describe("the events of toDuplex are those of net.Socket", () => {
  for (const place of kernel) {
    for (const situation of situations.filter(({ onTcp }) => onTcp !== true || !place.isUnix)) {
      it.live(`${situation.name}, over ${place.name}`, () =>
        Effect.gen(function*() {
          const peers: Array<Net.Socket> = []
          const waiting: Array<(peer: Net.Socket) => void> = []
          const address = yield* rawServer(place, (peer) => {
            peer.resume()
            const next = waiting.shift()
            if (next === undefined) peers.push(peer)
            else next(peer)
          }, { allowHalfOpen: true })
          const accepted = Effect.promise(() =>
            new Promise<Net.Socket>((resolve) => {
              const peer = peers.shift()
              if (peer === undefined) waiting.push(resolve)
              else resolve(peer)
            })
          )
          const allowHalfOpen = situation.allowHalfOpen === true
          const native = NetAddress.isUnixPathAddress(address)
            ? Net.connect({ path: address.path, allowHalfOpen })
            : Net.connect({ port: address.port, host: "127.0.0.1", allowHalfOpen })
          yield* Effect.promise(() => once(native, "connect"))
          const expected = record(native, situation)
          const peerOfNative = yield* accepted
          yield* Effect.promise(async () => {
            await situation.run(native, peerOfNative)
            await settled(expected, 0)
          })
          native.destroy()
          const seen = expected.slice()

          const ours = yield* NodeDuplex.toDuplex(yield* StreamSocket.connect(address), situation)
          const events = record(ours, situation)
          const peer = yield* accepted
          yield* Effect.promise(async () => {
            await situation.run(ours, peer)
            await settled(events, (situation.ours ?? seen).length)
          })
          assert.deepStrictEqual(events, situation.ours ?? seen)
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 30_000)
    }
  }
})

describe("members of net.Socket", () => {
  it.live("connect answers with 'connect' and 'ready', and calls its listener", () =>
    Effect.gen(function*() {
      const [left] = yield* MemoryTransport.pair()
      const duplex = yield* NodeDuplex.toDuplex(left)
      const seen: Array<string> = []
      duplex.once("connect", () => seen.push("connect"))
      duplex.once("ready", () => seen.push("ready"))
      assert.strictEqual(duplex.connect(5432, "db.internal", () => seen.push("called")), duplex)
      assert.deepStrictEqual(seen, [])
      yield* turns()
      assert.deepStrictEqual(seen, ["connect", "called", "ready"])
    }).pipe(Effect.scoped))

  it.live("the addresses of a PROXY header stand in for those of the socket", () =>
    Effect.gen(function*() {
      const [left] = yield* MemoryTransport.pair()
      const duplex = yield* NodeDuplex.toDuplex(left, {
        endpoints: {
          source: NetAddress.inetAddressFromStringUnsafe("203.0.113.7:4711"),
          destination: NetAddress.inetAddressFromStringUnsafe("192.0.2.1:443")
        }
      })
      const { encrypted, localAddress, localPort, remoteAddress, remoteFamily, remotePort } = duplex
      assert.deepStrictEqual([remoteAddress, remotePort, remoteFamily], ["203.0.113.7", 4711, "IPv4"])
      assert.deepStrictEqual([localAddress, localPort, duplex.address().port], ["192.0.2.1", 443, 443])
      assert.deepStrictEqual([encrypted, duplex.alpnProtocol, duplex.getPeerCertificate()], [false, undefined, {}])
    }).pipe(Effect.scoped))

  it.live("a TLS stream tells that it is one", () =>
    Effect.gen(function*() {
      const [client, server] = yield* secured(yield* MemoryTransport.pair())
      const near = yield* NodeDuplex.toDuplex(client)
      const far = yield* NodeDuplex.toDuplex(server)
      assert.deepStrictEqual([near.encrypted, far.encrypted, near.alpnProtocol], [true, true, false])
      assert.isString(near.getPeerCertificate().fingerprint256)
      assert.deepStrictEqual(far.getPeerCertificate(), {})
    }).pipe(Effect.scoped))

  it.live("each 'data' runs in the async context of the socket", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair()
      const storage = new AsyncLocalStorage<string>()
      const scope = yield* Effect.scope
      const duplex = yield* Effect.promise(() =>
        storage.run("socket", () =>
          Effect.runPromise(
            NodeDuplex.toDuplex(left).pipe(Effect.provideService(Scope.Scope, scope))
          ))
      )
      const seen: Array<string | undefined> = []
      duplex.on("data", () => {
        seen.push(storage.getStore())
        storage.enterWith(`event ${seen.length}`)
      })
      for (let i = 0; i < 3; i++) {
        yield* right.writeSome(new Uint8Array(1))
        yield* turns()
      }
      assert.deepStrictEqual(seen, ["socket", "socket", "socket"])
    }).pipe(Effect.scoped))
})

describe("abort of fromDuplex destroys", () => {
  it.live("a duplexPair whose write side was ended and not read", () =>
    Effect.gen(function*() {
      const [near] = duplexPair()
      const socket = yield* NodeDuplex.fromDuplex(near)
      yield* socket.shutdownWrite
      yield* socket.abort
      assert.isTrue(near.destroyed)
    }).pipe(Effect.scoped))

  it.live("a duplexPair whose close was cut", () =>
    Effect.gen(function*() {
      const [near] = duplexPair()
      const socket = yield* NodeDuplex.fromDuplex(near, { linger: "20 millis" })
      yield* socket.close
      assert.isTrue(near.destroyed)
    }).pipe(Effect.scoped))

  it.live("a stream whose end waits for its peer", () =>
    Effect.gen(function*() {
      const source = new PassThrough({ final: () => {} })
      const socket = yield* NodeDuplex.fromDuplex(source)
      yield* socket.shutdownWrite
      yield* socket.abort
      assert.isTrue(source.destroyed)
    }).pipe(Effect.scoped))
})

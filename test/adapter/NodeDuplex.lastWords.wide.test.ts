/** An early answer to a large upload reaches the client of an adapter as it reaches that of a `net.Socket`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Http from "node:http"
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { kernel, type Place } from "../support/transports.ts"

const rounds = 10
const body = Buffer.alloc(8 * 1024 * 1024, "x")

/** Answers 413 to the head of each request, and is gone without reading the body: in a process of its own, as servers are. */
const hastyServer = (place: Place) =>
  Effect.gen(function*() {
    const address = place.address()
    const at = NetAddress.isUnixPathAddress(address) ? { path: address.path } : { port: 0, host: "127.0.0.1" }
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [
          "-e",
          `
          const answer = "HTTP/1.1 413 Too Large\\r\\nconnection: close\\r\\ncontent-length: 3\\r\\n\\r\\nbig"
          const server = require("node:net").createServer({ allowHalfOpen: true }, (socket) => {
            socket.on("error", () => {})
            socket.once("data", () => {
              socket.pause()
              // By then the upload fills every buffer on the way, and waits.
              setTimeout(() => {
                socket.write(answer)
                socket.destroy()
              }, 100)
            })
          }).listen(${JSON.stringify(at)}, () => console.log(JSON.stringify(server.address())))
          `
        ], { stdio: ["ignore", "pipe", "inherit"] })
      ),
      (child) =>
        Effect.promise(async () => {
          child.kill("SIGKILL")
          await once(child, "close")
        })
    )
    const [line] = yield* Effect.promise(() => once(child.stdout, "data"))
    const bound: unknown = JSON.parse(String(line))
    return typeof bound === "object" && bound !== null && "port" in bound
      ? NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${Number(bound.port)}`)
      : address
  })

/** The status of the answer, or the code of the error. */
const post = (socket: Duplex): Effect.Effect<string> =>
  Effect.callback((resume) => {
    const request = Http.request({ method: "POST", path: "/", createConnection: () => socket }, (response) => {
      response.resume()
      resume(Effect.succeed(String(response.statusCode)))
    })
    request.on("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code ?? error.message)))
    request.end(body)
  })

const dial = (address: NetAddress.SocketAddress): Net.Socket =>
  (NetAddress.isUnixPathAddress(address)
    ? Net.connect({ path: address.path, allowHalfOpen: true })
    : Net.connect({ port: address.port, host: "127.0.0.1", allowHalfOpen: true })).on("error", () => {})

describe("the answer 413 to a large upload", () => {
  for (const place of kernel) {
    it.live(`is heard through toDuplex, over ${place.name}`, () =>
      Effect.gen(function*() {
        const address = yield* hastyServer(place)
        const ofNode: Array<string> = []
        const ours: Array<string> = []
        for (let i = 0; i < rounds; i++) {
          ofNode.push(yield* post(dial(address)))
          ours.push(
            yield* Effect.scoped(Effect.gen(function*() {
              const socket = yield* StreamSocket.connect(address)
              return yield* post(yield* NodeDuplex.toDuplex(socket, { allowHalfOpen: true }))
            }))
          )
        }
        const heard = (answers: ReadonlyArray<string>) => answers.filter((answer) => answer === "413").length
        // Where the reset is faster than the reader, both may lose one.
        assert.isAtLeast(heard(ours), heard(ofNode) - 1, `by net.Socket: ${ofNode.join()}; ours: ${ours.join()}`)
        assert.isAtLeast(heard(ours), rounds - 2)
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
  }
})

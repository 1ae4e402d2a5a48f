/** `examples/04-port-forwarder.ts`, run for real: between `curl` and `node:http`, and between raw sockets. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn, spawnSync } from "node:child_process"
import { createHash, type Hash, randomBytes } from "node:crypto"
import { once } from "node:events"
import * as Http from "node:http"
import * as Net from "node:net"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import { listening } from "../support/programs.ts"
import { eventually } from "../support/waiting.ts"

const file = "04-port-forwarder.ts"

const hasCurl = spawnSync("curl", ["--version"]).status === 0

/** A server of the test's own, on a free port; its connections are gone with the scope. */
const serving = <S extends Net.Server>(make: () => S) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const server = make()
      const sockets = new Set<Net.Socket>()
      server.on("connection", (socket: Net.Socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return { server, sockets, target: `127.0.0.1:${(server.address() as Net.AddressInfo).port}` }
    }),
    ({ server, sockets }) =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )

const connecting = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => Net.connect({ host: "127.0.0.1", port, allowHalfOpen: true }).on("error", () => {})),
    (socket) => Effect.sync(() => socket.destroy())
  )

const hashOf = async (stream: Readable, hash: Hash = createHash("sha256")): Promise<string> => {
  for await (const chunk of stream) hash.update(chunk as Buffer)
  return hash.digest("hex")
}

// By events: `for await` destroys a socket at the end of its input, and the other direction with it.
const textOf = async (socket: Net.Socket): Promise<string> => {
  let text = ""
  socket.on("data", (chunk) => {
    text += String(chunk)
  })
  await once(socket, "end")
  return text
}

describe("the port forwarder", () => {
  const block = randomBytes(1_000_000)
  const blocks = 100

  const download = async (url: string): Promise<string> => {
    if (hasCurl) {
      const curl = spawn("curl", ["--silent", "--show-error", "--fail", url], { stdio: ["ignore", "pipe", "inherit"] })
      const [hash, [code]] = await Promise.all([hashOf(curl.stdout), once(curl, "close")])
      assert.strictEqual(code, 0)
      return hash
    }
    const [response] = await once(Http.get(url), "response") as [Http.IncomingMessage]
    return await hashOf(response)
  }

  it.live(
    `${hasCurl ? "curl" : "http.get (there is no curl here)"} gets 100 MB through it, unchanged`,
    () =>
      Effect.gen(function*() {
        const expected = createHash("sha256")
        for (let i = 0; i < blocks; i++) expected.update(block)
        const { target } = yield* serving(() =>
          Http.createServer((_, response) => {
            response.writeHead(200, { "content-length": blocks * block.length, connection: "close" })
            let left = blocks
            const fill = () => {
              while (left > 0) {
                left--
                if (!response.write(block)) return
              }
              response.end()
            }
            response.on("drain", fill)
            fill()
          })
        )
        const forwarder = yield* listening(file, "--port", "0", "--to", target)
        const hash = yield* Effect.promise(() => download(`http://127.0.0.1:${forwarder.port}/`))
        assert.strictEqual(hash, expected.digest("hex"))
        yield* eventually("the counts", () => /: \d+ up, 1000\d+ down$/m.test(forwarder.output()))
        assert.strictEqual(yield* forwarder.interrupt, 0)
      }),
    60_000
  )

  it.live("a client that has ended its side still gets the answer", () =>
    Effect.gen(function*() {
      const { target } = yield* serving(() =>
        Net.createServer({ allowHalfOpen: true }, (socket) => {
          // Says nothing before it knows that everything has come.
          void textOf(socket).then((text) => socket.end(`you said ${text}`))
        })
      )
      const forwarder = yield* listening(file, "--port", "0", "--to", target)
      const client = yield* connecting(forwarder.port)
      client.end("hello")
      assert.strictEqual(yield* Effect.promise(() => textOf(client)), "you said hello")
      yield* eventually("the counts", () => forwarder.output().includes(": 5 up, 14 down\n"))
    }))

  it.live("a server that has ended its side still gets the rest", () =>
    Effect.gen(function*() {
      let received: Promise<string> | undefined
      const { target } = yield* serving(() =>
        Net.createServer({ allowHalfOpen: true }, (socket) => {
          socket.end("not a word from here")
          received = textOf(socket)
        })
      )
      const forwarder = yield* listening(file, "--port", "0", "--to", target)
      const client = yield* connecting(forwarder.port)
      assert.strictEqual(yield* Effect.promise(() => textOf(client)), "not a word from here")
      client.end("all the same")
      assert.strictEqual(yield* Effect.promise(async () => await received), "all the same")
    }))

  it.live("Ctrl-C in the middle: both sides see a reset and not an end, and nothing is left", () =>
    Effect.gen(function*() {
      const { sockets, target } = yield* serving(() => Net.createServer((socket) => socket.write(block)))
      const forwarder = yield* listening(file, "--port", "0", "--to", target)
      const client = yield* connecting(forwarder.port)
      const endings: Array<string> = []
      const note = (socket: Net.Socket, name: string) =>
        socket.on("error", (error: NodeJS.ErrnoException) => endings.push(`${name} ${error.code}`))
          .on("end", () => endings.push(`${name} end`))
      note(client, "client")
      yield* eventually("the server's connection", () => sockets.size === 1)
      for (const socket of sockets) note(socket, "server").resume()
      let received = 0
      client.on("data", (chunk) => {
        received += chunk.length
      })
      yield* eventually("the first bytes", () => received === block.length)
      assert.strictEqual(yield* forwarder.interrupt, 0)
      yield* eventually(() => `the resets: ${endings.join()}`, () => endings.length === 2)
      assert.deepStrictEqual(endings.sort(), ["client ECONNRESET", "server ECONNRESET"])
      const late = yield* connecting(forwarder.port)
      const [error] = yield* Effect.promise(() => once(late, "error") as Promise<[NodeJS.ErrnoException]>)
      assert.strictEqual(error.code, "ECONNREFUSED")
    }))

  it.live("a target that refuses ends that one connection only", () =>
    Effect.gen(function*() {
      const { server, target } = yield* serving(() => Net.createServer((socket) => socket.end("here I am")))
      const forwarder = yield* listening(file, "--port", "0", "--to", target)
      const first = yield* connecting(forwarder.port)
      assert.strictEqual(yield* Effect.promise(() => textOf(first)), "here I am")
      first.end()
      server.close()
      yield* Effect.promise(() => once(server, "close"))
      const second = yield* connecting(forwarder.port)
      assert.strictEqual(yield* Effect.promise(() => textOf(second)), "")
      yield* eventually("the reason", () => forwarder.output().includes("connection refused"))
      server.listen(Number(target.split(":")[1]), "127.0.0.1")
      const third = yield* connecting(forwarder.port)
      assert.strictEqual(yield* Effect.promise(() => textOf(third)), "here I am")
    }))

  it("says what is wrong with its options", () => {
    const path = fileURLToPath(new URL(`../../examples/${file}`, import.meta.url))
    const { status, stderr } = spawnSync(process.execPath, [path], { encoding: "utf8" })
    assert.deepStrictEqual([status, stderr], [1, "--to HOST:PORT is missing\n"])
  })
})

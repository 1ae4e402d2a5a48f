/** Servers in processes of their own, and peers that are raw sockets of Node. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import { createInterface } from "node:readline"
import type * as Server from "../../src/Server.ts"
import { eventually } from "../support/waiting.ts"

/** Starts `program.ts`; `ended` has how its connections ended and its exit status. */
const process_ = (options: { readonly args?: ReadonlyArray<string>; readonly descriptors?: number }) =>
  Effect.gen(function*() {
    const script = [process.execPath, "program.ts", ...options.args ?? []]
    const limit = options.descriptors === undefined ? "" : `ulimit -n ${options.descriptors} && `
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn("sh", ["-c", `${limit}exec "$@"`, "sh", ...script], {
          cwd: import.meta.dirname,
          stdio: ["ignore", "pipe", "inherit"]
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const lines: Array<string> = []
    const output = createInterface({ input: child.stdout }).on("line", (line) => lines.push(line))
    const listens = once(output, "line")
    const exit = once(child, "exit")
    const closed = once(output, "close")
    yield* Effect.promise(() => listens)
    const ended = Effect.promise(async () => {
      const [[code, signal]] = await Promise.all([exit, closed])
      const drained = JSON.parse(lines[1] ?? "{}") as Partial<Server.DrainReport>
      return { code: code as number | null, signal: signal as string | null, drained }
    })
    return { port: Number(lines[0]), kill: (signal: NodeJS.Signals) => void child.kill(signal), ended }
  })

/** A peer: what it has received, and how that ended. */
class Peer {
  readonly socket: Net.Socket
  received = 0
  text = ""
  /** "fin" or the code of an error. */
  end: string | undefined = undefined
  isConnected = false
  onBytes: (chunk: Buffer) => void = (chunk) => (this.text += chunk.toString("latin1"))

  constructor(port: number, hello: string) {
    this.socket = Net.connect(port, "127.0.0.1", () => (this.isConnected = true))
    this.socket.on("data", (chunk: Buffer) => {
      this.received += chunk.byteLength
      this.onBytes(chunk)
    })
    this.socket.on("end", () => (this.end ??= "fin"))
    this.socket.on("error", (error: NodeJS.ErrnoException) => (this.end = error.code ?? error.message))
    this.socket.write(hello)
  }
}

const peers = (port: number, count: number, hello: (i: number) => string) =>
  Effect.acquireRelease(
    Effect.sync(() => Array.from({ length: count }, (_, i) => new Peer(port, hello(i)))),
    (peers) => Effect.sync(() => peers.forEach(({ socket }) => socket.destroy()))
  )

/** The boundaries of frames in a stream: how many are whole, and how many bytes of the next one are there. */
class Frames {
  whole = 0
  private header = Buffer.alloc(0)
  private left = 0
  get isCut(): boolean {
    return this.left > 0 || this.header.byteLength > 0
  }
  add(chunk: Buffer): void {
    let rest = chunk
    while (rest.byteLength > 0) {
      if (this.left > 0) {
        const count = Math.min(this.left, rest.byteLength)
        this.left -= count
        rest = rest.subarray(count)
        if (this.left === 0) this.whole++
        continue
      }
      const missing = 4 - this.header.byteLength
      this.header = Buffer.concat([this.header, rest.subarray(0, missing)])
      rest = rest.subarray(missing)
      if (this.header.byteLength === 4) {
        this.left = this.header.readUInt32BE()
        this.header = Buffer.alloc(0)
      }
    }
  }
}

const health = (port: number) =>
  Effect.scoped(Effect.gen(function*() {
    const [peer] = yield* peers(port, 1, () => "health\n")
    yield* eventually("the server answers", () => peer?.end !== undefined)
    return peer?.text === undefined || peer.text === "" ? undefined : JSON.parse(peer.text) as Server.Health
  }))

export const suite = (transport: "node" | "epoll"): void => {
  const args = ["--transport", transport]

  describe.skipIf(process.platform === "win32")(`a server process over ${transport}`, () => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      it.live(`${signal} ends it: connections that wait are closed, the exit status is 0`, () =>
        Effect.gen(function*() {
          const server = yield* process_({ args: [...args, "--deadline", "300"] })
          const clients = yield* peers(server.port, 3, (i) => `echo\nhello ${i}\n`)
          yield* eventually("echoes", () => clients.every(({ text }, i) => text === `hello ${i}\n`))
          server.kill(signal)
          assert.deepStrictEqual(yield* server.ended, {
            code: 0,
            signal: null,
            drained: { finished: 0, total: 3, partial: 0, terminal: 0, aborted: 0 }
          })
          yield* eventually("ends", () => clients.every(({ end }) => end !== undefined))
          assert.deepStrictEqual(clients.map(({ end }) => end), ["fin", "fin", "fin"])
        }))
    }

    it.live("without connections it ends at once", () =>
      Effect.gen(function*() {
        const server = yield* process_({ args: [...args, "--deadline", "60000"] })
        server.kill("SIGTERM")
        assert.strictEqual((yield* server.ended).code, 0)
      }))

    it.live("a second signal cuts a long drain short", () =>
      Effect.gen(function*() {
        const server = yield* process_({ args: [...args, "--deadline", "60000"] })
        const [client] = yield* peers(server.port, 1, () => "hang\n")
        yield* eventually("a connection", () => client?.isConnected === true)
        yield* eventually("bytes on their way", () => client?.socket.bytesWritten === 5)
        while (((yield* health(server.port))?.connections ?? 0) < 2) yield* Effect.sleep(5)
        server.kill("SIGTERM")
        // It drains when it accepts no more.
        let refused = false
        while (!refused) {
          refused = yield* Effect.promise(() =>
            new Promise<boolean>((resume) => {
              const probe = Net.connect(server.port, "127.0.0.1")
              probe.once("connect", () => resume(false)).once("error", () => resume(true))
              probe.once("connect", () => probe.destroy())
            })
          )
        }
        assert.isUndefined(client?.end)
        server.kill("SIGTERM")
        const { code, drained } = yield* server.ended
        assert.strictEqual(code, 0)
        // And perhaps the last probe.
        assert.isAtLeast(drained.aborted ?? 0, 1)
        yield* eventually("the end", () => client?.end !== undefined)
        assert.strictEqual(client?.end, "ECONNRESET")
      }))

    it.live(
      "500 busy connections are drained within 2 seconds: frames are whole, or their connection is reset",
      () =>
        Effect.gen(function*() {
          const server = yield* process_({ args: [...args, "--deadline", "2000"] })
          const clients = yield* peers(server.port, 500, () => "frames\n")
          const sizes = [100, 2_000, 20_000, 300_000]
          const parsed = clients.map((client, i) => {
            const frames = new Frames()
            const ask = () => client.socket.write(`${sizes[(i + frames.whole) % sizes.length]}\n`)
            client.onBytes = (chunk) => {
              const before = frames.whole
              frames.add(chunk)
              // The first is for everybody to have come: a loop of Node's takes one connection in each turn.
              if (frames.whole > before && before > 0) ask()
            }
            client.socket.write("1\n")
            return { client, frames, ask }
          })
          yield* eventually("a frame for everybody", () => parsed.every(({ frames }) => frames.whole === 1))
          for (const { ask } of parsed) ask()
          yield* eventually("frames for many", () => parsed.filter(({ frames }) => frames.whole > 1).length > 250)
          // One in fifty asks for more than fits on the way, and stops reading.
          const stopped = parsed.filter((_, i) => i % 50 === 7)
          for (const { client } of stopped) {
            client.socket.pause()
            client.socket.write("16000000\n")
          }
          server.kill("SIGTERM")
          const { code, drained } = yield* server.ended
          assert.strictEqual(code, 0)
          for (const { client } of stopped) client.socket.resume()
          yield* eventually("ends for everybody", () => clients.every(({ end }) => end !== undefined))
          const cut = parsed.filter(({ frames }) => frames.isCut)
          assert.strictEqual(cut.filter(({ client }) => client.end === "fin").length, 0)
          // The server knows of each that it cut, and of no other.
          const { aborted = 0, finished = 0, partial = 0, terminal = 0, total = 0 } = drained
          const resets = clients.filter(({ end }) => end !== "fin").length
          assert.strictEqual(finished + total + partial + terminal + aborted, 500, JSON.stringify(drained))
          assert.isAtLeast(terminal + aborted, resets, JSON.stringify(drained))
          assert.isAtLeast(resets, stopped.length)
          assert.isAbove(total, 0)
        })
    )

    it.live.skipIf(process.platform !== "linux")(
      "out of descriptors it serves whom it has, and all when some are free again",
      () =>
        Effect.gen(function*() {
          const server = yield* process_({ args: [...args, "--deadline", "100"], descriptors: 64 })
          const clients = yield* peers(server.port, 100, (i) => `echo\nhello ${i}\n`)
          const served = (i: number) => clients[i]?.text === `hello ${i}\n`
          const countServed = () => clients.filter((_, i) => served(i)).length
          // With Node's own sockets, Node closes those for which there is no descriptor.
          yield* eventually("those who are served are served", () =>
            countServed() > 20 &&
            (transport === "epoll" || clients.every((client, i) => served(i) || client.end !== undefined)))
          const first = clients.filter((_, i) => served(i))
          assert.isBelow(first.length, 64)
          for (const client of first) {
            client.text = ""
            client.socket.write("still here\n")
          }
          yield* eventually("an answer for them", () => first.every(({ text }) => text === "still here\n"))
          for (const { socket } of first) socket.destroy()
          if (transport === "epoll") {
            const rest = clients.filter((client) => !first.includes(client))
            let waiting = rest
            while (waiting.length > 0) {
              const got = waiting.filter(({ text }) => text !== "")
              for (const { socket } of got) socket.destroy()
              waiting = waiting.filter((client) => !got.includes(client))
              yield* Effect.sleep(5)
            }
          }
          let found: Server.Health | undefined
          while (found === undefined) found = yield* health(server.port)
          assert.strictEqual(found.state, "listening")
          if (transport === "epoll") assert.isAbove(found.acceptFailures, 0)
          assert.strictEqual(found.failures, 0)
          server.kill("SIGTERM")
          assert.strictEqual((yield* server.ended).code, 0)
        })
    )
  })
}

/** TLS with other implementations as peers: OpenSSL's command line, curl, and `node:tls`. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, type Scope } from "effect"
import { NetAddress } from "effect/net"
import { execFile, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Http from "node:http"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeTls from "node:tls"
import { promisify } from "node:util"
import { afterAll } from "vitest"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import { Acceptor, Buffers, Read, StreamSocket, Tls, Write } from "../../src/index.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { localhost, root } from "../support/certificates.ts"
import { ending, failure } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { trusting } from "../support/tls.ts"
import { eventually, start, turns } from "../support/waiting.ts"

const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
afterAll(() => rmSync(directory, { recursive: true }))

const file = (name: string, text: string): string => {
  const path = join(directory, name)
  writeFileSync(path, text)
  return path
}
const ca = file("ca.pem", root.certificate)
const certificate = file("certificate.pem", localhost.certificate)
const key = file("key.pem", localhost.keyText)

const isThere = (program: string, argument: string): boolean => spawnSync(program, [argument]).status === 0
const hasOpenssl = isThere("openssl", "version")
const hasCurl = isThere("curl", "--version")

const versions = ["TLSv1.2", "TLSv1.3"] as const
const flag = { "TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3" }

/** Accepts one connection and speaks TLS on it. */
const serving = <A, E>(
  options: Tls.ServerOptions,
  handle: (socket: Tls.TlsSocket) => Effect.Effect<A, E, Scope.Scope>
) =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(anyPort)
    const fiber = yield* start(
      Effect.scoped(
        Effect.flatMap(acceptor.accept, (plain) => Effect.flatMap(Tls.server(plain, options), handle))
      )
    )
    return { fiber, port: portOf(acceptor.address) }
  })

const connecting = (port: number, options?: Partial<Tls.ClientOptions>) =>
  Effect.flatMap(
    StreamSocket.connect(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`)),
    (plain) => Tls.client(plain, { ...trusting, ...options })
  )

const echo = (socket: Tls.TlsSocket) =>
  Effect.gen(function*() {
    const all = yield* Read.readAll(socket)
    yield* Write.writeAll(socket, all)
    yield* socket.shutdownWrite
    return all.byteLength
  })

/** Runs a program to its end with some input. */
const run = (program: string, args: ReadonlyArray<string>, input: string) =>
  Effect.promise(() =>
    new Promise<{ readonly out: string; readonly err: string; readonly status: number | null }>((resolve) => {
      const child = execFile(program, args, (error, out, err) => {
        resolve({ out, err, status: error === null ? 0 : typeof error.code === "number" ? error.code : null })
      })
      child.stdin?.end(input)
    })
  )

const bytes = (count: number) => new Uint8Array(count).map((_, i) => i % 251)

const suite = (name: string, layer: typeof NodeTransport.layer) => {
  const live = <E>(
    title: string,
    effect: () => Effect.Effect<void, E, Scope.Scope | Effect.Services<ReturnType<typeof connecting>>>
  ) => it.live(title, () => leavingNothing(Effect.suspend(effect)).pipe(Effect.provide(layer)))

  describe(name, () => {
    for (const version of versions) {
      describe.skipIf(!hasOpenssl)(`openssl, ${version}`, () => {
        live("s_client", () =>
          Effect.gen(function*() {
            const { fiber, port } = yield* serving({ ...localhost, alpn: ["echo"] }, (socket) =>
              Effect.gen(function*() {
                const line = yield* Read.readLine(socket)
                yield* Write.writeAll(socket, Buffers.utf8(`you said ${line}\n`))
                yield* socket.shutdownWrite
                const { alpn, protocol } = socket.tls
                // The peer has sent close_notify.
                return { alpn, protocol, rest: yield* Read.readAll(socket) }
              }))
            const { err, out, status } = yield* run("openssl", [
              "s_client",
              "-connect",
              `127.0.0.1:${port}`,
              flag[version],
              "-CAfile",
              ca,
              "-servername",
              "localhost",
              "-verify_return_error",
              "-alpn",
              "echo",
              // Makes the program end when this side ends, and not at the end of its input.
              "-quiet"
            ], "hello\n")
            assert.include(out, "you said hello", err)
            assert.strictEqual(status, 0, err)
            const server = yield* Fiber.join(fiber)
            assert.strictEqual(server.protocol, version)
            assert.strictEqual(server.alpn, "echo")
            assert.strictEqual(server.rest.byteLength, 0)
          }))

        live("s_server", () =>
          Effect.gen(function*() {
            const port = yield* freePort
            const child = yield* Effect.acquireRelease(
              Effect.sync(() =>
                spawn("openssl", [
                  "s_server",
                  "-accept",
                  `127.0.0.1:${port}`,
                  flag[version],
                  "-cert",
                  certificate,
                  "-key",
                  key,
                  "-rev",
                  "-naccept",
                  "1"
                ], { stdio: ["pipe", "pipe", "ignore"] })
              ),
              (child) =>
                Effect.promise(async () => {
                  if (child.exitCode === null) {
                    child.kill()
                    await once(child, "exit")
                  }
                })
            )
            let said = ""
            child.stdout.on("data", (chunk: Buffer) => void (said += chunk.toString()))
            yield* eventually("it listens", () => said.includes("ACCEPT"))
            const socket = yield* connecting(port)
            assert.strictEqual(socket.tls.protocol, version)
            yield* Write.writeAll(socket, Buffers.utf8("desrever\n"))
            assert.strictEqual(yield* Read.readLine(socket), "reversed")
            yield* socket.shutdownWrite
            assert.strictEqual(ending(yield* Effect.exit(socket.readSome(new Uint8Array(1)))), "Done")
          }))
      })

      describe(`node:tls, ${version}`, () => {
        live("as the client: 3 MB there and back", () =>
          Effect.gen(function*() {
            const { fiber, port } = yield* serving({ ...localhost, maxVersion: version }, echo)
            const message = bytes(3_000_000)
            const received = yield* Effect.promise(() =>
              new Promise<Buffer>((resolve, reject) => {
                const socket = NodeTls.connect({
                  socket: Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true }),
                  servername: "localhost",
                  ca: root.certificate
                })
                const chunks: Array<Buffer> = []
                socket.on("data", (chunk) => chunks.push(chunk))
                socket.on("end", () => resolve(Buffer.concat(chunks)))
                socket.on("error", reject)
                socket.end(message)
              })
            )
            assert.isTrue(received.equals(message))
            assert.strictEqual(yield* Fiber.join(fiber), message.byteLength)
          }))

        live("as the server: 3 MB there and back", () =>
          Effect.gen(function*() {
            const port = yield* nodeServer({ maxVersion: version }, (socket) => void socket.pipe(socket))
            const socket = yield* connecting(port)
            assert.strictEqual(socket.tls.protocol, version)
            const message = bytes(3_000_000)
            const writing = yield* start(Effect.andThen(Write.writeAll(socket, message), socket.shutdownWrite))
            assert.isTrue(Buffer.from(yield* Read.readAll(socket)).equals(message))
            yield* Fiber.join(writing)
          }))

        live("as a server that rejects our certificate", () =>
          Effect.gen(function*() {
            const port = yield* nodeServer({
              maxVersion: version,
              requestCert: true,
              rejectUnauthorized: true,
              ca: [root.certificate]
            }, () => assert.fail("it should not let us in"))
            const exit = yield* Effect.exit(
              Effect.flatMap(connecting(port), (socket) => socket.readSome(new Uint8Array(1)))
            )
            const { reason } = failure(exit)
            if (reason._tag !== "Tls") return assert.fail(reason._tag)
            // In 1.2 the alert is the old one for everything.
            assert.strictEqual(reason.alert, version === "TLSv1.3" ? "certificate_required" : "handshake_failure")
          }))

        live("as a client that leaves without close_notify", () =>
          Effect.gen(function*() {
            const strict = { ...localhost, maxVersion: version, strictEnd: true }
            for (const options of [strict, { ...strict, strictEnd: undefined }, { ...strict, strictEnd: false }]) {
              const { fiber, port } = yield* serving(options, (socket) =>
                Effect.gen(function*() {
                  const target = new Uint8Array(100)
                  assert.strictEqual(yield* socket.readSome(target), 5)
                  return yield* Effect.exit(socket.readSome(target))
                }))
              const raw = Net.connect(port, "127.0.0.1")
              const socket = NodeTls.connect({ socket: raw, servername: "localhost", ca: root.certificate })
              // With TLS 1.3 session tickets follow the handshake. Left unread, they would turn the FIN into a reset.
              yield* Effect.promise(() => once(socket.resume(), version === "TLSv1.3" ? "session" : "secureConnect"))
              yield* turns(2)
              yield* Effect.promise(() => promisify((done: () => void) => socket.write("hello", done))())
              // FIN, and nothing before it.
              raw.destroy()
              const exit = yield* Fiber.join(fiber)
              // On its own socket node:tls reports the end of the stream. This documents that limit.
              const hides = options.strictEnd === false ||
                (name.startsWith("NodeTransport") && options.strictEnd === undefined)
              assert.strictEqual(ending(exit), hides ? "Done" : "Tls")
              if (!hides) assert.include(failure(exit).reason, { kind: "truncated" })
            }
          }))
      })
    }

    describe.skipIf(!hasCurl)("curl", () => {
      live("asks an HTTPS server that is our TLS and Node's http", () =>
        Effect.gen(function*() {
          const http = Http.createServer((request, response) => {
            const chunks: Array<Buffer> = []
            request.on("data", (chunk: Buffer) => chunks.push(chunk))
            request.on(
              "end",
              () => response.end(`${request.method} ${request.url} ${Buffer.concat(chunks).byteLength}`)
            )
          })
          const acceptor = yield* Acceptor.listen(anyPort)
          yield* start(
            Effect.exit(Acceptor.serve(acceptor, (plain) =>
              Effect.scoped(Effect.gen(function*() {
                const socket = yield* Tls.server(plain, { ...localhost, alpn: ["http/1.1"] })
                const duplex = yield* NodeDuplex.toDuplex(socket, { allowHalfOpen: true })
                http.emit("connection", duplex)
                yield* Effect.callback<void>((resume) => void duplex.once("close", () => resume(Effect.void)))
              }))))
          )
          const url = `https://localhost:${portOf(acceptor.address)}`
          const to = ["--silent", "--show-error", "--cacert", ca, "--max-time", "8"]
          const got = yield* run("curl", [...to, `${url}/a`, `${url}/b`], "")
          assert.strictEqual(got.out, "GET /a 0GET /b 0", got.err)
          const posted = yield* run("curl", [...to, "--data-binary", "@-", `${url}/c`], "x".repeat(500_000))
          assert.strictEqual(posted.out, "POST /c 500000", posted.err)
          const distrustful = yield* run("curl", ["--silent", "--show-error", url], "")
          assert.strictEqual(distrustful.status, 60, distrustful.err)
          http.close()
        }))
    })
  })
}

const freePort = Effect.promise(() =>
  new Promise<number>((resolve) => {
    const server = Net.createServer().listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })
)

const nodeServer = (options: NodeTls.TlsOptions, handle: (socket: NodeTls.TLSSocket) => void) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const server = NodeTls.createServer(
          { cert: localhost.certificate, key: localhost.keyText, allowHalfOpen: true, ...options },
          handle
        )
        server.on("tlsClientError", () => {})
        server.listen(0, "127.0.0.1")
        await once(server, "listening")
        return server
      }),
      (server) => Effect.promise(() => promisify(server.close.bind(server))())
    ),
    (server) => {
      const address = server.address()
      return typeof address === "object" && address !== null ? address.port : 0
    }
  )

suite("NodeTransport", NodeTransport.layer)

describe.skipIf(!EpollTransport.isSupported())("epoll", () => {
  suite("EpollTransport", Layer.orDie(EpollTransport.layer))
})

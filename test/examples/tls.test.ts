/** The examples of TLS, run for real, with `node:tls` on the other side. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { X509Certificate } from "node:crypto"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Tls from "node:tls"
import { type Certificate, localhost, root } from "../support/certificates.ts"
import { listening } from "../support/programs.ts"
import { eventually } from "../support/waiting.ts"

/** A directory with a certificate and its key, and the arguments that name them. */
const files = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-asio-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  ),
  (directory) => {
    const [certificate, key] = [join(directory, "certificate.pem"), join(directory, "key.pem")]
    const write = (identity: Certificate) => {
      writeFileSync(certificate, identity.certificate)
      writeFileSync(key, identity.keyText)
    }
    write(localhost)
    return { certificate, write, args: ["--certificate", certificate, "--key", key, "--port", "0"] }
  }
)

/** A connection, and what has been heard on it. */
const talking = <S extends Net.Socket>(connect: () => S, ready: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = connect()
      let heard = ""
      socket.on("error", () => {})
      socket.on("data", (chunk) => void (heard += String(chunk)))
      await once(socket, ready)
      return { socket, heard: () => heard }
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const secure = (options: Tls.ConnectionOptions) =>
  talking(() => Tls.connect({ ...options, servername: "localhost", ca: root.certificate }), "secureConnect")

const hears = ({ heard }: { readonly heard: () => string }, text: string) =>
  eventually(() => `"${text}" in "${heard()}"`, () => heard().includes(text))

describe("the TLS echo server", () => {
  it.live(
    "echoes, takes a new certificate at SIGHUP for new connections, and keeps the old one when the new is bad",
    () =>
      Effect.gen(function*() {
        const { args, certificate, write } = yield* files
        const server = yield* listening("09-tls-echo.ts", ...args)
        const { port } = server
        const old = yield* secure({ port, host: "127.0.0.1" })
        old.socket.write("hello")
        yield* hears(old, "hello")

        write(root.issue({ names: ["localhost", "renewed.test"] }))
        server.signal("SIGHUP")
        yield* eventually("it says so", () => server.output().includes("renewed"))
        const fresh = yield* secure({ port, host: "127.0.0.1" })
        assert.include(fresh.socket.getPeerCertificate().subjectaltname, "renewed.test")
        old.socket.write(" again")
        yield* hears(old, "hello again")

        writeFileSync(certificate, "nonsense")
        server.signal("SIGHUP")
        yield* eventually("it says so", () => server.output().includes("cannot be used"))
        const third = yield* secure({ port, host: "127.0.0.1" })
        third.socket.end("good bye")
        yield* hears(third, "good bye")
        assert.strictEqual(yield* server.interrupt, 0)
      }),
    20_000
  )

  it.live("survives those who do not speak TLS", () =>
    Effect.gen(function*() {
      const { args } = yield* files
      const server = yield* listening("09-tls-echo.ts", ...args)
      const plain = yield* talking(() => Net.connect(server.port, "127.0.0.1"), "connect")
      plain.socket.write("GET / HTTP/1.1\r\n\r\n")
      yield* eventually("it says so", () => server.output().includes("the peer sends plain HTTP"))
      const good = yield* secure({ port: server.port, host: "127.0.0.1" })
      good.socket.write("hello")
      yield* hears(good, "hello")
      assert.strictEqual(yield* server.interrupt, 0)
    }))
})

describe("the STARTTLS server", () => {
  it.live("goes on over TLS", () =>
    Effect.gen(function*() {
      const { args } = yield* files
      const server = yield* listening("10-starttls.ts", ...args)
      const plain = yield* talking(() => Net.connect(server.port, "127.0.0.1"), "connect")
      yield* hears(plain, "220 ready\r\n")
      plain.socket.write("EHLO me\r\nNOOP\r\n")
      yield* hears(plain, "250 in plain text\r\n")
      plain.socket.write("STARTTLS\r\n")
      yield* hears(plain, "220 go ahead\r\n")
      plain.socket.removeAllListeners("data")
      const secured = yield* secure({ socket: plain.socket })
      secured.socket.write("NOOP\r\nSTARTTLS\r\nQUIT\r\n")
      yield* hears(secured, "250 over TLSv1.3\r\n502 no\r\n221 bye\r\n")
      assert.strictEqual(yield* server.interrupt, 0)
    }))

  it.live("refuses what comes along behind STARTTLS in plain text", () =>
    Effect.gen(function*() {
      const { args } = yield* files
      const server = yield* listening("10-starttls.ts", ...args)
      const plain = yield* talking(() => Net.connect(server.port, "127.0.0.1"), "connect")
      plain.socket.write("STARTTLS\r\nNOOP\r\n")
      yield* eventually("it says so", () => server.output().includes("6 bytes were received before TLS began"))
      yield* eventually("it is closed", () => plain.socket.closed)
      assert.notInclude(plain.heard(), "250")
    }))
})

describe("the server that watches its certificate", () => {
  it.live(
    "renews it by itself, for new connections, and keeps the old one when the new is bad",
    () =>
      Effect.gen(function*() {
        const { args, certificate, write } = yield* files
        const server = yield* listening("11-certificate-reload.ts", ...args)
        const { port } = server
        const serialOf = ({ certificate }: Certificate) => new X509Certificate(certificate).serialNumber
        const old = yield* secure({ port, host: "127.0.0.1" })

        const renewed = root.issue({ names: ["localhost"] })
        // It listens before it watches, and so may miss what comes first.
        yield* Effect.raceFirst(
          eventually("it says so", () => server.output().includes(`renewed: ${serialOf(renewed)}`)),
          Effect.forever(Effect.andThen(Effect.sync(() => write(renewed)), Effect.sleep(700)))
        )
        const fresh = yield* secure({ port, host: "127.0.0.1" })
        assert.strictEqual(fresh.socket.getPeerCertificate().serialNumber, serialOf(renewed))
        fresh.socket.write("GET / HTTP/1.1\r\n\r\n")
        yield* hears(fresh, `the certificate is ${serialOf(renewed)}`)
        old.socket.write("GET / HTTP/1.1\r\n\r\n")
        yield* hears(old, "200 OK")

        writeFileSync(certificate, "nonsense")
        yield* eventually("it says so", () => server.output().includes("not renewed: "))
        const third = yield* secure({ port, host: "127.0.0.1" })
        assert.strictEqual(third.socket.getPeerCertificate().serialNumber, serialOf(renewed))
        third.socket.destroy()
        assert.strictEqual(yield* server.interrupt, 0)
      }),
    20_000
  )
})

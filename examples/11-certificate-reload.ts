// A server whose certificate is renewed while it runs, by a program that writes the files, such as certbot.
//
//   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
//     -keyout key.pem -out certificate.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost
//   node examples/11-certificate-reload.ts [--certificate certificate.pem] [--key key.pem] [--port 7011]
//
// `curl --cacert certificate.pem https://localhost:7011` says which certificate it has. Run the first command
// again, and then curl again: that is all. Connections that are open go on with what they have; files that are not there,
// not whole yet, or of two different keys are told, and the old certificate stays.
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as NetAddress from "effect/net/NetAddress"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { X509Certificate } from "node:crypto"
import { dirname } from "node:path"
import { parseArgs } from "node:util"
import { Buffers, Read, Server, type StreamSocket, Tls, Write } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"

const options = Effect.try({
  try: () =>
    parseArgs({
      options: {
        certificate: { type: "string", default: "certificate.pem" },
        key: { type: "string", default: "key.pem" },
        port: { type: "string", default: "7011" },
        host: { type: "string", default: "127.0.0.1" }
      }
    }).values,
  catch: (cause) => cause instanceof Error ? cause : new Error(String(cause))
})

/** One answer of HTTP to each connection, whatever is asked. */
const answer = (serial: () => string) => (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    yield* Read.readUntil(socket, "\r\n\r\n", { max: 16_384 })
    const body = `the certificate is ${serial()}\n`
    yield* Write.writeAll(
      socket,
      Buffers.utf8(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`)
    )
  })

const main = Effect.gen(function*() {
  const { certificate, host, key, port } = yield* options
  const files = yield* FileSystem.FileSystem
  const identity = Effect.gen(function*() {
    return {
      certificate: yield* files.readFileString(certificate),
      key: Redacted.make(yield* files.readFileString(key))
    }
  })

  let current: Tls.ServerOptions = yield* identity
  const context = yield* Tls.makeServerContext(current)
  const serial = () => new X509Certificate(String(current.certificate)).serialNumber

  const renew = Effect.gen(function*() {
    const next = yield* identity
    if (next.certificate === current.certificate) return
    yield* context.reload(next)
    current = next
    yield* Console.log(`renewed: ${serial()}`)
  })
  // Two files are two events, and more where they are written piece by piece: it waits until they rest.
  yield* Stream.merge(files.watch(dirname(certificate)), files.watch(dirname(key))).pipe(
    Stream.debounce("200 millis"),
    Stream.runForEach(() => Effect.catch(renew, (error) => Console.error(`not renewed: ${error.message}`))),
    Effect.forkScoped({ startImmediately: true })
  )

  const server = yield* Server.make(answer(serial), {
    listen: { host, port: Number(port) },
    tls: context,
    shutdown: { deadline: "2 seconds" }
  })
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(server.addresses[0], "tcp")}`)
  yield* server.stopped
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide([NodeTransport.layer, NodeFileSystem.layer])
)

NodeRuntime.runMain(main, { teardown: Server.teardown })

// An echo server over TLS, whose certificate can be renewed while it runs.
//
//   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
//     -keyout key.pem -out certificate.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost
//   node examples/09-tls-echo.ts [--certificate certificate.pem] [--key key.pem] [--port 7443] [--host 127.0.0.1]
//
// Talk to it with `openssl s_client -connect 127.0.0.1:7443 -servername localhost -CAfile certificate.pem -quiet`.
// After `kill -HUP`, new connections get what the files hold then; those that are there go on with what they have.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Pull from "effect/Pull"
import * as Redacted from "effect/Redacted"
import * as Runtime from "effect/Runtime"
import { readFile } from "node:fs/promises"
import { parseArgs } from "node:util"
import { Acceptor, type StreamSocket, Tls, Write } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"

const asError = (cause: unknown): Error => cause instanceof Error ? cause : new Error(String(cause))

const options = Effect.try({
  try: () =>
    parseArgs({
      options: {
        certificate: { type: "string", default: "certificate.pem" },
        key: { type: "string", default: "key.pem" },
        port: { type: "string", default: "7443" },
        host: { type: "string", default: "127.0.0.1" }
      }
    }).values,
  catch: asError
})

const read = (path: string) => Effect.tryPromise({ try: () => readFile(path, "utf8"), catch: asError })

/** One signal. */
const hangUp = Effect.callback<void>((resume) => {
  const listener = () => resume(Effect.void)
  process.once("SIGHUP", listener)
  return Effect.sync(() => process.off("SIGHUP", listener))
})

const echo = (socket: StreamSocket.StreamSocket) => {
  const buffer = new Uint8Array(65_536)
  return socket.readSome(buffer).pipe(
    Effect.flatMap((count) => Write.writeAll(socket, buffer.subarray(0, count))),
    Effect.forever,
    // Says good-bye, and then FIN.
    Pull.catchDone(() => socket.shutdownWrite)
  )
}

const main = Effect.gen(function*() {
  const { certificate, host, key, port } = yield* options
  const identity: Effect.Effect<Tls.ServerOptions, Error> = Effect.gen(function*() {
    return { certificate: yield* read(certificate), key: Redacted.make(yield* read(key)) }
  })

  const context = yield* Tls.makeServerContext(yield* identity)
  yield* hangUp.pipe(
    Effect.andThen(identity),
    Effect.flatMap(context.reload),
    Effect.andThen(Console.log("the certificate was renewed")),
    // The old one is as good as it was.
    Effect.catch((error) => Console.error(error.message)),
    Effect.forever,
    Effect.forkScoped({ startImmediately: true })
  )

  const acceptor = yield* Acceptor.listen({ host, port: Number(port) })
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  yield* Acceptor.serve(acceptor, (plain) =>
    Tls.server(plain, context).pipe(
      Effect.flatMap(echo),
      // A peer that does not speak TLS, or does not trust us: its own affair, but good to know.
      Effect.catch((error) => Console.error(error.message)),
      Effect.scoped
    ))
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main, {
  // An interrupted program exits with 130. A server is meant to end by Ctrl-C, so here that is success.
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})

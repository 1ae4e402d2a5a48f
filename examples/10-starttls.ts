// A line protocol that begins in plain text and goes on over TLS: as much of SMTP as STARTTLS needs.
//
//   node examples/10-starttls.ts [--certificate certificate.pem] [--key key.pem] [--port 7025] [--host 127.0.0.1]
//
// (How to make the two files stands in `examples/09-tls-echo.ts`.) Try it with
//
//   openssl s_client -connect 127.0.0.1:7025 -starttls smtp -servername localhost -CAfile certificate.pem -quiet
//
// and with `printf 'STARTTLS\r\nNOOP\r\n' | nc 127.0.0.1 7025`: a command that comes along behind STARTTLS, in plain text,
// is what an attacker in between would smuggle in, and the upgrade is refused.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Pull from "effect/Pull"
import * as Redacted from "effect/Redacted"
import * as Runtime from "effect/Runtime"
import { readFile } from "node:fs/promises"
import { parseArgs } from "node:util"
import { Acceptor, Buffers, Read, type StreamSocket, Tls, Write } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"

const asError = (cause: unknown): Error => cause instanceof Error ? cause : new Error(String(cause))

const options = Effect.try({
  try: () =>
    parseArgs({
      options: {
        certificate: { type: "string", default: "certificate.pem" },
        key: { type: "string", default: "key.pem" },
        port: { type: "string", default: "7025" },
        host: { type: "string", default: "127.0.0.1" }
      }
    }).values,
  catch: asError
})

const read = (path: string) => Effect.tryPromise({ try: () => readFile(path, "utf8"), catch: asError })

const say = (socket: StreamSocket.StreamSocket, text: string) => Write.writeAll(socket, Buffers.utf8(`${text}\r\n`))

/** The same conversation on both: only what is above TLS knows the secret. */
const converse = (socket: StreamSocket.StreamSocket): Effect.Effect<"STARTTLS" | "QUIT", unknown> =>
  Effect.gen(function*() {
    const isSecure = Tls.isTlsSocket(socket)
    for (;;) {
      const command = (yield* Read.readLine(socket, { max: 512 })).toUpperCase()
      if (command.startsWith("EHLO")) yield* say(socket, isSecure ? "250 hello again" : "250-hello\r\n250 STARTTLS")
      else if (command === "STARTTLS" && !isSecure) return "STARTTLS"
      else if (command === "NOOP") {
        yield* say(socket, isSecure ? `250 over ${socket.tls.protocol}` : "250 in plain text")
      } else if (command === "QUIT") {
        yield* say(socket, "221 bye")
        return "QUIT"
      } else yield* say(socket, "502 no")
    }
  })

const session = (plain: StreamSocket.StreamSocket, identity: Tls.ServerOptions) =>
  Effect.gen(function*() {
    yield* say(plain, "220 ready")
    if ((yield* converse(plain)) === "QUIT") return
    // The line has been read and nothing behind it; what follows has to be the handshake.
    yield* say(plain, "220 go ahead")
    const secure = yield* Tls.server(plain, identity)
    yield* converse(secure)
    yield* secure.shutdownWrite
  }).pipe(
    Effect.scoped,
    Pull.catchDone(() => Effect.void),
    Effect.catch((error) => Console.error(asError(error).message))
  )

const main = Effect.gen(function*() {
  const { certificate, host, key, port } = yield* options
  const identity: Tls.ServerOptions = { certificate: yield* read(certificate), key: Redacted.make(yield* read(key)) }
  const acceptor = yield* Acceptor.listen({ host, port: Number(port) })
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  yield* Acceptor.serve(acceptor, (plain) => session(plain, identity))
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main, {
  // An interrupted program exits with 130. A server is meant to end by Ctrl-C, so here that is success.
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})

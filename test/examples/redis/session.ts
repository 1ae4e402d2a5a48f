/** What a client and a Redis server say to each other, step by step: recorded from a real server, and played by none. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import { type Acceptor, Read, type SocketError, type StreamSocket, Write } from "../../../src/index.ts"
import { assertBytes } from "../../support/bytes.ts"

/** What passed over one connection in one step; each character is a byte. */
interface Exchange {
  readonly step: string
  readonly connection: number
  readonly request: string
  readonly answer: string
}

export type Session = ReadonlyArray<Exchange>

/** Runs one step of a session; its last byte has arrived when it ends. */
export type Step = <A, E, R>(name: string, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A server in front of the real one, which writes down what passes. */
export const recorder = <R>(connect: Effect.Effect<StreamSocket.StreamSocket, SocketError.SocketError, R>) => {
  const connections: Array<{ request: string; answer: string }> = []
  const session: Array<Exchange> = []

  const copy = (
    from: StreamSocket.StreamSocket,
    to: StreamSocket.StreamSocket,
    log: (bytes: string) => void
  ) => {
    const buffer = new Uint8Array(65_536)
    return from.readSome(buffer).pipe(
      Effect.flatMap((count) => {
        log(Buffer.from(buffer.subarray(0, count)).toString("latin1"))
        return Write.writeAll(to, buffer.subarray(0, count))
      }),
      Effect.forever,
      Pull.catchDone(() => to.shutdownWrite)
    )
  }

  const handler = (client: StreamSocket.StreamSocket) =>
    Effect.scoped(Effect.gen(function*() {
      const log = { request: "", answer: "" }
      connections.push(log)
      const server = yield* connect
      yield* Effect.all([
        copy(client, server, (bytes) => log.request += bytes),
        copy(server, client, (bytes) => log.answer += bytes)
      ], { concurrency: 2 })
    }))

  const step: Step = (name, effect) =>
    Effect.tap(effect, () =>
      Effect.sync(() => {
        const said = connections.flatMap((log, index) => {
          // The words of an error are those of one version.
          const answer = log.answer.replaceAll(/^(-[A-Z]+) .*$/gm, "$1")
          const exchange = { step: name, connection: index + 1, request: log.request, answer }
          log.request = log.answer = ""
          return exchange.request + exchange.answer === "" ? [] : [exchange]
        })
        // What nobody asked for on its own connection follows from a request on another one.
        session.push(...said.filter(({ request }) => request !== ""), ...said.filter(({ request }) => request === ""))
      }))

  return { handler, session, step }
}

/** A server that knows nothing but a session: every request has to be the recorded one, byte by byte. */
export const play = (acceptor: Acceptor.Acceptor, session: Session) =>
  Effect.gen(function*() {
    const connections: Array<StreamSocket.StreamSocket> = []
    for (const { answer, connection, request } of session) {
      const socket = connections[connection - 1] ??= yield* acceptor.accept
      const received = new Uint8Array(request.length)
      yield* Read.readExactly(socket, received)
      assertBytes(received, Buffer.from(request, "latin1"))
      yield* Write.writeAll(socket, Buffer.from(answer, "latin1"))
    }
    for (const socket of connections) assertBytes(yield* Read.readAll(socket), "")
  })

/** Runs a client beside a server that has to succeed as well; a failure of the server does not leave the client waiting. */
export const beside = <A, E, R, E2, R2>(client: Effect.Effect<A, E, R>, server: Effect.Effect<unknown, E2, R2>) =>
  Effect.gen(function*() {
    const serving = yield* Effect.forkChild(server, { startImmediately: true })
    const result = yield* Effect.raceFirst(client, Effect.andThen(Fiber.join(serving), Effect.never))
    yield* Fiber.join(serving)
    return result
  })

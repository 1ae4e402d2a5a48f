// A chat room: each member gets the lines of all others. The first line of a connection is its name.
//
//   node examples/05-chat-server.ts [--port 7005] [--host 127.0.0.1]
//
// Join with `nc 127.0.0.1 7005`, from as many terminals as you like. Each member has a queue of 100 lines of at most
// 1,024 bytes. No member waits for a slow one: a member whose queue is full has stopped reading, and is disconnected.
// Ctrl-C stops the server.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import type * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Pull from "effect/Pull"
import * as Queue from "effect/Queue"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import { parseArgs } from "node:util"
import { Acceptor, Framing, type StreamSocket } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"

const options = Effect.try({
  try: () =>
    parseArgs({
      options: {
        port: { type: "string", default: "7005" },
        host: { type: "string", default: "127.0.0.1" }
      }
    }).values,
  catch: (cause) => cause instanceof Error ? cause : new Error(String(cause))
})

const lines = Framing.text(Framing.lines({ max: 1024 }))

interface Member {
  readonly socket: StreamSocket.StreamSocket
  readonly inbox: Queue.Queue<string, Cause.Done>
}

/** Who is here, by name. */
const room = new Map<string, Member>()

/** Never waits for a member. */
const tell = ({ inbox, socket }: Member, text: string) =>
  Effect.suspend(() => Queue.offerUnsafe(inbox, text) ? Effect.void : socket.abort)

const tellOthers = (name: string, text: string) =>
  Effect.suspend(() =>
    Effect.forEach([...room], ([other, member]) => other === name ? Effect.void : tell(member, text))
  )

/** Asks until there is a name that no other member has, and takes it. */
const enter = (member: Member) =>
  Effect.gen(function*() {
    yield* Framing.send(member.socket, lines, "* Who are you?")
    while (true) {
      const name = (yield* Framing.receive(member.socket, lines)).trim()
      if (/^\w{1,20}$/.test(name) && !room.has(name)) {
        room.set(name, member)
        return name
      }
      yield* Framing.send(member.socket, lines, "* 1 to 20 letters or digits, please, that no other member has.")
    }
  })

const hear = (name: string, member: Member) =>
  Framing.receive(member.socket, lines).pipe(
    Effect.flatMap((text) => tellOthers(name, `${name}: ${text}`)),
    // That line was no text. The next one may be.
    Effect.catchTag("ContentError", () => tell(member, "* UTF-8, please.")),
    Effect.forever,
    Pull.catchDone(() => Effect.void)
  )

const chat = (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    const member: Member = { socket, inbox: yield* Queue.dropping<string, Cause.Done>(100) }
    const name = yield* enter(member)
    // Lines that have gathered leave in one write.
    const speaking = yield* Effect.forkChild(Stream.run(Stream.fromQueue(member.inbox), Framing.sink(socket, lines)))
    yield* tell(member, `* Here: ${[...room.keys()].join(", ")}.`)
    yield* tellOthers(name, `* ${name} has come.`)
    yield* Effect.ensuring(
      hear(name, member),
      Effect.suspend(() => {
        room.delete(name)
        return tellOthers(name, `* ${name} has left.`)
      })
    )
    // It has only stopped talking (`nc -N`): what was said before still goes out, if it takes that soon.
    yield* Queue.end(member.inbox)
    yield* Effect.timeoutOption(Fiber.join(speaking), "5 seconds")
  })

const main = Effect.gen(function*() {
  const { host, port } = yield* options
  const acceptor = yield* Acceptor.listen({ host, port: Number(port) })
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  yield* Acceptor.serve(acceptor, chat)
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main, {
  // An interrupted program exits with 130. A server is meant to end by Ctrl-C, so here that is success.
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})

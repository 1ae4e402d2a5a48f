// A Redis client: RESP2 as a framing, the commands of many fibers over one connection, and pub/sub as a stream.
import { Cause, Data, Deferred, type Duration, Effect, Exit, Pull, Semaphore, Stream } from "effect"
import { Buffers, Cancellation, Framing, type StreamSocket } from "../../src/index.ts"

export type Command = ReadonlyArray<string | Uint8Array>
export type Reply = string | number | bigint | Uint8Array | null | RedisError | ReadonlyArray<Reply>

/** What the server said instead of an answer. */
export class RedisError extends Data.TaggedError("RedisError")<{ message: string }> {}

/** No answer will come. The server may have run the command, or it cannot have, because not all of it left. */
export class Unanswered extends Data.TaggedError("Unanswered")<{ ran: "no" | "maybe"; cause: unknown }> {
  override readonly message = this.cause instanceof Error ? this.cause.message : String(this.cause)
}

const [LF, CR, end] = [10, 13, Uint8Array.of(13, 10)]
const ended = new RedisError({ message: "the server has ended the connection" })

const encode = (command: Command): ReadonlyArray<Uint8Array> => [
  Buffers.utf8(`*${command.length}\r\n`),
  ...command.map((part) => typeof part === "string" ? Buffers.utf8(part) : part)
    .flatMap((bytes) => [Buffers.utf8(`$${bytes.byteLength}\r\n`), bytes, end])
]

const decode = (bytes: Uint8Array): Reply => {
  let at = 0
  const next = (): Reply => {
    const type = String.fromCharCode(bytes[at]!)
    const start = bytes.indexOf(LF, at) + 1
    const line = Buffers.toUtf8(bytes.subarray(at + 1, start - 2))
    at = start
    if (type === "+" || type === "-") return type === "+" ? line : new RedisError({ message: line })
    if (type === ":") return Number.isSafeInteger(Number(line)) ? Number(line) : BigInt(line)
    if (line === "-1") return null
    if (type === "*") return Array.from({ length: Number(line) }, next)
    at += Number(line) + 2
    return bytes.subarray(start, at - 2)
  }
  return next()
}

/** RESP2 for one connection: it remembers how far it has looked, so that no reply is scanned twice. */
export const resp = (max = 64 * 1_048_576): Framing.Framing<Command, Reply, Framing.ContentError> => {
  let [at, missing, seen] = [0, 1, 0] // where the next value begins, how many there are from there, where no line ends
  const find = (bytes: Uint8Array, scanned: number) => {
    if (scanned === 0) [at, missing, seen] = [0, 1, 0]
    for (; missing > 0; missing--) {
      if (at === bytes.byteLength) return undefined
      const type = String.fromCharCode(bytes[at]!)
      if (!"+-:$*".includes(type)) return `no type of RESP: ${JSON.stringify(type)}`
      let next = bytes.indexOf(LF, Math.max(at, seen)) + 1
      if (next === 0) return (seen = bytes.byteLength) - at > 65_536 ? "a line that is too long" : undefined
      const line = Buffers.toUtf8(bytes.subarray(at + 1, next - 2))
      if ((type === "$" || type === "*") && !/^(-1|\d{1,15})$/.test(line)) return `a length of ${JSON.stringify(line)}`
      if (type === "*") missing += Math.max(0, Number(line))
      if (type === "$" && line !== "-1") next += Number(line) + 2
      if (next > bytes.byteLength) return undefined
      if (bytes[next - 2] !== CR || bytes[next - 1] !== LF) return "a value that does not end in CRLF"
      at = next
    }
    return { start: 0, end: at, size: at }
  }
  return Framing.map(Framing.make({ max, overhead: 0, find, enclose: (payload) => payload }), { encode, decode })
}

/** Whether the whole command left, so that it will be answered. */
const hasLeft = (sending: Exit.Exit<number, unknown>): boolean => {
  const sent = Cancellation.outcome(sending)
  return sent._tag === "Completed" || (sent._tag === "Cancelled" && sent.total > 0 && sent.transferred === sent.total)
}

/**
 * Runs commands over a connection. An interrupted command that has not begun to leave never does, one that is leaving
 * is finished `within` or else tears the connection, and of one that has left the answer is dropped.
 */
export const make = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket, within: Duration.Input = 2000) {
  const framing = resp()
  // Answers come in the order in which commands leave: each enters the queue in its turn.
  const turn = Semaphore.makeUnsafe(1)
  const waiting = new Set<Deferred.Deferred<Reply, RedisError | Unanswered>>()
  let lost: { readonly cause: unknown } | undefined
  yield* Framing.stream(socket, framing).pipe(
    Stream.runForEach((reply) => {
      const [first] = waiting
      if (first === undefined) {
        return Effect.fail(new RedisError({ message: `a reply without a request: ${String(reply)}` }))
      }
      waiting.delete(first)
      return reply instanceof RedisError ? Deferred.fail(first, reply) : Deferred.succeed(first, reply)
    }),
    Effect.onExit((exit) => {
      lost = { cause: Exit.isSuccess(exit) ? ended : Cause.squash(exit.cause) }
      for (const answer of waiting) Deferred.doneUnsafe(answer, Exit.fail(new Unanswered({ ran: "maybe", ...lost })))
      return socket.close
    }),
    Effect.ignore,
    Effect.forkScoped({ startImmediately: true })
  )
  return Effect.fnUntraced(function*(...command: Command) {
    const answer = Deferred.makeUnsafe<Reply, RedisError | Unanswered>()
    const send = Effect.suspend(() => {
      if (lost !== undefined) return Effect.fail(lost.cause)
      waiting.add(answer)
      return Framing.send(socket, framing, command)
    })
    const settled = Effect.onExit(send, (exit) => Effect.sync(() => hasLeft(exit) || waiting.delete(answer)))
    const inTurn = Semaphore.withPermit(turn, Cancellation.total(settled, { within }))
    yield* Effect.mapError(inTurn, (cause) => new Unanswered({ ran: "no", cause }))
    return yield* Deferred.await(answer)
  })
})

/** Subscribes, on a connection of its own (MULTI and SELECT want one, too). No message after this ends is missed. */
export const subscribe = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket, ...channels: Array<string>) {
  const framing = resp()
  yield* Framing.send(socket, framing, ["SUBSCRIBE", ...channels])
  for (const _ of channels) {
    const reply = yield* Pull.catchDone(Framing.receive(socket, framing), () => Effect.fail(ended))
    if (reply instanceof RedisError) return yield* reply
  }
  return Framing.stream(socket, framing)
})

// Parts 2 and 3 of the tour: a write is interrupted in the middle, and both ends are asked how far it came.
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { Buffers, Cancellation, SocketError, StreamSocket, Write } from "../../src/index.ts"
import * as Peer from "./peer.ts"

/** What one interruption left behind. */
export interface Row {
  readonly policy: string
  readonly ended: string
  /** Bytes that left, according to the interrupted fiber. */
  readonly reported: number | undefined
  /** Bytes of that write that arrived, according to the peer. */
  readonly peerRead: number
  /** From the interruption to the end of the fiber. */
  readonly millis: number
  readonly stream: string
  /** For how much of the message the peer's hash is ours. */
  readonly hashEqual: string
  /** How a torn stream answers the next write. */
  readonly refusal?: string | undefined
  /** What does not add up. */
  readonly problems: ReadonlyArray<string>
}

export interface Policy {
  readonly name: string
  readonly region: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** The peer reads on once the write was interrupted, or stays stuck until the fiber has ended. */
  readonly peerReadsOn: "interruption" | "end"
  /** The guarantee that has to be kept. */
  readonly guarantee: Cancellation.Type
}

const within = 400

export const policies: ReadonlyArray<Policy> = [
  { name: "terminal", region: Cancellation.terminal, peerReadsOn: "end", guarantee: "terminal" },
  { name: "partial", region: Cancellation.partial, peerReadsOn: "end", guarantee: "partial" },
  { name: "total", region: Cancellation.total(), peerReadsOn: "interruption", guarantee: "total" },
  // The peer stays stuck for longer than the write may go on, so it is cut after all.
  {
    name: `total within ${within} ms`,
    region: Cancellation.total({ within }),
    peerReadsOn: "end",
    guarantee: "terminal"
  }
]

/** Interrupts a `writeAll` under a policy. */
export const ofWriteAll = Effect.fnUntraced(function*(policy: Policy, message: Uint8Array) {
  const peer = yield* Peer.listen
  const socket = yield* StreamSocket.connect(peer.address)
  // However this ends, the peer reads on before the socket is closed, so that closing need not wait for it.
  yield* Effect.addFinalizer(() => Effect.sync(() => peer.allow(Infinity)))

  // The cursor is for going on after the interruption; the other policies could do without it.
  const cursor = Buffers.cursor(message)
  const writing = yield* Effect.forkChild(policy.region(Write.writeAll(socket, cursor)))
  yield* peerGetsStuck(peer, () => socket.bytesWritten)
  const { exit, millis } = yield* interrupt(
    writing,
    () => policy.peerReadsOn === "interruption" ? peer.allow(Infinity) : undefined
  )

  const transfer = Exit.isFailure(exit) ? Option.getOrUndefined(Cancellation.transfer(exit.cause)) : undefined
  const reported = transfer?.transferred
  const leftBehind = { cursor: cursor.transferred, socket: socket.bytesWritten, stream: socket.state.write }
  const refusal = leftBehind.stream === "torn" ? yield* refusalOf(socket) : undefined

  peer.allow(Infinity)
  let peerRead: number
  if (policy.guarantee === "partial") {
    yield* Peer.until(() => peer.received >= leftBehind.socket)
    peerRead = peer.received
    // Had one byte more or less left than the cursor says, the peer's hash of the whole would tell. Should the stream
    // refuse, the peer's count does.
    yield* Effect.exit(Write.writeAll(socket, cursor))
    yield* closeAndDrain(socket, peer)
  } else {
    yield* closeAndDrain(socket, peer)
    peerRead = peer.received
  }

  const torn = policy.guarantee === "terminal"
  const expected = message.subarray(0, torn ? peerRead : message.length)
  const hashEqual = peer.received === expected.length && peer.sha256 === Peer.sha256(expected)
  const inTheMiddle = reported !== undefined && reported > 0 && reported < message.length
  const claims: ReadonlyArray<readonly [claim: string, holds: boolean]> = [
    ["the fiber was interrupted", endOf(exit) === "interrupted"],
    ["what the fiber reports is what the peer read", reported === peerRead],
    ["the cursor and the socket count the same", leftBehind.cursor === reported && leftBehind.socket === reported],
    [`the guarantee is ${policy.guarantee}`, transfer?.guarantee === policy.guarantee],
    [`the stream is ${torn ? "torn" : "open"}`, leftBehind.stream === (torn ? "torn" : "open")],
    ["the write stopped where it should", policy.guarantee === "total" ? reported === message.length : inTheMiddle],
    ["the peer saw the end of the stream", peer.ended],
    ["the peer has the right bytes", hashEqual]
  ]
  const row: Row = {
    policy: policy.name,
    ended: endOf(exit),
    reported,
    peerRead,
    millis,
    stream: leftBehind.stream,
    hashEqual: !hashEqual ? "no" : torn ? "first part" : policy.guarantee === "partial" ? "whole, resumed" : "whole",
    refusal,
    problems: claims.flatMap(([claim, holds]) => holds ? [] : [`not so: ${claim}`])
  }
  return row
}, Effect.scoped)

/** Does the same to a `write` of Effect's own socket. */
export const ofNodeSocket = Effect.fnUntraced(function*(message: Uint8Array) {
  const peer = yield* Peer.listen
  const socket = yield* NodeSocket.makeNet(peer.address)
  // Acquiring the reader connects.
  yield* socket.reader
  const { exit, millis } = yield* Effect.scoped(Effect.gen(function*() {
    const writer = yield* socket.writer
    const writing = yield* Effect.forkChild(writer.write(message))
    yield* peerGetsStuck(peer, () => peer.received)
    return yield* interrupt(writing, () => {})
  }))
  // The scope of the writer has half-closed the connection: after what it had in hand comes the end.
  peer.allow(Infinity)
  yield* Peer.until(() => peer.ended)

  const row: Row = {
    policy: "Effect's NodeSocket",
    ended: endOf(exit),
    reported: Exit.isFailure(exit) ? Option.getOrUndefined(Cancellation.transfer(exit.cause))?.transferred : undefined,
    peerRead: peer.received,
    millis,
    stream: "?",
    hashEqual: peer.sha256 === Peer.sha256(message) ? "whole" : "no",
    problems: []
  }
  return row
}, Effect.scoped)

/** The peer reads a first part and stops. The write goes on until every buffer on the way is full. */
const peerGetsStuck = Effect.fnUntraced(function*(peer: Peer.Peer, progress: () => number) {
  const firstPart = 1_048_576
  peer.allow(firstPart)
  yield* Peer.until(() => peer.received >= firstPart)
  yield* Peer.standsStill(progress)
})

const interrupt = Effect.fnUntraced(function*<A, E>(fiber: Fiber.Fiber<A, E>, then: () => void) {
  const started = performance.now()
  // In a fiber of its own, because it ends only with the fiber that it interrupts.
  yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
  then()
  const exit = yield* Fiber.await(fiber)
  return { exit, millis: performance.now() - started }
})

const closeAndDrain = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket, peer: Peer.Peer) {
  yield* socket.close
  yield* Peer.until(() => peer.ended)
})

const refusalOf = (socket: StreamSocket.StreamSocket): Effect.Effect<string> =>
  Effect.match(socket.writeSome(Uint8Array.of(0)), {
    onFailure: (error) => SocketError.describe(error.reason),
    onSuccess: () => "not at all: it went on"
  })

const endOf = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isSuccess(exit) ? "completed" : Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "failed"

/** `examples/05-chat-server.ts`, run for real and joined over raw `node:net`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Net from "node:net"
import { listening } from "../support/programs.ts"
import { eventually } from "../support/waiting.ts"

const file = "05-chat-server.ts"

class Client {
  readonly socket: Net.Socket
  /** Every whole line so far. */
  readonly lines: Array<string> = []
  ended: "no" | "end" | "reset" = "no"
  private rest = ""

  constructor(port: number) {
    this.socket = Net.connect({ host: "127.0.0.1", port, allowHalfOpen: true })
    this.socket.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.rest + text).split("\n")
      this.rest = lines.pop() ?? ""
      this.lines.push(...lines)
    })
    this.socket.on("end", () => {
      this.ended = "end"
    })
    this.socket.on("error", () => {
      this.ended = "reset"
    })
  }

  say(line: string): void {
    this.socket.write(`${line}\n`)
  }

  /** Waits for a line, wherever it stands. */
  hears(line: string, within?: number): Effect.Effect<void> {
    return eventually(
      () => `${JSON.stringify(line)} is not in ${JSON.stringify(this.lines.slice(-5))}`,
      () => this.lines.includes(line),
      within
    )
  }
}

const client = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => new Client(port)),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

/** A member of the room; others hear of it in this order. */
const member = (port: number, name: string) =>
  Effect.gen(function*() {
    const joining = yield* client(port)
    joining.say(name)
    yield* eventually(() => `${name} is not let in: ${joining.lines.join()}`, () =>
      joining.lines.some((line) => line.startsWith("* Here:")))
    return joining
  })

describe("the chat server", () => {
  it.live("everybody hears everybody else, who comes and who leaves", () =>
    Effect.gen(function*() {
      const server = yield* listening(file, "--port", "0")
      const ada = yield* member(server.port, "ada")
      const bob = yield* member(server.port, "bob")
      const cy = yield* member(server.port, "cy")
      yield* ada.hears("* cy has come.")
      ada.say("hello")
      yield* Effect.all([bob.hears("ada: hello"), cy.hears("ada: hello")])
      bob.say("hello yourself")
      yield* Effect.all([ada.hears("bob: hello yourself"), cy.hears("bob: hello yourself")])
      cy.socket.resetAndDestroy()
      yield* Effect.all([ada.hears("* cy has left."), bob.hears("* cy has left.")])
      assert.deepStrictEqual(ada.lines, [
        "* Who are you?",
        "* Here: ada.",
        "* bob has come.",
        "* cy has come.",
        "bob: hello yourself",
        "* cy has left."
      ])
      assert.deepStrictEqual(bob.lines, [
        "* Who are you?",
        "* Here: ada, bob.",
        "* cy has come.",
        "ada: hello",
        "* cy has left."
      ])
      assert.strictEqual(yield* server.interrupt, 0)
    }))

  it.live("a name is asked for until it is one, and free again when its owner has left", () =>
    Effect.gen(function*() {
      const server = yield* listening(file, "--port", "0")
      const ada = yield* member(server.port, "ada")
      const other = yield* client(server.port)
      for (const name of ["ada", "", "not a name"]) other.say(name)
      yield* eventually("three refusals", () => other.lines.length === 4)
      ada.socket.end()
      yield* eventually("the end", () => ada.ended === "end")
      other.say("ada")
      yield* other.hears("* Here: ada.")
    }))

  it.live("a line that is no UTF-8 is refused, one that is too long ends its connection, and nobody else notices", () =>
    Effect.gen(function*() {
      const server = yield* listening(file, "--port", "0")
      const ada = yield* member(server.port, "ada")
      const bob = yield* member(server.port, "bob")
      bob.socket.write(Uint8Array.of(0xff, 0xfe, 10))
      yield* bob.hears("* UTF-8, please.")
      bob.say("better?")
      yield* ada.hears("bob: better?")
      bob.say("x".repeat(1025))
      yield* ada.hears("* bob has left.")
      ada.say("anybody?")
      const cy = yield* member(server.port, "cy")
      yield* ada.hears("* cy has come.")
      assert.deepStrictEqual(cy.lines, ["* Who are you?", "* Here: ada, cy."])
    }))

  it.live("who has stopped talking still hears what was said before", () =>
    Effect.gen(function*() {
      const server = yield* listening(file, "--port", "0")
      const ada = yield* member(server.port, "ada")
      const bob = yield* client(server.port)
      // As `printf 'bob\nhello\n' | nc -N` does.
      bob.socket.end("bob\nhello\n")
      yield* Effect.all([ada.hears("bob: hello"), ada.hears("* bob has left.")])
      yield* eventually("the end", () => bob.ended === "end")
      assert.deepStrictEqual(bob.lines, ["* Who are you?", "* Here: ada, bob."])
    }))

  it.live("who does not read is disconnected, and holds up nobody", () =>
    Effect.gen(function*() {
      const server = yield* listening(file, "--port", "0")
      const ada = yield* member(server.port, "ada")
      const bob = yield* member(server.port, "bob")
      const slow = yield* member(server.port, "slow")
      slow.socket.pause()
      // More than the kernel keeps for two ends of a connection that nobody reads.
      const text = "x".repeat(1000)
      let said = 0
      while (!bob.lines.includes("* slow has left.")) {
        assert.isBelow(said, 100_000, "the slow member is still there")
        // Never more at once than a member may be behind, so that bob is not slow.
        for (let i = 0; i < 90; i++) ada.say(`${said++} ${text}`)
        yield* bob.hears(`ada: ${said - 1} ${text}`, 8000)
      }
      const heard = bob.lines.filter((line) => line.startsWith("ada: "))
      assert.deepStrictEqual(heard.map((line) => Number(line.split(" ")[1])), Array.from({ length: said }, (_, i) => i))
      slow.socket.resume()
      yield* eventually("the disconnection", () => slow.ended === "reset")
      // The first lines are whole and in order, as far as they came.
      const slowHeard = slow.lines.filter((line) => line.startsWith("ada: "))
      assert.deepStrictEqual(slowHeard, heard.slice(0, slowHeard.length))
      assert.isBelow(slowHeard.length, said)
    }))
})

/** Which transport is taken, in processes where one thing or another is missing. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawnSync } from "node:child_process"
import * as AutoTransport from "../../src/transport/AutoTransport.ts"
import { isSupported } from "../../src/transport/EpollTransport.ts"
import * as Write from "../../src/Write.ts"
import { connection } from "../support/connection.ts"
import { missing } from "./missing.ts"

const say = (...args: ReadonlyArray<string>): string => {
  const { stderr, stdout } = spawnSync(process.execPath, args, { cwd: import.meta.dirname, encoding: "utf8" })
  return stdout === "" ? stderr : stdout
}

const nothing = "loaded: module false, koffi false"

describe("AutoTransport", () => {
  it.live("connects and serves, whichever it is", () =>
    Effect.gen(function*() {
      const [client, server] = yield* connection()
      yield* Write.writeAll(client, new Uint8Array(3))
      assert.strictEqual(yield* server.readSome(new Uint8Array(9)), 3)
    }).pipe(Effect.scoped, Effect.provide(AutoTransport.layer)))

  it.skipIf(!isSupported())("is epoll where that runs", () => {
    assert.strictEqual(say("auto-support.ts"), "epoll, loaded: module true, koffi true\nDebug: transport: epoll\n")
  })

  it("is node on other platforms, and loads nothing of epoll", () => {
    assert.strictEqual(
      say("auto-support.ts", "darwin"),
      `node, ${nothing}\nDebug: transport: node, because the platform is darwin, and epoll is Linux's\n`
    )
  })

  it.skipIf(!isSupported())("is node in a worker thread, and loads nothing of epoll", () => {
    assert.strictEqual(
      say("auto-support.ts", "worker"),
      `node, ${nothing}\nDebug: transport: node, because this is a worker thread, whose event loop cannot be reached\n`
    )
  })

  it.skipIf(!isSupported())(
    "is node in a worker of a cluster, which shares what listens there, and loads nothing of epoll",
    () => {
      assert.strictEqual(
        say("auto-support.ts", "cluster"),
        `node, ${nothing}\nDebug: transport: node, because this is a worker of node:cluster, ` +
          "which shares the listeners of node:net only\n"
      )
    }
  )

  it.skipIf(!isSupported())("is node without koffi, and loads nothing of epoll", () => {
    assert.strictEqual(
      say(missing("_resolveFilename", "not found"), "auto-support.ts"),
      `node, ${nothing}\nDebug: transport: node, because the package koffi is not installed\n`
    )
  })

  it.skipIf(!isSupported())("is node with a warning where epoll was to be had and failed", () => {
    assert.strictEqual(
      say(missing("_load", "no binary for this system"), "auto-support.ts"),
      "node, loaded: module true, koffi false\nWarn: transport: node, because epoll failed: SocketError: " +
        "EpollTransport.layer: EpollTransport (no binary for this system; use NodeTransport) is not supported here\n"
    )
    assert.strictEqual(
      say("auto-support.ts", "broken"),
      "node, loaded: module true, koffi false\nWarn: transport: node, because epoll failed: Error: on purpose\n"
    )
  })
})

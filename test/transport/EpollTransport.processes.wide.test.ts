/** Scripts in processes of their own: how long they live, how they end, where the transport runs, and how many it can serve. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { fork, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { isSupported } from "../../src/transport/EpollTransport.ts"
import { missing } from "./missing.ts"

const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

describe.skipIf(!isSupported())("a process with EpollTransport", () => {
  /** Runs a script of this folder, and gives what it printed and how it ended. */
  const run = (args: ReadonlyArray<string>, command: string = process.execPath) =>
    Effect.promise(async () => {
      const child = spawn(command, args, { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "pipe"] })
      let output = ""
      let errors = ""
      child.stdout.on("data", (chunk) => (output += String(chunk)))
      child.stderr.on("data", (chunk) => (errors += String(chunk)))
      const [code, signal] = await once(child, "close")
      return { output, errors, code, signal }
    })

  const script = (...args: Parameters<typeof run>) =>
    Effect.map(run(...args), ({ code, errors, output, signal }) => {
      assert.deepStrictEqual([code, signal], [0, null], output + errors)
      return output
    })

  const endings: Readonly<Record<string, string>> = {
    idle: "connections and listeners are idle",
    closed: "they are closed",
    cancelled: "whoever waited was cancelled",
    unread: "whoever waited was served by bytes that were put back"
  }
  for (const [what, when] of Object.entries(endings)) {
    it.live(`ends by itself when ${when}`, () =>
      Effect.gen(function*() {
        const child = yield* Effect.acquireRelease(
          Effect.sync(() => fork(join(import.meta.dirname, "epoll-alive.ts"), [what], { silent: true })),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        let output = ""
        child.stdout?.on("data", (chunk) => (output += String(chunk)))
        const [code] = yield* Effect.promise(() => once(child, "close"))
        assert.deepStrictEqual([code, output], [0, "done\n"])
      }))
  }

  // Each of them waits with nothing else to keep the process, and ends when the peer has come.
  for (
    const [what, said] of [
      ["accept", "done\n"],
      ["read", "read line\ndone\n"],
      ["second", "read line\ndone\n"],
      ["write", "wrote 20000000\ndone\n"]
    ]
  ) {
    it.live(`lives as long as a fiber waits: ${what}`, () =>
      Effect.gen(function*() {
        const child = fork(join(import.meta.dirname, "epoll-alive.ts"), [what!], { silent: true })
        let output = ""
        child.stdout?.on("data", (chunk) => (output += String(chunk)))
        const [port] = yield* Effect.promise(() => once(child, "message"))
        const closed = once(child, "close")
        // Its channel to us is gone: nothing but the socket keeps it.
        yield* Effect.promise(() => once(child, "disconnect"))
        yield* Effect.sleep(100)
        const peer = Net.connect(Number(port), "127.0.0.1").on("error", () => {})
        yield* Effect.promise(() => once(peer, "connect"))
        yield* Effect.sleep(100)
        peer.resume().write("line\n")
        const [code] = yield* Effect.promise(() => closed)
        assert.deepStrictEqual([code, output], [0, said])
        peer.destroy()
      }))
  }

  const seeds = [1, Date.now() % 100_000]
  for (const seed of seeds) {
    it.live(
      `never crashes: collecting memory under a storm of random closes (seed ${seed})`,
      () =>
        Effect.gen(function*() {
          const output = yield* script(["--expose-gc", "epoll-stress.ts", "end", String(seed)])
          assert.strictEqual(output, "calm; 0 sockets left\n")
        }),
      30_000
    )

    it.live(`never crashes: process.exit in the middle of the storm (seed ${seed})`, () =>
      Effect.gen(function*() {
        const { code, errors, signal } = yield* run(["--expose-gc", "epoll-stress.ts", "exit", String(seed)])
        assert.deepStrictEqual([code, signal], [3, null], errors)
      }))

    it.live(
      `never crashes: an error that nobody catches in the middle of the storm (seed ${seed})`,
      () =>
        Effect.gen(function*() {
          const { code, errors, signal } = yield* run(["--expose-gc", "epoll-stress.ts", "throw", String(seed)])
          assert.deepStrictEqual([code, signal], [1, null], errors)
          assert.include(errors, "on purpose")
        }),
      30_000
    )
  }

  it.live("a callback that throws costs only itself", () =>
    Effect.gen(function*() {
      const lines = (yield* script(["epoll-throw.ts"])).trimEnd().split("\n")
      assert.sameMembers(lines, ["caught on purpose", "the others heard theirs"])
    }))

  it.live("out of descriptors: accepting pauses, and everybody is served when some are free again", () =>
    Effect.gen(function*() {
      const output = yield* script(["-c", `ulimit -n 80 && exec "${process.execPath}" epoll-exhaust.ts`], "sh")
      assert.strictEqual(output, "connect: TooManyOpenFiles\nserve: EMFILE\nall are served\n")
    }))

  const limit = Number(spawnSync("sh", ["-c", "ulimit -n"], { encoding: "utf8" }).stdout)
  const count = Math.min(10_000, (Number.isNaN(limit) ? 10_000 : limit) - 200)
  it.live(
    `${count} connections at once echo, a third is cut in the middle of a write, and none is left`,
    () =>
      Effect.gen(function*() {
        const output = yield* script(["epoll-many.ts", String(count)])
        const third = Math.ceil(count / 3)
        assert.strictEqual(
          output,
          `${count} at once, ${count} and ${count - third} echo, ${third} of ${third} cut\n` +
            `0 sockets left here\n${count} were served, 0 sockets left there\n`
        )
      }),
    120_000
  )

  const canTrace = spawnSync("strace", ["-c", "true"]).status === 0
  it.live.skipIf(!canTrace)(
    "two system calls for a message, besides the waits that all share",
    () =>
      Effect.gen(function*() {
        const messages = 1000
        const file = join(directory, "strace")
        yield* script(["epoll-echo.ts", String(messages), file])
        const rows = readFileSync(file, "utf8").split("\n").map((row) => row.trim().split(/ +/))
        const calls = (name: string) => Number(rows.find((row) => row.at(-1) === name)?.[3])
        // Each of the ten connections has one more of each on its way when the last message is counted, and an attempt
        // to read before its first.
        assert.isAtLeast(calls("recvfrom"), messages)
        assert.isAtMost(calls("recvfrom"), messages + 50)
        assert.isAtLeast(calls("sendto"), messages)
        assert.isAtMost(calls("sendto"), messages + 20)
      }),
    60_000
  )
})

describe("where EpollTransport can run", () => {
  const say = (...args: ReadonlyArray<string>): string =>
    spawnSync(process.execPath, args, { cwd: import.meta.dirname, encoding: "utf8" }).stdout

  const unsupported = (why: string) =>
    `not supported, 0 loaded, Unsupported: EpollTransport (${why}; use NodeTransport)\n`

  it.skipIf(!isSupported())("here, and asking loads nothing", () => {
    assert.strictEqual(say("epoll-support.ts"), "supported, 0 loaded, works\n")
  })

  it("not on other platforms and architectures", () => {
    assert.strictEqual(
      say("epoll-support.ts", "darwin"),
      unsupported("the platform is darwin, and epoll is Linux's")
    )
    assert.strictEqual(say("epoll-support.ts", "linux", "ia32"), unsupported("the architecture is ia32"))
  })

  it.skipIf(!isSupported())("not in a worker thread", () => {
    assert.strictEqual(
      say("epoll-support.ts", "worker"),
      unsupported("this is a worker thread, whose event loop cannot be reached")
    )
  })

  it.skipIf(!isSupported())("not where native code is forbidden", () => {
    assert.strictEqual(
      say("--permission", "--allow-fs-read=*", "epoll-support.ts"),
      unsupported("the permission model forbids native code")
    )
    assert.strictEqual(
      say("--permission", "--allow-fs-read=*", "--allow-addons", "epoll-support.ts"),
      "supported, 0 loaded, works\n"
    )
  })

  it.skipIf(!isSupported())("not where Node loads no native code at all", () => {
    const why = unsupported("Node runs with --no-addons, which forbids native code")
    assert.strictEqual(say("--no-addons", "epoll-support.ts"), why)
    const { stdout } = spawnSync(process.execPath, ["epoll-support.ts"], {
      cwd: import.meta.dirname,
      encoding: "utf8",
      env: { ...process.env, NODE_OPTIONS: "--no-warnings --no-addons" }
    })
    assert.strictEqual(stdout, why)
  })

  it.skipIf(!isSupported())("not without koffi", () => {
    assert.strictEqual(
      say(missing("_resolveFilename", "not found"), "epoll-support.ts"),
      unsupported("the package koffi is not installed")
    )
  })

  it.skipIf(!isSupported())("not where koffi does not load, which only loading it shows", () => {
    assert.strictEqual(
      say(missing("_load", "no binary for this system"), "epoll-support.ts"),
      "supported, 0 loaded, Unsupported: EpollTransport (no binary for this system; use NodeTransport)\n"
    )
  })
})

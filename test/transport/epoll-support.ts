/**
 * Says whether the epoll transport can be used here, and what becomes of its layer.
 *
 *     node test/transport/epoll-support.ts [worker | PLATFORM [ARCH]]
 */
import * as Effect from "effect/Effect"
import { once } from "node:events"
import { isMainThread, Worker } from "node:worker_threads"
import type { SocketError } from "../../src/SocketError.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"

const [what, arch] = process.argv.slice(2)

const reasonOf = ({ reason }: SocketError): string => reason._tag === "Unsupported" ? reason.feature : reason._tag

const say = async (): Promise<void> => {
  const isSupported = EpollTransport.isSupported()
  // Asking has loaded no native code.
  const loaded = process.report === undefined ? [] : sharedObjects().filter((name) => name.includes("koffi"))
  const layer = await Effect.runPromise(
    Effect.void.pipe(
      Effect.provide(EpollTransport.layer),
      Effect.as("works"),
      Effect.catch((error) => Effect.succeed(`${error.reason._tag}: ${reasonOf(error)}`))
    )
  )
  console.log(`${isSupported ? "supported" : "not supported"}, ${loaded.length} loaded, ${layer}`)
}

const sharedObjects = (): ReadonlyArray<string> => {
  const report = process.report.getReport() as { readonly sharedObjects?: ReadonlyArray<string> }
  return report.sharedObjects ?? []
}

if (what === "worker" && isMainThread) await once(new Worker(new URL(import.meta.url)), "exit")
else {
  if (what !== undefined && what !== "worker") Object.defineProperty(process, "platform", { value: what })
  if (arch !== undefined) Object.defineProperty(process, "arch", { value: arch })
  await say()
}

/**
 * Says which transport `AutoTransport` takes here, what it says of it, and what was loaded for it.
 *
 *     node test/transport/auto-support.ts [worker | cluster | PLATFORM | broken]
 */
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import cluster from "node:cluster"
import { once } from "node:events"
import * as Module from "node:module"
import { isMainThread, Worker } from "node:worker_threads"
import { Transport } from "../../src/Transport.ts"

const [what] = process.argv.slice(2)

const loaded: Array<string> = []
Module.registerHooks({
  load: (url, context, next) => {
    loaded.push(url)
    if (what === "broken" && url.endsWith("/EpollTransport.ts")) throw new Error("on purpose")
    return next(url, context)
  }
})

const say = async (): Promise<void> => {
  const { layer } = await import("../../src/transport/AutoTransport.ts")
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel}: ${String(message)}`))
  const name = await Effect.runPromise(
    Effect.map(Transport, (transport) => transport.name).pipe(
      Effect.provide(layer),
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, "Debug")
    )
  )
  const native = sharedObjects().some((file) => file.includes("koffi"))
  const module = loaded.some((url) => url.endsWith("/EpollTransport.ts"))
  console.log(`${name}, loaded: module ${module}, koffi ${native}\n${lines.join("\n")}`)
}

const sharedObjects = (): ReadonlyArray<string> => {
  const report = process.report.getReport() as { readonly sharedObjects?: ReadonlyArray<string> }
  return report.sharedObjects ?? []
}

if (what === "worker" && isMainThread) await once(new Worker(new URL(import.meta.url), { argv: [what] }), "exit")
else if (what === "cluster" && cluster.isPrimary) await once(cluster.fork(), "exit")
else {
  if (what === "darwin") Object.defineProperty(process, "platform", { value: what })
  await say()
  cluster.worker?.disconnect()
}

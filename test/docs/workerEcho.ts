/** The other thread of `workerStream.process.test.ts`: echoes lines, and exits without a word at the line "exit". */
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import { type MessagePort, workerData } from "node:worker_threads"
import { Buffers, Read, StreamSocket, Write } from "../../src/index.ts"
import { makeBacking } from "./workerStream.ts"

const port: MessagePort = workerData
const socket = StreamSocket.make(makeBacking(port))

await Effect.runPromise(
  Read.readLine(socket, { max: 2_000_000 }).pipe(
    Effect.flatMap((line) =>
      line === "exit" ? Effect.sync(() => process.exit()) : Write.writeAll(socket, Buffers.utf8(`${line}\n`))
    ),
    Effect.forever,
    Pull.catchDone(() => socket.close)
  )
)

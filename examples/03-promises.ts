// The same sockets in async/await code, without Effect: for await, await using, and writes under an AbortSignal.
//
//   node examples/03-promises.ts        (needs `await using`: Node 24 or later)
//
// A server and its clients talk over loopback in one process. First an echo; then 32 MiB to a server that does not
// read. The time-out of that write says how many bytes left, and the rest follows when the server is ready.
import { Buffers, SocketError } from "../src/index.ts"
import { connect, listen, type Socket } from "../src/promises.ts"

const count = (bytes: number): string => bytes.toLocaleString("en")

const echo = async (accepted: Socket): Promise<void> => {
  // Closed at the end of the block, however that is reached.
  await using socket = accepted
  for await (const chunk of socket) await socket.writeAll(chunk)
}

const talk = async (): Promise<void> => {
  await using listener = await listen("127.0.0.1:0")
  await using client = await connect(listener.address)
  // Whatever the echo rejects with comes out where it is awaited.
  const echoing = echo(await listener.accept())
  for (const word of ["hello", "from", "async", "code"]) {
    await client.writeAll(Buffers.utf8(`${word}\n`))
    const line = await client.readUntil("\n", { max: 1024, signal: AbortSignal.timeout(5000) })
    console.log(line === null ? "(the end)" : `echoed: ${Buffers.toUtf8(line).trimEnd()}`)
  }
  // End of stream, and the loop of the echo is over.
  await client.shutdownWrite()
  await echoing
}

const stopAndGoOn = async (): Promise<void> => {
  await using listener = await listen("127.0.0.1:0")
  await using client = await connect(listener.address)
  await using server = await listener.accept()
  const message = Buffers.cursor(new Uint8Array(32 * 1_048_576))

  try {
    // "partial": stop where the stream stays usable. The default is "terminal", which tears it.
    await client.writeAll(message, { signal: AbortSignal.timeout(200), type: "partial" })
  } catch (error) {
    if (!SocketError.isSocketError(error) || error.reason._tag !== "OperationAborted") throw error
    console.log(error.message)
  }

  // The server begins to read, and the cursor knows where to go on: not one byte twice.
  const received = server.readAll({ max: message.total })
  const rest = await client.writeAll(message)
  await client.shutdownWrite()
  console.log(`${count(rest)} bytes later, the server has ${count((await received).byteLength)}`)
}

await talk()
await stopAndGoOn()

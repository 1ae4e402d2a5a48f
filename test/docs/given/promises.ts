/** What the examples that are written as the body of an async function may use without an import. */
import type { Listener, Socket } from "../../../src/promises.ts"

export { Redacted } from "effect"
export { Buffers, SocketError } from "../../../src/index.ts"
export { connect, listen, type Listener, type Socket } from "../../../src/promises.ts"

export declare const socket: Socket
export declare const listener: Listener
export declare const bytes: Uint8Array
export declare const header: Uint8Array
export declare const body: Uint8Array
export declare const signal: AbortSignal
export declare const request: { readonly signal: AbortSignal }
export declare const certificate: string
export declare const key: string
export declare const serve: (socket: Socket) => Promise<void>

/** @since 0.1.0 */
export * as MemoryTransport from "./MemoryTransport.ts"
export * as ScriptedStream from "./ScriptedStream.ts"
export * as StreamChecks from "./StreamChecks.ts"

import * as Entity from "effect/cluster/Entity"
import * as Rpc from "effect/rpc/Rpc"
import * as Schema from "effect/Schema"
import type * as Server from "../../../src/Server.ts"

/** Answers for one entity id, and says which process it does so in. */
export const Greeter = Entity.make("Greeter", [
  Rpc.make("Greet", {
    payload: { name: Schema.String },
    success: Schema.Struct({ greeting: Schema.String, pid: Schema.Int })
  }),
  Rpc.make("Count", { payload: { to: Schema.Int }, success: Schema.Int, stream: true })
])

/** One answer of an entity, as a runner passes it on. */
export interface Answer {
  readonly id: string
  readonly greeting: string
  readonly pid: number
  readonly counted: ReadonlyArray<number>
}

/** What the test tells a runner, one JSON line each. A runner stops when its input ends. */
export type Command = { readonly ask: ReadonlyArray<string> }

/** What a runner tells the test, one JSON line each. */
export type Event =
  | { readonly _tag: "Listening"; readonly port: number }
  /** The shards that it holds have changed. */
  | { readonly _tag: "Holds"; readonly shards: ReadonlyArray<number> }
  | { readonly _tag: "Answers"; readonly answers: ReadonlyArray<Answer> }
  /** Bytes that went through this library's sockets, and how its server was at its end. */
  | {
    readonly _tag: "Stopped"
    readonly bytesRead: number
    readonly bytesWritten: number
    readonly server: Pick<Server.Health, "accepted" | "connections" | "failures" | "state">
  }

export const shards = 12

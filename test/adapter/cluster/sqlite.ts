import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import { DatabaseSync, type SQLInputValue } from "node:sqlite"

/** A database file through Node's own SQLite: as much of a client as the storage of cluster runners asks for. */
export const layer = (path: string): Layer.Layer<SqlClient.SqlClient> =>
  Layer.effect(SqlClient.SqlClient)(Effect.gen(function*() {
    const database = yield* Effect.acquireRelease(
      Effect.sync(() => new DatabaseSync(path, { timeout: 5000 })),
      (database) => Effect.sync(() => database.close())
    )
    database.exec("PRAGMA journal_mode = WAL")

    const query = (sql: string, params: ReadonlyArray<unknown>) =>
      Effect.try({
        try: () => database.prepare(sql).all(...params as ReadonlyArray<SQLInputValue>),
        catch: (cause) => new SqlError({ reason: classifySqliteError(cause, { operation: "execute" }) })
      })
    const execute: Connection["execute"] = (sql, params, transformRows) =>
      Effect.map(query(sql, params), (rows) => transformRows === undefined ? rows : transformRows(rows))
    const executeValues: Connection["executeValues"] = (sql, params) =>
      Effect.map(query(sql, params), (rows) => rows.map((row) => Object.values(row)))
    const connection: Connection = {
      execute,
      executeUnprepared: execute,
      executeRaw: query,
      executeValues,
      executeValuesUnprepared: executeValues,
      executeStream: () => Stream.die("not used")
    }
    return yield* SqlClient.make({
      ...SqlClient.makeSqliteAcquirers({
        connection: Effect.succeed(connection),
        semaphore: yield* Semaphore.make(1),
        isTransaction: () => database.isTransaction
      }),
      compiler: Statement.makeCompilerSqlite(),
      driver: "sqlite",
      // Two processes write to the file: one that may write waits here, and not for ever in the middle.
      beginTransaction: "BEGIN IMMEDIATE",
      spanAttributes: []
    })
  })).pipe(Layer.provide(Reactivity.layer))

import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as RateLimiter from "effect/persistence/RateLimiter"
import type { Relay } from "../../src/index.ts"

/**
 * A stream that is read at so many bytes per second and written as before. It is no socket of ours any more, only an
 * object with a `readSome`; composed reads and `Relay` work on any of these.
 *
 * In t seconds at most `bytesPerSecond` * t bytes are read, and a fifth of a second's more after a silence: a tenth that
 * has been saved, and a tenth on credit.
 */
export const throttled = (
  socket: Relay.DuplexStream,
  bytesPerSecond: number
): Effect.Effect<Relay.DuplexStream> =>
  Effect.gen(function*() {
    // A store of its own, which goes away with the connection.
    const limiter = yield* Effect.provide(RateLimiter.make, RateLimiter.layerStoreMemory, { local: true })
    const limit = Math.ceil(bytesPerSecond / 10)
    const bucket = {
      key: "bytes read",
      algorithm: "token-bucket",
      window: Duration.seconds(limit / bytesPerSecond),
      limit
    } as const
    const outOfDebt = Effect.orDie(RateLimiter.sleep(limiter, { ...bucket, tokens: 0 }))
    const pay = (tokens: number) => Effect.orDie(limiter.consume({ ...bucket, onExceeded: "delay", tokens }))
    return {
      // Waits first and pays later, so that an interrupted read has read nothing: a read that waited with bytes in
      // hand would lose them.
      readSome: (target) =>
        Effect.uninterruptibleMask((restore) =>
          restore(Effect.andThen(outOfDebt, socket.readSome(target.subarray(0, limit)))).pipe(Effect.tap(pay))
        ),
      writeSome: socket.writeSome,
      shutdownWrite: socket.shutdownWrite
    }
  })

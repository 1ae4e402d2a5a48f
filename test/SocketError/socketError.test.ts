import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { constants } from "node:os"
import { inspect } from "node:util"
import {
  type ConnectAttempt,
  describe as describeReason,
  during,
  fromErrno,
  isSocketError,
  Reason,
  SocketError
} from "../../src/SocketError.ts"

const tcp = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:7000")
const tcp6 = NetAddress.inetAddressFromStringUnsafe("[::1]:7000")
const unix = NetAddress.unixPathAddress("/run/app.sock")
const name = Result.getOrThrow(Host.hostPortFromInput("db.internal:5432"))

const refused = new SocketError({
  reason: Reason.ConnectionRefused(),
  operation: "connect",
  address: tcp,
  transferred: 0,
  code: "ECONNREFUSED"
})

type Tag = Reason["_tag"]

const attempted: ConnectAttempt = {
  address: tcp,
  reason: Reason.ConnectionRefused(),
  code: "ECONNREFUSED",
  startedAfter: Duration.millis(250),
  took: Duration.millis(1234)
}

/** One of each reason, and words that its message has to contain. The type asks for all of them. */
const samples: { readonly [K in Tag]: readonly [Extract<Reason, { readonly _tag: K }>, ReadonlyArray<string>] } = {
  Closed: [Reason.Closed(), ["closed"]],
  Consumed: [Reason.Consumed({ by: "Tls.client" }), ["handed over", "Tls.client"]],
  Busy: [Reason.Busy({ detail: "readSome waits on the stream" }), ["busy", "readSome waits on the stream"]],
  Torn: [Reason.Torn({ transferred: 1000, total: 33_554_432 }), ["torn", "1,000 of 33,554,432 bytes"]],
  OperationAborted: [
    Reason.OperationAborted({ type: "partial", transferred: 1, total: 2 }),
    ["cancelled", "partial", "1 of 2 bytes"]
  ],
  UnexpectedEof: [Reason.UnexpectedEof(), ["ended"]],
  LimitExceeded: [Reason.LimitExceeded({ limit: 4096, subject: "the line" }), ["the line", "4,096"]],
  ConnectionReset: [Reason.ConnectionReset(), ["reset"]],
  BrokenPipe: [Reason.BrokenPipe(), ["broken pipe"]],
  ConnectionRefused: [Reason.ConnectionRefused(), ["refused"]],
  ConnectionAborted: [Reason.ConnectionAborted(), ["aborted"]],
  TimedOut: [Reason.TimedOut(), ["timed out"]],
  HostUnreachable: [Reason.HostUnreachable(), ["host unreachable"]],
  NetworkUnreachable: [Reason.NetworkUnreachable(), ["network unreachable"]],
  NetworkDown: [Reason.NetworkDown(), ["network down"]],
  NotConnected: [Reason.NotConnected(), ["not connected"]],
  AddressInUse: [Reason.AddressInUse(), ["in use"]],
  AddressNotAvailable: [Reason.AddressNotAvailable(), ["address"]],
  PermissionDenied: [Reason.PermissionDenied(), ["permission"]],
  TooManyOpenFiles: [Reason.TooManyOpenFiles(), ["open files"]],
  NoBufferSpace: [Reason.NoBufferSpace(), ["buffer space"]],
  NameResolution: [Reason.NameResolution({ host: "db.internal", detail: "no such name" }), [
    "db.internal",
    "no such name"
  ]],
  ConnectFailed: [
    Reason.ConnectFailed({ attempts: [attempted, attempted], untried: 0 }),
    ["all 2 addresses", "127.0.0.1:7000", "ECONNREFUSED", "after 1,234 ms"]
  ],
  Tls: [Reason.Tls({ kind: "certificate", detail: "it has expired" }), ["TLS", "certificate", "it has expired"]],
  Framing: [Reason.Framing({ detail: "length 7 in a frame of 3" }), ["length 7 in a frame of 3"]],
  Untrusted: [Reason.Untrusted(), ["not trusted"]],
  Unsupported: [Reason.Unsupported({ feature: "SO_ZEROCOPY" }), ["SO_ZEROCOPY"]],
  Unknown: [Reason.Unknown(), ["failed"]]
}

// Object.keys forgets the key type; `samples` has exactly the tags as keys.
const tags = Object.keys(samples) as ReadonlyArray<Tag>

const failing = (reason: Reason): Effect.Effect<never, SocketError> =>
  Effect.fail(new SocketError({ reason, operation: "writeAll", address: tcp, transferred: 5, total: 10 }))

describe("SocketError", () => {
  for (const tag of tags) {
    const [reason, words] = samples[tag]

    it(`${tag}: the message is one line with what, where, why and how far`, () => {
      const error = new SocketError({
        reason,
        operation: "writeAll",
        address: tcp,
        transferred: 65_536,
        total: 1_000_000,
        code: "ESOMETHING"
      })
      for (const word of ["writeAll", "tcp://127.0.0.1:7000", "ESOMETHING", ...words]) {
        assert.include(error.message, word)
      }
      // Two reasons tell a progress of their own, and a second count would only confuse.
      const progress = error.message.includes("65,536 of 1,000,000 bytes")
      assert.strictEqual(progress, tag !== "Torn" && tag !== "OperationAborted")
      assert.notInclude(error.message, "\n")
      assert.notInclude(error.message, "undefined")
      assert.notInclude(error.message, "[object")
      assert.include(error.message, describeReason(reason))
      assert.include(String(error), error.message)
    })

    it(`${tag}: JSON.stringify keeps every field`, () => {
      const error = new SocketError({
        reason,
        operation: "readUntil",
        address: unix,
        transferred: 3,
        total: 9,
        code: "ECODE",
        cause: new Error("the system said no")
      })
      const { cause, ...fields } = JSON.parse(JSON.stringify(error))
      assert.include(cause, "the system said no")
      assert.deepStrictEqual(fields, {
        _tag: "SocketError",
        message: error.message,
        // Plain data survives as it is; the attempts of ConnectFailed become what they say of themselves.
        reason: JSON.parse(JSON.stringify(reason)),
        operation: "readUntil",
        address: "unix:///run/app.sock",
        transferred: 3,
        total: 9,
        code: "ECODE"
      })
    })
  }

  it("JSON.stringify keeps each attempt of a failed connect", () => {
    const error = new SocketError({
      reason: Reason.ConnectFailed({ attempts: [attempted], untried: 3 }),
      operation: "connect",
      address: name,
      transferred: 0
    })
    const json: unknown = JSON.parse(JSON.stringify(error))
    assert.deepNestedPropertyVal(json, "address", "tcp://db.internal:5432")
    assert.deepNestedPropertyVal(json, "reason.attempts[0].reason._tag", "ConnectionRefused")
    assert.deepNestedPropertyVal(json, "reason.attempts[0].address", "127.0.0.1:7000")
    assert.deepNestedPropertyVal(json, "reason.attempts[0].code", "ECONNREFUSED")
    assert.deepNestedPropertyVal(json, "reason.attempts[0].took.millis", 1234)
    assert.deepNestedPropertyVal(json, "reason.untried", 3)
  })

  it("a failed connect says how many addresses were tried, and shows the first ones", () => {
    const described = (count: number, untried: number) =>
      describeReason(Reason.ConnectFailed({ attempts: Array.from({ length: count }, () => attempted), untried }))
    const one = "tcp://127.0.0.1:7000 connection refused (ECONNREFUSED) after 1,234 ms"
    assert.strictEqual(described(2, 0), `all 2 addresses failed: ${one}; ${one}`)
    assert.strictEqual(described(4, 0), `all 4 addresses failed: ${one}; ${one}; ${one}; ${one}`)
    assert.strictEqual(
      described(16, 984),
      `16 of 1,000 addresses tried, all failed: ${one}; ${one}; ${one}; ${one}; and 12 more`
    )
    assert.strictEqual(described(0, 2), "timed out before any of 2 addresses was tried")
  })

  it("survives JSON.stringify whatever its cause is", () => {
    const circular: { self?: unknown } = {}
    circular.self = circular
    for (const cause of [circular, Object.create(null), Symbol("s"), 10n, () => 1, "text", null, 0]) {
      const error = new SocketError({ reason: Reason.Unknown(), operation: "read", transferred: 0, cause })
      const { message } = JSON.parse(JSON.stringify(error))
      assert.strictEqual(message, error.message)
    }
  })

  it("leaves out of the message what is not known", () => {
    const message = (fields: Partial<ConstructorParameters<typeof SocketError>[0]>) =>
      new SocketError({ reason: Reason.ConnectionReset(), operation: "readSome", transferred: 0, ...fields }).message
    assert.strictEqual(message({}), "readSome: connection reset by the peer")
    assert.strictEqual(message({ transferred: 7 }), "readSome: connection reset by the peer after 7 bytes")
    assert.strictEqual(message({ total: 8 }), "readSome: connection reset by the peer after 0 of 8 bytes")
    assert.strictEqual(
      message({ address: tcp6, code: "ECONNRESET" }),
      "readSome tcp://[::1]:7000: connection reset by the peer (ECONNRESET)"
    )
    assert.strictEqual(message({ address: unix }), "readSome unix:///run/app.sock: connection reset by the peer")
    assert.strictEqual(message({ address: name }), "readSome tcp://db.internal:5432: connection reset by the peer")
  })

  it("a cancelled operation tells what was kept, and whether it was its deadline", () => {
    const message = (reason: Parameters<typeof Reason.OperationAborted>[0]) =>
      new SocketError({
        reason: Reason.OperationAborted(reason),
        operation: "writeAll",
        address: tcp,
        transferred: reason.transferred,
        total: reason.total
      }).message
    const where = "writeAll tcp://127.0.0.1:7000: cancelled"
    assert.strictEqual(
      message({ type: "terminal", transferred: 65_536, total: 33_554_432 }),
      `${where} after 65,536 of 33,554,432 bytes (terminal, stream torn)`
    )
    assert.strictEqual(message({ type: "partial", transferred: 1, total: 2 }), `${where} after 1 of 2 bytes (partial)`)
    assert.strictEqual(message({ type: "total", transferred: 1, total: 1 }), `${where} after 1 of 1 byte (total)`)
    assert.strictEqual(message({ type: "total", transferred: 0, total: 5 }), `${where} before it did anything (total)`)
    assert.strictEqual(message({ type: "total", transferred: 0, total: 0 }), `${where} before it did anything (total)`)
    assert.strictEqual(
      message({ type: "partial", transferred: 1, total: 2, deadline: true }),
      `${where} by its deadline after 1 of 2 bytes (partial)`
    )
    assert.strictEqual(
      message({ type: "total", transferred: 0, total: 2, deadline: true }),
      `${where} by its deadline before it did anything (total)`
    )
    assert.strictEqual(
      message({ type: "partial", transferred: 1, total: 2, deadline: false }),
      `${where} after 1 of 2 bytes (partial)`
    )
  })

  it("JSON.stringify keeps that it was the deadline, and the cause of a request", () => {
    const aborted = (deadline: boolean | undefined, cause?: unknown): unknown =>
      JSON.parse(JSON.stringify(
        new SocketError({
          reason: Reason.OperationAborted({ type: "partial", transferred: 1, total: 2, deadline }),
          operation: "writeAll",
          transferred: 1,
          total: 2,
          cause
        })
      ))
    assert.deepNestedPropertyVal(aborted(true), "reason", {
      _tag: "OperationAborted",
      type: "partial",
      transferred: 1,
      total: 2,
      deadline: true
    })
    assert.notNestedProperty(aborted(undefined), "reason.deadline")
    assert.nestedPropertyVal(aborted(undefined, new Error("the user left")), "cause", "the user left")
  })

  it("stays one line when an address, a host or a detail brings line breaks along", () => {
    const error = new SocketError({
      reason: Reason.NameResolution({ host: "a\nb\r\u2028c", detail: "d\ne" }),
      operation: "connect",
      address: NetAddress.unixPathAddress("/tmp/x\n[error] all is lost"),
      transferred: 0
    })
    assert.notMatch(error.message, /[\n\r\u2028]/)
  })

  it("prints its message, whichever way it is printed", () => {
    assert.include(inspect(refused), refused.message)
    assert.include(Cause.pretty(Cause.fail(refused)), refused.message)
    assert.include(refused.stack ?? "", refused.message)
    assert.strictEqual(refused.name, "SocketError")
  })

  it("is an Error, and its guard knows it", () => {
    assert.instanceOf(refused, Error)
    assert.isTrue(isSocketError(refused))
    for (const value of [null, undefined, "SocketError", new Error("SocketError"), {}]) {
      assert.isFalse(isSocketError(value))
    }
  })

  it.effect("catchReason handles one reason and leaves the others", () =>
    Effect.gen(function*() {
      const handled = yield* failing(Reason.Torn({ transferred: 1, total: 2 })).pipe(
        Effect.catchReason("SocketError", "Torn", ({ total, transferred }) => Effect.succeed(`${transferred}/${total}`))
      )
      assert.strictEqual(handled, "1/2")
      const left = yield* failing(Reason.Closed()).pipe(
        Effect.catchReason("SocketError", "Torn", () => Effect.succeed("torn")),
        Effect.flip
      )
      assert.strictEqual(left.reason._tag, "Closed")
      assert.strictEqual(left.transferred, 5)
    }))

  it.effect("catchReasons tells every reason apart", () =>
    Effect.gen(function*() {
      const say = (reason: Reason) => Effect.succeed(reason._tag)
      for (const tag of tags) {
        const caught = yield* failing(samples[tag][0]).pipe(Effect.catchReasons("SocketError", {
          Closed: say,
          Consumed: say,
          Busy: say,
          Torn: say,
          OperationAborted: say,
          UnexpectedEof: say,
          LimitExceeded: say,
          ConnectionReset: say,
          BrokenPipe: say,
          ConnectionRefused: say,
          ConnectionAborted: say,
          TimedOut: say,
          HostUnreachable: say,
          NetworkUnreachable: say,
          NetworkDown: say,
          NotConnected: say,
          AddressInUse: say,
          AddressNotAvailable: say,
          PermissionDenied: say,
          TooManyOpenFiles: say,
          NoBufferSpace: say,
          NameResolution: say,
          ConnectFailed: say,
          Tls: say,
          Framing: say,
          Untrusted: say,
          Unsupported: say,
          Unknown: say
        }))
        assert.strictEqual(caught, tag)
      }
    }))

  describe("fromErrno", () => {
    /** Every code that a stream socket can meet. */
    const table: Readonly<Record<string, Tag>> = {
      EACCES: "PermissionDenied",
      EADDRINUSE: "AddressInUse",
      EADDRNOTAVAIL: "AddressNotAvailable",
      EAFNOSUPPORT: "Unsupported",
      EAGAIN: "NoBufferSpace",
      EALREADY: "Busy",
      EBADF: "Closed",
      EBUSY: "Busy",
      ECANCELED: "Closed",
      ECONNABORTED: "ConnectionAborted",
      ECONNREFUSED: "ConnectionRefused",
      ECONNRESET: "ConnectionReset",
      EDESTADDRREQ: "NotConnected",
      EDOM: "Unsupported",
      EDQUOT: "NoBufferSpace",
      EEXIST: "AddressInUse",
      EFAULT: "Unsupported",
      EHOSTDOWN: "HostUnreachable",
      EHOSTUNREACH: "HostUnreachable",
      EINPROGRESS: "Busy",
      EINTR: "ConnectionAborted",
      EINVAL: "Unsupported",
      EIO: "ConnectionAborted",
      EISCONN: "Busy",
      EISDIR: "AddressInUse",
      ELOOP: "AddressNotAvailable",
      EMFILE: "TooManyOpenFiles",
      EMSGSIZE: "HostUnreachable",
      ENAMETOOLONG: "LimitExceeded",
      ENETDOWN: "NetworkDown",
      ENETRESET: "ConnectionReset",
      ENETUNREACH: "NetworkUnreachable",
      ENFILE: "TooManyOpenFiles",
      ENOBUFS: "NoBufferSpace",
      ENODEV: "AddressNotAvailable",
      ENOENT: "AddressNotAvailable",
      ENOMEM: "NoBufferSpace",
      ENONET: "NetworkDown",
      ENOPROTOOPT: "Unsupported",
      ENOSPC: "NoBufferSpace",
      ENOSR: "NoBufferSpace",
      ENOSYS: "Unsupported",
      ENOTCONN: "NotConnected",
      ENOTDIR: "AddressNotAvailable",
      ENOTSOCK: "Unsupported",
      ENOTTY: "Unsupported",
      ENXIO: "AddressNotAvailable",
      EOPNOTSUPP: "Unsupported",
      EPERM: "PermissionDenied",
      EPFNOSUPPORT: "Unsupported",
      EPIPE: "BrokenPipe",
      EPROTO: "ConnectionAborted",
      EPROTONOSUPPORT: "Unsupported",
      EPROTOTYPE: "Unsupported",
      EROFS: "PermissionDenied",
      ESHUTDOWN: "BrokenPipe",
      ESOCKTNOSUPPORT: "Unsupported",
      ESTALE: "AddressNotAvailable",
      ETIMEDOUT: "TimedOut"
    }

    /** What Linux can answer to each call of a transport, by the manual pages of the calls, of tcp(7), ip(7) and unix(7). */
    const calls: Readonly<Record<string, string>> = {
      "socket":
        "EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT ESOCKTNOSUPPORT EPROTOTYPE EPERM",
      "connect":
        "EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNABORTED ECONNREFUSED ECONNRESET EFAULT EHOSTDOWN EHOSTUNREACH EINPROGRESS EINTR EINVAL EISCONN ELOOP EMSGSIZE ENAMETOOLONG ENETDOWN ENETUNREACH ENOBUFS ENODEV ENOENT ENOMEM ENONET ENOPROTOOPT ENOTDIR ENOTSOCK EOPNOTSUPP EPROTO EPROTOTYPE ETIMEDOUT",
      "bind":
        "EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EBADF EDQUOT EFAULT EINVAL EIO ELOOP ENAMETOOLONG ENODEV ENOENT ENOMEM ENOSPC ENOTDIR ENOTSOCK EPERM EROFS ESTALE",
      "listen": "EADDRINUSE EBADF EDESTADDRREQ EINVAL ENOTSOCK EOPNOTSUPP EACCES ENOMEM",
      "accept4":
        "EAGAIN EBADF ECONNABORTED EFAULT EHOSTDOWN EHOSTUNREACH EINTR EINVAL EMFILE ENETDOWN ENETUNREACH ENFILE ENOBUFS ENOMEM ENONET ENOPROTOOPT ENOSR ENOTSOCK EOPNOTSUPP EPERM EPROTO EPROTONOSUPPORT ESOCKTNOSUPPORT ETIMEDOUT ENOSYS",
      "recv":
        "EAGAIN EBADF ECONNREFUSED ECONNRESET EFAULT EHOSTUNREACH EINTR EINVAL EIO ENETUNREACH ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP ETIMEDOUT",
      "send, sendmsg":
        "EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EHOSTUNREACH EINTR EINVAL EIO EISCONN EMSGSIZE ENETDOWN ENETUNREACH ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE ETIMEDOUT",
      "shutdown": "EBADF EINVAL ENOTCONN ENOTSOCK",
      "setsockopt, getsockopt":
        "EBADF EDOM EFAULT EINVAL EISCONN ENOBUFS ENODEV ENOMEM ENOPROTOOPT ENOTSOCK EOPNOTSUPP EPERM EBUSY",
      "getsockname, getpeername": "EBADF EFAULT EINVAL ENOBUFS ENOTCONN ENOTSOCK",
      "epoll_create1, epoll_ctl, epoll_wait":
        "EBADF EEXIST EFAULT EINTR EINVAL ELOOP EMFILE ENFILE ENOENT ENOMEM ENOSPC EPERM",
      "fcntl, ioctl, close": "EAGAIN EBADF EDQUOT EFAULT EINTR EINVAL EIO ENOSPC ENOTTY EPERM",
      "lstat, unlink": "EACCES EBUSY EFAULT EIO EISDIR ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM EROFS"
    }

    for (const [call, codes] of Object.entries(calls)) {
      it(`says why for every answer to ${call}`, () => {
        const answers = codes.split(" ")
        const unknown = answers.filter((code) =>
          fromErrno({ code }, { operation: "connect" }).reason._tag === "Unknown"
        )
        assert.deepStrictEqual(unknown, [])
      })
    }

    for (const code of new Set([...Object.keys(constants.errno), ...Object.keys(table)])) {
      const expected = table[code] ?? "Unknown"
      it(`${code} is ${expected}`, () => {
        const cause = Object.assign(new Error(`connect ${code}`), { code, errno: -1, syscall: "connect" })
        const error = fromErrno(cause, { operation: "connect", address: tcp })
        assert.strictEqual(error.reason._tag, expected)
        assert.strictEqual(error.code, code)
        assert.strictEqual(error.cause, cause)
        assert.strictEqual(error.transferred, 0)
        assert.include(error.message, code)
        assert.include(error.message, "tcp://127.0.0.1:7000")
      })
    }

    it("is Unknown for anything without a known code", () => {
      for (
        const cause of [
          new Error("plain"),
          "text",
          null,
          undefined,
          { code: 104 },
          { code: "E_NO_SUCH" },
          { code: "constructor" },
          { code: "toString" },
          { code: "__proto__" }
        ]
      ) {
        const error = fromErrno(cause, { operation: "read" })
        assert.strictEqual(error.reason._tag, "Unknown", inspect(cause))
        assert.strictEqual(error.cause, cause)
        assert.include(error.message, "read")
      }
    })
  })

  it("during keeps why and where, and says what and how far anew", () => {
    const cause = new Error("gone")
    const first = fromErrno(Object.assign(cause, { code: "ECONNRESET" }), { operation: "socket", address: tcp })
    const second = during(first, { operation: "writeAll", transferred: 3, total: 9 })
    assert.strictEqual(second.reason, first.reason)
    assert.strictEqual(second.address, tcp)
    assert.strictEqual(second.code, "ECONNRESET")
    assert.strictEqual(second.cause, cause)
    assert.strictEqual(
      second.message,
      "writeAll tcp://127.0.0.1:7000: connection reset by the peer (ECONNRESET) after 3 of 9 bytes"
    )
    assert.isUndefined(during(second, { operation: "readSome", transferred: 0 }).total)
  })
})

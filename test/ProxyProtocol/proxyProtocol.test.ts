import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import { execFile, spawnSync } from "node:child_process"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import * as Read from "../../src/Read.ts"
import { Reason } from "../../src/SocketError.ts"
import { make, type StreamSocket } from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { defect, ending, failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, data, end, take } = ScriptedStream
const { trustAnyone, trustPeers } = ProxyProtocol

const hex = (...digits: ReadonlyArray<string>): Uint8Array => Buffer.from(digits.join("").replaceAll(" ", ""), "hex")
const inet = NetAddress.inetAddressFromStringUnsafe
const unix = NetAddress.unixPathAddress
const text = Buffers.utf8

const script = (...reads: ReadonlyArray<ScriptedStream.ReadStep>) =>
  Effect.map(ScriptedStream.make({ reads }), ({ socket }) => socket)

const proxied = (source: string, destination: string): ProxyProtocol.Endpoints => ({
  transport: "stream",
  source: source.startsWith("/") ? unix(source) : inet(source),
  destination: destination.startsWith("/") ? unix(destination) : inet(destination)
})

const signature = "0d0a0d0a000d0a515549540a"

/** A header of version 2: command, family and transport, what follows. */
const v2 = (commandAndFamily: string, body: string): Uint8Array => {
  const bytes = hex(body)
  return hex(signature, commandAndFamily, bytes.byteLength.toString(16).padStart(4, "0"), body)
}

const ipv4 = "c0a80001 c0a8000b dc04 01bb"
const ipv4Ends = proxied("192.168.0.1:56324", "192.168.0.11:443")

interface Vector {
  readonly name: string
  readonly bytes: Uint8Array
  readonly header: ProxyProtocol.Header
  /** Whether `encode` says the same with the same bytes, and whether with a checksum. */
  readonly encoded: boolean | "checksum"
}

/** Headers of other programs: recorded from HAProxy 2.6.12 and curl 7.88.1, or written by hand from the specification. */
const vectors: ReadonlyArray<Vector> = [
  {
    name: "the example of the specification",
    bytes: text("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
    header: { version: 1, command: "proxy", endpoints: ipv4Ends },
    encoded: true
  },
  {
    name: "HAProxy, send-proxy over IPv6",
    bytes: text("PROXY TCP6 ::1 ::1 56010 21001\r\n"),
    header: { version: 1, command: "proxy", endpoints: proxied("[::1]:56010", "[::1]:21001") },
    encoded: true
  },
  {
    name: "the longest line over TCP, with upper-case digits",
    bytes: text(`PROXY TCP6 ${"FFFF:".repeat(7)}FFFF ${"FFFF:".repeat(7)}FFFF 65535 65535\r\n`),
    header: {
      version: 1,
      command: "proxy",
      endpoints: proxied(`[${"ffff:".repeat(7)}ffff]:65535`, `[${"ffff:".repeat(7)}ffff]:65535`)
    },
    encoded: false
  },
  {
    name: "an IPv4 address inside IPv6, as inet_ntop writes it",
    bytes: text("PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n"),
    header: { version: 1, command: "proxy", endpoints: proxied("[::ffff:10.0.0.1]:1", "[::1]:2") },
    encoded: false
  },
  {
    name: "HAProxy, send-proxy for a client on a Unix-domain socket",
    bytes: text("PROXY UNKNOWN\r\n"),
    header: { version: 1, command: "proxy" },
    encoded: true
  },
  {
    name: "the longest line, UNKNOWN with addresses that have to be ignored",
    bytes: text(`PROXY UNKNOWN ${"ffff:".repeat(7)}ffff ${"ffff:".repeat(7)}ffff 65535 65535\r\n`),
    header: { version: 1, command: "proxy" },
    encoded: false
  },
  {
    name: "HAProxy, send-proxy-v2 over IPv4 with crc32c and unique-id",
    bytes: hex(
      signature,
      "2111002d7f0000017f000001dac6520a0300048b5bffdc05001737463030303030313a444143365f303030323a34303136"
    ),
    header: {
      version: 2,
      command: "proxy",
      endpoints: proxied("127.0.0.1:56006", "127.0.0.1:21002"),
      uniqueId: text("7F000001:DAC6_0002:4016")
    },
    encoded: "checksum"
  },
  {
    name: "HAProxy, send-proxy-v2 over IPv6 with crc32c and unique-id",
    bytes: hex(
      signature,
      "2121005d0000000000000000000000000000000100000000000000000000000000000001",
      "85f8520a030004aaa7f6ad05002f",
      "30303030303030303030303030303030303030303030303030303030303030313a383546385f303030333a34303136"
    ),
    header: {
      version: 2,
      command: "proxy",
      endpoints: proxied("[::1]:34296", "[::1]:21002"),
      uniqueId: text(`${"0".repeat(31)}1:85F8_0003:4016`)
    },
    encoded: "checksum"
  },
  {
    name: "HAProxy, TLS from a client without a certificate",
    bytes: hex(
      signature,
      "211100697f0000017f000001a008520b030004c937fcf3010002683202000c73686f702e6578616d706c65",
      "20003f0100000000210007544c5376312e332500075253413230343824000a5253412d534841323536",
      "230016544c535f4145535f3235365f47434d5f534841333834"
    ),
    header: {
      version: 2,
      command: "proxy",
      endpoints: proxied("127.0.0.1:40968", "127.0.0.1:21003"),
      alpn: "h2",
      authority: "shop.example",
      ssl: {
        secure: true,
        certificateOnConnection: false,
        certificateInSession: false,
        verify: 0,
        version: "TLSv1.3",
        keyAlgorithm: "RSA2048",
        signatureAlgorithm: "RSA-SHA256",
        cipher: "TLS_AES_256_GCM_SHA384"
      }
    },
    encoded: false
  },
  {
    name: "HAProxy, TLS from a client with a certificate",
    bytes: hex(
      signature,
      "211100757f0000017f000001a012520b030004963a9c5602000c73686f702e6578616d706c65",
      "2000500700000000210007544c5376312e3322000e636c69656e742e6578616d706c652500075253413230343824000a",
      "5253412d534841323536230016544c535f4145535f3235365f47434d5f534841333834"
    ),
    header: {
      version: 2,
      command: "proxy",
      endpoints: proxied("127.0.0.1:40978", "127.0.0.1:21003"),
      authority: "shop.example",
      ssl: {
        secure: true,
        certificateOnConnection: true,
        certificateInSession: true,
        verify: 0,
        version: "TLSv1.3",
        commonName: "client.example",
        keyAlgorithm: "RSA2048",
        signatureAlgorithm: "RSA-SHA256",
        cipher: "TLS_AES_256_GCM_SHA384"
      }
    },
    encoded: false
  },
  {
    name: "HAProxy, a health check with crc32c",
    bytes: hex(signature, "20000007030004a9b87e8f"),
    header: { version: 2, command: "local" },
    encoded: "checksum"
  },
  {
    name: "HAProxy, send-proxy-v2 for a client on a Unix-domain socket, with an empty unique-id",
    bytes: hex(signature, "2000000a030004826374b8050000"),
    header: { version: 2, command: "local", uniqueId: new Uint8Array(0) },
    encoded: "checksum"
  },
  {
    name: "LOCAL with a family and addresses, all of it ignored",
    bytes: v2("20 11", "c0a8"),
    header: { version: 2, command: "local" },
    encoded: false
  },
  ...[
    ["one byte", "07"],
    ["a vector cut short", "0100"],
    ["a vector longer than the header", "03ffff01"],
    ["a wrong checksum", "03000401020304"],
    ["two checksums", "030004a9b87e8f 030004a9b87e8f"],
    ["an authority that is not UTF-8", "020001ff"]
  ].map(([what, block]): Vector => ({
    name: `LOCAL of no family with ${what} in its block, which is skipped`,
    bytes: v2("20 00", block!),
    header: { version: 2, command: "local" },
    encoded: false
  })),
  { name: "LOCAL, the shortest", bytes: v2("20 00", ""), header: { version: 2, command: "local" }, encoded: true },
  {
    name: "PROXY of nothing specified",
    bytes: v2("21 00", ""),
    header: { version: 2, command: "proxy" },
    encoded: true
  },
  {
    name: "IPv4 of an unspecified transport",
    bytes: v2("21 10", `${ipv4} 040000`),
    header: { version: 2, command: "proxy" },
    encoded: false
  },
  {
    name: "UDP over IPv4",
    bytes: v2("21 12", ipv4),
    header: { version: 2, command: "proxy", endpoints: { ...ipv4Ends, transport: "datagram" } },
    encoded: true
  },
  {
    name: "a Unix-domain socket",
    bytes: v2("21 31", `${"00".repeat(108)}2f72756e2f612e736f636b${"00".repeat(97)}`),
    header: {
      version: 2,
      command: "proxy",
      endpoints: { transport: "stream", source: unix(""), destination: unix("/run/a.sock") }
    },
    encoded: true
  },
  {
    name: "Unix-domain datagrams, with an abstract name and a path that fills its field",
    bytes: v2("21 32", `00616263${"00".repeat(104)}${"2f".repeat(108)}`),
    header: {
      version: 2,
      command: "proxy",
      endpoints: { transport: "datagram", source: unix("\0abc"), destination: unix("/".repeat(108)) }
    },
    encoded: true
  },
  {
    name: "padding, the namespace, and types of the application's own, which may repeat",
    bytes: v2("21 11", `${ipv4} 040002ffff 300002 6e73 e00001 01 040000 e00000`),
    header: {
      version: 2,
      command: "proxy",
      endpoints: ipv4Ends,
      netns: "ns",
      others: [{ type: 0xe0, value: Uint8Array.of(1) }, { type: 0xe0, value: new Uint8Array(0) }]
    },
    encoded: false
  },
  {
    name: "every detail of TLS",
    bytes: v2(
      "21 00",
      "20 002a 05 00000013 210001 61 220002 c3a9 230001 63 240001 64 250001 65 260001 66 270001 67 280002 3000 ff0000"
    ),
    header: {
      version: 2,
      command: "proxy",
      ssl: {
        secure: true,
        certificateOnConnection: false,
        certificateInSession: true,
        verify: 19,
        version: "a",
        commonName: "\u00e9",
        cipher: "c",
        signatureAlgorithm: "d",
        keyAlgorithm: "e",
        group: "f",
        signatureScheme: "g",
        clientCertificate: Uint8Array.of(0x30, 0),
        others: [{ type: 0xff, value: new Uint8Array(0) }]
      }
    },
    encoded: true
  }
]

/** The same, wherever the bytes of a field lie. */
const plain = (header: ProxyProtocol.Header): unknown =>
  JSON.parse(JSON.stringify(header, (_, value: unknown) => value instanceof Uint8Array ? [...value] : value))

/** Bytes that are no header, and words that the error must contain. */
const malformed: ReadonlyArray<readonly [string, Uint8Array, ReadonlyArray<string>]> = [
  ["something else", text("GET / HTTP/1.1\r\n"), ["\"GET / HTTP/1\"", "not with a PROXY header"]],
  ["one wrong byte", text("P!"), ["\"P!\""]],
  ["a TLS hello", hex("160301"), ["not with a PROXY header"]],
  ["the signature with a byte changed", hex("0d0a0d0a000d0a515549540b"), ["not with a PROXY header"]],
  ["lower case", text("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n"), ["not with a PROXY header"]],
  ["no family", text("PROXY \r\n"), ["not a PROXY line"]],
  ["an unknown family", text("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"), ["not a PROXY line", "TCP5"]],
  ["UDP, which version 1 has not", text("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n"), ["not a PROXY line"]],
  ["words glued to UNKNOWN", text("PROXY UNKNOWNS\r\n"), ["not a PROXY line"]],
  ["two spaces", text("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n"), ["not a PROXY line"]],
  ["a tab", text("PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n"), ["not a PROXY line"]],
  ["a space at the end", text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"), ["not a PROXY line"]],
  ["a port too few", text("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"), ["not a PROXY line"]],
  ["a port of five digits too large", text("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"), ["destination", "65536"]],
  ["a port with a zero in front", text("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n"), ["not a PROXY line"]],
  ["a port with a sign", text("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n"), ["not a PROXY line"]],
  ["an octal octet", text("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n"), ["source", "1.2.3.04"]],
  ["an octet too large", text("PROXY TCP4 1.2.3.4 1.2.3.256 1 2\r\n"), ["destination", "1.2.3.256"]],
  ["IPv6 in TCP4", text("PROXY TCP4 ::1 ::1 1 2\r\n"), ["source", "IPv4"]],
  ["IPv4 in TCP6", text("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n"), ["source", "IPv6"]],
  ["a zone", text("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"), ["source", "IPv6"]],
  ["two double colons", text("PROXY TCP6 1::2::3 ::1 1 2\r\n"), ["source"]],
  ["a name", text("PROXY TCP4 localhost 1.2.3.4 1 2\r\n"), ["source", "localhost"]],
  ["LF alone", text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), ["LF without CR"]],
  ["CR alone", text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rGET\r\n"), ["not a PROXY line", "\\r"]],
  ["a second line in the first", text("PROXY UNKNOWN\nPROXY UNKNOWN\r\n"), ["LF without CR"]],
  ["a line of 107 bytes and no end", text(`PROXY ${"x".repeat(101)}`), ["107 bytes"]],
  ["an end that comes at byte 108", text(`PROXY UNKNOWN ${"x".repeat(92)}\r\n`), ["107 bytes"]],
  ["version 1 in the binary form", hex(signature, "11"), ["version 1"]],
  ["version 3", hex(signature, "31"), ["version 3"]],
  ["a command that is not assigned", hex(signature, "22"), ["command 2"]],
  ["a family that is not assigned", hex(signature, "2141"), ["family 4"]],
  ["a transport that is not assigned", hex(signature, "2113"), ["transport 3"]],
  ["addresses cut short", v2("21 11", ipv4.slice(0, -2)), ["11 bytes", "12"]],
  ["IPv6 cut short", v2("21 21", "00".repeat(35)), ["35 bytes", "36"]],
  ["a path cut short", v2("21 31", "00".repeat(215)), ["215 bytes", "216"]],
  ["a path that is not UTF-8", v2("21 31", `2fff${"00".repeat(214)}`), ["path", "UTF-8"]],
  ["a vector cut in its type", v2("21 11", `${ipv4} 01`), ["0x1", "over the end"]],
  ["a vector cut in its length", v2("21 11", `${ipv4} e00000 0100`), ["0x1", "byte 3", "over the end"]],
  ["a vector longer than the header", v2("21 11", `${ipv4} 010003 6832`), ["0x1", "over the end"]],
  ["a vector behind no addresses cut short", v2("21 00", "0100"), ["over the end"]],
  ["two authorities", v2("21 11", `${ipv4} 020001 61 020001 62`), ["second", "0x2"]],
  ["two checksums", v2("21 00", "030004a9b87e8f 030004a9b87e8f"), ["second", "0x3"]],
  ["a wrong checksum", v2("21 00", "030004a9b87e8e"), ["checksum", "0xa9b87e8e"]],
  ["a checksum of three bytes", v2("21 00", "030003a9b87e"), ["checksum", "3 bytes"]],
  ["an authority that is not UTF-8", v2("21 00", "020001 ff"), ["authority", "UTF-8"]],
  ["a namespace that is not UTF-8", v2("21 00", "300001 ff"), ["netns", "UTF-8"]],
  ["a unique id of 129 bytes", v2("21 00", `050081${"61".repeat(129)}`), ["129 bytes"]],
  ["details of TLS cut short", v2("21 00", "200004 01000000"), ["4 bytes", "TLS"]],
  ["a detail of TLS that goes over the end", v2("21 00", "200008 0100000000 210001"), ["0x21", "TLS"]],
  ["a detail of TLS that comes twice", v2("21 00", "20000d 0100000000 220001 61 220001 62"), ["second", "0x22"]],
  ["a name that is not UTF-8", v2("21 00", "200009 0100000000 220001 ff"), ["commonName", "UTF-8"]]
]

describe("ProxyProtocol", () => {
  describe("receive", () => {
    for (const { bytes, encoded, header, name } of vectors) {
      it.effect(name, () =>
        Effect.gen(function*() {
          const socket = yield* script(data(Buffers.concat([bytes, text("hello")])))
          const received = yield* ProxyProtocol.receive(socket, { trusted: trustAnyone })
          assert.deepStrictEqual(plain(received), plain(header))
          assertBytes(yield* Read.readExactly(socket, new Uint8Array(5)).pipe(Effect.as(text("hello"))), "hello")
          if (encoded !== false) {
            assertBytes(ProxyProtocol.encode(received, { checksum: encoded === "checksum" }), bytes)
          }
        }))

      it.effect(`${name}: byte by byte, and nothing but the header is consumed`, () =>
        Effect.gen(function*() {
          const socket = yield* script(
            ...Array.from(bytes, (byte) => data(Uint8Array.of(byte))),
            data("hello"),
            end
          )
          const received = yield* ProxyProtocol.receive(socket, { trusted: trustAnyone })
          assert.deepStrictEqual(plain(received), plain(header))
          assertBytes(yield* Read.readAll(socket), "hello")
        }))
    }

    for (const [name, bytes, words] of malformed) {
      it.effect(`${name} is malformed: one line says what is wrong, nothing is consumed`, () =>
        Effect.gen(function*() {
          const socket = yield* script(data(bytes))
          const error = failure(yield* Effect.exit(ProxyProtocol.receive(socket, { trusted: trustAnyone })))
          assert.strictEqual(error.reason._tag, "Framing")
          assert.strictEqual(error.operation, "receive")
          assert.deepStrictEqual(error.address, socket.remoteAddress)
          for (const word of words) assert.include(error.message, word)
          assert.notMatch(error.message, /[\r\n]/)
          assert.deepInclude(error.reason, { position: 0 })
          const rest = new Uint8Array(bytes.byteLength)
          yield* Read.readExactly(socket, rest)
          assertBytes(rest, bytes)
        }))
    }

    it.effect("fails as soon as the bytes cannot be a header, and reads no more", () =>
      Effect.gen(function*() {
        for (
          const beginning of ["47", "0d0a0d0b", `${signature}30`, `${signature}2142`, `${signature}2111000b`]
        ) {
          // A read past the script would be a defect.
          const complete = beginning.endsWith("000b") ? "00".repeat(11) : ""
          const socket = yield* script(data(hex(beginning, complete)))
          assert.strictEqual(
            ending(yield* Effect.exit(ProxyProtocol.receive(socket, { trusted: trustAnyone }))),
            "Framing",
            beginning
          )
        }
      }))

    it.effect("a header longer than the limit fails when its length has arrived, and takes no memory", () =>
      Effect.gen(function*() {
        const socket = yield* script(data(hex(signature, "2111 ffff")))
        const error = failure(yield* Effect.exit(ProxyProtocol.receive(socket, { trusted: trustAnyone })))
        assert.deepStrictEqual(
          error.reason,
          Reason.LimitExceeded({ limit: 4096, subject: "a PROXY header of 65,551 bytes" })
        )
      }))

    it.effect("a megabyte that claims to be a header is not read", () =>
      Effect.gen(function*() {
        for (const beginning of [text("PROXY TCP4 "), hex(signature, "2111 ffff")]) {
          let offered = 0
          const backing = new FakeBacking()
          backing.readAnswer = (target) => {
            target.fill(65)
            if (offered === 0) target.set(beginning)
            offered += target.byteLength
            return target.byteLength
          }
          const socket = make(backing)
          const exit = yield* Effect.exit(ProxyProtocol.receive(socket, { trusted: trustAnyone }))
          assert.include(["Framing", "LimitExceeded"], ending(exit))
          assert.isAtMost(offered, 16_384)
          yield* socket.abort
        }
      }))

    it.effect("a header of exactly the limit passes, and one byte more does not", () =>
      Effect.gen(function*() {
        const bytes = v2("21 00", `e0000d${"61".repeat(13)}`)
        assert.strictEqual(bytes.byteLength, 32)
        const receive = (max: number) =>
          Effect.flatMap(
            script(data(bytes)),
            (socket) => Effect.exit(ProxyProtocol.receive(socket, { trusted: trustAnyone, max }))
          )
        assert.strictEqual(ending(yield* receive(32)), "Success")
        assert.strictEqual(ending(yield* receive(31)), "LimitExceeded")
        assert.strictEqual(ending(yield* receive(65_551)), "Success")
        for (const max of [15, 65_552, 20.5, Number.NaN]) {
          const socket = yield* script()
          const error = defect(yield* Effect.exit(ProxyProtocol.receive(socket, { trusted: trustAnyone, max })))
          assert.instanceOf(error, RangeError)
        }
      }))

    it.effect("an end before the first byte is the end of stream, and one inside the header is UnexpectedEof", () =>
      Effect.gen(function*() {
        for (const { bytes } of vectors) {
          for (const at of new Set([0, 1, 6, 13, bytes.byteLength - 1])) {
            const cut = bytes.subarray(0, at)
            const socket = yield* at === 0 ? script(end) : script(data(cut), end)
            const exit = yield* Effect.exit(ProxyProtocol.receive(socket, { trusted: trustAnyone }))
            assert.strictEqual(ending(exit), at === 0 ? "Done" : "UnexpectedEof")
            assertBytes(yield* Read.readAll(socket), cut)
          }
        }
      }))

    it.effect("versions that are not accepted are refused as soon as they are known", () =>
      Effect.gen(function*() {
        for (const [bytes, version] of [[text("PROXY "), 1], [hex(signature), 2]] as const) {
          const socket = yield* script(data(bytes))
          const error = failure(
            yield* Effect.exit(
              ProxyProtocol.receive(socket, { trusted: trustAnyone, versions: [version === 1 ? 2 : 1] })
            )
          )
          assert.strictEqual(error.reason._tag, "Framing")
          assert.include(error.message, `version ${version}, which is not accepted here`)
        }
      }))

    it.effect("ended by a time-out or a request it has consumed nothing, and the next one gets the header", () =>
      Effect.gen(function*() {
        const header = { version: 2, command: "proxy", endpoints: ipv4Ends, authority: "a.example" } as const
        const bytes = ProxyProtocol.encode(header, { checksum: true })
        const [left, right] = yield* MemoryTransport.pair()
        yield* Write.writeAll(left, bytes.subarray(0, 20))
        const receive = ProxyProtocol.receive(right, { trusted: trustAnyone })
        const timed = yield* start(Effect.timeoutOption(receive, "3 seconds"))
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(yield* Fiber.join(timed), Option.none())
        const signal = Cancellation.makeSignal()
        const asked = yield* start(Cancellation.withSignal(receive, signal))
        yield* signal.emit("total")
        assert.deepInclude(failure(yield* Fiber.await(asked)).reason, { _tag: "OperationAborted", type: "total" })
        const last = yield* start(receive)
        yield* Write.writeAll(left, [bytes.subarray(20), text("and on")])
        assert.deepStrictEqual(plain(yield* Fiber.join(last)), plain(header))
        assertBytes(yield* Read.peek(right, 6), "and on")
      }))

    it.effect("the memory of a received header belongs to the caller", () =>
      Effect.gen(function*() {
        const header = { version: 2, command: "proxy", uniqueId: text("mine") } as const
        const [left, right] = yield* MemoryTransport.pair()
        yield* ProxyProtocol.send(left, header)
        const first = yield* ProxyProtocol.receive(right, { trusted: trustAnyone })
        yield* Write.writeAll(left, pattern(20_000))
        yield* Read.readExactly(right, new Uint8Array(20_000))
        assertBytes(first.uniqueId!, "mine")
      }))

    it.effect("works on any stream that knows its peer, and leaves the rest to its next composed read", () =>
      Effect.gen(function*() {
        const { readSome, remoteAddress } = yield* script(data("PROXY UNKN"), data("OWN\r\nhello"), end)
        const stream: ProxyProtocol.Incoming = { readSome, remoteAddress }
        assert.deepStrictEqual(yield* ProxyProtocol.receive({ trusted: trustAnyone })(stream), {
          version: 1,
          command: "proxy"
        })
        assertBytes(yield* Read.readAll(stream), "hello")
      }))
  })

  describe("receiveOption", () => {
    const optional = { trusted: trustAnyone, required: false }

    it.effect("if no header is required, a connection that begins with other bytes stays unread", () =>
      Effect.gen(function*() {
        for (const beginning of ["GET / HTTP/1.1", "PROX!", "\r\n\r\n\0\r\nQUIT!", "x"]) {
          // The bytes so far might still have been a header.
          const socket = yield* script(data(beginning.slice(0, 1)), data(beginning.slice(1) || "y"), end)
          assert.deepStrictEqual(yield* ProxyProtocol.receiveOption(socket, optional), Option.none())
          assertBytes(yield* Read.readAll(socket), beginning.length === 1 ? "xy" : beginning)
        }
      }))

    it.effect("if no header is required, a stream that ends before a signature stays unread", () =>
      Effect.gen(function*() {
        for (const beginning of ["", "P", "PROXY", "\r\n\r\n"]) {
          const socket = yield* beginning === "" ? script(end) : script(data(beginning), end)
          assert.deepStrictEqual(yield* ProxyProtocol.receiveOption(socket, optional), Option.none())
          assertBytes(yield* Read.readAll(socket), beginning)
        }
      }))

    it.effect("a header that has begun must be well-formed, required or not", () =>
      Effect.gen(function*() {
        const receive = (...steps: ReadonlyArray<ScriptedStream.ReadStep>) =>
          Effect.flatMap(script(...steps), (socket) => Effect.exit(ProxyProtocol.receiveOption(socket, optional)))
        assert.strictEqual(ending(yield* receive(data("PROXY TCP4 1.2"), end)), "UnexpectedEof")
        assert.strictEqual(ending(yield* receive(data("PROXY TCP9 1.2\r\n"))), "Framing")
        assert.strictEqual(ending(yield* receive(data(hex(signature, "41")))), "Framing")
        assert.strictEqual(ending(yield* receive(data(hex(signature, "2111ffff")))), "LimitExceeded")
        const good = yield* receive(data("PROXY UNKNOWN\r\n"))
        assert.deepStrictEqual(good, Exit.succeed(Option.some({ version: 1, command: "proxy" } as const)))
      }))

    it.effect("by default a header is required, and peers that are not trusted are refused", () =>
      Effect.gen(function*() {
        const plainOne = yield* script(data("GET"))
        const exit = yield* Effect.exit(ProxyProtocol.receiveOption(plainOne, { trusted: trustAnyone }))
        assert.strictEqual(ending(exit), "Framing")
        const untrustedPeer = yield* script()
        const refused = yield* Effect.exit(ProxyProtocol.receiveOption(untrustedPeer, { trusted: () => false }))
        assert.strictEqual(ending(refused), "Untrusted")
      }))

    it.effect("nothing is read from a peer that is not trusted, served or refused, and its bytes stay data", () =>
      Effect.gen(function*() {
        const trusted = () => false
        const refused = failure(
          yield* Effect.exit(Effect.flatMap(script(), (socket) => ProxyProtocol.receive(socket, { trusted })))
        )
        assert.strictEqual(refused.reason._tag, "Untrusted")
        assert.include(refused.message, "not trusted")
        const socket = yield* script(data("PROXY UNKNOWN\r\n"), end)
        assert.deepStrictEqual(
          yield* ProxyProtocol.receiveOption(socket, { trusted, untrusted: "plain" }),
          Option.none()
        )
        assertBytes(yield* Read.readAll(socket), "PROXY UNKNOWN\r\n")
      }))
  })

  describe("trust", () => {
    it("peers: addresses, networks, IPv4 as IPv6, and Unix-domain sockets", () => {
      const trust = trustPeers(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "unix"])
      for (
        const peer of [
          "10.255.0.1:1",
          "192.0.2.7:9",
          "[2001:db8:1::5]:1",
          "[::1]:2",
          "[::ffff:10.1.2.3]:4",
          "[::ffff:192.0.2.7]:4"
        ]
      ) assert.isTrue(trust(inet(peer)), peer)
      for (const peer of ["11.0.0.1:1", "192.0.2.8:9", "[2001:db9::1]:1", "[::2]:2", "[::ffff:11.1.2.3]:4"]) {
        assert.isFalse(trust(inet(peer)), peer)
      }
      assert.isTrue(trust(unix("")))
      assert.isFalse(trustPeers(["0.0.0.0/0", "::/0"])(unix("/run/a.sock")))
      assert.isFalse(trustPeers([])(inet("127.0.0.1:1")))
      assert.isTrue(trustAnyone(inet("203.0.113.1:1")))
    })

    it("peers: values, and IPv6 networks of IPv4 addresses", () => {
      const trust = trustPeers([
        NetAddress.ipv4Loopback,
        IpNetwork.fromStringUnsafe("10.0.0.0/24"),
        "::ffff:192.0.2.0/120"
      ])
      for (const peer of ["127.0.0.1:1", "10.0.0.9:1", "[::ffff:192.0.2.4]:1"]) assert.isTrue(trust(inet(peer)), peer)
      for (const peer of ["127.0.0.2:1", "10.0.1.9:1", "[::ffff:192.0.3.4]:1"]) assert.isFalse(trust(inet(peer)), peer)
    })

    it("an entry that is neither an address nor a network is a defect at once", () => {
      for (const entry of ["10.0.0.1/8", "10.0.0.0/33", "example.org", "", "unix:/x", "10.0.0"]) {
        assert.throws(() => trustPeers([entry]), RangeError, JSON.stringify(entry))
      }
    })
  })

  describe("send", () => {
    it.effect("a header leaves in one write, before anything else", () =>
      Effect.gen(function*() {
        const backing = new FakeBacking()
        const writes: Array<Uint8Array> = []
        backing.writeAnswer = (source) => {
          const bytes = new Uint8Array(source.remaining)
          source.copyTo(bytes)
          writes.push(bytes)
          return bytes.byteLength
        }
        const socket = make(backing)
        const header = { version: 2, command: "proxy", endpoints: ipv4Ends } as const
        assert.strictEqual(yield* ProxyProtocol.send(socket, header, { checksum: true }), 35)
        assert.strictEqual(yield* ProxyProtocol.send({ ...header, version: 1 })(socket), 47)
        assert.strictEqual(writes.length, 2)
        assertBytes(writes[0]!, ProxyProtocol.encode(header, { checksum: true }))
        assertBytes(writes[1]!, vectors[0]!.bytes)
        yield* socket.abort
      }))

    it.effect("is a message: whole, or the stream is torn", () =>
      Effect.gen(function*() {
        const header = { version: 2, command: "proxy", endpoints: ipv4Ends } as const
        for (
          const [policy, under] of [["terminal", Cancellation.terminal], ["partial", Cancellation.partial]] as const
        ) {
          const writes = policy === "terminal" ? [take(5), block] : [take(5), block, take(100)]
          const { socket, writable, written } = yield* ScriptedStream.make({ writes })
          const sending = yield* start(under(ProxyProtocol.send(socket, header)))
          const interrupting = yield* start(Fiber.interrupt(sending))
          if (policy === "partial") yield* writable
          yield* Fiber.join(interrupting)
          assert.strictEqual(socket.state.write, policy === "terminal" ? "torn" : "open")
          assert.strictEqual((yield* written).byteLength, policy === "terminal" ? 5 : 28)
        }
      }))

    it("version 1 can express TCP only, and encodes everything else as UNKNOWN", () => {
      const encode = (header: Omit<ProxyProtocol.Header, "version">) =>
        Buffers.toUtf8(ProxyProtocol.encode({ version: 1, ...header }))
      assert.strictEqual(encode({ command: "local", endpoints: ipv4Ends }), "PROXY UNKNOWN\r\n")
      assert.strictEqual(encode({ command: "proxy" }), "PROXY UNKNOWN\r\n")
      assert.strictEqual(
        encode({ command: "proxy", endpoints: { ...ipv4Ends, transport: "datagram" } }),
        "PROXY UNKNOWN\r\n"
      )
      assert.strictEqual(encode({ command: "proxy", endpoints: proxied("/a", "/b") }), "PROXY UNKNOWN\r\n")
      assert.strictEqual(encode({ command: "proxy", endpoints: proxied("/a", "1.2.3.4:5") }), "PROXY UNKNOWN\r\n")
      assert.strictEqual(
        encode({ command: "proxy", authority: "left.out", endpoints: proxied("[2001:db8::1]:1", "[::1]:2") }),
        "PROXY TCP6 2001:db8::1 ::1 1 2\r\n"
      )
    })

    it.effect("an IPv4 and an IPv6 address are sent as IPv6, the first one mapped", () =>
      Effect.gen(function*() {
        for (const version of [1, 2] as const) {
          const bytes = ProxyProtocol.encode({
            version,
            command: "proxy",
            endpoints: proxied("10.0.0.1:1", "[2001:db8::1]:2")
          })
          const header = yield* ProxyProtocol.receive(yield* script(data(bytes)), { trusted: trustAnyone })
          assert.deepStrictEqual(header.endpoints, proxied("[::ffff:10.0.0.1]:1", "[2001:db8::1]:2"))
        }
      }))

    it("a header that version 2 cannot express is a RangeError that says why", () => {
      const bad: ReadonlyArray<readonly [Partial<ProxyProtocol.Header>, string]> = [
        [{ endpoints: proxied("/a", "1.2.3.4:5") }, "family"],
        [{ endpoints: proxied(`/${"a".repeat(108)}`, "/b") }, "109 bytes"],
        [{ uniqueId: new Uint8Array(129) }, "129 bytes"],
        [{ authority: "\ud800" }, "UTF-8"],
        [{ netns: "\udfff" }, "UTF-8"],
        [{ alpn: "\u0100" }, "ALPN"],
        [{ authority: "a".repeat(65_536) }, "65,536 bytes"],
        [{ authority: "a".repeat(40_000), netns: "a".repeat(40_000) }, "80,006 bytes"],
        ...[1, 2, 3, 4, 5, 0x20, 0x30].map((type) =>
          [{ others: [{ type, value: new Uint8Array(0) }] }, "field of its own"] as const
        ),
        ...[-1, 256, 1.5].map((type) => [{ others: [{ type, value: new Uint8Array(0) }] }, "not a type"] as const)
      ]
      for (const [fields, words] of bad) {
        const encode = () => ProxyProtocol.encode({ version: 2, command: "proxy", ...fields })
        assert.throws(encode, RangeError, words)
      }
    })

    it.effect("endpointsOf: the endpoints of the header, or else the addresses of the connection", () =>
      Effect.gen(function*() {
        const socket = yield* script()
        const own = { transport: "stream", source: socket.remoteAddress, destination: socket.localAddress }
        assert.deepStrictEqual(ProxyProtocol.endpointsOf(socket), own)
        assert.deepStrictEqual(ProxyProtocol.endpointsOf(socket, Option.none()), own)
        const local = Option.some({ version: 2, command: "local" } as const)
        assert.deepStrictEqual(ProxyProtocol.endpointsOf(socket, local), own)
        const proxy = Option.some({ version: 2, command: "proxy", endpoints: ipv4Ends } as const)
        assert.deepStrictEqual(ProxyProtocol.endpointsOf(socket, proxy), ipv4Ends)
      }))
  })

  const curl = spawnSync("curl", ["--help", "all"], { encoding: "utf8" })

  describe.runIf(curl.status === 0 && curl.stdout.includes("--haproxy-protocol"))("curl", () => {
    it.live("sends its address in a header, and its request after it", () =>
      Effect.gen(function*() {
        const acceptor = yield* Acceptor.listen("127.0.0.1:0")
        const { port } = acceptor.address as NetAddress.InetAddress
        const answer = yield* Effect.forkChild(Effect.callback<string>((resume) => {
          const child = execFile(
            "curl",
            ["--silent", "--max-time", "8", "--haproxy-protocol", `http://127.0.0.1:${port}/who`],
            (error, stdout) => resume(Effect.succeed(error === null ? stdout : error.message))
          )
          return Effect.sync(() => child.kill())
        }))
        const socket: StreamSocket = yield* acceptor.accept
        const header = yield* ProxyProtocol.receive(socket, { trusted: trustPeers(["127.0.0.1"]) })
        assert.deepStrictEqual(header, {
          version: 1,
          command: "proxy",
          endpoints: { transport: "stream", source: socket.remoteAddress, destination: socket.localAddress }
        })
        const request = Buffers.toUtf8(yield* Read.readUntil(socket, "\r\n\r\n"))
        assert.isTrue(request.startsWith("GET /who HTTP/1.1\r\n"), request)
        const body = `you are ${NetAddress.formatSocketAddress(header.endpoints!.source)}`
        yield* Write.writeAll(
          socket,
          text(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`)
        )
        assert.strictEqual(yield* Fiber.join(answer), body)
      }).pipe(Effect.scoped, Effect.provide(NodeTransport.layer)))
  })
})

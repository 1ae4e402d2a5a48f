/** The numbers and layouts of the binding, against what the C compiler of this machine makes of the system's headers. */
import { assert, describe, it } from "@effect/vitest"
import { NetAddress } from "effect/net"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Linux from "../../src/transport/internal/epoll/linux.ts"
import { inet } from "../support/addresses.ts"

const path = NetAddress.unixPathAddress

// Every number that the binding exports is a macro of the same name there.
const constants = Object.entries<unknown>({ ...Linux }).filter(([name]) => /^[A-Z][A-Z0-9_]+$/.test(name))

const program = `
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static void bytes(const char *name, const void *from, size_t length) {
  printf("%s ", name);
  for (size_t i = 0; i < length; i++) printf("%02x", ((const unsigned char *) from)[i]);
  printf("\\n");
}

int main(void) {
  ${constants.map(([name]) => `printf("${name} %u\\n", (unsigned) ${name});`).join("\n  ")}
  printf("sizeof epoll_event %zu\\n", sizeof(struct epoll_event));
  printf("offsetof epoll_event.data %zu\\n", offsetof(struct epoll_event, data));
  printf("sizeof msghdr %zu\\n", sizeof(struct msghdr));
  printf("offsetof msghdr.msg_iov %zu\\n", offsetof(struct msghdr, msg_iov));
  printf("offsetof msghdr.msg_iovlen %zu\\n", offsetof(struct msghdr, msg_iovlen));
  printf("sizeof iovec %zu\\n", sizeof(struct iovec));
  printf("offsetof iovec.iov_len %zu\\n", offsetof(struct iovec, iov_len));
  printf("sizeof sockaddr_storage %zu\\n", sizeof(struct sockaddr_storage));
  printf("sizeof sun_path %zu\\n", sizeof(((struct sockaddr_un *) 0)->sun_path));

  struct linger linger = { .l_onoff = 1, .l_linger = 0 };
  bytes("linger", &linger, sizeof linger);
  linger.l_onoff = 0;
  bytes("linger, off", &linger, sizeof linger);

  struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(54321) };
  inet_pton(AF_INET, "192.0.2.17", &v4.sin_addr);
  bytes("sockaddr_in", &v4, sizeof v4);

  struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(54321), .sin6_scope_id = 0x01020304 };
  inet_pton(AF_INET6, "fe80::12:3456:789a", &v6.sin6_addr);
  bytes("sockaddr_in6", &v6, sizeof v6);

  struct sockaddr_un un = { .sun_family = AF_UNIX };
  strcpy(un.sun_path, "/run/x.sock");
  bytes("sockaddr_un", &un, offsetof(struct sockaddr_un, sun_path) + strlen(un.sun_path) + 1);

  struct sockaddr_un abstract = { .sun_family = AF_UNIX };
  memcpy(abstract.sun_path, "\\0name", 5);
  bytes("sockaddr_un, abstract", &abstract, offsetof(struct sockaddr_un, sun_path) + 5);
}
`

/** A machine that the binding is for: how to compile for it, and how to run what was compiled. */
interface Machine {
  readonly arch: string
  readonly compiler: string
  readonly runner: ReadonlyArray<string>
}

// The emulator of user programs runs a static program of another architecture on this kernel.
const machines: ReadonlyArray<Machine> = ["x64", "arm64"].map((arch) => {
  if (arch === process.arch) return { arch, compiler: "cc", runner: [] }
  const name = arch === "x64" ? "x86_64" : "aarch64"
  return { arch, compiler: `${name}-linux-gnu-gcc`, runner: [`qemu-${name}`] }
})

const exists = (command: string): boolean => spawnSync(command, ["--version"]).status === 0

/** What the program prints, line by line; undefined where it cannot be compiled or run. */
const ask = ({ compiler, runner }: Machine): ReadonlyMap<string, string> | undefined => {
  if (process.platform !== "linux" || ![compiler, ...runner].every(exists)) return undefined
  const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
  try {
    const source = join(directory, "ask.c")
    const executable = join(directory, "ask")
    writeFileSync(source, program)
    const flags = runner.length === 0 ? [] : ["-static"]
    const compiled = spawnSync(compiler, [...flags, "-o", executable, source], { encoding: "utf8" })
    assert.strictEqual(compiled.status, 0, compiled.stderr)
    const [command, ...args] = [...runner, executable]
    const { status, stderr, stdout } = spawnSync(command, args, { encoding: "utf8" })
    assert.strictEqual(status, 0, stderr)
    return new Map(
      stdout.trimEnd().split("\n").map((line) => [
        line.slice(0, line.lastIndexOf(" ")),
        line.slice(line.lastIndexOf(" ") + 1)
      ])
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

for (const machine of machines) {
  const answers = ask(machine)
  if (answers === undefined) console.warn(`skipped: no C compiler to compare the binding with on ${machine.arch}`)

  describe.skipIf(answers === undefined)(`the binding and the headers of the system, ${machine.arch}`, () => {
    const answer = (name: string): string => answers?.get(name) ?? assert.fail(`the program said nothing of ${name}`)

    it("has the same constants", () => {
      assert.isAbove(constants.length, 40)
      for (const [name, value] of constants) assert.strictEqual(value, Number(answer(name)), name)
    })

    it("lays events out in the same way", () => {
      const { data, size } = Linux.eventLayout(machine.arch)
      assert.strictEqual(String(size), answer("sizeof epoll_event"))
      assert.strictEqual(String(data), answer("offsetof epoll_event.data"))
    })

    it("lays the pieces of a message out in the same way", () => {
      const { count, pieces, words } = Linux.messageLayout
      assert.strictEqual(String(8 * words), answer("sizeof msghdr"))
      assert.strictEqual(String(8 * pieces), answer("offsetof msghdr.msg_iov"))
      assert.strictEqual(String(8 * count), answer("offsetof msghdr.msg_iovlen"))
      assert.deepStrictEqual([answer("sizeof iovec"), answer("offsetof iovec.iov_len")], ["16", "8"])
    })

    it("has room for every address, and knows how long a path may be", () => {
      assert.strictEqual(String(Linux.maxAddressBytes), answer("sizeof sockaddr_storage"))
      assert.strictEqual(String(Linux.maxPathBytes), answer("sizeof sun_path"))
    })

    it("lays a reset's linger out in the same way", () => {
      assert.strictEqual(hex(new Uint8Array(Linux.lingerZero.buffer)), answer("linger"))
      assert.strictEqual(hex(new Uint8Array(Linux.lingerOff.buffer)), answer("linger, off"))
    })

    it("encodes addresses in the same way", () => {
      const scoped = NetAddress.inetAddressFromInputUnsafe({
        address: NetAddress.ipFromStringUnsafe("fe80::12:3456:789a"),
        port: 54_321,
        scopeId: 0x01020304
      })
      assert.strictEqual(hex(Linux.encodeAddress(inet("192.0.2.17:54321"))), answer("sockaddr_in"))
      assert.strictEqual(hex(Linux.encodeAddress(scoped)), answer("sockaddr_in6"))
      assert.strictEqual(hex(Linux.encodeAddress(path("/run/x.sock"))), answer("sockaddr_un"))
      assert.strictEqual(hex(Linux.encodeAddress(path("\0name"))), answer("sockaddr_un, abstract"))
    })
  })
}

describe("addresses of the binding", () => {
  const decode = (bytes: Uint8Array): NetAddress.SocketAddress => {
    // As the kernel leaves them: in a larger piece of memory, with other bytes behind.
    const memory = new Uint8Array(160).fill(0xee)
    memory.set(bytes, 16)
    return Linux.decodeAddress(new DataView(memory.buffer, 16), bytes.byteLength)
  }

  const link = (scopeId: number) =>
    NetAddress.inetAddressFromInputUnsafe({ address: NetAddress.ipFromStringUnsafe("fe80::1"), port: 443, scopeId })

  it("come back as they were", () => {
    for (
      const original of [
        inet("0.0.0.0:0"),
        inet("255.254.253.252:65535"),
        inet("[::]:0"),
        inet("[::1]:80"),
        inet("[2001:db8:1:2:3:4:5:fffe]:65535"),
        inet("[::ffff:127.0.0.1]:8080"),
        link(0),
        link(1),
        link(0xffffffff),
        path("/run/x.sock"),
        path("relative"),
        path("/run/\u00e9\u{1f600}"),
        path(`/${"x".repeat(106)}`),
        path("\0"),
        path("\0name"),
        path("\0a\0b\0"),
        path(`\0${"x".repeat(107)}`)
      ]
    ) {
      assert.deepStrictEqual(decode(Linux.encodeAddress(original)), original)
    }
  })

  it("are empty for a peer without a name, however the kernel says it", () => {
    const family = Linux.encodeAddress(path("x")).subarray(0, 2)
    assert.deepStrictEqual(decode(family), path(""))
    assert.deepStrictEqual(decode(new Uint8Array(0)), path(""))
  })

  it("end with the zero or with the length that the kernel gives", () => {
    const whole = Linux.encodeAddress(path("/run/x.sock"))
    assert.deepStrictEqual(decode(whole.subarray(0, whole.byteLength - 1)), path("/run/x.sock"))
    assert.deepStrictEqual(decode(Buffer.concat([whole, Buffer.from("rest")])), path("/run/x.sock"))
    const longest = Buffer.concat([whole.subarray(0, 2), Buffer.from(`/${"x".repeat(107)}`)])
    assert.deepStrictEqual(decode(longest), path(`/${"x".repeat(107)}`))
  })
})

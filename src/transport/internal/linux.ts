/**
 * The system calls of Linux that the epoll transport makes, through koffi: every
 * constant, structure layout and declaration is here, and nothing else is.
 *
 * Calls answer what the kernel answers; after -1, `errno` has the number.
 */
import * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import { createRequire } from "node:module"
import { endianness } from "node:os"
import { isMainThread } from "node:worker_threads"

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10

export const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000

const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_ERROR = 4
const SO_KEEPALIVE = 9
const SO_LINGER = 13
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const TCP_KEEPIDLE = 4
const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26

const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000

const SHUT_WR = 1

export const EPOLLIN = 0x1
export const EPOLLOUT = 0x4
export const EPOLLERR = 0x8
export const EPOLLHUP = 0x10
export const EPOLLRDHUP = 0x2000
const EPOLLET = 0x80000000
const EPOLL_CTL_ADD = 1
const EPOLL_CLOEXEC = 0o2000000

export const EINTR = 4
export const EAGAIN = 11
export const EPIPE = 32
export const ECONNABORTED = 103
export const EINPROGRESS = 115

const UV_POLL = 8
const UV_READABLE = 1

/** Why this process cannot use epoll from here; `undefined` when it can. */
export const unsupported = (): string | undefined => {
  if (process.platform !== "linux") return `the platform is ${process.platform}, and epoll is Linux's`
  if (process.arch !== "x64" && process.arch !== "arm64") return `the architecture is ${process.arch}`
  if (!isMainThread) return "this is a worker thread, whose event loop cannot be reached"
  const { permission } = process
  if (permission !== undefined && !permission.has("addon")) return "the permission model forbids native code"
  try {
    createRequire(import.meta.url).resolve("koffi")
    return undefined
  } catch {
    return "the package koffi is not installed"
  }
}

/** What `load` answers: system calls on descriptors, and the reactor's own. */
export type Linux = ReturnType<typeof load>

/** Loads koffi and declares everything. Throws where `unsupported` has a reason, and where a library is missing. */
export const load = () => {
  const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi")
  const libc = koffi.load("libc.so.6")
  // libuv is part of the executable, which exports its functions.
  const libuv = koffi.load(null as never)
  const uvCallback = koffi.pointer(koffi.proto("void", ["void *", "int", "int"]))

  const uvCloseCallback = koffi.pointer(koffi.proto("void", ["void *"]))

  const socket = libc.func("int socket(int domain, int type, int protocol)")
  const connect = libc.func("int connect(int fd, const void *address, uint32_t length)")
  const bind = libc.func("int bind(int fd, const void *address, uint32_t length)")
  const listen = libc.func("int listen(int fd, int backlog)")
  const accept4 = libc.func("int accept4(int fd, void *address, void *length, int flags)")
  const recv = libc.func("long recv(int fd, void *buffer, size_t length, int flags)")
  const send = libc.func("long send(int fd, const void *buffer, size_t length, int flags)")
  const shutdown = libc.func("int shutdown(int fd, int how)")
  const close = libc.func("int close(int fd)")
  const setsockopt = libc.func("int setsockopt(int fd, int level, int name, const void *value, uint32_t length)")
  const getsockopt = libc.func("int getsockopt(int fd, int level, int name, void *value, void *length)")
  const getsockname = libc.func("int getsockname(int fd, void *address, void *length)")
  const epollCreate = libc.func("int epoll_create1(int flags)")
  const epollCtl = libc.func("int epoll_ctl(int epfd, int op, int fd, const void *event)")
  const epollWait = libc.func("int epoll_wait(int epfd, void *events, int most, int timeout)")
  const uvDefaultLoop = libuv.func("void *uv_default_loop()")
  const uvHandleSize = libuv.func("size_t uv_handle_size(int type)")
  const uvPollInit = libuv.func("int uv_poll_init(void *loop, void *handle, int fd)")
  const uvPollStart = libuv.func("uv_poll_start", "int", ["void *", "int", uvCallback])
  const uvClose = libuv.func("uv_close", "void", ["void *", uvCloseCallback])
  const uvRef = libuv.func("void uv_ref(void *handle)")
  const uvUnref = libuv.func("void uv_unref(void *handle)")

  const setInt = (fd: number, level: number, name: number, value: number): number => {
    int.setInt32(0, value, littleEndian)
    return setsockopt(fd, level, name, int, 4)
  }

  return {
    errno: (): number => koffi.errno(),
    errnoCode: (errno: number): string => names.get(errno) ?? `errno ${errno}`,

    socket: (family: number): number => socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    connect: (fd: number, address: Uint8Array): number => connect(fd, address, address.byteLength),
    bind: (fd: number, address: Uint8Array): number => bind(fd, address, address.byteLength),
    listen: (fd: number, backlog: number): number => listen(fd, backlog),
    /** Leaves the peer's address in `accepted`. */
    accept: (fd: number): number => {
      lengthOf.setUint32(0, accepted.byteLength, littleEndian)
      return accept4(fd, accepted, lengthOf, SOCK_NONBLOCK | SOCK_CLOEXEC)
    },
    accepted: (): NetAddress.SocketAddress => decodeAddress(accepted, lengthOf.getUint32(0, littleEndian)),
    recv: (fd: number, target: Uint8Array): number => recv(fd, target, target.byteLength, MSG_DONTWAIT),
    send: (fd: number, source: Uint8Array): number => send(fd, source, source.byteLength, MSG_DONTWAIT | MSG_NOSIGNAL),
    shutdownWrite: (fd: number): number => shutdown(fd, SHUT_WR),
    close: (fd: number): number => close(fd),

    setNoDelay: (fd: number, on: boolean): number => setInt(fd, IPPROTO_TCP, TCP_NODELAY, on ? 1 : 0),
    setKeepAlive: (fd: number, on: boolean): number => setInt(fd, SOL_SOCKET, SO_KEEPALIVE, on ? 1 : 0),
    setKeepAliveIdle: (fd: number, seconds: number): number => setInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds),
    setReuseAddress: (fd: number): number => setInt(fd, SOL_SOCKET, SO_REUSEADDR, 1),
    setIpv6Only: (fd: number, on: boolean): number => setInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, on ? 1 : 0),
    /** The next `close` resets. */
    setReset: (fd: number): number => setsockopt(fd, SOL_SOCKET, SO_LINGER, lingerZero, lingerZero.byteLength),
    /** The error that the kernel holds for the socket, which this clears; 0 when there is none. */
    takeError: (fd: number): number => {
      lengthOf.setUint32(0, 4, littleEndian)
      return getsockopt(fd, SOL_SOCKET, SO_ERROR, int, lengthOf) < 0 ? koffi.errno() : int.getInt32(0, littleEndian)
    },
    localAddress: (fd: number): NetAddress.SocketAddress | undefined => {
      lengthOf.setUint32(0, accepted.byteLength, littleEndian)
      return getsockname(fd, accepted, lengthOf) < 0
        ? undefined
        : decodeAddress(accepted, lengthOf.getUint32(0, littleEndian))
    },

    epollCreate: (): number => epollCreate(EPOLL_CLOEXEC),
    /** Edge-triggered, both directions, for good. `generation` tells a descriptor from an earlier one of its number. */
    epollAdd: (epfd: number, fd: number, generation: number): number => {
      event.setUint32(0, (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) >>> 0, littleEndian)
      event.setInt32(eventData, fd, littleEndian)
      event.setUint32(eventData + 4, generation, littleEndian)
      return epollCtl(epfd, EPOLL_CTL_ADD, fd, event)
    },
    epollWait: (epfd: number): number => epollWait(epfd, events, mostEvents, 0),
    eventFlags: (index: number): number => events.getUint32(index * eventSize, littleEndian),
    eventFd: (index: number): number => events.getInt32(index * eventSize + eventData, littleEndian),
    eventGeneration: (index: number): number => events.getUint32(index * eventSize + eventData + 4, littleEndian),

    /** Watches a descriptor from Node's event loop, which must be open until it was stopped. */
    watch: (fd: number, onReadable: () => void) => {
      const callback = koffi.register(onReadable, uvCallback)
      const handle = koffi.alloc("uint8_t", Number(uvHandleSize(UV_POLL)))
      const status = uvPollInit(uvDefaultLoop(), handle, fd) || uvPollStart(handle, UV_READABLE, callback)
      if (status !== 0) throw new Error(`uv_poll: ${status}`)
      const memory = { callback, handle }
      inUse.add(memory)
      return {
        ref: (): void => uvRef(handle),
        unref: (): void => uvUnref(handle),
        stop: (): void => {
          const closed = koffi.register(() => {
            // Not from inside the callbacks themselves.
            setImmediate(() => {
              inUse.delete(memory)
              koffi.unregister(callback)
              koffi.unregister(closed)
            })
          }, uvCloseCallback)
          uvClose(handle, closed)
        }
      }
    }
  }
}

/** The most events of one `epollWait`. */
export const mostEvents = 512

// `struct epoll_event`: packed on x86-64 only.
export const eventSize = process.arch === "x64" ? 12 : 16
export const eventData = process.arch === "x64" ? 4 : 8

/** `struct sockaddr_in`, `sockaddr_in6` or `sockaddr_un`. */
export const encodeAddress = (address: NetAddress.SocketAddress): Uint8Array => {
  if (NetAddress.isUnixPathAddress(address)) {
    // An abstract name begins with a zero byte and has none at its end.
    const path = Buffer.from(address.path)
    const isAbstract = path[0] === 0
    const bytes = new Uint8Array(2 + path.byteLength + (isAbstract ? 0 : 1))
    new DataView(bytes.buffer).setUint16(0, AF_UNIX, littleEndian)
    bytes.set(path, 2)
    return bytes
  }
  if (NetAddress.isInetAddressV4(address)) {
    const view = new DataView(new ArrayBuffer(16))
    view.setUint16(0, AF_INET, littleEndian)
    view.setUint16(2, address.port)
    NetAddress.ipv4ToOctets(address.address).forEach((octet, index) => view.setUint8(4 + index, octet))
    return new Uint8Array(view.buffer)
  }
  const view = new DataView(new ArrayBuffer(28))
  view.setUint16(0, AF_INET6, littleEndian)
  view.setUint16(2, address.port)
  NetAddress.ipv6ToSegments(address.address).forEach((segment, index) => view.setUint16(8 + 2 * index, segment))
  view.setUint32(24, address.scopeId, littleEndian)
  return new Uint8Array(view.buffer)
}

export const decodeAddress = (view: DataView, length: number): NetAddress.SocketAddress => {
  const family = length < 2 ? AF_UNIX : view.getUint16(0, littleEndian)
  const bytes = new Uint8Array(view.buffer, view.byteOffset, length)
  if (family === AF_INET) {
    return NetAddress.inetAddressUnsafe(NetAddress.ipv4FromBytesUnsafe(bytes.slice(4, 8)), view.getUint16(2))
  }
  if (family === AF_INET6) {
    const ip = NetAddress.ipv6FromBytesUnsafe(bytes.slice(8, 24))
    const scopeId = view.getUint32(24, littleEndian)
    return scopeId === 0
      ? NetAddress.inetAddressUnsafe(ip, view.getUint16(2))
      : NetAddress.inetAddressFromInputUnsafe({ address: ip, port: view.getUint16(2), scopeId })
  }
  const path = bytes.subarray(2)
  // The kernel may or may not count the zero at the end.
  const end = path[0] === 0 ? path.byteLength : path.indexOf(0)
  return NetAddress.unixPathAddress(Buffer.from(path.subarray(0, end === -1 ? path.byteLength : end)).toString())
}

// ---- internal

const littleEndian = endianness() === "LE"

// The native side holds pointers into these, so nothing else keeps them from being collected.
const inUse = new Set<object>()

// Memory that calls fill in or read. One call at a time uses it.
const int = new DataView(new ArrayBuffer(4))
const lengthOf = new DataView(new ArrayBuffer(4))
const accepted = new DataView(new ArrayBuffer(128))
const event = new DataView(new ArrayBuffer(16))
const events = new DataView(new ArrayBuffer(mostEvents * eventSize))

// `struct linger { 1, 0 }`
const lingerZero = new Int32Array([1, 0])

const names: ReadonlyMap<number, string> = new Map([
  [1, "EPERM"],
  [2, "ENOENT"],
  [4, "EINTR"],
  [9, "EBADF"],
  [11, "EAGAIN"],
  [12, "ENOMEM"],
  [13, "EACCES"],
  [20, "ENOTDIR"],
  [22, "EINVAL"],
  [23, "ENFILE"],
  [24, "EMFILE"],
  [30, "EROFS"],
  [32, "EPIPE"],
  [36, "ENAMETOOLONG"],
  [97, "EAFNOSUPPORT"],
  [98, "EADDRINUSE"],
  [99, "EADDRNOTAVAIL"],
  [100, "ENETDOWN"],
  [101, "ENETUNREACH"],
  [102, "ENETRESET"],
  [103, "ECONNABORTED"],
  [104, "ECONNRESET"],
  [105, "ENOBUFS"],
  [107, "ENOTCONN"],
  [108, "ESHUTDOWN"],
  [110, "ETIMEDOUT"],
  [111, "ECONNREFUSED"],
  [112, "EHOSTDOWN"],
  [113, "EHOSTUNREACH"],
  [115, "EINPROGRESS"]
])

/**
 * The system calls that the epoll transport makes, through koffi: every constant,
 * structure layout and declaration, and nothing else.
 *
 * A call returns the result of the system call, or the negative errno if that is
 * -1. Memory is passed with its real length, whatever its view claims.
 */
import * as NetAddress from "effect/net/NetAddress"
import type * as Koffi from "koffi"
import { Buffer } from "node:buffer"
import { createRequire } from "node:module"
import { endianness } from "node:os"
import { getSystemErrorName } from "node:util"

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10

export const SOCK_STREAM = 1
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000

export const SOL_SOCKET = 1
export const SO_REUSEADDR = 2
export const SO_TYPE = 3
export const SO_ERROR = 4
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_KEEPALIVE = 9
export const SO_LINGER = 13
export const SO_REUSEPORT = 15
export const SO_ACCEPTCONN = 30
export const SO_DOMAIN = 39
export const IPPROTO_IP = 0
export const IP_BIND_ADDRESS_NO_PORT = 24
export const IPPROTO_TCP = 6
export const TCP_NODELAY = 1
export const TCP_KEEPIDLE = 4
export const TCP_KEEPINTVL = 5
export const TCP_KEEPCNT = 6
export const TCP_USER_TIMEOUT = 18
export const IPPROTO_IPV6 = 41
export const IPV6_V6ONLY = 26

export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000

export const SHUT_WR = 1

export const SIOCOUTQ = 0x5411

export const EPOLLIN = 0x1
export const EPOLLPRI = 0x2
export const EPOLLOUT = 0x4
export const EPOLLERR = 0x8
export const EPOLLHUP = 0x10
export const EPOLLRDHUP = 0x2000
export const EPOLLET = 0x80000000
export const EPOLL_CTL_ADD = 1
export const EPOLL_CTL_DEL = 2
export const EPOLL_CLOEXEC = 0o2000000

export const F_GETFD = 1
export const F_SETFD = 2
export const F_GETFL = 3
export const F_SETFL = 4
export const FD_CLOEXEC = 1
export const O_NONBLOCK = 0o4000

export const EINTR = 4
export const EBADF = 9
export const EAGAIN = 11
export const EPIPE = 32
export const ENONET = 64
export const EPROTO = 71
export const ENOTSOCK = 88
export const ENOPROTOOPT = 92
export const EOPNOTSUPP = 95
export const ENETDOWN = 100
export const ENETUNREACH = 101
export const ECONNABORTED = 103
export const ECONNRESET = 104
export const EHOSTDOWN = 112
export const EHOSTUNREACH = 113
export const EINPROGRESS = 115

const UV_POLL = 8
const UV_READABLE = 1

/** The binding: system calls on descriptors, and the watcher of the reactor. */
export type Linux = ReturnType<typeof load>

/** Loads koffi and declares everything. Throws where `unsupported` has a reason, and where a function is missing. */
export const load = () => {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi
  // The symbols of the executable and of the libraries that it is linked with: the C library and libuv.
  const library = koffi.load(null)
  const uvPollCallback = koffi.pointer(koffi.proto("void", ["void *", "int", "int"]))
  const uvCloseCallback = koffi.pointer(koffi.proto("void", ["void *"]))

  const socket = library.func("int socket(int domain, int type, int protocol)")
  const connect = library.func("int connect(int fd, const void *address, uint32_t length)")
  const bind = library.func("int bind(int fd, const void *address, uint32_t length)")
  const listen = library.func("int listen(int fd, int backlog)")
  const accept4 = library.func("int accept4(int fd, void *address, void *length, int flags)")
  const recv = library.func("long recv(int fd, void *buffer, size_t length, int flags)")
  const send = library.func("long send(int fd, const void *buffer, size_t length, int flags)")
  const sendmsg = library.func("long sendmsg(int fd, const void *message, int flags)")
  const shutdown = library.func("int shutdown(int fd, int how)")
  const close = library.func("int close(int fd)")
  const setsockopt = library.func("int setsockopt(int fd, int level, int name, const void *value, uint32_t length)")
  const getsockopt = library.func("int getsockopt(int fd, int level, int name, void *value, void *length)")
  const getsockname = library.func("int getsockname(int fd, void *address, void *length)")
  const getpeername = library.func("int getpeername(int fd, void *address, void *length)")
  // Variadic in C: some calling conventions pass the third argument in another way.
  const fcntl = library.func("int fcntl(int fd, int command, ...)")
  const ioctl = library.func("int ioctl(int fd, unsigned long request, ...)")
  const epollCreate = library.func("int epoll_create1(int flags)")
  const epollCtl = library.func("int epoll_ctl(int epfd, int op, int fd, const void *event)")
  const epollWait = library.func("int epoll_wait(int epfd, void *events, int most, int timeout)")
  const uvDefaultLoop = library.func("void *uv_default_loop()")
  const uvHandleSize = library.func("size_t uv_handle_size(int type)")
  const uvPollInit = library.func("int uv_poll_init(void *loop, void *handle, int fd)")
  const uvPollStart = library.func("uv_poll_start", "int", ["void *", "int", uvPollCallback])
  const uvClose = library.func("uv_close", "void", ["void *", uvCloseCallback])
  const uvRef = library.func("void uv_ref(void *handle)")
  const uvUnref = library.func("void uv_unref(void *handle)")

  // `errno` is read at once, before another call can change it.
  const answer = (result: number): number => result < 0 ? -koffi.errno() : result

  const setInt = (fd: number, level: number, name: number, value: number): number => {
    int.setInt32(0, value, littleEndian)
    return answer(setsockopt(fd, level, name, int, 4))
  }

  const getInt = (fd: number, level: number, name: number): number => {
    lengthOf.setUint32(0, 4, littleEndian)
    const result = answer(getsockopt(fd, level, name, int, lengthOf))
    return result < 0 ? result : int.getInt32(0, littleEndian)
  }

  const message = new BigUint64Array(messageLayout.words)
  message[messageLayout.pieces] = koffi.address(pieces)

  // One callback for all handles that close; libuv calls it in a later turn of the event loop.
  const onClosed = koffi.register((handle: unknown) => koffi.free(handle), uvCloseCallback)

  const flag = (fd: number, get: number, set: number, bits: number): number => {
    const flags = answer(fcntl(fd, get, "int", 0))
    return flags < 0 || (flags & bits) === bits ? flags : answer(fcntl(fd, set, "int", flags | bits))
  }

  return {
    socket: (family: number): number => answer(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)),
    connect: (fd: number, address: Uint8Array): number => answer(connect(fd, address, bytesOf(address))),
    bind: (fd: number, address: Uint8Array): number => answer(bind(fd, address, bytesOf(address))),
    listen: (fd: number, backlog: number): number => answer(listen(fd, Math.min(backlog, 65_535))),
    /** Stores the peer's address for `accepted`. */
    accept: (fd: number): number => {
      lengthOf.setUint32(0, sockaddr.byteLength, littleEndian)
      return answer(accept4(fd, sockaddr, lengthOf, SOCK_NONBLOCK | SOCK_CLOEXEC))
    },
    accepted: (): NetAddress.SocketAddress => decodeAddress(sockaddr, lengthOf.getUint32(0, littleEndian)),
    /** Receives at most `most` bytes, and at most the real size of the view. Sets `requested`. */
    recv: (fd: number, target: Uint8Array, most: number): number => {
      const room = bytesOf(target)
      // The kernel would take a negative size for a huge one, and 0 bytes would look like the end of the stream.
      requested = most >= 1 && most < room ? most : room
      return answer(recv(fd, target, requested, MSG_DONTWAIT))
    },
    /** Sets `requested`. */
    send: (fd: number, source: Uint8Array): number => {
      requested = bytesOf(source)
      return answer(send(fd, source, requested, MSG_DONTWAIT | MSG_NOSIGNAL))
    },
    /** Sends the first `count` views, at most `maxPieces`, by one call. Sets `requested`. */
    sendAll: (fd: number, source: ReadonlyArray<Uint8Array>, count: number): number => {
      for (let i = 0; i < count; i++) bytesOf(at(source, i))
      // No code of a caller runs between here and the call, so the addresses stay valid.
      requested = 0
      for (let i = 0; i < count; i++) {
        const view = at(source, i)
        const length = lengthOfView(view)
        requested += length
        pieces[2 * i] = koffi.address(view)
        pieces[2 * i + 1] = BigInt(length)
      }
      message[messageLayout.count] = BigInt(Math.min(count, maxPieces))
      return answer(sendmsg(fd, message, MSG_DONTWAIT | MSG_NOSIGNAL))
    },
    shutdownWrite: (fd: number): number => answer(shutdown(fd, SHUT_WR)),
    /** Bytes that the peer has not acknowledged, a FIN counted as one; over a Unix-domain path, that it has not read. */
    unacknowledged: (fd: number): number => {
      const result = answer(ioctl(fd, SIOCOUTQ, "void *", int))
      return result < 0 ? result : int.getInt32(0, littleEndian)
    },
    close: (fd: number): number => answer(close(fd)),

    setInt,
    getInt,
    /** Makes the next `close` send RST. */
    setReset: (fd: number): number => answer(setsockopt(fd, SOL_SOCKET, SO_LINGER, lingerZero, lingerZero.byteLength)),
    /** Makes the next `close` return at once. With SO_LINGER it would block, even on a non-blocking socket. */
    clearLinger: (fd: number): number => answer(setsockopt(fd, SOL_SOCKET, SO_LINGER, lingerOff, lingerOff.byteLength)),
    /** The pending error of the socket (`SO_ERROR`), which the call clears; 0 if there is none. */
    takeError: (fd: number): number => Math.abs(getInt(fd, SOL_SOCKET, SO_ERROR)),
    localAddress: (fd: number): NetAddress.SocketAddress | undefined => {
      lengthOf.setUint32(0, sockaddr.byteLength, littleEndian)
      return getsockname(fd, sockaddr, lengthOf) < 0
        ? undefined
        : decodeAddress(sockaddr, lengthOf.getUint32(0, littleEndian))
    },
    /** Stores the peer's address for `accepted`. */
    peer: (fd: number): number => {
      lengthOf.setUint32(0, sockaddr.byteLength, littleEndian)
      return answer(getpeername(fd, sockaddr, lengthOf))
    },
    setNonBlocking: (fd: number): number => flag(fd, F_GETFL, F_SETFL, O_NONBLOCK),
    setCloseOnExec: (fd: number): number => flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC),

    epollCreate: (): number => answer(epollCreate(EPOLL_CLOEXEC)),
    /** Registers both directions, edge-triggered. `generation` tells a descriptor from an earlier one of its number. */
    epollAdd: (epfd: number, fd: number, generation: number): number => {
      event.setUint32(0, (EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET) >>> 0, littleEndian)
      event.setInt32(eventData, fd, littleEndian)
      event.setUint32(eventData + 4, generation, littleEndian)
      return answer(epollCtl(epfd, EPOLL_CTL_ADD, fd, event))
    },
    /** Needed only if the socket is open under another descriptor too: closing this one would not remove it. */
    epollDelete: (epfd: number, fd: number): number => answer(epollCtl(epfd, EPOLL_CTL_DEL, fd, event)),
    /** Stores the events for `eventFlags`, `eventFd` and `eventGeneration`. */
    epollWait: (epfd: number): number => answer(epollWait(epfd, events, maxEvents, 0)),
    eventFlags: (index: number): number => events.getUint32(index * eventSize, littleEndian),
    eventFd: (index: number): number => events.getInt32(index * eventSize + eventData, littleEndian),
    eventGeneration: (index: number): number => events.getUint32(index * eventSize + eventData + 4, littleEndian),

    /** Watches a descriptor from Node's event loop. It has to stay open until `stop`. */
    watch: (fd: number, onReadable: () => void) => {
      const callback = koffi.register(onReadable, uvPollCallback)
      // Allocated outside the heap of JavaScript; freed by `onClosed`.
      const handle = koffi.alloc("uint8_t", Number(uvHandleSize(UV_POLL)))
      const initialized = uvPollInit(uvDefaultLoop(), handle, fd)
      if (initialized < 0) {
        koffi.free(handle)
        koffi.unregister(callback)
        throw new Error(`uv_poll_init: ${errnoCode(-initialized)}`)
      }
      const stop = (): void => {
        // libuv does not call it from here on, and koffi limits the number of registered callbacks.
        uvClose(handle, onClosed)
        koffi.unregister(callback)
      }
      const started = uvPollStart(handle, UV_READABLE, callback)
      if (started < 0) {
        stop()
        throw new Error(`uv_poll_start: ${errnoCode(-started)}`)
      }
      return {
        ref: (): void => uvRef(handle),
        unref: (): void => uvUnref(handle),
        /** Must not be called from inside `onReadable`. */
        stop
      }
    }
  }
}

/** The name of an errno, such as `"ECONNRESET"`. */
export const errnoCode = (errno: number): string => getSystemErrorName(-errno)

/** The maximum number of events of one `epollWait`. */
export const maxEvents = 512

/**
 * The number of bytes that the last `recv`, `send` or `sendAll` asked the kernel to move. A view may claim another length
 * than its memory has, so only this count tells whether the kernel moved fewer.
 */
export let requested = 0

/** The maximum number of views of one `sendAll`; the kernel allows 1,024. Each view costs 0.1 us. */
export const maxPieces = 64

/** `struct epoll_event`, packed on x86-64 only: its size, and the offset of `data`. */
export const eventLayout = (arch: string) => arch === "x64" ? { size: 12, data: 4 } : { size: 16, data: 8 }
const { data: eventData, size: eventSize } = eventLayout(process.arch)

/** `struct msghdr` in 64-bit words: its size, and the places of the pieces and of their count. */
export const messageLayout = { words: 7, pieces: 2, count: 3 }

/** The size of `struct sockaddr_storage`. */
export const maxAddressBytes = 128

/** The size of `sun_path`, including the terminating zero, which an abstract name does not have. */
export const maxPathBytes = 108

/** `struct linger { 1, 0 }` */
export const lingerZero = new Int32Array([1, 0])

/** `struct linger { 0, 0 }` */
export const lingerOff = new Int32Array([0, 0])

/** `struct sockaddr_in`, `sockaddr_in6` or `sockaddr_un`. */
export const encodeAddress = (address: NetAddress.SocketAddress): Uint8Array => {
  if (NetAddress.isUnixPathAddress(address)) {
    // An abstract name begins with a zero byte, and has no zero at its end.
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
  const bytes = new Uint8Array(view.buffer, view.byteOffset, Math.min(length, view.byteLength))
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
  // The length that the kernel reports may or may not include the terminating zero.
  const end = path[0] === 0 ? path.byteLength : path.indexOf(0)
  return NetAddress.unixPathAddress(Buffer.from(path.subarray(0, end === -1 ? path.byteLength : end)).toString())
}

// ---- internal

const littleEndian = endianness() === "LE"

// The length that the engine keeps: a subclass, or a property defined on the view, can claim any other.
const getter = (prototype: object, name: string) => Object.getOwnPropertyDescriptor(prototype, name)
const typedArray: object = Object.getPrototypeOf(Uint8Array.prototype)
const trueLength = getter(typedArray, "byteLength")
const trueBuffer = getter(typedArray, "buffer")
const resizable = getter(ArrayBuffer.prototype, "resizable")
const growable = getter(SharedArrayBuffer.prototype, "growable")

const lengthOfView = (view: Uint8Array): number => trueLength?.get?.call(view)

/** Whether the size of the memory behind a view is fixed. The bounds of other memory may change during a call. */
export const isFixed = (view: Uint8Array): boolean => {
  const buffer: ArrayBufferLike = trueBuffer?.get?.call(view)
  const canChange: boolean = (buffer instanceof SharedArrayBuffer ? growable : resizable)?.get?.call(buffer)
  return !canChange
}

export const assertFixed = (view: Uint8Array): void => {
  if (!isFixed(view)) {
    throw new TypeError("EpollTransport: a view of a resizable buffer; use memory of a fixed size")
  }
}

/**
 * The size of a view that may be passed to the kernel. An empty or detached view is refused: receiving 0 bytes would
 * look like the end of the stream.
 */
const bytesOf = (view: Uint8Array): number => {
  assertFixed(view)
  const length = lengthOfView(view)
  if (length > 0) return length
  throw new TypeError("EpollTransport: a view of no memory; was its buffer detached?")
}

const at = (views: ReadonlyArray<Uint8Array>, index: number): Uint8Array => {
  const view = views[index]
  if (view === undefined) throw new RangeError(`no view ${index}`)
  return view
}

// Memory that calls fill or read. Only one call runs at a time.
const int = new DataView(new ArrayBuffer(4))
const lengthOf = new DataView(new ArrayBuffer(4))
const sockaddr = new DataView(new ArrayBuffer(maxAddressBytes))
const event = new DataView(new ArrayBuffer(16))
// An array of `struct iovec`: address and length of each piece.
const pieces = new BigUint64Array(2 * maxPieces)
const events = new DataView(new ArrayBuffer(maxEvents * eventSize))

import type * as Effect from "effect/Effect"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { Buffer, isAscii } from "node:buffer"
import { X509Certificate } from "node:crypto"
import * as NodeTls from "node:tls"
import { domainToASCII } from "node:url"
import type { SocketError } from "../../SocketError.ts"
import type { ClientOptions, TlsSocket, Underlying } from "../../Tls.ts"
import { type Sessions, SocketInfo } from "./ConnectionInfo.ts"
import type { Handshake, KeyLog } from "./Handshake.ts"
import { asBuffer, contextOptions, protocols, secret } from "./options.ts"
import { upgrade } from "./upgrade.ts"

/**
 * `Tls.client`, with the name and the deadline apart from the other options: `Connector` has its own for each connection,
 * and the other options are prepared once for each object.
 */
export const secureClient = (
  stream: Underlying,
  options: Omit<ClientOptions, "servername" | "deadline">,
  { deadline, servername }: Pick<ClientOptions, "servername" | "deadline">
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> =>
  upgrade("Tls.client", stream, { ...options, deadline }, () => {
    const { alpn, session } = options
    const name = wireName(servername)
    const verifies = options.dangerouslySkipVerification !== skipsVerification
    const earlier = session === undefined || session.servername !== servername || (verifies && !session.verified)
      ? undefined
      : session
    const sessions: Sessions = { latest: undefined }
    const tlsOptions = {
      secureContext: secureContextOf(options),
      // The certificate is checked against `host`; only a DNS name is also sent to the server.
      ...(isAddress(name) ? { host: name, checkServerIdentity: checkAddress } : { servername: name, host: name }),
      rejectUnauthorized: verifies,
      ...(alpn === undefined ? {} : { ALPNProtocols: protocols(alpn) }),
      ...(earlier === undefined ? {} : { session: asBuffer(secret("session", earlier.data)) })
    }
    return {
      start: (handshake) =>
        start(handshake, tlsOptions, options.keyLog, (data) => {
          sessions.latest = { servername, verified: verifies, data: Redacted.make(new Uint8Array(data)) }
        }),
      info: (socket) => {
        // A server that resumes a session need not send another one.
        if (socket.isSessionReused()) sessions.latest ??= earlier
        return new SocketInfo(socket, sessions)
      }
    }
  })

// ---- internal

const skipsVerification: ClientOptions["dangerouslySkipVerification"] = "anybody can pretend to be the server"

/** `options` are those of `tls.connect`, without the stream. */
const start = (
  handshake: Handshake,
  options: NodeTls.ConnectionOptions,
  keyLog: KeyLog | undefined,
  onSession: (session: Buffer) => void
): void => {
  const socket = NodeTls.connect({ ...options, socket: handshake.carrier.stream })
  if (options.session !== undefined) eraseSession(socket)
  // This listener stays for good: an error that comes after the handshake must not be without any.
  socket.on("error", (cause) => handshake.fail(cause))
  socket.once("secureConnect", () => handshake.succeed(socket))
  socket.on("session", onSession)
  if (keyLog !== undefined) socket.on("keylog", (line) => handshake.logKey(keyLog, line))
}

// Node has given the session to OpenSSL, and keeps it in the clear among the options of the socket, where printing the
// socket would show it.
const eraseSession = (socket: object): void => {
  for (const key of Reflect.ownKeys(socket)) {
    const value: unknown = Reflect.get(socket, key)
    if (typeof value === "object" && value !== null && Object.hasOwn(value, "session")) {
      Object.assign(value, { session: undefined })
    }
  }
}

const secureContexts = new WeakMap<Omit<ClientOptions, "servername">, NodeTls.SecureContext>()

const secureContextOf = (options: Omit<ClientOptions, "servername">): NodeTls.SecureContext => {
  let context = secureContexts.get(options)
  if (context === undefined) {
    // OpenSSL would then send no certificate, and only the server would notice.
    if ((options.certificate === undefined) !== (options.key === undefined)) {
      throw Object.assign(new Error("certificate and key need each other"), { code: "ERR_MISSING_ARGS" })
    }
    context = NodeTls.createSecureContext(contextOptions(options))
    secureContexts.set(options, context)
  }
  return context
}

/** A name as certificates and SNI have it: in ASCII, without the dot of the root, and without the brackets of URLs. */
const wireName = (servername: string): string => {
  if (typeof servername !== "string" || servername === "") throw new TypeError("Tls.client: there is no servername")
  const ascii = isAscii(Buffer.from(servername)) ? servername : domainToASCII(servername)
  const name = ascii.replace(/\.$/, "").replace(/^\[(.*)\]$/, "$1")
  // Node would take an empty name for "localhost".
  if (name === "") throw new TypeError(`Tls.client: servername ${JSON.stringify(servername)} is no name`)
  return name
}

/** Whether a name is an IP address. A zone is not compared: it means something on this machine only. */
const isAddress = (name: string): boolean => {
  const host = Host.hostFromString(name.replace(/%.*$/, ""))
  return Result.isSuccess(host) && NetAddress.isIpAddress(host.success)
}

// Node 22 does not find an IPv6 address in a certificate, and OpenSSL does.
const checkAddress = (address: string, certificate: NodeTls.PeerCertificate): Error | undefined => {
  const mismatch = NodeTls.checkServerIdentity(address, certificate)
  return mismatch !== undefined && new X509Certificate(certificate.raw).checkIP(address.replace(/%.*$/, ""))
    ? undefined
    : mismatch
}

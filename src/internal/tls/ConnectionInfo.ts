import type { X509Certificate } from "node:crypto"
import type { TLSSocket } from "node:tls"
import type { ConnectionInfo, Session } from "../../Tls.ts"

/** Where a client keeps the newest session that its server has sent. */
export interface Sessions {
  latest: Session | undefined
}

/** The {@link ConnectionInfo} of a socket whose handshake has succeeded. */
export class SocketInfo implements ConnectionInfo {
  readonly protocol: string
  readonly cipher: string
  readonly alpn: string | undefined
  readonly servername: string | undefined
  readonly resumed: boolean
  readonly authorized: boolean
  readonly authorizationError: string | undefined
  // Private names, so that printing this object does not print them: both lead to secrets.
  readonly #socket: TLSSocket
  readonly #sessions: Sessions
  #certificate: X509Certificate | undefined = undefined

  constructor(socket: TLSSocket, sessions: Sessions) {
    this.#sessions = sessions
    this.#socket = socket
    this.protocol = socket.getProtocol() ?? "unknown"
    this.cipher = socket.getCipher().standardName
    this.alpn = typeof socket.alpnProtocol === "string" ? socket.alpnProtocol : undefined
    const servername: unknown = Reflect.get(socket, "servername")
    this.servername = typeof servername === "string" ? servername : undefined
    this.resumed = socket.isSessionReused()
    this.authorized = socket.authorized
    // The types of Node declare an `Error`, but it is a code; and Node sets one even if the peer has sent no certificate.
    const code: unknown = socket.authorizationError
    this.authorizationError = typeof code === "string" && this.peerCertificate !== undefined ? code : undefined
  }

  get session(): Session | undefined {
    return this.#sessions.latest
  }

  get peerCertificate(): X509Certificate | undefined {
    // Kept, because Node before 26 answers a second call with the next certificate of the chain.
    return this.#certificate ??= this.#socket.getPeerX509Certificate()
  }

  toJSON(): unknown {
    const { alpn, authorizationError, authorized, cipher, protocol, resumed, servername } = this
    return { protocol, cipher, alpn, servername, resumed, authorized, authorizationError }
  }
}

import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { Buffer } from "node:buffer"
import type * as NodeTls from "node:tls"
import type { SocketError } from "../../SocketError.ts"
import type { CommonOptions, Identity, Pem } from "../../Tls.ts"
import { badOptions } from "./errors.ts"

/** How long a handshake may take where the options do not say it. */
export const defaultDeadline: Duration.Duration = Duration.seconds(10)

/**
 * Runs `make`, which gives options to Node and OpenSSL. Options that these refuse fail with reason `Tls`; a value that its
 * type rules out is a defect.
 */
export const checkingOptions = <A>(operation: string, make: () => A): Effect.Effect<A, SocketError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(make())
    } catch (cause) {
      const refused = badOptions(operation, cause)
      return refused === undefined ? Effect.die(cause) : Effect.fail(refused)
    }
  })

/** The options of a `SecureContext` of Node. */
export const contextOptions = (options: CommonOptions & Partial<Identity>): NodeTls.SecureContextOptions => ({
  ...(options.ca === undefined ? {} : { ca: authorities(options.ca) }),
  ...(options.certificate === undefined ? {} : { cert: pems("certificate", options.certificate) }),
  ...(options.key === undefined ? {} : { key: keys(options.key) }),
  ...(options.passphrase === undefined ? {} : { passphrase: passphrase(options.passphrase) }),
  minVersion: options.minVersion ?? "TLSv1.2",
  maxVersion: options.maxVersion ?? "TLSv1.3",
  ...(options.ciphers === undefined ? {} : { ciphers: options.ciphers })
})

/** The names of application protocols (ALPN). A name that the wire format cannot hold is a defect. */
export const protocols = (names: ReadonlyArray<string>): Array<string> =>
  names.map((name) => {
    const length = Buffer.byteLength(name)
    if (length > 0 && length < 256) return name
    throw new RangeError(`Tls: the name of an application protocol has 1 to 255 bytes, and not ${length}`)
  })

export const pems = (what: string, input: Pem | ReadonlyArray<Pem>): Array<string | Buffer> =>
  (Array.isArray(input) ? input : [input]).map((input) => pem(what, input))

export const secret = <A>(what: string, input: Redacted.Redacted<A>): A => {
  if (Redacted.isRedacted(input)) return Redacted.value(input)
  throw new TypeError(`Tls: ${what} is not Redacted`)
}

export const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

// ---- internal

const pem = (what: string, input: Pem): string | Buffer => {
  if (typeof input === "string") return input
  if (input instanceof Uint8Array) return asBuffer(input)
  throw new TypeError(`Tls: ${what} is neither text nor bytes`)
}

const beginnings = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"].map((label) => `-----BEGIN ${label}-----`)

// OpenSSL takes a text without any certificate for an empty list, and an empty list trusts no peer.
const authorities = (input: Pem | ReadonlyArray<Pem>): Array<string | Buffer> =>
  pems("ca", input).map((text) => {
    if (beginnings.some((beginning) => text.includes(beginning))) return text
    throw Object.assign(new Error("ca has no certificate"), { code: "ERR_OSSL_PEM_NO_START_LINE" })
  })

const keys = (input: Identity["key"]): Array<string | Buffer> =>
  (Array.isArray(input) ? input : [input]).map((key) => pem("key", secret("key", key)))

// Checked here, because the error of Node would contain the value.
const passphrase = (input: Redacted.Redacted): string => {
  const text = secret("passphrase", input)
  if (typeof text === "string") return text
  throw new TypeError("Tls: passphrase is not text")
}

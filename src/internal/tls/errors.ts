import * as Predicate from "effect/Predicate"
import { type Address, during, fromErrno, isSocketError, Reason, SocketError } from "../../SocketError.ts"

type Kind = Extract<Reason, { readonly _tag: "Tls" }>["kind"]

/** What failed, and at which stage of the connection. */
export interface Context {
  readonly operation: string
  readonly address: Address
  readonly stage: "handshake" | "open"
}

export const tlsError = (
  { address, operation }: Pick<Context, "operation" | "address">,
  reason: { readonly kind: Kind; readonly detail: string; readonly alert?: string },
  code?: string,
  cause?: unknown
): SocketError => new SocketError({ reason: Reason.Tls(reason), operation, address, transferred: 0, code, cause })

/** The error of a connection that the peer has ended without ending TLS. */
export const truncated = (context: Context, cause?: unknown): SocketError =>
  context.stage === "handshake"
    ? tlsError(
      context,
      { kind: "handshake", detail: "the peer ended the connection during the handshake" },
      undefined,
      cause
    )
    : tlsError(
      context,
      { kind: "truncated", detail: "the peer ended the connection without close_notify" },
      undefined,
      cause
    )

/**
 * Translates an error that `node:tls` has reported: an error of OpenSSL, of certificate verification, of Node, or of the
 * connection below.
 */
export const fromTls = (cause: unknown, context: Context): SocketError => {
  if (isSocketError(cause)) return during(cause, { operation: context.operation, transferred: 0 })
  const code = textOf(cause, "code") ?? ""
  const message = textOf(cause, "message") ?? ""
  const alert = alerts.get(Number(/SSL alert number (\d+)/.exec(message)?.[1]))
  if (alert !== undefined) return tlsError(context, fromAlert(alert, context.stage), code, cause)
  const known = explained.get(code)
  if (known !== undefined) return tlsError(context, { kind: known[0], detail: known[1] }, code, cause)
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    const detail = textOf(cause, "reason") ?? "the certificate is for another name"
    return tlsError(context, { kind: "certificate", detail }, code, cause)
  }
  if (unexplained.has(code)) return tlsError(context, { kind: "certificate", detail: message }, code, cause)
  if (/^ERR_(SSL|OSSL|TLS)_/.test(code)) {
    const detail = textOf(cause, "reason") ?? message
    return tlsError(context, { kind: "protocol", detail }, code, cause)
  }
  // Node reports an end of stream during the handshake with this code. An error of the system also names its system call.
  if (context.stage === "handshake" && code === "ECONNRESET" && textOf(cause, "syscall") === undefined) {
    return truncated(context, cause)
  }
  return fromErrno(cause, context)
}

/**
 * The error for keys, certificates and other options of this side that Node or OpenSSL refuses. Both give their errors a code;
 * `undefined` for an error without one.
 */
export const badOptions = (operation: string, cause: unknown): SocketError | undefined => {
  const code = textOf(cause, "code")
  if (code === undefined) return undefined
  const detail = textOf(cause, "reason") ?? textOf(cause, "message") ?? "unknown"
  return new SocketError({
    reason: Reason.Tls({
      kind: /^ERR_(OSSL|CRYPTO)_|_KEY_TOO_SMALL$|_MD_TOO_WEAK$/.test(code) ? "certificate" : "handshake",
      detail: `the options of this side cannot be used: ${detail}`
    }),
    operation,
    transferred: 0,
    code,
    cause
  })
}

/** The error for a certificate of the peer that was rejected with this `authorizationError`. */
export const rejected = (code: string, context: Context, cause?: unknown): SocketError => {
  const known = explained.get(code)
  const detail = known?.[1] ?? (code === "UNSPECIFIED" ? "the certificate cannot be verified" : code)
  return tlsError(context, { kind: "certificate", detail }, code, cause)
}

// ---- internal

const textOf = (cause: unknown, property: string): string | undefined =>
  Predicate.hasProperty(cause, property) && typeof cause[property] === "string" ? cause[property] : undefined

const fromAlert = (alert: string, stage: Context["stage"]) => ({
  kind: aboutCertificates.has(alert)
    ? "certificate" as const
    : stage === "open" || aboutProtocol.has(alert)
    ? "protocol" as const
    : "handshake" as const,
  detail: `the peer answered with the alert ${alert}`,
  alert
})

// RFC 8446, section 6, and the IANA registry of TLS alerts.
const alerts: ReadonlyMap<number, string> = new Map([
  [0, "close_notify"],
  [10, "unexpected_message"],
  [20, "bad_record_mac"],
  [21, "decryption_failed"],
  [22, "record_overflow"],
  [30, "decompression_failure"],
  [40, "handshake_failure"],
  [41, "no_certificate"],
  [42, "bad_certificate"],
  [43, "unsupported_certificate"],
  [44, "certificate_revoked"],
  [45, "certificate_expired"],
  [46, "certificate_unknown"],
  [47, "illegal_parameter"],
  [48, "unknown_ca"],
  [49, "access_denied"],
  [50, "decode_error"],
  [51, "decrypt_error"],
  [60, "export_restriction"],
  [70, "protocol_version"],
  [71, "insufficient_security"],
  [80, "internal_error"],
  [86, "inappropriate_fallback"],
  [90, "user_canceled"],
  [100, "no_renegotiation"],
  [109, "missing_extension"],
  [110, "unsupported_extension"],
  [111, "certificate_unobtainable"],
  [112, "unrecognized_name"],
  [113, "bad_certificate_status_response"],
  [114, "bad_certificate_hash_value"],
  [115, "unknown_psk_identity"],
  [116, "certificate_required"],
  [120, "no_application_protocol"]
])

const aboutCertificates: ReadonlySet<string> = new Set([
  "no_certificate",
  "bad_certificate",
  "unsupported_certificate",
  "certificate_revoked",
  "certificate_expired",
  "certificate_unknown",
  "unknown_ca",
  "certificate_unobtainable",
  "bad_certificate_status_response",
  "bad_certificate_hash_value",
  "certificate_required"
])

const aboutProtocol: ReadonlySet<string> = new Set([
  "unexpected_message",
  "bad_record_mac",
  "decryption_failed",
  "record_overflow",
  "decompression_failure",
  "illegal_parameter",
  "decode_error",
  "decrypt_error"
])

// Other results of verification; their detail is the message of OpenSSL. Node has the one code "UNSPECIFIED" for most of
// them, such as a key that is too weak, a name that the authority may not certify, or an unknown extension.
const unexplained: ReadonlySet<string> = new Set([
  "ERROR_IN_CERT_NOT_AFTER_FIELD",
  "ERROR_IN_CERT_NOT_BEFORE_FIELD",
  "ERROR_IN_CRL_LAST_UPDATE_FIELD",
  "ERROR_IN_CRL_NEXT_UPDATE_FIELD",
  "OUT_OF_MEM",
  "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY",
  "UNABLE_TO_DECRYPT_CERT_SIGNATURE",
  "UNABLE_TO_DECRYPT_CRL_SIGNATURE",
  "UNSPECIFIED"
])

// The kind and a plain detail for each code. A code that is not here is of kind "protocol", with the message of OpenSSL.
const explained: ReadonlyMap<string, readonly [kind: Kind, detail: string]> = new Map([
  // Verification of a certificate.
  ["CERT_CHAIN_TOO_LONG", ["certificate", "the chain of the certificate is too long"]],
  ["CERT_HAS_EXPIRED", ["certificate", "the certificate has expired"]],
  ["CERT_NOT_YET_VALID", ["certificate", "the certificate is not valid yet"]],
  ["CERT_REJECTED", ["certificate", "the certificate is rejected"]],
  ["CERT_REVOKED", ["certificate", "the certificate has been revoked"]],
  ["CERT_SIGNATURE_FAILURE", ["certificate", "the signature of the certificate is wrong"]],
  ["CERT_UNTRUSTED", ["certificate", "the certificate is not trusted"]],
  ["CRL_HAS_EXPIRED", ["certificate", "the list of revoked certificates has expired"]],
  ["CRL_NOT_YET_VALID", ["certificate", "the list of revoked certificates is not valid yet"]],
  ["CRL_SIGNATURE_FAILURE", ["certificate", "the signature of the list of revoked certificates is wrong"]],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", ["certificate", "the certificate is self-signed and not trusted"]],
  ["HOSTNAME_MISMATCH", ["certificate", "the certificate is for another name"]],
  ["INVALID_CA", ["certificate", "a certificate of the chain is not of an authority"]],
  ["INVALID_PURPOSE", ["certificate", "the certificate is for another purpose"]],
  ["PATH_LENGTH_EXCEEDED", ["certificate", "the chain of the certificate is too long"]],
  ["SELF_SIGNED_CERT_IN_CHAIN", ["certificate", "the chain ends in a self-signed certificate that is not trusted"]],
  ["UNABLE_TO_GET_CRL", ["certificate", "there is no list of revoked certificates"]],
  ["UNABLE_TO_GET_ISSUER_CERT", ["certificate", "an authority of the chain is unknown"]],
  ["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", ["certificate", "the authority of the certificate is unknown"]],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", ["certificate", "the authority of the certificate is unknown"]],
  ["ERR_SSL_CERTIFICATE_VERIFY_FAILED", ["certificate", "the certificate cannot be verified"]],
  ["ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE", ["certificate", "the client sent no certificate"]],
  // Nothing in common to agree on.
  ["ERR_SSL_INAPPROPRIATE_FALLBACK", ["handshake", "the peer has fallen back to a version that is too old"]],
  ["ERR_SSL_NO_APPLICATION_PROTOCOL", ["handshake", "the peer offers none of our application protocols (ALPN)"]],
  ["ERR_SSL_NO_CIPHERS_AVAILABLE", ["handshake", "no cipher is left to offer"]],
  ["ERR_SSL_NO_PROTOCOLS_AVAILABLE", ["handshake", "no protocol version is left to offer"]],
  ["ERR_SSL_NO_SHARED_CIPHER", ["handshake", "the peer offers no cipher that this side can use"]],
  ["ERR_SSL_NO_SHARED_GROUP", ["handshake", "the peer offers no key exchange that this side can use"]],
  ["ERR_SSL_NO_SHARED_SIGNATURE_ALGORITHMS", [
    "handshake",
    "the peer offers no signature algorithm that this side can use"
  ]],
  ["ERR_SSL_NO_SUITABLE_KEY_SHARE", ["handshake", "the peer offers no key exchange that this side can use"]],
  ["ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM", [
    "handshake",
    "the peer offers no signature algorithm that this side can use"
  ]],
  ["ERR_SSL_UNSUPPORTED_PROTOCOL", ["handshake", "the peer offers no protocol version that this side allows"]],
  ["ERR_SSL_VERSION_TOO_LOW", ["handshake", "the peer offers no protocol version that this side allows"]],
  ["ERR_SSL_WRONG_SSL_VERSION", ["handshake", "the peer has chosen a protocol version that was not offered"]],
  ["ERR_TLS_DH_PARAM_SIZE", ["handshake", "the key exchange of the peer is too weak"]],
  // Not TLS.
  ["ERR_SSL_BAD_RECORD_TYPE", ["protocol", "what the peer sends is not TLS"]],
  ["ERR_SSL_HTTP_REQUEST", ["protocol", "the peer sends plain HTTP"]],
  ["ERR_SSL_HTTPS_PROXY_REQUEST", ["protocol", "the peer sends a plain HTTP CONNECT"]],
  ["ERR_SSL_NOT_TLSV1_RECORD", ["protocol", "what the peer sends is not TLS"]],
  ["ERR_SSL_PACKET_LENGTH_TOO_LONG", ["protocol", "what the peer sends is not TLS"]],
  ["ERR_SSL_UNKNOWN_PROTOCOL", ["protocol", "what the peer sends is not TLS"]],
  ["ERR_SSL_WRONG_VERSION_NUMBER", ["protocol", "what the peer sends is not TLS"]],
  ["ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC", ["protocol", "a record was changed on its way"]],
  ["ERR_SSL_BAD_DECRYPT", ["protocol", "a record was changed on its way"]]
])

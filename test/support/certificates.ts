/**
 * Certificates made on the spot: Node can read X.509 but not write it. This writes the little of it that the tests need,
 * so that they need neither a program of the machine's nor certificates that expire.
 */
import { Redacted } from "effect"
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto"

// ---- DER

const der = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const content = Buffer.concat(parts)
  const { length } = content
  const size = length < 0x80
    ? [length]
    : length < 0x100
    ? [0x81, length]
    : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...size]), content])
}

const sequence = (...parts: ReadonlyArray<Uint8Array>) => der(0x30, ...parts)
/** Of two bytes at most, and not negative. */
const integer = (value: number) => {
  const bytes = value < 0x100 ? [value] : [value >> 8, value & 0xff]
  return der(0x02, Buffer.from((bytes[0] ?? 0) < 0x80 ? bytes : [0, ...bytes]))
}
const text = (value: string) => der(0x0c, Buffer.from(value))
const bits = (bytes: Uint8Array) => der(0x03, Buffer.from([0]), bytes)
const yes = der(0x01, Buffer.from([0xff]))

const oid = (name: string): Buffer => {
  const [first = 0, second = 0, ...rest] = name.split(".").map(Number)
  const bytes = rest.flatMap((part) => {
    const groups = [part & 0x7f]
    for (let left = part >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80)
    return groups
  })
  return der(0x06, Buffer.from([first * 40 + second, ...bytes]))
}

const time = (date: Date): Buffer =>
  der(0x18, Buffer.from(`${date.toISOString().replaceAll(/[-:T]/g, "").slice(0, 14)}Z`))

const nameOf = (commonName: string) => sequence(der(0x31, sequence(oid("2.5.4.3"), text(commonName))))

const extension = (name: string, isCritical: boolean, value: Uint8Array) =>
  sequence(oid(name), ...(isCritical ? [yes] : []), der(0x04, value))

const ecdsaWithSha256 = sequence(oid("1.2.840.10045.4.3.2"))

const pem = (label: string, bytes: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${
    Buffer.from(bytes).toString("base64").replaceAll(/.{64}/g, "$&\n").trimEnd()
  }\n-----END ${label}-----\n`

// ---- certificates

export interface Certificate {
  readonly name: string
  /** PEM, with those of the authorities between it and the root behind it. */
  readonly certificate: string
  readonly key: Redacted.Redacted
  readonly keyText: string
}

export interface Authority extends Certificate {
  readonly issue: (options: Options) => Certificate
  readonly issueAuthority: (name: string) => Authority
}

export interface Options {
  /** Alternative names: DNS names, or addresses (IPv6 with `::`). The first is the common name too. */
  readonly names: ReadonlyArray<string>
  readonly from?: Date
  readonly to?: Date
  readonly passphrase?: string
  /** With a critical extension that no program knows. */
  readonly hasUnknownExtension?: boolean
}

interface Issuer {
  readonly name: string
  readonly key: KeyObject
  /** What goes behind certificates of this issuer. */
  readonly chain: string
}

const day = 24 * 60 * 60 * 1000
export const daysFromNow = (count: number): Date => new Date(Date.now() + count * day)

const addressBytes = (address: string): Buffer => {
  const [front = [], back = []] = address.split("::").map((part) => part === "" ? [] : part.split(":"))
  const groups = [...front, ...Array<string>(8 - front.length - back.length).fill(""), ...back]
  return Buffer.from(groups.map((group) => group.padStart(4, "0")).join(""), "hex")
}

let serial = 1

const make = (
  options: Options & { readonly isAuthority: boolean },
  issuer: Issuer | undefined
): { readonly made: Certificate; readonly key: KeyObject } => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const name = options.names[0] ?? "nameless"
  const alternatives = options.names.map((name) =>
    /^[\d.]+$/.test(name)
      ? der(0x87, Buffer.from(name.split(".").map(Number)))
      : name.includes(":")
      ? der(0x87, addressBytes(name))
      : der(0x82, Buffer.from(name))
  )
  const body = sequence(
    der(0xa0, integer(2)),
    integer(serial++),
    ecdsaWithSha256,
    nameOf(issuer?.name ?? name),
    sequence(time(options.from ?? daysFromNow(-1)), time(options.to ?? daysFromNow(30))),
    nameOf(name),
    publicKey.export({ type: "spki", format: "der" }),
    der(
      0xa3,
      sequence(
        extension("2.5.29.19", true, options.isAuthority ? sequence(yes) : sequence()),
        ...(options.isAuthority ? [] : [extension("2.5.29.17", false, sequence(...alternatives))]),
        ...(options.hasUnknownExtension === true ? [extension("1.2.3.4", true, text("unknown"))] : [])
      )
    )
  )
  const key = issuer?.key ?? privateKey
  const certificate = pem("CERTIFICATE", sequence(body, ecdsaWithSha256, bits(sign("sha256", body, key))))
  const keyText = options.passphrase === undefined
    ? privateKey.export({ type: "pkcs8", format: "pem" })
    : privateKey.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: options.passphrase })
  return {
    made: {
      name,
      certificate: certificate + (issuer?.chain ?? ""),
      key: Redacted.make(String(keyText)),
      keyText: String(keyText)
    },
    key: privateKey
  }
}

const makeAuthority = (name: string, issuer: Issuer | undefined): Authority => {
  const { key, made } = make({ names: [name], isAuthority: true }, issuer)
  // A root is not sent along: it is trusted or it is not.
  const self = { name, key, chain: issuer === undefined ? "" : made.certificate }
  return {
    ...made,
    issue: (options) => make({ ...options, isAuthority: false }, self).made,
    issueAuthority: (name) => makeAuthority(name, self)
  }
}

/** A root that is trusted only where `ca` names it. */
export const authority = (name: string): Authority => makeAuthority(name, undefined)

export const selfSigned = (options: Options): Certificate => make({ ...options, isAuthority: false }, undefined).made

/** What most tests need: a root, and a server that is `localhost`. */
export const root = authority("effect-asio test root")
export const localhost = root.issue({ names: ["localhost", "127.0.0.1"] })

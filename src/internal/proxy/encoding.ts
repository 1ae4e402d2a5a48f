import { Buffer } from "node:buffer"
import * as Buffers from "../../Buffers.ts"

/** Throws for a header that the protocol cannot express. */
export const inexpressible = (detail: string): never => {
  throw new RangeError(`ProxyProtocol.encode: ${detail}`)
}

export const encodeUtf8 = (text: string): Uint8Array =>
  text.isWellFormed() ? Buffers.utf8(text) : inexpressible("text without UTF-8")

export const encodeLatin1 = (text: string): Uint8Array => {
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) > 255) inexpressible("an ALPN with characters that are no bytes")
  }
  return Buffer.from(text, "latin1")
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The text of these bytes, or `undefined` if they are not UTF-8. */
export const decodeUtf8 = (bytes: Uint8Array): string | undefined => {
  try {
    return strictUtf8.decode(bytes)
  } catch {
    return undefined
  }
}

export const hex = (value: number): string => `0x${value.toString(16)}`

import * as Option from "effect/Option"
import { Buffer } from "node:buffer"
import * as Buffers from "../../Buffers.ts"
import type { Header, Version } from "../../ProxyProtocol.ts"
import { Reason } from "../../SocketError.ts"
import { chunkSize, type Matcher } from "../core/Matcher.ts"
import type { ReadBuffer } from "../core/ReadBuffer.ts"
import { decodeBlock, signature, sizeOfBlock } from "./block.ts"
import { decodeLine, sizeOfLine } from "./line.ts"

/** Matches a PROXY header at the front of a stream; `None` if there is none and none is required. */
export class HeaderMatcher implements Matcher<Option.Option<Header>> {
  readonly operation = "receive"
  readonly total = undefined
  readonly runsCallerCode = false
  private readonly versions: ReadonlyArray<Version>
  private readonly max: number
  private readonly required: boolean
  private header: Option.Option<Header> = Option.none()
  // The bytes have the whole signature of a version.
  private hasBegun = false

  constructor(versions: ReadonlyArray<Version>, max: number, required: boolean) {
    this.versions = versions
    this.max = max
    this.required = required
  }

  /** Where no header is required, a stream that ends before its signature is complete has none. */
  get endsWithStream(): boolean {
    return !this.required && !this.hasBegun
  }

  find(buffer: ReadBuffer): number | Reason | undefined {
    const bytes = buffer.bytes()
    const found = this.look(bytes)
    if (found === undefined || typeof found === "number") return found
    return typeof found === "string" ? Reason.Framing({ detail: found }) : found
  }

  consume(buffer: ReadBuffer, length: number): Option.Option<Header> {
    if (Option.isSome(this.header)) buffer.consume(length)
    return this.header
  }

  want(): number {
    return chunkSize
  }

  /** The length of the header; 0 if there is none and none is required; what is wrong; `undefined` if more bytes are needed. */
  private look(bytes: Uint8Array): number | string | Reason | undefined {
    const version = beginsLike(bytes, signatures[2]) ? 2 : beginsLike(bytes, signatures[1]) ? 1 : undefined
    if (version === undefined) {
      if (!this.required) return 0
      const beginning = Buffer.from(bytes.subarray(0, 12)).toString("latin1")
      return `the connection begins with ${JSON.stringify(beginning)} and not with a PROXY header`
    }
    this.hasBegun = bytes.byteLength >= signatures[version].byteLength
    if (!this.hasBegun) return undefined
    if (!this.versions.includes(version)) return `a PROXY header of version ${version}, which is not accepted here`
    const size = version === 1 ? sizeOfLine(bytes) : sizeOfBlock(bytes, this.max)
    if (typeof size !== "number") return size
    if (bytes.byteLength < size) return undefined
    // A copy, because fields of the header are views of it and the caller may keep them.
    const own = bytes.slice(0, size)
    const header = version === 1 ? decodeLine(own) : decodeBlock(own)
    if (typeof header === "string") return header
    this.header = Option.some(header)
    return size
  }
}

// ---- internal

/** Whether the bytes that have arrived may be, or become, this signature. */
const beginsLike = (bytes: Uint8Array, signature: Uint8Array): boolean => {
  const length = Math.min(bytes.byteLength, signature.byteLength)
  for (let i = 0; i < length; i++) if (bytes[i] !== signature[i]) return false
  return true
}

const signatures: { readonly [V in Version]: Uint8Array } = { 1: Buffers.utf8("PROXY "), 2: signature }

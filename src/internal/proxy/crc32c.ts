/** CRC-32C (Castagnoli), as iSCSI, SCTP and the PROXY protocol use it; `node:zlib` has only the other CRC-32. */
export const crc32c = (bytes: Uint8Array): number => {
  table ??= makeTable()
  let crc = 0xffff_ffff
  for (const byte of bytes) crc = table[(crc ^ byte) & 0xff]! ^ (crc >>> 8)
  return (crc ^ 0xffff_ffff) >>> 0
}

let table: Uint32Array | undefined

const makeTable = (): Uint32Array =>
  Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1
    return crc
  })

/** Addresses that tests listen on. */
import { assert } from "@effect/vitest"
import * as NetAddress from "effect/net/NetAddress"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"

export const inet = NetAddress.inetAddressFromStringUnsafe

/** A port of the loopback that is free. */
export const anyPort = inet("127.0.0.1:0")

export const portOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isUnixPathAddress(address) ? assert.fail("not an internet address") : address.port

/** A directory that goes away with the test file. */
export const temporaryDirectory = (): string => {
  const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** Makes Unix-domain paths, another one with each call, in a directory that goes away with the test file. */
export const unixPaths = (): () => NetAddress.UnixPathAddress => {
  const directory = temporaryDirectory()
  let paths = 0
  return () => NetAddress.unixPathAddress(join(directory, `${paths++}.sock`))
}

import { it } from "@effect/vitest"
import { networkInterfaces } from "node:os"
import { describe } from "vitest"
import { conformance } from "./bind.ts"
import { tcp } from "./node.ts"

const name = "NodeTransport over TCP and IPv6"
const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? [])

if (addresses.some(({ address }) => address === "::1")) conformance(tcp(name, "[::1]"), it.live)
else {
  const reason = `${name}: this machine has no ::1`
  console.warn(`skipped: ${reason}`)
  describe.skip(reason, () => it("is skipped", () => {}))
}

/** This library over `node:net`: `node test/bench/servers/node-transport.ts PORT`, and what ours.ts takes besides. */
import * as NodeTransport from "../../../src/transport/NodeTransport.ts"
import { serve } from "./ours.ts"

serve(NodeTransport.layer)

/** This library over Linux epoll: `node test/bench/servers/epoll-transport.ts PORT`, and what ours.ts takes besides. */
import * as EpollTransport from "../../../src/transport/EpollTransport.ts"
import { serve } from "./ours.ts"

serve(EpollTransport.layer)

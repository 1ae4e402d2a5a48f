import { suite } from "./restart.ts"

suite("node")

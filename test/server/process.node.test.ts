import { suite } from "./process.ts"

suite("node")

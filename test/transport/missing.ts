/** An argument of Node that makes koffi missing, or broken, before anything else runs. */
export const missing = (method: "_resolveFilename" | "_load", error: string): string =>
  `--import=data:text/javascript,${
    encodeURIComponent(`
        import Module from "node:module"
        const original = Module.${method}
        Module.${method} = function(name, ...rest) {
          if (name === "koffi") throw new Error("${error}")
          return original.call(this, name, ...rest)
        }`)
  }`

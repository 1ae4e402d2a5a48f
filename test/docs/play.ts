/** Runs one example after the other, each under a line with its path. */
for (const path of process.argv.slice(2)) {
  console.log(path)
  await import(path)
}

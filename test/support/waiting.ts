/** Starting fibers, and waiting for what happens. Nothing waits for a time that the machine might exceed. */
export {
  cut,
  eventually,
  exitOf,
  promptly,
  start,
  steady,
  stillWaiting,
  turn,
  turns
} from "../../src/testing/checks/support.ts"

/** When to try again, and whether. Pure. */

import { timing } from "./timing.js";

/** Milliseconds before the next try after `failures` others in a row: doubling, capped, half of it by chance. */
export function backoff(failures: number, random: () => number = Math.random): number {
  return jittered(Math.min(timing.lastDelay, timing.firstDelay * 2 ** failures), random);
}

/** `delay` or less, half of it by chance: the clients of a server that comes back do not all call at once. */
export const jittered = (delay: number, random: () => number = Math.random): number => (delay / 2) * (1 + random());

/** Milliseconds before calling the successor of a server that goes away in order: none, but not all clients at once. */
export const soon = (random: () => number = Math.random): number => timing.firstDelay * random();

const START_TRIES = 5; // of a start that the server fails at, before its caller is told: some 4 to 8 seconds

/**
 * Whether a request that failed with `status` for the `failures`th time in a row may yet go well.
 *
 * No answer (0) is no verdict: the run may have been started, and only an answer says what became of it. A run that
 * has started is asked about until somebody knows, save where it is refused. A start that the server keeps failing
 * at is refused in the end, so that whoever waits is told.
 */
export function mayRetry(status: number, started: boolean, failures: number): boolean {
  if (status === 0) return true;
  const transient = status >= 500 || status === 408 || (started && status === 429);
  const garbled = status >= 200 && status < 400; // an answer, but not this API's: a login page, a captive portal
  if (transient) return started || failures < START_TRIES;
  return garbled && failures < START_TRIES;
}

/** When to try again, and whether. Pure. */

import { type RequestError, StrangeAnswer } from "./errors.js";
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

// The refusals that end a run which has started: nobody knows it any more, or not for us.
const ENDS: ReadonlySet<number> = new Set([401, 403, 404, 410]);

/**
 * Whether a request that failed for the `failures`th time in a row may yet go well.
 *
 * No answer (status 0) is no verdict: the run may have been started, and only an answer says what became of it. Nor is
 * the answer of somebody who is not this API. A run that has started is asked about until somebody knows, save where it
 * is refused. A start that the server keeps failing at, or that others keep answering, is refused in the end, so that
 * whoever waits is told.
 */
export function mayRetry(error: RequestError, started: boolean, failures: number): boolean {
  if (error.status === 0) return true;
  if (error instanceof StrangeAnswer || error.status >= 500) return started || failures < START_TRIES;
  return started && !ENDS.has(error.status);
}

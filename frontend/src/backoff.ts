/** When to try again, and whether. Pure. */

import { type RequestError, StrangeAnswer } from "./errors.js";
import { timing } from "./timing.js";

/** Milliseconds before the next try after `failures` earlier tries: doubled by each, capped, and jittered. */
export function backoff(failures: number, random: () => number = Math.random): number {
  return jittered(Math.min(timing.lastDelay, timing.firstDelay * 2 ** failures), random);
}

/** Half of `delay` or more, at random, so that not all clients call a server at once when it is back. */
export const jittered = (delay: number, random: () => number = Math.random): number => (delay / 2) * (1 + random());

/** Milliseconds before the next try after a server has shut down in order: few, but not the same for all clients. */
export const soon = (random: () => number = Math.random): number => timing.firstDelay * random();

const START_TRIES = 5; // if the server fails at a start: some 4 to 8 seconds

// Refusals that end a run which has started: it is gone, or it is not ours.
const FINAL_REFUSALS: ReadonlySet<number> = new Set([401, 403, 404, 410]);

/**
 * Whether a request that has failed `failures` times in a row may still succeed.
 *
 * - It had no answer (status 0): yes. The server may have started the run; only an answer says so.
 * - Something else than the API answered, or the server failed (5xx): yes for a run that has started. A start is given
 *   up after `START_TRIES`, so that its caller is told.
 * - The API refused (4xx): yes for a run that has started, unless the refusal is final.
 */
export function mayRetry(error: RequestError, started: boolean, failures: number): boolean {
  if (error.status === 0) return true;
  if (error instanceof StrangeAnswer || error.status >= 500) return started || failures < START_TRIES;
  return started && !FINAL_REFUSALS.has(error.status);
}

// Tries at an address that has never answered, before the caller is told to check it.
const UNANSWERED_STARTS = 6; // in some 12 to 16 seconds
const UNANSWERED_READS = 10; // in some 90 to 120 seconds: a server that restarts may take as long

/** Whether to give up an address that has never answered, after `failures` in a row within `ms` milliseconds. */
export function isUnanswered(started: boolean, failures: number, ms = 0): boolean {
  if (failures > 2 && ms > timing.unreached) return true;
  return failures >= (started ? UNANSWERED_READS : UNANSWERED_STARTS);
}

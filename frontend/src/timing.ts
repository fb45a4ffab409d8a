/** All times of the client, in milliseconds, in one place. Tests shorten them. */

import { isNode } from "./platform.js";

export const timing = {
  /** For a WebSocket handshake: after it, a proxy has swallowed the handshake. Doubled by each that had no answer. */
  handshake: 4_000,
  /**
   * For the answer to a frame, which takes a server milliseconds: if nothing comes or goes, the socket is dead after
   * once to twice this time. Doubled by each death: the page cannot see a large frame that arrives slowly.
   */
  answer: 10_000,
  /** For the answer to a ping after a sleep: a phone's radio needs a second or two, and the user is looking. */
  wake: 3_000,
  /**
   * For a server that is silent after a REST call, or within its answer: servers and proxies themselves give up after
   * 30 to 60 s. Doubled by each failure.
   */
  request: 30_000,
  /**
   * For a run that is pending over the socket: then the server is asked why. It knows after 3 s. Doubled by each
   * question, up to `lastDelay`.
   */
  pending: 5_000,
  /** Bytes a millisecond of the slowest upload that the first try waits for. */
  uploadRate: 10,
  /** For tries at an address that has never answered: after it, the caller has to check the address. */
  unreached: 120_000,
  /** A socket that has lived for this time was sound: the count of failures begins anew. */
  minUptime: 5_000,
  /** From a socket's last run to its end. A page's next run finds it open; a script in Node can end soon. */
  idle: isNode() ? 500 : 30_000,
  /** The first step of the backoff: a server that restarts is back after a few steps. */
  firstDelay: 500,
  /** The last step of the backoff: a client notices at most this late that a server is back. */
  lastDelay: 30_000,
};

const LATE = 20; // ms; in a page that is not busy, a timer is late by a few ms at most
const GRACE = 1_000; // ms to hear what came in the meantime
const GRACES = 3; // at most: in a hidden page every timer is late

/** Milliseconds on a clock that nobody sets. */
export const now = (): number => performance.now();

/**
 * Calls `expired` after `ms` milliseconds in which the page could hear something; returns a function that stops it.
 *
 * A page that is busy or asleep hears nothing. Its timers are late, and may come before messages that arrived earlier.
 * So a late timer does not expire: it waits once more, for those messages.
 */
export function limit(ms: number, expired: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let due = 0;
  let graces = GRACES;
  const wait = (delay: number) => {
    due = now() + delay;
    timer = setTimeout(look, delay);
  };
  const look = () => {
    if (now() - due < LATE || graces === 0) return expired();
    graces -= 1;
    wait(Math.min(ms, GRACE));
  };
  wait(ms);
  return () => clearTimeout(timer);
}

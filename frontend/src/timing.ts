/** How long the client waits for what: all of its times, in milliseconds, in one place that tests may shorten. */

import { isNode } from "./platform.js";

export const timing = {
  /** A WebSocket handshake: many round trips; past it a proxy swallows the handshake. Doubled by each that hung. */
  handshake: 4_000,
  /**
   * The answer to a frame, which takes a server milliseconds: past it, or twice it at most, a socket over which nothing
   * comes or goes is dead. Doubled by each that died so: a large frame that arrives slowly cannot be seen.
   */
  answer: 10_000,
  /** The answer to a ping after a sleep: a phone's radio takes a second or two to wake, and somebody is looking. */
  wake: 3_000,
  /**
   * The silence of a server after a REST call, or within its answer: servers and proxies give up at 30 to 60 s
   * themselves. Doubled by each try that failed.
   */
  request: 30_000,
  /** Bytes a millisecond of the slowest upload that is expected at first; what has left cannot be seen. */
  uploadRate: 10,
  /** Tries that have never had any answer, where each takes long: past it somebody has to look at the address. */
  unreached: 120_000,
  /** A socket that lived so long was sound: its end is no further failure in a row. */
  minUptime: 5_000,
  /** Between a socket's last run and its end: a page's next run finds it open, a script may end when it is done. */
  idle: isNode() ? 500 : 30_000,
  /** The first step of the backoff: a server that restarts is back within a few. */
  firstDelay: 500,
  /** The last step of the backoff: how late, at worst, a client notices that a server is back. */
  lastDelay: 30_000,
};

const LATE = 20; // ms: a timer of a page that is not busy is later by a few at most
const GRACE = 1_000; // ms in which what came meanwhile is heard
const GRACES = 3; // in a hidden page every timer is late

/**
 * Calls `expired` when `ms` have passed in which the page could hear something; returns what ends that.
 *
 * A page that is busy, or asleep, hears nothing: its timers come late, and perhaps ahead of what arrived before them.
 * So a timer that is late judges nothing, but lets that be heard first.
 */
export function limit(ms: number, expired: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let due = 0;
  let graces = GRACES;
  const wait = (delay: number) => {
    due = performance.now() + delay;
    timer = setTimeout(look, delay);
  };
  const look = () => {
    if (performance.now() - due < LATE || graces === 0) return expired();
    graces -= 1;
    wait(Math.min(ms, GRACE));
  };
  wait(ms);
  return () => clearTimeout(timer);
}

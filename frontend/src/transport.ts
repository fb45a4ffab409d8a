/** What every transport is to the connection, and the connection to it. */

import type { Sent, SentEvent, TaskInfo } from "./protocol.js";
import type { Run } from "./run.js";

export type TransportName = "websocket" | "sse" | "polling";

/** Carries runs and decides nothing: what it hears, it tells the listener. */
export interface Transport {
  readonly name: TransportName;

  /**
   * Carries a run from now on: starts it where it has no uuid yet, by its key so that this may be done twice, and
   * else follows it from the messages that are known. For a run that it carries already: asks again.
   */
  follow(run: Run): void;

  /** Carries it no longer, and says nothing more about it. */
  unfollow(run: Run): void;

  /**
   * Asks the server to cancel a run that it carries, whose uuid is known; resolves when that is accepted.
   *
   * Rejects with a RequestError. Its status is 0 where nobody knows whether the request arrived: ask again when the
   * server is next heard.
   */
  cancel(run: Run): Promise<void>;
}

export interface Listener {
  /** A representation came, with the messages past the first `after`, or the first of those. */
  answered(transport: Transport, run: Run, info: Sent<TaskInfo>, after: number): void;

  /** An event came. */
  happened(transport: Transport, run: Run, event: SentEvent): void;

  /** Asking for this run failed: a RequestError is the server's word (or its silence), any other is our own fault. */
  failed(transport: Transport, run: Run, error: Error): void;
}

/** The interface between a transport and the connection that uses it. */

import type { Sent, SentEvent, TaskInfo } from "./protocol.js";
import type { Run } from "./run.js";

export type TransportName = "websocket" | "sse" | "polling";

/** Carries runs and decides nothing: it tells the listener what it hears. */
export interface Transport {
  readonly name: TransportName;

  /**
   * Carries a run from now on. If it carries the run already, it asks again.
   *
   * A run without a uuid is started, by its key, so that this may be done twice. Any other run is followed from the
   * messages that are known. `failures` says how often this transport has failed for the run, in a row.
   */
  follow(run: Run, failures: number): void;

  /** Stops carrying the run, and says nothing more about it. */
  unfollow(run: Run): void;

  /**
   * Asks the server to cancel a run that it carries and whose uuid is known; resolves when the server has accepted.
   *
   * Rejects with a RequestError. Its status is 0 if the request may be lost: ask again when the server is heard.
   */
  cancel(run: Run): Promise<void>;
}

export interface Listener {
  /** A representation came, with the messages after the first `after`, or with some of them. */
  answered(transport: Transport, run: Run, info: Sent<TaskInfo>, after: number): void;

  /** An event came. */
  happened(transport: Transport, run: Run, event: SentEvent): void;

  /** Asking for this run failed. Any error but a RequestError is a fault of the page: the request could not be made. */
  failed(transport: Transport, run: Run, error: Error): void;
}

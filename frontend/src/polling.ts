/** Carries runs by REST: a POST to start one, and a GET for it every `pollInterval`. */

import type { TaskInfo } from "./protocol.js";
import { readRun, startRun } from "./rest.js";
import type { Run } from "./run.js";
import type { Listener, Transport } from "./transport.js";

export class PollingTransport implements Transport {
  readonly name = "polling";
  private readonly polls = new Map<Run, AbortController>();

  constructor(
    private readonly base: string,
    private readonly listener: Listener,
  ) {}

  follow(run: Run): void {
    if (this.polls.has(run)) return;
    const controller = new AbortController();
    this.polls.set(run, controller);
    void this.poll(run, controller.signal);
  }

  unfollow(run: Run): void {
    this.polls.get(run)?.abort();
    this.polls.delete(run);
  }

  /** Asks until the run is unfollowed or a request fails. */
  private async poll(run: Run, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const after = run.known;
      const answer = await this.ask(run, after, signal).catch((error: Error) => error);
      if (signal.aborted) return;
      if (answer instanceof Error) {
        this.polls.delete(run);
        this.listener.failed(this, run, answer);
        return;
      }
      this.listener.answered(this, run, answer, after);
      await pause(run.order.options.pollInterval, signal);
    }
  }

  private ask(run: Run, after: number, signal: AbortSignal): Promise<TaskInfo> {
    if (run.uuid === null) return startRun(this.base, run.order, signal);
    return readRun(this.base, run.uuid, after, run.order.options, signal);
  }
}

/** Waits, until `signal` is aborted at most. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

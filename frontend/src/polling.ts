/** Carries runs by REST: a POST to start one, and a GET for it every `pollInterval`. */

import type { TaskInfo } from "./protocol.js";
import { cancelRun, readRun, startRun } from "./rest.js";
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

  async cancel(run: Run): Promise<void> {
    const controller = new AbortController(); // not the poll's: the request counts wherever the run goes meanwhile
    const info = await cancelRun(this.base, String(run.uuid), run.options, controller.signal);
    if (this.polls.has(run)) this.listener.answered(this, run, info, 0);
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
      await pause(run.options.pollInterval, signal);
    }
  }

  private ask(run: Run, after: number, signal: AbortSignal): Promise<TaskInfo> {
    const { wanted, options } = run;
    if (!("uuid" in wanted)) return startRun(this.base, wanted, options, signal);
    return readRun(this.base, wanted.uuid, after, options, signal);
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

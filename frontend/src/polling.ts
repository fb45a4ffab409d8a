/** Carries runs by REST: a POST to start one, and a GET for it every `pollInterval`. */

import type { TaskInfo } from "./protocol.js";
import { cancelRun, readRun, startRun, Watch } from "./rest.js";
import type { Run } from "./run.js";
import type { Listener, Transport } from "./transport.js";

/** A run that is polled: what is under way for it. */
interface Poll {
  watch: Watch | null;
  /** Ends the pause between two requests. */
  hurry: () => void;
}

export class PollingTransport implements Transport {
  readonly name = "polling";
  private readonly polls = new Map<Run, Poll>();
  private readonly failures = new WeakMap<Run, number>(); // in a row

  constructor(
    private readonly base: string,
    private readonly listener: Listener,
  ) {}

  follow(run: Run): void {
    if (this.polls.has(run)) return;
    const poll: Poll = { watch: null, hurry: () => {} };
    this.polls.set(run, poll);
    this.poll(run, poll).catch((error: unknown) => this.failed(run, poll, error));
  }

  unfollow(run: Run): void {
    const poll = this.polls.get(run);
    this.polls.delete(run);
    poll?.watch?.stop();
    poll?.hurry();
  }

  /** The page may have slept: asks for it now, unless an answer is under way that shows life. */
  wake(run: Run): void {
    const poll = this.polls.get(run);
    poll?.watch?.hurry();
    poll?.hurry();
  }

  async cancel(run: Run): Promise<void> {
    const watch = new Watch(); // not the poll's: the request counts wherever the run goes meanwhile
    const info = await cancelRun(this.base, String(run.uuid), run.options, watch);
    if (this.polls.has(run)) this.listener.answered(this, run, info, 0);
  }

  /** Asks until the run is unfollowed or a request fails. */
  private async poll(run: Run, poll: Poll): Promise<void> {
    while (this.polls.get(run) === poll) {
      const after = run.known;
      poll.watch = new Watch(this.failures.get(run));
      const answer = await this.ask(run, after, poll.watch);
      poll.watch = null;
      if (this.polls.get(run) !== poll) return;
      this.failures.delete(run);
      this.listener.answered(this, run, answer, after);
      if (this.polls.get(run) === poll) await pause(run.options.pollInterval, poll);
    }
  }

  private failed(run: Run, poll: Poll, error: unknown): void {
    if (this.polls.get(run) !== poll) return;
    this.polls.delete(run);
    this.failures.set(run, (this.failures.get(run) ?? 0) + 1);
    this.listener.failed(this, run, error as Error);
  }

  private ask(run: Run, after: number, watch: Watch): Promise<TaskInfo> {
    const { wanted, options } = run;
    if (!("uuid" in wanted)) return startRun(this.base, wanted, options, watch);
    return readRun(this.base, wanted.uuid, after, options, watch);
  }
}

/** Waits, until somebody is in a hurry at most. */
function pause(ms: number, poll: Poll): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    poll.hurry = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

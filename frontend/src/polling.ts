/** Carries runs by REST: a POST to start one, and a GET for it every `pollInterval`. */

import type { TaskInfo } from "./protocol.js";
import { cancelCall, read, readCall, send, startCall, Watchdog } from "./rest.js";
import type { Run } from "./run.js";
import type { Listener, Transport } from "./transport.js";

/** The polling of one run. */
interface Poll {
  /** Of its last request, which may be under way. */
  watchdog: Watchdog | null;
  /** Ends the pause between two requests. */
  hurry: () => void;
  /** The last answer, and its entity tag. */
  last: TaskInfo | null;
  tag: string | null;
}

export class PollingTransport implements Transport {
  readonly name = "polling";
  private readonly polls = new Map<Run, Poll>();

  constructor(
    private readonly base: string,
    private readonly listener: Listener,
  ) {}

  follow(run: Run, failures: number): void {
    if (this.polls.has(run)) return;
    const poll: Poll = { watchdog: null, hurry: () => {}, last: null, tag: null };
    this.polls.set(run, poll);
    this.poll(run, poll, failures).catch((error: Error) => this.failed(run, poll, error));
  }

  unfollow(run: Run): void {
    const poll = this.polls.get(run);
    this.polls.delete(run);
    poll?.watchdog?.stop();
    poll?.hurry();
  }

  /** The page may have slept: asks now. A request that is under way has to show that it is alive. */
  wake(run: Run): void {
    const poll = this.polls.get(run);
    poll?.watchdog?.hurry();
    poll?.hurry();
  }

  async cancel(run: Run): Promise<void> {
    const watchdog = new Watchdog(); // not the poll's: the request goes on if the run moves to another transport
    const info = await send(cancelCall(this.base, String(run.uuid), run.options), watchdog);
    if (this.polls.has(run)) this.listener.answered(this, run, info, 0);
  }

  /** Asks until the run is unfollowed or a request fails. */
  private async poll(run: Run, poll: Poll, failures: number): Promise<void> {
    while (this.polls.get(run) === poll) {
      const after = run.known;
      poll.watchdog = new Watchdog(failures);
      const answer = await this.ask(run, after, poll, poll.watchdog);
      failures = 0;
      if (this.polls.get(run) !== poll) return;
      this.listener.answered(this, run, answer, after);
      if (this.polls.get(run) === poll) await pause(run.options.pollInterval, poll);
    }
  }

  private failed(run: Run, poll: Poll, error: Error): void {
    if (this.polls.get(run) !== poll) return;
    this.polls.delete(run);
    this.listener.failed(this, run, error);
  }

  private async ask({ wanted, options }: Run, after: number, poll: Poll, watchdog: Watchdog): Promise<TaskInfo> {
    const { base } = this;
    if (!("uuid" in wanted)) return send(startCall(base, wanted, options), watchdog);
    const { info, tag } = await read(readCall(base, wanted.uuid, after, options, poll.tag), watchdog);
    if (info === null && poll.last !== null) return { ...poll.last, messages: [] }; // it has none that are new
    poll.last = info;
    poll.tag = tag;
    return info as TaskInfo;
  }
}

/** Waits `ms` milliseconds, or until `poll.hurry` is called. */
function pause(ms: number, poll: Poll): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    poll.hurry = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

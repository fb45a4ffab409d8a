/** A caller's wish to have a run cancelled: asked for until the server's answer, or the run's end, says what came of it. */

import { backoff, mayRetry } from "./backoff.js";
import { deferred } from "./deferred.js";
import { RequestError, StrangeAnswer } from "./errors.js";

/**
 * - wanted: nobody has asked yet, or nobody knows whether the question arrived
 * - asked: the server's answer is awaited
 * - pausing: the server could not do it now, or somebody else answered, and it is asked again after a while
 * - accepted, refused: the promise has settled
 */
type State = "wanted" | "asked" | "pausing" | "accepted" | "refused";

export class Cancellation {
  state: State = "wanted";
  private readonly outcome = deferred<void>();
  private failures = 0;
  private pause: ReturnType<typeof setTimeout> | undefined;

  /** `ask` asks the server, over whichever transport carries the run by then. */
  constructor(private readonly ask: () => Promise<void>) {}

  /** Resolves when the server has accepted the request; rejects with its refusal. */
  get promise(): Promise<void> {
    return this.outcome.promise;
  }

  /** The server can be heard: asks it, where nobody has. Asking twice is harmless. */
  request(): void {
    if (this.state !== "wanted") return;
    this.state = "asked";
    this.ask().then(
      () => this.accept(),
      (error: Error) => this.failed(error),
    );
  }

  accept(): void {
    if (!this.isOpen()) return;
    this.state = "accepted";
    clearTimeout(this.pause);
    this.outcome.resolve();
  }

  refuse(error: Error): void {
    if (!this.isOpen()) return;
    this.state = "refused";
    clearTimeout(this.pause);
    this.outcome.reject(error);
  }

  private failed(error: Error): void {
    if (!this.isOpen()) return;
    if (!(error instanceof RequestError)) return this.refuse(error);
    const isStrange = error instanceof StrangeAnswer; // its status says nothing of the run
    if (error.status === 409 && !isStrange && this.failures > 0) return; // by an earlier try, perhaps: the end will tell
    this.failures += 1;
    if (!isStrange && !mayRetry(error, false, this.failures)) return this.refuse(error);
    if (error.status === 0) {
      this.state = "wanted"; // until the next sign of life
      return;
    }
    this.state = "pausing";
    this.pause = setTimeout(
      () => {
        this.state = "wanted";
        this.request();
      },
      backoff(this.failures - 1),
    );
  }

  /** Nobody knows yet what came of it. */
  isOpen(): boolean {
    return this.state !== "accepted" && this.state !== "refused";
  }
}

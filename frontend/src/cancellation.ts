/** A caller's request to cancel a run: repeated until the server's answer, or the run's end, settles it. */

import { backoff, mayRetry } from "./backoff.js";
import { deferred } from "./deferred.js";
import { RequestError, StrangeAnswer } from "./errors.js";

/**
 * - wanted: not sent yet, or it may not have arrived
 * - asked: waits for the server's answer
 * - pausing: the server could not do it now, or something else answered; it is sent again after a delay
 * - accepted, refused: the promise has settled
 */
type State = "wanted" | "asked" | "pausing" | "accepted" | "refused";

export class Cancellation {
  state: State = "wanted";
  private readonly outcome = deferred<void>();
  private failures = 0;
  private pause: ReturnType<typeof setTimeout> | undefined;

  /** `ask` asks the server, over the transport that carries the run at that moment. */
  constructor(private readonly ask: () => Promise<void>) {}

  /** Resolves when the server has accepted the request; rejects with its refusal. */
  get promise(): Promise<void> {
    return this.outcome.promise;
  }

  /** The server was just heard: sends the request if it is wanted. Sending it twice is harmless. */
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
    const isStrange = error instanceof StrangeAnswer; // its status says nothing about the run
    // An earlier try may have cancelled the run. Its end will tell.
    if (error.status === 409 && !isStrange && this.failures > 0) return;
    this.failures += 1;
    if (!isStrange && !mayRetry(error, false, this.failures)) return this.refuse(error);
    if (error.status === 0) {
      this.state = "wanted"; // until the server is heard again
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

  /** Whether the promise has not settled yet. */
  isOpen(): boolean {
    return this.state !== "accepted" && this.state !== "refused";
  }
}

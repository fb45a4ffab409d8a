/** Finds out why runs stay pending: no event says so, but the answer to a new subscription does. */

import { timing } from "./timing.js";

export class PendingWatch {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private questions = 0; // in a row

  /** `ask` subscribes once more to a run that is pending; it returns false if there is none any more. */
  constructor(private readonly ask: () => boolean) {}

  /** A run is pending: asks in a while, and more and more seldom. */
  begin(): void {
    const delay = Math.min(timing.lastDelay, timing.pending * 2 ** this.questions);
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.questions += 1;
      if (!this.ask()) this.questions = 0;
    }, delay);
  }

  /** No run is left. */
  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.questions = 0;
  }
}

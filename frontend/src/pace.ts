/** Limits how often a caller is told of changes: at most once in a frame of the screen. */

import { onFrame } from "./platform.js";

/**
 * - still: nothing was told in this frame; a change is told at once
 * - told: a change was told in this frame
 * - changed: a change was told in this frame, and there is another one to tell
 */
type State = "still" | "told" | "changed";

export class Pace {
  private state: State = "still";
  private stopWaiting = () => {};

  /** `tell` tells the state at that moment. */
  constructor(private readonly tell: () => void) {}

  /** Something has changed. */
  changed(): void {
    if (this.state === "still")
      this.tellNow(2); // the first of the two is the rest of the present frame
    else this.state = "changed";
  }

  /** Tells a change that was not told yet; there are no more changes. */
  end(): void {
    const { state } = this;
    this.stop();
    if (state === "changed") this.tell();
  }

  /** Tells no more changes. */
  stop(): void {
    this.stopWaiting();
    this.state = "still";
  }

  private tellNow(frames: number): void {
    this.state = "told";
    this.wait(frames);
    this.tell();
  }

  private wait(frames: number): void {
    this.stopWaiting = onFrame(() => {
      if (frames > 1) return this.wait(frames - 1);
      if (this.state === "changed") return this.tellNow(1);
      this.state = "still";
    });
  }
}

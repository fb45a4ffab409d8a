/** How often a caller is told of changes: once in a frame of the screen at most, which nobody could see more of. */

import { onFrame } from "./platform.js";

/**
 * - still: nothing was told in this frame: a change is told at once
 * - told: something was
 * - changed: something was, and there is more to tell
 */
type State = "still" | "told" | "changed";

export class Pace {
  private state: State = "still";
  private stopWaiting = () => {};

  /** `tell` tells how things are by then. */
  constructor(private readonly tell: () => void) {}

  /** Something has changed. */
  changed(): void {
    if (this.state === "still")
      this.tellNow(2); // the first that comes is the end of this frame
    else this.state = "changed";
  }

  /** Tells what is not told yet, since nothing follows. */
  end(): void {
    const { state } = this;
    this.stop();
    if (state === "changed") this.tell();
  }

  /** Tells nothing more. */
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

/** How fast a run advances, over the last seconds. */

const WINDOW = 5000; // ms
const LEAST = 800; // ms: from less, nobody can tell how long the rest will take

export class Rate {
  #samples = []; // [time, value], oldest first

  clear() {
    this.#samples = [];
  }

  /** The run has come to `value` now. */
  add(value, now = performance.now()) {
    this.#samples.push([now, value]);
    while (this.#samples.length > 2 && this.#samples[1][0] <= now - WINDOW) this.#samples.shift();
  }

  /** A second, or null while it is not known. */
  get perSecond() {
    if (this.#samples.length < 2) return null;
    const [[then, before], [now, value]] = [this.#samples[0], this.#samples.at(-1)];
    return now - then < LEAST || value <= before ? null : ((value - before) * 1000) / (now - then);
  }
}

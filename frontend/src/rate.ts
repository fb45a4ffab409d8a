/** How fast something advances, over the last seconds. Pure. */

const WINDOW = 5_000; // ms: long enough to be calm, short enough to follow a line that becomes slower
const LEAST = 1_000; // ms: what comes first goes into buffers, and tells nothing

export class Rate {
  private readonly samples: { at: number; value: number }[] = [];

  /** At the time `at`, in ms, it had come to `value`. */
  add(at: number, value: number): void {
    this.samples.push({ at, value });
    while (this.samples.length > 2 && (this.samples[1] as { at: number }).at <= at - WINDOW) this.samples.shift();
  }

  /** A second; null until it is known. */
  get value(): number | null {
    const [first] = this.samples;
    const last = this.samples[this.samples.length - 1];
    if (first === undefined || last === undefined || last.at - first.at < LEAST) return null;
    return ((last.value - first.value) * 1_000) / (last.at - first.at);
  }
}

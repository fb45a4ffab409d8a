/** How fast something is sent, over the last seconds. Pure. */

const WARM_UP = 1_000; // ms: what leaves first goes into buffers of the system, and says nothing about the line
const LEAST = 1_000; // ms between two samples that say something
const WINDOW = 5_000; // ms: long enough to be calm, short enough to follow a line that becomes slower

interface Sample {
  readonly at: number;
  readonly value: number;
}

export class Rate {
  private begin: number | null = null;
  private samples: Sample[] = [];

  /** At the time `at`, in ms, so much had been sent. */
  add(at: number, value: number): void {
    this.begin ??= at;
    if (at - this.begin < WARM_UP) this.samples = [];
    this.samples.push({ at, value });
    while (this.samples.length > 2 && (this.samples[1] as Sample).at <= at - WINDOW) this.samples.shift();
  }

  /** So much a second; null until it is known. */
  get value(): number | null {
    const [first] = this.samples;
    const last = this.samples[this.samples.length - 1];
    if (first === undefined || last === undefined || last.at - first.at < LEAST) return null;
    return ((last.value - first.value) * 1_000) / (last.at - first.at);
  }
}

/** The events of one `for await` loop, kept from its beginning until it takes them. */

import type { TaskChangeEvent } from "./protocol.js";

type Result = IteratorResult<TaskChangeEvent, undefined>;

const DONE: Result = { done: true, value: undefined };

export class Iteration implements AsyncIterator<TaskChangeEvent, undefined> {
  private state: "open" | "ended" = "open";
  private readonly events = new Queue<TaskChangeEvent>();
  private readonly awaiting = new Queue<(result: Result) => void>(); // empty while there are events

  /** It begins with `events`; `left` is called if the loop is left before the end. */
  constructor(
    events: readonly TaskChangeEvent[],
    private readonly left: (iteration: Iteration) => void,
  ) {
    for (const event of events) this.events.push(event);
  }

  push(event: TaskChangeEvent): void {
    const resolve = this.awaiting.shift();
    if (resolve === undefined) this.events.push(event);
    else resolve({ done: false, value: event });
  }

  /** There are no more events. */
  end(): void {
    this.state = "ended";
    for (let resolve = this.awaiting.shift(); resolve !== undefined; resolve = this.awaiting.shift()) resolve(DONE);
  }

  next(): Promise<Result> {
    const event = this.events.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (this.state === "ended") return Promise.resolve(DONE);
    return new Promise((resolve) => this.awaiting.push(resolve));
  }

  /** Ends at once, and forgets the events that were kept. */
  return(): Promise<Result> {
    this.events.clear();
    this.end();
    this.left(this);
    return Promise.resolve(DONE);
  }
}

/** A queue whose `shift` is cheap: a loop that is slower than its run keeps tens of thousands of events. */
class Queue<T> {
  private items: T[] = [];
  private taken = 0;

  push(item: T): void {
    this.items.push(item);
  }

  shift(): T | undefined {
    if (this.taken === this.items.length) return undefined;
    const item = this.items[this.taken];
    this.taken += 1;
    if (this.taken * 2 > this.items.length) {
      this.items = this.items.slice(this.taken); // copies no more items than were taken since the last copy
      this.taken = 0;
    }
    return item;
  }

  clear(): void {
    this.items = [];
    this.taken = 0;
  }
}

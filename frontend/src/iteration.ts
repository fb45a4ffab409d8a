/** The events of one `for await`, kept from the moment that it begins until it takes them. */

import type { TaskChangeEvent } from "./protocol.js";

type Result = IteratorResult<TaskChangeEvent, undefined>;

const DONE: Result = { done: true, value: undefined };

export class Iteration implements AsyncIterator<TaskChangeEvent, undefined> {
  private state: "open" | "ended" = "open";
  private readonly events = new Queue<TaskChangeEvent>();
  private readonly awaiting = new Queue<(result: Result) => void>(); // only while there are no events

  /** It begins with `events`; `left` is called where its loop is left before the end. */
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

  /** Nothing follows what has been pushed. */
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

  /** Ends at once: what was kept is forgotten. */
  return(): Promise<Result> {
    this.events.clear();
    this.end();
    this.left(this);
    return Promise.resolve(DONE);
  }
}

/** An array whose `shift` moves nothing: a loop that is slower than its run keeps tens of thousands of events. */
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
      this.items = this.items.slice(this.taken); // no more than as many as have been taken since the last time
      this.taken = 0;
    }
    return item;
  }

  clear(): void {
    this.items = [];
    this.taken = 0;
  }
}

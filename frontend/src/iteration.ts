/** The events of one `for await`, kept from the moment that it begins until it takes them. */

import type { TaskChangeEvent } from "./protocol.js";

type Result = IteratorResult<TaskChangeEvent, undefined>;

const DONE: Result = { done: true, value: undefined };

export class Iteration implements AsyncIterator<TaskChangeEvent, undefined> {
  private state: "open" | "ended" = "open";
  private readonly events: TaskChangeEvent[];
  private readonly awaiting: ((result: Result) => void)[] = []; // only while there are no events

  /** It begins with `events`; `left` is called where its loop is left before the end. */
  constructor(
    events: readonly TaskChangeEvent[],
    private readonly left: (iteration: Iteration) => void,
  ) {
    this.events = [...events];
  }

  push(event: TaskChangeEvent): void {
    const resolve = this.awaiting.shift();
    if (resolve === undefined) this.events.push(event);
    else resolve({ done: false, value: event });
  }

  /** Nothing follows what has been pushed. */
  end(): void {
    this.state = "ended";
    for (const resolve of this.awaiting.splice(0)) resolve(DONE);
  }

  next(): Promise<Result> {
    const event = this.events.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (this.state === "ended") return Promise.resolve(DONE);
    return new Promise((resolve) => this.awaiting.push(resolve));
  }

  return(): Promise<Result> {
    this.events.length = 0;
    this.end();
    this.left(this);
    return Promise.resolve(DONE);
  }
}

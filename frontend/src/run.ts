/** The state of one run, merged from answers and events: it never goes back, and nothing counts twice. Pure. */

import type { Options } from "./options.js";
import {
  isFinal,
  type JSONValue,
  type OmittedMessageEvent,
  type Sent,
  type SentEvent,
  type TaskChangeEvent,
  type TaskInfo,
  type TaskMessageEvent,
  type TaskProgressEvent,
  type TaskStatusEvent,
  type TaskTargetEvent,
} from "./protocol.js";

/** A run to start. The key makes it safe to ask again if the first try has no answer. */
export interface Order {
  readonly task: string;
  readonly inputs: JSONValue;
  readonly key: string;
}

/** A run that has been started. */
export interface Existing {
  readonly uuid: string;
}

/** What an answer or an event has changed, as events. They are the same on every transport. */
export interface Change {
  readonly changed: boolean;
  readonly events: readonly TaskChangeEvent[];
}

const NOTHING: Change = { changed: false, events: [] };

/**
 * - starting: no answer yet
 * - following: its representation is known
 * - behind: messages are missing; a snapshot has to bring them
 * - partial: something did not fit into a frame; a REST request has to bring it
 * - ending: it has finished, but messages or fields are missing; a REST request has to bring them
 * - finished: its final representation and every message are known; nothing changes any more
 */
export type RunState = "starting" | "following" | "behind" | "partial" | "ending" | "finished";

/** All fields but the messages. */
type Facts = Omit<TaskInfo, "messages">;

// Fields whose change is told to `onStatus`, though they have no event.
const TOLD = ["attempt", "cancel_requested", "started", "finished"] as const;

export class Run {
  state: RunState = "starting";
  private facts: Facts | null = null;
  private outcome: Facts | null = null; // ending: the final facts, if only messages are missing
  private missing: string[] = []; // fields that no answer has brought yet
  private readonly messages: JSONValue[] = []; // only grows

  constructor(
    private readonly origin: Order | Existing,
    readonly options: Options,
  ) {}

  /** What to ask the server for. */
  get wanted(): Order | Existing {
    return this.facts ?? this.origin;
  }

  /** Null before the first answer to a start. */
  get uuid(): string | null {
    return "uuid" in this.wanted ? this.wanted.uuid : null;
  }

  /** Whether the server knows it, and it has not begun, or waits for its next attempt. */
  get isPending(): boolean {
    return this.facts?.status === "pending";
  }

  /** What the server has last said about its waiting. */
  get hint(): string | undefined {
    return this.facts?.hint?.message;
  }

  /** How many messages are known. */
  get known(): number {
    return this.messages.length;
  }

  /** The representation as far as it is known, in a new object. There is none before the first answer. */
  current(): TaskInfo {
    if (this.facts === null) throw new Error("The run has not been answered yet.");
    const message_count = Math.max(this.facts.message_count, this.known);
    return withMessages({ ...this.facts, message_count }, this.messages);
  }

  /** The events of an answer that would tell everything that is known now. */
  replay(): readonly TaskChangeEvent[] {
    if (this.facts === null) return [];
    const again = new Run(this.origin, this.options);
    return [...again.answer(this.current(), 0).events, ...again.conclude().events];
  }

  /** Takes a representation, with the messages after the first `after`, or with the first of those. */
  answer(info: Sent<TaskInfo>, after: number): Change {
    if (this.state === "finished") return NOTHING;
    const { messages: sent, ...rest } = info;
    const facts = this.filled(rest);
    const messages = sent.slice(Math.max(0, this.known - after)).map(
      (message, offset): TaskMessageEvent => ({
        ...this.stamp(facts),
        type: "message",
        index: this.known + offset,
        message,
      }),
    );
    for (const { message } of messages) this.messages.push(message);
    const { changed, events } = this.settle(facts);
    // The order of the stream: a run starts before its messages, and ends after them.
    const inOrder = isFinal(facts.status) ? [...messages, ...events] : [...events, ...messages];
    return { changed: changed || messages.length > 0, events: inOrder };
  }

  /** A representation, with known values for the fields that it leaves out; notes which are missing. */
  private filled({ omitted = [], ...sent }: Sent<Partial<Facts>>): Facts {
    const { hint: _, ...known }: Partial<Facts> = this.facts ?? {}; // an answer without a hint takes it back
    this.missing = omitted.filter(
      (name) => this.missing.includes(name) || (known[name as keyof typeof known] ?? null) === null,
    );
    const inputs = "inputs" in this.origin ? this.origin.inputs : null; // until the server has converted them
    return { inputs, outputs: null, error: null, ...known, ...sent } as Facts;
  }

  /** Takes the facts of an answer whose messages were taken. */
  private settle(facts: Facts): Change {
    const wasEnding = this.state === "ending";
    if (!isFinal(facts.status)) {
      if (!wasEnding) this.state = this.missing.length > 0 ? "partial" : "following";
      return this.adopt(facts);
    }
    if (this.missing.length > 0 || (!wasEnding && this.known < facts.message_count)) return this.end(facts);
    this.state = "finished"; // complete, or a second answer has not brought more
    return this.adopt(facts);
  }

  /** Takes an event of the stream. */
  event(event: SentEvent): Change {
    if (this.facts === null || this.state === "finished") return NOTHING;
    if (event.type === "message") return this.append(event);
    if (event.type === "finished") return this.end(this.filled(event.task));
    if (event.seq <= this.facts.seq) return NOTHING;
    if (event.type === "status" && isFinal(event.status)) return NOTHING; // `finished` follows, with the outcome
    const reset = event.attempt > this.facts.attempt ? { progress: null, target: null } : {};
    return this.adopt({ ...this.facts, ...reset, attempt: event.attempt, seq: event.seq, ...said(event) });
  }

  /** The server has accepted a request to cancel. */
  cancelRequested(): Change {
    if (this.facts === null || this.state === "finished") return NOTHING;
    return this.adopt({ ...this.facts, cancel_requested: true });
  }

  /** Ends a run whose outcome is known, but whose missing messages cannot be fetched. */
  conclude(): Change {
    if (this.state !== "ending" || this.outcome === null) return NOTHING;
    this.state = "finished";
    return this.adopt(this.outcome);
  }

  /** Takes a message by its index, not by its `seq`: a snapshot with a higher `seq` may lack it. */
  private append(event: TaskMessageEvent | OmittedMessageEvent): Change {
    if (event.index < this.known || this.facts === null) return NOTHING;
    const isNext = event.index === this.known;
    if (!isNext || "omitted" in event) {
      if (this.state === "following" || this.state === "behind") this.state = isNext ? "partial" : "behind";
      return NOTHING;
    }
    this.messages.push(event.message);
    this.facts = { ...this.facts, seq: Math.max(this.facts.seq, event.seq) };
    const change = { changed: true, events: [event] };
    if (this.state !== "ending" || this.outcome === null || this.known < this.outcome.message_count) return change;
    const end = this.conclude();
    return { changed: true, events: [event, ...end.events] };
  }

  /** Takes the outcome; it is told when every message is known. */
  private end(outcome: Facts): Change {
    this.outcome = this.missing.length > 0 ? null : outcome;
    this.state = "ending";
    return this.known < outcome.message_count ? NOTHING : this.conclude();
  }

  /** Takes newer facts, and tells what has changed. A final status is always newer. */
  private adopt(facts: Facts): Change {
    const before = this.facts;
    if (before !== null && facts.seq < before.seq && !isFinal(facts.status)) return NOTHING;
    const sameAttempt = before !== null && before.attempt === facts.attempt;
    const now: Facts = {
      ...facts,
      // The row is written less often than events are sent, so an answer may have less progress.
      progress: sameAttempt ? furthest(before.progress, facts.progress) : facts.progress,
      seq: Math.max(before?.seq ?? 0, facts.seq),
      cancel_requested: facts.cancel_requested || before?.cancel_requested === true, // a request cannot be withdrawn
    };
    if (now.status !== "pending") delete now.hint;
    this.facts = now;
    const events: TaskChangeEvent[] = [];
    if (now.target !== (before?.target ?? null))
      events.push({ ...this.stamp(now), type: "target", target: now.target });
    if (now.progress !== (before?.progress ?? null)) {
      events.push({ ...this.stamp(now), type: "progress", progress: now.progress, target: now.target });
    }
    if (!sameAttempt || before.status !== now.status) {
      const event: TaskChangeEvent = { ...this.stamp(now), type: "status", status: now.status };
      if (isFinal(now.status)) events.push(event);
      else events.unshift(event);
    }
    const changed =
      before === null || events.length > 0 || TOLD.some((name) => before[name] !== now[name]) || isNews(before, now);
    return { changed, events };
  }

  private stamp({ uuid, attempt, seq }: Facts): { uuid: string; attempt: number; seq: number } {
    return { uuid, attempt, seq };
  }
}

/** Whether there is another hint than before, or none any more. */
const isNews = (before: Facts, now: Facts): boolean => before.hint?.message !== now.hint?.message;

/** The fields that an event changes. */
function said(event: TaskStatusEvent | TaskTargetEvent | TaskProgressEvent): Partial<Facts> {
  switch (event.type) {
    case "status":
      return { status: event.status };
    case "target":
      return { target: event.target };
    case "progress":
      return { progress: event.progress, target: event.target };
  }
}

const furthest = (before: number | null, now: number | null): number | null =>
  before === null ? now : now === null ? before : Math.max(before, now);

/**
 * A representation with the messages that are known now, in an array of its own.
 *
 * They are copied when they are first read: most callbacks read only the progress of a run with many messages.
 */
function withMessages(facts: Facts, all: readonly JSONValue[]): TaskInfo {
  const count = all.length;
  let own: JSONValue[] | undefined;
  return Object.defineProperty(facts, "messages", {
    enumerable: true,
    configurable: true,
    get: () => {
      own ??= all.slice(0, count);
      return own;
    },
    set: (messages: JSONValue[]) => {
      own = messages;
    },
  }) as TaskInfo;
}

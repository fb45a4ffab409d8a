/** What the caller of `run` or `attach` holds and hears: a promise that settles once, callbacks, and listeners. */

import { deferred } from "./deferred.js";
import { hasEnded, RequestError, TaskCancelled, TaskFailed } from "./errors.js";
import { Iteration } from "./iteration.js";
import { report } from "./platform.js";
import type {
  JSONObject,
  SucceededTask,
  TaskChangeEvent,
  TaskInfo,
  TaskMessageEvent,
  TaskProgressEvent,
  TaskStatusEvent,
  TaskTargetEvent,
} from "./protocol.js";
import type { Change, Run } from "./run.js";
import type { TransportName } from "./transport.js";

/** From now on another transport carries the run. */
export interface TransportEvent {
  type: "transport";
  transport: TransportName;
}

/** What a handle's `on` listens to, by name. */
export interface HandleEvents {
  message: TaskMessageEvent;
  progress: TaskProgressEvent;
  status: TaskStatusEvent;
  target: TaskTargetEvent;
  transport: TransportEvent;
}

/** The promise that `run` and `attach` return, and what else one may do with a run. */
export interface TaskHandle<Outputs = JSONObject>
  extends Promise<SucceededTask<Outputs>>,
    AsyncIterable<TaskChangeEvent> {
  /** The run's uuid, once the server has accepted the run, or shown it. */
  readonly uuid: Promise<string>;

  /**
   * Asks the server to stop the run; resolves when it has accepted that, and the run then ends as it ends.
   *
   * Waits until the run is accepted, and through a broken connection. Rejects with RequestError where it is refused:
   * 409 where the run has ended.
   */
  cancel(): Promise<void>;

  /** Calls `listener` with each event of that type; returns a function that ends it. */
  on<Type extends keyof HandleEvents>(type: Type, listener: (event: HandleEvents[Type]) => void): () => void;

  /**
   * `for await (const event of handle)`: where the run stands, told as events, then each event, kept until the loop
   * takes it. Ends with the run, whichever way that ends; the promise says which.
   */
  [Symbol.asyncIterator](): AsyncIterator<TaskChangeEvent, undefined>;
}

export interface Callbacks<Outputs = JSONObject> {
  onStatus?: ((task: TaskInfo<Outputs>) => void) | null | undefined;
  onSuccess?: ((task: SucceededTask<Outputs>) => void) | null | undefined;
  onError?: ((error: Error) => void) | null | undefined;
}

type Listener = (event: HandleEvents[keyof HandleEvents]) => void;

/** One caller: all that it is told passes through here, and nothing after the promise has settled. */
export class Caller {
  readonly handle: TaskHandle;
  private state: "waiting" | "settled" = "waiting";
  private run: Run | null = null;
  private requestCancel: (() => Promise<void>) | null = null;
  private transport: TransportName | null = null;
  private readonly listeners = new Map<string, Set<Listener>>();
  private readonly iterations = new Set<Iteration>();
  private readonly resolve: (task: SucceededTask) => void;
  private readonly reject: (error: Error) => void;
  private readonly hasUUID: (uuid: string) => void;
  private readonly hasNoUUID: (error: Error) => void;

  constructor(private readonly callbacks: Callbacks) {
    const task = deferred<SucceededTask>();
    const uuid = deferred<string>();
    this.resolve = task.resolve;
    this.reject = task.reject;
    this.hasUUID = uuid.resolve;
    this.hasNoUUID = uuid.reject;
    const on = (type: string, listener: Listener) => this.on(type, listener);
    const cancel = () => this.cancel();
    const iterate = () => this.iterate();
    const members = { uuid: uuid.promise, on, cancel, [Symbol.asyncIterator]: iterate };
    this.handle = Object.assign(task.promise, members) as TaskHandle;
    // Who gave `onError` is told by it, and who never asks for the uuid need not hear that there is none.
    if (typeof callbacks.onError === "function") task.promise.catch(() => {});
    uuid.promise.catch(() => {});
  }

  /** Its run is under way, and `requestCancel` asks for it to be cancelled once it has a uuid. */
  follows(run: Run, requestCancel: () => Promise<void>): void {
    this.run = run;
    this.requestCancel = requestCancel;
  }

  /** The run is carried by `transport`, as an answer or an event has just shown. */
  carriedBy(transport: TransportName): void {
    if (this.state === "settled" || this.transport === transport) return;
    this.transport = transport;
    this.emit({ type: "transport", transport });
  }

  /** The server knows the run. */
  accepted(uuid: string): void {
    this.hasUUID(uuid);
  }

  /** The run has changed. */
  changed(run: Run, change: Change): void {
    if (this.state === "settled" || !change.changed) return;
    // Iterations first: one that a listener begins is told of all of this change by its replay.
    for (const iteration of this.iterations) for (const event of change.events) iteration.push(event);
    for (const event of change.events) this.emit(event);
    call(this.callbacks.onStatus, () => run.current());
  }

  /** The run has ended. */
  ended(run: Run): void {
    const task = run.current();
    if (task.status === "failed") return this.failed(new TaskFailed(task));
    if (task.status === "cancelled") return this.failed(new TaskCancelled(task));
    if (this.state === "settled") return;
    this.settle();
    call(this.callbacks.onSuccess, () => run.current() as SucceededTask);
    this.resolve(task as SucceededTask);
  }

  failed(error: Error): void {
    if (this.state === "settled") return;
    this.settle();
    call(this.callbacks.onError, () => error);
    this.hasNoUUID(error);
    this.reject(error);
  }

  private settle(): void {
    this.state = "settled";
    for (const iteration of this.iterations) iteration.end();
    this.iterations.clear();
  }

  private iterate(): Iteration {
    const iteration = new Iteration(this.run?.replay() ?? [], (left) => this.iterations.delete(left));
    if (this.state === "settled") iteration.end();
    else this.iterations.add(iteration);
    // The promise may reject while the loop still takes what was kept; whoever loops asks it afterwards.
    this.handle.catch(() => {});
    return iteration;
  }

  private async cancel(): Promise<void> {
    await this.handle.uuid;
    if (this.state === "settled") throw await this.handle.then(hasEnded, refusal);
    return this.requestCancel?.();
  }

  private on(type: string, listener: Listener): () => void {
    const listeners = this.listeners.get(type) ?? new Set();
    this.listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  private emit(event: HandleEvents[keyof HandleEvents]): void {
    for (const listener of [...(this.listeners.get(event.type) ?? [])]) call(listener, () => event);
  }
}

/** Why a run that is no longer followed cannot be cancelled. */
const refusal = (error: Error): Error => (error instanceof RequestError ? error : hasEnded());

/** Calls a caller's function, where there is one; what it throws is its own affair, and goes to the console. */
function call<T>(fn: ((value: T) => void) | null | undefined, value: () => T): void {
  if (typeof fn !== "function") return;
  try {
    fn(value());
  } catch (error) {
    report(error);
  }
}

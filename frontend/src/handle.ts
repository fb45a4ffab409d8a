/** What the caller of `run` or `attach` holds and hears: a promise that settles once, callbacks, and listeners. */

import { deferred } from "./deferred.js";
import { AbortError, hasEnded, RequestError, TaskCancelled, TaskFailed } from "./errors.js";
import { Iteration } from "./iteration.js";
import { Pace } from "./pace.js";
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

  /**
   * Ends following: the promise settles no more, nobody is called, and loops end. The run goes on, and so do its other
   * handles. What was asked for still reaches the server: the start, and a `cancel()`, of before or after.
   */
  detach(): void;

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

/** What `attach` takes in place of the callbacks. */
export interface FollowOptions<Outputs = JSONObject> extends Callbacks<Outputs> {
  /** Aborted, it ends following: the handle rejects with an AbortError. The run goes on, as after `detach()`. */
  signal?: AbortSignal | null | undefined;
}

/** What `run` takes in place of the callbacks. */
export interface RunOptions<Outputs = JSONObject> extends FollowOptions<Outputs> {
  /** The same caller, task and key give the same run. One of its own where it is left out. */
  idempotencyKey?: string | null | undefined;
}

/** What a caller asks of whoever carries its run. */
export interface Carrier {
  /** Has the run cancelled, once it has a uuid. */
  cancel(): Promise<void>;

  /** The caller follows the run no longer. */
  leave(): void;
}

type Listener = (event: HandleEvents[keyof HandleEvents]) => void;

/** One caller: all that it is told passes through here, and nothing after the promise has settled, or it has left. */
export class Caller {
  readonly handle: TaskHandle;
  /** `cancel()` was called. */
  wantsCancel = false;
  private state: "waiting" | "settled" | "left" = "waiting";
  private run: Run | null = null;
  private carrier: Carrier | null = null;
  private transport: TransportName | null = null;
  private readonly listeners = new Map<string, Set<Listener>>();
  private readonly iterations = new Set<Iteration>();
  private readonly resolve: (task: SucceededTask) => void;
  private readonly reject: (error: Error) => void;
  private readonly hasUUID: (uuid: string) => void;
  private readonly hasNoUUID: (error: Error) => void;
  private readonly pace = new Pace(() => this.tellStatus());
  private readonly abort = () => this.aborted();

  constructor(
    private readonly callbacks: Callbacks,
    private readonly signal?: AbortSignal | null,
  ) {
    const task = deferred<SucceededTask>();
    const uuid = deferred<string>();
    this.resolve = task.resolve;
    this.reject = task.reject;
    this.hasUUID = uuid.resolve;
    this.hasNoUUID = uuid.reject;
    const on = (type: string, listener: Listener) => this.on(type, listener);
    const cancel = () => this.cancel();
    const detach = () => this.detach();
    const iterate = () => this.iterate();
    const members = { uuid: uuid.promise, on, cancel, detach, [Symbol.asyncIterator]: iterate };
    this.handle = Object.assign(task.promise, members) as TaskHandle;
    // Who gave `onError` is told by it, and who never asks for the uuid need not hear that there is none.
    if (typeof callbacks.onError === "function") task.promise.catch(() => {});
    uuid.promise.catch(() => {});
    signal?.addEventListener("abort", this.abort);
  }

  /** Its run is under way. */
  follows(run: Run, carrier: Carrier): void {
    this.run = run;
    this.carrier = carrier;
  }

  /** The run is carried by `transport`, as an answer or an event has just shown. */
  carriedBy(transport: TransportName): void {
    if (this.state !== "waiting" || this.transport === transport) return;
    this.transport = transport;
    this.emit({ type: "transport", transport });
  }

  /** The server knows the run. */
  accepted(uuid: string): void {
    this.hasUUID(uuid);
  }

  /** The run has changed. */
  changed(change: Change): void {
    if (this.state !== "waiting" || !change.changed) return;
    // Iterations first: one that a listener begins is told of all of this change by its replay.
    for (const iteration of this.iterations) for (const event of change.events) iteration.push(event);
    for (const event of change.events) this.emit(event);
    if (this.state === "waiting" && typeof this.callbacks.onStatus === "function") this.pace.changed();
  }

  /** The run has ended. */
  ended(run: Run): void {
    const task = run.current();
    if (task.status === "failed") return this.failed(new TaskFailed(task));
    if (task.status === "cancelled") return this.failed(new TaskCancelled(task));
    if (!this.settle()) return;
    call(this.callbacks.onSuccess, () => run.current() as SucceededTask);
    this.resolve(task as SucceededTask);
  }

  failed(error: Error): void {
    this.hasNoUUID(error);
    if (!this.settle()) return;
    call(this.callbacks.onError, () => error);
    this.reject(error);
  }

  /** Whether the promise has to settle now; first, everything that happened before is told. */
  private settle(): boolean {
    if (this.state === "waiting") this.pace.end();
    if (this.state !== "waiting") return false; // `onStatus` may have detached
    this.state = "settled";
    this.signal?.removeEventListener("abort", this.abort);
    for (const iteration of this.iterations) iteration.end();
    this.iterations.clear();
    return true;
  }

  private detach(): void {
    if (this.state !== "waiting") return;
    this.state = "left";
    this.pace.stop();
    this.signal?.removeEventListener("abort", this.abort);
    this.listeners.clear();
    for (const iteration of this.iterations) void iteration.return();
    this.carrier?.leave();
  }

  /** The caller's signal says that it follows no longer. */
  aborted(): void {
    if (this.state !== "waiting") return;
    const error = new AbortError(this.signal?.reason);
    this.detach();
    if (this.run === null) this.hasNoUUID(error);
    this.handle.catch(() => {}); // who aborts knows: the console need not say that nobody took the rejection
    call(this.callbacks.onError, () => error);
    this.reject(error);
  }

  private tellStatus(): void {
    const { run } = this;
    if (run !== null) call(this.callbacks.onStatus, () => run.current());
  }

  private iterate(): Iteration {
    const begin = this.state === "left" ? [] : (this.run?.replay() ?? []);
    const iteration = new Iteration(begin, (left) => this.iterations.delete(left));
    if (this.state === "waiting") this.iterations.add(iteration);
    else iteration.end();
    // The promise may reject while the loop still takes what was kept; whoever loops asks it afterwards.
    this.handle.catch(() => {});
    return iteration;
  }

  private async cancel(): Promise<void> {
    this.wantsCancel = true;
    await this.handle.uuid;
    if (this.state === "settled") throw await this.handle.then(hasEnded, refusal);
    return this.carrier?.cancel();
  }

  private on(type: string, listener: Listener): () => void {
    const listeners = this.listeners.get(type) ?? new Set();
    this.listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  private emit(event: HandleEvents[keyof HandleEvents]): void {
    for (const listener of [...(this.listeners.get(event.type) ?? [])]) {
      if (this.state === "waiting") call(listener, () => event); // one before it may have detached
    }
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

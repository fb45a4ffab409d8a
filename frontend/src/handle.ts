/** The handle that `run` and `attach` return: a promise that settles once, callbacks, listeners and loops. */

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
import type { UploadEvent } from "./upload.js";

/** Another transport carries the run from now on. */
export interface TransportEvent {
  type: "transport";
  transport: TransportName;
}

/** The events of a handle's `on`, by type. */
export interface HandleEvents {
  message: TaskMessageEvent;
  progress: TaskProgressEvent;
  status: TaskStatusEvent;
  target: TaskTargetEvent;
  transport: TransportEvent;
  upload: UploadEvent;
}

/** The promise that `run` and `attach` return; it also controls the run. */
export interface TaskHandle<Outputs = JSONObject>
  extends Promise<SucceededTask<Outputs>>,
    AsyncIterable<TaskChangeEvent> {
  /** Resolves with the run's uuid when the server has accepted or shown the run. */
  readonly uuid: Promise<string>;

  /**
   * Asks the server to cancel the run; resolves when the server has accepted the request. The run may end later.
   *
   * Waits until the run is accepted, and survives a broken connection. Rejects with a RequestError if the server
   * refuses: 409 if the run has ended. While files are uploaded, it ends the upload, the handle rejects with an
   * AbortError, and there is no run.
   */
  cancel(): Promise<void>;

  /**
   * Ends following: the promise never settles, no function is called, and loops end. The run and its other handles go
   * on. The start still reaches the server, and so does a `cancel()`, even if it is called later. An upload is ended.
   */
  detach(): void;

  /** Calls `listener` with each event of that type; returns a function that stops it. */
  on<Type extends keyof HandleEvents>(type: Type, listener: (event: HandleEvents[Type]) => void): () => void;

  /**
   * `for await (const event of handle)`: the run's state as events, then each event, kept until the loop takes it.
   * The loop ends when the run ends, in any way; the promise tells the outcome.
   */
  [Symbol.asyncIterator](): AsyncIterator<TaskChangeEvent, undefined>;
}

export interface Callbacks<Outputs = JSONObject> {
  onStatus?: ((task: TaskInfo<Outputs>) => void) | null | undefined;
  onSuccess?: ((task: SucceededTask<Outputs>) => void) | null | undefined;
  onError?: ((error: Error) => void) | null | undefined;
}

/** The options of `attach`; they may replace the callbacks. */
export interface FollowOptions<Outputs = JSONObject> extends Callbacks<Outputs> {
  /** If it is aborted, the handle rejects with an AbortError. The run goes on, as after `detach()`; an upload ends. */
  signal?: AbortSignal | null | undefined;
}

/** The options of `run`; they may replace the callbacks. */
export interface RunOptions<Outputs = JSONObject> extends FollowOptions<Outputs> {
  /** The same user, task and key give the same run. By default, each start has a new key. */
  idempotencyKey?: string | null | undefined;
}

/** How a caller controls its run. */
export interface RunControl {
  /** Asks for the run to be cancelled. */
  cancel(): Promise<void>;

  /** The caller no longer follows the run. */
  leave(): void;
}

type Listener = (event: HandleEvents[keyof HandleEvents]) => void;

/** One caller. All that it is told passes through here: nothing after it has left, or after its promise has settled. */
export class Caller {
  readonly handle: TaskHandle;
  private state: "waiting" | "settled" | "left" = "waiting";
  private run: Run | null = null;
  private control: RunControl | null = null; // null without a run, or if its start was refused
  private stopUpload: (() => void) | null = null; // while its files are uploaded
  private isCancelled = false; // before there was a run
  private transport: TransportName | null = null;
  private readonly listeners = new Map<string, Set<Listener>>();
  private readonly iterations = new Set<Iteration>();
  private readonly task = deferred<SucceededTask>();
  private readonly uuid = deferred<string>();
  private readonly pace = new Pace(() => this.tellStatus());
  private readonly abort = () => this.aborted();

  constructor(
    private readonly callbacks: Callbacks,
    private readonly signal?: AbortSignal | null,
  ) {
    const { task, uuid } = this;
    const on = (type: string, listener: Listener) => this.on(type, listener);
    const cancel = () => this.cancel();
    const detach = () => this.detach();
    const iterate = () => this.iterate();
    const members = { uuid: uuid.promise, on, cancel, detach, [Symbol.asyncIterator]: iterate };
    this.handle = Object.assign(task.promise, members) as TaskHandle;
    // A caller with `onError`, or one that does not use the uuid, causes no unhandled rejection.
    if (typeof callbacks.onError === "function") task.promise.catch(() => {});
    uuid.promise.catch(() => {});
    signal?.addEventListener("abort", this.abort);
  }

  /** Whether it has stopped following, by `detach()` or its signal. */
  get hasLeft(): boolean {
    return this.state === "left";
  }

  /** Its files are under way; `stop` ends that. */
  uploads(stop: () => void): void {
    this.stopUpload = stop;
  }

  /** More of its files has left. */
  uploaded(event: UploadEvent): void {
    this.emit(event);
  }

  /** Its run is under way. */
  follows(run: Run, control: RunControl): void {
    this.stopUpload = null;
    this.run = run;
    this.control = control;
  }

  /** An answer or an event has come over `transport`. */
  carriedBy(transport: TransportName): void {
    if (this.state !== "waiting" || this.transport === transport) return;
    this.transport = transport;
    this.emit({ type: "transport", transport });
  }

  /** The server knows the run. */
  accepted(uuid: string): void {
    this.uuid.resolve(uuid);
  }

  /** The run has changed. */
  changed(change: Change): void {
    if (this.state !== "waiting" || !change.changed) return;
    // Iterations first: if a listener begins one, its replay has all of this change already.
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
    this.task.resolve(task as SucceededTask);
  }

  /** The run failed, was cancelled, or was refused. */
  failed(error: Error): void {
    this.uuid.reject(error);
    this.stopUpload = null;
    if (this.run?.uuid === null) this.control = null;
    if (!this.settle()) return;
    call(this.callbacks.onError, () => error);
    this.task.reject(error);
  }

  /** Tells everything that happened before the end; returns whether the promise has to settle now. */
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
    this.endUpload();
    this.control?.leave();
  }

  /** Ends the upload, if one is under way: there will be no run. Returns the error that says so. */
  private endUpload(cause?: unknown): AbortError | null {
    if (this.stopUpload === null) return null;
    const error = new AbortError(cause, true);
    this.stopUpload();
    this.stopUpload = null;
    this.uuid.reject(error);
    return error;
  }

  /** The caller's signal was aborted. */
  aborted(): void {
    if (this.state !== "waiting") return;
    const reason = this.signal?.reason;
    const error = this.endUpload(reason) ?? new AbortError(reason);
    this.detach();
    if (this.run === null) this.uuid.reject(error);
    this.handle.catch(() => {}); // the caller aborted it, so this is no unhandled rejection
    call(this.callbacks.onError, () => error);
    this.task.reject(error);
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
    // The promise may reject before the loop has taken all events. The caller asks the promise after the loop.
    this.handle.catch(() => {});
    return iteration;
  }

  private async cancel(): Promise<void> {
    const ended = this.endUpload();
    if (ended !== null) {
      this.isCancelled = true;
      return this.failed(ended);
    }
    if (this.isCancelled) return;
    if (this.state !== "settled" && this.control !== null) return this.control.cancel();
    await this.handle.uuid; // rejects if there is no run
    throw await this.handle.then(hasEnded, refusal);
  }

  private on(type: string, listener: Listener): () => void {
    const listeners = this.listeners.get(type) ?? new Set();
    this.listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  private emit(event: HandleEvents[keyof HandleEvents]): void {
    for (const listener of [...(this.listeners.get(event.type) ?? [])]) {
      if (this.state === "waiting") call(listener, () => event); // an earlier listener may have detached
    }
  }
}

/** Why a run whose handle has rejected cannot be cancelled. */
const refusal = (error: Error): Error => (error instanceof RequestError ? error : hasEnded());

/** Calls a caller's function, if there is one. An error that it throws goes to the console. */
function call<T>(fn: ((value: T) => void) | null | undefined, value: () => T): void {
  if (typeof fn !== "function") return;
  try {
    fn(value());
  } catch (error) {
    report(error);
  }
}

/** What the caller of `run` holds and hears: a promise that settles once, callbacks, and listeners. */

import { TaskCancelled, TaskFailed } from "./errors.js";
import { report } from "./platform.js";
import type {
  JSONObject,
  SucceededTask,
  TaskInfo,
  TaskMessageEvent,
  TaskProgressEvent,
  TaskStatusEvent,
} from "./protocol.js";
import type { Change } from "./run.js";
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
  transport: TransportEvent;
}

/** The promise that `run` returns, and what else one may do with a run. */
export interface TaskHandle<Outputs = JSONObject> extends Promise<SucceededTask<Outputs>> {
  /** The run's uuid, once the server has accepted it. */
  readonly uuid: Promise<string>;

  /** Calls `listener` with each event of that type; returns a function that ends it. */
  on<Type extends keyof HandleEvents>(type: Type, listener: (event: HandleEvents[Type]) => void): () => void;
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
  private transport: TransportName | null = null;
  private readonly listeners = new Map<string, Set<Listener>>();
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
    this.handle = Object.assign(task.promise, { uuid: uuid.promise, on }) as TaskHandle;
    // Who gave `onError` is told by it, and who never asks for the uuid need not hear that there is none.
    if (typeof callbacks.onError === "function") task.promise.catch(() => {});
    uuid.promise.catch(() => {});
  }

  /** The run is carried by `transport`, as an answer or an event has just shown. */
  carriedBy(transport: TransportName): void {
    if (this.state === "settled" || this.transport === transport) return;
    this.transport = transport;
    this.emit({ type: "transport", transport });
  }

  /** The server has accepted the run. */
  accepted(uuid: string): void {
    this.hasUUID(uuid);
  }

  /** The run has changed; `current` makes a representation that is the caller's own. */
  changed(change: Change, current: () => TaskInfo): void {
    if (this.state === "settled" || !change.changed) return;
    for (const event of change.events) {
      if (event.type === "message" || event.type === "progress" || event.type === "status") this.emit(event);
    }
    call(this.callbacks.onStatus, current);
  }

  /** The run has ended. */
  ended(current: () => TaskInfo): void {
    const task = current();
    if (task.status === "failed") return this.failed(new TaskFailed(task));
    if (task.status === "cancelled") return this.failed(new TaskCancelled(task));
    if (this.state === "settled") return;
    this.state = "settled";
    call(this.callbacks.onSuccess, current as () => SucceededTask);
    this.resolve(task as SucceededTask);
  }

  failed(error: Error): void {
    if (this.state === "settled") return;
    this.state = "settled";
    call(this.callbacks.onError, () => error);
    this.hasNoUUID(error);
    this.reject(error);
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

/** Calls a caller's function, where there is one; what it throws is its own affair, and goes to the console. */
function call<T>(fn: ((value: T) => void) | null | undefined, value: () => T): void {
  if (typeof fn !== "function") return;
  try {
    fn(value());
  } catch (error) {
    report(error);
  }
}

interface Deferred<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: Error) => void;
}

function deferred<T>(): Deferred<T> {
  const parts: Partial<Deferred<T>> = {};
  parts.promise = new Promise<T>((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts as Deferred<T>;
}

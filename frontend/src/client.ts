/** The client: `run`, `attach` and `options`, over one connection to each server that a page talks to. */

import { Connection } from "./connection.js";
import { RequestError, TaskCancelled, TaskFailed } from "./errors.js";
import { type Callbacks, Caller, type FollowOptions, type RunOptions, type TaskHandle } from "./handle.js";
import { defaults, type Options } from "./options.js";
import { basicToken, hasWebSocket, newKey, onLeave, resolveBase } from "./platform.js";
import { type JSONObject, type JSONValue, parseJSON } from "./protocol.js";
import { type Existing, type Order, Run } from "./run.js";

declare const VERSION: string; // of package.json, put in by the build

export class Client {
  /** Of the script; of two on a page the first stays. */
  readonly version = VERSION;

  /** Read each time that a run is started or attached to. */
  options: Options = defaults();

  readonly TaskFailed = TaskFailed;
  readonly TaskCancelled = TaskCancelled;
  readonly RequestError = RequestError;

  private readonly connections = new Map<string, Connection>();
  private handedOver: Set<Run> | null = null; // while the page may be gone with the next moment

  constructor() {
    this.run = this.run.bind(this); // so that it may be taken off the object
    this.attach = this.attach.bind(this);
  }

  /**
   * Starts a task, and follows it to its end.
   *
   * The callbacks may be null; the promise and they get the representation with every message so far. The promise
   * rejects, and `onError` is called, with TaskFailed, TaskCancelled, RequestError, or an AbortError of `signal`.
   */
  run<Outputs = JSONObject>(
    task: string,
    inputs: object | null | undefined,
    options: RunOptions<Outputs>,
  ): TaskHandle<Outputs>;
  run<Outputs = JSONObject>(
    task: string,
    inputs?: object | null,
    onStatus?: Callbacks<Outputs>["onStatus"],
    onSuccess?: Callbacks<Outputs>["onSuccess"],
    onError?: Callbacks<Outputs>["onError"],
  ): TaskHandle<Outputs>;
  run(
    task: string,
    inputs?: object | null,
    first?: RunOptions | Callbacks["onStatus"],
    onSuccess?: Callbacks["onSuccess"],
    onError?: Callbacks["onError"],
  ): TaskHandle {
    const how: RunOptions = named(first, onSuccess, onError);
    return this.board(how, () => ({ task, inputs: asJSON(inputs ?? {}), key: keyOf(how) }));
  }

  /**
   * Follows a run that has been started before: by this page ahead of a reload, by another one, by the server.
   *
   * As `run` in all else: the first answer tells the callbacks all there has been so far. RequestError 404 where there
   * is no such run, or it is somebody else's.
   */
  attach<Outputs = JSONObject>(uuid: string, options: FollowOptions<Outputs>): TaskHandle<Outputs>;
  attach<Outputs = JSONObject>(
    uuid: string,
    onStatus?: Callbacks<Outputs>["onStatus"],
    onSuccess?: Callbacks<Outputs>["onSuccess"],
    onError?: Callbacks<Outputs>["onError"],
  ): TaskHandle<Outputs>;
  attach(
    uuid: string,
    first?: FollowOptions | Callbacks["onStatus"],
    onSuccess?: Callbacks["onSuccess"],
    onError?: Callbacks["onError"],
  ): TaskHandle {
    return this.board(named(first, onSuccess, onError), () => existing(uuid));
  }

  private board(how: FollowOptions, wanted: () => Order | Existing): TaskHandle {
    const signal = isSignal(how.signal) ? how.signal : null;
    const caller = new Caller(how, signal);
    const later = (tell: () => void) => void Promise.resolve().then(tell); // nothing is told before `run` has returned
    if (signal?.aborted) {
      later(() => caller.aborted());
      return caller.handle;
    }
    try {
      if (how.signal && !signal)
        throw new TypeError("`signal` is no AbortSignal; of an AbortController, give its `signal`.");
      const options = { ...this.options };
      options.token ??= basicToken(options.baseURL);
      checkTransport(options);
      const run = new Run(wanted(), options);
      const connection = this.connectionTo(resolveBase(options.baseURL));
      connection.add(run, caller);
      if (this.handedOver !== null) connection.handOver(this.handedOver);
    } catch (error) {
      later(() => caller.failed(error as Error));
    }
    return caller.handle;
  }

  /** The page may be gone with the next moment: what it has asked for, and asks for now, is handed over. */
  private leave(): void {
    if (this.handedOver === null) {
      this.handedOver = new Set();
      setTimeout(() => {
        this.handedOver = null; // it is still here, or here again
      });
    }
    for (const connection of this.connections.values()) connection.handOver(this.handedOver);
  }

  private connectionTo(base: string): Connection {
    if (this.connections.size === 0) onLeave(() => this.leave());
    const connection = this.connections.get(base) ?? new Connection(base);
    this.connections.set(base, connection);
    return connection;
  }
}

/** Throws where the transport that the options ask for cannot be had here. */
function checkTransport({ transport, token }: Options): void {
  switch (transport) {
    case "auto":
    case "polling":
      return;
    case "websocket":
      if (!hasWebSocket()) throw new Error('TaskAPI.options.transport is "websocket", and there is no WebSocket here.');
      if (token) throw new Error('TaskAPI.options.token does not go with transport "websocket" in this version.');
      return;
    case "sse":
      throw new Error('TaskAPI.options.transport "sse" is not in this version yet.');
    default:
      throw new Error(`TaskAPI.options.transport is ${JSON.stringify(transport)}, which is no transport.`);
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The run of that uuid; RequestError, as the server would refuse, for what can be nobody's. */
function existing(uuid: unknown): Existing {
  if (typeof uuid === "string" && UUID.test(uuid)) return { uuid: uuid.toLowerCase() };
  throw new RequestError(404, `There is no run ${JSON.stringify(uuid)}.`);
}

/** What is given by name, whether in one object or as the three callbacks of 1.x. */
function named(
  first: RunOptions | Callbacks["onStatus"],
  onSuccess: Callbacks["onSuccess"],
  onError: Callbacks["onError"],
): RunOptions {
  return typeof first === "object" && first !== null ? { ...first } : { onStatus: first, onSuccess, onError };
}

const isSignal = (signal: unknown): signal is AbortSignal =>
  typeof signal === "object" && signal !== null && "aborted" in signal && "addEventListener" in signal;

// What a header and a frame carry alike; a header may be quoted. 255 characters are the server's bound.
const KEY = /^(?!")[!-~]([ -~]{0,253}[!-~])?$/;

/** The key of a start; TypeError with a sentence where it is none that every transport takes. */
function keyOf({ idempotencyKey }: RunOptions): string {
  if (idempotencyKey === undefined || idempotencyKey === null) return newKey();
  if (typeof idempotencyKey === "string" && KEY.test(idempotencyKey)) return idempotencyKey;
  throw new TypeError(
    `idempotencyKey is ${JSON.stringify(idempotencyKey)}; expected 1 to 255 printable characters of ASCII, no quote or space first.`,
  );
}

/** A copy, as it will be sent: what the caller changes later stays here as it was. */
const asJSON = (inputs: object): JSONValue => parseJSON(JSON.stringify(inputs)) as JSONValue;

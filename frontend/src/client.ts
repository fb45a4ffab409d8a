/** The client: `run`, `attach` and `options`, over one connection to each server that a page talks to. */

import { Connection } from "./connection.js";
import { RequestError, TaskCancelled, TaskFailed } from "./errors.js";
import { type Separated, separate } from "./files.js";
import { type Callbacks, Caller, type FollowOptions, type RunOptions, type TaskHandle } from "./handle.js";
import { defaults, type Options } from "./options.js";
import { basicToken, hasWebSocket, newKey, onLeave, resolveBase } from "./platform.js";
import type { JSONObject } from "./protocol.js";
import { type Existing, type Order, Run } from "./run.js";
import { Upload } from "./upload.js";

/** What a caller has asked for. */
interface Wanted {
  readonly run: Order | Existing;
  /** The inputs of an order, and the files that have to be uploaded for it first. */
  readonly separated?: Separated;
}

declare const VERSION: string; // from package.json; the build sets it

export class Client {
  /** Of the script. If a page loads two, the first stays. */
  readonly version = VERSION;

  /** Read at each call of `run` or `attach`. */
  options: Options = defaults();

  readonly TaskFailed = TaskFailed;
  readonly TaskCancelled = TaskCancelled;
  readonly RequestError = RequestError;

  private readonly connections = new Map<string, Connection>();
  private handedOver: Set<Run> | null = null; // the runs handed over while the page is about to go

  constructor() {
    this.run = this.run.bind(this); // so that it works without the object
    this.attach = this.attach.bind(this);
  }

  /**
   * Starts a task and follows the run to its end.
   *
   * The promise and the callbacks get the representation, with every message so far. The promise rejects, and `onError`
   * is called, with TaskFailed, TaskCancelled, RequestError, or an AbortError if `signal` is aborted.
   *
   * A `File` or `Blob` that is an input, or in a list that is one, is uploaded first; `on("upload")` tells how far it is.
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
    return this.follow(how, () => {
      const separated = separate(inputs ?? {});
      return { run: { task, inputs: separated.inputs, key: keyOf(how) }, separated };
    });
  }

  /**
   * Follows a run that exists: this page started it before a reload, or another page or the server did.
   *
   * Everything else is as with `run`. The first answer has every message so far. Rejects with RequestError 404 if there
   * is no such run, or if it belongs to another user.
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
    return this.follow(named(first, onSuccess, onError), () => ({ run: existing(uuid) }));
  }

  private follow(how: FollowOptions, wanted: () => Wanted): TaskHandle {
    const signal = isSignal(how.signal) ? how.signal : null;
    const caller = new Caller(how, signal);
    const later = (tell: () => void) => void Promise.resolve().then(tell); // not before `run` has returned
    if (signal?.aborted) {
      later(() => caller.aborted());
      return caller.handle;
    }
    try {
      if (how.signal && !signal)
        throw new TypeError("`signal` has to be an AbortSignal. If you have an AbortController, pass its `signal`.");
      const options = { ...this.options };
      options.token ??= basicToken(options.baseURL);
      checkTransport(options);
      const { run, separated } = wanted();
      const base = resolveBase(options.baseURL);
      if (separated?.files.length)
        this.upload(separated, base, options, caller, () => this.begin(run, base, options, caller));
      else this.begin(run, base, options, caller);
    } catch (error) {
      later(() => caller.failed(error as Error));
    }
    return caller.handle;
  }

  private begin(wanted: Order | Existing, base: string, options: Options, caller: Caller): void {
    const connection = this.connectionTo(base);
    connection.add(new Run(wanted, options), caller);
    if (this.handedOver !== null) connection.handOver(this.handedOver);
  }

  /** Uploads the files, and calls `begin` when the server has them, unless the caller has left by then. */
  private upload(separated: Separated, base: string, options: Options, caller: Caller, begin: () => void): void {
    const upload = new Upload(separated, base, options, (event) => caller.uploaded(event));
    caller.uploads(() => upload.stop());
    upload
      .send()
      .then(() => {
        if (upload.isDone) begin();
      })
      .catch((error: Error) => caller.failed(error));
  }

  /** The page may go at any moment: hands over what it has asked for, and what it still asks for now. */
  private leave(): void {
    if (this.handedOver === null) {
      this.handedOver = new Set();
      setTimeout(() => {
        this.handedOver = null; // the page is still here
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

/** Throws if the transport that the options ask for does not work here. */
function checkTransport({ transport, token }: Options): void {
  switch (transport) {
    case "auto":
    case "polling":
      return;
    case "websocket":
      if (!hasWebSocket()) throw new Error('TaskAPI.options.transport is "websocket", but there is no WebSocket here.');
      if (token) throw new Error('TaskAPI.options.token cannot be used with transport "websocket" in this version.');
      return;
    default:
      throw new Error(
        `TaskAPI.options.transport is ${JSON.stringify(transport)}; expected "auto", "websocket" or "polling".`,
      );
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The run with that uuid; throws the RequestError that the server would answer if it is no uuid. */
function existing(uuid: unknown): Existing {
  if (typeof uuid === "string" && UUID.test(uuid)) return { uuid: uuid.toLowerCase() };
  throw new RequestError(404, `There is no run ${JSON.stringify(uuid)}.`);
}

/** The options in one object, or the three callbacks of 1.x as such an object. */
function named(
  first: RunOptions | Callbacks["onStatus"],
  onSuccess: Callbacks["onSuccess"],
  onError: Callbacks["onError"],
): RunOptions {
  return typeof first === "object" && first !== null ? { ...first } : { onStatus: first, onSuccess, onError };
}

const isSignal = (signal: unknown): signal is AbortSignal =>
  typeof signal === "object" && signal !== null && "aborted" in signal && "addEventListener" in signal;

// What both a header and a frame can carry. A quote would begin a quoted header. The server's limit is 255 characters.
const KEY = /^(?!")[!-~]([ -~]{0,253}[!-~])?$/;

/** The idempotency key of a start; throws a TypeError if a transport cannot carry the caller's. */
function keyOf({ idempotencyKey }: RunOptions): string {
  if (idempotencyKey === undefined || idempotencyKey === null) return newKey();
  if (typeof idempotencyKey === "string" && KEY.test(idempotencyKey)) return idempotencyKey;
  throw new TypeError(
    `idempotencyKey is ${JSON.stringify(idempotencyKey)}; expected 1 to 255 printable ASCII characters, no quote first, no space first or last.`,
  );
}

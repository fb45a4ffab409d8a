/** The client: `run`, `attach` and `options`, over one connection to each server that a page talks to. */

import { Connection } from "./connection.js";
import { RequestError, TaskCancelled, TaskFailed } from "./errors.js";
import { type Callbacks, Caller, type TaskHandle } from "./handle.js";
import { defaults, type Options } from "./options.js";
import { hasWebSocket, newKey, resolveBase } from "./platform.js";
import { type JSONObject, type JSONValue, parseJSON } from "./protocol.js";
import { type Existing, type Order, Run } from "./run.js";

export class Client {
  /** Read each time that a run is started or attached to. */
  options: Options = defaults();

  readonly TaskFailed = TaskFailed;
  readonly TaskCancelled = TaskCancelled;
  readonly RequestError = RequestError;

  private readonly connections = new Map<string, Connection>();

  constructor() {
    this.run = this.run.bind(this); // so that it may be taken off the object
    this.attach = this.attach.bind(this);
  }

  /**
   * Starts a task, and follows it to its end.
   *
   * The callbacks may be null; the promise and they get the representation with every message so far. The promise
   * rejects, and `onError` is called, with TaskFailed, TaskCancelled or RequestError.
   */
  run<Outputs = JSONObject>(
    task: string,
    inputs?: object | null,
    onStatus?: Callbacks<Outputs>["onStatus"],
    onSuccess?: Callbacks<Outputs>["onSuccess"],
    onError?: Callbacks<Outputs>["onError"],
  ): TaskHandle<Outputs> {
    return this.board({ onStatus, onSuccess, onError } as Callbacks, () => ({
      task,
      inputs: asJSON(inputs ?? {}),
      key: newKey(),
    }));
  }

  /**
   * Follows a run that has been started before: by this page ahead of a reload, by another one, by the server.
   *
   * As `run` in all else: the first answer tells the callbacks all there has been so far. RequestError 404 where there
   * is no such run, or it is somebody else's.
   */
  attach<Outputs = JSONObject>(
    uuid: string,
    onStatus?: Callbacks<Outputs>["onStatus"],
    onSuccess?: Callbacks<Outputs>["onSuccess"],
    onError?: Callbacks<Outputs>["onError"],
  ): TaskHandle<Outputs> {
    return this.board({ onStatus, onSuccess, onError } as Callbacks, () => existing(uuid));
  }

  private board<Outputs>(callbacks: Callbacks, wanted: () => Order | Existing): TaskHandle<Outputs> {
    const caller = new Caller(callbacks);
    try {
      const options = { ...this.options };
      checkTransport(options);
      const run = new Run(wanted(), options);
      this.connectionTo(resolveBase(options.baseURL)).add(run, caller);
    } catch (error) {
      void Promise.resolve().then(() => caller.failed(error as Error)); // as every other failure: after `run` returned
    }
    return caller.handle as unknown as TaskHandle<Outputs>;
  }

  private connectionTo(base: string): Connection {
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

/** A copy, as it will be sent: what the caller changes later stays here as it was. */
const asJSON = (inputs: object): JSONValue => parseJSON(JSON.stringify(inputs)) as JSONValue;

/** The client: `run` and `options`, over one connection to each server that a page talks to. */

import { Connection } from "./connection.js";
import { RequestError, TaskCancelled, TaskFailed } from "./errors.js";
import { type Callbacks, Caller, type TaskHandle } from "./handle.js";
import { defaults, type Options } from "./options.js";
import { hasWebSocket, newKey, resolveBase } from "./platform.js";
import { type JSONObject, type JSONValue, parseJSON } from "./protocol.js";
import { Run } from "./run.js";

export class Client {
  /** Read each time that a run is started. */
  options: Options = defaults();

  readonly TaskFailed = TaskFailed;
  readonly TaskCancelled = TaskCancelled;
  readonly RequestError = RequestError;

  private readonly connections = new Map<string, Connection>();

  constructor() {
    this.run = this.run.bind(this); // so that it may be taken off the object
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
    const caller = new Caller({ onStatus, onSuccess, onError } as Callbacks);
    try {
      this.start(caller, task, inputs ?? {}, { ...this.options });
    } catch (error) {
      void Promise.resolve().then(() => caller.failed(error as Error)); // as every other failure: after `run` returned
    }
    return caller.handle as unknown as TaskHandle<Outputs>;
  }

  private start(caller: Caller, task: string, inputs: object, options: Options): void {
    checkTransport(options);
    const base = resolveBase(options.baseURL);
    const order = { task, inputs: asJSON(inputs), key: newKey(), options };
    const connection = this.connections.get(base) ?? new Connection(base);
    this.connections.set(base, connection);
    connection.add(new Run(order), caller);
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

/** A copy, as it will be sent: what the caller changes later stays here as it was. */
const asJSON = (inputs: object): JSONValue => parseJSON(JSON.stringify(inputs)) as JSONValue;

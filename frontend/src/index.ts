/** The exports of the npm package: a client as default, and its parts by name. */

import { Client } from "./client.js";

export type { Client } from "./client.js";
export { RequestError, TaskCancelled, TaskFailed } from "./errors.js";
export type { Callbacks, FollowOptions, HandleEvents, RunOptions, TaskHandle, TransportEvent } from "./handle.js";
export type { Options, TransportChoice } from "./options.js";
export type {
  JSONObject,
  JSONValue,
  Status,
  SucceededTask,
  TaskChangeEvent,
  TaskErrorInfo,
  TaskEvent,
  TaskFinishedEvent,
  TaskHint,
  TaskInfo,
  TaskMessageEvent,
  TaskProgressEvent,
  TaskStatusEvent,
  TaskTargetEvent,
} from "./protocol.js";
export type { TransportName } from "./transport.js";
export type { UploadEvent } from "./upload.js";

const tasks = new Client();

export const run = tasks.run;
export const attach = tasks.attach;
export const options = tasks.options;
export default tasks;

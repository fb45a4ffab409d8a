/** The wire protocol: the types of representations, events and frames, and the guards that check them. Pure. */

// Representations

export type JSONValue = null | boolean | number | string | JSONValue[] | JSONObject;
export interface JSONObject {
  [name: string]: JSONValue;
}

const STATUSES = ["pending", "running", "succeeded", "failed", "cancelled"] as const;
export type Status = (typeof STATUSES)[number];

const FINAL: ReadonlySet<Status> = new Set<Status>(["succeeded", "failed", "cancelled"]);
export const isFinal = (status: Status): boolean => FINAL.has(status);

/** Why a run failed. Later servers may have more codes. */
export interface TaskErrorInfo {
  code: string;
  message: string;
}

/** What a reader of a run should know: a mistake in the project, with its remedy. Later servers may have more codes. */
export interface TaskHint {
  code: string;
  message: string;
}

/** The representation of a run: REST answers it, callbacks and promises get it. Times are ISO 8601. */
export interface TaskInfo<Outputs = JSONObject> {
  uuid: string;
  task: string;
  status: Status;
  progress: number | null;
  target: number | null;
  inputs: JSONValue;
  outputs: Outputs | null;
  /** Every message so far, in order. */
  messages: JSONValue[];
  message_count: number;
  error: TaskErrorInfo | null;
  attempt: number;
  seq: number;
  cancel_requested: boolean;
  created: string;
  started: string | null;
  finished: string | null;
  /** Only while it has waited for seconds, and the server knows why: no worker takes its queue, say. */
  hint?: TaskHint;
}

/** A run that has succeeded. */
export interface SucceededTask<Outputs = JSONObject> extends TaskInfo<Outputs> {
  status: "succeeded";
  outputs: Outputs;
}

// Events

interface RunEvent {
  uuid: string;
  attempt: number;
  /** Grows with each event of a run. */
  seq: number;
}

export interface TaskStatusEvent extends RunEvent {
  type: "status";
  status: Status;
}
export interface TaskTargetEvent extends RunEvent {
  type: "target";
  target: number | null;
}
export interface TaskProgressEvent extends RunEvent {
  type: "progress";
  progress: number | null;
  target: number | null;
}
export interface TaskMessageEvent extends RunEvent {
  type: "message";
  /** 0, 1, 2 …, without a gap. */
  index: number;
  message: JSONValue;
}
/** The last event of a run. Its representation has no `messages`, and may have no `inputs`. */
export interface TaskFinishedEvent extends RunEvent {
  type: "finished";
  status: Status;
  task: Sent<Omit<TaskInfo, "messages" | "inputs"> & Partial<Pick<TaskInfo, "inputs">>>;
}

/** The events that callers hear. The last one is a `status` that is final. */
export type TaskChangeEvent = TaskStatusEvent | TaskTargetEvent | TaskProgressEvent | TaskMessageEvent;
export type TaskEvent = TaskChangeEvent | TaskFinishedEvent;

// Server frames

/** A representation in a frame. Fields that did not fit are left out, and named in `omitted`. */
export type Sent<Representation> = Representation & { omitted?: string[] };

/** A message that does not fit into a frame. */
export interface OmittedMessageEvent extends RunEvent {
  type: "message";
  index: number;
  omitted: true;
}

/** An event in a frame. */
export type SentEvent = TaskEvent | OmittedMessageEvent;

/** The answer to `run` or `subscribe`, with the messages that were asked for, or the first of them. */
export interface StateFrame {
  type: "accepted" | "snapshot";
  ref: string;
  task: Sent<TaskInfo>;
}
/** The answer to `cancel`: the request is recorded. */
export interface CancellingFrame {
  type: "cancelling";
  ref: string;
  uuid: string;
}
/** The answer to `unsubscribe`, even if there was no subscription. */
export interface UnsubscribedFrame {
  type: "unsubscribed";
  ref: string;
  uuid: string;
}
export interface PongFrame {
  type: "pong";
  ref?: string;
}
/** A refusal of the frame with that `ref`, of the subscription to that `uuid`, or of the whole socket. */
export interface ErrorFrame {
  type: "error";
  ref?: string;
  uuid?: string;
  code: string;
  /** A more exact code, if there is one: a run is "not_found", say, because the user is "not_authenticated". */
  reason?: string;
  /** The HTTP status of the same refusal by REST, if the server tells it. */
  status?: number;
  detail: unknown;
}

export type ServerFrame = StateFrame | CancellingFrame | UnsubscribedFrame | PongFrame | ErrorFrame | SentEvent;

/** The frame in `data`; null if this client does not know it. */
export function parseServerFrame(data: unknown): ServerFrame | null {
  const frame = typeof data === "string" ? parseJSON(data) : null;
  return isServerFrame(frame) ? frame : null;
}

/** The value of a JSON text; undefined if the text is no JSON. */
export function parseJSON(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export function isServerFrame(frame: unknown): frame is ServerFrame {
  if (!isObject(frame)) return false;
  switch (frame.type) {
    case "accepted":
    case "snapshot":
      return isString(frame.ref) && isTaskInfo(frame.task);
    case "cancelling":
    case "unsubscribed":
      return isString(frame.ref) && isString(frame.uuid);
    case "pong":
      return isOptional(frame.ref, isString);
    case "error":
      return (
        isString(frame.code) &&
        "detail" in frame &&
        isOptional(frame.ref, isString) &&
        isOptional(frame.uuid, isString) &&
        isOptional(frame.reason, isString) &&
        isOptional(frame.status, isNumber)
      );
    case "status":
      return isRunEvent(frame) && isStatus(frame.status);
    case "target":
      return isRunEvent(frame) && isNullable(frame.target, isNumber);
    case "progress":
      return isRunEvent(frame) && isNullable(frame.progress, isNumber) && isNullable(frame.target, isNumber);
    case "message":
      return isRunEvent(frame) && isNumber(frame.index) && ("message" in frame || frame.omitted === true);
    case "finished":
      return isRunEvent(frame) && isStatus(frame.status) && isTaskRecord(frame.task);
    default:
      return false;
  }
}

/** True for a whole representation. */
export const isTaskInfo = (value: unknown): value is TaskInfo => isTaskRecord(value) && Array.isArray(value.messages);

/** True for a representation, with its messages or without. */
function isTaskRecord(value: unknown): value is Record<string, unknown> {
  return (
    isObject(value) &&
    isString(value.uuid) &&
    isString(value.task) &&
    isStatus(value.status) &&
    isNullable(value.progress, isNumber) &&
    isNullable(value.target, isNumber) &&
    isNumber(value.message_count) &&
    isNumber(value.attempt) &&
    isNumber(value.seq) &&
    isOptional(value.hint, isHint) &&
    isOptional(value.omitted, Array.isArray)
  );
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isHint = (value: unknown): boolean => isObject(value) && isString(value.code) && isString(value.message);
const isString = (value: unknown): boolean => typeof value === "string";
const isNumber = (value: unknown): boolean => typeof value === "number";
const isStatus = (value: unknown): boolean => STATUSES.some((status) => status === value);
const isOptional = (value: unknown, is: (value: unknown) => boolean): boolean => value === undefined || is(value);
const isNullable = (value: unknown, is: (value: unknown) => boolean): boolean => value === null || is(value);
const isRunEvent = (frame: Record<string, unknown>): boolean =>
  isString(frame.uuid) && isNumber(frame.attempt) && isNumber(frame.seq);

// Client frames

export const SUBPROTOCOL = "taskapi.v1";

/** Bytes of the largest frame that a server takes, by default. */
export const FRAME_BYTES = 1_048_576;

export interface RunFrame {
  type: "run";
  ref: string;
  task: string;
  inputs: JSONValue;
  idempotency_key: string;
}
export interface SubscribeFrame {
  type: "subscribe";
  ref: string;
  uuid: string;
  after: number;
}
export interface UnsubscribeFrame {
  type: "unsubscribe";
  ref: string;
  uuid: string;
}
export interface CancelFrame {
  type: "cancel";
  ref: string;
  uuid: string;
}
export interface PingFrame {
  type: "ping";
  ref: string;
}

export type ClientFrame = RunFrame | SubscribeFrame | UnsubscribeFrame | CancelFrame | PingFrame;

export const runFrame = (ref: string, task: string, inputs: JSONValue, key: string): RunFrame => ({
  type: "run",
  ref,
  task,
  inputs,
  idempotency_key: key,
});

export const subscribeFrame = (ref: string, uuid: string, after: number): SubscribeFrame => ({
  type: "subscribe",
  ref,
  uuid,
  after,
});

export const unsubscribeFrame = (ref: string, uuid: string): UnsubscribeFrame => ({ type: "unsubscribe", ref, uuid });

export const cancelFrame = (ref: string, uuid: string): CancelFrame => ({ type: "cancel", ref, uuid });

export const pingFrame = (ref: string): PingFrame => ({ type: "ping", ref });

// Refusals

const HTTP_STATUS: ReadonlyMap<string, number> = new Map([
  ["invalid_json", 400],
  ["invalid_frame", 400],
  ["unknown_type", 400],
  ["unknown_task", 400],
  ["invalid_inputs", 400],
  ["not_authenticated", 403],
  ["authentication_failed", 403],
  ["permission_denied", 403],
  ["not_found", 404],
  ["too_large", 413],
  ["conflict", 422],
  ["throttled", 429],
  ["too_many", 429],
  ["unavailable", 503],
]);

/** The HTTP status of the same refusal by REST. */
export const statusOf = (frame: ErrorFrame): number => frame.status ?? HTTP_STATUS.get(frame.code) ?? 400;

/** The reason of the refusal, for programs. */
export const codeOf = (frame: ErrorFrame): string => frame.reason ?? frame.code;

/** The detail of a refusal: its sentence if it is `{"detail": …}`, as in REST; if not, its fields. */
export const detailOf = (body: unknown): unknown => (isObject(body) && isString(body.detail) ? body.detail : body);

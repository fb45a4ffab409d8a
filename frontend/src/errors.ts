/** The errors that a promise rejects with: a run ended without outputs, or a request was refused. */

import { isObject, type TaskInfo } from "./protocol.js";

/** An error that has every field of the run's representation. */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the constructor assigns every field that is merged in
export class TaskEnded extends Error {
  constructor(sentence: string, info: TaskInfo) {
    super(sentence);
    Object.assign(this, info);
  }
}
export interface TaskEnded extends TaskInfo {}

/** The run failed; `error` has its code and message. */
export class TaskFailed extends TaskEnded {
  override readonly name = "TaskFailed";

  constructor(info: TaskInfo) {
    super(info.error?.message ?? "The task failed.", info);
  }
}

/** The run was cancelled. */
export class TaskCancelled extends TaskEnded {
  override readonly name = "TaskCancelled";

  constructor(info: TaskInfo) {
    super("The task was cancelled.", info);
  }
}

// The code of a refusal, if the server gives none.
const CODES: ReadonlyMap<number, string> = new Map([
  [401, "not_authenticated"],
  [403, "permission_denied"],
  [404, "not_found"],
  [409, "conflict"],
  [413, "too_large"],
  [422, "conflict"],
  [429, "throttled"],
  [503, "unavailable"],
]);

/** The request was refused. `status`, `detail` and `code` are those of REST, on every transport. */
export class RequestError extends Error {
  override readonly name = "RequestError";

  /** `status` is 0 if there was no answer. `code` is null if the API gave none, or did not answer. */
  constructor(
    readonly status: number,
    readonly detail: unknown,
    readonly code: string | null = CODES.get(status) ?? null,
  ) {
    super(sentenceOf(detail) || `The server answered ${status}.`);
  }
}

/** Something else than this API answered: a proxy, a portal, a login page. */
export class StrangeAnswer extends RequestError {
  constructor(status: number, detail: string) {
    super(status, detail, null);
  }
}

/** Another page or API answered a start: what the page's developer has to check. `came` is what it answered. */
export const noAPI = (base: string, status: number, came: string): StrangeAnswer =>
  new StrangeAnswer(
    status,
    `There is no Django Task API at ${base}. It answered ${came}. Check TaskAPI.options.baseURL: it is where urls.py has \
include("taskapi.urls"), and "tasks/" after it.`,
  );

/** The request may have arrived, or not. */
export const noAnswer = (): RequestError => new RequestError(0, "The server did not answer.");

/** The address has never answered this page: what its developer has to check. */
export const unreachable = (base: string): RequestError =>
  new RequestError(
    0,
    `The task API at ${base} has never answered. Check TaskAPI.options.baseURL, and that the server runs. On another \
origin, its CORS headers have to allow this page, credentials, and the headers Content-Type, Idempotency-Key and \
X-CSRFToken. A page on https needs an API on https. The page's Content-Security-Policy has to allow the address.`,
    "unreachable",
  );

/**
 * The caller's `signal` was aborted: the run is no longer followed, and goes on. Or the upload of its files was ended, by
 * whatever: there is no run.
 */
export class AbortError extends Error {
  override readonly name = "AbortError";

  /** `cause` is the signal's reason. */
  constructor(
    readonly cause?: unknown,
    isUpload = false,
  ) {
    super(
      isUpload
        ? "The upload of the files was ended before the server had them; no run was started."
        : "The run is no longer followed: the signal was aborted.",
    );
  }
}

/** The refusal to cancel a run that the client knows to have ended. */
export const hasEnded = (): RequestError => new RequestError(409, "The run has ended; it cannot be cancelled.");

/**
 * The first sentence of a refusal's detail, with the names of its field: "inputs.numbers: This field is …". Without them
 * if the sentence itself names the field: "Unknown input 'number'. …".
 */
function sentenceOf(detail: unknown): string {
  if (typeof detail === "string") return detail;
  if (Array.isArray(detail)) return sentenceOf(detail[0]);
  if (!isObject(detail)) return "";
  const path: string[] = [];
  let value: unknown = detail;
  while (isObject(value)) {
    const [name] = Object.keys(value);
    if (name === undefined) return "";
    path.push(name);
    value = value[name];
  }
  const sentence = sentenceOf(value);
  return sentence.includes(`'${path[path.length - 1]}'`) ? sentence : `${path.join(".")}: ${sentence}`;
}

/** The REST calls. Each gives a representation, or rejects with a RequestError. */

import { deferred } from "./deferred.js";
import { noAnswer, noAPI, RequestError, StrangeAnswer } from "./errors.js";
import type { Options } from "./options.js";
import { pageOrigin, pageToken, readCookie } from "./platform.js";
import { detailOf, isObject, isTaskInfo, parseJSON, type TaskInfo } from "./protocol.js";
import type { Order } from "./run.js";
import { limit, timing } from "./timing.js";

/** A request, as arguments of `fetch`. */
export interface Call {
  readonly url: string;
  readonly init: Omit<RequestInit, "headers" | "body"> & { headers?: Record<string, string>; body?: string | FormData };
  /** Bytes of the body, or about as many. */
  readonly size?: number;
  /** The run that the answer has to be about; null if the request starts one. */
  readonly uuid: string | null;
}

/** What a request has brought. */
export interface Reading {
  /** Null: the run is as in the answer that had the entity tag of the request. */
  readonly info: TaskInfo | null;
  /** The entity tag of the answer, if the page may see it. */
  readonly tag: string | null;
}

/** Starts a run, or finds the run that an earlier try with the same key has started. */
export function startCall(base: string, order: Order, options: Options): Call {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": order.key, ...csrf(options) };
  const body = JSON.stringify({ task: order.task, inputs: order.inputs });
  return { ...callOf(base, null, { method: "POST", headers, body }, options), size: body.length };
}

/** Uploads a file of so many bytes. The form is the transport's. */
export const uploadCall = (base: string, size: number, options: Options): Call => ({
  ...callOf(`${base}uploads/`, null, { method: "POST", headers: csrf(options) }, options),
  size,
});

/** Asks for a run to be cancelled; the answer has all of its messages. */
export const cancelCall = (base: string, uuid: string, options: Options): Call =>
  callOf(`${base}${uuid}/cancel/`, uuid, { method: "POST", headers: csrf(options) }, options);

/** Reads a run, with its messages after the first `after`, if it is not as in the answer that had this entity tag. */
export function readCall(base: string, uuid: string, after: number, options: Options, tag: string | null): Call {
  // on another origin the header would need a preflight, which its CORS settings may not allow
  const headers: Record<string, string> = tag === null || isElsewhereThan(base) ? {} : { "If-None-Match": tag };
  return callOf(`${base}${uuid}/?after=${after}`, uuid, { method: "GET", headers }, options);
}

/** Whether the options allow a request from this page to the origin of `base`. */
export function mayAsk(base: string, { corsMode }: Options): boolean {
  return corsMode !== "same-origin" || !isElsewhereThan(base);
}

/** Whether `base` is on another origin than this page. */
function isElsewhereThan(base: string): boolean {
  const origin = pageOrigin();
  return origin !== null && origin !== new URL(base).origin;
}

function callOf(url: string, uuid: string | null, init: Call["init"], options: Options): Call {
  if (!mayAsk(url, options)) {
    throw new Error(`${new URL(url).origin} is not the page's origin: set TaskAPI.options.corsMode = "cors".`);
  }
  const { token, corsMode: mode } = options;
  const headers: Record<string, string> = { Accept: "application/json", ...init.headers };
  if (token) headers.Authorization = token.includes(" ") ? token : `Token ${token}`;
  const credentials = mode === "cors" ? "include" : "same-origin";
  return { url, uuid, init: { ...init, headers, mode, credentials, cache: "no-store" } };
}

/** The header that Django requires of a user who is logged in by cookie. */
function csrf({ csrfHeaderName, csrfCookieName, csrfToken }: Options): Record<string, string> {
  const given = typeof csrfToken === "function" ? csrfToken() : csrfToken;
  const token = given || readCookie(csrfCookieName) || pageToken();
  return token === null ? {} : { [csrfHeaderName]: token };
}

// Answers

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
  readonly tag: string | null;
  readonly retryAfter: string | null;
  /** The answer came from another address than the one that was asked. */
  readonly redirected: boolean;
}

/** The representation that answers the call; rejects with a RequestError, or with another error if it is our fault. */
export async function send(call: Call, watchdog: Watchdog): Promise<TaskInfo> {
  return infoOf(call, await exchange(call, watchdog));
}

/** As `send`, for a request that may be answered "not modified". */
export async function read(call: Call, watchdog: Watchdog): Promise<Reading> {
  const answer = await exchange(call, watchdog);
  const asked = "If-None-Match" in (call.init.headers ?? {});
  const info = answer.status === 304 && asked ? null : infoOf(call, answer);
  return { info, tag: answer.tag };
}

function infoOf(call: Call, answer: Answer): TaskInfo {
  const body = parseJSON(answer.text);
  if (isFine(answer) && isTaskInfo(body) && (call.uuid === null || body.uuid === call.uuid)) return body;
  throw refusalOf(call, answer);
}

const isFine = ({ status }: Answer): boolean => status >= 200 && status < 300;

/** The error that an answer amounts to, if it is not what the call has asked for. */
export function refusalOf(call: Call, answer: Answer): RequestError {
  const { status, type, text, redirected } = answer;
  const body = parseJSON(text);
  const came = [status, type, JSON.stringify(text.slice(0, 80))].join(" ");
  if (call.uuid === null && !redirected && isElsewhere(status, text, body)) return noAPI(call.url, status, came);
  if (!isFine(answer) && !redirected && isRefusal(status, body)) {
    return new RequestError(status, detailOf(body), typeof body.code === "string" ? body.code : undefined);
  }
  return new StrangeAnswer(status, `Expected an answer of the task API from ${call.url}; got ${came}.`);
}

const FIELDS = ["task", "inputs", "many", "file", "non_field_errors", "Idempotency-Key"]; // that a refusal may name

/** Whether this API has refused, and not a proxy, a portal or another API in between. */
const isRefusal = (status: number, body: unknown): body is Record<string, unknown> =>
  isObject(body) && (typeof body.detail === "string" || (status === 400 && FIELDS.some((name) => name in body)));

/**
 * Whether the answer to a start shows that the address is not the API's: the API would not answer so, and a proxy in
 * front of it hardly would.
 */
function isElsewhere(status: number, text: string, body: unknown): boolean {
  if (isObject(body) && typeof body.code === "string") return false; // this API refuses with a code
  if (status === 404 || status === 405 || (status >= 200 && status < 300)) return true;
  return status === 403 && text.includes("CSRF verification failed"); // Django, about a page of the project
}

// Exchanges

const SMALL = 65_536; // characters of a body: a larger one may take long to upload
const MAX_DOUBLINGS = 4; // of the limit: 8 minutes of silence

/** Ends a request when nobody wants it any more, or when it has been silent for too long. */
export class Watchdog {
  isOver = false;
  private isUpload = false;
  private readonly controller = newController();
  private readonly end = deferred<never>();
  private stopLimit = () => {};

  /** `failures` counts the tries that have failed before, in a row. Each doubles the limit. */
  constructor(private readonly failures = 0) {
    this.ended.catch(() => {}); // `exchange` handles the rejection; if it has not begun, nobody has to
  }

  /** Rejects when the request has to end. */
  get ended(): Promise<never> {
    return this.end.promise;
  }

  get signal(): AbortSignal | null {
    return this.controller?.signal ?? null;
  }

  /**
   * If a redirect to another origin is followed (to a login page, say), it looks like no answer. So every second try
   * does not follow redirects.
   */
  get redirect(): RequestRedirect {
    return this.failures % 2 ? "manual" : "follow";
  }

  /** The request is sent now. A page cannot see the upload, so a large body is given time for it. */
  begin(size: number): void {
    this.isUpload = size > SMALL;
    this.wait(this.patience() + size / timing.uploadRate);
  }

  /** Some of the answer came. */
  heard(): void {
    this.isUpload = false;
    this.wait(this.patience());
  }

  /** The page may have slept: the answer has to show soon that it is under way. */
  hurry(): void {
    if (!this.isUpload) this.wait(timing.wake);
  }

  stop(): void {
    this.isOver = true;
    this.stopLimit();
    this.end.reject(noAnswer());
    this.controller?.abort();
  }

  private patience(): number {
    return timing.request * 2 ** Math.min(this.failures, MAX_DOUBLINGS);
  }

  private wait(ms: number): void {
    this.stopLimit();
    if (!this.isOver) this.stopLimit = limit(ms, () => this.stop());
  }
}

/** One exchange; a RequestError with status 0 if it fails, any other error if the request could not be made. */
export async function exchange({ url, init, size = 0 }: Call, watchdog: Watchdog): Promise<Answer> {
  const whole = { ...init, redirect: watchdog.redirect, signal: watchdog.signal };
  // `new Request` throws if a header is wrong; a rejected `fetch` would look like a lost answer
  const asking = typeof Request === "function" ? fetch(new Request(url, whole)) : fetch(url, whole);
  watchdog.begin(size);
  try {
    const response = await Promise.race([asking, watchdog.ended]);
    watchdog.heard();
    const text = await Promise.race([textOf(response, watchdog), watchdog.ended]);
    const status = response.type === "opaqueredirect" ? 302 : response.status; // the browser hides the exact status
    const { headers, redirected } = response;
    const type = headers.get("Content-Type") ?? "";
    return { status, type, text, tag: headers.get("ETag"), retryAfter: headers.get("Retry-After"), redirected };
  } catch {
    throw noAnswer();
  } finally {
    watchdog.stop();
  }
}

/**
 * Sends a request that outlives the page, and ignores its answer: if the page stays, the usual request has one, too.
 *
 * A browser refuses such requests if they have more than some 64 KB together.
 */
export async function outlive(make: () => Call): Promise<void> {
  try {
    const { url, init } = make();
    await fetch(url, { ...init, keepalive: true });
  } catch {
    // it is too large, there is no network, or the options do not allow it
  }
}

/** The body. It may take any time, as long as something comes. */
async function textOf(response: Response, watchdog: Watchdog): Promise<string> {
  if (!response.body || typeof TextDecoder !== "function") return response.text();
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    watchdog.heard();
    text += decoder.decode(value, { stream: true });
  }
}

/** An AbortController; null if the page has none: then the answer of an ended request is ignored. */
function newController(): AbortController | null {
  try {
    return new AbortController();
  } catch {
    return null;
  }
}

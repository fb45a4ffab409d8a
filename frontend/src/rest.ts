/** The REST calls, each answered with a representation or with a RequestError. */

import { noAnswer, RequestError, StrangeAnswer } from "./errors.js";
import type { Options } from "./options.js";
import { pageOrigin, pageToken, readCookie } from "./platform.js";
import { detailOf, isObject, isTaskInfo, parseJSON, type TaskInfo } from "./protocol.js";
import type { Order } from "./run.js";
import { limit, timing } from "./timing.js";

/** A request as `fetch` takes it. */
interface Call {
  readonly url: string;
  readonly init: RequestInit & { body?: string };
}

/** What starts a run, or finds the one that an earlier try with the same key has started. */
function startCall(base: string, order: Order, options: Options): Call {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": order.key, ...csrf(options) };
  const body = JSON.stringify({ task: order.task, inputs: order.inputs });
  return callOf(base, { method: "POST", headers, body }, options);
}

export const startRun = async (base: string, order: Order, options: Options, watch: Watch): Promise<TaskInfo> =>
  send(startCall(base, order, options), null, watch);

const cancelCall = (base: string, uuid: string, options: Options): Call =>
  callOf(`${base}${uuid}/cancel/`, { method: "POST", headers: csrf(options) }, options);

/** Asks a run to stop; the answer has all of its messages. */
export const cancelRun = async (base: string, uuid: string, options: Options, watch: Watch): Promise<TaskInfo> =>
  send(cancelCall(base, uuid, options), uuid, watch);

/**
 * Asks for a start in a request that outlives its page, whose answer nobody hears.
 *
 * A browser takes some 64 KB of such requests at a time, and refuses what is larger.
 */
export const handOver = (base: string, order: Order, options: Options): void =>
  void outlive(() => startCall(base, order, options));

/** Asks a run to stop, in a request of that kind. */
export const handOverCancel = (base: string, uuid: string, options: Options): void =>
  void outlive(() => cancelCall(base, uuid, options));

/** Reads a run, with its messages past the first `after`. */
export const readRun = async (
  base: string,
  uuid: string,
  after: number,
  options: Options,
  watch: Watch,
): Promise<TaskInfo> => send(callOf(`${base}${uuid}/?after=${after}`, { method: "GET" }, options), uuid, watch);

/** Whether these options let a page of this origin ask a server at `base`. */
export function mayAsk(base: string, { corsMode }: Options): boolean {
  const origin = pageOrigin();
  return corsMode !== "same-origin" || origin === null || origin === new URL(base).origin;
}

function callOf(url: string, init: RequestInit & { body?: string }, options: Options): Call {
  if (!mayAsk(url, options)) {
    throw new Error(`${new URL(url).origin} is another origin than the page's: set TaskAPI.options.corsMode = "cors".`);
  }
  const { token, corsMode: mode } = options;
  const headers: Record<string, string> = { Accept: "application/json", ...(init.headers as Record<string, string>) };
  if (token) headers.Authorization = token.includes(" ") ? token : `Token ${token}`;
  const credentials = mode === "cors" ? "include" : "same-origin";
  return { url, init: { ...init, headers, mode, credentials, cache: "no-store" } };
}

/** The header that Django asks of whoever is logged in by cookie. */
function csrf({ csrfHeaderName, csrfCookieName, csrfToken }: Options): Record<string, string> {
  const given = typeof csrfToken === "function" ? csrfToken() : csrfToken;
  const token = given || readCookie(csrfCookieName) || pageToken();
  return token === null ? {} : { [csrfHeaderName]: token };
}

// Answers

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
  /** Another address has answered than that which was asked. */
  readonly redirected: boolean;
}

async function send(call: Call, uuid: string | null, watch: Watch): Promise<TaskInfo> {
  const { status, type, text, redirected } = await exchange(call, watch);
  const body = parseJSON(text);
  const isFine = status >= 200 && status < 300;
  if (isFine && isTaskInfo(body) && (uuid === null || body.uuid === uuid)) return body;
  if (!isFine && !redirected && isRefusal(status, body)) {
    throw new RequestError(status, detailOf(body), typeof body.code === "string" ? body.code : undefined);
  }
  const what = [status, type, JSON.stringify(text.slice(0, 80))].join(" ");
  throw new StrangeAnswer(status, `Expected an answer of the task API from ${call.url}; what came is ${what}.`);
}

const FIELDS = ["task", "inputs", "many", "non_field_errors", "Idempotency-Key"]; // of a request that is refused

/** Whether it is this API that refuses, and not a proxy, a portal or another API on the way. */
const isRefusal = (status: number, body: unknown): body is Record<string, unknown> =>
  isObject(body) && (typeof body.detail === "string" || (status === 400 && FIELDS.some((name) => name in body)));

// Exchanges

const SMALL = 65_536; // characters of a body: what is larger may take long to leave
const MOST_PATIENT = 4; // doublings: 8 minutes of silence

/** Ends a request when nobody wants it any more, or when it has been silent for too long. */
export class Watch {
  /** Rejects when the request is to end. */
  readonly ended: Promise<never>;
  isOver = false;
  private isUpload = false;
  private readonly controller = newController();
  private end: (error: Error) => void = () => {};
  private stopLimit = () => {};

  /** `failures` are those of its kind in a row, before it: each makes it more patient. */
  constructor(private readonly failures = 0) {
    this.ended = new Promise((_, reject) => {
      this.end = reject;
    });
    this.ended.catch(() => {}); // whoever awaits it is told
  }

  get signal(): AbortSignal | null {
    return this.controller?.signal ?? null;
  }

  /**
   * A redirect to another origin (where one logs in, say) looks like no answer, unless it is not followed: so every
   * other try of those that fail does not.
   */
  get redirect(): RequestRedirect {
    return this.failures % 2 ? "manual" : "follow";
  }

  /** The request leaves now. How much of its body has left cannot be seen: that it takes its time is expected. */
  begin(size: number): void {
    this.isUpload = size > SMALL;
    this.wait(this.patience() + size / timing.uploadRate);
  }

  /** Something came. */
  heard(): void {
    this.isUpload = false;
    this.wait(this.patience());
  }

  /** The page may have slept: an answer that is under way has to show it. */
  hurry(): void {
    if (!this.isUpload) this.wait(timing.wake);
  }

  stop(): void {
    this.isOver = true;
    this.stopLimit();
    this.end(noAnswer());
    this.controller?.abort();
  }

  private patience(): number {
    return timing.request * 2 ** Math.min(this.failures, MOST_PATIENT);
  }

  private wait(ms: number): void {
    this.stopLimit();
    if (!this.isOver) this.stopLimit = limit(ms, () => this.stop());
  }
}

/** One exchange; RequestError 0 where it fails, and any other error where it could not even be made. */
async function exchange({ url, init }: Call, watch: Watch): Promise<Answer> {
  const whole = { ...init, redirect: watch.redirect, signal: watch.signal };
  // as a Request, where there is such a thing: a wrong header throws then, and does not look like a lost answer
  const asking = typeof Request === "function" ? fetch(new Request(url, whole)) : fetch(url, whole);
  watch.begin(init.body?.length ?? 0);
  try {
    const response = await Promise.race([asking, watch.ended]);
    watch.heard();
    const text = await Promise.race([textOf(response, watch), watch.ended]);
    const status = response.type === "opaqueredirect" ? 302 : response.status; // a browser hides which
    return { status, type: response.headers.get("Content-Type") ?? "", text, redirected: response.redirected };
  } catch {
    throw noAnswer();
  } finally {
    watch.stop();
  }
}

/** The page ends while this is under way, so it leaves at once; where the page stays, the usual road tells how it went. */
async function outlive(make: () => Call): Promise<void> {
  try {
    const { url, init } = make();
    await fetch(url, { ...init, keepalive: true });
  } catch {
    // it is too large, there is no network, or it may not be asked
  }
}

/** The body, however long it takes as long as it comes. */
async function textOf(response: Response, watch: Watch): Promise<string> {
  if (!response.body || typeof TextDecoder !== "function") return response.text();
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    watch.heard();
    text += decoder.decode(value, { stream: true });
  }
}

/** What ends a fetch; null where there is no such thing: its answer is passed over then. */
function newController(): AbortController | null {
  try {
    return new AbortController();
  } catch {
    return null;
  }
}

/** The REST calls, each answered with a representation or with a RequestError. */

import { RequestError } from "./errors.js";
import type { Options } from "./options.js";
import { readCookie } from "./platform.js";
import { detailOf, isTaskInfo, parseJSON, type TaskInfo } from "./protocol.js";
import type { Order } from "./run.js";
import { timing } from "./timing.js";

/** Starts a run, or finds the one that an earlier try with the same key has started. */
export function startRun(base: string, order: Order, options: Options, signal: AbortSignal): Promise<TaskInfo> {
  return send(base, startCall(order, options), options, signal);
}

function startCall(order: Order, options: Options): Call {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": order.key, ...csrf(options) };
  return { method: "POST", headers, body: JSON.stringify({ task: order.task, inputs: order.inputs }) };
}

/**
 * Asks for a start in a request that outlives its page, whose answer nobody hears.
 *
 * A browser takes some 64 KB of such requests at a time, and refuses what is larger.
 */
export function handOver(base: string, order: Order, options: Options): void {
  void outlive(base, startCall(order, options), options);
}

/** Asks a run to stop, in a request of that kind. */
export function handOverCancel(base: string, uuid: string, options: Options): void {
  void outlive(`${base}${uuid}/cancel/`, { method: "POST", headers: csrf(options) }, options);
}

/** Asks a run to stop; the answer has all of its messages. */
export function cancelRun(base: string, uuid: string, options: Options, signal: AbortSignal): Promise<TaskInfo> {
  return send(`${base}${uuid}/cancel/`, { method: "POST", headers: csrf(options) }, options, signal);
}

/** Reads a run, with its messages past the first `after`. */
export function readRun(
  base: string,
  uuid: string,
  after: number,
  options: Options,
  signal: AbortSignal,
): Promise<TaskInfo> {
  return send(`${base}${uuid}/?after=${after}`, { method: "GET", headers: {} }, options, signal);
}

/** The header that Django asks of whoever is logged in by cookie. */
function csrf({ csrfHeaderName, csrfCookieName }: Options): Record<string, string> {
  const token = readCookie(csrfCookieName);
  return token === null ? {} : { [csrfHeaderName]: token };
}

interface Call {
  method: string;
  headers: Record<string, string>;
  body?: string;
}

async function send(url: string, call: Call, options: Options, signal: AbortSignal): Promise<TaskInfo> {
  const { status, reason, text } = await exchange(url, initOf(call, options), signal);
  const body = parseJSON(text);
  if (status < 200 || status > 299) {
    throw new RequestError(status, body === undefined ? reason : detailOf(body));
  }
  if (!isTaskInfo(body)) throw new RequestError(status, "The answer is not the representation of a task.");
  return body;
}

function initOf(call: Call, options: Options): RequestInit {
  const headers: Record<string, string> = { Accept: "application/json", ...call.headers };
  if (options.token) headers.Authorization = options.token.includes(" ") ? options.token : `Token ${options.token}`;
  return {
    ...call,
    headers,
    mode: options.corsMode,
    credentials: options.corsMode === "cors" ? "include" : "same-origin",
    cache: "no-store",
  };
}

/** The page ends while this is under way; where it does not, the usual road tells how it went. */
async function outlive(url: string, call: Call, options: Options): Promise<void> {
  try {
    await fetch(url, { ...initOf(call, options), keepalive: true });
  } catch {
    // it is too large, or there is no network
  }
}

/** One exchange, ended when `signal` says so or when it takes too long. */
async function exchange(
  url: string,
  init: RequestInit,
  signal: AbortSignal,
): Promise<{ status: number; reason: string; text: string }> {
  const controller = new AbortController();
  const call = { ...init, signal: controller.signal };
  const request = typeof Request === "function" ? new Request(url, call) : null; // a wrong header or address throws here
  const abort = () => controller.abort();
  const timer = setTimeout(abort, timing.request);
  signal.addEventListener("abort", abort);
  try {
    const response = await (request === null ? fetch(url, call) : fetch(request)); // jsdom has no Request
    return { status: response.status, reason: response.statusText, text: await response.text() };
  } catch {
    throw new RequestError(0, "The server did not answer.");
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

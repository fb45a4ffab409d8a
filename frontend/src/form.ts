/** Sends a form with a file in it, and tells how many of its bytes have left. */

import { noAnswer } from "./errors.js";
import { type Answer, type Call, exchange, type Watchdog } from "./rest.js";

// Bytes that the system may keep after the page has heard that they are sent: as much as Linux gives a connection.
const BUFFERED = 4 * 2 ** 20;

/** The form goes by `XMLHttpRequest`, because a `fetch` tells nothing about its body. Service workers and Node have none. */
export function sendForm(call: Call, form: FormData, watchdog: Watchdog, sent: Sent): Promise<Answer> {
  if (typeof XMLHttpRequest === "function") return byXHR(call, form, watchdog, sent);
  return exchange({ ...call, init: { ...call.init, body: form } }, watchdog);
}

/** Is told how many bytes have left, of how many: those of the form, which are more than those of its file. */
type Sent = (loaded: number, total: number) => void;

async function byXHR({ url, init }: Call, form: FormData, watchdog: Watchdog, sent: Sent): Promise<Answer> {
  const request = new XMLHttpRequest();
  request.open(init.method ?? "POST", url);
  request.withCredentials = init.credentials === "include";
  for (const [name, value] of Object.entries(init.headers ?? {})) request.setRequestHeader(name, value);
  const answered = new Promise<void>((resolve, reject) => {
    request.onload = () => resolve();
    request.onerror = () => reject(noAnswer());
  });
  request.upload.onprogress = ({ loaded, total }) => {
    watchdog.begin(Math.min(total, BUFFERED));
    sent(loaded, total);
  };
  request.onprogress = () => watchdog.heard();
  watchdog.begin(BUFFERED);
  try {
    request.send(form);
    await Promise.race([answered, watchdog.ended]);
    return answerOf(request, url);
  } finally {
    request.abort(); // does nothing after the answer
    watchdog.stop();
  }
}

function answerOf(request: XMLHttpRequest, url: string): Answer {
  // `getResponseHeader` complains in the console if another origin does not show the header
  const headers = request.getAllResponseHeaders();
  const header = (name: string) => new RegExp(`^${name}: *(.*?)\\s*$`, "im").exec(headers)?.[1] ?? null;
  return {
    status: request.status,
    type: header("Content-Type") ?? "",
    text: request.responseText,
    tag: null,
    retryAfter: header("Retry-After"),
    redirected: request.responseURL !== "" && request.responseURL !== url,
  };
}

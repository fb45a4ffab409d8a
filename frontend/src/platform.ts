/** Everything that depends on where the script runs: in a page, a worker or Node, in a secure context or not. */

declare const process: { versions?: { node?: string } } | undefined;

/** True in Node and similar runtimes, where an open socket keeps the process alive. */
export const isNode = (): boolean => typeof process === "object" && process.versions?.node !== undefined;

export const hasWebSocket = (): boolean => typeof WebSocket === "function";

/** The absolute address of `baseURL`, with a slash at its end; throws a TypeError if there is none. */
export function resolveBase(baseURL: string): string {
  const page =
    typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : undefined;
  let url: URL;
  try {
    url = new URL(baseURL, page);
  } catch {
    throw new TypeError(
      `TaskAPI.options.baseURL is ${JSON.stringify(baseURL)}; without a page, it has to be absolute.`,
    );
  }
  url.username = url.password = ""; // `fetch` refuses an address with a password
  return url.href.endsWith("/") ? url.href : `${url.href}/`;
}

/** The cookies of this page that a script can see; none in a sandboxed frame. */
export function cookies(): string {
  try {
    return document.cookie;
  } catch {
    return "";
  }
}

/** The name and password of an absolute `baseURL`, as a token that sends them; null if it has none. */
export function basicToken(baseURL: string): string | null {
  let url: URL;
  try {
    url = new URL(baseURL);
  } catch {
    return null; // relative: the browser itself sends the password of the page's address
  }
  if (url.username === "" && url.password === "") return null;
  const bytes = `${url.username}:${url.password}`.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return `Basic ${btoa(bytes)}`;
}

/** The value of a cookie of this page, or null. */
export function readCookie(name: string, jar = cookies()): string | null {
  for (const pair of jar.split(";")) {
    const [key, ...value] = pair.trim().split("=");
    if (key === name) return decode(value.join("="));
  }
  return null;
}

/** The CSRF token in a meta tag or a form of the page; null if there is none. */
export function pageToken(): string | null {
  if (typeof document !== "object") return null;
  const meta = document.querySelector?.<HTMLMetaElement>('meta[name="csrf-token"]')?.content;
  return meta || document.querySelector?.<HTMLInputElement>("input[name=csrfmiddlewaretoken]")?.value || null;
}

/** The origin of this page's requests: "null" in a sandboxed frame; null if there is no page. */
export const pageOrigin = (): string | null =>
  typeof self === "object" && typeof self.origin === "string" ? self.origin : null;

/** False if the browser knows that there is no network. */
export const isOnline = (): boolean => typeof navigator !== "object" || navigator.onLine !== false;

function decode(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value; // it has a "%" that encodes nothing
  }
}

/** A new UUID (version 4), even if `crypto.randomUUID` is missing, as in a context that is not secure. */
export function newKey(): string {
  const bytes = new Uint8Array(16);
  try {
    if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
    crypto.getRandomValues(bytes);
  } catch {
    for (const index of bytes.keys()) bytes[index] = Math.floor(Math.random() * 256); // there is no `crypto`
  }
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40; // version 4
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80; // RFC 9562's variant
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Calls `listener` when the page is visible again, or the network is back: the page may have slept. */
export function onWake(listener: () => void): void {
  listen(() => {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") listener();
    });
  });
  listen(() => {
    addEventListener("online", listener);
    addEventListener("pageshow", (event) => {
      if (event.persisted) listener(); // from the back/forward cache; the browser has closed its sockets
    });
  });
}

/** Calls `listener` when the page goes or is hidden: on a phone, no later event may come. */
export function onLeave(listener: () => void): void {
  if (typeof document !== "object") return;
  listen(() => {
    addEventListener("pagehide", listener);
    // on the window, so after the page's listeners on the document: they may start runs
    addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") listener();
    });
  });
  if (document.visibilityState === "hidden") listener(); // the page may be going now
}

/**
 * Calls `begin`, and ignores its errors. A worker has no document, and a substitute for a page, as servers use it for
 * rendering, may have no events. The client works without them: only its tries are not hurried.
 */
function listen(begin: () => void): void {
  try {
    begin();
  } catch {
    // there are no such events
  }
}

const FRAME = 16; // ms of a frame, if there is no screen
const NO_FRAME = 1_000; // ms without a frame: the page is hidden now, or is an iframe out of view

/** Calls `listener` with the screen's next frame, or after as long a time; returns a function that stops it. */
export function onFrame(listener: () => void): () => void {
  if (!isVisible()) {
    const timer = setTimeout(listener, FRAME);
    return () => clearTimeout(timer);
  }
  const stop = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
  const once = () => {
    stop();
    listener();
  };
  const frame = requestAnimationFrame(once);
  const timer = setTimeout(once, NO_FRAME);
  return stop;
}

const isVisible = (): boolean =>
  typeof requestAnimationFrame === "function" && typeof document === "object" && document.visibilityState === "visible";

/** Reports an error of a caller's function to the console, and to `window.onerror`. */
export function report(error: unknown): void {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}

/** Everything that depends on where the script runs: page, worker or Node; secure context or not. */

declare const process: { versions?: { node?: string } } | undefined;

/** True in Node and its like, where an open socket keeps the process alive. */
export const isNode = (): boolean => typeof process === "object" && process.versions?.node !== undefined;

export const hasWebSocket = (): boolean => typeof WebSocket === "function";

/** The absolute address of `baseURL`, with a slash at its end; TypeError with a sentence where there is none. */
export function resolveBase(baseURL: string): string {
  const page =
    typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : undefined;
  let url: URL;
  try {
    url = new URL(baseURL, page);
  } catch {
    throw new TypeError(
      `TaskAPI.options.baseURL is ${JSON.stringify(baseURL)}; where there is no page, it has to be absolute.`,
    );
  }
  url.username = url.password = ""; // `fetch` takes no address with a password; the browser has its own way to send it
  return url.href.endsWith("/") ? url.href : `${url.href}/`;
}

/** The cookies of this page that a script may see; none where the page may not look (a sandboxed frame). */
export function cookies(): string {
  try {
    return document.cookie;
  } catch {
    return "";
  }
}

/** The name and password in an absolute `baseURL`, as the token that sends them; null where there are none. */
export function basicToken(baseURL: string): string | null {
  let url: URL;
  try {
    url = new URL(baseURL);
  } catch {
    return null; // relative: what the page's own address has, the browser sends by itself
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

/** The CSRF token that the page has in a meta tag or in a form; null where it has none. */
export function pageToken(): string | null {
  if (typeof document !== "object") return null;
  const meta = document.querySelector?.<HTMLMetaElement>('meta[name="csrf-token"]')?.content;
  return meta || document.querySelector?.<HTMLInputElement>("input[name=csrfmiddlewaretoken]")?.value || null;
}

/** The origin that a request of this page counts as: "null" in a sandboxed frame; null where there is no page. */
export const pageOrigin = (): string | null =>
  typeof self === "object" && typeof self.origin === "string" ? self.origin : null;

/** False where the browser knows that there is no network. */
export const isOnline = (): boolean => typeof navigator !== "object" || navigator.onLine !== false;

function decode(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value; // a stray "%": the cookie was not written encoded
  }
}

/** A new UUID (version 4), also where the context is not secure and `crypto.randomUUID` is missing. */
export function newKey(): string {
  const bytes = new Uint8Array(16);
  try {
    if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
    crypto.getRandomValues(bytes);
  } catch {
    for (const index of bytes.keys()) bytes[index] = Math.floor(Math.random() * 256); // there is none
  }
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40; // version 4
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80; // RFC 9562's variant
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Calls `listener` when the page is looked at again, or the network has come back: it may have slept. */
export function onWake(listener: () => void): void {
  listen(() => {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") listener();
    });
  });
  listen(() => {
    addEventListener("online", listener);
    addEventListener("pageshow", (event) => {
      if (event.persisted) listener(); // from the browser's cache, with sockets that it has closed
    });
  });
}

/** Calls `listener` when the page goes, or is hidden: on a phone that may be the last that it hears. */
export function onLeave(listener: () => void): void {
  if (typeof document !== "object") return;
  listen(() => {
    addEventListener("pagehide", listener);
    // on the window, after the page's own listeners on the document: they may start something themselves
    addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") listener();
    });
  });
  if (document.visibilityState === "hidden") listener(); // it may be going at this moment
}

/**
 * Begins to listen, where there is a page that has events: a worker has none of a document, a stand-in for a page, as
 * servers that render have it, may have none at all, or throw. It goes on without: what waits is tried in its time.
 */
function listen(begin: () => void): void {
  try {
    begin();
  } catch {
    // as without
  }
}

const FRAME = 16; // ms, where no screen says how long one lasts
const NO_FRAME = 1_000; // ms without a frame: the page has been hidden meanwhile, or is a frame that is out of sight

/** Calls `listener` once, with the screen's next frame, or after that time where nobody sees one; returns what ends it. */
export function onFrame(listener: () => void): () => void {
  if (!isSeen()) {
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

const isSeen = (): boolean =>
  typeof requestAnimationFrame === "function" && typeof document === "object" && document.visibilityState === "visible";

/** Tells the console (and `window.onerror`) of an error in a caller's own function. */
export function report(error: unknown): void {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}

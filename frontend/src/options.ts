/** The client's options and their defaults, which are those of 1.x where 1.x had them. */

export type TransportChoice = "auto" | "websocket" | "sse" | "polling";

export interface Options {
  /** Where `taskapi.urls` is mounted, with `tasks/` at its end; relative to the page, or absolute. */
  baseURL: string;
  csrfCookieName: string;
  csrfHeaderName: string;
  /** The CSRF token, or what gives it each time; null: that of the cookie, of a meta tag, or of a form of the page. */
  csrfToken: string | (() => string | null) | null;
  /** Milliseconds between two polls of a run that no socket carries. */
  pollInterval: number;
  /** The `mode` of every fetch; "cors" also sends cookies to another origin. */
  corsMode: RequestMode;
  transport: TransportChoice;
  /** For token authentication: a bare token ("Token " is put before it), or a whole `Authorization` value. */
  token: string | null;
}

export const defaults = (): Options => ({
  baseURL: "/tasks/",
  csrfCookieName: "csrftoken",
  csrfHeaderName: "X-CSRFToken",
  csrfToken: null,
  pollInterval: 1000,
  corsMode: "same-origin",
  transport: "auto",
  token: null,
});

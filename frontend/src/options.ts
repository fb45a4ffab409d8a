/** The client's options and their defaults. Options of 1.x have the defaults of 1.x. */

import { readCookie } from "./platform.js";

export type TransportChoice = "auto" | "websocket" | "sse" | "polling";

export interface Options {
  /** The address of the API: that of `taskapi.urls`, and `tasks/`. Relative to the page, or absolute. */
  baseURL: string;
  csrfCookieName: string;
  csrfHeaderName: string;
  /** The CSRF token, or a function that returns it; null: take it from the cookie, a meta tag or a form. */
  csrfToken: string | (() => string | null) | null;
  /** Milliseconds between two polls of a run. */
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

/**
 * What tells one user from another, as far as a page can see: Django gives a new CSRF cookie with each login.
 *
 * `jar` is what `document.cookie` was at some time; by default, it is what it is now.
 */
export const userOf = ({ token, csrfCookieName }: Options, jar?: string): string | null =>
  token || readCookie(csrfCookieName, jar);

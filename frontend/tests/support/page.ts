/** A page with events, as far as the client listens to them. */

import { vi } from "vitest";

export interface Page {
  document: EventTarget & { baseURI: string; cookie: string; visibilityState: string };
  window: EventTarget;
  /** Makes the page visible or hidden. As in browsers, the event of the document is the window's as well. */
  show(visibilityState: "visible" | "hidden"): void;
}

/** Gives this process such a page until the end of the test. */
export function stubPage(baseURI: string, cookie = ""): Page {
  const document = Object.assign(new EventTarget(), { baseURI, cookie, visibilityState: "visible" });
  const window = new EventTarget();
  vi.stubGlobal("document", document);
  vi.stubGlobal("addEventListener", window.addEventListener.bind(window));
  const show = (visibilityState: "visible" | "hidden") => {
    document.visibilityState = visibilityState;
    for (const target of [document, window]) target.dispatchEvent(new Event("visibilitychange"));
  };
  return { document, window, show };
}

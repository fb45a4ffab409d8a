/** One run as a visitor sees it: a bar, a line of facts, the messages, and the error if there is one. */

import { count, duration, el, number } from "./dom.js";

const WORDS = {
  idle: "Not started yet",
  starting: "Starting …",
  pending: "Waiting for a worker …",
  running: "Running …",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  refused: "Not started",
};

const TRANSPORTS = { websocket: "WebSocket", sse: "server-sent events", polling: "polling" };

export const transportName = (transport) => TRANSPORTS[transport] ?? transport;

/** `state` is a key of WORDS, and it alone decides what the panel shows. */
export class RunPanel {
  #state = "idle";
  #transport = null;
  #unit;

  /** `unit`: what the progress counts, in the singular. */
  constructor(card, unit) {
    const template = document.getElementById("run-panel").content.cloneNode(true);
    this.element = template.querySelector(".run");
    this.bar = this.element.querySelector(".bar");
    this.fill = this.element.querySelector(".bar-fill");
    this.status = this.element.querySelector(".run-status");
    this.count = this.element.querySelector(".run-count");
    this.facts = this.element.querySelector(".run-facts");
    this.error = this.element.querySelector(".run-error");
    this.messages = this.element.querySelector(".messages");
    this.messagesTitle = this.messages.querySelector("h3");
    this.log = this.messages.querySelector("ol");
    this.#unit = unit;

    const title = card.querySelector("h2");
    this.bar.setAttribute("aria-labelledby", title.id);
    this.log.setAttribute("aria-label", `Messages of “${title.textContent}”`);
    card.querySelector("form").after(this.element);
  }

  /** A run was asked for: whatever the last one left is cleared away. */
  begin() {
    this.#transport = null;
    this.#show("starting");
    this.count.textContent = "";
    this.facts.replaceChildren();
    this.error.hidden = true;
    this.messages.hidden = true;
    this.log.replaceChildren();
    this.fill.style.transform = "";
    this.element.scrollIntoView({ block: "nearest" }); // a phone shows the button at its lower end
    for (const name of ["aria-valuenow", "aria-valuemax", "aria-valuetext"]) this.bar.removeAttribute(name);
  }

  showStatus(status) {
    this.#show(status);
  }

  showProgress(progress, target) {
    if (progress === null || target === null) return;
    const text = target > 0 ? `${number(progress)} of ${count(target, this.#unit)}` : "";
    this.bar.setAttribute("aria-valuemax", target);
    this.bar.setAttribute("aria-valuenow", progress);
    this.bar.setAttribute("aria-valuetext", text);
    this.count.textContent = text;
    this.fill.style.transform = `scaleX(${target > 0 ? Math.min(1, progress / target) : 1})`;
  }

  showTransport(transport) {
    this.#transport = transport;
    if (this.#state === "running" || this.#state === "pending") this.#showFacts([`over ${transportName(transport)}`]);
  }

  addMessage(message) {
    const line = message.line === undefined ? null : el("b", {}, `line ${number(message.line)}`);
    this.log.append(el("li", {}, line, line ? " " : null, message.text ?? JSON.stringify(message)));
    this.messagesTitle.textContent = count(this.log.children.length, "message");
    this.messages.hidden = false;
  }

  succeed(info) {
    this.showProgress(info.progress, info.target);
    this.fill.style.transform = "scaleX(1)";
    this.#show("succeeded");
    this.#showEnd(info);
  }

  /** The run failed, or it was refused and never began: `error` is what the promise was rejected with. */
  fail(error, sentences) {
    this.#show(WORDS[error.status] ? error.status : "refused");
    this.error.replaceChildren(...sentences.map((sentence) => el("span", {}, sentence)));
    this.error.hidden = false;
    if (error.uuid) this.#showEnd(error);
  }

  #show(state) {
    this.#state = state;
    this.element.dataset.state = state;
    this.status.textContent = WORDS[state] ?? state;
    this.bar.toggleAttribute("aria-busy", state === "starting" || state === "pending" || state === "running");
    if (this.#transport) this.showTransport(this.#transport);
  }

  #showEnd(info) {
    const [created, started, finished] = [info.created, info.started, info.finished].map((time) => Date.parse(time));
    this.#showFacts([
      this.#transport ? `over ${transportName(this.#transport)}` : null,
      info.attempt > 1 ? `attempt ${info.attempt}` : `waited ${duration(Math.max(0, started - created))} for a worker`,
      finished >= started ? `ran ${duration(finished - started)}` : null,
      el("a", { href: `${TaskAPI.options.baseURL}${info.uuid}/`, target: "_blank" }, "as JSON"),
    ]);
  }

  #showFacts(facts) {
    this.facts.replaceChildren(...facts.filter((fact) => fact !== null).map((fact) => el("span", {}, fact)));
  }
}

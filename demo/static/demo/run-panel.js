/** Shows one run: a bar, another one while its file is sent, a line of facts, a button to cancel it, the messages, and the error if there is one. */

import { count, duration, el, number, seconds, size } from "./dom.js";
import { sentences } from "./errors.js";
import { Rate } from "./rate.js";

const WORDS = {
  idle: "Not started yet. Progress and messages appear here.",
  starting: "Starting …",
  uploading: "Sending the file …",
  finding: "Looking for the last run …",
  pending: "Waiting for a worker …",
  running: "Running …",
  asking: "Asking to cancel …", // the server has not answered yet
  cancelling: "Cancelling …", // the server has accepted, and the task has not noticed yet
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  refused: "Not started",
  stopped: "Not sent: nothing was started", // the visitor has cancelled while the file was sent
};

const UNDER_WAY = new Set(["pending", "running", "asking", "cancelling"]);
const BUSY = new Set(["starting", "uploading", "finding", ...UNDER_WAY]);

const TRANSPORTS = { websocket: "WebSocket", sse: "server-sent events", polling: "polling" };

export const transportName = (transport) => TRANSPORTS[transport] ?? transport;

/** What the panel shows depends only on `state`, a key of WORDS. */
export class RunPanel {
  #state = "idle";
  #handle = null; // of the shown run
  #asking = false; // a request to cancel is not answered yet
  #transport = null;
  #unit;
  #rate;

  /** `unit`: the thing that the progress counts, in the singular. `hasRate`: how fast they go is of interest. */
  constructor(card, unit, hasRate) {
    const template = document.getElementById("run-panel").content.cloneNode(true);
    this.element = template.querySelector(".run");
    this.bar = this.element.querySelector(".work");
    this.fill = this.bar.querySelector(".bar-fill");
    this.upload = this.element.querySelector(".upload");
    this.uploadBar = this.upload.querySelector(".bar");
    this.uploadFacts = this.upload.querySelector(".upload-facts");
    this.status = this.element.querySelector(".run-status");
    this.count = this.element.querySelector(".run-count");
    this.facts = this.element.querySelector(".run-facts");
    this.cancel = this.element.querySelector(".cancel");
    this.error = this.element.querySelector(".run-error");
    this.messages = this.element.querySelector(".messages");
    this.messagesTitle = this.messages.querySelector("h3");
    this.log = this.messages.querySelector("[role=log]");
    this.list = this.log.querySelector("ol");
    this.#unit = unit;
    this.#rate = hasRate ? new Rate() : null;

    const title = card.querySelector("h2");
    this.bar.setAttribute("aria-labelledby", title.id);
    this.uploadBar.setAttribute("aria-label", `Upload of “${title.textContent}”`);
    this.log.setAttribute("aria-label", `Messages of “${title.textContent}”`);
    this.cancel.setAttribute("aria-label", `Cancel “${title.textContent}”`);
    this.cancel.addEventListener("click", () => this.#requestCancel());
    this.form = card.querySelector("form");
    this.form.after(this.element);
    this.clear("idle");
  }

  /** Removes everything that the last run left. */
  clear(state) {
    this.#handle = null;
    this.#transport = null;
    this.#show(state);
    this.#rate?.clear();
    this.upload.hidden = true;
    this.count.textContent = "";
    this.facts.replaceChildren();
    this.error.hidden = true;
    this.messages.hidden = true;
    this.list.replaceChildren();
    this.fill.style.transform = "";
    for (const name of ["aria-valuenow", "aria-valuemax", "aria-valuetext"]) this.bar.removeAttribute(name);
  }

  /** Shows the upload, the messages and the transport of the run; the handle also cancels it. */
  follow(handle) {
    this.#handle = handle;
    this.#asking = false;
    handle.on("upload", (event) => this.#showUpload(event));
    handle.on("message", ({ message }) => {
      if (!("picture" in message)) this.#addMessage(message);
    });
    handle.on("transport", (event) => this.#showTransport(event.transport));
  }

  /** Shows the progress of a run that has not ended. */
  update(info) {
    if (!UNDER_WAY.has(info.status)) return;
    this.#showProgress(info);
    if (info.cancel_requested) this.#show("cancelling");
    else this.#show(this.#asking ? "asking" : info.status);
  }

  succeed(info) {
    this.#showEnd(info);
    this.fill.style.transform = "scaleX(1)";
  }

  /** Shows a run that failed, was cancelled, or was refused. `error`: what the promise rejected with. */
  fail(error) {
    if (!error.uuid && error.name === "AbortError") return this.#show("stopped");
    if (!error.uuid) {
      this.#show("refused");
      return this.#showError(sentences(error));
    }
    this.#showEnd(error);
    if (error.status === "failed") this.#showError(sentences(error));
  }

  async #requestCancel() {
    if (this.cancel.ariaDisabled === "true") return;
    if (this.#state === "uploading") return this.#handle.cancel(); // ends at once: the handle rejects
    const handle = this.#handle;
    const before = this.#state;
    this.#asking = true;
    this.#show("asking");
    try {
      await handle.cancel(); // accepted: `cancel_requested` shows it, and the end of the run shows the outcome
    } catch (error) {
      if (error.status === 409 || handle !== this.#handle) return; // it has ended
      this.#asking = false;
      this.#show(before);
      this.#showError(["The run goes on: it could not be cancelled.", ...sentences(error)]);
    }
  }

  #addMessage(message) {
    const isAtEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 1;
    const line = message.line === undefined ? null : el("b", {}, `line ${number(message.line)}`);
    this.list.append(el("li", {}, line, line ? " " : null, message.text ?? JSON.stringify(message)));
    this.messagesTitle.textContent = count(this.list.children.length, "message");
    this.messages.hidden = false;
    if (isAtEnd) this.log.scrollTop = this.log.scrollHeight; // a visitor who has scrolled back is not moved
  }

  #showUpload({ loaded, total, fraction, rate, eta }) {
    const isSent = fraction === 1;
    const sent = isSent ? size(total) : `${size(loaded)} of ${size(total)}`;
    const facts = isSent
      ? [`${sent} sent`]
      : [sent, rate ? `${size(rate)} a second` : null, rate && eta !== null ? `${seconds(eta)} left` : null];
    this.upload.hidden = false;
    this.upload.toggleAttribute("data-sent", isSent);
    this.uploadBar.setAttribute("aria-valuenow", Math.floor(fraction * 100));
    this.uploadBar.setAttribute("aria-valuetext", sent);
    this.uploadBar.firstElementChild.style.transform = `scaleX(${fraction})`;
    this.uploadFacts.replaceChildren(...spans(facts));
    this.#show(isSent ? "starting" : "uploading");
  }

  #showProgress({ progress, target }) {
    if (progress === null || target === null) return;
    const text = target > 0 ? `${number(progress)} of ${count(target, this.#unit)}` : "";
    this.bar.setAttribute("aria-valuemax", target);
    this.bar.setAttribute("aria-valuenow", progress);
    this.bar.setAttribute("aria-valuetext", text);
    this.count.textContent = text;
    this.fill.style.transform = `scaleX(${target > 0 ? Math.min(1, progress / target) : 1})`;
    this.#rate?.add(progress);
    this.left = target - progress;
  }

  #showTransport(transport) {
    this.#transport = transport;
    if (!UNDER_WAY.has(this.#state)) return;
    const rate = this.#rate?.perSecond ?? null;
    this.#showFacts([
      `over ${transportName(transport)}`,
      rate && `${count(Number(rate.toPrecision(2)), this.#unit)} a second`,
      rate && this.left > 0 ? `${seconds(this.left / rate)} left` : null,
    ]);
  }

  #showError(lines) {
    this.error.replaceChildren(...lines.map((line) => el("span", {}, line)));
    this.error.hidden = false;
  }

  #show(state) {
    this.#state = state;
    this.element.dataset.state = state;
    this.status.textContent = WORDS[state] ?? state;
    this.bar.toggleAttribute("aria-busy", BUSY.has(state));
    this.#offerCancel(state === "uploading" || UNDER_WAY.has(state));
    if (this.#transport) this.#showTransport(this.#transport);
  }

  #offerCancel(isOffered) {
    const hadFocus = this.cancel === document.activeElement;
    this.cancel.hidden = !isOffered;
    this.cancel.ariaDisabled = String(this.#state === "asking" || this.#state === "cancelling"); // not `disabled`, so that it keeps the focus
    if (hadFocus && !isOffered) this.form.querySelector("button").focus();
  }

  #showEnd(info) {
    this.#show(info.status);
    this.#showProgress(info);
    this.error.hidden = true;
    const [created, started, finished] = [info.created, info.started, info.finished].map((time) => Date.parse(time));
    this.#showFacts([
      this.#transport ? `over ${transportName(this.#transport)}` : null,
      info.attempt > 1 ? `attempt ${info.attempt}` : null,
      info.attempt === 1 ? `waited ${duration(Math.max(0, started - created))}` : null,
      finished >= started ? `ran ${duration(finished - started)}` : null,
      el("a", { href: `${TaskAPI.options.baseURL}${info.uuid}/`, target: "_blank" }, "as JSON"),
    ]);
  }

  #showFacts(facts) {
    this.facts.replaceChildren(...spans(facts));
  }
}

const spans = (facts) => facts.filter((fact) => fact !== null).map((fact) => el("span", {}, fact));

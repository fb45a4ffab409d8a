/** The page: each card's form starts a task, a RunPanel shows its run (also after a reload), and the card draws the outputs. */

import { el, number, size } from "./dom.js";
import { refusedInputs } from "./errors.js";
import { pictureView, profileView } from "./profile-view.js";
import { RunPanel, transportName } from "./run-panel.js";
import { ServerWatch } from "./server-watch.js";

TaskAPI.options.transport = new URLSearchParams(location.search).get("transport") ?? "auto";

const connection = document.getElementById("connection");
const watch = new ServerWatch(document.getElementById("server-gone"));

class Card {
  #picture = null; // what the run has found so far, until it is drawn

  /** `inputs` reads the form, `result` draws the outputs, `unit` is what progress counts, and `hasRate` how fast. */
  constructor(id, { task, unit, hasRate = false, inputs, result }) {
    this.element = document.getElementById(id);
    this.form = this.element.querySelector("form");
    this.button = this.form.querySelector("button");
    this.result = this.element.querySelector(".result");
    this.panel = new RunPanel(this.element, unit, hasRate);
    this.key = `run of ${id}`; // in the tab's storage: the uuid of the run that this card shows
    Object.assign(this, { task, inputs, draw: result });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    const last = sessionStorage.getItem(this.key);
    if (last !== null) this.#resume(last);
  }

  /** Starts a run with the values of the form. */
  async #start() {
    if (this.button.ariaDisabled === "true") return;
    this.#begin("starting");
    sessionStorage.removeItem(this.key);
    this.panel.element.scrollIntoView({ block: "nearest" }); // on a phone the button may be at the lower end of the screen
    try {
      const inputs = await this.inputs(this.form);
      await this.#follow((onStatus) => TaskAPI.run(this.task, inputs, onStatus));
    } catch (error) {
      this.panel.fail(error);
      this.#markInputs(refusedInputs(error));
    } finally {
      this.button.ariaDisabled = "false";
    }
  }

  /** Follows the run that this card showed before a reload; it may have ended meanwhile. */
  async #resume(uuid) {
    this.#begin("finding");
    try {
      await this.#follow((onStatus) => TaskAPI.attach(uuid, onStatus));
    } catch (error) {
      if (!(error instanceof TaskAPI.RequestError)) return this.panel.fail(error);
      sessionStorage.removeItem(this.key); // there is no such run any more
      this.panel.clear("idle");
    } finally {
      this.button.ariaDisabled = "false";
    }
  }

  #begin(state) {
    this.#picture = null;
    this.button.ariaDisabled = "true"; // not `disabled`: the button would lose the keyboard's focus
    this.#markInputs([]);
    this.result.hidden = true;
    this.result.replaceChildren();
    this.panel.clear(state);
  }

  /** Shows the run of the handle that `open` returns, until it has ended. */
  async #follow(open) {
    watch.opened();
    try {
      const handle = open((info) => {
        watch.heard();
        sessionStorage.setItem(this.key, info.uuid); // where this page finds it after a reload
        this.panel.update(info);
      });
      this.panel.follow(handle);
      handle.on("upload", () => watch.heard());
      handle.on("message", ({ message }) => {
        if ("picture" in message) this.#showPicture(message.picture);
      });
      handle.on("transport", ({ transport }) => {
        connection.textContent = transportName(transport);
        connection.dataset.transport = transport;
      });
      this.#showResult(await handle);
    } finally {
      watch.closed();
    }
  }

  /** Draws the latest picture, at most once for each frame of the screen: after a reload, all of them come at once. */
  #showPicture(picture) {
    const isAwaited = this.#picture !== null;
    this.#picture = picture;
    if (isAwaited) return;
    requestAnimationFrame(() => {
      if (this.#picture === null) return;
      this.result.replaceChildren(pictureView(this.#picture));
      this.result.hidden = false;
      this.#picture = null;
    });
  }

  #showResult(info) {
    this.panel.succeed(info);
    this.#picture = null;
    const drawn = this.draw(info.outputs);
    this.result.replaceChildren(...(drawn ? [drawn] : []));
    this.result.hidden = drawn === null;
  }

  #markInputs(refused) {
    for (const input of this.form.elements) {
      if (input.name) input.setAttribute("aria-invalid", String(refused.includes(input.name)));
    }
  }
}

// Profile a CSV file

const profileForm = document.querySelector("#profile form");
const picker = profileForm.querySelector("[type=file]");
const hint = document.getElementById("own-file").textContent;

new Card("profile", {
  task: "profile-csv",
  unit: "line",
  hasRate: true,
  inputs: async (form) => {
    const source = form.elements.source.value;
    if (source === "airports") return {};
    if (source === "mistakes") return { file: await fetchFile(form.querySelector("[data-url]").dataset.url) };
    const [file] = picker.files;
    if (!file) throw new Error("No file is chosen yet. Press “Choose …”.");
    const limit = Number(picker.dataset.maxBytes);
    if (file.size > limit) throw new Error(`This file has ${size(file.size)}, and the demo takes up to ${size(limit)}. Nothing was sent.`);
    return { file };
  },
  result: profileView,
});

async function fetchFile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`The file could not be loaded: the server answered ${response.status}.`);
  return new File([await response.blob()], url.split("/").at(-1), { type: "text/csv" });
}

function showPicked() {
  const [file] = picker.files;
  document.getElementById("own-file").textContent = file ? `${file.name}, ${size(file.size)}` : hint;
  if (file) profileForm.elements.source.value = "own";
}
picker.addEventListener("change", showPicked);

profileForm.addEventListener("change", (event) => {
  if (event.target.value === "own" && picker.files.length === 0) picker.click();
});

profileForm.addEventListener("dragover", (event) => event.preventDefault());
profileForm.addEventListener("drop", (event) => {
  if (event.dataTransfer.files.length === 0) return;
  event.preventDefault();
  picker.files = event.dataTransfer.files;
  showPicked();
});

// Add numbers

new Card("sum", {
  task: "sum",
  unit: "number",
  inputs: (form) => ({ numbers: form.elements.numbers.value.split(",").map((text) => text.trim()) }),
  result: ({ sum }) => el("p", { class: "sum" }, "= ", el("output", {}, number(sum))),
});

// Wait a while

new Card("wait", {
  task: "wait",
  unit: "second",
  inputs: (form) => {
    const seconds = form.elements.seconds.value.trim();
    return seconds === "" ? {} : { seconds };
  },
  result: () => null,
});

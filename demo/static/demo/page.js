/** The page: each card's form starts a task, a RunPanel shows its run (also after a reload), and the card draws the outputs. */

import { el, number, size } from "./dom.js";
import { refusedInputs } from "./errors.js";
import { profileView } from "./profile-view.js";
import { RunPanel, transportName } from "./run-panel.js";
import { ServerWatch } from "./server-watch.js";

const MAX_FRAME = 1_000_000; // bytes: a file is sent in one WebSocket frame, and the server takes 1 MiB

TaskAPI.options.transport = new URLSearchParams(location.search).get("transport") ?? "auto";

const connection = document.getElementById("connection");
const watch = new ServerWatch(document.getElementById("server-gone"));

class Card {
  /** `inputs` reads the form, `result` draws the outputs, `unit` is what progress counts. */
  constructor(id, { task, unit, inputs, result }) {
    this.element = document.getElementById(id);
    this.form = this.element.querySelector("form");
    this.button = this.form.querySelector("button");
    this.result = this.element.querySelector(".result");
    this.panel = new RunPanel(this.element, unit);
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
      handle.on("transport", ({ transport }) => {
        connection.textContent = transportName(transport);
        connection.dataset.transport = transport;
      });
      this.#showResult(await handle);
    } finally {
      watch.closed();
    }
  }

  #showResult(info) {
    this.panel.succeed(info);
    const drawn = this.draw(info.outputs);
    if (drawn) this.result.append(drawn);
    this.result.hidden = drawn === null;
  }

  #markInputs(refused) {
    for (const input of this.form.elements) {
      if (input.name) input.setAttribute("aria-invalid", String(refused.includes(input.name)));
    }
  }
}

// Profile a CSV file

new Card("profile", {
  task: "profile-csv",
  unit: "row",
  inputs: async (form) => {
    const source = form.elements.source.value;
    if (source === "airports") return {};
    if (source === "mistakes") return { csv: await readText(await fetchFile(form.querySelector("[data-url]").dataset.url)) };
    const [file] = form.querySelector("[type=file]").files;
    if (!file) throw new Error("No file is chosen yet. Press “Choose …”.");
    return { csv: await readText(file) };
  },
  result: profileView,
});

async function fetchFile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`The file could not be loaded: the server answered ${response.status}.`);
  return response.blob();
}

/** Returns the text of a file. Bytes that are not UTF-8 become �, and the task reports them. */
async function readText(file) {
  const tooLarge = (bytes) => new Error(`This file is ${size(bytes)} as it would be sent, and the demo takes up to 1 MB: it sends a file as a single WebSocket message.`);
  if (file.size > MAX_FRAME) throw tooLarge(file.size);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const utf16 = { "255,254": "utf-16le", "254,255": "utf-16be" }[`${bytes[0]},${bytes[1]}`];
  const text = new TextDecoder(utf16 ?? "utf-8").decode(bytes);
  const sent = new TextEncoder().encode(JSON.stringify(text)).length;
  if (sent > MAX_FRAME) throw tooLarge(sent);
  return text;
}

const profileForm = document.querySelector("#profile form");
const picker = profileForm.querySelector("[type=file]");

function showPicked() {
  const [file] = picker.files;
  document.getElementById("own-file").textContent = file ? `${file.name}, ${size(file.size)}` : "CSV, up to 1 MB";
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

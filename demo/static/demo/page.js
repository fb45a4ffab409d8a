/** The page: each card's form starts a task, a RunPanel follows it, and what comes out is drawn. */

import { el, number, size } from "./dom.js";
import { refusedInputs, sentences } from "./errors.js";
import { profileView } from "./profile-view.js";
import { RunPanel, transportName } from "./run-panel.js";
import { ServerWatch } from "./server-watch.js";

const MAX_FRAME = 1_000_000; // bytes: a file travels in one WebSocket frame, of which the server takes 1 MiB

TaskAPI.options.transport = new URLSearchParams(location.search).get("transport") ?? "auto";

const connection = document.getElementById("connection");
const watch = new ServerWatch(document.getElementById("server-gone"));

/** A mistake that is found before the server is asked. */
class Refusal extends Error {}

class Card {
  /** `inputs` reads the form, `result` draws the outputs, `unit` is what progress counts. */
  constructor(id, { task, unit, inputs, result }) {
    this.element = document.getElementById(id);
    this.form = this.element.querySelector("form");
    this.button = this.form.querySelector("button");
    this.result = this.element.querySelector(".result");
    this.panel = new RunPanel(this.element, unit);
    Object.assign(this, { task, inputs, draw: result });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run();
    });
  }

  async #run() {
    if (this.button.ariaDisabled === "true") return;
    this.button.ariaDisabled = "true"; // and not `disabled`, which would take the keyboard's focus away
    this.#markInputs([]);
    this.result.hidden = true;
    this.result.replaceChildren();
    this.panel.begin();
    try {
      const info = await this.#follow(await this.inputs(this.form));
      this.panel.succeed(info);
      const drawn = this.draw(info.outputs);
      if (drawn) this.result.append(drawn);
      this.result.hidden = drawn === null;
    } catch (error) {
      this.panel.fail(error, error instanceof Refusal ? [error.message] : sentences(error));
      this.#markInputs(refusedInputs(error));
    } finally {
      this.button.ariaDisabled = "false";
    }
  }

  async #follow(inputs) {
    watch.opened();
    try {
      const run = TaskAPI.run(this.task, inputs, ({ status, progress, target }) => {
        watch.heard();
        this.panel.showStatus(status);
        this.panel.showProgress(progress, target);
      });
      run.on("message", (event) => this.panel.addMessage(event.message));
      run.on("transport", (event) => {
        this.panel.showTransport(event.transport);
        connection.textContent = transportName(event.transport);
        connection.dataset.transport = event.transport;
      });
      return await run;
    } finally {
      watch.closed();
    }
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
    if (!file) throw new Refusal("No file is chosen yet. “Choose …” opens one.");
    return { csv: await readText(file) };
  },
  result: profileView,
});

async function fetchFile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Refusal(`The file could not be had: the server answered ${response.status}.`);
  return response.blob();
}

/** The text of a file. Bytes that are not UTF-8 become �, which the task tells of. */
async function readText(file) {
  const tooLarge = (bytes) => new Refusal(`This file is ${size(bytes)} as it would be sent, and the demo takes up to 1 MB: it sends a file as a single WebSocket message.`);
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

/** The uploads of one start: its files, one after the other, before there is a run. Nothing of them is resumed. */

import { noAnswer, RequestError, StrangeAnswer } from "./errors.js";
import { type InputFile, nameOf, place, type Separated } from "./files.js";
import { sendForm } from "./form.js";
import type { Options } from "./options.js";
import { isObject, parseJSON } from "./protocol.js";
import { Rate } from "./rate.js";
import { type Answer, type Call, refusalOf, uploadCall, Watchdog } from "./rest.js";
import { now } from "./timing.js";

/** How far the files of a start have come. There is one at the beginning, and one when the server has all of them. */
export interface UploadEvent {
  type: "upload";
  /** The input whose file is under way, and the name of that file. */
  input: string;
  file: string;
  /** Bytes, over all files of the start. `loaded` never goes backwards. */
  loaded: number;
  total: number;
  /** From 0 to 1. */
  fraction: number;
  /** Bytes a second, over the last seconds; null until it is known. */
  rate: number | null;
  /** Seconds left; null until it is known. */
  eta: number | null;
}

export class Upload {
  /**
   * - waiting: not begun
   * - sending: a file is under way
   * - done: the server has all files
   * - stopped: nothing is sent or told any more
   */
  private state: "waiting" | "sending" | "done" | "stopped" = "waiting";
  private watchdog: Watchdog | null = null;
  private before = 0; // bytes of the files that the server has
  private loaded = 0;
  private readonly total: number;
  private readonly rate = new Rate();

  /** `base` is the absolute address of the REST API. `tell` gets the events. */
  constructor(
    private readonly separated: Separated,
    private readonly base: string,
    private readonly options: Options,
    private readonly tell: (event: UploadEvent) => void,
  ) {
    this.total = separated.files.reduce((sum, { blob }) => sum + blob.size, 0);
  }

  /** Whether the server has all files, and the run is wanted. */
  get isDone(): boolean {
    return this.state === "done";
  }

  /** Sends all files, and puts their references into the inputs; rejects if one is refused or lost. */
  async send(): Promise<void> {
    await null; // the caller has its handle first, and listens
    if (this.state === "waiting") this.state = "sending";
    const { inputs, files } = this.separated;
    for (const file of files) {
      this.rate.add(now(), this.loaded);
      this.report(file);
      if (this.state !== "sending") throw noAnswer(); // a listener may have stopped it
      place(inputs, file, await this.sendOne(file));
      this.before += file.blob.size;
      this.loaded = this.before;
    }
    if (this.state !== "sending") throw noAnswer();
    this.state = "done";
    this.report(files[files.length - 1] as InputFile);
  }

  /** Ends the request that is under way. The server keeps nothing of its file. */
  stop(): void {
    this.state = "stopped";
    this.watchdog?.stop();
  }

  private async sendOne(file: InputFile): Promise<string> {
    const { size } = file.blob;
    const call = uploadCall(this.base, size, this.options);
    const form = new FormData();
    form.append("file", file.blob, nameOf(file));
    this.watchdog = new Watchdog();
    const sent = (loaded: number, total: number) => this.advance(file, loaded - (total - size));
    try {
      return referenceIn(call, await sendForm(call, form, this.watchdog, sent));
    } catch (error) {
      if (error instanceof RequestError) error.message = `${this.failure(file, error)} ${remedyOf(error)}`.trim();
      throw error;
    }
  }

  /** So many bytes of this file have left. */
  private advance(file: InputFile, bytes: number): void {
    if (this.state !== "sending") return;
    const loaded = this.before + bytes; // the head of the form leaves before the file: `bytes` may be negative
    if (loaded <= this.loaded) return;
    this.loaded = loaded;
    this.rate.add(now(), loaded);
    this.report(file);
  }

  private report(file: InputFile): void {
    const { loaded, total, isDone } = this;
    const rate = this.rate.value;
    const left = rate === null || rate <= 0 ? null : (total - loaded) / rate;
    const fraction = total === 0 ? Number(isDone) : loaded / total;
    const [input = ""] = file.path;
    this.tell({ type: "upload", input, file: nameOf(file), loaded, total, fraction, rate, eta: isDone ? 0 : left });
  }

  private failure(file: InputFile, error: RequestError): string {
    const what = `${JSON.stringify(nameOf(file))} (${file.blob.size} bytes) was not uploaded`;
    if (error.status !== 0) return `${what}. ${error.message}`;
    return `${what}: no answer came, and ${Math.max(0, this.loaded - this.before)} bytes of it had left.`;
  }
}

/** The reference in the answer of an upload; throws a RequestError if it has none. */
function referenceIn(call: Call, answer: Answer): string {
  const { status, text, retryAfter } = answer;
  const body = parseJSON(text);
  if (status === 201 && isObject(body) && typeof body.upload === "string") return body.upload;
  const error = refusalOf(call, answer);
  if (status >= 500 && retryAfter !== null && /^\d+$/.test(retryAfter)) {
    error.message += ` Expected to be back in ${retryAfter} seconds.`;
  }
  throw error;
}

/** What to do about it, where the server does not say so. */
function remedyOf(error: RequestError): string {
  const { status, message } = error;
  if (status === 0) {
    return "Nothing is kept of it. Check the network, and that the file is as it was when it was chosen; then run the task again.";
  }
  if (status === 413 && error instanceof StrangeAnswer) {
    return "A proxy in front of the server refuses large requests: nginx has client_max_body_size.";
  }
  if (status === 413) return "Use a smaller file, or raise `upload_bytes` in TASK_API_LIMITS.";
  if (status === 403 && message.includes("CSRF")) {
    return "Put {% task_script %} into the <head> of the page: it brings the CSRF token.";
  }
  return "";
}

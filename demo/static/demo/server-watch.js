/** Notices if the server is gone while a run is open, and shows a banner until it is back. */

const SILENCE = 3000; // ms without news from any open run before we ask the server: `wait` reports every second
const INTERVAL = 1000; // ms between two checks

export class ServerWatch {
  #open = 0; // runs that have not ended
  #heard = 0; // when one of them last said something
  #timer = null;
  #asking = false;

  /** `banner`: the element with the sentence for the visitor. */
  constructor(banner) {
    this.banner = banner;
  }

  opened() {
    if (this.#open === 0) this.#heard = Date.now();
    this.#open += 1;
    this.#timer ??= setInterval(() => this.#look(), INTERVAL);
  }

  heard() {
    this.#heard = Date.now();
    this.banner.hidden = true;
  }

  closed() {
    this.#open -= 1;
    if (this.#open > 0) return;
    clearInterval(this.#timer);
    this.#timer = null;
    this.banner.hidden = true;
  }

  async #look() {
    if (this.#asking || Date.now() - this.#heard < SILENCE) return;
    this.#asking = true;
    const gone = !(await answers());
    this.#asking = false;
    if (this.#timer === null) return;
    if (gone && this.banner.hidden) {
      this.banner.textContent = "The server does not answer. Nothing is lost: this page goes on by itself once it is back.";
    }
    this.banner.hidden = !gone;
  }
}

async function answers() {
  try {
    await fetch(location.href, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(SILENCE) });
    return true; // with any status: the server is there
  } catch {
    return false;
  }
}

/** Notices that the server is gone while a run is open, says so, and says when it is back. */

const SILENCE = 3000; // ms without a word from any open run before we ask: `wait` says something every second
const INTERVAL = 1000; // ms between two looks

export class ServerWatch {
  #open = 0; // runs that have not ended
  #heard = 0; // when one of them last said something
  #timer = null;
  #asking = false;

  /** `banner`: where it is said. */
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
    return true; // with whatever status: somebody is there
  } catch {
    return false;
  }
}

/** Carries runs over one WebSocket that is opened when a run wants it, and opened again when it drops. */

import { backoff, jittered, soon } from "./backoff.js";
import { type Deferred, deferred } from "./deferred.js";
import { noAnswer, RequestError } from "./errors.js";
import { cookies, hasWebSocket, readCookie } from "./platform.js";
import {
  type ClientFrame,
  cancelFrame,
  codeOf,
  detailOf,
  type ErrorFrame,
  FRAME_BYTES,
  parseServerFrame,
  pingFrame,
  runFrame,
  type SentEvent,
  type StateFrame,
  SUBPROTOCOL,
  statusOf,
  subscribeFrame,
  unsubscribeFrame,
} from "./protocol.js";
import type { Run } from "./run.js";
import { limit, timing } from "./timing.js";
import type { Listener, Transport } from "./transport.js";

const TRIES = 4; // failures in a row, of a socket that has worked before, until runs go elsewhere: some 2 to 4 s

// Close codes of the server
const GOING_AWAY = 1001;
const NOBODY = 4401; // who opened the socket is not logged in any more, or is somebody else by now
const TOO_LARGE: readonly unknown[] = [4413, 1009]; // ours, and that of a server which counts bytes itself

const MOST_PATIENT = 16; // times the limit of an answer: some 3 minutes, in which 30 KB/s bring 5 MB
const SLOWEST_HANDSHAKE = 3; // doublings: 32 s

export interface SocketListener extends Listener {
  /** Whether any run would be carried by the socket if it could. */
  wantsSocket(): boolean;

  /** `available` may have changed. */
  availabilityChanged(): void;
}

/**
 * - idle: no socket, and nobody wants one
 * - waiting: no socket until the timer ends
 * - connecting: the handshake is under way
 * - open: the handshake went well, but the server has not said anything yet
 * - live: it has
 */
type State = "idle" | "waiting" | "connecting" | "open" | "live";

/** A frame that has to be answered. */
interface Question {
  /** Of `run` and `subscribe`; null once the subscription has been ended again. */
  run: Run | null;
  readonly after: number;
  /** Of `cancel`. */
  readonly cancel: Deferred<void> | null;
  readonly size: number;
  /** A health check has seen it wait. */
  seen: boolean;
  /** A later one was answered; answers come in the order of the questions. */
  passedOver: boolean;
  /** Of a ping after a sleep: where the socket ends in place of an answer, nothing is waited for before the next. */
  readonly urgent: boolean;
}

export class WebSocketTransport implements Transport {
  readonly name = "websocket";
  private state: State = "idle";
  private socket: WebSocket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined; // waiting: its end; open: idleness
  private stopLimit = () => {}; // connecting: of the handshake; open: of the answers, until they are checked
  private readonly runs = new Set<Run>();
  private readonly questions = new Map<string, Question>(); // by `ref`; in the order of asking
  private lastRef = 0;
  private failures = 0; // in a row
  private hasWorked = false;
  private openedAt = 0;
  private retryAt = 0;
  private hangs = 0; // handshakes in a row to which nothing was said
  private patience = 1; // times the limit of an answer
  private lifeAt = 0; // when something came or went last
  private unsent = 0; // bytes, at the last look
  private jar = ""; // the page's cookies at the handshake
  private isLeaving = false; // for a socket of another user, as soon as no start is under way

  constructor(
    private readonly url: string,
    private readonly listener: SocketListener,
  ) {}

  /**
   * Whether runs should be given to it: it works, or may be expected to.
   *
   * A socket that never worked is given up after its first failure (a WSGI server, a proxy), and one that did after a
   * few. From then on only a server that speaks counts: there are proxies that open a socket and swallow its frames.
   */
  get available(): boolean {
    return hasWebSocket() && (this.state === "live" || this.failures < (this.hasWorked ? TRIES : 1));
  }

  /** Handshakes that failed in a row, of a socket that never worked. */
  get triesInVain(): number {
    return this.hasWorked ? 0 : this.failures;
  }

  get isLive(): boolean {
    return this.state === "live";
  }

  follow(run: Run): void {
    this.runs.add(run);
    if (this.isOpen()) this.askFor(run);
    this.review();
  }

  unfollow(run: Run): void {
    if (!this.runs.delete(run)) return;
    if (this.isOpen() && this.isAlone(run)) this.unsubscribe(run);
    this.review();
  }

  cancel(run: Run): Promise<void> {
    const cancel = deferred<void>();
    if (this.isOpen() && this.isOurs(run) && run.uuid !== null)
      this.ask(cancelFrame(this.newRef(), run.uuid), { cancel });
    else cancel.reject(noAnswer());
    return cancel.promise;
  }

  /** Opens a socket where one is wanted, and lets go of one that nobody has wanted for a while. */
  review(): void {
    const wanted = this.listener.wantsSocket();
    switch (this.state) {
      case "idle":
        if (wanted) this.connectIn(this.available ? 0 : this.retryAt - now());
        return;
      case "waiting":
        if (!wanted) this.rest();
        return;
      case "open":
      case "live":
        clearTimeout(this.timer);
        if (!wanted) this.timer = setTimeout(() => this.rest(), timing.idle);
    }
  }

  /** Tries now what it waits for: there are signs that it will go well. */
  hurry(): void {
    if (this.state !== "waiting" || !this.hasWorked) return;
    clearTimeout(this.timer);
    this.connect();
  }

  /** The page may have slept, or the network has changed: a socket that says it is open has to show it. */
  wake(): void {
    if (!this.isOpen()) return this.hurry();
    this.look();
    const ref = this.ping(true);
    const asked = now();
    limit(timing.wake * this.patience, () => {
      this.look();
      if (this.questions.has(ref) && this.lifeAt <= asked) this.silent();
    });
  }

  /** Ends the subscription, and one that is under way: a run that comes back meanwhile has to ask for another. */
  private unsubscribe(run: Run): void {
    for (const question of this.questions.values()) if (question.run === run) question.run = null;
    this.ask(unsubscribeFrame(this.newRef(), String(run.uuid)), {});
  }

  /** Whether nobody else here follows that run, or starts one: by the same key it would be the same run. */
  private isAlone({ uuid, state }: Run): boolean {
    if (uuid === null || state === "finished" || state === "ending") return false; // its end has ended it
    for (const other of this.runs) if (other.uuid === null || other.uuid === uuid) return false;
    return true;
  }

  private isOpen(): boolean {
    return this.state === "open" || this.state === "live";
  }

  private connectIn(delay: number): void {
    if (delay <= 0) return this.connect();
    this.state = "waiting";
    this.timer = setTimeout(() => this.connect(), delay);
  }

  private connect(): void {
    this.state = "connecting";
    this.jar = cookies();
    let socket: WebSocket;
    try {
      socket = new WebSocket(this.url, SUBPROTOCOL);
    } catch {
      return this.dropped(); // the page's own policy forbids it
    }
    this.socket = socket;
    socket.onerror = () => {}; // `close` follows, and says all
    socket.onopen = () => this.opened();
    socket.onmessage = (event: MessageEvent<unknown>) => this.received(event.data);
    socket.onclose = (event) => this.dropped(event.code);
    this.stopLimit = limit(timing.handshake * 2 ** Math.min(this.hangs, SLOWEST_HANDSHAKE), () => {
      this.hangs += 1;
      this.dropped();
    });
  }

  private opened(): void {
    this.state = "open";
    this.openedAt = this.lifeAt = now();
    this.hangs = this.unsent = 0;
    this.watch();
    this.ping();
    for (const run of this.runs) this.askFor(run);
    this.review();
  }

  /** The socket has ended, or ends now: the handshake took too long, or an answer did (`silent`). */
  private dropped(code?: number, silent = false): void {
    const sound = this.state === "live" && !silent && now() - this.openedAt >= timing.minUptime;
    const questions = [...this.questions.values()];
    this.release();
    this.failures = sound ? 1 : this.failures + 1;
    const urgent = questions.some((question) => question.urgent);
    const delay = urgent || (sound && code === NOBODY) ? 0 : sound && code === GOING_AWAY ? soon() : this.delay();
    this.retryAt = now() + delay;
    this.connectIn(delay);
    if (code !== GOING_AWAY && code !== NOBODY) this.blame(questions, code); // else it was for a reason of its own
    this.listener.availabilityChanged();
    this.review();
  }

  private delay(): number {
    return this.available ? backoff(this.failures - 1) : jittered(timing.lastDelay);
  }

  private rest(): void {
    this.release();
    this.state = "idle";
  }

  private release(): void {
    clearTimeout(this.timer);
    this.stopLimit();
    for (const { cancel } of this.questions.values()) cancel?.reject(noAnswer());
    this.questions.clear();
    this.isLeaving = false;
    const socket = this.socket;
    this.socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(1000);
    } catch {
      // the page's own doing; nobody listens to it any more
    }
  }

  /**
   * Tells of what this socket took and did not answer: it may have died over it.
   *
   * Of the starts any may be at fault. Of the subscriptions only that whose answer was next: it is the answer which a
   * socket dies over, and they are given in order.
   */
  private blame(questions: Question[], code: number | undefined): void {
    const starts = questions.filter(isStart).sort((a, b) => b.size - a.size);
    for (const [index, { run }] of starts.entries()) {
      const tooLarge = TOO_LARGE.includes(code) && index === 0; // if any was over the limit, the largest was
      if (run !== null) this.fail(run, tooLarge ? tooLargeInputs() : noAnswer());
    }
    const [next] = questions;
    if (next?.run && !isStart(next)) this.fail(next.run, noAnswer());
  }

  private watch(): void {
    this.stopLimit();
    this.stopLimit = limit(timing.answer, () => this.checkHealth());
  }

  /**
   * Every frame has its answer: where one that an earlier check saw still waits, the socket is dead, unless something
   * comes or goes over it; and so it is for a frame that was passed over.
   */
  private checkHealth(): void {
    this.look();
    if (this.questions.size === 0) this.patience = Math.max(1, this.patience / 2);
    const isSilent = now() - this.lifeAt >= timing.answer * this.patience;
    for (const question of this.questions.values()) {
      if (question.seen && question.passedOver) return this.dropped(undefined, true);
      if (question.seen && isSilent) return this.silent();
      question.seen = true;
    }
    this.watch();
    this.ping();
  }

  /** Notes it where bytes have left since the last look; what the system takes at once is not seen, and proves nothing. */
  private look(): void {
    const unsent = this.socket?.bufferedAmount ?? 0;
    if (unsent < this.unsent) this.lifeAt = now();
    this.unsent = unsent;
  }

  /** It is dead, or a frame takes longer than it was given: the next one is given more. */
  private silent(): void {
    this.patience = Math.min(MOST_PATIENT, this.patience * 2);
    this.dropped(undefined, true);
  }

  /**
   * Whether the socket was opened by who the page's user is now, as far as a page can see: Django gives a new CSRF
   * cookie with each login. Where it was not, another one is opened.
   */
  private isOurs({ options: { csrfCookieName } }: Run): boolean {
    if (readCookie(csrfCookieName, this.jar) === readCookie(csrfCookieName)) return true;
    this.isLeaving = true;
    this.leave();
    return false;
  }

  /** Changes the socket, unless a start is under way: asked for by another user, it would be another run. */
  private leave(): void {
    if (!this.isLeaving || [...this.questions.values()].some(isStart)) return;
    this.release();
    this.connect();
  }

  private ping(urgent = false): string {
    const ref = this.newRef();
    this.ask(pingFrame(ref), { urgent });
    return ref;
  }

  /** Starts the run or subscribes to it, unless the answer to that is under way. */
  private askFor(run: Run): void {
    for (const question of this.questions.values()) if (question.run === run) return;
    if (!this.isOpen() || !this.isOurs(run)) return; // the next socket asks for it
    const ref = this.newRef();
    const { wanted, known } = run;
    if ("uuid" in wanted) this.ask(subscribeFrame(ref, wanted.uuid, known), { run, after: known });
    else this.ask(runFrame(ref, wanted.task, wanted.inputs, wanted.key), { run });
  }

  private ask(frame: ClientFrame, about: Partial<Question>): void {
    const text = JSON.stringify(frame);
    const defaults = { run: null, after: 0, cancel: null, seen: false, passedOver: false, urgent: false };
    const question = { ...defaults, size: text.length, ...about };
    if (question.run !== null && isTooLarge(text)) return this.fail(question.run, tooLargeInputs());
    this.questions.set(frame.ref, question);
    try {
      this.socket?.send(text);
    } catch {
      this.dropped(); // the page's own doing
    }
  }

  private newRef(): string {
    this.lastRef += 1;
    return String(this.lastRef);
  }

  private received(data: unknown): void {
    const frame = parseServerFrame(data);
    this.lifeAt = now();
    if (frame === null) return;
    if (this.state === "open") this.proven();
    switch (frame.type) {
      case "accepted":
      case "snapshot":
        return this.answered(frame);
      case "cancelling":
        return this.take(frame.ref)?.cancel?.resolve();
      case "error":
        return this.refused(frame);
      case "pong":
        return this.ponged(frame.ref);
      case "unsubscribed":
        this.take(frame.ref);
        return;
      default:
        return this.passOn(frame);
    }
  }

  private proven(): void {
    this.state = "live";
    this.hasWorked = true;
    this.listener.availabilityChanged();
  }

  private answered(frame: StateFrame): void {
    const question = this.take(frame.ref);
    if (!question?.run) return;
    for (const run of [...this.runs]) {
      // A snapshot takes the place of earlier events, for everybody here who follows the same run.
      if (run !== question.run && run.uuid !== frame.task.uuid) continue;
      if (run.known >= question.after) this.listener.answered(this, run, frame.task, question.after);
      else this.askFor(run);
    }
  }

  private ponged(ref: string | undefined): void {
    if (!this.take(ref)) return;
    for (const [other, question] of this.questions) if (Number(other) < Number(ref)) question.passedOver = true;
  }

  private refused(frame: ErrorFrame): void {
    const error = new RequestError(statusOf(frame), detailOf(frame.detail), codeOf(frame));
    const question = this.take(frame.ref);
    if (question?.cancel) return question.cancel.reject(error);
    if (question?.run) return this.fail(question.run, error);
    for (const other of [...this.runs])
      if (frame.uuid !== undefined && other.uuid === frame.uuid) this.fail(other, error);
    if (frame.uuid === undefined) console.warn(`TaskAPI: ${frame.code}: ${error.message}`);
  }

  private fail(run: Run, error: RequestError): void {
    if (this.runs.has(run)) this.listener.failed(this, run, error);
  }

  private passOn(event: SentEvent): void {
    for (const run of [...this.runs]) if (run.uuid === event.uuid) this.listener.happened(this, run, event);
  }

  private take(ref: string | undefined): Question | undefined {
    const question = ref === undefined ? undefined : this.questions.get(ref);
    if (ref !== undefined && this.questions.delete(ref)) this.leave();
    return question;
  }
}

/** Whether it asks for a run to be started. */
const isStart = ({ run }: Question): boolean => run !== null && run.uuid === null;

const tooLargeInputs = (): RequestError => new RequestError(413, "The inputs are too large.");

/** Whether no server takes the frame, unless it was told to; counted in bytes, which are three a character at most. */
const isTooLarge = (text: string): boolean =>
  text.length > FRAME_BYTES || (text.length * 3 > FRAME_BYTES && new Blob([text]).size > FRAME_BYTES);

/** Milliseconds on a clock that nobody sets. */
const now = (): number => performance.now();

/** A WebSocket that is opened when it is wanted, and opened again after it has ended. */

import { backoff, jittered, soon } from "./backoff.js";
import { noAnswer, type RequestError } from "./errors.js";
import { type CheckedSocket, Health } from "./health.js";
import { cookies, hasWebSocket } from "./platform.js";
import {
  type ClientFrame,
  type PongFrame,
  parseServerFrame,
  pingFrame,
  type ServerFrame,
  SUBPROTOCOL,
} from "./protocol.js";
import { isStart, isTooLarge, type Question, suspects, tooLargeInputs } from "./questions.js";
import type { Run } from "./run.js";
import { limit, now, timing } from "./timing.js";

const TRIES = 4; // failures in a row before a socket that has worked counts as unavailable: some 2 to 4 s
const MAX_DOUBLINGS = 3; // of the limit of a handshake: 32 s

// Close codes of the server
const GOING_AWAY = 1001;
const OTHER_USER = 4401; // the user that opened the socket has logged out, or another one has logged in

const UNSET = { run: null, after: 0, cancel: null, isUrgent: false, isSeen: false, isPassedOver: false };

/**
 * - idle: there is no socket, and none is wanted
 * - waiting: there is no socket until the timer ends
 * - connecting: the handshake is under way
 * - open: the handshake has succeeded, but no frame has come
 * - live: a frame has come
 */
type State = "idle" | "waiting" | "connecting" | "open" | "live";

/** What a socket asks and tells its owner. */
export interface SocketOwner {
  /** Whether a run would use the socket. */
  wantsSocket(): boolean;

  /** The socket has opened; nothing is asked yet. */
  opened(): void;

  /** A frame came. */
  received(frame: Exclude<ServerFrame, PongFrame>): void;

  /** The frame that asks for this run is too large, or the socket may have ended over it. */
  failed(run: Run, error: RequestError): void;

  /** Whether the socket is available or live may have changed. */
  availabilityChanged(): void;
}

export class Socket implements CheckedSocket {
  readonly questions = new Map<string, Question>(); // by `ref`, in the order of asking
  private lastRef = 0;
  /** The page's cookies at the handshake. */
  jar = "";
  private readonly health = new Health(this);
  private state: State = "idle";
  private socket: WebSocket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined; // waiting: to connect; open: to close it as unused
  private stopLimit = () => {}; // of the handshake
  private failures = 0; // in a row
  private hangs = 0; // handshakes without an answer, in a row
  private hasWorked = false;
  private openedAt = 0;
  private retryAt = 0;
  private isOutdated = false; // to be replaced as soon as no start is under way

  constructor(
    readonly url: string,
    private readonly owner: SocketOwner,
  ) {}

  /**
   * Whether runs should use it: it works, or can be expected to.
   *
   * A socket that never worked is given up after its first failure (a WSGI server, a proxy), and one that has worked
   * after a few. After that it is available again when a frame has come: some proxies open a socket and swallow frames.
   */
  get available(): boolean {
    return hasWebSocket() && (this.isLive || this.failures < (this.hasWorked ? TRIES : 1));
  }

  /** Failures in a row, if it has never worked. */
  get triesInVain(): number {
    return this.hasWorked ? 0 : this.failures;
  }

  get isLive(): boolean {
    return this.state === "live";
  }

  get isOpen(): boolean {
    return this.state === "open" || this.isLive;
  }

  get unsent(): number {
    return this.socket?.bufferedAmount ?? 0;
  }

  /** Opens a socket if one is wanted; closes it if it is not wanted for a while. */
  review(): void {
    const wanted = this.owner.wantsSocket();
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

  /** The server is there, probably: connects now, if it waits. */
  hurry(): void {
    if (this.state !== "waiting" || !this.hasWorked) return;
    clearTimeout(this.timer);
    this.connect();
  }

  /** The page may have slept, or the network has changed: connects now, or checks that the socket is alive. */
  wake(): void {
    if (this.isOpen) this.health.wake();
    else this.hurry();
  }

  /** Sends a frame that needs an answer; returns its `ref`. */
  ask(frameOf: (ref: string) => ClientFrame, about: Partial<Question>): string {
    this.lastRef += 1;
    const ref = String(this.lastRef);
    const text = JSON.stringify(frameOf(ref));
    if (about.run && isTooLarge(text)) {
      this.owner.failed(about.run, tooLargeInputs());
      return ref;
    }
    this.questions.set(ref, { ...UNSET, ...about, size: text.length });
    try {
      this.socket?.send(text);
    } catch {
      this.ended(); // the page has replaced `send`
    }
    return ref;
  }

  ping(isUrgent = false): string {
    return this.ask(pingFrame, { isUrgent });
  }

  /** The question that an answer with this `ref` belongs to. */
  take(ref: string | undefined): Question | undefined {
    const question = this.questions.get(String(ref));
    this.questions.delete(String(ref));
    this.replaceOutdated();
    return question;
  }

  /** Opens a new socket as soon as no start is under way: asked again by another user, it would be another run. */
  replace(): void {
    this.isOutdated = true;
    this.replaceOutdated();
  }

  died(): void {
    this.ended(undefined, true);
  }

  private replaceOutdated(): void {
    if (!this.isOutdated || [...this.questions.values()].some(isStart)) return;
    this.release();
    this.connect();
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
      return this.ended(); // the page's Content-Security-Policy forbids it
    }
    this.socket = socket;
    socket.onerror = () => {}; // `close` follows
    socket.onopen = () => this.opened();
    socket.onmessage = (event: MessageEvent<unknown>) => this.received(event.data);
    socket.onclose = (event) => this.ended(event.code);
    this.stopLimit = limit(timing.handshake * 2 ** Math.min(this.hangs, MAX_DOUBLINGS), () => {
      this.hangs += 1;
      this.ended();
    });
  }

  private opened(): void {
    this.stopLimit();
    this.state = "open";
    this.openedAt = now();
    this.hangs = 0;
    this.health.begin();
    this.owner.opened();
    this.review();
  }

  private received(data: unknown): void {
    const frame = parseServerFrame(data);
    this.health.heard();
    if (frame === null) return;
    if (this.state === "open") {
      this.state = "live";
      this.hasWorked = true;
      this.owner.availabilityChanged();
    }
    if (frame.type !== "pong") return this.owner.received(frame);
    if (!this.take(frame.ref)) return;
    for (const [ref, question] of this.questions) if (Number(ref) < Number(frame.ref)) question.isPassedOver = true;
  }

  /** The socket has ended, or is ended now: by the limit of the handshake, or as `dead`. */
  private ended(code?: number, dead = false): void {
    const wasSound = this.isLive && !dead && now() - this.openedAt >= timing.minUptime;
    const questions = [...this.questions.values()];
    this.release();
    this.failures = wasSound ? 1 : this.failures + 1;
    const isUrgent = questions.some((question) => question.isUrgent) || (wasSound && code === OTHER_USER);
    const delay = isUrgent ? 0 : wasSound && code === GOING_AWAY ? soon() : this.delay();
    this.retryAt = now() + delay;
    this.connectIn(delay);
    if (code !== GOING_AWAY && code !== OTHER_USER) {
      for (const [run, error] of suspects(questions, code)) if (run !== null) this.owner.failed(run, error);
    }
    this.owner.availabilityChanged();
    this.review();
  }

  private delay(): number {
    return this.available ? backoff(this.failures - 1) : jittered(timing.lastDelay);
  }

  private rest(): void {
    this.release();
    this.state = "idle";
  }

  /** Closes the socket, and forgets it. */
  private release(): void {
    clearTimeout(this.timer);
    this.stopLimit();
    this.health.stop();
    for (const { cancel } of this.questions.values()) cancel?.reject(noAnswer());
    this.questions.clear();
    this.isOutdated = false;
    const socket = this.socket;
    this.socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(1000);
    } catch {
      // the page has replaced `close`; the socket has no listeners any more
    }
  }
}

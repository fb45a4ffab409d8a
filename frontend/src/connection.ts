/** The runs of one server: which transport carries each, what a failure means for it, and when it is done. */

import { backoff, mayRetry } from "./backoff.js";
import { Cancellation } from "./cancellation.js";
import { hasEnded, RequestError, StrangeAnswer } from "./errors.js";
import type { Caller } from "./handle.js";
import { hasWebSocket, isOnline, onWake } from "./platform.js";
import { PollingTransport } from "./polling.js";
import type { Sent, SentEvent, TaskInfo } from "./protocol.js";
import { handOver, handOverCancel, mayAsk } from "./rest.js";
import type { Change, Run } from "./run.js";
import { timing } from "./timing.js";
import type { Transport } from "./transport.js";
import { type SocketListener, WebSocketTransport } from "./websocket.js";

/** A run, who waits for it, and what carries it. */
interface Passenger {
  readonly run: Run;
  readonly caller: Caller;
  carrier: Transport | null;
  /** Whether it needs REST: for what no frame can carry ("once"), or because the socket fails for good over it. */
  rest: "no" | "once" | "always";
  /** Of its requests, in a row; not while the browser knows that there is no network. */
  failures: number;
  /** When the first of them was. */
  failingSince: number;
  /** While it waits for its next try. */
  retry: ReturnType<typeof setTimeout> | undefined;
  /** Where the caller wants it cancelled. */
  cancellation: Cancellation | null;
  /** Its caller follows it no longer: it is carried while what was asked for has not arrived. */
  isLeft: boolean;
}

export class Connection implements SocketListener {
  private readonly passengers = new Map<Run, Passenger>();
  private readonly socket: WebSocketTransport;
  private readonly polling: PollingTransport;
  private readonly reached = new Set<Transport>(); // those over which the API has answered

  /** `base` is the absolute address of the REST API. */
  constructor(private readonly base: string) {
    this.socket = new WebSocketTransport(`${base.replace(/^http/, "ws")}ws/`, this);
    this.polling = new PollingTransport(base, this);
    onWake(() => this.wake());
  }

  /** Starts a run and follows it until its caller has its answer. */
  add(run: Run, caller: Caller): void {
    const passenger: Passenger = {
      run,
      caller,
      carrier: null,
      rest: "no",
      failures: 0,
      failingSince: 0,
      retry: undefined,
      cancellation: null,
      isLeft: false,
    };
    caller.follows(run, { cancel: () => this.cancel(passenger), leave: () => this.leave(passenger) });
    this.takeUp(passenger);
  }

  private takeUp(passenger: Passenger): void {
    this.passengers.set(passenger.run, passenger);
    passenger.carrier = null;
    this.place(passenger);
    this.socket.review(); // a polled run may want the socket tried again
  }

  /** Sends what was asked for and may not have arrived, save for `done`, in requests that outlive the page. */
  handOver(done: Set<Run>): void {
    for (const { run, caller, cancellation } of this.passengers.values()) {
      if (done.has(run)) continue;
      done.add(run);
      const { wanted } = run;
      if ("uuid" in wanted) {
        if (cancellation?.isOpen()) handOverCancel(this.base, wanted.uuid, run.options);
      } else if (!caller.wantsCancel) handOver(this.base, wanted, run.options);
    }
  }

  // What the transports tell

  answered(transport: Transport, run: Run, info: Sent<TaskInfo>, after: number): void {
    this.heard(transport, run, () => run.answer(info, after));
  }

  happened(transport: Transport, run: Run, event: SentEvent): void {
    this.heard(transport, run, () => run.event(event));
  }

  failed(transport: Transport, run: Run, error: Error): void {
    const passenger = this.passengers.get(run);
    if (passenger === undefined) return;
    if (!(error instanceof RequestError)) return this.refuse(passenger, error);
    const isAnswer = error.status !== 0 && !(error instanceof StrangeAnswer);
    if (isAnswer) this.reached.add(transport);
    if (passenger.failures === 0) passenger.failingSince = performance.now();
    if (error.status !== 0 || isOnline()) passenger.failures += 1;
    if (transport === this.socket && needsAnotherRoad(passenger, error)) {
      passenger.rest = run.uuid === null ? "once" : "always";
      return this.place(passenger);
    }
    if (transport === this.socket && error.status === 0 && run.uuid !== null) return; // the next socket asks for it
    if (!mayRetry(error, run.uuid !== null, passenger.failures)) return this.refuse(passenger, error);
    if (this.isHopeless(passenger, transport))
      return this.refuse(passenger, error.status === 0 ? unreachable(this.base) : error);
    this.retryLater(passenger);
  }

  wantsSocket(): boolean {
    for (const passenger of this.passengers.values()) if (mayUseSocket(passenger)) return hasWebSocket();
    return false;
  }

  availabilityChanged(): void {
    if (this.socket.isLive) this.reached.add(this.socket);
    const isHopeless = this.reached.size === 0 && this.socket.triesInVain >= TRIES_OF_A_START && isOnline();
    for (const passenger of [...this.passengers.values()]) {
      if (isHopeless && passenger.carrier === this.socket) this.refuse(passenger, unreachable(this.base));
      else this.place(passenger);
    }
  }

  /** The page may have slept: what waits is tried now, and what is under way may never be answered. */
  private wake(): void {
    for (const passenger of [...this.passengers.values()]) {
      if (passenger.carrier !== this.polling) continue;
      if (passenger.retry === undefined) this.polling.wake(passenger.run);
      else this.follow(passenger);
    }
    this.socket.wake();
  }

  private heard(transport: Transport, run: Run, merge: () => Change): void {
    const passenger = this.passengers.get(run);
    if (passenger === undefined) return;
    this.reached.add(transport);
    const isErrand = run.state === "partial" || run.state === "ending"; // and no change of what carries it
    if (transport === this.polling) {
      if (passenger.rest === "once") passenger.rest = "no";
      if (passenger.failures > 0) this.socket.hurry(); // the server is back
    }
    passenger.failures = 0;
    if (!isErrand) passenger.caller.carriedBy(transport.name);
    this.tell(passenger, merge());
    passenger.cancellation?.request();
  }

  private tell(passenger: Passenger, change: Change): void {
    const { run, caller } = passenger;
    if (run.state === "finished") this.drop(passenger);
    if (run.uuid !== null) caller.accepted(run.uuid);
    caller.changed(change);
    if (this.letGo(passenger)) return;
    switch (run.state) {
      case "finished":
        concludeCancellation(passenger);
        return caller.ended(run);
      case "behind":
        return this.follow(passenger);
      case "partial":
      case "ending":
        if (passenger.rest === "no") passenger.rest = "once";
    }
    this.place(passenger);
  }

  /** Asks for a run to be cancelled, whose uuid is known, until the server has answered. */
  private cancel(passenger: Passenger): Promise<void> {
    const { run } = passenger;
    const underWay = passenger.cancellation;
    if (underWay !== null && underWay.state !== "refused") return underWay.promise;
    const cancellation = new Cancellation(async () => {
      await passenger.carrier?.cancel(run);
      if (this.passengers.has(run)) this.tell(passenger, run.cancelRequested());
    });
    passenger.cancellation = cancellation;
    const done = () => void this.letGo(passenger);
    cancellation.promise.then(done, done);
    if (!this.passengers.has(run)) this.takeUp(passenger); // left before: carried until the answer
    cancellation.request();
    return cancellation.promise;
  }

  private leave(passenger: Passenger): void {
    passenger.isLeft = true;
    this.letGo(passenger);
  }

  /** Drops a run that its caller has left, once all that was asked for has arrived; whether it has. */
  private letGo(passenger: Passenger): boolean {
    const { run, caller, isLeft, cancellation } = passenger;
    const isCancelling = cancellation === null ? caller.wantsCancel : cancellation.isOpen();
    if (!isLeft || run.uuid === null || isCancelling) return false;
    if (this.passengers.has(run)) this.drop(passenger);
    return true;
  }

  /** Puts a run on the transport that should carry it. */
  private place(passenger: Passenger): void {
    const { run, carrier } = passenger;
    const next = mayUseSocket(passenger) && this.socketServes(run) ? this.socket : this.polling;
    if (carrier === next) return;
    const isAsking = carrier === this.polling && run.uuid === null && passenger.retry === undefined;
    if (isAsking) return; // its start is under way; it moves up after the answer
    carrier?.unfollow(run);
    passenger.carrier = next;
    this.follow(passenger);
  }

  private socketServes(run: Run): boolean {
    if (run.options.transport === "websocket" || this.socket.available) return true;
    return run.uuid !== null && !mayAsk(this.base, run.options); // it was started over the socket, and has no other road
  }

  /** Asks for it now, over the transport that carries it. */
  private follow(passenger: Passenger): void {
    const { run, carrier } = passenger;
    this.stopWaiting(passenger);
    try {
      carrier?.follow(run);
    } catch (error) {
      void Promise.resolve().then(() => this.refuse(passenger, error as Error)); // as all else: after `run` returned
    }
  }

  /** Asks again after a while, whichever transport carries the run by then. */
  private retryLater(passenger: Passenger): void {
    this.stopWaiting(passenger);
    passenger.retry = setTimeout(() => this.follow(passenger), backoff(passenger.failures - 1));
  }

  /**
   * Whether waiting is pointless: by this road the API has never once answered this page, though it was asked often
   * enough. Either it has by no road at all, or it does by the socket, at this moment.
   */
  private isHopeless({ run, rest, failures, failingSince }: Passenger, transport: Transport): boolean {
    if (this.reached.has(transport) || !isOnline()) return false;
    if (this.reached.size > 0 && !(rest !== "no" && this.socket.isLive)) return false;
    const tries = run.uuid === null ? TRIES_OF_A_START : TRIES_OF_A_RUN;
    return failures >= tries || (failures > 2 && performance.now() - failingSince > timing.unreached);
  }

  /** Ends it with an error, unless what it came to is known. */
  private refuse(passenger: Passenger, error: Error): void {
    const { run, caller, cancellation } = passenger;
    if (this.passengers.get(run) !== passenger) return;
    const change = run.conclude();
    if (change.changed) return this.tell(passenger, change);
    this.drop(passenger);
    cancellation?.refuse(error);
    caller.failed(error);
  }

  private stopWaiting(passenger: Passenger): void {
    clearTimeout(passenger.retry);
    passenger.retry = undefined;
  }

  private drop(passenger: Passenger): void {
    this.stopWaiting(passenger);
    this.passengers.delete(passenger.run);
    passenger.carrier?.unfollow(passenger.run);
    this.socket.review();
  }
}

/** What an ended run's outcome says of a request to cancel whose answer has not come. */
function concludeCancellation({ run, cancellation }: Passenger): void {
  const { cancel_requested, status } = run.current();
  if (cancel_requested || status === "cancelled") cancellation?.accept();
  else cancellation?.refuse(hasEnded());
}

const LOST_FRAMES = 2; // that a socket died over: one may be chance, and the next one is the frame's own doing

// Tries without any answer of the API ever, until somebody has to look at the address.
const TRIES_OF_A_START = 6; // in some 12 to 16 seconds
const TRIES_OF_A_RUN = 10; // in some 90 to 120 seconds: who takes a run up may have to wait for a server that restarts

/**
 * Whether a failure over the socket is one for good: a frame that does not fit, or that the socket dies over, or a
 * refusal that says nothing of the run. A request may be larger, and has the last word.
 */
function needsAnotherRoad({ run, failures }: Passenger, error: RequestError): boolean {
  if (error.status === 0) return failures >= LOST_FRAMES;
  if (error.status === 413) return true;
  return run.uuid !== null && error.status < 500 && mayRetry(error, true, failures);
}

/** A token goes into a header, which a browser's WebSocket cannot set. */
function mayUseSocket({ run, rest }: Passenger): boolean {
  const { transport, token } = run.options;
  return rest === "no" && transport !== "polling" && !token;
}

/** What to look at where nothing has ever answered. */
const unreachable = (base: string): RequestError =>
  new RequestError(
    0,
    `The task API at ${base} has never answered. Is TaskAPI.options.baseURL right, and does the server run? On another origin \
it needs CORS headers that allow this page, its credentials, and the headers Content-Type, Idempotency-Key and X-CSRFToken. \
A page that came by https cannot call http, and its Content-Security-Policy may forbid the address.`,
    "unreachable",
  );

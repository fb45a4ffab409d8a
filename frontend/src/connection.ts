/** The runs of one server: which transport carries each, what a failure means for it, and when it is done. */

import { backoff, mayRetry } from "./backoff.js";
import { Cancellation } from "./cancellation.js";
import { hasEnded, RequestError } from "./errors.js";
import type { Caller } from "./handle.js";
import { hasWebSocket, onWake } from "./platform.js";
import { PollingTransport } from "./polling.js";
import type { TaskEvent, TaskInfo } from "./protocol.js";
import { handOver, handOverCancel } from "./rest.js";
import type { Change, Run } from "./run.js";
import type { Transport } from "./transport.js";
import { type SocketListener, WebSocketTransport } from "./websocket.js";

/** A run, who waits for it, and what carries it. */
interface Passenger {
  readonly run: Run;
  readonly caller: Caller;
  carrier: Transport | null;
  /** For now it needs REST: no frame can bring what it asks for, or none has. */
  needsRest: boolean;
  /** Of its requests, in a row. */
  failures: number;
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
      needsRest: false,
      failures: 0,
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

  answered(transport: Transport, run: Run, info: TaskInfo, after: number): void {
    this.heard(transport, run, () => run.answer(info, after));
  }

  happened(transport: Transport, run: Run, event: TaskEvent): void {
    this.heard(transport, run, () => run.event(event));
  }

  failed(transport: Transport, run: Run, error: Error): void {
    const passenger = this.passengers.get(run);
    if (passenger === undefined) return;
    const status = error instanceof RequestError ? error.status : null;
    passenger.failures += 1;
    if (transport === this.socket && run.options.transport === "auto" && isTooMuch(status, passenger)) {
      passenger.needsRest = true;
      return this.place(passenger);
    }
    if (status !== null && mayRetry(status, run.uuid !== null, passenger.failures)) {
      return this.retryLater(passenger);
    }
    const change = run.conclude();
    if (change.changed) return this.tell(passenger, change);
    this.drop(passenger);
    passenger.cancellation?.refuse(error);
    passenger.caller.failed(error);
  }

  wantsSocket(): boolean {
    for (const passenger of this.passengers.values()) if (mayUseSocket(passenger)) return hasWebSocket();
    return false;
  }

  availabilityChanged(): void {
    for (const passenger of [...this.passengers.values()]) this.place(passenger);
  }

  /** The page may have slept: what waits is tried now, and what is under way may never be answered. */
  private wake(): void {
    for (const passenger of [...this.passengers.values()]) {
      if (passenger.carrier !== this.polling) continue;
      this.stopWaiting(passenger);
      this.polling.unfollow(passenger.run);
      this.polling.follow(passenger.run);
    }
    this.socket.wake();
  }

  private heard(transport: Transport, run: Run, merge: () => Change): void {
    const passenger = this.passengers.get(run);
    if (passenger === undefined) return;
    if (transport === this.polling) {
      passenger.needsRest = false;
      if (passenger.failures > 0) this.socket.hurry(); // the server is back
    }
    passenger.failures = 0;
    passenger.caller.carriedBy(transport.name);
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
        return passenger.carrier?.follow(run);
      case "ending":
        passenger.needsRest = true;
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
    this.stopWaiting(passenger);
    carrier?.unfollow(run);
    passenger.carrier = next;
    next.follow(run);
  }

  private socketServes(run: Run): boolean {
    return run.options.transport === "websocket" || this.socket.available;
  }

  /** Asks again after a while, whichever transport carries the run by then. */
  private retryLater(passenger: Passenger): void {
    this.stopWaiting(passenger);
    passenger.retry = setTimeout(
      () => {
        passenger.retry = undefined;
        passenger.carrier?.follow(passenger.run);
      },
      backoff(passenger.failures - 1),
    );
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

const LOST_STARTS = 2; // frames that a socket died over: one may be chance, and the next one is the frame's own doing

/** Whether a failure shows that a start does not fit into a frame; a request may be larger, and has the last word. */
const isTooMuch = (status: number | null, { run, failures }: Passenger): boolean =>
  status === 413 || (status === 0 && run.uuid === null && failures >= LOST_STARTS);

/** A token goes into a header, which a browser's WebSocket cannot set. */
function mayUseSocket({ run, needsRest }: Passenger): boolean {
  const { transport, token } = run.options;
  return !needsRest && transport !== "polling" && !token;
}

/** The runs of one server: which transport carries each, what a failure means for it, and when it is done. */

import { Advice } from "./advice.js";
import { backoff, isUnanswered, mayRetry } from "./backoff.js";
import { Cancellation } from "./cancellation.js";
import { hasEnded, RequestError, StrangeAnswer, unreachable } from "./errors.js";
import type { Caller } from "./handle.js";
import { userOf } from "./options.js";
import { PendingWatch } from "./pending.js";
import { hasWebSocket, isOnline, onWake } from "./platform.js";
import { PollingTransport } from "./polling.js";
import type { Sent, SentEvent, TaskInfo } from "./protocol.js";
import { cancelCall, mayAsk, outlive, startCall } from "./rest.js";
import type { Change, Run } from "./run.js";
import type { Socket } from "./socket.js";
import { now } from "./timing.js";
import type { Transport } from "./transport.js";
import { type SocketListener, WebSocketTransport } from "./websocket.js";

/** One caller that follows one run. */
interface Follower {
  readonly run: Run;
  readonly caller: Caller;
  /** The page's user when the caller asked. */
  readonly user: string | null;
  transport: Transport | null;
  /** Whether REST has to carry it: for the next answer ("once"), or to its end, because the socket fails over it. */
  rest: "no" | "once" | "always";
  /** Over its transport, in a row; a lost answer does not count while the browser is offline. */
  failures: number;
  /** When the first of these failures was. */
  failingSince: number;
  /** Set while it waits for its next try. */
  retry: ReturnType<typeof setTimeout> | undefined;
  /** The caller's request to cancel. */
  cancellation: Cancellation | null;
}

export class Connection implements SocketListener {
  private readonly followers = new Map<Run, Follower>();
  private readonly websocket: WebSocketTransport;
  private readonly socket: Socket;
  private readonly polling: PollingTransport;
  private readonly reached = new Set<Transport>(); // over which the API has answered
  private readonly advice: Advice;
  private readonly pending = new PendingWatch(() => this.askAboutPending());

  /** `base` is the absolute address of the REST API. */
  constructor(private readonly base: string) {
    this.websocket = new WebSocketTransport(`${base.replace(/^http/, "ws")}ws/`, this);
    this.socket = this.websocket.socket;
    this.polling = new PollingTransport(base, this);
    this.advice = new Advice(this.socket.url);
    onWake(() => this.wake());
  }

  /** Starts a run and follows it until its caller has its answer. */
  add(run: Run, caller: Caller): void {
    const follower: Follower = {
      run,
      caller,
      user: userOf(run.options),
      transport: null,
      rest: "no",
      failures: 0,
      failingSince: 0,
      retry: undefined,
      cancellation: null,
    };
    caller.follows(run, { cancel: () => this.cancel(follower), leave: () => void this.dropIfDone(follower) });
    this.carry(follower);
  }

  /**
   * Sends starts and requests to cancel that have no answer yet, in requests that outlive the page.
   *
   * Leaves out the runs in `done`, and adds to it. Leaves out a start if another user has logged in since: it would be
   * another run, of that user.
   */
  handOver(done: Set<Run>): void {
    for (const { run, user, cancellation } of this.followers.values()) {
      if (done.has(run)) continue;
      done.add(run);
      const { wanted, options } = run;
      if ("uuid" in wanted) {
        if (cancellation?.isOpen()) void outlive(() => cancelCall(this.base, wanted.uuid, options));
      } else if (cancellation === null && userOf(options) === user) {
        void outlive(() => startCall(this.base, wanted, options));
      }
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
    const follower = this.followers.get(run);
    if (follower === undefined) return;
    if (!(error instanceof RequestError)) return this.refuse(follower, error);
    if (error.status !== 0 && !(error instanceof StrangeAnswer)) this.reached.add(transport);
    if (follower.failures === 0) follower.failingSince = now();
    if (error.status !== 0 || isOnline()) follower.failures += 1;
    if (transport === this.websocket && needsRest(follower, error)) {
      follower.rest = run.uuid === null ? "once" : "always";
      return this.place(follower);
    }
    if (transport === this.websocket && error.status === 0 && run.uuid !== null) return; // the next socket asks for it
    if (!mayRetry(error, run.uuid !== null, follower.failures)) return this.refuse(follower, error);
    if (this.isHopeless(follower, transport))
      return this.refuse(follower, error.status === 0 ? unreachable(this.base) : error);
    this.retryLater(follower);
  }

  wantsSocket(): boolean {
    for (const follower of this.followers.values()) if (mayUseSocket(follower)) return hasWebSocket();
    return false;
  }

  availabilityChanged(): void {
    if (this.socket.isLive) this.reached.add(this.websocket);
    const isHopeless = this.reached.size === 0 && isUnanswered(false, this.socket.triesInVain) && isOnline();
    for (const follower of [...this.followers.values()]) {
      if (isHopeless && follower.transport === this.websocket) this.refuse(follower, unreachable(this.base));
      else this.place(follower);
    }
  }

  /** The page may have slept: tries now what waits, and checks whether what is under way is still alive. */
  private wake(): void {
    for (const follower of [...this.followers.values()]) {
      if (follower.transport !== this.polling) continue;
      if (follower.retry === undefined) this.polling.wake(follower.run);
      else this.follow(follower);
    }
    this.socket.wake();
  }

  private heard(transport: Transport, run: Run, merge: () => Change): void {
    const follower = this.followers.get(run);
    if (follower === undefined) return;
    this.reached.add(transport);
    const isFetched = run.state === "partial" || run.state === "ending"; // by one request: the transport stays the same
    if (transport === this.polling) {
      if (follower.rest === "once") follower.rest = "no";
      if (follower.failures > 0) this.socket.hurry(); // the server is back
    }
    follower.failures = 0;
    if (!isFetched) follower.caller.carriedBy(transport.name);
    if (transport === this.polling && this.socket.triesInVain > 0 && mayUseSocket(follower)) this.advice.noSocket();
    this.tell(follower, merge());
    follower.cancellation?.request();
    if (!run.isPending) return;
    if (run.hint !== undefined) this.advice.hint(run.hint);
    if (transport === this.websocket) this.pending.begin();
  }

  /** Asks the server about the run that has been pending the longest over the socket; returns whether there is one. */
  private askAboutPending(): boolean {
    for (const follower of this.followers.values()) {
      if (!follower.run.isPending || follower.transport !== this.websocket) continue;
      this.follow(follower);
      return true;
    }
    return false;
  }

  private tell(follower: Follower, change: Change): void {
    const { run, caller } = follower;
    if (run.state === "finished") this.drop(follower);
    if (run.uuid !== null) caller.accepted(run.uuid);
    caller.changed(change);
    if (this.dropIfDone(follower)) return;
    switch (run.state) {
      case "finished":
        concludeCancellation(follower);
        return caller.ended(run);
      case "behind":
        return this.follow(follower);
      case "partial":
      case "ending":
        if (follower.rest === "no") follower.rest = "once";
    }
    this.place(follower);
  }

  /** Asks the server to cancel the run, once the server knows it, until the server has answered. */
  private cancel(follower: Follower): Promise<void> {
    const { run } = follower;
    const underWay = follower.cancellation;
    if (underWay !== null && underWay.state !== "refused") return underWay.promise;
    const cancellation = new Cancellation(async () => {
      await follower.transport?.cancel(run);
      if (this.followers.has(run)) this.tell(follower, run.cancelRequested());
    });
    follower.cancellation = cancellation;
    const done = () => void this.dropIfDone(follower);
    cancellation.promise.then(done, done);
    if (run.state === "finished") concludeCancellation(follower);
    else if (!this.followers.has(run)) this.carry(follower); // the caller has left it; it is carried until the answer
    if (run.state !== "starting") cancellation.request();
    return cancellation.promise;
  }

  /** Drops a run that its caller has left, if everything that it asked for has arrived; returns whether it has. */
  private dropIfDone(follower: Follower): boolean {
    const { run, caller, cancellation } = follower;
    if (!caller.hasLeft || run.uuid === null || cancellation?.isOpen()) return false;
    if (this.followers.has(run)) this.drop(follower);
    return true;
  }

  private carry(follower: Follower): void {
    this.followers.set(follower.run, follower);
    follower.transport = null;
    this.place(follower);
    this.socket.review(); // a polled run may want the socket to be tried again
  }

  /** Moves a run to the transport that should carry it. */
  private place(follower: Follower): void {
    const { run, transport } = follower;
    const next = mayUseSocket(follower) && this.socketServes(run) ? this.websocket : this.polling;
    if (transport === next) return;
    const isStarting = transport === this.polling && run.uuid === null && follower.retry === undefined;
    if (isStarting) return; // a request is under way; it moves after the answer
    transport?.unfollow(run);
    follower.transport = next;
    follower.failures = 0;
    this.follow(follower);
  }

  private socketServes(run: Run): boolean {
    if (run.options.transport === "websocket" || this.socket.available) return true;
    return run.uuid !== null && !mayAsk(this.base, run.options); // the socket has started it, and REST may not be asked
  }

  /** Asks for the run now, over its transport. */
  private follow(follower: Follower): void {
    const { run, transport, failures } = follower;
    this.stopWaiting(follower);
    try {
      transport?.follow(run, failures);
    } catch (error) {
      void Promise.resolve().then(() => this.refuse(follower, error as Error)); // not before `run` has returned
    }
  }

  /** Asks again after a delay, over the transport that carries the run then. */
  private retryLater(follower: Follower): void {
    this.stopWaiting(follower);
    follower.retry = setTimeout(() => this.follow(follower), backoff(follower.failures - 1));
  }

  /**
   * Whether more tries are pointless: the API has never answered this page over this transport, after many tries. And
   * it has never answered over the socket either, or the socket is live but cannot carry this run.
   */
  private isHopeless({ run, rest, failures, failingSince }: Follower, transport: Transport): boolean {
    if (this.reached.has(transport) || !isOnline()) return false;
    if (this.reached.size > 0 && !(rest !== "no" && this.socket.isLive)) return false;
    return isUnanswered(run.uuid !== null, failures, now() - failingSince);
  }

  /** Ends the run with an error, unless its outcome is known. */
  private refuse(follower: Follower, error: Error): void {
    const { run, caller, cancellation } = follower;
    if (this.followers.get(run) !== follower) return;
    const change = run.conclude();
    if (change.changed) return this.tell(follower, change);
    this.drop(follower);
    cancellation?.refuse(error);
    caller.failed(error);
  }

  private stopWaiting(follower: Follower): void {
    clearTimeout(follower.retry);
    follower.retry = undefined;
  }

  private drop(follower: Follower): void {
    this.stopWaiting(follower);
    this.followers.delete(follower.run);
    follower.transport?.unfollow(follower.run);
    this.socket.review();
    if (this.followers.size === 0) this.pending.stop();
  }
}

/** Settles a request to cancel that has no answer: an ended run tells what came of it. */
function concludeCancellation({ run, cancellation }: Follower): void {
  const { cancel_requested, status } = run.current();
  if (cancel_requested || status === "cancelled") cancellation?.accept();
  else cancellation?.refuse(hasEnded());
}

const LOST_FRAMES = 2; // after which the socket has died: one may be chance, two are because of the frame

/**
 * Whether a failure over the socket is permanent: the frame is too large, the socket dies over it, or the refusal says
 * nothing about the run. REST takes larger requests, so it decides.
 */
function needsRest({ run, failures }: Follower, error: RequestError): boolean {
  if (error.status === 0) return failures >= LOST_FRAMES;
  if (error.status === 413) return true;
  return run.uuid !== null && error.status < 500 && mayRetry(error, true, failures);
}

/** A token needs a header, which a browser's WebSocket cannot send. */
function mayUseSocket({ run, rest }: Follower): boolean {
  const { transport, token } = run.options;
  return rest === "no" && transport !== "polling" && !token;
}

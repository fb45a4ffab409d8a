/** Carries runs over one WebSocket: starts, subscriptions and cancels, and what the server says about them. */

import { deferred } from "./deferred.js";
import { noAnswer, RequestError } from "./errors.js";
import { userOf } from "./options.js";
import {
  cancelFrame,
  codeOf,
  detailOf,
  type ErrorFrame,
  type PongFrame,
  runFrame,
  type SentEvent,
  type ServerFrame,
  type StateFrame,
  statusOf,
  subscribeFrame,
  unsubscribeFrame,
} from "./protocol.js";
import type { Run } from "./run.js";
import { Socket, type SocketOwner } from "./socket.js";
import type { Listener, Transport } from "./transport.js";

export interface SocketListener extends Listener, Pick<SocketOwner, "wantsSocket" | "availabilityChanged"> {}

export class WebSocketTransport implements Transport, SocketOwner {
  readonly name = "websocket";
  readonly socket: Socket;
  private readonly runs = new Set<Run>();

  constructor(
    url: string,
    private readonly listener: SocketListener,
  ) {
    this.socket = new Socket(url, this);
  }

  follow(run: Run): void {
    this.runs.add(run);
    this.askFor(run);
    this.socket.review();
  }

  unfollow(run: Run): void {
    if (!this.runs.delete(run)) return;
    if (this.socket.isOpen && this.isLast(run)) this.unsubscribe(run);
    this.socket.review();
  }

  cancel(run: Run): Promise<void> {
    const { uuid } = run;
    const cancel = deferred<void>();
    if (uuid !== null && this.mayAskFor(run)) this.socket.ask((ref) => cancelFrame(ref, uuid), { cancel });
    else cancel.reject(noAnswer());
    return cancel.promise;
  }

  wantsSocket(): boolean {
    return this.listener.wantsSocket();
  }

  availabilityChanged(): void {
    this.listener.availabilityChanged();
  }

  opened(): void {
    for (const run of this.runs) this.askFor(run);
  }

  failed(run: Run, error: RequestError): void {
    if (this.runs.has(run)) this.listener.failed(this, run, error);
  }

  received(frame: Exclude<ServerFrame, PongFrame>): void {
    switch (frame.type) {
      case "accepted":
      case "snapshot":
        return this.answered(frame);
      case "cancelling":
        return this.socket.take(frame.ref)?.cancel?.resolve();
      case "error":
        return this.refused(frame);
      case "unsubscribed":
        this.socket.take(frame.ref);
        return;
      default:
        return this.happened(frame);
    }
  }

  /** Whether a frame about this run may be sent now. If not, ask again over the next socket. */
  private mayAskFor({ options }: Run): boolean {
    if (!this.socket.isOpen) return false;
    if (userOf(options, this.socket.jar) === userOf(options)) return true;
    this.socket.replace(); // another user has logged in
    return false;
  }

  /** Starts the run or subscribes to it, unless that is under way. */
  private askFor(run: Run): void {
    for (const question of this.socket.questions.values()) if (question.run === run) return;
    if (!this.mayAskFor(run)) return;
    const { wanted, known } = run;
    if ("uuid" in wanted) {
      this.socket.ask((ref) => subscribeFrame(ref, wanted.uuid, known), { run, after: known });
    } else {
      this.socket.ask((ref) => runFrame(ref, wanted.task, wanted.inputs, wanted.key), { run });
    }
  }

  /** Ends the subscription, even before its snapshot: if the run is followed again, it needs a new one. */
  private unsubscribe(run: Run): void {
    for (const question of this.socket.questions.values()) if (question.run === run) question.run = null;
    this.socket.ask((ref) => unsubscribeFrame(ref, String(run.uuid)), {});
  }

  /** Whether no other caller here follows that run. A start without an answer may be the same run. */
  private isLast({ uuid, state }: Run): boolean {
    if (uuid === null || state === "finished" || state === "ending") return false; // there is no subscription
    for (const other of this.runs) if (other.uuid === null || other.uuid === uuid) return false;
    return true;
  }

  private answered(frame: StateFrame): void {
    const question = this.socket.take(frame.ref);
    if (!question?.run) return;
    for (const run of [...this.runs]) {
      // A snapshot replaces earlier events, so it is for every caller that follows the run.
      if (run !== question.run && run.uuid !== frame.task.uuid) continue;
      if (run.known >= question.after) this.listener.answered(this, run, frame.task, question.after);
      else this.askFor(run);
    }
  }

  private refused(frame: ErrorFrame): void {
    const error = new RequestError(statusOf(frame), detailOf(frame.detail), codeOf(frame));
    const question = this.socket.take(frame.ref);
    if (question?.cancel) return question.cancel.reject(error);
    if (question?.run) return this.failed(question.run, error);
    for (const run of [...this.runs]) if (frame.uuid !== undefined && run.uuid === frame.uuid) this.failed(run, error);
    if (frame.uuid === undefined) console.warn(`TaskAPI: the server refused a frame (${frame.code}): ${error.message}`);
  }

  private happened(event: SentEvent): void {
    for (const run of [...this.runs]) if (run.uuid === event.uuid) this.listener.happened(this, run, event);
  }
}

/** Whether an open socket is still alive, judged by what comes and goes over it. */

import type { Question } from "./questions.js";
import { limit, now, timing } from "./timing.js";

/** The socket, as a health check sees and uses it. */
export interface CheckedSocket {
  readonly questions: ReadonlyMap<string, Question>;
  /** Bytes that the socket has not sent yet. */
  readonly unsent: number;
  /** Sends a ping; returns its `ref`. */
  ping(isUrgent?: boolean): string;
  /** Ends the socket, because it is dead. */
  died(): void;
}

const MAX_PATIENCE = 16; // some 3 minutes for an answer, in which 30 KB/s bring 5 MB

export class Health {
  private patience = 1; // multiplies the limits
  private aliveAt = 0; // when something last came or left
  private unsent = 0; // bytes, at the last look
  private stopLimit = () => {}; // of the time until the next check

  constructor(private readonly socket: CheckedSocket) {}

  /** The socket has opened. */
  begin(): void {
    this.aliveAt = now();
    this.unsent = 0;
    this.watch();
  }

  /** Something came. */
  heard(): void {
    this.aliveAt = now();
  }

  /** The socket has ended. */
  stop(): void {
    this.stopLimit();
  }

  /** The page may have slept: the socket has to answer a ping, within a shorter time. */
  wake(): void {
    this.look();
    const ref = this.socket.ping(true);
    const asked = now();
    limit(timing.wake * this.patience, () => {
      this.look();
      if (this.socket.questions.has(ref) && this.aliveAt <= asked) this.silent();
    });
  }

  private watch(): void {
    this.stopLimit = limit(timing.answer, () => this.check());
    this.socket.ping();
  }

  /**
   * The socket is dead if a question that an earlier check has seen still waits, unless something comes or goes; or if
   * that question was passed over.
   */
  private check(): void {
    this.look();
    const { questions } = this.socket;
    if (questions.size === 0) this.patience = Math.max(1, this.patience / 2);
    const isSilent = now() - this.aliveAt >= timing.answer * this.patience;
    for (const question of questions.values()) {
      if (question.isSeen && question.isPassedOver) return this.socket.died();
      if (question.isSeen && isSilent) return this.silent();
      question.isSeen = true;
    }
    this.watch();
  }

  /** Notes whether bytes have left since the last look. It cannot see bytes that the system took at once. */
  private look(): void {
    const { unsent } = this.socket;
    if (unsent < this.unsent) this.aliveAt = now();
    this.unsent = unsent;
  }

  /** Either the socket is dead, or a large frame takes longer than its limit: the next socket has more time. */
  private silent(): void {
    this.patience = Math.min(MAX_PATIENCE, this.patience * 2);
    this.socket.died();
  }
}

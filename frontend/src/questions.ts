/** The frames of a socket that wait for their answers, and which of them a socket may have ended over. */

import type { Deferred } from "./deferred.js";
import { noAnswer, RequestError } from "./errors.js";
import { FRAME_BYTES } from "./protocol.js";
import type { Run } from "./run.js";

/** A frame that waits for its answer. The server answers frames in their order. */
export interface Question {
  /** Of `run` and `subscribe`; null after an `unsubscribe`. */
  run: Run | null;
  /** Of `subscribe`: how many messages were known. */
  readonly after: number;
  /** Of `cancel`. */
  readonly cancel: Deferred<void> | null;
  /** Of a ping after a sleep: if the socket ends before the answer, the next one is opened at once. */
  readonly isUrgent: boolean;
  /** Characters of the frame. */
  readonly size: number;
  /** A health check has seen it wait. */
  isSeen: boolean;
  /** A later question has been answered. */
  isPassedOver: boolean;
}

/** Whether it asks for a run to be started. */
export const isStart = ({ run }: Question): boolean => run !== null && run.uuid === null;

const TOO_LARGE: readonly unknown[] = [4413, 1009]; // close codes: ours, and that of a server that counts bytes itself

/**
 * The runs whose frames a socket may have ended over, with the error for each.
 *
 * Any start without an answer may be the reason. A subscription is only if its answer was the next one: a socket ends
 * over an answer, and answers keep the order of the questions.
 */
export function suspects(questions: readonly Question[], code: number | undefined): [Run | null, RequestError][] {
  const starts = questions.filter(isStart).sort((a, b) => b.size - a.size);
  const [next] = questions;
  const found = next === undefined || isStart(next) ? starts : [...starts, next];
  return found.map(({ run }, index) => {
    const isTooLarge = TOO_LARGE.includes(code) && index === 0 && starts.length > 0; // the largest start
    return [run, isTooLarge ? tooLargeInputs() : noAnswer()];
  });
}

export const tooLargeInputs = (): RequestError => new RequestError(413, "The inputs are too large.");

/** Whether a frame is over the servers' default limit, in bytes: a character has three at most. */
export const isTooLarge = (text: string): boolean =>
  text.length > FRAME_BYTES || (text.length * 3 > FRAME_BYTES && new Blob([text]).size > FRAME_BYTES);

/** The state of a run: merged from answers and events; it never goes back, and nothing counts twice. */

import { expect, test } from "vitest";
import { defaults } from "../src/options.js";
import type { TaskEvent, TaskInfo } from "../src/protocol.js";
import { Run } from "../src/run.js";
import { infoOf, UUID } from "./support/info.js";

/** An answer, of a moment at which events have happened. */
const info = (fields: Partial<TaskInfo> = {}) => infoOf({ seq: 100, ...fields });

const of = (seq: number, attempt = 1) => ({ uuid: UUID, attempt, seq });
const message = (index: number, seq = 200 + index): TaskEvent => ({
  ...of(seq),
  type: "message",
  index,
  message: `m${index}`,
});
const progress = (seq: number, progress: number, attempt = 1): TaskEvent => ({
  ...of(seq, attempt),
  type: "progress",
  progress,
  target: 10,
});
const finished = (seq: number, fields: Partial<TaskInfo>): TaskEvent => {
  const { messages, ...task } = info({ seq, status: "succeeded", ...fields });
  return { ...of(seq), type: "finished", status: task.status, task };
};

function following(fields: Partial<TaskInfo> = {}): Run {
  const run = new Run({ task: "sum", inputs: {}, key: "k" }, defaults());
  run.answer(info(fields), 0);
  return run;
}

test("a first answer gives everything that it has as events", () => {
  const run = new Run({ task: "sum", inputs: {}, key: "k" }, defaults());
  expect(run.uuid).toBeNull();
  const { changed, events } = run.answer(info({ progress: 1, target: 2, messages: ["a"] }), 0);
  expect(changed).toBe(true);
  expect(events).toEqual([
    { ...of(100), type: "status", status: "running" },
    { ...of(100), type: "target", target: 2 },
    { ...of(100), type: "progress", progress: 1, target: 2 },
    { ...of(100), type: "message", index: 0, message: "a" },
  ]);
  expect(run.uuid).toBe(UUID);
  expect(run.state).toBe("following");
});

test("a first answer that is final gives everything before the end", () => {
  const run = new Run({ task: "sum", inputs: {}, key: "k" }, defaults());
  const { events } = run.answer(info({ status: "failed", progress: 1, messages: ["a"] }), 0);
  expect(events.map(({ type }) => type)).toEqual(["message", "progress", "status"]);
});

test("the same answer again changes nothing", () => {
  const run = following({ messages: ["a"] });
  expect(run.answer(info({ messages: ["a"] }), 0)).toEqual({ changed: false, events: [] });
});

test("a request to cancel is a change without an event", () => {
  expect(following().answer(info({ seq: 101, cancel_requested: true }), 0)).toEqual({ changed: true, events: [] });
});

test("events before the first answer are ignored: the answer has what they say", () => {
  const run = new Run({ task: "sum", inputs: {}, key: "k" }, defaults());
  expect(run.event(progress(1, 1)).changed).toBe(false);
});

test("an event not above the last seq changes nothing", () => {
  const run = following({ seq: 100 });
  expect(run.event(progress(100, 5)).changed).toBe(false);
  expect(run.event(progress(99, 5)).changed).toBe(false);
  expect(run.event(progress(101, 5)).changed).toBe(true);
  expect(run.current()).toMatchObject({ progress: 5, target: 10, seq: 101 });
});

test("an old snapshot takes nothing back, but its messages count", () => {
  const run = following();
  run.event(progress(150, 5));
  const { events } = run.answer(info({ seq: 120, progress: 2, messages: ["m0"] }), 0);
  expect(events).toEqual([{ ...of(120), type: "message", index: 0, message: "m0" }]);
  expect(run.current()).toMatchObject({ progress: 5, seq: 150, message_count: 1 });
});

test("progress never goes backwards within an attempt, though a newer snapshot says less", () => {
  const run = following();
  run.event(progress(150, 5));
  expect(run.answer(info({ seq: 160, progress: 3, target: 10 }), 0).changed).toBe(false);
  expect(run.event(progress(170, 4)).changed).toBe(false);
  expect(run.current().progress).toBe(5);
});

test("a new attempt starts from nothing", () => {
  const run = following({ progress: 5, target: 10 });
  const { events } = run.event({ ...of(2000, 2), type: "status", status: "running" });
  expect(events).toEqual([
    { ...of(2000, 2), type: "status", status: "running" },
    { ...of(2000, 2), type: "target", target: null },
    { ...of(2000, 2), type: "progress", progress: null, target: null },
  ]);
  expect(run.current()).toMatchObject({ attempt: 2, progress: null, target: null });
  run.event(progress(2001, 1, 2));
  expect(run.current().progress).toBe(1);
  expect(run.event(progress(999, 9, 1)).changed).toBe(false); // of the earlier attempt
});

test("messages are taken by their index, once and in order", () => {
  const run = following({ seq: 500 });
  expect(run.event(message(0, 1)).changed).toBe(true); // its seq is lower than that of the snapshot, which lacks it
  expect(run.event(message(0, 900)).changed).toBe(false);
  expect(run.event(message(1, 901)).changed).toBe(true);
  expect(run.current()).toMatchObject({ messages: ["m0", "m1"], message_count: 2, seq: 901 });
});

test("after a gap a run is behind until an answer fills it", () => {
  const run = following();
  expect(run.event(message(2)).changed).toBe(false);
  expect(run.state).toBe("behind");
  run.answer(info({ seq: 300, messages: ["m0", "m1", "m2"] }), 0);
  expect(run.state).toBe("following");
  expect(run.current().messages).toEqual(["m0", "m1", "m2"]);
});

test("the messages of an answer may overlap with those that are known", () => {
  const run = following({ messages: ["m0"] });
  run.event(message(1));
  const { events } = run.answer(info({ seq: 300, messages: ["m1", "m2"], message_count: 3 }), 1);
  expect(events.map((event) => event.type === "message" && event.index)).toEqual([2]);
  expect(run.current().messages).toEqual(["m0", "m1", "m2"]);
});

test("`finished` ends a run with every message that was known", () => {
  const run = following({ messages: ["m0"] });
  const { events } = run.event(finished(400, { outputs: { sum: 1 }, message_count: 1, progress: 10 }));
  expect(events.map(({ type }) => type)).toEqual(["progress", "status"]);
  expect(run.state).toBe("finished");
  expect(run.current()).toMatchObject({ status: "succeeded", outputs: { sum: 1 }, messages: ["m0"] });
});

test("the end is not told while messages are missing", () => {
  const run = following();
  expect(run.event(finished(400, { message_count: 2 })).changed).toBe(false);
  expect(run.state).toBe("ending");
  expect(run.current().status).toBe("running");
  expect(run.event(message(0)).changed).toBe(true);
  expect(run.state).toBe("ending");
  const { events } = run.event(message(1));
  expect(events.map(({ type }) => type)).toEqual(["message", "status"]);
  expect(run.state).toBe("finished");
});

test("an old answer does not end the wait for a finished run's messages", () => {
  const run = following();
  run.event(finished(400, { message_count: 1 }));
  run.answer(info({ seq: 300 }), 0);
  expect(run.state).toBe("ending");
  run.answer(info({ seq: 400, status: "succeeded", messages: ["m0"] }), 0);
  expect(run.state).toBe("finished");
});

test("a final answer without all messages is asked for once more", () => {
  const run = following();
  const end = info({ seq: 400, status: "succeeded", message_count: 2, outputs: { sum: 1 } });
  expect(run.answer({ ...end, messages: ["m0"] }, 0).events.map(({ type }) => type)).toEqual(["message"]);
  expect(run.state).toBe("ending");
  run.answer(end, 1); // there are no more
  expect(run.state).toBe("finished");
  expect(run.current()).toMatchObject({ outputs: { sum: 1 }, messages: ["m0"] });
});

test("a run whose missing messages cannot be fetched ends with its outcome", () => {
  const run = following();
  expect(run.conclude().changed).toBe(false);
  run.event(finished(400, { message_count: 1, outputs: { sum: 1 } }));
  expect(run.conclude().changed).toBe(true);
  expect(run.current()).toMatchObject({ status: "succeeded", outputs: { sum: 1 } });
});

test("a final answer counts with any seq, and nothing counts after it", () => {
  const run = following();
  run.event(progress(500, 5));
  run.answer(info({ seq: 450, status: "failed", error: { code: "timeout", message: "It took too long." } }), 0);
  expect(run.state).toBe("finished");
  expect(run.event(progress(600, 6)).changed).toBe(false);
  expect(run.event(message(0)).changed).toBe(false);
  expect(run.answer(info({ seq: 900 }), 0).changed).toBe(false);
  expect(run.event(finished(901, {})).changed).toBe(false);
  expect(run.current()).toMatchObject({ status: "failed", progress: 5 });
});

test("a status event alone does not end a run", () => {
  const run = following();
  expect(run.event({ ...of(400), type: "status", status: "succeeded" }).changed).toBe(false);
  expect(run.state).toBe("following");
});

test("unknown fields of an event stay out of the representation", () => {
  const run = following();
  run.event({ ...of(400), type: "status", status: "pending", shoe_size: 44 } as TaskEvent);
  expect(run.current()).not.toHaveProperty("shoe_size");
  expect(run.current()).not.toHaveProperty("type");
});

test("a replay gives the events of an answer with everything that is known", () => {
  expect(new Run({ uuid: UUID }, defaults()).replay()).toEqual([]);
  const run = following();
  run.event(message(0));
  run.event(progress(300, 3));
  const kinds = () => run.replay().map(({ type }) => type);
  expect(kinds()).toEqual(["status", "target", "progress", "message"]);
  run.event(finished(400, { message_count: 2, target: 10 }));
  expect(kinds()).toEqual(["status", "target", "progress", "message"]); // because a message is missing
  run.conclude();
  expect(kinds()).toEqual(["message", "target", "progress", "status"]);
  expect(run.state).toBe("finished");
});

test("a request to cancel is never withdrawn", () => {
  const run = following();
  expect(run.cancelRequested()).toEqual({ changed: true, events: [] });
  expect(run.cancelRequested().changed).toBe(false);
  run.answer(info({ seq: 300, cancel_requested: false }), 0);
  expect(run.current().cancel_requested).toBe(true);
});

test("an existing run has its uuid before the first answer", () => {
  const run = new Run({ uuid: UUID }, defaults());
  expect([run.uuid, run.state]).toEqual([UUID, "starting"]);
  expect(run.cancelRequested().changed).toBe(false);
});

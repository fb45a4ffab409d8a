/** How often `onStatus` is called, and what a run with many messages costs. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AbortError } from "../src/errors.js";
import { Caller } from "../src/handle.js";
import { Iteration } from "../src/iteration.js";
import { defaults } from "../src/options.js";
import { Pace } from "../src/pace.js";
import type { Status, TaskMessageEvent } from "../src/protocol.js";
import { Run } from "../src/run.js";
import { infoOf, UUID } from "./support/info.js";

let page: { visibilityState: string };

beforeEach(() => {
  vi.useFakeTimers(); // a frame of the screen lasts 16 ms
  page = { visibilityState: "visible" };
  vi.stubGlobal("document", page);
});

afterEach(() => {
  vi.useRealTimers();
});

const message = (index: number): TaskMessageEvent => ({
  type: "message",
  uuid: UUID,
  attempt: 1,
  seq: index + 2,
  index,
  message: index,
});

/** A caller, and what it was told, in order; for a call of `onStatus`, the number of messages. */
function calling(extra: object = {}) {
  const told: unknown[] = [];
  const caller = new Caller({
    onStatus: (task) => told.push(task.messages.length),
    onSuccess: () => told.push("success"),
    onError: (error) => told.push(error.name),
    ...extra,
  });
  const run = new Run({ uuid: UUID }, defaults());
  caller.follows(run, { cancel: () => Promise.resolve(), leave: () => {} });
  caller.changed(run.answer(infoOf(), 0));
  const say = (count: number) => {
    for (let said = 0; said < count; said += 1) caller.changed(run.event(message(run.known)));
  };
  const end = (status: Status) => {
    const { messages: _, ...task } = infoOf({ status, outputs: {}, message_count: run.known, seq: 1e9 });
    caller.changed(run.event({ type: "finished", uuid: UUID, attempt: 1, seq: 1e9, status, task }));
    caller.ended(run);
  };
  return { caller, run, told, say, end };
}

/** Lets `count` frames of the screen pass; returns how much `told` grew in each. */
function inFrames(count: number, told: unknown[], during: () => void): number[] {
  const calls: number[] = [];
  for (let frame = 0; frame < count; frame += 1) {
    const before = told.length;
    during();
    vi.advanceTimersToNextFrame();
    calls.push(told.length - before);
  }
  return calls;
}

test("`onStatus` is called at most once in a frame of the screen, with the present state", () => {
  const { told, say } = calling();
  expect(told).toEqual([0]);
  const calls = inFrames(20, told, () => say(50));
  expect(Math.max(...calls)).toBe(1);
  expect(told.length).toBeGreaterThanOrEqual(18);
  vi.advanceTimersByTime(100);
  expect(told.at(-1)).toBe(1_000);
  expect(vi.getTimerCount()).toBe(0);
});

test("a change that comes alone is told at once", () => {
  const { told, say } = calling();
  for (let known = 0; known < 5; known += 1) {
    vi.advanceTimersByTime(50);
    say(1);
    expect(told.at(-1)).toBe(known + 1);
  }
  expect(told).toHaveLength(6);
});

test.each([
  ["hidden", () => Object.assign(page, { visibilityState: "hidden" })],
  ["no page", () => vi.stubGlobal("document", undefined)],
  ["a page that has no screen", () => vi.stubGlobal("requestAnimationFrame", undefined)],
])("in %s a timer replaces the frame", (_name, prepare) => {
  prepare();
  const { told, say } = calling();
  say(100);
  vi.advanceTimersByTime(50);
  expect(told).toEqual([0, 100]);
});

test("a page that is hidden while it waits for a frame is told later", () => {
  vi.stubGlobal("requestAnimationFrame", () => 1); // the frame never comes
  vi.stubGlobal("cancelAnimationFrame", vi.fn());
  const { told, say } = calling();
  say(100);
  page.visibilityState = "hidden";
  vi.advanceTimersByTime(2_000);
  expect(told).toEqual([0, 100]);
});

test.each([
  ["succeeded", "success"],
  ["failed", "TaskFailed"],
  ["cancelled", "TaskCancelled"],
] as const)("the last state is told before the outcome: %s", async (status, outcome) => {
  const { caller, told, say, end } = calling();
  say(3);
  end(status);
  expect(told).toEqual([0, 3, outcome]);
  vi.advanceTimersByTime(1_000);
  expect(told).toHaveLength(3);
  expect(vi.getTimerCount()).toBe(0);
  await caller.handle.catch(() => {});
});

test("changes before a refusal are told before it", async () => {
  const { caller, told, say } = calling();
  say(3);
  caller.failed(new Error("gone"));
  expect(told).toEqual([0, 3, "Error"]);
});

test("nothing is told after `detach()`, and no timer stays", () => {
  const { caller, told, say } = calling();
  say(3);
  caller.handle.detach();
  expect(vi.getTimerCount()).toBe(0);
  vi.advanceTimersByTime(1_000);
  expect(told).toEqual([0]);
});

test("after an abort in the middle of a frame, only the abort is told", async () => {
  const controller = new AbortController();
  const told: string[] = [];
  const callbacks = { onStatus: () => told.push("status"), onError: (error: Error) => told.push(error.name) };
  const caller = new Caller(callbacks, controller.signal);
  const run = new Run({ uuid: UUID }, defaults());
  caller.follows(run, { cancel: () => Promise.resolve(), leave: () => {} });
  caller.changed(run.answer(infoOf(), 0));
  caller.changed(run.event(message(0)));
  controller.abort();
  expect(told).toEqual(["status", "AbortError"]);
  await expect(caller.handle).rejects.toBeInstanceOf(AbortError);
});

test("listeners and loops are told every event, at once", async () => {
  const { caller, say, end } = calling();
  const heard: number[] = [];
  caller.handle.on("message", ({ index }) => heard.push(index));
  const looped: number[] = [];
  const loop = (async () => {
    for await (const event of caller.handle) if (event.type === "message") looped.push(event.index);
  })();
  say(1_000);
  end("succeeded");
  await loop;
  const all = Array.from({ length: 1_000 }, (_, index) => index);
  expect(heard).toEqual(all);
  expect(looped).toEqual(all);
});

test("without `onStatus` there is no timer", () => {
  const { say } = calling({ onStatus: null });
  say(3);
  expect(vi.getTimerCount()).toBe(0);
});

test("an error in `tell` does not end the calls", () => {
  const tell = vi.fn(() => {
    throw new Error("mine");
  });
  const pace = new Pace(tell);
  expect(() => pace.changed()).toThrow("mine");
  pace.changed();
  expect(() => vi.advanceTimersByTime(100)).toThrow("mine");
  expect(tell).toHaveBeenCalledTimes(2);
});

// Representations

function said(count: number) {
  const run = new Run({ uuid: UUID }, defaults());
  run.answer(infoOf(), 0);
  for (let index = 0; index < count; index += 1) run.event(message(index));
  return run;
}

test("the messages of a representation do not change, and the caller may change them", () => {
  const run = said(2);
  const early = run.current();
  const looked = run.current();
  expect(looked.messages).toEqual([0, 1]);
  run.event(message(2));
  expect(early.messages).toEqual([0, 1]); // though they are first read now
  early.messages.push("mine");
  expect(early.messages).toEqual([0, 1, "mine"]);
  expect(looked.messages).toEqual([0, 1]);
  expect(run.current().messages).toEqual([0, 1, 2]);
  early.messages = [];
  expect(early.messages).toEqual([]);
});

test("a representation is a plain object with an array, in every kind of copy", () => {
  const expected = infoOf({ messages: [0, 1], message_count: 2, seq: 3 });
  const fresh = () => said(2).current();
  expect(fresh()).toEqual(expected);
  expect({ ...fresh() }).toEqual(expected);
  expect(Object.assign({}, fresh())).toEqual(expected);
  expect(JSON.parse(JSON.stringify(fresh()))).toEqual(expected);
  expect(structuredClone(fresh())).toEqual(expected);
  expect(Object.keys(fresh()).sort()).toEqual(Object.keys(expected).sort());
  expect(Array.isArray(fresh().messages)).toBe(true);
  expect(Object.freeze(fresh()).messages).toEqual([0, 1]);
  expect(Object.getPrototypeOf(fresh())).toBe(Object.prototype);
});

/** The number of array elements that `work` copies or moves. */
async function moved(work: () => void | Promise<void>): Promise<number> {
  const { slice, shift, [Symbol.iterator]: iterator } = Array.prototype;
  let count = 0;
  const counting = (original: (...args: never[]) => unknown, all: boolean) =>
    function (this: unknown[], ...args: never[]) {
      const result = Reflect.apply(original, this, args);
      count += all ? this.length : (result as unknown[]).length;
      return result;
    };
  Object.assign(Array.prototype, {
    slice: counting(slice, false),
    shift: counting(shift, true),
    [Symbol.iterator]: counting(iterator, true),
  });
  try {
    await work();
  } finally {
    Object.assign(Array.prototype, { slice, shift, [Symbol.iterator]: iterator });
  }
  return count;
}

test("a message of a run with many messages does not copy them all", async () => {
  const run = said(10_000);
  const copied = await moved(() => {
    for (let index = 10_000; index < 10_100; index += 1) {
      run.event(message(index));
      run.current();
    }
  });
  expect(run.known).toBe(10_100);
  expect(copied).toBeLessThan(10_000);
});

test("a loop that is far behind moves each event at most once", async () => {
  const COUNT = 5_000;
  const iteration = new Iteration([], () => {});
  for (let index = 0; index < COUNT; index += 1) iteration.push(message(index));
  iteration.end();
  const taken: number[] = [];
  const copied = await moved(async () => {
    for (let next = await iteration.next(); !next.done; next = await iteration.next()) {
      if (next.value.type === "message") taken.push(next.value.index);
    }
  });
  expect(taken).toEqual(Array.from({ length: COUNT }, (_, index) => index));
  expect(copied).toBeLessThanOrEqual(COUNT);
});

test("a loop gets the events that were kept, and those that come while it waits, in order", async () => {
  const iteration = new Iteration([message(0), message(1)], () => {});
  const waiting = [iteration.next(), iteration.next(), iteration.next(), iteration.next()];
  for (const index of [2, 3, 4, 5, 6]) iteration.push(message(index));
  iteration.end();
  const rest = [iteration.next(), iteration.next(), iteration.next(), iteration.next()];
  const results = await Promise.all([...waiting, ...rest]);
  expect(results.map(({ value }) => value?.type === "message" && value.index)).toEqual([0, 1, 2, 3, 4, 5, 6, false]);
});

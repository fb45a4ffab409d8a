/** `for await (const event of handle)`, against a real server. */

import { beforeEach, expect, test, vi } from "vitest";
import type { TaskHandle } from "../src/handle.js";
import type { TaskChangeEvent } from "../src/protocol.js";
import { until } from "./support/client.js";
import { client, serveEachTest, server, settled } from "./support/setup.js";

const unhandled = vi.fn();
process.on("unhandledRejection", unhandled);

serveEachTest({ webSocket: true });

beforeEach(async () => {
  unhandled.mockClear();
});

function brief(event: TaskChangeEvent): unknown {
  switch (event.type) {
    case "status":
      return event.status;
    case "target":
      return `of ${event.target}`;
    case "progress":
      return event.progress;
    case "message":
      return event.message;
  }
}

async function all(handle: TaskHandle): Promise<unknown[]> {
  const events: unknown[] = [];
  for await (const event of handle) events.push(brief(event));
  return events;
}

/** A run from its first event to its last but one. */
function work(): void {
  const { run } = server;
  run.running();
  run.target(2);
  run.progress(1);
  run.message("half");
  run.progress(2);
}

test("a loop is told every event, in order, and ends with the run", async () => {
  const handle = client.run("sum", {});
  const loop = all(handle);
  await handle.uuid;
  work();
  server.run.finish({ outputs: { sum: 3 } });
  expect(await loop).toEqual(["pending", "running", "of 2", 1, "half", 2, "succeeded"]);
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 3 } });
});

test("events that come while a loop is busy are kept for it", async () => {
  const handle = client.run("sum", {});
  const events: unknown[] = [];
  for await (const event of handle) {
    events.push(brief(event));
    if (events.length > 1) continue;
    work();
    server.run.finish({ outputs: {} });
    await handle; // all has come before the loop goes on
  }
  expect(events).toEqual(["pending", "running", "of 2", 1, "half", 2, "succeeded"]);
});

test("a loop that begins late is first told the state of the run, with every message", async () => {
  const handle = client.run("sum", {});
  const messages = vi.fn();
  handle.on("message", messages);
  await handle.uuid;
  work();
  await until(() => expect(messages).toHaveBeenCalledOnce());
  const loop = all(handle);
  server.run.message("more");
  server.run.finish({ outputs: {} });
  const events = await loop;
  expect(events.filter((event) => event === "half" || event === "more")).toEqual(["half", "more"]);
  expect(events[0]).toBe("running");
  expect(events.at(-1)).toBe("succeeded");
  expect(await all(handle)).toEqual(["half", "more", "of 2", 2, "succeeded"]); // a loop after the end
});

test("a loop that a listener begins is told nothing twice", async () => {
  client.options.transport = "polling"; // one answer has many events
  const handle = client.run("sum", {});
  await handle.uuid;
  let loop: Promise<unknown[]> | undefined;
  handle.on("message", () => {
    loop ??= all(handle);
  });
  server.run.running();
  server.run.message("a");
  server.run.message("b");
  await until(() => expect(loop).toBeDefined());
  server.run.finish({ outputs: {} });
  expect(await loop).toEqual(["running", "a", "b", "succeeded"]);
});

test("loops are independent of one another, and of being left", async () => {
  const handle = client.run("sum", {});
  const loop = all(handle);
  await handle.uuid;
  for await (const event of handle) if (event.type === "status") break;
  work();
  server.run.finish({ outputs: {} });
  expect(await loop).toHaveLength(7);
});

test("a run that fails ends the loop, and the promise says why, even later", async () => {
  const handle = client.run("sum", {});
  const loop = all(handle);
  await handle.uuid;
  server.run.finish({ error: { code: "exception", message: "The task failed." } });
  expect((await loop).at(-1)).toBe("failed");
  await settled();
  expect(unhandled).not.toHaveBeenCalled();
  await expect(handle).rejects.toBeInstanceOf(client.TaskFailed);
});

test("a run that is refused is a loop without events", async () => {
  server.refuseFrames("run", { code: "throttled", detail: "Too soon." });
  const handle = client.run("sum", {});
  expect(await all(handle)).toEqual([]);
  await expect(handle).rejects.toMatchObject({ status: 429 });
  expect(await all(handle)).toEqual([]);
});

test("`next()` of an iterator gives events in order, and none after `return()`", async () => {
  const handle = client.run("sum", {});
  const iterator = handle[Symbol.asyncIterator]();
  const answers = Promise.all([iterator.next(), iterator.next()]);
  await handle.uuid;
  server.run.running();
  expect((await answers).map(({ value }) => value && brief(value))).toEqual(["pending", "running"]);
  const waiting = iterator.next();
  expect(await iterator.return?.()).toEqual({ done: true, value: undefined });
  expect(await waiting).toEqual({ done: true, value: undefined });
  server.run.finish({ outputs: {} });
  await handle;
  expect(await iterator.next()).toEqual({ done: true, value: undefined });
});

test("a loop goes on through a socket that drops", async () => {
  const handle = client.run("sum", {});
  const loop = all(handle);
  await handle.uuid;
  server.run.running();
  server.cut();
  server.run.message("unheard");
  await until(() => expect(server.run.followers.size).toBe(1));
  server.run.finish({ outputs: {} });
  expect((await loop).slice(-2)).toEqual(["unheard", "succeeded"]);
});

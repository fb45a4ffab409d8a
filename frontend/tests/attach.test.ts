/** Following a run that exists already, against a real server. */

import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { TaskInfo } from "../src/protocol.js";
import { until } from "./support/client.js";
import type { ServerRun } from "./support/server.js";
import { client, serveEachTest, server, TRANSPORTS } from "./support/setup.js";

serveEachTest({ webSocket: true });

/** A run that another page has started. It is running. */
function underWay(): ServerRun {
  const run = server.start("count", {}, undefined);
  run.running();
  run.target(10);
  run.message("a");
  run.progress(4);
  return run;
}

const brief = ({ status, target, progress, messages }: TaskInfo) => [status, target, progress, messages];

test.each(TRANSPORTS)("over %s a run is followed from its present state to its end", async (transport) => {
  client.options.transport = transport;
  const run = underWay();
  const seen: TaskInfo[] = [];
  const ended: TaskInfo[] = [];
  const handle = client.attach<{ sum: number }>(
    run.info.uuid,
    (task) => seen.push(task),
    (task) => ended.push(task),
  );
  const messages: unknown[] = [];
  handle.on("message", ({ index, message }) => messages.push([index, message]));
  expect(await handle.uuid).toBe(run.info.uuid);
  run.message("b");
  run.finish({ outputs: { sum: 3 } });
  const task = await handle;
  expect(task.outputs.sum.toFixed()).toBe("3");
  expect(brief(seen[0] as TaskInfo)).toEqual(["running", 10, 4, ["a"]]);
  expect(brief(task)).toEqual(["succeeded", 10, 4, ["a", "b"]]);
  expect(ended).toEqual([task]);
  expect(messages).toEqual([
    [0, "a"],
    [1, "b"],
  ]);
  expect(server.runs).toHaveLength(1);
});

test.each(TRANSPORTS)("over %s a run that has ended gives its outcome", async (transport) => {
  client.options.transport = transport;
  const run = underWay();
  run.finish({ error: { code: "exception", message: "The task failed." } });
  const handle = client.attach(run.info.uuid);
  await expect(handle).rejects.toMatchObject({ name: "TaskFailed", status: "failed", messages: ["a"] });
  expect(await handle.uuid).toBe(run.info.uuid);
});

test.each(TRANSPORTS)("over %s a run that the user may not see is a RequestError 404", async (transport) => {
  client.options.transport = transport;
  const errors: Error[] = [];
  const handle = client.attach(randomUUID(), null, null, (error) => errors.push(error));
  const error = await handle.catch((error: Error) => error);
  expect(error).toMatchObject({ name: "RequestError", status: 404, detail: "Not found." });
  expect(errors).toEqual([error]);
  await expect(handle.uuid).rejects.toBe(error);
  await expect(handle.cancel()).rejects.toBe(error);
});

test.each([null, undefined, "", "../admin", 7])("%j is no uuid, and the server is not asked", async (uuid) => {
  const handle = client.attach(uuid as string);
  await expect(handle).rejects.toMatchObject({ name: "RequestError", status: 404 });
  expect([server.calls, server.handshakes]).toEqual([[], 0]);
});

test.each(TRANSPORTS)("over %s it can be cancelled, even before the first answer", async (transport) => {
  client.options.transport = transport;
  server.onCancel = (run) => run.finish({ status: "cancelled" });
  const handle = client.attach(underWay().info.uuid);
  const outcome = expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await handle.cancel();
  await outcome;
});

test("a run goes on after its socket has dropped", async () => {
  const run = underWay();
  const handle = client.attach(run.info.uuid);
  await handle.uuid;
  server.cut();
  run.message("b");
  await until(() => expect(run.followers.size).toBe(1));
  run.finish({ outputs: {} });
  await expect(handle).resolves.toMatchObject({ messages: ["a", "b"] });
});

test("two handles of one run both hear everything", async () => {
  const first = client.run("count", {});
  await first.uuid;
  const { run } = server;
  run.running();
  run.message("a", false); // so that the second knows more than the first
  const second = client.attach(run.info.uuid.toUpperCase());
  const messages: unknown[] = [];
  first.on("message", ({ message }) => messages.push(message));
  await second.uuid;
  await until(() => expect(messages).toEqual(["a"])); // the snapshot for the second is for the first, too
  run.message("b");
  run.finish({ outputs: {} });
  for (const handle of [first, second]) await expect(handle).resolves.toMatchObject({ messages: ["a", "b"] });
  expect(server.handshakes).toBe(1);
  expect(server.calls).toEqual([]);
});

test("a snapshot for one handle leaves no gap in another that knows less", async () => {
  const run = underWay();
  const first = client.attach(run.info.uuid);
  await first.uuid;
  // the snapshot for the second handle is held back until the first has missed a message and asked for it
  let held = () => {};
  server.onFrame = (frame, socket) => {
    if (frame.type !== "subscribe") return false;
    server.onFrame = () => false;
    held = () => server.serve(frame, socket);
    return true;
  };
  const second = client.attach(run.info.uuid);
  await until(() => expect(server.framesOf("subscribe")).toHaveLength(2));
  run.message("b", false);
  run.message("c");
  await until(() => expect(server.framesOf("subscribe").at(-1)?.after).toBe(1));
  held();
  run.finish({ outputs: {} });
  for (const handle of [first, second]) await expect(handle).resolves.toMatchObject({ messages: ["a", "b", "c"] });
});

test("`attach` works without the object, and reads the options when it is called", async () => {
  const run = underWay();
  const { attach } = client;
  const handle = attach(run.info.uuid);
  client.options.baseURL = "http://127.0.0.1:1/tasks/";
  run.finish({ outputs: {} });
  await handle;
});

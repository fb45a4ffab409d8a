/** What does not fit into a frame goes by REST; and sockets that die over an answer. */

import { expect, test } from "vitest";
import { timing } from "../src/timing.js";
import { until } from "./support/client.js";
import type { Frame, ServerRun } from "./support/server.js";
import { client, heardOf, serveEachTest, server } from "./support/setup.js";

serveEachTest({ webSocket: true });

/** Ends the run with an event that has no room for these fields. */
function finishWithout(run: ServerRun, omitted: string[], outcome: object): void {
  Object.assign(run.info, { status: "succeeded", ...outcome });
  const { messages, ...task } = { ...run.info, seq: run.info.seq + 1, omitted } as Record<string, unknown>;
  for (const name of omitted) delete task[name];
  run.send("finished", { status: run.info.status, task });
}

/** Answers to `run` and `subscribe` without these fields, and with `most` messages. */
function leaveOut(omitted: string[], most = 1_000): void {
  server.onFrame = (frame, socket) => {
    if (frame.type !== "subscribe" && frame.type !== "run") return false;
    const isRun = frame.type === "run";
    const run = isRun
      ? server.start(String(frame.task), frame.inputs ?? {}, String(frame.idempotency_key))
      : server.run;
    const task = { ...run.after(Number(frame.after ?? 0)), omitted } as Record<string, unknown>;
    for (const name of omitted) delete task[name];
    task.messages = run.info.messages.slice(Number(frame.after ?? 0)).slice(0, most);
    run.followers.add(socket);
    socket.send(JSON.stringify({ type: isRun ? "accepted" : "snapshot", ref: frame.ref ?? null, task }));
    return true;
  };
}

test("outputs that `finished` leaves out are fetched before the end is told", async () => {
  const handle = client.run("sum", { text: "in" });
  const heard = heardOf(handle);
  const statuses: string[] = [];
  handle.on("status", ({ status }) => statuses.push(status));
  await handle.uuid;
  server.run.message("a");
  finishWithout(server.run, ["inputs", "outputs"], { outputs: { text: "out" } });
  await expect(handle).resolves.toMatchObject({ outputs: { text: "out" }, inputs: { text: "in" }, messages: ["a"] });
  expect(await handle).not.toHaveProperty("omitted");
  expect(server.callsOf("GET").map(({ url }) => url)).toEqual([`/tasks/${server.run.info.uuid}/?after=1`]);
  expect(statuses).toEqual(["pending", "succeeded"]);
  expect(heard.transports).toEqual(["websocket"]);
});

test("a `finished` without inputs needs no request if they are known", async () => {
  const handle = client.run("sum", { text: "in" });
  await handle.uuid;
  finishWithout(server.run, ["inputs"], { outputs: { text: "out" } });
  await expect(handle).resolves.toMatchObject({ outputs: { text: "out" }, inputs: { text: "in" } });
  expect(server.calls).toEqual([]);
});

test("a `finished` without inputs, as it always is, keeps those that are known", async () => {
  const handle = client.run("sum", { text: "in" });
  await handle.uuid;
  const { run } = server;
  Object.assign(run.info, { status: "succeeded", outputs: {} });
  const { messages, inputs, ...task } = run.info;
  run.send("finished", { status: "succeeded", task: { ...task, seq: task.seq + 1 } });
  expect((await handle).inputs).toEqual({ text: "in" });
});

test("an error that `finished` leaves out is fetched", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  finishWithout(server.run, ["error"], { status: "failed", error: { code: "task_error", message: "Long." } });
  await expect(handle).rejects.toMatchObject({ name: "TaskFailed", message: "Long.", error: { code: "task_error" } });
});

test("inputs that an answer leaves out are fetched once, and the run goes on over its socket", async () => {
  leaveOut(["inputs"]);
  const seen: unknown[] = [];
  const handle = client.run("sum", { text: "in" }, ({ inputs }) => seen.push(inputs));
  const heard = heardOf(handle);
  await handle.uuid;
  await until(() => expect(server.callsOf("GET")).toHaveLength(1));
  await until(() => expect(server.framesOf("subscribe")).toHaveLength(1));
  server.run.running();
  server.run.message("over the socket");
  await until(() => expect(heard.messages).toEqual(["over the socket"]));
  finishWithout(server.run, ["inputs"], { outputs: {} });
  expect(await handle).toMatchObject({ inputs: { text: "in" } });
  expect(seen).toEqual(seen.map(() => ({ text: "in" })));
  expect(server.callsOf("GET")).toHaveLength(1);
  expect(heard.transports).toEqual(["websocket"]);
});

test("inputs that fit into no frame are fetched by `attach`", async () => {
  leaveOut(["inputs"]);
  server.start("sum", { text: "in" }, undefined);
  const handle = client.attach(server.run.info.uuid);
  await handle.uuid;
  await until(() => expect(server.framesOf("subscribe").length).toBeGreaterThan(1));
  finishWithout(server.run, ["inputs"], { outputs: {} });
  expect(await handle).toMatchObject({ inputs: { text: "in" } });
});

test("outputs that fit into no frame are fetched by `attach` to a run that has ended", async () => {
  leaveOut(["inputs", "outputs"]);
  Object.assign(server.start("sum", { text: "in" }, undefined).info, { status: "succeeded", outputs: { text: "out" } });
  const handle = client.attach(server.run.info.uuid);
  await expect(handle).resolves.toMatchObject({ inputs: { text: "in" }, outputs: { text: "out" } });
});

test("a message that fits into no frame is fetched in its order, and the next ones come over the socket", async () => {
  const handle = client.run("sum", {});
  const heard = heardOf(handle);
  await handle.uuid;
  const { run } = server;
  run.message("a");
  for (const large of ["large", "larger"]) {
    run.message(large, false);
    run.send("message", { index: run.info.messages.length - 1, omitted: true });
    run.message(`after ${large}`);
    await until(() => expect(heard.messages.at(-1)).toBe(`after ${large}`));
    await until(() => expect(run.followers.size).toBe(1));
  }
  const gets = server.callsOf("GET").length;
  await until(() => expect(server.framesOf("subscribe").length).toBeGreaterThan(1));
  run.message("over the socket");
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["a", "large", "after large", "larger", "after larger", "over the socket"]);
  expect(heard.messages).toEqual((await handle).messages);
  expect(server.callsOf("GET")).toHaveLength(gets);
  expect(heard.transports).toEqual(["websocket"]);
});

test("no message is lost if a second one that fits into no frame comes before the run is subscribed to again", async () => {
  const handle = client.run("sum", {});
  const heard = heardOf(handle);
  await handle.uuid;
  const { run } = server;
  const waiting: Frame[] = []; // REST answers before the socket does
  server.onFrame = (frame) => waiting.push(frame) > 0;
  for (const [index, large] of ["large", "larger"].entries()) {
    run.message(large, false);
    run.send("message", { index, omitted: true });
    await until(() => expect(heard.messages).toHaveLength(index + 1));
    await until(() => expect(waiting.some(({ type }) => type === "subscribe")).toBe(true));
  }
  server.onFrame = () => false;
  for (const socket of server.sockets) for (const frame of waiting) server.serve(frame, socket);
  await until(() => expect(run.followers.size).toBe(1));
  run.message("small");
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["large", "larger", "small"]);
  expect(heard.messages).toEqual(["large", "larger", "small"]);
});

test("a snapshot with only the first messages is followed by the others, as events", async () => {
  leaveOut([], 2);
  const run = server.start("sum", {}, undefined);
  for (const message of ["a", "b", "c", "d"]) run.message(message);
  const handle = client.attach(run.info.uuid);
  const heard = heardOf(handle);
  await handle.uuid;
  for (const index of [2, 3]) run.send("message", { index, message: run.info.messages[index] });
  await until(() => expect(heard.messages).toEqual(["a", "b", "c", "d"]));
  run.finish({ outputs: {} });
  await handle;
  expect(server.calls).toEqual([]);
});

test("a run whose outputs cannot be fetched does not succeed without them", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.answerCalls(404, { detail: "Not found.", code: "not_found" });
  finishWithout(server.run, ["outputs"], { outputs: { text: "out" } });
  await expect(handle).rejects.toMatchObject({ name: "RequestError", status: 404, code: "not_found" });
});

test("outputs that REST never gives are an error in the end, if the socket works", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.onCall = (_call, response) => !!response.destroy();
  finishWithout(server.run, ["outputs"], { outputs: { text: "out" } });
  client.run("other", {}); // keeps the socket open
  await expect(handle).rejects.toMatchObject({ name: "RequestError", status: 0, code: "unreachable" });
  server.runs[1]?.finish({ outputs: {} });
});

// Sockets that die over an answer

const REFUSALS: [string, (frame: Frame, socket: { terminate(): void; send(text: string): void }) => void][] = [
  ["the socket dies over", (_frame, socket) => socket.terminate()],
  ["is passed over", () => {}],
  [
    "is refused as too large",
    ({ ref = null }, socket) => socket.send(JSON.stringify({ type: "error", ref, code: "too_large", detail: "No." })),
  ],
  [
    "is refused as one too many",
    ({ ref = null }, socket) => socket.send(JSON.stringify({ type: "error", ref, code: "too_many", detail: "No." })),
  ],
];

test.each(REFUSALS)("a run whose subscription %s moves to REST and stays; no other run does", async (_name, refuse) => {
  timing.answer = 100;
  const guilty = server.start("guilty", {}, undefined);
  server.onFrame = (frame, socket) => {
    if (frame.uuid !== guilty.info.uuid || frame.type !== "subscribe") return false;
    refuse(frame, socket);
    return true;
  };
  const other = client.run("other", {});
  const heardByOther = heardOf(other);
  await other.uuid;
  const handle = client.attach(guilty.info.uuid);
  const heard = heardOf(handle);
  await until(() => expect(heard.transports).toEqual(["polling"]));
  const asked = server.framesOf("subscribe").filter(({ uuid }) => uuid === guilty.info.uuid).length;
  expect(asked).toBeLessThanOrEqual(2);
  guilty.running();
  await until(() => expect(server.callsOf("GET").length).toBeGreaterThan(3));
  guilty.finish({ outputs: { text: "out" } });
  await expect(handle).resolves.toMatchObject({ outputs: { text: "out" } });
  expect(server.framesOf("subscribe").filter(({ uuid }) => uuid === guilty.info.uuid)).toHaveLength(asked);
  server.runs[1]?.finish({ outputs: {} });
  await other;
  expect(heardByOther.transports).toEqual(["websocket"]);
});

test("inputs that are too large for a frame go by REST, and the socket stays", async () => {
  const first = client.run("first", {});
  await first.uuid;
  for (const text of ["x".repeat(1_100_000), "\u8a9e".repeat(400_000)]) {
    const handle = client.run("large", { text });
    const heard = heardOf(handle);
    await until(() => expect(heard.transports).toEqual(["polling", "websocket"]));
    server.runs.at(-1)?.finish({ outputs: {} });
    expect((await handle).inputs).toEqual({ text });
  }
  expect(server.callsOf("POST")).toHaveLength(2);
  expect(server.framesOf("run")).toHaveLength(1);
  expect(server.handshakes).toBe(1);
  server.runs[0]?.finish({ outputs: {} });
  await first;
});

test("inputs that are too large for a frame go by REST even with transport `websocket`", async () => {
  client.options.transport = "websocket";
  const handle = client.run("large", { text: "x".repeat(1_100_000) });
  await handle.uuid;
  await until(() => expect(server.run.followers.size).toBe(1)); // then over the socket
  server.run.finish({ outputs: {} });
  await handle;
});

test.each([4413, 1009])("a socket that closes with %i over inputs sends them by REST at once", async (code) => {
  server.onFrame = ({ type }, socket) => {
    if (type === "run") socket.close(code);
    return type === "run";
  };
  const handle = client.run("large", { text: "x".repeat(1_000) });
  await handle.uuid;
  expect(server.framesOf("run")).toHaveLength(1);
  server.run.finish({ outputs: {} });
  await handle;
});

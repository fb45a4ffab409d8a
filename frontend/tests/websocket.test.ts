/** Runs over a WebSocket, against a real server that fails. */

import { expect, test, vi } from "vitest";
import type { RequestError, TaskFailed } from "../src/errors.js";
import type { Callbacks } from "../src/handle.js";
import type { TaskInfo } from "../src/protocol.js";
import { timing } from "../src/timing.js";
import { until } from "./support/client.js";
import { type Frame, TestServer } from "./support/server.js";
import { client, heardOf, pause, serveEachTest, server } from "./support/setup.js";

serveEachTest({ webSocket: true });

type CallbackArguments = [
  onStatus?: Callbacks["onStatus"],
  onSuccess?: Callbacks["onSuccess"],
  onError?: Callbacks["onError"],
];

/** Starts a run, and waits until the server has it and its socket follows it. */
async function started(task: string, inputs: object, ...callbacks: CallbackArguments) {
  const handle = client.run(task, inputs, ...callbacks);
  await handle.uuid;
  return { handle, run: server.run };
}

/** Makes changes, each after the one before was told. In one frame of the screen they would be told as one. */
async function eachTold(seen: unknown[], ...changes: (() => void)[]): Promise<void> {
  for (const change of changes) {
    const known = seen.length;
    change();
    await until(() => expect(seen.length).toBeGreaterThan(known));
  }
}

test("a run is started, followed and ended over one socket, without REST", async () => {
  const seen: TaskInfo[] = [];
  const { handle, run } = await started("sum", { numbers: [1, 2] }, (task) => seen.push(task));
  await eachTold(
    seen,
    () => run.running(),
    () => run.target(2),
    () => run.progress(1),
    () => run.message("half"),
    () => run.progress(2),
    () => run.finish({ outputs: { sum: 3 } }),
  );
  const task = await handle;
  expect(task.outputs).toEqual({ sum: 3 });
  expect(task.messages).toEqual(["half"]);
  expect(seen.map(({ status, target, progress, messages }) => [status, target, progress, messages.length])).toEqual([
    ["pending", null, null, 0],
    ["running", null, null, 0],
    ["running", 2, null, 0],
    ["running", 2, 1, 0],
    ["running", 2, 1, 1],
    ["running", 2, 2, 1],
    ["succeeded", 2, 2, 1],
  ]);
  expect(server.calls).toEqual([]);
  expect(server.handshakes).toBe(1);
});

test("each callback gets a representation of its own", async () => {
  const { handle, run } = await started("sum", {}, (task) => {
    task.messages.push("mine");
    task.status = "cancelled";
  });
  run.message("server's");
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["server's"]);
});

test("all runs of a page share one socket, which closes some time after the last", async () => {
  const handles = [1, 2, 3].map((number) => client.run("double", { number }));
  await Promise.all(handles.map(({ uuid }) => uuid));
  expect(server.handshakes).toBe(1);
  expect(server.sockets.size).toBe(1);
  for (const run of server.runs) run.finish({ outputs: { inputs: run.info.inputs } });
  expect((await Promise.all(handles)).map(({ outputs }) => outputs.inputs)).toEqual([
    { number: 1 },
    { number: 2 },
    { number: 3 },
  ]);
  await until(() => expect(server.sockets.size).toBe(0));
  const again = client.run("double", {});
  await again.uuid;
  expect(server.handshakes).toBe(2);
});

test("the handle gives events as in the protocol, and none after `off`", async () => {
  const { handle, run } = await started("sum", {});
  const heard: unknown[] = [];
  const off = handle.on("message", ({ type, index, message }) => heard.push([type, index, message]));
  handle.on("progress", ({ type, progress, target }) => heard.push([type, progress, target]));
  handle.on("status", ({ type, status, uuid }) => heard.push([type, status, uuid === run.info.uuid]));
  run.running();
  run.message("one");
  run.progress(1);
  await until(() => expect(heard).toHaveLength(3));
  off();
  run.message("two");
  run.finish({ outputs: {} });
  await handle;
  expect(heard).toEqual([
    ["status", "running", true],
    ["message", 0, "one"],
    ["progress", 1, null],
    ["status", "succeeded", true],
  ]);
});

test("the transport is told with the first answer", async () => {
  const handle = client.run("sum", {});
  const { transports } = heardOf(handle);
  await handle.uuid;
  expect(transports).toEqual(["websocket"]);
});

test("a failed run rejects with a TaskFailed that has the representation's fields", async () => {
  const errors: Error[] = [];
  const { handle, run } = await started("sum", {}, null, null, (error) => errors.push(error));
  run.message("before the end");
  run.finish({ error: { code: "task_error", message: "There is no such file." } });
  const error = await handle.catch((error: TaskFailed) => error);
  expect(error).toBeInstanceOf(client.TaskFailed);
  expect(error).toMatchObject({
    name: "TaskFailed",
    message: "There is no such file.",
    status: "failed",
    error: { code: "task_error", message: "There is no such file." },
    messages: ["before the end"],
    uuid: run.info.uuid,
  });
  expect(errors).toEqual([error]);
});

test("a cancelled run rejects with TaskCancelled", async () => {
  const { handle, run } = await started("sum", {});
  run.finish({ status: "cancelled" });
  await expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
});

test.each([
  ["invalid_inputs", { inputs: { numbers: ["This field is required."] } }, 400],
  ["unknown_task", { task: ["There is no task named 'sum'."] }, 400],
  ["not_authenticated", "Authentication credentials were not provided.", 403],
  ["permission_denied", "You do not have permission to perform this action.", 403],
  ["too_many", "Too many open runs.", 429],
  ["conflict", "This idempotency key was used before with other inputs.", 422],
])("a run refused with %s rejects with a RequestError", async (code, detail, status) => {
  server.refuseFrames("run", { code, detail });
  const error = await client.run("sum", {}).catch((error: RequestError) => error);
  expect(error).toBeInstanceOf(client.RequestError);
  expect(error).toMatchObject({ status, detail });
  expect(server.calls).toEqual([]);
});

test("the status that an error frame names is the error's", async () => {
  server.onFrame = ({ type, ref = null }, socket) => {
    const error = { type: "error", ref, code: "not_authenticated", status: 401, detail: "Log in." };
    if (type === "run") socket.send(JSON.stringify(error));
    return type === "run";
  };
  await expect(client.run("sum", {})).rejects.toMatchObject({ status: 401, message: "Log in." });
});

test("an error with the uuid of a run ends only that run", async () => {
  const { handle, run } = await started("sum", {});
  const other = client.run("other", {});
  await other.uuid;
  for (const socket of run.followers) {
    const { uuid } = run.info;
    socket.send(JSON.stringify({ type: "error", uuid, code: "permission_denied", detail: "No longer yours." }));
  }
  await expect(handle).rejects.toMatchObject({ status: 403, detail: "No longer yours." });
  server.runs[1]?.finish({ outputs: {} });
  await expect(other).resolves.toMatchObject({ status: "succeeded" });
});

test("a socket that dies between `run` and `accepted` starts no second run", async () => {
  let cut = 2;
  server.onFrame = (frame, socket) => {
    if (frame.type !== "run" || cut === 0) return false;
    cut -= 1;
    server.start(String(frame.task), frame.inputs ?? {}, String(frame.idempotency_key));
    socket.terminate();
    return true;
  };
  const { handle, run } = await started("sum", { numbers: [1] });
  run.finish({ outputs: { sum: 1 } });
  await handle;
  expect(server.runs).toHaveLength(1);
  // over the first socket, then by REST or over the next socket, always with the same key
  const keys = [
    ...server.framesOf("run").map((frame) => frame.idempotency_key),
    ...server.callsOf("POST").map(({ headers }) => headers["idempotency-key"]),
  ];
  expect(keys.length).toBeGreaterThan(1);
  expect(new Set(keys).size).toBe(1);
});

test("a start over a socket that has worked and dies before `accepted` is repeated over a socket", async () => {
  const first = await started("first", {});
  first.run.finish({ outputs: {} });
  await first.handle;
  let cuts = 0;
  server.onFrame = (frame, socket) => {
    if (frame.type !== "run" || cuts > 0) return false;
    cuts += 1;
    server.start(String(frame.task), frame.inputs ?? {}, String(frame.idempotency_key));
    socket.terminate();
    return true;
  };
  const handle = client.run("second", {});
  await handle.uuid;
  server.runs[1]?.finish({ outputs: {} });
  await handle;
  expect(server.runs).toHaveLength(2);
  expect(server.calls).toEqual([]);
});

test("after a socket was cut in mid-run, nothing is lost or told twice", async () => {
  const { handle, run } = await started("count", {});
  const heard: unknown[] = [];
  handle.on("message", ({ index, message }) => heard.push([index, message]));
  run.running();
  run.message("a");
  await until(() => expect(heard).toHaveLength(1));
  for (const [index, letter] of ["b", "c", "d"].entries()) {
    server.cut();
    run.message(letter); // nobody hears it
    await until(() => expect(server.framesOf("subscribe")).toHaveLength(index + 1));
  }
  await until(() => expect(run.followers.size).toBe(1));
  run.message("e");
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["a", "b", "c", "d", "e"]);
  expect(heard).toEqual(["a", "b", "c", "d", "e"].map((letter, index) => [index, letter]));
  expect(server.framesOf("subscribe").map(({ after }) => after)).toEqual([1, 2, 3]);
  expect(server.runs).toHaveLength(1);
});

test("events that come twice, or late, change nothing", async () => {
  const seen: (number | null)[] = [];
  const { handle, run } = await started("count", {}, (task) => seen.push(task.progress));
  const repeat = (frame: object) => {
    for (const socket of run.followers) socket.send(JSON.stringify({ uuid: run.info.uuid, attempt: 1, ...frame }));
  };
  await eachTold(
    seen,
    () => run.running(),
    () => run.progress(5),
  );
  repeat({ type: "progress", seq: run.info.seq, progress: 5, target: null });
  repeat({ type: "progress", seq: run.info.seq - 1, progress: 4, target: null });
  await eachTold(seen, () => run.message("once"));
  repeat({ type: "message", seq: run.info.seq, index: 0, message: "once" });
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["once"]);
  expect(seen).toEqual([null, null, 5, 5, 5]);
});

test("garbage on the socket is ignored", async () => {
  const { handle, run } = await started("sum", {});
  for (const socket of run.followers) {
    for (const text of ["", "nonsense", "[]", "null", "{}", '{"type":"toString"}', '{"type":"progress"}', "1e999"]) {
      socket.send(text);
    }
    socket.send(Buffer.from([1, 2, 3]));
    socket.send(JSON.stringify({ type: "tomorrow", uuid: run.info.uuid, attempt: 1, seq: 9 }));
  }
  run.finish({ outputs: { sum: 0 } });
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 0 } });
});

test("a lost message is fetched as soon as a later one shows the gap", async () => {
  const { handle, run } = await started("count", {});
  const heard: unknown[] = [];
  handle.on("message", ({ message }) => heard.push(message));
  run.message("a", false);
  run.message("b");
  await until(() => expect(heard).toEqual(["a", "b"]));
  run.finish({ outputs: {} });
  await handle;
  expect(server.framesOf("subscribe")).toHaveLength(1);
});

test("messages that `finished` shows to be missing are fetched by REST before the promise settles", async () => {
  const { handle, run } = await started("count", {});
  run.message("a");
  run.message("b", false);
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["a", "b"]);
  expect(server.callsOf("GET").map(({ url }) => url)).toEqual([`/tasks/${run.info.uuid}/?after=1`]);
});

test("a finished run whose missing messages cannot be fetched settles with what is known", async () => {
  server.answerCalls(404, { detail: "Not found." });
  const { handle, run } = await started("count", {});
  run.message("a", false);
  run.finish({ outputs: { lines: 1 } });
  await expect(handle).resolves.toMatchObject({ outputs: { lines: 1 }, messages: [] });
});

test("errors of callbacks do no harm, and are reported", async () => {
  const reported: unknown[] = [];
  vi.stubGlobal("reportError", (error: Error) => reported.push(error.message));
  const fail = (name: string) => () => {
    throw new Error(name);
  };
  const { handle, run } = await started("sum", {}, fail("onStatus"), fail("onSuccess"));
  handle.on("message", fail("message"));
  run.message("a");
  await until(() => expect(reported).toHaveLength(3));
  run.finish({ outputs: { sum: 1 } });
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 1 } });
  expect(reported).toEqual(["onStatus", "message", "onStatus", "onStatus", "onSuccess"]);
});

test("if a socket opens but swallows frames, the run is started by REST, once", async () => {
  timing.answer = 50;
  server.onFrame = () => true;
  const handle = client.run("sum", {});
  const { transports } = heardOf(handle);
  await handle.uuid;
  await until(() => expect(server.handshakes).toBeGreaterThan(1)); // it is tried again
  server.run.finish({ outputs: {} });
  await handle;
  expect(transports).toEqual(["polling"]);
  expect(server.runs).toHaveLength(1);
});

test("a socket that falls silent in mid-run is replaced", async () => {
  timing.answer = 200;
  const { handle, run } = await started("sum", {});
  const [silent] = server.sockets;
  server.onFrame = (_frame, socket) => socket === silent;
  run.followers.clear();
  run.message("unheard");
  await until(() => expect(run.followers.size).toBe(1));
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["unheard"]);
  expect(server.calls).toEqual([]);
});

test("if no socket opens again, the run is polled until one does", async () => {
  const { handle, run } = await started("sum", {});
  const { transports } = heardOf(handle);
  server.handshake = 404;
  server.cut();
  run.running();
  await until(() => expect(transports).toEqual(["polling"]));
  server.handshake = "accept";
  await until(() => expect(transports).toEqual(["polling", "websocket"]));
  run.message("up again");
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["up again"]);
});

test("a server that restarts while the run goes on is found again", async () => {
  const { handle, run } = await started("sum", {});
  const port = new URL(server.baseURL).port;
  await server.stop();
  const failures = vi.fn();
  handle.catch(failures);
  await pause(timing.lastDelay * 2); // it is down for a while
  const revived = await TestServer.start(Number(port));
  revived.runs.push(run);
  run.finish({ outputs: { back: true } });
  await expect(handle).resolves.toMatchObject({ outputs: { back: true } });
  expect(failures).not.toHaveBeenCalled();
  await revived.stop();
});

test("a server that is not available for a start is asked again, and refuses in the end", async () => {
  const answers: Frame[] = [];
  server.onFrame = (frame, socket) => {
    if (frame.type !== "run") return false;
    answers.push(frame);
    socket.send(JSON.stringify({ type: "error", ref: frame.ref ?? null, code: "unavailable", detail: "Later." }));
    return true;
  };
  await expect(client.run("sum", {})).rejects.toMatchObject({ status: 503, detail: "Later." });
  expect(answers).toHaveLength(5);
});

test("inputs that are too large for a frame go by REST, which decides", async () => {
  server.onFrame = ({ type }, socket) => {
    if (type === "run") socket.close(4413);
    return type === "run";
  };
  server.onCall = (_call, response) => {
    response.writeHead(413, { "Content-Type": "application/json" }).end('{"detail": "Past 1 MiB."}');
    return true;
  };
  await expect(client.run("sum", { text: "x".repeat(1000) })).rejects.toMatchObject({
    status: 413,
    detail: "Past 1 MiB.",
  });
});

test("inputs that a socket dies over are sent by REST, and the run moves to the next socket", async () => {
  const first = await started("first", {});
  server.onFrame = ({ type }, socket) => {
    if (type === "run") socket.terminate();
    return type === "run";
  };
  const handle = client.run("large", {});
  const { transports } = heardOf(handle);
  await until(() => expect(transports).toEqual(["polling", "websocket"]));
  expect(server.framesOf("run")).toHaveLength(3);
  expect(server.callsOf("POST")).toHaveLength(1);
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([handle, first.handle]);
});

test("tries by REST count anew after failures of the socket", async () => {
  const first = await started("first", {});
  server.onFrame = ({ type }, socket) => {
    if (type === "run") socket.terminate();
    return type === "run";
  };
  server.answerCalls(503, { detail: "Later." });
  await expect(client.run("large", {})).rejects.toMatchObject({ status: 503, detail: "Later." });
  expect(server.callsOf("POST")).toHaveLength(5);
  first.run.finish({ outputs: {} });
  await first.handle;
});

test("with transport `websocket` REST is not used, though the socket fails often", async () => {
  client.options.transport = "websocket";
  server.handshake = 404;
  const handle = client.run("sum", {});
  await until(() => expect(server.handshakes).toBeGreaterThan(2));
  server.handshake = "accept";
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.calls).toEqual([]);
});

test("inputs are sent as they were when `run` was called", async () => {
  const inputs = { numbers: [1] };
  const handle = client.run("sum", inputs);
  inputs.numbers.push(2);
  await handle.uuid;
  expect(server.run.info.inputs).toEqual({ numbers: [1] });
});

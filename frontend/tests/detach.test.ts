/** Leaving a run: `detach()` and an AbortSignal, against a real server. */

import { beforeEach, expect, test, vi } from "vitest";
import type { TaskHandle } from "../src/handle.js";
import { timing } from "../src/timing.js";
import { until } from "./support/client.js";
import type { ServerRun } from "./support/server.js";
import { client, pause, serveEachTest, server, TRANSPORTS } from "./support/setup.js";

const unhandled = vi.fn();
process.on("unhandledRejection", unhandled);

serveEachTest({ webSocket: true });

beforeEach(async () => {
  unhandled.mockClear();
});

function underWay(): ServerRun {
  const run = server.start("count", {}, undefined);
  run.running();
  run.message("a");
  return run;
}

/** A signal that counts its listeners. */
function counted() {
  const controller = new AbortController();
  const { signal } = controller;
  const count = { listeners: 0 };
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: unknown[]) => {
    count.listeners += 1;
    Reflect.apply(addEventListener, signal, args);
  };
  signal.removeEventListener = (...args: unknown[]) => {
    count.listeners -= 1;
    Reflect.apply(removeEventListener, signal, args);
  };
  return { controller, signal, count };
}

/** How a caller may stop following, and whether the handle rejects then. */
const ENDS = [
  ["detach()", (handle: TaskHandle) => handle.detach(), "open"],
  ["an aborted signal", (_handle: TaskHandle, controller: AbortController) => controller.abort(), "AbortError"],
] as const;

/** Everything that a caller may be told. */
function listening(begin: (options: object) => TaskHandle) {
  const { controller, signal, count } = counted();
  const told: string[] = [];
  const handle = begin({
    signal,
    onStatus: () => told.push("status"),
    onSuccess: () => told.push("success"),
    onError: (error: Error) => told.push(error.name),
  });
  handle.on("message", () => told.push("message"));
  handle.on("status", () => told.push("status event"));
  const outcome = { state: "open" };
  handle.then(
    () => {
      outcome.state = "resolved";
    },
    (error: Error) => {
      outcome.state = error.name;
    },
  );
  return { handle, controller, told, outcome, count };
}

test.each(TRANSPORTS.flatMap((transport) => ENDS.map((end) => [transport, ...end] as const)))(
  "over %s the caller is told nothing after %s, and the run goes on",
  async (transport, _name, end, state) => {
    client.options.transport = transport;
    const run = underWay();
    const { handle, controller, told, outcome, count } = listening((options) => client.attach(run.info.uuid, options));
    await handle.uuid;
    const loop = (async () => {
      for await (const _event of handle);
    })();
    told.length = 0;
    end(handle, controller);
    await loop; // it ends
    await until(() => expect(run.followers.size).toBe(0));
    run.message("b");
    const calls = server.calls.length;
    run.finish({ outputs: {} });
    await pause(50); // five polls' time
    expect(told).toEqual(state === "open" ? [] : [state]);
    expect(outcome.state).toBe(state);
    expect(server.calls).toHaveLength(calls);
    expect(count.listeners).toBe(0);
    expect(run.info).toMatchObject({ status: "succeeded", cancel_requested: false });
  },
);

test.each(ENDS)("%s leaves other handles of the same run alone", async (_name, end) => {
  const run = underWay();
  const controller = new AbortController();
  const first = client.attach(run.info.uuid, { signal: controller.signal });
  const second = client.attach(run.info.uuid);
  await Promise.all([first.uuid, second.uuid]);
  first.catch(() => {});
  end(first, controller);
  run.message("b");
  run.finish({ outputs: {} });
  expect((await second).messages).toEqual(["a", "b"]);
  expect(server.framesOf("unsubscribe")).toEqual([]);
});

test.each(TRANSPORTS)("over %s five mounts and unmounts leave nothing", async (transport) => {
  client.options.transport = transport;
  Object.assign(timing, { idle: 20, answer: 60_000 });
  const timers = new Set<unknown>();
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  vi.stubGlobal("setTimeout", (fn: () => void, ms?: number) => {
    const timer = set(() => {
      timers.delete(timer);
      fn();
    }, ms);
    if (!new Error().stack?.includes("undici")) timers.add(timer); // not a timer of Node's `fetch`
    return timer;
  });
  vi.stubGlobal("clearTimeout", (timer: ReturnType<typeof set>) => {
    timers.delete(timer);
    clear(timer);
  });
  const run = underWay();
  const { controller, signal, count } = counted();
  for (let mounts = 0; mounts < 5; mounts += 1) {
    const handle = client.attach(run.info.uuid, { signal, onStatus: () => {} });
    if (mounts % 2 === 0) await handle.uuid;
    handle.detach();
    handle.detach(); // once more changes nothing
  }
  const aborted = client.attach(run.info.uuid, { signal });
  await aborted.uuid;
  expect(count.listeners).toBe(1);
  controller.abort();
  await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
  await until(() => expect(server.sockets.size).toBe(0));
  const calls = server.calls.length;
  await until(() => expect(timers.size).toBe(0));
  await new Promise((resolve) => set(resolve, 50));
  expect(server.calls).toHaveLength(calls);
  expect(count.listeners).toBe(0);
});

test.each(TRANSPORTS)("over %s a run that is left before it is accepted is started all the same", async (transport) => {
  client.options.transport = transport;
  const handle = client.run("sum", {}, { onStatus: () => expect.unreachable() });
  handle.detach();
  expect(await handle.uuid).toBe(server.run.info.uuid);
  await until(() => expect(server.run.followers.size).toBe(0));
  const calls = server.calls.length;
  await pause(50);
  expect(server.calls).toHaveLength(calls);
});

test("a run that is left and whose start is refused has no uuid, and the console hears nothing", async () => {
  server.refuseFrames("run", { code: "throttled", detail: "Too soon." });
  const onError = vi.fn();
  const handle = client.run("sum", {}, { onError });
  handle.detach();
  await expect(handle.uuid).rejects.toMatchObject({ status: 429 });
  await pause(5);
  expect(onError).not.toHaveBeenCalled();
  expect(unhandled).not.toHaveBeenCalled();
});

test.each(TRANSPORTS)("over %s `cancel()` counts, before and after `detach()`", async (transport) => {
  client.options.transport = transport;
  server.onCancel = (run) => run.finish({ status: "cancelled" });
  const before = client.run("before", {});
  const cancelled = before.cancel();
  before.detach();
  await cancelled;
  const after = client.run("after", {});
  await after.uuid;
  after.detach();
  await until(() => expect(server.runs.every(({ followers }) => followers.size === 0)).toBe(true));
  await after.cancel();
  expect(server.runs.map(({ info }) => [info.task, info.status])).toEqual([
    ["before", "cancelled"],
    ["after", "cancelled"],
  ]);
  await expect(after.cancel()).resolves.toBeUndefined(); // it is cancelled
  const calls = server.calls.length;
  await pause(50);
  expect(server.calls).toHaveLength(calls);
});

test.each(TRANSPORTS)("over %s `cancel()` after `detach()` of a run that has ended is refused", async (transport) => {
  client.options.transport = transport;
  const run = underWay();
  const handle = client.attach(run.info.uuid);
  await handle.uuid;
  handle.detach();
  run.finish({ outputs: {} });
  await expect(handle.cancel()).rejects.toMatchObject({ name: "RequestError", status: 409 });
  await until(() => expect(run.followers.size).toBe(0));
});

test("a signal that is aborted before the start sends nothing", async () => {
  const onError = vi.fn();
  const handle = client.run("sum", {}, { signal: AbortSignal.abort("too late"), onError });
  expect(onError).not.toHaveBeenCalled(); // nothing is called before `run` has returned
  const error = await handle.catch((error: Error) => error);
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ name: "AbortError", cause: "too late" });
  expect(onError).toHaveBeenCalledExactlyOnceWith(error);
  await expect(handle.uuid).rejects.toBe(error);
  await expect(handle.cancel()).rejects.toBe(error);
  const detached = client.run("sum", {}, { signal: AbortSignal.abort() });
  detached.detach();
  await pause(20);
  expect([server.handshakes, server.calls]).toEqual([0, []]);
});

test("a run is started though its signal was aborted right after the call", async () => {
  const controller = new AbortController();
  const handle = client.run("sum", {}, { signal: controller.signal });
  controller.abort();
  await expect(handle).rejects.toMatchObject({ name: "AbortError" });
  expect(await handle.uuid).toBe(server.run.info.uuid);
});

test("a signal that is aborted after the end changes nothing", async () => {
  const { controller, signal, count } = counted();
  const onError = vi.fn();
  const handle = client.run("sum", {}, { signal, onError });
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(count.listeners).toBe(0);
  controller.abort();
  await expect(handle).resolves.toMatchObject({ status: "succeeded" });
  expect(onError).not.toHaveBeenCalled();
});

test("an aborted signal causes no unhandled rejection", async () => {
  const controller = new AbortController();
  client.attach(underWay().info.uuid, { signal: controller.signal });
  client.run("sum", {}, { signal: AbortSignal.abort() });
  controller.abort();
  await pause(5);
  expect(unhandled).not.toHaveBeenCalled();
});

test.each([new AbortController(), "signal", 1])("%s is no signal, and the run is not started", async (signal) => {
  await expect(client.run("sum", {}, { signal: signal as unknown as AbortSignal })).rejects.toThrow("AbortSignal");
  expect(server.handshakes).toBe(0);
});

test.each(["onStatus", "listener"])("an %s may detach, and is told nothing more", async (which) => {
  const run = underWay();
  const told: string[] = [];
  const options = {
    onStatus: () => {
      told.push("status");
      if (which === "onStatus") handle.detach();
    },
    onSuccess: () => told.push("success"),
  };
  const handle: TaskHandle = client.attach(run.info.uuid, options);
  handle.on("message", () => {
    told.push("message");
    if (which === "listener") handle.detach();
  });
  handle.on("message", () => told.push("another"));
  await until(() => expect(server.framesOf("unsubscribe")).toHaveLength(1));
  run.message("b");
  run.finish({ outputs: {} });
  await pause(20);
  expect(told).toEqual(which === "onStatus" ? ["message", "another", "status"] : ["message"]);
});

test("`onStatus` may detach from the last state, and `onSuccess` is not called", async () => {
  const onSuccess = vi.fn();
  const handle: TaskHandle = client.run(
    "sum",
    {},
    {
      onStatus: (task) => {
        if (task.status === "succeeded") handle.detach();
      },
      onSuccess,
    },
  );
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await until(() => expect(server.run.info.status).toBe("succeeded"));
  await pause(50);
  expect(onSuccess).not.toHaveBeenCalled();
});

test("`detach()` forgets the events that a loop has not taken, and a later loop is empty", async () => {
  const run = underWay();
  const handle = client.attach(run.info.uuid);
  await handle.uuid;
  const seen: string[] = [];
  for await (const event of handle) {
    seen.push(event.type);
    handle.detach();
  }
  for await (const event of handle) seen.push(event.type);
  expect(seen).toHaveLength(1);
});

test("a run that is left does not end the events of a run that the same key starts", async () => {
  const first = client.run("sum", {}, { idempotencyKey: "once" });
  first.detach();
  const second = client.run("sum", {}, { idempotencyKey: "once" });
  await second.uuid;
  expect(server.runs).toHaveLength(1);
  await pause(20);
  server.run.message("a");
  server.run.finish({ outputs: {} });
  expect((await second).messages).toEqual(["a"]);
});

test("the socket closes some time after the last run was left", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  handle.detach();
  await until(() => expect(server.sockets.size).toBe(0));
});

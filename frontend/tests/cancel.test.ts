/** Cancelling a run, on every transport, against a real server that fails. */

import { expect, test, vi } from "vitest";
import type { RequestError } from "../src/errors.js";
import type { TaskInfo } from "../src/protocol.js";
import { timing } from "../src/timing.js";
import { until } from "./support/client.js";
import { json } from "./support/server.js";
import { client, serveEachTest, server, TRANSPORTS } from "./support/setup.js";

serveEachTest({ webSocket: true });

async function started(transport: "auto" | "websocket" | "polling" = "auto") {
  client.options.transport = transport;
  const seen: TaskInfo[] = [];
  const handle = client.run("wait", {}, (task) => seen.push(task));
  await handle.uuid;
  return { handle, seen, run: server.run };
}

/** How often the server was asked to cancel. */
const requests = (): number =>
  server.framesOf("cancel").length + server.callsOf("POST").filter(({ url }) => url.endsWith("/cancel/")).length;

test.each(TRANSPORTS)("`cancel` over %s resolves when it is accepted, and the run ends after it", async (transport) => {
  const { handle, seen, run } = await started(transport);
  run.running();
  await handle.cancel();
  expect(run.info.cancel_requested).toBe(true);
  await until(() => expect(seen.at(-1)).toMatchObject({ status: "running", cancel_requested: true }));
  run.finish({ status: "cancelled" });
  await expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  expect(requests()).toBe(1);
  if (transport === "websocket") expect(server.calls).toEqual([]);
  else expect(server.handshakes).toBe(0);
});

test.each(TRANSPORTS)("over %s a run that ends before it notices has succeeded", async (transport) => {
  const { handle, run } = await started(transport);
  await handle.cancel();
  run.finish({ outputs: {} });
  await expect(handle).resolves.toMatchObject({ status: "succeeded", cancel_requested: true });
});

test.each(TRANSPORTS)("over %s a run that is cancelled before it starts is cancelled", async (transport) => {
  server.onCancel = (run) => run.finish({ status: "cancelled" });
  const { handle } = await started(transport);
  const outcome = expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await handle.cancel();
  await outcome;
});

test.each(TRANSPORTS)("over %s `cancel` before the run is accepted waits for that", async (transport) => {
  client.options.transport = transport;
  server.onCancel = (run) => run.finish({ status: "cancelled" });
  const handle = client.run("wait", {});
  const outcome = expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await handle.cancel();
  await outcome;
  expect(server.run.info.cancel_requested).toBe(true);
});

test.each(TRANSPORTS)("over %s a request that the server refuses rejects, and the run goes on", async (transport) => {
  server.refuseFrames("cancel", { code: "throttled", detail: "Too soon." });
  server.onCall = ({ url }, response) => {
    if (url.endsWith("/cancel/")) json(response, 429, { detail: "Too soon." });
    return url.endsWith("/cancel/");
  };
  const { handle, run } = await started(transport);
  const error = await handle.cancel().catch((error: RequestError) => error);
  expect(error).toBeInstanceOf(client.RequestError);
  expect(error).toMatchObject({ status: 429, detail: "Too soon." });
  server.onFrame = () => false;
  server.onCall = () => false;
  await handle.cancel(); // another try is another request
  run.finish({ outputs: {} });
  await expect(handle).resolves.toMatchObject({ status: "succeeded" });
});

test.each(TRANSPORTS)("over %s a run that the server knows to have ended is a conflict", async (transport) => {
  const { handle, run } = await started(transport);
  Object.assign(run.info, { status: "succeeded", outputs: {} }); // and no event has told it yet
  client.options.pollInterval = 10_000;
  await expect(handle.cancel()).rejects.toMatchObject({ status: 409 });
  run.finish({ outputs: {} });
  await handle;
});

test("a run that has ended is a conflict, and the server is not asked", async () => {
  const { handle, run } = await started();
  run.finish({ outputs: {} });
  await handle;
  await expect(handle.cancel()).rejects.toMatchObject({ name: "RequestError", status: 409 });
  expect(requests()).toBe(0);
});

test("`cancel` in the last event is a conflict, and the server is not asked", async () => {
  const { handle, run } = await started();
  const late = new Promise((resolve) => {
    handle.on("status", () => resolve(handle.cancel().catch((error: Error) => error)));
  });
  run.finish({ outputs: {} });
  await handle;
  expect(await late).toMatchObject({ name: "RequestError", status: 409 });
  expect(requests()).toBe(0);
});

test("`cancel` of a start that was left and refused rejects with its error, and starts nothing", async () => {
  server.refuseFrames("run", { code: "throttled", detail: "Too soon." });
  const handle = client.run("wait", {});
  const early = handle.cancel().catch((error: Error) => error);
  handle.detach();
  const error = await handle.uuid.catch((error: Error) => error);
  expect(error).toMatchObject({ name: "RequestError", status: 429 });
  expect(await early).toBe(error);
  await expect(handle.cancel()).rejects.toBe(error);
  expect(server.framesOf("run")).toHaveLength(1);
});

test.each(TRANSPORTS)(
  "over %s `cancel` after `detach` reaches the server before the first answer",
  async (transport) => {
    client.options.transport = transport;
    const run = server.start("wait", {}, undefined);
    server.onCancel = (run) => run.finish({ status: "cancelled" });
    const handle = client.attach(run.info.uuid);
    handle.detach();
    await handle.cancel();
    expect(run.info.status).toBe("cancelled");
    await until(() => expect(run.followers.size).toBe(0));
  },
);

test("`cancel` after a start that was refused rejects with the same error", async () => {
  server.answerCalls(403, { detail: "Not you." });
  client.options.transport = "polling";
  const handle = client.run("wait", {});
  const error = await handle.catch((error: Error) => error);
  await expect(handle.cancel()).rejects.toBe(error);
});

test("`cancel` of a run that is gone rejects with the same error", async () => {
  const { handle } = await started("polling");
  server.runs.length = 0;
  const error = await handle.catch((error: Error) => error);
  await expect(handle.cancel()).rejects.toBe(error);
});

test("requests at the same time are one request", async () => {
  const { handle, run } = await started();
  await Promise.all([handle.cancel(), handle.cancel(), handle.cancel()]);
  await handle.cancel();
  expect(requests()).toBe(1);
  run.finish({ outputs: {} });
  await handle;
});

test("a request is made again over the next socket if its socket died over it", async () => {
  const { handle, run } = await started();
  let cuts = 2;
  server.onFrame = ({ type }, socket) => {
    if (type !== "cancel" || cuts === 0) return false;
    cuts -= 1;
    socket.terminate();
    return true;
  };
  await handle.cancel();
  expect(run.info.cancel_requested).toBe(true);
  expect(server.framesOf("cancel")).toHaveLength(3);
  run.finish({ status: "cancelled" });
  await expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
});

test("a request without a socket is made over the next one", async () => {
  const { handle, run } = await started("websocket");
  server.handshake = 404;
  server.cut();
  await until(() => expect(server.handshakes).toBeGreaterThan(1));
  const request = handle.cancel();
  server.handshake = "accept";
  await request;
  expect(run.info.cancel_requested).toBe(true);
  run.finish({ outputs: {} });
  await handle;
});

test("a request goes by REST if no socket opens any more", async () => {
  const { handle, run } = await started();
  server.handshake = 404;
  server.cut();
  await handle.cancel();
  expect(server.framesOf("cancel")).toHaveLength(0);
  expect(run.info.cancel_requested).toBe(true);
  run.finish({ outputs: {} });
  await handle;
});

test("a request that was accepted resolves, though its answer was lost and the run has ended", async () => {
  const { handle, run } = await started();
  server.onFrame = (frame, socket) => {
    if (frame.type !== "cancel") return false;
    server.onFrame = () => false;
    run.info.cancel_requested = true;
    run.followers.clear();
    socket.terminate();
    run.finish({ status: "cancelled" });
    return true;
  };
  const outcome = expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await handle.cancel();
  await outcome;
});

test("a request by REST whose answer was lost resolves when the run's end says that it was accepted", async () => {
  const { handle, run } = await started("polling");
  const before = run.after(0);
  let tries = 0;
  server.onCall = ({ method, url }, response) => {
    if (url.endsWith("/cancel/")) tries += 1;
    if (url.endsWith("/cancel/") && tries === 1) {
      Object.assign(run.info, { cancel_requested: true, status: "cancelled" });
      response.destroy();
      return true;
    }
    if (method !== "GET" || tries > 1) return false;
    json(response, 200, before); // a poll that was sent earlier
    return true;
  };
  const outcome = expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await handle.cancel();
  await outcome;
});

test("the end of the run settles the request if it comes before the answer", async () => {
  const { handle, run } = await started();
  server.onFrame = ({ type }) => {
    if (type === "cancel") {
      run.info.cancel_requested = true;
      run.finish({ status: "cancelled" });
    }
    return type === "cancel";
  };
  const outcome = expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await handle.cancel();
  await outcome;
});

test.each(TRANSPORTS)("over %s a server that cannot do it now is asked again", async (transport) => {
  let failures = 3;
  server.onFrame = ({ type, ref = null }, socket) => {
    if (type !== "cancel" || failures === 0) return false;
    failures -= 1;
    socket.send(JSON.stringify({ type: "error", ref, code: "unavailable", detail: "Later." }));
    return true;
  };
  server.onCall = ({ url }, response) => {
    if (!url.endsWith("/cancel/") || failures === 0) return false;
    failures -= 1;
    response.writeHead(502).end();
    return true;
  };
  const { handle, run } = await started(transport);
  await handle.cancel();
  expect(failures).toBe(0);
  run.finish({ outputs: {} });
  await handle;
});

test("a server that never can do it is a refusal in the end, and the run goes on", async () => {
  server.refuseFrames("cancel", { code: "unavailable", detail: "Later." });
  const { handle, run } = await started();
  await expect(handle.cancel()).rejects.toMatchObject({ status: 503, detail: "Later." });
  run.finish({ outputs: {} });
  await handle;
});

test("a request that a silent socket swallows is made again", async () => {
  timing.answer = 100;
  const { handle, run } = await started();
  const [silent] = server.sockets;
  server.onFrame = (_frame, socket) => socket === silent;
  await handle.cancel();
  run.finish({ outputs: {} });
  await handle;
});

test("the CSRF cookie goes into the header of a request by REST", async () => {
  vi.stubGlobal("document", { baseURI: server.baseURL, cookie: "csrftoken=abc" });
  const { handle, run } = await started("polling");
  await handle.cancel();
  const [request] = server.callsOf("POST").filter(({ url }) => url.endsWith("/cancel/"));
  expect(request?.headers["x-csrftoken"]).toBe("abc");
  run.finish({ outputs: {} });
  await handle;
});

test("a page that goes away cancels nothing", async () => {
  const { handle, run } = await started();
  server.cut();
  await until(() => expect(run.followers.size).toBe(1));
  run.finish({ outputs: {} });
  await handle;
  await until(() => expect(server.sockets.size).toBe(0)); // even the page's last socket
  expect(requests()).toBe(0);
});

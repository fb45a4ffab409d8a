/** Runs by REST alone, against a real server that fails. */

import { expect, test, vi } from "vitest";
import type { RequestError } from "../src/errors.js";
import { timing } from "../src/timing.js";
import { setWebSocket, until } from "./support/client.js";
import { client, heardOf, pause, serveEachTest, server } from "./support/setup.js";

serveEachTest({ webSocket: false });

test("without a WebSocket a run is started by REST, and polled for changes", async () => {
  const handle = client.run("sum", { numbers: [1, 2] });
  const { transports } = heardOf(handle);
  const messages: unknown[] = [];
  handle.on("message", ({ index, message }) => messages.push([index, message]));
  await handle.uuid;
  const { run } = server;
  run.running();
  run.message("a");
  run.message("b");
  await until(() => expect(messages).toHaveLength(2));
  run.message("c");
  run.finish({ outputs: { sum: 3 } });
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 3 }, messages: ["a", "b", "c"] });
  expect(messages).toEqual([
    [0, "a"],
    [1, "b"],
    [2, "c"],
  ]);
  expect(transports).toEqual(["polling"]);
  const [start] = server.callsOf("POST");
  expect(start?.headers).toMatchObject({ "content-type": "application/json", accept: "application/json" });
  expect(JSON.parse(start?.body ?? "")).toEqual({ task: "sum", inputs: { numbers: [1, 2] } });
  expect(server.callsOf("GET").at(-1)?.url).toBe(`/tasks/${run.info.uuid}/?after=2`);
});

test("a poll says which state it knows, and an unchanged run stays as it is", async () => {
  const handle = client.run("count", {});
  await handle.uuid;
  const { run } = server;
  run.running();
  run.target(3);
  run.message("a");
  const statuses: number[] = [];
  handle.on("progress", ({ progress }) => statuses.push(progress as number));
  const known = () => server.callsOf("GET").map(({ headers }) => headers["if-none-match"]);
  await until(() => expect(known().filter((tag) => tag === `"${run.info.seq}"`).length).toBeGreaterThan(2));
  run.progress(2);
  await until(() => expect(statuses).toEqual([2]));
  run.finish({ outputs: {} });
  await expect(handle).resolves.toMatchObject({ messages: ["a"], target: 3, progress: 2 });
  expect(known()[0]).toBeUndefined();
});

test("polling stops with the run", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  const calls = server.calls.length;
  await pause(50); // five polls' time
  expect(server.calls).toHaveLength(calls);
});

test("a server without WebSockets is polled at once, and asked for a socket seldom", async () => {
  setWebSocket(true);
  server.handshake = 404;
  const first = client.run("first", {});
  await first.uuid;
  expect(server.handshakes).toBe(1);
  const second = client.run("second", {});
  await second.uuid;
  expect(server.handshakes).toBe(1);
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([first, second]);
});

test("a handshake that hangs ends in polling", async () => {
  setWebSocket(true);
  server.handshake = "hang";
  timing.handshake = 50;
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.callsOf("POST")).toHaveLength(1);
});

test("with transport `polling` no socket is opened", async () => {
  setWebSocket(true);
  client.options.transport = "polling";
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.handshakes).toBe(0);
});

test("the CSRF cookie goes into the header of a POST, decoded, but not of a GET", async () => {
  vi.stubGlobal("document", { baseURI: server.baseURL, cookie: "a=1; csrf-tok=to%3Dken=; csrftoken=default" });
  client.options.csrfCookieName = "csrf-tok";
  client.options.csrfHeaderName = "X-CSRF";
  const handle = client.run("sum", {});
  await handle.uuid;
  await until(() => expect(server.callsOf("GET")).not.toHaveLength(0));
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.callsOf("POST")[0]?.headers["x-csrf"]).toBe("to=ken=");
  expect(server.callsOf("GET")[0]?.headers).not.toHaveProperty("x-csrf");
});

test("a relative baseURL belongs to the page's address", async () => {
  vi.stubGlobal("document", { baseURI: new URL("/some/page.html", server.baseURL).href, cookie: "" });
  client.options.baseURL = "/tasks";
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

test.each([
  ["same-origin", "same-origin"],
  ["cors", "include"],
] as const)("with corsMode %s credentials are %s", async (corsMode, credentials) => {
  const fetched = vi.fn(fetch);
  vi.stubGlobal("fetch", fetched);
  client.options.corsMode = corsMode;
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  for (const [request] of fetched.mock.calls) expect(request).toMatchObject({ mode: corsMode, credentials });
});

test.each([
  ["abc", "Token abc"],
  ["Bearer abc", "Bearer abc"],
])("the token %s is sent as %s, by REST", async (token, authorization) => {
  setWebSocket(true);
  client.options.token = token;
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.handshakes).toBe(0);
  expect(server.calls.map(({ headers }) => headers.authorization)).toEqual(server.calls.map(() => authorization));
});

test.each([
  [400, { inputs: { numbers: ["This field is required."] } }, "inputs.numbers: This field is required."],
  [401, { detail: "Authentication credentials were not provided." }, "Authentication credentials were not provided."],
  [403, { detail: "CSRF Failed: CSRF token missing." }, "CSRF Failed: CSRF token missing."],
  [429, { detail: "Request was throttled." }, "Request was throttled."],
])("a start that is refused with %i rejects with a RequestError", async (status, body, message) => {
  server.answerCalls(status, body);
  const errors: Error[] = [];
  const error = await client
    .run("sum", {}, null, null, (error) => errors.push(error))
    .catch((error: RequestError) => error);
  expect(error).toBeInstanceOf(client.RequestError);
  expect(error).toMatchObject({ name: "RequestError", status, message, detail: "detail" in body ? body.detail : body });
  expect(errors).toEqual([error]);
  expect(server.calls).toHaveLength(1);
});

test("a run that is gone rejects with a RequestError", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.runs.length = 0;
  await expect(handle).rejects.toMatchObject({ status: 404, detail: "Not found." });
});

test("lost answers start no second run, and settle nothing", async () => {
  let failures = 4;
  server.onCall = (call, response) => {
    if (failures === 0) return false;
    failures -= 1;
    if (call.method === "POST") {
      const { task, inputs } = JSON.parse(call.body);
      server.start(task, inputs, String(call.headers["idempotency-key"])); // it arrives, but its answer does not
    }
    response.destroy();
    return true;
  };
  const handle = client.run("sum", {});
  await handle.uuid;
  failures = 4;
  await until(() => expect(failures).toBe(0));
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.runs).toHaveLength(1);
});

test("errors of the server during a run are waited out", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  const statuses = [500, 502, 503, 504, 429, 408, 500, 500];
  server.onCall = (_call, response) => {
    const status = statuses.shift();
    if (status !== undefined) response.writeHead(status).end("<h1>Sorry</h1>");
    return status !== undefined;
  };
  await until(() => expect(statuses).toHaveLength(0));
  server.run.finish({ outputs: { sum: 0 } });
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 0 } });
});

test.each([
  [500, "<h1>Sorry</h1>"],
  [200, "<h1>Log in</h1>"],
  [200, '{"uuid": 1}'],
  [404, "404 page not found"],
  [404, '{"error": "no route"}'],
  [403, "<h1>Blocked</h1>"],
  [413, "<h1>Too large</h1>"],
  [400, '{"message": "Bad request"}'],
])("a start that gets %i %s each time is refused after five tries, with what came", async (status, body) => {
  server.onCall = (_call, response) => {
    response.writeHead(status, { "Content-Type": "text/html" }).end(body);
    return true;
  };
  const error = await client.run("sum", {}).catch((error: RequestError) => error);
  expect(error).toMatchObject({ name: "RequestError", status, code: null });
  expect((error as RequestError).message).toContain(`${status} text/html ${JSON.stringify(body)}`);
  expect(server.calls).toHaveLength(5);
});

test("an answer that never comes is asked for again", async () => {
  timing.request = 200;
  let hung = 0;
  server.onCall = () => hung++ === 0;
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

test("options that make no valid request are an error of the caller", async () => {
  vi.stubGlobal("document", { baseURI: server.baseURL, cookie: "csrftoken=x" });
  client.options.csrfHeaderName = "no header";
  await expect(client.run("sum", {})).rejects.toBeInstanceOf(TypeError);
});

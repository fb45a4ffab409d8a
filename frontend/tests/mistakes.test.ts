/** What the console and the errors tell about the mistakes of day one. */

import { beforeEach, expect, test, vi } from "vitest";
import { RequestError } from "../src/errors.js";
import { timing } from "../src/timing.js";
import { setWebSocket, until } from "./support/client.js";
import { client, serveEachTest, server } from "./support/setup.js";

serveEachTest({ webSocket: true });

const NO_WORKER = {
  code: "no_worker",
  message: "No worker takes the queue 'slow'. Start one: python manage.py taskworker --queue slow",
};

const warned: string[] = [];

beforeEach(() => {
  warned.length = 0;
  const warn = vi.spyOn(console, "warn").mockImplementation((text: string) => void warned.push(text));
  return () => warn.mockRestore();
});

// No worker takes the queue

test.each([true, false])("the console says once that no worker takes the queue (socket: %s)", async (socket) => {
  setWebSocket(socket);
  timing.pending = 20;
  const handles = [client.run("sum", {}), client.run("sum", {})];
  await Promise.all(handles.map(({ uuid }) => uuid));
  const [first, second] = server.runs;
  if (first === undefined || second === undefined) throw new Error("Both have an uuid.");
  first.info.hint = NO_WORKER;
  second.info.hint = NO_WORKER;
  await until(() => expect(warned).toEqual([`TaskAPI: A task waits. ${NO_WORKER.message}`]));
  const asked = () => (socket ? server.framesOf("subscribe") : server.callsOf("GET")).length;
  const before = asked();
  await until(() => expect(asked()).toBeGreaterThan(before + 1));
  expect(warned).toHaveLength(1);
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all(handles);
});

test("callbacks get the hint while the run waits, and not any more when it has begun", async () => {
  timing.pending = 20;
  const heard: [string, string | undefined][] = [];
  const handle = client.run("sum", {}, ({ status, hint }) => heard.push([status, hint?.code]));
  await handle.uuid;
  const { run } = server;
  run.info.hint = NO_WORKER;
  await until(() => expect(heard).toContainEqual(["pending", "no_worker"]));
  run.running();
  await until(() => expect(heard.at(-1)).toEqual(["running", undefined]));
  delete run.info.hint;
  run.finish({ outputs: {} });
  expect(await handle).not.toHaveProperty("hint");
});

test("a hint that the next answer does not repeat is taken back", async () => {
  setWebSocket(false);
  const heard: (string | undefined)[] = [];
  const handle = client.run("sum", {}, ({ hint }) => heard.push(hint?.code));
  await handle.uuid;
  const { run } = server;
  run.info.hint = NO_WORKER;
  await until(() => expect(heard.at(-1)).toBe("no_worker"));
  delete run.info.hint;
  await until(() => expect(heard.at(-1)).toBeUndefined());
  run.finish({ outputs: {} });
  await handle;
});

test("a run that begins soon is not asked about", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.running();
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.framesOf("subscribe")).toEqual([]);
  expect(warned).toEqual([]);
});

// There is no WebSocket: Django's own asgi.py was kept, or `runserver` has no daphne

test("the console says once that the server answers, but has no WebSocket", async () => {
  server.handshake = 404;
  for (const name of ["first", "second"]) {
    const handle = client.run(name, {});
    await handle.uuid;
    for (const run of server.runs) run.finish({ outputs: {} });
    await handle;
  }
  expect(warned).toHaveLength(1);
  expect(warned[0]).toContain(`The server has no WebSocket at ${server.baseURL.replace("http", "ws")}ws/`);
  for (const remedy of ["taskapi.asgi", '"daphne"', "ASGI_APPLICATION", 'TaskAPI.options.transport = "polling"'])
    expect(warned[0]).toContain(remedy);
});

test.each([{ transport: "polling" as const }, { token: "abc" }])(
  "a page that wants no WebSocket hears nothing: %o",
  async (options) => {
    server.handshake = 404;
    Object.assign(client.options, options);
    const handle = client.run("sum", {});
    await handle.uuid;
    server.run.finish({ outputs: {} });
    await handle;
    expect(warned).toEqual([]);
  },
);

test("a server whose WebSocket works is told nothing", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(warned).toEqual([]);
});

// `baseURL` points to where no API is

test.each([
  [404, "text/html", "<h1>Not Found</h1>"],
  [404, "application/json", '{"detail": "Not found."}'],
  [405, "text/html", ""],
  [200, "text/html", "<!doctype html>"],
  [403, "text/html", "<h1>Forbidden</h1><p>CSRF verification failed. Request aborted.</p>"],
])("a start that another page answers with %i (%s) says that there is no API", async (status, type, body) => {
  server.handshake = 404;
  client.options.baseURL = new URL("/nowhere/", server.baseURL).href;
  server.onCall = (_call, response) => {
    response.writeHead(status, { "Content-Type": type }).end(body);
    return true;
  };
  const error = await client.run("sum", {}).catch((error: Error) => error);
  expect(error).toBeInstanceOf(RequestError);
  expect(error).toMatchObject({ status, code: null });
  const { message } = error as RequestError;
  expect(message).toContain(`no Django Task API at ${client.options.baseURL}. It answered ${status}`);
  expect(message).toContain("Check TaskAPI.options.baseURL");
});

test.each([
  [404, { detail: "Not found.", code: "not_found" }, "Not found."],
  [403, { detail: "You do not have permission to perform this action." }, "You do not have permission"],
])("the API's own refusal %i is not taken for another page's", async (status, body, message) => {
  server.handshake = 404;
  server.answerCalls(status, body);
  const error = await client.run("sum", {}).catch((error: Error) => error);
  expect(error).toMatchObject({ name: "RequestError", status, message: expect.stringContaining(message) });
  expect(server.calls).toHaveLength(1);
});

// Refusals whose message is the server's

test.each([true, false])("a typing error in an input's name is the error's message (socket: %s)", async (socket) => {
  setWebSocket(socket);
  const sentence = "Unknown input 'secnods'. Did you mean 'seconds'?";
  const detail = { inputs: { secnods: [sentence], seconds: ["This field is required."] } };
  server.refuseFrames("run", { code: "invalid_inputs", detail });
  server.answerCalls(400, detail);
  const error = await client.run("wait", { secnods: 1 }).catch((error: Error) => error);
  expect(error).toMatchObject({ name: "RequestError", status: 400, message: sentence, detail });
});

test("a missing CSRF cookie comes with its remedy", async () => {
  setWebSocket(false);
  const detail = "CSRF Failed: CSRF cookie not set. Put {% csrf_token %} into the template of the page.";
  server.answerCalls(403, { detail, code: "permission_denied" });
  await expect(client.run("sum", {})).rejects.toMatchObject({ status: 403, message: detail });
});

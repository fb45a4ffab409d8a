/** The client before it asks a server. */

import { afterEach, expect, test, vi } from "vitest";
import { Client } from "../src/client.js";
import { setWebSocket } from "./support/client.js";
import { TestServer } from "./support/server.js";
import { settled } from "./support/setup.js";

setWebSocket(false);

const unhandled = vi.fn();
process.on("unhandledRejection", unhandled);
afterEach(() => {
  unhandled.mockClear();
});

function refusing(): Client {
  const client = new Client();
  client.options.transport = "sse";
  return client;
}

test("the options are those of 1.x, with Django's header", () => {
  expect(new Client().options).toEqual({
    baseURL: "/tasks/",
    csrfCookieName: "csrftoken",
    csrfHeaderName: "X-CSRFToken",
    csrfToken: null,
    pollInterval: 1000,
    corsMode: "same-origin",
    transport: "auto",
    token: null,
  });
});

test.each([
  ["sse", 'is "sse"; expected "auto"'],
  ["websocket", "there is no WebSocket here"],
  ["pigeon", 'is "pigeon"; expected "auto"'],
])("the transport %s is refused with a sentence", async (transport, sentence) => {
  const client = new Client();
  Object.assign(client.options, { transport });
  await expect(client.run("sum", {})).rejects.toThrow(sentence);
});

test("a relative baseURL without a page is refused with a sentence", async () => {
  await expect(new Client().run("sum", {})).rejects.toThrow('baseURL is "/tasks/"; without a page');
});

test("inputs that JSON cannot hold are refused", async () => {
  const client = new Client();
  client.options.baseURL = "http://127.0.0.1:1/tasks/";
  const inputs: { self?: object } = {};
  inputs.self = inputs;
  await expect(client.run("sum", inputs)).rejects.toBeInstanceOf(TypeError);
});

test("a caller with `onError` that ignores the promise causes no unhandled rejection", async () => {
  const onError = vi.fn();
  refusing().run("sum", {}, null, null, onError);
  expect(onError).not.toHaveBeenCalled(); // nothing is called before `run` has returned
  await settled();
  expect(onError).toHaveBeenCalledOnce();
  expect(unhandled).not.toHaveBeenCalled();
});

test("a caller without `onError` that ignores the promise causes one unhandled rejection", async () => {
  refusing().run("sum", {}, null, vi.fn());
  await settled();
  expect(unhandled).toHaveBeenCalledOnce();
});

test("the uuid of a run that is refused rejects with the same error", async () => {
  const handle = refusing().run("sum", {});
  const error = await handle.catch((error: Error) => error);
  await expect(handle.uuid).rejects.toBe(error);
});

test("options are read when `run` is called", async () => {
  const server = await TestServer.start();
  const client = new Client();
  const { run } = client; // it works without the object, too
  client.options = { ...client.options, baseURL: server.baseURL };
  const handle = run("sum");
  client.options.baseURL = "http://127.0.0.1:1/tasks/";
  await handle.uuid;
  expect(server.run.info.inputs).toEqual({});
  server.run.finish({ outputs: {} });
  await handle;
  await server.stop();
});

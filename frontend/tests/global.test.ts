/** The script on a page that has loaded it already. */

import { beforeEach, expect, test, vi } from "vitest";
import packageJSON from "../package.json" with { type: "json" };
import type { Client } from "../src/client.js";

let page: { TaskAPI?: unknown; addEventListener: () => void };
const warn = vi.fn();
const listen = vi.fn();

beforeEach(() => {
  warn.mockClear();
  listen.mockClear();
  page = { addEventListener: listen };
  vi.stubGlobal("self", page);
  vi.stubGlobal("addEventListener", listen);
  vi.stubGlobal("document", { addEventListener: listen });
  vi.stubGlobal("console", { ...console, warn });
});

/** Executes another copy of the script; returns the `TaskAPI` that the page has then. */
async function load(): Promise<Client> {
  vi.resetModules();
  await import("../src/global.js");
  return page.TaskAPI as Client;
}

test("the client says its version", async () => {
  expect((await load()).version).toBe(packageJSON.version);
});

test("a second copy of the same version changes nothing, and listens to nothing", async () => {
  const first = await load();
  first.options.baseURL = "/mine/";
  const second = await load();
  expect(second).toBe(first);
  expect(second.options.baseURL).toBe("/mine/");
  const error = await second.attach("no uuid").catch((error: Error) => error);
  expect(error).toBeInstanceOf(first.RequestError);
  expect(warn).not.toHaveBeenCalled();
  expect(listen).not.toHaveBeenCalled();
});

test("a copy of another version keeps the first, and warns", async () => {
  const first = await load();
  Object.assign(first, { version: "1.9.0" });
  expect(await load()).toBe(first);
  expect(warn).toHaveBeenCalledExactlyOnceWith(
    `TaskAPI ${packageJSON.version} was not loaded: the page has TaskAPI 1.9.0 already. Load only one of them.`,
  );
});

test.each([
  ["1.x's client", { run: () => {}, options: {} }],
  ["an element with that id", new EventTarget()],
  ["null", null],
  ["a string", "TaskAPI"],
  ["something else that has a version", { version: "3" }],
])("%s is replaced by the client", async (_name, present) => {
  page.TaskAPI = present;
  const client = await load();
  expect(client).not.toBe(present);
  expect(client.version).toBe(packageJSON.version);
  expect(warn).not.toHaveBeenCalled();
});

test("an ES module has a client of its own", async () => {
  const global = await load();
  vi.resetModules();
  const { default: tasks } = await import("../src/index.js");
  expect(tasks).not.toBe(global);
  expect(page.TaskAPI).toBe(global);
});

/** The committed script is what the sources give, and works in a page. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createContext, runInContext } from "node:vm";
import { expect, test } from "vitest";
import { WebSocket } from "ws";
import type { Client } from "../src/client.js";
import { TestServer } from "./support/server.js";

const SCRIPT = new URL("../../taskapi/static/django-task-api.min.js", import.meta.url);
const FRONTEND = new URL("..", import.meta.url);

/** A page's globals, as far as the script needs them. */
function page(baseURI: string) {
  const window: Record<string, unknown> = { document: { baseURI, cookie: "" }, WebSocket };
  for (const name of ["URL", "AbortController", "Request", "fetch", "performance", "console", "crypto"]) {
    window[name] = Reflect.get(globalThis, name);
  }
  for (const name of ["setTimeout", "clearTimeout", "setInterval", "clearInterval"]) {
    window[name] = Reflect.get(globalThis, name);
  }
  window.self = window;
  return createContext(window);
}

test("the committed script and its map are what the sources give", () => {
  expect(execFileSync(process.execPath, ["build.mjs", "--check"], { cwd: FRONTEND, encoding: "utf8" })).toContain(
    "is what the sources give",
  );
});

test("the map names its sources by relative paths, and contains them", () => {
  const map = JSON.parse(readFileSync(new URL(`${SCRIPT.href}.map`), "utf8"));
  expect(map.sources.length).toBeGreaterThan(10);
  for (const source of map.sources) expect(source).toMatch(/^\.\.\/\.\.\/frontend\/src\/[a-z]+\.ts$/);
  expect(map.sourcesContent).toHaveLength(map.sources.length);
});

test("the script gives a page the global TaskAPI, and nothing else", async () => {
  const server = await TestServer.start();
  const window = page(new URL("/page.html", server.baseURL).href);
  const before = new Set(Object.keys(window));
  runInContext(readFileSync(SCRIPT, "utf8"), window);
  expect(Object.keys(window).filter((name) => !before.has(name))).toEqual(["TaskAPI"]);
  const { TaskAPI } = window as { TaskAPI: Client };
  const handle = TaskAPI.run("sum", { numbers: [1, 2] });
  await handle.uuid;
  server.run.finish({ error: { code: "exception", message: "The task failed." } });
  const error = await handle.catch((error: Error) => error);
  expect(error).toBeInstanceOf(TaskAPI.TaskFailed);
  expect(error).toMatchObject({ name: "TaskFailed", status: "failed" });
  expect(server.handshakes).toBe(1);
  await server.stop();
});

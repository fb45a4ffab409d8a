/** Every JavaScript sample of docs/javascript.md runs, against a server with the tasks that it names. */

import { readFileSync } from "node:fs";
import { createContext, runInContext } from "node:vm";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { clientOf, setWebSocket } from "./support/client.js";
import { type ServerRun, TestServer } from "./support/server.js";

const PAGE = readFileSync(new URL("../../docs/javascript.md", import.meta.url), "utf8");
const SAMPLES = [...PAGE.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => String(code));

let server: TestServer;

beforeEach(async () => {
  setWebSocket(true);
  server = await TestServer.start();
  server.onRun = (run) => void setTimeout(() => work(run), 5);
});

afterEach(async () => {
  await server.stop();
});

function work(run: ServerRun): void {
  run.running();
  run.target(2);
  run.message("Here we go.");
  run.progress(2);
  const { numbers } = run.info.inputs as { numbers?: unknown };
  if (numbers === "many") run.finish({ error: { code: "task_error", message: "How many?" } });
  else run.finish({ outputs: { sum: 6 } });
}

test("the page has samples", () => {
  expect(SAMPLES.length).toBeGreaterThan(7);
});

test.each(SAMPLES)("%s", async (code) => {
  const client = clientOf(server);
  const runs: Promise<unknown>[] = [];
  const { run } = client;
  client.run = ((...args: Parameters<typeof run>) => {
    const handle = run(...args);
    runs.push(handle);
    return handle;
  }) as typeof run;
  const log = vi.fn();
  const window = createContext({ TaskAPI: client, tasks: client, console: { log } });
  const script = code.replace(/^(import|var tasks|\/\/ or).*$/gm, ""); // how it is loaded: tests/package.test.ts
  await runInContext(`(async () => {${script}})()`, window);
  await Promise.allSettled(runs);
  if (code.includes("console.log")) expect(log).toHaveBeenCalled();
  else if (code.includes(".run(")) expect(server.run.info.status).toBe("succeeded");
});

test("every option of the page's table has the default that it says", () => {
  const table = PAGE.slice(PAGE.indexOf("| option |"));
  const rows = [...table.matchAll(/^\| `(\w+)` \| `(.+?)` \|/gm)].map(([, name, value]) => [
    name,
    JSON.parse(String(value)),
  ]);
  const { baseURL: _, ...ours } = clientOf(server).options;
  expect(Object.fromEntries(rows)).toEqual({ ...ours, baseURL: "/tasks/", pollInterval: 1000 });
});

/** Every JavaScript sample of docs/javascript.md runs, against a server with its tasks. */

import { readFileSync } from "node:fs";
import { createContext, runInContext } from "node:vm";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { clientOf, setWebSocket } from "./support/client.js";
import { type ServerRun, TestServer } from "./support/server.js";
import { stubXHR } from "./support/xhr.js";

const PAGE = readFileSync(new URL("../../docs/javascript.md", import.meta.url), "utf8");
const SAMPLES = [...PAGE.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => String(code));

let server: TestServer;

beforeEach(async () => {
  setWebSocket(true);
  stubXHR();
  server = await TestServer.start();
  server.onRun = (run) => void setTimeout(() => work(run), 5);
  server.onCancel = (run) => run.finish({ status: "cancelled" });
});

afterEach(async () => {
  await server.stop();
});

function work(run: ServerRun): void {
  const { numbers, seconds } = run.info.inputs as { numbers?: unknown; seconds?: number };
  if (seconds === 60) return; // longer than a test: it has to be cancelled
  run.running();
  run.target(2);
  run.message("Here we go.");
  run.progress(2);
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
    const { detach } = handle;
    const left = new Promise<void>((resolve) => {
      handle.detach = () => {
        detach();
        resolve();
      };
    });
    runs.push(Promise.race([handle, left]));
    return handle;
  }) as typeof run;
  const log = vi.fn();
  const stored = new Map<string, string>();
  const sessionStorage = {
    getItem: (name: string) => stored.get(name) ?? null,
    setItem: (name: string, value: string) => stored.set(name, value),
    removeItem: (name: string) => stored.delete(name),
  };
  const window = createContext({
    TaskAPI: client,
    tasks: client,
    console: { log },
    sessionStorage,
    AbortController,
    File,
  });
  const script = code.replace(/^(import|var tasks|\/\/ or).*$/gm, ""); // how it is loaded: tests/package.test.ts
  await runInContext(`(async () => {${script}})()`, window);
  await Promise.allSettled(runs);
  if (code.includes("console.log")) expect(log).toHaveBeenCalled();
  else if (code.includes(".run(")) expect(server.run.info.status).toBe("succeeded");
});

test("every option has the default that the table of the page says", () => {
  const table = PAGE.slice(PAGE.indexOf("| option |"));
  const rows = [...table.matchAll(/^\| `(\w+)` \| `(.+?)` \|/gm)].map(([, name, value]) => [
    name,
    JSON.parse(String(value)),
  ]);
  const { baseURL: _, ...ours } = clientOf(server).options;
  expect(Object.fromEntries(rows)).toEqual({ ...ours, baseURL: "/tasks/", pollInterval: 1000 });
});

test("the sample for a reload follows the run that was started before the reload", async () => {
  const sample = SAMPLES.find((code) => code.includes("sessionStorage"));
  const run = server.start("sum", { numbers: [1, 2, 3] }, undefined);
  const sessionStorage = { getItem: () => run.info.uuid, setItem: vi.fn(), removeItem: vi.fn() };
  const log = vi.fn();
  const window = createContext({ TaskAPI: clientOf(server), console: { log }, sessionStorage });
  await runInContext(`(async () => {${sample}})()`, window);
  expect(log).toHaveBeenLastCalledWith("Sum: 6");
  expect(server.runs).toHaveLength(1);
  expect(sessionStorage.removeItem).toHaveBeenCalledWith("sum");
});

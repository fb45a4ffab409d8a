/** A browser's API is missing or throws: the promise rejects, or the client does without. No rejection is unhandled. */

import { beforeAll, expect, test, vi } from "vitest";
import { clientOf, setWebSocket, until } from "./support/client.js";
import { client, serveEachTest, server } from "./support/setup.js";

beforeAll(async () => {
  await fetch("data:,"); // Node loads its fetch with the first call, and needs what the tests take away
});

serveEachTest({ webSocket: false });

const blocked = () => {
  throw new Error("Blocked by the page.");
};

class Blocked {
  constructor() {
    blocked();
  }
}

/** Node's fetch needs an AbortController. */
const realController = AbortController;
const realFetch = fetch;
function fetchWithController(url: string, init: RequestInit): Promise<Response> {
  const { AbortController } = globalThis;
  globalThis.AbortController = realController;
  try {
    return realFetch(url, init);
  } finally {
    globalThis.AbortController = AbortController;
  }
}
const alone = { fetch: fetchWithController, Request: undefined };

const MISSING = [
  ["fetch throws", { fetch: blocked }],
  [
    "fetch throws what is no Error",
    {
      fetch: () => {
        throw "Blocked by the page.";
      },
    },
  ],
  ["there is no fetch", { fetch: undefined }],
  ["Request throws", { Request: Blocked }],
] as const;

test.each(MISSING)("if %s, a start by REST rejects, and so does its `cancel()`", async (_name, globals) => {
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  const handle = client.run("sum", {});
  const cancelling = handle.cancel().catch((error: unknown) => error);
  const error = await handle.catch((error: unknown) => error);
  expect(String(error)).toMatch(/Blocked|fetch/);
  expect(await cancelling).toBe(error);
});

test.each(MISSING)("if %s from then on, a run that is polled rejects", async (_name, globals) => {
  const handle = client.run("sum", {});
  await handle.uuid;
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  const error = await handle.catch((error: unknown) => error);
  expect(String(error)).toMatch(/Blocked|fetch/);
});

test.each(MISSING)("if %s from then on, a request to cancel rejects", async (_name, globals) => {
  client.options.pollInterval = 60_000;
  const handle = client.run("sum", {});
  handle.catch(() => {});
  await handle.uuid;
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  const error = await handle.cancel().catch((error: unknown) => error);
  expect(String(error)).toMatch(/Blocked|fetch/);
});

test.each([
  ["there is no AbortController", { AbortController: undefined, ...alone }],
  ["AbortController throws", { AbortController: Blocked, ...alone }],
  ["there is no Request", { Request: undefined }],
  ["there is no TextDecoder", { TextDecoder: undefined }],
  ["crypto throws", { crypto: { randomUUID: blocked, getRandomValues: blocked } }],
  ["there is no crypto", { crypto: undefined }],
  ["there are no events", { addEventListener: blocked }],
  ["the page has no events", { addEventListener: blocked, document: { visibilityState: "visible", cookie: "" } }],
])("if %s, a run is still started, polled and cancelled", async (_name, globals) => {
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  const client = clientOf(server);
  const handle = client.run("sum", {});
  await handle.uuid;
  await handle.cancel();
  server.run.message("a");
  server.run.finish({ outputs: { sum: 1 } });
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 1 }, messages: ["a"] });
});

test("without an AbortController, an answer that never comes is asked for again", async () => {
  for (const [name, value] of Object.entries({ AbortController: undefined, ...alone })) vi.stubGlobal(name, value);
  const { timing } = await import("../src/timing.js");
  timing.request = 100;
  let hung = 0;
  server.onCall = () => hung++ === 0;
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

test.each([true, false])("a sandboxed page without cookies runs tasks; with a WebSocket: %s", async (present) => {
  setWebSocket(present);
  vi.stubGlobal("document", {
    baseURI: server.baseURL,
    get cookie() {
      return blocked();
    },
  });
  const handle = client.run("sum", {});
  await handle.uuid;
  await handle.cancel();
  server.run.finish({ outputs: {} });
  await handle;
});

test("an option `csrfToken` that throws rejects the start", async () => {
  client.options.csrfToken = blocked;
  await expect(client.run("sum", {})).rejects.toThrow("Blocked");
});

test("an option `csrfToken` that throws rejects the request to cancel, and the run goes on", async () => {
  let first = true;
  client.options.csrfToken = () => {
    if (!first) blocked();
    first = false;
    return null;
  };
  const handle = client.run("sum", {});
  await handle.uuid;
  await expect(handle.cancel()).rejects.toThrow("Blocked");
  server.run.finish({ outputs: {} });
  await handle;
});

test("if `new WebSocket` throws, runs are polled", async () => {
  vi.stubGlobal("WebSocket", Blocked);
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

test("if `send` throws, runs are polled", async () => {
  setWebSocket(true);
  const Sound = WebSocket;
  vi.stubGlobal(
    "WebSocket",
    class extends Sound {
      override send(): void {
        blocked();
      }
    },
  );
  const handle = client.run("sum", {});
  await handle.uuid;
  await handle.cancel();
  server.run.finish({ outputs: {} });
  await handle;
});

test("if `send` throws from then on, runs are polled", async () => {
  setWebSocket(true);
  const Sound = WebSocket;
  let isBroken = false;
  vi.stubGlobal(
    "WebSocket",
    class extends Sound {
      override send(data: string): void {
        if (isBroken) blocked();
        super.send(data);
      }
      private closings = 0;
      override close(code?: number): void {
        super.close(code);
        this.closings += 1;
        if (isBroken && this.closings === 1) blocked(); // later ones are its own
      }
    },
  );
  const first = client.run("first", {});
  await first.uuid;
  isBroken = true;
  const second = client.run("second", {});
  await second.uuid;
  await first.cancel();
  await until(() => expect(server.callsOf("GET").length).toBeGreaterThan(0));
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([first, second]);
});

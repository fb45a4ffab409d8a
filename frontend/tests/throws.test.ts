/** A browser's API that throws: the promise rejects, or the client does without; no rejection goes unhandled. */

import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import type { Client } from "../src/client.js";
import { clientOf, setWebSocket, until } from "./support/client.js";
import { TestServer } from "./support/server.js";

let server: TestServer;
let client: Client;

beforeAll(async () => {
  await fetch("data:,"); // Node loads its fetch with the first call, and needs for that what a test takes away
});

beforeEach(async () => {
  setWebSocket(false);
  server = await TestServer.start();
  client = clientOf(server);
});

afterEach(async () => {
  await server.stop(); // vitest itself fails on an unhandled rejection
});

const blocked = () => {
  throw new Error("Blocked by the page.");
};

class Blocked {
  constructor() {
    blocked();
  }
}

/** Node's own fetch cannot do without. */
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

test.each(MISSING)("where %s, a start by REST rejects, and so does its cancellation", async (_name, globals) => {
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  const handle = client.run("sum", {});
  const cancelling = handle.cancel().catch((error: unknown) => error);
  const error = await handle.catch((error: unknown) => error);
  expect(String(error)).toMatch(/Blocked|fetch/);
  expect(await cancelling).toBe(error);
});

test.each(MISSING)("where %s from then on, a run that is polled rejects", async (_name, globals) => {
  const handle = client.run("sum", {});
  await handle.uuid;
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  const error = await handle.catch((error: unknown) => error);
  expect(String(error)).toMatch(/Blocked|fetch/);
});

test.each(MISSING)("where %s from then on, a request to cancel rejects", async (_name, globals) => {
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
])("where %s, a run is started, polled and cancelled all the same", async (_name, globals) => {
  for (const [name, value] of Object.entries(globals)) vi.stubGlobal(name, value);
  client = clientOf(server);
  const handle = client.run("sum", {});
  await handle.uuid;
  await handle.cancel();
  server.run.message("a");
  server.run.finish({ outputs: { sum: 1 } });
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 1 }, messages: ["a"] });
});

test("where there is no AbortController, an answer that never comes is asked for again", async () => {
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

test.each([true, false])(
  "a sandboxed page, which has no cookies, runs tasks; with a WebSocket: %s",
  async (present) => {
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
  },
);

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

test("where WebSocket throws, runs are polled", async () => {
  vi.stubGlobal("WebSocket", Blocked);
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

test("where a WebSocket takes no frames, runs are polled", async () => {
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

test("where a WebSocket takes no frames from then on, runs are polled", async () => {
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

/** An address that has never answered is given up, with an error that says what to check. An outage is waited out. */

import { expect, test, vi } from "vitest";
import type { RequestError } from "../src/errors.js";
import { timing } from "../src/timing.js";
import { until } from "./support/client.js";
import { TestServer } from "./support/server.js";
import { client, pause, restartServer, serveEachTest, server } from "./support/setup.js";

const UUID = "0b2f5f0e-7ad7-4bbf-9d53-5b3a1f1d8b0e";

serveEachTest({ webSocket: true });

/** Sets an address that never answers. */
async function nowhere(): Promise<void> {
  const gone = await TestServer.start();
  client.options.baseURL = gone.baseURL;
  await gone.stop();
}

test.each(["auto", "polling", "websocket"] as const)(
  "with transport `%s` an address that never answers ends a start and its `cancel()`, with what to check",
  async (transport) => {
    client.options.transport = transport;
    await nowhere();
    const onError = vi.fn();
    const handle = client.run("sum", {}, null, null, onError);
    const cancelling = handle.cancel().catch((error: Error) => error);
    const error = await handle.catch((error: RequestError) => error);
    expect(error).toMatchObject({ name: "RequestError", status: 0, code: "unreachable" });
    const { message } = error as RequestError;
    for (const word of [client.options.baseURL, "baseURL", "CORS", "Idempotency-Key", "Content-Security-Policy"]) {
      expect(message).toContain(word);
    }
    expect(onError).toHaveBeenCalledExactlyOnceWith(error);
    expect(await cancelling).toBe(error);
  },
);

test("with transport `polling` an address that never answers ends `attach` after more tries than a start", async () => {
  client.options.transport = "polling";
  let tries = 0;
  server.onCall = (_call, response) => {
    tries += 1;
    response.destroy();
    return true;
  };
  await expect(client.attach(UUID)).rejects.toMatchObject({ status: 0, code: "unreachable" });
  const triesOfARun = tries;
  tries = 0;
  await expect(client.run("sum", {})).rejects.toMatchObject({ status: 0, code: "unreachable" });
  expect([triesOfARun, tries]).toEqual([10, 6]);
});

test("`attach` to an address where something else answers is refused with what came", async () => {
  client.options.transport = "polling";
  server.onCall = (_call, response) => {
    response.writeHead(404, { "Content-Type": "text/html" }).end("<h1>No such page</h1>");
    return true;
  };
  const error = (await client.attach(UUID).catch((error: Error) => error)) as RequestError;
  expect(error).toMatchObject({ name: "RequestError", status: 404, code: null });
  expect(error.message).toContain("No such page");
});

test("a page that is offline waits", async () => {
  vi.stubGlobal("navigator", { onLine: false });
  client.options.transport = "polling";
  let failures = 0;
  server.onCall = (_call, response) => {
    failures += 1;
    if (failures > 30) return false;
    response.destroy();
    return true;
  };
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

test.each(["auto", "polling", "websocket"] as const)(
  "with transport `%s` an accepted run survives an outage, and so does a later start",
  async (transport) => {
    client.options.transport = transport;
    const handle = client.run("sum", {});
    await handle.uuid;
    const { run } = server;
    const port = Number(new URL(server.baseURL).port);
    await server.stop();
    const settled = vi.fn();
    const late = client.run("late", {});
    handle.then(settled, settled);
    late.then(settled, settled);
    await pause(timing.lastDelay * 20);
    expect(settled).not.toHaveBeenCalled();
    await restartServer(port);
    server.runs.push(run);
    run.finish({ outputs: {} });
    await handle;
    await late.uuid;
    server.runs[1]?.finish({ outputs: {} });
    await late;
  },
);

test("an address that swallows every request is given up after two minutes and three tries", async () => {
  client.options.transport = "polling";
  Object.assign(timing, { request: 30, unreached: 100 });
  let tries = 0;
  server.onCall = () => {
    tries += 1;
    return true;
  };
  await expect(client.attach(UUID)).rejects.toMatchObject({ status: 0, code: "unreachable" });
  expect(tries).toBeGreaterThan(2);
  expect(tries).toBeLessThan(10);
});

// Another origin

test("another origin with corsMode `same-origin` is refused at once if REST is used", async () => {
  vi.stubGlobal("self", { origin: "https://example.com" });
  client.options.transport = "polling";
  const error = (await client.run("sum", {}).catch((error: Error) => error)) as Error;
  expect(error.message).toContain('TaskAPI.options.corsMode = "cors"');
  expect(server.calls).toEqual([]);
  await expect(client.attach(UUID)).rejects.toThrow("corsMode");
});

test.each([
  ["its own", null, "same-origin"],
  ["another", "https://example.com", "cors"],
] as const)("by REST, a page asks a server on %s origin (%s) with corsMode %s", async (_name, origin, corsMode) => {
  vi.stubGlobal("self", { origin: origin ?? new URL(server.baseURL).origin });
  Object.assign(client.options, { transport: "polling", corsMode });
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

test("a run that was accepted over a socket waits for the next one if this page may not use REST", async () => {
  vi.stubGlobal("self", { origin: "https://example.com" });
  const handle = client.run("sum", {});
  await handle.uuid;
  server.handshake = 404;
  server.cut();
  await until(() => expect(server.handshakes).toBeGreaterThan(7)); // after fewer, runs are polled
  server.handshake = "accept";
  server.run.finish({ outputs: { sum: 1 } });
  await expect(handle).resolves.toMatchObject({ outputs: { sum: 1 } });
  expect(server.calls).toEqual([]);
});

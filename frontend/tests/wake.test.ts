/** A page that has slept, a network that is back, and a server that shuts down, against a real server. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { timing } from "../src/timing.js";
import { until } from "./support/client.js";
import { type Page, stubPage } from "./support/page.js";
import { client, heardOf, pause, serveEachTest, server } from "./support/setup.js";

let page: Page;

serveEachTest({ webSocket: true });

beforeEach(async () => {
  page = stubPage(server.baseURL);
  Object.assign(timing, { minUptime: 0, wake: 60 });
});

afterEach(() => {
  vi.restoreAllMocks();
});

const WAKES = [
  ["is visible again", () => page.show("visible")],
  ["is online again", () => page.window.dispatchEvent(new Event("online"))],
] as const;

async function started() {
  const handle = client.run("sum", {});
  const { transports } = heardOf(handle);
  await handle.uuid;
  return { handle, transports, run: server.run };
}

/** Makes the client's timers longer than a test. */
const neverByItself = () => Object.assign(timing, { answer: 60_000, firstDelay: 60_000, lastDelay: 60_000 });

test.each(WAKES)("a page that %s replaces a socket that has died in its sleep", async (_name, wake) => {
  const { handle, transports, run } = await started();
  timing.answer = 60_000;
  const [dead] = server.sockets;
  server.onFrame = (_frame, socket) => socket === dead;
  run.followers.clear();
  run.message("unheard");
  wake();
  await until(() => expect(run.followers.size).toBe(1));
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["unheard"]);
  expect(transports).toEqual(["websocket"]);
});

test.each(WAKES)("a page that %s keeps a socket that answers", async (_name, wake) => {
  const { handle, run } = await started();
  const pings = server.framesOf("ping").length;
  wake();
  await until(() => expect(server.framesOf("ping")).toHaveLength(pings + 1));
  await pause(timing.wake * 2); // past the limit
  expect(server.handshakes).toBe(1);
  run.finish({ outputs: {} });
  await handle;
});

test.each(WAKES)("a page that %s opens at once the socket that it waits for", async (_name, wake) => {
  const { handle, run } = await started();
  neverByItself();
  server.cut();
  await until(() => expect(run.followers.size).toBe(0));
  run.message("unheard");
  await vi.waitFor(() => {
    wake(); // again and again: the client may not know yet that the socket is cut
    expect(run.followers.size).toBe(1);
  });
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["unheard"]);
});

test.each(WAKES)("a page that %s replaces at once a socket that breaks over its ping", async (_name, wake) => {
  const { handle, run } = await started();
  neverByItself();
  timing.wake = 60_000;
  const pings = server.framesOf("ping").length;
  server.onFrame = () => true; // no frame is answered
  wake();
  await until(() => expect(server.framesOf("ping")).toHaveLength(pings + 1));
  server.onFrame = () => false;
  server.cut();
  await until(() => expect(server.handshakes).toBe(2));
  run.finish({ outputs: {} });
  await handle;
});

test.each(WAKES)("a page that %s polls at once", async (_name, wake) => {
  client.options.transport = "polling";
  client.options.pollInterval = 60_000;
  const { handle, run } = await started();
  run.finish({ outputs: {} });
  wake();
  await handle;
});

test.each(WAKES)("a page that %s asks again if an answer does not come", async (_name, wake) => {
  client.options.transport = "polling";
  const { handle, run } = await started();
  let hung = 0;
  server.onCall = () => hung++ === 0;
  await until(() => expect(hung).toBe(1));
  run.finish({ outputs: {} });
  wake();
  await handle;
});

test.each(WAKES)("a page that %s repeats a failed request at once", async (_name, wake) => {
  client.options.transport = "polling";
  neverByItself();
  let failures = 1;
  server.onCall = (_call, response) => failures-- > 0 && !!response.destroy();
  const handle = client.run("sum", {});
  await until(() => expect(failures).toBe(0));
  await vi.waitFor(() => {
    wake();
    expect(server.runs).toHaveLength(1);
  });
  server.run.finish({ outputs: {} });
  wake();
  await handle;
  expect(server.runs).toHaveLength(1);
});

test("a page that is hidden does nothing", async () => {
  const { handle, run } = await started();
  const frames = server.frames.length;
  page.show("hidden");
  run.message("heard");
  run.finish({ outputs: {} });
  await handle;
  expect(server.frames).toHaveLength(frames);
});

test("a server that shuts down in order is called again at once, and nothing is lost", async () => {
  const { handle, transports, run } = await started();
  neverByItself();
  vi.spyOn(Math, "random").mockReturnValue(0.0001);
  for (const socket of server.sockets) socket.close(1001);
  run.followers.clear();
  run.message("unheard");
  await until(() => expect(run.followers.size).toBe(1));
  run.finish({ outputs: {} });
  expect((await handle).messages).toEqual(["unheard"]);
  expect(transports).toEqual(["websocket"]);
  expect(server.calls).toEqual([]);
});

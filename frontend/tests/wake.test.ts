/** A page that has slept, a network that has come back, and a server that goes away, against a real server. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Client } from "../src/client.js";
import { timing } from "../src/timing.js";
import { clientOf, setWebSocket, until } from "./support/client.js";
import { TestServer } from "./support/server.js";

let server: TestServer;
let client: Client;
let page: EventTarget & { visibilityState: string };
let network: EventTarget;

beforeEach(async () => {
  setWebSocket(true);
  server = await TestServer.start();
  client = clientOf(server);
  page = Object.assign(new EventTarget(), { baseURI: server.baseURL, cookie: "", visibilityState: "visible" });
  network = new EventTarget();
  vi.stubGlobal("document", page);
  vi.stubGlobal("addEventListener", network.addEventListener.bind(network));
  Object.assign(timing, { minUptime: 0, wake: 60 });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await server.stop();
});

function show(): void {
  page.visibilityState = "visible";
  page.dispatchEvent(new Event("visibilitychange"));
}

function hide(): void {
  page.visibilityState = "hidden";
  page.dispatchEvent(new Event("visibilitychange"));
}

const WAKES = [
  ["is looked at again", show],
  ["is online again", () => network.dispatchEvent(new Event("online"))],
] as const;

async function started() {
  const handle = client.run("sum", {});
  const transports: string[] = [];
  handle.on("transport", ({ transport }) => transports.push(transport));
  await handle.uuid;
  return { handle, transports, run: server.run };
}

/** No timer of the client's would end within a test. */
const neverByItself = () => Object.assign(timing, { answer: 60_000, firstDelay: 60_000, lastDelay: 60_000 });

test.each(WAKES)("a page that %s replaces a socket that sleep has killed", async (_name, wake) => {
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
  await new Promise((resolve) => setTimeout(resolve, timing.wake * 2)); // past the limit
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
    wake(); // as often as it takes: the client may not have seen yet that the socket is cut
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
  server.onFrame = () => true; // it hears nothing more
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

test.each(WAKES)("a page that %s asks again where an answer will never come", async (_name, wake) => {
  client.options.transport = "polling";
  const { handle, run } = await started();
  let hung = 0;
  server.onCall = () => hung++ === 0;
  await until(() => expect(hung).toBe(1));
  run.finish({ outputs: {} });
  wake();
  await handle;
});

test.each(WAKES)("a page that %s tries again at once what has failed", async (_name, wake) => {
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
  hide();
  run.message("heard");
  run.finish({ outputs: {} });
  await handle;
  expect(server.frames).toHaveLength(frames);
});

test("a server that goes away is called again at once, and nothing is lost", async () => {
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

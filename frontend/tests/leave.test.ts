/** A page that goes: what it has asked for and may not have arrived, against a real server. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Client } from "../src/client.js";
import { timing } from "../src/timing.js";
import { clientOf, setWebSocket, until } from "./support/client.js";
import { TestServer } from "./support/server.js";

const realFetch = fetch;
let server: TestServer;
let client: Client;
let page: EventTarget & { visibilityState: string; cookie: string };
let network: EventTarget;
let fetched: ReturnType<typeof vi.fn<typeof fetch>>;

beforeEach(async () => {
  setWebSocket(true);
  server = await TestServer.start();
  client = clientOf(server);
  page = Object.assign(new EventTarget(), {
    baseURI: server.baseURL,
    cookie: "csrftoken=abc",
    visibilityState: "visible",
  });
  network = new EventTarget();
  fetched = vi.fn(realFetch);
  vi.stubGlobal("document", page);
  vi.stubGlobal("addEventListener", network.addEventListener.bind(network));
  vi.stubGlobal("fetch", fetched);
  const { run } = client;
  client.run = ((...args: Parameters<typeof run>) => {
    const handle = run(...args);
    handle.catch(() => {}); // of a server that has ended before it ever answered, after the test
    return handle;
  }) as typeof run;
});

afterEach(async () => {
  await server.stop();
});

const goes = () => void network.dispatchEvent(new Event("pagehide"));

/** As browsers have it, the event of the document is the window's as well. */
function show(visibilityState: "visible" | "hidden"): void {
  page.visibilityState = visibilityState;
  page.dispatchEvent(new Event("visibilitychange"));
  network.dispatchEvent(new Event("visibilitychange"));
}

const LEAVES = [
  ["goes", goes],
  ["is hidden", () => show("hidden")],
] as const;

/** The requests that outlive the page. */
const handedOver = () =>
  fetched.mock.calls.flatMap(([url, init]) => (init?.keepalive ? [{ url: String(url), ...init }] : []));

const moment = () => new Promise((resolve) => setTimeout(resolve, 5));

test.each(LEAVES)(
  "a start that is not accepted when the page %s is handed over, and is one run",
  async (_name, leave) => {
    server.handshake = "hang";
    timing.handshake = 300;
    const handle = client.run("sum", { numbers: [1] }, { idempotencyKey: "a key" });
    leave();
    expect(handedOver()).toMatchObject([
      {
        url: server.baseURL,
        method: "POST",
        headers: { "Idempotency-Key": "a key", "X-CSRFToken": "abc", "Content-Type": "application/json" },
        credentials: "same-origin",
      },
    ]);
    await until(() => expect(server.runs).toHaveLength(1));
    expect(await handle.uuid).toBe(server.run.info.uuid); // by polling; the page is still there, after all
    expect(server.callsOf("POST").map(({ headers }) => headers["idempotency-key"])).toEqual(["a key", "a key"]);
    server.run.finish({ outputs: {} });
    await handle;
  },
);

test("the token goes with it", () => {
  client.options.token = "secret";
  client.run("sum", {});
  goes();
  expect(handedOver()).toMatchObject([{ headers: { Authorization: "Token secret" } }]);
});

test("a run that is accepted is left alone, and so is one that is attached to", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  client.attach(await handle.uuid);
  goes();
  show("hidden");
  expect(handedOver()).toEqual([]);
});

test("one departure hands over once, the next one again", async () => {
  server.handshake = "hang";
  client.run("sum", {});
  goes();
  show("hidden");
  expect(handedOver()).toHaveLength(1);
  await moment();
  show("visible"); // the page has come back
  expect(handedOver()).toHaveLength(1);
  goes();
  expect(handedOver()).toHaveLength(2);
  await until(() => expect(server.callsOf("POST")).toHaveLength(2));
  expect(server.runs).toHaveLength(1);
});

test("what is asked for while the page goes is handed over at once, and nothing twice", async () => {
  server.handshake = "hang";
  client.run("first", {});
  network.addEventListener("pagehide", () => void client.run("second", {}));
  goes();
  expect(handedOver().map(({ body }) => JSON.parse(String(body)).task)).toEqual(["first", "second"]);
  await moment();
  client.run("third", {}); // it is still there
  expect(handedOver()).toHaveLength(2);
});

test("the first run of a page may be asked for as it goes", () => {
  network.addEventListener("pagehide", () => void client.run("first", {}));
  goes();
  show("hidden"); // follows in every browser
  expect(handedOver()).toHaveLength(1);
});

test("the first run of a page may be asked for when it is hidden already, as in `unload`", async () => {
  show("hidden");
  client.run("first", {});
  expect(handedOver()).toHaveLength(1);
  await moment();
  client.run("second", {}); // it is still there
  expect(handedOver()).toHaveLength(1);
});

test("a start that its caller has left is handed over, too", () => {
  client.run("sum", {}).detach();
  goes();
  expect(handedOver()).toHaveLength(1);
});

test("a start that is to be cancelled is not handed over", () => {
  const handle = client.run("sum", {});
  handle.cancel().catch(() => {});
  goes();
  expect(handedOver()).toEqual([]);
});

test("a cancel that has no answer is handed over", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.onFrame = (frame) => frame.type === "cancel";
  server.onCancel = (run) => run.finish({ status: "cancelled" });
  const cancelled = handle.cancel();
  await until(() => expect(server.framesOf("cancel")).toHaveLength(1));
  goes();
  expect(handedOver()).toMatchObject([
    { url: `${server.baseURL}${server.run.info.uuid}/cancel/`, method: "POST", headers: { "X-CSRFToken": "abc" } },
  ]);
  await expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await cancelled;
  goes();
  expect(handedOver()).toHaveLength(1);
});

test.each([
  ["throws", () => expect.fail("no fetch here")],
  ["refuses what is too large", () => Promise.reject(new TypeError("Failed to fetch"))],
])("a `fetch` that %s as the page goes harms nothing", async (_name, answer) => {
  const handle = client.run("sum", {});
  fetched.mockImplementation(answer);
  goes();
  fetched.mockImplementation(realFetch);
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.runs).toHaveLength(1);
});

test.each([
  ["cannot be made", { csrfToken: () => expect.fail("no token here") }],
  ["may not be asked there", { baseURL: "http://127.0.0.1:9/tasks/" }],
])("a start that %s as the page goes harms nothing else", (_name, options) => {
  vi.stubGlobal("self", { origin: new URL(server.baseURL).origin });
  client.run("first", {});
  Object.assign(client.options, options);
  client.run("second", {});
  Object.assign(client.options, { csrfToken: null, baseURL: server.baseURL });
  client.run("third", {});
  goes();
  expect(handedOver().map(({ body }) => JSON.parse(String(body)).task)).toEqual(["first", "third"]);
});

test("without a page there is nothing to leave", async () => {
  vi.stubGlobal("document", undefined);
  vi.stubGlobal("addEventListener", undefined);
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

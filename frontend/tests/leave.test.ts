/** A page that goes away hands over what has no answer yet, against a real server. */

import { beforeEach, expect, test, vi } from "vitest";
import { timing } from "../src/timing.js";
import { until } from "./support/client.js";
import { type Page, stubPage } from "./support/page.js";
import { client, pause, serveEachTest, server } from "./support/setup.js";

const realFetch = fetch;
let page: Page;
let fetched: ReturnType<typeof vi.fn<typeof fetch>>;

serveEachTest({ webSocket: true });

beforeEach(async () => {
  page = stubPage(server.baseURL, "csrftoken=ann");
  fetched = vi.fn(realFetch);
  vi.stubGlobal("fetch", fetched);
  const { run } = client;
  client.run = ((...args: Parameters<typeof run>) => {
    const handle = run(...args);
    handle.catch(() => {}); // the server ends with the test, perhaps before it has answered
    return handle;
  }) as typeof run;
});

const goes = () => void page.window.dispatchEvent(new Event("pagehide"));

const LEAVES = [
  ["goes", goes],
  ["is hidden", () => page.show("hidden")],
] as const;

/** The requests that outlive the page. */
const handedOver = () =>
  fetched.mock.calls.flatMap(([url, init]) => (init?.keepalive ? [{ url: String(url), ...init }] : []));

test.each(LEAVES)(
  "a start that is not accepted when the page %s is handed over, and starts one run",
  async (_name, leave) => {
    server.handshake = "hang";
    timing.handshake = 300;
    const handle = client.run("sum", { numbers: [1] }, { idempotencyKey: "a key" });
    leave();
    expect(handedOver()).toMatchObject([
      {
        url: server.baseURL,
        method: "POST",
        headers: { "Idempotency-Key": "a key", "X-CSRFToken": "ann", "Content-Type": "application/json" },
        credentials: "same-origin",
      },
    ]);
    await until(() => expect(server.runs).toHaveLength(1));
    expect(await handle.uuid).toBe(server.run.info.uuid); // by polling: the page is still there
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

test("an accepted run is not handed over, and neither is an attached one", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  client.attach(await handle.uuid);
  goes();
  page.show("hidden");
  expect(handedOver()).toEqual([]);
});

test("a page hands over once each time that it goes", async () => {
  server.handshake = "hang";
  client.run("sum", {});
  goes();
  page.show("hidden");
  expect(handedOver()).toHaveLength(1);
  await pause(5);
  page.show("visible"); // the page has come back
  expect(handedOver()).toHaveLength(1);
  goes();
  expect(handedOver()).toHaveLength(2);
  await until(() => expect(server.callsOf("POST")).toHaveLength(2));
  expect(server.runs).toHaveLength(1);
});

test("a start during `pagehide` is handed over at once, and none is handed over twice", async () => {
  server.handshake = "hang";
  client.run("first", {});
  page.window.addEventListener("pagehide", () => void client.run("second", {}));
  goes();
  expect(handedOver().map(({ body }) => JSON.parse(String(body)).task)).toEqual(["first", "second"]);
  await pause(5);
  client.run("third", {}); // it is still there
  expect(handedOver()).toHaveLength(2);
});

test("the first start of a page may be made during `pagehide`", () => {
  page.window.addEventListener("pagehide", () => void client.run("first", {}));
  goes();
  page.show("hidden"); // follows in every browser
  expect(handedOver()).toHaveLength(1);
});

test("the first start of a page may be made when the page is hidden already, as in `unload`", async () => {
  page.show("hidden");
  client.run("first", {});
  expect(handedOver()).toHaveLength(1);
  await pause(5);
  client.run("second", {}); // it is still there
  expect(handedOver()).toHaveLength(1);
});

test("a start that its caller has left is handed over", () => {
  client.run("sum", {}).detach();
  goes();
  expect(handedOver()).toHaveLength(1);
});

test("a start is not handed over as another user: it would be another run", async () => {
  server.handshake = "hang";
  client.run("before", {});
  page.document.cookie = "csrftoken=bob"; // a login, with which Django changes the cookie
  client.run("after", {});
  goes();
  expect(handedOver()).toMatchObject([{ headers: { "X-CSRFToken": "bob" } }]);
  expect(JSON.parse(String(handedOver()[0]?.body)).task).toBe("after");
});

test("a start with a token is handed over whatever the cookie: the token is the user", () => {
  client.options.token = "secret";
  client.run("sum", {});
  page.document.cookie = "csrftoken=bob";
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
    { url: `${server.baseURL}${server.run.info.uuid}/cancel/`, method: "POST", headers: { "X-CSRFToken": "ann" } },
  ]);
  await expect(handle).rejects.toBeInstanceOf(client.TaskCancelled);
  await cancelled;
  goes();
  expect(handedOver()).toHaveLength(1);
});

test("a cancel of an attached run without an answer is handed over", () => {
  server.handshake = "hang";
  const handle = client.attach(server.start("sum", {}, undefined).info.uuid);
  for (const promise of [handle, handle.cancel()]) promise.catch(() => {}); // the server ends with the test
  goes();
  expect(handedOver()).toMatchObject([{ url: `${server.baseURL}${server.run.info.uuid}/cancel/`, method: "POST" }]);
});

test.each([
  ["throws", () => expect.fail("no fetch here")],
  ["refuses what is too large", () => Promise.reject(new TypeError("Failed to fetch"))],
])("a `fetch` that %s when the page goes does no harm", async (_name, answer) => {
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
])("a start that %s when the page goes does not stop the others", (_name, options) => {
  vi.stubGlobal("self", { origin: new URL(server.baseURL).origin });
  client.run("first", {});
  Object.assign(client.options, options);
  client.run("second", {});
  Object.assign(client.options, { csrfToken: null, baseURL: server.baseURL });
  client.run("third", {});
  goes();
  expect(handedOver().map(({ body }) => JSON.parse(String(body)).task)).toEqual(["first", "third"]);
});

test("the client works without a page", async () => {
  vi.stubGlobal("document", undefined);
  vi.stubGlobal("addEventListener", undefined);
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

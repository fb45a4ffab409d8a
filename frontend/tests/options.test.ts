/** Named options of `run` and `attach`, and addresses with a password, against a real server. */

import { expect, test, vi } from "vitest";
import { client, serveEachTest, server, TRANSPORTS } from "./support/setup.js";

serveEachTest({ webSocket: true });

test.each(TRANSPORTS)("over %s the callbacks may be given by name", async (transport) => {
  client.options.transport = transport;
  const told: string[] = [];
  const options = {
    onStatus: () => told.push("status"),
    onSuccess: () => told.push("success"),
    onError: () => told.push("error"),
  };
  const handle = client.run("sum", { numbers: [1] }, options);
  options.onSuccess = () => told.push("changed"); // later changes do not count
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(told).toContain("status");
  expect(told.filter((name) => name !== "status")).toEqual(["success"]);
  expect(server.run.info.inputs).toEqual({ numbers: [1] });
});

test.each(TRANSPORTS)("over %s the same key gives the same run", async (transport) => {
  client.options.transport = transport;
  const first = client.run("sum", {}, { idempotencyKey: "order 7" });
  const second = client.run("sum", {}, { idempotencyKey: "order 7" });
  expect(await first.uuid).toBe(await second.uuid);
  const other = client.run("sum", {}, { idempotencyKey: null });
  await other.uuid;
  expect(server.runs).toHaveLength(2);
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([first, second, other]);
});

test.each(["", " a", "a ", "ä", "a\nb", '"quoted"', "a".repeat(256), 7])(
  "the key %j is refused, and nothing is sent",
  async (key) => {
    const handle = client.run("sum", {}, { idempotencyKey: key as string });
    await expect(handle).rejects.toThrow(/idempotencyKey is .*; expected 1 to 255/);
    expect([server.handshakes, server.calls]).toEqual([0, []]);
  },
);

test.each(["a", "a b", 'say "a"', "~!", "a".repeat(255)])("the key %j is sent as it is", async (key) => {
  const handle = client.run("sum", {}, { idempotencyKey: key });
  await handle.uuid;
  expect(server.framesOf("run")[0]?.idempotency_key).toBe(key);
  client.options.transport = "polling";
  await client.run("sum", {}, { idempotencyKey: key }).uuid;
  expect(server.callsOf("POST")[0]?.headers["idempotency-key"]).toBe(key);
  expect(server.runs).toHaveLength(1);
  server.run.finish({ outputs: {} });
});

test("a password in the page's address is left to the browser", async () => {
  const baseURI = server.baseURL.replace("://", "://user:pass@");
  vi.stubGlobal("document", { baseURI, cookie: "" });
  Object.assign(client.options, { baseURL: "/tasks/", transport: "polling" });
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  for (const { headers } of server.calls) expect(headers.authorization).toBeUndefined();
});

test.each([
  ["user:pass@", "user:pass"],
  ["us%C3%A9r:p%40ss%3A%25@", "usér:p@ss:%"],
  ["user@", "user:"],
])("a password in `baseURL`, as in %s, is sent by HTTP Basic authentication", async (address, expected) => {
  client.options.baseURL = server.baseURL.replace("://", `://${address}`);
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.handshakes).toBe(0); // a socket could not send it
  for (const { headers } of server.calls) {
    const [scheme, credentials] = String(headers.authorization).split(" ");
    expect([scheme, Buffer.from(String(credentials), "base64").toString()]).toEqual(["Basic", expected]);
  }
});

test("a token has priority over a password in `baseURL`", async () => {
  Object.assign(client.options, { baseURL: server.baseURL.replace("://", "://user:pass@"), token: "abc" });
  const handle = client.run("sum", {});
  await handle.uuid;
  expect(server.calls[0]?.headers.authorization).toBe("Token abc");
  server.run.finish({ outputs: {} });
  await handle;
});

test("a page without `Request`, as in jsdom, is polled", async () => {
  vi.stubGlobal("Request", undefined);
  client.options.transport = "polling";
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
});

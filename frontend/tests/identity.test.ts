/** A socket belongs to the user that opened it, and a page may change its user. */

import { beforeEach, expect, test, vi } from "vitest";
import { until } from "./support/client.js";
import { client, heardOf, pause, serveEachTest, server } from "./support/setup.js";

let page: { baseURI: string; cookie: string };

serveEachTest({ webSocket: true });

beforeEach(async () => {
  page = { baseURI: server.baseURL, cookie: "csrftoken=ann; other=1" };
  vi.stubGlobal("document", page);
});

const subscribed = () => server.framesOf("subscribe").map(({ uuid }) => uuid);

test.each([
  ["ann", "bob"],
  ["", "bob"],
  ["ann", ""],
])("a run is started over a new socket if the CSRF cookie was %j at the handshake and is now %j", async (then, now) => {
  page.cookie = `csrftoken=${then}`;
  const first = client.run("first", {});
  await first.uuid;
  page.cookie = `csrftoken=${now}`;
  const [old] = server.sockets;
  const used: boolean[] = [];
  server.onFrame = ({ type }, socket) => {
    if (type === "run") used.push(socket === old);
    return false;
  };
  const second = client.run("second", {});
  await second.uuid;
  expect(used).toEqual([false]);
  expect(server.handshakes).toBe(2);
  await until(() => expect(server.sockets.size).toBe(1));
  expect(subscribed()).toEqual([server.runs[0]?.info.uuid]);
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([first, second]);
  expect(server.runs).toHaveLength(2);
});

test("a cookie of another name changes nothing", async () => {
  const first = client.run("first", {});
  await first.uuid;
  page.cookie = "csrftoken=ann; other=2; csrftoken2=x";
  const second = client.run("second", {});
  await second.uuid;
  expect(server.handshakes).toBe(1);
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([first, second]);
});

test("a login during the handshake opens another socket", async () => {
  const handle = client.run("sum", {});
  page.cookie = "csrftoken=bob";
  await handle.uuid;
  expect(server.handshakes).toBe(2);
  expect(server.framesOf("run")).toHaveLength(1);
  server.run.finish({ outputs: {} });
  await handle;
});

test("a socket is not replaced while a start is under way: asked again it would be another run", async () => {
  const zeroth = client.run("zeroth", {}); // the socket works
  await zeroth.uuid;
  let hold: (() => void) | undefined;
  server.onFrame = (frame, socket) => {
    if (frame.type !== "run" || frame.task !== "first") return false;
    hold = () => server.serve(frame, socket);
    return true;
  };
  const first = client.run("first", {});
  await until(() => expect(hold).toBeDefined());
  page.cookie = "csrftoken=bob";
  const second = client.run("second", {});
  await pause(50); // time to do the wrong thing
  expect(server.handshakes).toBe(1);
  hold?.();
  await Promise.all([first.uuid, second.uuid]);
  expect(server.handshakes).toBe(2);
  expect(server.framesOf("run").map(({ task }) => task)).toEqual(["zeroth", "first", "second"]);
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([zeroth, first, second]);
});

test("a request to cancel is made as the present user", async () => {
  const handle = client.run("wait", {});
  await handle.uuid;
  page.cookie = "csrftoken=bob";
  const [old] = server.sockets;
  const used: boolean[] = [];
  server.onFrame = ({ type }, socket) => {
    if (type === "cancel") used.push(socket === old);
    return false;
  };
  await handle.cancel();
  expect(used).toEqual([false]);
  server.run.finish({ status: "cancelled" });
  await expect(handle).rejects.toMatchObject({ name: "TaskCancelled" });
});

test("a socket that the server closes with 4401 is opened again at once, and the runs go on", async () => {
  const handle = client.run("sum", {});
  const { transports } = heardOf(handle);
  await handle.uuid;
  await pause(70); // past `minUptime`
  const { timing } = await import("../src/timing.js");
  Object.assign(timing, { firstDelay: 60_000, lastDelay: 60_000 }); // any delay would be longer than the test
  for (const socket of server.sockets) socket.close(4401);
  await until(() => expect(subscribed()).toEqual([server.run.info.uuid]));
  server.run.finish({ outputs: {} });
  await handle;
  expect(transports).toEqual(["websocket"]);
});

test("starts that a socket closed with 4401 did not answer are asked for again over the next one", async () => {
  const first = client.run("first", {});
  await first.uuid;
  let closed = 0;
  server.onFrame = ({ type }, socket) => {
    if (type !== "run" || closed >= 3) return false;
    closed += 1;
    socket.close(4401);
    return true;
  };
  const second = client.run("second", {});
  await second.uuid;
  expect(server.callsOf("POST")).toEqual([]); // the frames were not the reason
  for (const run of server.runs) run.finish({ outputs: {} });
  await Promise.all([first, second]);
  expect(server.runs).toHaveLength(2);
});

test("after a logout, the error of a run says that the user has to log in, not that the run is gone", async () => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.onFrame = ({ type, ref = null }, socket) => {
    if (type !== "subscribe") return false;
    const error = { type: "error", ref, code: "not_found", reason: "not_authenticated", detail: "Not found." };
    socket.send(JSON.stringify(error));
    return true;
  };
  for (const socket of server.sockets) socket.close(4401);
  await expect(handle).rejects.toMatchObject({ status: 404, code: "not_authenticated" });
});

/** A slow server is not dead: what the limits measure, and how they grow. */

import { afterEach, expect, test, vi } from "vitest";
import { Watchdog } from "../src/rest.js";
import { timing } from "../src/timing.js";
import { setWebSocket, until } from "./support/client.js";
import { client, pause, serveEachTest, server } from "./support/setup.js";

serveEachTest({ webSocket: false });

afterEach(() => {
  vi.useRealTimers();
});

/** Whether a watchdog ends its request within `ms` milliseconds of the fake clock. */
async function endsWithin(watchdog: Watchdog, ms: number): Promise<boolean> {
  await vi.advanceTimersByTimeAsync(ms);
  return watchdog.isOver;
}

test("a request ends after 30 seconds of silence, counted from the last byte that came", async () => {
  Object.assign(timing, { request: 30_000, uploadRate: 10 });
  vi.useFakeTimers();
  const watchdog = new Watchdog();
  watchdog.begin(0);
  for (let chunk = 0; chunk < 100; chunk += 1) {
    expect(await endsWithin(watchdog, 29_000)).toBe(false);
    watchdog.heard();
  }
  expect(await endsWithin(watchdog, 31_000)).toBe(true);
  await expect(watchdog.ended).rejects.toMatchObject({ status: 0 });
});

test("a large upload is given time: a second for each 10 KB", async () => {
  Object.assign(timing, { request: 30_000, uploadRate: 10 });
  vi.useFakeTimers();
  const watchdog = new Watchdog();
  watchdog.begin(2_200_000);
  expect(await endsWithin(watchdog, 240_000)).toBe(false);
  expect(await endsWithin(watchdog, 20_000)).toBe(true);
});

test("each failure makes the next try more patient, up to eight minutes", async () => {
  Object.assign(timing, { request: 30_000 });
  vi.useFakeTimers();
  for (const [failures, seconds] of [
    [0, 30],
    [1, 60],
    [2, 120],
    [4, 480],
    [40, 480],
  ] as const) {
    const watchdog = new Watchdog(failures);
    watchdog.begin(0);
    expect(await endsWithin(watchdog, seconds * 1000 - 100)).toBe(false);
    expect(await endsWithin(watchdog, 1_000)).toBe(true);
  }
});

test("after a sleep an answer has 3 seconds to show that it comes; an upload keeps its time", async () => {
  Object.assign(timing, { request: 30_000, wake: 3_000, uploadRate: 10 });
  vi.useFakeTimers();
  const [read, upload, alive] = [new Watchdog(), new Watchdog(), new Watchdog()];
  read.begin(0);
  upload.begin(100_000);
  alive.begin(0);
  for (const watchdog of [read, upload, alive]) watchdog.hurry();
  await vi.advanceTimersByTimeAsync(2_000);
  alive.heard();
  await vi.advanceTimersByTimeAsync(2_000);
  expect([read, upload, alive].map(({ isOver }) => isOver)).toEqual([true, false, false]);
});

test("a body that comes slowly is awaited", async () => {
  timing.request = 400;
  const run = server.start("sum", {}, undefined);
  run.message("\u8a9e".repeat(100)); // the chunks split characters
  run.finish({ outputs: { sum: 1 } });
  server.onCall = (_call, response) => {
    const bytes = Buffer.from(JSON.stringify(run.after(0)));
    response.writeHead(200, { "Content-Type": "application/json" });
    void (async () => {
      const step = Math.ceil(bytes.length / 13);
      for (let at = 0; at < bytes.length; at += step) {
        response.write(bytes.subarray(at, at + step));
        await pause(100);
      }
      response.end();
    })();
    return true;
  };
  const task = await client.attach(run.info.uuid); // 1.3 seconds
  expect(task).toMatchObject({ outputs: { sum: 1 }, messages: ["\u8a9e".repeat(100)] });
  expect(server.calls).toHaveLength(1);
});

test("a body that stops coming is asked for again", async () => {
  timing.request = 200;
  const run = server.start("sum", {}, undefined);
  run.finish({ outputs: { sum: 1 } });
  let stalled = 0;
  server.onCall = (_call, response) => {
    if (stalled++ > 0) return false;
    response.writeHead(200, { "Content-Type": "application/json" });
    return response.write('{"uuid": ');
  };
  await expect(client.attach(run.info.uuid)).resolves.toMatchObject({ outputs: { sum: 1 } });
});

test("a start whose answer takes longer than the limit succeeds in the end", async () => {
  timing.request = 100;
  server.onCall = (call, response) => {
    setTimeout(() => server.respond(call, response), 500);
    return true;
  };
  const handle = client.run("sum", {});
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.runs).toHaveLength(1);
});

test("a socket is alive if events come, though its answers are late", async () => {
  setWebSocket(true);
  timing.answer = 150;
  const handle = client.run("sum", {});
  await handle.uuid;
  server.onFrame = ({ type }) => type === "ping"; // as if they waited behind many events
  for (let number = 0; number < 40; number += 1) {
    server.run.message(number);
    await pause(25);
  }
  expect(server.handshakes).toBe(1);
  server.run.finish({ outputs: {} });
  expect((await handle).messages).toHaveLength(40);
});

test("after each socket that was silent, the next one is given more time", async () => {
  setWebSocket(true);
  timing.answer = 100;
  const first = client.run("first", {});
  await first.uuid;
  const deaths: number[] = [];
  server.onFrame = (_frame, socket) => {
    if (!socket.listeners("close").includes(died)) socket.on("close", died);
    return true; // as if a large frame were on its way, which the page cannot see
  };
  let since = performance.now();
  const died = () => {
    deaths.push(performance.now() - since);
    since = performance.now();
  };
  await until(() => expect(deaths.length).toBeGreaterThan(2));
  expect(deaths[2]).toBeGreaterThan(390); // four times the limit
  server.onFrame = () => false;
  server.run.finish({ outputs: {} });
  await first;
});

test("after a handshake without an answer, the next one is given more time", async () => {
  setWebSocket(true);
  Object.assign(timing, { handshake: 100, lastDelay: 20 });
  server.handshake = "hang";
  const times: number[] = [];
  const before = WebSocket;
  vi.stubGlobal(
    "WebSocket",
    class extends before {
      constructor(url: string, protocol: string) {
        super(url, protocol);
        const since = performance.now();
        const { close } = this;
        this.close = (code?: number) => {
          times.push(performance.now() - since);
          close.call(this, code);
        };
      }
    },
  );
  const handle = client.run("sum", {});
  await until(() => expect(times.length).toBeGreaterThan(2));
  expect(times[2]).toBeGreaterThan(390);
  server.run.finish({ outputs: {} });
  await handle;
});

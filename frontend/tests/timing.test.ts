/** Limits in a page that may be busy or asleep. */

import { afterEach, expect, test, vi } from "vitest";
import { limit, timing } from "../src/timing.js";
import { until } from "./support/client.js";
import { client, pause, serveEachTest, server } from "./support/setup.js";

afterEach(() => {
  vi.useRealTimers();
});

/** Blocks timers and sockets. */
function busy(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

test("a limit expires after its time", () => {
  vi.useFakeTimers();
  const expired = vi.fn();
  limit(4_000, expired);
  vi.advanceTimersByTime(3_999);
  expect(expired).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(expired).toHaveBeenCalledOnce();
  vi.advanceTimersByTime(60_000);
  expect(expired).toHaveBeenCalledOnce();
  expect(vi.getTimerCount()).toBe(0);
});

test("a limit that is ended leaves no timer", () => {
  vi.useFakeTimers();
  limit(4_000, vi.fn())();
  expect(vi.getTimerCount()).toBe(0);
});

test.each([
  [4_000, 1_000],
  [50, 50],
])("a limit of %i ms that is late waits %i ms for what came in the meantime", (ms, grace) => {
  let now = 0;
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
  const expired = vi.fn();
  const advance = (passed: number, late = 0) => {
    now += passed + late;
    vi.advanceTimersByTime(passed);
  };
  limit(ms, expired);
  advance(ms, 5_000);
  expect(expired).not.toHaveBeenCalled();
  advance(grace - 1);
  expect(expired).not.toHaveBeenCalled();
  advance(1);
  expect(expired).toHaveBeenCalledOnce();
  clock.mockRestore();
});

test("a limit expires even if every timer is late, as in a hidden page", () => {
  let now = 0;
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
  const expired = vi.fn();
  limit(4_000, expired);
  for (let second = 0; second < 12; second += 1) {
    now += 2_000;
    vi.advanceTimersByTime(1_000);
  }
  expect(expired).toHaveBeenCalledOnce();
  clock.mockRestore();
});

serveEachTest({ webSocket: true });

test("a page that is busy while its socket opens is not polled", async () => {
  timing.handshake = 100;
  const handle = client.run("sum", {});
  await Promise.resolve();
  busy(300);
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.handshakes).toBe(1);
  expect(server.calls).toEqual([]);
});

test("a page that is busy while late answers come keeps its socket", async () => {
  timing.answer = 100;
  const handle = client.run("sum", {});
  await handle.uuid;
  const held: (() => void)[] = [];
  server.onFrame = (frame, socket) => {
    if (frame.type !== "ping") return false;
    return held.push(() => server.serve(frame, socket)) > 0;
  };
  await until(() => expect(held).toHaveLength(2)); // the first has been seen to wait
  server.onFrame = () => false;
  for (const answer of held) answer();
  busy(250);
  await pause(timing.answer * 2);
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.handshakes).toBe(1);
});

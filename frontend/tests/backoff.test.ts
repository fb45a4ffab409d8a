/** When to try again, and whether. */

import { expect, test, vi } from "vitest";
import { backoff, mayRetry, soon } from "../src/backoff.js";
import { RequestError, StrangeAnswer } from "../src/errors.js";

const least = () => 0;
const most = () => 1;

test("delays double up to the cap, and half of each is by chance", () => {
  const steps = [0, 1, 2, 3, 4, 5, 6, 7, 100, 2000];
  expect(steps.map((failures) => backoff(failures, most))).toEqual([
    500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000,
  ]);
  expect(steps.map((failures) => backoff(failures, least))).toEqual([
    250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000, 15_000,
  ]);
});

test("clients of one server do not all come back at once", () => {
  const delays = new Set(Array.from({ length: 20 }, () => backoff(3)));
  expect(delays.size).toBeGreaterThan(10);
});

test("a server that has shut down in order is called again within half a second", () => {
  expect([soon(least), soon(most)]).toEqual([0, 500]);
});

test("a timer can wait for every delay", () => {
  vi.useFakeTimers();
  const fired = vi.fn();
  setTimeout(fired, backoff(1000));
  vi.advanceTimersByTime(30_000);
  expect(fired).toHaveBeenCalledOnce();
  vi.useRealTimers();
});

test.each([
  // [status, started, failures, tried again]
  [0, false, 1000, true], // no answer
  [0, true, 1000, true],
  [500, false, 4, true],
  [500, false, 5, false],
  [503, true, 1000, true],
  [429, false, 1, false], // throttled: the caller should know
  [429, true, 1000, true], // a run does not end by that
  [400, false, 1, false],
  [400, true, 1000, true],
  [413, true, 1000, true],
  [401, true, 1, false],
  [403, true, 1, false],
  [404, true, 1, false],
  [410, true, 1, false],
  [413, false, 1, false],
  [422, false, 1, false],
])("our status %i, started %s, failure %i: tried again %s", (status, started, failures, again) => {
  expect(mayRetry(new RequestError(status, ""), started, failures)).toBe(again);
});

test.each([200, 302, 400, 401, 403, 404, 407, 408, 410, 413, 429, 500, 502])(
  "a %i that is not the API's is no answer about a run that has started; a start is given up after five",
  (status) => {
    const error = new StrangeAnswer(status, "");
    expect(mayRetry(error, true, 1000)).toBe(true);
    expect(mayRetry(error, false, 4)).toBe(true);
    expect(mayRetry(error, false, 5)).toBe(false);
  },
);

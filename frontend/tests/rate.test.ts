/** The rate of the last seconds. */

import { expect, test } from "vitest";
import { Rate } from "../src/rate.js";

function rateOf(...samples: [at: number, value: number][]): number | null {
  const rate = new Rate();
  for (const [at, value] of samples) rate.add(at, value);
  return rate.value;
}

test("it is unknown for two seconds", () => {
  expect(rateOf()).toBeNull();
  expect(rateOf([0, 0])).toBeNull();
  expect(rateOf([0, 0], [900, 500], [1800, 600])).toBeNull();
  expect(rateOf([0, 0], [900, 500], [1900, 600])).toBe(100);
});

test("what has left in the first second does not count", () => {
  expect(rateOf([0, 0], [10, 4_000_000], [500, 4_000_050], [2500, 4_000_250])).toBe(100);
});

test("it is a second's, over the last five", () => {
  expect(rateOf([0, 0], [900, 0], [1900, 200], [3900, 600])).toBe(200);
  expect(rateOf([0, 0], [900, 0], [1900, 5000], [2900, 5100], [4900, 5300], [6900, 5500], [7900, 5600])).toBe(100);
});

test("a pause longer than the window leaves the last two", () => {
  expect(rateOf([0, 0], [900, 0], [1900, 1000], [21_900, 2000])).toBe(50);
});

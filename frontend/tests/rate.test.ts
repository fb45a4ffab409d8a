/** The rate of the last seconds. */

import { expect, test } from "vitest";
import { Rate } from "../src/rate.js";

function rateOf(...samples: [at: number, value: number][]): number | null {
  const rate = new Rate();
  for (const [at, value] of samples) rate.add(at, value);
  return rate.value;
}

test("it is unknown for a second", () => {
  expect(rateOf()).toBeNull();
  expect(rateOf([0, 0])).toBeNull();
  expect(rateOf([0, 0], [999, 500])).toBeNull();
  expect(rateOf([0, 0], [1000, 500])).toBe(500);
});

test("it is a second's, over the last five", () => {
  expect(rateOf([0, 0], [2000, 400], [4000, 800])).toBe(200);
  expect(rateOf([0, 0], [1000, 5000], [2000, 5100], [4000, 5300], [6000, 5500], [7000, 5600])).toBe(100);
});

test("a pause longer than the window leaves the last two", () => {
  expect(rateOf([0, 0], [1000, 1000], [21_000, 2000])).toBe(50);
});

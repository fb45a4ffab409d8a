/** Everything that depends on where the script runs. */

import { expect, test, vi } from "vitest";
import { newKey, readCookie, report, resolveBase } from "../src/platform.js";

const V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("a key is a UUID (version 4) in every context", () => {
  expect(newKey()).toMatch(V4);
  const { getRandomValues } = crypto;
  vi.stubGlobal("crypto", { getRandomValues: getRandomValues.bind(crypto) }); // not a secure context
  expect(newKey()).toMatch(V4);
  vi.stubGlobal("crypto", undefined);
  expect(newKey()).toMatch(V4);
  expect(newKey()).not.toBe(newKey());
});

test.each([
  ["/tasks/", "https://example.com/page/", "https://example.com/tasks/"],
  ["tasks", "https://example.com/app/page.html", "https://example.com/app/tasks/"],
  ["/task-api/tasks", "http://localhost:8000/", "http://localhost:8000/task-api/tasks/"],
  ["https://api.example.com/tasks/", "https://example.com/", "https://api.example.com/tasks/"],
])("baseURL %s on %s is %s", (baseURL, baseURI, expected) => {
  vi.stubGlobal("document", { baseURI });
  expect(resolveBase(baseURL)).toBe(expected);
});

test("in a worker, its own address replaces the page's", () => {
  vi.stubGlobal("location", { href: "https://example.com/static/worker.js" });
  expect(resolveBase("/tasks/")).toBe("https://example.com/tasks/");
});

test("cookies are found by their whole name, and decoded", () => {
  vi.stubGlobal("document", { cookie: "xcsrftoken=no; csrftoken=a%20b=c; broken=%E0%A4%A; empty=" });
  expect(readCookie("csrftoken")).toBe("a b=c");
  expect(readCookie("broken")).toBe("%E0%A4%A");
  expect(readCookie("empty")).toBe("");
  expect(readCookie("token")).toBeNull();
});

test("without a page there are no cookies", () => {
  expect(readCookie("csrftoken")).toBeNull();
});

test("errors of callbacks go to reportError, else to the console", () => {
  const error = new Error("theirs");
  const console_error = vi.spyOn(console, "error").mockImplementation(() => {});
  report(error);
  expect(console_error).toHaveBeenCalledWith(error);
  const reportError = vi.fn();
  vi.stubGlobal("reportError", reportError);
  report(error);
  expect(reportError).toHaveBeenCalledWith(error);
  console_error.mockRestore();
});

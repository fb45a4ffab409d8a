/** Answers that are not the API's: of proxies, portals and login pages. And the codes of the API's own refusals. */

import { expect, test, vi } from "vitest";
import type { RequestError } from "../src/errors.js";
import { setWebSocket, until } from "./support/client.js";
import { json } from "./support/server.js";
import { client, serveEachTest, server } from "./support/setup.js";

serveEachTest({ webSocket: false });

const STRANGERS: [number, string, string][] = [
  [200, "text/html", "<title>Welcome to our hotel</title>"],
  [200, "application/json", '{"status": "ok"}'],
  [200, "application/json", "null"],
  [302, "text/html", ""],
  [400, "text/plain", "Bad request"],
  [401, "text/html", "<h1>Log in</h1>"],
  [403, "text/html", "<h1>Blocked</h1>"],
  [404, "text/plain", "404 page not found"],
  [404, "application/json", '{"error": {"code": 404}}'],
  [404, "application/json", '{"detail": ["no route"]}'],
  [407, "text/html", ""],
  [410, "text/html", "<h1>Gone</h1>"],
  [413, "text/html", "<h1>Too large</h1>"],
  [502, "text/html", "<h1>Bad gateway</h1>"],
];

/** Gives that answer to some calls of that method; returns a function that tells how many are left. */
function estrange([status, type, body]: [number, string, string], method: string, calls = 6): () => number {
  let left = calls;
  server.onCall = (call, response) => {
    if (call.method !== method || left === 0) return false;
    left -= 1;
    const headers = { "Content-Type": type, ...(status === 302 ? { Location: "/login/" } : {}) };
    response.writeHead(status, headers).end(body);
    return true;
  };
  return () => left;
}

test.each(STRANGERS)("%i %s %s during a run is waited out", async (...stranger) => {
  const handle = client.run("sum", {});
  await handle.uuid;
  const left = estrange(stranger, "GET");
  await until(() => expect(left()).toBe(0));
  server.run.message("later");
  server.run.finish({ outputs: { sum: 1 } });
  await expect(handle).resolves.toMatchObject({ messages: ["later"], outputs: { sum: 1 } });
});

test("the representation of another run is no answer", async () => {
  const other = server.start("other", {}, undefined);
  other.info.status = "succeeded";
  const handle = client.attach(server.start("sum", {}, undefined).info.uuid);
  let strange = 3;
  server.onCall = (_call, response) => {
    if (strange-- <= 0) return false;
    json(response, 200, other.after(0));
    return true;
  };
  await until(() => expect(strange).toBeLessThan(0));
  server.runs[1]?.finish({ outputs: { sum: 1 } });
  expect((await handle).uuid).toBe(server.runs[1]?.info.uuid);
});

test.each(STRANGERS)("%i %s %s to a request to cancel is waited out", async (...stranger) => {
  const handle = client.run("wait", {});
  await handle.uuid;
  const left = estrange(stranger, "POST");
  await handle.cancel();
  expect(left()).toBe(0);
  expect(server.run.info.cancel_requested).toBe(true);
  server.run.finish({ status: "cancelled" });
  await expect(handle).rejects.toMatchObject({ name: "TaskCancelled" });
});

test.each(STRANGERS)("%i %s %s to a start is asked again, and the run is started once", async (...stranger) => {
  const left = estrange(stranger, "POST", 3);
  const handle = client.run("sum", {});
  await handle.uuid;
  expect(left()).toBe(0);
  server.run.finish({ outputs: {} });
  await handle;
  expect(server.runs).toHaveLength(1);
});

test("a login page on another origin looks like no answer, but is told in the end", async () => {
  const reached = client.run("first", {});
  await reached.uuid;
  let redirected = true;
  server.onCall = ({ method }, response) => {
    if (method !== "POST" || !redirected) return false;
    response.writeHead(302, { Location: "http://127.0.0.1:1/login/" }).end(); // refused, as by CORS in a browser
    return true;
  };
  await expect(client.run("sum", {})).rejects.toMatchObject({ name: "RequestError", status: 302 });
  redirected = false;
  server.run.finish({ outputs: {} });
  await reached;
});

test.each([
  [401, { detail: "Who are you?", code: "not_authenticated" }, "not_authenticated"],
  [403, { detail: "Not you.", code: "authentication_failed" }, "authentication_failed"],
  [403, { detail: "Not you." }, "permission_denied"],
  [404, { detail: "Not found.", code: "not_authenticated" }, "not_authenticated"],
  [404, { detail: "Not found.", code: "not_found" }, "not_found"],
  [404, { detail: "Not found." }, "not_found"],
  [410, { detail: "It is gone." }, null],
])("the API's %i %j ends a run with the code %s", async (status, body, code) => {
  const handle = client.run("sum", {});
  await handle.uuid;
  server.answerCalls(status, body);
  await expect(handle).rejects.toMatchObject({ name: "RequestError", status, detail: body.detail, code });
});

test.each([
  ["not_found", undefined, 404, "not_found"],
  ["not_found", "not_authenticated", 404, "not_authenticated"],
  ["permission_denied", undefined, 403, "permission_denied"],
])(
  "an error frame with the code %s and the reason %s is a %i with the code %s",
  async (code, reason, status, expected) => {
    setWebSocket(true);
    server.refuseFrames("subscribe", { code, reason, detail: "No." });
    const error = client.attach("0b2f5f0e-7ad7-4bbf-9d53-5b3a1f1d8b0e");
    await expect(error).rejects.toMatchObject({ status, code: expected });
  },
);

test("a refusal to start has the server's code", async () => {
  const body = { detail: "Request was throttled.", code: "throttled" };
  server.answerCalls(429, body);
  await expect(client.run("sum", {})).rejects.toMatchObject({ status: 429, code: "throttled" });
});

test("a run without a valid uuid is not found", async () => {
  const error = await client.attach("nonsense").catch((error: RequestError) => error);
  expect(error).toMatchObject({ status: 404, code: "not_found" });
});

// CSRF

/** The page's elements, by selector. */
const pageWith = (elements: Record<string, object>, cookie = "") => ({
  baseURI: server.baseURL,
  cookie,
  querySelector: (selector: string) => elements[selector] ?? null,
});
const META = 'meta[name="csrf-token"]';
const FIELD = "input[name=csrfmiddlewaretoken]";

test.each([
  ["the cookie", "csrftoken=cookie", { [META]: { content: "meta" }, [FIELD]: { value: "field" } }, null, "cookie"],
  ["the meta tag", "", { [META]: { content: "meta" }, [FIELD]: { value: "field" } }, null, "meta"],
  ["the form field", "", { [FIELD]: { value: "field" } }, null, "field"],
  ["the option", "csrftoken=cookie", { [META]: { content: "meta" } }, "given", "given"],
  ["the option's function", "csrftoken=cookie", {}, () => "made", "made"],
  ["the cookie if the option gives none", "csrftoken=cookie", {}, () => null, "cookie"],
  ["nothing", "", {}, null, undefined],
])("the CSRF token comes from %s", async (_name, cookie, elements, csrfToken, expected) => {
  vi.stubGlobal("document", pageWith(elements as Record<string, object>, cookie));
  client.options.csrfToken = csrfToken;
  const handle = client.run("sum", {});
  await handle.uuid;
  await handle.cancel();
  server.run.finish({ outputs: {} });
  await handle;
  for (const { headers } of server.callsOf("POST")) expect(headers["x-csrftoken"]).toBe(expected);
  for (const { headers } of server.callsOf("GET")) expect(headers).not.toHaveProperty("x-csrftoken");
});

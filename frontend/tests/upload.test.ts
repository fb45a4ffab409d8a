/** Files among the inputs: they are uploaded first, told of, and given up, against a real server. */

import { beforeEach, describe, expect, test, vi } from "vitest";
import type { TaskHandle } from "../src/handle.js";
import { timing } from "../src/timing.js";
import type { UploadEvent } from "../src/upload.js";
import { stubPage } from "./support/page.js";
import { json } from "./support/server.js";
import { client, serveEachTest, server, settled, TRANSPORTS } from "./support/setup.js";
import { stubXHR } from "./support/xhr.js";

serveEachTest({ webSocket: true });
beforeEach(stubXHR);

const MB = 2 ** 20;
const csv = (text = "a;b", name = "data.csv") => new File([text], name, { type: "text/csv" });
const large = (name = "large.bin") => new File([new Uint8Array(MB)], name);
const ZEROS = new Uint8Array(32 * MB); // more than the system buffers of a connection
const huge = () => new File([ZEROS], "huge.bin");

function heard(handle: TaskHandle): UploadEvent[] {
  const events: UploadEvent[] = [];
  handle.on("upload", (event) => events.push(event));
  return events;
}

/** Refuses every upload from now on, after its body. */
function refuse(status: number, body: unknown, headers: Record<string, string> = {}): void {
  server.onUpload = (request, response) => {
    request.resume().on("end", () => {
      const text = typeof body === "string" ? body : JSON.stringify(body);
      const type = typeof body === "string" ? "text/html" : "application/json";
      response.writeHead(status, { "Content-Type": type, ...headers }).end(text);
    });
    return true;
  };
}

interface Stalled {
  /** Ends the connection. */
  cut: () => void;
  /** Reads on; resolves when the connection has ended, with whether all of the request had come. */
  whole: () => Promise<boolean>;
}

/** Reads the beginning of an upload, and then nothing; resolves when one has come. */
function stall(): Promise<Stalled> {
  return new Promise((resolve) => {
    server.onUpload = (request) => {
      const ended = new Promise<boolean>((resolve) => {
        request.on("error", () => {}).on("close", () => resolve(request.complete));
      });
      const whole = () => {
        request.resume();
        return ended;
      };
      request.once("data", () => {
        request.pause();
        resolve({ cut: () => request.socket.destroy(), whole });
      });
      return true;
    };
  });
}

async function ends(handle: TaskHandle): Promise<void> {
  await handle.uuid;
  server.run.finish({ outputs: {} });
  await handle;
}

/** The inputs of each start that has reached the server. */
const starts = () => [
  ...server.framesOf("run").map(({ inputs }) => inputs),
  ...server.callsOf("POST").map(({ body }) => JSON.parse(body).inputs),
];

test.each(TRANSPORTS)("over %s a file is uploaded, and its reference is the input", async (transport) => {
  client.options.transport = transport;
  const handle = client.run("import", { file: csv(), limit: 3 });
  await ends(handle);
  expect(server.uploads).toMatchObject([{ name: "data.csv", type: "text/csv", text: "a;b" }]);
  expect(starts()).toEqual([{ file: { upload: "ref-0" }, limit: 3 }]);
});

test.each(TRANSPORTS)("over %s a start that is tried again has the same upload and key", async (transport) => {
  client.options.transport = transport;
  let failures = 2;
  server.onFrame = ({ type }, socket) => {
    if (type !== "run" || failures === 0) return false;
    failures -= 1;
    socket.terminate();
    return true;
  };
  server.onCall = ({ method }, response) => {
    if (method !== "POST" || failures === 0) return false;
    failures -= 1;
    response.destroy();
    return true;
  };
  const handle = client.run("import", { file: csv() }, { idempotencyKey: "mine" });
  await ends(handle);
  expect(server.uploads).toHaveLength(1);
  expect(starts()).toEqual(Array(3).fill({ file: { upload: "ref-0" } }));
  const keys = [
    ...server.framesOf("run").map(({ idempotency_key }) => idempotency_key),
    ...server.callsOf("POST").map(({ headers }) => headers["idempotency-key"]),
  ];
  expect(keys).toEqual(["mine", "mine", "mine"]);
});

test("the items of a list are uploaded one after the other, in their order", async () => {
  const handle = client.run("import", { first: csv("1"), files: [csv("2", "b.csv"), "text", csv("3", "c.csv")] });
  await ends(handle);
  expect(server.uploads.map(({ text }) => text)).toEqual(["1", "2", "3"]);
  expect(starts()).toEqual([{ first: { upload: "ref-0" }, files: [{ upload: "ref-1" }, "text", { upload: "ref-2" }] }]);
});

test("a FileList is a list of files", async () => {
  const files = Object.assign([csv("1"), csv("2")], { [Symbol.toStringTag]: "FileList" });
  await ends(client.run("import", { files }));
  expect(starts()).toEqual([{ files: [{ upload: "ref-0" }, { upload: "ref-1" }] }]);
});

test("a file of no bytes is uploaded", async () => {
  const handle = client.run("import", { file: csv("") });
  const events = heard(handle);
  await ends(handle);
  expect(server.uploads).toMatchObject([{ text: "" }]);
  expect(events.map(({ loaded, total, fraction }) => [loaded, total, fraction])).toEqual([
    [0, 0, 0],
    [0, 0, 1],
  ]);
});

test.each([
  ["image/png", "photo.png"],
  ["text/plain;charset=utf-8", "photo.txt"],
  ["image/svg+xml", "photo.svg"],
  ["audio/webm;codecs=opus", "photo.webm"],
  ["application/x-tar", "photo.tar"],
  ["application/octet-stream", "photo"],
  ["", "photo"],
])("a Blob of type '%s' is called %s", async (type, name) => {
  await ends(client.run("import", { photo: new Blob(["x"], { type }) }));
  expect(server.uploads).toMatchObject([{ name, text: "x" }]);
});

test.each<[string, object]>([
  ["inputs", csv()],
  ["inputs.options.logo", { options: { logo: csv() } }],
  ["inputs.rows.0.file", { rows: [{ file: csv() }] }],
  ["inputs.rows.0.1", { rows: [["a", csv()]] }],
])("a file at %s is refused, and nothing is sent", async (path, inputs) => {
  const error = await client.run("import", inputs).catch((error: Error) => error);
  expect(error).toBeInstanceOf(TypeError);
  expect(String(error)).toContain(`There is a file at ${path}. Expected`);
  expect([server.uploads.length, server.calls.length, server.handshakes]).toEqual([0, 0, 0]);
});

test("a later change of the inputs changes nothing", async () => {
  const inputs: Record<string, unknown> = { file: csv("old"), limit: 1 };
  const handle = client.run("import", inputs);
  Object.assign(inputs, { file: csv("new"), limit: 2 });
  await ends(handle);
  expect(server.uploads).toMatchObject([{ text: "old" }]);
  expect(starts()).toEqual([{ file: { upload: "ref-0" }, limit: 1 }]);
});

test("the events go from nothing to everything, over all files, and never backwards", async () => {
  const handle = client.run("import", { first: large("a.bin"), files: [large("b.bin")] });
  const events = heard(handle);
  await ends(handle);
  expect(events[0]).toEqual({
    type: "upload",
    input: "first",
    file: "a.bin",
    loaded: 0,
    total: 2 * MB,
    fraction: 0,
    rate: null,
    eta: null,
  });
  expect(events.at(-1)).toMatchObject({ input: "files", file: "b.bin", loaded: 2 * MB, fraction: 1, eta: 0 });
  const loaded = events.map((event) => event.loaded);
  expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
  expect(new Set(loaded).size).toBeGreaterThan(10);
  for (const event of events) expect(event).toMatchObject({ total: 2 * MB, fraction: event.loaded / (2 * MB) });
});

test("the last event comes when the server has the files, and before the run is accepted", async () => {
  const told: string[] = [];
  const handle = client.run("import", { file: csv() }, () => told.push("status"));
  handle.on("upload", ({ eta }) => told.push(eta === 0 ? `end after ${server.uploads.length}` : "upload"));
  await ends(handle);
  expect(told.filter((what) => what !== "upload").slice(0, 2)).toEqual(["end after 1", "status"]);
});

test("without XMLHttpRequest the files go by fetch: the first event and the last are told", async () => {
  vi.stubGlobal("XMLHttpRequest", undefined);
  const handle = client.run("import", { file: large() });
  const events = heard(handle);
  await ends(handle);
  expect(events.map(({ loaded, fraction }) => [loaded, fraction])).toEqual([
    [0, 0],
    [MB, 1],
  ]);
  expect(starts()).toEqual([{ file: { upload: "ref-0" } }]);
});

test("an upload has the CSRF token and the token of other calls", async () => {
  vi.stubGlobal("document", { baseURI: server.baseURL, cookie: "csrftoken=abc" });
  client.options.token = "secret";
  await ends(client.run("import", { file: csv() }));
  expect(server.uploads[0]?.headers).toMatchObject({
    accept: "application/json",
    authorization: "Token secret",
    "x-csrftoken": "abc",
  });
});

describe.each(TRANSPORTS)("over %s", (transport) => {
  beforeEach(() => {
    client.options.transport = transport;
  });

  test("an aborted signal ends the upload, and no run is started", async () => {
    const stalled = stall();
    const controller = new AbortController();
    const onError = vi.fn();
    const handle = client.run("import", { file: huge() }, { signal: controller.signal, onError });
    const { whole } = await stalled;
    controller.abort("enough");
    expect(await whole()).toBe(false);
    const error = await handle.catch((error: Error) => error);
    expect(error).toMatchObject({ name: "AbortError", cause: "enough" });
    expect(String(error)).toContain("no run was started");
    expect(onError.mock.calls).toEqual([[error]]);
    await expect(handle.uuid).rejects.toBe(error);
    await settled();
    expect([server.uploads.length, server.calls.length, server.handshakes]).toEqual([0, 0, 0]);
  });

  test("`cancel` ends the upload, resolves however often it is called, and the handle rejects", async () => {
    const stalled = stall();
    const handle = client.run("import", { file: huge() });
    const outcome = handle.catch((error: Error) => error);
    const { whole } = await stalled;
    await Promise.all([handle.cancel(), handle.cancel()]);
    expect(await whole()).toBe(false);
    expect(await outcome).toMatchObject({ name: "AbortError" });
    await expect(handle.uuid).rejects.toBe(await outcome);
    await handle.cancel();
    expect([server.uploads.length, server.calls.length, server.handshakes]).toEqual([0, 0, 0]);
  });

  test("`detach` ends the upload, and nothing more is told", async () => {
    const stalled = stall();
    const onError = vi.fn();
    const handle = client.run("import", { file: huge() }, { onError });
    const { whole } = await stalled;
    const events = heard(handle);
    handle.detach();
    expect(await whole()).toBe(false);
    await expect(handle.uuid).rejects.toMatchObject({ name: "AbortError" });
    await expect(handle.cancel()).rejects.toMatchObject({ name: "AbortError" });
    expect(onError).not.toHaveBeenCalled();
    expect(events).toEqual([]);
    expect([server.uploads.length, server.calls.length, server.handshakes]).toEqual([0, 0, 0]);
  });

  test("a listener of the last event may cancel: no run is started", async () => {
    const handle = client.run("import", { file: csv() });
    const outcome = handle.catch((error: Error) => error);
    handle.on("upload", ({ eta }) => {
      if (eta === 0) void handle.cancel();
    });
    expect(await outcome).toMatchObject({ name: "AbortError" });
    await settled();
    expect(server.uploads).toHaveLength(1);
    expect([server.calls.length, server.handshakes]).toEqual([0, 0]);
  });

  test("a listener of the first event of a file may cancel: the file is not sent", async () => {
    const handle = client.run("import", { files: [csv("1"), csv("2", "b.csv")] });
    const outcome = handle.catch((error: Error) => error);
    handle.on("upload", ({ file }) => {
      if (file === "b.csv") void handle.cancel();
    });
    expect(await outcome).toMatchObject({ name: "AbortError" });
    await settled();
    expect(server.uploads.map(({ text }) => text)).toEqual(["1"]);
    expect([server.calls.length, server.handshakes]).toEqual([0, 0]);
  });

  test("a `cancel` in the moment of the answer ends it, and no run is started", async () => {
    vi.stubGlobal(
      "XMLHttpRequest",
      class extends XMLHttpRequest {
        override getAllResponseHeaders(): string {
          void handle.cancel();
          return super.getAllResponseHeaders();
        }
      },
    );
    const handle: TaskHandle = client.run("import", { file: csv() });
    const events = heard(handle);
    expect(await handle.catch((error: Error) => error)).toMatchObject({ name: "AbortError" });
    await settled();
    expect(server.uploads).toHaveLength(1);
    expect(events.every(({ eta }) => eta === null)).toBe(true);
    expect([server.calls.length, server.handshakes]).toEqual([0, 0]);
  });

  test("after the upload `cancel` is a request to cancel the run", async () => {
    server.onCancel = (run) => run.finish({ status: "cancelled" });
    const handle = client.run("import", { file: csv() });
    const outcome = handle.catch((error: Error) => error);
    await handle.uuid;
    await handle.cancel();
    expect(await outcome).toBeInstanceOf(client.TaskCancelled);
  });

  test("a cut rejects, nothing is tried again, and the user may begin again", async () => {
    const stalled = stall();
    const handle = client.run("import", { file: huge() });
    const outcome = handle.catch((error: Error) => error);
    const { cut } = await stalled;
    cut();
    const error = await outcome;
    expect(error).toMatchObject({ name: "RequestError", status: 0 });
    expect(String(error)).toMatch(/"huge.bin" \(33554432 bytes\) was not uploaded: no answer .* Nothing is kept/);
    await expect(handle.cancel()).rejects.toBe(error);
    expect([server.uploads.length, server.calls.length, server.handshakes]).toEqual([0, 0, 0]);
    server.onUpload = () => false;
    await ends(client.run("import", { file: csv() }));
    expect(starts()).toEqual([{ file: { upload: "ref-0" } }]);
  });
});

test("an aborted signal before the call sends nothing", async () => {
  const handle = client.run("import", { file: csv() }, { signal: AbortSignal.abort() });
  await expect(handle).rejects.toMatchObject({ name: "AbortError" });
  await settled();
  expect([server.uploads.length, server.calls.length]).toEqual([0, 0]);
});

test("`cancel` at once sends nothing", async () => {
  const handle = client.run("import", { file: csv() });
  const outcome = handle.catch((error: Error) => error);
  await handle.cancel();
  expect(await outcome).toMatchObject({ name: "AbortError" });
  await settled();
  expect([server.uploads.length, server.calls.length]).toEqual([0, 0]);
});

test.each<[number, unknown, RegExp, Record<string, string>?]>([
  [413, { detail: "The file is too large: 5 bytes is the limit.", code: "too_large" }, /5 bytes.*raise `upload_bytes`/],
  [413, "<h1>413</h1>", /client_max_body_size/],
  [400, { file: ["Expected one file, in a field that is named `file`."] }, /file: Expected one file/],
  [415, { detail: "Unsupported media type." }, /Unsupported media type/],
  [429, { detail: "You have 50 uploads that no run uses.", code: "too_many" }, /You have 50 uploads/],
  [403, { detail: "CSRF Failed: CSRF token missing." }, /CSRF token missing.*task_script/],
  [401, { detail: "Authentication credentials were not provided.", code: "not_authenticated" }, /were not provided/],
  [
    503,
    { detail: "Not now.", code: "unavailable" },
    /Not now. Expected to be back in 7 seconds/,
    { "Retry-After": "7" },
  ],
  [502, "<h1>Bad gateway</h1>", /Expected an answer of the task API .* got 502/],
  [200, "<h1>Log in</h1>", /There is no Django Task API/],
  [404, "<h1>Not Found</h1>", /There is no Django Task API/],
])("an upload that is answered %i %j is rejected, and says why", async (status, body, sentence, headers) => {
  refuse(status, body, headers);
  const onError = vi.fn();
  const error = await client.run("import", { file: csv() }, { onError }).catch((error: Error) => error);
  expect(error).toBeInstanceOf(client.RequestError);
  expect(error).toMatchObject({ status });
  expect(String(error)).toMatch(/^RequestError: "data.csv" \(3 bytes\) was not uploaded\. /);
  expect(String(error)).toMatch(sentence);
  expect(onError.mock.calls).toEqual([[error]]);
  await settled();
  expect([server.calls.length, server.handshakes]).toEqual([0, 0]);
});

test("if the second file is refused, no run is started", async () => {
  server.onUpload = (_request, response) => {
    if (server.uploads.length === 0) return false;
    json(response, 429, { detail: "Too many.", code: "too_many" });
    return true;
  };
  const error = await client.run("import", { files: [csv("1"), csv("2", "b.csv")] }).catch((error: Error) => error);
  expect(error).toMatchObject({ status: 429, code: "too_many", detail: "Too many." });
  expect(String(error)).toContain('"b.csv"');
  expect(server.uploads).toHaveLength(1);
  expect(server.calls).toHaveLength(0);
});

test("a silent server is given up", async () => {
  timing.request = 50;
  timing.uploadRate = 1e6;
  stall();
  await expect(client.run("import", { file: huge() })).rejects.toMatchObject({ name: "RequestError", status: 0 });
});

test("an upload of which nothing ever leaves is given up", async () => {
  timing.request = 50;
  timing.uploadRate = 1e6;
  vi.stubGlobal(
    "XMLHttpRequest",
    class extends XMLHttpRequest {
      override send(): void {}
    },
  );
  const error = await client.run("import", { file: csv() }).catch((error: Error) => error);
  expect(error).toMatchObject({ name: "RequestError", status: 0 });
  expect(String(error)).toContain("0 bytes of it had left");
});

test("an option that cannot be used rejects before anything is sent", async () => {
  const file = csv();
  await expect(client.run("import", { file }, { idempotencyKey: "ä" })).rejects.toThrow("idempotencyKey");
  client.options.token = "a\nb";
  await expect(client.run("import", { file })).rejects.toThrow(TypeError);
  expect(server.uploads).toHaveLength(0);
});

test("a page that goes away during an upload starts nothing", async () => {
  const page = stubPage(server.baseURL);
  await ends(client.run("sum", {})); // so that the client listens
  const stalled = stall();
  const outcome = client.run("import", { file: huge() }).catch((error: Error) => error);
  const { cut } = await stalled;
  page.window.dispatchEvent(new Event("pagehide"));
  cut();
  expect(await outcome).toMatchObject({ status: 0 });
  expect(starts()).toEqual([{}]);
});

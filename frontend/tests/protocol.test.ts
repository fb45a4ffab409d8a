/** The wire protocol, by the golden frames that server and client share. */

import { expect, test } from "vitest";
import {
  type ClientFrame,
  cancelFrame,
  detailOf,
  isFinal,
  parseServerFrame,
  pingFrame,
  runFrame,
  statusOf,
  subscribeFrame,
  unsubscribeFrame,
} from "../src/protocol.js";
import { goldenFrames } from "./support/frames.js";

const goldens = goldenFrames();

const OURS: Record<string, ClientFrame> = {
  run: runFrame("1", "sum", { numbers: [1, 2] }, "a-key"),
  subscribe: subscribeFrame("2", "6b0f3a4e-0000-4000-8000-000000000000", 3),
  unsubscribe: unsubscribeFrame("3", "6b0f3a4e-0000-4000-8000-000000000000"),
  cancel: cancelFrame("3", "6b0f3a4e-0000-4000-8000-000000000000"),
  ping: pingFrame("4"),
};

const fields = (frame: object) =>
  Object.entries(frame)
    .map(([name, value]) => `${name}: ${Array.isArray(value) ? "array" : typeof value}`)
    .sort();

test("there is a golden frame of each type that the client sends or knows", () => {
  const kinds = new Set(goldens.map(({ frame }) => frame.type));
  const asked = ["run", "subscribe", "unsubscribe", "cancel", "ping"];
  const answered = ["accepted", "snapshot", "unsubscribed", "cancelling", "pong", "error"];
  const events = ["status", "target", "progress", "message", "finished"];
  for (const kind of [...asked, ...answered, ...events]) expect(kinds).toContain(kind);
});

test.each(goldens.filter(({ direction }) => direction === "server"))(
  "the server frame $name is accepted",
  ({ frame }) => {
    expect(parseServerFrame(JSON.stringify(frame))).toEqual(frame);
  },
);

test.each(goldens.filter(({ direction }) => direction === "client"))(
  "the client frame $name is what we send",
  ({ frame }) => {
    const ours = OURS[String(frame.type)];
    if (ours === undefined) throw new Error(`The client sends no frame ${String(frame.type)}.`);
    const optional = new Set(["idempotency_key", "after"]);
    const required = fields(frame).filter((field) => !optional.has(field.split(":")[0] ?? ""));
    expect(fields(ours)).toEqual(expect.arrayContaining(required));
    expect(Object.keys(ours)[0]).toBe("type"); // `type` comes first
  },
);

test.each([
  undefined,
  new ArrayBuffer(2),
  "",
  "{",
  "[]",
  "null",
  "1",
  '"pong"',
  "{}",
  '{"type":"constructor"}',
  '{"type":"tomorrow"}',
  '{"type":"accepted","ref":"1","task":{}}',
  '{"type":"progress","uuid":"u","attempt":1,"seq":"2","progress":1,"target":null}',
  '{"type":"status","uuid":"u","attempt":1,"seq":2,"status":"lost"}',
  '{"type":"cancelling","ref":"1"}',
  '{"type":"unsubscribed","ref":"1"}',
  '{"type":"error","code":"not_found"}',
])("%j is no frame", (data) => {
  expect(parseServerFrame(data)).toBeNull();
});

test("unknown fields of a known frame are accepted", () => {
  expect(parseServerFrame('{"type":"pong","ref":"1","at":12}')).toMatchObject({ type: "pong" });
});

test.each([
  ["not_authenticated", undefined, 403],
  ["not_authenticated", 401, 401],
  ["conflict", undefined, 422],
  ["conflict", 409, 409],
  ["a code of tomorrow", undefined, 400],
])("an error frame with code %s and status %s is a %i", (code, status, expected) => {
  const frame = { type: "error" as const, code, detail: "", ...(status === undefined ? {} : { status }) };
  expect(statusOf(frame)).toBe(expected);
});

test("the detail of a refusal is its sentence, or its fields if it has more", () => {
  expect(detailOf({ detail: "Not found." })).toBe("Not found.");
  expect(detailOf("Not found.")).toBe("Not found.");
  expect(detailOf({ inputs: { a: ["Required."] } })).toEqual({ inputs: { a: ["Required."] } });
});

test("three statuses are final", () => {
  expect((["pending", "running", "succeeded", "failed", "cancelled"] as const).filter(isFinal)).toEqual([
    "succeeded",
    "failed",
    "cancelled",
  ]);
});

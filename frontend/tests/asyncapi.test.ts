/** The AsyncAPI document of the WebSocket, which the Python tests compare with what the server writes. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Ajv } from "ajv";
import { expect, test } from "vitest";

type Document = { asyncapi: string; channels: Record<string, object>; operations: Record<string, { action: string }> };

const read = (path: string | URL) => JSON.parse(readFileSync(path, "utf8"));
const document = (): Document => read(new URL("../../tests/documents/asyncapi.json", import.meta.url));

const { resolve } = createRequire(import.meta.url);
const schema = read(resolve(`@asyncapi/specs/schemas/${document().asyncapi}-without-$id.json`));
const validate = new Ajv({ strict: false, validateFormats: false }).compile(schema);

test("the document is valid AsyncAPI", () => {
  validate(document());
  expect(validate.errors).toBeNull();
});

test("a document with a mistake is not", () => {
  const mistaken = document();
  for (const operation of Object.values(mistaken.operations)) operation.action = "publish"; // a word of AsyncAPI 2
  expect(validate(mistaken)).toBe(false);
});

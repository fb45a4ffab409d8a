/** The files among the inputs of a run, which JSON cannot carry. Pure. */

import { type JSONObject, type JSONValue, parseJSON } from "./protocol.js";

/** A file among the inputs. */
export interface InputFile {
  /** The name of its input, and its index if the input is a list. */
  readonly path: readonly string[];
  readonly blob: Blob;
}

export interface Separated {
  /** A copy, as JSON, with null in the place of each file: later changes by the caller do not change it. */
  readonly inputs: JSONValue;
  readonly files: readonly InputFile[];
}

/** Takes the files out of the inputs; throws a TypeError if one is where no FileParameter can take it. */
export function separate(inputs: object): Separated {
  const files: InputFile[] = [];
  const paths = new Map<object, readonly string[]>();
  const text = JSON.stringify(inputs, function (this: object, key: string, value: unknown) {
    if (typeof value !== "object" || value === null) return value;
    const above = paths.get(this);
    const path = above === undefined ? [] : [...above, key];
    if (isBlob(value)) {
      if (path.length !== 1 && !(path.length === 2 && Array.isArray(this))) throw misplaced(path);
      files.push({ path, blob: value });
      return null;
    }
    const plain = kindOf(value) === "FileList" ? Array.from(value as FileList) : value;
    paths.set(plain, path);
    return plain;
  });
  return { inputs: parseJSON(text) as JSONValue, files };
}

/** Puts the reference of its upload in the place of a file. */
export function place(inputs: JSONValue, { path }: InputFile, reference: string): void {
  const last = path[path.length - 1] as string;
  const parent = path.length === 1 ? inputs : (inputs as JSONObject)[path[0] as string];
  (parent as JSONObject)[last] = { upload: reference };
}

/** What the file is called. A Blob has no name: it gets that of its input, and its type as a suffix. */
export function nameOf({ path, blob }: InputFile): string {
  const { name } = blob as Partial<File>;
  if (name) return name;
  const suffix = /^\w+\/(?:x-)?([a-z0-9]{2,5})(?=$|[+;])/.exec(blob.type)?.[1];
  return path[0] + (suffix === undefined ? "" : `.${suffix === "plain" ? "txt" : suffix}`);
}

// by their tags: an object of another frame is no instance of this page's classes
const kindOf = (value: unknown): string => Object.prototype.toString.call(value).slice(8, -1);

function isBlob(value: object): value is Blob {
  const kind = kindOf(value);
  return kind === "File" || kind === "Blob";
}

const misplaced = (path: readonly string[]): TypeError =>
  new TypeError(
    `There is a file at ${["inputs", ...path].join(".")}. Expected it as an input, {name: file}, or in a list that is \
an input, {name: [file]}: elsewhere no FileParameter can take it.`,
  );

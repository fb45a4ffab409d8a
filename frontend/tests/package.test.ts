/** The npm package, as its tarball unpacks: ES module, CommonJS, and types for both. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const FRONTEND = fileURLToPath(new URL("..", import.meta.url));

let project: string;

const node = (...args: string[]) => execFileSync(process.execPath, args, { cwd: project, encoding: "utf8" });

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), "django-task-api-"));
  execFileSync(process.execPath, ["build.mjs", "--package"], { cwd: FRONTEND });
  execFileSync("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", project], { cwd: FRONTEND });
  const [tarball] = readdirSync(project);
  const target = join(project, "node_modules/django-task-api");
  mkdirSync(target, { recursive: true });
  execFileSync("tar", ["xzf", join(project, String(tarball)), "--strip-components=1", "-C", target]);
}, 60_000);

afterAll(() => {
  rmSync(project, { recursive: true });
});

/** What a script can use, however it loads the module. */
const CHECKS = `
  if (typeof tasks.run !== "function" || tasks.options.baseURL !== "/tasks/") throw new Error("no client");
  tasks.run("sum", { numbers: [1] }, null, null, (error) => console.log(error.message));
  const names = ["TaskFailed", "TaskCancelled", "RequestError"];
  console.log(names.map((name) => typeof tasks[name]).join());
`;
const SAYS = /function,function,function\n.*baseURL is "\/tasks\/".*has to be absolute/;

test("`import` gives the client as default, and its parts by name", () => {
  writeFileSync(
    join(project, "a.mjs"),
    `import tasks, { attach, options, RequestError, run } from "django-task-api";
    if (run !== tasks.run || attach !== tasks.attach || options !== tasks.options || RequestError !== tasks.RequestError) throw new Error("parts");
    ${CHECKS}`,
  );
  expect(node("a.mjs")).toMatch(SAYS);
});

test("`require` gives the client, as in 1.x, with itself as default", () => {
  writeFileSync(
    join(project, "a.cjs"),
    `var tasks = require("django-task-api");
    if (tasks.default !== tasks || tasks.default.run !== tasks.run) throw new Error("no default");
    ${CHECKS}`,
  );
  expect(node("a.cjs")).toMatch(SAYS);
});

const USE = `
  const handle = tasks.run<{ sum: number }>("sum", { numbers: [1, 2] }, (task) => task.progress?.toFixed(), null);
  handle.then((task) => task.outputs.sum.toFixed());
  handle.on("progress", ({ progress, target }) => [progress, target]);
  handle.on("transport", ({ transport }: TransportEvent) => transport === "websocket");
  handle.catch((error: unknown) => error instanceof tasks.TaskFailed && error.error?.code);
  const uuid: Promise<string> = handle.uuid;
  const listen = async () => {
    for await (const event of handle) if (event.type === "message") return event.index.toFixed();
  };
  const accepted: Promise<void> = handle.cancel();
  accepted.then(listen);
  accepted.catch((error: unknown) => error instanceof tasks.RequestError && error.status === 409);
  uuid.then((uuid) => tasks.attach<{ sum: number }>(uuid, null, (task) => task.outputs.sum.toFixed()));
  const controller = new AbortController();
  const named: RunOptions<{ sum: number }> = { signal: controller.signal, onSuccess: (task) => task.outputs.sum, idempotencyKey: "a" };
  tasks.run<{ sum: number }>("sum", {}, named).detach();
  tasks.attach<{ sum: number }>("a", { onStatus: (task) => task.messages.length, onError: null, signal: null });
  // @ts-expect-error attach takes no key
  tasks.attach("a", { idempotencyKey: "a" });
  tasks.options.baseURL = "/task-api/tasks/";
  const upload = tasks.run("import", { file: new File(["a"], "a.csv"), photo: new Blob(), files: [new File([], "b")] });
  upload.on("upload", ({ input, file, loaded, total, fraction, rate, eta }: UploadEvent) =>
    [input, file].concat([loaded, total, fraction, rate ?? 0, eta ?? 0].map((number) => number.toFixed())));
  // @ts-expect-error there is no such event
  handle.on("sneeze", () => uuid);
`;

test.each([
  [
    "an ES module",
    "use.mts",
    `import tasks, { type RunOptions, type TransportEvent, type UploadEvent } from "django-task-api";`,
  ],
  [
    "CommonJS",
    "use.cts",
    `import type { RunOptions, TransportEvent, UploadEvent } from "django-task-api";
    import api = require("django-task-api");
    const tasks = api.default;
    api.run("sum", {});`,
  ],
])(
  "the types fit %s",
  (_name, file, head) => {
    writeFileSync(join(project, file), `${head}\n${USE}`);
    const types = join(project, "node_modules/@types");
    rmSync(types, { recursive: true, force: true });
    mkdirSync(types);
    symlinkSync(join(FRONTEND, "node_modules/@types/node"), join(types, "node"));
    const tsc = join(FRONTEND, "node_modules/typescript/bin/tsc");
    const flags = ["--noEmit", "--strict", "--module", "node16", "--target", "es2019", "--lib", "es2019,dom"];
    expect(node(tsc, ...flags, file)).toBe("");
  },
  30_000,
);

test("the package has dist/ and the files that npm adds", () => {
  const files = readdirSync(join(project, "node_modules/django-task-api"));
  expect(files.sort()).toEqual(["README.md", "dist", "package.json"]);
});

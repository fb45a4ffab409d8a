/**
 * Builds the script for {% static %} and the npm package's dist/.
 *
 * --package: builds only dist/. --check: builds nothing, and says whether the committed script and its map are what the
 * sources give.
 */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const { version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const SCRIPT = join(here, "../taskapi/static/django-task-api.min.js");

const common = {
  absWorkingDir: here, // makes paths in the output relative, so that every machine gives the same
  bundle: true,
  charset: "utf8",
  define: { VERSION: JSON.stringify(version) },
  logLevel: "warning",
  target: "es2019",
};

/** The script and its map, as [path, bytes]. */
async function script() {
  const { outputFiles } = await build({
    ...common,
    entryPoints: ["src/global.ts"],
    format: "iife",
    minify: true,
    sourcemap: "linked",
    banner: { js: `/*! Django Task API ${version} | MIT License */` },
    outfile: SCRIPT,
    write: false,
  });
  return outputFiles.map(({ path, contents }) => [path, Buffer.from(contents)]);
}

/** dist/: an ES module and a CommonJS module, each with its declarations. */
async function npmPackage() {
  rmSync(join(here, "dist"), { recursive: true, force: true });
  const entryPoints = ["src/index.ts"];
  await build({ ...common, entryPoints, format: "esm", outfile: "dist/esm/index.js" });
  await build({
    ...common,
    entryPoints,
    format: "cjs",
    outfile: "dist/cjs/index.js",
    // `require` gives the client, as in 1.x, with the named exports of the ES module
    footer: { js: "module.exports = Object.assign(module.exports.default, module.exports);" },
  });
  copyFileSync(join(here, "../LICENSE"), join(here, "dist/LICENSE"));
  writeFileSync(join(here, "dist/cjs/package.json"), '{ "type": "commonjs" }\n');
  const tsc = join(here, "node_modules/typescript/bin/tsc");
  for (const format of ["esm", "cjs"]) {
    execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json", "--outDir", `dist/${format}`], {
      cwd: here,
      stdio: "inherit",
    });
  }
}

function isCurrent([path, bytes]) {
  try {
    return readFileSync(path).equals(bytes);
  } catch {
    return false;
  }
}

/** Ends with an error if a committed file is not what the sources give. */
async function check() {
  const stale = (await script()).filter((output) => !isCurrent(output)).map(([path]) => basename(path));
  if (stale.length === 0) return console.log("taskapi/static/ is what the sources give.");
  console.error(
    `Not what the sources give: ${stale.join(", ")} in taskapi/static/. Run "make frontend", and commit the result.`,
  );
  process.exitCode = 1;
}

async function writeScript() {
  mkdirSync(dirname(SCRIPT), { recursive: true });
  for (const [path, bytes] of await script()) writeFileSync(path, bytes);
}

const [mode] = process.argv.slice(2);
if (mode === "--check") {
  await check();
} else {
  if (mode !== "--package") await writeScript();
  await npmPackage();
}

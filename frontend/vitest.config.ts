import { readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";

const { version } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8")) as { version: string };

export default defineConfig({
  define: { VERSION: JSON.stringify(version) }, // as in build.mjs
  test: {
    include: ["tests/**/*.test.ts"],
    testTimeout: 30_000, // ms; a test that waits for a state ends after it
    unstubGlobals: true,
    sequence: { shuffle: true },
  },
});

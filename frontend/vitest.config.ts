import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    testTimeout: 10_000, // ms: a test waits for a state, with this limit
    unstubGlobals: true,
    sequence: { shuffle: true },
  },
});

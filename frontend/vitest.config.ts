import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    testTimeout: 5_000, // ms: a test waits for a state, never for a time
    unstubGlobals: true,
    sequence: { shuffle: true },
  },
});

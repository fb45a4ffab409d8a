/** The golden frames of tests/frames/, which the Python tests read too. */

import { readdirSync, readFileSync } from "node:fs";

const FOLDER = new URL("../../../tests/frames/", import.meta.url);

export interface GoldenFrame {
  name: string;
  direction: "client" | "server";
  frame: Record<string, unknown>;
}

export const goldenFrames = (): GoldenFrame[] =>
  readdirSync(FOLDER)
    .filter((file) => file.endsWith(".json"))
    .sort()
    .map((file) => ({ name: file, ...JSON.parse(readFileSync(new URL(file, FOLDER), "utf8")) }) as GoldenFrame);

/** A server and a client of it, new for each test of a file, and what many tests do with them. */

import { afterEach, beforeEach } from "vitest";
import type { Client } from "../../src/client.js";
import type { TaskHandle } from "../../src/handle.js";
import { clientOf, setWebSocket } from "./client.js";
import { TestServer } from "./server.js";

export const TRANSPORTS = ["websocket", "polling"] as const;

export let server: TestServer;
export let client: Client;

/** Starts and stops them around each test. Without a `webSocket` this process is as Node 20. */
export function serveEachTest({ webSocket }: { webSocket: boolean }): void {
  beforeEach(async () => {
    setWebSocket(webSocket);
    server = await TestServer.start();
    client = clientOf(server);
  });
  afterEach(() => server.stop());
}

/** Starts a server in the place of one that was stopped. */
export async function restartServer(port: number): Promise<void> {
  server = await TestServer.start(port);
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Node reports an unhandled rejection within this time. */
export const settled = (): Promise<void> => pause(5);

/** The transports and the messages that a handle tells of from now on. */
export function heardOf(handle: TaskHandle): { transports: string[]; messages: unknown[] } {
  const heard = { transports: [] as string[], messages: [] as unknown[] };
  handle.on("transport", ({ transport }) => heard.transports.push(transport));
  handle.on("message", ({ message }) => heard.messages.push(message));
  return heard;
}

/** Clients for the tests, with times that suit a server on the same machine. */

import { beforeEach, vi } from "vitest";
import { WebSocket } from "ws";
import { Client } from "../../src/client.js";
import { timing } from "../../src/timing.js";

/** Delays are short; limits are long, for a busy machine: a test of a limit sets one of its own. */
beforeEach(() => {
  Object.assign(timing, {
    handshake: 4_000,
    answer: 4_000,
    wake: 4_000,
    request: 4_000,
    pending: 5_000,
    uploadRate: 10,
    unreached: 120_000,
    minUptime: 60,
    idle: 60,
    firstDelay: 5,
    lastDelay: 80,
  });
});

/** Waits until `claim` does not throw; rejects with its error after a limit. */
export const until = (claim: () => void): Promise<void> => vi.waitFor(claim, { timeout: 8_000, interval: 5 });

/** A client of the server at `baseURL`, which polls often. */
export function clientOf(server: { baseURL: string }): Client {
  const client = new Client();
  Object.assign(client.options, { baseURL: server.baseURL, pollInterval: 10 });
  return client;
}

/** Gives this process a WebSocket like a browser's, or takes it away. */
export function setWebSocket(present: boolean): void {
  Object.defineProperty(globalThis, "WebSocket", { value: present ? WebSocket : undefined, configurable: true });
}

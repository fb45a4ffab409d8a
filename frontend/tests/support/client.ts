/** Clients for the tests, with times that suit a server on the same machine. */

import { WebSocket } from "ws";
import { Client } from "../../src/client.js";
import { timing } from "../../src/timing.js";

Object.assign(timing, {
  handshake: 150,
  answer: 150,
  request: 1_000,
  minUptime: 60,
  idle: 60,
  firstDelay: 5,
  lastDelay: 80,
});

/** A client of the server at `baseURL`, which polls often. */
export function clientOf(server: { baseURL: string }): Client {
  const client = new Client();
  Object.assign(client.options, { baseURL: server.baseURL, pollInterval: 10 });
  return client;
}

/** Gives this process a WebSocket as browsers have it, or takes it away. */
export function setWebSocket(present: boolean): void {
  Object.defineProperty(globalThis, "WebSocket", { value: present ? WebSocket : undefined, configurable: true });
}

/** A small server on a real port, with REST and the WebSocket protocol. The test changes its runs by hand. */

import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type Duplex, Readable } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import { isFinal, type JSONObject, type JSONValue, type Status, type TaskInfo } from "../../src/protocol.js";

const ENDED = "The run has ended.";

export interface Received {
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
  body: string;
}

/** A file that was uploaded. */
export interface ServerUpload {
  reference: string;
  name: string;
  type: string;
  text: string;
  headers: IncomingMessage["headers"];
}

export interface Frame extends JSONObject {
  type: string;
}

/** A run of the server. The test changes it. */
export class ServerRun {
  readonly info: TaskInfo;
  readonly followers = new Set<WebSocket>();

  constructor(task: string, inputs: JSONValue) {
    this.info = {
      uuid: randomUUID(),
      task,
      status: "pending",
      progress: null,
      target: null,
      inputs,
      outputs: null,
      messages: [],
      message_count: 0,
      error: null,
      attempt: 0,
      seq: 0,
      cancel_requested: false,
      created: "2026-01-02T03:04:05Z",
      started: null,
      finished: null,
    };
  }

  running(attempt = 1): void {
    Object.assign(this.info, { status: "running", attempt, seq: attempt * 1000, progress: null, target: null });
    this.send("status", { status: "running" });
  }

  target(target: number): void {
    this.info.target = target;
    this.send("target", { target });
  }

  progress(progress: number): void {
    this.info.progress = progress;
    this.send("progress", { progress, target: this.info.target });
  }

  /** Adds a message. If `told` is false, its event is lost. */
  message(message: JSONValue, told = true): void {
    const index = this.info.messages.push(message) - 1;
    this.info.message_count = index + 1;
    if (told) this.send("message", { index, message });
    else this.info.seq += 1;
  }

  finish(outcome: { outputs?: JSONObject; error?: TaskInfo["error"]; status?: Status }): void {
    const status = outcome.status ?? (outcome.error ? "failed" : "succeeded");
    Object.assign(this.info, { ...outcome, status, finished: "2026-01-02T03:04:06Z" });
    const { messages, ...task } = { ...this.info, seq: this.info.seq + 1 };
    this.send("finished", { status, task });
  }

  send(type: string, fields: object): void {
    this.info.seq += 1;
    const { uuid, attempt, seq } = this.info;
    for (const socket of this.followers) socket.send(JSON.stringify({ type, uuid, attempt, seq, ...fields }));
  }

  after(count: number): TaskInfo {
    return { ...this.info, messages: this.info.messages.slice(count) };
  }
}

export class TestServer {
  /** What has come in: REST calls, frames, handshakes. */
  readonly calls: Received[] = [];
  readonly frames: Frame[] = [];
  handshakes = 0;
  readonly runs: ServerRun[] = [];
  readonly sockets = new Set<WebSocket>();
  readonly uploads: ServerUpload[] = [];

  /** A test may change how the server behaves. */
  handshake: "accept" | 404 | "hang" = "accept";
  /** Gets each frame first; returns true if it has handled the frame. */
  onFrame: (frame: Frame, socket: WebSocket) => boolean = () => false;
  /** Gets each run that starts. */
  onRun: (run: ServerRun) => void = () => {};
  /** Gets each run that is asked to cancel. */
  onCancel: (run: ServerRun) => void = () => {};
  /** Gets each REST call first; returns true if it has handled the call. */
  onCall: (call: Received, response: ServerResponse) => boolean = () => false;

  /** Gets each upload before its body is read; returns true if it has handled the upload. */
  onUpload: (request: IncomingMessage, response: ServerResponse) => boolean = () => false;

  private readonly byKey = new Map<string, ServerRun>();
  private readonly upgrades = new Set<Duplex>();
  private readonly http: Server;
  private readonly ws = new WebSocketServer({ noServer: true, handleProtocols: () => "taskapi.v1" });

  private constructor() {
    this.http = createServer((request, response) => void this.answer(request, response));
    this.http.on("upgrade", (request, socket, head) => {
      this.handshakes += 1;
      socket.on("error", () => {});
      this.upgrades.add(socket);
      if (this.handshake === "hang") return;
      if (this.handshake !== "accept" || request.url !== "/tasks/ws/") {
        socket.end("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        return;
      }
      this.ws.handleUpgrade(request, socket, head, (client) => this.greet(client));
    });
  }

  static async start(port = 0): Promise<TestServer> {
    const server = new TestServer();
    await new Promise<void>((resolve) => server.http.listen(port, "127.0.0.1", resolve));
    return server;
  }

  get baseURL(): string {
    return `http://127.0.0.1:${(this.http.address() as AddressInfo).port}/tasks/`;
  }

  /** The only run. */
  get run(): ServerRun {
    const [run] = this.runs;
    if (run === undefined || this.runs.length > 1) throw new Error(`There are ${this.runs.length} runs.`);
    return run;
  }

  framesOf(type: string): Frame[] {
    return this.frames.filter((frame) => frame.type === type);
  }

  callsOf(method: string): Received[] {
    return this.calls.filter((call) => call.method === method);
  }

  /** Ends every socket without a close frame, as a killed process does. */
  cut(): void {
    for (const socket of this.sockets) socket.terminate();
  }

  async stop(): Promise<void> {
    for (const socket of this.upgrades) socket.destroy();
    this.http.closeAllConnections();
    await new Promise((resolve) => this.http.close(resolve));
  }

  /** Starts a run, or finds the one of the same key. */
  start(task: string, inputs: JSONValue, key: string | undefined): ServerRun {
    const known = key === undefined ? undefined : this.byKey.get(key);
    if (known !== undefined) return known;
    const run = new ServerRun(task, inputs);
    this.runs.push(run);
    if (key !== undefined) this.byKey.set(key, run);
    this.onRun(run);
    return run;
  }

  /** Records a request to cancel; false for a run that has ended. */
  private cancel(run: ServerRun): boolean {
    if (isFinal(run.info.status)) return false;
    run.info.cancel_requested = true;
    return true;
  }

  private greet(socket: WebSocket): void {
    this.sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => {
      this.sockets.delete(socket);
      for (const run of this.runs) run.followers.delete(socket);
    });
    socket.on("message", (data) => {
      const frame = JSON.parse(String(data)) as Frame;
      this.frames.push(frame);
      if (!this.onFrame(frame, socket)) this.serve(frame, socket);
    });
  }

  serve(frame: Frame, socket: WebSocket): void {
    const { type, ref = null } = frame;
    const reply = (fields: object) => socket.send(JSON.stringify(fields));
    if (type === "ping") return reply({ type: "pong", ref });
    if (type === "run") {
      const run = this.start(String(frame.task), frame.inputs ?? {}, frame.idempotency_key as string | undefined);
      run.followers.add(socket);
      return reply({ type: "accepted", ref, task: run.after(0) });
    }
    const run = this.runs.find(({ info }) => info.uuid === frame.uuid);
    if (type === "unsubscribe") {
      run?.followers.delete(socket);
      return reply({ type: "unsubscribed", ref, uuid: frame.uuid ?? null });
    }
    if (run === undefined) return reply({ type: "error", ref, code: "not_found", detail: "Not found." });
    if (type === "cancel") {
      if (!this.cancel(run)) return reply({ type: "error", ref, code: "conflict", status: 409, detail: ENDED });
      reply({ type: "cancelling", ref, uuid: run.info.uuid });
      return this.onCancel(run);
    }
    run.followers.add(socket);
    reply({ type: "snapshot", ref, task: run.after(Number(frame.after)) });
  }

  /** Refuses every frame of that type from now on. */
  refuseFrames(
    type: string,
    error: { code: string; reason?: string | undefined; status?: number; detail: unknown },
  ): void {
    this.onFrame = (frame, socket) => {
      if (frame.type !== type) return false;
      socket.send(JSON.stringify({ type: "error", ref: frame.ref ?? null, ...error }));
      return true;
    };
  }

  /** Gives every REST call the same answer from now on. */
  answerCalls(status: number, body: unknown): void {
    this.onCall = (_call, response) => {
      json(response, status, body);
      return true;
    };
  }

  private async upload(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { headers } = request;
    const form = await new Response(Readable.toWeb(request) as ReadableStream, {
      headers: { "Content-Type": String(headers["content-type"]) },
    }).formData();
    const file = form.get("file") as File;
    const { name, type, size } = file;
    const text = await file.text();
    const reference = `ref-${this.uploads.length}`;
    this.uploads.push({ reference, name, type, text, headers });
    json(response, 201, { upload: reference, name, size, content_type: type });
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method === "POST" && request.url === "/tasks/uploads/") {
      if (!this.onUpload(request, response)) await this.upload(request, response).catch(() => response.destroy());
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = "", url = "", headers } = request;
    const call = { method, url, headers, body: Buffer.concat(chunks).toString() };
    this.calls.push(call);
    if (!this.onCall(call, response)) this.respond(call, response);
  }

  respond({ method, url, headers, body }: Received, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(url, this.baseURL);
    if (method === "POST" && pathname === "/tasks/") {
      const { task, inputs } = JSON.parse(body) as { task: string; inputs: JSONObject };
      return json(response, 201, this.start(task, inputs, headers["idempotency-key"] as string | undefined).after(0));
    }
    const run = this.runs.find(({ info }) => pathname.startsWith(`/tasks/${info.uuid}/`));
    if (method === "POST" && run !== undefined && pathname.endsWith("/cancel/")) {
      if (!this.cancel(run)) return json(response, 409, { detail: ENDED });
      this.onCancel(run);
      return json(response, 202, run.after(0));
    }
    if (method !== "GET" || run === undefined) return json(response, 404, { detail: "Not found." });
    const { seq, cancel_requested, hint } = run.info;
    const tag = JSON.stringify(`${seq}${cancel_requested ? "c" : ""}${hint ? "h" : ""}`);
    response.setHeader("ETag", tag);
    if (headers["if-none-match"] === tag) return void response.writeHead(304).end();
    json(response, 200, run.after(Number(searchParams.get("after") ?? 0)));
  }
}

export function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}

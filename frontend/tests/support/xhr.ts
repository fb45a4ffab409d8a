/** An XMLHttpRequest for Node, as far as the client uses it: it really sends, and tells of each part that has left. */

import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { vi } from "vitest";

const PART = 16_384; // bytes between two events

class XMLHttpRequest {
  withCredentials = false;
  status = 0;
  responseText = "";
  responseURL = "";
  onload = () => {};
  onerror = () => {};
  onprogress = () => {};
  readonly upload = { onprogress: (_event: { loaded: number; total: number }) => {} };
  private method = "";
  private url = "";
  private isOver = false;
  private response: IncomingMessage | null = null;
  private request: ClientRequest | null = null;
  private readonly headers: Record<string, string> = {};

  open(method: string, url: string): void {
    Object.assign(this, { method, url });
  }

  setRequestHeader(name: string, value: string): void {
    new Headers({ [name]: value }); // throws if it is none
    this.headers[name] = value;
  }

  getAllResponseHeaders(): string {
    const headers = Object.entries(this.response?.headers ?? {});
    return headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  }

  send(form: FormData): void {
    this.exchange(form).then(
      () => this.end(this.onload),
      () => this.end(this.onerror),
    );
  }

  abort(): void {
    this.isOver = true;
    this.request?.destroy();
  }

  private end(tell: () => void): void {
    if (!this.isOver) tell();
    this.isOver = true;
  }

  private async exchange(form: FormData): Promise<void> {
    const encoded = new Response(form);
    const body = Buffer.from(await encoded.arrayBuffer());
    if (this.isOver) return;
    const headers = {
      ...this.headers,
      "Content-Type": encoded.headers.get("Content-Type") ?? "",
      "Content-Length": body.length,
    };
    const sending = request(this.url, { method: this.method, headers });
    this.request = sending;
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      sending.on("response", resolve).on("error", reject).on("close", reject);
    });
    answered.catch(() => {});
    for (let sent = 0; sent < body.length && !this.isOver; ) {
      const part = body.subarray(sent, sent + PART);
      const left = new Promise<void>((resolve, reject) => {
        sending.write(part, (error) => (error ? reject(error) : resolve()));
      });
      await Promise.race([left, answered]); // the connection may end without a word to `write`
      sent += part.length;
      if (!this.isOver) this.upload.onprogress({ loaded: sent, total: body.length });
    }
    sending.end();
    this.response = await answered;
    const chunks: Buffer[] = [];
    for await (const chunk of this.response) {
      chunks.push(chunk as Buffer);
      this.onprogress();
    }
    this.responseText = Buffer.concat(chunks).toString();
    this.responseURL = this.url;
    this.status = this.response.statusCode ?? 0;
  }
}

/** Gives this process an XMLHttpRequest until the end of the test. */
export const stubXHR = (): void => void vi.stubGlobal("XMLHttpRequest", XMLHttpRequest);

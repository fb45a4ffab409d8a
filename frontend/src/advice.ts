/** What the console tells a page's developer about mistakes that do not stop a run. Each is told once. */

export class Advice {
  private readonly told = new Set<string>();

  /** `socketURL` is the address of the WebSocket. */
  constructor(private readonly socketURL: string) {}

  /** The server has said why a run waits: no worker takes its queue, say. */
  hint(message: string): void {
    this.tell(`A task waits. ${message}`);
  }

  /** The server answers by REST, but every handshake has failed. */
  noSocket(): void {
    this.tell(
      `The server has no WebSocket at ${this.socketURL}, or refused it, so runs are polled. If asgi.py is Django's own, \
import get_asgi_application from taskapi.asgi in it. Under runserver, put "daphne" first into INSTALLED_APPS and set \
ASGI_APPLICATION. If the server refused the socket, its log says why. A proxy has to pass it on. If you want no \
WebSocket, set TaskAPI.options.transport = "polling".`,
    );
  }

  private tell(text: string): void {
    if (this.told.has(text)) return;
    this.told.add(text);
    console.warn(`TaskAPI: ${text}`);
  }
}

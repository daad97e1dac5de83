/** A WebSocket client that shows frames as they are; over npm `ws`, for headers and broken behaviour that browsers forbid. */
// @ts-types="@types/ws"
import WebSocket from "ws";

/** What a WebSocket message was: text parsed as JSON, or bytes. */
// deno-lint-ignore no-explicit-any
export type Heard = any;

export class RawClient {
  readonly #heard: Heard[] = [];
  #wake: () => void = () => {};
  readonly closed: Promise<{ code: number; reason: string }>;
  #code: number | null = null;

  private constructor(readonly ws: WebSocket) {
    ws.on("message", (data, binary) => {
      this.#heard.push(binary ? new Uint8Array(data as Uint8Array) : JSON.parse(String(data)));
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      ws.on("close", (code, reason) => {
        this.#code = code;
        this.#wake();
        resolve({ code, reason: String(reason) });
      });
    });
  }

  /** Resolves once open; rejects with the HTTP status of a refusal. */
  static open(url: string, options: { headers?: Record<string, string>; protocols?: string[] } = {}): Promise<RawClient> {
    const ws = new WebSocket(url, options.protocols ?? [], { headers: options.headers, perMessageDeflate: false });
    const client = new RawClient(ws);
    return new Promise((resolve, reject) => {
      ws.on("open", () => resolve(client));
      ws.on("unexpected-response", (request, response) => {
        response.resume();
        request.destroy();
        reject(new HttpRefusal(response.statusCode ?? 0, String(response.headers["caseroom-reason"] ?? "")));
      });
      ws.on("error", reject);
    });
  }

  /** A JSON value, text, or bytes. */
  send(frame: unknown): void {
    this.ws.send(frame instanceof Uint8Array || typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** The next frame; throws when the socket closes or `ms` pass before it comes. */
  async next(ms = 5000): Promise<Heard> {
    const end = Date.now() + ms;
    while (this.#heard.length === 0) {
      if (this.#code !== null) throw new Error(`closed with ${this.#code}`);
      if (Date.now() >= end) throw new Error(`nothing heard for ${ms} ms`);
      let timer: ReturnType<typeof setTimeout>;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, end - Date.now());
      });
      clearTimeout(timer!);
    }
    return this.#heard.shift();
  }
  async take(count: number): Promise<Heard[]> {
    const frames = [];
    for (let index = 0; index < count; index++) frames.push(await this.next());
    return frames;
  }
  /** Sends a V2 push and returns the reply with its ref; other frames before it are dropped. */
  async ask(frame: [unknown, unknown, string, string, unknown]): Promise<Heard> {
    this.send(frame);
    for (;;) {
      const heard = await this.next();
      if (heard[3] === "phx_reply" && heard[1] === frame[1]) return heard;
    }
  }
  async close(): Promise<void> {
    this.ws.close();
    await this.closed;
  }
}

export class HttpRefusal extends Error {
  constructor(readonly status: number, readonly reason: string) {
    super(`refused with ${status} ${reason}`);
  }
}

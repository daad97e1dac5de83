/** A WebSocket client that shows frames as they are; over npm `ws`, for headers and broken behaviour that browsers forbid. */
// @ts-types="@types/ws"
import WebSocket from "ws";
import { connect } from "node:net";

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

  /** Sends several frames in one write, so that they arrive in one tick. */
  burst(frames: readonly unknown[]): void {
    const { _socket: tcp } = this.ws as unknown as { _socket: { cork(): void; uncork(): void } };
    tcp.cork();
    for (const frame of frames) this.send(frame);
    tcp.uncork();
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
  /** Everything heard so far: a heartbeat's reply comes after what the server said before. V2 only. */
  async heard(): Promise<Heard[]> {
    const ref = `heard ${++this.#asked}`;
    this.send([null, ref, "phoenix", "heartbeat", {}]);
    for (const frames: Heard[] = [];;) {
      const frame = await this.next();
      if (frame[1] === ref) return frames;
      frames.push(frame);
    }
  }
  #asked = 0;
  async close(): Promise<void> {
    this.ws.close();
    await this.closed;
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export class HttpRefusal extends Error {
  constructor(readonly status: number, readonly reason: string) {
    super(`refused with ${status} ${reason}`);
  }
}

/** A frame as it stands on the wire (RFC 6455 section 5.2). `data` is its payload, unmasked. */
export interface WireFrame {
  readonly fin: boolean;
  readonly opcode: number;
  readonly data: Uint8Array;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** The headers of an upgrade, with the key of RFC 6455's example. */
export const UPGRADE: Readonly<Record<string, string>> = {
  connection: "Upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
};

/** Bytes over TCP, one frame at a time: for requests and frames that no client library would send. */
export class TcpClient {
  #rest = new Uint8Array(0);
  #closed = false;

  private constructor(readonly tcp: Deno.TcpConn) {}

  static async connect(port: number): Promise<TcpClient> {
    return new TcpClient(await Deno.connect({ hostname: "127.0.0.1", port }));
  }

  /** Sends a request on a connection of its own and returns the answer; the body is empty after a 101. */
  static async request(port: number, method: string, path: string, headers: Readonly<Record<string, string>>): Promise<HttpAnswer> {
    const client = await TcpClient.connect(port);
    try {
      await client.ask(method, path, headers);
      return await client.answer();
    } finally {
      client.close();
    }
  }

  /** Connects and upgrades; throws HttpRefusal. */
  static async open(port: number, path = "/socket/websocket?vsn=2.0.0", headers: Readonly<Record<string, string>> = {}): Promise<TcpClient> {
    const client = await TcpClient.connect(port);
    await client.ask("GET", path, { ...UPGRADE, ...headers });
    const { status } = await client.answer();
    if (status === 101) return client;
    client.close();
    throw new HttpRefusal(status, "");
  }

  async write(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let at = 0; at < bytes.length;) at += await this.tcp.write(bytes.subarray(at));
  }

  async ask(method: string, path: string, headers: Readonly<Record<string, string>>): Promise<void> {
    const { hostname, port } = this.tcp.remoteAddr;
    const lines = Object.entries({ host: `${hostname}:${port}`, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
    await this.write(`${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n`);
  }

  /** Reads an answer: its head, and all that follows it unless it is a 101. */
  async answer(): Promise<HttpAnswer> {
    let head = "";
    while (!head.endsWith("\r\n\r\n")) head += String.fromCharCode((await this.#take(1))[0]);
    const [first, ...lines] = head.trim().split("\r\n");
    const status = Number(first.split(" ")[1]);
    const headers = new Headers(lines.map((line): [string, string] => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)]));
    if (status === 101) return { status, headers, body: "" };
    while (await this.#more());
    const body = new TextDecoder().decode(this.#rest);
    // What an empty chunked body looks like.
    return { status, headers, body: body === "0\r\n\r\n" ? "" : body };
  }

  /** Sends a frame as a client does, masked with zeros, or as no client may. `rsv`: the three reserved bits. */
  async frame(opcode: number, data: Uint8Array | string, { fin = true, rsv = 0, masked = true } = {}): Promise<void> {
    const payload = typeof data === "string" ? new TextEncoder().encode(data) : data;
    const length = payload.length < 126 ? [payload.length] : [126, payload.length >> 8, payload.length & 255];
    length[0] |= masked ? 0x80 : 0;
    await this.write(Uint8Array.of((fin ? 0x80 : 0) | rsv << 4 | opcode, ...length, ...masked ? [0, 0, 0, 0] : [], ...payload));
  }

  /** The next frame; a close frame's data begins with its code. Throws when the connection ends. */
  async next(): Promise<WireFrame> {
    const [first, second] = await this.#take(2);
    let length = second & 127;
    if (length === 126) length = new DataView((await this.#take(2)).buffer).getUint16(0);
    return { fin: (first & 0x80) !== 0, opcode: first & 15, data: await this.#take(length) };
  }

  /** The code of the close frame that comes next: 1005 when it has none, undefined when something else comes. */
  async closeCode(): Promise<number | undefined> {
    const { opcode, data } = await this.next();
    if (opcode !== 8) return undefined;
    return data.length < 2 ? 1005 : data[0] << 8 | data[1];
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.tcp.close();
  }

  async #take(count: number): Promise<Uint8Array<ArrayBuffer>> {
    while (this.#rest.length < count) if (!await this.#more()) throw new Error("the connection ended");
    const taken = this.#rest.slice(0, count);
    this.#rest = this.#rest.slice(count);
    return taken;
  }

  /** Reads what came; false at the end. Throws when nothing comes for 5 s: only a close ends a read. */
  async #more(): Promise<boolean> {
    const buffer = new Uint8Array(16_384);
    const late = setTimeout(() => this.close(), 5000);
    const count = await this.tcp.read(buffer).finally(() => clearTimeout(late));
    if (count === null) return false;
    const both = new Uint8Array(this.#rest.length + count);
    both.set(this.#rest);
    both.set(buffer.subarray(0, count), this.#rest.length);
    this.#rest = both;
    return true;
  }
}

/** Connects, says `parts` one after another, waits for something to be said back when `heard`, and breaks the connection (RST). */
export async function reset(port: number, parts: readonly (string | Uint8Array)[], heard = false): Promise<void> {
  const socket = connect({ port, host: "127.0.0.1" });
  socket.on("error", () => {});
  const over = new Promise((resolve) => socket.once("close", resolve));
  await new Promise((resolve) => socket.once("connect", resolve));
  for (const part of parts) await new Promise((resolve) => socket.write(part, resolve));
  if (heard) await Promise.race([new Promise((resolve) => socket.once("data", resolve)), over]);
  socket.resetAndDestroy();
  await over;
}

/** An upgrade request as bytes. */
export function upgradeRequest(path: string, headers: Readonly<Record<string, string>> = {}): string {
  const lines = Object.entries({ host: "127.0.0.1", ...UPGRADE, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`;
}

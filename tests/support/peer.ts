/** A client made of bytes: it says what no library would, as fast as TCP takes it, and reads only when it is told to. */
import type { User } from "../../rooms/host.ts";
import type { Outside } from "./outside.ts";
import { type Heard, TcpClient, type WireFrame } from "./raw.ts";

const utf8 = new TextEncoder();

export const TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;

/** How the length is written: in 7, 16 or 64 bits; in as few as it takes when not given. */
interface FrameOptions {
  readonly fin?: boolean;
  /** The three reserved bits. */
  readonly rsv?: number;
  readonly masked?: boolean;
  readonly bits?: 7 | 16 | 64;
  /** What the head says, when that is not how long the data is. */
  readonly says?: number;
}

/** A frame as a client sends it, masked with zeros, or as no client may. */
export function frameBytes(opcode: number, data: Uint8Array | string = "", options: FrameOptions = {}): Uint8Array<ArrayBuffer> {
  const { fin = true, rsv = 0, masked = true } = options;
  const payload = typeof data === "string" ? utf8.encode(data) : data;
  const length = options.says ?? payload.length;
  const bits = options.bits ?? (length < 126 ? 7 : length < 65_536 ? 16 : 64);
  const head = new DataView(new ArrayBuffer(10));
  head.setUint8(0, (fin ? 0x80 : 0) | rsv << 4 | opcode);
  head.setUint8(1, (masked ? 0x80 : 0) | (bits === 7 ? length : bits === 16 ? 126 : 127));
  if (bits === 16) head.setUint16(2, length);
  if (bits === 64) head.setBigUint64(2, BigInt(length));
  const size = bits === 7 ? 2 : bits === 16 ? 4 : 10;
  const bytes = new Uint8Array(size + (masked ? 4 : 0) + payload.length);
  bytes.set(new Uint8Array(head.buffer, 0, size));
  bytes.set(payload, bytes.length - payload.length);
  return bytes;
}

/** A V2 frame, or its text. */
export const said = (frame: unknown) => frameBytes(TEXT, typeof frame === "string" ? frame : JSON.stringify(frame));

export function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The frame as often as it fits into so many bytes, once at least. */
export function repeated(frame: Uint8Array, size = 256 * 1024): Uint8Array<ArrayBuffer> {
  return joined(Array(Math.max(1, Math.floor(size / frame.length))).fill(frame));
}

export class Peer {
  #rest = new Uint8Array(0);
  #closed = false;
  /** Bytes that TCP took. */
  sent = 0;

  private constructor(readonly tcp: Deno.TcpConn) {}

  /** Upgraded; as nobody when the user is null. */
  static async open(at: Outside, user: User | null = at.fresh(), vsn = "2.0.0"): Promise<Peer> {
    const { pathname, search } = new URL(at.url(user && await at.token(user), vsn));
    const { tcp } = await TcpClient.open(at.server.port, pathname + search);
    return new Peer(tcp);
  }

  /** One that has joined the topic with join_ref "1", and has read its reply. */
  static async member(at: Outside, topic: string, user?: User, params: object = {}): Promise<Peer> {
    const peer = await Peer.open(at, user);
    await peer.write(said(["1", "1", topic, "phx_join", params]));
    for (;;) {
      const frame = await peer.heard();
      if (frame === null) throw new Error("closed instead of joined");
      if (frame[3] !== "phx_reply") continue;
      if (frame[4].status !== "ok") throw new Error(JSON.stringify(frame));
      return peer;
    }
  }

  /** Resolves once TCP has all of it, to false when the connection was cut before. */
  async write(bytes: Uint8Array): Promise<boolean> {
    try {
      for (let at = 0; at < bytes.length;) {
        const count = await this.tcp.write(bytes.subarray(at));
        at += count;
        this.sent += count;
      }
      return true;
    } catch {
      return false;
    }
  }

  /** Says it again and again until it is told to stop, or is cut. */
  async pour(chunk: Uint8Array, goesOn: () => boolean): Promise<void> {
    while (goesOn() && await this.write(chunk));
  }

  /** The next frame; null when the connection has ended. Throws when nothing comes for `ms`. */
  async next(ms = 5000): Promise<WireFrame | null> {
    for (;;) {
      const frame = this.#take();
      if (frame) return frame;
      if (!await this.#more(ms)) return null;
    }
  }
  /** What the next text frame says; null at the end. */
  async heard(ms?: number): Promise<Heard | null> {
    for (;;) {
      const frame = await this.next(ms);
      if (frame === null || frame.opcode === CLOSE) return null;
      if (frame.opcode === TEXT) return JSON.parse(new TextDecoder().decode(frame.data));
    }
  }
  /** Reads on to the close frame and returns its code: 1005 when it has none, 1006 when the connection ends without one. */
  async code(ms?: number): Promise<number> {
    for (;;) {
      const frame = await this.next(ms);
      if (frame === null) return 1006;
      if (frame.opcode === CLOSE) return frame.data.length < 2 ? 1005 : frame.data[0] << 8 | frame.data[1];
    }
  }
  /** Reads whatever comes and forgets it, until the connection ends.. */
  async skim(): Promise<void> {
    const buffer = new Uint8Array(65_536);
    while (await this.tcp.read(buffer).catch(() => null) !== null);
  }
  /** Reads one byte. */
  async sip(): Promise<void> {
    const byte = new Uint8Array(1);
    if (await this.tcp.read(byte).catch(() => null) !== null) this.#rest = joined([this.#rest, byte]);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.tcp.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  #take(): WireFrame | null {
    const rest = this.#rest;
    if (rest.length < 2) return null;
    const short = rest[1] & 127;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (rest.length < head) return null;
    const view = new DataView(rest.buffer, rest.byteOffset);
    const length = short < 126 ? short : short === 126 ? view.getUint16(2) : Number(view.getBigUint64(2));
    if (rest.length < head + length) return null;
    this.#rest = rest.subarray(head + length);
    return { fin: (rest[0] & 0x80) !== 0, opcode: rest[0] & 15, data: rest.slice(head, head + length) };
  }

  /** False when the connection has ended, in whatever way. Only a close ends a read that nothing comes for. */
  async #more(ms: number): Promise<boolean> {
    const buffer = new Uint8Array(65_536);
    let waited = false;
    const late = setTimeout(() => {
      waited = true;
      this.close();
    }, ms);
    const count = await this.tcp.read(buffer).catch(() => null).finally(() => clearTimeout(late));
    if (waited) throw new Error(`nothing came for ${ms} ms`);
    if (count === null) return false;
    this.#rest = joined([this.#rest, buffer.subarray(0, count)]);
    return true;
  }
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** What a process holds in memory, in MB. */
export function memoryOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]) / 1024;
}

/** One of the server's own figures: of one label, or over all of them. */
export async function figure(at: Outside, name: string, label = ".*"): Promise<number> {
  const text = await (await fetch(`${at.server.url}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^caseroom_${name}(?:\\{${label}\\})? (\\S+)$`, "gm"))].reduce((sum, [, value]) => sum + Number(value), 0);
}

export interface Pace {
  /** Milliseconds. */
  readonly median: number;
  readonly p99: number;
}

/** How long an answer takes, asked for again and again for `ms`. */
export async function paceOf(ask: () => Promise<unknown>, ms: number): Promise<Pace> {
  const took: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end;) {
    const since = performance.now();
    await ask();
    took.push(performance.now() - since);
    await sleep(5);
  }
  took.sort((a, b) => a - b);
  return { median: took[took.length >> 1], p99: took[Math.floor(took.length * 0.99)] };
}

/** Waits until it is true; throws when that takes longer than `ms`. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  for (const end = performance.now() + ms; !await holds();) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(10);
  }
}

/**
 * WebSockets on Deno: npm `ws` reads, this writes. A frame is made once, by hand, and all that a tick has for a socket
 * goes out in one write: measured at a quarter of the time that one `Sender.frame` per receiver takes.
 */
import { Buffer } from "node:buffer";
import type { Duplex } from "node:stream";
// @ts-types="@types/ws"
import type { WebSocket } from "ws";
import type { Encoded } from "../../protocol/frame.ts";
import type { CloseCode } from "../../protocol/reason.ts";
import type { Packet, Wire } from "../socket.ts";

const utf8 = new TextEncoder();

/** Short texts are framed into slabs of this many bytes: counting and allocating for each costs as much as the rest of it. */
const SLAB = 16_384;
/** What counts as short, in UTF-16 units; and so many of them are framed in one pass. */
const SHORT = 1024;
const ROW = 4096;
let slab = Buffer.allocUnsafeSlow(SLAB);
let used = 0;

/** Unmasked, unfragmented WebSocket messages as bytes (RFC 6455 section 5.2). */
export function packFrame(frame: Encoded | readonly Encoded[]): Uint8Array {
  if (Array.isArray(frame)) return Buffer.concat(frame.map(packAny));
  return (isShort(frame as Encoded) && packRow([frame as string])) || packAny(frame as Encoded);
}

function isShort(frame: Encoded): frame is string {
  return typeof frame === "string" && frame.length <= SHORT;
}

const HEAD_2 = "\0\0";
const HEAD_4 = "\0\0\0\0";

/** Short texts in one pass over all of them, each with room for its head before it. Null when they are not ASCII: then the heads stand elsewhere. */
function packRow(texts: readonly string[]): Uint8Array | null {
  let row = "";
  for (const text of texts) row += (text.length < 126 ? HEAD_2 : HEAD_4) + text;
  if (used + row.length > SLAB) {
    slab = Buffer.allocUnsafeSlow(SLAB);
    used = 0;
  }
  const bytes = slab.subarray(used, used + row.length);
  const { read, written } = utf8.encodeInto(row, bytes);
  if (read !== row.length || written !== row.length) return null;
  used += row.length;
  let at = 0;
  for (const { length } of texts) {
    bytes[at] = 0x81;
    if (length < 126) bytes[at + 1] = length;
    else {
      bytes[at + 1] = 126;
      bytes[at + 2] = length >> 8;
      bytes[at + 3] = length;
    }
    at += length + (length < 126 ? 2 : 4);
  }
  return bytes;
}

/** What has to wait holds no more memory than four times its own: a few bytes would hold their whole slab. */
function ownBytes(bytes: Uint8Array): Uint8Array {
  return bytes.length * 4 < bytes.buffer.byteLength ? Uint8Array.prototype.slice.call(bytes) : bytes;
}

function packAny(frame: Encoded): Uint8Array {
  const isText = typeof frame === "string";
  const length = isText ? Buffer.byteLength(frame) : frame.length;
  const head = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const bytes = Buffer.allocUnsafe(head + length);
  bytes[0] = isText ? 0x81 : 0x82;
  if (head === 2) bytes[1] = length;
  else if (head === 4) {
    bytes[1] = 126;
    bytes.writeUInt16BE(length, 2);
  } else {
    bytes[1] = 127;
    bytes.writeUInt32BE(0, 2);
    bytes.writeUInt32BE(length, 6);
  }
  if (isText) bytes.write(frame, head);
  else bytes.set(frame, head);
  return bytes;
}

/**
 * What waits for a socket, as a path of packets. Sockets that hear the same packets walk the same path, so the bytes of a
 * tick's broadcasts are joined once and not once per socket.
 */
class Path {
  #next: Path | null = null;
  #joined: Uint8Array | null = null;

  constructor(private readonly before: Path | null, readonly packet: Uint8Array | null, private readonly length: number) {}

  then(packet: Uint8Array): Path {
    if (this.#next?.packet === packet) return this.#next;
    return this.#next = new Path(this, packet, this.length + packet.length);
  }

  bytes(): Uint8Array {
    if (this.#joined) return this.#joined;
    if (!this.before?.packet) return this.#joined = this.packet!;
    const bytes = Buffer.allocUnsafe(this.length);
    let end = this.length - this.packet!.length;
    bytes.set(this.packet!, end);
    for (let path: Path | null = this.before; path?.packet; path = path.before) bytes.set(path.packet, end -= path.packet.length);
    return this.#joined = bytes;
  }

  /** Forgets what followed. */
  clear(): void {
    this.#next = null;
  }
}

const EMPTY = new Path(null, null, 0);

/** The raw socket under a WebSocket, with the counters that Node keeps. */
export type RawSocket = Duplex & { readonly bytesRead: number };

export class DenoWire implements Wire {
  #path = EMPTY;
  /** Short texts for it alone that follow the path. */
  #row: string[] = [];
  #rowLength = 0;
  #pauses = 0;

  constructor(private readonly ws: WebSocket, private readonly raw: RawSocket) {}

  send(packet: Packet): void {
    if (this.#row.length > 0) this.#endRow();
    this.#path = this.#path.then(packet as Uint8Array);
  }

  say(frame: Encoded): void {
    if (!isShort(frame)) return this.send(packFrame(frame));
    this.#row.push(frame);
    if ((this.#rowLength += frame.length) > ROW) this.#endRow();
  }

  #endRow(): void {
    const bytes = packRow(this.#row) ?? Buffer.concat(this.#row.map(packAny));
    this.#row.length = this.#rowLength = 0;
    this.#path = this.#path.then(bytes);
  }

  flush(): void {
    if (this.#row.length > 0) this.#endRow();
    if (this.#path === EMPTY) return;
    const bytes = this.#path.bytes();
    this.#path = EMPTY;
    EMPTY.clear();
    // ws writes its pongs and close frames whole and at once, so that frames never mix.
    if (this.ws.readyState === 1) this.raw.write(this.raw.writableLength > 0 ? ownBytes(bytes) : bytes);
  }

  own(packet: Packet): Packet {
    return ownBytes(packet as Uint8Array);
  }

  close(code: CloseCode, reason: string): void {
    this.flush();
    this.ws.close(code, reason.slice(0, 100));
  }

  cut(): void {
    this.raw.destroy();
  }

  get backlog(): number {
    return this.raw.writableLength;
  }
  get received(): number {
    return this.raw.bytesRead;
  }
  pause(): void {
    if (this.#pauses++ === 0) this.ws.pause();
  }
  resume(): void {
    if (--this.#pauses === 0) this.ws.resume();
  }
  drained(): Promise<void> {
    if (this.raw.destroyed || this.raw.writableLength === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.raw.off("drain", done).off("close", done);
        resolve();
      };
      this.raw.on("drain", done).on("close", done);
    });
  }
}

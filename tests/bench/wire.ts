/** Client frames made beforehand, and a counter of server frames that looks at their headers only. */
import { Buffer } from "node:buffer";

const utf8 = new TextEncoder();

/** A masked client message (RFC 6455 section 5.2), ready to be written any number of times. */
export function maskedFrame(payload: string | Uint8Array, opcode = 1): Uint8Array {
  const bytes = typeof payload === "string" ? utf8.encode(payload) : payload;
  if (bytes.length > 65_535) throw new TypeError("Cannot mask more than 65,535 bytes");
  const head = bytes.length < 126 ? 2 : 4;
  const frame = Buffer.alloc(head + 4 + bytes.length);
  frame[0] = 0x80 | opcode;
  frame[1] = 0x80 | (head === 2 ? bytes.length : 126);
  if (head === 4) frame.writeUInt16BE(bytes.length, 2);
  // Any mask but zero: the server must do the work of unmasking.
  const mask = [0x37, 0xfa, 0x21, 0x3d];
  frame.set(mask, head);
  for (let at = 0; at < bytes.length; at++) frame[head + 4 + at] = bytes[at] ^ mask[at & 3];
  return frame;
}

/** A masked text frame made beforehand, in which a number is written anew each time: the run of `#` stands for its digits. */
export class NumberedFrame {
  readonly length: number;
  readonly #frame: Uint8Array;
  readonly #from: number;
  readonly #digits: number;

  constructor(text: string) {
    this.#frame = maskedFrame(text);
    this.length = this.#frame.length;
    this.#digits = /#+/.exec(text)![0].length;
    this.#from = this.length - utf8.encode(text).length + utf8.encode(text.slice(0, text.indexOf("#"))).length;
  }

  /** Writes the frame with that number into `bytes`, and returns where it ends. */
  write(bytes: Uint8Array, at: number, number: number): number {
    bytes.set(this.#frame, at);
    for (let place = this.#digits - 1; place >= 0; place--) {
      // Masking is exclusive or: with `#` once more and with the digit, what stands there is the masked digit.
      bytes[at + this.#from + place] ^= HASH ^ (ZERO + number % 10);
      number = Math.floor(number / 10);
    }
    return at + this.length;
  }

  with(number: number): Uint8Array {
    const bytes = Buffer.allocUnsafe(this.length);
    this.write(bytes, 0, number);
    return bytes;
  }
}

const [HASH, ZERO] = [0x23, 0x30];

/** `count` copies of a frame in one piece: what a burst of answers is answered with. */
export function repeated(frame: Uint8Array, count: number): Uint8Array {
  return Buffer.concat(Array.from({ length: count }, () => frame));
}

/** A client's V2 push in one of the topics of the bench. All refs are alike: nobody here matches them. */
export function pushFrame(topic: string, event: string, payload: unknown): Uint8Array {
  return maskedFrame(JSON.stringify(["1", "2", topic, event, payload]));
}

export function joinFrame(topic: string, params: { since?: string } = {}): Uint8Array {
  return maskedFrame(JSON.stringify(["1", "1", topic, "phx_join", params]));
}

export const CLOSE_FRAME = maskedFrame(new Uint8Array([0x03, 0xe8]), 8);

/** What all sockets of a window have heard. */
export class Tally {
  /** V2 replies: frames that begin with a join_ref, `["`. */
  replies = 0;
  /** Events to a topic: frames that begin with `[null`. */
  events = 0;
  /** Pieces of data that were read: how well the server batches. */
  reads = 0;
  /** Replies of another size than the first of their socket: refusals, most likely. */
  odd = 0;
}

/** Reads unmasked frames out of what comes from one connection; only a frame that was cut is copied. */
export class FrameReader {
  #left: Uint8Array | null = null;

  /** Calls `each` for every message that is complete: its opcode, and where its payload begins and ends in `bytes`. */
  take(chunk: Uint8Array, each: (bytes: Uint8Array, from: number, to: number, opcode: number) => void): void {
    const bytes = this.#left ? Buffer.concat([this.#left, chunk]) : chunk;
    this.#left = null;
    let at = 0;
    while (at < bytes.length) {
      const end = endOf(bytes, at);
      if (end > bytes.length) {
        this.#left = bytes.slice(at);
        return;
      }
      each(bytes, at + headOf(bytes, at), end, bytes[at] & 15);
      at = end;
    }
  }
}

function headOf(bytes: Uint8Array, at: number): number {
  return bytes[at + 1] < 126 ? 2 : bytes[at + 1] === 126 ? 4 : 10;
}

/** Where the frame at `at` ends; Infinity when its length is not there yet. */
function endOf(bytes: Uint8Array, at: number): number {
  if (at + 2 > bytes.length) return Infinity;
  const head = headOf(bytes, at);
  if (at + head > bytes.length) return Infinity;
  let size = bytes[at + 1];
  if (head > 2) {
    size = 0;
    for (let place = at + 2; place < at + head; place++) size = size * 256 + bytes[place];
  }
  return at + head + size;
}

export const QUOTE = 0x22;
// A header of at most 4 bytes and the two that tell a reply from an event.
const LOOK = 6;

/** Counts the unmasked frames of one connection, without copying or parsing them. */
export class FrameCounter {
  #skip = 0;
  #left: Uint8Array | null = null;
  #replySize = 0;

  constructor(private readonly tally: Tally) {}

  /** Returns how many replies were in it. */
  take(chunk: Uint8Array): number {
    const { tally } = this;
    tally.reads++;
    if (this.#left) {
      chunk = Buffer.concat([this.#left, chunk]);
      this.#left = null;
    }
    const end = chunk.length;
    let replies = 0, events = 0;
    let at = this.#skip;
    while (at < end) {
      if (end - at < LOOK) {
        this.#left = chunk.slice(at);
        break;
      }
      const short = chunk[at + 1];
      const head = short < 126 ? 2 : 4;
      if (short === 127) throw new Error("The server sent a frame of 64 KB or more");
      const size = head + (short < 126 ? short : (chunk[at + 2] << 8) | chunk[at + 3]);
      if (chunk[at + head + 1] === QUOTE) {
        replies++;
        if (this.#replySize === 0) this.#replySize = size;
        else if (size !== this.#replySize) tally.odd++;
      } else events++;
      at += size;
    }
    this.#skip = this.#left ? 0 : at - end;
    tally.replies += replies;
    tally.events += events;
    return replies;
  }
}

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

/** `count` copies of a frame in one piece: what a burst of answers is answered with. */
export function repeated(frame: Uint8Array, count: number): Uint8Array {
  return Buffer.concat(Array.from({ length: count }, () => frame));
}

/** A client's V2 push in one of the topics of the bench. All refs are alike: nobody here matches them. */
export function pushFrame(topic: string, event: string, payload: unknown): Uint8Array {
  return maskedFrame(JSON.stringify(["1", "2", topic, event, payload]));
}

export function joinFrame(topic: string): Uint8Array {
  return maskedFrame(JSON.stringify(["1", "1", topic, "phx_join", {}]));
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

const QUOTE = 0x22;
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

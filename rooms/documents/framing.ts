/** The pipe between the server and its child processes: JSON in UTF-8, each message behind its length in four bytes, big-endian. */

/** Bytes that one message may have. */
export const FRAME_LIMIT = 64 << 20;

const utf8 = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A value as one message. Throws TypeError when it is no JSON, RangeError when it is larger than `FRAME_LIMIT`. */
export function frame(value: unknown): Uint8Array<ArrayBuffer> {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError("Cannot frame what is no JSON");
  if (text.length > FRAME_LIMIT) throw new RangeError(`Cannot frame more than ${FRAME_LIMIT} bytes`);
  // Mostly it is ASCII, and fits where its length says. A second pass where it does not.
  let bytes = new Uint8Array(4 + text.length);
  if (utf8.encodeInto(text, bytes.subarray(4)).read < text.length) {
    const body = utf8.encode(text);
    bytes = new Uint8Array(4 + body.length);
    bytes.set(body, 4);
  }
  if (bytes.length - 4 > FRAME_LIMIT) throw new RangeError(`Cannot frame more than ${FRAME_LIMIT} bytes`);
  new DataView(bytes.buffer).setUint32(0, bytes.length - 4);
  return bytes;
}

/** What a message says. Throws SyntaxError or TypeError when it is no JSON in UTF-8. */
export function unframe(body: Uint8Array): unknown {
  return JSON.parse(strict.decode(body));
}

/** Cuts a stream into the bodies of messages. It holds what has arrived, and nothing ahead: an announced length costs nothing. */
export class Frames {
  #chunks: Uint8Array[] = [];
  #held = 0;

  /** The messages that the chunk completes. Throws RangeError for one that is announced as larger than `FRAME_LIMIT`. */
  push(chunk: Uint8Array): Uint8Array<ArrayBuffer>[] {
    const bodies: Uint8Array<ArrayBuffer>[] = [];
    this.#chunks.push(chunk);
    this.#held += chunk.length;
    while (this.#held >= 4) {
      const length = this.#length();
      if (length > FRAME_LIMIT) throw new RangeError(`Cannot take a message of ${length} bytes`);
      if (this.#held < 4 + length) break;
      bodies.push(this.#take(4 + length).subarray(4));
    }
    return bodies;
  }

  #length(): number {
    if (this.#chunks[0].length < 4) this.#chunks = [this.#join(this.#held)];
    const { buffer, byteOffset } = this.#chunks[0];
    return new DataView(buffer, byteOffset, 4).getUint32(0);
  }

  #take(length: number): Uint8Array<ArrayBuffer> {
    const taken = this.#join(length);
    let rest = length;
    let at = 0;
    while (at < this.#chunks.length && rest >= this.#chunks[at].length) rest -= this.#chunks[at++].length;
    this.#chunks.splice(0, at);
    if (rest > 0) this.#chunks[0] = this.#chunks[0].subarray(rest);
    this.#held -= length;
    return taken;
  }

  /** The first bytes of what is held, in one piece of their own. */
  #join(length: number): Uint8Array<ArrayBuffer> {
    const joined = new Uint8Array(length);
    let at = 0;
    for (const chunk of this.#chunks) {
      if (at === length) break;
      const part = chunk.subarray(0, length - at);
      joined.set(part, at);
      at += part.length;
    }
    return joined;
  }
}

/**
 * The Phoenix Channels wire: V1 objects, V2 arrays and V2 binary, both ways. The numbers in brackets are the rules of
 * the protocol notes that the tests cite.
 *
 * Bodies arrive here as JSON text, encoded once where they were made; a frame is an envelope around them. A broadcast
 * is therefore encoded once per serializer, whatever the number of its receivers.
 */

/** JSON text, or bytes for events that are declared binary. */
export type Body = string | Uint8Array;

/** What goes into one WebSocket message: text or binary. */
export type Encoded = string | Uint8Array;

/** Refs are the client's: any JSON scalar, echoed unchanged and compared strictly. [18] */
export type Ref = string | number | boolean | null;

/** One frame from a client. `size` is what it took on the wire: characters of text, or bytes. */
export interface Message {
  join_ref: Ref;
  ref: Ref;
  topic: string;
  event: string;
  payload: unknown;
  size: number;
}

/** The version of the wire that a socket speaks. */
export interface Serializer {
  readonly vsn: "1.0.0" | "2.0.0";
  /** One WebSocket message: text, or the bytes of a binary one. Throws FrameError. */
  decode(data: string | Uint8Array): Message;
  reply(join_ref: Ref, ref: Ref, topic: string, status: "ok" | "error", body: Body): Encoded;
  /** A frame for one session; `ref` is null but for phx_close and phx_error, which carry the join_ref. [76, 77] */
  push(join_ref: Ref, ref: Ref, topic: string, event: string, body: Body): Encoded | null;
  /** A frame for all: null where this version cannot say it (bytes to V1 are skipped, nobody crashes [40]). */
  broadcast(topic: string, event: string, body: Body): Encoded | null;
}

/** A frame that cannot be served: fatal closes the socket with 1003, otherwise an `invalid_frame` reply goes to `ref`. */
export class FrameError extends Error {
  override readonly name = "FrameError";
  constructor(message: string, readonly fatal = true, readonly ref: Ref = null, readonly topic: unknown = null) {
    super(message);
  }
}

/** The longest join_ref, ref, topic or event in UTF-8 bytes: what one length byte of the binary form can say. [25, 34] */
export const MAX_NAME_BYTES = 255;

/**
 * The serializer of a `vsn` query value; undefined when it is none of ours.
 * Missing means V1; `~> 1.0.0` and `~> 2.0.0` are accepted, pre-releases are not. [2, 3, 4]
 */
export function negotiate(vsn: string | undefined): Serializer | undefined {
  if (vsn === undefined) return V1;
  const version = /^([12])\.0\.(?:0|[1-9]\d{0,8})(?:\+[0-9A-Za-z.-]+)?$/.exec(vsn);
  return version ? (version[1] === "1" ? V1 : V2) : undefined;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const toBytes = new TextEncoder();

function parse(data: string | Uint8Array): unknown {
  try {
    return JSON.parse(typeof data === "string" ? data : utf8.decode(data));
  } catch {
    throw new FrameError("not JSON");
  }
}

/** Unicode that can be stored, compared and printed: no lone surrogates and no control characters. */
export function isName(value: unknown): value is string {
  // deno-lint-ignore no-control-regex
  return typeof value === "string" && !/[\u0000-\u001f\u007f]/.test(value) && value.isWellFormed();
}

function isRef(value: unknown): value is Ref {
  return value === null || Number.isFinite(value) || typeof value === "boolean" ||
    (typeof value === "string" && value.length <= MAX_NAME_BYTES && (value.length * 3 <= MAX_NAME_BYTES || byteLength(value) <= MAX_NAME_BYTES));
}

/** The length of a text as UTF-8. */
export function byteLength(text: string): number {
  return toBytes.encode(text).length;
}

/** Well-formed in arity, wrong in type: answered where a ref can be read, and the socket stays. [16, 18, 20] */
function message(join_ref: unknown, ref: unknown, topic: unknown, event: unknown, payload: unknown, size: number): Message {
  if (!isRef(ref)) throw new FrameError("ref is not a short JSON scalar", false, null, topic);
  if (!isRef(join_ref)) throw new FrameError("join_ref is not a short JSON scalar", false, ref, topic);
  if (typeof topic !== "string") throw new FrameError("topic is not a string", false, ref, topic);
  if (typeof event !== "string") throw new FrameError("event is not a string", false, ref, topic);
  return { join_ref, ref, topic, event, payload, size };
}

const V1_KEYS = ["topic", "event", "payload", "ref"] as const;

/** Objects `{topic, event, payload, ref, join_ref}`. Out: five keys, join_ref included, as the page shows them. [36, 37] */
export const V1: Serializer = {
  vsn: "1.0.0",
  // The opcode does not matter: JSON text in a binary frame works. [39]
  decode(data) {
    const value = parse(data) as Record<string, unknown>;
    if (typeof value !== "object" || value === null || Array.isArray(value) || !V1_KEYS.every((key) => Object.hasOwn(value, key))) {
      throw new FrameError("not a V1 frame");
    }
    const join_ref = Object.hasOwn(value, "join_ref") ? value.join_ref : null;
    return message(join_ref, value.ref, value.topic, value.event, value.payload, data.length);
  },
  reply(join_ref, ref, topic, status, body) {
    // V1 has no bytes, and yet every push gets its one reply.
    if (typeof body !== "string") return V1.reply(join_ref, ref, topic, "error", '{"reason":"binary_not_supported"}');
    return object(join_ref, ref, topic, "phx_reply", `{"status":"${status}","response":${body}}`);
  },
  push: (join_ref, ref, topic, event, body) => typeof body === "string" ? object(join_ref, ref, topic, event, body) : null,
  broadcast: (topic, event, body) => typeof body === "string" ? object(null, null, topic, event, body) : null,
};

function object(join_ref: Ref, ref: Ref, topic: string, event: string, body: string): string {
  return `{"topic":${JSON.stringify(topic)},"event":${JSON.stringify(event)},"payload":${body},` +
    `"ref":${JSON.stringify(ref)},"join_ref":${JSON.stringify(join_ref)}}`;
}

/** Arrays `[join_ref, ref, topic, event, payload]` and, for bytes, frames with a length byte per field. [15, 25 to 28] */
export const V2: Serializer = {
  vsn: "2.0.0",
  decode(data) {
    if (typeof data !== "string") return decodeBinary(data);
    const value = parse(data);
    // A sixth element and later ones are ignored. [16]
    if (!Array.isArray(value) || value.length < 5) throw new FrameError("not a V2 frame");
    return message(value[0], value[1], value[2], value[3], value[4], data.length);
  },
  reply(join_ref, ref, topic, status, body) {
    if (typeof body !== "string") return bytes(1, [text(join_ref), text(ref), topic, status], body);
    // Most refs are digits, and a room's replies come in rows: a third of a reply's time went into quoting these.
    const head = isDigits(join_ref) && isDigits(ref) ? `["${join_ref}","${ref}",` : `[${JSON.stringify(join_ref)},${JSON.stringify(ref)},`;
    return head + topicJson(topic) + (status === "ok" ? OK : ERROR) + body + "}]";
  },
  push(join_ref, ref, topic, event, body) {
    if (typeof body !== "string") return bytes(0, [text(join_ref), topic, event], body);
    return array(join_ref, ref, topic, event, body);
  },
  broadcast(topic, event, body) {
    if (typeof body !== "string") return bytes(2, [topic, event], body);
    return array(null, null, topic, event, body);
  },
};

function array(join_ref: Ref, ref: Ref, topic: string, event: string, body: string): string {
  return `[${JSON.stringify(join_ref)},${JSON.stringify(ref)},${JSON.stringify(topic)},${JSON.stringify(event)},${body}]`;
}

const OK = ',"phx_reply",{"status":"ok","response":';
const ERROR = ',"phx_reply",{"status":"error","response":';

function isDigits(ref: Ref): boolean {
  if (typeof ref !== "string") return false;
  for (let index = 0; index < ref.length; index++) {
    const code = ref.charCodeAt(index);
    if (code < 48 || code > 57) return false;
  }
  return true;
}
let lastTopic = "";
let lastTopicJson = '""';
function topicJson(topic: string): string {
  if (topic !== lastTopic) lastTopicJson = JSON.stringify(lastTopic = topic);
  return lastTopicJson;
}

// A null ref is written as length 0. [35]
function text(ref: Ref): string {
  return ref === null ? "" : String(ref);
}

function bytes(kind: number, names: string[], data: Uint8Array): Uint8Array {
  const fields = names.map((name) => toBytes.encode(name));
  const frame = new Uint8Array(fields.reduce((sum, field) => sum + 1 + field.length, 1) + data.length);
  frame[0] = kind;
  let at = 1;
  for (const field of fields) {
    if (field.length > MAX_NAME_BYTES) throw new TypeError("Cannot encode a name of more than 255 bytes in a binary frame");
    frame[at++] = field.length;
  }
  for (const field of fields) {
    frame.set(field, at);
    at += field.length;
  }
  frame.set(data, at);
  return frame;
}

function decodeBinary(data: Uint8Array): Message {
  // Clients send kind 0 only; other kinds and lengths past the end are no frames. [33]
  if (data.length < 5 || data[0] !== 0) throw new FrameError("not a V2 binary push");
  let at = 5;
  const field = (index: number): string => {
    const end = at + data[1 + index];
    if (end > data.length) throw new FrameError("a length runs past the end of the frame");
    try {
      return utf8.decode(data.subarray(at, at = end));
    } catch {
      throw new FrameError("a name is not UTF-8");
    }
  };
  // An empty ref is "", not null. [31]
  const [join_ref, ref, topic, event] = [field(0), field(1), field(2), field(3)];
  // A copy: a view would keep the whole chunk that was read alive.
  return { join_ref, ref, topic, event, payload: data.slice(at), size: data.length };
}

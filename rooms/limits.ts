/** Every limit, with its unit and default. `LIMIT_<NAME>` in the environment changes one; the README's table is this one. */
import { z } from "zod";
import { Refusal } from "../protocol/reason.ts";

/** A whole number in decimal digits: what `Number()` makes of blanks is none. */
export function wholeNumber(least: number, most: number) {
  return z.string().regex(/^\d{1,15}$/, `it is no whole number from ${least} to ${most}`).transform(Number)
    .refine((value) => value >= least && value <= most, `it is not from ${least} to ${most}`);
}

const limit = (value: number, unit: string, what: string) => ({ value, unit, what });

export const LIMITS = {
  payload_units: limit(65_536, "UTF-16 units", "one payload as JSON; more is refused `payload_too_large`, the socket stays"),
  frame_bytes: limit(524_288, "bytes", "one WebSocket message; more closes 1009"),
  json_depth: limit(64, "levels", "nesting of one payload; more is refused `invalid_payload`"),
  topic_bytes: limit(255, "bytes", "one topic; more is refused `invalid_frame`"),
  topics_per_socket: limit(100, "topics", "joined at once; more is refused `too many channels joined`"),
  sockets_per_user: limit(1_000, "per user", "sockets at once; more are refused 429, or by `authenticate`"),
  idle_ms: limit(60_000, "ms", "without a byte from the client; then 1001"),
  authenticate_ms: limit(10_000, "ms", "a socket may stay without a user; then 4002"),
  token_bytes: limit(8_192, "bytes", "one token; more is refused unread"),
  passing_outbox_bytes: limit(262_144, "bytes", "waiting for a slow reader, above which passing events are dropped"),
  outbox_bytes: limit(1_048_576, "bytes", "unsolicited bytes waiting for a slow reader; more closes 1013; with more answers waiting, its reading pauses"),
  later_ms: limit(4_000, "ms", "slow work behind a push or join; then `timeout`"),
  connections: limit(16_000, "connections", "at once, of all kinds; more are cut. Keep it well below the process's limit of open files"),
  request_ms: limit(30_000, "ms", "for an HTTP request to come and be answered; then its connection is cut"),
  publish_events: limit(100, "events", "in one publishing request"),
  publish_bytes: limit(8_388_608, "bytes", "one publishing request; more is 413"),
  recovery_events: limit(1_000, "entries", "of the log between `since` and now; more is not replayed: `recovered` is false"),
  recovery_bytes: limit(1_048_576, "bytes", "of payloads replayed to one join; more is not replayed"),
  requests: limit(100, "per user and minute", "pushes but cursors and selections, and pages of the record, over all sockets; more is refused `rate_limited`"),
  joins: limit(300, "per user and minute", "joins and leaves; more joins are refused `rate_limited`, leaves never are"),
  authentications: limit(10, "per user and minute", "`authenticate` messages; more is refused `rate_limited`"),
  batches: limit(600, "per user and minute", "`batch` messages; more is refused `rate_limited`"),
  batch_messages: limit(100, "messages", "in one batch; more is refused `batch_rejected`"),
  batched_messages: limit(2_000, "per user and minute", "messages in batches; more is refused `rate_limited`"),
  operations: limit(50, "per user and second", "operations on texts; more is refused `rate_limited`"),
  cursors: limit(30, "per user and second", "cursors and selections told to others; more are coalesced, the last one arrives"),
  rate_refusals: limit(5_000, "per user and minute", "`rate_limited` answers; more closes 1008"),
  frames: limit(20_000, "per user and minute", "messages of any kind, or of one socket before it has a user; more closes 1008"),
  frames_waiting: limit(1_000, "messages", "read from one socket and not served yet; then its reading pauses"),
  upload_bytes: limit(104_857_600, "bytes", "one file; more is refused `payload_too_large`"),
  upload_files: limit(1_000, "files", "in one upload; more is refused `payload_too_large`"),
  upload_ms: limit(600_000, "ms", "for an upload to come; then its connection is cut"),
  document_ms: limit(60_000, "ms", "to read one document; then it is an exception"),
  readers: limit(2, "processes", "that read documents"),
  searchers: limit(2, "processes", "that search"),
  analyzer_ms: limit(20_000, "ms", "for the `ANALYZER_URL` to answer; then the own rules are used"),
  searches: limit(4, "per user", "searches at once, live ones too; more are refused `search_limit`"),
  search_results: limit(1_000, "results", "told of one search; what is found beyond them is counted"),
  search_candidates: limit(1_000, "documents", "of one case that a search ranks; of more, the newest"),
  search_ms: limit(5_000, "ms", "to search one case; then it is named in `incomplete`"),
  refusals_logged: limit(10, "per user and minute", "refusals of authority written to the log"),
} as const;

export type Limits = { readonly [K in keyof typeof LIMITS]: number };

export const DEFAULT_LIMITS = Object.fromEntries(Object.entries(LIMITS).map(([name, { value }]) => [name, value])) as Limits;

/** The environment's names of the limits, as a zod shape. */
export const limitShape = Object.fromEntries(
  Object.entries(LIMITS).map(([name, { value }]) => [`LIMIT_${name.toUpperCase()}`, wholeNumber(1, 2 ** 31 - 1).default(value)]),
);

/**
 * Throws Refusal `payload_too_large` or `invalid_payload` (too deep). `size` is what the payload took on the wire, in
 * characters or bytes: most are so small that no way of writing JSON could make them too large or too deep.
 */
export function checkPayload(payload: unknown, limits: Limits, size = Infinity): void {
  if (typeof payload !== "object" || payload === null || payload instanceof Uint8Array) {
    if (payload instanceof Uint8Array && payload.length > limits.payload_units) throw new Refusal("payload_too_large", { limit: limits.payload_units });
  } else if (size > 2 * limits.json_depth && deeper(payload, limits.json_depth)) {
    throw new Refusal("invalid_payload", { message: `nested deeper than ${limits.json_depth} levels`, limit: limits.json_depth });
  }
  // JSON.stringify writes 1e20 as 21 digits: six times what came is more than it can make of anything.
  if (size * 6 > limits.payload_units && !(payload instanceof Uint8Array) && JSON.stringify(payload).length > limits.payload_units) {
    throw new Refusal("payload_too_large", { limit: limits.payload_units });
  }
}

function deeper(value: object, levels: number): boolean {
  if (levels === 0) return true;
  // `for … in` over an array is seven times as slow.
  if (Array.isArray(value)) return value.some((inner) => typeof inner === "object" && inner !== null && deeper(inner, levels - 1));
  for (const key in value) {
    const inner = (value as Record<string, unknown>)[key];
    if (typeof inner === "object" && inner !== null && deeper(inner, levels - 1)) return true;
  }
  return false;
}

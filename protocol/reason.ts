/** Why something was refused, and why a connection was closed: two closed lists, and the error that carries one. */

/** Every `reason` that an error reply, a phx_close or an HTTP error may carry, with what it tells the client. */
export const REASONS = {
  "unmatched topic": "the topic is unknown, or this socket has not joined it (Phoenix's words)",
  "too many channels joined": "this socket has joined as many topics as it may (Phoenix's words)",
  "join crashed": "the join failed on our side; it was reported (Phoenix's words)",
  unauthenticated: "authenticate first",
  token_invalid: "the token is malformed, forged, or from another issuer",
  token_expired: "the token was good once; get a new one",
  user_mismatch: "`user_id`, or the renewing token, names somebody else",
  forbidden: "your rights do not cover this",
  not_found: "no such thing, or none that you may see",
  invalid_frame: "topic, event, ref or payload has the wrong type or form",
  invalid_payload: "the payload does not fit the contract; `message` says where",
  unknown_event: "this channel knows no such event",
  payload_too_large: "more than `limit` UTF-16 units",
  encrypted_not_supported: "the server must read this event; send it in the clear",
  binary_not_supported: "this event takes JSON only",
  batch_rejected: "one message of the batch was refused, or there are too many of them; nothing was applied",
  rate_limited: "too many; try again in `retry_after_ms`",
  busy: "too much is waiting; try again",
  unavailable: "not known to be kept; try again with the same id",
  draining: "this server is going away; reconnect",
  timeout: "it took too long and was given up",
  version_conflict: "somebody changed it first",
  duplicate: "this id was used before, for something else",
  resync: "that revision is no longer kept; join again",
  bad_operation: "the operation does not apply to the text",
  document_full: "the text has reached its limit",
  invalid_query: "the search query cannot be read",
  search_limit: "too many searches at once",
  internal: "an error on our side; it was reported",
} as const;

export type Reason = keyof typeof REASONS;

/** What may stand beside the reason: a sentence, the limit that was passed, when to try again. Never a stack. */
export interface RefusalDetail {
  message?: string;
  limit?: number;
  retry_after_ms?: number;
  /** Of a batch: which message was refused, and what it would have been answered alone. */
  index?: number;
  refused?: Record<string, unknown>;
}

/** The client's error: it becomes an error reply, and the turn that threw it leaves no trace. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  /** Whether somebody reached for what is not his: that stands in the record. `not_found` may hide it from him, not from us. */
  readonly ofAuthority: boolean;
  constructor(readonly reason: Reason, readonly detail: RefusalDetail = {}, { ofAuthority = reason === "forbidden" || reason === "user_mismatch" } = {}) {
    super(detail.message ?? REASONS[reason]);
    this.ofAuthority = ofAuthority;
  }
  /** The `response` of the error reply: `{reason, message?, limit?, retry_after_ms?, index?, refused?}`. */
  response(): Record<string, unknown> {
    return { reason: this.reason, ...this.detail };
  }
}

/** Every close code this server sends of its own will. Never 1000 to a live client: older clients would not come back. [101] */
export const CLOSE_CODES = {
  1001: { meaning: "idle, or disconnected by an administrator", reconnect: true },
  1003: { meaning: "not a frame of the protocol", reconnect: true },
  1008: { meaning: "sustained abuse", reconnect: false },
  1009: { meaning: "frame too large", reconnect: true },
  1012: { meaning: "the server is going away for a restart", reconnect: true },
  1013: { meaning: "too slow for what it must not miss", reconnect: true },
  4001: { meaning: "the token expired", reconnect: false },
  4002: { meaning: "not authenticated in time, or `authenticate` failed", reconnect: false },
} as const;

export type CloseCode = keyof typeof CLOSE_CODES;

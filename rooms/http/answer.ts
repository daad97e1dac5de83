/** How a refusal looks over HTTP. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { type Reason, Refusal } from "../../protocol/reason.ts";

const STATUS: Partial<Record<Reason, ContentfulStatusCode>> = {
  unauthenticated: 401,
  token_invalid: 401,
  token_expired: 401,
  forbidden: 403,
  "unmatched topic": 404,
  not_found: 404,
  duplicate: 409,
  version_conflict: 409,
  payload_too_large: 413,
  rate_limited: 429,
  unavailable: 503,
  draining: 503,
  busy: 503,
  timeout: 503,
  internal: 500,
};

/** `{reason, message, limit?, retry_after_ms?}` with the status of its reason; 422 for what the sender got wrong. */
export function answerRefusal(c: Context, refusal: Refusal): Response {
  return c.json({ ...refusal.response(), message: refusal.message }, STATUS[refusal.reason] ?? 422);
}

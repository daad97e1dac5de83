import { assertEquals, assertMatch } from "@std/assert";
import { CLOSE_CODES, type Reason, REASONS, Refusal } from "../protocol/reason.ts";

Deno.test("reason: the closed list is that of the design (§8)", () => {
  const listed = [
    ["unmatched topic", "too many channels joined", "join crashed"],
    "unauthenticated token_invalid token_expired user_mismatch forbidden not_found".split(" "),
    "invalid_frame invalid_payload unknown_event payload_too_large encrypted_not_supported binary_not_supported batch_rejected".split(" "),
    "rate_limited busy unavailable draining timeout version_conflict duplicate resync bad_operation document_full".split(" "),
    "invalid_query search_limit internal".split(" "),
  ].flat();
  assertEquals(Object.keys(REASONS).sort(), listed.sort());
});

Deno.test("reason: every one is explained in a sentence without a stop", () => {
  for (const text of Object.values(REASONS)) assertMatch(text, /^[`a-z].*[^.]$/);
});

Deno.test("reason: a refusal shows its reason and what stands beside it, never a stack", () => {
  assertEquals(new Refusal("busy").response(), { reason: "busy" });
  assertEquals(new Refusal("rate_limited", { message: "slow", limit: 1, retry_after_ms: 2 }).response(), {
    reason: "rate_limited",
    message: "slow",
    limit: 1,
    retry_after_ms: 2,
  });
  assertEquals([new Refusal("busy").message, new Refusal("busy", { message: "m" }).message], [REASONS.busy, "m"]);
  for (const reason of Object.keys(REASONS) as Reason[]) assertEquals(JSON.stringify(new Refusal(reason).response()), JSON.stringify({ reason }));
});

Deno.test("reason: the close codes are those of the design; never 1000, which older clients take for good [101]", () => {
  assertEquals(Object.keys(CLOSE_CODES), ["1001", "1003", "1008", "1009", "1012", "1013", "4001", "4002"]);
});

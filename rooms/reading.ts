/** A page of a room's record, as one user may see it today. */
import { own } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import type { Log } from "./log.ts";
import type { TopicState } from "./topic.ts";
import { may } from "./token.ts";
import type { Turn } from "./turn.ts";

/** An entry of the record. `at`: ISO 8601. */
export interface Recorded {
  readonly cursor: string;
  readonly at: string;
  readonly user: string;
  readonly event: string;
  readonly payload: unknown;
}

/** `next`: the cursor after which the rest stands, null when there is none. */
export interface Page {
  readonly events: Recorded[];
  readonly next: string | null;
}

/** How many bytes of payloads one page has at most, unless a single one is larger. */
const PAGE_BYTES = 4_194_304;

/** What is recorded and told to nobody, refused attempts too, is shown to moderators only. Throws Refusal when `after` is no cursor of this record. */
export function readPage(turn: Turn, { contract, behaviour, topic }: TopicState, log: Log, after: string | null, limit: number): Page {
  const position = after === null ? 0 : log.positionOf(turn.room, after);
  if (position === undefined) throw new Refusal("invalid_payload", { message: "after: it is no cursor of this record" });
  const kept = log.page(turn.room, position, { entries: limit, bytes: PAGE_BYTES });
  const visible = kept.filter((entry) => {
    if (entry.topic !== topic) return false;
    const kind = entry.event === "refused" ? "recorded" : own(contract.events, entry.event)?.kind;
    if (kind === "recorded") return may(turn.user, "moderate");
    return kind === "lasting" &&
      (!behaviour.sees || behaviour.sees(turn, turn.user.role, entry.event, JSON.parse(entry.payload)));
  });
  const events = visible.map(({ cursor, at, user, event, payload }) => ({ cursor, at: new Date(at).toISOString(), user, event, payload: JSON.parse(payload) }));
  const last = kept.at(-1)?.cursor;
  return { events, next: last === undefined || last === log.cursorOf(log.head(turn.room)) ? null : last };
}

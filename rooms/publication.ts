/** What a back end publishes to a room: checked by the contract, each id applied once, all of a request or nothing. */
import { check, type EventSpec, own } from "../protocol/contract.ts";
import { cleanFields } from "../protocol/html.ts";
import { Refusal } from "../protocol/reason.ts";
import { checkPayload, type Limits } from "./limits.ts";
import type { Log } from "./log.ts";
import type { Topic } from "./room.ts";
import { encode } from "./seam.ts";
import type { Turn } from "./turn.ts";

/** One event of a publishing request, checked for form only. */
export interface Publication {
  readonly event: string;
  readonly payload: unknown;
  /** The sender's own: sent again, it is applied once. */
  readonly id?: string;
}

/**
 * Queues the events in a turn. Returns for each its place among the turn's lasting events, or the cursor that its id was
 * given before. Throws Refusal, with the event's place in the request.
 */
export function publish(
  turn: Turn,
  { contract, behaviour }: Topic,
  user: string,
  publications: readonly Publication[],
  log: Log,
  limits: Limits,
): (number | string)[] {
  const fresh = new Map<string, { content: string; answer: number | string }>();
  return publications.map(({ event, payload: raw, id }, index) => {
    const spec = own<EventSpec>(contract.events, event);
    if (!spec?.published) throw new Refusal("unknown_event", { message: `events.${index}: ${contract.topic} takes no such event from a back end` });
    const { alias } = spec;
    const payload = at(`events.${index}.payload`, () => {
      checkPayload(raw, limits);
      if (typeof raw === "object" && raw !== null && cleanFields(raw)) checkPayload(raw, limits);
      return check(spec.payload, raw);
    });
    const entry = { at: turn.now(), user, topic: turn.actor.topicOf(contract), event, payload: encode(payload), id };
    if (id === undefined) return apply();
    const content = encode([event, entry.payload]);
    const known = fresh.get(id);
    if (known && known.content !== content) throw new Refusal("duplicate", { message: `events.${index}: id ${id} stands twice, for different events` });
    const answer = known?.answer ?? log.repeated(turn.room, entry) ?? apply();
    fresh.set(id, { content, answer });
    return answer;

    function apply(): number {
      // First what follows from it: what that tells is to be known when the event is heard.
      at(`events.${index}.payload`, () => behaviour.published?.[event]?.(turn, payload));
      return turn.publish(contract, entry, payload, alias);
    }
  });
}

/** A Refusal of `body` says where it happened. */
function at<T>(place: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    throw new Refusal(error.reason, { ...error.detail, message: `${place}: ${error.message}` });
  }
}

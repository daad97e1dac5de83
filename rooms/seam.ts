/**
 * What crosses between gateways and rooms: plain data in batches, a function call in one process and RPC between objects.
 * A gateway knows sockets, refs and serializers; a room knows members, events and bodies.
 */
import type { Body, Encoded, Ref } from "../protocol/frame.ts";
import type { Channel, EventKind } from "../protocol/contract.ts";
import type { Role, User } from "./host.ts";

/** To which room, from which join of which socket: a session is `gateway.socket.n`. */
interface Address {
  readonly room: string;
  readonly topic: string;
  readonly session: string;
}

/** From a gateway to a room. */
export type Item =
  & Address
  & (
    /** `size`: characters or bytes of the frame. `replaces`: the session that this socket had on the topic so far. */
    | { readonly kind: "join"; readonly ref: Ref; readonly payload: unknown; readonly size: number; readonly user: User; readonly replaces?: string }
    | { readonly kind: "push"; readonly ref: Ref; readonly event: string; readonly payload: unknown; readonly size: number }
    | { readonly kind: "leave"; readonly ref: Ref; readonly join_ref: Ref }
    /** The socket is gone; `held` when it may be back soon. */
    | { readonly kind: "gone"; readonly held: boolean }
    /** The socket's user renewed his token, perhaps with other rights. */
    | { readonly kind: "renew"; readonly user: User }
  );

/** From a room to a gateway, in the order in which it is to be seen. */
export type Effect =
  /** The ok reply to a join; from here on the session hears the topic. */
  | { readonly kind: "joined"; readonly session: string; readonly ref: Ref; readonly body: Body }
  | { readonly kind: "reply"; readonly session: string; readonly ref: Ref; readonly status: "ok" | "error"; readonly body: Body }
  /** The answer to a push or a leave that found no member: as for any topic that is not joined. [58, 65, 81] */
  | {
    readonly kind: "stray";
    readonly session: string;
    readonly topic: string;
    readonly join_ref: Ref;
    readonly ref: Ref;
    readonly status: "ok" | "error";
    readonly body: string;
  }
  | { readonly kind: "push"; readonly session: string; readonly event: string; readonly body: Body }
  /** `alias`: its second name. `key`: of a passing event, what a newer one takes the place of. `roles`, `sessions`: nobody else hears it. */
  | {
    readonly kind: "broadcast";
    readonly topic: string;
    readonly event: string;
    body: Body;
    readonly durability: EventKind;
    readonly except?: string;
    readonly alias?: string;
    readonly key?: string;
    roles?: readonly Role[];
    readonly sessions?: readonly string[];
  }
  /** Passing events of that session are not told any more to those who were too slow for them: it is gone. */
  | { readonly kind: "mute"; readonly topic: string; readonly session: string }
  /** The session hears nothing more, but is not over: another one of its socket is on its way. */
  | { readonly kind: "silence"; readonly session: string }
  /** What the session missed, as it was told then; the same array for all that missed the same. */
  | { readonly kind: "replay"; readonly session: string; readonly events: readonly { readonly event: string; readonly body: string }[] }
  /** The session is over; told with phx_close or phx_error, or not at all when its join was refused. */
  | { readonly kind: "end"; readonly session: string; readonly event: "phx_close" | "phx_error" | null; readonly body: string }
  /** From the gateway to itself: an answer that no room gives, in its place among theirs. */
  | { readonly kind: "direct"; readonly socket: string; readonly frame: Encoded; readonly status?: "ok" | "error"; readonly body?: string };

/** The rooms, as a gateway sees them. A promise says that a join takes its time: the socket waits for it. [57] */
export interface Rooms {
  inbox(item: Item): void | Promise<void>;
  /** The room that owns the topic for this user, and the topic's contract; undefined when no channel matches it. */
  find(topic: string, userId: string): { readonly room: string; readonly contract: Channel } | undefined;
}

/** A lasting event shows its cursor beside its own fields. */
export function withCursor(payload: string, cursor: string): string {
  return withFields(payload, { cursor });
}

/** JSON text of an object, with more fields at its end. */
export function withFields(json: string, fields: Readonly<Record<string, unknown>>): string {
  return `${json.slice(0, -1)}${json.length > 2 ? "," : ""}${encode(fields).slice(1)}`;
}

/** JSON text of what a room sends. Throws CannotEncode, so that it fails its turn and never the delivery. */
export function encode(value: unknown): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(value);
  } catch (cause) {
    throw new CannotEncode("Cannot encode: it is circular or holds a BigInt", { cause });
  }
  if (json === undefined) throw new CannotEncode(`Cannot encode: ${typeof value} is no JSON`);
  return json;
}

/** Bytes are copied: the sender may go on using them. */
export function bodyOf(payload: unknown): Body {
  return payload instanceof Uint8Array ? payload.slice() : encode(payload);
}

export class CannotEncode extends TypeError {
  override readonly name = "CannotEncode";
}

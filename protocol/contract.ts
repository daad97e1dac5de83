/**
 * A channel's contract: what may be said on one kind of topic, as data. Behaviour lives elsewhere; the types of both
 * sides, the AsyncAPI page and the checks at the door are read off this one object.
 */
import { z } from "zod";
import { Refusal } from "./reason.ts";

/**
 * How an event is treated. `lasting`: logged in the turn's transaction, carries a `cursor`, can be replayed. `exact`: not
 * kept, never dropped. `passing`: never on disk, may be coalesced or dropped for a slow reader: the last one wins.
 * `recorded`: logged, and told to nobody: moderators read it in the record.
 */
export type EventKind = "lasting" | "exact" | "passing" | "recorded";

export interface EventSpec<P extends z.ZodType = z.ZodType> {
  readonly kind: EventKind;
  readonly payload: P;
  /** A back end may publish it over HTTP. */
  readonly published?: boolean;
  /** Passing events: coalesced per sender's user, who is heard `LIMIT_CURSORS` times a second; the last one always arrives. */
  readonly per?: "user";
  /** A second name under which it is told too, unless the join said `aliases: false`. */
  readonly alias?: string;
}

/** What a push is counted as, per user: requests by default. Cursors are never refused, but coalesced. */
export type PushBudget = "requests" | "operations" | "cursors";

export interface PushSpec {
  readonly payload: z.ZodType;
  /** The `response` of the ok reply; without it `{}`. */
  readonly reply?: z.ZodType;
  /** `{encrypted: {iv, data}}` may stand for the payload: the server relays it unread. */
  readonly encrypted?: boolean;
  readonly budget?: PushBudget;
  /** The payload may be bytes. A flag, as JSON Schema has no words for it. */
  readonly binary?: boolean;
  /** Never answered. */
  readonly silent?: boolean;
}

export interface ChannelSpec {
  /** `case:{caseId}`: a name, a colon, one id of at least one character; `room:{*}` takes an empty id too; `exact` has none. */
  readonly topic: string;
  readonly join: { readonly payload: z.ZodType; readonly reply: z.ZodType };
  readonly pushes: Readonly<Record<string, PushSpec>>;
  readonly events: Readonly<Record<string, EventSpec>>;
  /** The meta that a member shows; with it, every join is answered by presence_state. */
  readonly presence?: z.ZodType;
  /** Phoenix's own manners, for conformance runs: any JSON or bytes as payload, an unknown event crashes the session. */
  readonly loose?: boolean;
}

export type Channel<S extends ChannelSpec = ChannelSpec> = S & {
  /** What stands before the colon. */
  readonly name: string;
  /** Whether it has lasting events: then a join may ask for what it missed. */
  readonly keeps: boolean;
  /** Whether it has passing events per user. */
  readonly paced: boolean;
  /** The id of a topic of this kind, undefined when the topic is of another kind. */
  idOf(topic: string): string | undefined;
};

export type JoinParams<C extends ChannelSpec> = z.output<C["join"]["payload"]>;
export type JoinReply<C extends ChannelSpec> = z.input<C["join"]["reply"]>;
export type PushName<C extends ChannelSpec> = keyof C["pushes"] & string;
export type PushPayload<C extends ChannelSpec, E extends PushName<C>> =
  | z.output<C["pushes"][E]["payload"]>
  | (C["pushes"][E] extends { encrypted: true } ? Sealed : never);
export type PushReply<C extends ChannelSpec, E extends PushName<C>> = C["pushes"][E] extends { reply: infer R extends z.ZodType } ? z.input<R> : void;
export type EventName<C extends ChannelSpec> = keyof C["events"] & string;
export type EventPayload<C extends ChannelSpec, E extends EventName<C>> = z.input<C["events"][E]["payload"]>;
export type PresenceMeta<C extends ChannelSpec> = C extends { presence: infer P extends z.ZodType } ? z.input<P> : never;

/** Kept and replayed. `published: true` lets a back end send it over HTTP. */
export function lasting<P extends z.ZodType, const O extends { published?: boolean; alias?: string }>(
  payload: P,
  options?: O,
): { kind: "lasting"; payload: P } & O {
  return { kind: "lasting", payload, ...options as O };
}
/** Not kept, never dropped: a socket too slow for it is closed. */
export const exact = <P extends z.ZodType>(payload: P, options: { alias?: string } = {}) => ({ kind: "exact", payload, ...options }) as const;
/** In the record only, for moderators. */
export const recorded = <P extends z.ZodType>(payload: P) => ({ kind: "recorded", payload }) as const;
/** Never on disk; the last one wins. */
export const passing = <P extends z.ZodType>(payload: P, options: { per?: "user"; alias?: string } = {}) => ({ kind: "passing", payload, ...options }) as const;

/**
 * Join parameters that every channel takes besides its own. `user_id` is never trusted, only compared. `since`: the last
 * cursor that the client has seen: what came after it is replayed. `aliases: false`: no second names and no `update`.
 */
export const CommonJoin = z.object({ user_id: z.string().max(255).optional(), since: z.string().max(255).nullish(), aliases: z.boolean().optional() });

/**
 * What the join reply of every channel with lasting events says besides. `cursor`: where the log stands. `recovered`: true
 * when all that came after `since` follows as events; false when the reply is the state to start from.
 */
export const CommonReply = z.object({ cursor: z.string(), recovered: z.boolean() });

const Bytes = z.array(z.int().min(0).max(255));

/** A payload that only clients can read: AES-GCM as arrays of bytes. Relayed equal after parsing. */
export const Encrypted = z.looseObject({ iv: Bytes.min(1).max(64), data: Bytes });
export const Sealed = z.object({ encrypted: Encrypted });
export type Sealed = z.output<typeof Sealed>;

/** Several pushes in one: every channel takes them as the event `batch`, and applies all or none. */
export const Batch = z.object({ messages: z.array(z.object({ event: z.string(), payload: z.unknown() })).min(1) });
export const BatchReply = z.object({ results: z.array(z.object({ status: z.literal("ok"), response: z.unknown() })) });

/** Makes a contract of its description. Throws TypeError on a topic pattern that cannot be matched. */
export function channel<const S extends ChannelSpec>(spec: S): Channel<S> {
  const pattern = /^([a-z_]+)(?::\{(\*|[A-Za-z]+)\})?$/.exec(spec.topic);
  if (!pattern) throw new TypeError(`Cannot match topics by "${spec.topic}"`);
  const [, name, parameter] = pattern;
  const prefix = name + ":";
  const shortest = prefix.length + (parameter === "*" ? 0 : 1);
  return {
    ...spec,
    name,
    keeps: Object.values(spec.events).some(({ kind }) => kind === "lasting"),
    paced: Object.values(spec.events).some(({ per }) => per !== undefined),
    idOf(topic) {
      if (parameter === undefined) return topic === name ? "" : undefined;
      return topic.startsWith(prefix) && topic.length >= shortest ? topic.slice(prefix.length) : undefined;
    },
  };
}

/** Checks what came from outside. Throws Refusal `invalid_payload` whose message names the first wrong field. */
export function check<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue.path.map(String).join(".");
  throw new Refusal("invalid_payload", { message: (path ? `${path}: ${issue.message}` : issue.message).slice(0, 200) });
}

/** Own keys only: `constructor` and `__proto__` are names that a client can send. */
export function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

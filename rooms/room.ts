/**
 * A room is data: which topics it serves, its tables, and what it does when something is said. This file is the
 * vocabulary that behaviours are written in; `actor.ts` runs them.
 */
import type { Channel, EventName, EventPayload, JoinParams, JoinReply, PresenceMeta, PushName, PushPayload, PushReply } from "../protocol/contract.ts";
import type { Refusal } from "../protocol/reason.ts";
import type { Role, User } from "./host.ts";
import type { Limits } from "./limits.ts";
import type { Sql } from "./sql.ts";
import type { Right } from "./token.ts";

// deno-lint-ignore no-explicit-any
type Loose = any;

/**
 * Slow work. Return it from a join or a push: `work` runs outside the turn, is aborted after `LIMIT_LATER_MS`, and a late
 * result is discarded. Its result goes through `finish`, a turn of its own, which may write and whose return is the reply.
 * A join sends and shows nothing before that.
 */
export class Later<T = unknown, R = unknown> {
  constructor(
    readonly work: (signal: AbortSignal, outside: Outside) => Promise<T>,
    readonly finish: (ctx: Context<Loose>, result: T) => R = (_ctx, result) => result as unknown as R,
  ) {}
}

/** What slow work can reach. */
export interface Outside {
  /** Asks another room. Rejects with its Refusal. */
  ask<T>(room: string, message: unknown): Promise<T>;
  /** What the host does outside of turns. */
  work<T>(task: unknown, signal: AbortSignal): Promise<T>;
  /** Resolves when something more has been kept in that room, or the signal says so. */
  stirred(room: string, signal: AbortSignal): Promise<void>;
  /** The ids of all rooms of a kind in which anything has happened. */
  rooms(kind: string): Promise<string[]>;
  /** Milliseconds since some moment. */
  elapsed(): number;
  /** Resolves after so many milliseconds, or when the signal says so. */
  pause(ms: number, signal: AbortSignal): Promise<void>;
}

/**
 * Slow work that nobody waits for and that has many results: `each` is a turn of the member who began it, and so is `end`,
 * which hears what went wrong, if anything. It ends with `ctx.stop`, or with its session.
 */
export class Stream<T = unknown> {
  constructor(
    readonly work: (signal: AbortSignal, outside: Outside) => AsyncIterable<T>,
    readonly each: (ctx: Context<Loose>, result: T) => void,
    readonly end: (ctx: Context<Loose>, refusal: Refusal | null) => void,
  ) {}
}

/** What every turn of a room has. It throws TypeError when used after its turn. */
export interface RoomContext {
  /** The room's name, `case/1`. */
  readonly room: string;
  /** The id in its name, verbatim. */
  readonly id: string;
  readonly limits: Limits;
  /** Milliseconds since 1970. */
  now(): number;
  /** A fresh id, with the prefix of its kind: `annotation_x…`. */
  newId(prefix: string): string;
  readonly sql: Sql;
  /** Queues an event for every member of the room's topic of that contract. It leaves after the commit. */
  announce<C extends Channel, E extends EventName<C>>(contract: C, event: E, payload: EventPayload<C, E>): void;
  /** Queues an event for each member of that topic with what he may hear of it; nothing when that is undefined. Not for lasting ones. */
  tell<C extends Channel, E extends EventName<C>>(contract: C, event: E, view: (user: User) => EventPayload<C, E> | undefined): void;
  /** Writes an event into the record. */
  record<C extends Channel, E extends EventName<C>>(contract: C, event: E, payload: EventPayload<C, E>): void;
  /** Wakes the room's timer of that name after `ms`; it survives a restart. A second call moves it. */
  after(ms: number, timer: string): void;
  /** Sends plain JSON to another room: kept in this turn, delivered at least once and in order, taken once. */
  call(room: string, message: unknown): void;
  /** Has the host do something outside of turns: kept in this turn, done at least once; what comes of it is taken once, by `worked`. */
  work(task: unknown): void;
  /**
   * Asks another room, which answers in a turn of its own (`asked`): the answer is kept before it comes here. A Refusal there
   * is one here. Return it from a push, as any Later; `finish` makes the reply of the answer.
   */
  ask<T, R>(room: string, message: unknown, finish: (ctx: Context<Loose>, answer: T) => R): Later<T, R>;
  /** Once this turn is done, every member of the room is asked in again: whoever may not be here any more is closed. */
  readmit(): void;
  /** Where the room's log stood when this turn began. */
  cursor(): string;
  /** Once this turn is kept, whoever waits to be admitted here is asked again. */
  admitAgain(): void;
}

/** What a turn of one member has besides. */
export interface Context<C extends Channel = Channel> extends RoomContext {
  readonly topic: string;
  readonly user: User;
  /** In a join: whether what was missed will be replayed, so that the state need not be told. */
  readonly recovered: boolean;
  /** Throws Refusal `forbidden` when the user's role has not that right, or the session did not ask for it. */
  require(right: Right): void;
  /** In a join: the session has no rights but these, of those that the role has. Returns what it has. */
  grant(rights: readonly string[]): Right[];
  /** The users on this topic. */
  present(): User[];
  /** To every member of this topic; the sender hears it too, before his reply. [71, 72] */
  broadcast<E extends EventName<C>>(event: E, payload: EventPayload<C, E> | Uint8Array): void;
  /** To every member but this session. */
  broadcastFrom<E extends EventName<C>>(event: E, payload: EventPayload<C, E> | Uint8Array): void;
  /** To this session alone; in a join, after its reply. [60] */
  push(event: string, payload: Readonly<Record<string, unknown>> | Uint8Array): void;
  /** Starts slow work under a name that this session has not in use. */
  start<T>(name: string, stream: Stream<T>): void;
  /** Nothing more comes of it. False when there is none of that name. */
  stop(name: string): boolean;
  /** How many this user has under way in this room. */
  started(): number;
  /** Ends this session once its reply is out: phx_close. [78] */
  close(): void;
  readonly presence: SessionPresence<C>;
}

/** The metas of this session; the key is the user's id unless said otherwise. */
export interface SessionPresence<C extends Channel = Channel> {
  /** Returns the phx_ref, or null when this session tracks that key already. [92] */
  track(meta: PresenceMeta<C>, key?: string): string | null;
  /** Merges into the meta; null when there is none. [90] */
  update(change: Partial<PresenceMeta<C>>, key?: string): string | null;
  untrack(key?: string): void;
}

/** What one topic of a room does. Return is the ok reply; `throw new Refusal` is an error reply and leaves no trace. */
export interface Behaviour<C extends Channel = Channel> {
  /**
   * Throws Refusal when this user may not be here: asked before every join, and again when his token is renewed. Every
   * channel says it; nothing is open by having been forgotten.
   */
  admit(ctx: Context<C>): void;
  /** Whoever is refused `not_found` waits so many milliseconds for `ctx.admitAgain()`: what he asks for may be on its way. */
  readonly patienceMs?: number;
  /** What it broadcasts misses the joiner [59], for good when it lasts: that is for `arrive`. */
  join(ctx: Context<C>, params: JoinParams<C>): JoinReply<C> | Later<Loose, JoinReply<C>>;
  /**
   * Whether a role may see that event: asked for each role when it is told, and again, as things stand then, when it is
   * replayed or read from the record. Without it, whoever is admitted sees all.
   */
  sees?(ctx: RoomContext, role: Role, event: string, payload: Loose): boolean;
  /** The user's first session came, or his last one went and was not held. Nobody is asked: these are facts. */
  arrive?(ctx: Context<C>): void;
  depart?(ctx: Context<C>): void;
  readonly on: { readonly [E in PushName<C>]: (ctx: Context<C>, payload: PushPayload<C, E>) => PushReply<C, E> | Later<Loose, PushReply<C, E>> };
  /** What else happens when a back end publishes; the event itself is announced in any case. */
  readonly published?: { readonly [E in EventName<C>]?: (ctx: RoomContext, payload: EventPayload<C, E>) => void };
}

/** A contract with its behaviour, the types of the one taken from the other. */
export interface Topic {
  readonly contract: Channel;
  readonly behaviour: Behaviour<Loose>;
}

export function behave<C extends Channel>(contract: C, behaviour: Behaviour<C>): Topic {
  return { contract, behaviour };
}

export interface RoomDefinition {
  /** DDL, one entry per version, STRICT tables prefixed with the kind: `case_…`. */
  readonly migrations: readonly string[];
  readonly topics: readonly Topic[];
  readonly timers?: Readonly<Record<string, (ctx: RoomContext) => void>>;
  /** What another room's `call` does here. A Refusal is an answer; any other throw sets the call aside, reported. */
  called?(ctx: RoomContext, message: Loose, from: string): void;
  /** What came of a `work` of this room, or that it could not be done. */
  worked?(ctx: RoomContext, task: Loose, result: Loose | { readonly failed: string }): void;
  /** How far a `work` of this room is: may be missed, may not write. */
  noted?(ctx: RoomContext, task: Loose, note: Loose): void;
  /** What another room's `ask`, or an HTTP request, does here; what it returns is the answer. */
  asked?(ctx: RoomContext, message: Loose, from: string): unknown;
}

export interface Room extends RoomDefinition {
  /** What stands before the slash of its rooms' names. */
  readonly kind: string;
  /** `topic`: one room for each id of its topics, verbatim. `user`: one for each user, whatever the topic's id. */
  readonly per: "topic" | "user";
}

/** `room("case/{caseId}", …)` owns a room for each id of its topics; `room("search/{user}", …)` one for each user. */
export function room(pattern: string, definition: RoomDefinition): Room {
  const match = /^([a-z_]+)\/\{(\w+)\}$/.exec(pattern);
  if (!match) throw new TypeError(`Cannot name rooms by "${pattern}"`);
  return { kind: match[1], per: match[2] === "user" ? "user" : "topic", ...definition };
}

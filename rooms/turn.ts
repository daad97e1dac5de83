/** One turn of one room: the Context that behaviours see, and what it has queued. Nothing leaves from here. */
import type { Channel, EventKind, EventSpec } from "../protocol/contract.ts";
import { own } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import { type Tracked, tracked } from "../protocol/presence.ts";
import { type Host, type Member, ROLES, type SqlRow, type SqlValue, type User } from "./host.ts";
import type { Limits } from "./limits.ts";
import type { Entry } from "./log.ts";
import { type Behaviour, type Context, Later, type SessionPresence, type Stream } from "./room.ts";
import type { Finished, Gated } from "./gate.ts";
import { bodyOf, CannotEncode, type Effect, encode, withCursor } from "./seam.ts";
import type { RoomSql } from "./sql.ts";
import type { Call, Storage, Task } from "./storage.ts";
import type { TopicState } from "./topic.ts";
import { require, type Right, RIGHTS } from "./token.ts";

/** The room that a turn belongs to, as far as a turn needs it. */
export interface TurnOwner extends Gated {
  readonly name: string;
  readonly id: string;
  readonly host: Host;
  readonly storage: Storage;
  readonly roomSql: RoomSql;
  readonly limits: Limits;
  topicOf(contract: Channel): string;
  membersOf(contract: Channel): Iterable<Member>;
  begin(at: TopicState, member: Member, name: string, stream: Stream): () => void;
  abandon(session: string, name: string): (() => void) | undefined;
  streamsOf(userId: string): number;
  /** Who may see its events; undefined when whoever is admitted may. */
  seesOf(contract: Channel): Behaviour["sees"];
}

type Broadcast = Extract<Effect, { kind: "broadcast" }>;

const NONE: readonly string[] = [];

export class Turn implements Context, Finished, SessionPresence {
  effects: Effect[] = [];
  undo: (() => void)[] = [];
  kept: (() => void) | null = null;
  lost: (() => readonly Effect[]) | null = null;
  /** Lasting events in order, to be logged once the handler has returned. */
  #entries: { entry: Entry; effect: Broadcast | null }[] | null = null;
  calls: Call[] | null = null;
  tasks: Task[] | null = null;
  timers = false;
  /** Whether those who wait to be admitted are asked again. */
  admits = false;
  /** Whether those who are here are asked in again. */
  readmits = false;
  recovered = false;
  /** Whether it tells something that can be told too often. */
  paced = false;
  closing = false;
  /** The user behind it, when it is no member's. */
  behind: { readonly user: string; readonly topic: string } | null = null;
  /** Events that not everybody may see: who may is asked once the handler has returned. */
  #seen: { effect: Broadcast; sees: NonNullable<Behaviour["sees"]>; payload: unknown }[] | null = null;
  #over = false;

  constructor(readonly actor: TurnOwner, private readonly at: TopicState | null = null, readonly member: Member | null = null) {}

  /** Who is behind it: his refusals of authority are logged. */
  get author(): { readonly user: string; readonly topic: string } | null {
    return this.member ? { user: this.member.user.id, topic: this.member.topic } : this.behind;
  }

  /** Queues an effect. A list that begins empty and grows takes room for many: most turns have one. */
  add(effect: Effect): void {
    if (this.effects.length === 0) this.effects = [effect];
    else this.effects.push(effect);
  }

  /** Whether it has queued or shown anything yet. */
  get silent(): boolean {
    return this.effects.length === 0 && this.undo.length === 0 && !this.closing;
  }

  get room(): string {
    return this.actor.name;
  }
  get id(): string {
    return this.actor.id;
  }
  get topic(): string {
    return this.#topic().topic;
  }
  get user(): User {
    return this.#member().user;
  }
  get limits(): Limits {
    return this.actor.limits;
  }
  get presence(): SessionPresence {
    return this;
  }

  now(): number {
    return this.actor.host.clock.now();
  }
  newId(prefix: string): string {
    return `${prefix}_${this.actor.host.id()}`;
  }
  require(right: Right): void {
    require(this.user, right);
    const { granted } = this.#member();
    if (granted && !granted.includes(right)) throw new Refusal("forbidden", { message: `the join did not ask to ${right}` });
  }
  grant(rights: readonly string[]): Right[] {
    const granted = RIGHTS[this.user.role].filter((right) => rights.includes(right));
    this.#member().granted = granted;
    return granted;
  }
  present(): User[] {
    return [...new Map([...this.#topic().members.values()].map(({ user }) => [user.id, user])).values()];
  }

  sql(strings: TemplateStringsArray, ...values: (SqlValue | undefined)[]): SqlRow[] {
    this.#alive();
    const statement = this.actor.roomSql.statement(strings);
    if (statement.writes) this.actor.wrote = true;
    return this.actor.roomSql.run(statement, this.actor.name, values);
  }

  announce(contract: Channel, event: string, payload: unknown): void {
    this.#queue(contract, this.actor.topicOf(contract), event, payload);
  }
  broadcast(event: string, payload: unknown): void {
    const { contract, topic } = this.#topic();
    this.#queue(contract, topic, event, payload);
  }
  broadcastFrom(event: string, payload: unknown): void {
    const { contract, topic } = this.#topic();
    this.#queue(contract, topic, event, payload, this.#member().session);
  }
  push(event: string, payload: unknown): void {
    this.#alive();
    const { session } = this.#member();
    const { contract, topic } = this.#topic();
    const alias = own<EventSpec>(contract.events, event)?.alias;
    if (alias === undefined) return this.add({ kind: "push", session, event, body: bodyOf(payload) });
    this.add({ kind: "broadcast", topic, event, body: bodyOf(payload), durability: "exact", alias, sessions: [session] });
  }
  tell(contract: Channel, event: string, view: (user: User) => unknown): void {
    this.#alive();
    const spec = this.#spec(contract, event);
    if (!spec || spec.kind === "lasting") throw new TypeError(`Cannot tell ${event} in views: it is kept, and the same for all`);
    const views = new Map<string, string[]>();
    for (const { session, user } of this.actor.membersOf(contract)) {
      const payload = view(user);
      if (payload === undefined) continue;
      const body = encode(payload);
      const sessions = views.get(body);
      if (sessions) sessions.push(session);
      else views.set(body, [session]);
    }
    const [topic, durability, alias] = [this.actor.topicOf(contract), spec.kind, spec.alias];
    for (const [body, sessions] of views) this.add({ kind: "broadcast", topic, event, body, durability, alias, sessions });
  }
  record(contract: Channel, event: string, payload: unknown): void {
    this.#alive();
    if (this.#spec(contract, event)?.kind !== "recorded") throw new TypeError(`Cannot record ${event}: its contract says otherwise`);
    this.#keep({ at: this.now(), user: this.author?.user ?? "", topic: this.actor.topicOf(contract), event, payload: encode(payload) }, null);
  }
  start<T>(name: string, stream: Stream<T>): void {
    this.#alive();
    this.undo.push(this.actor.begin(this.#topic(), this.#member(), name, stream as unknown as Stream));
  }
  stop(name: string): boolean {
    this.#alive();
    const undo = this.actor.abandon(this.#member().session, name);
    if (undo) this.undo.push(undo);
    return undo !== undefined;
  }
  started(): number {
    return this.actor.streamsOf(this.user.id);
  }
  close(): void {
    this.#alive();
    this.closing = true;
  }

  /** Queues a broadcast; a lasting one is also an entry of the log. */
  #queue(contract: Channel, topic: string, event: string, payload: unknown, except?: string): void {
    this.#alive();
    const spec = this.#spec(contract, event);
    const durability: EventKind = spec?.kind ?? "exact";
    const body = bodyOf(payload);
    const key = spec?.per === "user" && this.member ? JSON.stringify([topic, event, this.member.user.id]) : undefined;
    const effect: Broadcast = { kind: "broadcast", topic, event, body, durability, except, alias: spec?.alias, key };
    if (key !== undefined) this.paced = true;
    this.#show(contract, effect, payload);
    if (durability !== "lasting") return;
    if (typeof body !== "string" || body[0] !== "{") throw new CannotEncode(`Cannot keep ${event}: its payload is no JSON object`);
    this.#keep({ at: this.now(), user: this.author?.user ?? "", topic, event, payload: body }, effect);
  }
  #spec(contract: Channel, event: string): EventSpec | undefined {
    const spec: EventSpec | undefined = own(contract.events, event);
    if (!spec && !contract.loose) throw new TypeError(`Cannot broadcast ${event}: it is not in the contract of ${contract.topic}`);
    return spec;
  }
  #keep(entry: Entry, effect: Broadcast | null): number {
    return (this.#entries ??= []).push({ entry, effect }) - 1;
  }

  #show(contract: Channel, effect: Broadcast, payload: unknown): void {
    const sees = this.actor.seesOf(contract);
    if (sees) (this.#seen ??= []).push({ effect, sees, payload });
    this.add(effect);
  }

  /** Queues what a back end published. Returns its place among the turn's lasting events. */
  publish(contract: Channel, entry: Entry, payload: unknown, alias?: string): number {
    this.#alive();
    const effect: Broadcast = { kind: "broadcast", topic: entry.topic, event: entry.event, body: entry.payload, durability: "lasting", alias };
    this.#show(contract, effect, payload);
    return this.#keep(entry, effect);
  }

  after(ms: number, timer: string): void {
    this.#alive();
    this.actor.wrote = true;
    this.timers = true;
    this.actor.storage.setTimer(this.actor.name, timer, this.actor.storage.steadyNow() + ms);
  }
  call(room: string, message: unknown): void {
    this.#alive();
    this.actor.wrote = true;
    (this.calls ??= []).push(this.actor.storage.addCall(this.actor.name, room, encode(message)));
  }
  work(task: unknown): void {
    this.#alive();
    this.actor.wrote = true;
    (this.tasks ??= []).push(this.actor.storage.addTask(this.actor.name, encode(task)));
  }
  admitAgain(): void {
    this.#alive();
    this.admits = true;
  }
  ask<T, R>(room: string, message: unknown, finish: (ctx: Context, answer: T) => R): Later<T, R> {
    this.#alive();
    const json = encode(message);
    return new Later((_signal, outside) => outside.ask<T>(room, JSON.parse(json)), finish);
  }
  readmit(): void {
    this.#alive();
    this.readmits = true;
  }
  /** Where the room's log stood when this turn began. */
  cursor(): string {
    this.#alive();
    const { log } = this.actor.storage;
    return log.cursorOf(log.head(this.actor.name));
  }

  track(meta: object, key = this.user.id): string | null {
    this.#alive();
    if (this.#tracked(key)) return null;
    return this.#appear(tracked(key, meta, this.actor.host.id()));
  }
  update(change: object, key = this.user.id): string | null {
    this.#alive();
    const old = this.#tracked(key);
    if (!old) return null;
    const { phx_ref, phx_ref_prev: _, ...meta } = JSON.parse(old.json);
    return this.#appear(tracked(key, { ...meta, ...change }, this.actor.host.id(), phx_ref), old);
  }
  untrack(key = this.user.id): void {
    this.#alive();
    const old = this.#tracked(key);
    if (old) this.#hide(old);
  }

  #tracked(key: string): Tracked | undefined {
    return this.#member().presence.find((entry) => entry.key === key);
  }
  /** Shows a meta, in the place of an old one if there is one. */
  #appear(entry: Tracked, old?: Tracked): string {
    const { presence } = this.#topic();
    const at = old && this.#hide(old);
    this.#replacePresence([...this.#member().presence, entry]);
    presence.add(entry, at);
    this.undo.push(() => void presence.remove(entry));
    return entry.phx_ref;
  }
  #hide(entry: Tracked): number {
    const { presence } = this.#topic();
    this.#replacePresence(this.#member().presence.filter((other) => other !== entry));
    const at = presence.remove(entry);
    this.undo.push(() => presence.add(entry, at));
    return at;
  }
  #replacePresence(presence: Member["presence"]): void {
    const member = this.#member();
    const before = member.presence;
    // Who is still joining has no copy in the store yet.
    const keep = () => {
      if (this.#topic().members.has(member.session)) this.actor.host.members.put(this.actor.name, member);
    };
    member.presence = presence;
    keep();
    this.undo.push(() => {
      member.presence = before;
      keep();
    });
  }

  /** After the handler: says who hears what, appends what lasts and writes the cursors into the events. Returns the cursors. */
  seal(): readonly string[] {
    for (const { effect, sees, payload } of this.#seen ?? []) {
      const roles = ROLES.filter((role) => sees(this, role, effect.event, payload));
      if (roles.length < ROLES.length) effect.roles = roles;
    }
    this.#over = true;
    if (!this.#entries) return NONE;
    this.actor.wrote = true;
    return this.#entries.map(({ entry, effect }) => {
      const cursor = this.actor.storage.log.append(this.actor.name, entry);
      if (effect) effect.body = withCursor(entry.payload, cursor);
      return cursor;
    });
  }

  /** Takes the turn back: its effects vanish, memory is as before. Its writes were undone by the storage. */
  vanish(): void {
    this.#over = true;
    for (const step of this.undo.toReversed()) step();
    this.undo = [];
    this.effects = [];
    this.#entries = this.#seen = null;
    this.calls = this.tasks = null;
    this.timers = false;
    this.admits = this.readmits = false;
    this.closing = false;
  }

  #alive(): void {
    if (this.#over) throw new TypeError("Cannot use a context after its turn");
  }
  #topic(): TopicState {
    if (!this.at) throw new TypeError("Cannot speak of a topic here: the turn has none");
    return this.at;
  }
  #member(): Member {
    if (!this.member) throw new TypeError("Cannot speak of a member here: the turn has none");
    return this.member;
  }
}

/**
 * One room, one turn at a time. A turn validates, runs the handler, appends what lasts, and hands its effects to the
 * gate. Handlers are synchronous, as SQLite is: nothing interleaves, and there is no lock.
 *
 * A Refusal is the client's error: an error reply, and the turn leaves no trace. Any other throw is ours: it is reported,
 * and the session that ran into it gets phx_error; nobody else notices. [76] Facts (a session is gone, a timer is due)
 * cannot be refused: in a lost tick they run again later.
 */
import type { ZodType } from "zod";
import { type Channel, check, CommonJoin, own, type PushSpec } from "../protocol/contract.ts";
import type { Body } from "../protocol/frame.ts";
import { Refusal } from "../protocol/reason.ts";
import { type Host, type Member, StoreLost, type User } from "./host.ts";
import { type Gate, RETRY_MS } from "./gate.ts";
import { checkPayload, type Limits } from "./limits.ts";
import { type Publication, publish } from "./publication.ts";
import { Later, type Room } from "./room.ts";
import { bodyOf, CannotEncode, type Effect, encode, type Item } from "./seam.ts";
import { type Finish, Slow } from "./slow.ts";
import type { RoomSql } from "./sql.ts";
import type { Call, Storage } from "./storage.ts";
import { TopicState } from "./topic.ts";
import { require } from "./token.ts";
import { Turn, type TurnOwner } from "./turn.ts";

/** What every actor is given. */
export interface Ground {
  readonly host: Host;
  readonly storage: Storage;
  readonly gate: Gate;
  readonly limits: Limits;
  readonly graceMs: number;
  /** Whether a refusal of authority to this user may still be logged. */
  mayLogRefusal(user: string): boolean;
  /** After a commit: calls to carry, timers that were set. */
  carry(calls: readonly Call[]): void;
  armTimers(): void;
  /** The room may have nobody left. */
  rested(actor: Actor): void;
}

type Of<K extends Item["kind"]> = Extract<Item, { kind: K }>;

/** How a handler ended. `cursors` are those of the lasting events it queued. */
type Outcome =
  | { readonly kind: "ok"; readonly value: unknown; readonly body: Body; readonly cursors: readonly string[] }
  | { readonly kind: "refused"; readonly refusal: Refusal }
  | { readonly kind: "crashed"; readonly error: unknown };

/** A join under way. */
interface Joining {
  readonly turn: Turn;
  readonly at: TopicState;
  readonly member: Member;
  readonly item: Of<"join">;
  /** The session that it replaces. */
  readonly old: Member | undefined;
}

const CRASHED = encode({ reason: "channel_crash" });

export class Actor implements TurnOwner {
  readonly name: string;
  readonly host: Host;
  readonly storage: Storage;
  wrote = false;
  readonly #topics = new Map<string, TopicState>();
  /** Joins that take their time. */
  readonly #joining = new Map<string, Slow>();
  /** Work under way that must find this actor again. */
  #busy = 0;

  constructor(readonly kind: Room, readonly id: string, readonly roomSql: RoomSql, private readonly ground: Ground) {
    this.name = `${kind.kind}/${id}`;
    this.host = ground.host;
    this.storage = ground.storage;
    for (const member of this.host.members.of(this.name)) this.#load(member);
  }

  #load(member: Member): void {
    const at = this.#topic(member.topic);
    at.add(member);
    for (const entry of member.presence) at.presence.add(entry);
    at.presence.settle();
    if (member.heldUntil !== undefined) this.#expire(member, member.heldUntil - this.host.clock.now());
  }

  /** Nobody is here and nothing is under way: it may be forgotten, and comes back equal. */
  get idle(): boolean {
    return this.#busy === 0 && this.#topics.size === 0;
  }

  topicOf(contract: Channel): string {
    return contract.topic.includes(":") ? `${contract.name}:${this.id}` : contract.name;
  }

  #topic(topic: string): TopicState {
    let at = this.#topics.get(topic);
    if (!at) {
      const served = this.kind.topics.find(({ contract }) => contract.idOf(topic) !== undefined);
      if (!served) throw new TypeError(`Cannot find ${topic} in ${this.name}: the registry sent it to the wrong room`);
      this.#topics.set(topic, at = new TopicState(topic, served));
    }
    return at;
  }

  // The gate's side.

  settle(): void {
    for (const at of this.#topics.values()) {
      const body = at.presence.diff();
      if (body) this.#tell([{ kind: "broadcast", topic: at.topic, event: "presence_diff", body, durability: "exact" }]);
    }
  }

  recover(): void {
    for (const at of this.#topics.values()) at.presence.settle();
  }

  rest(): void {
    for (const [topic, at] of this.#topics) if (at.empty) this.#topics.delete(topic);
    if (this.idle) this.ground.rested(this);
  }

  // What gateways send.

  /** Runs one turn. A promise says that a join takes its time: the socket waits for it. */
  inbox(item: Item): void | Promise<void> {
    switch (item.kind) {
      case "join":
        return this.#join(item);
      case "push":
        return this.#push(item);
      case "leave":
        return this.#leave(item);
      case "gone":
        return this.#gone(item);
      case "renew":
        return this.#renew(item);
    }
  }

  #join(item: Of<"join">): void | Promise<void> {
    const at = this.#topic(item.topic);
    // The old session ends before the new join runs, and is told after it [61]; its user has not left in between.
    const old = item.replaces === undefined ? undefined : at.members.get(item.replaces);
    at.keep(item.user.id);
    if (old) this.#remove(old, []);
    const member: Member = { session: item.session, topic: item.topic, user: item.user, presence: [] };
    const turn = new Turn(this, at, member);
    const outcome = this.#run(turn, () => {
      const params = this.#payload(at.contract, at.contract.join.payload, item, false);
      if (!at.contract.loose) checkUser(item);
      at.behaviour.admit(turn);
      const reply = at.behaviour.join(turn, params);
      if (reply instanceof Later && !turn.silent) throw new TypeError("Cannot send or show anything before a slow join has finished: do it in its finish");
      return reply;
    });
    const joining = { turn, at, member, item, old };
    if (outcome.kind !== "ok" || !(outcome.value instanceof Later)) return this.#joined(joining, outcome);
    const slow = this.#slow(outcome.value, (finish) => {
      this.#joining.delete(item.session);
      const turn = new Turn(this, at, member);
      if (slow.gone) return this.#abandoned({ ...joining, turn });
      this.#joined({ ...joining, turn }, this.#run(turn, () => finish(turn)));
    });
    turn.lost = () => slow.fail(new Refusal("unavailable"));
    this.#finish(turn);
    this.#joining.set(item.session, slow);
    return slow.done;
  }

  #joined({ turn, at, member, item, old }: Joining, outcome: Outcome): void {
    const { session, ref } = item;
    const closed: Effect[] = old ? [{ kind: "end", session: old.session, event: "phx_close", body: "{}" }] : [];
    const refused = (response: unknown): Effect[] => [
      { kind: "reply", session, ref, status: "error", body: encode(response) },
      { kind: "end", session, event: null, body: "{}" },
      ...closed,
    ];
    turn.lost = () => refused({ reason: "unavailable" });
    at.release(member.user.id);
    if (outcome.kind !== "ok") {
      turn.effects.push(...refused(outcome.kind === "refused" ? outcome.refusal.response() : { reason: "join crashed" }));
      this.#finish(turn);
      // A refused rejoin ends the old join for good. [62]
      if (old) this.#departed(at, old);
      return;
    }
    const wasHere = at.hasUser(member.user.id) || old?.user.id === member.user.id;
    // What the handler broadcast precedes the reply and misses the joiner [59]; what it pushed follows it [60].
    const pushes = turn.effects.filter((effect) => effect.kind === "push");
    turn.effects = turn.effects.filter((effect) => effect.kind !== "push");
    for (const held of at.heldOf(member.user.id)) this.#drop(turn, at, held);
    at.add(member);
    this.host.members.put(this.name, member);
    turn.undo.push(() => {
      at.delete(member);
      this.host.members.delete(this.name, session);
    });
    turn.effects.push({ kind: "joined", session, ref, body: outcome.body }, ...closed);
    // On every join, also a rejoin: clients hold diffs back until it comes. [87]
    if (at.contract.presence) turn.effects.push({ kind: "push", session, event: "presence_state", body: at.presence.state() });
    turn.effects.push(...pushes);
    this.#finish(turn);
    if (!wasHere && at.behaviour.arrive) this.#fact(at, member, at.behaviour.arrive);
    if (turn.closing) this.#close(at, member);
  }

  /** The socket went away during a slow join: nobody is answered. */
  #abandoned({ turn, at, member, old }: Joining): void {
    at.release(member.user.id);
    if (!old) return;
    // The gateway forgets the replaced session only when told.
    turn.effects.push({ kind: "end", session: old.session, event: null, body: "{}" });
    this.#finish(turn);
    this.#departed(at, old);
  }

  #push(item: Of<"push">): void {
    const { session, topic, ref, event } = item;
    const at = this.#topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member || member.heldUntil !== undefined) {
      const body = encode({ reason: "unmatched topic" });
      return this.#tell([{ kind: "stray", session, topic, join_ref: null, ref, status: "error", body }]);
    }
    const { contract, behaviour } = at;
    const spec = own<PushSpec>(contract.pushes, event);
    const turn = new Turn(this, at, member);
    const outcome = this.#run(turn, () => {
      if (!spec) throw contract.loose ? new TypeError(`Cannot find a clause for ${event}`) : new Refusal("unknown_event");
      const payload = this.#payload(contract, spec.payload, item, spec.binary);
      return behaviour.on[event](turn, payload);
    });
    if (outcome.kind !== "ok" || !(outcome.value instanceof Later)) return this.#answer(turn, at, member, item, spec, outcome);
    const slow = this.#slow(outcome.value, (finish) => {
      // The session ended meanwhile: a late result is discarded.
      if (this.#topics.get(topic)?.members.get(session) !== member) return;
      const turn = new Turn(this, at, member);
      this.#answer(turn, at, member, item, spec, this.#run(turn, () => finish(turn)));
    });
    turn.lost = () => slow.fail(new Refusal("unavailable"));
    this.#finish(turn);
  }

  #answer(turn: Turn, at: TopicState, member: Member, { session, ref }: Of<"push">, spec: PushSpec | undefined, outcome: Outcome): void {
    const reply = (status: "ok" | "error", body: Body): Effect => ({ kind: "reply", session, ref, status, body });
    turn.lost = () => [reply("error", encode({ reason: "unavailable" }))];
    if (outcome.kind === "ok") {
      if (!spec?.silent) turn.effects.push(reply("ok", outcome.body));
    } else if (outcome.kind === "refused") {
      turn.effects.push(reply("error", encode(outcome.refusal.response())));
    }
    this.#finish(turn);
    if (outcome.kind === "crashed") this.#end(at, member, [{ kind: "end", session, event: "phx_error", body: CRASHED }]);
    else if (turn.closing) this.#close(at, member);
  }

  /** The turn before closed its own session. In a lost tick it did not: that turn is answered, and the session goes on. */
  #close(at: TopicState, member: Member): void {
    this.#end(at, member, [{ kind: "end", session: member.session, event: "phx_close", body: "{}" }], null);
  }

  #leave({ session, topic, ref, join_ref }: Of<"leave">): void {
    const stray: Effect[] = [{ kind: "stray", session, topic, join_ref, ref, status: "ok", body: "{}" }];
    const at = this.#topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member) return this.#tell(stray);
    const told: Effect[] = [{ kind: "reply", session, ref, status: "ok", body: "{}" }, { kind: "end", session, event: "phx_close", body: "{}" }];
    this.#end(at, member, told, stray);
  }

  #gone({ session, topic, held }: Of<"gone">): void {
    this.#joining.get(session)?.leave();
    const at = this.#topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member) return;
    const { graceMs } = this.ground;
    if (!held || graceMs === 0 || member.presence.length === 0) return this.#end(at, member, []);
    member.heldUntil = this.host.clock.now() + graceMs;
    this.host.members.put(this.name, member);
    this.#expire(member, graceMs);
  }

  /** Ends a held presence, unless its user came back before. */
  #expire(member: Member, ms: number): void {
    this.host.clock.after(Math.max(0, ms), () => {
      this.ground.gate.post(() => {
        const at = this.#topics.get(member.topic);
        if (at?.members.get(member.session) === member) this.#end(at, member, []);
      });
    });
  }

  #renew({ session, topic, user }: Of<"renew">): void {
    const at = this.#topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member) return;
    member.user = user;
    this.host.members.put(this.name, member);
    const turn = new Turn(this, at, member);
    const outcome = this.#run(turn, () => at.behaviour.admit(turn));
    this.#finish(turn);
    if (outcome.kind === "ok") return;
    // phx_close, not phx_error: the client would rejoin for ever. [102]
    const reason = outcome.kind === "refused" ? outcome.refusal.response() : { reason: "internal" };
    this.#end(at, member, [{ kind: "end", session, event: "phx_close", body: encode(reason) }]);
  }

  // What else happens to a room.

  /** All of it or nothing. Resolves to the cursors once they are durable; rejects with the Refusal. */
  publish(topic: string, user: User, publications: readonly Publication[]): Promise<string[]> {
    const at = this.#topic(topic);
    const turn = new Turn(this);
    turn.publisher = { user: user.id, topic };
    let answers: (number | string)[] = [];
    const outcome = this.#run(turn, () => {
      require(user, "publish");
      answers = publish(turn, at, user.id, publications, this.storage.log, this.ground.limits);
    });
    const { promise, resolve, reject } = Promise.withResolvers<string[]>();
    turn.lost = () => {
      reject(new Refusal("unavailable"));
      return [];
    };
    if (outcome.kind === "ok") turn.kept = () => resolve(answers.map((answer) => typeof answer === "number" ? outcome.cursors[answer] : answer));
    else turn.kept = () => reject(outcome.kind === "refused" ? outcome.refusal : new Refusal("internal"));
    this.#finish(turn);
    return promise;
  }

  timer(name: string): void {
    const turn = new Turn(this);
    const handler = own(this.kind.timers ?? {}, name);
    // Cleared first: the handler may set it again, and one that crashes is not run for ever.
    this.#write(() => this.storage.clearTimer(this.name, name));
    const outcome = this.#run(turn, () => handler?.(turn));
    if (outcome.kind === "refused") this.host.report(outcome.refusal, `timer ${name} of ${this.kind.kind}`);
    this.#finish(turn);
  }

  /** Takes a call once. `settled` hears how it ended: taken, set aside with an error's name, or lost and to be tried again. */
  called(call: Call, settled: (how: "taken" | "lost" | { failed: string }) => void): void {
    const turn = new Turn(this);
    let outcome: Outcome | undefined;
    if (!this.storage.wasCalled(call)) {
      const { called } = this.kind;
      outcome = this.#run(turn, () => {
        if (!called) throw new TypeError(`Cannot call ${this.name}: its kind takes no calls`);
        called(turn, JSON.parse(call.message), call.room);
      });
      this.#write(() => this.storage.markCalled(call));
    }
    const failed = outcome?.kind === "crashed" ? outcome.error : undefined;
    turn.kept = () => settled(failed === undefined ? "taken" : { failed: failed instanceof Error ? failed.name : typeof failed });
    turn.lost = () => {
      settled("lost");
      return [];
    };
    this.#finish(turn);
  }

  // The mechanism of turns.

  /** Runs a handler: its writes and effects stand together or vanish together. */
  #run(turn: Turn, handler: () => unknown): Outcome {
    try {
      let value: unknown;
      const body = this.storage.sql.atomic(() => {
        value = handler();
        if (value instanceof Promise) refuseAsync(value);
        return value instanceof Later ? "" : bodyOf(value === undefined ? {} : value);
      });
      return { kind: "ok", value, body, cursors: turn.seal() };
    } catch (error) {
      turn.vanish();
      if (error instanceof Refusal) {
        this.#logRefusal(turn, error);
        return { kind: "refused", refusal: error };
      }
      if (error instanceof StoreLost) {
        // The gate will answer: this tick cannot be kept.
        this.wrote = true;
        return { kind: "refused", refusal: new Refusal("unavailable") };
      }
      this.host.report(error, `a turn of ${this.kind.kind}`);
      if (error instanceof CannotEncode) return { kind: "refused", refusal: new Refusal("internal") };
      return { kind: "crashed", error };
    }
  }

  /** Refusals of authority stand in the room's chain, bounded per user; a room that nothing happened in stays unwritten. */
  #logRefusal(turn: Turn, { reason }: Refusal): void {
    if (reason !== "forbidden" && reason !== "user_mismatch") return;
    const { author } = turn;
    if (!author || this.storage.log.head(this.name).seq === 0 || !this.ground.mayLogRefusal(author.user)) return;
    const entry = { at: this.host.clock.now(), ...author, event: "refused", payload: encode({ reason }) };
    this.#write(() => this.storage.log.append(this.name, entry));
  }

  /** Writes beside a handler. When the tick is lost by it, the gate will say so to everybody concerned. */
  #write(body: () => void): void {
    this.wrote = true;
    try {
      body();
    } catch (error) {
      if (!(error instanceof StoreLost)) throw error;
    }
  }

  /** Sends effects that no handler is behind. */
  #tell(effects: readonly Effect[]): void {
    this.ground.gate.finish({ actor: this, effects, undo: [] });
  }

  #finish(turn: Turn): void {
    const { calls, timers, kept } = turn;
    if (calls || timers) {
      turn.kept = () => {
        kept?.();
        if (calls) this.ground.carry(calls);
        if (timers) this.ground.armTimers();
      };
    }
    this.ground.gate.finish(turn);
  }

  /**
   * Takes a member out. `told` are the effects that go with it. A fact: tried again when its tick is lost, but told as
   * `stray` when the member is not there any more. Not so with `stray` null: then it has not happened.
   */
  #remove(member: Member, told: readonly Effect[], stray: readonly Effect[] | null = []): void {
    const at = this.#topic(member.topic);
    const turn = new Turn(this, at, member);
    turn.effects.push(...told);
    this.#drop(turn, at, member);
    if (stray) {
      turn.lost = () =>
        this.#again(() => {
          const at = this.#topics.get(member.topic);
          if (at?.members.get(member.session) === member) this.#end(at, member, told, stray);
          else this.#tell(stray);
        });
    }
    this.ground.gate.finish(turn);
  }

  /** Takes a member out for good: his user may have left with it. */
  #end(at: TopicState, member: Member, told: readonly Effect[], stray?: readonly Effect[] | null): void {
    this.#remove(member, told, stray);
    this.#departed(at, member);
  }

  #drop(turn: Turn, at: TopicState, member: Member): void {
    if (!at.members.has(member.session)) return;
    at.delete(member);
    this.host.members.delete(this.name, member.session);
    const places = member.presence.map((entry) => at.presence.remove(entry));
    turn.undo.push(() => {
      at.add(member);
      this.host.members.put(this.name, member);
      member.presence.forEach((entry, index) => at.presence.add(entry, places[index]));
    });
  }

  /** Tells the behaviour when the user's last session is gone. */
  #departed(at: TopicState, member: Member): void {
    if (!at.hasUser(member.user.id) && at.behaviour.depart) this.#fact(at, member, at.behaviour.depart);
  }

  /** A turn that answers nobody. It stands or falls with the join or the end that it follows: they share the tick. */
  #fact(at: TopicState, member: Member, handler: (ctx: Turn) => void): void {
    const turn = new Turn(this, at, member);
    const outcome = this.#run(turn, () => handler(turn));
    if (outcome.kind === "refused") this.host.report(outcome.refusal, `a fact of ${this.kind.kind}`);
    this.#finish(turn);
  }

  #again(fact: () => void): readonly Effect[] {
    this.#busy++;
    this.host.clock.after(RETRY_MS, () =>
      this.ground.gate.post(() => {
        this.#busy--;
        this.ground.gate.touch(this);
        fact();
      }));
    return [];
  }

  #slow(later: Later, deal: (finish: Finish) => void): Slow {
    const { clock } = this.host;
    const { gate, limits } = this.ground;
    this.#busy++;
    return new Slow(later, { clock, gate, limitMs: limits.later_ms }, (finish) => {
      this.#busy--;
      gate.touch(this);
      deal(finish);
    });
  }

  /** What came, checked by limits and contract. */
  #payload(contract: Channel, schema: ZodType, { payload, size }: { payload: unknown; size: number }, binary: boolean | undefined): unknown {
    checkPayload(payload, this.ground.limits, size);
    if (contract.loose) return payload;
    if (payload instanceof Uint8Array) {
      if (!binary) throw new Refusal("binary_not_supported");
      return payload;
    }
    if (typeof payload !== "object" || payload === null || Array.isArray(payload)) throw new Refusal("invalid_frame", { message: "the payload is no object" });
    return check(schema, payload);
  }
}

/** The token alone says who somebody is. */
function checkUser({ payload, user }: Of<"join">): void {
  const { user_id } = check(CommonJoin, payload);
  if (user_id !== undefined && user_id !== user.id) throw new Refusal("user_mismatch");
}

/** What an async handler throws later would be an unhandled rejection, and its ok reply a lie. */
function refuseAsync(promise: Promise<unknown>): never {
  promise.catch(() => {});
  throw new TypeError("Cannot wait for a handler: handlers are synchronous, slow work is a Later");
}

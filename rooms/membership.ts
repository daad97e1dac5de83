/**
 * Who is here: the members of a room's topics, and how they leave, are gone, are renewed and are taken out. Facts (a session
 * is gone, a grace is over) cannot be refused: in a lost tick they run again later.
 */
import type { Channel } from "../protocol/contract.ts";
import type { Clock, Member } from "./host.ts";
import { Pace } from "./pace.ts";
import type { Behaviour, Room } from "./room.ts";
import { type Effect, encode, type Item } from "./seam.ts";
import type { RoomSql } from "./sql.ts";
import { TopicState } from "./topic.ts";
import { Turn } from "./turn.ts";
import { type Ground, Turns } from "./turns.ts";

type Of<K extends Item["kind"]> = Extract<Item, { kind: K }>;

export abstract class Membership extends Turns {
  protected readonly topics = new Map<string, TopicState>();
  readonly #pace: Pace;

  constructor(protected readonly room: Room, id: string, roomSql: RoomSql, ground: Ground) {
    super(`${room.kind}/${id}`, id, room.kind, roomSql, ground);
    const { clock } = this.host;
    const ticking: Clock = {
      now: () => clock.now(),
      elapsed: () => clock.elapsed(),
      after: (ms, callback) => clock.after(ms, () => ground.gate.post(callback)),
    };
    this.#pace = new Pace(ticking, 1000 / ground.limits.cursors, (effects, undo) => ground.gate.finish({ actor: this, effects, undo }));
    for (const member of this.host.members.of(this.name)) this.#load(member);
  }

  #load(member: Member): void {
    const at = this.topicState(member.topic);
    at.add(member);
    for (const entry of member.presence) at.presence.add(entry);
    at.presence.settle();
    if (member.heldUntil !== undefined) this.#expire(member, member.heldUntil - this.host.clock.now());
  }

  /** Nobody is here and nothing is under way: it may be forgotten, and comes back equal. */
  get idle(): boolean {
    return this.busy === 0 && this.topics.size === 0 && this.streams.idle;
  }

  topicOf(contract: Channel): string {
    return contract.topic.includes(":") ? `${contract.name}:${this.id}` : contract.name;
  }

  *membersOf(contract: Channel): Iterable<Member> {
    for (const at of this.topics.values()) if (at.contract === contract) yield* at.members.values();
  }

  seesOf(contract: Channel): Behaviour["sees"] {
    return this.room.topics.find((topic) => topic.contract === contract)?.behaviour.sees;
  }

  protected topicState(topic: string): TopicState {
    let at = this.topics.get(topic);
    if (!at) {
      const served = this.room.topics.find(({ contract }) => contract.idOf(topic) !== undefined);
      if (!served) throw new TypeError(`Cannot find ${topic} in ${this.name}: the registry sent it to the wrong room`);
      this.topics.set(topic, at = new TopicState(topic, served));
    }
    return at;
  }

  // The gate's side.

  settle(): void {
    for (const at of this.topics.values()) {
      const body = at.presence.diff();
      if (body) this.tell([{ kind: "broadcast", topic: at.topic, event: "presence_diff", body, durability: "exact" }]);
    }
  }

  recover(): void {
    for (const at of this.topics.values()) at.presence.settle();
  }

  rest(kept: boolean): void {
    if (kept) this.ground.stir(this.name);
    for (const [topic, at] of this.topics) if (at.empty) this.topics.delete(topic);
    if (this.idle) this.ground.rested(this.name);
  }

  // What gateways send.

  protected leave({ session, topic, ref, join_ref }: Of<"leave">): void {
    const stray: Effect[] = [{ kind: "stray", session, topic, join_ref, ref, status: "ok", body: "{}" }];
    const at = this.topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member) return this.tell(stray);
    const told: Effect[] = [{ kind: "reply", session, ref, status: "ok", body: "{}" }, { kind: "end", session, event: "phx_close", body: "{}" }];
    this.end(at, member, told, stray);
  }

  protected gone({ session, topic, held }: Of<"gone">): void {
    const at = this.topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member) return;
    const { graceMs } = this.ground;
    if (!held || graceMs === 0 || member.presence.length === 0) return this.end(at, member, []);
    member.heldUntil = this.host.clock.now() + graceMs;
    this.host.members.put(this.name, member);
    this.#expire(member, graceMs);
  }

  /** Ends a held presence, unless its user came back before. */
  #expire(member: Member, ms: number): void {
    this.host.clock.after(Math.max(0, ms), () => {
      this.ground.gate.post(() => {
        const at = this.topics.get(member.topic);
        if (at?.members.get(member.session) === member) this.end(at, member, []);
      });
    });
  }

  protected renew(item: Of<"renew">): void {
    const { session, topic, user } = item;
    const at = this.topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member) return;
    member.user = user;
    this.host.members.put(this.name, member);
    const turn = new Turn(this, at, member);
    const outcome = this.run(turn, () => at.behaviour.admit(turn));
    this.finish(turn);
    if (outcome.kind === "ok") return;
    // Nobody could say whether he may stay.
    if (outcome.kind === "refused" && outcome.refusal.reason === "unavailable") return void this.again(() => this.renew(item));
    // phx_close, not phx_error: the client would rejoin for ever. [102]
    const reason = outcome.kind === "refused" ? outcome.refusal.response() : { reason: "internal" };
    this.end(at, member, [{ kind: "end", session, event: "phx_close", body: encode(reason) }]);
  }

  /** Closes whoever may not be here any more. It stands or falls with the turn that says so: they share the tick. */
  #readmit(): void {
    for (const at of this.topics.values()) {
      for (const member of [...at.members.values()]) {
        const turn = new Turn(this, at, member);
        const outcome = this.run(turn, () => at.behaviour.admit(turn));
        if (outcome.kind === "ok") continue;
        const body = encode(outcome.kind === "refused" ? outcome.refusal.response() : { reason: "internal" });
        this.end(at, member, [{ kind: "end", session: member.session, event: "phx_close", body }], null);
      }
    }
  }

  // Ends.

  /** The turn before closed its own session. In a lost tick it did not: that turn is answered, and the session goes on. */
  protected dismiss(at: TopicState, member: Member): void {
    this.end(at, member, [{ kind: "end", session: member.session, event: "phx_close", body: "{}" }], null);
  }

  /**
   * Takes a member out. `told` are the effects that go with it. A fact: tried again when its tick is lost, but told as
   * `stray` when the member is not there any more. Not so with `stray` null: then it has not happened.
   */
  protected remove(member: Member, told: readonly Effect[], stray: readonly Effect[] | null = []): void {
    const at = this.topicState(member.topic);
    const turn = new Turn(this, at, member);
    turn.effects.push(...told);
    this.drop(turn, at, member);
    if (stray) {
      turn.lost = () =>
        this.again(() => {
          const at = this.topics.get(member.topic);
          if (at?.members.get(member.session) === member) this.end(at, member, told, stray);
          else this.tell(stray);
        });
    }
    this.ground.gate.finish(turn);
  }

  /** Takes a member out for good: his user may have left with it. */
  protected end(at: TopicState, member: Member, told: readonly Effect[], stray?: readonly Effect[] | null): void {
    this.remove(member, told, stray);
    this.departed(at, member);
  }

  /** Takes a member out, as part of a turn: with it he stays or goes. */
  protected drop(turn: Turn, at: TopicState, member: Member): void {
    if (!at.members.has(member.session)) return;
    at.delete(member);
    this.#pace.drop(member.session);
    if (at.contract.paced) turn.effects.push({ kind: "mute", topic: at.topic, session: member.session });
    this.host.members.delete(this.name, member.session);
    const places = member.presence.map((entry) => at.presence.remove(entry));
    turn.undo.push(this.streams.abandonAll(member.session));
    turn.undo.push(() => {
      at.add(member);
      this.host.members.put(this.name, member);
      member.presence.forEach((entry, index) => at.presence.add(entry, places[index]));
    });
  }

  /** Tells the behaviour when the user's last session is gone. */
  protected departed(at: TopicState, member: Member): void {
    if (!at.hasUser(member.user.id) && at.behaviour.depart) this.fact(at, member, at.behaviour.depart);
  }

  /** Hands a turn to the gate, without what is told again too soon: that waits for its time. */
  protected override finish(turn: Turn): void {
    if (turn.readmits) this.#readmit();
    if (turn.paced) turn.effects = turn.effects.filter((effect) => effect.kind !== "broadcast" || !this.#pace.holds(effect, turn.undo));
    super.finish(turn);
  }
}

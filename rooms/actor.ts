/**
 * One room, one turn at a time: what happens when somebody joins or speaks. Who is here and how he leaves stands in `membership.ts`,
 * what else happens to a room in `affairs.ts`. Handlers are synchronous, as SQLite is: nothing interleaves, and there is no lock.
 *
 * A Refusal is the client's error: an error reply, and the turn leaves no trace. Any other throw is ours: it is reported,
 * and the session that ran into it gets phx_error; nobody else notices. [76]
 */
import { own, type PushSpec } from "../protocol/contract.ts";
import type { Body } from "../protocol/frame.ts";
import { Refusal } from "../protocol/reason.ts";
import { Affairs } from "./affairs.ts";
import type { Member } from "./host.ts";
import { say, takeJoin } from "./intake.ts";
import { type Missed, Recovery } from "./recovery.ts";
import { Later, type Room } from "./room.ts";
import { type Effect, encode, type Item } from "./seam.ts";
import type { Slow } from "./slow.ts";
import type { RoomSql } from "./sql.ts";
import type { TopicState } from "./topic.ts";
import { Turn } from "./turn.ts";
import type { Ground, Outcome } from "./turns.ts";

type Of<K extends Item["kind"]> = Extract<Item, { kind: K }>;

/** A join under way. */
interface Joining {
  readonly at: TopicState;
  readonly member: Member;
  readonly item: Of<"join">;
  /** The session that it replaces. */
  readonly old: Member | undefined;
  /** What it missed, when it asked for that. */
  missed: readonly Missed[];
}

const CRASHED = encode({ reason: "channel_crash" });

function reply({ session, ref }: Of<"push">, status: "ok" | "error", body: Body): Effect {
  return { kind: "reply", session, ref, status, body };
}

export class Actor extends Affairs {
  /** Joins that take their time. */
  readonly #joining = new Map<string, Slow>();
  readonly #recovery: Recovery;

  constructor(room: Room, id: string, roomSql: RoomSql, ground: Ground) {
    super(room, id, roomSql, ground);
    this.#recovery = new Recovery(this.name, this.storage.log, this.host.clock, ground.limits);
  }

  override recover(): void {
    this.#recovery.forget();
    super.recover();
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
        return this.leave(item);
      case "gone":
        this.#joining.get(item.session)?.leave();
        return this.gone(item);
      case "renew":
        return this.renew(item);
    }
  }

  #join(item: Of<"join">): void | Promise<void> {
    const at = this.topicState(item.topic);
    // The old session ends before the new join runs, and is told after it [61]; its user has not left in between.
    const old = item.replaces === undefined ? undefined : at.members.get(item.replaces);
    at.keep(item.user.id);
    if (old) this.remove(old, []);
    const member: Member = { session: item.session, topic: item.topic, user: item.user, presence: [] };
    const joining: Joining = { at, member, item, old, missed: [] };
    const turn = new Turn(this, at, member);
    let enter: (turn: Turn) => unknown;
    const outcome = this.run(turn, () => {
      const { common, own } = takeJoin(at.contract, item, this.ground.limits);
      enter = (turn) => this.#enter(turn, joining, common.since, () => at.behaviour.join(turn, own));
      return this.#admitted(turn, joining, enter);
    });
    if (outcome.kind !== "ok" || !(outcome.value instanceof Later)) return this.#joined(turn, joining, outcome);
    const slow = this.slow(outcome.value, (finish) => {
      this.#joining.delete(item.session);
      const turn = new Turn(this, at, member);
      if (slow.gone) return this.#abandoned(turn, joining);
      const finished = this.run(turn, () => {
        // What he may see can have changed while he waited.
        at.behaviour.admit(turn);
        return finish(turn);
      });
      this.#joined(turn, joining, finished);
    }, item.user.id);
    turn.lost = () => slow.fail(new Refusal("unavailable"));
    // What is told from now on is missed: it will be replayed, or is in the state.
    if (old) turn.effects.push({ kind: "silence", session: old.session });
    this.finish(turn);
    this.#joining.set(item.session, slow);
    return slow.done;
  }

  /** Enters, once admitted; what may be on its way is waited for. */
  #admitted(turn: Turn, { at, member }: Joining, enter: (turn: Turn) => unknown): unknown {
    const { behaviour } = at;
    const { patienceMs } = behaviour;
    try {
      behaviour.admit(turn);
    } catch (error) {
      if (patienceMs === undefined || !(error instanceof Refusal) || error.reason !== "not_found") throw error;
      const admit = () => behaviour.admit(new Turn(this, at, member));
      return new Later((signal) => this.admittedAgain(patienceMs, signal, admit), (ctx) => enter(ctx as Turn));
    }
    return enter(turn);
  }

  /** The channel's own reply, and what every channel with lasting events says besides. */
  #enter(turn: Turn, joining: Joining, since: string | null | undefined, join: () => unknown): unknown {
    const { contract, behaviour: { sees } } = joining.at;
    const missed = contract.keeps && since
      ? this.#recovery.since(since, joining.at, sees && ((event, payload) => sees(turn, joining.member.user.role, event, payload)))
      : null;
    joining.missed = missed ?? [];
    turn.recovered = missed !== null;
    const welcome = (reply: unknown) => contract.keeps ? { ...reply as object, cursor: turn.cursor(), recovered: turn.recovered } : reply;
    const reply = join();
    if (!(reply instanceof Later)) return welcome(reply);
    if (!turn.silent) throw new TypeError("Cannot send or show anything before a slow join has finished: do it in its finish");
    return new Later(reply.work, (ctx, result) => this.#enter(ctx as Turn, joining, since, () => reply.finish(ctx, result)));
  }

  #joined(turn: Turn, { at, member, item, old, missed }: Joining, outcome: Outcome): void {
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
      this.finish(turn);
      // A refused rejoin ends the old join for good. [62]
      if (old) this.departed(at, old);
      return;
    }
    const wasHere = at.hasUser(member.user.id) || old?.user.id === member.user.id;
    // What the handler broadcast precedes the reply and misses the joiner [59]; what it pushed follows it [60].
    const pushes = turn.effects.filter((effect) => effect.kind === "push");
    turn.effects = turn.effects.filter((effect) => effect.kind !== "push");
    for (const held of at.heldOf(member.user.id)) this.drop(turn, at, held);
    at.add(member);
    this.host.members.put(this.name, member);
    turn.undo.push(() => {
      at.delete(member);
      this.host.members.delete(this.name, session);
    });
    turn.effects.push({ kind: "joined", session, ref, body: outcome.body }, ...closed);
    // On every join, also a rejoin: clients hold diffs back until it comes. [87]
    if (at.contract.presence) turn.effects.push({ kind: "push", session, event: "presence_state", body: at.presence.state() });
    if (missed.length > 0) turn.effects.push({ kind: "replay", session, events: missed });
    turn.effects.push(...pushes);
    this.finish(turn);
    if (!wasHere && at.behaviour.arrive) this.fact(at, member, at.behaviour.arrive);
    if (turn.closing) this.dismiss(at, member);
  }

  /** The socket went away during a slow join: nobody is answered. */
  #abandoned(turn: Turn, { at, member, old }: Joining): void {
    at.release(member.user.id);
    if (!old) return;
    // The gateway forgets the replaced session only when told.
    turn.effects.push({ kind: "end", session: old.session, event: null, body: "{}" });
    this.finish(turn);
    this.departed(at, old);
  }

  #push(item: Of<"push">): void {
    const { session, topic, ref, event } = item;
    const at = this.topics.get(topic);
    const member = at?.members.get(session);
    if (!at || !member || member.heldUntil !== undefined) {
      const body = encode({ reason: "unmatched topic" });
      return this.tell([{ kind: "stray", session, topic, join_ref: null, ref, status: "error", body }]);
    }
    const spec = own<PushSpec>(at.contract.pushes, event);
    const turn = new Turn(this, at, member);
    const outcome = this.run(turn, () => say(turn, at, event, item, this.ground.limits));
    if (outcome.kind !== "ok" || !(outcome.value instanceof Later)) return this.#answer(turn, at, member, item, spec, outcome);
    const slow = this.slow(outcome.value, (finish) => {
      // The session ended meanwhile: a late result is discarded.
      if (this.topics.get(topic)?.members.get(session) !== member) return;
      const turn = new Turn(this, at, member);
      this.#answer(turn, at, member, item, spec, this.run(turn, () => finish(turn)));
    }, member.user.id);
    turn.lost = () => slow.fail(new Refusal("unavailable"));
    this.finish(turn);
  }

  #answer(turn: Turn, at: TopicState, member: Member, item: Of<"push">, spec: PushSpec | undefined, outcome: Outcome): void {
    turn.lost = () => [reply(item, "error", encode({ reason: "unavailable" }))];
    if (outcome.kind === "ok") {
      if (!spec?.silent) turn.add(reply(item, "ok", outcome.body));
    } else if (outcome.kind === "refused") {
      turn.add(reply(item, "error", encode(outcome.refusal.response())));
    }
    this.finish(turn);
    if (outcome.kind === "crashed") this.end(at, member, [{ kind: "end", session: item.session, event: "phx_error", body: CRASHED }]);
    else if (turn.closing) this.dismiss(at, member);
  }
}

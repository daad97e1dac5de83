/** One topic of a living room: its contract and behaviour, who is on it, and what they show. */
import type { Channel } from "../protocol/contract.ts";
import { Presence } from "../protocol/presence.ts";
import type { Member } from "./host.ts";
import type { Behaviour, Topic } from "./room.ts";

export class TopicState {
  readonly contract: Channel;
  readonly behaviour: Behaviour;
  readonly members = new Map<string, Member>();
  readonly presence = new Presence();
  /** How often each user is here: his sessions, held ones included. */
  readonly #users = new Map<string, number>();

  constructor(readonly topic: string, { contract, behaviour }: Topic) {
    this.contract = contract;
    this.behaviour = behaviour;
  }

  add(member: Member): void {
    this.members.set(member.session, member);
    this.keep(member.user.id);
  }

  delete(member: Member): void {
    if (this.members.delete(member.session)) this.release(member.user.id);
  }

  /** A user between two sessions of his counts as here. Each `keep` needs its `release`. */
  keep(userId: string): void {
    this.#users.set(userId, (this.#users.get(userId) ?? 0) + 1);
  }

  release(userId: string): void {
    const left = this.#users.get(userId)! - 1;
    if (left === 0) this.#users.delete(userId);
    else this.#users.set(userId, left);
  }

  /** Nobody is here, nor on his way back. */
  get empty(): boolean {
    return this.#users.size === 0;
  }

  hasUser(id: string): boolean {
    return this.#users.has(id);
  }

  /** The sessions of a user whose connection is gone and whose presence is held. */
  heldOf(id: string): Member[] {
    return this.hasUser(id) ? [...this.members.values()].filter((member) => member.heldUntil !== undefined && member.user.id === id) : [];
  }
}

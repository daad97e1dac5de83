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
  /** How many sessions each user has here, held ones included. */
  readonly #users = new Map<string, number>();

  constructor(readonly topic: string, { contract, behaviour }: Topic) {
    this.contract = contract;
    this.behaviour = behaviour;
  }

  add(member: Member): void {
    this.members.set(member.session, member);
    this.#users.set(member.user.id, (this.#users.get(member.user.id) ?? 0) + 1);
  }

  delete(member: Member): void {
    if (!this.members.delete(member.session)) return;
    const left = this.#users.get(member.user.id)! - 1;
    if (left === 0) this.#users.delete(member.user.id);
    else this.#users.set(member.user.id, left);
  }

  hasUser(id: string): boolean {
    return this.#users.has(id);
  }

  /** The sessions of a user whose connection is gone and whose presence is held. */
  heldOf(id: string): Member[] {
    return this.hasUser(id) ? [...this.members.values()].filter((member) => member.heldUntil !== undefined && member.user.id === id) : [];
  }
}

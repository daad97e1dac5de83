/** What happens to a room besides what its members say: back ends publish, somebody reads the record, others ask and call, timers ring, work is done. */
import { own } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import type { User } from "./host.ts";
import { Membership } from "./membership.ts";
import { type Publication, publish } from "./publication.ts";
import { type Page, readPage } from "./reading.ts";
import type { Call, Task } from "./storage.ts";
import { require } from "./token.ts";
import { Turn } from "./turn.ts";
import type { Outcome } from "./turns.ts";

/** What went wrong, in a word. */
function nameOf(outcome: Exclude<Outcome, { kind: "ok" }>): string {
  const error = outcome.kind === "crashed" ? outcome.error : outcome.refusal;
  return error instanceof Error ? error.name : typeof error;
}

export abstract class Affairs extends Membership {
  /** All of it or nothing. Resolves to the cursors once they are durable; rejects with the Refusal. */
  publish(topic: string, user: User, publications: readonly Publication[]): Promise<string[]> {
    const at = this.topicState(topic);
    const turn = new Turn(this);
    turn.behind = { user: user.id, topic };
    let answers: (number | string)[] = [];
    const outcome = this.run(turn, () => {
      require(user, "publish");
      answers = publish(turn, at, user.id, publications, this.storage.log, this.ground.limits);
    });
    const cursors = outcome.kind === "ok" ? outcome.cursors : [];
    return this.#outside(turn, outcome, () => answers.map((answer) => typeof answer === "number" ? cursors[answer] : answer));
  }

  /** A page of the record, as this user may see it today. Rejects with the Refusal. */
  read(topic: string, user: User, after: string | null, limit: number): Promise<Page> {
    const at = this.topicState(topic);
    const turn = new Turn(this, at, { session: "", topic, user, presence: [] });
    let page: Page;
    const outcome = this.run(turn, () => {
      at.behaviour.admit(turn);
      page = readPage(turn, at, this.storage.log, after, limit);
    });
    return this.#outside(turn, outcome, () => page);
  }

  /** Answers another room, or an HTTP request (`from` is then empty), on behalf of a user when there is one. Rejects with the Refusal. */
  asked(message: string, from: string, userId?: string): Promise<unknown> {
    const turn = new Turn(this);
    if (userId !== undefined) turn.behind = { user: userId, topic: this.topicOf(this.room.topics[0].contract) };
    const outcome = this.run(turn, () => {
      const { asked } = this.room;
      if (!asked) throw new TypeError(`Cannot ask ${this.name}: its kind answers nobody`);
      return asked(turn, JSON.parse(message), from);
    });
    return this.#outside(turn, outcome, () => outcome.kind === "ok" ? outcome.value : undefined);
  }

  /** Resolves, for somebody who is no member, when the turn is kept; rejects with the Refusal. */
  #outside<T>(turn: Turn, outcome: Outcome, answer: () => T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    turn.lost = () => {
      reject(new Refusal("unavailable"));
      return [];
    };
    turn.kept = () => {
      if (outcome.kind === "ok") resolve(answer());
      else reject(outcome.kind === "refused" ? outcome.refusal : new Refusal("internal"));
    };
    this.finish(turn);
    return promise;
  }

  /**
   * Takes what came of a task, once. A result that the room cannot take is one that could not be had: nothing waits for ever.
   * `settled` hears how that ended, as with a call.
   */
  worked(task: Task, result: unknown, settled: (how: "taken" | "lost") => void): void {
    let [turn, outcome] = [new Turn(this), undefined as Outcome | undefined];
    if (this.storage.isWaiting(task)) {
      const take = (result: unknown) => this.run(turn, () => this.room.worked?.(turn, JSON.parse(task.task), result));
      outcome = take(result);
      if (outcome.kind !== "ok") {
        turn = new Turn(this);
        outcome = take({ failed: nameOf(outcome) });
      }
      const failed = outcome.kind === "ok" ? null : nameOf(outcome);
      this.write(() => failed === null ? this.storage.removeTask(task.id) : this.storage.parkTask(task.id, failed));
    }
    turn.kept = () => settled("taken");
    turn.lost = () => {
      settled("lost");
      return [];
    };
    this.finish(turn);
  }

  /** How far a task is. */
  noted(task: Task, note: unknown): void {
    const turn = new Turn(this);
    this.run(turn, () => this.room.noted?.(turn, JSON.parse(task.task), note));
    this.finish(turn);
  }

  timer(name: string): void {
    const turn = new Turn(this);
    const handler = own(this.room.timers ?? {}, name);
    // Cleared first: the handler may set it again, and one that crashes is not run for ever.
    this.write(() => this.storage.clearTimer(this.name, name));
    const outcome = this.run(turn, () => handler?.(turn));
    if (outcome.kind === "refused") this.host.report(outcome.refusal, `timer ${name} of ${this.kind}`);
    this.finish(turn);
  }

  /** Takes a call once. `settled` hears how it ended: taken, set aside with an error's name, or lost and to be tried again. */
  called(call: Call, settled: (how: "taken" | "lost" | { failed: string }) => void): void {
    const turn = new Turn(this);
    let outcome: Outcome | undefined;
    if (!this.storage.wasCalled(call)) {
      const { called } = this.room;
      outcome = this.run(turn, () => {
        if (!called) throw new TypeError(`Cannot call ${this.name}: its kind takes no calls`);
        called(turn, JSON.parse(call.message), call.room);
      });
      this.write(() => this.storage.markCalled(call));
    }
    const failed = outcome?.kind === "crashed" ? nameOf(outcome) : undefined;
    turn.kept = () => settled(failed === undefined ? "taken" : { failed });
    turn.lost = () => {
      settled("lost");
      return [];
    };
    this.finish(turn);
  }
}

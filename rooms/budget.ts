/** How much a user may ask for: sliding windows per user, over all his sockets. What is refused costs nothing. [V05, V06] */
import { type Channel, own, type PushSpec } from "../protocol/contract.ts";
import type { Limits } from "./limits.ts";

const MINUTE = 60_000;

/** Each budget is a limit by name, and the length of its window in milliseconds. */
const WINDOWS = {
  requests: MINUTE,
  joins: MINUTE,
  authentications: MINUTE,
  batches: MINUTE,
  batched_messages: MINUTE,
  operations: 1000,
  rate_refusals: MINUTE,
  frames: MINUTE,
} as const;

export type Budget = keyof typeof WINDOWS;

/** What a push costs. Cursors cost nothing: they are coalesced. */
export function costOf({ pushes, loose }: Channel, { event, payload }: { event: string; payload: unknown }, limits: Limits): readonly [Budget, number][] {
  if (event === "batch" && !loose) {
    const messages = typeof payload === "object" && payload !== null ? own(payload as Record<string, unknown>, "messages") : undefined;
    // One that is too long to be taken is refused by the room, and costs as a single one.
    const count = Array.isArray(messages) && messages.length <= limits.batch_messages ? messages.length : 0;
    return [["batches", 1], ["batched_messages", count]];
  }
  const { budget = "requests" } = own<PushSpec>(pushes, event) ?? {};
  return budget === "cursors" ? [] : [[budget, 1]];
}

/** What was spent in the last `ms` milliseconds, exact for as many moments as a thousandth of it apart. */
class Window {
  /** When, oldest first, and how much; what was spent within one grain stands together, under its last moment. */
  #spent: { at: number; count: number }[] = [];
  #sum = 0;

  constructor(private readonly limit: number, private readonly ms: number) {}

  /** Spends, and returns 0; or spends nothing, and returns in how many milliseconds it might. */
  spend(now: number, count: number): number {
    this.#forget(now);
    if (this.#sum + count > this.limit) return this.#wait(now, count);
    const last = this.#spent.at(-1);
    if (last && now - last.at < this.ms / 1000) {
      last.at = now;
      last.count += count;
    } else this.#spent.push({ at: now, count });
    this.#sum += count;
    return 0;
  }

  #forget(now: number): void {
    let gone = 0;
    while (gone < this.#spent.length && this.#spent[gone].at <= now - this.ms) this.#sum -= this.#spent[gone++].count;
    if (gone > 0) this.#spent.splice(0, gone);
  }

  #wait(now: number, count: number): number {
    let free = this.limit - this.#sum;
    for (const { at, count: spent } of this.#spent) {
      free += spent;
      if (free >= count) return at + this.ms - now;
    }
    // It never will: more than the limit at once.
    return this.ms;
  }

  empty(now: number): boolean {
    this.#forget(now);
    return this.#spent.length === 0;
  }
}

/** The windows of one spender. */
export class Purse {
  readonly #windows = new Map<Budget, Window>();

  constructor(private readonly limits: Limits) {}

  /** Returns 0, or how long to wait in milliseconds: then nothing was spent. `now` counts on whatever the wall clock does. */
  spend(budget: Budget, now: number, count = 1): number {
    let window = this.#windows.get(budget);
    if (!window) this.#windows.set(budget, window = new Window(this.limits[budget], WINDOWS[budget]));
    return window.spend(now, count);
  }

  empty(now: number): boolean {
    for (const [budget, window] of this.#windows) if (window.empty(now)) this.#windows.delete(budget);
    return this.#windows.size === 0;
  }
}

/** The purses of all users, kept as long as something was spent from them lately. */
export class Purses {
  readonly #purses = new Map<string, Purse>();

  constructor(private readonly limits: Limits) {}

  of(user: string): Purse {
    let purse = this.#purses.get(user);
    if (!purse) this.#purses.set(user, purse = new Purse(this.limits));
    return purse;
  }

  /** Forgets those who have spent nothing for as long as any window reaches back. */
  sweep(now: number): void {
    for (const [user, purse] of this.#purses) if (purse.empty(now)) this.#purses.delete(user);
  }

  get size(): number {
    return this.#purses.size;
  }
}

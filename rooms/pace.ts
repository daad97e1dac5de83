/** Passing events of one room, told at most so often per sender: the first at once, then the newest when its time has come. */
import type { Clock } from "./host.ts";
import type { Effect } from "./seam.ts";

type Broadcast = Extract<Effect, { kind: "broadcast" }>;

export class Pace {
  /** By key: when it was told last, and what waits. Forgotten once its time is over. */
  readonly #keys = new Map<string, { toldAt: number; waiting: Broadcast | null }>();
  #armed = false;

  /** `clock` calls back inside a tick; `tell` gets what has come due, and how to take that back when the tick is lost. */
  constructor(
    private readonly clock: Clock,
    private readonly intervalMs: number,
    private readonly tell: (effects: Broadcast[], undo: (() => void)[]) => void,
  ) {}

  /** Whether it must wait: then it takes the place of what waited under its key; `undo` puts that back. */
  holds(effect: Broadcast, undo: (() => void)[] = []): boolean {
    if (effect.key === undefined) return false;
    const now = this.clock.elapsed();
    const known = this.#keys.get(effect.key);
    if (known && now - known.toldAt < this.intervalMs) {
      const before = known.waiting;
      known.waiting = effect;
      undo.push(() => known.waiting = before);
      return true;
    }
    const { key } = effect;
    this.#keys.set(key, { toldAt: now, waiting: null });
    undo.push(() => void (known ? this.#keys.set(key, known) : this.#keys.delete(key)));
    this.#arm(this.intervalMs);
    return false;
  }

  /** The sender is gone: what he would have said is not said any more. */
  drop(session: string): void {
    for (const known of this.#keys.values()) if (known.waiting?.except === session) known.waiting = null;
  }

  #arm(ms: number): void {
    if (this.#armed) return;
    this.#armed = true;
    this.clock.after(Math.ceil(ms), () => {
      this.#armed = false;
      this.#ring();
    });
  }

  #ring(): void {
    const now = this.clock.elapsed();
    const due: Broadcast[] = [];
    const undo: (() => void)[] = [];
    let next = Infinity;
    for (const [key, known] of this.#keys) {
      if (now - known.toldAt >= this.intervalMs) {
        if (!known.waiting) {
          this.#keys.delete(key);
          continue;
        }
        const { toldAt, waiting } = known;
        undo.push(() => void Object.assign(known, { toldAt, waiting }));
        due.push(waiting);
        known.toldAt = now;
        known.waiting = null;
      }
      next = Math.min(next, known.toldAt + this.intervalMs - now);
    }
    if (due.length > 0) this.tell(due, undo);
    if (next < Infinity) this.#arm(next);
  }
}

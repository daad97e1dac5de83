/**
 * The tick and its gate. What arrives is queued; one callback runs all turns, commits once for all rooms, and only then
 * lets effects leave. The transaction never spans the event loop.
 *
 * A lost tick answers `unavailable` to every turn of every room that wrote in it, readers of that room too: they may have
 * read what was not kept. Other rooms' effects leave. `unavailable` means: not known to be kept.
 */
import type { Host } from "./host.ts";
import type { Metrics } from "./metrics.ts";
import type { Effect } from "./seam.ts";
import type { Storage } from "./storage.ts";

/** The part of an actor that the gate deals with. */
export interface Gated {
  /** Whether it has written, or tried to, since the last commit. */
  wrote: boolean;
  /** The tick's last turn: what is told once for all of it. */
  settle(): void;
  /** The tick is lost, its turns are undone: drop what was remembered of the disk. */
  recover(): void;
  /** The tick is over; whether it kept something that this one wrote. */
  rest(kept: boolean): void;
}

/** A turn that is done and waits for the gate. */
export interface Finished {
  /** Null for what concerns no room: it always leaves. */
  readonly actor: Gated | null;
  readonly effects: readonly Effect[];
  /** Takes back, in memory, what has no copy on disk. Run last to first. */
  readonly undo: readonly (() => void)[];
  /** What happens once it is durable. */
  readonly kept?: (() => void) | null;
  /** What happens instead when it is not known to be: the effects that leave, if any. */
  readonly lost?: (() => readonly Effect[]) | null;
}

/** How long until something that met a lost tick is tried again, in milliseconds. */
export const RETRY_MS = 100;

/** How long a tick goes on with what nobody waits for, in milliseconds: who speaks meanwhile waits as long. */
const PATIENT_MS = 4;

export class Gate {
  #jobs: (() => void)[] = [];
  /** What can wait for the jobs: taken in order, some in each tick. */
  #patient: (() => void)[] = [];
  #finished: Finished[] = [];
  readonly #touched = new Set<Gated>();
  #due = false;
  #closed = false;

  constructor(
    private readonly host: Host,
    private readonly storage: Storage,
    private readonly deliver: (effects: readonly Effect[]) => void,
    private readonly flush: () => void,
    private readonly metrics: Metrics,
  ) {}

  /** Queues a job for the next tick. */
  post(job: () => void): void {
    this.#jobs.push(job);
    this.#arm();
  }

  /** The same for what nobody waits for: of very much of it, as after an upload, some in each tick, beside all that is posted. */
  postPatiently(job: () => void): void {
    this.#patient.push(job);
    this.#arm();
  }

  #arm(): void {
    if (this.#due || this.#closed) return;
    this.#due = true;
    this.host.soon(() => this.#closed || this.tick());
  }

  /** Nothing is queued. */
  get quiet(): boolean {
    return this.#jobs.length === 0 && this.#patient.length === 0;
  }

  /** It takes no more: what is not done by now is for the next life. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Inside a job: the actor will be asked, at the end of the tick, whether it may rest. */
  touch(actor: Gated): void {
    this.#touched.add(actor);
  }

  /** Inside a job: hands a turn to the gate. */
  finish(turn: Finished): void {
    if (turn.actor) this.#touched.add(turn.actor);
    this.#finished.push(turn);
  }

  /** Runs what is queued, commits, delivers, flushes. Tests and shutdown call it by hand. */
  tick(): void {
    this.#due = false;
    const jobs = this.#jobs;
    this.#jobs = [];
    this.#runPatient();
    for (const job of jobs) this.#safely(job, "a job of a tick");
    for (const actor of this.#touched) actor.settle();
    const kept = this.#commit();
    if (!kept) this.#undo();
    const finished = this.#finished;
    this.#finished = [];
    const after: (() => void)[] = [];
    for (const turn of finished) {
      if (kept || !turn.actor?.wrote) {
        this.#leave(turn.effects);
        if (turn.kept) after.push(turn.kept);
      } else if (turn.lost) {
        this.#leave(turn.lost());
      }
    }
    for (const actor of this.#touched) {
      const { wrote } = actor;
      actor.wrote = false;
      actor.rest(kept && wrote);
    }
    this.#touched.clear();
    this.flush();
    for (const kept of after) this.#safely(kept, "the end of a tick");
    if (this.#patient.length > 0) this.#arm();
  }

  /** At least one, so that they come to an end whatever else there is. */
  #runPatient(): void {
    if (this.#patient.length === 0) return;
    const { clock } = this.host;
    const end = clock.elapsed() + PATIENT_MS;
    let done = 0;
    do this.#safely(this.#patient[done++], "a patient job of a tick"); while (done < this.#patient.length && clock.elapsed() < end);
    this.#patient = this.#patient.slice(done);
  }

  #commit(): boolean {
    const { clock } = this.host;
    const { counts } = this.metrics;
    const begun = clock.elapsed();
    const { how, entries } = this.storage.commit();
    if (how === "kept") {
      counts.commits++;
      counts.events_kept += entries;
      this.metrics.commitMs += clock.elapsed() - begun;
    } else if (how === "lost") counts.ticks_lost++;
    return how !== "lost";
  }

  #leave(effects: readonly Effect[]): void {
    try {
      this.deliver(effects);
    } catch (error) {
      // One turn's effects cannot keep back those of others.
      this.host.report(error, "a delivery");
    }
  }

  #safely(job: () => void, where: string): void {
    try {
      job();
    } catch (error) {
      this.host.report(error, where);
    }
  }

  #undo(): void {
    for (const turn of this.#finished.toReversed()) {
      if (turn.actor?.wrote) { for (const step of turn.undo.toReversed()) step(); }
    }
    for (const actor of this.#touched) if (actor.wrote) actor.recover();
    this.storage.recover();
    this.host.report(this.storage.lostBecause, "a commit: the tick is lost");
  }

  /** Runs until nothing is queued, then takes no more. */
  drain(): void {
    for (let ticks = 0; !this.quiet && ticks < 1000; ticks++) this.tick();
    this.#closed = true;
  }
}

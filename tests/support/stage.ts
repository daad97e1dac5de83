/** Rooms and a gateway in this process, over a cranked clock and wires in memory: nothing here waits for real time. */
import type { Encoded } from "../../protocol/frame.ts";
import { V1, V2 } from "../../protocol/frame.ts";
import { Gateway } from "../../rooms/gateway.ts";
import type { Clock, Host, SqlHost, User } from "../../rooms/host.ts";
import { denoHost, MemoryMembers } from "../../rooms/hosts/deno.ts";
import { DenoSql } from "../../rooms/hosts/deno_sql.ts";
import { DEFAULT_LIMITS, type Limits } from "../../rooms/limits.ts";
import { Registry } from "../../rooms/registry.ts";
import type { Room } from "../../rooms/room.ts";
import type { Packet, Socket, Wire } from "../../rooms/socket.ts";
import type { Verify } from "../../rooms/token.ts";
import { Refusal } from "../../protocol/reason.ts";

/** Time that moves only when told to. */
export class CrankedClock implements Clock {
  time = Date.parse("2026-01-01T00:00:00Z");
  #waiting: { at: number; callback: () => void }[] = [];

  now(): number {
    return this.time;
  }
  after(ms: number, callback: () => void): () => void {
    const entry = { at: this.time + ms, callback };
    this.#waiting.push(entry);
    return () => {
      this.#waiting = this.#waiting.filter((other) => other !== entry);
    };
  }
  /** Moves on, calling back what comes due in its order; `between` runs after each. */
  advance(ms: number, between: () => void = () => {}): void {
    const end = this.time + ms;
    for (;;) {
      const due = this.#waiting.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#waiting = this.#waiting.filter((other) => other !== due);
      this.time = Math.max(this.time, due.at);
      due.callback();
      between();
    }
    this.time = end;
  }
}

interface MemoryPacket extends Packet {
  readonly frame: Encoded;
}

/** What a client sees: frames parsed, and the code with which it was closed. */
export class MemoryWire implements Wire {
  // deno-lint-ignore no-explicit-any
  frames: any[] = [];
  #queued: MemoryPacket[] = [];
  /** How often something was flushed: one write each. */
  writes = 0;
  code: number | null = null;
  paused = false;
  backlog = 0;
  received = 0;

  send(packet: Packet): void {
    this.#queued.push(packet as MemoryPacket);
  }
  flush(): void {
    if (this.#queued.length > 0) this.writes++;
    for (const { frame } of this.#queued) this.frames.push(typeof frame === "string" ? JSON.parse(frame) : frame);
    this.#queued = [];
  }
  close(code: number): void {
    this.flush();
    this.code ??= code;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
}

export class StageClient {
  readonly wire = new MemoryWire();
  readonly socket: Socket;
  #refs = 0;

  constructor(private readonly stage: Stage, user: User | null, vsn: "1" | "2", expires: number) {
    const identity = user && { user, expires };
    this.socket = stage.gateway.open(this.wire, { serializer: vsn === "1" ? V1 : V2, identity });
  }

  /** Queues a frame (JSON value, text or bytes) without running a tick. */
  queue(frame: unknown): void {
    const data = frame instanceof Uint8Array ? frame : new TextEncoder().encode(typeof frame === "string" ? frame : JSON.stringify(frame));
    this.wire.received += data.length;
    this.stage.gateway.receive(this.socket, data, frame instanceof Uint8Array);
  }
  /** Sends a frame, runs what follows, and returns all that this client has heard since the last time. */
  // deno-lint-ignore no-explicit-any
  send(...frames: unknown[]): any[] {
    for (const frame of frames) this.queue(frame);
    this.stage.run();
    return this.take();
  }
  // deno-lint-ignore no-explicit-any
  take(): any[] {
    return this.wire.frames.splice(0);
  }
  /** Joins with a fresh ref; returns that ref and what was heard. */
  // deno-lint-ignore no-explicit-any
  join(topic: string, payload: unknown = {}): { ref: string; heard: any[] } {
    const ref = `j${++this.#refs}`;
    return { ref, heard: this.send([ref, ref, topic, "phx_join", payload]) };
  }
  /** The connection breaks (1006), or ends cleanly. */
  drop(clean = false): void {
    this.stage.gateway.closed(this.socket, !clean);
    this.stage.run();
  }
}

export interface StageOptions {
  readonly limits?: Partial<Limits>;
  readonly graceMs?: number;
  readonly host?: Partial<Host>;
  readonly sql?: SqlHost;
  readonly verify?: Verify;
}

export class Stage {
  readonly clock = new CrankedClock();
  readonly host: Host;
  readonly registry: Registry;
  readonly gateway: Gateway;
  /** What was reported as an error of ours. */
  readonly reported: { error: unknown; where: string }[] = [];

  constructor(rooms: readonly Room[], options: StageOptions = {}) {
    const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits };
    let ids = 0;
    this.host = denoHost(":memory:", {
      sql: options.sql ?? new DenoSql(":memory:"),
      clock: this.clock,
      members: new MemoryMembers(),
      id: () => `id${++ids}`,
      // Ticks are run by hand.
      soon: () => {},
      report: (error, where) => void this.reported.push({ error, where }),
      ...options.host,
    });
    this.registry = new Registry({ host: this.host, rooms, limits, graceMs: options.graceMs ?? 0 });
    const verify: Verify = options.verify ?? (() => Promise.reject(new Refusal("token_invalid")));
    const pack = (frame: Encoded): MemoryPacket => ({ frame, length: frame.length });
    this.gateway = new Gateway({ id: "g", host: this.host, rooms: this.registry, gate: this.registry.gate, limits, verify, pack });
    this.registry.connect((effects) => this.gateway.deliver(effects), () => this.gateway.flush());
    this.registry.start();
    this.gateway.start();
  }

  client(user: User | null = someone("user_1"), vsn: "1" | "2" = "2", expires = Infinity): StageClient {
    return new StageClient(this, user, vsn, expires);
  }
  /** One tick. */
  tick(): void {
    this.registry.gate.tick();
  }
  /** A few ticks: what is queued, and what that queues. */
  run(): void {
    for (let tick = 0; tick < 5; tick++) this.tick();
  }
  advance(ms: number): void {
    this.clock.advance(ms, () => this.run());
    this.run();
  }
  /** Lets promises settle, then runs ticks: for Later and publish. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 5; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      this.run();
    }
  }
  close(): void {
    this.host.sql.close();
  }
}

/** A user of every case, an attorney unless said otherwise. */
export function someone(id: string, role: User["role"] = "attorney", cases: User["cases"] = "*"): User {
  return { id, name: `Name of ${id}`, role, cases };
}

/** Where sockets end: a connection's life. The way of a frame in stands in `serving.ts`, that of an effect out in `delivery.ts`. */
import type { Serializer } from "../protocol/frame.ts";
import { type CloseCode, Refusal } from "../protocol/reason.ts";
import { type Budget, overspent, Purses } from "./budget.ts";
import { Delivery } from "./delivery.ts";
import type { Gate } from "./gate.ts";
import type { Host, User } from "./host.ts";
import type { Limits } from "./limits.ts";
import type { Metrics } from "./metrics.ts";
import { type Effect, encode, type Rooms } from "./seam.ts";
import { Serving } from "./serving.ts";
import { type Pack, Socket, type Wire } from "./socket.ts";
import type { Identity, Verify } from "./token.ts";

export interface GatewayOptions {
  readonly id: string;
  readonly host: Host;
  readonly rooms: Rooms;
  readonly gate: Gate;
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly verify: Verify;
  readonly pack: Pack;
  /** One line about everything worth knowing: no payloads, no tokens. */
  note(event: string, fields: Record<string, unknown>): void;
}

/** What is known of a connection when it opens. */
export interface Opening {
  readonly serializer: Serializer;
  /** Null: it has some seconds to send `authenticate`. */
  readonly identity: Identity | null;
  /** Other limits than the gateway's, for an endpoint of its own. */
  readonly limits?: Limits;
  /** What the client says of itself. */
  readonly clientVersion?: string;
}

/** A client that closes by itself (or whose page does) has left; anything else was an accident. */
const LEFT: ReadonlySet<number> = new Set([1000, 1001, 1005]);
/** How long before its end a token is said to expire, in milliseconds. */
const EXPIRING_MS = 60_000;
/** So many messages are overheard of a socket that was closed, then its connection is cut. */
const HEARD_AFTER_CLOSE = 100;
/** While draining, so often some sockets are closed, in milliseconds. */
const DRAIN_STEP_MS = 25;

export class Gateway {
  readonly #options: GatewayOptions;
  readonly #delivery: Delivery;
  readonly #serving: Serving;
  readonly #sockets = new Map<string, Socket>();
  readonly #purses: Purses;
  /** How many sockets each user has. */
  readonly #perUser = new Map<string, number>();
  #count = 0;
  #stopSweep: () => void = () => {};

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#purses = new Purses(options.limits);
    this.#delivery = new Delivery({
      clock: options.host.clock,
      pack: options.pack,
      metrics: options.metrics,
      socketOf: (id) => this.#sockets.get(id),
      tooSlow: (socket) => this.close(socket, 1013, "too slow", true),
    });
    this.#serving = new Serving({
      ...options,
      purses: this.#purses,
      expect: (session) => this.#delivery.expect(session),
      close: (socket, code, reason) => this.close(socket, code, reason),
      identify: (socket, user) => {
        if (this.isFull(user.id)) throw new Refusal("rate_limited", { message: "too many sockets", limit: options.limits.sockets_per_user });
        this.#countSockets(user.id, 1);
        socket.user = user;
      },
    });
    options.metrics.gauge("sockets", "Sockets that are open.", () => this.#sockets.size);
    options.metrics.gauge("sessions", "Topics joined, or being joined, over all sockets.", () => this.#delivery.sessions);
  }

  get size(): number {
    return this.#sockets.size;
  }
  get draining(): boolean {
    return this.#serving.draining;
  }

  deliver(effects: readonly Effect[]): void {
    this.#delivery.deliver(effects);
  }
  flush(): void {
    this.#delivery.flush();
  }

  // A connection's life.

  open(wire: Wire, opening: Opening): Socket {
    const limits = opening.limits ?? this.#options.limits;
    const id = `${this.#options.id}.${(++this.#count).toString(36)}`;
    const socket = new Socket(id, wire, opening.serializer, limits, opening.identity, this.#options.host.clock.elapsed());
    this.#sockets.set(id, socket);
    if (opening.identity) this.#countSockets(opening.identity.user.id, 1);
    this.#options.metrics.counts.sockets_opened++;
    const { serializer, identity, clientVersion } = opening;
    this.#options.note("socket open", { socket: id, user: identity?.user.id, vsn: serializer.vsn, client_version: clientVersion });
    return socket;
  }

  /** Whether this user has all the sockets that he may have. */
  isFull(userId: string): boolean {
    return (this.#perUser.get(userId) ?? 0) >= this.#options.limits.sockets_per_user;
  }

  #countSockets(userId: string, by: 1 | -1): void {
    const count = (this.#perUser.get(userId) ?? 0) + by;
    if (count === 0) this.#perUser.delete(userId);
    else this.#perUser.set(userId, count);
  }

  /** The transport read one message: text that is well-formed, or bytes. */
  receive(socket: Socket, data: string | Uint8Array): void {
    if (socket.closed) return this.#overhear(socket);
    this.#options.metrics.counts.messages_received++;
    socket.take(data);
    this.#serving.schedule(socket);
  }

  /** A ping or a pong: the transport has dealt with it, but they count as messages. */
  control(socket: Socket): void {
    if (socket.closed) this.#overhear(socket);
    else if (this.#serving.isFlood(socket, 1, this.#options.host.clock.elapsed())) this.close(socket, 1008, "too many messages");
  }

  /** It was closed, and yet it goes on. */
  #overhear(socket: Socket): void {
    if (++socket.unknown > HEARD_AFTER_CLOSE) socket.wire.cut();
  }

  /** The connection is gone, with that code; 1006 without a close frame. Who did not leave may be back soon. */
  closed(socket: Socket, code: number): void {
    this.#over(socket, code, !LEFT.has(code));
  }

  close(socket: Socket, code: CloseCode, reason: string, held = false): void {
    if (socket.closed) return;
    socket.wire.close(code, reason);
    this.#over(socket, code, held);
  }

  #over(socket: Socket, code: number, held: boolean): void {
    if (socket.closed) return;
    socket.closed = true;
    socket.unknown = 0;
    socket.dropWaiting();
    this.#sockets.delete(socket.id);
    if (socket.user) this.#countSockets(socket.user.id, -1);
    this.#options.metrics.closed(code);
    const seconds = Math.round((this.#options.host.clock.elapsed() - socket.openedAt) / 1000);
    this.#options.note("socket closed", { socket: socket.id, user: socket.user?.id, code, seconds, topics: socket.topics.size });
    this.#options.gate.post(() => {
      for (const session of socket.topics.values()) {
        this.#delivery.forget(session);
        this.#options.rooms.inbox({ kind: "gone", session: session.id, room: session.room, topic: session.topic, held });
      }
      socket.topics.clear();
    });
  }

  /** Closes every socket of a user: 1001, his rooms hear that he left. [49] Returns how many. */
  disconnect(userId: string): number {
    const sockets = [...this.#sockets.values()].filter((socket) => socket.user?.id === userId);
    for (const socket of sockets) this.close(socket, 1001, "disconnected");
    return sockets.length;
  }

  /**
   * Takes no more joins, and closes everything with 1012 within `ms`, some at a time: the clients come back by themselves,
   * and not all at once. [50] Resolves when the last ones are about to be, in the next ticks.
   */
  async drain(ms: number): Promise<void> {
    this.#serving.draining = true;
    this.#stopSweep();
    const dismissed = new Set<Socket>();
    for (let left = Math.floor(ms / DRAIN_STEP_MS);; left--) {
      const waiting = [...this.#sockets.values()].filter((socket) => !dismissed.has(socket));
      const share = waiting.slice(0, Math.ceil(waiting.length / Math.max(1, left + 1)));
      for (const socket of share) {
        dismissed.add(socket);
        this.#dismiss(socket);
      }
      if (share.length === waiting.length) return;
      await new Promise<void>((resolve) => void this.#options.host.clock.after(DRAIN_STEP_MS, resolve));
    }
  }

  /** What was read of it is answered first. */
  #dismiss(socket: Socket): void {
    const close = () => this.close(socket, 1012, "the server is restarting", true);
    if (socket.closed || !socket.hasNext) return close();
    this.#options.gate.post(() => {
      this.#serving.serve(socket);
      if (socket.hasNext && !socket.waiting && !socket.burdened) this.#dismiss(socket);
      else this.#options.gate.post(close);
    });
  }

  /** Looks after silent, unauthenticated and expired sockets, from now on. */
  start(): void {
    const { limits, host } = this.#options;
    const every = Math.min(1000, Math.max(20, Math.min(limits.idle_ms, limits.authenticate_ms) / 10));
    const sweep = () => {
      this.#stopSweep = host.clock.after(every, sweep);
      this.sweep();
    };
    this.#stopSweep = host.clock.after(every, sweep);
  }

  sweep(): void {
    const { clock } = this.#options.host;
    const [now, wall] = [clock.elapsed(), clock.now()];
    for (const socket of this.#sockets.values()) {
      const { received } = socket.wire;
      if (received !== socket.heardBytes) {
        socket.heardBytes = received;
        socket.heardAt = now;
      }
      // Only bytes from the client count, pings among them. [45]
      if (now - socket.heardAt > socket.limits.idle_ms) this.close(socket, 1001, "idle", true);
      else if (wall >= socket.expires) this.close(socket, 4001, "token expired");
      else if (!socket.user && now - socket.openedAt > socket.limits.authenticate_ms) this.close(socket, 4002, "not authenticated in time");
      else {
        if (!socket.warned && wall >= socket.expires - EXPIRING_MS) this.#warn(socket);
        if (socket.catchesUp) this.#options.gate.post(() => this.#delivery.catchUp(socket));
      }
    }
    this.#purses.sweep(now);
  }

  /** Once, a minute before its token ends. */
  #warn(socket: Socket): void {
    socket.warned = true;
    const frame = socket.serializer.push(null, null, "auth", "token_expiring", encode({ expires_at: new Date(socket.expires).toISOString() }));
    const effects: Effect[] = [{ kind: "direct", socket: socket.id, frame: frame! }];
    this.#options.gate.post(() => this.#options.gate.finish({ actor: null, effects, undo: [] }));
  }

  /** What a user asks for otherwise (over HTTP) counts as well. Throws Refusal `rate_limited`. */
  spend(user: User, budget: Budget): void {
    const refusal = overspent(this.#purses.of(user.id).spendAll(this.#options.host.clock.elapsed(), [[budget, 1]]));
    if (refusal) throw refusal;
  }
}

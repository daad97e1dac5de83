/**
 * Where sockets end. A frame goes in: decoded, matched with a session, passed to the room. Effects come out: encoded once
 * per serializer, queued on each socket, flushed once per tick. Subscriptions change only by delivered effects.
 */
import type { EventKind } from "../protocol/contract.ts";
import { type Body, byteLength, type Encoded, FrameError, isName, type Message, type Ref, type Serializer, V1, V2 } from "../protocol/frame.ts";
import { type CloseCode, type Reason, Refusal, type RefusalDetail } from "../protocol/reason.ts";
import type { Gate } from "./gate.ts";
import type { Host, User } from "./host.ts";
import type { Limits } from "./limits.ts";
import { type Effect, encode, type Rooms } from "./seam.ts";
import { type Pack, type Packet, type Session, Socket, type Wire } from "./socket.ts";
import type { Identity, Verify } from "./token.ts";

export interface GatewayOptions {
  readonly id: string;
  readonly host: Host;
  readonly rooms: Rooms;
  readonly gate: Gate;
  readonly limits: Limits;
  readonly verify: Verify;
  readonly pack: Pack;
}

/** What is known of a connection when it opens. */
export interface Opening {
  readonly serializer: Serializer;
  /** Null: it has some seconds to send `authenticate`. */
  readonly identity: Identity | null;
  /** Other limits than the gateway's, for an endpoint of its own. */
  readonly limits?: Limits;
}

export class Gateway {
  readonly #options: GatewayOptions;
  readonly #sockets = new Map<string, Socket>();
  readonly #sessions = new Map<string, Session>();
  readonly #subscribers = new Map<string, Session[]>();
  /** Sockets with something to flush. */
  #unflushed: Socket[] = [];
  #count = 0;
  #tick = 0;
  #stopSweep: () => void = () => {};
  #draining = false;

  constructor(options: GatewayOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#sockets.size;
  }
  get draining(): boolean {
    return this.#draining;
  }

  // A connection's life.

  open(wire: Wire, opening: Opening): Socket {
    const limits = opening.limits ?? this.#options.limits;
    const id = `${this.#options.id}.${(++this.#count).toString(36)}`;
    const socket = new Socket(id, wire, opening.serializer, limits, opening.identity, this.#options.host.clock.now());
    this.#sockets.set(id, socket);
    return socket;
  }

  /** The transport read one message: text that is well-formed, or bytes. */
  receive(socket: Socket, data: string | Uint8Array): void {
    this.#options.gate.post(() => this.#serve(socket, data));
  }

  /** The connection is gone. Without a close frame (1006), or by our own hand, the client may be back soon. */
  closed(socket: Socket, held: boolean): void {
    if (socket.closed) return;
    socket.closed = true;
    this.#sockets.delete(socket.id);
    this.#options.gate.post(() => {
      for (const session of socket.topics.values()) {
        this.#forget(session);
        this.#options.rooms.inbox({ kind: "gone", session: session.id, room: session.room, topic: session.topic, held });
      }
      socket.topics.clear();
    });
  }

  close(socket: Socket, code: CloseCode, reason: string, held = false): void {
    if (socket.closed) return;
    socket.wire.close(code, reason);
    this.closed(socket, held);
  }

  /** Closes every socket of a user: 1001, his rooms hear that he left. [49] Returns how many. */
  disconnect(userId: string): number {
    const sockets = [...this.#sockets.values()].filter((socket) => socket.user?.id === userId);
    for (const socket of sockets) this.close(socket, 1001, "disconnected");
    return sockets.length;
  }

  /** Closes everything with 1012: the clients come back by themselves. [50] */
  drain(): void {
    this.#draining = true;
    this.#stopSweep();
    for (const socket of [...this.#sockets.values()]) this.close(socket, 1012, "the server is restarting", true);
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
    const now = this.#options.host.clock.now();
    for (const socket of this.#sockets.values()) {
      const { received } = socket.wire;
      if (received !== socket.heardBytes) {
        socket.heardBytes = received;
        socket.heardAt = now;
      }
      // Only bytes from the client count, pings among them. [45]
      if (now - socket.heardAt > socket.limits.idle_ms) this.close(socket, 1001, "idle", true);
      else if (now >= socket.expires) this.close(socket, 4001, "token expired");
      else if (!socket.user && now - socket.openedAt > socket.limits.authenticate_ms) this.close(socket, 4002, "not authenticated in time");
    }
  }

  // Frames in.

  #serve(socket: Socket, data: string | Uint8Array): void {
    if (socket.closed) return;
    if (socket.held) {
      socket.held.push(() => this.#serve(socket, data));
      return;
    }
    if (this.#options.host.clock.now() >= socket.expires) return this.close(socket, 4001, "token expired");
    let message: Message;
    try {
      message = socket.serializer.decode(data);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      if (error.fatal) return this.close(socket, 1003, error.message);
      return this.#refuse(socket, null, error.ref, typeof error.topic === "string" ? error.topic : "", "invalid_frame", { message: error.message });
    }
    const waits = this.#route(socket, message);
    if (waits === "again") this.#hold(socket, Promise.resolve(), () => this.#serve(socket, data));
    else if (waits) this.#hold(socket, waits);
  }

  /** A promise: what follows on this socket waits for it. "again": this frame too, until the next tick. */
  #route(socket: Socket, message: Message): void | Promise<void> | "again" {
    const { topic, event, ref } = message;
    if (topic === "phoenix") {
      if (event === "heartbeat") return this.#direct(socket, socket.serializer.reply(null, ref, topic, "ok", "{}"));
      return this.#refuse(socket, null, ref, topic, "unmatched topic");
    }
    if (topic === "auth") {
      if (event === "authenticate") return this.#authenticate(socket, message);
      return this.#refuse(socket, null, ref, topic, "unmatched topic");
    }
    if (!socket.user) return this.#refuse(socket, message.join_ref, ref, topic, "unauthenticated");
    if (event === "phx_join") return this.#join(socket, socket.user, message);
    const session = socket.topics.get(topic);
    if (!session) {
      // Leaving what was not joined is fine. [81]
      if (event === "phx_leave") return this.#direct(socket, socket.serializer.reply(message.join_ref, ref, topic, "ok", "{}"));
      return this.#refuse(socket, null, ref, topic, "unmatched topic");
    }
    // A stale join_ref is dropped in silence. [63, 80]
    if (message.join_ref !== null && message.join_ref !== session.join_ref) return;
    const { id, room } = session;
    if (event === "phx_leave") {
      socket.topics.delete(topic);
      return this.#options.rooms.inbox({ kind: "leave", session: id, room, topic, ref, join_ref: message.join_ref });
    }
    return this.#options.rooms.inbox({ kind: "push", session: id, room, topic, ref, event, payload: message.payload, size: message.size });
  }

  #join(socket: Socket, user: User, message: Message): void | Promise<void> | "again" {
    const { topic, ref, join_ref } = message;
    const old = socket.topics.get(topic);
    const refuse = (reason: Reason, detail?: RefusalDetail, at: Ref = join_ref) => this.#refuse(socket, at, ref, topic, reason, detail);
    if (byteLength(topic) > socket.limits.topic_bytes) {
      return refuse("invalid_frame", { message: "the topic is too long", limit: socket.limits.topic_bytes });
    }
    if (!isName(topic)) return refuse("invalid_frame", { message: "the topic has control characters or is no well-formed Unicode" });
    const room = this.#options.rooms.roomOf(topic, user.id);
    // With join_ref null, or phoenix.js drops it. [54]
    if (room === undefined) return refuse("unmatched topic", {}, null);
    if (!old && socket.topics.size >= socket.limits.topics_per_socket) {
      // Joins of this very tick may yet be refused: asked again in the next one.
      if ([...socket.topics.values()].some((session) => session.place < 0)) return "again";
      return refuse("too many channels joined", { limit: socket.limits.topics_per_socket });
    }
    const session: Session = { id: socket.nextSession(), socket, room, topic, join_ref, told_ref: join_ref ?? ref, place: -1 };
    socket.topics.set(topic, session);
    this.#sessions.set(session.id, session);
    const { payload, size } = message;
    return this.#options.rooms.inbox({ kind: "join", session: session.id, room, topic, ref, payload, size, user, replaces: old?.id });
  }

  /** A wrong token closes the socket, after the reply; a good one for the same user renews. */
  async #authenticate(socket: Socket, { ref, topic, payload }: Message): Promise<void> {
    const token = typeof payload === "object" && payload !== null && Object.hasOwn(payload, "token") ? (payload as { token: unknown }).token : undefined;
    let refusal: Refusal;
    try {
      if (typeof token !== "string") throw new Refusal("token_invalid", { message: "payload.token is no string" });
      const { user, expires } = await this.#options.verify(token);
      if (socket.user && socket.user.id !== user.id) throw new Refusal("user_mismatch");
      const renewed = socket.user !== null;
      this.#options.gate.post(() => {
        socket.user = user;
        socket.expires = expires;
        const body = encode({ user_id: user.id, expires_at: new Date(expires).toISOString() });
        this.#direct(socket, socket.serializer.reply(null, ref, topic, "ok", body));
        if (!renewed) return;
        for (const session of socket.topics.values()) {
          this.#options.rooms.inbox({ kind: "renew", session: session.id, room: session.room, topic: session.topic, user });
        }
      });
      return;
    } catch (error) {
      if (!(error instanceof Refusal)) this.#options.host.report(error, "authenticate");
      refusal = error instanceof Refusal ? error : new Refusal("internal");
    }
    this.#options.gate.post(() => {
      this.#refuse(socket, null, ref, topic, refusal.reason, refusal.detail);
      // One tick later, so that the reply is out.
      this.#options.gate.post(() => this.close(socket, 4002, refusal.reason));
    });
  }

  /** Reading pauses; what was read already waits in its order, `first` before the rest. */
  #hold(socket: Socket, until: Promise<void>, first?: () => void): void {
    socket.held = first ? [first] : [];
    socket.wire.pause();
    const resume = () =>
      this.#options.gate.post(() => {
        const waiting = socket.held ?? [];
        socket.held = null;
        if (socket.closed) return;
        socket.wire.resume();
        for (const serve of waiting) serve();
      });
    until.then(resume, (error) => {
      this.#options.host.report(error, "a slow join");
      resume();
    });
  }

  // Effects out.

  deliver(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind === "broadcast") {
        this.#broadcast(effect);
        continue;
      }
      if (effect.kind === "direct") {
        const socket = this.#sockets.get(effect.socket);
        if (socket) this.#answer(socket, effect.frame);
        continue;
      }
      if (effect.kind === "stray") {
        const { session, topic, join_ref, ref, status, body } = effect;
        const socket = this.#sockets.get(session.slice(0, session.lastIndexOf(".")));
        if (socket) this.#answer(socket, socket.serializer.reply(join_ref, ref, topic, status, body));
        continue;
      }
      const session = this.#sessions.get(effect.session);
      if (session) this.#one(session, effect);
    }
  }

  #one(session: Session, effect: Exclude<Effect, { kind: "broadcast" | "direct" | "stray" }>): void {
    const { socket, topic, join_ref, told_ref } = session;
    const { serializer } = socket;
    switch (effect.kind) {
      case "joined":
        this.#answer(socket, serializer.reply(join_ref, effect.ref, topic, "ok", effect.body));
        return this.#subscribe(session);
      case "reply": {
        // A refused join, or the reply to a push of one that stands.
        const at = session.place < 0 ? join_ref : told_ref;
        return this.#answer(socket, serializer.reply(at, effect.ref, topic, effect.status, effect.body));
      }
      case "push": {
        const frame = serializer.push(told_ref, null, topic, effect.event, effect.body);
        if (frame) this.#tell(socket, this.#options.pack(frame), "exact");
        return;
      }
      case "end": {
        // phx_close and phx_error carry ref = join_ref. [76, 77]
        const frame = effect.event && serializer.push(join_ref, join_ref, topic, effect.event, effect.body);
        if (frame) this.#answer(socket, frame);
        if (socket.topics.get(topic) === session) socket.topics.delete(topic);
        return this.#forget(session);
      }
    }
  }

  #broadcast({ topic, event, body, durability, except }: Extract<Effect, { kind: "broadcast" }>): void {
    const subscribers = this.#subscribers.get(topic);
    if (!subscribers) return;
    const now = this.#options.host.clock.now();
    // One packet per serializer; null where it cannot say it.
    let v1: Packet | null | undefined, v2: Packet | null | undefined;
    const slow: Socket[] = [];
    for (const session of subscribers) {
      const { socket } = session;
      if (session.id === except) continue;
      const packet = socket.serializer === V2 ? v2 ??= this.#packed(V2, topic, event, body) : v1 ??= this.#packed(V1, topic, event, body);
      // `exp` is checked before every delivery, not only by a timer.
      if (packet && now < socket.expires && !this.#told(socket, packet, durability)) slow.push(socket);
    }
    for (const socket of slow) this.close(socket, 1013, "too slow", true);
  }

  #packed(serializer: Serializer, topic: string, event: string, body: Body): Packet | null {
    const frame = serializer.broadcast(topic, event, body);
    return frame === null ? null : this.#options.pack(frame);
  }

  #told(socket: Socket, packet: Packet, durability: EventKind): boolean {
    if (socket.closed) return true;
    this.#mark(socket);
    return socket.tell(packet, durability);
  }

  #tell(socket: Socket, packet: Packet, durability: EventKind): void {
    if (this.#options.host.clock.now() >= socket.expires) return;
    if (!this.#told(socket, packet, durability)) this.close(socket, 1013, "too slow", true);
  }

  #answer(socket: Socket, frame: Encoded): void {
    this.#mark(socket);
    socket.answer(this.#options.pack(frame));
  }

  #mark(socket: Socket): void {
    if (socket.begin(this.#tick)) this.#unflushed.push(socket);
  }

  /** Once per tick: one write for each socket that has something to hear. */
  flush(): void {
    const sockets = this.#unflushed;
    this.#unflushed = [];
    this.#tick++;
    for (const socket of sockets) {
      if (socket.closed) continue;
      socket.wire.flush();
      // Whoever does not read his answers is not asked for more; the idle limit ends it.
      if (socket.wire.backlog > socket.limits.outbox_bytes) socket.wire.choke();
    }
  }

  /** An answer that no room gives, in its place among those of rooms. */
  #direct(socket: Socket, frame: Encoded): void {
    this.#options.gate.finish({ actor: null, effects: [{ kind: "direct", socket: socket.id, frame }], undo: [] });
  }

  #refuse(socket: Socket, join_ref: Ref, ref: Ref, topic: string, reason: Reason, detail: RefusalDetail = {}): void {
    this.#direct(socket, socket.serializer.reply(join_ref, ref, topic, "error", encode({ reason, ...detail })));
  }

  #subscribe(session: Session): void {
    const subscribers = this.#subscribers.get(session.topic);
    if (subscribers) session.place = subscribers.push(session) - 1;
    else {
      session.place = 0;
      this.#subscribers.set(session.topic, [session]);
    }
  }

  #forget(session: Session): void {
    this.#sessions.delete(session.id);
    const subscribers = this.#subscribers.get(session.topic);
    if (!subscribers || session.place < 0) return;
    const last = subscribers.pop()!;
    if (last !== session) {
      subscribers[session.place] = last;
      last.place = session.place;
    }
    session.place = -1;
    if (subscribers.length === 0) this.#subscribers.delete(session.topic);
  }
}

/**
 * Frames in: one socket's messages in their order, decoded, counted, matched with a session and passed to the room. What is
 * answered without a room is answered here.
 */
import { own } from "../protocol/contract.ts";
import { byteLength, FrameError, isName, type Message, type Ref } from "../protocol/frame.ts";
import { type CloseCode, type Reason, Refusal, type RefusalDetail } from "../protocol/reason.ts";
import { type Cost, costOf, overspent, type Purses } from "./budget.ts";
import type { Gate } from "./gate.ts";
import type { Host, User } from "./host.ts";
import { encode, type Rooms } from "./seam.ts";
import type { Session, Socket } from "./socket.ts";
import type { Verify } from "./token.ts";

export interface ServingOptions {
  readonly host: Host;
  readonly rooms: Rooms;
  readonly gate: Gate;
  readonly verify: Verify;
  readonly purses: Purses;
  /** A join is on its way: effects for it find its socket. */
  expect(session: Session): void;
  close(socket: Socket, code: CloseCode, reason: string): void;
  /** It is this user's from now on. Throws Refusal when he has too many. */
  identify(socket: Socket, user: User): void;
  note(event: string, fields: Record<string, unknown>): void;
}

/** Messages of one socket, characters and joins among them, that are served before others have their turn. */
const IN_ONE_GO = 128;
const SIZE_IN_ONE_GO = 65_536;
/** Whoever takes longer than this in one go, in milliseconds, is not served for so many times as long, on none of his sockets. */
const LONG_MS = 8;
const REST = 4;
const JOINS_IN_ONE_GO = 8;
/** After so many `rate_limited` answers a socket is not read for so many milliseconds: a flood costs its sender. */
const REFUSED_IN_ONE_GO = 100;
const KEPT_BACK_MS = 100;

export class Serving {
  readonly #options: ServingOptions;
  /** The server is going away: no more joins. */
  draining = false;

  constructor(options: ServingOptions) {
    this.#options = options;
  }

  /** It will be served in the next tick. */
  schedule(socket: Socket): void {
    if (socket.scheduled || socket.waiting) return;
    socket.scheduled = true;
    this.#options.gate.post(() => this.serve(socket));
  }

  /** Serves what has been read of it, some in one go. */
  serve(socket: Socket): void {
    socket.scheduled = false;
    if (socket.closed) return;
    const { clock } = this.#options.host;
    const now = clock.elapsed();
    if (clock.now() >= socket.expires) return this.#options.close(socket, 4001, "token expired");
    // More than a token and some words around it: whoever says so much without a name waits for all others who do.
    const isLoud = !socket.user && socket.nextSize > 2 * socket.limits.token_bytes;
    const purse = socket.user ? this.#options.purses.of(socket.user.id) : isLoud ? this.#options.purses.nobody : null;
    if (purse && now < purse.restsUntil) return this.#hold(socket, this.#pause(purse.restsUntil - now));
    let served = 0;
    socket.enough = false;
    socket.joins = 0;
    for (let size = 0; served < IN_ONE_GO && size < SIZE_IN_ONE_GO && !socket.closed && !socket.waiting && !socket.enough && !socket.burdened; served++) {
      const data = socket.next();
      if (data === undefined) break;
      size += data.length;
      this.#frame(socket, data, now);
    }
    if (this.isFlood(socket, served, now)) return this.#options.close(socket, 1008, "too many messages");
    const took = clock.elapsed() - now;
    const rest = took > LONG_MS ? took * REST : 0;
    if (purse && rest > 0) purse.restsUntil = now + took + rest;
    if (socket.waiting) return;
    // Whoever does not read his answers is not asked for more; the idle limit ends it.
    if (socket.wire.backlog > socket.limits.outbox_bytes) this.#hold(socket, socket.wire.drained());
    // By a timer, for in its rest the event loop sees who else has something to say.
    else if (rest > 0) this.#hold(socket, this.#pause(rest));
    else if (socket.hasNext) this.schedule(socket);
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#options.host.clock.after(ms, resolve));
  }

  /** Whether more came of its user within a minute, over all sockets, than anybody could mean; heartbeats and cursors count here too. */
  isFlood(socket: Socket, count: number, now: number): boolean {
    if (socket.user) return this.#options.purses.of(socket.user.id).spend("frames", now, count) > 0;
    return (socket.unknown += count) > socket.limits.frames;
  }

  #frame(socket: Socket, data: string | Uint8Array, now: number): void {
    let message: Message;
    try {
      message = socket.serializer.decode(data);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      if (error.fatal) return this.#options.close(socket, 1003, error.message);
      return this.#refuse(socket, null, error.ref, typeof error.topic === "string" ? error.topic : "", "invalid_frame", { message: error.message });
    }
    const waits = this.#route(socket, message, now);
    if (waits === "again") {
      socket.putBack(data);
      this.#hold(socket, Promise.resolve());
    } else if (waits) this.#hold(socket, waits, true);
  }

  /** A promise: what follows on this socket waits for it. "again": this frame too, until the next tick. */
  #route(socket: Socket, message: Message, now: number): void | Promise<void> | "again" {
    const { topic, event, ref, join_ref } = message;
    if (topic === "phoenix") {
      if (event === "heartbeat") return this.#direct(socket, null, ref, topic, "ok", "{}");
      return this.#refuse(socket, null, ref, topic, "unmatched topic");
    }
    if (topic === "auth") {
      if (event !== "authenticate") return this.#refuse(socket, null, ref, topic, "unmatched topic");
      if (socket.user && !this.#spend(socket, socket.user, now, message, null, [["authentications", 1]])) return;
      return this.#authenticate(socket, message);
    }
    if (!socket.user) return this.#refuse(socket, join_ref, ref, topic, "unauthenticated");
    if (event === "phx_join") return this.#join(socket, socket.user, message, now);
    const session = socket.topics.get(topic);
    // A leave is counted and never refused: it only makes room.
    if (event === "phx_leave") this.#options.purses.of(socket.user.id).spend("joins", now);
    if (!session) {
      // Leaving what was not joined is fine. [81]
      if (event === "phx_leave") return this.#direct(socket, join_ref, ref, topic, "ok", "{}");
      if (!this.#spend(socket, socket.user, now, message, null, [["requests", 1]])) return;
      return this.#refuse(socket, null, ref, topic, "unmatched topic");
    }
    // A stale join_ref is dropped in silence. [63, 80]
    if (join_ref !== null && join_ref !== session.join_ref) return;
    const { id, room } = session;
    if (event === "phx_leave") {
      socket.topics.delete(topic);
      return this.#options.rooms.inbox({ kind: "leave", session: id, room, topic, ref, join_ref });
    }
    if (!this.#spend(socket, socket.user, now, message, join_ref, costOf(session.contract, message, socket.limits))) return;
    return this.#options.rooms.inbox({ kind: "push", session: id, room, topic, ref, event, payload: message.payload, size: message.size });
  }

  #join(socket: Socket, user: User, message: Message, now: number): void | Promise<void> | "again" {
    const { topic, ref, join_ref, payload, size } = message;
    const old = socket.topics.get(topic);
    const refuse = (reason: Reason, detail?: RefusalDetail, at: Ref = join_ref) => this.#refuse(socket, at, ref, topic, reason, detail);
    if (this.draining) return refuse("draining");
    if (!old && socket.topics.size >= socket.limits.topics_per_socket) {
      // Joins of this very tick may yet be refused: asked again in the next one.
      if ([...socket.topics.values()].some((session) => session.place < 0)) return "again";
      if (!this.#spend(socket, user, now, message, join_ref, [["joins", 1]])) return;
      return refuse("too many channels joined", { limit: socket.limits.topics_per_socket });
    }
    if (!this.#spend(socket, user, now, message, join_ref, [["joins", 1]])) return;
    if (byteLength(topic) > socket.limits.topic_bytes) {
      return refuse("invalid_frame", { message: "the topic is too long", limit: socket.limits.topic_bytes });
    }
    if (!isName(topic)) return refuse("invalid_frame", { message: "the topic has control characters or is no well-formed Unicode" });
    const found = this.#options.rooms.find(topic, user.id);
    // With join_ref null, or phoenix.js drops it. [54]
    if (found === undefined) return refuse("unmatched topic", {}, null);
    const { room, contract } = found;
    const params = typeof payload === "object" && payload !== null ? payload as Record<string, unknown> : {};
    const aliases = !contract.loose && own(params, "aliases") !== false;
    const session: Session = { id: socket.nextSession(), socket, room, topic, contract, aliases, join_ref, told_ref: join_ref ?? ref, place: -1 };
    socket.topics.set(topic, session);
    this.#options.expect(session);
    const slow = this.#options.rooms.inbox({ kind: "join", session: session.id, room, topic, ref, payload, size, user, replaces: old?.id });
    // The state, and what is replayed, can be much: nothing else is served before it is seen how much of it waits.
    if (++socket.joins === JOINS_IN_ONE_GO || typeof own(params, "since") === "string") socket.enough = true;
    return slow;
  }

  // Budgets: per user, over all his sockets.

  /** False when it was refused, and answered. */
  #spend(socket: Socket, user: User, now: number, { ref, topic }: Message, join_ref: Ref, costs: readonly Cost[]): boolean {
    const purse = this.#options.purses.of(user.id);
    // Most pushes cost one thing, and most can be paid.
    if (costs.length === 1 ? purse.spend(costs[0][0], now, costs[0][1]) === 0 : costs.length === 0) return true;
    const refusal = overspent(purse.spendAll(now, costs));
    if (!refusal) return true;
    this.#refuse(socket, join_ref, ref, topic, refusal.reason, refusal.detail);
    if (purse.spend("rate_refusals", now) > 0) this.#options.close(socket, 1008, "sustained abuse");
    else if (++socket.refused % REFUSED_IN_ONE_GO === 0) {
      this.#hold(socket, this.#pause(KEPT_BACK_MS));
    }
    return false;
  }

  /** A wrong token closes the socket, after the reply; a good one for the same user renews. */
  async #authenticate(socket: Socket, { ref, topic, payload }: Message): Promise<void> {
    const token = typeof payload === "object" && payload !== null && Object.hasOwn(payload, "token") ? (payload as { token: unknown }).token : undefined;
    let refusal: Refusal;
    try {
      if (typeof token !== "string") throw new Refusal("token_invalid", { message: "payload.token is no string" });
      const { user, expires } = await this.#options.verify(token);
      if (socket.closed) return;
      if (socket.user && socket.user.id !== user.id) throw new Refusal("user_mismatch");
      const renewed = socket.user !== null;
      if (!renewed) this.#options.identify(socket, user);
      this.#options.gate.post(() => {
        socket.user = user;
        socket.expires = expires;
        socket.warned = false;
        this.#options.note(renewed ? "token renewed" : "authenticated", { socket: socket.id, user: user.id });
        this.#direct(socket, null, ref, topic, "ok", encode({ user_id: user.id, expires_at: new Date(expires).toISOString() }));
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
    // The keys cannot be had: that says nothing of a token that renews, and the one before is still good.
    const ends = !(socket.user && refusal.reason === "unavailable");
    await new Promise<void>((resolve) =>
      this.#options.gate.post(() => {
        this.#refuse(socket, null, ref, topic, refusal.reason, refusal.detail);
        // One tick later, so that the reply is out; nothing is served in between.
        this.#options.gate.post(() => {
          if (ends) this.#options.close(socket, 4002, refusal.reason);
          resolve();
        });
      })
    );
  }

  /** What was read already waits in its order. Reading pauses, unless `reads`: then it is heard when the client goes. */
  #hold(socket: Socket, until: Promise<void>, reads = false): void {
    socket.waiting = true;
    if (!reads) socket.wire.pause();
    const resume = () =>
      this.#options.gate.post(() => {
        socket.waiting = false;
        // A closed one too: what it still has to say is that it heard so.
        if (!reads) socket.wire.resume();
        if (!socket.closed) this.serve(socket);
      });
    until.then(resume, (error) => {
      this.#options.host.report(error, "a slow join");
      resume();
    });
  }

  /** An answer that no room gives, in its place among those of rooms. */
  #direct(socket: Socket, join_ref: Ref, ref: Ref, topic: string, status: "ok" | "error", body: string): void {
    const frame = socket.serializer.reply(join_ref, ref, topic, status, body);
    this.#options.gate.finish({ actor: null, effects: [{ kind: "direct", socket: socket.id, frame, status, body }], undo: [] });
  }

  #refuse(socket: Socket, join_ref: Ref, ref: Ref, topic: string, reason: Reason, detail: RefusalDetail = {}): void {
    this.#direct(socket, join_ref, ref, topic, "error", encode({ reason, ...detail }));
  }
}

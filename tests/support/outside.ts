/** A server process as it looks from outside: who connects to it, what back ends publish to it, and whether it took harm. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import type { User } from "../../rooms/host.ts";
import { type Running, startServer } from "./process.ts";
import { type Heard, RawClient } from "./raw.ts";
import { someone } from "./stage.ts";

export interface Published {
  readonly event: string;
  readonly payload: unknown;
  readonly id?: string;
}

/** What a back end was answered. */
export interface Answer {
  readonly status: number;
  // deno-lint-ignore no-explicit-any
  readonly body: any;
}

export class Outside {
  #users = 0;
  /** Every token that was made here: none of them may be printed. */
  readonly #tokens = new Set<string>();

  private constructor(readonly server: Running) {}

  static async start(env: Record<string, string> = {}): Promise<Outside> {
    return new Outside(await startServer(env));
  }

  /** Somebody new: what one has used up does not count for the next. */
  fresh(role: User["role"] = "attorney", cases: User["cases"] = "*"): User {
    return someone(`user_${++this.#users}`, role, cases);
  }
  async token(user: User = this.fresh(), ttlSeconds = 600): Promise<string> {
    return this.secret(await this.server.token(user, ttlSeconds));
  }
  /** Remembers what must not be printed. */
  secret(token: string): string {
    if (token.length >= 20) this.#tokens.add(token);
    return token;
  }

  url(token: string | null, vsn = "2.0.0"): string {
    return `${this.server.ws}/websocket?vsn=${vsn}${token === null ? "" : `&token=${encodeURIComponent(token)}`}`;
  }
  /** A socket of the user; of nobody, when that is null. */
  async connect(user: User | null = this.fresh(), vsn = "2.0.0"): Promise<RawClient> {
    return await RawClient.open(this.url(user && await this.token(user), vsn));
  }
  /** A V2 socket that has joined the topic with join_ref "1". */
  async member(topic: string, user: User = this.fresh()): Promise<RawClient> {
    const client = await this.connect(user);
    const reply = await client.ask(["1", "1", topic, "phx_join", {}]);
    assertEquals(reply[4].status, "ok", JSON.stringify(reply));
    return client;
  }

  /** `POST /api/topics/:topic/events` as a back end does it. */
  async publish(topic: string, events: readonly Published[], token?: string): Promise<Answer> {
    return await this.post(`/api/topics/${encodeURIComponent(topic)}/events`, JSON.stringify({ events }), token ?? await this.token(this.fresh("service")));
  }
  async post(path: string, body: BodyInit, token: string | null, method = "POST"): Promise<Answer> {
    const response = await fetch(this.server.url + path, {
      method,
      headers: { "content-type": "application/json", ...(token !== null && { authorization: `Bearer ${token}` }) },
      ...(method !== "GET" && { body }),
    });
    const text = await response.text();
    return { status: response.status, body: text.startsWith("{") ? JSON.parse(text) : text };
  }

  /** What a stranger sees: the pages, and the frames of a first join with what differs each time left out. */
  async looks(): Promise<unknown> {
    const pages = [];
    for (const path of ["/health", "/ready", "/asyncapi.json"]) pages.push(await (await fetch(this.server.url + path)).text());
    await using client = await this.connect(someone("stranger"));
    client.send(["7", "7", "case:looks", "phx_join", {}]);
    const frames = await client.take(3);
    return { pages, frames: frames.map((frame) => JSON.stringify(frame, (key, value) => /^(phx_ref|online_at)$/.test(key) ? "…" : value)) };
  }

  /** It looks as it did, ends with 0, reported no error of ours and printed no token. */
  async unharmed(before: unknown): Promise<void> {
    assertEquals(await this.looks(), before);
    assertEquals(await this.server.stop("SIGTERM"), 0, this.server.output());
    const output = this.server.output();
    assertStringIncludes(output, '"level":"info"');
    assertEquals(output.split("\n").filter((line) => line !== "" && !/^Caseroom is ready|^Download |^\{"level":"info"/.test(line)), []);
    // A signature is enough to know a token by.
    assertEquals([...this.#tokens].filter((token) => output.includes(token) || output.includes(token.slice(-20))), []);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.server[Symbol.asyncDispose]();
  }
}

/** The frames of one event, as `[event, payload]`. */
export const eventsOf = (frames: readonly Heard[], ...events: string[]): Heard[] => frames.filter((frame) => events.includes(frame[3]));

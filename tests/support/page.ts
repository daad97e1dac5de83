/** The API page's own client classes, word for word, and the real npm client that they are run over. */
// @ts-types="./phoenix.d.ts"
import { type Channel, type Push, Socket } from "phoenix";
import type { User } from "../../rooms/host.ts";
import type { Running } from "./process.ts";

const RATE_LIMITER = `
class RateLimiter {
  constructor(maxRequests = 100, windowMs = 60000) {
    this.maxRequests = maxRequests;
    this.windowMs = windowMs;
    this.requests = [];
  }
  
  canSend() {
    const now = Date.now();
    this.requests = this.requests.filter(time => now - time < this.windowMs);
    
    if (this.requests.length >= this.maxRequests) {
      return false;
    }
    
    this.requests.push(now);
    return true;
  }
}
`;

const BATCHED_CHANNEL = `
class BatchedChannel {
  constructor(channel, batchInterval = 100) {
    this.channel = channel;
    this.batchInterval = batchInterval;
    this.messageQueue = [];
    this.batchTimer = null;
  }
  
  push(event, payload) {
    this.messageQueue.push({ event, payload });
    
    if (!this.batchTimer) {
      this.batchTimer = setTimeout(() => {
        this.flush();
      }, this.batchInterval);
    }
  }
  
  flush() {
    if (this.messageQueue.length === 0) return;
    
    const batch = this.messageQueue.splice(0);
    this.channel.push('batch', { messages: batch })
      .receive('ok', () => console.log(\`Sent \${batch.length} messages\`))
      .receive('error', (err) => {
        console.error('Batch send failed:', err);
        // Re-queue messages
        this.messageQueue.unshift(...batch);
      });
    
    this.batchTimer = null;
  }
}
`;

const SUBSCRIPTION_MANAGER = `
class SubscriptionManager {
  constructor(socket) {
    this.socket = socket;
    this.subscriptions = new Map();
    this.refCounts = new Map();
  }
  
  subscribe(topic, handler) {
    const key = \`\${topic}:\${handler.toString()}\`;
    
    if (!this.subscriptions.has(topic)) {
      const channel = this.socket.channel(topic);
      this.subscriptions.set(topic, channel);
      this.refCounts.set(topic, 0);
      
      channel.join()
        .receive('ok', () => console.log(\`Subscribed to \${topic}\`));
    }
    
    const channel = this.subscriptions.get(topic);
    channel.on('update', handler);
    
    this.refCounts.set(topic, this.refCounts.get(topic) + 1);
    
    return () => this.unsubscribe(topic, handler);
  }
  
  unsubscribe(topic, handler) {
    const channel = this.subscriptions.get(topic);
    if (!channel) return;
    
    channel.off('update', handler);
    
    const refCount = this.refCounts.get(topic) - 1;
    this.refCounts.set(topic, refCount);
    
    if (refCount === 0) {
      channel.leave();
      this.subscriptions.delete(topic);
      this.refCounts.delete(topic);
      console.log(\`Unsubscribed from \${topic}\`);
    }
  }
}
`;

const ENCRYPTED_CHANNEL = `
class EncryptedChannel {
  constructor(channel, encryptionKey) {
    this.channel = channel;
    this.encryptionKey = encryptionKey;
  }
  
  async push(event, payload) {
    const encrypted = await this.encrypt(payload);
    return this.channel.push(event, { encrypted });
  }
  
  on(event, callback) {
    this.channel.on(event, async (payload) => {
      if (payload.encrypted) {
        const decrypted = await this.decrypt(payload.encrypted);
        callback(decrypted);
      } else {
        callback(payload);
      }
    });
  }
  
  async encrypt(data) {
    const iv = crypto.getRandomValues(new Uint8Array(16));
    const encoded = new TextEncoder().encode(JSON.stringify(data));
    
    const encrypted = await crypto.subtle.encrypt(
      { name: 'AES-GCM', iv },
      this.encryptionKey,
      encoded
    );
    
    return {
      iv: Array.from(iv),
      data: Array.from(new Uint8Array(encrypted))
    };
  }
  
  async decrypt(encrypted) {
    const decrypted = await crypto.subtle.decrypt(
      { name: 'AES-GCM', iv: new Uint8Array(encrypted.iv) },
      this.encryptionKey,
      new Uint8Array(encrypted.data)
    );
    
    const decoded = new TextDecoder().decode(decrypted);
    return JSON.parse(decoded);
  }
}
`;

/** Makes a class of the page out of its text; `globals` stand for what it finds around it. */
function ofPage<C>(text: string, name: string, globals: Readonly<Record<string, unknown>>): C {
  return new Function(...Object.keys(globals), `${text}\nreturn ${name};`)(...Object.values(globals));
}

/** What the page's classes print goes here. */
export type Printed = Pick<Console, "log" | "error">;

interface RateLimiter {
  canSend(): boolean;
}
interface BatchedChannel {
  readonly messageQueue: { event: string; payload: object }[];
  push(event: string, payload: object): void;
}
interface SubscriptionManager {
  subscribe(topic: string, handler: (update: { event: string; payload: Record<string, unknown> }) => void): () => void;
}
interface EncryptedChannel {
  push(event: string, payload: unknown): Promise<Push>;
  on(event: string, callback: (payload: unknown) => void): void;
}

export const rateLimiter = (now: () => number) =>
  ofPage<new (maxRequests?: number, windowMs?: number) => RateLimiter>(RATE_LIMITER, "RateLimiter", { Date: { now } });
export const batchedChannel = (console: Printed) =>
  ofPage<new (channel: Channel, batchInterval?: number) => BatchedChannel>(BATCHED_CHANNEL, "BatchedChannel", { console });
export const subscriptionManager = (console: Printed) =>
  ofPage<new (socket: Socket) => SubscriptionManager>(SUBSCRIPTION_MANAGER, "SubscriptionManager", { console });
export const encryptedChannel = () => ofPage<new (channel: Channel, key: CryptoKey) => EncryptedChannel>(ENCRYPTED_CHANNEL, "EncryptedChannel", {});

/** A socket of the real client, hung up at the end. */
export class Phone {
  private constructor(readonly socket: Socket) {}

  static async dial(server: Running, user: User): Promise<Phone> {
    const socket = new Socket(server.ws, { params: { token: await server.token(user) } });
    const open = new Promise<void>((resolve) => socket.onOpen(resolve));
    socket.connect();
    await open;
    return new Phone(socket);
  }

  /** Joins a topic; throws when that is refused. */
  async enter(topic: string, params: object = {}): Promise<Channel> {
    const channel = this.socket.channel(topic, params);
    const { status, response } = await outcome(channel.join());
    if (status !== "ok") throw new Error(`${topic}: ${status} ${JSON.stringify(response)}`);
    return channel;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { conn } = this.socket;
    const closed = conn && conn.readyState !== WebSocket.CLOSED && new Promise((resolve) => conn.addEventListener("close", resolve, { once: true }));
    await new Promise<void>((resolve) => this.socket.disconnect(resolve));
    await closed;
  }
}

/** What a push was answered. */
// deno-lint-ignore no-explicit-any
export function outcome(push: Push): Promise<{ status: string; response: any }> {
  return new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"] as const) push.receive(status, (response) => resolve({ status, response }));
  });
}

/** What was noted, and a way to wait for what is yet to be. */
export class Notes<T> {
  readonly all: T[] = [];
  #wake: () => void = () => {};

  add(value: T): void {
    this.all.push(value);
    this.#wake();
  }
  /** The first `count` of them; throws when they do not come. */
  async first(count: number, ms = 10_000): Promise<T[]> {
    const end = Date.now() + ms;
    while (this.all.length < count) {
      if (Date.now() >= end) throw new Error(`waited ${ms} ms for ${count}, had ${JSON.stringify(this.all)}`);
      let timer;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, end - Date.now());
      });
      clearTimeout(timer);
    }
    return this.all.slice(0, count);
  }
}

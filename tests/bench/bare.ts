/**
 * The bare loop: what a program over `ws` and `node:http` must do at the least. It verifies the token, parses a frame,
 * answers with a frame made beforehand, and writes once per socket and tick, straight to the raw socket. It knows no
 * rooms, limits, presence, schemas, sessions, or rights; a socket has one topic and keeps it.
 */
import { Buffer } from "node:buffer";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { jwtVerify } from "jose";
// @ts-types="@types/ws"
import { WebSocketServer } from "ws";
import { BareLog } from "./bare_log.ts";
import { memory, SECRET, stand } from "./serving.ts";

/** One socket. `answers` wait for the flush; they are all alike. */
class Peer {
  topic: Topic | null = null;
  answers = 0;
  constructor(readonly raw: { write(bytes: Uint8Array): unknown }) {}
}

/** Who hears a topic, and what they will hear in this tick: every frame made once. */
class Topic {
  readonly peers = new Set<Peer>();
  waiting: Uint8Array[] = [];
  /** So many answers in one piece, made of `response` when they are first needed. */
  #answers: Uint8Array[] = [];
  #response: unknown = null;
  constructor(readonly name: string) {}

  /** From the first echo on; later ones change nothing: an answer is made beforehand. */
  answerWith(response: unknown): void {
    if (this.#response) return;
    this.#response = response;
    this.#answers = [];
  }

  answers(count: number): Uint8Array {
    return this.#answers[count] ??= count > 1
      ? Buffer.concat(new Array(count).fill(this.answers(1)))
      : textFrame(JSON.stringify(["1", "2", this.name, "phx_reply", { status: "ok", response: this.#response ?? {} }]));
  }
}

const topics = new Map<string, Topic>();
const log = new BareLog(`${Deno.args[0]}/log.db`);
/** Topics with something to hear, and peers with answers, in this tick. */
let loud: Topic[] = [];
let answered: Peer[] = [];
let due = false;

const key = await crypto.subtle.importKey("raw", SECRET, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
const checks = { algorithms: ["HS256"], requiredClaims: ["sub", "role", "exp"] };
const doors = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false });
const server = createServer();

server.on("upgrade", (request, raw, head) => {
  raw.on("error", ignore);
  const token = new URLSearchParams(request.url!.slice(request.url!.indexOf("?") + 1)).get("token") ?? "";
  jwtVerify(token, key, checks).then(() => doors.handleUpgrade(request, raw, head, (ws) => attach(ws, raw)), () => void raw.destroy());
});

// Outside of the upgrade, so that no listener holds its request.
function attach(ws: { on(event: string, listener: (data: Uint8Array) => void): void }, raw: Peer["raw"]): void {
  const peer = new Peer(raw);
  ws.on("message", (data) => receive(peer, data));
  ws.on("close", () => leave(peer));
  ws.on("error", ignore);
}

function ignore(): void {}

function receive(peer: Peer, data: Uint8Array): void {
  const [, , name, event, payload] = JSON.parse(data.toString());
  if (event === "phx_join") join(peer, name);
  if (event === "keep") log.append(name, payload);
  if (event === "shout") shout(peer.topic!, payload);
  // As many bytes as Caseroom answers with, but made once and not for each push.
  if (event === "echo") peer.topic!.answerWith(payload);
  if (peer.answers++ === 0) answered.push(peer);
  if (due) return;
  due = true;
  setImmediate(flush);
}

function join(peer: Peer, name: string): void {
  let topic = topics.get(name);
  if (!topic) topics.set(name, topic = new Topic(name));
  topic.peers.add(peer);
  peer.topic = topic;
}

function leave(peer: Peer): void {
  const { topic } = peer;
  if (topic?.peers.delete(peer) && topic.peers.size === 0) topics.delete(topic.name);
}

function shout(topic: Topic, payload: unknown): void {
  const frame = textFrame(`[null,null,${JSON.stringify(topic.name)},"shouted",${JSON.stringify(payload)}]`);
  if (topic.waiting.push(frame) === 1) loud.push(topic);
}

/** One commit, then one write for each socket that has something to hear. */
function flush(): void {
  due = false;
  log.commit();
  for (const topic of loud) {
    const heard = joined(topic.waiting);
    for (const peer of topic.peers) {
      if (peer.answers === 0) peer.raw.write(heard);
      else {
        peer.raw.write(Buffer.concat([heard, topic.answers(peer.answers)]));
        peer.answers = 0;
      }
    }
    topic.waiting = [];
  }
  for (const peer of answered) {
    if (peer.answers > 0) peer.raw.write(peer.topic!.answers(peer.answers));
    peer.answers = 0;
  }
  loud = [];
  answered = [];
}

function joined(frames: Uint8Array[]): Uint8Array {
  return frames.length === 1 ? frames[0] : Buffer.concat(frames);
}

/** An unmasked text message. */
function textFrame(text: string): Uint8Array {
  const length = Buffer.byteLength(text);
  const head = length < 126 ? 2 : 4;
  const frame = Buffer.allocUnsafe(head + length);
  frame[0] = 0x81;
  frame[1] = head === 2 ? length : 126;
  if (head === 4) frame.writeUInt16BE(length, 2);
  frame.write(text, head);
  return frame;
}

server.listen(0, "127.0.0.1", () => void stand({ port: (server.address() as AddressInfo).port, raised: [] }, { memory }));

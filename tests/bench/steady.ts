/**
 * Members of one topic who talk steadily, in a process of its own that is told on stdin what to do: how long each delivery
 * took. Some others can be there who do not read.
 */
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { type Connection, enter, join, many } from "./client.ts";
import { STEADY } from "./figures.ts";
import { since, sleep, type Spent, spent } from "./machine.ts";
import { fail, stand } from "./serving.ts";
import { FrameReader, NumberedFrame, pushFrame } from "./wire.ts";

export interface SteadyJob {
  readonly port: number;
  readonly pid: number;
  readonly core: number;
  /** One user for each member. */
  readonly tokens: readonly string[];
}

/** Milliseconds from the sender's write until a member has read it. */
export interface Talked extends Spent {
  readonly told: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface Pausing {
  readonly tokens: readonly string[];
  /** Who fills their buffers: he may push so often within a minute. */
  readonly filler: string;
  readonly fills: number;
}

const { topic, everyMs } = STEADY;
const job: SteadyJob = JSON.parse(Deno.args[0]);
const members = job.tokens.length;
/** How long the last deliveries may take before they count as lost, in milliseconds. */
const PATIENCE = 5000;

const shout = new NumberedFrame(
  JSON.stringify(["1", "2", topic, "shout", { document_id: "doc_########", page: 12, x: 318.25, y: 604.5, tool: "pointer" }]),
);
/** Where the digits stand in what is heard. */
const DIGITS = JSON.stringify([null, null, topic, "shouted"]).length + '{"document_id":"doc_'.length;
/** When each was sent, by its number; how long deliveries took. */
const sent: number[] = [];
let times: number[] = [];
let replySize = 0;
let refused = 0;

function listen(connection: Connection): void {
  const reader = new FrameReader();
  connection.socket.on("close", () => fail(new Error("The server closed a member's socket")));
  connection.hear = (chunk) => {
    const now = performance.now();
    reader.take(chunk, (bytes, from, to) => {
      if (bytes[from + 1] !== LETTER_N) {
        replySize ||= to - from;
        if (to - from !== replySize) refused++;
        return;
      }
      let number = 0;
      for (let place = 0; place < 8; place++) number = number * 10 + bytes[from + DIGITS + place] - ZERO;
      // Not of what a flood was allowed to say.
      if (number < sent.length) times.push(now - sent[number]);
    });
  };
}

const [LETTER_N, ZERO] = [0x6e, 0x30];

/** All members in turns, evenly over so many milliseconds. */
async function talk(ms: number): Promise<Talked> {
  times = [];
  const before = spent(job);
  const count = Math.round(ms / everyMs * members);
  const begun = performance.now();
  for (let told = 0; told < count; told++) {
    while (performance.now() < begun + told * everyMs / members) await sleep(1);
    const { socket } = connections[sent.length % members];
    const frame = shout.with(sent.length);
    sent.push(performance.now());
    socket.write(frame);
  }
  const deadline = performance.now() + PATIENCE;
  while (times.length < count * members && performance.now() < deadline) await sleep(10);
  if (refused > 0) fail(new Error(`${refused} replies were of another size than the first: refused, most likely`));
  if (times.length !== count * members) fail(new Error(`${times.length} of ${count * members} deliveries came`));
  const sorted = Float64Array.from(times).sort();
  const part = (share: number) => sorted[Math.ceil(sorted.length * share) - 1];
  return { ...since(before, spent(job)), told: count, p50: part(0.5), p99: part(0.99), max: part(1) };
}

let paused: Socket[] = [];

/** Others join the topic and read no more; what waits for them fills all buffers on the way before this is answered. */
async function pause({ tokens, filler, fills }: Pausing): Promise<void> {
  paused = await Promise.all(tokens.map(async (token) => {
    const connection = await enter(job.port, token, topic);
    await join(connection, FULL);
    connection.hear = () => {};
    connection.socket.pause();
    return connection.socket;
  }));
  const connection = await enter(job.port, filler, FULL);
  const frame = pushFrame(FULL, "fill", { text: "x".repeat(60_000) });
  for (let count = 0; count < fills; count++) {
    const heard = Promise.withResolvers<void>();
    const reader = new FrameReader();
    // The reply follows what he hears of himself.
    connection.hear = (chunk) =>
      reader.take(chunk, (bytes, from, to) => bytes[from + 1] === LETTER_N || done(Buffer.from(bytes.subarray(from, to)).toString()));
    const done = (reply: string) => reply.includes('"status":"ok"') ? heard.resolve() : fail(new Error(`A fill was refused: ${reply}`));
    connection.socket.write(frame);
    await heard.promise;
  }
  connection.socket.destroy();
}

const FULL = "bench:full";

const connections = await many(members, members, (index) => enter(job.port, job.tokens[index], topic));
connections.forEach(listen);
await stand("ready", {
  talk: (ms: number) => talk(ms).catch(fail),
  pause: (pausing: Pausing) => pause(pausing).catch(fail),
  unpause() {
    for (const socket of paused) socket.destroy();
  },
});

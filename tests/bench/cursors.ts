/** Members of one document who move their cursors, in a process of its own that is told on stdin what to do: how long each move took to the others. */
import { enter, many } from "./client.ts";
import { sleep } from "./machine.ts";
import { fail, stand } from "./serving.ts";
import { FrameReader, pushFrame } from "./wire.ts";

export interface CursorsJob {
  readonly port: number;
  readonly topic: string;
  /** One user for each member; each moves once in `everyMs`, within the budget of cursors. */
  readonly tokens: readonly string[];
  readonly everyMs: number;
}

/** Milliseconds. */
export interface Moved {
  readonly moves: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** How long the last deliveries may take before they count as lost. */
const PATIENCE = 5000;
const job: CursorsJob = JSON.parse(Deno.args[0]);
const members = job.tokens.length;
const sent: number[] = [];
let times: number[] = [];
const text = new TextDecoder();

const connections = await many(members, members, (index) => enter(job.port, job.tokens[index], job.topic));
connections.forEach((connection) => {
  const reader = new FrameReader();
  /** The next of each member's moves to be heard. */
  const next = Array.from({ length: members }, (_, sender) => sender);
  connection.socket.on("close", () => fail(new Error("The server closed a member's socket")));
  connection.hear = (chunk) => {
    const now = performance.now();
    reader.take(chunk, (bytes, from, to) => {
      const [, , , event, payload] = JSON.parse(text.decode(bytes.subarray(from, to)));
      // A move that a newer one has replaced is over with that one.
      if (event === "cursor:position") {
        for (const sender = payload.x % members; next[sender] <= payload.x; next[sender] += members) times.push(now - sent[next[sender]]);
      } else if (payload.status === "error") fail(new Error(`A move was refused: ${JSON.stringify(payload)}`));
    });
  };
});

async function move(ms: number): Promise<Moved> {
  times = [];
  const [begun, first] = [performance.now(), sent.length];
  while (performance.now() < begun + ms) {
    const count = sent.length - first;
    while (performance.now() < begun + count * job.everyMs / members) await sleep(1);
    sent.push(performance.now());
    connections[(sent.length - 1) % members].socket.write(pushFrame(job.topic, "cursor:move", { x: sent.length - 1, y: 604.5, page: 12 }));
  }
  const moves = sent.length - first;
  const deadline = performance.now() + PATIENCE;
  const expected = moves * (members - 1);
  while (times.length < expected && performance.now() < deadline) await sleep(10);
  if (times.length !== expected) fail(new Error(`${times.length} of ${expected} moves came`));
  const sorted = Float64Array.from(times).sort();
  const part = (share: number) => sorted[Math.ceil(sorted.length * share) - 1];
  return { moves, p50: part(0.5), p99: part(0.99), max: part(1) };
}

await stand("ready", { move: (ms: number) => move(ms).catch(fail) });

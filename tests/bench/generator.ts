/**
 * The clients, in a process of their own: sets one load up, warms the server up, measures one window and prints what it
 * counted. Frames are made beforehand and counted by their headers, so that this core is not what is measured.
 */
import { enter, many, open } from "./client.ts";
import type { Counted, Job } from "./figures.ts";
import { since, sleep, spent } from "./machine.ts";
import { fail } from "./serving.ts";
import { CLOSE_FRAME, FrameCounter, joinFrame, pushFrame, repeated, Tally } from "./wire.ts";

const VIEWING = { document_id: "doc_8f14e45fceea", page: 12, x: 318.25, y: 604.5, tool: "pointer" };
const NOTE = {
  document_id: "doc_8f14e45fceea",
  page: 12,
  type: "comment",
  text: "Second paragraph: counsel is in copy here, check for privilege.",
  tags: ["privilege"],
};
/** Sockets that open at once while a load is set up. */
const OPENING = 64;

const tally = new Tally();
let cycles = 0;

/** Publishers beside mere listeners: socket `index` is on topic `index % topics`, the first of each are publishers. */
async function pushing(job: Extract<Job, { kind: "push" }>): Promise<void> {
  const { port, tokens, topics, sockets, publishers, event } = job;
  const payload = event === "keep" ? NOTE : VIEWING;
  const connections = await many(sockets, OPENING, (index) => enter(port, tokens[index % tokens.length], `bench:${index % topics}`));
  connections.forEach(({ socket }, index) => {
    const counter = new FrameCounter(tally);
    socket.on("error", fail);
    socket.on("close", () => fail(new Error("The server closed a socket")));
    if (index >= publishers) {
      connections[index].hear = (chunk) => void counter.take(chunk);
      return;
    }
    const inFlight = job.inFlight === "1..8" ? 1 + index % 8 : job.inFlight;
    const frame = pushFrame(`bench:${index % topics}`, event, payload);
    // As many frames as replies came, in one write.
    const bursts = Array.from({ length: inFlight + 1 }, (_, count) => repeated(frame, count));
    connections[index].hear = (chunk) => {
      const replies = counter.take(chunk);
      if (replies > 0) socket.write(bursts[replies]);
    };
    socket.write(bursts[inFlight]);
  });
}

/** Each worker connects, joins, closes, and begins again once the connection is gone. */
function connecting({ port, tokens, inFlight, perTopic }: Extract<Job, { kind: "connect" }>): void {
  const topics = Math.ceil(inFlight / perTopic);
  const cycle = async (worker: number): Promise<void> => {
    const topic = `case:${worker % topics}`;
    const connection = await open(port, tokens[worker % tokens.length]);
    const closed = new Promise<void>((resolve) => connection.socket.on("close", () => resolve()));
    connection.hear = (chunk) => {
      const reply = new TextDecoder().decode(chunk);
      if (!reply.includes('"status":"ok"')) fail(new Error(`A join was refused: ${reply.slice(0, 200)}`));
      connection.hear = () => {};
      cycles++;
      connection.socket.write(CLOSE_FRAME);
    };
    connection.socket.write(joinFrame(topic));
    await closed;
    return cycle(worker);
  };
  for (let worker = 0; worker < inFlight; worker++) cycle(worker).catch(fail);
}

/** Joins and stays silent. */
async function idling({ port, tokens, sockets, perTopic, topic }: Extract<Job, { kind: "idle" }>): Promise<void> {
  const topics = Math.ceil(sockets / perTopic);
  const connections = await many(sockets, OPENING, (index) => enter(port, tokens[index % tokens.length], `${topic}:${index % topics}`));
  for (const connection of connections) connection.hear = () => {};
}

function snapshot(job: Job): Counted {
  return {
    ...spent(job),
    replies: tally.replies,
    events: tally.events,
    reads: tally.reads,
    odd: tally.odd,
    cycles,
  };
}

async function measure(job: Job): Promise<Counted> {
  await sleep(job.warmMs);
  const before = snapshot(job);
  await sleep(job.windowMs);
  const after = snapshot(job);
  return since(before, after);
}

const job: Job = JSON.parse(Deno.args[0]);
if (job.kind === "idle") {
  await idling(job);
  console.log(JSON.stringify("idle"));
  // The sockets are held until stdin ends.
  for await (const _ of Deno.stdin.readable);
} else {
  if (job.kind === "push") await pushing(job);
  else connecting(job);
  console.log(JSON.stringify(await measure(job)));
}
Deno.exit(0);

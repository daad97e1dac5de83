/**
 * A crowd, in a process of its own that is told on stdin what to do: its clients come all at once or within some time, join
 * cases, ask for what they missed or not, and go again.
 */
import type { Socket } from "node:net";
import { open } from "./client.ts";
import type { CrowdLoad } from "./figures.ts";
import { overflows, since, sleep, type Spent, spent } from "./machine.ts";
import { fail, stand } from "./serving.ts";
import { CLOSE_FRAME, FrameReader, joinFrame, QUOTE } from "./wire.ts";

/** `cursors`: of each case, what its members saw last. */
export type CrowdJob = CrowdLoad & { readonly tokens: readonly string[]; readonly cursors: readonly string[] };

export interface Coming {
  readonly port: number;
  readonly pid: number;
  readonly core: number;
  /** Whether they ask for what they missed. */
  readonly recover: boolean;
}

/** How a crowd came: milliseconds from a client's dialling until it has its reply and all that it missed. */
export interface Came extends Spent {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** How often one had to dial again, a second later: the server's queue was full. */
  readonly again: number;
}

const text = new TextDecoder();
const LETTER_D = "d".charCodeAt(0);

/** One client: it has come when it has its reply and so many events that it missed. */
class Client {
  readonly came = Promise.withResolvers<void>();
  readonly gone = Promise.withResolvers<number>();
  #closedWith = 0;
  #reader = new FrameReader();
  #joined = false;
  #missed = 0;
  /** Where the name stands in `[null,null,"<topic>","<event>",…`. */
  readonly #event: number;

  constructor(private readonly socket: Socket, topic: string, private readonly misses: number) {
    this.#event = 15 + topic.length;
    socket.on("close", () => {
      if (!this.#here) fail(new Error(`The server closed a socket with ${this.#closedWith}`));
      this.gone.resolve(this.#closedWith);
    });
  }

  get #here(): boolean {
    return this.#joined && this.#missed === this.misses;
  }

  leave(): void {
    this.socket.write(CLOSE_FRAME);
  }

  hear(chunk: Uint8Array): void {
    this.#reader.take(chunk, (bytes, from, to, opcode) => {
      if (opcode === 8) {
        this.#closedWith = bytes[from] << 8 | bytes[from + 1];
        this.socket.end();
      } // `["1","1",…` is the reply, `["1",null,…` the presence state.
      else if (bytes[from + 1] === QUOTE && bytes[from + 5] === QUOTE) this.#replied(text.decode(bytes.subarray(from, to)));
      // Of all events only `document:processed`, what was missed, begins so.
      else if (bytes[from + this.#event] === LETTER_D) this.#missed++;
      else return;
      if (this.#missed > this.misses) fail(new Error("A client was told more than it missed"));
      if (this.#here) this.came.resolve();
    });
  }

  #replied(reply: string): void {
    if (!reply.includes('"phx_reply",{"status":"ok"') || !reply.includes(`"recovered":${this.misses > 0}`)) {
      fail(new Error(`A join was refused, or not recovered: ${reply.slice(0, 300)}`));
    }
    this.#joined = true;
  }
}

const job: CrowdJob = JSON.parse(Deno.args[0]);
const topics = job.clients / job.perTopic;
let crowd: Client[] = [];

async function dial(index: number, { port, recover }: Coming): Promise<number> {
  const topic = `case:${index % topics}`;
  const frame = joinFrame(topic, recover ? { since: job.cursors[index % topics] } : {});
  const begun = performance.now();
  const connection = await open(port, job.tokens[index % job.tokens.length]);
  const client = new Client(connection.socket, topic, recover ? job.missed : 0);
  connection.hear = (chunk) => client.hear(chunk);
  crowd.push(client);
  connection.socket.write(frame);
  await client.came.promise;
  return performance.now() - begun;
}

async function come(coming: Coming): Promise<Came> {
  crowd = [];
  const before = { ...spent(coming), again: overflows() };
  const begun = performance.now();
  const dialled: Promise<number>[] = [];
  for (let index = 0; index < job.clients; index++) {
    while (performance.now() < begun + job.spreadMs * index / job.clients) await sleep(1);
    dialled.push(dial(index, coming));
  }
  const times = (await Promise.all(dialled)).toSorted((a, b) => a - b);
  const part = (share: number) => times[Math.ceil(times.length * share) - 1];
  return { ...since(before, { ...spent(coming), again: overflows() }), p50: part(0.5), p99: part(0.99), max: part(1) };
}

/** Resolves when all are closed, with the codes that the server gave. */
async function gone(): Promise<number[]> {
  return [...new Set(await Promise.all(crowd.map((client) => client.gone.promise)))];
}

await stand("ready", {
  come: (coming: Coming) => come(coming).catch(fail),
  go() {
    for (const client of crowd) client.leave();
    return gone();
  },
  gone,
});

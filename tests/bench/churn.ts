/** Sockets that join topics and leave them again, never one twice, in a process of its own that is told on stdin how many. */
import { Buffer } from "node:buffer";
import { type Connection, open } from "./client.ts";
import { CHURN } from "./figures.ts";
import { fail, stand } from "./serving.ts";
import { FrameReader, NumberedFrame } from "./wire.ts";

export interface ChurnJob {
  readonly port: number;
  readonly tokens: readonly string[];
}

const { sockets, atOnce } = CHURN;
const { port, tokens }: ChurnJob = JSON.parse(Deno.args[0]);

const TOPIC = "case:churn-########";
const JOIN = new NumberedFrame(JSON.stringify(["1", "1", TOPIC, "phx_join", {}]));
const LEAVE = new NumberedFrame(JSON.stringify(["1", "2", TOPIC, "phx_leave", {}]));
/** Where `phx_reply` and its status stand; `phx_close` differs from it in the letter at `REPLY`, presence in the one at `EVENT`. */
const EVENT = `["1","1","${TOPIC}","`.length;
const REPLY = EVENT + "phx_".length;
const STATUS = EVENT + 'phx_reply",{"status":"'.length;
const [R, O, H] = ["r", "o", "h"].map((letter) => letter.charCodeAt(0));

/** Topics that were begun, over all sockets. */
let begun = 0;
let end = 0;

/** Leaves what it joined, joins as many others, waits for all replies; until there are no more topics. */
async function live(connection: Connection): Promise<void> {
  const reader = new FrameReader();
  let waits = 0;
  let done = () => {};
  connection.hear = (chunk) =>
    reader.take(chunk, (bytes, from) => {
      // Presence states begin with `["1",null,`, so that other letters stand here.
      if (bytes[from + EVENT + 1] !== H || bytes[from + REPLY] !== R) return;
      if (bytes[from + STATUS] !== O) fail(new Error(`A join was refused: ${Buffer.from(bytes.subarray(from, from + 300))}`));
      if (--waits === 0) done();
    });
  let joined = { first: 0, count: 0 };
  do {
    const next = { first: begun, count: Math.min(atOnce, end - begun) };
    begun += next.count;
    const bytes = Buffer.allocUnsafe(joined.count * LEAVE.length + next.count * JOIN.length);
    let at = 0;
    for (let index = 0; index < joined.count; index++) at = LEAVE.write(bytes, at, joined.first + index);
    for (let index = 0; index < next.count; index++) at = JOIN.write(bytes, at, next.first + index);
    waits = joined.count + next.count;
    joined = next;
    if (waits === 0) return;
    const answered = new Promise<void>((resolve) => done = resolve);
    connection.socket.write(bytes);
    await answered;
  } while (joined.count > 0);
}

const connections = await Promise.all(Array.from({ length: sockets }, (_, index) => open(port, tokens[index])));
for (const { socket } of connections) socket.on("close", () => fail(new Error("The server closed a socket")));
await stand("ready", {
  /** So many more topics, all of them left again. */
  async topics(count: number) {
    end += count;
    await Promise.all(connections.map(live)).catch(fail);
  },
});

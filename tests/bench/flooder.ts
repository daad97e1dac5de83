/** Somebody who pushes as fast as his socket takes it, in a process of his own: `start`, `stop`. */
import { upgradeRequest } from "./client.ts";
import { fail, stand } from "./serving.ts";
import { joinFrame, maskedFrame, repeated } from "./wire.ts";

export interface Flood {
  readonly port: number;
  readonly token: string;
  readonly topic: string;
  /** One message as text. */
  readonly message: string;
}

/** What is written at once, in bytes. */
const BLOCK = 65_536;

let socket: Deno.TcpConn;
let blocks = 0;
let open = false;

async function start({ port, token, topic, message }: Flood): Promise<void> {
  socket = await Deno.connect({ hostname: "127.0.0.1", port });
  const heard = new Uint8Array(BLOCK);
  const say = async (bytes: Uint8Array, expected: string) => {
    await socket.write(bytes);
    const answer = new TextDecoder().decode(heard.subarray(0, await socket.read(heard) ?? 0));
    if (!answer.includes(expected)) fail(new Error(`The flood did not begin: ${answer.slice(0, 200)}`));
  };
  await say(new TextEncoder().encode(upgradeRequest(port, token)), "HTTP/1.1 101");
  await say(joinFrame(topic), '"status":"ok"');
  open = true;
  const frame = maskedFrame(message);
  write(repeated(frame, Math.max(1, Math.floor(BLOCK / frame.length)))).catch(ended);
  read(heard).catch(ended);
}

/** The server closed it, or `stop` did. */
function ended(): void {
  open = false;
}

async function write(block: Uint8Array): Promise<void> {
  while (open) {
    for (let at = 0; at < block.length;) at += await socket.write(block.subarray(at));
    blocks++;
  }
}

async function read(heard: Uint8Array): Promise<void> {
  while (await socket.read(heard) !== null);
  open = false;
}

await stand("ready", {
  start: (flood: Flood) => start(flood).catch(fail),
  /** Answers whether it was still open, and what it wrote, in blocks. */
  stop() {
    const was = { open, blocks };
    open = false;
    socket.close();
    return was;
  },
});

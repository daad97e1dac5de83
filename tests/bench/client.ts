/** One connection of the generator: a raw TCP socket that speaks just enough WebSocket to join a topic. */
import { connect, type Socket } from "node:net";
import { joinFrame } from "./wire.ts";

const text = new TextDecoder();

export interface Connection {
  readonly socket: Socket;
  /** What hears the bytes from now on. */
  hear: (chunk: Uint8Array) => void;
}

/** Opens a WebSocket with a token. Rejects with the first line of the answer when it is not 101. */
export function open(port: number, token: string): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1" });
    socket.setNoDelay(true);
    let head = "";
    const connection: Connection = {
      socket,
      hear(chunk) {
        head += text.decode(chunk);
        if (!head.includes("\r\n\r\n")) return;
        if (head.startsWith("HTTP/1.1 101")) resolve(connection);
        else reject(new Error(`The server refused the socket: ${head.split("\r\n", 1)[0]}`));
      },
    };
    socket.on("data", (chunk: Uint8Array) => connection.hear(chunk));
    socket.on("error", reject);
    socket.write(upgradeRequest(port, token));
  });
}

export function upgradeRequest(port: number, token: string): string {
  return `GET /socket/websocket?vsn=2.0.0&token=${token} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
}

/** Resolves when the reply to the join has come, with what it said. */
export function join(connection: Connection, topic: string): Promise<string> {
  return new Promise((resolve) => {
    connection.hear = (chunk) => resolve(text.decode(chunk));
    connection.socket.write(joinFrame(topic));
  });
}

/** Opens and joins. Throws when the join was refused. */
export async function enter(port: number, token: string, topic: string): Promise<Connection> {
  const connection = await open(port, token);
  const reply = await join(connection, topic);
  if (!reply.includes('"status":"ok"')) throw new Error(`The join of ${topic} was refused: ${reply.slice(0, 200)}`);
  return connection;
}

/** Runs `make` for 0 … count - 1, so many at a time. */
export async function many<T>(count: number, atOnce: number, make: (index: number) => Promise<T>): Promise<T[]> {
  const made: T[] = new Array(count);
  let next = 0;
  const worker = async () => {
    for (let index = next++; index < count; index = next++) made[index] = await make(index);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return made;
}

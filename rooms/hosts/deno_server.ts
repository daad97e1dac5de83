/**
 * Serves the app on Deno: `@hono/node-server` answers HTTP, and a small adapter hands upgrade requests to the same app,
 * whose route completes them with `ws`.
 */
import { Buffer } from "node:buffer";
import type { EventEmitter } from "node:events";
import { createServer, type IncomingMessage, type Server, STATUS_CODES } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
// @ts-types="@types/ws"
import { type WebSocket, WebSocketServer } from "ws";
import type { Gateway, Opening } from "../gateway.ts";
import type { App } from "../http/app.ts";
import type { Limits } from "../limits.ts";
import { DenoWire, type RawSocket } from "./deno_wire.ts";

export interface Served {
  readonly port: number;
  /** Takes no more connections; resolves when those that are there have ended. */
  stop(): Promise<void>;
}

export interface ServeOptions {
  readonly host: string;
  readonly port: number;
  readonly limits: Limits;
  report(error: unknown, where: string): void;
}

/** Listens; resolves once it does. `maxFrame`: bytes of one message, above which the socket is closed with 1009. */
export async function serve(app: App, gateway: Gateway, options: ServeOptions): Promise<Served> {
  // Other upgrades (h2c, which some HTTP clients always offer) are ordinary requests.
  const onlyWebSockets = { shouldUpgradeCallback: ({ headers }: IncomingMessage) => /^websocket$/i.test(headers.upgrade ?? "") };
  const server: Server = createServer(
    onlyWebSockets,
    getRequestListener((request, { incoming }) => {
      const { socket } = incoming;
      return app.fetch(request, {
        peer: socket.remoteAddress,
        allow: (ms: number) => plain.allow(socket, ms),
        whole: () => !("complete" in incoming) || incoming.complete,
      });
    }),
  );
  const doors = new Map<number, WebSocketServer>();
  const door = (maxPayload: number) => {
    let found = doors.get(maxPayload);
    if (!found) doors.set(maxPayload, found = openDoor(maxPayload));
    return found;
  };
  const plain = new PlainConnections(server, options.limits);
  server.on("upgrade", (incoming: IncomingMessage, raw: RawSocket, head: Uint8Array) => {
    // Before anything is awaited: a TCP reset without a listener ends the process.
    raw.on("error", ignore);
    let accepted = false;
    const accept = (opening: Opening) => {
      const { headers } = incoming;
      // ws takes version 8 for 13. [8]
      if (headers["sec-websocket-version"] !== "13") return new Response(null, { status: 400 });
      // ws takes only RFC 2616 tokens, a token in base64 may have `/` and `=`. [12]
      if (headers["sec-websocket-protocol"]?.split(",").some((entry) => entry.trim() === "phoenix")) headers["sec-websocket-protocol"] = "phoenix";
      else delete headers["sec-websocket-protocol"];
      accepted = true;
      plain.forget(raw);
      // ws refuses a wrong key with 400 by itself. [8]
      door(opening.limits?.frame_bytes ?? options.limits.frame_bytes).handleUpgrade(incoming, raw, head as never, (ws) => attach(ws, raw, gateway, opening));
      return new Response(null);
    };
    const answer = async () => {
      // Only a GET upgrades [8]; a Request cannot even be made of some methods.
      const response = incoming.method === "GET" ? await app.fetch(requestOf(incoming), { accept }) : new Response(null, { status: 400 });
      if (!accepted) raw.end(plainAnswer(response, await response.text()), () => raw.destroy());
    };
    answer().catch((error) => {
      options.report(error, "an upgrade");
      raw.destroy();
    });
  });
  await new Promise<void>((resolve, reject) =>
    server.once("error", reject).listen({ port: options.port, host: options.host, backlog: BACKLOG }, () => resolve())
  );
  return {
    port: (server.address() as AddressInfo).port,
    stop() {
      plain.stop();
      return new Promise((resolve) => void server.close(() => resolve()));
    },
  };
}

/**
 * Connections that are no WebSocket (yet): each has its time, whatever it trickles, and there are only so many of both.
 * Deno keeps none of Node's own timeouts, and its accept loop does not survive running out of file descriptors.
 */
class PlainConnections {
  readonly #until = new Map<Duplex, number>();
  readonly #sweep: ReturnType<typeof setInterval>;
  /** One listener for all: a WebSocket that keeps none is a kilobyte lighter. */
  readonly #closed: (this: Duplex) => void;

  constructor(server: Server, limits: Limits) {
    const until = this.#until;
    const soon = () => performance.now() + limits.request_ms;
    // Until they are closed, whatever they have become: a descriptor is held by those too whose end is on its way.
    let open = 0;
    const gone = () => void open--;
    this.#closed = function () {
      until.delete(this);
    };
    server.on("connection", (raw) => {
      if (open >= limits.connections) return void raw.destroy();
      open++;
      raw.on("close", gone);
      raw.on("close", this.#closed);
      until.set(raw, soon());
    });
    // A new request on a connection that is kept alive has its own time.
    server.on("request", (incoming) => {
      if (until.has(incoming.socket)) until.set(incoming.socket, soon());
    });
    this.#sweep = setInterval(() => {
      const now = performance.now();
      for (const [raw, latest] of until) if (latest < now) raw.destroy();
    }, Math.min(1000, limits.request_ms));
  }

  /** What is under way on it may take so long from now. */
  allow(raw: Duplex, ms: number): void {
    if (this.#until.has(raw)) this.#until.set(raw, performance.now() + ms);
  }

  /** It has become a WebSocket: the gateway looks after it. */
  forget(raw: Duplex): void {
    this.#until.delete(raw);
    raw.off("close", this.#closed);
  }

  stop(): void {
    clearInterval(this.#sweep);
  }
}

/** So many may dial at once, as all do after a restart: who finds the queue full tries again a second later. The system's own limit is as high. */
const BACKLOG = 4096;

function openDoor(maxPayload: number): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload,
    // Its types do not know these yet. More pings than this in one go, unanswered because nobody reads, and ws cuts the
    // connection. So many milliseconds after it should be over, it is: a slow reader has time to read why. Of one message
    // no more parts are kept than these, whatever is in them.
    ...{ maxPendingAutoPongs: 1000, closeTimeout: 10_000, maxFragments: 1024, maxBufferedChunks: 4096 },
    // The only subprotocol is phoenix; others are not echoed. [11]
    handleProtocols: (protocols) => protocols.has("phoenix") ? "phoenix" : false,
  });
}

/** A function of its own: a listener made inside the upgrade would hold its request for the socket's life. */
function attach(ws: WebSocket, raw: RawSocket, gateway: Gateway, opening: Opening): void {
  const socket = gateway.open(new DenoWire(ws, raw), opening);
  // ws has checked that text is UTF-8.
  ws.on("message", (data, binary) => gateway.receive(socket, binary ? data as Uint8Array : data.toString()));
  ws.on("close", (code) => gateway.closed(socket, code));
  controls.set(ws, () => gateway.control(socket));
  ws.on("ping", control).on("pong", control);
  // ws has closed with the right code already and waits for the other side: nobody else needs to.
  const over = (code: number) => {
    gateway.closed(socket, code);
    let patience = HEARD_AFTER_CLOSE;
    raw.on("data", (chunk: Uint8Array) => void ((patience -= chunk.length) < 0 && raw.destroy()));
  };
  ws.on("error", (error) => over(statusOf(error)));
  // A goodbye, which ws tells only once the connection has gone as well.
  (ws as unknown as { _receiver: EventEmitter })._receiver.on("conclude", over);
}

/** So many bytes are thrown away of a client that goes on after its end, then the connection is cut. */
const HEARD_AFTER_CLOSE = 1_048_576;

/** One listener for all sockets: they are many. */
const controls = new WeakMap<WebSocket, () => void>();
function control(this: WebSocket): void {
  controls.get(this)!();
}

/** The close code that ws has told the client for this error: it keeps it under a symbol of its own. */
function statusOf(error: Error): number {
  const symbol = Object.getOwnPropertySymbols(error).find(({ description }) => description === "status-code");
  return Number(symbol && (error as unknown as Record<symbol, unknown>)[symbol]) || 1006;
}

function ignore(): void {}

function requestOf(incoming: IncomingMessage): Request {
  const headers = new Headers();
  for (let at = 0; at < incoming.rawHeaders.length; at += 2) {
    try {
      headers.append(incoming.rawHeaders[at], incoming.rawHeaders[at + 1]);
    } catch {
      // A header that the Fetch standard does not allow says nothing to us.
    }
  }
  const url = URL.parse(incoming.url ?? "/", "http://localhost") ?? new URL("http://localhost/");
  return new Request(url, { method: incoming.method, headers });
}

/** An HTTP answer to what asked for an upgrade and does not get it. */
function plainAnswer(response: Response, body: string): string {
  const lines = [`HTTP/1.1 ${response.status} ${STATUS_CODES[response.status] ?? ""}`, "connection: close", `content-length: ${Buffer.byteLength(body)}`];
  for (const name of ["content-type", "caseroom-reason"]) {
    const value = response.headers.get(name);
    if (value) lines.push(`${name}: ${value}`);
  }
  return `${lines.join("\r\n")}\r\n\r\n${body}`;
}

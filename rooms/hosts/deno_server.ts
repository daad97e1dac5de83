/**
 * Serves the app on Deno: `@hono/node-server` answers HTTP, and a small adapter hands upgrade requests to the same app,
 * whose route completes them with `ws`.
 */
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, type Server, STATUS_CODES } from "node:http";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
// @ts-types="@types/ws"
import { type WebSocket, WebSocketServer } from "ws";
import type { Gateway, Opening } from "../gateway.ts";
import type { App } from "../http/app.ts";
import { DenoWire, type RawSocket } from "./deno_wire.ts";

export interface Served {
  readonly port: number;
  /** Takes no more connections; resolves when those that are there have ended. */
  stop(): Promise<void>;
}

/** Listens; resolves once it does. `maxFrame`: bytes of one message, above which the socket is closed with 1009. */
export async function serve(
  app: App,
  gateway: Gateway,
  options: { host: string; port: number; maxFrame: number; report: (error: unknown, where: string) => void },
): Promise<Served> {
  // Other upgrades (h2c, which some HTTP clients always offer) are ordinary requests.
  const onlyWebSockets = { shouldUpgradeCallback: ({ headers }: IncomingMessage) => /^websocket$/i.test(headers.upgrade ?? "") };
  const server: Server = createServer(onlyWebSockets, getRequestListener((request) => app.fetch(request, {})));
  const doors = new Map<number, WebSocketServer>();
  const door = (maxPayload: number) => {
    let found = doors.get(maxPayload);
    if (!found) doors.set(maxPayload, found = openDoor(maxPayload));
    return found;
  };
  server.on("upgrade", (incoming: IncomingMessage, raw: RawSocket, head: Uint8Array) => {
    // Before anything is awaited: a TCP reset without a listener ends the process.
    raw.on("error", ignore);
    let accepted = false;
    const accept = (opening: Opening) => {
      const { headers, method } = incoming;
      // ws takes version 8 for 13, and answers a POST with 405. [8]
      if (headers["sec-websocket-version"] !== "13" || method !== "GET") return new Response(null, { status: 400 });
      // ws takes only RFC 2616 tokens, a token in base64 may have `/` and `=`. [12]
      if (headers["sec-websocket-protocol"]?.split(",").some((entry) => entry.trim() === "phoenix")) headers["sec-websocket-protocol"] = "phoenix";
      else delete headers["sec-websocket-protocol"];
      accepted = true;
      // ws refuses a wrong key with 400 by itself. [8]
      door(opening.limits?.frame_bytes ?? options.maxFrame).handleUpgrade(incoming, raw, head as never, (ws) => attach(ws, raw, gateway, opening));
      return new Response(null);
    };
    const refuse = async (response: Response) => {
      if (!accepted) raw.end(plainAnswer(response, await response.text()));
    };
    Promise.resolve(app.fetch(requestOf(incoming), { accept })).then(refuse, (error) => {
      options.report(error, "an upgrade");
      raw.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(options.port, options.host, () => resolve()));
  return {
    port: (server.address() as AddressInfo).port,
    stop: () => new Promise((resolve) => void server.close(() => resolve())),
  };
}

function openDoor(maxPayload: number): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload,
    // The only subprotocol is phoenix; others are not echoed. [11]
    handleProtocols: (protocols) => protocols.has("phoenix") ? "phoenix" : false,
  });
}

/** A function of its own: a listener made inside the upgrade would hold its request for the socket's life. */
function attach(ws: WebSocket, raw: RawSocket, gateway: Gateway, opening: Opening): void {
  const socket = gateway.open(new DenoWire(ws, raw), opening);
  // ws has checked that text is UTF-8.
  ws.on("message", (data, binary) => gateway.receive(socket, binary ? data as Uint8Array : data.toString()));
  ws.on("close", (code) => gateway.closed(socket, !LEFT.has(code)));
  // ws has closed with the right code already; the event only says why.
  ws.on("error", ignore);
}

/** A client that closes by itself (or whose page does) has left; anything else was an accident. */
const LEFT: ReadonlySet<number> = new Set([1000, 1001, 1005]);

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

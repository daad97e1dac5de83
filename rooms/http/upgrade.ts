/**
 * The door for sockets: plain middleware on every host, in Phoenix's order of checks [7]: draining, origin, token in the
 * subprotocol, version, user. Then the host completes the upgrade.
 */
import type { Context } from "hono";
import { negotiate } from "../../protocol/frame.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { Gateway, Opening } from "../gateway.ts";
import type { Limits } from "../limits.ts";
import type { Identity, Verify } from "../token.ts";
import { hostOf, mayOpen, type OriginOptions } from "./origin.ts";

/** What a host lends to a request. `accept` is there when the request is an upgrade; `peer` is the address it comes from, if known. */
export interface HostBindings {
  readonly peer?: string;
  readonly accept?: (opening: Opening) => Response;
  /** The request may take so many milliseconds from now. */
  readonly allow?: (ms: number) => void;
  /** Whether the body has come to its end: of a request that was cut off, Deno's streams may say so though it has not. */
  readonly whole?: () => boolean;
}

/** Decides who connects. Null: he will say so by `authenticate`. Throws Refusal. */
export type Connect = (query: URLSearchParams, bearer: string | undefined) => Promise<Identity | null> | Identity | null;

export interface EndpointOptions extends OriginOptions {
  readonly gateway: Gateway;
  readonly connect: Connect;
  /** Limits of this endpoint, when they are not the gateway's. */
  readonly limits?: Limits;
  /** One line about every socket that is turned away. */
  note(event: string, fields: Record<string, unknown>): void;
  report(error: unknown, where: string): void;
}

/** The production way of connecting: `?token=`, or Phoenix's `authToken` subprotocol. */
export function connectByToken(verify: Verify): Connect {
  return (query, bearer) => {
    const token = bearer ?? query.getAll("token").at(-1);
    return token === undefined || token === "" ? null : verify(token);
  };
}

export function upgrade(options: EndpointOptions): (c: Context<{ Bindings: HostBindings }>) => Promise<Response> {
  return async (c) => {
    const header = (name: string) => c.req.header(name);
    const turnAway = (status: 403 | 429 | 500 | 503, reason: string) => {
      options.note("socket refused", { status, reason });
      // Empty, as Phoenix's: browsers hide the body of a failed upgrade anyway. [4, 5]
      return c.body(null, status, { "caseroom-reason": reason });
    };
    if (options.gateway.draining) return turnAway(503, "draining");
    if (!mayOpen(header("origin"), hostOf(header, options), options.allowedOrigins)) return turnAway(403, "origin");
    const query = new URL(c.req.url).searchParams;
    // `vsn[]=2.0.0` is no string. [4]
    const serializer = [...query.keys()].some((key) => key.startsWith("vsn[")) ? undefined : negotiate(query.getAll("vsn").at(-1));
    if (!serializer) return turnAway(403, "vsn");
    let identity: Identity | null;
    try {
      identity = await options.connect(query, bearerOf(header("sec-websocket-protocol")));
    } catch (error) {
      if (!(error instanceof Refusal)) {
        options.report(error, "connecting a socket");
        return turnAway(500, "internal");
      }
      return turnAway(error.reason === "unavailable" ? 503 : 403, error.reason);
    }
    // It began while the token was being checked.
    if (options.gateway.draining) return turnAway(503, "draining");
    if (identity && options.gateway.isFull(identity.user.id)) return turnAway(429, "too many sockets");
    if (!c.env?.accept) return c.req.method === "GET" ? c.text("this is a WebSocket endpoint\n", 400) : c.body(null, 400);
    return c.env.accept({ serializer, identity, limits: options.limits, clientVersion: query.get("client_version")?.slice(0, 32) });
  };
}

/** The token in `phoenix, base64url.bearer.phx.<base64>`; either alphabet, padded or not. [12] */
function bearerOf(subprotocols: string | undefined): string | undefined {
  const found = subprotocols?.split(",").map((entry) => /^\s*base64url\.bearer\.phx\.([A-Za-z0-9+/_=-]*)\s*$/.exec(entry)?.[1]).find((entry) =>
    entry !== undefined
  );
  if (found === undefined) return undefined;
  try {
    return atob(found.replaceAll("-", "+").replaceAll("_", "/").replace(/=+$/, ""));
  } catch {
    return "not base64";
  }
}

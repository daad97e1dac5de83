/** Which pages may open a socket, and ask for documents. */
import { cors } from "hono/cors";
import type { MiddlewareHandler } from "hono";

export interface OriginOptions {
  readonly allowedOrigins: readonly string[];
  readonly trustProxy: boolean;
}

/** Under what name a request came. `header` looks up one of its headers. */
export function hostOf(header: (name: string) => string | undefined, { trustProxy }: OriginOptions): string | undefined {
  return (trustProxy ? header("x-forwarded-host") : undefined) ?? header("host");
}

/** Lets the same pages read what they ask for over HTTP. */
export function sharing(options: OriginOptions): MiddlewareHandler {
  return cors({
    origin: (origin, c) => origin && mayOpen(origin, hostOf((name) => c.req.header(name), options), options.allowedOrigins) ? origin : null,
    allowHeaders: ["authorization", "content-type"],
    exposeHeaders: ["content-disposition"],
    maxAge: 600,
  });
}

/**
 * No Origin is fine: that is no browser. Otherwise it is the own host (scheme and port aside [10]), or matches an entry of
 * `ALLOWED_ORIGINS`: exact, or `https://*.example.com`, which covers example.com and everything below it.
 */
export function mayOpen(origin: string | undefined, host: string | undefined, allowed: readonly string[]): boolean {
  if (origin === undefined) return true;
  const from = parse(origin);
  if (!from) return false;
  if (host !== undefined && from.hostname === parse(`http://${host}`)?.hostname) return true;
  return allowed.some((entry) => {
    const wildcard = /^(https?:)\/\/\*\.(.+)$/.exec(entry);
    if (!wildcard) return parse(entry)?.origin === from.origin;
    const base = parse(`${wildcard[1]}//${wildcard[2]}`);
    return base !== null && base.protocol === from.protocol && base.port === from.port &&
      (from.hostname === base.hostname || from.hostname.endsWith(`.${base.hostname}`));
  });
}

function parse(origin: string): URL | null {
  const url = URL.parse(origin);
  return url && /^https?:$/.test(url.protocol) && url.pathname === "/" ? url : null;
}

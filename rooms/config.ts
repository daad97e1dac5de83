/** The configuration: read from the environment, checked by one schema, all errors reported at once. */
import { z } from "zod";
import { LIMITS, type Limits, limitShape, wholeNumber } from "./limits.ts";

const flag = z.enum(["0", "1"]).default("0").transform((value) => value === "1");
const list = z.string().default("").transform((value) => value.split(",").map((entry) => entry.trim()).filter(Boolean));

/** An exact origin, or `https://*.example.com`. */
const Origins = list.refine(
  (entries) => entries.every((entry) => /^https?:\/\/(\*\.)?[a-z0-9.-]+(:\d+)?$/i.test(entry)),
  "an entry is no origin such as https://app.example.com or https://*.example.com",
);

const Environment = z.object({
  PORT: wholeNumber(0, 65_535).default(4000).describe("the port; 0 takes a free one"),
  HOST: z.string().min(1).default("127.0.0.1").describe("the address; any but 127.0.0.1, localhost and ::1 needs authentication configured"),
  DATA_DIR: z.string().min(1).default("./data").describe("where the database and the originals are kept; one process at a time"),
  AUTH_SECRET: z.string().refine((value) => new TextEncoder().encode(value).length >= 32, "it has fewer than 32 bytes").optional()
    .describe("the HS256 secret of your tokens, at least 32 bytes"),
  AUTH_JWKS_URL: z.url({ protocol: /^https?$/ }).optional().describe("or where your public keys are (asymmetric algorithms only)"),
  AUTH_JWKS_FILE: z.string().min(1).optional().describe("or a file with them, read when the server starts"),
  AUTH_ISSUER: z.string().min(1).optional().describe("the `iss` that tokens must have"),
  AUTH_AUDIENCE: z.string().min(1).optional().describe("the `aud` that tokens must have"),
  ALLOWED_ORIGINS: Origins.describe(
    "other origins whose pages may connect, by commas: `https://app.example.com`, or `https://*.example.com` for a domain and all below it",
  ),
  TRUST_PROXY: flag.describe("1: believe the proxy's `X-Forwarded-Host`"),
  PRESENCE_GRACE_MS: wholeNumber(0, 2 ** 31 - 1).default(5000).describe("how long presence is held after a connection broke, in ms"),
  DRAIN_MS: wholeNumber(0, 600_000).default(1000).describe(
    "over how long sockets are closed when the server is told to end, in ms: so that they do not all come back at once",
  ),
  ANALYZER_URL: z.url({ protocol: /^https?$/ }).optional().describe("a model of your own that analyses documents, asked by POST"),
  METRICS_TOKEN: z.string().min(16).regex(/^[!-~]*$/, "it has characters that no bearer can carry").optional().describe(
    "the bearer that opens `/metrics` to others than this machine, at least 16 characters",
  ),
  ...limitShape,
});

/** What is wrong with settings taken together, whatever each of them is. */
function together(set: Record<string, string>): string[] {
  const ways = ["AUTH_SECRET", "AUTH_JWKS_URL", "AUTH_JWKS_FILE"].filter((name) => set[name] !== undefined);
  if (ways.length > 1) return [`${ways[1]}: set one of ${ways.join(" and ")}`];
  if (ways.length === 0 && set.HOST !== undefined && !isLoopback(set.HOST)) {
    return [`HOST: without AUTH_SECRET, AUTH_JWKS_URL or AUTH_JWKS_FILE only 127.0.0.1 is served, not ${set.HOST}`];
  }
  return [];
}

export type Config = Omit<z.output<typeof Environment>, `LIMIT_${string}`> & { readonly limits: Limits };

/** Every setting but the limits, with its default ("" for none) and what it is: the README's table is this one. */
export const SETTINGS = Object.entries(Environment.shape).filter(([name]) => !name.startsWith("LIMIT_")).map(([name, schema]) => {
  const fallback = schema.safeParse(undefined);
  return { name, fallback: name === "TRUST_PROXY" ? "0" : fallback.success ? String(fallback.data ?? "") : "", what: schema.description ?? "" };
});

function isLoopback(host: string): boolean {
  return host === "127.0.0.1" || host === "localhost" || host === "::1";
}

/** Throws TypeError with one line per wrong setting; secrets are not repeated. */
export function readConfig(environment: Record<string, string | undefined>): Config {
  const set = Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== ""));
  const result = Environment.safeParse(set);
  const wrong = result.success ? [] : result.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  // A limit that is spelled wrongly would go unnoticed.
  const unknown = Object.keys(set).filter((name) => name.startsWith("LIMIT_") && !Object.hasOwn(Environment.shape, name));
  const errors = [...wrong, ...together(set), ...unknown.map((name) => `${name}: there is no such setting`)];
  if (!result.success || errors.length > 0) throw new TypeError(`Cannot start with this configuration:\n  ${errors.join("\n  ")}`);
  const values = result.data as Record<string, unknown>;
  const limits = Object.fromEntries(Object.keys(LIMITS).map((name) => [name, values[`LIMIT_${name.toUpperCase()}`]])) as Limits;
  return { ...result.data, limits };
}

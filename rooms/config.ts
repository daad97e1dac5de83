/** The configuration: read from the environment, checked by one schema, all errors reported at once. */
import { z } from "zod";
import { LIMITS, type Limits, limitShape } from "./limits.ts";

const flag = z.enum(["0", "1"]).default("0").transform((value) => value === "1");
const list = z.string().default("").transform((value) => value.split(",").map((entry) => entry.trim()).filter(Boolean));

/** An exact origin, or `https://*.example.com`. */
const Origins = list.refine(
  (entries) => entries.every((entry) => /^https?:\/\/(\*\.)?[a-z0-9.-]+(:\d+)?$/i.test(entry)),
  "an entry is no origin such as https://app.example.com or https://*.example.com",
);

const Environment = z.object({
  PORT: z.coerce.number().int().min(0).max(65_535).default(4000),
  HOST: z.string().min(1).default("127.0.0.1"),
  DATA_DIR: z.string().min(1).default("./data"),
  AUTH_SECRET: z.string().refine((value) => new TextEncoder().encode(value).length >= 32, "it has fewer than 32 bytes").optional(),
  AUTH_JWKS_URL: z.url({ protocol: /^https?$/ }).optional(),
  AUTH_JWKS_FILE: z.string().min(1).optional(),
  AUTH_ISSUER: z.string().min(1).optional(),
  AUTH_AUDIENCE: z.string().min(1).optional(),
  ALLOWED_ORIGINS: Origins,
  TRUST_PROXY: flag,
  PRESENCE_GRACE_MS: z.coerce.number().int().nonnegative().default(5000),
  ...limitShape,
}).superRefine((value, context) => {
  const ways = ["AUTH_SECRET", "AUTH_JWKS_URL", "AUTH_JWKS_FILE"].filter((name) => value[name as keyof typeof value] !== undefined);
  if (ways.length > 1) context.addIssue({ code: "custom", path: [ways[1]], message: `set one of ${ways.join(" and ")}, not both` });
  if (ways.length === 0 && !isLoopback(value.HOST)) {
    context.addIssue({
      code: "custom",
      path: ["HOST"],
      message: `without AUTH_SECRET, AUTH_JWKS_URL or AUTH_JWKS_FILE only 127.0.0.1 is served, not ${value.HOST}`,
    });
  }
});

export type Config = Omit<z.output<typeof Environment>, `LIMIT_${string}`> & { readonly limits: Limits };

/** The configuration's names and defaults, in the order of the README's table. */
export const CONFIGURATION = Object.keys(Environment.shape).filter((name) => !name.startsWith("LIMIT_"));

function isLoopback(host: string): boolean {
  return host === "127.0.0.1" || host === "localhost" || host === "::1";
}

/** Throws TypeError with one line per wrong setting; values are not repeated, one may be a secret. */
export function readConfig(environment: Record<string, string | undefined>): Config {
  const set = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined && value !== ""));
  const result = Environment.safeParse(set);
  const known = new Set(Object.keys(Environment.shape));
  const unknown = Object.keys(set).filter((name) => /^LIMIT_/.test(name) && !known.has(name)).map((name) => `${name}: there is no such setting`);
  if (!result.success || unknown.length > 0) {
    const wrong = result.success ? [] : result.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new TypeError(`Cannot start with this configuration:\n  ${[...wrong, ...unknown].join("\n  ")}`);
  }
  const values = result.data as Record<string, unknown>;
  const limits = Object.fromEntries(Object.keys(LIMITS).map((name) => [name, values[`LIMIT_${name.toUpperCase()}`]])) as Limits;
  return { ...result.data, limits };
}

/** How the Deno host comes by what tokens are checked with. */
import { randomBytes } from "node:crypto";
import type { Config } from "../config.ts";
import type { TokenConfig } from "../token.ts";
import { makeDataDir } from "./deno.ts";

const bytes = new TextEncoder();

/** Whether nobody configured authentication: the secret is the server's own, for development on this machine. */
export function isDevelopment(config: Config): boolean {
  return !config.AUTH_SECRET && !config.AUTH_JWKS_URL && !config.AUTH_JWKS_FILE;
}

/** The configured keys; in development a secret that is made once and kept in `DATA_DIR`. */
export function tokenConfig(config: Config): TokenConfig {
  const common = { issuer: config.AUTH_ISSUER, audience: config.AUTH_AUDIENCE, maxBytes: config.limits.token_bytes, now: () => Date.now() };
  if (config.AUTH_JWKS_URL) return { ...common, jwksUrl: new URL(config.AUTH_JWKS_URL) };
  if (config.AUTH_JWKS_FILE) return { ...common, jwks: readKeys(config.AUTH_JWKS_FILE) };
  return { ...common, secret: signingSecret(config) };
}

/** Throws TypeError, naming the setting, when there is nothing that a token could be checked with. */
function readKeys(path: string): { keys: Record<string, unknown>[] } {
  let keys: unknown;
  try {
    keys = JSON.parse(Deno.readTextFileSync(path)).keys;
  } catch (error) {
    throw new TypeError(`Cannot read AUTH_JWKS_FILE ${path}: ${error instanceof Error ? error.message : error}`);
  }
  const isPublic = (key: unknown) => typeof key === "object" && key !== null && "kty" in key && key.kty !== "oct";
  if (Array.isArray(keys) && keys.some((key) => key !== null && typeof key === "object" && "d" in key)) {
    throw new TypeError(`Cannot use AUTH_JWKS_FILE ${path}: it has a private key; put public ones there`);
  }
  if (!Array.isArray(keys) || !keys.some(isPublic)) throw new TypeError(`Cannot use AUTH_JWKS_FILE ${path}: it has no public key`);
  return { keys };
}

/** The HS256 secret. Throws TypeError when tokens come from a key set: then this side cannot sign. */
export function signingSecret(config: Config): Uint8Array {
  if (config.AUTH_JWKS_URL || config.AUTH_JWKS_FILE) throw new TypeError("Cannot sign tokens: the keys are somebody else's (AUTH_JWKS_…)");
  if (config.AUTH_SECRET) return bytes.encode(config.AUTH_SECRET);
  return developmentSecret(config.DATA_DIR);
}

/** Made whole under another name and then linked, so that whoever comes second reads all of it. */
function developmentSecret(dataDir: string): Uint8Array {
  const path = `${dataDir}/development.secret`;
  makeDataDir(dataDir);
  const fresh = `${path}.${randomBytes(6).toString("hex")}`;
  Deno.writeTextFileSync(fresh, randomBytes(32).toString("base64url"), { createNew: true, mode: 0o600 });
  try {
    Deno.linkSync(fresh, path);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  } finally {
    Deno.removeSync(fresh);
  }
  return bytes.encode(Deno.readTextFileSync(path));
}

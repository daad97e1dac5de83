/** Who somebody is, and what he may do: tokens checked with jose, the table of roles, and the claim of cases. */
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  errors,
  type JWTPayload,
  jwtVerify,
  type JWTVerifyGetKey,
  type JWTVerifyOptions,
  SignJWT,
} from "jose";
import { z } from "zod";
import { isName } from "../protocol/frame.ts";
import { Refusal } from "../protocol/reason.ts";
import { Role } from "../protocol/channels/common.ts";
import type { User } from "./host.ts";

export type Right = "read" | "annotate" | "code" | "edit" | "upload" | "privilege" | "moderate" | "publish";

/** What each role may do in the cases that its token names. A service publishes to every case. */
export const RIGHTS: Readonly<Record<User["role"], readonly Right[]>> = {
  admin: ["read", "annotate", "code", "edit", "upload", "privilege", "moderate"],
  attorney: ["read", "annotate", "code", "edit", "upload", "privilege", "moderate"],
  paralegal: ["read", "annotate", "code", "edit", "upload"],
  client: ["read", "annotate"],
  viewer: ["read"],
  service: ["read", "upload", "privilege", "publish"],
};

export function may(user: User, right: Right): boolean {
  return RIGHTS[user.role].includes(right);
}

/** Throws Refusal `forbidden` when the user's role has not that right. */
export function require(user: User, right: Right): void {
  if (!may(user, right)) throw new Refusal("forbidden", { message: `the role ${user.role} may not ${right}` });
}

/** Access to a case is the token's claim alone, whatever the role: ethical walls. */
export function mayEnter(user: User, caseId: string): boolean {
  return user.cases === "*" || user.cases.includes(caseId);
}

const Name = z.string().min(1).max(255).refine(isName);

/** The claims of a token. Others are ignored. */
export const Claims = z.object({
  sub: Name,
  name: Name.optional(),
  role: Role,
  case_ids: z.union([z.literal("*"), z.array(Name).max(10_000)]).default([]),
  // Seconds; the last moment that a Date can say.
  exp: z.number().max(8.64e12),
});

/** A user, and when his token ends, in milliseconds since 1970. */
export interface Identity {
  readonly user: User;
  readonly expires: number;
}

export interface TokenConfig {
  /** At least 32 bytes; HS256. Exactly one of the three is set. */
  readonly secret?: Uint8Array;
  readonly jwksUrl?: URL;
  /** The content of a key set file. */
  readonly jwks?: { keys: Record<string, unknown>[] };
  readonly issuer?: string;
  readonly audience?: string;
  readonly maxBytes: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

// Asymmetric only: a public key must never pass for a shared secret.
const ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"];

/** Seconds by which another machine's clock may differ. */
const TOLERANCE = 5;

/** After a fetch, keys that are not known are asked for again this much later; known ones are trusted no longer than that. In milliseconds. */
const REFETCH_MS = 5_000;
const REFRESH_MS = 300_000;

export type Verify = (token: string) => Promise<Identity>;

/** Makes the check of tokens. It throws Refusal `token_invalid`, `token_expired` or `unavailable`, and never repeats the token. */
export function verifier(config: TokenConfig): Verify {
  const keys = config.secret ?? keySet(config);
  const options = {
    algorithms: config.secret ? ["HS256"] : ASYMMETRIC,
    requiredClaims: ["sub", "role", "exp"],
    clockTolerance: TOLERANCE,
    issuer: config.issuer,
    audience: config.audience,
  };
  return async (token) => {
    // A token is read only when it is small: its parts are decoded before the signature is known.
    if (token.length > config.maxBytes) throw new Refusal("token_invalid", { message: "the token is too long", limit: config.maxBytes });
    const payload = await verifyWith(keys, token, { ...options, currentDate: new Date(config.now()) }).catch(refuse);
    const claims = Claims.safeParse(payload);
    if (!claims.success) throw new Refusal("token_invalid", { message: `the claim ${claims.error.issues[0].path.join(".")} is missing or wrong` });
    const { sub, name, role, case_ids, exp } = claims.data;
    // The tolerance is for another clock's `nbf`; a token that has ended here opens nothing.
    if (exp * 1000 <= config.now()) throw new Refusal("token_expired");
    return { user: { id: sub, name: name ?? sub, role, cases: case_ids }, expires: exp * 1000 };
  };
}

/** The keys cannot be had: that says nothing about the token. */
class KeysUnavailable extends Error {
  override readonly name = "KeysUnavailable";
}

/** A key set is a few kilobytes: whoever sends more than this is not read to the end. In bytes. */
const KEY_SET_BYTES = 1_048_576;

async function fetchBounded(url: string, options: RequestInit): Promise<Response> {
  const response = await fetch(url, options);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    if ((size += chunk.length) > KEY_SET_BYTES) throw new Error("the key set is too large");
    chunks.push(chunk);
  }
  return new Response(response.status === 200 ? await new Blob(chunks as BlobPart[]).arrayBuffer() : null, {
    status: response.status,
    headers: response.headers,
  });
}

function keySet({ jwks, jwksUrl, now }: TokenConfig): JWTVerifyGetKey {
  if (jwks) return createLocalJWKSet(jwks as Parameters<typeof createLocalJWKSet>[0]);
  const fresh = () => createRemoteJWKSet(jwksUrl!, { cooldownDuration: REFETCH_MS, cacheMaxAge: REFRESH_MS, [customFetch]: fetchBounded });
  let remote = fresh();
  let latest = 0;
  return async (header, token) => {
    try {
      // jose counts by the wall clock: set back, it would hold what it has for as long as that.
      if (now() < latest - 1000) remote = fresh();
      latest = now();
      return await remote(header, token);
    } catch (error) {
      if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys || error instanceof errors.JOSENotSupported) {
        throw error;
      }
      throw new KeysUnavailable("the key set cannot be read", { cause: error });
    }
  };
}

async function verifyWith(keys: JWTVerifyGetKey | Uint8Array, token: string, options: JWTVerifyOptions): Promise<JWTPayload> {
  if (keys instanceof Uint8Array) return (await jwtVerify(token, keys, options)).payload;
  try {
    return (await jwtVerify(token, keys, options)).payload;
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
    // Keys without a `kid`: each is tried.
    for await (const key of error) {
      try {
        return (await jwtVerify(token, key, options)).payload;
      } catch (inner) {
        // The signature held, the claims do not. Any other key may be the right one, and this one none at all.
        if (inner instanceof errors.JWTExpired || inner instanceof errors.JWTClaimValidationFailed || inner instanceof errors.JWTInvalid) throw inner;
      }
    }
    throw new errors.JWSSignatureVerificationFailed();
  }
}

function refuse(error: unknown): never {
  if (error instanceof errors.JWTExpired) throw new Refusal("token_expired");
  if (error instanceof KeysUnavailable) throw new Refusal("unavailable", { message: "the keys cannot be had now" });
  // A DOMException: the key that the token names is no key.
  if (error instanceof errors.JOSEError || error instanceof TypeError || error instanceof DOMException) throw new Refusal("token_invalid");
  throw error;
}

/** Signs a token for development and tests. `ttlSeconds` counts from `now`, milliseconds since 1970. */
export function sign(secret: Uint8Array, user: User, ttlSeconds: number, now: number, claims: { issuer?: string; audience?: string } = {}): Promise<string> {
  const issued = Math.floor(now / 1000);
  const jwt = new SignJWT({ name: user.name, role: user.role, case_ids: user.cases as string[] | "*" }).setProtectedHeader({ alg: "HS256" })
    .setSubject(user.id).setIssuedAt(issued).setExpirationTime(issued + ttlSeconds);
  if (claims.issuer) jwt.setIssuer(claims.issuer);
  if (claims.audience) jwt.setAudience(claims.audience);
  return jwt.sign(secret);
}

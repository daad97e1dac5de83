import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { Refusal } from "../protocol/reason.ts";
import { may, mayEnter, require, RIGHTS, sign, type TokenConfig, verifier } from "../rooms/token.ts";
import { someone } from "./support/stage.ts";

const bytes = new TextEncoder();
const SECRET = bytes.encode("a secret of the tests, at least 32 bytes");
const NOW = Date.parse("2026-01-01T00:00:00Z");
const seconds = NOW / 1000;
const config = (more: Partial<TokenConfig> = {}): TokenConfig => ({ secret: SECRET, maxBytes: 8192, now: () => NOW, ...more });
const CLAIMS = { sub: "user_1", name: "User One", role: "attorney", case_ids: ["case_1"], exp: seconds + 600 };

const token = (claims: JWTPayload | Record<string, unknown>, secret: Uint8Array = SECRET, header: Record<string, unknown> = {}) =>
  new SignJWT(claims as JWTPayload).setProtectedHeader({ alg: "HS256", ...header }).sign(secret);
const base64url = (value: unknown) =>
  btoa(typeof value === "string" ? value : JSON.stringify(value)).replace(/=+$/, "").replaceAll("+", "-").replaceAll("/", "_");

/** A token of these very bytes of claims, rightly signed. */
async function literal(claims: string, header = '{"alg":"HS256"}'): Promise<string> {
  const key = await crypto.subtle.importKey("raw", SECRET, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const head = `${base64url(header)}.${base64url(claims)}`;
  const signature = new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes.encode(head)));
  return `${head}.${base64url(String.fromCharCode(...signature))}`;
}

async function reason(text: string, more: Partial<TokenConfig> = {}): Promise<string> {
  const error = await assertRejects(() => verifier(config(more))(text), Refusal);
  // It never repeats the token, whole or in part.
  for (const part of text.split(".")) if (part.length > 8) assert(!JSON.stringify(error.response()).includes(part));
  return error.reason;
}

Deno.test("token: a good one names its user and its end", async () => {
  assertEquals(await verifier(config())(await token(CLAIMS)), {
    user: { id: "user_1", name: "User One", role: "attorney", cases: ["case_1"] },
    expires: NOW + 600_000,
  });
  const { user } = await verifier(config())(await token({ sub: "u", role: "viewer", exp: seconds + 1, more: { x: 1 } }));
  assertEquals(user, { id: "u", name: "u", role: "viewer", cases: [] });
  assertEquals((await verifier(config())(await token({ ...CLAIMS, case_ids: "*" }))).user.cases, "*");
});

Deno.test("token: what sign signs is verified, issuer and audience with it", async () => {
  const user = someone("u", "client", ["a", "b"]);
  const signed = await sign(SECRET, user, 60, NOW, { issuer: "i", audience: "a" });
  assertEquals(await verifier(config({ issuer: "i", audience: "a" }))(signed), { user, expires: NOW + 60_000 });
  assertEquals(await reason(signed, { issuer: "j" }), "token_invalid");
  assertEquals(await reason(signed, { audience: "b" }), "token_invalid");
  assertEquals(await reason(await sign(SECRET, user, 60, NOW), { issuer: "i" }), "token_invalid");
  assertEquals(await reason(await sign(SECRET, user, 60, NOW), { audience: "a" }), "token_invalid");
});

Deno.test("token: forged, cut or otherwise spoilt ones are token_invalid", async () => {
  const good = await token(CLAIMS);
  const [head, body, signature] = good.split(".");
  const other = base64url({ ...CLAIMS, role: "admin" });
  const spoilt = [
    await token(CLAIMS, bytes.encode("another secret of at least 32 bytes..")),
    `${head}.${other}.${signature}`,
    `${head}.${body}.`,
    `${head}.${body}`,
    `${head}.${body}.${signature}.x`,
    `${head}.${body}.${signature.slice(0, -4)}AAAA`,
    ` ${good}`,
    `Bearer ${good}`,
    "",
    ".",
    "..",
    "...",
    "x",
    "null",
    "\u0000",
    "😀.😀.😀",
    `${base64url({ alg: "HS256" })}.x.y`,
    `${base64url("x")}.${body}.${signature}`,
    `${base64url({ alg: ["HS256"] })}.${body}.${signature}`,
    `${base64url({ alg: "HS256", crit: ["x"], x: 1 })}.${body}.${signature}`,
    await literal("[]"),
    await literal("null"),
    await literal("not json"),
    await token(CLAIMS, SECRET, { alg: "HS512" }),
    await token(CLAIMS, SECRET, { alg: "HS384" }),
  ];
  for (const text of spoilt) assertEquals(await reason(text), "token_invalid", text);
});

Deno.test("token: alg none is refused, however it is written", async () => {
  for (const alg of ["none", "None", "NONE", "nOnE", ""]) {
    for (const signature of ["", "x"]) assertEquals(await reason(`${base64url({ alg })}.${base64url(CLAIMS)}.${signature}`), "token_invalid");
  }
});

Deno.test("token: expired ones are token_expired, to the second; not-before forgives five; that and wrong times are token_invalid", async () => {
  for (const exp of [seconds - 6, seconds - 3600, 0, -1]) assertEquals(await reason(await token({ ...CLAIMS, exp })), "token_expired", String(exp));
  for (const exp of [seconds, seconds - 1, seconds - 4]) assertEquals(await reason(await token({ ...CLAIMS, exp })), "token_expired", String(exp));
  await verifier(config())(await token({ ...CLAIMS, nbf: seconds + 4 }));
  assertEquals(await reason(await token({ ...CLAIMS, nbf: seconds + 60 })), "token_invalid");
  await verifier(config())(await token({ ...CLAIMS, nbf: seconds - 60, iat: seconds - 60 }));
  for (const claims of [{ exp: "soon" }, { exp: null }, { exp: `${seconds + 60}` }, { exp: {} }, { nbf: "x" }]) {
    assertEquals(await reason(await literal(JSON.stringify({ ...CLAIMS, ...claims }))), "token_invalid", JSON.stringify(claims));
  }
});

Deno.test("token: an end beyond all dates is refused or kept within them", async () => {
  for (const exp of [1e13, 1e300]) {
    try {
      const { expires } = await verifier(config())(await literal(JSON.stringify({ ...CLAIMS, exp })));
      new Date(expires).toISOString();
    } catch (error) {
      assert(error instanceof Refusal, String(error));
    }
  }
});

Deno.test("token: missing claims and wrong types are token_invalid", async () => {
  for (const claim of ["sub", "role", "exp"]) {
    const { [claim as "sub"]: _, ...rest } = CLAIMS;
    assertEquals(await reason(await token(rest)), "token_invalid", claim);
  }
  const wrong: Record<string, unknown[]> = {
    sub: ["", 1, null, {}, [], "x".repeat(256), "a\u0000", "a\nb"],
    name: ["", 1, null, "a\u0007", "x".repeat(256)],
    role: ["root", "Admin", "", null, 1, ["admin"], "__proto__", "constructor", "toString"],
    case_ids: ["case_1", "**", null, 1, {}, [1], [""], [null], ["*".repeat(256)], Array(10_001).fill("x")],
  };
  for (const [claim, values] of Object.entries(wrong)) {
    for (const value of values) {
      const text = await literal(JSON.stringify({ ...CLAIMS, [claim]: value }));
      assertEquals(await reason(text, { maxBytes: 1e6 }), "token_invalid", `${claim} ${JSON.stringify(value)?.slice(0, 50)}`);
    }
  }
});

Deno.test("token: a token of 1 MB is refused unread", async () => {
  let read = false;
  const now = () => {
    read = true;
    return NOW;
  };
  const error = await assertRejects(() => verifier(config({ now }))("x".repeat(1_000_000)), Refusal);
  assertEquals([error.response(), read], [{ reason: "token_invalid", message: "the token is too long", limit: 8192 }, false]);
  assertEquals(await reason(await token({ ...CLAIMS, more: "x".repeat(10_000) })), "token_invalid");
});

Deno.test("token: `__proto__` among the claims is only a name", async () => {
  const evil = `"__proto__":{"role":"admin","sub":"root","polluted":1},"constructor":{"prototype":{"polluted":1}}`;
  const { user } = await verifier(config())(await literal(`{${evil},${JSON.stringify(CLAIMS).slice(1)}`));
  assertEquals(user, { id: "user_1", name: "User One", role: "attorney", cases: ["case_1"] });
  assertEquals(await reason(await literal(`{"__proto__":${JSON.stringify(CLAIMS)},"exp":${seconds + 60}}`)), "token_invalid");
  const named = await verifier(config())(await literal(JSON.stringify({ ...CLAIMS, sub: "__proto__", case_ids: ["constructor"] })));
  assertEquals([named.user.id, named.user.cases], ["__proto__", ["constructor"]]);
  assertEquals(({} as Record<string, unknown>).polluted, undefined);
});

// Key sets.

const pair = await generateKeyPair("RS256", { extractable: true });
const jwk = { ...await exportJWK(pair.publicKey), kid: "one", alg: "RS256" };
const jwks = { keys: [jwk] };
const asymmetric = (claims: Record<string, unknown> = CLAIMS, header: Record<string, unknown> = { kid: "one" }) =>
  new SignJWT(claims as JWTPayload).setProtectedHeader({ alg: "RS256", ...header }).sign(pair.privateKey);

Deno.test("token: a key set takes what its keys signed", async () => {
  const verify = verifier(config({ secret: undefined, jwks }));
  assertEquals((await verify(await asymmetric())).user.id, "user_1");
  assertEquals((await verify(await asymmetric(CLAIMS, {}))).user.id, "user_1");
  assertEquals(await reason(await asymmetric(CLAIMS, { kid: "two" }), { secret: undefined, jwks }), "token_invalid");
  const other = await generateKeyPair("RS256");
  const forged = await new SignJWT(CLAIMS).setProtectedHeader({ alg: "RS256", kid: "one" }).sign(other.privateKey);
  assertEquals(await reason(forged, { secret: undefined, jwks }), "token_invalid");
});

Deno.test("token: a public key is no shared secret: HS256 signed with it is refused, in every form of the key", async () => {
  const spki = await exportSPKI(pair.publicKey);
  for (const secret of [spki, spki.trim(), JSON.stringify(jwk), jwk.n!, JSON.stringify(jwks)].map((text) => bytes.encode(text))) {
    for (const header of [{}, { kid: "one" }]) assertEquals(await reason(await token(CLAIMS, secret, header), { secret: undefined, jwks }), "token_invalid");
  }
  // A symmetric key in the set does not open it either.
  const oct = { kty: "oct", k: base64url("a secret of the tests, at least 32 bytes"), alg: "HS256", kid: "two" };
  assertEquals(await reason(await token(CLAIMS, SECRET, { kid: "two" }), { secret: undefined, jwks: { keys: [jwk, oct] } }), "token_invalid");
});

Deno.test("token: with a shared secret no asymmetric token passes", async () => {
  assertEquals(await reason(await asymmetric()), "token_invalid");
});

Deno.test("token: two keys without a name are both tried, as while keys are rotated", async () => {
  const [first, second] = [await generateKeyPair("ES256"), await generateKeyPair("ES256")];
  const keys = await Promise.all([first, second].map(({ publicKey }) => exportJWK(publicKey)));
  const verify = verifier(config({ secret: undefined, jwks: { keys: keys as Record<string, unknown>[] } }));
  for (const { privateKey } of [first, second]) {
    const text = await new SignJWT(CLAIMS).setProtectedHeader({ alg: "ES256" }).sign(privateKey);
    assertEquals((await verify(text)).user.id, "user_1");
  }
});

for (const what of ["nobody there", "status 500", "rubbish"]) {
  // jose leaves the body of a refused fetch to the garbage collector.
  const name = `token: a key set that cannot be had (${what}) is unavailable, and nobody's token is called invalid`;
  Deno.test({ name, sanitizeResources: false, sanitizeOps: false }, async () => {
    const server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen() {} },
      () => what === "status 500" ? new Response(null, { status: 500 }) : new Response("rubbish"),
    );
    const jwksUrl = new URL(`http://127.0.0.1:${server.addr.port}/jwks`);
    if (what === "nobody there") await server.shutdown();
    try {
      assertEquals(await reason(await asymmetric(), { secret: undefined, jwksUrl }), "unavailable");
    } finally {
      if (what !== "nobody there") await server.shutdown();
    }
  });
}

Deno.test("token: a key set is fetched, once for many tokens", async () => {
  let fetched = 0;
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => (fetched++, Response.json(jwks)));
  const verify = verifier(config({ secret: undefined, jwksUrl: new URL(`http://127.0.0.1:${server.addr.port}/jwks`) }));
  for (let time = 0; time < 5; time++) assertEquals((await verify(await asymmetric())).user.id, "user_1");
  assertEquals(fetched, 1);
  await server.shutdown();
});

// Rights.

Deno.test("token: the table of roles is that of the design (§7)", () => {
  const columns = ["read", "annotate", "code", "edit", "upload", "privilege", "moderate", "publish"] as const;
  const table = {
    admin: "xxxxxxx-",
    attorney: "xxxxxxx-",
    paralegal: "xxxxx---",
    client: "xx------",
    viewer: "x-------",
    service: "x---xx-x",
  } as const;
  assertEquals(Object.keys(RIGHTS).sort(), Object.keys(table).sort());
  for (const [role, row] of Object.entries(table)) {
    const user = someone("u", role as keyof typeof table);
    assertEquals(columns.map((right) => may(user, right) ? "x" : "-").join(""), row, role);
    for (const right of columns) {
      if (may(user, right)) require(user, right);
      else assertEquals(assertThrows(() => require(user, right), Refusal).reason, "forbidden");
    }
  }
});

Deno.test("token: a case is entered by the claim alone, whatever the role", () => {
  for (const role of ["admin", "attorney", "viewer", "service"] as const) {
    assertEquals([mayEnter(someone("u", role, []), "1"), mayEnter(someone("u", role, ["1"]), "1"), mayEnter(someone("u", role, "*"), "1")], [
      false,
      true,
      true,
    ]);
    assertEquals([mayEnter(someone("u", role, ["*"]), "1"), mayEnter(someone("u", role, ["11"]), "1")], [false, false]);
  }
});

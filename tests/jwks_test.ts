/** Keys of an identity provider: fetched from where the configuration says and from nowhere else, whatever a token claims. */
import { assert, assertEquals, assertLess, assertRejects, assertThrows } from "@std/assert";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { Refusal } from "../protocol/reason.ts";
import { readConfig } from "../rooms/config.ts";
import { tokenConfig } from "../rooms/hosts/deno_secret.ts";
import { type TokenConfig, verifier, type Verify } from "../rooms/token.ts";
import { Outside } from "./support/outside.ts";
import { HttpRefusal, RawClient } from "./support/raw.ts";

type Json = Record<string, unknown>;

const bytes = new TextEncoder();
const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;
const CLAIMS = { sub: "user_1", name: "User One", role: "attorney", case_ids: "*", exp: inSeconds(86_400) };
const base64url = (value: unknown) =>
  btoa(typeof value === "string" ? value : JSON.stringify(value)).replace(/=+$/, "").replaceAll("+", "-").replaceAll("/", "_");

/** A key of an identity provider, or of somebody who would like to be one. */
class Key {
  private constructor(readonly kid: string, readonly alg: string, readonly secret: CryptoKey, readonly pem: string, readonly jwk: Json, readonly own: Json) {}

  static async make(kid: string, alg: string): Promise<Key> {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
    const named = async (key: typeof publicKey) => ({ ...await exportJWK(key), kid, alg, use: "sig" });
    return new Key(kid, alg, privateKey as CryptoKey, await exportSPKI(publicKey), await named(publicKey), await named(privateKey));
  }

  /** A token with this key's signature, whatever its header says besides. */
  token(header: Json = {}, claims: Json = CLAIMS): Promise<string> {
    return new SignJWT(claims as JWTPayload).setProtectedHeader({ alg: this.alg, kid: this.kid, ...header }).sign(this.secret);
  }

  /** A token of these very parts: what jose would not write. RS256 only. */
  async literal(header: Json | string, body: string = base64url(CLAIMS)): Promise<string> {
    const head = `${base64url(header)}.${body}`;
    const signature = new Uint8Array(await crypto.subtle.sign("RSASSA-PKCS1-v1_5", this.secret, bytes.encode(head)));
    return `${head}.${base64url(String.fromCharCode(...signature))}`;
  }
}

const [RSA, EC, ED, PSS, EC384, LATER, THIEF] = await Promise.all([
  Key.make("rsa", "RS256"),
  Key.make("ec", "ES256"),
  Key.make("ed", "EdDSA"),
  Key.make("pss", "PS256"),
  Key.make("ec384", "ES384"),
  Key.make("later", "ES256"),
  Key.make("thief", "RS256"),
]);
const setOf = (...keys: (Key | Json)[]) => ({ keys: keys.map((key) => key instanceof Key ? key.jwk : key) });
const ALL = setOf(RSA, EC, ED);

/** An HTTP server on this machine that counts what it is asked. */
class KeyServer {
  asked: string[] = [];
  #server: Deno.HttpServer<Deno.NetAddr>;
  readonly port: number;

  constructor(public answer: (request: Request) => Response | Promise<Response> = () => Response.json(ALL), port = 0) {
    this.#server = Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, (request) => {
      this.asked.push(new URL(request.url).pathname);
      return this.answer(request);
    });
    this.port = this.#server.addr.port;
  }
  get url(): string {
    return `http://127.0.0.1:${this.port}/jwks.json`;
  }
  stop(): Promise<void> {
    return this.#server.shutdown();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** Every fetch of this process while it stands, its clocks, and how long a fetch may take. */
class World {
  readonly fetched: string[] = [];
  readonly timeouts: number[] = [];
  readonly #responses: Response[] = [];
  readonly #fetch = globalThis.fetch;
  readonly #now = Date.now;
  readonly #timeout = AbortSignal.timeout;
  readonly #elapsed = performance.now;
  #passed = 0;
  #jumped = 0;

  /** `cutMs`: after how many real milliseconds a fetch is given up, in place of those that it asks for. */
  constructor(cutMs?: number) {
    globalThis.fetch = async (input, init) => {
      this.fetched.push(input instanceof Request ? input.url : String(input));
      const response = await this.#fetch(input, init);
      this.#responses.push(response);
      return response;
    };
    Date.now = () => this.#now() + this.#passed + this.#jumped;
    performance.now = () => this.#elapsed.call(performance) + this.#passed;
    AbortSignal.timeout = (ms) => {
      this.timeouts.push(ms);
      return this.#timeout.call(AbortSignal, cutMs ?? ms);
    };
  }
  /** So much time passes. */
  pass(ms: number): void {
    this.#passed += ms;
  }
  /** Somebody sets the machine's clock: no time passes. */
  jump(ms: number): void {
    this.#jumped += ms;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    globalThis.fetch = this.#fetch;
    Date.now = this.#now;
    performance.now = this.#elapsed;
    AbortSignal.timeout = this.#timeout;
    // jose leaves the body of an answer that it does not like to the garbage collector.
    for (const response of this.#responses) if (!response.bodyUsed) await response.body?.cancel().catch(() => {});
  }
}

const check = (more: Partial<TokenConfig>) => verifier({ maxBytes: 8192, now: () => Date.now(), ...more });
const remote = (server: KeyServer, more: Partial<TokenConfig> = {}) => check({ jwksUrl: new URL(server.url), ...more });
const outcome = (verify: Verify, token: string) =>
  verify(token).then(({ user }) => user.id, (error) => {
    assert(error instanceof Refusal, String(error));
    return error.reason;
  });

// Keys.

Deno.test("jwks: RS256, ES256, EdDSA, PS256 and ES384 keys of one set check what they signed, with one fetch for all", async () => {
  await using world = new World();
  const keys = [RSA, EC, ED, PSS, EC384];
  await using server = new KeyServer(() => Response.json(setOf(...keys)));
  const verify = remote(server);
  const tokens = await Promise.all([...keys.map((key) => key.token()), ED.token({ alg: "EdDSA", typ: "at+jwt" })]);
  // All at once, before anything is known: they wait for the same answer.
  assertEquals(await Promise.all([...tokens, ...tokens].map((token) => outcome(verify, token))), Array(12).fill("user_1"));
  assertEquals([world.fetched, server.asked], [[server.url], ["/jwks.json"]]);
});

Deno.test("jwks: no key of the set stands in for another: neither by kid, by alg, nor without them", async () => {
  await using _world = new World();
  const keys = [RSA, EC, ED, PSS, EC384];
  await using server = new KeyServer(() => Response.json(setOf(...keys)));
  const verify = remote(server);
  for (const key of keys) {
    for (const other of keys) if (other !== key) assertEquals(await outcome(verify, await key.token({ kid: other.kid })), "token_invalid");
    // Without a kid, every key of that kind is tried.
    assertEquals(await outcome(verify, await key.token({ kid: undefined })), "user_1", key.kid);
  }
  for (const [mine, theirs] of [[THIEF, RSA], [LATER, EC]]) {
    for (const kid of [theirs.kid, undefined]) assertEquals(await outcome(verify, await mine.token({ kid })), "token_invalid");
  }
  // RS256 in the key is not PS256 in the token, though the numbers are the same.
  const pss = await crypto.subtle.importKey("jwk", { ...RSA.own, alg: "PS256" } as JsonWebKey, { name: "RSA-PSS", hash: "SHA-256" }, false, ["sign"]);
  const confused = await new SignJWT(CLAIMS as JWTPayload).setProtectedHeader({ alg: "PS256", kid: "rsa" }).sign(pss);
  assertEquals(await outcome(verify, confused), "token_invalid");
});

Deno.test("jwks: a public key is no shared secret, whatever its kind: HMAC with its PEM, its JWK, its numbers or the whole set is refused", async () => {
  await using world = new World();
  await using server = new KeyServer();
  const verify = remote(server);
  for (const key of [RSA, EC, ED]) {
    const forms = [
      key.pem,
      key.pem.trim(),
      key.pem.replaceAll(/-----.*-----|\s/g, ""),
      JSON.stringify(key.jwk),
      JSON.stringify(ALL),
      String(key.jwk.n ?? key.jwk.x),
    ];
    for (const form of forms) {
      for (const alg of ["HS256", "HS384", "HS512"]) {
        for (const kid of [key.kid, undefined]) {
          const secret = await crypto.subtle.importKey("raw", bytes.encode(form), { name: "HMAC", hash: `SHA-${alg.slice(2)}` }, false, ["sign"]);
          const head = `${base64url({ alg, kid })}.${base64url(CLAIMS)}`;
          const mac = new Uint8Array(await crypto.subtle.sign("HMAC", secret, bytes.encode(head)));
          assertEquals(await outcome(verify, `${head}.${base64url(String.fromCharCode(...mac))}`), "token_invalid");
        }
      }
    }
  }
  assertLess(world.fetched.length, 2);
});

Deno.test("jwks: private, symmetric, short, broken and foreign keys in the set check nothing, and spoil nothing for the good ones", async () => {
  await using _world = new World();
  const [own, enc] = await Promise.all([Key.make("private", "ES256"), Key.make("enc", "ES256")]);
  const secret = "a secret that somebody has put among the keys";
  const odd: Json[] = [
    { kty: "oct", k: base64url(secret), alg: "HS256", kid: "oct" },
    { kty: "oct", k: base64url(secret), kid: "oct2" },
    own.own,
    { ...enc.jwk, use: "enc" },
    { ...THIEF.jwk, kid: "wrap", key_ops: ["wrapKey"] },
    { kty: "EC", crv: "P-256", x: "AA", y: "AA", alg: "ES256", kid: "broken" },
    { kty: "__proto__", kid: "__proto__" },
    { kty: "RSA", kid: "empty" },
    {},
  ];
  const set = { keys: [...odd, ...ALL.keys] };
  await using server = new KeyServer(() => Response.json(set));
  for (const verify of [remote(server), check({ jwks: set })]) {
    for (const key of [RSA, EC, ED]) assertEquals(await outcome(verify, await key.token()), "user_1");
    const refused = [
      await new SignJWT(CLAIMS as JWTPayload).setProtectedHeader({ alg: "HS256", kid: "oct" }).sign(bytes.encode(secret)),
      await new SignJWT(CLAIMS as JWTPayload).setProtectedHeader({ alg: "HS256", kid: "oct2" }).sign(bytes.encode(secret)),
      await new SignJWT(CLAIMS as JWTPayload).setProtectedHeader({ alg: "HS256" }).sign(bytes.encode(secret)),
      await own.token(),
      await own.token({ kid: undefined }),
      await enc.token(),
      await THIEF.token({ kid: "wrap" }),
      await THIEF.token({ kid: "__proto__" }),
    ];
    for (const [index, token] of refused.entries()) assert(["token_invalid", "unavailable"].includes(await outcome(verify, token)), `${index}`);
    for (const key of [RSA, EC, ED]) assertEquals(await outcome(verify, await key.token({ kid: undefined })), "user_1");
  }
});

for (
  const [what, broken, signer] of [
    ["an RSA key without numbers", { kty: "RSA", kid: "broken" }, THIEF],
    ["an RSA key that is no base64", { ...RSA.jwk, n: "!", kid: "broken" }, THIEF],
    ["a point that is not on its curve", { ...EC.jwk, x: EC.jwk.y, kid: "broken" }, LATER],
    ["a point that is too short", { ...EC.jwk, x: "AA", kid: "broken" }, LATER],
    ["a curve without a point", { kty: "EC", crv: "P-256", kid: "broken" }, LATER],
    ["numbers that are no text", { ...RSA.jwk, n: 1, e: {}, kid: "broken" }, THIEF],
  ] as const
) {
  Deno.test(`jwks: a token whose kid names ${what} is refused, and is no error of ours`, async () => {
    await using _world = new World();
    const set = { keys: [broken, ...ALL.keys] };
    await using server = new KeyServer(() => Response.json(set));
    for (const verify of [remote(server), check({ jwks: set })]) {
      assert(["token_invalid", "unavailable"].includes(await outcome(verify, await signer.token({ kid: "broken" }))));
      assertEquals(await outcome(verify, await RSA.token()), "user_1");
    }
  });
}

Deno.test("jwks: a key of fewer than 2,048 bits in the set checks nothing, and a token without a kid still finds its own key behind it", async () => {
  const short = {
    ...LATER.jwk,
    kty: "RSA",
    kid: "short",
    alg: "RS256",
    n: String(RSA.jwk.n).slice(0, 170),
    e: "AQAB",
    crv: undefined,
    x: undefined,
    y: undefined,
  };
  const set = JSON.parse(JSON.stringify({ keys: [short, RSA.jwk] }));
  const verify = check({ jwks: set });
  assertEquals(await outcome(verify, await RSA.token({ kid: "short" })), "token_invalid");
  assertEquals(await outcome(verify, await RSA.token()), "user_1");
  assertEquals(await outcome(verify, await RSA.token({ kid: undefined })), "user_1");
});

// Rotation.

Deno.test("jwks: a new key is taken within five seconds of its first token, the old one goes on until it is taken out and forgotten", async () => {
  await using world = new World();
  await using server = new KeyServer(() => Response.json(setOf(RSA)));
  const verify = remote(server);
  assertEquals(await outcome(verify, await RSA.token()), "user_1");
  server.answer = () => Response.json(setOf(RSA, LATER));
  // Asked a moment ago: not again so soon.
  world.pass(4000);
  assertEquals([await outcome(verify, await LATER.token()), server.asked.length], ["token_invalid", 1]);
  world.pass(1001);
  assertEquals([await outcome(verify, await LATER.token()), server.asked.length], ["user_1", 2]);
  server.answer = () => Response.json(setOf(LATER));
  // Nobody asks as long as the keys are known; after five minutes they are asked for again.
  world.pass(299_000);
  assertEquals([await outcome(verify, await RSA.token()), server.asked.length], ["user_1", 2]);
  world.pass(1001);
  assertEquals([await outcome(verify, await RSA.token()), server.asked.length], ["token_invalid", 3]);
  assertEquals([await outcome(verify, await LATER.token()), server.asked.length], ["user_1", 3]);
});

Deno.test("jwks: a key that is replaced under its own kid checks from the next fetch on, and the old one no more", async () => {
  await using world = new World();
  const next = await Key.make("ec", "ES256");
  await using server = new KeyServer(() => Response.json(setOf(EC)));
  const verify = remote(server);
  assertEquals(await outcome(verify, await EC.token()), "user_1");
  server.answer = () => Response.json(setOf(next));
  world.pass(300_001);
  assertEquals([await outcome(verify, await EC.token()), await outcome(verify, await next.token())], ["token_invalid", "user_1"]);
});

Deno.test("jwks: a flood of kids that nobody knows asks the key server once in five seconds, and costs those who are known nothing", async () => {
  await using world = new World();
  await using server = new KeyServer();
  const verify = remote(server);
  const good = await RSA.token();
  assertEquals(await outcome(verify, good), "user_1");
  for (let round = 1; round <= 3; round++) {
    world.pass(5001);
    const tokens = await Promise.all(Array.from({ length: 50 }, (_, index) => LATER.token({ kid: `${round}.${index}` })));
    // Half at once, half one after another.
    assertEquals(new Set(await Promise.all(tokens.slice(0, 25).map((token) => outcome(verify, token)))), new Set(["token_invalid"]));
    for (const token of tokens.slice(25)) assertEquals(await outcome(verify, token), "token_invalid");
    assertEquals([await outcome(verify, good), server.asked.length], ["user_1", 1 + round]);
  }
});

for (const [way, ms] of [["forwards", 3_600_000], ["backwards", -3_600_000]] as const) {
  Deno.test(`jwks: when the clock jumps an hour ${way}, a new key is taken five seconds later all the same`, async () => {
    await using world = new World();
    await using server = new KeyServer(() => Response.json(setOf(RSA)));
    const verify = remote(server);
    assertEquals(await outcome(verify, await RSA.token()), "user_1");
    world.jump(ms);
    server.answer = () => Response.json(setOf(RSA, LATER));
    world.pass(10_000);
    assertEquals([await outcome(verify, await LATER.token()), await outcome(verify, await RSA.token())], ["user_1", "user_1"]);
  });

  Deno.test(`jwks: when the clock jumps an hour ${way}, a key that was taken out is refused five minutes later all the same`, async () => {
    await using world = new World();
    await using server = new KeyServer(() => Response.json(setOf(RSA)));
    const verify = remote(server);
    assertEquals(await outcome(verify, await RSA.token()), "user_1");
    world.jump(ms);
    server.answer = () => Response.json(setOf(LATER));
    world.pass(310_000);
    assertEquals(await outcome(verify, await RSA.token()), "token_invalid");
  });
}

// A key server in trouble.

const TROUBLE: [what: string, answer: () => Response][] = [
  ...[204, 304, 400, 401, 404, 500, 503].map((status): [string, () => Response] => [`status ${status}`, () => new Response(null, { status })]),
  ["status 500 with a good set", () => Response.json(ALL, { status: 500 })],
  ["an empty body", () => new Response("")],
  ["a page", () => new Response("<!doctype html><title>Sign in</title>", { headers: { "content-type": "text/html" } })],
  ["half a set", () => new Response(JSON.stringify(ALL).slice(0, -20))],
  ["bytes", () => new Response(crypto.getRandomValues(new Uint8Array(60_000)))],
  ...[
    "null",
    "[]",
    '"keys"',
    "{}",
    '{"keys":null}',
    '{"keys":{}}',
    '{"keys":"x"}',
    '{"keys":[null]}',
    '{"keys":[1]}',
    '{"keys":[[]]}',
    '{"__proto__":{"keys":[]}}',
  ]
    .map((text): [string, () => Response] => [text, () => new Response(text)]),
  ["200,000 open brackets", () => new Response("[".repeat(200_000))],
];

for (const [what, answer] of TROUBLE) {
  Deno.test(`jwks: ${what} instead of keys is unavailable, not the token's fault; known keys go on, and all is well when it is well`, async () => {
    await using world = new World();
    await using server = new KeyServer(answer);
    const verify = remote(server);
    const [good, bad] = [await RSA.token(), await THIEF.token({ kid: "rsa" })];
    // Nothing is known yet, so nothing is said of either.
    assertEquals([await outcome(verify, good), await outcome(verify, bad)], ["unavailable", "unavailable"]);
    server.answer = () => Response.json(ALL);
    // A failure is not remembered: the next one asks again.
    assertEquals([await outcome(verify, good), await outcome(verify, bad)], ["user_1", "token_invalid"]);
    server.answer = answer;
    world.pass(10_000);
    assertEquals([await outcome(verify, good), await outcome(verify, bad), await outcome(verify, await LATER.token())], [
      "user_1",
      "token_invalid",
      "unavailable",
    ]);
    // Keys that are too old are not trusted because new ones cannot be had.
    world.pass(300_000);
    assertEquals(await outcome(verify, good), "unavailable");
    server.answer = () => Response.json(ALL);
    assertEquals(await outcome(verify, good), "user_1");
    assertEquals(new Set(world.fetched), new Set([server.url]));
  });
}

Deno.test("jwks: an empty set has no key for anybody; that is an answer", async () => {
  await using _world = new World();
  await using server = new KeyServer(() => Response.json({ keys: [] }));
  assertEquals(await outcome(remote(server), await RSA.token()), "token_invalid");
});

Deno.test("jwks: nobody at the address is unavailable, and somebody there later is asked", async () => {
  await using _world = new World();
  const gone = new KeyServer();
  const verify = remote(gone);
  await gone.stop();
  assertEquals(await outcome(verify, await RSA.token()), "unavailable");
  await using _back = new KeyServer(undefined, gone.port);
  assertEquals(await outcome(verify, await RSA.token()), "user_1");
});

for (const [what, started] of [["never answers", false], ["begins to answer and stops", true]] as const) {
  Deno.test(`jwks: a key server that ${what} is waited for, by all together, five seconds at most`, async () => {
    await using world = new World(100);
    const release = Promise.withResolvers<void>();
    await using server = new KeyServer(async () => {
      if (!started) await release.promise;
      const body = new ReadableStream({
        async start(controller) {
          controller.enqueue(bytes.encode('{"keys":'));
          await release.promise;
          controller.close();
        },
      });
      return started ? new Response(body) : Response.json(ALL);
    });
    const verify = remote(server);
    const good = await RSA.token();
    assertEquals(await Promise.all(Array.from({ length: 20 }, () => outcome(verify, good))), Array(20).fill("unavailable"));
    assertEquals([world.timeouts, world.fetched.length], [[5000], 1]);
    release.resolve();
    server.answer = () => Response.json(ALL);
    assertEquals(await outcome(verify, good), "user_1");
  });
}

Deno.test("jwks: a slow answer that comes in time is taken", async () => {
  await using _world = new World();
  await using server = new KeyServer(async () => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    return Response.json(ALL);
  });
  assertEquals(await outcome(remote(server), await EC.token()), "user_1");
});

Deno.test("jwks: a set of 500 keys and 500 KB is read; an answer without end is not read to its end", async () => {
  await using _world = new World(3000);
  const keys = Array.from({ length: 500 }, (_, index) => ({ ...EC.jwk, kid: `key ${index}`, note: "x".repeat(800) }));
  await using server = new KeyServer(() => Response.json({ keys: [...keys, RSA.jwk] }));
  assertEquals(await outcome(remote(server), await RSA.token()), "user_1");
  assertEquals(await outcome(remote(server), await EC.token({ kid: "key 499" })), "user_1");
  const chunk = bytes.encode(" ".repeat(65_536));
  let sent = 0;
  server.answer = () =>
    new Response(
      new ReadableStream({
        // 64 MB, then nothing more: enough to tell whether somebody counts.
        pull(controller) {
          if (sent >= 64 << 20) return controller.close();
          sent += chunk.length;
          controller.enqueue(chunk);
        },
      }),
    );
  assertEquals(await outcome(remote(server), await RSA.token()), "unavailable");
  assertLess(sent, 16 << 20);
});

for (const status of [301, 302, 303, 307, 308]) {
  Deno.test(`jwks: a redirect with ${status} is not followed, to another host or to the same`, async () => {
    await using world = new World();
    await using trap = new KeyServer(() => Response.json(setOf(THIEF, RSA)));
    await using server = new KeyServer();
    const verify = remote(server);
    for (
      const location of [
        trap.url,
        trap.url.replace("127.0.0.1", "localhost"),
        "/other.json",
        `//127.0.0.1:${trap.port}/x`,
        "file:///etc/passwd",
        "data:application/json,{}",
      ]
    ) {
      server.answer = () => new Response(null, { status, headers: { location } });
      for (const key of [RSA, THIEF]) assertEquals(await outcome(verify, await key.token()), "unavailable");
    }
    assertEquals([trap.asked, new Set(world.fetched), new Set(server.asked)], [[], new Set([server.url]), new Set(["/jwks.json"])]);
  });
}

// What a token would like to be believed.

/** Headers that name a key of their own, or that ask for something to be understood. `trap`: an address. */
const TRICKS = (trap: string): [what: string, header: Json][] => [
  ["jku", { jku: trap }],
  ["jku and a kid of the set", { jku: trap, kid: "rsa" }],
  ["jku and no kid", { jku: trap, kid: undefined }],
  ["jku of a file", { jku: "file:///etc/passwd" }],
  ["x5u", { x5u: trap, x5t: "AAAA", "x5t#S256": "AAAA" }],
  ["x5c", { x5c: [THIEF.pem.replaceAll(/-----.*-----|\s/g, "")] }],
  ["x5c and a kid of the set", { x5c: [THIEF.pem.replaceAll(/-----.*-----|\s/g, "")], kid: "rsa" }],
  ["jwk", { jwk: THIEF.jwk }],
  ["jwk and a kid of the set", { jwk: { ...THIEF.jwk, kid: "rsa" }, kid: "rsa" }],
  ["jwk and no kid", { jwk: THIEF.jwk, kid: undefined }],
  ["jwk with a private key", { jwk: THIEF.own }],
  ["iss and jwks_uri", { iss: trap, jwks_uri: trap, kid: undefined }],
  ["a kid that is an address", { kid: trap }],
  ["a kid with a way through the file system", { kid: "../../../../../../dev/null" }],
  ["a kid that is a file", { kid: "file:///proc/self/environ" }],
  ["a kid in SQL", { kid: "x' union select 'rsa' --" }],
  ["a kid for a shell", { kid: "| id; $(id) `id`" }],
  ["a kid in a template", { kid: "${trap} {{7*7}} %s%n" }],
  ["a kid with NUL", { kid: "rsa\0" }],
  ["a kid of another case", { kid: "RSA" }],
  ["a kid with a blank", { kid: " rsa" }],
  ["kid __proto__", { kid: "__proto__" }],
  ["kid constructor", { kid: "constructor" }],
  ["kid *", { kid: "*" }],
  ["an empty kid", { kid: "" }],
  ["a kid of 5 KB", { kid: "k".repeat(5000) }],
  ["a kid of 10 KB", { kid: "k".repeat(10_240) }],
  ["a numeric kid", { kid: 0 }],
  ["kid null", { kid: null }],
  ["a kid that is a list", { kid: ["rsa"] }],
  ["a kid that is an object", { kid: { toString: "rsa" } }],
  ["an unknown crit", { crit: ["exp"], exp: 1 }],
  ["crit jku", { crit: ["jku"], jku: trap }],
  ["crit without its header", { crit: ["x"] }],
  ["an empty crit", { crit: [] }],
  ["crit that is text", { crit: "b64" }],
  ["b64 false", { b64: false, crit: ["b64"] }],
  ["zip", { zip: "DEF" }],
  ["a nested token's cty", { cty: "JWT", jku: trap }],
];

/** The three ways to be configured, each with what signs for it. The key server stands for the first one only. */
const WAYS = (server: KeyServer): [what: string, verify: Verify][] => [
  ["a key server", remote(server)],
  ["a key file", check({ jwks: ALL })],
  ["a secret", check({ secret: bytes.encode("a secret of the tests, at least 32 bytes") })],
];

Deno.test("jwks: what a token's header says of keys is not believed: no address in it is asked, no key in it is used", async (t) => {
  await using world = new World();
  await using trap = new KeyServer(() => Response.json(setOf(THIEF, { ...THIEF.jwk, kid: "rsa" })));
  await using server = new KeyServer();
  for (const [way, verify] of WAYS(server)) {
    for (const [what, header] of TRICKS(trap.url)) {
      await t.step(`jwks: over ${way}, a stranger's token with ${what} is token_invalid`, async () => {
        // Whoever asks for keys that are not known makes the set be fetched: that alone.
        world.pass(6000);
        assertEquals(await outcome(verify, await THIEF.literal(JSON.stringify({ alg: "RS256", kid: "thief", ...header }))), "token_invalid");
        assertEquals(trap.asked, []);
      });
    }
  }
  await t.step("jwks: the one address that was asked is the one that is configured", () => {
    assertEquals([new Set(world.fetched), new Set(server.asked)], [new Set([server.url]), new Set(["/jwks.json"])]);
  });
});

Deno.test("jwks: a good signature does not make such a header good: addresses and keys in it are ignored, crit and odd kids refused", async () => {
  await using world = new World();
  await using trap = new KeyServer(() => Response.json(setOf(THIEF)));
  await using server = new KeyServer();
  const ignored = new Set(["jku and a kid of the set", "x5c and a kid of the set", "jwk and a kid of the set", "zip"]);
  for (const [way, verify] of WAYS(server).slice(0, 2)) {
    for (const [what, header] of TRICKS(trap.url)) {
      const token = await RSA.literal(JSON.stringify({ alg: "RS256", kid: "rsa", ...header }));
      // Of those with the set's own kid (or none), only what a header may not say is refused.
      const fine = ignored.has(what) || (!header.crit && (!("kid" in header) || header.kid === undefined));
      assertEquals(await outcome(verify, token), fine ? "user_1" : "token_invalid", `${way}: ${what}`);
    }
    // An unencoded payload, signed as RFC 7797 says, and as if it were encoded.
    for (const body of [JSON.stringify(CLAIMS), base64url(CLAIMS)]) {
      for (const crit of [["b64"], undefined]) {
        const token = await RSA.literal(JSON.stringify({ alg: "RS256", kid: "rsa", b64: false, crit }), body);
        const expected = crit === undefined && body === base64url(CLAIMS) ? ["user_1", "token_invalid"] : ["token_invalid"];
        assert(expected.includes(await outcome(verify, token)), `${way}: ${body.slice(0, 10)} ${crit}`);
      }
    }
    // The same names twice: whichever is read, the signature is the set's.
    for (
      const header of [
        '{"alg":"none","alg":"RS256","kid":"x","kid":"rsa"}',
        '{"alg":"RS256","kid":"rsa","alg":"none"}',
        '{"kid":"rsa","alg":"RS256","kid":"thief"}',
      ]
    ) {
      const told = await outcome(verify, await THIEF.literal(header));
      assertEquals(told, "token_invalid", header);
    }
  }
  assertEquals([trap.asked, new Set(world.fetched)], [[], new Set([server.url])]);
});

Deno.test("jwks: alg none, in any spelling and with a kid of the set, is refused over keys as over a secret", async () => {
  await using _world = new World();
  await using server = new KeyServer();
  const [, body, signature] = (await RSA.token()).split(".");
  for (const [way, verify] of WAYS(server)) {
    for (const alg of ["none", "None", "NONE", "", null, undefined, "RS256 ", "rs256", "RSA", "dir", "__proto__"]) {
      for (const end of ["", signature]) {
        assertEquals(await outcome(verify, `${base64url({ alg, kid: "rsa" })}.${body}.${end}`), "token_invalid", `${way}: ${alg}`);
      }
    }
  }
});

Deno.test("jwks: issuer and audience count with keys too", async () => {
  await using _world = new World();
  await using server = new KeyServer();
  const verify = remote(server, { issuer: "https://id.example.com", audience: "caseroom" });
  const ask = async (claims: Json) => await outcome(verify, await EC.token({}, { ...CLAIMS, ...claims }));
  assertEquals(await ask({ iss: "https://id.example.com", aud: ["x", "caseroom"] }), "user_1");
  for (
    const claims of [{}, { iss: "https://id.example.com" }, { aud: "caseroom" }, { iss: "https://id.example.com/", aud: "caseroom" }, {
      iss: ["https://id.example.com"],
      aud: "caseroom",
    }]
  ) {
    assertEquals(await ask(claims), "token_invalid");
  }
});

// AUTH_JWKS_FILE.

const configured = (env: Record<string, string>) => verifier(tokenConfig(readConfig({ DATA_DIR: "/nowhere", ...env })));

Deno.test("jwks: AUTH_JWKS_FILE: its keys check tokens; a file without one that could is said at the start", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-jwks-" });
  const file = `${dir}/keys.json`;
  const starts = (text: string) => {
    Deno.writeTextFileSync(file, text);
    return configured({ AUTH_JWKS_FILE: file });
  };
  try {
    const verify = starts(JSON.stringify(setOf(RSA, EC, ED, { kty: "oct", k: "AAAA", kid: "oct" })));
    for (const key of [RSA, EC, ED]) assertEquals(await outcome(verify, await key.token()), "user_1");
    assertEquals(await outcome(verify, await LATER.token()), "token_invalid");
    // What is in the file later is read at the next start.
    Deno.writeTextFileSync(file, JSON.stringify(setOf(LATER)));
    assertEquals([await outcome(verify, await RSA.token()), await outcome(verify, await LATER.token())], ["user_1", "token_invalid"]);
    assertEquals(await outcome(configured({ AUTH_JWKS_FILE: file }), await LATER.token()), "user_1");
    for (
      const text of [
        "",
        "null",
        "[]",
        "{",
        "{}",
        '{"keys":{}}',
        '{"keys":[]}',
        '{"keys":[null]}',
        '{"keys":[1]}',
        '{"keys":[{}]}',
        JSON.stringify(setOf({ kty: "oct", k: "AAAA" })),
      ]
    ) {
      const error = assertThrows(() => starts(text), TypeError);
      assert(error.message.includes("AUTH_JWKS_FILE"), text);
    }
    assertThrows(() => configured({ AUTH_JWKS_FILE: `${dir}/none.json` }), TypeError, "AUTH_JWKS_FILE");
    assertThrows(() => configured({ AUTH_JWKS_FILE: dir }), TypeError, "AUTH_JWKS_FILE");
    // One that is no key, among good ones, and a file whose keys nobody may have put there.
    assertEquals(await outcome(starts(JSON.stringify({ keys: [...ALL.keys, { kty: "RSA" }] })), await RSA.token()), "user_1");
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});

Deno.test("jwks: AUTH_JWKS_FILE with a private key is said at the start: no token would pass, and the key lies about", () => {
  const file = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(file, JSON.stringify({ keys: [RSA.own] }));
    assertThrows(() => configured({ AUTH_JWKS_FILE: file }), TypeError, "AUTH_JWKS_FILE");
  } finally {
    Deno.removeSync(file);
  }
});

// A server process.

Deno.test("jwks: a process with AUTH_JWKS_URL", async (t) => {
  await using trap = new KeyServer(() => Response.json(setOf(THIEF)));
  let server = new KeyServer(() => Response.json(setOf(RSA, EC)));
  await using at = await Outside.start({ AUTH_SECRET: "", AUTH_JWKS_URL: server.url });
  const made: string[] = [];
  const note = async (token: Promise<string>) => {
    made.push(await token);
    return await token;
  };
  const open = async (token: Promise<string>): Promise<[number, string]> => {
    try {
      await (await RawClient.open(at.url(await note(token)))).close();
      return [101, ""];
    } catch (error) {
      assert(error instanceof HttpRefusal, String(error));
      return [error.status, error.reason];
    }
  };
  const post = async (token: Promise<string>) => {
    const { status, body } = await at.post("/api/users/nobody/disconnect", "", await note(token));
    return [status, body.reason ?? "ok"];
  };
  const service = (key: Key) => key.token({}, { ...CLAIMS, role: "service" });
  let fetchedAt = 0;

  await t.step("jwks: nothing is fetched before the first token; all ways in take keys of every kind, with one fetch", async () => {
    assertEquals(server.asked, []);
    assertEquals(await open(RSA.token()), [101, ""]);
    fetchedAt = performance.now();
    assertEquals([await open(EC.token()), await post(service(EC))], [[101, ""], [200, "ok"]]);
    await using client = await at.connect(null);
    const reply = await client.ask([null, "1", "auth", "authenticate", { token: await note(EC.token()) }]);
    assertEquals([reply[4].status, server.asked], ["ok", ["/jwks.json"]]);
  });

  await t.step("jwks: strangers' tokens are refused by every way, and the trap in them is not asked", async () => {
    for (const [what, header] of TRICKS(trap.url)) {
      const token = () => THIEF.literal(JSON.stringify({ alg: "RS256", kid: "thief", ...header }));
      assertEquals([await open(token()), await post(token())], [[403, "token_invalid"], [401, "token_invalid"]], what);
    }
    const client = await at.connect(null);
    const reply = await client.ask([null, "1", "auth", "authenticate", { token: await note(THIEF.token({ jku: trap.url, jwk: THIEF.jwk })) }]);
    assertEquals([reply[4].response.reason, (await client.closed).code], ["token_invalid", 4002]);
    assertEquals(trap.asked, []);
  });

  await t.step("jwks: with the key server gone, those who are known go on, and others are 503 unavailable once it was asked for them", async () => {
    await server.stop();
    await using member = await at.connect(null);
    await member.ask([null, "1", "auth", "authenticate", { token: await note(EC.token()) }]);
    // Keys that are not known are asked for again five seconds after the last fetch.
    let told: [number, string] = [403, "token_invalid"];
    while (told[0] === 403 && performance.now() - fetchedAt < 15_000) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      told = await open(LATER.token());
    }
    assertEquals([told, await post(service(LATER))], [[503, "unavailable"], [503, "unavailable"]]);
    assertEquals([await open(EC.token()), await post(service(EC))], [[101, ""], [200, "ok"]]);
    assertEquals((await member.ask(["1", "1", "case:1", "phx_join", {}]))[4].status, "ok");
    await member.heard();
  });

  await t.step("jwks: once it is back, with other keys, the new one is taken at once and the old one refused", async () => {
    server = new KeyServer(() => Response.json(setOf(EC, LATER)), server.port);
    assertEquals([await open(LATER.token()), await post(service(LATER))], [[101, ""], [200, "ok"]]);
    assertEquals([await open(RSA.token()), await post(service(RSA))], [[403, "token_invalid"], [401, "token_invalid"]]);
    assertEquals([await open(EC.token()), server.asked], [[101, ""], ["/jwks.json"]]);
  });

  await t.step("jwks: afterwards no error was reported, no token written, and nobody but the key server asked", async () => {
    assertEquals(await at.server.stop(), 0);
    const output = at.server.output();
    assertEquals(output.includes('"level":"error"'), false, output);
    assertEquals(made.filter((token) => output.includes(token) || output.includes(token.slice(-40))), []);
    assertEquals(trap.asked, []);
  });
  await server.stop();
});

Deno.test("jwks: a token is refused by a process with AUTH_JWKS_FILE as by one with an address, and its trap is not asked", async () => {
  const file = Deno.makeTempFileSync();
  Deno.writeTextFileSync(file, JSON.stringify(ALL));
  await using trap = new KeyServer(() => Response.json(setOf(THIEF)));
  await using at = await Outside.start({ AUTH_SECRET: "", AUTH_JWKS_FILE: file });
  for (const key of [RSA, EC, ED]) await (await RawClient.open(at.url(await key.token()))).close();
  for (const [, header] of TRICKS(trap.url)) {
    const token = await THIEF.literal(JSON.stringify({ alg: "RS256", kid: "thief", ...header }));
    const refusal = await assertRejects(() => RawClient.open(at.url(token)), HttpRefusal);
    assertEquals([refusal.status, refusal.reason], [403, "token_invalid"]);
  }
  assertEquals(trap.asked, []);
  assertEquals(await at.server.stop(), 0);
  assertEquals(at.server.output().includes('"level":"error"'), false);
  Deno.removeSync(file);
});

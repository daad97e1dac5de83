import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { readConfig } from "../rooms/config.ts";
import { isDevelopment, signingSecret, tokenConfig } from "../rooms/hosts/deno_secret.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";

const SECRET = "0123456789abcdef0123456789abcdef";
const wrong = (environment: Record<string, string | undefined>) => assertThrows(() => readConfig(environment), TypeError).message;

Deno.test("config: the defaults are those of the design (§8)", () => {
  const config = readConfig({});
  const { PORT, HOST, DATA_DIR, ALLOWED_ORIGINS, TRUST_PROXY, PRESENCE_GRACE_MS, limits } = config;
  assertEquals({ PORT, HOST, DATA_DIR, ALLOWED_ORIGINS, TRUST_PROXY, PRESENCE_GRACE_MS, limits }, {
    PORT: 4000,
    HOST: "127.0.0.1",
    DATA_DIR: "./data",
    ALLOWED_ORIGINS: [],
    TRUST_PROXY: false,
    PRESENCE_GRACE_MS: 5000,
    limits: DEFAULT_LIMITS,
  });
  // Empty is unset, as compose files write it; other variables are not ours.
  assertEquals(readConfig({ PORT: "", AUTH_SECRET: "", PATH: "/bin", LIMIT_IDLE_MS: "" }), config);
});

Deno.test("config: what is set is read", () => {
  const config = readConfig({
    PORT: "0",
    HOST: "0.0.0.0",
    AUTH_SECRET: SECRET,
    ALLOWED_ORIGINS: "https://a.example.com, https://*.example.com,",
    TRUST_PROXY: "1",
    LIMIT_IDLE_MS: "5",
  });
  assertEquals([config.PORT, config.ALLOWED_ORIGINS, config.TRUST_PROXY, config.limits], [0, ["https://a.example.com", "https://*.example.com"], true, {
    ...DEFAULT_LIMITS,
    idle_ms: 5,
  }]);
});

Deno.test("config: each wrong setting is refused by its name, and no value is repeated", () => {
  const table: Record<string, string[]> = {
    PORT: ["x", "-1", "65536", "1.5"],
    AUTH_SECRET: ["short", "é".repeat(15)],
    AUTH_JWKS_URL: ["nowhere", "file:///etc/passwd", "ftp://x.example.com/"],
    ALLOWED_ORIGINS: ["*", "example.com", "https://example.com/path", "https://a.*.com", "javascript:x", "https://a.example.com,*"],
    TRUST_PROXY: ["yes", "true", "2"],
    PRESENCE_GRACE_MS: ["-1", "x", "1.5"],
    LIMIT_IDLE_MS: ["0", "x"],
    LIMIT_NOPE: ["1"],
    LIMIT___PROTO__: ["1"],
  };
  for (const [name, values] of Object.entries(table)) {
    for (const value of values) {
      const message = wrong({ [name]: value });
      assertStringIncludes(message, `${name}`, `${name}=${value}`);
      if (name === "AUTH_SECRET") assertEquals(message.includes(value), false);
    }
  }
});

Deno.test("config: all that is wrong is said at once", () => {
  const message = wrong({ PORT: "x", PRESENCE_GRACE_MS: "x", LIMIT_NOPE: "1", AUTH_SECRET: "short" });
  for (const name of ["PORT", "PRESENCE_GRACE_MS", "LIMIT_NOPE", "AUTH_SECRET"]) assertStringIncludes(message, `${name}: `);
});

Deno.test("config: all at once, also when one setting is wrong and two do not go together", () => {
  const message = wrong({ PORT: "x", AUTH_SECRET: SECRET, AUTH_JWKS_FILE: "keys.json" });
  for (const name of ["PORT: ", "AUTH_SECRET and AUTH_JWKS_FILE"]) assertStringIncludes(message, name);
  const open = wrong({ PORT: "x", HOST: "0.0.0.0" });
  for (const name of ["PORT: ", "HOST: "]) assertStringIncludes(open, name);
});

Deno.test("config: a secret or a key set, never both", () => {
  const url = "https://keys.example.com/jwks";
  for (const two of [{ AUTH_SECRET: SECRET, AUTH_JWKS_URL: url }, { AUTH_SECRET: SECRET, AUTH_JWKS_FILE: "x" }, { AUTH_JWKS_URL: url, AUTH_JWKS_FILE: "x" }]) {
    assertStringIncludes(wrong(two), "set one of");
  }
  for (const one of [{ AUTH_SECRET: SECRET }, { AUTH_JWKS_URL: url }, { AUTH_JWKS_FILE: "x" }]) readConfig({ ...one, HOST: "0.0.0.0" });
});

Deno.test("config: without authentication only this machine is served", () => {
  for (const HOST of ["0.0.0.0", "::", "192.168.1.1", "example.com", "127.0.0.1.example.com", "localhost.example.com"]) {
    assertStringIncludes(wrong({ HOST }), "HOST");
  }
  for (const HOST of ["127.0.0.1", "localhost", "::1"]) readConfig({ HOST });
});

Deno.test("config: a time that no timer can wait for is refused", () => {
  for (const value of ["2147483648", "1e300"]) assertStringIncludes(wrong({ PRESENCE_GRACE_MS: value }), "PRESENCE_GRACE_MS");
});

Deno.test("config: in development a secret is made once, readable by its owner only; a key set cannot sign", () => {
  const dir = Deno.makeTempDirSync();
  const config = readConfig({ DATA_DIR: `${dir}/deep/data` });
  assertEquals(isDevelopment(config), true);
  const secret = signingSecret(config);
  assertEquals([secret.length >= 32, signingSecret(config)], [true, secret]);
  assertEquals(tokenConfig(config).secret, secret);
  assertEquals((Deno.statSync(`${dir}/deep/data/development.secret`).mode ?? 0) & 0o777, 0o600);
  const other = signingSecret(readConfig({ DATA_DIR: `${dir}/other` }));
  assertEquals(new TextDecoder().decode(other) === new TextDecoder().decode(secret), false);
  assertEquals(isDevelopment(readConfig({ AUTH_SECRET: SECRET })), false);
  assertEquals(new TextDecoder().decode(signingSecret(readConfig({ AUTH_SECRET: SECRET }))), SECRET);
  assertThrows(() => signingSecret(readConfig({ AUTH_JWKS_FILE: "x" })), TypeError, "Cannot sign");
  Deno.removeSync(dir, { recursive: true });
});

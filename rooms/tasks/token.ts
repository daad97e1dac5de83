/** `deno task token`: signs a token with the server's own secret, for development and back ends of one's own. */
import { parseArgs } from "node:util";
import { Claims, sign } from "../token.ts";
import { readConfig } from "../config.ts";
import { isDevelopment, signingSecret } from "../hosts/deno_secret.ts";

const USAGE = `deno task token --sub user_1 [--name "User One"] [--role attorney] [--cases case_1,case_2 | --cases '*'] [--ttl 30m]
  role: admin, attorney, paralegal, client, viewer or service    ttl: a number with s, m, h or d`;

const UNITS = { s: 1, m: 60, h: 3600, d: 86_400 } as const;

function seconds(ttl: string): number {
  const parsed = /^(\d+)([smhd])$/.exec(ttl);
  if (!parsed || Number(parsed[1]) === 0) throw new TypeError(`Cannot read --ttl ${ttl}`);
  return Number(parsed[1]) * UNITS[parsed[2] as keyof typeof UNITS];
}

try {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      sub: { type: "string" },
      name: { type: "string" },
      role: { type: "string", default: "attorney" },
      cases: { type: "string", default: "" },
      ttl: { type: "string", default: "30m" },
    },
  });
  const config = readConfig(Deno.env.toObject());
  const ttl = seconds(values.ttl);
  const case_ids = values.cases === "*" ? "*" : values.cases.split(",").filter(Boolean);
  const claims = Claims.safeParse({ sub: values.sub, name: values.name, role: values.role, case_ids, exp: ttl });
  if (!claims.success) {
    const [{ path, message }] = claims.error.issues;
    throw new TypeError(`Cannot read --${path[0] === "case_ids" ? "cases" : String(path[0])}: ${message}`);
  }
  const { sub, name, role } = claims.data;
  const user = { id: sub, name: name ?? sub, role, cases: claims.data.case_ids };
  if (isDevelopment(config)) console.error(`Signed with the secret of ${config.DATA_DIR}: good for a server on that folder only.`);
  console.log(await sign(signingSecret(config), user, ttl, Date.now(), { issuer: config.AUTH_ISSUER, audience: config.AUTH_AUDIENCE }));
} catch (error) {
  console.error(`${error instanceof Error ? error.message : error}\n${USAGE}`);
  Deno.exit(2);
}

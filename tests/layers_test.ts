/**
 * The layers of the design (§3) as a list, lowest first: a file knows what stands below it, and its neighbours of the same
 * line. The imports are read off the tree, so a new file must be given its place here.
 */
import { assert, assertEquals } from "@std/assert";

const LAYERS: readonly (readonly string[])[] = [
  ["protocol/reason.ts", "protocol/frame.ts", "protocol/presence.ts", "protocol/text.ts", "protocol/html.ts"],
  ["protocol/contract.ts"],
  ["protocol/channels/"],
  ["protocol/asyncapi.ts"],
  ["protocol/client/"],
  ["rooms/host.ts"],
  ["rooms/limits.ts", "rooms/token.ts", "rooms/sql.ts", "rooms/log.ts", "rooms/seam.ts", "rooms/budget.ts", "rooms/metrics.ts"],
  ["rooms/config.ts"],
  ["rooms/room.ts", "rooms/storage.ts", "rooms/socket.ts"],
  ["rooms/topic.ts", "rooms/gate.ts"],
  ["rooms/slow.ts", "rooms/streams.ts", "rooms/turn.ts", "rooms/pace.ts", "rooms/recovery.ts"],
  ["rooms/intake.ts", "rooms/reading.ts", "rooms/publication.ts", "rooms/turns.ts"],
  ["rooms/membership.ts"],
  ["rooms/affairs.ts"],
  ["rooms/actor.ts"],
  ["rooms/registry.ts", "rooms/delivery.ts", "rooms/serving.ts"],
  ["rooms/gateway.ts"],
  ["rooms/documents/"],
  ["rooms/channels/"],
  ["rooms/http/"],
  ["rooms/house.ts"],
  ["rooms/hosts/"],
  ["rooms/tasks/"],
  ["main.ts"],
];

/** Places where a runtime may be spoken to. */
const OF_A_RUNTIME = /^(rooms\/hosts\/|rooms\/tasks\/|rooms\/documents\/(tasks|search_index)\.ts$|main\.ts$)/;

interface Source {
  readonly path: string;
  readonly text: string;
  /** Paths of the tree, and names of packages. */
  readonly inner: string[];
  readonly outer: string[];
}

function read(path: string): Source {
  const text = Deno.readTextFileSync(new URL(`../${path}`, import.meta.url));
  const specifiers = [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1]);
  const inner = specifiers.filter((name) => name.startsWith(".")).map((name) => new URL(name, `file:///${path}`).pathname.slice(1));
  return { path, text, inner, outer: specifiers.filter((name) => !name.startsWith(".")) };
}

function* walk(directory: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(`../${directory}`, import.meta.url))) {
    if (isDirectory) yield* walk(`${directory}${name}/`);
    else if (name.endsWith(".ts")) yield `${directory}${name}`;
  }
}

const sources = [...walk("protocol/"), ...walk("rooms/"), "main.ts"].toSorted().map(read);
const layerOf = (path: string) => LAYERS.findIndex((group) => group.some((entry) => entry === path || (entry.endsWith("/") && path.startsWith(entry))));

/** Comments and strings may speak of anything. */
const code = (text: string) => text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g, "");

Deno.test("layers: every file has its place in the list", () => {
  assertEquals(sources.filter(({ path }) => layerOf(path) < 0).map(({ path }) => path), []);
  assert(sources.length > 30);
});

Deno.test("layers: nothing is imported from above", () => {
  const upward = sources.flatMap(({ path, inner }) => inner.filter((other) => layerOf(other) > layerOf(path)).map((other) => `${path} imports ${other}`));
  assertEquals(upward, []);
});

Deno.test("layers: nobody imports in circles", () => {
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, way: readonly string[]) => {
    if (way.includes(path)) return void circles.push([...way.slice(way.indexOf(path)), path].join(" → "));
    if (done.has(path)) return;
    for (const other of sources.find((source) => source.path === path)?.inner ?? []) visit(other, [...way, path]);
    done.add(path);
  };
  for (const { path } of sources) visit(path, []);
  assertEquals(circles, []);
});

Deno.test("layers: protocol/ never imports rooms/, and no package but zod and xss (its client: phoenix)", () => {
  for (const { path, inner, outer } of sources) {
    if (!path.startsWith("protocol/")) continue;
    assertEquals(inner.filter((other) => !other.startsWith("protocol/")), [], path);
    const allowed = path.startsWith("protocol/client/") ? ["phoenix"] : ["zod", "xss"];
    assertEquals(outer.filter((name) => !allowed.includes(name)), [], path);
  }
});

Deno.test("layers: nothing but hosts/, tasks/ and main.ts speaks to Deno or Node", () => {
  for (const { path, text, outer } of sources) {
    if (OF_A_RUNTIME.test(path)) continue;
    assertEquals(outer.filter((name) => name.startsWith("node:") || name === "ws" || name.startsWith("@hono/")), [], path);
    assertEquals(/\b(?:Deno\s*\.|process\s*\.|Buffer\s*\.|globalThis\s*\.\s*Deno)/.exec(code(text))?.[0], undefined, path);
  }
});

Deno.test("layers: time, chance and timers are the host's: protocol/ and rooms/ take none by themselves", () => {
  for (const { path, text } of sources) {
    if (OF_A_RUNTIME.test(path)) continue;
    const found = /\b(?:Date\.now|Math\.random|setTimeout|setInterval|setImmediate|queueMicrotask|crypto\.\w+|performance\.now|console\.\w+)|new Date\(\)/.exec(
      code(text),
    );
    assertEquals(found?.[0], undefined, path);
  }
});

Deno.test("layers: node:sqlite is opened in two files: the store, and the index in its own process", () => {
  const openers = sources.filter(({ path, outer }) => outer.includes("node:sqlite") && !path.startsWith("rooms/tasks/")).map(({ path }) => path);
  assertEquals(openers, ["rooms/documents/search_index.ts", "rooms/hosts/deno_sql.ts"]);
});

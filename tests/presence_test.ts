import { assertEquals, assertThrows } from "@std/assert";
import { Presence, type Tracked, tracked } from "../protocol/presence.ts";

const entry = (key: string, ref: string, more: object = {}, previous?: string) => tracked(key, { name: key, ...more }, ref, previous);
const meta = (key: string, phx_ref: string, more: object = {}) => ({ name: key, ...more, phx_ref });
const parse = (json: string | null) => json === null ? null : JSON.parse(json);

Deno.test("presence: a meta carries its phx_ref, and after an update what it replaces [88, 90]", () => {
  assertEquals(tracked("u1", { online_at: "x" }, "R1"), { key: "u1", phx_ref: "R1", json: '{"online_at":"x","phx_ref":"R1"}' });
  assertEquals(parse(tracked("u1", { online_at: "x" }, "R3", "R1").json), { online_at: "x", phx_ref: "R3", phx_ref_prev: "R1" });
  // A client cannot say them itself.
  assertEquals(parse(tracked("u1", { phx_ref: "mine" }, "R1").json), { phx_ref: "R1" });
  assertThrows(() => tracked("u1", { n: 1n }, "R1"), TypeError);
});

Deno.test("presence: joins and leaves are told once, in one diff [85, 91, 94]", () => {
  const presence = new Presence();
  const [a, b] = [entry("a", "1"), entry("b", "2")];
  assertEquals(presence.diff(), null);
  presence.add(a);
  presence.add(b);
  assertEquals(parse(presence.diff()), { joins: { a: { metas: [meta("a", "1")] }, b: { metas: [meta("b", "2")] } }, leaves: {} });
  assertEquals(presence.diff(), null);
  presence.remove(a);
  assertEquals(parse(presence.diff()), { joins: {}, leaves: { a: { metas: [meta("a", "1")] } } });
  assertEquals(parse(presence.state()), { b: { metas: [meta("b", "2")] } });
});

Deno.test("presence: two metas of one key: the oldest first, the diff shows the new one only [89]", () => {
  const presence = new Presence();
  presence.add(entry("a", "1"));
  presence.diff();
  presence.add(entry("a", "2"));
  assertEquals(parse(presence.diff()).joins.a.metas, [meta("a", "2")]);
  assertEquals(parse(presence.state()).a.metas, [meta("a", "1"), meta("a", "2")]);
  presence.remove(entry("a", "1"));
  assertEquals(parse(presence.state()).a.metas, [meta("a", "2")]);
});

Deno.test("presence: an update is one diff of a join and a leave; the next leave shows its own phx_ref_prev [90]", () => {
  const presence = new Presence();
  const [one, two, three] = [entry("a", "1"), entry("a", "2", {}, "1"), entry("a", "3", {}, "2")];
  presence.add(one);
  presence.diff();
  for (const [old, fresh] of [[one, two], [two, three]]) {
    presence.remove(old);
    presence.add(fresh);
    assertEquals(parse(presence.diff()), { joins: { a: { metas: [parse(fresh.json)] } }, leaves: { a: { metas: [parse(old.json)] } } });
  }
});

Deno.test("presence: a join and a leave of one phx_ref in one diff net to nothing [94]", () => {
  const presence = new Presence();
  presence.add(entry("a", "1"));
  presence.remove(entry("a", "1"));
  assertEquals(presence.diff(), null);
  presence.add(entry("a", "2"));
  presence.diff();
  presence.remove(entry("a", "2"));
  presence.add(entry("a", "2"));
  assertEquals(presence.diff(), null);
});

Deno.test("presence: unless a state has shown the join: then both are told [111]", () => {
  const presence = new Presence();
  presence.add(entry("a", "1"));
  presence.state();
  presence.remove(entry("a", "1"));
  const metas = { a: { metas: [meta("a", "1")] } };
  assertEquals(parse(presence.diff()), { joins: metas, leaves: metas });
});

Deno.test("presence: what no state has shown nets to nothing, though a state went out before [94]", () => {
  const presence = new Presence();
  presence.state();
  presence.add(entry("a", "1"));
  presence.remove(entry("a", "1"));
  assertEquals(presence.diff(), null);
  // A state of long ago, with nothing to tell since.
  presence.state();
  presence.diff();
  presence.add(entry("a", "2"));
  presence.remove(entry("a", "2"));
  assertEquals(presence.diff(), null);
});

Deno.test("presence: what was never there is not removed; settle forgets what has changed", () => {
  const presence = new Presence();
  presence.remove(entry("a", "1"));
  presence.add(entry("a", "1"));
  presence.remove(entry("a", "other"));
  presence.remove(entry("other", "1"));
  presence.settle();
  assertEquals([presence.diff(), Object.keys(parse(presence.state()))], [null, ["a"]]);
});

Deno.test("presence: `__proto__` and `constructor` are keys like any other [95]", () => {
  const presence = new Presence();
  const keys = ["__proto__", "constructor", "toString", 'q"\u2028', "", "1"];
  keys.forEach((key, index) => presence.add(entry(key, `${index}`)));
  assertEquals(Object.keys(parse(presence.state())).sort(), keys.toSorted());
  assertEquals(Object.keys(parse(presence.diff()).joins).sort(), keys.toSorted());
  for (const [index, key] of keys.entries()) presence.remove(entry(key, `${index}`));
  assertEquals([presence.state(), ({} as { name?: string }).name], ["{}", undefined]);
});

/** What phoenix.js does with a state and diffs, by phx_ref. [110, 111] */
class Mirror {
  state = new Map<string, string[]>();
  sync(state: Record<string, { metas: { phx_ref: string }[] }>): void {
    this.state = new Map(Object.entries(state).map(([key, { metas }]) => [key, metas.map(({ phx_ref }) => phx_ref)]));
  }
  diff({ joins, leaves }: Record<"joins" | "leaves", Record<string, { metas: { phx_ref: string }[] }>>): void {
    for (const [key, { metas }] of Object.entries(joins)) {
      const fresh = metas.map(({ phx_ref }) => phx_ref);
      this.state.set(key, [...(this.state.get(key) ?? []).filter((ref) => !fresh.includes(ref)), ...fresh]);
    }
    for (const [key, { metas }] of Object.entries(leaves)) {
      const left = (this.state.get(key) ?? []).filter((ref) => !metas.some(({ phx_ref }) => phx_ref === ref));
      if (left.length > 0) this.state.set(key, left);
      else this.state.delete(key);
    }
  }
}

for (const seed of [1, 2, 3, Date.now() % 100_000]) {
  Deno.test(`presence: a client that got a state at any moment and every diff since sees who is there, seed ${seed}`, () => {
    let state = seed + 1;
    const next = (below: number) => (state = (state * 48271) % 2147483647) % below;
    const presence = new Presence();
    const here: Tracked[] = [];
    const mirrors: Mirror[] = [];
    let refs = 0;
    for (let step = 0; step < 600; step++) {
      switch (next(5)) {
        case 0:
        case 1: {
          const one = entry(`u${next(5)}`, `${++refs}`);
          here.push(one);
          presence.add(one);
          break;
        }
        case 2:
          if (here.length > 0) presence.remove(here.splice(next(here.length), 1)[0]);
          break;
        case 3: {
          if (next(10)) break;
          const mirror = new Mirror();
          mirror.sync(parse(presence.state()));
          mirrors.push(mirror);
          break;
        }
        case 4: {
          const diff = parse(presence.diff());
          if (diff) { for (const mirror of mirrors) mirror.diff(diff); }
          const expected = new Map<string, string[]>();
          for (const { key, phx_ref } of here) expected.set(key, [...expected.get(key) ?? [], phx_ref].sort());
          for (const mirror of mirrors) {
            const seen = new Map([...mirror.state].map(([key, list]) => [key, list.toSorted()]));
            assertEquals(new Map([...seen].sort()), new Map([...expected].sort()), `step ${step}`);
          }
        }
      }
    }
  });
}

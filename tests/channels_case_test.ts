import { assertEquals } from "@std/assert";
import { rooms } from "../rooms/channels/mod.ts";
import { someone, Stage } from "./support/stage.ts";

const meta = (phx_ref: string, name: string) => ({ name, status: "online", activity: "", location: "", online_at: "2026-01-01T00:00:00.000Z", phx_ref });

Deno.test("case: a join is answered, then presence_state, then the diff [R01, R02, 87]", () => {
  const stage = new Stage(rooms);
  const { ref, heard } = stage.client().join("case:case_1");
  const presence = { user_1: { metas: [meta("id1", "Name of user_1")] } };
  assertEquals(heard.map((frame) => frame[3]), ["phx_reply", "presence_state", "presence_diff"]);
  assertEquals(heard[0].slice(0, 4), [ref, ref, "case:case_1", "phx_reply"]);
  assertEquals(heard[0][4].response.case_id, "case_1");
  assertEquals(heard[1], [ref, null, "case:case_1", "presence_state", presence]);
  assertEquals(heard[2], [null, null, "case:case_1", "presence_diff", { joins: presence, leaves: {} }]);
  stage.close();
});

Deno.test("case: user:joined and user:left once per user, not per socket, and never to the user himself [C12]", () => {
  const stage = new Stage(rooms);
  const watcher = stage.client(someone("watcher"));
  watcher.join("case:case_1");
  const names = () => watcher.take().map((frame) => frame[3]).filter((event) => event.startsWith("user:"));
  const [first, second] = [stage.client(someone("user_2")), stage.client(someone("user_2"))];
  assertEquals(first.join("case:case_1").heard.filter((frame) => frame[3] === "user:joined"), []);
  second.join("case:case_1");
  assertEquals(names(), ["user:joined"]);
  first.drop(true);
  assertEquals(names(), []);
  second.drop(true);
  assertEquals(names(), ["user:left"]);
  stage.close();
});

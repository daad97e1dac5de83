/** The README is true to the letter: its tables are the code's, and its snippets run as printed. */
import { assert, assertEquals } from "@std/assert";
import { CLOSE_CODES, REASONS } from "../protocol/reason.ts";
import { SETTINGS } from "../rooms/config.ts";
import { LIMITS } from "../rooms/limits.ts";
import { RIGHTS } from "../rooms/token.ts";
import { installed, startServer, TASK } from "./support/process.ts";
import { someone } from "./support/stage.ts";

const root = new URL("..", import.meta.url);
const readme = Deno.readTextFileSync(new URL("README.md", root));

/** The cells of the table below a heading. */
function table(heading: string): string[][] {
  const after = readme.slice(readme.indexOf(`\n## ${heading}\n`));
  const lines = after.split("\n");
  const first = lines.findIndex((line) => line.startsWith("|"));
  const end = lines.findIndex((line, index) => index > first && !line.startsWith("|"));
  return lines.slice(first + 2, end).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
}

/** The n-th fenced block of a language. */
function snippet(language: string, including: string): string {
  const blocks = [...readme.matchAll(/```(\w+)\n([\s\S]*?)```/g)].filter((match) => match[1] === language).map((match) => match[2]);
  const found = blocks.find((block) => block.includes(including));
  assert(found, `the README has no ${language} snippet with ${including}`);
  return found;
}

Deno.test("readme: the table of configuration is the code's", () => {
  assertEquals(table("Configuration"), SETTINGS.map(({ name, fallback, what }) => [`\`${name}\``, fallback && `\`${fallback}\``, what]));
});

Deno.test("readme: the table of limits is the code's", () => {
  const rows = Object.entries(LIMITS).map(([name, { value, unit, what }]) => [`\`${name}\``, value.toLocaleString("en"), unit, what]);
  assertEquals(table("Limits"), rows);
});

Deno.test("readme: the table of reasons is the code's", () => {
  assertEquals(table("Reasons"), Object.entries(REASONS).map(([reason, what]) => [`\`${reason}\``, what]));
});

Deno.test("readme: the table of close codes is the code's", () => {
  assertEquals(table("Close codes"), Object.entries(CLOSE_CODES).map(([code, { meaning, reconnect }]) => [code, meaning, reconnect ? "yes" : "no"]));
});

Deno.test("readme: the table of roles is the code's", () => {
  const rights = ["read", "annotate", "code", "edit", "upload", "privilege", "moderate", "publish"] as const;
  assertEquals(table("Who may do what"), Object.entries(RIGHTS).map(([role, has]) => [role, ...rights.map((right) => has.includes(right) ? "x" : "")]));
});

Deno.test("readme: every file that the layout names is there", () => {
  const layout = readme.slice(readme.indexOf("## Layout"), readme.indexOf("### To add a channel"));
  const folders: string[] = [];
  for (const line of layout.split("\n")) {
    const indent = /^ */.exec(line)![0].length / 2;
    const names = line.trim().split(/ {2,}/)[0].split(", ").filter((name) => /^[\w/]+(\.\w+|\/)$/.test(name));
    for (const name of names) {
      const path = folders.slice(0, indent).join("") + name;
      assert(Deno.statSync(new URL(path, root)).isDirectory === name.endsWith("/"), path);
    }
    if (names[0]?.endsWith("/")) folders.splice(indent, folders.length, names[0]);
  }
});

/** Runs a program until its output has what is waited for; ends it by its pid. */
async function outputOf(command: string, args: string[], options: { cwd?: string; env?: Record<string, string> }, enough: RegExp[]): Promise<string> {
  const child = new Deno.Command(command, { args, ...options, stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
  const kill = (signal: Deno.Signal) => {
    try {
      child.kill(signal);
    } catch {
      // It ended by itself.
    }
  };
  let output = "";
  const done = () => enough.every((pattern) => pattern.test(output));
  const deadline = setTimeout(() => kill("SIGKILL"), 30_000);
  const read = async (stream: ReadableStream<Uint8Array>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      output += text;
      if (done()) kill("SIGTERM");
    }
  };
  await Promise.all([read(child.stdout), read(child.stderr), child.status]);
  clearTimeout(deadline);
  assert(done(), `${command} said: ${output}`);
  return output;
}

/** What a snippet's test works with: a server, a folder, the tokens, and a publication every so often. */
interface Desk {
  readonly cwd: string;
  readonly env: { TOKEN: string; SERVICE_TOKEN: string };
  printed(language: string, including: string): string;
  /** Publishes as the README says until the program has heard enough. */
  publishUntil(running: Promise<unknown>): Promise<void>;
}

/** A test of one snippet. Without the Debian package it needs it is skipped by name; `.ci/run` installs them all. */
function snippetTest(name: string, needs: string, body: (desk: Desk) => Promise<void>): void {
  Deno.test({ name: `readme: the ${name} snippet works as printed`, ignore: !installed(needs) }, async () => {
    await using server = await startServer({}, TASK);
    const cwd = Deno.makeTempDirSync({ prefix: "caseroom-readme-" });
    const env = {
      TOKEN: await server.token(someone("user_1", "attorney", ["case_1"])),
      SERVICE_TOKEN: await server.token(someone("backend", "service", [])),
    };
    const printed = (language: string, including: string) => snippet(language, including).replaceAll("127.0.0.1:4000", `127.0.0.1:${server.port}`);
    // Each publication under an id of its own, or it would be told once only.
    let publications = 0;
    const publishUntil = async (running: Promise<unknown>) => {
      let over = false;
      const end = () => over = true;
      running.then(end, end);
      while (!over) {
        const command = printed("sh", "curl -sS").replace("upload-1", `upload-${++publications}`);
        await outputOf("bash", ["-c", command], { env }, [/^\{"events":\[\{"cursor":"[^"]+"\}\]\}/]);
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      await running;
    };
    try {
      await body({ cwd, env, printed, publishUntil });
    } finally {
      Deno.removeSync(cwd, { recursive: true });
    }
  });
}

snippetTest("curl", "/usr/bin/curl", ({ publishUntil }) => publishUntil(Promise.resolve()));

snippetTest("Python", "/usr/lib/python3/dist-packages/websockets", async ({ cwd, env, printed, publishUntil }) => {
  Deno.writeTextFileSync(`${cwd}/join.py`, printed("python", "websockets.connect"));
  const heard = [/phx_reply .*"status": "ok"/, /presence_state/, /document:uploaded .*Lease agreement/];
  await publishUntil(outputOf("/usr/bin/python3", ["join.py"], { cwd, env }, heard));
});

async function installPhoenix(cwd: string): Promise<void> {
  await outputOf("npm", ["install", "--no-audit", "--no-fund", "phoenix@1.8.16", "ws@8.23.0"], { cwd }, [/added \d+ packages/]);
}

snippetTest("Node", "/usr/bin/curl", async ({ cwd, env, printed, publishUntil }) => {
  await installPhoenix(cwd);
  Deno.writeTextFileSync(`${cwd}/join.mjs`, printed("js", "Presence"));
  const heard = [/joined with read, annotate/, /here: Name of user_1 \(reviewing\)/, /uploaded: Lease agreement at \S+/];
  await publishUntil(outputOf("node", ["join.mjs"], { cwd, env }, heard));
});

snippetTest("recovery", "/usr/bin/curl", async ({ cwd, env, printed, publishUntil }) => {
  await installPhoenix(cwd);
  Deno.writeTextFileSync(`${cwd}/recover.mjs`, printed("js", "since"));
  await publishUntil(outputOf("node", ["recover.mjs"], { cwd, env }, [/starting at \S+ with \d+ documents/, /document:uploaded [0-9a-z]+-[0-9a-f]+/]));
});

snippetTest("record", "/usr/bin/curl", async ({ env, printed, publishUntil }) => {
  await publishUntil(Promise.resolve());
  const entry = /"events":\[\{"cursor":"[^"]+","at":"[^"]+","user":"backend","event":"document:uploaded","payload":\{"document":/;
  await outputOf("bash", ["-c", printed("sh", "/log?limit")], { env }, [entry, /"next":(?:null|"[^"]+")\}/]);
});

snippetTest("documents", "/usr/bin/curl", async ({ cwd, env, printed }) => {
  await installPhoenix(cwd);
  Deno.writeTextFileSync(`${cwd}/documents.mjs`, printed("js", "search:live"));
  const mail = "From: Ann Smith <ann@example.com>\nTo: bob@example.com\nSubject: The lease\n\nThis is a breach of contract, and I will say so on 3 May 2024.\n";
  Deno.writeTextFileSync(`${cwd}/a.eml`, mail);
  Deno.writeFileSync(`${cwd}/b.pdf`, new Uint8Array(100));
  const heard = [
    /2 documents/,
    /b\.pdf: wrong_type/,
    /100 %, completed/,
    /completed: 1,\s+failed: 1/,
    /1 The lease .*<mark>breach of contract<\/mark>/,
    /1 found in \d+ ms/,
  ];
  await outputOf("node", ["documents.mjs", "a.eml", "b.pdf"], { cwd, env }, heard);
});

snippetTest("browser", "/usr/bin/chromium", async ({ cwd, env, printed, publishUntil }) => {
  await installPhoenix(cwd);
  Deno.copyFileSync(`${cwd}/node_modules/phoenix/priv/static/phoenix.mjs`, `${cwd}/phoenix.mjs`);
  Deno.writeTextFileSync(`${cwd}/index.html`, printed("html", "phoenix.mjs"));
  await using pages = servePages(cwd);
  await publishUntil(browse(`http://127.0.0.1:${pages.addr.port}/index.html?token=${env.TOKEN}`, cwd, [/joined/, /uploaded: Lease agreement/]));
});

function servePages(folder: string): Deno.HttpServer<Deno.NetAddr> {
  return Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const name = new URL(request.url).pathname.slice(1);
    const type = { html: "text/html", mjs: "text/javascript" }[name.split(".").at(-1)!];
    if (!type || !/^[\w.]+$/.test(name)) return new Response(null, { status: 404 });
    return new Response(Deno.readFileSync(`${folder}/${name}`), { headers: { "content-type": type } });
  });
}

/** Opens a page in headless Chromium and waits until its text has what is asked for, by way of the DevTools protocol. */
async function browse(url: string, folder: string, enough: RegExp[]): Promise<void> {
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
  const args = [...flags, "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", `--user-data-dir=${folder}/profile`, url];
  const browser = new Deno.Command("/usr/bin/chromium", { args, stdin: "null", stdout: "null", stderr: "piped" }).spawn();
  try {
    const port = await devtoolsPort(browser.stderr);
    const deadline = Date.now() + 30_000;
    for (let text = "";;) {
      assert(Date.now() < deadline, `the page shows: ${text}`);
      const tabs: { type: string; url: string; webSocketDebuggerUrl: string }[] = await (await fetch(`http://127.0.0.1:${port}/json`)).json();
      const tab = tabs.find((tab) => tab.type === "page" && tab.url === url);
      text = tab ? await pageText(tab.webSocketDebuggerUrl) : "";
      if (enough.every((pattern) => pattern.test(text))) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    browser.kill("SIGKILL");
    await browser.status;
  }
}

async function devtoolsPort(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let said = "";
  const reader = stderr.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    said += value ?? "";
    const port = /DevTools listening on ws:\/\/127\.0\.0\.1:(\d+)\//.exec(said)?.[1];
    if (port) {
      // The rest is not of interest, but a full pipe would stop the browser.
      (async () => {
        while (!(await reader.read().catch(() => ({ done: true }))).done);
      })();
      return port;
    }
    assert(!done, `Chromium did not start: ${said}`);
  }
}

function pageText(debuggerUrl: string): Promise<string> {
  const devtools = new WebSocket(debuggerUrl);
  return new Promise((resolve, reject) => {
    devtools.onopen = () => devtools.send(JSON.stringify({ id: 1, method: "Runtime.evaluate", params: { expression: "document.body?.innerText" } }));
    devtools.onerror = () => reject(new Error("DevTools did not answer"));
    devtools.onmessage = ({ data }) => {
      devtools.onclose = () => resolve(String(JSON.parse(data).result?.result?.value ?? ""));
      devtools.close();
    };
  });
}

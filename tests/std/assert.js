// @ts-self-types="./assert.d.ts"
// std's own source, republished on npm: a user with JSR maps @std/assert to jsr:@std/assert in deno.json instead.
export * from "deno-std/assert/mod.js";

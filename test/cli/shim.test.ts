import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import t from "tap";
import { runCommand, SHIM } from "./command.ts";

/** A copy of the shim beside a main.js that shows what it gets. */
function fakeRoot(folder: string, main: string | null): string {
  mkdirSync(join(folder, "bin"), { recursive: true });
  copyFileSync(SHIM, join(folder, "bin/tunrelay"));
  if (main !== null) {
    mkdirSync(join(folder, "dist/cli"), { recursive: true });
    writeFileSync(join(folder, "dist/cli/main.js"), main);
  }
  return join(folder, "bin/tunrelay");
}
const SHOW = "console.log(JSON.stringify([process.argv.slice(2), process.env.TUNRELAY_SIGIGN, process.argv[1]]));";

t.test("shim: arguments arrive as they are", async (t) => {
  const command = fakeRoot(t.testdir(), SHOW);
  const args = ["a b", "", "$x", "--", "-é\n*"];
  const { status, stdout } = await runCommand(args, { command });
  t.equal(status, 0);
  t.same(JSON.parse(stdout)[0], args);
});

t.test("shim: finds itself through links and a relative path", async (t) => {
  const folder = t.testdir();
  const command = fakeRoot(join(folder, "lib/node_modules/tunrelay"), SHOW);
  mkdirSync(join(folder, "bin"));
  symlinkSync("../lib/node_modules/tunrelay/bin/tunrelay", join(folder, "bin/tunrelay"));
  symlinkSync(join(folder, "bin/tunrelay"), join(folder, "again"));
  const main = join(dirname(dirname(command)), "dist/cli/main.js");
  for (const path of [join(folder, "again"), join(folder, "bin/tunrelay"), command]) {
    const { stdout } = await runCommand([], { command: path });
    t.equal(JSON.parse(stdout)[2], main, path);
  }
  const { stdout } = await runCommand(["-c", `cd ${folder}/bin && ./tunrelay`], { command: "sh" });
  t.equal(JSON.parse(stdout)[2], main, "./tunrelay");
});

t.test(
  "shim: signals that are ignored are told to Node",
  { skip: process.platform !== "linux" && "needs /proc" },
  async (t) => {
    const command = fakeRoot(t.testdir(), SHOW);
    const hup = await runCommand(["-c", `trap '' HUP; exec ${command}`], { command: "sh" });
    t.equal(BigInt(`0x${JSON.parse(hup.stdout)[1]}`) & 1n, 1n, "SIGHUP is signal 1, bit 0");
    const none = await runCommand([], { command, env: { TUNRELAY_SIGIGN: "ff" } });
    t.equal(BigInt(`0x${JSON.parse(none.stdout)[1]}`) & 1n, 0n, "an inherited value is replaced");
  },
);

t.test("shim: one line and an exit code when Node or dist is missing", async (t) => {
  const folder = t.testdir();
  const command = fakeRoot(folder, null);
  const noDist = await runCommand([], { command });
  t.equal(noDist.status, 1);
  t.match(noDist.stderr, /^tunrelay: \S+\/dist\/cli\/main\.js is missing: run 'npm ci' .*\n$/);

  const tools = join(folder, "tools");
  mkdirSync(tools);
  const { stdout } = await runCommand(["-c", "command -v readlink"], { command: "sh" });
  symlinkSync(stdout.trim(), join(tools, "readlink"));
  const noNode = await runCommand([], { command, env: { PATH: tools } });
  t.equal(noNode.status, 127);
  t.equal(noNode.stderr, "tunrelay: node is not on the PATH: install Node.js 20.19 or later\n");
});

t.test("shim: it starts the command line of this tree", async (t) => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  t.same(await runCommand(["--version"]), { status: 0, signal: null, stdout: `${version}\n`, stderr: "" });
});

// npm run test:arm64: the addon for arm64 under qemu-user, on another kind of machine. First the tests of the addon run
// inside a Node.js for arm64, then the smoke test with `tunrelay serve` and `run` on it: real TUN devices, real sockets.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { close, printCount, runFile, runFiles } from "./run-file.mjs";
import { countTests } from "./tap-tree.mjs";
import { cachedNode } from "./tool-cache.mjs";
import { ROOT, runNode } from "./tools.mjs";
import { ARM64_NODE } from "./versions.mjs";

/** Where Debian puts libc and libstdc++ for arm64. */
const SYSTEM = "/usr/aarch64-linux-gnu";
/** What qemu-user 7.2 cannot do; a test fails there for this reason and no other. */
const BEYOND_QEMU = [
  { test: /^mark and device binding/, reason: "it does not know SO_BINDTOIFINDEX" },
  { test: /^UDP over IPv[46]: both ways/, reason: "it does not pass on messages without a buffer" },
  { test: /^ICMP errors come back/, reason: "it does not pass on messages without a buffer" },
  { test: /^udpReadError: every bad argument/, reason: "it does not pass on messages without a buffer" },
];

function fail(text) {
  console.error(`test-arm64: ${text}`);
  process.exit(1);
}

function findEmulator() {
  const { status, stdout } = spawnSync("sh", ["-c", "command -v qemu-aarch64"], { encoding: "utf8" });
  if (status !== 0) fail("no qemu-aarch64: install qemu-user");
  return stdout.trim();
}

/** Takes the failures that are qemu's out of `count` and says so. */
function forgive(count) {
  for (const { test, reason } of BEYOND_QEMU) {
    const isIt = ({ path }) => path.some((name) => test.test(name));
    const forgiven = count.failed.filter(isIt);
    count.failed = count.failed.filter((failure) => !isIt(failure));
    if (forgiven.length > 0) console.log(`beyond qemu-user: ${forgiven[0].path.join(" > ")}: ${reason}`);
    else
      console.log(
        `${test} did not fail: if this qemu-user is that of Debian 12, the list in scripts/test-arm64.mjs is old`,
      );
  }
}

if (process.getuid() !== 0) fail("namespaces and TUN devices need root here");
const addon = join(ROOT, "prebuilds/linux-arm64/tunrelay.node");
if (!existsSync(addon)) fail("prebuilds/linux-arm64/tunrelay.node is missing: run `npm run prebuilds`");
if (!existsSync(join(ROOT, ".build/test"))) fail("nothing is compiled: run `npm test -- --smoke`");
if (!existsSync(`${SYSTEM}/lib/libstdc++.so.6`))
  fail(`no ${SYSTEM}/lib/libstdc++.so.6: install libstdc++6-arm64-cross`);
const emulator = findEmulator();
const node = [emulator, "-L", SYSTEM, cachedNode(ARM64_NODE, "arm64")];

// What runs the test starts it in the namespace: under qemu-user a program for arm64 cannot start another one.
const results = await runFiles(["bounds", "tun", "sockets"], (name) => {
  const compiled = join(ROOT, `.build/test/native/${name}.test.js`);
  const command = ["unshare", "--net", "--", ...node, "--enable-source-maps", compiled];
  return runFile(`arm64: test/native/${name}.test.ts`, command, { TUNRELAY_TEST_NETNS: "1" });
});
const count = countTests(results);
forgive(count);
printCount(count);
const status = close(count);

const directory = mkdtempSync(join(tmpdir(), "tunrelay-arm64-"));
let smoke;
try {
  // `node` first on the PATH of the program is the emulated one; the test itself runs on ours.
  const script = (name, text) => writeFileSync(join(directory, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  script("node", `exec ${node.join(" ")} "$@"`);
  script("tunrelay", `PATH=${directory}:$PATH exec ${join(ROOT, "bin/tunrelay")} "$@"`);
  const env = {
    ...process.env,
    TUNRELAY_TEST_PROGRAM: join(directory, "tunrelay"),
    TUNRELAY_TEST_NODE: realpathSync(emulator),
  };
  smoke = runNode(join(ROOT, "scripts/test.mjs"), ["--built", "--smoke"], { env });
} finally {
  rmSync(directory, { recursive: true, force: true });
}
process.exit(status || smoke);

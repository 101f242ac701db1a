// The versions of other tools that are tried, in one place. package.json's `engines` has the lowest Node.js.

/** `npm run matrix`: the lines of Node.js that are supported. The oldest one, 20, is what the full suite runs on. */
export const NODES = ["22.23.3", "24.21.0", "26.10.0"];

/** The Node.js for arm64 that `npm run test:arm64` starts under emulation: the lowest, so that the addon asks for no more. */
export const ARM64_NODE = "20.20.2";

/**
 * What `npm run test:pack` installs the tarball with. `installOn` is the Node.js that the installer runs on, `runOn` those
 * that the installed package runs on; null is the one that runs the script. npm 12 does not support Node.js 20.
 */
export const INSTALLERS = [
  { name: "npm", version: "11.19.1", installOn: null, runOn: [null] },
  { name: "npm", version: "12.2.0", installOn: "26.10.0", runOn: [null, "26.10.0"] },
  { name: "pnpm", version: "12.21.0", installOn: null, runOn: [null] },
];

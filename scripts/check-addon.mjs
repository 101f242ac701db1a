// What a built addon must be so that one file serves every Linux of its architecture: glibc of any age, and musl.
import { statSync } from "node:fs";
import { MACHINES, readSharedObject } from "./elf.mjs";

/** What the addon may take from libc: in glibc and musl, under one name, without a version. */
const LIBC = new Set(
  [
    "__errno_location calloc free malloc realloc",
    "memchr memcmp memcpy memmove memset strlen strnlen",
    "bind connect getpeername getsockname getsockopt recv recvmmsg recvmsg send sendmmsg sendmsg sendto setsockopt",
    "shutdown socket",
    "close epoll_create1 epoll_ctl epoll_wait fcntl ioctl open poll read write writev",
    "clock_gettime",
  ].flatMap((line) => line.split(" ")),
);
/** What Node.js offers to addons, whatever its version. */
const NODE = /^(napi|node_api|uv)_/;
const EXPORTS = ["napi_register_module_v1", "node_api_module_get_api_version_v1"];
/** arm64 kernels may have pages of 64 KiB. */
const ALIGNMENT = { x64: 4096, arm64: 65536 };
/** Far more than it has, bytes: something was linked in if it grows to this. */
const MAX_SIZE = 128 * 1024;

/** Complaints about one file; none when it can be shipped. */
export function checkAddon(file, arch) {
  let object;
  try {
    object = readSharedObject(file);
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) return [`no shared object: ${error.message}`];
    throw error;
  }
  const complaints = [];
  const expect = (holds, complaint) => holds || complaints.push(complaint);
  const none = (list, what) => expect(list.length === 0, `${what} ${list.join(", ")}`);
  const { size } = statSync(file);
  expect(
    object.machine === MACHINES[arch],
    `it is for machine ${object.machine}, expected ${MACHINES[arch]} (${arch})`,
  );
  expect(object.isShared, "it is no shared object");
  none(object.needed, "it needs the libraries");
  none(object.searchPaths, "it searches for libraries in");
  expect(object.versions === 0, `it wants versioned symbols of ${object.versions} libraries`);
  none(
    object.imports.filter((name) => !NODE.test(name) && !LIBC.has(name)),
    "it takes what is not in the list of scripts/check-addon.mjs (add what both glibc and musl have):",
  );
  none(
    object.exports.filter((name) => !EXPORTS.includes(name)),
    "it exports",
  );
  none(
    EXPORTS.filter((name) => !object.exports.includes(name)),
    "it does not export",
  );
  expect(!object.hasTextRelocations, "it has text relocations");
  expect(!object.isStackExecutable, "it makes the stack executable");
  expect(object.alignment >= ALIGNMENT[arch], `its segments are aligned to ${object.alignment}`);
  expect(size <= MAX_SIZE, `it has ${size} bytes, at most ${MAX_SIZE} are expected`);
  return complaints;
}

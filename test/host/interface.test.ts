import "./in-namespace.ts";
import { execFileSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import t from "tap";
import { HostError, hostError } from "../../src/host/errors.ts";
import {
  addAddress,
  addRoute,
  addUnreachableRoute,
  linkIndex,
  listAddresses,
  networkAddress,
  parseCidr,
  readLink,
  routeDevice,
  setLink,
  setUpInterface,
} from "../../src/host/interface.ts";
import { type Addon, loadAddon } from "../../src/io/addon.ts";
import { formatAddress, type IpBytes, parseAddress } from "../../src/stack/flow/address.ts";

const loaded = loadAddon();
if ("problem" in loaded) throw new Error(loaded.problem);
const addon: Addon = loaded;

/** The parts of the JSON of iproute2 that are looked at. */
interface IpEntry {
  readonly ifname?: string;
  readonly ifindex?: number;
  readonly flags?: readonly string[];
  readonly dst?: string;
  readonly addr_info?: readonly IpAddress[];
}
interface IpAddress {
  readonly local: string;
  readonly prefixlen: number;
  readonly nodad?: boolean;
  readonly tentative?: boolean;
}

/** Runs `ip` and parses its JSON. */
function ipJson(...args: string[]): IpEntry[] {
  return JSON.parse(execFileSync("ip", ["-j", ...args], { encoding: "utf8" }) || "[]");
}

function ip(...args: string[]): void {
  execFileSync("ip", args);
}

/** Makes an interface that is down; its other end is up, so that it has a carrier once it is up. */
function addLink(name: string): void {
  ip("link", "add", name, "type", "veth", "peer", "name", `${name}-peer`);
  ip("link", "set", `${name}-peer`, "up");
}

function bytes(address: string): IpBytes {
  const parsed = parseAddress(address);
  if (parsed === null) throw new Error(`${address} is not an address`);
  return parsed;
}

/** The error a call throws, as `code errno`. */
function failure(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof HostError) return `${error.code} ${error.errno}`;
    throw error;
  }
  return "no error";
}

t.test("parseCidr: address and prefix length, or a sentence that says what is wrong", async (t) => {
  for (const { text, address, prefixLength, network } of [
    { text: "10.1.2.3/8", address: "10.1.2.3", prefixLength: 8, network: "10.0.0.0" },
    { text: "10.1.2.255/25", address: "10.1.2.255", prefixLength: 25, network: "10.1.2.128" },
    { text: "10.1.2.3", address: "10.1.2.3", prefixLength: 32, network: "10.1.2.3" },
    { text: "0.0.0.0/0", address: "0.0.0.0", prefixLength: 0, network: "0.0.0.0" },
    { text: "fd00:99::1/64", address: "fd00:99::1", prefixLength: 64, network: "fd00:99::" },
    { text: "fd00:99::f1", address: "fd00:99::f1", prefixLength: 128, network: "fd00:99::f1" },
    { text: "2001:db8:ffff::/33", address: "2001:db8:ffff::", prefixLength: 33, network: "2001:db8:8000::" },
  ]) {
    const cidr = parseCidr(text);
    t.equal(formatAddress(cidr.address), address, text);
    t.equal(cidr.prefixLength, prefixLength, text);
    t.equal(formatAddress(networkAddress(cidr)), network, text);
  }
  for (const text of ["/8", "10.0.0/8", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/-1", "10.0.0.1/8.0", "::1/129", "x"]) {
    t.throws(() => parseCidr(text), { code: "HOST_INVALID", message: text }, JSON.stringify(text));
  }
});

t.test("setLink and readLink agree with ip", async (t) => {
  addLink("dum0");
  t.match(readLink(addon, "dum0"), { name: "dum0", up: false, mtu: 1500 });
  setLink(addon, "dum0", { mtu: 9000, txQueueLen: 321, up: true });
  const [shown] = ipJson("link", "show", "dum0");
  t.match(shown, { ifname: "dum0", mtu: 9000, txqlen: 321 });
  t.ok(shown?.flags?.includes("UP"));
  t.same(readLink(addon, "dum0"), { index: shown?.ifindex, name: "dum0", mtu: 9000, up: true, txQueueLen: 321 });
  t.equal(linkIndex(addon, "dum0"), shown?.ifindex);
  setLink(addon, "dum0", { up: false });
  t.equal(readLink(addon, "dum0").up, false);
  t.equal(readLink(addon, "dum0").mtu, 9000, "what is left out stays");
  ip("link", "del", "dum0");
});

t.test("addresses and routes agree with ip", async (t) => {
  addLink("dum1");
  setUpInterface(addon, {
    name: "dum1",
    mtu: 1400,
    txQueueLen: 77,
    addresses: ["198.18.0.1/15", "fdfe:dcba::1/64", "192.0.2.9"],
    routes: ["default", "203.0.113.0/24", "2001:db8::/32"],
  });
  t.match(ipJson("link", "show", "dum1"), [{ mtu: 1400, txqlen: 77 }]);
  t.equal(readLink(addon, "dum1").up, true);

  const shown = ipJson("addr", "show", "dum1")[0]?.addr_info ?? [];
  const expected = shown.map((info) => `${info.local}/${info.prefixlen}`).sort();
  const listed = listAddresses(addon, "dum1").map(
    ({ address, prefixLength }) => `${formatAddress(address)}/${prefixLength}`,
  );
  t.same(listed.sort(), expected);
  for (const cidr of ["198.18.0.1/15", "fdfe:dcba::1/64", "192.0.2.9/32"]) t.ok(expected.includes(cidr), cidr);
  const v6 = shown.find((info) => info.local === "fdfe:dcba::1");
  t.equal(v6?.nodad, true, "no duplicate address detection (RFC 4862 §5.4)");
  t.not(v6?.tentative, true);
  t.ok(listAddresses(addon).length >= expected.length);

  for (const { family, route } of [
    { family: "-4", route: { dst: "default", dev: "dum1", protocol: "180", scope: "link" } },
    { family: "-4", route: { dst: "203.0.113.0/24", dev: "dum1", protocol: "180", scope: "link" } },
    { family: "-6", route: { dst: "default", dev: "dum1", protocol: "180" } },
    { family: "-6", route: { dst: "2001:db8::/32", dev: "dum1", protocol: "180" } },
  ]) {
    const routes = ipJson(family, "route", "show", "proto", "180", "dev", "dum1");
    const found = routes.find(({ dst }) => dst === route.dst);
    const { dev: _dev, protocol: _protocol, ...rest } = route;
    t.match(found, rest, `${family} ${route.dst}`);
  }

  addRoute(addon, "dum1", "192.0.2.128/25", 7890);
  addRoute(addon, "dum1", "::/0", 200);
  t.match(ipJson("route", "show", "table", "7890"), [{ dst: "192.0.2.128/25", dev: "dum1" }]);
  t.match(ipJson("-6", "route", "show", "table", "200"), [{ dst: "default", dev: "dum1" }]);

  t.equal(
    failure(() => addAddress(addon, "dum1", "198.18.0.1/15")),
    "HOST_EXISTS EEXIST",
  );
  t.equal(
    failure(() => addRoute(addon, "dum1", "203.0.113.0/24")),
    "HOST_EXISTS EEXIST",
  );
  t.equal(
    failure(() => addRoute(addon, "dum1", "203.0.113.1/24")),
    "HOST_INVALID null",
  );
  ip("link", "del", "dum1");
});

t.test("routeDevice: the interface the kernel would use now", async (t) => {
  t.equal(routeDevice(addon, bytes("192.0.2.1")), null, "no route");
  t.equal(routeDevice(addon, bytes("2001:db8::1")), null, "no IPv6 route");
  setLink(addon, "lo", { up: true });
  t.equal(routeDevice(addon, bytes("127.0.0.1")), "lo");
  t.equal(routeDevice(addon, bytes("::1")), "lo");
  for (const name of ["one", "two"]) {
    addLink(name);
    setLink(addon, name, { up: true });
  }
  addAddress(addon, "one", "10.1.0.1/24");
  addAddress(addon, "one", "fd01::1/64");
  addAddress(addon, "two", "10.2.0.1/24");
  addRoute(addon, "one", "0.0.0.0/0");
  addRoute(addon, "one", "::/0");
  addRoute(addon, "two", "0.0.0.0/0", 7890);
  addRoute(addon, "two", "::/0", 7890);
  ip("rule", "add", "pref", "100", "fwmark", "0x2710", "lookup", "7890");
  ip("-6", "rule", "add", "pref", "100", "fwmark", "0x2710", "lookup", "7890");
  addUnreachableRoute(addon, "198.51.100.0/24");
  ip("route", "add", "blackhole", "198.51.101.0/24");
  ip("route", "add", "prohibit", "198.51.102.0/24");
  ip("rule", "add", "pref", "101", "oif", "two", "lookup", "7890");
  for (const { to, query, expected } of [
    { to: "192.0.2.1", query: {}, expected: "one" },
    { to: "192.0.2.1", query: { mark: 0x2710 }, expected: "two" },
    { to: "2001:db8::1", query: {}, expected: "one" },
    { to: "2001:db8::1", query: { mark: 0x2710 }, expected: "two" },
    { to: "10.2.0.77", query: {}, expected: "two" },
    { to: "192.0.2.1", query: { oif: "two" }, expected: "two" },
    { to: "192.0.2.1", query: { oif: "one" }, expected: "one" },
    { to: "10.1.0.1", query: {}, expected: "lo" },
    { to: "198.51.100.1", query: {}, expected: null },
    { to: "198.51.101.1", query: {}, expected: null },
    { to: "198.51.102.1", query: {}, expected: null },
  ]) {
    t.equal(routeDevice(addon, bytes(to), query), expected, `${to} ${JSON.stringify(query)}`);
  }
  t.equal(
    failure(() => routeDevice(addon, bytes("192.0.2.1"), { oif: "none0" })),
    "HOST_NO_DEVICE ENODEV",
  );
  ip("link", "del", "one");
  ip("link", "del", "two");
});

t.test("setLink moves an interface into another namespace, by process and by descriptor", async (t) => {
  const { spawn } = await import("node:child_process");
  const child = spawn("unshare", ["--net", "--", process.execPath, "-e", "console.log(1);process.stdin.resume()"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.teardown(() => child.kill());
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const descriptor = openSync(`/proc/${child.pid}/ns/net`, "r");
  t.teardown(() => closeSync(descriptor));
  addLink("move0");
  addLink("move1");
  setLink(addon, "move0", { netnsPid: child.pid ?? 0 });
  setLink(addon, "move1", { netnsFd: descriptor });
  t.equal(
    failure(() => linkIndex(addon, "move0")),
    "HOST_NO_DEVICE ENODEV",
  );
  const there = execFileSync("nsenter", [`--net=/proc/${child.pid}/ns/net`, "ip", "-j", "link"], { encoding: "utf8" });
  const names = (JSON.parse(there) as { ifname: string }[]).map(({ ifname }) => ifname);
  t.ok(names.includes("move0"));
  t.ok(names.includes("move1"));
  t.equal(
    failure(() => setLink(addon, "lo", { netnsPid: 2 ** 22 + 1 })),
    "HOST_INVALID ESRCH",
  );
});

t.test("errors have a stable code and say value, cause and remedy", async (t) => {
  addLink("err0");
  t.equal(
    failure(() => setLink(addon, "none0", { up: true })),
    "HOST_NO_DEVICE ENODEV",
  );
  t.equal(
    failure(() => addAddress(addon, "none0", "10.0.0.1/8")),
    "HOST_NO_DEVICE ENODEV",
  );
  t.equal(
    failure(() => addRoute(addon, "err0", "192.0.2.0/24")),
    "HOST_UNREACHABLE ENETDOWN",
    "interface is down",
  );
  t.equal(
    failure(() => setLink(addon, "err0", { mtu: -1 })),
    "HOST_INVALID EINVAL",
  );
  for (const name of ["", "a/b", "a b", "sixteencharacter", "a:b", "..", "ü"]) {
    t.throws(() => linkIndex(addon, name), { code: "HOST_INVALID", message: "not usable" }, JSON.stringify(name));
  }
  t.throws(() => setLink(addon, "none0", { mtu: 1400, up: true }), {
    message:
      "Cannot set MTU 1400 and state up of interface none0: there is no such interface in this network namespace",
  });
  t.match(hostError("Cannot add address 10.0.0.1/8 to interface tun0", 1), {
    code: "HOST_PERMISSION",
    errno: "EPERM",
    message: /CAP_NET_ADMIN is missing; run as root/,
  });
  t.match(hostError("Cannot x", 9999), { code: "HOST_FAILED" });
  execFileSync("sysctl", ["-qw", "net.ipv6.conf.err0.disable_ipv6=1"]);
  t.equal(
    failure(() => addAddress(addon, "err0", "fd00::1/64")),
    "HOST_IPV6_DISABLED EACCES",
  );
  ip("link", "del", "err0");
});

/** What the demo does, in order: one row of its table each. */
import type { Job, Outcome, Tools } from "./jobs.ts";
import { type IpVersion, PORT, SERVER, UNREACHABLE } from "./network.ts";
import type { DemoRow } from "./table.ts";

const MIB = 1024 * 1024;
const BULK_BYTES = 64 * MIB;
const CONNECTIONS = 50;
const ECHO_BYTES = 256 * 1024;
const HALF_CLOSE_BYTES = MIB;
/** The largest UDP payload that fits into one IPv6 packet of 1500 bytes is 1452; 1400 fits every family. */
const LARGEST_DATAGRAM = 1400;
const PINGS = 3;

/** A job with the words its row is made of. */
export interface Step {
  readonly protocol: string;
  readonly flow: string;
  readonly path: string;
  readonly job: Job;
}

/** All steps, IPv4 first. Without `ping` on the system there is no ICMP step; everything else has a client of its own. */
export function planSteps(tools: Tools): Step[] {
  return [...stepsOf(4, tools), ...stepsOf(6, tools)];
}

function stepsOf(version: IpVersion, tools: Tools): Step[] {
  const http = tools.curl ? "curl" : "node";
  const dig = tools.dig ? "dig" : "node";
  const tcp = (flow: string, client: string, server: string, job: Job): Step => ({
    protocol: `TCP IPv${version}`,
    flow,
    path: `${client} > tun0 > tunrelay > socks5 > ${server}`,
    job,
  });
  const udp = (flow: string, client: string, server: string, job: Job): Step => ({
    protocol: `UDP IPv${version}`,
    flow,
    path: `${client} > tun0 > tunrelay > socks5 udp > ${server}`,
    job,
  });
  const steps = [
    tcp(`${http} download ${BULK_BYTES / MIB} MiB`, http, "HTTP server", {
      kind: "download",
      version,
      bytes: BULK_BYTES,
      seed: version,
    }),
    tcp(`${http} upload ${BULK_BYTES / MIB} MiB`, http, "HTTP server", {
      kind: "upload",
      version,
      bytes: BULK_BYTES,
      seed: 10 + version,
    }),
    tcp(`${CONNECTIONS} connections at once, ${ECHO_BYTES / 1024} KiB each`, "node", "echo server", {
      kind: "echo",
      version,
      connections: CONNECTIONS,
      bytes: ECHO_BYTES,
    }),
    tcp("server answers after the client's FIN", "node", "hash server", {
      kind: "half-close-client",
      version,
      bytes: HALF_CLOSE_BYTES,
    }),
    tcp("client sends after the server's FIN", "node", "sink server", {
      kind: "half-close-server",
      version,
      bytes: HALF_CLOSE_BYTES,
    }),
    tcp("closed port is ECONNREFUSED", "node", "nobody", {
      kind: "connect-fails",
      host: SERVER[version],
      port: PORT.closed,
      expected: "ECONNREFUSED",
    }),
    tcp("unreachable host is EHOSTUNREACH", "node", "nobody", {
      kind: "connect-fails",
      host: UNREACHABLE[version],
      port: PORT.http,
      expected: "EHOSTUNREACH",
    }),
    tcp(`${dig} query over TCP`, dig, "DNS server", { kind: "dns", version, transport: "tcp" }),
    udp(`${dig} query`, dig, "DNS server", { kind: "dns", version, transport: "udp" }),
    udp(`echo of 1 to ${LARGEST_DATAGRAM} bytes`, "node", "echo server", {
      kind: "udp-echo",
      version,
      largest: LARGEST_DATAGRAM,
    }),
  ];
  if (tools.ping) {
    const protocol = `ICMP IPv${version}`;
    const job: Job = { kind: "ping", version, count: PINGS };
    steps.push({ protocol, flow: `ping, ${PINGS} times`, path: "ping > tun0 > tunrelay", job });
  }
  return steps;
}

/** The row of a step that ended. */
export function rowOf(step: Step, outcome: Outcome): DemoRow {
  const ok = outcome.result === "ok";
  const hasRate = ok && outcome.ms > 0;
  return {
    protocol: step.protocol,
    flow: step.flow,
    path: step.path,
    bytes: outcome.bytes,
    mbitPerSecond: hasRate ? Math.round((outcome.bytes * 8) / (outcome.ms * 1000)) : null,
    result: outcome.result,
  };
}

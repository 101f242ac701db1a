/**
 * The demo's main process, already inside its own network namespace: starts the servers and the client process, puts
 * the device between them, relays, and prints what came out.
 *
 *     client process (its own namespace) == tun0 == this process > 127.0.0.1 > server process
 */
import { rmSync } from "node:fs";
import { constants } from "node:os";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import type { Device } from "../../device/device.ts";
import { openTun } from "../../device/tun.ts";
import { Engine } from "../../engine/engine.ts";
import { addAddress, addUnreachableRoute, setLink } from "../../host/interface.ts";
import { type Addon, isAddonProblem, loadAddon } from "../../io/addon.ts";
import { parseUpstream } from "../../proxy/url.ts";
import { openLogger } from "../log.ts";
import { Child } from "./child.ts";
import type { StageOptions } from "./demo.ts";
import type { ClientReply, ClientRequest, Outcome, Tools } from "./jobs.ts";
import { PROXY, SERVER_CIDR, TUN_MTU, TUN_NAME, UNREACHABLE_CIDR } from "./network.ts";
import { Progress } from "./progress.ts";
import type { ServerReply } from "./server-process.ts";
import { planSteps, rowOf, type Step } from "./steps.ts";
import { type DemoRow, formatTable } from "./table.ts";

/** A job that takes longer has failed, ms. */
const JOB_MS = 8000;
/** After this no further job is given much time, so that the demo ends within a minute whatever hangs; a machine at rest needs 10 s. */
const DEMO_MS = 56_000;
/** What a job gets then, ms. */
const LATE_JOB_MS = 200;
/** How much longer than its limit the client process may take to say so, ms. */
const GRACE_MS = 1000;
/** Time for flows to end after the last row, ms. */
const DRAIN_MS = 200;

type Client = Child<ClientRequest, ClientReply>;
type Servers = Child<never, ServerReply>;

class Interrupted extends Error {
  readonly exitCode: number;

  constructor(signal: NodeJS.Signals) {
    super(`ended by ${signal}`);
    this.exitCode = 128 + constants.signals[signal];
  }
}

function scriptOf(name: string): string {
  return fileURLToPath(new URL(`./${name}.js`, import.meta.url));
}

async function main(options: StageOptions): Promise<number> {
  const interrupt = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => interrupt.abort(new Interrupted(signal)));
  }
  // The launcher is gone, perhaps with the terminal: nobody reads the result, and nobody else cleans up.
  process.stderr.on("error", () => {});
  process.on("disconnect", () => interrupt.abort(new Interrupted("SIGHUP")));

  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  setUpNamespace(addon);
  const servers: Servers = new Child("server process", process.execPath, [scriptOf("server-process")]);
  const client: Client = new Child("client process", "unshare", [
    "--net",
    "--",
    process.execPath,
    scriptOf("client-process"),
    options.directory,
  ]);
  try {
    return await relay(addon, servers, client, options, interrupt.signal);
  } finally {
    await Promise.all([client.end(), servers.end()]);
    rmSync(options.directory, { recursive: true, force: true });
  }
}

/** What the servers need before they can listen. */
function setUpNamespace(addon: Addon): void {
  setLink(addon, "lo", { up: true });
  for (const version of [4, 6] as const) {
    addAddress(addon, "lo", SERVER_CIDR[version]);
    addUnreachableRoute(addon, UNREACHABLE_CIDR[version]);
  }
}

async function relay(
  addon: Addon,
  servers: Servers,
  client: Client,
  options: StageOptions,
  signal: AbortSignal,
): Promise<number> {
  const [ready, tools] = await Promise.all([
    servers.receive((reply) => reply, signal),
    client.receive((reply) => (reply.is === "ready" ? reply.tools : null), signal),
  ]);
  if (ready.is === "failed") throw new Error(`The demo's servers cannot start: ${ready.problem}`);

  const device = openTun(addon, { name: TUN_NAME, mtu: TUN_MTU });
  setLink(addon, device.name, { netnsPid: client.pid });
  const settled = client.receive((reply) => (reply.is === "set-up" ? { problem: reply.problem } : null), signal);
  client.send({ do: "set-up" });
  const { problem } = await settled;
  if (problem !== null) throw new Error(`The client's end of the device cannot be set up: ${problem}`);

  const credentials = `${PROXY.user}:${encodeURIComponent(PROXY.password)}`;
  const upstream = parseUpstream(`socks5://${credentials}@${PROXY.host}:${ready.port}`);
  const logger = await openLogger(options.log);
  const engine = new Engine({ device, upstream, serverAddresses: [Uint8Array.of(127, 0, 0, 1)], addon, logger });
  engine.start();
  try {
    return await runSteps(client, tools, device, options, signal);
  } finally {
    await engine.stop(DRAIN_MS);
    logger.close();
  }
}

async function runSteps(
  client: Client,
  tools: Tools,
  device: Device,
  options: StageOptions,
  signal: AbortSignal,
): Promise<number> {
  const steps = planSteps(tools);
  const progress = new Progress(process.stderr, steps.length);
  const rows: DemoRow[] = [];
  const start = performance.now();
  for (const [id, step] of steps.entries()) {
    progress.start(`${step.protocol}  ${step.flow}`);
    const isLate = performance.now() - start > DEMO_MS - JOB_MS;
    const outcome = await doJob(client, id, step, isLate ? LATE_JOB_MS : JOB_MS, signal);
    const row = rowOf(step, outcome);
    rows.push(row);
    progress.end(row.mbitPerSecond === null ? row.result : `${row.result}, ${row.mbitPerSecond} Mbit/s`);
  }
  const ok = rows.every((row) => row.result === "ok");
  process.stdout.write(report(rows, describeDevice(device), options.json));
  return ok ? 0 : 1;
}

async function doJob(client: Client, id: number, step: Step, timeoutMs: number, signal: AbortSignal): Promise<Outcome> {
  const limit = AbortSignal.timeout(timeoutMs + GRACE_MS);
  const done = client.receive(
    (reply) => (reply.is === "done" && reply.id === id ? reply.outcome : null),
    AbortSignal.any([signal, limit]),
  );
  client.send({ do: "job", id, job: step.job, timeoutMs });
  try {
    return await done;
  } catch (error) {
    if (!limit.aborted || signal.aborted) throw error;
    return { result: `no result within ${timeoutMs / 1000} s`, bytes: 0, ms: 0 };
  }
}

/** Such as `tun0 (linux tun, offloads tso+uso, mtu 1500)`. */
function describeDevice({ name, mtu, offload }: Device): string {
  const names = [...(offload.tso ? ["tso"] : []), ...(offload.uso ? ["uso"] : [])];
  const offloads =
    names.length > 0 ? `offloads ${names.join("+")}` : offload.checksum ? "offload checksum" : "no offloads";
  return `${name} (linux tun, ${offloads}, mtu ${mtu})`;
}

function report(rows: readonly DemoRow[], device: string, json: boolean): string {
  if (json) return `${JSON.stringify({ ok: rows.every((row) => row.result === "ok"), device, rows }, null, 2)}\n`;
  const bad = rows.filter((row) => row.result !== "ok").length;
  const verdict = bad === 0 ? `all ${rows.length} rows ok` : `${bad} of ${rows.length} rows differ`;
  return `\n${formatTable(rows)}\n\n${verdict}\ndevice: ${device}\n`;
}

try {
  process.exit(await main(JSON.parse(process.argv[2] ?? "null") as StageOptions));
} catch (error) {
  if (process.stderr.isTTY) process.stderr.write("\n");
  process.stderr.write(`tunrelay demo: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(error instanceof Interrupted ? error.exitCode : 1);
}

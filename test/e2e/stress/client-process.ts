/** The clients of the stress tests, a process in a namespace of its own. */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { setLink, setUpInterface } from "../../../src/host/interface.ts";
import { type Addon, isAddonProblem, loadAddon } from "../../../src/io/addon.ts";
import { type ChurnOptions, type ChurnResult, churn, Held } from "./churn.ts";
import { type EchoOptions, type EchoResult, echo } from "./echo.ts";
import { CLIENT_CIDRS, type IpVersion } from "./network.ts";
import { answerCalls } from "./remote.ts";
import { SlowFlows, type SlowOptions } from "./slow-flows.ts";
import { download, type TransferResult, upload } from "./transfer.ts";

/** How a program ended. */
export interface ProgramResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Methods of the process. */
export interface ClientMethods {
  /** Sets up this end of the device, with a default route into it. */
  setUp(name: string, mtu: number): void;
  download(version: IpVersion, seed: number, bytes: number): Promise<TransferResult>;
  upload(version: IpVersion, seed: number, bytes: number): Promise<TransferResult>;
  /** Downloads again and again for as long as `loopFor` says. */
  downloadFor(version: IpVersion, bytes: number, ms: number): Promise<TransferResult[]>;
  /** Opens flows that stall; returns when all are connected. */
  openSlow(options: SlowOptions): Promise<void>;
  /** Bytes that slow downloads have read. */
  slowBytes(): number;
  /** Reads at full speed from now on, waits for the end of all slow flows, and returns what went wrong: `ECONNRESET`, for instance. */
  finishSlow(): Promise<string[]>;
  /** Resets all slow flows. */
  resetSlow(): Promise<void>;
  churn(options: ChurnOptions): Promise<ChurnResult>;
  /** Opens connections that are idle from then on. */
  hold(count: number, parallel: number): Promise<void>;
  /** Ends them; returns how many ended in order. */
  release(): Promise<number>;
  echo(options: EchoOptions): Promise<EchoResult>;
  /** Counters of this namespace's kernel, such as `Tcp.InCsumErrors` and `Udp6InCsumErrors`. */
  counters(): Record<string, number>;
  writeFile(path: string, text: string): void;
  run(command: string, args: readonly string[]): Promise<ProgramResult>;
}

/** Packets that the device holds until the engine reads them. */
const QUEUE_PACKETS = 4096;

function requireAddon(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  return addon;
}

/** /proc/net/snmp has pairs of lines, names and values; /proc/net/snmp6 one pair a line. */
function readCounters(): Record<string, number> {
  const counters: Record<string, number> = {};
  const lines = readFileSync("/proc/self/net/snmp", "utf8").trim().split("\n");
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const [group = "", ...names] = (lines[i] as string).split(" ");
    const values = (lines[i + 1] as string).split(" ").slice(1);
    names.forEach((name, k) => {
      counters[`${group.replace(":", ".")}${name}`] = Number(values[k]);
    });
  }
  for (const line of readFileSync("/proc/self/net/snmp6", "utf8").trim().split("\n")) {
    const [name = "", value = ""] = line.split(/\s+/);
    counters[name] = Number(value);
  }
  return counters;
}

const slowFlows = new SlowFlows();
const held = new Held();

answerCalls<ClientMethods>({
  setUp(name, mtu) {
    const addon = requireAddon();
    // A reset that the device's queue has no room for is lost, and there is no second one.
    setLink(addon, name, { txQueueLen: QUEUE_PACKETS });
    setUpInterface(addon, { name, mtu, addresses: CLIENT_CIDRS, routes: ["default"] });
  },
  download,
  upload,
  async downloadFor(version, bytes, ms) {
    const results: TransferResult[] = [];
    const until = performance.now() + ms;
    do results.push(await download(version, 1000 + results.length, bytes));
    while (performance.now() < until);
    return results;
  },
  openSlow: (options) => slowFlows.open(options),
  slowBytes: () => slowFlows.bytesRead,
  finishSlow: () => slowFlows.finish(),
  resetSlow: () => slowFlows.reset(),
  churn,
  hold: (count, parallel) => held.open(count, parallel),
  release: () => held.close(),
  echo,
  counters: readCounters,
  writeFile: (path, text) => writeFileSync(path, text),
  run: (command, args) =>
    new Promise((resolve) => {
      execFile(command, args, { maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === "number" ? error.code : 1;
        resolve({ status, stdout, stderr: stderr === "" && error !== null ? error.message : stderr });
      });
    }),
});

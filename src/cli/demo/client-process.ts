/** The process in the client namespace: sets up its end of the device and runs the clients. Ends with its parent. */
import { setLink, setUpInterface, TX_QUEUE_PACKETS } from "../../host/interface.ts";
import { isAddonProblem, loadAddon } from "../../io/addon.ts";
import { findTools, runJob } from "./clients.ts";
import type { ClientReply, ClientRequest } from "./jobs.ts";
import { CLIENT_CIDRS, TUN_MTU, TUN_NAME } from "./network.ts";

const tools = findTools();
const directory = process.argv[2] ?? ".";

function reply(message: ClientReply): void {
  process.send?.(message);
}

/** Returns what went wrong, or null. */
function setUp(): string | null {
  try {
    const addon = loadAddon();
    if (isAddonProblem(addon)) return addon.problem;
    setLink(addon, "lo", { up: true });
    setUpInterface(addon, {
      name: TUN_NAME,
      mtu: TUN_MTU,
      txQueueLen: TX_QUEUE_PACKETS,
      addresses: CLIENT_CIDRS,
      routes: ["default"],
    });
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

process.on("message", (message) => {
  const request = message as ClientRequest;
  if (request.do === "set-up") {
    reply({ is: "set-up", problem: setUp() });
    return;
  }
  // runJob never rejects.
  void runJob(request.job, { tools, directory }, request.timeoutMs).then((outcome) =>
    reply({ is: "done", id: request.id, outcome }),
  );
});
// The parent decides when it is over, also after Ctrl-C, which reaches the whole process group.
process.on("SIGINT", () => {});
process.on("disconnect", () => process.exit(0));
reply({ is: "ready", tools });

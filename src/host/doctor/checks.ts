/** The table of all checks, in their order: what others ask about comes before them. */
import { lookAtContainer } from "./container.ts";
import { lookAtDevice, lookAtOffload, lookAtPackets, lookAtQueue } from "./device.ts";
import { lookAtDeviceNode, lookAtModule } from "./device-node.ts";
import { Examination, type Needs } from "./examination.ts";
import type { Finding, Verdict } from "./finding.ts";
import type { Machine } from "./machine.ts";
import { lookAtNamespaces } from "./namespace.ts";
import { lookAtIpv6, lookAtRpFilter } from "./network.ts";
import { lookAtRights, lookAtSocketOptions, lookAtSockets } from "./rights.ts";
import { lookAtAddon, lookAtDescriptors, lookAtKernel, lookAtMemory, lookAtNode } from "./system.ts";
import { lookAtTools } from "./tools.ts";

interface Check {
  /** Stable: programs may look for it. */
  readonly name: string;
  look(examination: Examination): Verdict;
}

export const CHECKS: readonly Check[] = [
  { name: "node", look: lookAtNode },
  { name: "kernel", look: lookAtKernel },
  { name: "memory", look: lookAtMemory },
  { name: "descriptors", look: lookAtDescriptors },
  { name: "addon", look: lookAtAddon },
  { name: "tools", look: lookAtTools },
  { name: "device-node", look: lookAtDeviceNode },
  { name: "module", look: lookAtModule },
  { name: "rights", look: lookAtRights },
  { name: "namespaces", look: lookAtNamespaces },
  { name: "device", look: lookAtDevice },
  { name: "offload", look: lookAtOffload },
  { name: "queue", look: lookAtQueue },
  { name: "packets", look: lookAtPackets },
  { name: "sockets", look: lookAtSockets },
  { name: "socket-options", look: lookAtSocketOptions },
  { name: "ipv6", look: lookAtIpv6 },
  { name: "rp-filter", look: lookAtRpFilter },
  { name: "container", look: lookAtContainer },
];

/** Looks at everything. Changes nothing: what is made for a trial is gone when this returns. */
export function examine(machine: Machine, needs: Needs): readonly Finding[] {
  const examination = new Examination(machine, needs);
  for (const { name, look } of CHECKS) examination.findings.set(name, { name, ...look(examination) });
  return [...examination.findings.values()];
}

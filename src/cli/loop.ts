/**
 * The loop that every tunnel can make: packets to the upstream that the kernel routes into our own device. They would
 * come back as new flows to the upstream, and so on without end.
 */
import { networkAddress, routeDevice } from "../host/interface.ts";
import type { Addon } from "../io/addon.ts";
import { formatAddress, type IpBytes } from "../stack/flow/address.ts";
import { CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";
import type { CidrOption } from "./values.ts";

/** What the check looks at. */
export interface LoopQuestion {
  /** Our device. */
  readonly device: string;
  /** Addresses of the proxy; empty where flows go straight to their destinations. */
  readonly upstreams: readonly IpBytes[];
  /** Whether flows are dialled at all (not so with reject://). */
  readonly dials: boolean;
  readonly routes: readonly CidrOption[];
  /** SO_MARK of upstream sockets; 0 for none. */
  readonly mark: number;
  /** Interface that upstream sockets are bound to, or null. */
  readonly oif: string | null;
}

/**
 * Asks the kernel where upstream packets would go.
 * @throws CliError exit code 2 when that is our own device
 */
export function refuseLoop(addon: Addon, question: LoopQuestion): void {
  if (!question.dials) return;
  const { device, mark, oif } = question;
  const query = { ...(mark === 0 ? {} : { mark }), ...(oif === null ? {} : { oif }) };
  const leadsHome = (address: IpBytes): boolean => routeDevice(addon, address, query) === device;
  const remedy = `give --interface, ${mark === 0 ? "--fwmark with" : "--fwmark"} an \`ip rule\` that leads elsewhere, or a narrower --route`;

  for (const upstream of question.upstreams) {
    if (!leadsHome(upstream)) continue;
    throw new CliError(
      ExitCode.usage,
      `the proxy ${formatAddress(upstream)} would be reached through ${device} itself, a loop: ${remedy}`,
    );
  }
  if (question.upstreams.length > 0) return;
  for (const route of question.routes) {
    if (!samplesOf(route).some(leadsHome)) continue;
    throw new CliError(
      ExitCode.usage,
      `direct:// would send what ${route.text} brings in back to ${device}, a loop: ${remedy}`,
    );
  }
}

/** Addresses that stand for a route: near both ends and in the middle, for more specific routes may take parts out. */
function samplesOf(route: CidrOption): IpBytes[] {
  const network = networkAddress(route);
  const bits = network.length * 8;
  const low = network.slice();
  const middle = network.slice();
  const high = network.slice();
  for (let i = route.prefixLength; i < bits; i++) {
    const bit = 0x80 >>> (i & 7);
    const at = i >>> 3;
    if (i === bits - 1) low[at] = (low[at] ?? 0) | bit;
    if (i === route.prefixLength + 1 || i === bits - 1) middle[at] = (middle[at] ?? 0) | bit;
    // Neither class E and broadcast (240.0.0.0/4) nor multicast (ff00::/8): these have routes of their own.
    if (i > 1 && i < bits - 1) high[at] = (high[at] ?? 0) | bit;
  }
  return [low, middle, high].filter((address) => address[0] !== 0 || address.length === 16);
}

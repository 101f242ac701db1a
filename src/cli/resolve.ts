/** The addresses of the proxy, looked up once, before anything is changed. */
import { lookup } from "node:dns/promises";
import { formatAddress, type IpBytes, parseAddress } from "../stack/flow/address.ts";
import { CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";

/**
 * All addresses of a host name, in the order of the system's resolver; an address is its own.
 * @throws CliError exit code 69 when there are none
 */
export async function resolveHost(host: string): Promise<IpBytes[]> {
  const literal = parseAddress(host);
  if (literal !== null) return [literal];
  let cause = "it has no address";
  try {
    const addresses: IpBytes[] = [];
    for (const { address } of await lookup(host, { all: true, verbatim: true })) {
      const bytes = parseAddress(address.replace(/%.*$/, ""));
      if (bytes === null || addresses.some((known) => formatAddress(known) === formatAddress(bytes))) continue;
      addresses.push(bytes);
    }
    if (addresses.length > 0) return addresses;
  } catch (error) {
    cause = error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
  throw new CliError(
    ExitCode.unavailable,
    `proxy name ${host} does not resolve (${cause}): check the name and the DNS set-up, or give an address`,
  );
}

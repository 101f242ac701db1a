/** A second client, whose packets the first one forwards into the device: what arrives there is checked by software. */
import type { Client, Lab, Owner } from "./lab.ts";
import { startClient } from "./lab.ts";
import { FORWARDED, GATEWAY } from "./network.ts";

const OFFLOADS = ["tx", "rx", "sg", "tso", "gso", "gro"];

/** Starts the client and links it to the one of the lab, with all offloads of the link off. */
export async function linkForwarded(owner: Owner, lab: Lab): Promise<Client> {
  const client = startClient("forwarded client");
  owner.teardown(() => client.end());
  const run = async (command: string, ...args: string[]): Promise<void> => {
    const { status, stderr } = await client.call("run", command, args);
    if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
  };
  const off = OFFLOADS.flatMap((name) => [name, "off"]);
  await run("ip", "link", "set", "lo", "up");
  await lab.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", `${client.pid}`);
  await lab.run("ethtool", "-K", "veth0", ...off);
  await run("ethtool", "-K", "veth0", ...off);
  await lab.run("ip", "address", "add", `${GATEWAY[4]}/24`, "dev", "veth0");
  await lab.run("ip", "address", "add", `${GATEWAY[6]}/64`, "dev", "veth0", "nodad");
  await run("ip", "address", "add", `${FORWARDED[4]}/24`, "dev", "veth0");
  await run("ip", "address", "add", `${FORWARDED[6]}/64`, "dev", "veth0", "nodad");
  await lab.client.call("writeFile", "/proc/sys/net/ipv4/ip_forward", "1");
  await lab.client.call("writeFile", "/proc/sys/net/ipv6/conf/all/forwarding", "1");
  await lab.run("ip", "link", "set", "veth0", "up");
  await run("ip", "link", "set", "veth0", "up");
  await run("ip", "route", "add", "default", "via", GATEWAY[4]);
  await run("ip", "route", "add", "default", "via", GATEWAY[6]);
  return client;
}

/** What the trial of a device says: the device itself, offloads, queue, addresses, packets. */
import type { DeviceTrial } from "./device-trial.ts";
import type { Examination } from "./examination.ts";
import { ok, problem, unknown, type Verdict, warning } from "./finding.ts";

/** Gives the trial to `judge` where a device could be made. */
function withDevice(examination: Examination, judge: (trial: DeviceTrial) => Verdict): Verdict {
  const missing = ["addon", "device-node"].filter((name) => !examination.isFine(name));
  if (missing.length > 0) {
    return unknown(
      `It cannot be tried: ${missing.join(" and ")} must be ok first`,
      `follow the remedy of ${missing.join(" and ")}, then look again`,
    );
  }
  const { trial } = examination;
  if (trial === null) {
    return unknown(
      "It cannot be tried: this process has neither rights nor a namespace of its own",
      "follow the remedy of rights or namespaces, or look again as root",
    );
  }
  return judge(trial);
}

/** The same for what only a device can show. */
function withOpenDevice(examination: Examination, judge: (trial: DeviceTrial) => Verdict): Verdict {
  return withDevice(examination, (trial) =>
    trial.open === null
      ? judge(trial)
      : unknown("It cannot be tried: no TUN device could be made", "follow the remedy of device, then look again"),
  );
}

/** `device` */
export function lookAtDevice(examination: Examination): Verdict {
  return withDevice(examination, ({ open, apart }) => {
    if (open === null) return ok(`one was made ${apart ? "in a namespace of its own" : "here"} and taken away`);
    if (open === "EPERM" || open === "EACCES") {
      return problem(
        "right",
        `The kernel refuses to make a TUN device (${open})`,
        examination.isFine("rights")
          ? "allow it in the security module's policy (SELinux tun_socket, AppArmor)"
          : "run as root; user namespaces have no rights over networks here, which AppArmor and SELinux can do",
      );
    }
    if (open === "EINVAL") {
      return problem(
        "system",
        "The driver behind the device node does not make TUN devices (EINVAL)",
        "use Linux's own",
      );
    }
    return problem(
      "system",
      `No TUN device can be made: ${open}`,
      'look into the kernel log ("dmesg"), and try as root',
    );
  });
}

/** `offload` */
export function lookAtOffload(examination: Examination): Verdict {
  return withOpenDevice(examination, ({ vnetHeader, checksum, tso, uso }) => {
    if (tso && uso) return ok("checksums, TCP segmentation (TSO) and UDP segmentation (USO)");
    if (tso) return warning("The kernel has no UDP segmentation (USO); UDP costs more", "use Linux 6.2 or later");
    const upgrade = "use Linux's own TUN driver of a later kernel";
    if (checksum) return warning("The device has no segmentation (TSO); everything costs more", upgrade);
    return warning(
      `The device has no ${vnetHeader ? "offloads" : "virtio-net headers"}; everything costs more`,
      upgrade,
    );
  });
}

/** `queue` */
export function lookAtQueue(examination: Examination): Verdict {
  return withOpenDevice(examination, ({ queue, queueWanted }) => {
    if (queue === queueWanted) return ok(`${queue} packets fit into the device's queue`);
    const cause =
      typeof queue === "string" ? `The queue's length cannot be set (${queue})` : `The queue holds ${queue} packets`;
    return warning(
      `${cause}, not ${queueWanted}; bursts of new connections wait`,
      "set it where that is allowed: ip link set DEVICE txqueuelen 10000",
    );
  });
}

/** `packets` */
export function lookAtPackets(examination: Examination): Verdict {
  return withOpenDevice(examination, ({ apart, ipv4, packets }) => {
    if (!apart) {
      return unknown(
        "Addresses and packets cannot be tried without a namespace of their own",
        "follow the remedy of namespaces, or see what run says",
      );
    }
    if (ipv4 !== null) {
      return problem(
        "system",
        `An interface cannot be set up with IPv4 (${ipv4})`,
        "use a kernel with IPv4 routing, and a policy that allows netlink",
      );
    }
    if (packets === null) return ok("a datagram went through the device and came back");
    return problem(
      "system",
      `Packets do not pass: ${packets}`,
      "look for a firewall that filters new namespaces (nft)",
    );
  });
}

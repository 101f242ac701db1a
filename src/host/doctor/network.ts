/** Settings of this network namespace that `run` meets. */
import { errnoName } from "../../io/addon.ts";
import { tryUdpSocket } from "../udp-trial.ts";
import type { Examination } from "./examination.ts";
import { ok, unknown, type Verdict, warning } from "./finding.ts";

const LEAVE_OUT = "or leave IPv6 addresses and routes out";

/** `ipv6` */
export function lookAtIpv6(examination: Examination): Verdict {
  const { machine, addon } = examination;
  const settingOf = (scope: string): string | undefined =>
    machine.readText(`/proc/sys/net/ipv6/conf/${scope}/disable_ipv6`)?.trim();
  if (addon !== null) {
    const socket = tryUdpSocket(addon, { family: 6 });
    if (socket < 0) {
      return warning(
        `The kernel runs without IPv6 (${errnoName(socket)})`,
        `start it without ipv6.disable=1, ${LEAVE_OUT}`,
      );
    }
  }
  // A new interface starts with what `default` says.
  const off = ["all", "default"].filter((scope) => settingOf(scope) === "1");
  if (off.length > 0) {
    const names = off.map((scope) => `net.ipv6.conf.${scope}.disable_ipv6`);
    return warning(
      `IPv6 is switched off (sysctl ${names.join(", ")})`,
      `sysctl -w ${names.map((name) => `${name}=0`).join(" ")}, ${LEAVE_OUT}`,
    );
  }
  if (settingOf("default") === undefined) {
    return unknown("Whether IPv6 is on is not known: /proc/sys/net/ipv6 cannot be read", "mount /proc");
  }
  const error = examination.trial?.ipv6 ?? null;
  if (error !== null)
    return warning(`An interface cannot be set up with IPv6 (${error})`, `load what it lacks, ${LEAVE_OUT}`);
  return ok("IPv6 is on for new interfaces");
}

/** `rp-filter`: strict filtering drops what comes back when a rule, not the main table, led into the device. */
export function lookAtRpFilter({ machine }: Examination): Verdict {
  const [all, preset] = ["all", "default"].map((scope) =>
    machine.readText(`/proc/sys/net/ipv4/conf/${scope}/rp_filter`)?.trim(),
  );
  if (all === undefined || preset === undefined) {
    return unknown("The reverse path filter is not known: /proc/sys/net/ipv4 cannot be read", "mount /proc");
  }
  // Linux ip-sysctl: the larger of `all` and the interface's own value counts; 1 is strict.
  const value = Math.max(Number(all), Number(preset));
  if (value !== 1) return ok(value === 0 ? "no reverse path filter" : "the reverse path filter is loose");
  return warning(
    "The reverse path filter is strict (sysctl rp_filter=1): answers are dropped where `ip rule` leads into the device",
    "with such rules, sysctl -w net.ipv4.conf.DEVICE.rp_filter=2 once the device is there",
  );
}

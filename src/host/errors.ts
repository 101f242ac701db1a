/** What goes wrong while an interface, an address or a route is set up, told with cause and remedy. */
import { errnoName } from "../io/addon.ts";

/** Stable codes of {@link HostError}. */
export type HostErrorCode =
  | "HOST_PERMISSION"
  | "HOST_EXISTS"
  | "HOST_NO_DEVICE"
  | "HOST_UNREACHABLE"
  | "HOST_INVALID"
  | "HOST_IPV6_DISABLED"
  | "HOST_FAILED";

/** A change of the host's network set-up that the kernel refused, or that makes no sense. */
export class HostError extends Error {
  override readonly name = "HostError";
  /** Stable; the message is for people. */
  readonly code: HostErrorCode;
  /** The kernel's name for it, such as `EPERM`; null when the kernel was not asked. */
  readonly errno: string | null;

  constructor(code: HostErrorCode, message: string, errno: string | null = null) {
    super(message);
    this.code = code;
    this.errno = errno;
  }
}

interface Explanation {
  readonly code: HostErrorCode;
  readonly text: string;
}

const EXPLANATIONS: Readonly<Record<string, Explanation>> = {
  EPERM: {
    code: "HOST_PERMISSION",
    text: "CAP_NET_ADMIN is missing; run as root or give the container --cap-add NET_ADMIN",
  },
  EEXIST: { code: "HOST_EXISTS", text: "it is there already; remove it or end the other instance that made it" },
  ENODEV: { code: "HOST_NO_DEVICE", text: "there is no such interface in this network namespace; check the name" },
  ENXIO: { code: "HOST_NO_DEVICE", text: "there is no such interface in this network namespace; check the name" },
  ENETUNREACH: {
    code: "HOST_UNREACHABLE",
    text: "no route covers it; add an address or a route to the interface first",
  },
  ENETDOWN: { code: "HOST_UNREACHABLE", text: "the interface is down; bring it up first" },
  EHOSTUNREACH: { code: "HOST_UNREACHABLE", text: "a route makes it unreachable; remove that route first" },
  EINVAL: { code: "HOST_INVALID", text: "the kernel does not take this value; check its range" },
  ERANGE: { code: "HOST_INVALID", text: "the value is out of the range that this interface takes" },
  EACCES: {
    code: "HOST_IPV6_DISABLED",
    text: "IPv6 is disabled on the interface; set the sysctl net.ipv6.conf.all.disable_ipv6 to 0 or leave IPv6 out",
  },
  EOPNOTSUPP: {
    code: "HOST_FAILED",
    text: "the kernel lacks this; load or build in what is missing (IPv6, route tables)",
  },
  EAFNOSUPPORT: {
    code: "HOST_IPV6_DISABLED",
    text: "the kernel runs without IPv6; leave IPv6 addresses and routes out",
  },
  ESRCH: { code: "HOST_INVALID", text: "no such process or route; check the process id" },
};

/**
 * The error for a request that the kernel answered with `errno`.
 * @param what the request in a few words, with its value, such as `Cannot add address 10.0.0.1/24 to tun0`
 * @param errno positive errno
 */
export function hostError(what: string, errno: number): HostError {
  const name = errnoName(errno);
  const explanation = EXPLANATIONS[name] ?? { code: "HOST_FAILED", text: "the kernel refused it" };
  return new HostError(explanation.code, `${what}: ${explanation.text} (${name})`, name);
}

/** One look at the machine: what the checks share, so that nothing is tried twice. */
import { type Addon, isAddonProblem } from "../../io/addon.ts";
import { containerOf } from "./container.ts";
import type { DeviceTrial } from "./device-trial.ts";
import type { Finding } from "./finding.ts";
import type { Machine } from "./machine.ts";
import { findNamespace, type NamespaceWay, tryNamespace } from "./namespace.ts";
import { runTrial } from "./run-trial.ts";

/** What `run` wants by default. */
export interface Needs {
  /** Connections at a time. */
  readonly flows: number;
  /** Open files beside those of the connections. */
  readonly spareDescriptors: number;
  /** Memory for packets and what is buffered, bytes. */
  readonly memoryBytes: number;
}

export class Examination {
  readonly machine: Machine;
  readonly needs: Needs;
  /** What the machine is: such as `docker`, or null. */
  readonly container: string | null;
  readonly findings: Map<string, Finding> = new Map();
  #namespace: NamespaceWay | null = null;
  #trial: DeviceTrial | null = null;

  constructor(machine: Machine, needs: Needs) {
    this.machine = machine;
    this.needs = needs;
    this.container = containerOf(machine);
  }

  /** The addon, or null. */
  get addon(): Addon | null {
    return isAddonProblem(this.machine.addon) ? null : this.machine.addon;
  }

  /** Whether a check, made before, found what it looks for. */
  isFine(name: string): boolean {
    return this.findings.get(name)?.state === "ok";
  }

  /** How a network namespace can be made here. */
  get namespace(): NamespaceWay {
    this.#namespace ??= findNamespace(this.machine);
    return this.#namespace;
  }

  /**
   * What a throw-away device can do; asked after `rights`. It is made in a namespace of its own, which takes it away, or
   * if there is none right here, without address and state, for a moment.
   * @returns null where it cannot be made at all
   */
  get trial(): DeviceTrial | null {
    if (this.addon === null || !this.isFine("device-node")) return null;
    if (this.#trial !== null) return this.#trial;
    for (const prefix of this.#places()) {
      // A user namespace may be confined more than the process itself.
      this.#trial = runTrial(this.machine, prefix);
      if (this.#trial.open === null) break;
    }
    return this.#trial;
  }

  /** Where a device may be made, the best first: words before the command, null for this namespace. */
  *#places(): Generator<readonly string[] | null> {
    const { namespace } = this;
    if (this.isFine("rights")) {
      if (namespace.command !== null) yield namespace.command;
      yield null;
      return;
    }
    // Root without CAP_NET_ADMIN has no more rights in a plain network namespace; in a user namespace everybody has.
    const way = namespace.command !== null && !namespace.asUser ? tryNamespace(this.machine, true) : namespace;
    if (way.command !== null) yield way.command;
  }
}

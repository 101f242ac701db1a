/**
 * `tunrelay`: the parts joined. `tunrelay/stack`, `tunrelay/device` and `tunrelay/proxy` have each part by itself.
 *
 * @example
 * const addon = loadAddon();
 * if (isAddonProblem(addon)) throw new Error(addon.problem);
 * const device = openTun(addon, { name: "tun0" });
 * const { name, mtu } = device;
 * const txQueueLen = TX_QUEUE_PACKETS;
 * setUpInterface(addon, { name, mtu, txQueueLen, addresses: ["198.18.0.1/15"], routes: ["192.0.2.0/24"] });
 * const upstream = parseUpstream("direct://");
 * const engine = new Engine({ addon, device, upstream, serverAddresses: [], logger: SILENT });
 * engine.start();
 */
export {
  type Device,
  DeviceError,
  type DeviceErrorCode,
  openTun,
  type TunDevice,
  type TunOptions,
} from "./device/index.ts";
export { Engine, type EngineOptions, type EngineStats } from "./engine/engine.ts";
export { HostError, type HostErrorCode } from "./host/errors.ts";
export { type InterfaceSetup, setUpInterface, TX_QUEUE_PACKETS } from "./host/interface.ts";
export { type Addon, type AddonProblem, isAddonProblem, loadAddon } from "./io/addon.ts";
export { ProxyServer, type ProxyServerOptions, parseUpstream, type Upstream, UpstreamError } from "./proxy/index.ts";
export { type Logger, SILENT } from "./proxy/logger.ts";
export { formatAddress, type IpBytes, parseAddress } from "./stack/index.ts";

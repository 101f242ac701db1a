/** `tunrelay/device`: where packets come from. */
export type { Device, Offload } from "./device.ts";
export { DeviceError, type DeviceErrorCode } from "./errors.ts";
export { type OffloadLevel, openTun, TunDevice, type TunOptions } from "./tun.ts";

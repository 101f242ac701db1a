/** Stable codes of device failures. */
export type DeviceErrorCode =
  /** There is no TUN device node, or no driver behind it. */
  | "DEVICE_MISSING"
  /** No right to use the device node or to make an interface. */
  | "DEVICE_DENIED"
  /** The interface is in use by another program. */
  | "DEVICE_BUSY"
  /** The name is not one an interface can have. */
  | "DEVICE_NAME"
  /** The interface was deleted or the descriptor failed. */
  | "DEVICE_GONE"
  /** Anything else; the message has the system's error. */
  | "DEVICE_FAILED";

/** A device could not be opened, or is gone. The message names value, cause and remedy. */
export class DeviceError extends Error {
  override readonly name = "DeviceError";
  readonly code: DeviceErrorCode;

  constructor(code: DeviceErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
